//! GRIP and forwarding: what the gate reads of a site that speaks GRIP, what it lets through, and
//! which requests stay at the gate.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::grip::{GripSite, grip_gate, instruct, publish_item, response};
use support::raw_site::{OK, begun, by_engine};
use support::{FORM, Gate, PlainSite, RawSite, Way, eventually};

const GRIP: &str = "[grip]\nenabled = true\n";
const HOLD: &str = "Grip-Hold: response\r\nGrip-Channel: news\r\n";

fn item(body: &str) -> Value {
    json!({ "channel": "news", "http-response": { "body": body }, "http-stream": { "content": body } })
}

#[tokio::test]
async fn a_hold_keeps_no_connection_to_the_site_and_leaves_it_to_the_next_request() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, GRIP).await;
    let (mut first, mut upstream) = begun(&gate, &site).await;
    let mut clients = Vec::new();
    for held in 1..=3 {
        first.send_get("/poll").await;
        upstream.head().await;
        upstream.send(format!("HTTP/1.1 200 OK\r\n{HOLD}Content-Length: 4\r\n\r\nnone")).await;
        gate.wait_for_held(held).await;
        clients.push(std::mem::replace(&mut first, gate.connect().await));
    }
    first.send_get("/page").await;
    upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(first.read_response().await.text(), "ok", "on the connection of all three");
    publish_item(&gate, item("x")).await;
    for client in &mut clients {
        assert_eq!(client.read_response().await.text(), "x");
    }
}

#[tokio::test]
async fn an_instruction_may_come_in_chunks_or_to_the_end_of_its_connection() {
    let said = json!({
        "hold": { "mode": "response", "channels": [{ "name": "news" }] },
        "response": { "body": "none" },
    });
    let said = said.to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/grip-instruct; charset=utf-8\r\n";
    let (begin, end) = said.split_at(20);
    let chunks = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n{:x};a=b\r\n{begin}\r\n{:x}\r\n{end}\r\n0\r\nX: y\r\n\r\n",
        begin.len(),
        end.len()
    );
    let endless = format!("{head}Connection: close\r\n\r\n{said}");
    for answer in [chunks, endless] {
        let site = RawSite::start().await;
        let gate = Gate::start_before(&site.addr, GRIP).await;
        let mut client = gate.connect().await;
        for piece in [1, 7, 4096] {
            client.send_get("/poll").await;
            let (mut upstream, _) = site.accept().await;
            for bytes in answer.as_bytes().chunks(piece) {
                upstream.send(bytes).await;
            }
            drop(upstream);
            gate.wait_for_held(1).await;
            publish_item(&gate, item("x")).await;
            assert_eq!(client.read_response().await.text(), "x", "{piece}");
        }
    }
}

#[tokio::test]
async fn a_site_that_speaks_grip_is_read_as_strictly_as_any() {
    if by_engine() {
        return;
    }
    let hold = |more: &str| format!("HTTP/1.1 200 OK\r\n{HOLD}{more}\r\n");
    let bad = [
        hold("Content-Length: 4\r\nContent-Length: 4\r\n"),
        hold("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"),
        hold("Transfer-Encoding: gzip, chunked\r\n"),
        hold("Content-Length: +4\r\n"),
        hold("X-A: b\r\n folded\r\n"),
        hold("X-A : b\r\n"),
        hold("X-A: b\0\r\n"),
        format!("HTTP/1.1 200 OK\n{HOLD}\n"),
        format!("HTTP/1.0 200 OK\r\n{HOLD}Transfer-Encoding: chunked\r\n\r\n"),
        format!("{}zz\r\nnone", hold("Transfer-Encoding: chunked\r\n")),
        format!("{}4\r\nnoneX", hold("Transfer-Encoding: chunked\r\n")),
        // It breaks off.
        format!("{}no", hold("Content-Length: 4\r\n")),
        format!("{}4\r\nno", hold("Transfer-Encoding: chunked\r\n")),
        format!("HTTP/1.1 101 Switching Protocols\r\n{HOLD}Upgrade: x\r\n\r\n"),
        "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(40),
    ];
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, GRIP).await;
    for answer in bad {
        let mut client = gate.connect().await;
        client.send_get("/poll").await;
        let (mut upstream, _) = site.accept().await;
        upstream.try_send(&answer).await;
        drop(upstream);
        loop {
            let head = client.read_response().await;
            if head.status >= 200 {
                assert_eq!(head.status, 502, "{answer:?}");
                break;
            }
        }
        assert_eq!(gate.held().await, 0, "{answer:?}");
    }
}

#[tokio::test]
async fn no_grip_header_passes_in_an_answer_of_any_kind() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, GRIP).await;
    let (mut client, mut upstream) = begun(&gate, &site).await;
    client.send_get("/page").await;
    upstream.head().await;
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\ngrip-hold: stream\r\n\r\n";
    let answer =
        "HTTP/1.1 200 OK\r\nGRIP-FOO: a\r\nGrip_Foo: a\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok";
    upstream.send(format!("{early}{answer}")).await;
    let early = client.read_head().await;
    assert_eq!((early.status, early.header("grip-hold")), (103, None));
    let answer = client.read_response().await;
    assert_eq!((answer.text().as_str(), answer.header("x-a")), ("ok", Some("b")));
    assert!(answer.headers.iter().all(|(name, _)| !name.to_lowercase().starts_with("grip")));

    let key = "AAAAAAAAAAAAAAAAAAAAAA==";
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", "13"),
        ("Grip-Sig", "mine"),
    ];
    client.send("GET", "/socket", &upgrade, b"").await;
    let (mut upstream, head) = match by_engine() {
        true => site.accept().await,
        false => {
            let head = upstream.head().await;
            (upstream, head)
        }
    };
    let head = head.to_lowercase();
    assert!(head.contains("upgrade: websocket") && !head.contains("mine"), "{head}");
    assert!(head.contains("grip-feature: "), "{head}");
    upstream
        .send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Grip-Hold: stream\r\n\r\n",
        )
        .await;
    let agreed = client.read_head().await;
    assert_eq!((agreed.status, agreed.header("grip-hold")), (101, None));
    client.send_raw(b"ping").await;
    assert_eq!(upstream.read(4).await, b"ping");
}

#[tokio::test]
async fn a_stream_with_another_status_is_framed_too() {
    let site = GripSite::saying(response(
        "Grip-Hold: stream\nGrip-Channel: news\nGrip-Status: 404 None",
        "begin\n",
    ));
    let site = site.await;
    let gate = grip_gate(&site, "").await;
    let mut client = gate.connect().await;
    client.send_get("/stream").await;
    let head = client.read_head().await;
    assert_eq!((head.status, head.header("transfer-encoding")), (404, Some("chunked")));
    assert_eq!(client.read_chunk().await.as_deref(), Some(&b"begin\n"[..]));
    gate.wait_for_held(1).await;
    publish_item(&gate, item("x")).await;
    assert_eq!(client.read_chunk().await.as_deref(), Some(&b"x"[..]));
}

#[tokio::test]
async fn requests_that_came_at_once_are_answered_in_turn_though_the_first_is_held() {
    let site = GripSite::start(|request| match request.line() {
        "GET /poll" => response("Grip-Hold: response\nGrip-Channel: news", "none"),
        _ => response("", "page"),
    });
    let site = site.await;
    let gate = grip_gate(&site, "").await;
    let mut client = gate.connect().await;
    let both = format!("{}{}", Way::Plain.get("/poll"), Way::Plain.get("/page"));
    client.send_raw(both.as_bytes()).await;
    gate.wait_for_held(1).await;
    publish_item(&gate, item("x")).await;
    assert_eq!(client.read_response().await.text(), "x");
    assert_eq!(client.read_response().await.text(), "page");
}

#[tokio::test]
async fn a_site_that_holds_before_it_has_the_whole_body_gets_the_rest_of_it() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, GRIP).await;
    let mut client = gate.connect().await;
    let head = "POST /poll HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n";
    client.send_raw(format!("{head}half").as_bytes()).await;
    let (mut upstream, _) = site.accept().await;
    assert_eq!(upstream.read(4).await, b"half");
    upstream.send(format!("HTTP/1.1 200 OK\r\n{HOLD}Content-Length: 4\r\n\r\nnone")).await;
    client.send_raw(b"rest").await;
    gate.wait_for_held(1).await;
    if !by_engine() {
        assert_eq!(upstream.read(4).await, b"rest");
    }
    publish_item(&gate, item("x")).await;
    assert_eq!(client.read_response().await.text(), "x");
}

#[tokio::test]
async fn what_is_held_counts_against_the_memory_for_bodies() {
    let said = json!({
        "hold": { "mode": "response", "channels": [{ "name": "news" }] },
        "response": { "body": "x".repeat(40_000) },
    });
    let site = GripSite::saying(instruct(&said)).await;
    let gate = grip_gate(&site, "[limits]\nbody_memory = \"100KiB\"\n").await;
    let mut clients = Vec::new();
    for held in 1..=2 {
        let mut client = gate.connect().await;
        client.send_get("/poll").await;
        gate.wait_for_held(held).await;
        clients.push(client);
    }
    assert_eq!(gate.get("/poll").await.status, 502);
    drop(clients);
    gate.wait_for_held(0).await;
    let mut client = gate.connect().await;
    client.send_get("/poll").await;
    gate.wait_for_held(1).await;
}

/// Protocols that are the gate's own; a client that speaks them wrongly does not reach the site either.
const OWN: &str = r#"
[grip]
enabled = true
websocket = ["/chat/*"]
[[pusher]]
id = "shop"
key = "app-key"
secret = "a secret that is long enough"
[mercure]
publisher_key = "a key that publishers sign with, long enough"
subscriber_key = "a key that subscribers sign with, long enough"
anonymous = true
subscriptions = true
"#;

#[tokio::test]
async fn requests_of_the_gate_s_own_protocols_never_reach_the_site() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), OWN).await;
    let hub = "/.well-known/mercure";
    let requests = [
        ("GET", hub),
        ("GET", "/.well-known/mercur%65"),
        ("HEAD", hub),
        ("OPTIONS", hub),
        ("PUT", hub),
        ("DELETE", hub),
        ("POST", hub),
        ("POST", "/.well-known/mercur%65?topic=a"),
        ("GET", "/.well-known/mercure/subscriptions"),
        ("POST", "/.well-known/mercure/subscriptions/a"),
        ("GET", "/app/app-key"),
        ("POST", "/app/app-key"),
        ("POST", "/pusher/app/app-key/1/abc/xhr_send"),
        ("PATCH", "/pusher/app/app-key/1/abc/xhr"),
    ];
    for way in Way::ALL {
        for (method, target) in requests {
            let form = [("Content-Type", FORM)];
            let form = if method == "POST" { &form[..] } else { &[] };
            let answer = way.connect(&gate).await.poll_with(method, target, form).await;
            assert!(answer.status >= 200, "{method} {target}");
        }
    }
    let mut client = gate.connect().await;
    for target in ["/chat/1", "/app/app-key"] {
        for version in ["13", "12"] {
            let upgrade = [
                ("Connection", "Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Key", "not a key"),
                ("Sec-WebSocket-Version", version),
            ];
            client.send("GET", target, &upgrade, b"").await;
            assert!(client.read_head().await.status >= 200);
            client = gate.connect().await;
        }
    }
    let reached = site.requests();
    assert!(reached.is_empty(), "{:?}", reached.iter().map(|one| one.line()).collect::<Vec<_>>());
    // All else does.
    assert_eq!(gate.get("/application").await.status, 200);
    eventually("the site has it", async || site.requests().len() == 1).await;
}
