//! The hub's promises in many orders of the steps of its threads: no wake is lost, no poll is
//! released twice, nothing waits for itself.
//!
//! `MODEL_ORDERS=100000 make models` tries more orders.

#![allow(clippy::unwrap_used)]

use pollgate_models::hub::channel::{ChannelName, Cursor, Payload, Position, Take, Time};
use pollgate_models::hub::{Answer, Hub, PollOutcome, Settings, Subscription, TableFull, Waiter};
use shuttle::future::block_on;
use shuttle::thread;

const NOW: Time = Time(1_700_000_000_000_000);

/// Runs a story in many orders, both evenly drawn and such as hold one thread back for long. A poll
/// that is never woken is a deadlock, which ends the run with the order that led to it.
fn in_many_orders(story: fn()) {
    let orders = std::env::var("MODEL_ORDERS").ok().map(|count| count.parse().unwrap());
    let orders = orders.unwrap_or(3_000);
    shuttle::check_random(story, orders / 2);
    shuttle::check_pct(story, orders / 2, 3);
}

fn hub(channels: usize) -> Hub {
    Hub::new(Settings { channels, ..Settings::default() }, 1)
}

fn name(text: &str) -> ChannelName {
    ChannelName::new(text).unwrap()
}

/// Publishes, wakes, and returns the number of released polls.
fn publish(hub: &Hub, channel: &str) -> usize {
    let posts = [(name(channel), Payload::text(String::from("news")))];
    let mut wake = hub.publish(&posts, NOW).unwrap().remove(0).wake;
    let released = wake.claim();
    while wake.notify(1) {}
    released
}

/// Makes sure that a channel exists, and returns its position.
fn begin(hub: &Hub, channel: &str) -> Cursor {
    publish(hub, channel);
    Cursor::At(position(hub, channel))
}

fn position(hub: &Hub, channel: &str) -> Position {
    hub.info(&name(channel), NOW).unwrap().newest.unwrap().0
}

fn try_poll(hub: &Hub, channels: &[(&str, Cursor)]) -> Result<PollOutcome, TableFull> {
    let subscription = |(channel, cursor): &(&str, Cursor)| {
        let channel = name(channel);
        Subscription { channel, cursor: *cursor }
    };
    let subscriptions: Vec<_> = channels.iter().map(subscription).collect();
    hub.poll(&subscriptions, Take::All, true, NOW)
}

fn poll(hub: &Hub, channels: &[(&str, Cursor)]) -> PollOutcome {
    try_poll(hub, channels).unwrap()
}

/// Waits as the gate does: until there is news, or the gate drains.
fn wait(waiter: &mut Waiter) -> Answer {
    loop {
        block_on(waiter.notified());
        if waiter.is_draining() {
            return waiter.finish(NOW);
        }
        if let Some(answer) = waiter.look(NOW) {
            return answer;
        }
    }
}

/// Polls from the cursors on until it is answered.
fn hear(hub: &Hub, channels: &[(&str, Cursor)]) -> Answer {
    match poll(hub, channels) {
        PollOutcome::Answer(answer) => answer,
        PollOutcome::Waiting(mut waiter) => wait(&mut waiter),
    }
}

fn messages(answer: &Answer) -> usize {
    answer.iter().map(|heard| heard.found.messages.len()).sum()
}

#[test]
fn a_poll_hears_a_publish_whenever_it_comes() {
    in_many_orders(|| {
        let hub = hub(10);
        let cursor = begin(&hub, "a");
        let publisher = thread::spawn({
            let hub = hub.clone();
            move || publish(&hub, "a")
        });
        assert_eq!(messages(&hear(&hub, &[("a", cursor)])), 1);
        publisher.join().unwrap();
        assert_eq!((hub.held(), hub.held_on(&name("a"))), (0, 0));
    });
}

#[test]
fn the_first_messages_of_a_channel_are_heard_whenever_they_come() {
    in_many_orders(|| {
        let hub = hub(10);
        let looked = |hub: &Hub, cursor| {
            let subscription = Subscription { channel: name("a"), cursor };
            hub.look(&[subscription], Take::All, NOW).unwrap()
        };
        let start = looked(&hub, Cursor::Now)[0].found.position;
        let publisher = thread::spawn({
            let hub = hub.clone();
            move || (publish(&hub, "a"), publish(&hub, "a"))
        });
        let canceller = thread::spawn({
            let hub = hub.clone();
            move || drop(try_poll(&hub, &[("a", Cursor::Now)]))
        });
        let mut heard = 0;
        let mut cursor = Cursor::At(start);
        while heard < 2 {
            for answer in [looked(&hub, cursor), hear(&hub, &[("a", cursor)])] {
                assert!(!answer[0].found.reset);
                if messages(&answer) > 0 {
                    heard += messages(&answer);
                    cursor = Cursor::At(answer[0].found.position);
                    break;
                }
            }
        }
        assert_eq!(heard, 2);
        publisher.join().unwrap();
        canceller.join().unwrap();
        assert_eq!((hub.held(), hub.waiting()), (0, (0, 0)));
    });
}

#[test]
fn a_poller_hears_every_message_once_and_in_order() {
    in_many_orders(|| {
        let hub = hub(10);
        let mut cursor = begin(&hub, "a");
        let Cursor::At(start) = cursor else { unreachable!() };
        let publish_two = |hub: Hub| move || (publish(&hub, "a"), publish(&hub, "a"));
        let publishers = [(); 2].map(|()| thread::spawn(publish_two(hub.clone())));
        let mut heard = Vec::new();
        while heard.len() < 4 {
            let answer = hear(&hub, &[("a", cursor)]);
            let found = &answer[0].found;
            assert!(!found.reset);
            heard.extend(found.messages.iter().map(|message| message.position.seq));
            cursor = Cursor::At(found.position);
        }
        assert_eq!(heard, (start.seq + 1..=start.seq + 4).collect::<Vec<_>>());
        for publisher in publishers {
            publisher.join().unwrap();
        }
    });
}

#[test]
fn a_poll_that_nobody_answers_meanwhile_is_released_once() {
    in_many_orders(|| {
        let hub = hub(10);
        let cursors = [("a", begin(&hub, "a")), ("b", begin(&hub, "b"))];
        let PollOutcome::Waiting(waiter) = poll(&hub, &cursors) else { unreachable!() };
        let publishers = ["a", "b"].map(|channel| {
            let hub = hub.clone();
            thread::spawn(move || publish(&hub, channel))
        });
        let released = publishers.map(|publisher| publisher.join().unwrap());
        assert_eq!(released.iter().sum::<usize>(), 1);
        drop(waiter);
    });
}

#[test]
fn a_ring_from_outside_and_a_publish_do_not_hide_each_other() {
    in_many_orders(|| {
        let hub = hub(10);
        let cursor = begin(&hub, "a");
        let PollOutcome::Waiting(mut waiter) = poll(&hub, &[("a", cursor)]) else { unreachable!() };
        let ringer = waiter.wake_handle();
        let outside = thread::spawn(move || ringer.notify());
        let publisher = thread::spawn({
            let hub = hub.clone();
            move || publish(&hub, "a")
        });
        assert_eq!(messages(&wait(&mut waiter)), 1);
        outside.join().unwrap();
        publisher.join().unwrap();
    });
}

#[test]
fn a_cancelled_poll_takes_nobody_else_off_its_channel() {
    in_many_orders(|| {
        let hub = hub(10);
        let mut cursor = begin(&hub, "a");
        let PollOutcome::Waiting(cancelled) = poll(&hub, &[("a", cursor)]) else { unreachable!() };
        let publisher = thread::spawn({
            let hub = hub.clone();
            move || (publish(&hub, "a"), publish(&hub, "a"))
        });
        let canceller = thread::spawn(move || drop(cancelled));
        let mut heard = 0;
        while heard < 2 {
            let answer = hear(&hub, &[("a", cursor)]);
            heard += messages(&answer);
            cursor = Cursor::At(answer[0].found.position);
        }
        publisher.join().unwrap();
        canceller.join().unwrap();
        assert_eq!((hub.held(), hub.held_on(&name("a"))), (0, 0));
    });
}

#[test]
fn a_drain_ends_every_poll_whenever_it_comes() {
    in_many_orders(|| {
        let hub = hub(10);
        let cursors = [("a", begin(&hub, "a")), ("b", begin(&hub, "b"))];
        let pollers = [(); 2].map(|()| {
            let hub = hub.clone();
            thread::spawn(move || messages(&hear(&hub, &cursors)))
        });
        hub.drain().clear();
        for poller in pollers {
            assert_eq!(poller.join().unwrap(), 0);
        }
        assert_eq!(hub.held(), 0);
    });
}

#[test]
fn a_forgotten_channel_lets_its_polls_go_whenever_that_comes() {
    in_many_orders(|| {
        let hub = hub(10);
        let cursor = begin(&hub, "a");
        let poller = thread::spawn({
            let hub = hub.clone();
            move || hear(&hub, &[("a", cursor)])
        });
        drop(hub.forget(&name("a")));
        assert!(poller.join().unwrap()[0].found.reset);
        assert_eq!(hub.held(), 0);
    });
}

#[test]
fn polls_publishes_cancels_and_evictions_never_wait_for_each_other() {
    in_many_orders(|| {
        // So small that every new channel pushes another one out. Where all are held there is no
        // room; that is an answer, too.
        let hub = hub(2);
        let cursor = begin(&hub, "a");
        let beside = |work: fn(&Hub, Cursor)| {
            let hub = hub.clone();
            thread::spawn(move || work(&hub, cursor))
        };
        let publisher = beside(|hub, _| {
            let posts = ["b", "c"].map(|channel| (name(channel), Payload::empty()));
            drop(hub.publish(&posts, NOW));
        });
        let canceller = beside(|hub, cursor| drop(try_poll(hub, &[("a", cursor)])));
        let forgetter = beside(|hub, _| drop(hub.forget(&name("b"))));
        let poller = beside(|hub, cursor| {
            if let Ok(PollOutcome::Waiting(mut waiter)) = try_poll(hub, &[("a", cursor)]) {
                wait(&mut waiter);
            }
        });
        publisher.join().unwrap();
        canceller.join().unwrap();
        forgetter.join().unwrap();
        hub.drain().clear();
        poller.join().unwrap();
        assert_eq!(hub.held(), 0);
        for channel in ["a", "b", "c"] {
            assert_eq!(hub.held_on(&name(channel)), 0);
        }
    });
}
