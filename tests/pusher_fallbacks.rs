//! The Pusher protocol's HTTP fallbacks.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::pusher::{APP, KEY, Session, auth, data, frames, trigger};
use support::{Client, Gate, Metrics, Way, eventually};

async fn gate(keys: &str) -> Gate {
    Gate::start_alone(&format!("{APP}{keys}")).await
}

fn subscribe(channel: &str) -> Value {
    json!({ "event": "pusher:subscribe", "data": { "channel": channel } })
}

async fn sessions(gate: &Gate) -> f64 {
    let text = Client::connect(gate.internal()).await.get("/metrics").await.text();
    Metrics::parse(&text).value("pollgate_pusher_sessions")
}

#[tokio::test]
async fn polling_gets_one_line_at_a_time() {
    let gate = gate("").await;
    let (mut session, socket) = Session::open(&gate, "abcd1234").await;
    assert!(socket.contains('.'));
    session.ask("xhr").await;
    let sent = session.send(&gate, &[subscribe("a"), subscribe("b")]).await;
    assert_eq!((sent.status, sent.body.len()), (204, 0));
    let got = frames(&session.answer().await.text());
    assert!(!got.is_empty());
    let mut got = got;
    while got.len() < 2 {
        got.extend(session.frames().await);
    }
    assert_eq!(got[0]["event"], "pusher_internal:subscription_succeeded");
    // What comes between two polls waits.
    for number in 0..3 {
        trigger(&gate, "a", "n", &number.to_string(), json!({})).await;
    }
    let got = session.frames().await;
    let numbers: Vec<Value> = got.iter().map(data).collect();
    assert_eq!(numbers, [0, 1, 2]);
    session.ask("xhr").await;
    gate.wait_for_held(1).await;
    trigger(&gate, "b", "x", "9", json!({})).await;
    assert_eq!(data(&frames(&session.answer().await.text())[0]), 9);
}

#[tokio::test]
async fn sessions_are_served_over_http_2_and_in_odd_requests_too() {
    let gate = gate("").await;
    let path = |what: &str| format!("/pusher/app/{KEY}/1/abcd1234/{what}?protocol=7");
    let mut http2 = Way::Http2.connect(&gate).await;
    let post = async |http2: &mut support::Poller, what: &str| {
        http2.poll_with("POST", &path(what), &[("content-length", "0")]).await.text()
    };
    assert_eq!(post(&mut http2, "xhr").await, "o{}\n");
    assert_eq!(frames(&post(&mut http2, "xhr").await)[0]["event"], "pusher:connection_established");
    let body = serde_json::to_string(&[subscribe("a").to_string()]).unwrap();
    let mut client = gate.connect().await;
    assert_eq!(client.post(&path("xhr_send"), "application/json", body).await.status, 204);
    // A body in chunks, none of them, is read by the proxy's side.
    let chunked = "Host: gate.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    client.send_raw(format!("POST {} HTTP/1.1\r\n{chunked}", path("xhr"))).await;
    let got = frames(&client.read_response().await.text());
    assert_eq!(got[0]["event"], "pusher_internal:subscription_succeeded");
    http2.ask_with("POST", &path("xhr"), &[("content-length", "0")]).await;
    eventually("a poll", async || gate.held().await == 1).await;
    trigger(&gate, "a", "n", "1", json!({})).await;
    assert_eq!(data(&frames(&http2.answer().await.text())[0]), 1);
}

#[tokio::test]
async fn a_quiet_poll_ends_with_a_heartbeat() {
    let gate = Gate::start_alone(&format!("[hold]\ntimeout = \"200ms\"\n{APP}")).await;
    let (mut session, _) = Session::open(&gate, "abcd1234").await;
    assert_eq!(session.poll().await, "h\n");
    assert_eq!(session.poll().await, "h\n");
    // A ping is answered.
    session.ask("xhr").await;
    session.send(&gate, &[]).await;
    assert_eq!(session.answer().await.text(), "a[]\n");
}

#[tokio::test]
async fn a_private_channel_is_signed_for_the_session_s_socket() {
    let gate = gate("").await;
    let (mut session, socket) = Session::open(&gate, "abcd1234").await;
    let data = json!({ "channel": "private-a", "auth": auth(&socket, "private-a", None) });
    session.send(&gate, &[json!({ "event": "pusher:subscribe", "data": data })]).await;
    let got = session.frames().await;
    assert_eq!(got[0]["event"], "pusher_internal:subscription_succeeded");
}

#[tokio::test]
async fn a_stream_has_line_after_line() {
    let gate = gate("").await;
    let mut session = Session::new(&gate, "abcd1234").await;
    let stream = session.stream().await;
    let mut lines = String::new();
    while lines.lines().count() < 2 {
        lines.push_str(&String::from_utf8(stream.read_chunk().await.unwrap()).unwrap());
    }
    assert!(lines.starts_with("o{}\na["), "{lines}");
    let path = session.path.clone();
    let send = async |frames: &str| {
        let target = format!("{path}/xhr_send?t=1&n=2");
        gate.connect().await.post(&target, "application/json", frames).await.status
    };
    let subscribe = serde_json::to_string(&[subscribe("a").to_string()]).unwrap();
    assert_eq!(send(&subscribe).await, 204);
    let mut stream = session;
    let line = stream.line().await;
    assert_eq!(frames(&line)[0]["event"], "pusher_internal:subscription_succeeded");
    for number in 0..3 {
        trigger(&gate, "a", "n", &number.to_string(), json!({})).await;
        assert_eq!(data(&frames(&stream.line().await)[0]), number);
    }
    assert_eq!(send("[]").await, 204);
    assert_eq!(stream.line().await, "a[]\n");
}

#[tokio::test]
async fn a_stream_that_is_long_enough_goes_on_in_the_next_one() {
    let gate = gate("").await;
    let (mut session, _) = Session::open(&gate, "abcd1234").await;
    session.send(&gate, &[subscribe("a")]).await;
    session.frames().await;
    session.stream().await;
    let text = "ä".repeat(5_000);
    let mut units = 0;
    let mut count = 0;
    // It stops growing with the line that passes 256 KiB, as a browser counts.
    while units <= 256 << 10 {
        trigger(&gate, "a", "n", &text, json!({})).await;
        let line = session.line().await;
        units += line.encode_utf16().count();
        count += 1;
    }
    assert!((45..=60).contains(&count), "{count}");
    trigger(&gate, "a", "n", "next", json!({})).await;
    assert!(session.is_quiet().await);
    let mut next = Session::new(&gate, "abcd1234").await;
    next.stream().await;
    assert_eq!(frames(&next.line().await)[0]["data"], "next");
    // The old one ends.
    assert_eq!(session.rest().await, "");
}

#[tokio::test]
async fn the_newest_request_has_the_session() {
    let gate = gate("").await;
    let (mut session, _) = Session::open(&gate, "abcd1234").await;
    session.send(&gate, &[subscribe("a")]).await;
    session.frames().await;
    session.ask("xhr").await;
    eventually("a poll", async || gate.held().await == 1).await;
    let mut newer = Session::new(&gate, "abcd1234").await;
    newer.ask("xhr").await;
    assert_eq!(session.answer().await.text(), "h\n");
    trigger(&gate, "a", "n", "1", json!({})).await;
    assert_eq!(frames(&newer.answer().await.text())[0]["event"], "n");
}

#[tokio::test]
async fn a_session_whose_client_stays_away_is_forgotten_and_begins_anew() {
    let gate = Gate::start_alone(&format!("[hold]\ntimeout = \"300ms\"\n{APP}")).await;
    let (mut session, _) = Session::open(&gate, "abcd1234").await;
    assert_eq!(sessions(&gate).await, 1.0);
    eventually("the session's end", async || sessions(&gate).await == 0.0).await;
    assert_eq!(gate.held().await, 0);
    assert_eq!(session.poll().await, "o{}\n", "a second one: the session was lost");
    assert_eq!(session.send(&gate, &[subscribe("a")]).await.status, 204);
    let lost = Session::new(&gate, "none").await;
    assert_eq!(lost.send(&gate, &[subscribe("a")]).await.status, 404);
}

#[tokio::test]
async fn a_client_that_leaves_its_poll_leaves_its_session() {
    let gate = gate("").await;
    let (mut session, _) = Session::open(&gate, "abcd1234").await;
    session.ask("xhr").await;
    eventually("a poll", async || gate.held().await == 1).await;
    drop(session);
    eventually("the session's end", async || sessions(&gate).await == 0.0).await;
}

#[tokio::test]
async fn the_table_of_sessions_is_bounded() {
    let gate = Gate::start_alone(&format!("[limits]\npusher_sessions = 2\n{APP}")).await;
    let (_one, _) = Session::open(&gate, "one").await;
    let (_two, _) = Session::open(&gate, "two").await;
    let mut three = Session::new(&gate, "three").await;
    let line = three.poll().await;
    assert!(line.starts_with("c[4100,\""), "{line}");
    assert_eq!(sessions(&gate).await, 2.0);
}

#[tokio::test]
async fn what_cannot_be_served_closes_with_its_code() {
    let gate = gate("").await;
    let mut client = gate.connect().await;
    for (path, line) in [
        ("/pusher/app/other/1/a/xhr?protocol=7", "c[4001,"),
        ("/pusher/app/app-key/1/a/xhr?protocol=9", "c[4007,"),
        ("/pusher/app/app-key/1/a/xhr_streaming", "c[4008,"),
    ] {
        let response = client.post(path, "application/json", "").await;
        assert_eq!(response.status, 200);
        assert!(response.text().starts_with(line), "{path}: {}", response.text());
    }
    let send = async |body: &'static str| {
        let path = format!("/pusher/app/{KEY}/1/a/xhr_send");
        gate.connect().await.post(&path, "application/json", body).await.status
    };
    assert_eq!(send("{}").await, 400);
    assert_eq!(send("[1]").await, 400);
    assert_eq!(send("[]").await, 404);
    let get = gate.get("/pusher/app/app-key/1/a/xhr?protocol=7").await;
    assert_eq!(get.status, 405);
}

#[tokio::test]
async fn pages_of_listed_origins_may_read_and_no_credentials_are_taken() {
    let gate = gate("origins = [\"https://a.example\"]\n").await;
    let path = "/pusher/app/app-key/1/a/xhr?protocol=7";
    let origin = ("Origin", "https://a.example");
    let mut client = gate.connect().await;
    let asks = [origin, ("Access-Control-Request-Method", "POST")];
    let response = client.request("OPTIONS", path, &asks, b"").await;
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(response.header("access-control-allow-credentials"), None);
    assert!(response.header("access-control-allow-headers").unwrap().contains("Content-Type"));
    let response = client.request("POST", path, &[origin, ("Content-Length", "0")], b"").await;
    assert_eq!(response.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(response.text(), "o{}\n");
    let evil = [("Origin", "https://evil.example"), ("Content-Length", "0")];
    let response = client.request("POST", path, &evil, b"").await;
    assert_eq!((response.status, response.header("access-control-allow-origin")), (403, None));
    let gate = Gate::start_alone(APP).await;
    let mut client = gate.connect().await;
    let response = client.request("POST", path, &evil, b"").await;
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn a_drain_closes_sessions_and_waits_for_none() {
    let gate = Gate::start_alone(&format!("[drain]\nspread = \"100ms\"\n{APP}")).await;
    let (mut polled, _) = Session::open(&gate, "polled").await;
    polled.send(&gate, &[subscribe("a")]).await;
    polled.frames().await;
    polled.ask("xhr").await;
    let (_idle, _) = Session::open(&gate, "idle").await;
    eventually("both", async || gate.held().await == 2).await;
    gate.signal("TERM");
    let line = polled.answer().await.text();
    assert!(line.starts_with("c[4200,"), "{line}");
    assert_eq!(gate.wait_for_exit().await, 0);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_not_taken() {
    let gate = gate("").await;
    let (session, _) = Session::open(&gate, "abcd1234").await;
    let long = json!({ "event": "x".repeat(70_000) });
    let status = session.send(&gate, &[long]).await.status;
    assert!(matches!(status, 400 | 413), "{status}");
    let frame = json!({ "event": "x".repeat(30_000) });
    assert_eq!(session.send(&gate, std::slice::from_ref(&frame)).await.status, 204);
    assert_eq!(session.send(&gate, std::slice::from_ref(&frame)).await.status, 204);
    assert_eq!(session.send(&gate, &[frame]).await.status, 413, "what waits is bounded");
}
