//! The Pusher protocol at several gates that share their channels over Redis.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

mod backplane {
    pub(crate) mod redis;
}
mod support;

use backplane::redis::Redis;
use serde_json::{Value, json};
use support::pusher::{APP, Echo, KEY, Session, data, rest, sign, trigger};
use support::{Gate, eventually};

async fn gate(redis: &Redis) -> Gate {
    let config = format!(
        "[backplane]\nredis = \"{}\"\n[[channel]]\nmatch = \"shop/*\"\npresence = true\n\
         stream_grace = \"1s\"\n{APP}client_events = true\nwatchlists = true\n",
        redis.url()
    );
    let gate = Gate::start_alone(&config).await;
    eventually("a gate that is ready", async || {
        let answer = gate.hook("GET", "/readyz", &[], "").await.json();
        let reasons = answer["reasons"].as_array().cloned().unwrap_or_default();
        reasons.iter().all(|reason| reason.as_str().unwrap().contains("upstream"))
    })
    .await;
    gate
}

#[tokio::test]
async fn events_reach_the_clients_of_all_gates_but_the_one_left_out() {
    let redis = Redis::start().await;
    let a = gate(&redis).await;
    let b = gate(&redis).await;
    let mut one = Echo::connect(&a).await;
    let mut two = Echo::connect(&b).await;
    one.subscribe("orders").await;
    two.subscribe("orders").await;
    for number in 0..10 {
        let from = if number % 2 == 0 { &a } else { &b };
        trigger(from, "orders", "n", &number.to_string(), json!({ "socket_id": "1.1" })).await;
        assert_eq!(data(&one.next().await), number);
        assert_eq!(data(&two.next().await), number);
    }
    trigger(&b, "orders", "x", "1", json!({ "socket_id": one.id })).await;
    assert_eq!(two.next().await["event"], "x");
    one.is_alive().await;
    one.subscribe("private-a").await;
    two.subscribe("private-a").await;
    let event = json!({ "event": "client-x", "channel": "private-a", "data": 1 });
    one.send(&event).await;
    assert_eq!(two.next().await, event);
    one.is_alive().await;
}

#[tokio::test]
async fn a_cache_channel_s_newest_event_is_known_at_all_gates() {
    let redis = Redis::start().await;
    let a = gate(&redis).await;
    let b = gate(&redis).await;
    trigger(&a, "cache-a", "n", "1", json!({})).await;
    trigger(&a, "cache-a", "n", "2", json!({})).await;
    let mut echo = Echo::connect(&b).await;
    echo.subscribe("cache-a").await;
    assert_eq!(data(&echo.next().await), 2);
    echo.subscribe("cache-b").await;
    let miss = echo.next().await;
    assert_eq!(miss, json!({ "event": "pusher:cache_miss", "channel": "cache-b" }));
    echo.is_alive().await;
}

#[tokio::test]
async fn a_user_s_connections_end_at_all_gates() {
    let redis = Redis::start().await;
    let a = gate(&redis).await;
    let b = gate(&redis).await;
    let mut one = Echo::connect(&a).await;
    let mut two = Echo::connect(&b).await;
    one.sign_in("7").await;
    two.sign_in("7").await;
    let path = "/apps/shop/users/7/terminate_connections";
    assert_eq!(rest(&a, "POST", path, &[], &json!({})).await.status, 200);
    assert_eq!(one.closed().await.1, 4009);
    assert_eq!(two.closed().await.1, 4009);
}

#[tokio::test]
async fn members_of_all_gates_see_each_other() {
    let redis = Redis::start().await;
    let a = gate(&redis).await;
    let b = gate(&redis).await;
    let mut one = Echo::connect(&a).await;
    let mut two = Echo::connect(&b).await;
    one.join("presence-room", "7").await;
    eventually("the first user, everywhere", async || {
        let path = "/apps/shop/channels/presence-room/users";
        rest(&b, "GET", path, &[], &Value::Null).await.json() == json!({ "users": [{ "id": "7" }] })
    })
    .await;
    let told = two.join("presence-room", "8").await;
    assert_eq!(told["presence"]["ids"].as_array().unwrap().len(), 2, "{told}");
    let added = one.next().await;
    assert_eq!(
        (&added["event"], &data(&added)["user_id"]),
        (&json!("pusher_internal:member_added"), &json!("8"),)
    );
    two.unsubscribe("presence-room").await;
    assert_eq!(one.next().await["event"], "pusher_internal:member_removed");
    one.is_alive().await;
}

#[tokio::test]
async fn a_watchlist_sees_the_users_of_all_gates() {
    let redis = Redis::start().await;
    let a = gate(&redis).await;
    let b = gate(&redis).await;
    let watched = |frame: &Value| data(frame)["events"].clone();
    let mut one = Echo::connect(&a).await;
    let user = json!({ "id": "1", "watchlist": ["7"] }).to_string();
    let auth = format!("{KEY}:{}", sign(&format!("{}::user::{user}", one.id)));
    let fields = json!({ "auth": auth, "user_data": user });
    one.send(&json!({ "event": "pusher:signin", "data": fields })).await;
    assert_eq!(one.next().await["event"], "pusher:signin_success");
    assert_eq!(watched(&one.next().await), json!([{ "name": "offline", "user_ids": ["7"] }]));
    let mut seven = Echo::connect(&b).await;
    seven.sign_in("7").await;
    assert_eq!(watched(&one.next().await), json!([{ "name": "online", "user_ids": ["7"] }]));
    drop(seven);
    assert_eq!(watched(&one.next().await), json!([{ "name": "offline", "user_ids": ["7"] }]));
    one.is_alive().await;
}

#[tokio::test]
async fn a_session_at_another_gate_begins_anew_at_once() {
    let redis = Redis::start().await;
    let a = gate(&redis).await;
    let b = gate(&redis).await;
    let (session, _) = Session::open(&a, "abcd1234").await;
    let mut elsewhere = Session::new(&b, "abcd1234").await;
    assert_eq!(elsewhere.path, session.path);
    assert_eq!(elsewhere.poll().await, "o{}\n", "the client takes it for a lost session");
}
