#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

const NOW: Time = Time(1_700_000_000_000_000);

fn hub(channels: usize, total: u64) -> Hub {
    Hub::new(Settings { channels, total, ..Settings::default() }, 1)
}

fn name(text: &str) -> ChannelName {
    ChannelName::new(text).unwrap()
}

fn ask(hub: &Hub, channels: &[&str], hold: bool) -> Result<Polled, Full> {
    let subscription = |text: &&str| Subscription { channel: name(text), cursor: Cursor::Now };
    let subscriptions: Vec<_> = channels.iter().map(subscription).collect();
    hub.poll(&subscriptions, Take::All, hold, NOW)
}

fn hold(hub: &Hub, channels: &[&str]) -> Waiter {
    match ask(hub, channels, true).unwrap() {
        Polled::Waiting(waiter) => waiter,
        Polled::Answer(answer) => panic!("not held: {answer:?}"),
    }
}

fn publish(hub: &Hub, channel: &str, text: &str) -> usize {
    let posts = [(name(channel), Payload::text(text.to_owned()))];
    hub.publish(&posts, NOW).unwrap().remove(0).wake.claim()
}

fn is_rung(waiter: &Waiter) -> bool {
    pin!(waiter.rung()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn a_poll_on_several_channels_is_released_once() {
    let hub = hub(10, 1 << 20);
    let _waiter = hold(&hub, &["a", "b"]);
    assert_eq!((publish(&hub, "a", "1"), publish(&hub, "b", "2")), (1, 0));
}

#[test]
fn a_ring_for_nothing_new_leaves_the_poll_held() {
    let hub = hub(10, 1 << 20);
    let mut waiter = hold(&hub, &["a", "b"]);
    // As if a publish it has already been answered with rang late.
    assert!(waiter.bell().claim());
    assert!(is_rung(&waiter) && waiter.look(NOW).is_none());
    assert_eq!(hub.held_on(&name("a")), 1);
    assert_eq!(publish(&hub, "b", "news"), 1);
    assert!(is_rung(&waiter));
    assert_eq!(waiter.look(NOW).unwrap()[1].found.messages.len(), 1);
}

#[test]
fn dropping_a_waiter_takes_it_off_every_channel() {
    let hub = hub(10, 1 << 20);
    let (first, second) = (hold(&hub, &["a", "b"]), hold(&hub, &["b"]));
    assert_eq!((hub.held(), hub.held_on(&name("a")), hub.held_on(&name("b"))), (2, 1, 2));
    drop(first);
    assert_eq!((hub.held(), hub.held_on(&name("a")), hub.held_on(&name("b"))), (1, 0, 1));
    // In another round the place may be taken by somebody else, who stays.
    publish(&hub, "b", "x");
    let third = hold(&hub, &["b"]);
    drop(second);
    assert_eq!(hub.held_on(&name("b")), 1);
    drop(third);
}

#[test]
fn the_least_recently_used_quiet_channel_makes_room() {
    let hub = hub(3, 1 << 20);
    let _held = hold(&hub, &["held"]);
    for (later, channel) in ["old", "young", "new"].into_iter().enumerate() {
        let posts = [(name(channel), Payload::empty())];
        drop(hub.publish(&posts, Time(NOW.0 + 1 + later as u64)).unwrap());
    }
    assert!(hub.info(&name("old"), NOW).is_none(), "the oldest quiet one stayed");
    assert!(hub.info(&name("held"), NOW).is_some() && hub.info(&name("young"), NOW).is_some());
}

#[test]
fn a_full_table_refuses_and_changes_nothing() {
    let hub = hub(2, 1 << 20);
    let _held = (hold(&hub, &["a"]), hold(&hub, &["b"]));
    assert!(matches!(ask(&hub, &["c"], true), Err(Full)));
    let posts = [(name("a"), Payload::empty()), (name("c"), Payload::empty())];
    assert!(hub.publish(&posts, NOW).is_err());
    assert_eq!(hub.info(&name("a"), NOW).unwrap().kept, 0, "half of a publish was kept");
}

#[test]
fn memory_stays_within_its_bound_even_if_polls_are_held_everywhere() {
    let hub = hub(10, 4_000);
    let _held = (hold(&hub, &["a"]), hold(&hub, &["b"]));
    for _ in 0..10 {
        publish(&hub, "a", &"x".repeat(1_000));
        publish(&hub, "b", &"x".repeat(1_000));
        let _again = (hold(&hub, &["a"]), hold(&hub, &["b"]));
        assert!(hub.cost() <= 4_000, "{}", hub.cost());
    }
}

#[test]
fn a_forgotten_channel_releases_its_polls_with_reset_and_has_a_new_epoch() {
    let hub = hub(10, 1 << 20);
    publish(&hub, "a", "1");
    let before = hub.info(&name("a"), NOW).unwrap().epoch;
    let mut waiter = hold(&hub, &["a"]);
    assert_eq!(hub.forget(&name("a")).unwrap().claim(), 1);
    assert!(hub.forget(&name("a")).is_none());
    let answer = waiter.look(NOW).unwrap();
    assert!(answer[0].found.reset && answer[0].found.messages.is_empty());
    assert_ne!(answer[0].found.position.epoch, before);
    assert_eq!(hub.cost(), 0);
}

#[test]
fn a_drain_rings_everybody_and_nobody_is_held_after_it() {
    let hub = hub(10, 1 << 20);
    let mut waiters = [hold(&hub, &["a"]), hold(&hub, &["a", "b"])];
    let released: usize = hub.drain().iter_mut().map(Wake::claim).sum();
    assert_eq!(released, 2);
    for waiter in &mut waiters {
        assert!(waiter.look(NOW).is_none() && waiter.is_draining());
        assert!(!waiter.finish(NOW)[0].found.news);
    }
    assert!(matches!(ask(&hub, &["a"], true), Ok(Polled::Answer(_))));
}

#[test]
fn a_given_position_is_taken_only_if_it_is_the_next() {
    let hub = hub(10, 1 << 20);
    let epoch = Epoch::from_random(7);
    let mut waiter = hold(&hub, &["a"]);
    drop(hub.restart(&name("a"), epoch, NOW).unwrap());
    assert!(waiter.look(NOW).unwrap()[0].found.reset);
    let message = |seq| Message {
        position: crate::channel::Position { epoch, seq },
        stamp: crate::channel::Stamp(seq),
        published: NOW,
        payload: Payload::text(seq.to_string()),
    };
    let accept = |seq| hub.accept(&name("a"), message(seq), NOW).unwrap().0;
    assert!(matches!(accept(2), Accepted::Gap));
    assert!(matches!(accept(1), Accepted::Stored(_)));
    assert!(matches!(accept(1), Accepted::Known));
    assert!(matches!(accept(2), Accepted::Stored(_)));
    assert_eq!(hub.info(&name("a"), NOW).unwrap().kept, 2);
}

#[test]
fn new_settings_trim_existing_channels() {
    let hub = hub(10, 1 << 20);
    for text in ["1", "2", "3"] {
        publish(&hub, "a", text);
        publish(&hub, text, "x");
    }
    let limits = Arc::new(Limits { messages: 1, ..Limits::default() });
    hub.reconfigure(Settings { channels: 2, limits, ..Settings::default() }, NOW);
    assert_eq!(hub.channels(), 2);
    assert!(hub.info(&name("a"), NOW).is_none_or(|info| info.kept == 1));
}

#[test]
fn a_page_goes_on_where_the_last_one_ended() {
    let hub = hub(100, 1 << 20);
    for number in 0..25 {
        publish(&hub, &format!("c{number:02}"), "x");
    }
    let names = |infos: &[Info]| infos.iter().map(|i| i.channel.to_string()).collect::<Vec<_>>();
    let (first, more) = hub.list(None, 10, NOW);
    assert!(more && names(&first).first().unwrap() == "c00" && first.len() == 10);
    let (last, more) = hub.list(Some("c19"), 10, NOW);
    assert_eq!(
        (names(&last), more),
        (vec!["c20".to_owned(), "c21".into(), "c22".into(), "c23".into(), "c24".into()], false)
    );
}

#[test]
fn the_busiest_channels_come_first() {
    let hub = hub(10, 1 << 20);
    let _waiters = [hold(&hub, &["a"]), hold(&hub, &["b"]), hold(&hub, &["b"])];
    for (channel, messages) in [("c", 2), ("d", 3), ("e", 1)] {
        for _ in 0..messages {
            publish(&hub, channel, "1");
        }
    }
    let busiest = hub.busiest(4, NOW).into_iter().map(|info| (info.channel.to_string(), info.held));
    let wanted = [("b", 2), ("a", 1), ("d", 0), ("c", 0)];
    assert_eq!(busiest.collect::<Vec<_>>(), wanted.map(|(name, held)| (name.to_owned(), held)));
    assert!(hub.busiest(0, NOW).is_empty());
}

#[test]
fn a_seed_is_stamped_with_its_own_time_and_never_hides_a_newer_message() {
    let hub = hub(10, 1 << 20);
    let before = Time(NOW.0 - 3_600_000_000);
    let seed = |text: &str, at| {
        let seeded = hub.seed(&name("a"), Payload::text(text.to_owned()), at, true, NOW).unwrap();
        seeded.map(|published| published.message.stamp.0)
    };
    assert_eq!(seed("old", before), Some(before.0));
    assert_eq!(seed("the same", before), None);
    assert_eq!(seed("newer", Time(before.0 + 1)), Some(before.0 + 1));
    publish(&hub, "a", "live");
    assert_eq!(seed("late", Time(before.0 + 2)), None);
    // A time to come is as of now.
    assert_eq!(seed("from the future", Time(NOW.0 + 9_000_000)), None);
    // It never ages out, as it still stands in the file.
    hub.sweep(Time(NOW.0 + 86_400_000_000));
    let subscription = Subscription { channel: name("a"), cursor: Cursor::Oldest };
    let heard = hub.read(&subscription, Take::All, Time(NOW.0 + 86_400_000_000)).unwrap();
    assert_eq!(heard.found.messages.len(), 1);
}
