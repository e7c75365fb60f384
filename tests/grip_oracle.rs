//! The gate beside Debian's Pushpin: the same site, the same items, the same answers. Where the
//! gate means to differ, the table says how.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use bytes::Bytes;
use pollgate::protocol::grip::events::{Event, Kind, read, write};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use support::grip::{GripSite, grip_gate, instruct, publish_items, response};
use support::pushpin::Pushpin;
use support::socket::{CLOSE, Socket};
use support::{Client, Gate, Response, eventually};

/// A program that speaks GRIP.
enum Hub {
    Ours(Gate),
    Pushpin(Box<Pushpin>),
}

impl Hub {
    async fn both(site: &GripSite) -> [Hub; 2] {
        let config = "key = \"secret\"\niss = \"pushpin\"\nwebsocket = [\"/chat*\"]\n";
        let ours = grip_gate(site, config).await;
        let theirs = Pushpin::start_before(site.addr()).await;
        [Hub::Ours(ours), Hub::Pushpin(Box::new(theirs))]
    }

    async fn connect(&self) -> Client {
        match self {
            Hub::Ours(gate) => gate.connect().await,
            Hub::Pushpin(pushpin) => Client::connect(pushpin.addr()).await,
        }
    }

    async fn publish(&self, items: &Value) -> Response {
        match self {
            Hub::Ours(gate) => publish_items(gate, items.clone()).await,
            Hub::Pushpin(pushpin) => pushpin.publish(items).await,
        }
    }
}

/// The status, the headers that a site or an item can set, and the body.
type Seen = (u16, Vec<(String, String)>, String);

fn seen(response: &Response) -> Seen {
    let own = ["date", "connection", "content-length", "transfer-encoding", "server", "keep-alive"];
    let headers = response.headers.iter();
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.clone()));
    let mut headers: Vec<_> = headers.filter(|(name, _)| !own.contains(&name.as_str())).collect();
    headers.sort();
    (response.status, headers, response.text())
}

/// What a client gets of a request that is held, or not: the items are published until it has an
/// answer, since Pushpin loses those of a channel's first moments. `None` = it gets nothing.
async fn answer(hub: &Hub, items: &Value) -> Option<Seen> {
    let mut client = hub.connect().await;
    client.send_get("/dir/poll?a=b").await;
    let publishes = items.as_array().is_some_and(|items| !items.is_empty());
    for _ in 0..if publishes { 50 } else { 200 } {
        if !client.is_quiet().await {
            let seen = seen(&client.read_unless_closed().await?);
            // Each has its own page for it.
            return Some(if seen.0 == 502 { (502, Vec::new(), String::new()) } else { seen });
        }
        if publishes {
            assert_eq!(hub.publish(items).await.status, 200);
        }
    }
    None
}

/// A site that repeats the last instruction.
async fn switched() -> (GripSite, Arc<Mutex<Vec<u8>>>) {
    let said = Arc::new(Mutex::new(response("", "")));
    let says = said.clone();
    let site = GripSite::start(move |_| says.lock().unwrap().clone()).await;
    (site, said)
}

const NONE: &str = "Grip-Hold: response\nGrip-Channel: a\nX-Site: 1";

#[tokio::test]
async fn held_responses_are_answered_as_pushpin_answers_them() {
    let of = |format: Value| json!([{ "channel": "a", "formats": { "http-response": format } }]);
    let hold = |more: &str| response(&format!("{NONE}\n{more}"), "none\n");
    let plain = of(json!({ "body": "hello" }));
    let said = |mode: &str| {
        json!({
            "hold": { "mode": mode, "channels": [{ "name": "a" }] },
            "response": { "code": 202, "headers": { "X-A": "b" }, "body": "none" },
        })
    };
    let table: Vec<(&str, Vec<u8>, Value)> = vec![
        ("no hold", response("X-A: b", "page"), json!([])),
        ("a plain item", hold(""), plain.clone()),
        (
            "a code and headers",
            hold(""),
            of(json!({
            "code": 404, "reason": "No", "headers": { "X-Item": "2", "x-site": "3" }, "body": "" })),
        ),
        (
            "headers in a list",
            hold(""),
            of(json!({
            "headers": [["X-Item", "1"], ["X-Item", "2"]], "body": "x" })),
        ),
        ("bytes", hold(""), of(json!({ "body-bin": "aGVsbG8=" }))),
        (
            "without formats",
            hold(""),
            json!([{ "channel": "a", "http-response": { "body": "x" } }]),
        ),
        (
            "a length of its own",
            hold(""),
            of(json!({
            "headers": { "Content-Length": "99" }, "body": "x" })),
        ),
        ("a status that is a text", hold(""), of(json!({ "code": "201", "body": "x" }))),
        (
            "another format beside it",
            hold(""),
            json!([{ "channel": "a", "formats": {
            "http-stream": { "content": "s" }, "http-response": { "body": "r" } } }]),
        ),
        (
            "a patch",
            response(NONE, "{\"a\":1}\n"),
            of(json!({ "body-patch": [
            { "op": "replace", "path": "/a", "value": 2 }, { "op": "add", "path": "/b", "value": [] }] })),
        ),
        ("the timeout", hold("Grip-Timeout: 5\nGrip-Status: 207 Odd"), json!([])),
        ("exposed headers", hold("X-B: 2\nGrip-Expose-Headers: X-B"), plain.clone()),
        (
            "a list of channels",
            response("Grip-Hold: response\nGrip-Channel: b, a", "none"),
            plain.clone(),
        ),
        (
            "channels in several lines",
            response("Grip-Hold: response\nGrip-Channel: b\nGrip-Channel: a", "none"),
            plain.clone(),
        ),
        ("an instruction in JSON", instruct(&said("response")), plain.clone()),
        (
            "a response in JSON",
            instruct(
                &json!({ "response": { "code": 202, "headers": [["X-A", "b"]], "body": "x" } }),
            ),
            json!([]),
        ),
        ("bytes in JSON", instruct(&json!({ "response": { "body-bin": "aGVsbG8=" } })), json!([])),
        ("an unknown hold", response("Grip-Hold: Response\nGrip-Channel: a", ""), json!([])),
        ("a bad timeout", hold("Grip-Timeout: soon"), json!([])),
        ("a negative timeout", hold("Grip-Timeout: -1"), json!([])),
        ("a bad status", hold("Grip-Status: 1000"), json!([])),
        ("a bad link", hold("Grip-Link: x; rel=next"), json!([])),
        ("a keep-alive without data", hold("Grip-Keep-Alive: ; timeout=1"), json!([])),
        ("a keep-alive of an unknown mode", hold("Grip-Keep-Alive: a; mode=odd"), json!([])),
        ("a keep-alive of an unknown format", hold("Grip-Keep-Alive: a; format=odd"), json!([])),
        ("no JSON", response("Content-Type: application/grip-instruct", "{"), json!([])),
        ("a hold without channels in JSON", instruct(&json!({ "hold": {} })), json!([])),
        ("an unknown mode in JSON", instruct(&said("odd")), json!([])),
        ("a bad code in JSON", instruct(&json!({ "response": { "code": 1000 } })), json!([])),
        (
            "another's item first",
            response(
                "Grip-Hold: response\nGrip-Channel: a; filter=skip-self\nGrip-Set-Meta: user=\"amy\"",
                "none",
            ),
            json!([
            { "channel": "a", "meta": { "sender": "amy" }, "http-response": { "body": "from amy" } },
            { "channel": "a", "meta": { "sender": "bob" }, "http-response": { "body": "from bob" } }]),
        ),
        (
            "skipped users",
            response(
                "Grip-Hold: response\nGrip-Channel: a; filter=skip-users\nGrip-Set-Meta: user=amy",
                "none",
            ),
            json!([
            { "channel": "a", "meta": { "skip_users": "x, amy" }, "http-response": { "body": "not amy" } },
            { "channel": "a", "http-response": { "body": "all" } }]),
        ),
        (
            "a required channel",
            response("Grip-Hold: response\nGrip-Channel: a; filter=require-sub, b", "none"),
            json!([
            { "channel": "a", "meta": { "require_sub": "c" }, "http-response": { "body": "of c" } },
            { "channel": "a", "meta": { "require_sub": "b" }, "http-response": { "body": "of b" } }]),
        ),
        (
            "variables",
            response(
                "Grip-Hold: response\nGrip-Channel: a; filter=var-subst\nGrip-Set-Meta: user=\"amy\"",
                "none",
            ),
            json!([
            { "channel": "a", "http-response": { "body": "for %(user)s %%" } }]),
        ),
        (
            "ids",
            response(
                "Grip-Hold: response\nGrip-Channel: a; filter=build-id\nGrip-Set-Meta: id_format=\"x\"",
                "none",
            ),
            json!([
            { "channel": "a", "http-response": { "body": "id %I" } }]),
        ),
    ];
    let (site, says) = switched().await;
    let [ours, theirs] = Hub::both(&site).await;
    let mut different = Vec::new();
    for (what, said, items) in table {
        // One header too many would be two.
        let said = String::from_utf8(said).unwrap();
        let said = match what {
            "no JSON" => said.replace("Content-Type: text/plain\r\n", ""),
            _ => said,
        };
        *says.lock().unwrap() = said.into();
        let ours = answer(&ours, &items).await;
        let theirs = answer(&theirs, &items).await;
        if ours != theirs || ours.is_none() {
            different.push(format!("{what}: {ours:?} {theirs:?}"));
        }
    }
    assert!(different.is_empty(), "{different:#?}");
}

/// What a client gets of a stream until it ends: its status, and its bytes.
async fn stream(hub: &Hub, items: &Value) -> (u16, String) {
    let mut client = hub.connect().await;
    client.send_get("/dir/stream").await;
    let head = client.read_head().await;
    let mut body = String::new();
    loop {
        let mut rounds = 0;
        while client.is_quiet().await {
            assert_eq!(hub.publish(items).await.status, 200);
            rounds += 1;
            if rounds == 30 {
                return (head.status, format!("{body} and no end"));
            }
        }
        match client.read_chunk().await {
            Some(chunk) => body += &String::from_utf8(chunk).unwrap(),
            None => return (head.status, body),
        }
    }
}

#[tokio::test]
async fn streams_go_on_as_pushpin_s_do() {
    let close = json!({ "channel": "a", "http-stream": { "action": "close" } });
    let send = |content: &str| json!({ "channel": "a", "http-stream": { "content": content } });
    let bytes = json!({ "channel": "a", "http-stream": { "content-bin": "Yg==" } });
    let hold = "Grip-Hold: stream\nGrip-Channel: a";
    let meta = "Grip-Set-Meta: user=\"amy\"";
    let table = [
        (response(hold, "begin"), json!([send("1"), bytes, send("3"), close])),
        (response(hold, "x"), json!([close])),
        (
            response(
                "Grip-Hold: stream\nGrip-Channel: a; filter=var-subst\nGrip-Set-Meta: user=amy",
                "%(user)s",
            ),
            json!([send("%(user)s"), send("%(nobody)s"), send("%"), close]),
        ),
        (
            response(&format!("Grip-Hold: stream\nGrip-Channel: a; filter=skip-self\n{meta}"), "b"),
            json!([
            { "channel": "a", "meta": { "sender": "amy" }, "http-stream": { "content": "no" } }, send("yes"), close]),
        ),
        (
            instruct(
                &json!({ "hold": { "mode": "stream", "channels": [{ "name": "a" }] }, "response": { "body": "j" } }),
            ),
            json!([send("1"), close]),
        ),
    ];
    let (site, says) = switched().await;
    let [ours, theirs] = Hub::both(&site).await;
    let mut different = Vec::new();
    for (said, items) in table {
        *says.lock().unwrap() = said.clone();
        let said = String::from_utf8(said).unwrap();
        let ours = stream(&ours, &items).await;
        let theirs = stream(&theirs, &items).await;
        if ours != theirs || ours.1.ends_with("no end") {
            different.push(format!("{said:?} {items}: {ours:?} {theirs:?}"));
        }
    }
    assert!(different.is_empty(), "{different:#?}");
}

#[tokio::test]
async fn links_are_followed_as_pushpin_follows_them() {
    let site = GripSite::start(|request| match request.line() {
        "GET /dir/stream" => response("Grip-Link: <second?x=1>; rel=next", "1"),
        "GET /dir/second?x=1" => response("Grip-Link: </third>; rel=next; timeout=5", "2"),
        "GET /third" => response("", "3"),
        _ => response("", ""),
    });
    let site = site.await;
    let [ours, theirs] = Hub::both(&site).await;
    let none = json!([]);
    assert_eq!(stream(&ours, &none).await, (200, "123".to_owned()));
    // Its fetcher may be up only after the rest of it.
    eventually("Pushpin follows them", async || {
        stream(&theirs, &none).await == (200, "123".to_owned())
    })
    .await;
}

#[tokio::test]
async fn items_are_taken_as_pushpin_takes_them_or_more_strictly() {
    let site = GripSite::saying(response("", "")).await;
    let [ours, theirs] = Hub::both(&site).await;
    let of = |format: Value| json!({ "channel": "a", "http-response": format });
    for (item, stricter) in [
        (of(json!({ "body": "x" })), false),
        (of(json!({ "action": "hint" })), false),
        (json!({ "channel": "a", "http-stream": { "action": "close" } }), false),
        (json!({ "channel": "a", "ws-message": { "content": "x" } }), false),
        (json!({ "channel": "a", "ws-message": { "type": "ping" } }), false),
        (
            json!({ "channel": "a", "id": "1", "prev-id": "0", "http-stream": { "content": "" } }),
            false,
        ),
        (json!({ "channel": "a" }), false),
        (json!({ "channel": "a", "formats": {} }), false),
        (json!({ "http-response": { "body": "x" } }), false),
        (json!("x"), false),
        (of(json!({})), false),
        (of(json!({ "body": 1 })), false),
        (of(json!({ "body": "x", "code": 1000 })), false),
        (of(json!({ "body": "x", "code": -1 })), false),
        (of(json!({ "body": "x", "headers": "x" })), false),
        (of(json!({ "body": "x", "headers": [["a"]] })), false),
        (of(json!({ "body": "x", "action": "odd" })), false),
        (json!({ "channel": "a", "http-stream": {} }), false),
        (json!({ "channel": "a", "ws-message": {} }), false),
        (json!({ "channel": "a", "ws-message": { "type": "odd", "content": "x" } }), false),
        (json!({ "channel": "a", "meta": { "x": 1 }, "http-stream": { "content": "" } }), false),
        (json!({ "channel": "a", "no-seq": 1, "http-stream": { "content": "" } }), false),
        // Pushpin takes these, and would send what is in them.
        (of(json!({ "body": "x", "headers": { "X-A": "b\r\nX-B: c" } })), true),
        (of(json!({ "body": "x", "code": 99 })), true),
        (of(json!({ "body-bin": "%%%" })), true),
        (json!({ "channel": "a", "ws-message": { "action": "close", "code": 5 } }), true),
    ] {
        let items = json!([item]);
        let ours = ours.publish(&items).await.status;
        let theirs = theirs.publish(&items).await.status;
        assert_eq!((ours, theirs), if stricter { (400, 200) } else { (theirs, theirs) }, "{item}");
    }
}

fn text(content: &str) -> Event {
    Event::with(Kind::Text, Bytes::copy_from_slice(content.as_bytes()))
}

/// A response with these events.
fn events(headers: &str, events: &[Event]) -> Vec<u8> {
    let lines: String = headers.lines().map(|line| format!("{}\r\n", line.trim())).collect();
    let body = write(events);
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/websocket-events\r\n{lines}\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    [head.as_bytes(), &body].concat()
}

#[tokio::test]
async fn sockets_over_http_are_served_as_pushpin_serves_them() {
    let extensions = ["", "grip", "grip; message-prefix=\"\"", "grip; message-prefix=\"x:\""];
    for extension in extensions {
        let site = GripSite::start(move |request| {
            let said = read(&Bytes::from(request.body.clone())).unwrap();
            if said.first().is_some_and(|event| event.kind == Kind::Open) {
                let head = match extension {
                    "" => "Sec-WebSocket-Protocol: v1\nSet-Meta-User: amy".to_owned(),
                    extension => {
                        format!("Sec-WebSocket-Extensions: {extension}\nSet-Meta-User: amy")
                    }
                };
                return events(
                    &head,
                    &[Event::bare(Kind::Open), text("m:first"), text("x:second"), text("third")],
                );
            }
            let meta = request.header("meta-user").unwrap_or_default().to_owned();
            let answers = said.into_iter().filter_map(|event| match event.kind {
                Kind::Text => {
                    let content = event.content.unwrap();
                    Some([text(&format!("m:{meta}")), text("x:"), Event::with(Kind::Text, content)])
                }
                _ => None,
            });
            let mut answers: Vec<_> = answers.flatten().collect();
            answers.push(Event::with(Kind::Close, Bytes::from_static(b"\x0f\xa1why")));
            events("", &answers)
        });
        let site = site.await;
        let mut frames = Vec::new();
        for hub in Hub::both(&site).await {
            let mut socket = Socket::over(hub.connect().await, "/chat/room", &[]).await;
            let protocol = socket.head.header("sec-websocket-protocol").map(str::to_owned);
            socket.send(0x81, "grüße".as_bytes()).await;
            let mut seen = Vec::new();
            loop {
                let frame = socket.frame().await;
                seen.push(frame.clone());
                if frame.0 == CLOSE {
                    break;
                }
            }
            frames.push((protocol, seen));
        }
        assert_eq!(frames[0], frames[1], "{extension}");
    }
}

#[tokio::test]
async fn a_refused_socket_is_refused_as_pushpin_does() {
    let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nX-Why: no\r\n\
                   Content-Length: 4\r\nConnection: close\r\n\r\naway";
    let site = GripSite::saying(refusal).await;
    let mut answers = Vec::new();
    for hub in Hub::both(&site).await {
        let mut client = hub.connect().await;
        Socket::ask(&mut client, "/chat/room", &[]).await;
        answers.push(seen(&client.read_response().await));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn a_socket_gets_items_as_pushpin_s_does() {
    let site = GripSite::start(|request| {
        let said = read(&Bytes::from(request.body.clone())).unwrap();
        match said.first().map(|event| event.kind) {
            Some(Kind::Open) => events(
                "Sec-WebSocket-Extensions: grip",
                &[Event::bare(Kind::Open), text("c:{\"type\":\"subscribe\",\"channel\":\"a\"}")],
            ),
            _ => events("", &[]),
        }
    });
    let site = site.await;
    let of = |format: Value| json!({ "channel": "a", "ws-message": format });
    let items = json!([
        of(json!({ "content": "text" })),
        of(json!({ "content-bin": "AP8=" })),
        of(json!({ "type": "binary", "content": "b" })),
        of(json!({ "type": "text", "content-bin": "dA==" })),
        of(json!({ "type": "ping", "content": "p" })),
        of(json!({ "action": "close", "code": 4000, "reason": "bye" })),
    ]);
    let mut frames = Vec::new();
    for hub in Hub::both(&site).await {
        let mut socket = Socket::over(hub.connect().await, "/chat/room", &[]).await;
        while socket.client.is_quiet().await {
            assert_eq!(hub.publish(&items).await.status, 200);
        }
        let mut seen = Vec::new();
        while seen.last().is_none_or(|(opcode, _): &(u8, Vec<u8>)| *opcode != CLOSE) {
            seen.push(socket.frame().await);
        }
        frames.push(seen);
    }
    assert_eq!(frames[0], frames[1]);
}
