//! Gates that share their channels over Redis: nothing is lost silently, whatever fails.
//!
//! Every test starts the real `redis-server`. A fault's outcome is, for each client, every message
//! in order or a `reset`; [`crowd::Crowd`] counts both.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backplane {
    pub(crate) mod crowd;
    pub(crate) mod cut;
    pub(crate) mod gates;
    pub(crate) mod redis;
}
mod support;

use backplane::crowd::Crowd;
use backplane::cut::Cut;
use backplane::gates::{MESSAGES, config, gate, gates, through, unready, wait_for_backplane};
use backplane::redis::Redis;
use pollgate::hub::channel::{ChannelName, Cursor, Payload, Take};
use pollgate::hub::{Hub, PollOutcome, Subscription};
use pollgate::server::backplane::{Backplane, Settings};
use pollgate::server::publish::system_time;
use std::sync::Arc;
use std::time::Duration;
use support::{Gate, TempDir, eventually};

#[tokio::test]
async fn a_poll_at_one_gate_is_released_by_a_publish_at_another() {
    let redis = Redis::start().await;
    let a = gate(&redis.url()).await;
    let b = gate(&redis.url()).await;
    let mut client = a.connect().await;
    // A poll that does not wait is answered only after the gate has joined the channel.
    a.get("/comet/news?timeout=0").await;
    client.send_get("/comet/news").await;
    a.wait_for_held(1).await;
    let published = b.publish("news", "hello").await;
    assert_eq!(published["released"], 0, "it tells of its own polls");
    let answer = client.read_response().await.json();
    assert_eq!(answer["messages"][0]["id"], published["id"]);
    assert_eq!(answer["messages"][0]["stamp"], published["stamp"]);
    // And at the gate where it is published, without the way over Redis.
    client.send_get(&format!("/comet/news?cursor={}", answer["cursor"].as_str().unwrap())).await;
    a.wait_for_held(1).await;
    assert_eq!(a.publish("news", "again").await["released"], 1);
    assert_eq!(client.read_response().await.json()["messages"][0]["data"], "again");
}

#[tokio::test]
async fn a_cursor_of_one_gate_is_good_at_every_other() {
    let redis = Redis::start().await;
    let a = gate(&redis.url()).await;
    let b = gate(&redis.url()).await;
    let first = a.get("/comet/news?timeout=0.1").await.json();
    assert_eq!(first["messages"].as_array().unwrap().len(), 0);
    for text in ["one", "two"] {
        a.publish("news", text).await;
    }
    let after = |cursor: &str| format!("/comet/news?timeout=0&cursor={cursor}");
    let both = b.get(&after(first["cursor"].as_str().unwrap())).await.json();
    assert_eq!(both["messages"].as_array().unwrap().len(), 2, "{both}");
    assert!(both["reset"].is_null(), "{both}");
    a.publish("news", "three").await;
    // It is on its way to the other gate, so there is something to wait for.
    let cursor = both["cursor"].as_str().unwrap();
    let third = b.get(&format!("/comet/news?timeout=10&cursor={cursor}")).await.json();
    let messages: Vec<_> = third["messages"].as_array().unwrap().iter().collect();
    assert!(messages.len() == 1 && messages[0]["data"] == "three" && third["reset"].is_null());
    // A gate that has never heard of the channel.
    let c = gate(&redis.url()).await;
    let third = c.get(&after(both["cursor"].as_str().unwrap())).await.json();
    assert_eq!(third["messages"][0]["data"], "three");
    assert_eq!(c.channel("news").await["kept"], 3);
    let unknown = c.get(&after("Xk3v9Q-42")).await.json();
    assert_eq!(
        (&unknown["reset"], unknown["messages"].as_array().unwrap().len()),
        (&true.into(), 3)
    );
}

#[tokio::test]
async fn asking_for_unknown_channels_leaves_nothing_in_redis() {
    let redis = Redis::start().await;
    let gate = gate(&redis.url()).await;
    for channel in ["a", "b"] {
        gate.get(&format!("/comet/{channel}?timeout=0.1&cursor=oldest")).await;
        gate.hook("GET", &format!("/channels/{channel}/messages"), &[], "").await;
    }
    assert_eq!(redis.ask(&["DBSIZE"]), "1", "only the note about the layout");
}

#[tokio::test]
async fn a_deleted_channel_is_reset_at_every_gate() {
    let redis = Redis::start().await;
    let a = gate(&redis.url()).await;
    let b = gate(&redis.url()).await;
    a.publish("news", "old").await;
    let cursor = b.get("/comet/news?cursor=oldest").await.json()["cursor"].clone();
    let mut client = b.connect().await;
    client.send_get(&format!("/comet/news?cursor={}", cursor.as_str().unwrap())).await;
    b.wait_for_held(1).await;
    a.forget("news").await;
    assert_eq!(client.read_response().await.json()["reset"], true);
    assert_eq!(a.hook("DELETE", "/channels/news", &[], "").await.status, 404);
}

#[tokio::test]
async fn a_publish_while_redis_is_away_fails_at_once_and_says_so() {
    let mut redis = Redis::start().await;
    let gate = gate(&redis.url()).await;
    redis.kill();
    let body = "x";
    eventually("a gate that has noticed", async || !unready(&gate).await.is_empty()).await;
    let began = std::time::Instant::now();
    let answer = gate.hook("POST", "/channels/news", &[], body).await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("away") && answer.header("Retry-After").is_some());
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(gate.hook("GET", "/healthz", &[], "").await.status, 200);
    redis.restart().await;
    wait_for_backplane(&gate).await;
    gate.publish("news", "y").await;
    let kept = gate.get("/comet/news?cursor=oldest&timeout=0").await.json();
    let messages = kept["messages"].as_array().unwrap();
    assert!(messages.len() == 1 && messages[0]["data"] == "y", "nothing was queued: {kept}");
}

#[tokio::test]
async fn a_publish_that_is_not_answered_can_be_repeated_with_its_key_at_any_gate() {
    let redis = Redis::start().await;
    let a = gate(&redis.url()).await;
    let b = gate(&redis.url()).await;
    let stopped = redis.pause();
    let unknown = a.hook("POST", "/channels/news", &[], "once").await;
    assert_eq!(unknown.status, 503);
    assert!(unknown.text().contains("unknown"), "{}", unknown.text());
    let key = unknown.header("Idempotency-Key").expect("a key was made").to_owned();
    drop(stopped);
    wait_for_backplane(&b).await;
    let headers = [("Idempotency-Key", key.as_str())];
    let again = b.hook("POST", "/channels/news", &headers, "once").await;
    assert_eq!(again.status, 200, "{}", again.text());
    let kept = b.get("/comet/news?cursor=oldest&timeout=0").await.json();
    assert_eq!(kept["messages"].as_array().unwrap().len(), 1, "{kept}");
    wait_for_backplane(&a).await;
    let other = a.hook("POST", "/channels/news", &headers, "another").await;
    assert_eq!(other.status, 422, "{}", other.text());
}

#[tokio::test]
async fn php_publishes_straight_into_redis_as_the_page_says() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/backplane.md")).unwrap();
    let script = page.split("```php\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let folder = TempDir::new("php");
    let script = folder.write("publish.php", script);
    folder.write(
        "publish.lua",
        std::fs::read(root.join("src/server/backplane/scripts/publish.lua")).unwrap(),
    );
    let redis = Redis::start().await;
    let gate = gate(&redis.url()).await;
    let mut client = gate.connect().await;
    gate.publish("räume/1", "from the hook").await;
    client.send_get("/comet/r%C3%A4ume%2F1").await;
    gate.wait_for_held(1).await;
    let mut php = std::process::Command::new("php");
    php.arg(script).args([&redis.port().to_string(), "räume/1", "from PHP, é"]);
    let done = php.output().expect("PHP is missing: apt-get install php-cli php-redis");
    let printed = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{printed}{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(printed.split(' ').nth(1), Some("2"), "{printed}");
    let answer = client.read_response().await.json();
    assert_eq!(answer["messages"][0]["data"], "from PHP, é");
    assert_eq!(
        gate.publish("räume/1", "again").await["id"].as_str().unwrap().split('-').nth(1),
        Some("3")
    );
}

#[tokio::test]
async fn a_password_is_needed_and_not_shown() {
    let redis = Redis::start_with(&["--requirepass", "hunter2"]).await;
    let url = redis.url().replace("redis://", "redis://:hunter2@");
    let gate = gate(&url).await;
    gate.publish("news", "x").await;
    let shown = gate.hook("GET", "/config", &[], "").await.text();
    assert!(shown.contains("redis://:***@") && !shown.contains("hunter2"), "{shown}");
    let refused = Gate::start_alone(&config(&redis.url().replace("//", "//:wrong1@"))).await;
    eventually("a word about it", async || {
        unready(&refused).await.iter().any(|reason| reason.contains("assword"))
    })
    .await;
    for log in [gate.log(), refused.log()] {
        assert!(!log.contains("hunter2") && !log.contains("wrong1"), "{log}");
    }
}

#[tokio::test]
async fn three_hundred_clients_at_random_gates_get_everything_once_and_in_order() {
    let redis = Redis::start().await;
    let gates = gates(&redis.url()).await;
    let mut crowd = Crowd::new(&gates, 300, 6);
    crowd.publish(MESSAGES).await;
    let told = crowd.finish().await;
    assert_eq!((told.resets, told.messages), (0, 300 * MESSAGES as u64), "{told:?}");
    assert!(told.answers > 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_pushes_that_overflows_is_caught_up_with_or_reset() {
    const BURST: u64 = 2_000;
    let redis = Redis::start().await;
    let name = ChannelName::new("news").unwrap();
    let (hub, plane) = feed(&redis, 4);
    let (_other, publisher) = feed(&redis, 1_000);
    eventually("a line", async || publisher.unready().is_empty()).await;
    let reader = tokio::spawn(read_all(hub.clone(), name.clone(), BURST));
    eventually("a live channel", async || hub.is_live(&name)).await;
    for first in (0..BURST).step_by(500) {
        let post = |number| (name.clone(), Payload::text(format!("{}", first + number)));
        let posts: Vec<_> = (0..500).map(post).collect();
        publisher.publish(&posts, None).await.unwrap();
    }
    eventually("an overflow", async || plane.stats().losses > 0).await;
    let resets = tokio::time::timeout(Duration::from_secs(30), reader).await.unwrap().unwrap();
    println!("{} overflows, {resets} resets", plane.stats().losses);
}

/// A table and the backplane that feeds it, with room for so many pushes.
fn feed(redis: &Redis, queue: usize) -> (Hub, Backplane) {
    let settings = backplane_settings(redis, queue);
    let (origin, wants) = pollgate::server::backplane::wants();
    let hub = Hub::replica(pollgate::hub::Settings::default(), 1, origin);
    let plane = Backplane::new(&settings, hub.clone(), wants, system_time);
    let running = plane.clone();
    tokio::spawn(async move { running.run(Arc::new(|wake, _| drop(wake))).await });
    (hub, plane)
}

fn backplane_settings(redis: &Redis, queue: usize) -> Settings {
    Settings { queue, ..Settings::new(redis.url().parse().unwrap(), "pg".to_owned()) }
}

/// Polls until message `last` has come, and checks that none is missing but after a reset. How
/// many of those there were.
async fn read_all(hub: Hub, channel: ChannelName, last: u64) -> u64 {
    let mut newest = 0;
    let mut resets = 0;
    let mut cursor = Cursor::Oldest;
    while newest < last {
        let subscription = Subscription { channel: channel.clone(), cursor };
        let answer = match hub.poll(&[subscription], Take::All, true, system_time()).unwrap() {
            PollOutcome::Answer(answer) => answer,
            PollOutcome::Waiting(mut waiter) => loop {
                waiter.notified().await;
                if let Some(answer) = waiter.look(system_time()) {
                    break answer;
                }
            },
        };
        let found = &answer[0].found;
        resets += u64::from(found.reset);
        let mut may_jump = found.reset;
        for message in &found.messages {
            let seq = message.position.seq;
            assert!(seq == newest + 1 || may_jump, "{seq} after {newest}");
            (newest, may_jump) = (seq, false);
        }
        cursor = Cursor::At(found.position);
    }
    resets
}

#[tokio::test]
async fn a_redis_that_is_killed_with_all_it_had_resets_and_loses_nothing_silently() {
    let mut redis = Redis::start().await;
    let gates = gates(&redis.url()).await;
    let fault = async || {
        redis.kill();
        redis.restart().await;
    };
    assert!(through(&gates, 60, fault).await > 0, "the history was gone");
}

#[tokio::test]
async fn a_redis_that_comes_back_from_its_file_may_have_lost_the_end_and_resets() {
    let mut redis = Redis::start_with(&["--appendonly", "yes"]).await;
    let gates = gates(&redis.url()).await;
    let fault = async || {
        redis.kill();
        redis.restart().await;
    };
    assert!(through(&gates, 60, fault).await > 0);
}

#[tokio::test]
async fn a_redis_that_stands_still_delays_and_loses_nothing() {
    let redis = Redis::start().await;
    let gates = gates(&redis.url()).await;
    let fault = async || {
        let stopped = redis.pause();
        tokio::time::sleep(Duration::from_secs(10)).await;
        drop(stopped);
    };
    assert_eq!(through(&gates, 60, fault).await, 0);
}

#[tokio::test]
async fn a_gate_that_is_killed_costs_its_clients_a_reconnect() {
    let redis = Redis::start().await;
    let gates = gates(&redis.url()).await;
    let fault = async || gates[1].kill();
    assert_eq!(through(&gates, 60, fault).await, 0);
}

#[tokio::test]
async fn cut_connections_are_made_anew_and_nothing_is_lost() {
    let redis = Redis::start().await;
    let cut = Cut::before(redis.port()).await;
    let gates = gates(&cut.url()).await;
    let fault = async || {
        for _ in 0..3 {
            cut.now();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    assert_eq!(through(&gates, 60, fault).await, 0);
}

#[tokio::test]
async fn held_polls_stay_held_while_redis_is_away_and_their_cursor_stays_as_it_was() {
    let mut redis = Redis::start().await;
    let gate = gate(&redis.url()).await;
    gate.publish("news", "x").await;
    let first = gate.get("/comet/news?cursor=oldest").await.json();
    let cursor = first["cursor"].as_str().unwrap().to_owned();
    redis.kill();
    eventually("a gate that has noticed", async || !unready(&gate).await.is_empty()).await;
    let quiet = gate.get(&format!("/comet/news?timeout=1&cursor={cursor}")).await.json();
    assert_eq!(quiet["cursor"], cursor.as_str());
    assert!(quiet["reset"].is_null() && quiet["messages"].as_array().unwrap().is_empty());
    // Also one that no gate here can place.
    let unknown = "/comet/other?timeout=1&cursor=Xk3v9Q-7";
    let quiet = gate.get(unknown).await.json();
    assert!(quiet["reset"].is_null(), "{quiet}");
    assert!(quiet["cursor"].as_str().unwrap().ends_with("Xk3v9Q-7"), "{quiet}");
    redis.restart().await;
    wait_for_backplane(&gate).await;
    assert_eq!(gate.get(unknown).await.json()["reset"], true);
}
