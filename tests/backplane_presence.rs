//! Who is on a channel, at several gates together: each user once, whichever gates it moves
//! between, and the users of a gate that dies leave once.
//!
//! Every test starts the real `redis-server`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backplane {
    #[allow(dead_code)]
    pub(crate) mod cluster;
    #[allow(dead_code)]
    pub(crate) mod crowd;
    #[allow(dead_code)]
    pub(crate) mod gates;
    #[allow(dead_code)]
    pub(crate) mod redis;
}
mod support;

use backplane::cluster::RedisCluster;
use backplane::gates::wait_for_backplane;
use backplane::redis::Redis;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};
use support::{Gate, Way, eventually};

fn config(redis: &str, grace: &str, more: &str) -> String {
    format!(
        r#"
[backplane]
redis = "{redis}"
lease = "2s"
[hold]
jitter = "0%"
[[channel]]
match = "room*"
presence = true
grace = "{grace}"
stream_grace = "{grace}"
{more}
[[channel]]
match = "presence:*"
messages = 5000
[[poll]]
path = "/comet/*"
dialect = "native"
auth = {{ kind = "signed", keys = {{ k1 = "first secret" }} }}
"#
    )
}

async fn gate(redis: &Redis, grace: &str, more: &str) -> Gate {
    gate_at(&redis.url(), grace, more).await
}

async fn gate_at(url: &str, grace: &str, more: &str) -> Gate {
    let gate = Gate::start_alone(&config(url, grace, more)).await;
    wait_for_backplane(&gate).await;
    gate
}

fn room(user: &str, more: &str) -> String {
    signed_room(Some(user), more)
}

/// A poll by a token that names no user.
fn nameless_room() -> String {
    signed_room(None, "")
}

fn signed_room(user: Option<&str>, more: &str) -> String {
    let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
    let base64 = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let user = user.map(|user| format!(".{}", base64(user))).unwrap_or_default();
    let signed = format!("k1.{expires}.{}{user}", base64("room"));
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"first secret");
    let tag = hmac::sign(&key, signed.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("/comet/room?token={signed}.{hex}{more}")
}

async fn list(gate: &Gate) -> Value {
    gate.hook("GET", "/channels/room/presence", &[], b"").await.json()
}

fn users(list: &Value) -> Vec<String> {
    let members = list["members"].as_array().unwrap_or_else(|| panic!("{list}"));
    members.iter().map(|one| one["user"].as_str().unwrap().to_owned()).collect()
}

async fn events(gate: &Gate) -> Vec<String> {
    let response = gate.hook("GET", "/channels/presence%3Aroom/messages", &[], b"").await;
    let messages = response.json()["messages"].as_array().cloned().unwrap_or_default();
    messages
        .iter()
        .map(|message| {
            let event = &message["data"];
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            match event["type"].as_str().unwrap() {
                "join" => format!("+{}", text("user")),
                "leave" => format!("-{} {}", text("user"), text("why")),
                _ => format!("#{}", event["count"]),
            }
        })
        .collect()
}

/// The users who are there by the events; panics if joins and leaves do not alternate.
fn replay(events: &[String]) -> BTreeSet<String> {
    let mut there = BTreeSet::new();
    for event in events {
        let user = event[1..].split(' ').next().unwrap().to_owned();
        match &event[..1] {
            "+" => assert!(there.insert(user), "{event} twice: {events:?}"),
            "-" => assert!(there.remove(&user), "{event} twice: {events:?}"),
            _ => {}
        }
    }
    there
}

#[tokio::test]
async fn a_user_is_there_once_whichever_gates_it_polls() {
    let redis = Redis::start().await;
    let a = gate(&redis, "1s", "").await;
    let b = gate(&redis, "1s", "").await;
    let mut watcher = b.connect().await;
    b.get("/comet/presence%3Aroom?timeout=0").await;
    let watch = room("9", "").replace("/comet/room?", "/comet/presence%3Aroom?");
    watcher.send_get(&watch).await;
    b.wait_for_held(1).await;
    let at_a = a.hold(Way::Plain, &room("7", "")).await;
    let seen = watcher.read_response().await.json();
    assert_eq!(
        seen["messages"][0]["data"],
        json!({"type": "join", "user": "7", "info": null}),
        "{seen}"
    );
    assert_eq!(users(&list(&b).await), ["7"]);
    // It moves on to the other gate, and is never away.
    let at_b = b.hold(Way::Plain, &room("7", "")).await;
    at_a.close();
    a.wait_for_held(0).await;
    let mut first = a.connect().await;
    let answer = first.get(&room("8", "&presence=1")).await.json();
    assert_eq!(users(&answer["presence"]), ["7", "8"], "{answer}");
    eventually("8 leaves", async || events(&a).await == ["+7", "+8", "-8 gone"]).await;
    at_b.close();
    eventually("7 leaves", async || events(&a).await.last().unwrap() == "-7 gone").await;
    assert_eq!(events(&b).await, ["+7", "+8", "-8 gone", "-7 gone"]);
    assert_eq!(list(&b).await["count"], 0);
}

#[tokio::test]
async fn the_users_of_a_killed_gate_leave_once_when_its_lease_has_run_out() {
    let redis = Redis::start().await;
    let gates = [gate(&redis, "1h", "").await, gate(&redis, "1h", "").await];
    let dying = gate(&redis, "1h", "").await;
    let mut held = Vec::new();
    for user in 0..20 {
        let mut client = dying.connect().await;
        client.send_get(&room(&user.to_string(), "")).await;
        held.push(client);
    }
    dying.wait_for_held(20).await;
    eventually("all are there", async || list(&gates[0]).await["count"] == 20).await;
    // One of them has a second tab elsewhere.
    let _stays = gates[0].hold(Way::Plain, &room("3", "")).await;
    dying.kill();
    eventually("they leave", async || list(&gates[1]).await["count"] == 1).await;
    let all = events(&gates[1]).await;
    assert_eq!(all.len(), 20 + 19, "{all:?}");
    assert_eq!(replay(&all), BTreeSet::from(["3".to_owned()]));
}

#[tokio::test]
async fn connections_are_those_of_all_gates_and_a_killed_gate_s_are_gone_with_its_lease() {
    let redis = Redis::start().await;
    let a = gate(&redis, "1h", "").await;
    let b = gate(&redis, "1h", "").await;
    let dying = gate(&redis, "1h", "").await;
    let counted = |gate, count| async move {
        eventually("they are counted", async || list(gate).await["connections"] == count).await;
    };
    let mut held = Vec::new();
    for (gate, path) in [
        (&a, nameless_room()),
        (&a, room("1", "")),
        (&b, nameless_room()),
        (&b, nameless_room()),
        (&b, room("1", "")),
        (&dying, nameless_room()),
        (&dying, room("1", "")),
    ] {
        held.push(gate.hold(Way::Plain, &path).await);
    }
    for gate in [&a, &b, &dying] {
        counted(gate, 7).await;
    }
    assert_eq!(list(&a).await["count"], 1);
    // A gate counts what it holds itself at once.
    held.remove(2).close();
    b.wait_for_held(2).await;
    assert_eq!(list(&b).await["connections"], 6);
    counted(&a, 6).await;
    dying.kill();
    counted(&a, 4).await;
    counted(&b, 4).await;
    held.into_iter().for_each(|poll| poll.close());
    counted(&a, 0).await;
}

#[tokio::test]
async fn a_user_that_a_killed_gate_shared_with_another_leaves_with_that_one() {
    let redis = Redis::start().await;
    let a = gate(&redis, "1s", "").await;
    let dying = gate(&redis, "1s", "").await;
    let at_a = a.hold(Way::Plain, &room("7", "")).await;
    eventually("it is there", async || list(&a).await["count"] == 1).await;
    // Nothing is at the second gate that the first one does not have.
    let _at_dying = dying.hold(Way::Plain, &room("7", "")).await;
    eventually("both count", async || list(&a).await["connections"] == 2).await;
    dying.kill();
    eventually("its lease runs out", async || list(&a).await["connections"] == 1).await;
    assert_eq!(users(&list(&a).await), ["7"]);
    at_a.close();
    eventually("it leaves", async || events(&a).await == ["+7", "-7 gone"]).await;
    assert_eq!(list(&a).await["count"], 0);
}

#[tokio::test]
async fn redis_may_be_away_and_nobody_joins_or_leaves_twice() {
    let mut redis = Redis::start().await;
    let a = gate(&redis, "1s", "").await;
    let b = gate(&redis, "1s", "").await;
    let at_a = a.hold(Way::Plain, &room("1", "")).await;
    eventually("it is there", async || users(&list(&b).await) == ["1"]).await;
    redis.kill();
    let refused = b.hook("GET", "/channels/room/presence", &[], b"").await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    let _at_b = b.hold(Way::Plain, &room("2", "")).await;
    at_a.close();
    a.wait_for_held(0).await;
    redis.restart().await;
    wait_for_backplane(&a).await;
    wait_for_backplane(&b).await;
    eventually("the other is there", async || {
        let list = list(&a).await;
        list["members"].is_array() && users(&list) == ["2"]
    })
    .await;
    replay(&events(&a).await);
}

#[tokio::test]
async fn users_between_gates_join_and_leave_in_turn_and_the_list_is_the_replay() {
    let redis = Redis::start().await;
    let gates =
        [gate(&redis, "1s", "").await, gate(&redis, "1s", "").await, gate(&redis, "1s", "").await];
    let mut random = fastrand::Rng::with_seed(17);
    let mut held = Vec::new();
    for step in 0..300 {
        if random.f64() < 0.6 || held.is_empty() {
            let mut client = gates[random.usize(..3)].connect().await;
            client.send_get(&room(&random.u32(..12).to_string(), "")).await;
            held.push(client);
        } else {
            held.swap_remove(random.usize(..held.len())).close();
        }
        if held.len() > 20 {
            held.drain(..15);
        }
        if step % 50 == 49 {
            // Some time passes, in which graces end.
            let before = events(&gates[0]).await.len();
            let _ = eventually_more(&gates[0], before).await;
        }
    }
    held.clear();
    eventually("all have left", async || list(&gates[1]).await["count"] == 0).await;
    let all = events(&gates[2]).await;
    assert!(all.len() > 24, "{all:?}");
    assert_eq!(replay(&all), BTreeSet::new());
}

async fn eventually_more(gate: &Gate, before: usize) -> usize {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(3);
    loop {
        let now = events(gate).await.len();
        if now > before || std::time::Instant::now() > end {
            return now;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn above_the_bound_there_are_counts_for_all_gates_together() {
    let redis = Redis::start().await;
    let a = gate(&redis, "1s", "members = 3").await;
    let b = gate(&redis, "1s", "members = 3").await;
    let mut held = Vec::new();
    for user in 0..6 {
        let at = if user % 2 == 0 { &a } else { &b };
        held.push(at.hold(Way::Plain, &room(&user.to_string(), "")).await);
        eventually("it counts", async || list(&a).await["count"] == user + 1).await;
    }
    assert_eq!(users(&list(&b).await).len(), 3);
    eventually("a count", async || events(&a).await.last().unwrap() == "#6").await;
    assert_eq!(replay(&events(&a).await).len(), 3);
    // The users that stay join once there is room.
    held.drain(..4).for_each(|poll| poll.close());
    eventually("they join", async || users(&list(&a).await) == ["4", "5"]).await;
    let there = BTreeSet::from(["4".to_owned(), "5".to_owned()]);
    assert_eq!(replay(&events(&a).await), there);
}

#[tokio::test]
async fn in_a_cluster_too_users_are_there_once_and_those_of_a_killed_gate_leave() {
    let cluster = RedisCluster::start(0).await;
    let a = gate_at(&cluster.url(), "1h", "").await;
    let dying = gate_at(&cluster.url(), "1h", "").await;
    let _stays = a.hold(Way::Plain, &room("7", "")).await;
    let mut held = Vec::new();
    for user in ["7", "8"] {
        held.push(dying.hold(Way::Plain, &room(user, "")).await);
        let there = || async { users(&list(&a).await).contains(&user.to_owned()) };
        eventually("it is there", async || there().await).await;
    }
    dying.kill();
    eventually("it leaves", async || users(&list(&a).await) == ["7"]).await;
    assert_eq!(replay(&events(&a).await), BTreeSet::from(["7".to_owned()]));
    assert_eq!(events(&a).await, ["+7", "+8", "-8 gone"]);
}
