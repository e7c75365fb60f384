//! Presence in many orders of the steps of its threads: a client that comes back while the sweep
//! ends its grace, or while its user leaves, is counted once, and its user is there as long as it.

#![allow(clippy::unwrap_used)]

use pollgate_models::hub::channel::{ChannelName, Cursor, Pattern, Take, Time};
use pollgate_models::hub::presence::{Entrant, Known, Member, Memberships, Rules, Settings};
use pollgate_models::hub::{self, Hub, Subscription};
use shuttle::thread;
use std::sync::Arc;
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(30);

fn at(seconds: u64) -> Time {
    Time(1_700_000_000_000_000 + seconds * 1_000_000)
}

fn in_many_orders(story: fn()) {
    let orders = std::env::var("MODEL_ORDERS").ok().map(|count| count.parse().unwrap());
    let orders = orders.unwrap_or(3_000);
    shuttle::check_random(story, orders / 2);
    shuttle::check_pct(story, orders / 2, 3);
}

fn room() -> ChannelName {
    ChannelName::new("room").unwrap()
}

fn hub() -> Hub {
    let hub = Hub::new(hub::Settings::default(), 1);
    let settings = Some(Arc::new(Settings { grace: GRACE, ..Settings::default() }));
    let channels = vec![(Pattern::new("*").unwrap(), settings)];
    hub.presence().rule(vec![Rules { channels, ..Rules::default() }]);
    hub
}

fn enter(hub: &Hub, user: Option<&str>, now: Time) -> Memberships {
    let member = user.map(|user| Member::new(user, None).unwrap());
    let channel = &room();
    let settings = hub.presence().settings(channel).unwrap();
    let entrant = Entrant { channel, member: member.as_ref(), settings, grace: GRACE };
    hub.presence().enter_all([entrant], now)
}

fn again(hub: &Hub, known: Known, user: Option<&str>, now: Time) -> Memberships {
    known.enter([&room()].into_iter(), user).unwrap_or_else(|| enter(hub, user, now))
}

/// A client has polled, and is between two polls.
fn between_polls(hub: &Hub, user: Option<&str>) -> Known {
    let held = enter(hub, user, at(0));
    held.known().unwrap().clone()
}

/// The users on the channel, and the clients.
fn there(hub: &Hub, now: Time) -> (usize, usize) {
    let roster = hub.presence().members(&room(), now).unwrap();
    assert_eq!(roster.count, roster.members.len());
    (roster.count, roster.connections)
}

/// Number of joins and leaves; panics if they do not alternate.
fn events(hub: &Hub, now: Time) -> usize {
    let channel = ChannelName::new("presence:room").unwrap();
    let subscription = Subscription { channel, cursor: Cursor::Oldest };
    let found = hub.look(&[subscription], Take::All, now).unwrap();
    for (index, message) in found[0].found.messages.iter().enumerate() {
        let text = String::from_utf8(message.payload.body.to_vec()).unwrap();
        assert_eq!(text.contains("\"join\""), index % 2 == 0, "{text}");
    }
    found[0].found.messages.len()
}

#[test]
fn a_client_that_comes_back_as_its_grace_ends_is_there() {
    in_many_orders(|| {
        for user in [Some("ann"), None] {
            let hub = hub();
            let known = between_polls(&hub, user);
            let sweeping = {
                let hub = hub.clone();
                thread::spawn(move || hub.presence().sweep(at(40)))
            };
            let held = again(&hub, known, user, at(40));
            sweeping.join().unwrap();
            hub.presence().sweep(at(100));
            let users = usize::from(user.is_some());
            assert_eq!(there(&hub, at(100)), (users, 1));
            assert_eq!(events(&hub, at(100)) % 2, users);
            drop(held);
            for second in 0..40 {
                hub.presence().sweep(at(101 + second));
            }
            assert_eq!(there(&hub, at(141)), (0, 0));
            assert_eq!(events(&hub, at(141)) % 2, 0);
            assert_eq!((hub.presence().count(), hub.presence().bytes()), (0, 0));
        }
    });
}

#[test]
fn clients_of_one_user_that_come_and_go_at_once_are_counted_once_each() {
    in_many_orders(|| {
        let hub = hub();
        let user = Some("ann");
        let known = between_polls(&hub, user);
        let tabs: Vec<_> = (0..2)
            .map(|_| {
                let (hub, known) = (hub.clone(), known.clone());
                thread::spawn(move || {
                    drop(again(&hub, known.clone(), user, at(1)));
                    again(&hub, known, user, at(1))
                })
            })
            .collect();
        hub.presence().sweep(at(31));
        let held: Vec<_> = tabs.into_iter().map(|tab| tab.join().unwrap()).collect();
        assert_eq!(there(&hub, at(31)), (1, 2));
        drop(held);
        assert_eq!(there(&hub, at(31)), (1, 0));
    });
}

#[test]
fn a_user_that_leaves_while_a_hold_of_it_ends_or_begins_is_gone_or_there() {
    in_many_orders(|| {
        let hub = hub();
        let user = Some("ann");
        let known = between_polls(&hub, user);
        let leaving = {
            let hub = hub.clone();
            thread::spawn(move || hub.presence().leave(&room(), "ann", at(1)))
        };
        let mut held = again(&hub, known, user, at(1));
        held.revoke();
        leaving.join().unwrap();
        assert_eq!(there(&hub, at(1)), (0, 0));
        assert_eq!(events(&hub, at(1)) % 2, 0);
    });
}
