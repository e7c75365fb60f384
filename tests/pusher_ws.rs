//! The Pusher protocol over a WebSocket.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::json;
use std::time::Duration;
use support::pusher::{APP, Echo, TARGET, auth, data, rest, trigger};
use support::socket::{BINARY, CLOSE, PING, PONG, TEXT};
use support::{Client, Gate, PlainSite, Socket, Way, eventually};

async fn gate(keys: &str) -> Gate {
    Gate::start_alone(&format!("{APP}{keys}")).await
}

#[tokio::test]
async fn a_connection_begins_with_its_socket_id() {
    let gate = gate("activity_timeout = \"45s\"\n").await;
    let mut socket = Socket::open(&gate, TARGET, &[]).await;
    let first = socket.json().await;
    assert_eq!(first["event"], "pusher:connection_established");
    assert!(first["data"].is_string());
    let data = data(&first);
    assert_eq!(data["activity_timeout"], 45);
    let id = data["socket_id"].as_str().unwrap();
    let (one, two) = id.split_once('.').unwrap();
    assert!(one.parse::<u64>().is_ok() && two.parse::<u64>().is_ok(), "{id}");
}

#[tokio::test]
async fn what_cannot_be_served_is_an_error_and_a_close_of_its_code() {
    let gate = gate("origins = [\"https://a.example\"]\n").await;
    for (target, headers, code) in [
        ("/app/other?protocol=7", vec![], 4001),
        ("/app/app-key", vec![], 4008),
        ("/app/app-key?protocol=x", vec![], 4006),
        ("/app/app-key?protocol=8", vec![], 4007),
        ("/app/app-key?protocol=4", vec![], 4007),
        (TARGET, vec![("Origin", "https://evil.example")], 4009),
    ] {
        let socket = Socket::open(&gate, target, &headers).await;
        let mut echo = Echo { socket, id: String::new() };
        let (error, closed) = echo.closed().await;
        assert_eq!((&error["code"], closed), (&json!(code), code), "{target}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    Socket::open(&gate, TARGET, &[("Origin", "https://a.example")]).await;
    let own = [("Origin", "https://gate.example"), ("Host", "gate.example")];
    let mut client = gate.connect().await;
    Socket::ask(&mut client, TARGET, &own).await;
    assert_eq!(client.read_head().await.status, 101);
}

#[tokio::test]
async fn what_is_no_websocket_of_an_app_is_not_upgraded() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), APP).await;
    assert_eq!(gate.get(TARGET).await.status, 426);
    for target in ["/app/other", "/app/app-key/more", "/app/", "/pusher/auth", "/broadcasting/auth"]
    {
        assert_eq!(gate.get(target).await.status, 200, "{target} is the site's");
    }
    let mut client = gate.connect().await;
    let old = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "8")];
    client.send("GET", TARGET, &old, b"").await;
    assert_eq!(client.read_response().await.status, 426);
}

#[tokio::test]
async fn without_apps_all_of_it_is_the_site_s() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), "").await;
    assert_eq!(gate.get(TARGET).await.status, 200);
    let mut client = gate.connect().await;
    let path = "/pusher/app/app-key/1/abc/xhr";
    assert_eq!(client.post(path, "application/json", "").await.status, 200);
    let mut internal = Client::connect(gate.internal()).await;
    assert_eq!(internal.get("/up").await.status, 404);
}

#[tokio::test]
async fn a_public_channel_gets_what_the_site_and_the_hook_publish() {
    let gate = gate("").await;
    let mut echo = Echo::connect(&gate).await;
    assert_eq!(echo.subscribe("orders").await, json!({}));
    trigger(&gate, "orders", "App\\Events\\Shipped", r#"{"id":7}"#, json!({})).await;
    let event = echo.next().await;
    let wanted = json!({
        "event": "App\\Events\\Shipped", "channel": "orders", "data": r#"{"id":7}"#
    });
    assert_eq!(event, wanted);
    gate.publish_json("shop/orders", &json!({ "event": "x", "data": { "a": 1 } })).await;
    let event = echo.next().await;
    assert_eq!(event, json!({ "event": "x", "channel": "orders", "data": r#"{"a":1}"# }));
    gate.publish("shop/orders", "plain").await;
    let event = echo.next().await;
    assert_eq!(event, json!({ "event": "message", "channel": "orders", "data": "plain" }));
}

#[tokio::test]
async fn polls_and_streams_share_the_channel() {
    let gate = gate("").await;
    let mut poll = gate.hold(Way::Plain, "/comet/shop%2Forders").await;
    trigger(&gate, "orders", "x", "1", json!({})).await;
    let answer = poll.answer().await.json();
    assert_eq!(answer["messages"][0]["data"], json!({ "event": "x", "data": "1" }));
    let response = gate.get("/comet/shop%2Forders?cursor=oldest&timeout=0").await.json();
    assert_eq!(response["messages"][0]["channel"], "shop/orders");
}

#[tokio::test]
async fn channels_that_the_site_signs_for_are_closed_to_open_rules() {
    let gate = gate("").await;
    for channel in ["private-a", "presence-a", "private-encrypted-a", "%23server-to-user-7"] {
        let response = gate.get(&format!("/comet/shop%2F{channel}?timeout=0")).await;
        assert_eq!(response.status, 403, "{channel}");
        let response = gate.get(&format!("/comet/orders,shop%2F{channel}?timeout=0")).await;
        assert_eq!(response.status, 403, "{channel}");
    }
    assert_eq!(gate.get("/comet/private-a?timeout=0").await.status, 200);
    assert_eq!(gate.get("/comet/shop%2Fa?timeout=0").await.status, 200);
}

#[tokio::test]
async fn events_keep_their_order_and_come_once() {
    let gate = gate("").await;
    let mut echo = Echo::connect(&gate).await;
    for channel in ["a", "b", "c"] {
        echo.subscribe(channel).await;
    }
    for number in 0..30 {
        let channel = ["a", "b", "c"][number % 3];
        trigger(&gate, channel, "n", &number.to_string(), json!({})).await;
    }
    let mut got = vec![Vec::new(); 3];
    for _ in 0..30 {
        let event = echo.next().await;
        let index = ["a", "b", "c"].iter().position(|name| event["channel"] == *name).unwrap();
        got[index].push(data(&event).as_u64().unwrap());
    }
    for (index, numbers) in got.iter().enumerate() {
        let wanted: Vec<u64> = (0..10).map(|number| number * 3 + index as u64).collect();
        assert_eq!(*numbers, wanted);
    }
    echo.is_alive().await;
}

#[tokio::test]
async fn a_private_channel_wants_the_site_s_signature() {
    let gate = gate("").await;
    let mut echo = Echo::connect(&gate).await;
    let good = auth(&echo.id, "private-a", None);
    let (key, signature) = good.split_once(':').unwrap();
    for bad in [
        json!({}),
        json!({ "auth": "" }),
        json!({ "auth": signature }),
        json!({ "auth": format!("other:{signature}") }),
        json!({ "auth": format!("{key}:{}", "0".repeat(64)) }),
        json!({ "auth": auth("1.1", "private-a", None) }),
        json!({ "auth": auth(&echo.id, "private-b", None) }),
        json!({ "auth": good, "channel_data": "{}" }),
    ] {
        let answer = echo.ask("private-a", bad.clone()).await;
        assert_eq!(answer["event"], "pusher:subscription_error", "{bad}");
        assert_eq!(answer["channel"], "private-a");
        assert_eq!(data(&answer)["status"], 401);
        assert_eq!(data(&answer)["type"], "AuthError");
    }
    trigger(&gate, "private-a", "x", "", json!({})).await;
    echo.is_alive().await;
    echo.subscribe("private-a").await;
    trigger(&gate, "private-a", "x", "", json!({})).await;
    assert_eq!(echo.next().await["channel"], "private-a");
    // With data, as some libraries sign.
    let member = r#"{"a":1}"#;
    let auth = auth(&echo.id, "private-c", Some(member));
    let answer = echo.ask("private-c", json!({ "auth": auth, "channel_data": member })).await;
    assert_eq!(answer["event"], "pusher_internal:subscription_succeeded");
    echo.subscribe("private-encrypted-d").await;
}

#[tokio::test]
async fn names_that_are_none_are_refused() {
    let gate = gate("").await;
    let mut echo = Echo::connect(&gate).await;
    for bad in ["", "a b", "a/b", "ä", "#a", &"a".repeat(165)] {
        let answer = echo.ask(bad, json!({})).await;
        assert_eq!(answer["event"], "pusher:subscription_error", "{bad}");
        assert_eq!(data(&answer)["status"], 400, "{bad}");
    }
    echo.subscribe(&"a".repeat(164)).await;
}

#[tokio::test]
async fn a_second_subscription_is_the_first_and_an_unsubscribe_ends_it() {
    let gate = gate("").await;
    let mut echo = Echo::connect(&gate).await;
    echo.subscribe("a").await;
    echo.subscribe("b").await;
    echo.subscribe("a").await;
    trigger(&gate, "a", "x", "", json!({})).await;
    assert_eq!(echo.next().await["event"], "x");
    echo.is_alive().await;
    echo.unsubscribe("a").await;
    echo.unsubscribe("never").await;
    trigger(&gate, "a", "x", "", json!({})).await;
    echo.is_alive().await;
    trigger(&gate, "b", "y", "", json!({})).await;
    assert_eq!(echo.next().await["event"], "y");
    echo.subscribe("a").await;
    trigger(&gate, "a", "z", "", json!({})).await;
    assert_eq!(echo.next().await["event"], "z");
}

#[tokio::test]
async fn the_connection_that_caused_an_event_is_left_out() {
    let gate = gate("").await;
    let mut one = Echo::connect(&gate).await;
    let mut two = Echo::connect(&gate).await;
    one.subscribe("a").await;
    two.subscribe("a").await;
    trigger(&gate, "a", "x", "1", json!({ "socket_id": one.id })).await;
    trigger(&gate, "a", "x", "2", json!({ "socket_id": "1.1" })).await;
    assert_eq!(data(&two.next().await), 1);
    assert_eq!(data(&two.next().await), 2);
    assert_eq!(data(&one.next().await), 2);
    // Readers of the channel do not learn which user it was.
    let text = gate.get("/comet/shop%2Fa?cursor=oldest&timeout=0").await.text();
    assert!(text.contains("except") && !text.contains(&one.id), "{text}");
}

#[tokio::test]
async fn a_cache_channel_begins_with_its_newest_event() {
    let gate = gate("client_events = true\n").await;
    let mut echo = Echo::connect(&gate).await;
    echo.subscribe("cache-a").await;
    let miss = echo.next().await;
    assert_eq!(miss, json!({ "event": "pusher:cache_miss", "channel": "cache-a" }));
    for number in 1..=3 {
        trigger(&gate, "cache-a", "n", &number.to_string(), json!({})).await;
        assert_eq!(data(&echo.next().await), number);
    }
    let mut late = Echo::connect(&gate).await;
    late.subscribe("cache-a").await;
    assert_eq!(data(&late.next().await), 3);
    late.is_alive().await;
    trigger(&gate, "cache-a", "n", "4", json!({})).await;
    assert_eq!(data(&late.next().await), 4);
    // What clients send to each other is no state.
    trigger(&gate, "private-cache-b", "n", "1", json!({})).await;
    late.subscribe("private-cache-b").await;
    assert_eq!(data(&late.next().await), 1);
    let event = json!({ "event": "client-x", "channel": "private-cache-b", "data": {} });
    late.send(&event).await;
    eventually("the event", async || gate.channel("shop/private-cache-b").await["kept"] == 2).await;
    let mut other = Echo::connect(&gate).await;
    other.subscribe("private-cache-b").await;
    assert_eq!(data(&other.next().await), 1);
}

#[tokio::test]
async fn client_events_reach_the_others_as_they_were_sent() {
    let gate = gate("client_events = true\n").await;
    let mut one = Echo::connect(&gate).await;
    let mut two = Echo::connect(&gate).await;
    one.subscribe("private-a").await;
    two.subscribe("private-a").await;
    for sent in [json!({ "x": 1.50 }), json!("text"), json!(null)] {
        let event = json!({ "event": "client-typing", "channel": "private-a", "data": sent });
        one.send(&event).await;
        assert_eq!(two.next().await, event);
    }
    one.is_alive().await;
}

#[tokio::test]
async fn client_events_are_for_members_of_private_channels_where_enabled() {
    let gate = gate("client_events = true\nmax_event = \"100B\"\n").await;
    let mut echo = Echo::connect(&gate).await;
    echo.subscribe("a").await;
    echo.subscribe("private-encrypted-a").await;
    echo.subscribe("private-a").await;
    for (channel, length) in
        [("a", 1), ("private-b", 1), ("private-encrypted-a", 1), ("private-a", 200)]
    {
        let data = "x".repeat(length);
        echo.send(&json!({ "event": "client-x", "channel": channel, "data": data })).await;
        let error = echo.next().await;
        assert_eq!(
            (&error["event"], &error["data"]["code"]),
            (&json!("pusher:error"), &json!(4301))
        );
    }
    for _ in 0..10 {
        echo.send(&json!({ "event": "client-x", "channel": "private-a", "data": 1 })).await;
    }
    echo.is_alive().await;
    echo.send(&json!({ "event": "client-x", "channel": "private-a", "data": 1 })).await;
    assert_eq!(echo.next().await["data"]["code"], 4301);
    assert!(gate.channel("shop/a").await["newest"].is_null(), "nothing was published");
}

#[tokio::test]
async fn client_events_are_off_unless_the_app_says_so() {
    let gate = gate("").await;
    let mut echo = Echo::connect(&gate).await;
    echo.subscribe("private-a").await;
    echo.send(&json!({ "event": "client-x", "channel": "private-a", "data": 1 })).await;
    assert_eq!(echo.next().await["data"]["code"], 4301);
    // An event that is none of a client's is no event.
    echo.send(&json!({ "event": "x", "channel": "private-a", "data": 1 })).await;
    echo.send(&json!({ "event": "pusher_internal:member_added", "channel": "private-a" })).await;
    echo.is_alive().await;
}

#[tokio::test]
async fn frames_that_are_none_are_errors_and_the_connection_goes_on() {
    let gate = gate("").await;
    let mut echo = Echo::connect(&gate).await;
    for bad in ["", "{", "[]", "7", "{\"event\":1}", r#"{"event":"pusher:subscribe"}"#] {
        echo.socket.send(0x80 | TEXT, bad.as_bytes()).await;
        assert_eq!(echo.next().await["event"], "pusher:error", "{bad}");
    }
    // In two pieces, with a ping between them.
    let text = r#"{"event":"pusher:subscribe","data":{"channel":"a"}}"#.as_bytes();
    echo.socket.send(TEXT, &text[..20]).await;
    echo.socket.send(0x80 | PING, b"hi").await;
    assert_eq!(echo.socket.frame().await, (PONG, b"hi".to_vec()));
    echo.socket.send(0x80, &text[20..]).await;
    assert_eq!(echo.next().await["channel"], "a");
}

#[tokio::test]
async fn frames_that_break_the_rules_end_the_socket() {
    let gate = gate("max_event = \"1KiB\"\n").await;
    for (first, payload, code) in [
        (0x80 | BINARY, vec![b'x'], 1008),
        (0x80 | TEXT, vec![0xff], 1007),
        (0x80, vec![b'x'], 1002),
        (0x80 | TEXT, vec![b'x'; 6 << 10], 1009),
        (0x80 | CLOSE, 1000u16.to_be_bytes().to_vec(), 1000),
        (0x80 | CLOSE, vec![1], 1002),
    ] {
        let mut echo = Echo::connect(&gate).await;
        echo.socket.send(first, &payload).await;
        assert_eq!(echo.socket.closed().await.0, code, "{first:x}");
    }
    // Many pieces are one message.
    let mut echo = Echo::connect(&gate).await;
    echo.socket.send(TEXT, &[b'x'; 3 << 10]).await;
    echo.socket.send(0, &[b'x'; 3 << 10]).await;
    assert_eq!(echo.socket.closed().await.0, 1009);
}

#[tokio::test]
async fn a_silent_client_is_pinged_and_then_closed() {
    let gate = gate("ping = \"200ms\"\n").await;
    let mut echo = Echo::connect(&gate).await;
    assert_eq!(echo.next().await["event"], "pusher:ping");
    echo.send(&json!({ "event": "pusher:pong", "data": {} })).await;
    assert_eq!(echo.next().await["event"], "pusher:ping");
    let (error, code) = echo.closed().await;
    assert_eq!((&error["code"], code), (&json!(4201), 4201));
    eventually("no connection", async || gate.held().await == 0).await;
}

#[tokio::test]
async fn a_gate_that_stood_still_does_not_blame_its_clients() {
    let gate = gate("ping = \"6s\"\n").await;
    let mut echo = Echo::connect(&gate).await;
    assert_eq!(echo.next().await["event"], "pusher:ping");
    gate.signal("STOP");
    // Longer than the client has for its answer, as on a machine that is too busy.
    tokio::time::sleep(Duration::from_secs(5)).await;
    gate.signal("CONT");
    // Its timers have fired before it answers, and the client's answer comes after that.
    for _ in 0..2 {
        assert_eq!(gate.get("/comet/a?timeout=0").await.status, 200);
    }
    echo.send(&json!({ "event": "pusher:pong", "data": {} })).await;
    echo.is_alive().await;
}

#[tokio::test]
async fn a_drain_sends_clients_elsewhere_at_once() {
    let gate = Gate::start_alone(&format!("[drain]\nspread = \"200ms\"\n{APP}")).await;
    let mut one = Echo::connect(&gate).await;
    let mut none = Echo::connect(&gate).await;
    one.subscribe("a").await;
    gate.signal("TERM");
    for echo in [&mut one, &mut none] {
        let (error, code) = echo.closed().await;
        assert_eq!((&error["code"], code), (&json!(4200), 4200));
    }
    assert_eq!(gate.wait_for_exit().await, 0);
}

#[tokio::test]
async fn what_was_published_before_a_drain_is_delivered() {
    let gate = Gate::start_alone(&format!("[drain]\nspread = \"100ms\"\n{APP}")).await;
    let mut echoes = Vec::new();
    for _ in 0..100 {
        let mut echo = Echo::connect(&gate).await;
        echo.subscribe("a").await;
        echoes.push(echo);
    }
    gate.publish_json("shop/a", &json!({ "event": "e", "data": "last" })).await;
    gate.signal("TERM");
    for mut echo in echoes {
        assert_eq!(echo.next().await["data"], "last");
        assert_eq!(echo.closed().await.1, 4200);
    }
}

#[tokio::test]
async fn above_the_limits_clients_come_again_later() {
    let config = format!("[hold]\nmax = 1\n[limits]\nchannels_per_poll = 2\n{APP}");
    let gate = Gate::start_alone(&config).await;
    let mut echo = Echo::connect(&gate).await;
    let socket = Socket::open(&gate, TARGET, &[]).await;
    let mut other = Echo { socket, id: String::new() };
    assert_eq!(other.closed().await.1, 4100);
    echo.subscribe("a").await;
    echo.subscribe("b").await;
    let answer = echo.ask("c", json!({})).await;
    assert_eq!(answer["event"], "pusher:subscription_error");
    echo.unsubscribe("a").await;
    echo.subscribe("c").await;
}

#[tokio::test]
async fn a_user_signs_in_and_is_reached_and_ended() {
    let gate = gate("").await;
    let mut echo = Echo::connect(&gate).await;
    let channel = "#server-to-user-7";
    assert_eq!(echo.ask(channel, json!({})).await["event"], "pusher:subscription_error");
    let answer = echo.sign_in("7").await;
    assert_eq!(answer["event"], "pusher:signin_success");
    assert_eq!(data(&answer)["user_data"], r#"{"id":"7"}"#);
    assert_eq!(
        echo.ask("#server-to-user-8", json!({})).await["event"],
        "pusher:subscription_error"
    );
    trigger(&gate, channel, "before", "", json!({})).await;
    echo.subscribe(channel).await;
    trigger(&gate, channel, "after", "", json!({})).await;
    assert_eq!(echo.next().await["event"], "after");
    echo.unsubscribe(channel).await;
    let path = "/apps/shop/users/8/terminate_connections";
    assert_eq!(rest(&gate, "POST", path, &[], &json!({})).await.status, 200);
    echo.is_alive().await;
    let path = "/apps/shop/users/7/terminate_connections";
    assert_eq!(rest(&gate, "POST", path, &[], &json!({})).await.json(), json!({}));
    assert_eq!(echo.closed().await.1, 4009);
    let mut again = Echo::connect(&gate).await;
    again.sign_in("7").await;
    again.is_alive().await;
}

#[tokio::test]
async fn a_sign_in_that_is_not_the_site_s_ends_the_connection() {
    let gate = gate("").await;
    let mut echo = Echo::connect(&gate).await;
    let data = json!({ "auth": "app-key:00", "user_data": r#"{"id":"7"}"# });
    echo.send(&json!({ "event": "pusher:signin", "data": data })).await;
    assert_eq!(echo.closed().await.1, 4009);
    let mut echo = Echo::connect(&gate).await;
    echo.sign_in("7").await;
    echo.sign_in("7").await;
    echo.send(&json!({ "event": "pusher:ping" })).await;
    assert_eq!(echo.next().await["event"], "pusher:pong");
    echo.id.clone_from(&echo.id.clone());
    let user = json!({ "id": "8" }).to_string();
    let signed = support::pusher::sign(&format!("{}::user::{user}", echo.id));
    let data = json!({ "auth": format!("app-key:{signed}"), "user_data": user });
    echo.send(&json!({ "event": "pusher:signin", "data": data })).await;
    assert_eq!(echo.closed().await.1, 4009);
}

#[tokio::test]
async fn a_client_that_fell_behind_learns_of_it() {
    let config = format!("[history]\nmessages = 3\n{APP}");
    let gate = Gate::start_alone(&config).await;
    let mut echo = Echo::connect(&gate).await;
    echo.subscribe("a").await;
    gate.publish("shop/a", "one").await;
    assert_eq!(echo.next().await["data"], "one");
    gate.forget("shop/a").await;
    let reset = echo.next().await;
    assert_eq!((&reset["event"], &reset["channel"]), (&json!("pollgate:reset"), &json!("a")));
    gate.publish("shop/a", "two").await;
    assert_eq!(echo.next().await["data"], "two");
}

#[tokio::test]
async fn a_reload_takes_a_new_secret_and_ends_what_is_gone() {
    let gate = gate("").await;
    let mut echo = Echo::connect(&gate).await;
    let other = APP.replace("app-secret", "another");
    gate.reconfigure(&other).await;
    let old = auth(&echo.id, "private-a", None);
    let answer = echo.ask("private-a", json!({ "auth": old })).await;
    assert_eq!(answer["event"], "pusher:subscription_error");
    echo.subscribe("a").await;
    gate.reconfigure("").await;
    echo.send(&json!({ "event": "pusher:ping" })).await;
    assert_eq!(echo.closed().await.1, 4003);
}
