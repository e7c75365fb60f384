//! Gates that are one Mercure hub, over Redis.

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
use mercure::hub::{PATH, config, publish, subscribe, subscriber, target};
use serde_json::Value;
use support::{Client, Events, Gate, Response, Way, eventually};

async fn gate(redis: &Redis, more: &str) -> Gate {
    let backplane = if more.contains("[backplane]") { "" } else { "[backplane]\n" };
    let config = format!("{}{backplane}redis = \"{}\"\n", config(more), redis.url());
    let gate = Gate::start_alone(&config).await;
    let ready = async || {
        let answer = gate.hook("GET", "/readyz", &[], "").await.text();
        !answer.to_lowercase().contains("redis")
    };
    eventually("a gate that is ready", ready).await;
    gate
}

#[tokio::test]
async fn updates_reach_the_subscribers_of_every_gate_with_their_filter() {
    let redis = Redis::start().await;
    let a = gate(&redis, "").await;
    let b = gate(&redis, "").await;
    let reader = format!("Bearer {}", subscriber(&["/users/7"]));
    let topics = target(&["/books/{id}", "/users/7"], &[]);
    // A stream with a cursor begins once the gate has joined the channel.
    let earliest = target(&["/books/{id}", "/users/7"], &[("lastEventID", "earliest")]);
    let mut own = subscribe(&a, Way::Plain, &earliest, &[("Authorization", &reader)]).await;
    let mut all = subscribe(&b, Way::Http2, &earliest, &[]).await;
    for round in 0..20 {
        let from = if round % 2 == 0 { &a } else { &b };
        let id = |kind| format!("{kind}-{round}");
        publish(from, &[("topic", "/books/1"), ("id", &id("public")), ("data", "x")]).await;
        publish(from, &[("topic", "/other"), ("id", &id("other"))]).await;
        publish(from, &[("topic", "/users/7"), ("id", &id("private")), ("private", "on")]).await;
        assert_eq!(own.next().await.id(), id("public"));
        assert_eq!(own.next().await.id(), id("private"));
        assert_eq!(all.next().await.id(), id("public"));
    }
    drop((own, topics));
}

#[tokio::test]
async fn a_subscriber_goes_on_at_another_gate() {
    let redis = Redis::start().await;
    let a = gate(&redis, "").await;
    for id in ["1", "2", "3"] {
        publish(&a, &[("topic", "/a"), ("id", id)]).await;
    }
    // A gate that has never heard of the hub.
    for (asked, answer, expected) in [
        ("2", "2", &["3"][..]),
        ("earliest", "earliest", &["1", "2", "3"]),
        ("x", "earliest", &["1", "2", "3"]),
    ] {
        let b = gate(&redis, "").await;
        for way in Way::ALL {
            let mut events =
                subscribe(&b, way, &target(&["/a"], &[("lastEventID", asked)]), &[]).await;
            assert_eq!(events.head.header("last-event-id"), Some(answer), "{asked}");
            for id in expected {
                assert_eq!(events.next().await.id(), *id, "{asked}");
            }
            assert!(events.poller().is_quiet().await);
        }
    }
}

#[tokio::test]
async fn a_subscriber_s_coming_is_an_update_at_every_gate() {
    let redis = Redis::start().await;
    let more = "subscriptions = true";
    let a = gate(&redis, more).await;
    let b = gate(&redis, more).await;
    let api = "/.well-known/mercure/subscriptions{/topic,subscriber}";
    let watcher = format!("Bearer {}", subscriber(&[api]));
    let watcher = [("Authorization", watcher.as_str())];
    let all = target(&[api], &[("lastEventID", "earliest")]);
    let mut seen = subscribe(&b, Way::Plain, &all, &watcher).await;
    assert_eq!(seen.next().await.json()["topic"], api);
    let member = subscribe(&a, Way::Plain, &target(&["/a"], &[]), &[]).await;
    let came = seen.next().await.json();
    assert_eq!((came["topic"].as_str(), came["active"].as_bool()), (Some("/a"), Some(true)));
    drop(member);
    let gone = seen.next().await.json();
    assert_eq!((&gone["id"], gone["active"].as_bool()), (&came["id"], Some(false)));
}

/// A gate that lists subscribers.
async fn listing(redis: &Redis) -> Gate {
    gate(redis, "subscriptions = true\n[history]\nmessages = 1000\n[backplane]\nlease = \"2s\"")
        .await
}

async fn member(gate: &Gate, topic: &str) -> Events {
    subscribe(gate, Way::Plain, &target(&[topic], &[]), &[]).await
}

async fn asked(gate: &Gate, path: &str) -> Response {
    let every = format!("Bearer {}", subscriber(&["*"]));
    let path = format!("{PATH}/subscriptions{path}");
    let mut client = Client::connect(gate.addr()).await;
    client.request("GET", &path, &[("Authorization", &every)], b"").await
}

async fn subscriptions(gate: &Gate, path: &str) -> Vec<Value> {
    let response = asked(gate, path).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["subscriptions"].as_array().cloned().unwrap()
}

/// The topics of the subscribers that a gate lists, in the order of the alphabet.
async fn topics(gate: &Gate) -> Vec<String> {
    let listed = subscriptions(gate, "").await;
    let mut topics: Vec<_> =
        listed.iter().map(|one| one["topic"].as_str().unwrap().to_owned()).collect();
    topics.sort();
    topics
}

async fn lists(gate: &Gate, expected: &[&str]) {
    eventually("they are listed", async || topics(gate).await == expected).await;
}

#[tokio::test]
async fn the_subscribers_of_every_gate_are_listed_by_each() {
    let redis = Redis::start().await;
    let a = listing(&redis).await;
    let b = listing(&redis).await;
    let _at_a = member(&a, "/a").await;
    let at_b = subscribe(&b, Way::Plain, &target(&["/a", "/b{id}"], &[]), &[]).await;
    for gate in [&a, &b] {
        lists(gate, &["/a", "/a", "/b{id}"]).await;
        assert_eq!(subscriptions(gate, "/%2Fa").await.len(), 2);
    }
    let one = subscriptions(&a, "/%2Fb%7Bid%7D").await.remove(0);
    let path = one["id"].as_str().unwrap().strip_prefix(&format!("{PATH}/subscriptions")).unwrap();
    let shown = asked(&a, path).await;
    assert_eq!((shown.status, &shown.json()["topic"]), (200, &one["topic"]));
    assert!(shown.header("etag").is_some());
    drop(at_b);
    lists(&a, &["/a"]).await;
    lists(&b, &["/a"]).await;
    assert_eq!(asked(&a, path).await.status, 404);
}

#[tokio::test]
async fn the_subscribers_of_a_killed_gate_are_reported_gone_once_and_not_listed_any_more() {
    let redis = Redis::start().await;
    let a = listing(&redis).await;
    let b = listing(&redis).await;
    let dying = listing(&redis).await;
    let mut held = Vec::new();
    for number in 0..5 {
        held.push(member(&dying, &format!("/dying/{number}")).await);
    }
    held.push(member(&b, "/b").await);
    lists(&a, &["/b", "/dying/0", "/dying/1", "/dying/2", "/dying/3", "/dying/4"]).await;
    let api = "/.well-known/mercure/subscriptions{/topic,subscriber}";
    let every = format!("Bearer {}", subscriber(&[api]));
    let every = [("Authorization", every.as_str())];
    let earliest = target(&[api], &[("lastEventID", "earliest")]);
    let mut seen = subscribe(&a, Way::Plain, &earliest, &every).await;
    // Its own coming is the last of them.
    while seen.next().await.json()["topic"] != api {}
    dying.kill();
    let mut gone = Vec::new();
    for _ in 0..5 {
        let update = seen.next().await.json();
        assert_eq!(update["active"], false, "{update}");
        gone.push(update["topic"].as_str().unwrap().to_owned());
    }
    gone.sort();
    assert_eq!(gone, ["/dying/0", "/dying/1", "/dying/2", "/dying/3", "/dying/4"]);
    lists(&b, &[api, "/b"]).await;
    assert!(seen.poller().is_quiet().await, "each is reported once");
}

#[tokio::test]
async fn without_redis_a_gate_lists_its_own_subscribers_and_with_it_all_of_them_again() {
    let mut redis = Redis::start().await;
    let a = listing(&redis).await;
    let b = listing(&redis).await;
    let _at_a = member(&a, "/a").await;
    let gone = member(&b, "/gone").await;
    let _at_b = member(&b, "/b").await;
    lists(&a, &["/a", "/b", "/gone"]).await;
    redis.kill();
    lists(&a, &["/a"]).await;
    lists(&b, &["/b", "/gone"]).await;
    drop(gone);
    redis.restart().await;
    lists(&a, &["/a", "/b"]).await;
    lists(&b, &["/a", "/b"]).await;
}
