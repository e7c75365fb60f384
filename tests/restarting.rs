//! The history across restarts: `history.snapshot`.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use support::{Client, Gate, TempDir, Way, eventually};

/// The file of gates that come one after another.
struct Kept {
    folder: TempDir,
}

impl Kept {
    fn new() -> Kept {
        Kept { folder: TempDir::new("snapshot") }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("history")
    }

    /// A gate that keeps its history here and writes it at the interval `every`.
    async fn gate(&self, every: &str) -> Gate {
        Gate::start_alone(&config(&self.file(), every)).await
    }

    /// The names of everything in the folder.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn config(file: &Path, every: &str) -> String {
    format!(
        r#"
        [drain]
        spread = "0s"
        [history]
        snapshot = "{}"
        snapshot_every = "{every}"
        [[channel]]
        match = "slow/*"
        stamp = "seconds"
        [[poll]]
        path = "/comet/*"
        dialect = "native"
        [[poll]]
        path = "/novcomet"
        dialect = "novcomet"
        [[poll]]
        path = "/slow"
        dialect = "timestamp"
        channel = "slow/c"
        first = "wait"
        "#,
        file.display()
    )
}

async fn stop(gate: Gate) {
    gate.signal("TERM");
    assert_eq!(gate.wait_for_exit().await, 0, "{}", gate.log());
}

async fn crash(gate: Gate) {
    gate.kill();
    gate.wait_for_exit().await;
}

/// Answer to a native poll with the cursor of `answer`.
async fn resume(gate: &Gate, answer: &Value) -> Value {
    gate.get(&format!("/comet/c?timeout=0&cursor={}", answer["cursor"].as_str().unwrap()))
        .await
        .json()
}

fn data(answer: &Value) -> Vec<&str> {
    answer["messages"].as_array().unwrap().iter().map(|m| m["data"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_client_that_polls_across_a_restart_loses_nothing() {
    let kept = Kept::new();
    let mut gate = kept.gate("0s").await;
    let mut answer = json!({ "cursor": "" });
    for round in 0..3 {
        // Held at shutdown, and answered with its position.
        let target = format!("/comet/c?cursor={}", answer["cursor"].as_str().unwrap());
        let mut held = gate.hold(Way::Plain, &target).await;
        stop(gate).await;
        answer = held.answer().await.json();
        assert_eq!((data(&answer), answer.get("reset")), (vec![], None), "{answer}");

        gate = kept.gate("0s").await;
        for part in ["a", "b"] {
            gate.publish("c", format!("{round}{part}")).await;
        }
        answer = resume(&gate, &answer).await;
        assert_eq!(data(&answer), [format!("{round}a"), format!("{round}b")]);
        // Published before the end, asked for after it.
        gate.publish("c", format!("{round}c")).await;
        stop(gate).await;
        gate = kept.gate("0s").await;
        answer = resume(&gate, &answer).await;
        assert_eq!((data(&answer), answer.get("reset")), (vec![&*format!("{round}c")], None));
    }
    assert_eq!(kept.names(), ["history"]);
}

#[tokio::test]
async fn a_publish_that_is_repeated_after_a_restart_is_published_once() {
    for crashes in [false, true] {
        let kept = Kept::new();
        let gate = kept.gate(if crashes { "50ms" } else { "0s" }).await;
        let key = [("Idempotency-Key", "order-4711"), ("Content-Type", "text/plain")];
        let first = gate.hook("POST", "/channels/c", &key, "hello").await;
        assert_eq!(first.status, 200);
        if crashes {
            let written = || std::fs::read(kept.file()).unwrap_or_default();
            let has = || written().windows(10).any(|bytes| bytes == b"order-4711");
            eventually("the key in the file", async || has()).await;
            crash(gate).await;
        } else {
            stop(gate).await;
        }
        let gate = kept.gate("0s").await;
        let again = gate.hook("POST", "/channels/c", &key, "hello").await;
        assert_eq!((again.status, again.text()), (200, first.text()), "{crashes}");
        assert_eq!(gate.channel("c").await["kept"], 1);
        assert_eq!(gate.hook("POST", "/channels/c", &key, "another").await.status, 422);
    }
}

#[tokio::test]
async fn stamps_go_on_above_those_that_ran_ahead_of_the_clock() {
    let kept = Kept::new();
    let gate = kept.gate("0s").await;
    let mut last = Value::Null;
    for number in 0..50 {
        last = gate.publish("slow/c", format!("{number}")).await["stamp"].clone();
    }
    gate.publish("slow/gone", "x").await;
    stop(gate).await;

    let gate = kept.gate("0s").await;
    let mut held = gate.hold(Way::Plain, &format!("/slow?timestamp={last}")).await;
    let next = gate.publish("slow/c", "next").await["stamp"].as_u64().unwrap();
    assert!(next > last.as_u64().unwrap(), "{next} after {last}");
    assert_eq!(held.answer().await.json(), json!({"msg": "next", "timestamp": next}));
}

#[tokio::test]
async fn after_a_crash_old_cursors_are_told_so_and_get_the_history() {
    let kept = Kept::new();
    let gate = kept.gate("0s").await;
    gate.publish("c", "in the file").await;
    stop(gate).await;

    let gate = kept.gate("0s").await;
    let stamp = gate.publish("c", "only in memory").await["stamp"].clone();
    let before = gate.get("/comet/c?cursor=oldest").await.json();
    assert_eq!(data(&before), ["in the file", "only in memory"]);
    crash(gate).await;

    let gate = kept.gate("0s").await;
    gate.wait_for_log("did not end in order").await;
    let answer = resume(&gate, &before).await;
    assert_eq!((data(&answer), &answer["reset"]), (vec!["in the file"], &json!(true)));
    // A client that only asks for changes gets one.
    let changed = gate.get(&format!("/novcomet?subscribed[c]={stamp}")).await.json();
    assert_eq!(changed["s"], 1, "{changed}");
    // It gets it once: with the new stamp, it is held.
    let stamp = format!("{:.6}", changed["k"]["c"].as_f64().unwrap());
    gate.hold(Way::Plain, &format!("/novcomet?subscribed[c]={stamp}")).await;
    gate.publish("c", "new").await;
    assert_eq!(data(&resume(&gate, &answer).await), ["new"]);
}

#[tokio::test]
async fn it_is_written_every_now_and_then() {
    let kept = Kept::new();
    let gate = kept.gate("50ms").await;
    gate.publish("c", "soon in the file").await;
    let published = |bytes: Vec<u8>| bytes.windows(16).any(|piece| piece == b"soon in the file");
    eventually("the message in the file", async || std::fs::read(kept.file()).is_ok_and(published))
        .await;
    assert!(gate.status().await["snapshot"]["written"].is_u64());
    crash(gate).await;
    let gate = kept.gate("0s").await;
    let answer = gate.get("/comet/c?cursor=oldest").await.json();
    assert_eq!(data(&answer), ["soon in the file"]);
}

#[tokio::test]
async fn the_file_is_nobody_elses_and_nothing_is_left_beside_it() {
    let kept = Kept::new();
    let gate = kept.gate("20ms").await;
    gate.publish("c", "x").await;
    let mode = || std::fs::metadata(kept.file()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    std::fs::write(kept.folder.path().join("history.new"), "left by a crash").unwrap();
    stop(gate).await;
    assert_eq!((mode(), kept.names()), (0o600, vec!["history".to_owned()]));
}

#[tokio::test]
async fn a_damaged_file_is_moved_aside_and_told() {
    let kept = Kept::new();
    let gate = kept.gate("0s").await;
    gate.publish("c", "x").await;
    stop(gate).await;
    let whole = std::fs::read(kept.file()).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x10;
    let cut_off = whole[..whole.len() - 5].to_vec();
    for bytes in [flipped, cut_off, b"#!/bin/sh\n".to_vec(), Vec::new()] {
        std::fs::write(kept.file(), &bytes).unwrap();
        let gate = kept.gate("0s").await;
        let status = gate.status().await;
        assert_eq!(status["channels"], 0, "{status}");
        let aside = PathBuf::from(status["snapshot"]["damaged"].as_str().unwrap());
        let name = aside.file_name().unwrap().to_str().unwrap();
        let time = name.strip_prefix("history.damaged-").unwrap();
        assert!(time.parse::<u64>().unwrap() > 1_000_000_000, "{name}");
        assert_eq!(std::fs::read(&aside).unwrap(), bytes);
        gate.wait_for_log("starting without history").await;
        gate.publish("c", "works").await;
        stop(gate).await;
        std::fs::remove_file(aside).unwrap();
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_told_and_ends_nothing() {
    let kept = Kept::new();
    let gate = kept.gate("20ms").await;
    gate.publish("c", "x").await;
    std::fs::remove_dir_all(kept.folder.path()).unwrap();
    eventually("the error in the status", async || {
        gate.status().await["snapshot"]["error"].is_string()
    })
    .await;
    gate.wait_for_log("cannot write the snapshot").await;
    gate.publish("c", "goes on").await;
    std::fs::create_dir_all(kept.folder.path()).unwrap();
    eventually("no error any more", async || gate.status().await["snapshot"]["error"].is_null())
        .await;
    stop(gate).await;
    assert_eq!(kept.names(), ["history"]);
}

#[tokio::test]
async fn a_place_where_no_file_can_be_is_a_mistake() {
    let file = "/none/history";
    let finished = Gate::with(&config(Path::new(file), "0s")).alone().run_to_exit().await;
    assert_eq!(finished.code, 2, "{finished:?}");
    assert!(finished.stderr.contains("history.snapshot: there is no folder /none; create it"));
}

#[tokio::test]
async fn what_was_confirmed_at_the_very_end_is_in_the_file() {
    let kept = Kept::new();
    let gate = kept.gate("0s").await;
    let mut site = Client::connect(gate.internal()).await;
    let mut confirmed = Vec::new();
    // Once a poll is held, it listens for signals, too.
    let _held = gate.hold(Way::Plain, "/comet/other").await;
    gate.signal("TERM");
    // As many as get through, one after another on one connection.
    for number in 0.. {
        let body = number.to_string();
        let head = "POST /channels/c HTTP/1.1\r\nHost: localhost\r\n";
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        if site.try_send_raw(request).await.is_err() {
            break;
        }
        let Some(answer) = site.read_unless_closed().await else { break };
        if answer.status != 200 {
            assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
            break;
        }
        confirmed.push(body);
    }
    assert_eq!(gate.wait_for_exit().await, 0);
    let gate = kept.gate("0s").await;
    let answer = gate.get("/comet/c?timeout=0&cursor=oldest").await.json();
    let newest = &confirmed[confirmed.len().saturating_sub(50)..];
    let there = data(&answer);
    assert!(newest.iter().all(|one| there.contains(&one.as_str())), "{there:?} but {newest:?}");
}
