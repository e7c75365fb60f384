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
use mercure::hub::{config, publish, subscribe, subscriber, target};
use support::{Gate, Way, eventually};

async fn gate(redis: &Redis, more: &str) -> Gate {
    let config = format!("{}[backplane]\nredis = \"{}\"\n", config(more), redis.url());
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
