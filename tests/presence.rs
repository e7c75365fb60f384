//! Who is on a channel (`docs/presence.md`): joins and leaves as messages, the list, and who may
//! see it. Over Redis it is in `backplane_presence.rs`.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use support::{Client, Events, Gate, PlainSite, Socket, TempDir, Way, eventually};

const SHORT: &str = r#"
[[channel]]
match = "room*"
presence = true
grace = "1s"
stream_grace = "1s"

[[poll]]
path = "/comet/*"
dialect = "native"
methods = ["GET", "POST"]
transports = ["poll", "sse", "ws", "chunked"]
auth = { kind = "signed", keys = { k1 = "first secret" } }
"#;

/// The same with graces that do not end in a test.
fn long() -> String {
    SHORT.replace("\"1s\"", "\"1h\"")
}

fn token(user: &str, channels: &str) -> String {
    let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
    let base64 = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let mut signed = format!("k1.{expires}.{}", base64(channels));
    if !user.is_empty() {
        signed = format!("{signed}.{}", base64(user));
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"first secret");
    let tag = hmac::sign(&key, signed.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{signed}.{hex}")
}

/// The target of a poll of `user` on `room`.
fn room(user: &str, more: &str) -> String {
    format!("/comet/room?token={}{more}", token(user, "room"))
}

async fn list(gate: &Gate, channel: &str) -> Value {
    gate.hook("GET", &format!("/channels/{channel}/presence"), &[], b"").await.json()
}

fn users(list: &Value) -> Vec<String> {
    let members = list["members"].as_array().unwrap_or_else(|| panic!("{list}"));
    members.iter().map(|one| one["user"].as_str().unwrap().to_owned()).collect()
}

/// Joins and leaves so far: `+7`, `-7 gone`.
async fn events(gate: &Gate) -> Vec<String> {
    let response = gate.hook("GET", "/channels/presence%3Aroom/messages", &[], b"").await;
    let messages = response.json()["messages"].as_array().cloned().unwrap_or_default();
    messages.iter().map(|message| short(&message["data"])).collect()
}

fn short(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    match event["type"].as_str().unwrap() {
        "join" => format!("+{}", text("user")),
        "leave" => format!("-{} {}", text("user"), text("why")),
        _ => format!("#{}", event["count"]),
    }
}

#[tokio::test]
async fn a_user_who_polls_is_on_the_channel_until_its_grace_is_over() {
    for way in Way::ALL {
        let gate = Gate::start_alone(SHORT).await;
        let mut watcher = way.connect(&gate).await;
        let watch = format!("/comet/presence%3Aroom?token={}", token("9", "room"));
        watcher.ask(&watch).await;
        gate.wait_for_held(1).await;
        let mut poller = way.connect(&gate).await;
        poller.ask(&room("7", "")).await;
        let seen = watcher.answer().await.json();
        let joined = &seen["messages"][0];
        assert_eq!(joined["channel"], "presence:room");
        assert_eq!(joined["data"], json!({"type": "join", "user": "7", "info": null}));
        let here = list(&gate, "room").await;
        assert_eq!((&here["count"], &here["connections"]), (&json!(1), &json!(1)), "{here}");
        assert_eq!(users(&here), ["7"]);
        assert_eq!(here["members"][0]["info"], Value::Null);
        assert!(here["members"][0]["since"].as_f64().unwrap() > 1.6e9);
        // A message is no end: the next poll comes within the grace.
        gate.publish("room", "hello").await;
        let answer = poller.answer().await.json();
        let next = format!("&cursor={}", answer["cursor"].as_str().unwrap());
        poller.ask(&room("7", &next)).await;
        eventually("the next poll", async || list(&gate, "room").await["connections"] == 1).await;
        poller.close();
        let target = format!("{watch}&cursor={}", seen["cursor"].as_str().unwrap());
        let left = watcher.poll(&target).await.json();
        assert_eq!(
            left["messages"][0]["data"],
            json!({"type": "leave", "user": "7", "why": "gone"})
        );
        assert_eq!(list(&gate, "room").await["members"], json!([]));
        assert_eq!(events(&gate).await, ["+7", "-7 gone"]);
    }
}

#[tokio::test]
async fn a_second_tab_joins_nothing_and_a_client_without_a_name_is_counted() {
    let gate = Gate::start_alone(&long()).await;
    let _first = gate.hold(Way::Plain, &room("7", "")).await;
    let mut second = gate.connect().await;
    second.send_get(&room("7", "")).await;
    let mut nameless = gate.connect().await;
    nameless.send_get(&room("", "")).await;
    gate.wait_for_held(3).await;
    let here = list(&gate, "room").await;
    assert_eq!((&here["count"], &here["connections"]), (&json!(1), &json!(3)));
    assert_eq!(users(&here), ["7"]);
    assert_eq!(events(&gate).await, ["+7"]);
}

#[tokio::test]
async fn the_first_answer_has_the_list_and_its_cursor_leaves_nothing_out() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&long()).await;
        let _other = gate.hold(Way::Plain, &room("9", "")).await;
        let mut poller = way.connect(&gate).await;
        let answer = poller.poll(&room("7", "&presence=1")).await.json();
        let here = &answer["presence"];
        assert_eq!(users(here), ["9", "7"], "{answer}");
        assert_eq!((&here["channel"], &here["connections"]), (&json!("room"), &json!(2)));
        assert_eq!(answer["messages"], json!([]));
        let leave = gate.connect().await.get(&room("7", "&leave=1")).await;
        assert_eq!(leave.status, 200);
        let cursor = here["cursor"].as_str().unwrap();
        let token = token("9", "room");
        let target = format!("/comet/presence%3Aroom?token={token}&cursor={cursor}");
        let next = poller.poll(&target).await.json();
        let seen: Vec<_> = next["messages"].as_array().unwrap().iter().collect();
        assert_eq!(seen.len(), 1, "{next}");
        assert_eq!(short(&seen[0]["data"]), "-7 left");
        // The answer's own cursor goes on too, and several channels have several lists.
        let both = token_for_both();
        let target = format!("/comet/room,room2,presence%3Aroom?token={both}&presence=1");
        let answer = poller.poll(&target).await.json();
        assert_eq!(answer["presence"].as_array().unwrap().len(), 2, "{answer}");
        // To look is not to be there.
        let target = format!("/comet/presence%3Aroom?token={both}&presence=1");
        let before = poller.poll(&target).await.json();
        assert_eq!(before["presence"]["channel"], "room", "{before}");
        assert_eq!(users(&before["presence"]), ["9"]);
        assert_eq!(answer["presence"][1]["channel"], "room2");
    }
}

fn token_for_both() -> String {
    token("", "room,room2")
}

#[tokio::test]
async fn a_beacon_that_leaves_ends_the_grace_whether_the_poll_ends_before_or_after_it() {
    let gate = Gate::start_alone(&long()).await;
    let poll = gate.hold(Way::Plain, &room("7", "")).await;
    let mut beacon = gate.connect().await;
    let left = beacon.post(&room("7", "&leave=1"), "application/x-www-form-urlencoded", "").await;
    assert_eq!(left.status, 200, "{}", left.text());
    assert_eq!(events(&gate).await, ["+7"]);
    poll.close();
    eventually("it leaves", async || events(&gate).await == ["+7", "-7 left"]).await;
    gate.hold(Way::Plain, &room("8", "")).await.close();
    gate.wait_for_held(0).await;
    beacon.get(&room("8", "&leave=1")).await;
    assert_eq!(events(&gate).await[2..], ["+8", "-8 left"]);
}

#[tokio::test]
async fn streams_are_presence_too_and_begin_with_the_list() {
    let gate = Gate::start_alone(SHORT).await;
    let accept = [("Accept", "text/event-stream")];
    let target = room("7", "&presence=1");
    let mut events_of_7 = Events::open_with(Way::Plain, &gate, &target, &accept).await;
    assert_eq!(events_of_7.next().await.event, "cursor");
    let first = events_of_7.next().await;
    assert_eq!(first.event, "presence");
    assert_eq!(users(&first.json()), ["7"]);
    let v1 = ("Sec-WebSocket-Protocol", "pollgate.v1");
    let mut socket = Socket::open(&gate, &room("8", "&presence=1"), &[v1]).await;
    assert_eq!(socket.json().await["presence"], Value::Null);
    assert_eq!(users(&socket.json().await["presence"]), ["7", "8"]);
    let accept = [("Accept", "application/x-ndjson")];
    let mut lines = Events::open_with(Way::Plain, &gate, &room("9", "&presence=1"), &accept).await;
    lines.line().await.unwrap();
    let line: Value = serde_json::from_str(&lines.line().await.unwrap()).unwrap();
    assert_eq!(users(&line["presence"]), ["7", "8", "9"]);
    drop((events_of_7, socket, lines));
    eventually("all have left", async || events(&gate).await.len() == 6).await;
    assert_eq!(list(&gate, "room").await["count"], 0);
}

#[tokio::test]
async fn only_a_grant_for_the_channel_shows_its_members_unless_they_are_public() {
    let open = r#"
[[channel]]
match = "room"
presence = true
[[channel]]
match = "square"
presence = "public"
"#;
    let gate = Gate::start_alone(open).await;
    let mut client = gate.connect().await;
    for target in
        ["/comet/presence%3Aroom", "/comet/room?presence=1", "/comet/room,presence%3Aroom"]
    {
        let refused = client.get(target).await;
        assert_eq!(refused.status, 403, "{target} {}", refused.text());
    }
    assert_eq!(client.get("/comet/room?timeout=0").await.status, 200);
    assert_eq!(client.get("/comet/presence%3Asquare?timeout=0").await.status, 200);
    let seen = client.get("/comet/square?presence=1").await.json();
    assert_eq!(seen["presence"]["connections"], 1, "{seen}");
    let none = client.get("/comet/other?presence=1").await;
    assert_eq!(none.status, 400, "{}", none.text());
    // Nothing is special about channels without presence.
    assert_eq!(client.get("/comet/presence%3Aother?timeout=0").await.status, 200);
    let none = gate.hook("GET", "/channels/other/presence", &[], b"").await;
    assert_eq!(none.status, 404, "{}", none.text());

    let gate = Gate::start_alone(&long()).await;
    let mut client = gate.connect().await;
    for (channels, status) in
        [("room", 200), ("*", 200), ("room*", 200), ("presence:room", 403), ("room2", 403)]
    {
        let target = format!("/comet/presence%3Aroom?timeout=0&token={}", token("7", channels));
        assert_eq!(client.get(&target).await.status, status, "{channels}");
    }
}

#[tokio::test]
async fn a_revoked_user_is_gone_at_once() {
    let gate = Gate::start_alone(&long()).await;
    let mut poll = gate.hold(Way::Plain, &room("7", "")).await;
    let mut watcher = gate.connect().await;
    watcher.send_get(&format!("/comet/presence%3Aroom?token={}", token("9", "room"))).await;
    gate.wait_for_held(2).await;
    let revoked = gate.hook("DELETE", "/grants?channel=room", &[], b"").await.json();
    assert_eq!(revoked, json!({"revoked": 2}), "joins and leaves are read by the same grant");
    assert_eq!(poll.answer().await.status, 401);
    assert_eq!(watcher.read_response().await.status, 401);
    eventually("it leaves", async || events(&gate).await == ["+7", "-7 revoked"]).await;
}

#[tokio::test]
async fn above_the_bound_there_are_counts() {
    let config = format!("{}\n", long().replace("presence = true", "presence = true\nmembers = 2"));
    let gate = Gate::start_alone(&config).await;
    let mut held = Vec::new();
    for user in ["1", "2", "3", "4"] {
        held.push(gate.connect().await);
        held.last_mut().unwrap().send_get(&room(user, "")).await;
        gate.wait_for_held(held.len() as u64).await;
    }
    eventually("a count", async || events(&gate).await.last().is_some_and(|it| it == "#4")).await;
    let here = list(&gate, "room").await;
    assert_eq!((&here["count"], users(&here).len()), (&json!(4), 2), "{here}");
    assert!(events(&gate).await.len() < 5);
}

#[tokio::test]
async fn the_site_says_who_a_client_is_and_what_to_show_of_it() {
    let mut site = PlainSite::start_by_hand().await;
    let config = r#"
[[channel]]
match = "room"
presence = true
[[poll]]
path = "/comet/*"
dialect = "native"
auth = { kind = "upstream", url = "/auth.php", anonymous = true, cache = "1h" }
"#;
    let gate = Gate::start_before(site.addr(), config).await;
    let mut client = gate.connect().await;
    client.send_get("/comet/room?presence=1").await;
    let mut visit = site.visit().await;
    assert_eq!(visit.request.header("pollgate-channels"), Some("room"));
    let info = "Pollgate-User: 7\r\nPollgate-User-Info: {\"name\":\"\u{c4}nn\"}";
    visit.send(format!("HTTP/1.1 204 No Content\r\n{info}\r\n\r\n")).await;
    let expected = json!({"name": "\u{c4}nn"});
    let first = client.read_response().await.json();
    // The second comes from the cache, and reads joins and leaves by the same grant.
    let second = client.get("/comet/room,presence%3Aroom?presence=1").await.json();
    for seen in [first, second] {
        let member = &seen["presence"]["members"][0];
        assert_eq!((&member["user"], &member["info"]), (&json!("7"), &expected), "{seen}");
    }
    client.send("GET", "/comet/room?presence=1", &[("Cookie", "other=1")], b"").await;
    let info = format!("Pollgate-User: 8\r\nPollgate-User-Info: \"{}\"", "x".repeat(1023));
    site.visit().await.send(format!("HTTP/1.1 204 No Content\r\n{info}\r\n\r\n")).await;
    let seen = client.read_response().await.json();
    assert_eq!(seen["presence"]["members"][1]["info"], Value::Null, "{seen}");
    gate.wait_for_log("Pollgate-User-Info").await;
}

#[tokio::test]
async fn a_reload_makes_nobody_leave() {
    let gate = Gate::start_alone(SHORT).await;
    let _poll = gate.hold(Way::Plain, &room("7", "")).await;
    gate.reconfigure(&SHORT.replace("grace = \"1s\"", "grace = \"2s\"")).await;
    assert_eq!(users(&list(&gate, "room").await), ["7"]);
    assert_eq!(events(&gate).await, ["+7"]);
    // Switched off, the present users leave as their polls end.
    gate.reconfigure(&SHORT.replace("presence = true", "presence = false")).await;
    assert_eq!(events(&gate).await, ["+7"]);
    drop(_poll);
    eventually("it leaves", async || events(&gate).await == ["+7", "-7 gone"]).await;
}

#[tokio::test]
async fn a_thousand_polls_of_a_hundred_users_join_and_leave_once_each() {
    let gate = Gate::start_alone(SHORT).await;
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..10 {
        clients.push(gate.connect().await);
    }
    for user in 0..100 {
        for client in &mut clients {
            let answer = client.get(&room(&user.to_string(), "&timeout=0")).await;
            assert_eq!(answer.status, 200);
        }
    }
    eventually("all have left", async || list(&gate, "room").await["count"] == 0).await;
    let all = events(&gate).await;
    // The history has the newest hundred of two hundred.
    assert_eq!(all.len(), 100);
    let unique: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(unique.len(), 100, "{all:?}");
}

#[tokio::test]
async fn a_restart_with_a_snapshot_and_an_upgrade_make_nobody_leave() {
    let folder = TempDir::new("presence");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let config = format!(
        "[drain]\nspread = \"0s\"\n[history]\nsnapshot = \"{}\"\n[upgrade]\nsocket = \"{}\"\n{}",
        at("history"),
        at("upgrade"),
        SHORT.replace("grace = \"1s\"", "grace = \"4s\"")
    );
    let old = Gate::start_alone(&config).await;
    let _polls =
        (old.hold(Way::Plain, &room("7", "")).await, old.hold(Way::Plain, &room("8", "")).await);
    old.wait_for_held(2).await;
    let before = list(&old, "room").await;
    old.signal("TERM");
    assert_eq!(old.wait_for_exit().await, 0, "{}", old.log());
    let restarted = Gate::start_alone(&config).await;
    let after = list(&restarted, "room").await;
    assert_eq!((&after["members"], &after["count"]), (&before["members"], &json!(2)));
    assert_eq!(after["cursor"], before["cursor"], "the joins and leaves go on, too");
    let upgraded = Gate::with(&config).alone().upgrade().start().await;
    assert_eq!(restarted.wait_for_exit().await, 0, "{}", restarted.log());
    assert_eq!(list(&upgraded, "room").await["members"], before["members"]);
    assert_eq!(events(&upgraded).await, ["+7", "+8"]);
    // One comes back, the other's fresh grace ends.
    let _back = upgraded.hold(Way::Plain, &room("8", "")).await;
    eventually("7 leaves", async || events(&upgraded).await == ["+7", "+8", "-7 gone"]).await;
    assert_eq!(users(&list(&upgraded, "room").await), ["8"]);
}
