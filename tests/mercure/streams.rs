//! Events, cursors and the ends of streams.

use super::hub::{SUBSCRIBERS, config, now, publish, subscribe, subscriber, target, token};
use crate::support::{Events, Gate, TempDir, Way};
use serde_json::json;

#[tokio::test]
async fn an_event_is_the_publisher_s_in_every_way() {
    let gate = Gate::start_alone(&config("")).await;
    for way in Way::ALL {
        let mut events = subscribe(&gate, way, &target(&["/a"], &[]), &[]).await;
        let head = &events.head;
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        assert_eq!(head.header("x-accel-buffering"), Some("no"));
        assert_eq!(head.header("last-event-id"), None, "nothing was asked for");
        assert_eq!(events.line().await.unwrap(), ":", "the first bytes are a comment");
        let id = "id-[\"https://example.net/foo/\"]";
        let data = "one\r\ntwo\n\nthree\r";
        let fields =
            [("topic", "/a"), ("data", data), ("id", id), ("type", "news"), ("retry", "2500")];
        publish(&gate, &fields).await;
        let mut lines = Vec::new();
        for _ in 0..9 {
            lines.push(events.line().await.unwrap());
        }
        let expected = [
            "event: news",
            "retry: 2500",
            &format!("id: {id}"),
            "data: one",
            "data: two",
            "data: ",
            "data: three",
            "data: ",
            "",
        ];
        assert_eq!(lines, expected);
        let made = publish(&gate, &[("topic", "/a")]).await;
        let event = events.next().await;
        assert_eq!((event.id(), &*event.data, &*event.event), (&*made, "", ""));
        assert!(made.starts_with("urn:uuid:") && made.as_bytes()[23] == b'7', "{made}");
    }
}

pub(super) async fn ids(events: &mut Events, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(events.next().await.id().to_owned());
    }
    ids
}

#[tokio::test]
async fn a_subscriber_goes_on_after_the_event_it_names() {
    let gate = Gate::start_alone(&config("")).await;
    for (id, topic) in
        [("1", "/a"), ("2", "/b"), ("3", "/a"), ("twice", "/a"), ("5", "/a"), ("twice", "/a")]
    {
        publish(&gate, &[("topic", topic), ("id", id)]).await;
    }
    let all = &["1", "3", "twice", "5", "twice"][..];
    for way in Way::ALL {
        for (query, header, answer, expected) in [
            (&[("lastEventID", "1")][..], None, "1", &all[1..]),
            (&[], Some("3"), "3", &all[2..]),
            // An update for others is as good as one of its own.
            (&[], Some("2"), "2", &all[1..]),
            (&[("lastEventID", "1")], Some("3"), "3", &all[2..]),
            (&[("Last-Event-ID", "3")], None, "3", &all[2..]),
            (&[("lastEventId", "3")], None, "3", &all[2..]),
            (&[("lastEventID", "earliest")], None, "earliest", all),
            (&[("lastEventID", "unknown")], None, "earliest", all),
            // Better twice than missing.
            (&[], Some("twice"), "twice", &all[3..]),
        ] {
            let headers: Vec<_> = header.map(|id| ("Last-Event-ID", id)).into_iter().collect();
            let mut events = subscribe(&gate, way, &target(&["/a"], query), &headers).await;
            assert_eq!(events.head.header("last-event-id"), Some(answer), "{query:?} {header:?}");
            assert_eq!(ids(&mut events, expected.len()).await, expected, "{query:?} {header:?}");
        }
        // The newest one: nothing waits, and the next one comes.
        let newest = publish(&gate, &[("topic", "/c")]).await;
        let after = target(&["/c"], &[("lastEventID", &newest)]);
        let mut events = subscribe(&gate, way, &after, &[]).await;
        let id = publish(&gate, &[("topic", "/c")]).await;
        assert_eq!(events.next().await.id(), id);
    }
}

#[tokio::test]
async fn a_subscriber_that_missed_updates_learns_it_from_the_next_head() {
    let gate = Gate::start_alone(&format!(
        "{}[[channel]]\nmatch = \"mercure\"\nmessages = 3\n",
        config("")
    ))
    .await;
    let topic = target(&["/a"], &[]);
    let mut events = subscribe(&gate, Way::Plain, &topic, &[]).await;
    publish(&gate, &[("topic", "/a"), ("id", "1")]).await;
    assert_eq!(events.next().await.id(), "1");
    // The hub begins anew: its stream ends, and the id it comes back with is not known.
    gate.forget("mercure").await;
    events.end().await;
    for id in ["2", "3", "4", "5"] {
        publish(&gate, &[("topic", "/a"), ("id", id)]).await;
    }
    let mut again = subscribe(&gate, Way::Plain, &topic, &[("Last-Event-ID", "1")]).await;
    assert_eq!(again.head.header("last-event-id"), Some("earliest"));
    assert_eq!(ids(&mut again, 3).await, ["3", "4", "5"]);
    // Many updates for others push what it had out of the history, and it has missed nothing.
    for id in ["6", "7", "8"] {
        // No more at once than the history has, so that a slow machine misses none either.
        publish(&gate, &[("topic", "/b")]).await;
        publish(&gate, &[("topic", "/b")]).await;
        publish(&gate, &[("topic", "/a"), ("id", id)]).await;
        assert_eq!(again.next().await.id(), id);
    }
}

#[tokio::test]
async fn the_history_outlives_a_restart_with_its_ids() {
    let folder = TempDir::new("mercure");
    let snapshot = folder.path().join("history");
    let config = format!("{}[history]\nsnapshot = \"{}\"\n", config(""), snapshot.display());
    let gate = Gate::start_alone(&config).await;
    for id in ["1", "2"] {
        publish(&gate, &[("topic", "/a"), ("id", id)]).await;
    }
    gate.signal("TERM");
    assert_eq!(gate.wait_for_exit().await, 0);
    let gate = Gate::start_alone(&config).await;
    let mut events =
        subscribe(&gate, Way::Plain, &target(&["/a"], &[]), &[("Last-Event-ID", "1")]).await;
    assert_eq!(events.head.header("last-event-id"), Some("1"));
    assert_eq!(events.next().await.id(), "2");
}

#[tokio::test]
async fn many_large_updates_come_whole_and_in_order() {
    let gate = Gate::start_alone(&config("")).await;
    let data = "x".repeat(30_000);
    for number in 0..12 {
        publish(&gate, &[("topic", "/a"), ("id", &number.to_string()), ("data", &data)]).await;
    }
    for way in Way::ALL {
        let mut events =
            subscribe(&gate, way, &target(&["/a"], &[("lastEventID", "earliest")]), &[]).await;
        for number in 0..12 {
            let event = events.next().await;
            assert_eq!((event.id(), event.data.len()), (&*number.to_string(), data.len()));
        }
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_token_or_when_that_is_revoked() {
    let gate = Gate::start_alone(&config("")).await;
    for way in Way::ALL {
        let short = token(SUBSCRIBERS, &json!({ "exp": now() + 2 }));
        let topic = format!("{}&authorization={short}", target(&["/a"], &[]));
        let mut events = subscribe(&gate, way, &topic, &[]).await;
        events.end().await;
        assert_eq!(way.connect(&gate).await.poll(&topic).await.status, 401);
        let long = subscriber(&["/a"]);
        let topic = format!("{}&authorization={long}", target(&["/a"], &[]));
        let mut events = subscribe(&gate, way, &topic, &[]).await;
        let revoked = gate.hook("DELETE", &format!("/grants?credential={long}"), &[], "").await;
        assert_eq!(revoked.json()["revoked"], 1);
        events.end().await;
    }
}

#[tokio::test]
async fn a_drain_ends_streams_with_a_time_to_come_back() {
    let gate = Gate::start_alone(&config("[drain]\nspread = \"0s\"\n")).await;
    let mut events = subscribe(&gate, Way::Plain, &target(&["/a"], &[]), &[]).await;
    gate.wait_for_held(1).await;
    gate.signal("TERM");
    let mut lines = Vec::new();
    while let Some(line) = events.line().await {
        lines.push(line);
    }
    // No empty line, which some clients take for an event.
    assert_eq!(lines, [":", "retry: 500"]);
}
