//! Items as they were read from their messages.
//!
//! A message wakes its holds one after the other, on few threads. So each thread keeps the items it
//! has read last: a message is parsed once for all of its holds, and they share its content.

use crate::hub::channel::Message;
use crate::protocol::grip::Item;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// Items that a thread keeps.
const MAX_KEPT: usize = 8;

/// A longer message is parsed for each hold: those that are kept outlive their messages by a while.
const MAX_BYTES: u64 = 64 << 10;

/// A message and the item that it holds, if it holds one.
struct Read {
    message: Weak<Message>,
    item: Option<Arc<Item>>,
}

thread_local! {
    static READ: RefCell<VecDeque<Read>> = const { RefCell::new(VecDeque::new()) };
}

/// The item that `message` holds; `None` = it holds none.
pub(super) fn of(message: &Arc<Message>) -> Option<Arc<Item>> {
    READ.with_borrow_mut(|read| {
        // No other message takes the place of one in memory that is still known here.
        let known = |one: &&Read| one.message.as_ptr() == Arc::as_ptr(message);
        if let Some(Read { item, .. }) = read.iter().find(known) {
            return item.clone();
        }
        let item = Item::of(&message.payload.body).map(Arc::new);
        if message.len() <= MAX_BYTES {
            read.truncate(MAX_KEPT - 1);
            read.push_front(Read { message: Arc::downgrade(message), item: item.clone() });
        }
        item
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hub::Hub;
    use crate::hub::channel::{ChannelName, Payload, Time};

    fn publish(hub: &Hub, body: String) -> Arc<Message> {
        let name = ChannelName::new("grip/a").unwrap();
        let published = hub.publish(&[(name, Payload::text(body))], Time(1_000_000)).unwrap();
        published[0].message.clone()
    }

    fn body(id: &str, length: usize) -> String {
        let content = "x".repeat(length);
        format!(
            "{{\"id\":\"{id}\",\"formats\":{{\"http-stream\":{{\"content\":{{\"text\":\"{content}\"}}}}}}}}"
        )
    }

    #[test]
    fn a_message_is_parsed_once_and_its_holds_share_its_content() {
        let hub = Hub::new(crate::hub::Settings::default(), 1);
        let messages: Vec<_> = (0..5).map(|n| publish(&hub, body(&n.to_string(), 3))).collect();
        for _ in 0..2 {
            for (index, message) in messages.iter().enumerate() {
                let items = [of(message).unwrap(), of(message).unwrap()];
                assert!(Arc::ptr_eq(&items[0], &items[1]));
                assert_eq!(items[0].id, Some(index.to_string()));
                let stream = items.map(|item| item.formats.http_stream.clone().unwrap());
                let bytes = stream.map(|stream| stream.content.unwrap().bytes());
                assert_eq!((&bytes[0][..], bytes[0].as_ptr()), (&b"xxx"[..], bytes[1].as_ptr()));
            }
        }
        assert!(of(&publish(&hub, "no item".to_owned())).is_none());
    }

    #[test]
    fn a_thread_keeps_a_few_items_and_no_long_one() {
        let hub = Hub::new(crate::hub::Settings::default(), 1);
        for number in 0..3 * MAX_KEPT {
            let message = publish(&hub, body(&number.to_string(), 3));
            assert_eq!(of(&message).unwrap().id, Some(number.to_string()));
        }
        assert_eq!(READ.with_borrow(VecDeque::len), MAX_KEPT);
        let long = publish(&hub, body("long", MAX_BYTES as usize));
        assert!(!Arc::ptr_eq(&of(&long).unwrap(), &of(&long).unwrap()));
    }
}
