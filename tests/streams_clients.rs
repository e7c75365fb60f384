//! Clients of others on the gate's streams: Chromium's own, and those of npm.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use std::process::{Command, Stdio};
use support::{Browser, Gate, PlainSite, Window, eventually};

/// Streams that end again and again, so that their clients have to come back.
const SHORT: &str = "[stream]\nmax = \"400ms\"\nretry = \"500ms\"\n[drain]\nspread = \"0s\"\n";

/// Messages from 0 on, every second one of them between two of a client's streams.
async fn publish(gate: &Gate, count: usize) {
    for number in 0..count {
        gate.wait_for_held(if number % 2 == 0 { 1 } else { 0 }).await;
        gate.publish("news", number.to_string()).await;
    }
}

fn numbers(count: usize) -> Value {
    (0..count).map(|number| number.to_string()).collect()
}

async fn page(gate: &Gate) -> (Browser, Window) {
    let browser = Browser::start().await;
    let window = browser.open(&gate.addr().url("/page")).await;
    (browser, window)
}

#[tokio::test]
async fn chromium_s_event_source_loses_nothing_between_its_streams() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), SHORT).await;
    let (_browser, window) = page(&gate).await;
    let script = "window.got = []; window.states = 0;
                  const source = new EventSource('/comet/news');
                  source.onopen = () => states++;
                  source.onmessage = e => got.push(JSON.parse(e.data).data);";
    window.execute(script, vec![]).await;
    window.wait_until("states > 0").await;
    publish(&gate, 10).await;
    window.wait_until("got.length >= 10").await;
    assert_eq!(window.execute("return got", vec![]).await, numbers(10));
    assert!(window.execute("return states", vec![]).await.as_u64().unwrap() > 1);
    window.close().await;
}

#[tokio::test]
async fn chromium_comes_back_to_a_gate_that_had_no_room() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), "[hold]\nmax = 1\n").await;
    let (_browser, window) = page(&gate).await;
    let held = gate.hold(support::Way::Plain, "/comet/other").await;
    let script = "window.got = []; window.errors = 0;
                  window.source = new EventSource('/comet/news');
                  source.onerror = () => errors++;
                  source.addEventListener('cursor', () => got.push('cursor'));";
    window.execute(script, vec![]).await;
    window.wait_until("errors > 0").await;
    assert_eq!(window.execute("return source.readyState", vec![]).await, 0, "it goes on trying");
    held.close();
    window.wait_until("got.length > 0").await;
    window.close().await;
}

#[tokio::test]
async fn chromium_s_websocket_and_iframe_get_what_is_published() {
    let site = PlainSite::start().await;
    let config = "[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\ncallback = \"callback\"\n\
                  transports = [\"ws\", \"iframe\"]\n";
    let gate = Gate::start_before(site.addr(), config).await;
    let (_browser, window) = page(&gate).await;
    let script = "window.socket = []; window.frame = []; window.ended = 0;
                  const url = location.origin.replace('http', 'ws') + '/comet/news';
                  window.ws = new WebSocket(url, 'pollgate.v1');
                  ws.onmessage = e => socket.push(...JSON.parse(e.data).messages.map(m => m.data));
                  ws.onclose = e => ended = e.code;
                  window.on_news = (event, cursor) => frame.push(event.data);
                  const iframe = document.createElement('iframe');
                  iframe.src = '/comet/news?transport=iframe&callback=on_news';
                  document.documentElement.append(iframe);";
    window.execute(script, vec![]).await;
    gate.wait_for_held(2).await;
    for number in 0..5 {
        gate.publish("news", number.to_string()).await;
    }
    window.wait_until("socket.length >= 5 && frame.length >= 5").await;
    assert_eq!(
        window.execute("return [socket, frame]", vec![]).await,
        json!([numbers(5), numbers(5)])
    );
    window.execute("ws.send('hello')", vec![]).await;
    window.wait_until("ended === 1008").await;
    window.close().await;
}

/// Runs JavaScript in Node, with the gate's address as `base`; what it prints as JSON.
async fn node(gate: &Gate, script: &str) -> Value {
    let clients = concat!(env!("CARGO_MANIFEST_DIR"), "/target/npm/node_modules");
    assert!(
        std::path::Path::new(clients).join("ws").exists(),
        "the clients of npm are missing: run scripts/setup test (or: make test)"
    );
    let script = format!("const base = '{}';\n{script}", gate.addr().url(""));
    let child = Command::new("node")
        .args(["-e", &script])
        .env("NODE_PATH", clients)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("node: {e}; run scripts/setup test (or: make test)"));
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}"))
}

#[tokio::test]
async fn the_event_sources_of_npm_lose_nothing_between_their_streams() {
    for client in [
        "const { EventSource } = require('eventsource');",
        "const { EventSourcePolyfill: EventSource } = require('event-source-polyfill');",
    ] {
        let gate = Gate::start_alone(SHORT).await;
        let script = format!(
            "{client}
             const got = [], source = new EventSource(base + '/comet/news');
             source.onmessage = e => {{
                 got.push(JSON.parse(e.data).data);
                 if (got.length === 10) {{ source.close(); console.log(JSON.stringify(got)); process.exit(); }}
             }};"
        );
        let (got, ()) = tokio::join!(node(&gate, &script), async {
            eventually("a stream", async || gate.held().await == 1).await;
            publish(&gate, 10).await;
        });
        assert_eq!(got, numbers(10), "{client}");
    }
}

#[tokio::test]
async fn the_websocket_of_npm_gets_answers_pings_and_the_reason_of_its_end() {
    let gate = Gate::start_alone("[stream]\nheartbeat = \"50ms\"\n").await;
    let script = "const WebSocket = require('ws');
                  const got = [], ws = new WebSocket(base.replace('http', 'ws') + '/comet/news', 'pollgate.v1');
                  let pings = 0;
                  ws.on('ping', () => { if (++pings === 4) ws.send('hello'); });
                  ws.on('message', data => got.push(...JSON.parse(data).messages.map(m => m.data)));
                  ws.on('close', (code, why) => console.log(JSON.stringify([ws.protocol, got, code])));";
    let (said, ()) = tokio::join!(node(&gate, script), async {
        eventually("a stream", async || gate.held().await == 1).await;
        gate.publish("news", "0").await;
    });
    assert_eq!(said, json!(["pollgate.v1", ["0"], 1008]));
}
