//! The Pusher protocol's signed requests on the internal listener.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::pusher::{APP, Echo, data, now, rest, signed, trigger};
use support::{Client, Gate};

async fn gate() -> Gate {
    Gate::start_alone(APP).await
}

async fn post(gate: &Gate, body: &Value) -> support::Response {
    rest(gate, "POST", "/apps/shop/events", &[], body).await
}

async fn get(gate: &Gate, path: &str, query: &[(&str, &str)]) -> support::Response {
    rest(gate, "GET", &format!("/apps/shop/{path}"), query, &Value::Null).await
}

#[tokio::test]
async fn a_signature_is_needed_and_serves_in_place_of_the_token() {
    let gate = Gate::with(&format!("[publish]\ntoken = \"t\"\n{APP}")).alone().token("t");
    let gate = gate.start().await;
    let body = json!({ "name": "x", "data": "", "channel": "a" });
    assert_eq!(post(&gate, &body).await.status, 200);
    let text = body.to_string();
    let send = async |target: &str, body: &str| {
        let mut client = Client::connect(gate.internal()).await;
        client.post(target, "application/json", body).await.status
    };
    let path = "/apps/shop/events";
    let good = signed("POST", path, &[], &text, now());
    assert_eq!(send(&good, &text).await, 200);
    assert_eq!(send(path, &text).await, 401);
    assert_eq!(send(&good, "{}").await, 401, "another body");
    assert_eq!(send(&good.replace("auth_signature=", "auth_signature=0"), &text).await, 401);
    assert_eq!(send(&good.replace("events", "batch_events"), &text).await, 401);
    assert_eq!(send(&signed("POST", path, &[], &text, now() - 700), &text).await, 401);
    assert_eq!(send(&signed("POST", path, &[], &text, now() + 700), &text).await, 401);
    let other = signed("POST", "/apps/other/events", &[], &text, now());
    assert_eq!(send(&other, &text).await, 404);
    // The signature reaches nothing else.
    let hook = signed("POST", "/publish", &[], &text, now());
    assert_eq!(send(&hook, &text).await, 401);
}

#[tokio::test]
async fn the_public_side_has_none_of_it() {
    let gate = gate().await;
    let body = json!({ "name": "x", "data": "", "channel": "a" }).to_string();
    let target = signed("POST", "/apps/shop/events", &[], &body, now());
    let response = gate.connect().await.post(&target, "application/json", &body).await;
    assert_eq!(response.status, 502, "it is forwarded to a site that is not there");
}

#[tokio::test]
async fn an_event_goes_to_all_its_channels() {
    let gate = gate().await;
    let mut echo = Echo::connect(&gate).await;
    echo.subscribe("a").await;
    echo.subscribe("b").await;
    let body = json!({ "name": "x", "data": "1", "channels": ["a", "b", "a", "c"] });
    let response = post(&gate, &body).await;
    assert_eq!((response.status, response.json()), (200, json!({})));
    let mut got = [echo.next().await["channel"].clone(), echo.next().await["channel"].clone()];
    got.sort_by_key(Value::to_string);
    assert_eq!(got, ["a", "b"]);
    echo.is_alive().await;
}

#[tokio::test]
async fn what_is_wrong_with_an_event_is_said_and_nothing_published() {
    let gate = gate().await;
    let names = |count: usize| (0..count).map(|n| format!("c{n}")).collect::<Vec<_>>();
    for (body, status) in [
        (json!({ "data": "", "channel": "a" }), 422),
        (json!({ "name": "x", "channel": "a" }), 422),
        (json!({ "name": "x", "data": "" }), 422),
        (json!({ "name": "x", "data": "", "channels": names(101) }), 422),
        (json!({ "name": "x", "data": "", "channels": ["a", "b c"] }), 422),
        (json!({ "name": "x", "data": "y".repeat(10_241), "channel": "a" }), 413),
        (json!({ "name": "x".repeat(201), "data": "", "channel": "a" }), 422),
        (json!([]), 400),
    ] {
        let response = post(&gate, &body).await;
        assert_eq!(response.status, status, "{}", response.text());
        assert!(!response.text().is_empty());
    }
    assert_eq!(gate.status().await["publishes"], 0);
    let body = json!({ "name": "x", "data": "y".repeat(10_240), "channels": names(100) });
    assert_eq!(post(&gate, &body).await.status, 200);
    assert_eq!(gate.status().await["publishes"], 100);
}

#[tokio::test]
async fn a_batch_has_up_to_ten_events() {
    let gate = gate().await;
    let mut echo = Echo::connect(&gate).await;
    echo.subscribe("a").await;
    let event = |n: usize| json!({ "channel": "a", "name": "n", "data": n.to_string() });
    let batch = |count: usize| json!({ "batch": (0..count).map(event).collect::<Vec<_>>() });
    let path = "/apps/shop/batch_events";
    assert_eq!(rest(&gate, "POST", path, &[], &batch(10)).await.json(), json!({}));
    for number in 0..10 {
        assert_eq!(data(&echo.next().await), number);
    }
    assert_eq!(rest(&gate, "POST", path, &[], &batch(11)).await.status, 422);
    let info = json!({ "batch": [
        { "channel": "a", "name": "n", "data": "", "info": "subscription_count" },
        { "channel": "b", "name": "n", "data": "" },
    ] });
    let answer = rest(&gate, "POST", path, &[], &info).await.json();
    assert_eq!(answer, json!({ "batch": [{ "subscription_count": 1 }, {}] }));
}

#[tokio::test]
async fn an_event_s_answer_tells_of_its_channels() {
    let gate = gate().await;
    let mut one = Echo::connect(&gate).await;
    let mut two = Echo::connect(&gate).await;
    one.subscribe("a").await;
    two.subscribe("a").await;
    for _ in 0..20 {
        let told = trigger(&gate, "a", "x", "", json!({ "info": "subscription_count,user_count" }));
        assert_eq!(told.await, json!({ "channels": { "a": { "subscription_count": 2 } } }));
    }
}

#[tokio::test]
async fn channels_with_subscribers_are_listed() {
    let gate = gate().await;
    assert_eq!(get(&gate, "channels", &[]).await.json(), json!({ "channels": {} }));
    let mut one = Echo::connect(&gate).await;
    let mut two = Echo::connect(&gate).await;
    one.subscribe("a").await;
    two.subscribe("a").await;
    two.subscribe("private-b").await;
    trigger(&gate, "empty", "x", "", json!({})).await;
    let listed = get(&gate, "channels", &[]).await.json();
    assert_eq!(listed, json!({ "channels": { "a": {}, "private-b": {} } }));
    let query = [("filter_by_prefix", "private-"), ("info", "subscription_count")];
    let listed = get(&gate, "channels", &query).await.json();
    assert_eq!(listed, json!({ "channels": { "private-b": { "subscription_count": 1 } } }));
    assert_eq!(get(&gate, "channels", &[("info", "user_count")]).await.status, 400);
    let one_channel = get(&gate, "channels/a", &[("info", "subscription_count")]).await.json();
    assert_eq!(one_channel, json!({ "occupied": true, "subscription_count": 2 }));
    assert_eq!(get(&gate, "channels/none", &[]).await.json(), json!({ "occupied": false }));
    assert_eq!(get(&gate, "channels/a", &[("info", "user_count")]).await.status, 400);
    assert_eq!(get(&gate, "channels/a/users", &[]).await.status, 400);
    assert_eq!(get(&gate, "channels/a%20b", &[]).await.status, 400);
    assert_eq!(get(&gate, "connections", &[]).await.json(), json!({ "connections": 2 }));
    one.unsubscribe("a").await;
    drop(two);
    support::eventually("no subscribers", async || {
        get(&gate, "channels", &[]).await.json() == json!({ "channels": {} })
    })
    .await;
}

#[tokio::test]
async fn a_cache_channel_s_event_is_told() {
    let gate = gate().await;
    let query = [("info", "cache")];
    let told = get(&gate, "channels/cache-a", &query).await.json();
    assert_eq!(told, json!({ "occupied": false, "cache": null }));
    trigger(&gate, "cache-a", "x", "{\"a\":1}", json!({})).await;
    let told = get(&gate, "channels/cache-a", &query).await.json();
    assert_eq!(told["cache"], json!({ "data": "{\"a\":1}" }));
}

#[tokio::test]
async fn other_paths_and_methods_are_none() {
    let gate = gate().await;
    assert_eq!(get(&gate, "other", &[]).await.status, 404);
    assert_eq!(get(&gate, "events", &[]).await.status, 405);
    let path = "/apps/shop/channels";
    assert_eq!(rest(&gate, "POST", path, &[], &json!({})).await.status, 405);
    let up = Client::connect(gate.internal()).await.get("/up").await;
    assert_eq!((up.status, up.json()), (200, json!({ "health": "OK" })));
}

#[tokio::test]
async fn a_page_from_elsewhere_may_not_publish_even_if_it_is_signed() {
    let gate = gate().await;
    let body = json!({ "name": "x", "data": "", "channel": "a" }).to_string();
    let target = signed("POST", "/apps/shop/events", &[], &body, now());
    let headers = [("Origin", "https://evil.example"), ("Content-Type", "text/plain")];
    let mut client = Client::connect(gate.internal()).await;
    assert_eq!(client.request("POST", &target, &headers, body.as_bytes()).await.status, 403);
}
