//! Waiters that want some of a channel's messages.

use super::*;
use crate::hub::{Interest, TopicPattern};
use proptest::prelude::*;
use std::collections::VecDeque;

/// Topics that begin with a text.
#[derive(Debug)]
struct Beginning(String);

impl TopicPattern for Beginning {
    fn text(&self) -> &str {
        &self.0
    }

    fn matches(&self, topic: &str) -> bool {
        topic.starts_with(&self.0)
    }
}

/// Of a message that is its topics, line by line. A topic that ends in `*` is a pattern.
fn interest(topics: &[&str]) -> Interest {
    let exact = topics.iter().filter(|topic| !topic.ends_with('*'));
    let patterns = topics.iter().filter(|topic| topic.len() > 1);
    let patterns = patterns.filter_map(|topic| topic.strip_suffix('*'));
    let pattern = |text: &str| Arc::new(Beginning(text.to_owned())) as Arc<dyn TopicPattern>;
    Interest {
        all: topics.contains(&"*"),
        exact: exact.map(|topic| Interest::hash(topic)).collect(),
        patterns: patterns.map(pattern).collect(),
        topics: |payload, show| {
            let text = std::str::from_utf8(&payload.body).unwrap();
            text.lines().take_while(|line| !line.is_empty()).for_each(show);
        },
    }
}

fn select(hub: &Hub, topics: &[&str], cursor: Cursor) -> (Waiter, Answer) {
    let subscription = Subscription { channel: name("a"), cursor };
    let (mut waiter, found) =
        hub.subscribe_selectively(&subscription, interest(topics), NOW).unwrap();
    waiter.advance(0, &found[0].found);
    (waiter, found)
}

/// Publishes a message on these topics; the number of waiters that it wakes.
fn tell(hub: &Hub, topics: &str) -> usize {
    let published = hub.publish(&[(name("a"), Payload::text(topics.to_owned()))], NOW).unwrap();
    published.into_iter().map(|mut one| one.wake.claim()).sum()
}

/// What a waiter reads and takes.
fn read(waiter: &mut Waiter) -> Option<(bool, Vec<String>)> {
    // A task would be woken by now.
    let _ = is_notified(waiter);
    let found = waiter.look(NOW)?;
    waiter.advance(0, &found[0].found);
    Some((found[0].found.reset, bodies(&found)))
}

fn bodies(found: &Answer) -> Vec<String> {
    let text = |message: &Arc<Message>| String::from_utf8(message.payload.body.to_vec()).unwrap();
    found[0].found.messages.iter().map(text).collect()
}

#[test]
fn a_message_wakes_those_that_want_it_and_no_others() {
    let hub = hub(10, 1 << 20);
    let wanted = [&["x"][..], &["y", "z"], &["x*"], &["x*", "y"], &["*"], &["none"]];
    let mut waiters: Vec<_> =
        wanted.iter().map(|topics| select(&hub, topics, Cursor::Now).0).collect();
    assert_eq!(hub.held_on(&name("a")), 6);
    for (topics, woken) in [
        ("x", vec![0, 2, 3, 4]),
        ("xy", vec![2, 3, 4]),
        ("z\ny", vec![1, 3, 4]),
        ("other", vec![4]),
        ("", vec![0, 1, 2, 3, 4, 5]),
    ] {
        assert_eq!(tell(&hub, topics), woken.len(), "{topics:?}");
        for (index, waiter) in waiters.iter_mut().enumerate() {
            let expected = woken.contains(&index).then(|| (false, vec![topics.to_owned()]));
            assert_eq!(read(waiter), expected, "{topics:?} {index}");
        }
    }
    waiters.truncate(1);
    assert_eq!((tell(&hub, "y"), hub.held_on(&name("a"))), (0, 1));
    drop(waiters);
    assert_eq!(hub.held_on(&name("a")), 0);
}

#[test]
fn messages_for_others_are_no_gap_and_one_that_is_missing_is() {
    let limits = Limits { messages: 2, ..Limits::default() };
    let hub = Hub::new(Settings { limits: Arc::new(limits), ..Settings::default() }, 1);
    let (mut waiter, _) = select(&hub, &["x"], Cursor::Now);
    for _ in 0..10 {
        assert_eq!(tell(&hub, "y"), 0);
    }
    assert_eq!(read(&mut waiter), None);
    assert_eq!(tell(&hub, "x"), 1);
    assert_eq!(read(&mut waiter), Some((false, vec!["x".to_owned()])));
    assert_eq!(tell(&hub, "x\n\n1"), 1);
    for _ in 0..2 {
        assert_eq!(tell(&hub, "y"), 0);
    }
    let (reset, _) = read(&mut waiter).unwrap();
    assert!(reset, "its message has gone");
    assert_eq!(read(&mut waiter), None);
}

#[test]
fn what_was_read_and_not_sent_is_read_again() {
    let hub = hub(10, 1 << 20);
    let (mut waiter, _) = select(&hub, &["x"], Cursor::Now);
    for number in 0..3 {
        tell(&hub, &format!("x\n\n{number}"));
    }
    let found = waiter.look(NOW).unwrap();
    let first = found[0].found.messages.first().unwrap();
    waiter.advance_to(0, first.position, first.stamp);
    // Nothing has come since, and there is more for it.
    let (_, rest) = read(&mut waiter).unwrap();
    assert_eq!(rest, ["x\n\n1", "x\n\n2"]);
    assert_eq!(read(&mut waiter), None);
}

#[test]
fn a_channel_that_is_forgotten_resets_those_that_want_some_of_it() {
    let hub = hub(10, 1 << 20);
    tell(&hub, "x");
    let (mut waiter, _) = select(&hub, &["x"], Cursor::Now);
    assert_eq!(hub.forget(&name("a")).unwrap().claim(), 1);
    assert_eq!(read(&mut waiter), Some((true, Vec::new())));
    assert_eq!(tell(&hub, "y"), 0);
    assert_eq!(tell(&hub, "x"), 1);
    assert_eq!(read(&mut waiter), Some((false, vec!["x".to_owned()])));
}

#[test]
fn a_drain_wakes_those_that_want_some() {
    let hub = hub(10, 1 << 20);
    let (waiter, _) = select(&hub, &["x"], Cursor::Now);
    assert_eq!(hub.drain().iter_mut().map(WakeSet::claim).sum::<usize>(), 1);
    assert!(waiter.is_draining());
}

#[test]
fn patterns_without_room_wake_their_waiters_for_every_message() {
    let hub = hub(10, 1 << 20);
    let mut waiters: Vec<_> =
        (0..1000).map(|number| select(&hub, &[&format!("p{number}/*")], Cursor::Now).0).collect();
    // Those that are known are shared.
    waiters.push(select(&hub, &["p7/*"], Cursor::Now).0);
    assert_eq!(tell(&hub, "p7/x"), 2);
    waiters.push(select(&hub, &["q/*"], Cursor::Now).0);
    assert_eq!(tell(&hub, "other"), 1);
    drop(waiters);
    let (_few, _) = select(&hub, &["q/*"], Cursor::Now);
    assert_eq!((tell(&hub, "other"), tell(&hub, "q/")), (0, 1));
}

proptest! {
    #[test]
    fn each_gets_all_that_it_wants_once_and_in_order(
        steps in proptest::collection::vec((0..4u8, 0..6usize, 0..6u8), 1..120),
    ) {
        let limits = Limits { messages: 1000, ..Limits::default() };
        let hub = Hub::new(Settings { limits: Arc::new(limits), ..Settings::default() }, 1);
        let wants = [&["a"][..], &["b", "c"], &["a*"], &["*"], &["ab", "b*"], &["d"]];
        let wanted = |index: usize, topic: &str| wants[index].iter().any(|want| {
            match want.strip_suffix('*') {
                Some(beginning) => topic.starts_with(beginning),
                None => *want == topic,
            }
        });
        let mut waiters: Vec<Option<(Waiter, VecDeque<String>)>> = (0..6).map(|_| None).collect();
        for (number, (step, index, topic)) in steps.into_iter().enumerate() {
            match step {
                0 => {
                    waiters[index] = match waiters[index].take() {
                        Some(_) => None,
                        None => Some((select(&hub, wants[index], Cursor::Now).0, VecDeque::new())),
                    };
                }
                1 | 2 => {
                    let topic = ["a", "ab", "b", "c", "d", "e"][usize::from(topic)];
                    let body = format!("{topic}\n\n{number}");
                    tell(&hub, &body);
                    for (index, waiter) in waiters.iter_mut().enumerate() {
                        if let Some((_, due)) = waiter.as_mut().filter(|_| wanted(index, topic)) {
                            due.push_back(body.clone());
                        }
                    }
                }
                _ => {
                    let Some((waiter, due)) = &mut waiters[index] else { continue };
                    let Some(found) = waiter.look(NOW) else {
                        prop_assert!(due.is_empty());
                        continue;
                    };
                    prop_assert!(!found[0].found.reset);
                    let messages = &found[0].found.messages;
                    // A batch may end before all of it is sent.
                    let sent = messages.len().min(1 + usize::from(topic));
                    for message in &messages[..sent] {
                        let body = String::from_utf8(message.payload.body.to_vec()).unwrap();
                        if wanted(index, body.lines().next().unwrap()) {
                            prop_assert_eq!(Some(body), due.pop_front());
                        }
                        waiter.advance_to(0, message.position, message.stamp);
                    }
                }
            }
        }
    }
}
