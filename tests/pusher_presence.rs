//! Presence channels of the Pusher protocol: the hub's presence, as its clients see it.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::pusher::{APP, Echo, Session, auth, data, frames, member, rest};
use support::{Gate, eventually};

const ROOM: &str = "presence-room";

/// A gate on which a user stays for `grace` after a connection is lost.
async fn gate(grace: &str) -> Gate {
    let channel = "[[channel]]\nmatch = \"shop/*\"\npresence = true\n";
    Gate::start_alone(&format!("{channel}stream_grace = \"{grace}\"\n{APP}client_events = true\n"))
        .await
}

async fn get(gate: &Gate, path: &str, query: &[(&str, &str)]) -> Value {
    rest(gate, "GET", &format!("/apps/shop/{path}"), query, &Value::Null).await.json()
}

#[tokio::test]
async fn who_is_there_is_told_to_who_joins() {
    // Presence is on where the protocol has it, whatever the config says of channels.
    let gate = Gate::start_alone(APP).await;
    let mut one = Echo::connect(&gate).await;
    let mut two = Echo::connect(&gate).await;
    let own = json!({ "count": 1, "ids": ["7"], "hash": { "7": { "name": "Name of 7" } } });
    assert_eq!(one.join(ROOM, "7").await, json!({ "presence": own }));
    let both = json!({ "count": 2, "ids": ["7", "8"], "hash": {
        "7": { "name": "Name of 7" }, "8": { "name": "Name of 8" }
    } });
    assert_eq!(two.join(ROOM, "8").await, json!({ "presence": both }));
    let added = one.next().await;
    assert_eq!(added["event"], "pusher_internal:member_added");
    assert_eq!(added["channel"], ROOM);
    assert_eq!(data(&added), json!({ "user_id": "8", "user_info": { "name": "Name of 8" } }));
    two.is_alive().await;
    two.unsubscribe(ROOM).await;
    let removed = one.next().await;
    assert_eq!(removed["event"], "pusher_internal:member_removed");
    assert_eq!(data(&removed), json!({ "user_id": "8" }));
    one.is_alive().await;
}

#[tokio::test]
async fn a_user_with_two_tabs_comes_and_goes_once() {
    let gate = gate("100ms").await;
    let mut watcher = Echo::connect(&gate).await;
    watcher.join(ROOM, "1").await;
    let mut one = Echo::connect(&gate).await;
    let mut two = Echo::connect(&gate).await;
    one.join(ROOM, "7").await;
    two.join(ROOM, "7").await;
    assert_eq!(watcher.next().await["event"], "pusher_internal:member_added");
    watcher.is_alive().await;
    one.is_alive().await;
    one.unsubscribe(ROOM).await;
    watcher.is_alive().await;
    drop(two);
    assert_eq!(data(&watcher.next().await), json!({ "user_id": "7" }));
    watcher.is_alive().await;
}

#[tokio::test]
async fn a_lost_connection_keeps_its_user_for_the_grace() {
    let gate = gate("2s").await;
    let mut watcher = Echo::connect(&gate).await;
    watcher.join(ROOM, "1").await;
    let mut one = Echo::connect(&gate).await;
    one.join(ROOM, "7").await;
    watcher.next().await;
    drop(one);
    eventually("the connection's end", async || gate.held().await == 1).await;
    let mut again = Echo::connect(&gate).await;
    again.join(ROOM, "7").await;
    watcher.is_alive().await;
    drop(again);
    assert_eq!(watcher.next().await["event"], "pusher_internal:member_removed");
}

#[tokio::test]
async fn a_presence_channel_wants_a_signed_member() {
    let gate = gate("1s").await;
    let mut echo = Echo::connect(&gate).await;
    let member = member("7");
    let good = auth(&echo.id, ROOM, Some(&member));
    for (fields, status) in [
        (json!({ "auth": good }), 401),
        (json!({ "auth": auth(&echo.id, ROOM, None) }), 401),
        (json!({ "auth": good, "channel_data": support::pusher::member("8") }), 401),
        (json!({ "auth": auth(&echo.id, ROOM, Some("{}")), "channel_data": "{}" }), 400),
    ] {
        let answer = echo.ask(ROOM, fields.clone()).await;
        assert_eq!(answer["event"], "pusher:subscription_error", "{fields}");
        assert_eq!(data(&answer)["status"], status, "{fields}");
    }
    assert_eq!(get(&gate, &format!("channels/{ROOM}/users"), &[]).await, json!({ "users": [] }));
    // A number is its digits.
    let number = r#"{"user_id":10,"user_info":{"name":"Mr. Pusher"}}"#;
    let auth = auth(&echo.id, ROOM, Some(number));
    let answer = echo.ask(ROOM, json!({ "auth": auth, "channel_data": number })).await;
    assert_eq!(data(&answer)["presence"]["ids"], json!(["10"]));
}

#[tokio::test]
async fn rest_counts_users_and_lists_them() {
    let gate = gate("1s").await;
    let mut one = Echo::connect(&gate).await;
    let mut two = Echo::connect(&gate).await;
    let mut tab = Echo::connect(&gate).await;
    one.join(ROOM, "7").await;
    two.join(ROOM, "8").await;
    tab.join(ROOM, "8").await;
    let users = get(&gate, &format!("channels/{ROOM}/users"), &[]).await;
    assert_eq!(users, json!({ "users": [{ "id": "7" }, { "id": "8" }] }));
    let info = ("info", "user_count,subscription_count");
    let told = get(&gate, &format!("channels/{ROOM}"), &[info]).await;
    assert_eq!(told, json!({ "occupied": true, "user_count": 2, "subscription_count": 3 }));
    let query = [("filter_by_prefix", "presence-"), ("info", "user_count")];
    let told = get(&gate, "channels", &query).await;
    assert_eq!(told, json!({ "channels": { "presence-room": { "user_count": 2 } } }));
    // The hook shows the same.
    let hook = gate.hook("GET", "/channels/shop%2Fpresence-room/presence", &[], b"").await.json();
    assert_eq!(hook["count"], 2);
    assert_eq!(hook["members"][0]["user"], "7");
}

#[tokio::test]
async fn events_of_members_say_whose_they_are() {
    let gate = gate("1s").await;
    let mut one = Echo::connect(&gate).await;
    let mut two = Echo::connect(&gate).await;
    one.join(ROOM, "7").await;
    two.join(ROOM, "8").await;
    assert_eq!(one.next().await["event"], "pusher_internal:member_added");
    two.send(&json!({ "event": "client-x", "channel": ROOM, "data": { "a": 1 } })).await;
    let wanted =
        json!({ "event": "client-x", "channel": ROOM, "data": { "a": 1 }, "user_id": "8" });
    assert_eq!(one.next().await, wanted);
    two.is_alive().await;
}

#[tokio::test]
async fn a_presence_cache_channel_has_both() {
    let gate = gate("1s").await;
    support::pusher::trigger(&gate, "presence-cache-a", "n", "1", json!({})).await;
    let mut echo = Echo::connect(&gate).await;
    let told = echo.join("presence-cache-a", "7").await;
    assert_eq!(told["presence"]["count"], 1);
    assert_eq!(echo.next().await["data"], "1");
    // Again, the list is there again.
    assert_eq!(echo.join("presence-cache-a", "7").await["presence"]["count"], 1);
}

#[tokio::test]
async fn the_fallbacks_have_members_too() {
    let gate = gate("1s").await;
    let mut watcher = Echo::connect(&gate).await;
    watcher.join(ROOM, "1").await;
    let (mut session, socket) = Session::open(&gate, "abcd1234").await;
    let member = member("7");
    let fields = json!({ "channel": ROOM, "auth": auth(&socket, ROOM, Some(&member)), "channel_data": member });
    session.send(&gate, &[json!({ "event": "pusher:subscribe", "data": fields })]).await;
    let got = session.frames().await;
    assert_eq!(data(&got[0])["presence"]["count"], 2);
    assert_eq!(watcher.next().await["event"], "pusher_internal:member_added");
    let mut third = Echo::connect(&gate).await;
    third.join(ROOM, "3").await;
    let line = session.poll().await;
    assert_eq!(data(&frames(&line)[0])["user_id"], "3");
    watcher.next().await;
    session.ask("xhr").await;
    eventually("a poll", async || gate.held().await == 3).await;
    drop(session);
    assert_eq!(data(&watcher.next().await), json!({ "user_id": "7" }));
}

#[tokio::test]
async fn a_drain_makes_nobody_leave() {
    let gate = gate("1s").await;
    let mut one = Echo::connect(&gate).await;
    let mut two = Echo::connect(&gate).await;
    one.join(ROOM, "7").await;
    two.join(ROOM, "8").await;
    one.next().await;
    gate.signal("TERM");
    assert_eq!(one.closed().await.1, 4200);
    assert_eq!(two.closed().await.1, 4200);
}

#[cfg(feature = "site-tests")]
#[tokio::test]
async fn the_app_s_webhook_gets_pusher_s_events_and_signature() {
    use support::PhpSite;
    let mut site = PhpSite::of("laravel");
    site.env("REVERB_APP_KEY", support::pusher::KEY);
    site.env("REVERB_APP_SECRET", support::pusher::SECRET).start().await;
    let config = format!("{APP}webhook = \"/pusher/webhook\"\n");
    let gate = Gate::start_before(site.addr(), &config).await;
    let mut echo = Echo::connect(&gate).await;
    echo.join(ROOM, "7").await;
    echo.subscribe("orders").await;
    let seen = || std::fs::read_to_string(site.root().join("webhooks")).unwrap_or_default();
    let lines = || seen().lines().map(str::to_owned).collect::<Vec<_>>();
    eventually("three events", async || lines().len() == 3).await;
    let mut first = lines();
    first.sort();
    let wanted = [
        r#"{"name":"channel_occupied","channel":"orders"}"#,
        r#"{"name":"channel_occupied","channel":"presence-room"}"#,
        r#"{"name":"member_added","channel":"presence-room","user_id":"7"}"#,
    ];
    assert_eq!(first, wanted);
    echo.unsubscribe(ROOM).await;
    let removed = r#"{"name":"member_removed","channel":"presence-room","user_id":"7"}"#;
    eventually("the leave", async || lines().iter().any(|line| line == removed)).await;
}
