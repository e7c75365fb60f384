//! Which subscribers of a Mercure hub an update wakes, and what they get whatever the others get.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod backplane {
    #![allow(dead_code)]
    pub(crate) mod redis;
}
mod mercure {
    pub(crate) mod hub;
}
mod support;

use backplane::redis::Redis;
use mercure::hub::{config, publish, subscribe, subscriber, target};
use support::{Client, Events, Gate, Metrics, Way, eventually};

/// How often subscribers looked at updates: with something for them, and in vain.
async fn wakes(gate: &Gate) -> (f64, f64) {
    let text = Client::connect(gate.internal()).await.get("/metrics").await.text();
    let metrics = Metrics::parse(&text);
    let of =
        |result| metrics.value(&format!("pollgate_mercure_wakes_total{{result=\"{result}\"}}"));
    (of("sent"), of("filtered"))
}

async fn shared(redis: &Redis) -> Gate {
    let config = format!("{}[backplane]\nredis = \"{}\"\n", config(""), redis.url());
    let gate = Gate::start_alone(&config).await;
    let ready = async || {
        let answer = gate.hook("GET", "/readyz", &[], "").await.text();
        !answer.to_lowercase().contains("redis")
    };
    eventually("a gate that is ready", ready).await;
    gate
}

#[tokio::test]
async fn an_update_wakes_those_alone_whose_topics_select_it() {
    let gate = Gate::start_alone(&config("")).await;
    let mut streams = Vec::new();
    for number in 0..30 {
        let topic = format!("/books/{number}");
        streams.push(subscribe(&gate, Way::Plain, &target(&[&topic], &[]), &[]).await);
    }
    let mut all = subscribe(&gate, Way::Plain, &target(&["*"], &[]), &[]).await;
    let mut books = subscribe(&gate, Way::Http2, &target(&["/books/{id}"], &[]), &[]).await;
    gate.wait_for_held(32).await;
    for number in 0..30 {
        publish(&gate, &[("topic", &format!("/books/{number}")), ("data", &number.to_string())])
            .await;
        publish(&gate, &[("topic", &format!("/films/{number}")), ("data", "film")]).await;
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        assert_eq!(stream.next().await.data, number.to_string());
    }
    for number in 0..30 {
        assert_eq!(books.next().await.data, number.to_string());
        assert_eq!(all.next().await.data, number.to_string());
        assert_eq!(all.next().await.data, "film");
    }
    let counts = async || wakes(&gate).await;
    let (sent, filtered) = counts().await;
    assert!(sent >= 32.0, "{sent}");
    assert_eq!(filtered, 0.0, "a film woke a reader of books");
}

#[tokio::test]
async fn a_private_update_goes_to_those_that_may_have_it() {
    let gate = Gate::start_alone(&config("")).await;
    let reader = format!("Bearer {}", subscriber(&["/users/7"]));
    let mut own =
        subscribe(&gate, Way::Plain, &target(&["/users/{id}"], &[]), &[("Authorization", &reader)])
            .await;
    let mut other = subscribe(&gate, Way::Plain, &target(&["/users/7"], &[]), &[]).await;
    gate.wait_for_held(2).await;
    publish(&gate, &[("topic", "/users/7"), ("data", "private"), ("private", "on")]).await;
    publish(&gate, &[("topic", "/users/7"), ("data", "public")]).await;
    assert_eq!(own.next().await.data, "private");
    assert_eq!(own.next().await.data, "public");
    assert_eq!(other.next().await.data, "public");
}

#[tokio::test]
async fn updates_on_other_topics_are_no_gap_however_many_they_are() {
    let gate = Gate::start_alone(&config("[history]\nmessages = 3\n")).await;
    let mut streams = Vec::new();
    for way in Way::ALL {
        streams.push(subscribe(&gate, way, &target(&["/a"], &[]), &[]).await);
    }
    gate.wait_for_held(4).await;
    for round in ["1", "2"] {
        for _ in 0..10 {
            publish(&gate, &[("topic", "/b"), ("data", "x")]).await;
        }
        publish(&gate, &[("topic", "/a"), ("id", round)]).await;
        for stream in &mut streams {
            assert_eq!(stream.next().await.id(), round);
        }
    }
    // It comes back, and finds what it has missed.
    drop(streams);
    publish(&gate, &[("topic", "/b")]).await;
    publish(&gate, &[("topic", "/a"), ("id", "3")]).await;
    let again = target(&["/a"], &[("lastEventID", "2")]);
    let mut stream = subscribe(&gate, Way::Plain, &again, &[]).await;
    assert_eq!(stream.head.header("last-event-id"), Some("2"));
    assert_eq!(stream.next().await.id(), "3");
    let earliest = target(&["/b"], &[("lastEventID", "earliest")]);
    let mut stream = subscribe(&gate, Way::Plain, &earliest, &[]).await;
    assert_eq!(stream.next().await.data, "");
}

const TOPICS: [&str; 5] = ["/a/1", "/a/2", "/b/1", "/b/2/x", "/c"];
const WANTED: [&[&str]; 6] =
    [&["/a/1"], &["/a/{id}"], &["/{+any}"], &["*"], &["/b/1", "/c"], &["/b/{id}", "/a/2"]];

/// The topics that each of [`WANTED`] selects.
const SELECTED: [&[usize]; 6] =
    [&[0], &[0, 1], &[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4], &[2, 4], &[2, 1]];

/// Publishes updates on all topics in some order, and reads of every stream what it wants.
async fn in_order(publishers: &[&Gate], mut streams: Vec<(usize, Events)>) {
    let mut published = Vec::new();
    let mut state = 7_u32;
    for round in 0..60 {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let topic = (state >> 16) as usize % TOPICS.len();
        let gate = publishers[round % publishers.len()];
        let id = format!("{round}");
        publish(gate, &[("topic", TOPICS[topic]), ("id", &id)]).await;
        published.push((topic, id));
    }
    for (wanted, stream) in &mut streams {
        let due = published.iter().filter(|(topic, _)| SELECTED[*wanted].contains(topic));
        for (_, id) in due {
            assert_eq!(stream.next().await.id(), id, "{:?}", WANTED[*wanted]);
        }
        assert!(stream.poller().is_quiet().await, "{:?}", WANTED[*wanted]);
    }
}

#[tokio::test]
async fn each_subscriber_gets_its_own_in_order_and_none_twice() {
    let gate = Gate::start_alone(&config("")).await;
    let mut streams = Vec::new();
    for way in [Way::Plain, Way::Http2] {
        for (index, wanted) in WANTED.iter().enumerate() {
            streams.push((index, subscribe(&gate, way, &target(wanted, &[]), &[]).await));
        }
    }
    gate.wait_for_held(12).await;
    in_order(&[&gate], streams).await;
}

#[tokio::test]
async fn so_it_is_at_two_gates_on_redis() {
    let redis = Redis::start().await;
    let gates = [shared(&redis).await, shared(&redis).await];
    let mut streams = Vec::new();
    for gate in &gates {
        for (index, wanted) in WANTED.iter().enumerate() {
            // A stream with a cursor begins once the gate has joined the channel.
            let earliest = target(wanted, &[("lastEventID", "earliest")]);
            streams.push((index, subscribe(gate, Way::Plain, &earliest, &[]).await));
        }
    }
    in_order(&[&gates[0], &gates[1]], streams).await;
    for gate in &gates {
        let (sent, filtered) = wakes(gate).await;
        // The streams' first look at an empty history is not for anything.
        assert!(sent > 0.0 && filtered <= WANTED.len() as f64, "{sent} {filtered}");
    }
}
