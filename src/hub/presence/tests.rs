use super::*;
use crate::hub::Subscription;
use crate::hub::channel::{Cursor, Limits, Pattern, Take};
use std::collections::BTreeSet;

const SECOND: u64 = 1_000_000;

fn at(seconds: u64) -> Time {
    Time(1_000 * SECOND + seconds * SECOND)
}

fn name(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

fn member(user: &str) -> Member {
    Member::new(user, None).unwrap()
}

struct Site {
    hub: Hub,
    settings: Arc<Settings>,
}

impl Site {
    fn new(members: usize) -> Self {
        let limits = Limits { messages: 1000, age: Duration::ZERO, ..Limits::default() };
        let limits = Arc::new(limits);
        let hub = Hub::new(crate::hub::Settings { limits, ..Default::default() }, 1);
        let settings = Arc::new(Settings { members, ..Settings::default() });
        let channels = vec![(Pattern::new("*").unwrap(), Some(settings.clone()))];
        hub.presence().rule(vec![Rules { channels, ..Rules::default() }]);
        Self { hub, settings }
    }

    fn enter(&self, user: &str, now: Time) -> Membership {
        let presence = self.hub.presence();
        let grace = self.settings.grace;
        presence.enter(&name("room"), Some(&member(user)), &self.settings, grace, now)
    }

    /// The same by the guard of a poll.
    fn poll(&self, user: Option<&str>, now: Time) -> Memberships {
        let member = user.map(member);
        let settings = self.settings.clone();
        let grace = settings.grace;
        let channel = &name("room");
        let entrant = Entrant { channel, member: member.as_ref(), settings, grace };
        self.hub.presence().enter_all([entrant], now)
    }

    /// It comes back by what its connection knows.
    fn again(&self, known: &Known, user: Option<&str>) -> Option<Memberships> {
        known.clone().enter([&name("room")].into_iter(), user)
    }

    fn connections(&self) -> usize {
        self.hub.presence().connections(&name("room"))
    }

    fn events(&self, now: Time) -> Vec<String> {
        let subscription = Subscription { channel: name("presence:room"), cursor: Cursor::Oldest };
        let found = self.hub.look(&[subscription], Take::All, now).unwrap();
        let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
        found[0].found.messages.iter().map(|message| text(&message.payload.body)).collect()
    }

    fn list(&self, now: Time) -> Vec<String> {
        let roster = self.hub.presence().members(&name("room"), now).unwrap();
        roster.members.iter().map(|one| one.user.to_string()).collect()
    }
}

#[test]
fn a_user_joins_once_and_leaves_when_its_grace_is_over_and_not_before() {
    let site = Site::new(10);
    let first = site.enter("ann", at(0));
    let second = site.enter("ann", at(1));
    drop(first);
    site.hub.presence().sweep(at(100));
    drop(second);
    site.hub.presence().sweep(at(129));
    assert_eq!(site.events(at(129)), [r#"{"type":"join","user":"ann","info":null}"#]);
    assert_eq!(site.list(at(129)), ["ann"]);
    site.hub.presence().sweep(at(131));
    assert_eq!(
        site.events(at(131)),
        [
            r#"{"type":"join","user":"ann","info":null}"#,
            r#"{"type":"leave","user":"ann","why":"gone"}"#
        ]
    );
    assert_eq!(site.hub.presence().count(), 0);
    site.hub.presence().sweep(at(140));
    assert_eq!(site.hub.presence().bytes(), 0, "nothing is left of the channel");
}

#[test]
fn who_polls_again_within_its_grace_was_never_away() {
    let site = Site::new(10);
    for round in 0..50 {
        drop(site.enter("ann", at(20 * round)));
        site.hub.presence().sweep(at(20 * round + 10));
    }
    assert_eq!(site.events(at(1000)).len(), 1);
}

#[test]
fn a_client_that_comes_back_enters_without_the_lock() {
    for (user, events) in [(Some("ann"), 1), (None, 0)] {
        let site = Site::new(10);
        let presence = site.hub.presence();
        let held = site.poll(user, at(0));
        let known = held.known().unwrap().clone();
        assert!(site.again(&known, user).is_none(), "its deadline does not stand in the wheel");
        drop(held);
        for second in 1..=2 {
            presence.sweep(at(second));
            let room = presence.shard_of(&name("room")).lock();
            let held = site.again(&known, user).unwrap();
            let tab = site.again(&known, user).unwrap();
            drop(tab);
            drop(room);
            assert_eq!(site.connections(), 1, "{user:?}");
            let room = presence.shard_of(&name("room")).lock();
            drop(held);
            drop(room);
            assert_eq!(site.connections(), 0, "{user:?}");
        }
        assert_eq!(site.events(at(2)).len(), events);
        presence.sweep(at(100));
        assert!(site.again(&known, user).is_none(), "it is gone");
        presence.sweep(at(110));
        assert_eq!((presence.count(), presence.bytes()), (0, 0));
        presence.rule(Vec::new());
        assert!(site.again(&known, user).is_none());
    }
}

#[test]
fn a_client_comes_back_only_for_the_same_user_channel_and_rules() {
    let site = Site::new(10);
    let held = site.poll(Some("ann"), at(0));
    let known = held.known().unwrap().clone();
    drop(held);
    assert!(site.again(&known, Some("bob")).is_none() && site.again(&known, None).is_none());
    let enter = |channels: &[ChannelName]| known.clone().enter(channels.iter(), Some("ann"));
    assert!(enter(&[name("hall")]).is_none() && enter(&[]).is_none());
    assert!(enter(&[name("room"), name("hall")]).is_none());
    assert!(enter(&[name("room")]).is_some());
    let channels = vec![(Pattern::new("*").unwrap(), Some(site.settings.clone()))];
    site.hub.presence().rule(vec![Rules { channels, ..Rules::default() }]);
    assert!(enter(&[name("room")]).is_none());
    assert_eq!(site.connections(), 0);
    assert_eq!(site.events(at(0)).len(), 1);
}

#[test]
fn the_grace_of_a_client_that_came_back_begins_anew() {
    let site = Site::new(10);
    let presence = site.hub.presence();
    let held = site.poll(Some("ann"), at(0));
    let known = held.known().unwrap().clone();
    drop(held);
    presence.sweep(at(20));
    drop(site.again(&known, Some("ann")).unwrap());
    presence.sweep(at(49));
    assert_eq!(site.list(at(49)), ["ann"]);
    presence.sweep(at(52));
    assert!(site.list(at(52)).is_empty());
    // A channel that nobody was on for three seconds is vacated, and not before.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let change = {
        let seen = seen.clone();
        Box::new(move |_: &ChannelName, change: &Change, _| seen.lock().push(change.clone()))
    };
    presence.report_to(Sinks { change, ..Sinks::default() });
    presence.sweep(at(60));
    seen.lock().clear();
    let held = site.poll(None, at(61));
    let known = held.known().unwrap().clone();
    drop(held);
    presence.sweep(at(63));
    drop(site.again(&known, None).unwrap());
    presence.sweep(at(65));
    assert_eq!(*seen.lock(), [Change::Occupied]);
    presence.sweep(at(70));
    assert_eq!(*seen.lock(), [Change::Occupied, Change::Vacated]);
}

#[test]
fn leaving_and_revoking_reach_a_client_that_came_back() {
    let site = Site::new(10);
    let presence = site.hub.presence();
    let held = site.poll(Some("ann"), at(0));
    let known = held.known().unwrap().clone();
    drop(held);
    let held = site.again(&known, Some("ann")).unwrap();
    presence.leave(&name("room"), "ann", at(1));
    assert_eq!(site.list(at(1)), ["ann"], "it is still held");
    drop(held);
    assert_eq!(site.events(at(1)).last().unwrap(), r#"{"type":"leave","user":"ann","why":"left"}"#);
    drop(site.poll(Some("ann"), at(2)));
    let held = site.poll(Some("ann"), at(2));
    let known = held.known().unwrap().clone();
    drop(held);
    site.again(&known, Some("ann")).unwrap().revoke();
    let revoked = r#"{"type":"leave","user":"ann","why":"revoked"}"#;
    assert_eq!(site.events(at(2)).last().unwrap(), revoked);
    assert_eq!(site.connections(), 0);
}

#[test]
fn leaving_ends_the_grace_also_where_the_end_of_the_hold_is_noticed_later() {
    let site = Site::new(10);
    let held = site.enter("ann", at(0));
    site.hub.presence().leave(&name("room"), "ann", at(1));
    assert_eq!(site.events(at(1)).len(), 1, "it is still held");
    drop(held);
    let left = r#"{"type":"leave","user":"ann","why":"left"}"#;
    assert_eq!(site.events(at(1)).last().unwrap(), left);
    let held = site.enter("ann", at(2));
    drop(held);
    site.hub.presence().leave(&name("room"), "ann", at(3));
    assert_eq!(site.events(at(3)).len(), 4);
    // Another tab goes on.
    let tab = site.enter("ann", at(4));
    let _other = site.enter("ann", at(4));
    site.hub.presence().leave(&name("room"), "ann", at(5));
    drop(tab);
    site.hub.presence().sweep(at(500));
    assert_eq!(site.list(at(500)), ["ann"]);
}

#[test]
fn a_revoked_user_is_gone_at_once() {
    let site = Site::new(10);
    site.enter("ann", at(0)).revoke();
    let revoked = r#"{"type":"leave","user":"ann","why":"revoked"}"#;
    assert_eq!(site.events(at(0)).last().unwrap(), revoked);
}

#[test]
fn beyond_the_bound_there_are_counts_and_who_finds_room_later_joins() {
    let site = Site::new(2);
    let mut held: Vec<_> =
        ["a", "b", "c", "d"].iter().map(|user| site.enter(user, at(0))).collect();
    site.hub.presence().sweep(at(1));
    site.hub.presence().sweep(at(2));
    let events = site.events(at(2));
    assert_eq!(events.len(), 3, "{events:?}");
    assert_eq!(events[2], r#"{"type":"count","count":4}"#);
    let roster = site.hub.presence().members(&name("room"), at(2)).unwrap();
    assert_eq!((roster.count, roster.members.len(), roster.connections), (4, 2, 4));
    // Those beyond have no grace.
    drop(held.pop());
    site.hub.presence().sweep(at(3));
    assert_eq!(site.events(at(3)).last().unwrap(), r#"{"type":"count","count":3}"#);
    held.remove(0).leave();
    site.hub.presence().sweep(at(4));
    assert_eq!(
        site.events(at(4))[4..],
        [
            r#"{"type":"leave","user":"a","why":"left"}"#,
            r#"{"type":"join","user":"c","info":null}"#
        ]
    );
    assert_eq!(site.list(at(4)), ["b", "c"]);
}

#[test]
fn a_pause_makes_nobody_leave_and_announces_the_difference_at_its_end() {
    let site = Site::new(10);
    let presence = site.hub.presence();
    let ann = site.enter("ann", at(0));
    let _bob = site.enter("bob", at(0));
    presence.pause(true);
    ann.leave();
    drop(site.enter("eve", at(1)));
    presence.leave(&name("room"), "eve", at(2));
    let cid = site.enter("cid", at(2));
    presence.sweep(at(100));
    assert_eq!(site.events(at(100)).len(), 2);
    presence.pause(false);
    presence.sweep(at(101));
    assert_eq!(site.list(at(101)), ["bob", "cid"]);
    assert_eq!(site.events(at(101)).len(), 4);
    drop(cid);
}

#[test]
fn without_memory_a_user_counts_as_a_connection() {
    let site = Site::new(10);
    site.hub.presence().allow(0);
    let held = site.enter("ann", at(0));
    assert_eq!(held.user(), None);
    let roster = site.hub.presence().members(&name("room"), at(0)).unwrap();
    assert_eq!((roster.count, roster.connections), (0, 1));
    drop(held);
    assert_eq!(site.hub.presence().bytes(), 0, "an empty channel does not linger");
}

#[test]
fn a_channel_is_vacated_three_seconds_after_its_last_client() {
    let site = Site::new(10);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let change = {
        let seen = seen.clone();
        Box::new(move |_: &ChannelName, change: &Change, _| seen.lock().push(change.clone()))
    };
    site.hub.presence().report_to(Sinks { change, ..Sinks::default() });
    let enter =
        |now| site.hub.presence().enter(&name("room"), None, &site.settings, Duration::ZERO, now);
    drop(enter(at(0)));
    site.hub.presence().sweep(at(2));
    let again = enter(at(2));
    site.hub.presence().sweep(at(4));
    drop(again);
    site.hub.presence().sweep(at(6));
    assert_eq!(*seen.lock(), [Change::Occupied]);
    site.hub.presence().sweep(at(8));
    assert_eq!(*seen.lock(), [Change::Occupied, Change::Vacated]);
}

#[test]
fn names_are_bounded_and_an_info_that_is_too_long_is_left_out() {
    assert!(Member::new("", None).is_none());
    assert!(Member::new(&"x".repeat(256), None).is_none());
    assert!(Member::new("a", Some(&"1".repeat(1025))).unwrap().info().is_none());
    let site = Site::new(10);
    assert_eq!(site.hub.presence().settings(&name("presence:room")), None);
    assert_eq!(site.hub.presence().settings(&name(&"x".repeat(250))), None);
    assert_eq!(site.hub.presence().subject(&name("presence:room")).unwrap().0, name("room"));
}

/// Steps of a story.
#[derive(Debug, Clone)]
enum Step {
    Enter(u8),
    /// As the one that polled last.
    Again(u8),
    End(u8),
    Leave(u8),
    Revoke(u8),
    Pass(u8),
    Pause(bool),
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    use proptest::prelude::*;
    prop_oneof![
        4 => (0u8..5).prop_map(Step::Enter),
        4 => (0u8..5).prop_map(Step::Again),
        4 => any::<u8>().prop_map(Step::End),
        1 => (0u8..5).prop_map(Step::Leave),
        1 => any::<u8>().prop_map(Step::Revoke),
        4 => (1u8..40).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Pause),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]

    /// Whatever happens, joins and leaves of a user alternate, and the list is their replay; at
    /// rest it is the held ones.
    #[test]
    fn the_list_is_the_replay_of_the_events(
        steps in proptest::collection::vec(step(), 1..80),
        bound in 1usize..7,
    ) {
        let site = Site::new(bound);
        let presence = site.hub.presence();
        let mut now = at(0);
        let mut held: Vec<(String, Memberships)> = Vec::new();
        let mut known: std::collections::BTreeMap<u8, Known> = Default::default();
        let mut replay = BTreeSet::new();
        let mut read = 0;
        let user = |number: u8| format!("user {number}");
        let rest = [Step::Pause(false), Step::Pass(100), Step::Pass(100)];
        for step in steps.into_iter().chain(rest) {
            match step {
                Step::Enter(number) => {
                    held.push((user(number), site.poll(Some(&user(number)), now)));
                }
                Step::Again(number) => {
                    let name = user(number);
                    let last = known.get(&number);
                    let again = last.and_then(|known| site.again(known, Some(&name)));
                    let again = again.unwrap_or_else(|| site.poll(Some(&name), now));
                    known.insert(number, again.known().unwrap().clone());
                    held.push((name, again));
                }
                Step::End(which) if !held.is_empty() => {
                    drop(held.swap_remove(usize::from(which) % held.len()));
                }
                Step::Revoke(which) if !held.is_empty() => {
                    held.swap_remove(usize::from(which) % held.len()).1.revoke();
                }
                Step::End(_) | Step::Revoke(_) => {}
                Step::Leave(number) => presence.leave(&name("room"), &user(number), now),
                Step::Pass(seconds) => {
                    for _ in 0..seconds {
                        now = Time(now.0 + SECOND);
                        presence.sweep(now);
                    }
                }
                Step::Pause(paused) => presence.pause(paused),
            }
            let events = site.events(now);
            proptest::prop_assert!(events.len() < 1000, "the history holds all of it");
            for event in &events[read..] {
                let event: serde_json::Value = serde_json::from_str(event).unwrap();
                let user = event["user"].as_str().unwrap_or_default().to_owned();
                match event["type"].as_str().unwrap() {
                    "join" => proptest::prop_assert!(replay.insert(user), "joined twice"),
                    "leave" => proptest::prop_assert!(replay.remove(&user), "left twice"),
                    _ => {}
                }
            }
            read = events.len();
            proptest::prop_assert_eq!(site.connections(), held.len());
            let list: BTreeSet<String> = site.list(now).into_iter().collect();
            proptest::prop_assert_eq!(&list, &replay);
            proptest::prop_assert!(list.len() <= bound);
        }
        let present: BTreeSet<String> = held.iter().map(|(user, _)| user.clone()).collect();
        proptest::prop_assert_eq!(presence.count() as usize, present.len());
        proptest::prop_assert!(replay.is_subset(&present));
        if present.len() <= bound {
            proptest::prop_assert_eq!(&replay, &present);
        }
        held.clear();
        for _ in 0..60 {
            now = Time(now.0 + SECOND);
            presence.sweep(now);
        }
        proptest::prop_assert_eq!((presence.count(), presence.bytes()), (0, 0));
    }
}

#[test]
fn every_channel_with_room_for_the_prefix_has_a_companion() {
    for length in [1, 245, 246, 247, 255] {
        for letter in ["a", " "] {
            let channel = ChannelName::new(&letter.repeat(length)).unwrap();
            assert_eq!(super::has_companion(&channel), super::companion(&channel).is_some());
        }
    }
}
