//! A stream's short look finds what the long one would, and only if that is one rendered message.

use super::*;
use crate::hub::channel::{RenderKey, Renders};
use bytes::Bytes;

fn stream(hub: &Hub, channels: &[&str], cursor: Cursor) -> Waiter {
    let subscription = |text: &&str| Subscription { channel: name(text), cursor };
    let subscriptions: Vec<_> = channels.iter().map(subscription).collect();
    hub.subscribe(&subscriptions, Take::All, NOW).unwrap().0
}

/// The newest message of the channel, rendered as itself.
fn render(hub: &Hub, channel: &str) {
    let latest = Subscription { channel: name(channel), cursor: Cursor::Latest };
    let found = hub.look(&[latest], Take::Newest, NOW).unwrap().remove(0).found;
    let body = found.messages[0].payload.body.clone();
    found.renders.unwrap().get_or_render(RenderKey::NATIVE, || body);
}

fn find(renders: &Renders) -> Option<Bytes> {
    renders.get(RenderKey::NATIVE)
}

fn short(waiter: &mut Waiter) -> Option<Bytes> {
    waiter.look_for_rendered(NOW, find).map(|rendered| rendered.bytes)
}

#[test]
fn the_short_look_leaves_a_stream_where_the_long_one_does() {
    let hub = hub(10, 1 << 20);
    publish(&hub, "a", "before");
    let mut streams = [stream(&hub, &["a"], Cursor::Now), stream(&hub, &["a"], Cursor::Now)];
    for text in ["1", "2", "3"] {
        assert_eq!(publish(&hub, "a", text), 2, "both are registered");
        render(&hub, "a");
        let [one, other] = &mut streams;
        assert!(is_notified(one) && is_notified(other));
        assert_eq!(short(one).unwrap(), text);
        let found = other.look(NOW).unwrap();
        other.advance(0, &found[0].found);
        let [one, other] = [&one.place()[0].found, &other.place()[0].found];
        assert_eq!((one.position, one.stamp), (other.position, other.stamp));
        assert_eq!((one.tag, one.before), (other.tag, other.before));
        assert_eq!(hub.held_on(&name("a")), 2);
        assert!(short(&mut streams[0]).is_none() && streams[0].look(NOW).is_none());
    }
}

#[test]
fn a_stream_that_registers_again_after_a_drain_is_woken_all_the_same() {
    for is_short in [true, false] {
        let hub = hub(10, 1 << 20);
        publish(&hub, "a", "before");
        let mut waiter = stream(&hub, &["a"], Cursor::Now);
        assert_eq!(publish(&hub, "a", "1"), 1);
        render(&hub, "a");
        // Its task has seen that the gate does not drain, and goes on to look.
        assert!(is_notified(&waiter) && !waiter.is_draining());
        assert_eq!(hub.drain().iter_mut().map(WakeSet::claim).sum::<usize>(), 0);
        match is_short {
            true => assert_eq!(short(&mut waiter).unwrap(), "1"),
            false => assert!(waiter.look(NOW).is_some()),
        }
        assert!(is_notified(&waiter), "{is_short}");
    }
}

#[test]
fn what_comes_before_the_look_is_not_left_to_a_wake() {
    let hub = hub(10, 1 << 20);
    publish(&hub, "a", "before");
    let mut waiter = stream(&hub, &["a"], Cursor::Now);
    publish(&hub, "a", "1");
    publish(&hub, "a", "2");
    render(&hub, "a");
    assert!(is_notified(&waiter) && short(&mut waiter).is_none(), "two are no one message");
    let found = waiter.look(NOW).unwrap();
    assert_eq!(found[0].found.messages.len(), 2);
    waiter.advance(0, &found[0].found);
    assert_eq!((hub.held_on(&name("a")), publish(&hub, "a", "3")), (1, 1));
}

#[test]
fn the_short_look_is_for_one_rendered_message_and_changes_nothing_else() {
    let hub = hub(10, 1 << 20);
    publish(&hub, "a", "before");
    let mut waiters = [
        stream(&hub, &["a", "b"], Cursor::Now),
        stream(&hub, &["c"], Cursor::Now),
        stream(&hub, &["a"], Cursor::Oldest),
        hold(&hub, &["a"]),
    ];
    for channel in ["a", "c"] {
        publish(&hub, channel, "1");
        render(&hub, channel);
    }
    // Several channels, the first message of a channel, two messages, and a poll.
    for waiter in &mut waiters {
        assert!(short(waiter).is_none());
        assert!(waiter.look(NOW).unwrap().iter().any(|update| update.found.has_update));
    }
    let mut waiter = stream(&hub, &["a"], Cursor::Now);
    publish(&hub, "a", "not rendered");
    assert!(short(&mut waiter).is_none());
    assert_eq!(waiter.look(NOW).unwrap()[0].found.messages.len(), 1);
    hub.forget(&name("a"));
    assert!(short(&mut waiter).is_none() && waiter.look(NOW).unwrap()[0].found.reset);
}

#[test]
fn a_dropped_stream_leaves_no_registration_after_short_looks() {
    let hub = hub(10, 1 << 20);
    publish(&hub, "a", "before");
    let mut waiter = stream(&hub, &["a"], Cursor::Now);
    for _ in 0..3 {
        publish(&hub, "a", "x");
        render(&hub, "a");
        assert!(short(&mut waiter).is_some());
    }
    drop(waiter);
    assert_eq!((hub.held_on(&name("a")), hub.held(), publish(&hub, "a", "y")), (0, 0, 0));
}
