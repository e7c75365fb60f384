//! Streams while gates come and go: over an upgrade, at several gates, without Redis for a while.

// A test fails by panicking.
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

use backplane::gates::{gate, wait_for_backplane};
use backplane::redis::Redis;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Client, Events, Gate, Socket, TempDir, Way, eventually};

const SSE: (&str, &str) = ("Accept", "text/event-stream");
const V1: (&str, &str) = ("Sec-WebSocket-Protocol", "pollgate.v1");

/// A client of event streams that reads on at another gate, or at the next, where one has ended.
struct Reader {
    way: Way,
    events: Events,
    cursor: String,
    resets: usize,
}

impl Reader {
    async fn begin(way: Way, gate: &Gate) -> Reader {
        let mut events = Events::open(way, gate, "/comet/news").await;
        let cursor = events.next().await.id().to_owned();
        Reader { way, events, cursor, resets: 0 }
    }

    async fn go_on_at(&mut self, gate: &Gate) {
        let headers = [SSE, ("Last-Event-ID", self.cursor.as_str())];
        self.events = Events::open_with(self.way, gate, "/comet/news", &headers).await;
    }

    /// The data of the next message; `None` = the stream has ended cleanly.
    async fn message(&mut self) -> Option<String> {
        loop {
            let event = self.events.next_or_end().await?;
            if let Some(id) = &event.id {
                self.cursor.clone_from(id);
            }
            match event.event.as_str() {
                "reset" => self.resets += 1,
                "" if !event.data.is_empty() => {
                    return Some(event.json()["data"].as_str().unwrap().to_owned());
                }
                _ => {}
            }
        }
    }
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_on_at_the_process_that_an_upgrade_starts() {
    const MESSAGES: usize = 400;
    let folder = TempDir::new("upgrade");
    let socket = folder.path().join("upgrade.socket");
    let config = format!(
        "[drain]\nspread = \"100ms\"\n[history]\nmessages = 1000\n[upgrade]\nsocket = \"{}\"\n",
        socket.display()
    );
    let mut gate = Gate::start_alone(&config).await;
    let mut readers = Vec::new();
    for way in Way::ALL {
        readers.push(Reader::begin(way, &gate).await);
    }
    let mut sockets = vec![Socket::open(&gate, "/comet/news", &[V1]).await];
    let mut at = sockets[0].json().await["cursor"].as_str().unwrap().to_owned();
    let published = Arc::new(AtomicUsize::new(0));
    let publishing = tokio::spawn({
        let internal = gate.internal().clone();
        let published = published.clone();
        async move {
            for number in numbers(MESSAGES) {
                // An upgraded gate has the address of the one before.
                let mut hook = Client::connect(&internal).await;
                let key = [("Idempotency-Key", number.as_str()), ("Content-Type", "text/plain")];
                let path = "/channels/news";
                let answer = hook.request("POST", path, &key, number.as_bytes()).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                published.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let mut got = vec![Vec::new(); readers.len()];
    let mut frames = Vec::new();
    for upgrade in 1..=2 {
        let due = upgrade * MESSAGES / 3;
        let is_due = async || published.load(Ordering::SeqCst) >= due;
        eventually("messages before the upgrade", is_due).await;
        let next = Gate::with(&config).alone().upgrade().start().await;
        for (reader, got) in readers.iter_mut().zip(&mut got) {
            // To the clean end at the old process.
            while let Some(data) = reader.message().await {
                got.push(data);
            }
            reader.go_on_at(&next).await;
        }
        // Messages, and then the frame that closes.
        let mut socket = sockets.pop().unwrap();
        loop {
            let (opcode, payload) = socket.frame().await;
            if opcode == support::socket::CLOSE {
                assert_eq!(payload[..2], 1001_u16.to_be_bytes());
                break;
            }
            take_frame(&payload, &mut at, &mut frames);
        }
        sockets.push(Socket::open(&next, &format!("/comet/news?cursor={at}"), &[V1]).await);
        assert_eq!(gate.wait_for_exit().await, 0, "{}", gate.log());
        gate = next;
    }
    for (reader, got) in readers.iter_mut().zip(&mut got) {
        while got.len() < MESSAGES {
            got.push(reader.message().await.expect("the last gate stays"));
        }
        assert_eq!(reader.resets, 0, "{:?}", reader.way);
        assert_eq!(*got, numbers(MESSAGES), "{:?}", reader.way);
    }
    while frames.len() < MESSAGES {
        let (_, payload) = sockets[0].frame().await;
        take_frame(&payload, &mut at, &mut frames);
    }
    assert_eq!(frames, numbers(MESSAGES));
    publishing.await.unwrap();
}

/// Takes the cursor and the data out of a frame of `pollgate.v1`.
fn take_frame(payload: &[u8], cursor: &mut String, data: &mut Vec<String>) {
    let answer: serde_json::Value = serde_json::from_slice(payload).unwrap();
    assert_eq!(answer.get("reset"), None, "{answer}");
    answer["cursor"].as_str().unwrap().clone_into(cursor);
    let messages = answer["messages"].as_array().unwrap();
    data.extend(messages.iter().map(|message| message["data"].as_str().unwrap().to_owned()));
}

#[tokio::test]
async fn a_stream_gets_what_another_gate_publishes_and_goes_on_there() {
    let redis = Redis::start().await;
    let a = gate(&redis.url()).await;
    let b = gate(&redis.url()).await;
    for way in Way::ALL {
        let mut reader = Reader::begin(way, &a).await;
        for text in ["one", "two"] {
            b.publish("news", text).await;
            assert_eq!(reader.message().await.as_deref(), Some(text), "{way:?}");
        }
        b.publish("news", "three").await;
        a.wait_for_newest("news", "three").await;
        reader.go_on_at(&b).await;
        assert_eq!(reader.message().await.as_deref(), Some("three"), "{way:?}");
        a.publish("news", "four").await;
        assert_eq!(reader.message().await.as_deref(), Some("four"), "{way:?}");
        assert_eq!(reader.resets, 0, "{way:?}");
    }
    let mut socket = Socket::open(&a, "/comet/sport", &[V1]).await;
    socket.json().await;
    b.publish("sport", "goal").await;
    assert_eq!(socket.json().await["messages"][0]["data"], "goal");
}

#[tokio::test]
async fn a_stream_marks_what_redis_has_lost_and_goes_on() {
    let mut redis = Redis::start().await;
    let gate = gate(&redis.url()).await;
    let mut reader = Reader::begin(Way::Plain, &gate).await;
    gate.publish("news", "before").await;
    assert_eq!(reader.message().await.as_deref(), Some("before"));
    // It keeps nothing over a restart.
    redis.kill();
    redis.restart().await;
    wait_for_backplane(&gate).await;
    gate.publish("news", "after").await;
    assert_eq!(reader.message().await.as_deref(), Some("after"));
    assert_eq!(reader.resets, 1, "a loss that was not marked");
    assert_eq!(gate.status().await["held"], 1, "the stream is still the same");
}
