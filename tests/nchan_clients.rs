//! npm's nchan (`NchanSubscriber`) in Chromium, on its three transports, with connections that
//! break off between messages.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::{Browser, Gate, PlainSite, Window};

const CONFIG: &str = "[[nchan]]\npath = \"/pub/*\"\n\
                      [[poll]]\npath = \"/sub/*\"\ndialect = \"nchan\"\ntimeout = \"400ms\"\n\
                      [stream]\nmax = \"400ms\"\n[drain]\nspread = \"0s\"\n[hold]\njitter = \"0%\"\n";

fn library() -> String {
    let file =
        concat!(env!("CARGO_MANIFEST_DIR"), "/target/npm/node_modules/nchan/NchanSubscriber.js");
    std::fs::read_to_string(file)
        .unwrap_or_else(|e| panic!("{file}: {e}; run scripts/setup test (or: make test)"))
}

async fn publish(gate: &Gate, body: &str) {
    let headers = [("Content-Type", "text/plain")];
    let answer = gate.hook("POST", "/pub/news", &headers, body).await;
    assert!(matches!(answer.status, 201 | 202), "{}", answer.text());
}

async fn subscriber(gate: &Gate, transport: &str) -> (Browser, Window) {
    let browser = Browser::start().await;
    let window = browser.open(&gate.addr().url("/page")).await;
    window.execute(&library(), vec![]).await;
    let script = "window.got = []; window.ids = []; window.ends = 0;
                  const at = arguments[0] === 'websocket' ? location.origin.replace('http', 'ws') : location.origin;
                  window.sub = new NchanSubscriber(at + '/sub/news', {subscriber: arguments[0]});
                  sub.reconnectTimeout = 50;
                  sub.on('message', (message, meta) => { got.push(message); ids.push(meta.id); });
                  sub.on('disconnect', () => ends++);
                  sub.on('error', () => ends++);
                  sub.start();";
    window.execute(script, vec![json!(transport)]).await;
    (browser, window)
}

/// What it got of ten messages, every second of which came between two of its connections.
async fn get_ten(transport: &str) -> (Value, Value) {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), CONFIG).await;
    let (_browser, window) = subscriber(&gate, transport).await;
    for number in 0..10 {
        gate.wait_for_held(if number % 2 == 0 { 1 } else { 0 }).await;
        publish(&gate, &number.to_string()).await;
    }
    window.wait_until("got.length >= 10").await;
    let got = window.execute("return got", vec![]).await;
    let ids = window.execute("return ids", vec![]).await;
    window.close().await;
    (got, ids)
}

fn ten() -> Value {
    (0..10).map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn its_websocket_loses_nothing_between_its_connections() {
    let (got, ids) = get_ten("websocket").await;
    assert_eq!(got, ten());
    assert!(ids.as_array().unwrap().iter().all(Value::is_string), "{ids}");
}

#[tokio::test]
async fn its_event_source_loses_nothing_between_its_connections() {
    let (got, ids) = get_ten("eventsource").await;
    assert_eq!(got, ten());
    assert!(ids.as_array().unwrap().iter().all(Value::is_string), "{ids}");
}

#[tokio::test]
async fn its_long_poll_loses_nothing_between_its_holds() {
    let (got, ids) = get_ten("longpoll").await;
    assert_eq!(got, ten());
    assert!(ids.as_array().unwrap().iter().all(Value::is_string), "{ids}");
}
