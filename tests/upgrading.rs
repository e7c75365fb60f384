//! `pollgate upgrade`: a new process takes over from the running gate.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::{Addr, Client, Gate, TempDir, Way, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Gates that take over from each other.
struct Line {
    folder: TempDir,
}

impl Line {
    fn new() -> Line {
        Line { folder: TempDir::new("upgrade") }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("upgrade.socket")
    }

    fn config(&self) -> String {
        format!(
            r#"
            [drain]
            spread = "100ms"
            [history]
            messages = 1000
            [upgrade]
            socket = "{}"
            "#,
            self.socket().display()
        )
    }

    async fn first(&self) -> Gate {
        Gate::start_alone(&self.config()).await
    }

    async fn next(&self) -> Gate {
        Gate::with(&self.config()).alone().upgrade().start().await
    }
}

async fn ends_well(gate: &Gate) {
    assert_eq!(gate.wait_for_exit().await, 0, "{}", gate.log());
}

#[tokio::test]
async fn a_publish_that_is_repeated_across_upgrades_is_published_once() {
    let line = Line::new();
    let old = line.first().await;
    let key = [("Idempotency-Key", "order-4711"), ("Content-Type", "text/plain")];
    let first = old.hook("POST", "/channels/c", &key, "hello").await;
    assert_eq!(first.status, 200);
    // From one process to the next, and on to the one after it.
    let new = line.next().await;
    ends_well(&old).await;
    let newest = line.next().await;
    ends_well(&new).await;
    let again = newest.hook("POST", "/channels/c", &key, "hello").await;
    assert_eq!((again.status, again.text()), (200, first.text()));
    assert_eq!(newest.channel("c").await["kept"], 1);
    assert_eq!(newest.hook("POST", "/channels/c", &key, "another").await.status, 422);
}

fn data(answer: &Value) -> Vec<&str> {
    answer["messages"].as_array().unwrap().iter().map(|m| m["data"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_new_process_goes_on_with_the_sockets_and_the_history() {
    let line = Line::new();
    let old = line.first().await;
    old.publish("c", "before").await;
    let before = old.get("/comet/c?cursor=oldest").await.json();
    let cursor = before["cursor"].as_str().unwrap();
    let mut held = old.hold(Way::Plain, &format!("/comet/c?cursor={cursor}")).await;

    // The open page waits for its figures; the upgrade does not wait for it.
    let mut page = Client::connect(old.internal()).await;
    page.send_get("/page/figures?cursor=").await;

    let new = line.next().await;
    assert_eq!((new.addr(), new.internal()), (old.addr(), old.internal()));
    // A client held at the old process continues at the new one, and misses nothing.
    let told = held.answer().await;
    assert_eq!(
        (told.json(), told.header("connection")),
        (json!({"cursor": cursor, "messages": []}), Some("close"))
    );
    new.publish("c", "after").await;
    let after = new.get(&format!("/comet/c?cursor={cursor}")).await.json();
    assert_eq!((data(&after), after.get("reset")), (vec!["after"], None));
    ends_well(&old).await;
    assert_eq!(new.status().await["pid"], new.pid());
    new.signal("TERM");
    ends_well(&new).await;
    assert!(!line.socket().exists(), "the socket is left behind");
}

/// Messages on so many channels, as clients poll for them while gates come and go.
const CHANNELS: usize = 100;
const CLIENTS: usize = 500;
const MESSAGES: usize = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_upgrades_under_load_lose_and_double_nothing() {
    support::allow_open_files(4096);
    let line = Line::new();
    let mut gate = line.first().await;
    let listen = gate.addr().clone();
    let internal = gate.internal().clone();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(poll_for_all(listen.clone(), number % CHANNELS)))
        .collect();
    gate.wait_for_held(CLIENTS as u64).await;

    let published = Arc::new(AtomicU64::new(0));
    let publishing: Vec<_> = (0..4)
        .map(|q| tokio::spawn(publish_quarter(internal.clone(), q, published.clone())))
        .collect();
    for upgrade in 1..=3 {
        let due = (upgrade * MESSAGES / 4) as u64;
        eventually(&format!("{due} messages"), async || published.load(Ordering::SeqCst) >= due)
            .await;
        let next = line.next().await;
        ends_well(&gate).await;
        gate = next;
    }
    for task in publishing.into_iter().chain(clients) {
        task.await.unwrap();
    }
    // Nothing was published twice.
    for channel in 0..CHANNELS {
        let info = gate.channel(&format!("c{channel}")).await;
        let id = info["newest"]["id"].as_str().unwrap();
        assert!(id.ends_with(&format!("-{}", MESSAGES / CHANNELS)), "{info}");
    }
}

/// Publishes the numbered messages of every fourth channel one after another at a steady rate,
/// the way a site does that keeps its connection.
async fn publish_quarter(internal: Addr, quarter: usize, published: Arc<AtomicU64>) {
    let mut connection = None;
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in (quarter..MESSAGES).step_by(4) {
        ticks.tick().await;
        let mut client = match connection.take() {
            Some(client) => client,
            None => Client::connect(&internal).await,
        };
        let path = format!("/channels/c{}", number % CHANNELS);
        let answer = client.post(&path, "text/plain", (number / CHANNELS).to_string()).await;
        assert_eq!(answer.status, 200, "message {number}: {}", answer.text());
        published.fetch_add(1, Ordering::SeqCst);
        if answer.header("connection") != Some("close") {
            connection = Some(client);
        }
    }
}

/// Polls until it has all messages of its channel, in their order, each once.
async fn poll_for_all(listen: Addr, channel: usize) {
    let mut connection = None;
    let mut cursor = String::new();
    let mut expected = 0;
    while expected < MESSAGES / CHANNELS {
        let mut client = match connection.take() {
            Some(client) => client,
            // A refused connection fails the test here.
            None => Client::connect(&listen).await,
        };
        let answer = client.poll(&format!("/comet/c{channel}?cursor={cursor}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let json = answer.json();
        assert_eq!(json.get("reset"), None, "{json}");
        for message in data(&json) {
            assert_eq!(message, expected.to_string(), "c{channel}: {json}");
            expected += 1;
        }
        cursor = json["cursor"].as_str().unwrap().to_owned();
        if answer.header("connection") != Some("close") {
            connection = Some(client);
        }
    }
}

#[tokio::test]
async fn with_no_gate_running_it_fails_and_says_so() {
    let line = Line::new();
    let finished = Gate::with(&line.config()).alone().upgrade().run_to_exit().await;
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(finished.stderr.contains("no gate is running"), "{finished:?}");
    assert!(finished.stderr.contains(line.socket().to_str().unwrap()), "{finished:?}");
    // A gate that was killed leaves its socket behind.
    let gate = line.first().await;
    gate.kill();
    gate.wait_for_exit().await;
    let finished = Gate::with(&line.config()).alone().upgrade().run_to_exit().await;
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(finished.stderr.contains("no gate is running"), "{finished:?}");
    line.first().await;
}

#[tokio::test]
async fn a_new_process_that_cannot_start_leaves_the_old_one_as_it_is() {
    let line = Line::new();
    let old = line.first().await;
    let mut held = old.hold(Way::Plain, "/comet/c").await;
    let bad = format!("{}\n[hold]\ntimeot = \"1s\"", line.config());
    let finished = Gate::with(&bad).alone().upgrade().run_to_exit().await;
    assert_eq!(finished.code, 2, "{finished:?}");

    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let plan = Gate::with(&line.config()).alone().upgrade();
    let finished = plan.listen([&address]).run_to_exit().await;
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(finished.stderr.contains("cannot listen on"), "{finished:?}");

    old.wait_for_log("did not take over").await;
    assert!(held.is_quiet().await);
    old.publish("c", "still here").await;
    assert_eq!(data(&held.answer().await.json()), ["still here"]);
    // And it can still be upgraded.
    line.next().await;
    ends_well(&old).await;
}

/// A new process by hand, which does not go on to the end.
struct Dying(UnixStream);

impl Dying {
    async fn start(line: &Line) -> Dying {
        let mut dying = Dying(UnixStream::connect(line.socket()).await.unwrap());
        dying.say(json!({"hello": {"protocol": 1, "version": "test"}})).await;
        let sockets = dying.hear().await;
        assert_eq!(sockets["sockets"]["sockets"].as_array().unwrap().len(), 3, "{sockets}");
        dying
    }

    async fn say(&mut self, word: Value) {
        let json = word.to_string();
        self.0.write_all(&(json.len() as u32).to_le_bytes()).await.unwrap();
        self.0.write_all(json.as_bytes()).await.unwrap();
    }

    async fn hear(&mut self) -> Value {
        let length = self.0.read_u32_le().await.unwrap();
        let mut json = vec![0; length as usize];
        self.0.read_exact(&mut json).await.unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    /// Says that it is ready, and waits for the history to come.
    async fn ready(&mut self) {
        let ready = json!({"internal": "127.0.0.1:1", "token": "", "upgrade": true});
        self.say(json!({"ready": ready})).await;
        assert_eq!(self.hear().await, "history");
        let mut magic = [0; 16];
        self.0.read_exact(&mut magic).await.unwrap();
        assert_eq!(&magic, b"pollgate-history");
    }
}

#[tokio::test]
async fn if_the_new_process_dies_on_the_way_the_old_one_takes_everything_back() {
    let line = Line::new();
    let old = line.first().await;
    let mut held = old.hold(Way::Plain, "/comet/c").await;
    let mut site = Client::connect(old.internal()).await;
    drop(Dying::start(&line).await);
    for word in [None, Some(json!("loaded"))] {
        let mut dying = Dying::start(&line).await;
        dying.ready().await;
        // Requests that come meanwhile wait: a publish, and a client's.
        site.send("POST", "/channels/d", &[], b"meanwhile").await;
        let mut visitor = old.connect().await;
        visitor.send_get("/comet/d?cursor=oldest").await;
        // The client's request may still have come in before the pause; it is answered from the
        // history then.
        assert!(site.is_quiet().await);
        if let Some(word) = word {
            // To the last word but its own.
            dying.say(word).await;
            let mut rest = Vec::new();
            while !rest.ends_with(b"\"go\"") {
                rest.push(dying.0.read_u8().await.unwrap());
            }
        }
        assert!(site.is_quiet().await);
        drop(dying);
        assert_eq!(site.read_response().await.status, 200);
        assert_eq!(data(&visitor.read_response().await.json())[0], "meanwhile");
    }
    assert!(held.is_quiet().await);
    old.publish("c", "still here").await;
    assert_eq!(data(&held.answer().await.json()), ["still here"]);
    line.next().await;
    ends_well(&old).await;
}

#[tokio::test]
async fn a_client_that_is_still_at_the_old_process_gets_no_false_answer() {
    let line = Line::new();
    let old = line.first().await;
    old.publish("c", "first").await;
    let mut kept = old.connect().await;
    let mut slow = old.connect().await;
    kept.get("/comet/c?timeout=0").await;
    slow.get("/comet/c?timeout=0").await;
    let mut site = Client::connect(old.internal()).await;
    site.get("/channels/c").await;

    let new = line.next().await;
    // Published through the old process, at the new one.
    let id = site.post("/channels/c", "text/plain", "second").await;
    assert_eq!((id.status, id.header("connection")), (200, Some("close")), "{}", id.text());
    let id = id.json()["id"].as_str().unwrap().to_owned();
    let sent_back = kept.get(&format!("/comet/c?cursor={id}")).await;
    // The old process does not know that position; it does not report a loss.
    let answer = sent_back.json();
    let close = sent_back.header("connection");
    assert_eq!((data(&answer), answer.get("reset"), close), (vec![], None, Some("close")));
    let cursor = answer["cursor"].as_str().unwrap();
    assert!(cursor.ends_with(&id), "{cursor} for {id}");
    let there = new.get(&format!("/comet/c?cursor={cursor}&timeout=0")).await.json();
    assert_eq!((data(&there), there.get("reset")), (vec![], None));
    let known = slow.get("/comet/c?cursor=oldest").await.json();
    assert_eq!(data(&known), ["first"]);
    let on = new.get(&format!("/comet/c?cursor={}", known["cursor"].as_str().unwrap())).await;
    assert_eq!(data(&on.json()), ["second"]);
    ends_well(&old).await;
}

#[tokio::test]
async fn what_the_new_config_lists_is_bound_and_what_it_does_not_list_is_closed() {
    let line = Line::new();
    let a = line.folder.path().join("a");
    let b = line.folder.path().join("b");
    let c = line.folder.path().join("c");
    let [a, b, c] = [a, b, c].map(|path| format!("unix:{}", path.display()));
    let plan = || Gate::with(&line.config()).alone();
    let old = plan().listen([&a, &b]).start().await;
    let new = plan().listen([&b, &c]).upgrade().start().await;
    for addr in new.addrs() {
        assert_eq!(Client::connect(addr).await.get("/comet/x?timeout=0").await.status, 200);
    }
    let gone = a.strip_prefix("unix:").unwrap();
    eventually("a closed address", async || UnixStream::connect(gone).await.is_err()).await;
    ends_well(&old).await;
    assert_eq!(Client::connect(&new.addrs()[0]).await.get("/comet/x?timeout=0").await.status, 200);
}

#[tokio::test]
async fn the_snapshot_goes_on_with_the_new_process() {
    let folder = TempDir::new("upgraded-snapshot");
    let file = folder.path().join("history");
    let line = Line::new();
    let history = format!("snapshot = \"{}\"\nsnapshot_every = \"20ms\"", file.display());
    let config = line.config().replace("[history]", &format!("[history]\n{history}"));
    let old = Gate::start_alone(&config).await;
    old.publish("c", "one").await;
    let new = Gate::with(&config).alone().upgrade().start().await;
    ends_well(&old).await;
    new.publish("c", "two").await;
    let before = new.get("/comet/c?cursor=oldest").await.json();
    assert_eq!(data(&before), ["one", "two"]);
    new.signal("TERM");
    ends_well(&new).await;
    let last = Gate::start_alone(&config).await;
    let path = format!("/comet/c?timeout=0&cursor={}", before["cursor"].as_str().unwrap());
    let after = last.get(&path).await.json();
    assert_eq!((data(&after), after.get("reset")), (vec![], None));
}
