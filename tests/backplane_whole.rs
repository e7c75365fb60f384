//! Gates that share their channels, with all else that a gate does: watched files, a snapshot, an
//! upgrade. And that neither they nor Redis grow without end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backplane {
    #[allow(dead_code)]
    pub(crate) mod crowd;
    #[allow(dead_code)]
    pub(crate) mod gates;
    #[allow(dead_code)]
    pub(crate) mod redis;
}
mod support;

use backplane::crowd::Crowd;
use backplane::gates::{config, gate, wait_for_backplane};
use backplane::redis::Redis;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use support::{Gate, TempDir, eventually_some};

/// Bound on Redis, the gates and the kernel's events of a file together.
const BOUND: Duration = Duration::from_secs(20);

async fn gate_with(redis: &Redis, more: &str) -> Gate {
    let gate = Gate::start_alone(&format!("{}{more}", config(&redis.url()))).await;
    wait_for_backplane(&gate).await;
    gate
}

/// The messages of a channel, as seen by a gate that is not under test.
async fn said(gate: &Gate, channel: &str) -> Vec<String> {
    let answer = gate.get(&format!("/comet/{channel}?cursor=oldest&timeout=0")).await.json();
    let text = |message: &Value| message["data"].as_str().unwrap().to_owned();
    answer["messages"].as_array().unwrap().iter().map(text).collect()
}

async fn wait_for_said(gate: &Gate, channel: &str, texts: &[&str]) {
    let what = format!("{texts:?} on {channel}");
    let look = async || (said(gate, channel).await == texts).then_some(());
    eventually_some(&what, BOUND, look).await;
}

fn watching(folder: &Path) -> String {
    format!(
        "[[watch]]\npath = \"{0}/*.txt\"\nchannel = \"{{1}}\"\ncontent = true\n\
         [[watch]]\npath = \"{0}/*.comet\"\nchannel = \"touched-{{1}}\"\n",
        folder.display()
    )
}

#[tokio::test]
async fn a_file_that_several_gates_watch_is_published_once() {
    let redis = Redis::start().await;
    let folder = TempDir::new("watched");
    folder.write("old.txt", "from before");
    let rules = watching(folder.path());
    let reader = gate(&redis.url()).await;
    let a = gate_with(&redis, &rules).await;
    let b = gate_with(&redis, &rules).await;
    wait_for_said(&reader, "old", &["from before"]).await;
    for (number, text) in ["one", "two", "three"].into_iter().enumerate() {
        folder.write("news.txt", text);
        folder.write("page.comet", "");
        // Writes that come faster than reads are one message, as with a single gate.
        let look = async || {
            let touched = said(&reader, "touched-page").await.len();
            let last = said(&reader, "news").await;
            (last.last().is_some_and(|last| last == text) && touched > number).then_some(())
        };
        eventually_some("a written file", BOUND, look).await;
    }
    // Both have seen all of it: a file of its own for each, written last.
    for (gate, name) in [(&a, "a"), (&b, "b")] {
        folder.write(&format!("{name}.txt"), "the end");
        let counted = async || {
            let metrics = gate.hook("GET", "/metrics", &[], "").await.text();
            let line = "pollgate_publishes_total{by=\"watch\"} ";
            let count = metrics.lines().find_map(|at| at.strip_prefix(line));
            count?.parse::<u32>().is_ok_and(|count| count >= 8).then_some(())
        };
        eventually_some("gates that have seen all", BOUND, counted).await;
        wait_for_said(&reader, name, &["the end"]).await;
    }
    assert_eq!(said(&reader, "news").await, ["one", "two", "three"]);
    assert_eq!(said(&reader, "touched-page").await, ["", "", ""]);
    assert_eq!(said(&reader, "old").await, ["from before"]);
    // One that starts later finds that all of it was published, and goes on.
    let late = gate_with(&redis, &rules).await;
    folder.write("late.txt", "new");
    wait_for_said(&reader, "late", &["new"]).await;
    folder.write("old.txt", "written");
    wait_for_said(&reader, "old", &["from before", "written"]).await;
    assert_eq!(said(&reader, "news").await, ["one", "two", "three"]);
    drop(late);
}

#[tokio::test]
async fn a_snapshot_goes_on_where_redis_is_whether_or_not_the_gate_ended_in_order() {
    let redis = Redis::start().await;
    let folder = TempDir::new("snapshot");
    let kept = format!(
        "[drain]\nspread = \"0s\"\n[history]\nsnapshot = \"{}\"\nsnapshot_every = \"100ms\"\n",
        folder.path().join("history").display()
    );
    let other = gate(&redis.url()).await;
    for (round, crash) in [false, true].into_iter().enumerate() {
        let before = gate_with(&redis, &kept).await;
        let channel = format!("c{round}");
        let first = format!("first {round}");
        before.publish(&channel, &first).await;
        let poll = format!("/comet/{channel}?cursor=oldest&timeout=5");
        let cursor = before.get(&poll).await.json()["cursor"].as_str().unwrap().to_owned();
        if crash {
            let written = || std::fs::metadata(folder.path().join("history")).unwrap().modified();
            let since = written().unwrap();
            let again = async || (written().unwrap() > since).then_some(());
            eventually_some("a snapshot", BOUND, again).await;
            before.publish(&channel, "published last").await;
            before.kill();
        } else {
            other.publish(&channel, "published last").await;
            before.signal("TERM");
            assert_eq!(before.wait_for_exit().await, 0, "{}", before.log());
        }
        other.publish(&channel, "meanwhile").await;
        let after = gate_with(&redis, &kept).await;
        let mut cursor = cursor;
        let mut texts = Vec::new();
        // The messages of the snapshot may come first, and the rest with the next poll.
        while texts.len() < 2 {
            let poll = format!("/comet/{channel}?timeout=5&cursor={cursor}");
            let answer = after.get(&poll).await.json();
            assert!(answer["reset"].is_null(), "{answer}");
            let messages = answer["messages"].as_array().unwrap();
            assert!(!messages.is_empty(), "{answer} after {texts:?}");
            texts.extend(messages.iter().map(|message| message["data"].clone()));
            answer["cursor"].as_str().unwrap().clone_into(&mut cursor);
        }
        assert_eq!(texts, ["published last", "meanwhile"]);
        let all = [first.as_str(), "published last", "meanwhile"];
        assert_eq!(said(&after, &channel).await, all);
        after.signal("TERM");
        after.wait_for_exit().await;
    }
}

#[tokio::test]
async fn a_history_from_before_there_was_a_backplane_is_told_to_be_lost() {
    let folder = TempDir::new("snapshot");
    let kept = format!(
        "[drain]\nspread = \"0s\"\n[history]\nsnapshot = \"{}\"\n",
        folder.path().join("history").display()
    );
    let alone = Gate::start_alone(&kept).await;
    alone.publish("news", "alone").await;
    let answer = alone.get("/comet/news?cursor=oldest").await.json();
    let cursor = answer["cursor"].as_str().unwrap().to_owned();
    alone.signal("TERM");
    assert_eq!(alone.wait_for_exit().await, 0, "{}", alone.log());
    let redis = Redis::start().await;
    let other = gate(&redis.url()).await;
    let gate = gate_with(&redis, &kept).await;
    other.publish("news", "shared").await;
    let answer = gate.get(&format!("/comet/news?timeout=5&cursor={cursor}")).await.json();
    assert_eq!(answer["reset"], true, "{answer}");
    assert_eq!(said(&gate, "news").await, ["shared"]);
}

#[tokio::test]
async fn an_upgrade_of_one_gate_loses_and_resets_nothing() {
    let redis = Redis::start().await;
    let folder = TempDir::new("upgrade");
    let socket = folder.path().join("socket");
    let more = format!("[drain]\nspread = \"0s\"\n[upgrade]\nsocket = \"{}\"\n", socket.display());
    let gates = [gate_with(&redis, &more).await, gate(&redis.url()).await];
    let mut crowd = Crowd::new(&gates, 60, 3);
    crowd.publish(20).await;
    let mut new = None;
    let upgrade = async || {
        let config = format!("{}{more}", config(&redis.url()));
        new = Some(Gate::with(&config).alone().upgrade().start().await);
    };
    crowd.publish_during(40, upgrade).await;
    crowd.publish(20).await;
    let told = crowd.finish().await;
    println!("{told:?}");
    assert_eq!((told.resets, told.messages), (0, 60 * 80), "{told:?}");
}

/// Duration of the memory run; `make backplane` sets a longer one.
fn seconds() -> u64 {
    let asked = std::env::var("POLLGATE_BACKPLANE_SECONDS").ok();
    asked.map_or(8, |asked| asked.parse().expect("POLLGATE_BACKPLANE_SECONDS is a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_on_many_channels_take_no_more_memory_than_the_history_may() {
    const KEPT: usize = 10;
    /// Bytes of a key in Redis, with its value, at the most.
    const KEY: u64 = 400;
    let length = Duration::from_secs(seconds());
    let channels = if length.as_secs() > 30 { 2_000 } else { 50 };
    let history = format!("[history]\nmessages = {KEPT}\nbytes = \"16KiB\"\nage = \"3s\"\n");
    let redis = Redis::start().await;
    let gates = [gate_with(&redis, &history).await, gate_with(&redis, &history).await];
    let mut crowd = Vec::new();
    for number in 0..channels / 5 {
        let mut client = gates[number % 2].connect().await;
        crowd.push(tokio::spawn(async move {
            let mut cursor = String::new();
            loop {
                let poll = format!("/comet/c{number}?cursor={cursor}");
                let answer = client.get(&poll).await.json();
                answer["cursor"].as_str().unwrap().clone_into(&mut cursor);
            }
        }));
    }
    let began = Instant::now();
    let mut published = 0;
    let mut warm = None;
    let mut end = None;
    while began.elapsed() < length || published < 4 * channels * KEPT || end.is_none() {
        let first = published % channels;
        let one =
            |n| json!({"channel": format!("c{}", (first + n) % channels), "data": "x".repeat(900)});
        let posts: Vec<_> = (0..100).map(one).collect();
        let gate = &gates[(published / 100) % 2];
        let json = [("Content-Type", "application/json")];
        let answer = gate.hook("POST", "/publish", &json, Value::from(posts).to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        published += 100;
        // Every history is full from here on.
        if published >= 2 * channels * KEPT && began.elapsed() > length / 3 {
            let third = if began.elapsed() < length * 2 / 3 || warm.is_none() {
                &mut warm
            } else {
                &mut end
            };
            *third = Some(least(*third, memory(&redis, &gates)));
        }
    }
    let (Some(warm), Some(end)) = (warm, end) else { panic!("the run was too short: {published}") };
    println!(
        "{published} messages on {channels} channels in {:?}: {warm:?}, then {end:?}",
        began.elapsed()
    );
    // Each publish leaves a key for half a minute, by which a repetition is found.
    let keys = |redis: &Redis| KEY * redis.ask(&["DBSIZE"]).parse::<u64>().unwrap();
    let remembered = keys(&redis);
    for (name, before, after) in [
        ("Redis", warm.0 + remembered, end.0),
        ("gate 1", warm.1[0], end.1[0]),
        ("gate 2", warm.1[1], end.1[1]),
    ] {
        let most = before + before / 4 + (4 << 20);
        assert!(after < most, "{name} grows: {before} bytes, then {after}");
    }
    crowd.iter().for_each(tokio::task::JoinHandle::abort);
    // Messages older than the history's age expire by themselves.
    let gone = async || {
        let keys = redis.ask(&["--scan", "--pattern", "pg:*:h:*"]);
        keys.is_empty().then_some(())
    };
    eventually_some("histories that age out", BOUND, gone).await;
    let idle = redis_memory(&redis);
    println!("aged out: {idle} bytes in Redis");
    assert!(idle < (1 << 20) + keys(&redis), "{idle} bytes are left in Redis");
}

/// Bytes in Redis and in each gate.
type Memory = (u64, [u64; 2]);

/// The smaller readings: buffers of commands under way come and go.
fn least(before: Option<Memory>, now: Memory) -> Memory {
    let Some(before) = before else { return now };
    (before.0.min(now.0), [before.1[0].min(now.1[0]), before.1[1].min(now.1[1])])
}

fn memory(redis: &Redis, gates: &[Gate; 2]) -> Memory {
    (redis_memory(redis), [gates[0].own_memory(), gates[1].own_memory()])
}

fn redis_memory(redis: &Redis) -> u64 {
    let info = redis.ask(&["INFO", "memory"]);
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory_dataset:"));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_user_with_the_commands_of_the_page_and_no_others_is_enough() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/backplane.md")).unwrap();
    let rule = page.lines().find_map(|line| line.strip_prefix("user gate ")).unwrap();
    let rule: Vec<_> = rule.split_whitespace().collect();
    let redis = Redis::start_with(&["--maxmemory-policy", "noeviction"]).await;
    let told = redis.ask(&[&["ACL", "SETUSER", "gate"], rule.as_slice()].concat());
    assert_eq!(told, "OK");
    let url = redis.url().replace("redis://", "redis://gate:secret@");
    let a = gate(&url).await;
    let b = gate(&url).await;
    let headers = [("Idempotency-Key", "k")];
    assert_eq!(a.hook("POST", "/channels/news", &headers, "x").await.status, 200);
    wait_for_said(&b, "news", &["x"]).await;
    redis.ask(&["SCRIPT", "FLUSH"]);
    a.publish("news", "y").await;
    wait_for_said(&b, "news", &["x", "y"]).await;
    a.forget("news").await;
    b.wait_for_kept("news", 0).await;
    let log = redis.ask(&["ACL", "LOG"]);
    assert!(log.is_empty(), "Redis has refused something: {log}");
}
