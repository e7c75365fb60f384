//! Clients of others on the gate's streams: those of Chromium and Firefox, of npm and of PyPI.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use std::process::{Command, Stdio};
use support::{Browser, Firefox, Gate, Page, PlainSite, Window, eventually};

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

async fn chromium(gate: &Gate) -> (Browser, Window) {
    let browser = Browser::start().await;
    let window = browser.open(&gate.addr().url("/page")).await;
    (browser, window)
}

/// An event source gets all that is published while its streams end and it comes back; the first
/// message comes between two of them, when it has no more than the `cursor` event.
async fn loses_nothing_between_its_streams(gate: &Gate, page: &impl Page) {
    let script = "window.got = []; window.states = 0;
                  window.source = new EventSource('/comet/news');
                  source.onopen = () => states++;
                  source.onmessage = e => got.push(JSON.parse(e.data).data);";
    page.run(script).await;
    page.wait_until("states > 0").await;
    for number in 0..10 {
        gate.wait_for_held(number % 2).await;
        gate.publish("news", number.to_string()).await;
    }
    page.wait_until("got.length >= 10").await;
    assert_eq!(page.run("return got").await, numbers(10));
    assert!(page.run("return states").await.as_u64().unwrap() > 1);
}

/// An event source that found no room goes on trying, and finds some.
async fn comes_back_to_a_gate_that_had_no_room(gate: &Gate, page: &impl Page) {
    let held = gate.hold(support::Way::Plain, "/comet/other").await;
    let script = "window.got = []; window.errors = 0;
                  window.source = new EventSource('/comet/news');
                  source.onerror = () => errors++;
                  source.addEventListener('cursor', () => got.push('cursor'));";
    page.run(script).await;
    page.wait_until("errors > 0").await;
    assert_eq!(page.run("return source.readyState").await, 0, "it goes on trying");
    held.close();
    page.wait_until("got.length > 0").await;
}

/// An event source that is not allowed ends for good.
async fn ends_where_it_is_not_allowed(page: &impl Page) {
    let script = "window.errors = 0; window.source = new EventSource('/closed/news');
                  source.onerror = () => errors++;";
    page.run(script).await;
    page.wait_until("errors > 0").await;
    assert_eq!(page.run("return source.readyState").await, 2, "it tries again");
}

/// A rule that wants a token besides the open one, and room for one stream.
const NARROW: &str = r#"
[hold]
max = 1
[[poll]]
path = "/comet/*"
dialect = "native"
[[poll]]
path = "/closed/*"
dialect = "native"
auth = { kind = "signed", keys = { k = "a secret of 32 bytes, or of more" } }
"#;

#[tokio::test]
async fn chromium_s_event_source_loses_nothing_between_its_streams() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), SHORT).await;
    let (_browser, window) = chromium(&gate).await;
    loses_nothing_between_its_streams(&gate, &window).await;
    window.close().await;
}

#[tokio::test]
async fn chromium_comes_back_to_a_gate_that_had_no_room() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), NARROW).await;
    let (_browser, window) = chromium(&gate).await;
    comes_back_to_a_gate_that_had_no_room(&gate, &window).await;
    ends_where_it_is_not_allowed(&window).await;
    window.close().await;
}

#[tokio::test]
async fn firefox_s_event_source_loses_nothing_between_its_streams() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), SHORT).await;
    let page = Firefox::open(&gate.addr().url("/page")).await;
    loses_nothing_between_its_streams(&gate, &page).await;
}

#[tokio::test]
async fn firefox_comes_back_to_a_gate_that_had_no_room() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), NARROW).await;
    let page = Firefox::open(&gate.addr().url("/page")).await;
    comes_back_to_a_gate_that_had_no_room(&gate, &page).await;
    ends_where_it_is_not_allowed(&page).await;
}

#[tokio::test]
async fn firefox_s_websocket_gets_what_is_published() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), "").await;
    let page = Firefox::open(&gate.addr().url("/page")).await;
    let script = "window.got = []; window.ended = 0;
                  const url = location.origin.replace('http', 'ws') + '/comet/news';
                  window.ws = new WebSocket(url, 'pollgate.v1');
                  ws.onmessage = e => got.push(...JSON.parse(e.data).messages.map(m => m.data));
                  ws.onclose = e => ended = e.code;";
    page.run(script).await;
    gate.wait_for_held(1).await;
    for number in 0..5 {
        gate.publish("news", number.to_string()).await;
    }
    page.wait_until("got.length >= 5").await;
    assert_eq!(page.run("return got").await, numbers(5));
    page.run("ws.send('hello')").await;
    page.wait_until("ended === 1008").await;
}

#[tokio::test]
async fn chromium_s_websocket_and_iframe_get_what_is_published() {
    let site = PlainSite::start().await;
    let config = "[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\ncallback = \"callback\"\n\
                  transports = [\"ws\", \"iframe\"]\n";
    let gate = Gate::start_before(site.addr(), config).await;
    let (_browser, window) = chromium(&gate).await;
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
    let script = format!("const base = '{}';\n{script}", gate.addr().url(""));
    let mut node = Command::new("node");
    printed(node.args(["-e", &script]).env("NODE_PATH", clients)).await
}

/// The same in Python.
async fn python(gate: &Gate, script: &str) -> Value {
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/target/pypi/bin/python");
    let script = format!("base = '{}'\n{script}", gate.addr().url(""));
    printed(Command::new(python).args(["-c", &script])).await
}

async fn printed(program: &mut Command) -> Value {
    let missing = "run scripts/setup test (or: make test)";
    let child = program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|e| panic!("{program:?}: {e}; {missing}"));
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap();
    let output = output.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}\n{missing}");
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}\n{error}"))
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

#[tokio::test]
async fn httpx_sse_of_pypi_loses_nothing_between_its_streams() {
    let gate = Gate::start_alone(SHORT).await;
    let script = r"
import httpx, json, time
from httpx_sse import connect_sse
got, cursor, streams = [], '', 0
with httpx.Client(timeout=30) as client:
    while len(got) < 10:
        headers = {'Last-Event-ID': cursor} if cursor else {}
        with connect_sse(client, 'GET', base + '/comet/news', headers=headers) as source:
            for event in source.iter_sse():
                cursor = event.id
                if event.retry:
                    retry = event.retry
                # It shows a retry without data as an event.
                if event.event == 'message' and event.data:
                    got.append(event.json()['data'])
        streams += 1
        time.sleep(retry / 1000)
print(json.dumps([got, streams > 1]))";
    let (said, ()) = tokio::join!(python(&gate, script), publish(&gate, 10));
    assert_eq!(said, json!([numbers(10), true]));
}

#[tokio::test]
async fn websockets_of_pypi_loses_nothing_between_its_sockets() {
    let gate = Gate::start_alone(SHORT).await;
    let script = r"
import asyncio, json
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

async def main():
    got, cursor, codes = [], '', set()
    url = base.replace('http', 'ws') + '/comet/news?cursor='
    while len(got) < 10:
        async with connect(url + cursor, subprotocols=['pollgate.v1']) as socket:
            await (await socket.ping())
            try:
                while True:
                    answer = json.loads(await socket.recv())
                    cursor = answer['cursor']
                    got += [message['data'] for message in answer['messages']]
            except ConnectionClosed as end:
                codes.add(end.rcvd.code)
        await asyncio.sleep(0.2)
    async with connect(url + cursor, subprotocols=['pollgate.v1']) as socket:
        await socket.send('hello')
        try:
            while True:
                await socket.recv()
        except ConnectionClosed as end:
            print(json.dumps([got, sorted(codes), end.rcvd.code, socket.subprotocol]))

asyncio.run(main())";
    let (said, ()) = tokio::join!(python(&gate, script), publish(&gate, 10));
    assert_eq!(said, json!([numbers(10), [1001], 1008, "pollgate.v1"]));
}
