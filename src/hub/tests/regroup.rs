//! Streams whose channels come and go.

use super::*;

fn at(text: &str, cursor: Cursor) -> Subscription {
    Subscription { channel: name(text), cursor }
}

fn bare(hub: &Hub) -> Waiter {
    hub.subscribe(&[], Take::All, NOW).unwrap().0
}

/// What a look finds, by channel, and moves the stream on.
fn read(waiter: &mut Waiter) -> Vec<(String, usize)> {
    let Some(answer) = waiter.look(NOW) else { return Vec::new() };
    for (index, update) in answer.iter().enumerate() {
        waiter.advance_to(index, update.found.position, update.found.stamp);
    }
    let news = answer.iter().filter(|update| update.found.has_update);
    news.map(|update| (update.channel.to_string(), update.found.messages.len())).collect()
}

#[test]
fn a_stream_without_channels_is_held_and_gets_nothing() {
    let hub = hub(10, 1 << 20);
    let mut waiter = bare(&hub);
    assert_eq!((hub.held(), hub.waiting().0), (1, 0));
    publish(&hub, "a", "1");
    assert!(waiter.look(NOW).is_none());
    drop(waiter);
    assert_eq!(hub.held(), 0);
}

#[test]
fn a_channel_that_is_added_is_followed_from_there() {
    let hub = hub(10, 1 << 20);
    let mut waiter = bare(&hub);
    publish(&hub, "a", "before");
    assert!(!waiter.add(&at("a", Cursor::Now), NOW).unwrap().found.has_update);
    let old = waiter.add(&at("b", Cursor::Now), NOW).unwrap();
    assert!(!old.found.has_update);
    publish(&hub, "a", "1");
    publish(&hub, "b", "1");
    publish(&hub, "b", "2");
    assert_eq!(read(&mut waiter), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    assert!(read(&mut waiter).is_empty());
}

#[test]
fn what_an_added_channel_has_is_found_until_the_stream_moves_on() {
    let hub = hub(10, 1 << 20);
    let mut waiter = bare(&hub);
    publish(&hub, "a", "1");
    publish(&hub, "a", "2");
    let update = waiter.add(&at("a", Cursor::Oldest), NOW).unwrap();
    assert_eq!(update.found.messages.len(), 2);
    assert_eq!(read(&mut waiter), [("a".to_owned(), 2)]);
    assert!(read(&mut waiter).is_empty());
}

#[test]
fn a_channel_that_is_removed_is_left_and_the_others_go_on() {
    let hub = hub(10, 1 << 20);
    let mut waiter = bare(&hub);
    for channel in ["a", "b", "c"] {
        waiter.add(&at(channel, Cursor::Now), NOW).unwrap();
    }
    assert_eq!(hub.waiting().0, 3);
    waiter.remove(0);
    assert_eq!(hub.waiting().0, 2);
    assert_eq!(publish(&hub, "a", "1"), 0);
    assert_eq!(publish(&hub, "c", "1"), 1);
    publish(&hub, "b", "1");
    assert_eq!(read(&mut waiter), [("b".to_owned(), 1), ("c".to_owned(), 1)]);
    // Out of range: nothing.
    waiter.remove(7);
    waiter.remove(1);
    waiter.remove(0);
    assert_eq!(hub.held(), 1);
    assert_eq!(hub.held_on(&name("b")) + hub.held_on(&name("c")), 0);
}

#[test]
fn a_table_without_room_leaves_the_stream_as_it_was() {
    let hub = Hub::new(Settings { waiting: 2, ..Settings::default() }, 1);
    let mut waiter = bare(&hub);
    waiter.add(&at("a", Cursor::Now), NOW).unwrap();
    // A stream on several channels may take half of it.
    assert_eq!(waiter.add(&at("b", Cursor::Now), NOW).unwrap_err(), TableFull);
    publish(&hub, "a", "1");
    assert_eq!(read(&mut waiter), [("a".to_owned(), 1)]);
}
