#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::hub::channel::{Epoch, Position, SiteName, Snapshot, Stamp, Start, SyncRequest, Take};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

mod following;
mod interest;
mod readers;
mod regroup;

const NOW: Time = Time(1_700_000_000_000_000);

fn hub(channels: usize, total: u64) -> Hub {
    Hub::new(Settings { channels, total, ..Settings::default() }, 1)
}

fn name(text: &str) -> ChannelName {
    ChannelName::new(text).unwrap()
}

fn ask(hub: &Hub, channels: &[&str], hold: bool) -> Result<PollOutcome, TableFull> {
    let subscription = |text: &&str| Subscription { channel: name(text), cursor: Cursor::Now };
    let subscriptions: Vec<_> = channels.iter().map(subscription).collect();
    hub.poll(&subscriptions, Take::All, hold, NOW)
}

fn hold(hub: &Hub, channels: &[&str]) -> Waiter {
    match ask(hub, channels, true).unwrap() {
        PollOutcome::Waiting(waiter) => waiter,
        PollOutcome::Answer(answer) => panic!("not held: {answer:?}"),
    }
}

fn publish(hub: &Hub, channel: &str, text: &str) -> usize {
    let posts = [(name(channel), Payload::text(text.to_owned()))];
    hub.publish(&posts, NOW).unwrap().remove(0).wake.claim()
}

fn is_notified(waiter: &Waiter) -> bool {
    pin!(waiter.notified()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
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
    // As if the wake of a publish it was already answered with came late.
    assert!(waiter.notifier.claim());
    assert!(is_notified(&waiter) && waiter.look(NOW).is_none());
    assert_eq!(hub.held_on(&name("a")), 1);
    assert_eq!(publish(&hub, "b", "news"), 1);
    assert!(is_notified(&waiter));
    assert_eq!(waiter.look(NOW).unwrap()[1].found.messages.len(), 1);
}

#[test]
fn dropping_a_waiter_takes_it_off_every_channel() {
    let hub = hub(10, 1 << 20);
    let first = hold(&hub, &["a", "b"]);
    let second = hold(&hub, &["b"]);
    assert_eq!((hub.held(), hub.held_on(&name("a")), hub.held_on(&name("b"))), (2, 1, 2));
    drop(first);
    assert_eq!((hub.held(), hub.held_on(&name("a")), hub.held_on(&name("b"))), (1, 0, 1));
    // In another round the key may belong to another waiter, which stays.
    publish(&hub, "b", "x");
    let third = hold(&hub, &["b"]);
    drop(second);
    assert_eq!(hub.held_on(&name("b")), 1);
    drop(third);
}

#[test]
fn the_least_recently_used_quiet_channel_makes_room() {
    let hub = hub(3, 1 << 20);
    publish(&hub, "held", "1");
    let _held = hold(&hub, &["held"]);
    for (later, channel) in ["old", "young", "new"].into_iter().enumerate() {
        let posts = [(name(channel), Payload::empty())];
        drop(hub.publish(&posts, Time(NOW.0 + 1 + later as u64)).unwrap());
    }
    assert!(hub.info(&name("old"), NOW).is_none(), "the oldest quiet one stayed");
    assert!(hub.info(&name("held"), NOW).is_some() && hub.info(&name("young"), NOW).is_some());
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
    let released: usize = hub.drain().iter_mut().map(WakeSet::claim).sum();
    assert_eq!(released, 2);
    for waiter in &mut waiters {
        assert!(waiter.look(NOW).is_none() && waiter.is_draining());
        assert!(!waiter.finish(NOW)[0].found.has_update);
    }
    assert!(matches!(ask(&hub, &["a"], true), Ok(PollOutcome::Answer(_))));
}

/// A replica table that records the sync requests of its channels.
fn replica() -> (Hub, Arc<Mutex<Vec<SyncRequest>>>) {
    let wants: Arc<Mutex<Vec<SyncRequest>>> = Arc::default();
    let told = wants.clone();
    (Hub::replica(Settings::default(), 1, Arc::new(move |_, want| told.lock().push(want))), wants)
}

fn message(epoch: u64, seq: u64) -> Message {
    Message {
        position: Position { epoch: Epoch::from_random(epoch), seq },
        stamp: Stamp(NOW.0 + seq),
        tag: 0,
        published: NOW,
        payload: Payload::text(seq.to_string()),
    }
}

fn snapshot(messages: Vec<Message>) -> Snapshot {
    let clock = Position { epoch: Epoch::of_clock(1), seq: NOW.0 };
    let place = messages.last().map(|message| Start {
        position: message.position,
        stamp: message.stamp,
        floor: Stamp(0),
    });
    Snapshot { clock, place, messages }
}

fn go_live(hub: &Hub, messages: Vec<Message>) {
    hub.confirmed(&name("a"));
    let (number, _) = hub.read_begins(&name("a")).unwrap();
    drop(hub.read_ends(&name("a"), number, snapshot(messages), NOW));
}

fn held_at(hub: &Hub, cursor: Cursor) -> Waiter {
    let subscription = Subscription { channel: name("a"), cursor };
    match hub.poll(&[subscription], Take::All, true, NOW).unwrap() {
        PollOutcome::Waiting(waiter) => waiter,
        PollOutcome::Answer(answer) => panic!("not held: {answer:?}"),
    }
}

#[test]
fn a_poll_on_a_channel_that_is_not_live_is_held_and_answered_when_it_is() {
    let (hub, wants) = replica();
    let mut at_two = held_at(&hub, Cursor::At(message(1, 2).position));
    let mut lost = held_at(&hub, Cursor::At(message(9, 2).position));
    assert!(at_two.is_unresolved() && at_two.look(NOW).is_none());
    assert_eq!(*wants.lock(), [SyncRequest::Join]);
    go_live(&hub, vec![message(1, 2), message(1, 3)]);
    let answer = at_two.look(NOW).unwrap();
    assert!(!answer[0].found.reset && answer[0].found.messages.len() == 1);
    assert!(lost.look(NOW).unwrap()[0].found.reset);
}

#[test]
fn a_cursor_ahead_of_a_live_channel_waits_for_one_read_and_is_reset_only_after_it() {
    let (hub, wants) = replica();
    drop(held_at(&hub, Cursor::Oldest));
    go_live(&hub, vec![message(1, 1)]);
    wants.lock().clear();
    let mut ahead = [
        held_at(&hub, Cursor::At(message(1, 2).position)),
        held_at(&hub, Cursor::At(message(1, 7).position)),
    ];
    assert_eq!(*wants.lock(), [SyncRequest::Read]);
    let (number, position) = hub.read_begins(&name("a")).unwrap();
    assert_eq!(position.seq, 1);
    drop(hub.read_ends(&name("a"), number, snapshot(vec![message(1, 2)]), NOW));
    assert!(ahead[0].look(NOW).is_none(), "it is where the channel is");
    assert!(ahead[1].look(NOW).unwrap()[0].found.reset);
    assert!(hub.pushed(&name("a"), message(1, 3), NOW).stored);
    assert_eq!(ahead[0].look(NOW).unwrap()[0].found.messages[0].position.seq, 3);
}

#[test]
fn a_quiet_answer_of_a_channel_that_is_not_live_has_the_same_cursor() {
    let (hub, _) = replica();
    let position = message(1, 2).position;
    assert_eq!(held_at(&hub, Cursor::At(position)).finish(NOW)[0].found.position, position);
    assert_eq!(held_at(&hub, Cursor::Now).finish(NOW)[0].found.position, Position::NOWHERE);
}

#[test]
fn a_stamp_ahead_of_what_is_here_is_not_answered_with_what_its_client_has() {
    let (hub, _) = replica();
    drop(held_at(&hub, Cursor::Oldest));
    go_live(&hub, vec![message(1, 1)]);
    let mut waiter = held_at(&hub, Cursor::After(Stamp(NOW.0 - 1 + 2)));
    drop(hub.pushed(&name("a"), message(1, 2), Time(NOW.0 + 9)));
    let found = waiter.look(Time(NOW.0 + 9)).unwrap();
    assert_eq!(found[0].found.messages.len(), 1);
    let mut waiter = held_at(&hub, Cursor::After(Stamp(NOW.0 + 3)));
    assert!(!waiter.is_unresolved());
    drop(hub.pushed(&name("a"), message(1, 3), Time(NOW.0 + 9)));
    assert!(waiter.look(Time(NOW.0 + 9)).is_none());
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
    let (first, more) = hub.list(&SiteName::NONE, None, 10, NOW);
    assert!(more && names(&first).first().unwrap() == "c00" && first.len() == 10);
    let (last, more) = hub.list(&SiteName::NONE, Some("c19"), 10, NOW);
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
    // A time in the future counts as now.
    assert_eq!(seed("from the future", Time(NOW.0 + 9_000_000)), None);
    // After a crash it counts from the newest message that is left.
    let after = Hub::new(Settings::default(), 1);
    let trace = hub.traces().next().unwrap();
    let of = |message: &Arc<crate::hub::channel::Message>| crate::hub::channel::KeptMessage {
        stamp: message.stamp,
        published: message.published,
        payload: message.payload.clone(),
    };
    let messages = trace.messages.iter().map(|message| Ok::<_, TableFull>(of(message)));
    let place = (&trace.channel, trace.used, &trace.kept);
    let count = trace.messages.len() as u64;
    let at = Time(NOW.0 + 1_000_000);
    let later = Time(NOW.0 + 2_000_000);
    after.restore(place, (count, messages), true, later).unwrap();
    let seed = |at| after.seed(&name("a"), Payload::text("file"), at, true, later).unwrap();
    assert!(seed(NOW).is_none());
    assert!(seed(at).is_some());
    // It never ages out, as it still stands in the file.
    hub.sweep(Time(NOW.0 + 86_400_000_000));
    let subscription = Subscription { channel: name("a"), cursor: Cursor::Oldest };
    let update = hub.read(&subscription, Take::All, Time(NOW.0 + 86_400_000_000)).unwrap();
    assert_eq!(update.found.messages.len(), 1);
}
