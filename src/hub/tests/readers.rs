//! Readers get positions from the table and wait on it, and never drive out what
//! writers stored.

use super::*;

fn at(text: &str, cursor: Cursor) -> [Subscription; 1] {
    [Subscription { channel: name(text), cursor }]
}

fn look(hub: &Hub, channel: &str, cursor: Cursor, now: Time) -> channel::Lookup {
    let mut answer = hub.look(&at(channel, cursor), Take::All, now).unwrap();
    answer.remove(0).found
}

fn later(micros: u64) -> Time {
    Time(NOW.0 + micros)
}

#[test]
fn a_poll_that_is_not_held_creates_nothing() {
    let hub = hub(10, 1 << 20);
    for number in 0..1_000 {
        assert!(!look(&hub, &format!("c{number}"), Cursor::Now, NOW).has_update);
    }
    assert_eq!((hub.channels(), hub.waiting()), (0, (0, 0)));
}

#[test]
fn the_cursor_of_a_channel_without_messages_sees_its_first_ones() {
    let hub = hub(10, 1 << 20);
    let first = look(&hub, "a", Cursor::Now, NOW);
    let quiet = look(&hub, "a", Cursor::At(first.position), later(9));
    assert!(!quiet.has_update && !quiet.reset);
    // In the very microsecond of the look.
    let quiet = look(&hub, "a", Cursor::At(quiet.position), later(20));
    let posts = [(name("a"), Payload::text("1")), (name("a"), Payload::text("2"))];
    drop(hub.publish(&posts, later(20)).unwrap());
    for position in [first.position, quiet.position] {
        let found = look(&hub, "a", Cursor::At(position), later(21));
        assert!(found.has_update && !found.reset);
        assert_eq!(found.messages.len(), 2);
        assert!(!look(&hub, "a", Cursor::At(found.position), later(22)).has_update);
    }
}

#[test]
fn a_clock_that_steps_back_hides_no_first_message() {
    let hub = hub(10, 1 << 20);
    let position = look(&hub, "a", Cursor::Now, NOW).position;
    drop(hub.publish(&[(name("a"), Payload::empty())], Time(5)).unwrap());
    let found = look(&hub, "a", Cursor::At(position), Time(6));
    assert_eq!((found.reset, found.messages.len()), (false, 1));
}

#[test]
fn a_position_from_before_a_life_that_is_over_is_reset() {
    let hub = hub(1, 1 << 20);
    let before = look(&hub, "a", Cursor::Now, NOW).position;
    drop(hub.publish(&[(name("a"), Payload::empty())], later(5)).unwrap());
    drop(hub.publish(&[(name("b"), Payload::empty())], later(6)).unwrap());
    assert!(hub.info(&name("a"), NOW).is_none(), "it was not evicted");
    assert!(look(&hub, "a", Cursor::At(before), later(7)).reset);
    let after = look(&hub, "a", Cursor::Now, later(8)).position;
    assert!(!look(&hub, "a", Cursor::At(after), later(9)).has_update);
    drop(hub.publish(&[(name("a"), Payload::empty())], later(10)).unwrap());
    assert!(look(&hub, "a", Cursor::At(before), later(11)).reset);
    assert!(!look(&hub, "a", Cursor::At(after), later(11)).reset);
}

#[test]
fn a_position_that_is_yet_to_come_is_reset() {
    let hub = hub(10, 1 << 20);
    let position = look(&hub, "a", Cursor::Now, NOW).position;
    let ahead = Position { seq: NOW.0 + 1_000_000, ..position };
    assert!(look(&hub, "a", Cursor::At(ahead), NOW).reset);
    let foreign = Position { epoch: Epoch::of_clock(77), ..position };
    assert!(look(&hub, "a", Cursor::At(foreign), NOW).reset);
}

#[test]
fn a_channel_that_polls_wait_on_goes_with_the_last_of_them() {
    let hub = hub(10, 1 << 20);
    let one = hold(&hub, &["a", "b"]);
    let other = hold(&hub, &["b"]);
    assert_eq!((hub.channels(), hub.waiting().0), (0, 2));
    drop(one);
    assert_eq!(hub.waiting().0, 1);
    assert_eq!(publish(&hub, "b", "1"), 1);
    assert_eq!((hub.channels(), hub.waiting()), (1, (0, 0)));
    drop(other);
    assert_eq!(hub.channels(), 1);
}

#[test]
fn a_poll_that_waits_gets_the_first_message_without_a_reset() {
    let hub = hub(10, 1 << 20);
    let mut waiter = hold(&hub, &["a", "b"]);
    publish(&hub, "b", "1");
    let answer = waiter.look(later(1)).unwrap();
    assert!(!answer[1].found.reset);
    assert_eq!(answer[1].found.messages.len(), 1);
}

#[test]
fn polls_never_keep_a_publish_out() {
    let settings = Settings { channels: 2, waiting: 100, ..Settings::default() };
    let hub = Hub::new(settings, 1);
    let names: Vec<String> = (0..100).map(|number| format!("w{number}")).collect();
    let _waiters: Vec<_> = names.iter().map(|one| hold(&hub, &[one])).collect();
    assert!(matches!(ask(&hub, &["one more"], true), Err(TableFull)));
    assert!(matches!(ask(&hub, &["one more"], false), Ok(PollOutcome::Answer(_))));
    for channel in ["a", "b"] {
        publish(&hub, channel, "1");
    }
    let _on_stored = (hold(&hub, &["a"]), hold(&hub, &["b"]));
    assert_eq!(publish(&hub, "c", "1"), 0);
    assert_eq!(publish(&hub, "w7", "1"), 1);
    assert_eq!(hub.channels(), 2);
}

#[test]
fn polls_on_several_channels_leave_half_of_the_room_to_the_others() {
    let settings = Settings { waiting: 10, ..Settings::default() };
    let hub = Hub::new(settings, 1);
    let _several = hold(&hub, &["1", "2", "3", "4", "5"]);
    assert!(ask(&hub, &["6", "7"], true).is_err());
    assert_eq!(hub.waiting().0, 5, "a refused poll left something behind");
    let _one = hold(&hub, &["6"]);
    let bytes = hub.waiting().1;
    hub.reconfigure(Settings { waiting_bytes: bytes + 10, ..Settings::default() }, NOW);
    assert!(ask(&hub, &["7"], true).is_err());
}

#[test]
fn empty_channels_make_room_first_and_those_that_keep_their_newest_last() {
    let hub = hub(3, 1 << 20);
    let keep = |text: &str| {
        drop(hub.seed(&name(text), Payload::text("file"), NOW, true, NOW).unwrap());
    };
    keep("kept");
    publish(&hub, "filled", "1");
    drop(hub.publish(&[(name("aged"), Payload::empty())], later(1)).unwrap());
    // The channel that was quiet for longest is young again, but for one published to long ago.
    let old = later(400_000_000);
    drop(hub.publish(&[(name("filled"), Payload::empty())], old).unwrap());
    hub.sweep(old);
    let there = |text: &str| hub.info(&name(text), old).is_some();
    drop(hub.publish(&[(name("new"), Payload::empty())], old).unwrap());
    assert!(!there("aged") && there("filled") && there("kept"));
    // Each a moment later, as any of those of one moment may go first.
    for number in 1..50 {
        let then = Time(old.0 + number);
        drop(hub.publish(&[(name(&format!("n{number}")), Payload::empty())], then).unwrap());
    }
    assert!(there("kept") && !there("filled"));
}

#[test]
fn memory_is_reclaimed_from_histories_and_positions_stay() {
    let hub = hub(10, 3_000);
    publish(&hub, "a", &"x".repeat(1_000));
    let end = hub.info(&name("a"), NOW).unwrap().newest.unwrap().0;
    publish(&hub, "b", &"x".repeat(2_500));
    assert!(hub.cost() <= 3_000);
    let found = look(&hub, "a", Cursor::At(end), NOW);
    assert!(!found.has_update, "a client that had everything was reset");
}

#[test]
fn a_forgotten_channel_resets_those_that_wait_also_before_its_first_message() {
    let hub = hub(10, 1 << 20);
    let mut waiter = hold(&hub, &["a"]);
    assert_eq!(hub.forget(&name("a")).unwrap().claim(), 1);
    assert!(waiter.look(later(1)).unwrap()[0].found.reset);
    drop(waiter);
    assert_eq!(hub.waiting(), (0, 0));
    assert!(hub.forget(&name("a")).is_none());
}

#[test]
fn another_process_goes_on_with_the_positions_of_channels_without_messages() {
    let old = hub(10, 1 << 20);
    let position = look(&old, "a", Cursor::Now, NOW).position;
    let new = hub(10, 1 << 20);
    let foreign = Hub::new(Settings::default(), 2);
    new.remember(old.memory());
    publish(&new, "a", "1");
    let found = look(&new, "a", Cursor::At(position), later(1));
    assert_eq!((found.reset, found.messages.len()), (false, 1));
    assert!(look(&foreign, "a", Cursor::At(position), later(1)).reset);
}
