//! The bounded queue of one webhook.

use super::Event;
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// See the [module](self).
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event>,
    /// The weight of all of them.
    weight: usize,
}

/// What fits: a number of events, and their weight in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) events: usize,
    pub(super) weight: usize,
}

impl Queue {
    /// Adds an event; false if there is no room for it.
    pub(super) fn push(&self, event: Event, room: Room) -> bool {
        let mut waiting = self.waiting.lock();
        let weight = waiting.weight + event.weight();
        if waiting.events.len() >= room.events || weight > room.weight {
            return false;
        }
        waiting.weight = weight;
        waiting.events.push_back(event);
        let first = waiting.events.len() == 1;
        drop(waiting);
        if first {
            self.filled.notify_one();
        }
        true
    }

    /// Waits until there is an event.
    pub(super) async fn filled(&self) {
        while self.is_empty() {
            self.filled.notified().await;
        }
    }

    /// The oldest events that fit into `room`, one at least. They stay here until they are [taken
    /// off](Self::take_off), so that none is forgotten that was not sent.
    pub(super) fn oldest(&self, room: Room) -> Vec<Event> {
        let mut weight = 0;
        let mut fits = |(index, event): &(usize, &Event)| {
            weight += event.weight();
            *index == 0 || weight <= room.weight
        };
        let waiting = self.waiting.lock();
        let oldest = waiting.events.iter().take(room.events).enumerate();
        oldest.take_while(|one| fits(one)).map(|(_, event)| event.clone()).collect()
    }

    /// Takes the `count` oldest events off; returns how many there still were.
    pub(super) fn take_off(&self, count: usize) -> usize {
        let mut waiting = self.waiting.lock();
        let Waiting { events, weight } = &mut *waiting;
        let count = count.min(events.len());
        *weight -= events.drain(..count).map(|event| event.weight()).sum::<usize>();
        count
    }

    /// Empties the queue; returns the number of its events.
    pub(super) fn clear(&self) -> usize {
        self.take_off(usize::MAX)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.lock().events.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::event::{Detail, Sent};
    use super::super::{Event, EventName};
    use super::*;
    use crate::hub::channel::ChannelName;
    use std::sync::Arc;

    fn event(weight: usize) -> Event {
        let data = "x".repeat(weight).into();
        let sent = Sent { event: "".into(), data, socket: "".into() };
        let detail = Detail::Sent(Arc::new(sent));
        let channel = ChannelName::new("shop/a").unwrap();
        Event { name: EventName::ClientEvent, channel, user: None, detail }
    }

    #[test]
    fn heavy_events_are_bounded_by_their_sum_and_never_wait_for_ever() {
        let queue = Queue::default();
        let room = Room { events: 10, weight: 100 };
        assert!(queue.push(event(60), room) && queue.push(event(40), room));
        assert!(!queue.push(event(1), room) && queue.push(event(0), room));
        let batch = Room { events: 10, weight: 50 };
        assert_eq!(queue.oldest(batch).len(), 1, "heavier than a request, and sent alone");
        assert_eq!(queue.take_off(1), 1);
        assert_eq!(queue.oldest(batch).len(), 2);
        assert!(queue.push(event(60), room) && !queue.push(event(1), room));
        assert_eq!(queue.clear(), 3);
        assert!(queue.push(event(100), room));
    }
}
