//! WebSocket-over-HTTP: the site's PHP is asked with requests, and sees no socket.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use bytes::Bytes;
use pollgate::protocol::grip::events::{Event, Kind, read, write};
use serde_json::{Value, json};
use support::grip::{GripSite, grip_gate, publish_item, publish_items, response};
use support::site::Recorded;
use support::socket::{ACCEPT, BINARY, CLOSE, PING, PONG, Socket, TEXT};
use support::{Gate, eventually};

const PATHS: &str = "websocket = [\"/chat/*\"]\n";

/// A response with these events.
fn events(headers: &str, events: &[Event]) -> Vec<u8> {
    let body = write(events);
    let lines: String = headers.lines().map(|line| format!("{}\r\n", line.trim())).collect();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/websocket-events\r\n{lines}\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

fn text(content: &str) -> Event {
    Event::with(Kind::Text, Bytes::copy_from_slice(content.as_bytes()))
}

fn control(json: &Value) -> Event {
    text(&format!("c:{json}"))
}

fn subscribe(channel: &str) -> Event {
    control(&json!({ "type": "subscribe", "channel": channel }))
}

/// The events of a request.
fn asked(request: &Recorded) -> Vec<Event> {
    read(&Bytes::from(request.body.clone())).unwrap()
}

fn opens(request: &Recorded) -> bool {
    asked(request).first().is_some_and(|event| event.kind == Kind::Open)
}

/// A site that agrees, subscribes the socket to `room`, and echoes what a client says.
async fn echo() -> GripSite {
    GripSite::start(|request| {
        if opens(request) {
            return events(
                "Sec-WebSocket-Extensions: grip",
                &[Event::bare(Kind::Open), subscribe("room")],
            );
        }
        let said = asked(request).into_iter().filter_map(|event| match event.kind {
            Kind::Text | Kind::Binary => {
                let content = [b"m:", &event.content.unwrap()[..]].concat();
                Some(Event::with(event.kind, content.into()))
            }
            Kind::Close => Some(event),
            _ => None,
        });
        events("", &said.collect::<Vec<_>>())
    })
    .await
}

async fn gate(site: &GripSite) -> Gate {
    grip_gate(site, PATHS).await
}

fn ws_message(format: Value) -> Value {
    json!({ "channel": "room", "ws-message": format })
}

/// A socket that has got an item, `first`, perhaps more than once.
async fn subscribed(gate: &Gate) -> Socket {
    let mut socket = Socket::open(gate, "/chat/room", &[]).await;
    eventually("it is subscribed", async || {
        publish_item(gate, ws_message(json!({ "content": "first" }))).await;
        !socket.client.is_quiet().await
    })
    .await;
    socket
}

#[tokio::test]
async fn a_socket_opens_with_a_request_and_echoes() {
    let site = echo().await;
    let gate = gate(&site).await;
    let own =
        [("Cookie", "a=b"), ("Meta-User", "mine"), ("Grip-Sig", "mine"), ("Connection-Id", "x")];
    let mut socket = Socket::open(&gate, "/chat/room?x=1", &own).await;
    assert_eq!(socket.head.header("sec-websocket-accept"), Some(ACCEPT));
    assert_eq!(socket.head.header("sec-websocket-extensions"), None);
    assert_eq!(socket.head.header("content-type"), None);
    socket.send(0x81, b"hello").await;
    assert_eq!(socket.text().await, "hello");
    // In two frames.
    socket.send(0x02, b"\0").await;
    socket.send(0x80, b"\xff").await;
    assert_eq!(socket.frame().await, (BINARY, vec![0, 255]));
    let requests = site.requests();
    let first = &requests[0];
    assert_eq!(first.line(), "POST /chat/room?x=1");
    assert_eq!(first.body, b"OPEN\r\n");
    for (name, value) in [
        ("accept", Some("application/websocket-events")),
        ("content-type", Some("application/websocket-events")),
        ("sec-websocket-extensions", Some("grip")),
        ("sec-websocket-version", Some("13")),
        ("cookie", Some("a=b")),
        ("meta-user", None),
        ("upgrade", None),
    ] {
        assert_eq!(first.header(name), value, "{name}");
    }
    assert_ne!(first.header("grip-sig"), Some("mine"));
    let id = first.header("connection-id").unwrap();
    assert!(id.len() == 32 && requests.iter().all(|it| it.header("connection-id") == Some(id)));
    assert_eq!(requests[1].body, b"TEXT 5\r\nhello\r\n");
    assert!(first.header("x-forwarded-for").is_some());
}

#[tokio::test]
async fn items_go_to_the_client_without_the_site() {
    let site = echo().await;
    let gate = gate(&site).await;
    let mut socket = subscribed(&gate).await;
    assert_eq!(socket.text().await, "first");
    for (format, opcode, payload) in [
        (json!({ "content": "hi" }), TEXT, &b"hi"[..]),
        (json!({ "content-bin": "AP8=" }), BINARY, &[0, 255]),
        (json!({ "type": "binary", "content": "hi" }), BINARY, b"hi"),
        (json!({ "type": "ping", "content": "p" }), PING, b"p"),
        (json!({ "type": "pong" }), PONG, b""),
    ] {
        publish_item(&gate, ws_message(format)).await;
        let frame = loop {
            let frame = socket.frame().await;
            if frame.1 != b"first" {
                break frame;
            }
        };
        assert_eq!(frame, (opcode, payload.to_vec()));
    }
    assert_eq!(site.requests().len(), 1);
    publish_item(&gate, ws_message(json!({ "action": "close", "code": 4001, "reason": "bye" })))
        .await;
    assert_eq!(socket.closed().await, (4001, "bye".to_owned()));
    eventually("the site knows of the end", async || {
        site.requests().last().is_some_and(|request| request.body == b"CLOSE\r\n")
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_the_site_s_own() {
    let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nX-Why: no\r\nGrip-A: b\r\n\
                   Content-Length: 7\r\nConnection: close\r\n\r\ngo away";
    let site = GripSite::saying(refusal).await;
    let gate = gate(&site).await;
    let answer = Socket::refusal(&gate, "/chat/room", &[]).await;
    assert_eq!((answer.status, answer.text().as_str()), (403, "go away"));
    assert_eq!((answer.header("x-why"), answer.header("grip-a")), (Some("no"), None));
}

#[tokio::test]
async fn items_that_are_more_than_one_write_takes_all_come() {
    let site = echo().await;
    let gate = gate(&site).await;
    let mut socket = subscribed(&gate).await;
    for round in 0..3 {
        let content = |number: usize| format!("{round}.{number}.{}", "x".repeat(40_000));
        let items: Vec<_> =
            (0..6).map(|number| ws_message(json!({ "content": content(number) }))).collect();
        assert_eq!(publish_items(&gate, items.into()).await.status, 200);
        for number in 0..6 {
            let mut text = socket.text().await;
            while text == "first" {
                text = socket.text().await;
            }
            assert_eq!(text, content(number));
        }
    }
}

#[tokio::test]
async fn a_site_that_does_not_keep_to_the_protocol_opens_no_socket() {
    for answer in [
        events("", &[text("hello")]),
        events("", &[]),
        b"HTTP/1.1 200 OK\r\nContent-Type: application/websocket-events\r\nContent-Length: 3\r\n\r\nTEX".to_vec(),
        b"nonsense\r\n\r\n".to_vec(),
    ] {
        let site = GripSite::saying(answer).await;
        let gate = gate(&site).await;
        assert_eq!(Socket::refusal(&gate, "/chat/room", &[]).await.status, 502);
    }
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_before_the_site_is_asked() {
    let site = echo().await;
    let gate = gate(&site).await;
    let mut client = gate.connect().await;
    let own =
        [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")];
    client.send("GET", "/chat/room", &own, b"").await;
    assert_eq!(client.read_response().await.status, 400);
    assert_eq!(site.requests().len(), 0);
}

#[tokio::test]
async fn other_paths_are_tunnelled_as_ever() {
    let site = GripSite::saying(
        "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nraw",
    )
    .await;
    let gate = gate(&site).await;
    let mut socket = Socket::open(&gate, "/other", &[]).await;
    assert_eq!(socket.client.read_exactly(3).await, b"raw");
    assert_eq!(site.requests()[0].line(), "GET /other");
}

#[tokio::test]
async fn a_plain_request_for_such_a_path_is_the_site_s() {
    let site = GripSite::saying(response("", "page")).await;
    let gate = gate(&site).await;
    assert_eq!(gate.get("/chat/room").await.text(), "page");
    assert_eq!(site.requests()[0].line(), "GET /chat/room");
}

#[tokio::test]
async fn without_the_extension_everything_is_relayed() {
    let site = GripSite::start(|request| {
        let mut said = asked(request);
        if opens(request) {
            said.push(subscribe("room"));
            said.push(text("m:as it is"));
        }
        events("Sec-WebSocket-Protocol: v1", &said)
    });
    let site = site.await;
    let gate = gate(&site).await;
    let mut socket = Socket::open(&gate, "/chat/room", &[]).await;
    assert_eq!(socket.head.header("sec-websocket-protocol"), Some("v1"));
    assert!(socket.text().await.starts_with("c:{"));
    assert_eq!(socket.text().await, "m:as it is");
}

#[tokio::test]
async fn with_it_only_what_has_the_prefix_is_for_the_client() {
    for (extension, prefix) in
        [("grip", "m:"), ("grip; message-prefix=\"\"", ""), ("grip; message-prefix=x-", "x-")]
    {
        let site = GripSite::start(move |request| {
            let head = format!("Sec-WebSocket-Extensions: {extension}");
            let mut said = vec![text("unprefixed"), text(&format!("{prefix}yes"))];
            if opens(request) {
                said.insert(0, Event::bare(Kind::Open));
            }
            events(&head, &said)
        });
        let site = site.await;
        let gate = gate(&site).await;
        let mut socket = Socket::open(&gate, "/chat/room", &[]).await;
        if prefix.is_empty() {
            assert_eq!(socket.text().await, "unprefixed");
        }
        assert_eq!(socket.text().await, "yes", "{extension}");
    }
}

#[tokio::test]
async fn pings_are_answered_here_and_a_close_is_one_request() {
    let site = echo().await;
    let gate = gate(&site).await;
    let mut socket = Socket::open(&gate, "/chat/room", &[]).await;
    socket.send(0x89, b"p").await;
    assert_eq!(socket.frame().await, (PONG, b"p".to_vec()));
    socket.send(0x88, b"\x03\xe8bye").await;
    assert_eq!(socket.closed().await, (1000, "bye".to_owned()));
    let bodies: Vec<_> = site.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies, [&b"OPEN\r\n"[..], b"CLOSE 5\r\n\x03\xe8bye\r\n"]);
}

#[tokio::test]
async fn a_client_that_is_gone_is_a_disconnect() {
    let site = echo().await;
    let gate = gate(&site).await;
    let socket = Socket::open(&gate, "/chat/room", &[]).await;
    gate.wait_for_held(1).await;
    drop(socket);
    eventually("the site knows", async || {
        site.requests().last().is_some_and(|request| request.body == b"DISCONNECT\r\n")
    })
    .await;
    gate.wait_for_held(0).await;
}

#[tokio::test]
async fn what_the_site_stores_comes_back_with_every_request() {
    let site = GripSite::start(|request| match opens(request) {
        true => events("Set-Meta-User: amy\nSet-Meta-Gone: x", &[Event::bare(Kind::Open)]),
        false => events("Set-Meta-Gone:", &[text("ok")]),
    });
    let site = site.await;
    let gate = gate(&site).await;
    let mut socket = Socket::open(&gate, "/chat/room", &[]).await;
    assert_eq!(socket.head.header("set-meta-user"), None);
    for _ in 0..2 {
        socket.send(0x81, b"x").await;
        assert_eq!(socket.text().await, "ok");
    }
    let requests = site.requests();
    assert_eq!(requests[1].header("meta-user"), Some("amy"));
    assert_eq!(
        (requests[1].header("meta-gone"), requests[2].header("meta-gone")),
        (Some("x"), None)
    );
}

#[tokio::test]
async fn what_the_site_does_not_take_is_offered_again() {
    let site = GripSite::start(|request| {
        if opens(request) {
            return events("", &[Event::bare(Kind::Open)]);
        }
        match request.header("content-bytes-replayed") {
            None => events("Content-Bytes-Accepted: 2", &[]),
            Some("3") => events("", &asked(request)),
            Some(other) => panic!("{other}"),
        }
    });
    let site = site.await;
    let gate = gate(&site).await;
    let mut socket = Socket::open(&gate, "/chat/room", &[]).await;
    socket.send(0x81, b"hello").await;
    assert_eq!(socket.text().await, "llo");
}

#[tokio::test]
async fn controls_keep_a_socket_alive_delay_and_detach() {
    let site = GripSite::start(|request| {
        if opens(request) {
            let said = [
                Event::bare(Kind::Open),
                control(&json!({ "type": "keep-alive", "content": "alive", "timeout": 1 })),
                control(&json!({ "type": "session", "id": "x" })),
            ];
            return events("Sec-WebSocket-Extensions: grip", &said);
        }
        // What is sent while the site is asked comes together.
        let answers = asked(request).into_iter().map(|event| {
            control(&match &event.content.unwrap()[..] {
                b"delay" => json!({ "type": "send-delayed", "content": "late", "timeout": 100 }),
                b"flush" => json!({ "type": "flush-delayed" }),
                b"off" => json!({ "type": "keep-alive" }),
                _ => json!({ "type": "detach" }),
            })
        });
        events("", &answers.collect::<Vec<_>>())
    });
    let site = site.await;
    let gate = gate(&site).await;
    let mut socket = Socket::open(&gate, "/chat/room", &[]).await;
    assert_eq!(socket.text().await, "alive");
    for (word, requests) in [("off", 2), ("delay", 3), ("flush", 4)] {
        socket.send(0x81, word.as_bytes()).await;
        eventually("the site has it", async || site.requests().len() == requests).await;
    }
    loop {
        match socket.text().await.as_str() {
            "alive" => {}
            other => break assert_eq!(other, "late"),
        }
    }
    socket.send(0x81, b"detach").await;
    eventually("it is detached", async || site.requests().len() == 5).await;
    socket.send(0x81, b"nobody reads this").await;
    socket.send(0x88, b"\x03\xe8").await;
    assert_eq!(socket.closed().await.0, 1000);
    assert_eq!(site.requests().len(), 5);
}

#[tokio::test]
async fn a_client_s_wrong_frames_close_its_socket() {
    for (first, payload, code) in [
        (0x83, &b"x"[..], 1002),
        (0x80, b"x", 1002),
        (0x81, b"\xff", 1007),
        (0x88, b"\x03", 1002),
        (0x88, b"\x03\xed", 1002),
    ] {
        let site = echo().await;
        let gate = gate(&site).await;
        let mut socket = Socket::open(&gate, "/chat/room", &[]).await;
        socket.send(first, payload).await;
        assert_eq!(socket.closed().await.0, code, "{first:x} {payload:?}");
        eventually("the site knows", async || {
            site.requests().last().is_some_and(|request| request.body == b"DISCONNECT\r\n")
        })
        .await;
    }
    let site = echo().await;
    let gate = gate(&site).await;
    let mut socket = Socket::open(&gate, "/chat/room", &[]).await;
    socket
        .client
        .try_send_raw([&[0x82, 0xff], &200_001u64.to_be_bytes()[..]].concat())
        .await
        .unwrap();
    assert_eq!(socket.closed().await.0, 1009);
}

#[tokio::test]
async fn a_site_that_fails_later_closes_the_socket() {
    for answer in [
        response("", "a page"),
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
        events("Content-Bytes-Accepted: 9", &[]),
        events("", &[Event::with(Kind::Text, Bytes::from_static(b"\xff"))]),
        events("", &[Event::with(Kind::Ping, vec![0; 126].into())]),
        events("", &[control(&json!({ "type": "subscribe" }))]),
    ] {
        let site = GripSite::start(move |request| match opens(request) {
            true => events(
                "Sec-WebSocket-Extensions: grip; message-prefix=\"\"",
                &[Event::bare(Kind::Open)],
            ),
            false => answer.clone(),
        });
        let site = site.await;
        let gate = gate(&site).await;
        let mut socket = Socket::open(&gate, "/chat/room", &[]).await;
        socket.send(0x81, b"x").await;
        assert_eq!(socket.closed().await.0, 1011);
    }
}

#[tokio::test]
async fn a_site_may_close_and_cut_a_socket() {
    for close in [true, false] {
        let site = GripSite::start(move |request| match (opens(request), close) {
            (true, _) => events("", &[Event::bare(Kind::Open)]),
            (_, true) => {
                events("", &[Event::with(Kind::Close, Bytes::from_static(b"\x0f\xa1why"))])
            }
            (_, false) => events("", &[Event::bare(Kind::Disconnect)]),
        });
        let site = site.await;
        let gate = gate(&site).await;
        let mut socket = Socket::open(&gate, "/chat/room", &[]).await;
        socket.send(0x81, b"x").await;
        match close {
            true => assert_eq!(socket.closed().await, (4001, "why".to_owned())),
            false => socket.client.wait_for_close().await,
        }
        gate.wait_for_held(0).await;
        assert_eq!(site.requests().len(), 2, "a site that has ended it is not told so");
    }
}

#[tokio::test]
async fn a_shutdown_closes_sockets() {
    let site = echo().await;
    let gate = grip_gate(&site, &format!("{PATHS}[drain]\nspread = \"0s\"\n")).await;
    let mut socket = Socket::open(&gate, "/chat/room", &[]).await;
    gate.wait_for_held(1).await;
    eventually("it is subscribed", async || {
        publish_item(&gate, ws_message(json!({ "content": "x" }))).await;
        !socket.client.is_quiet().await
    })
    .await;
    gate.signal("TERM");
    loop {
        match socket.frame().await {
            (CLOSE, payload) => break assert_eq!(payload[..2], 1001u16.to_be_bytes()),
            (TEXT, _) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(gate.wait_for_exit().await, 0);
}

#[tokio::test]
async fn sockets_count_as_polls_do() {
    let site = echo().await;
    let gate = grip_gate(&site, &format!("{PATHS}[hold]\nmax = 1\n")).await;
    let _first = Socket::open(&gate, "/chat/room", &[]).await;
    assert_eq!(Socket::refusal(&gate, "/chat/room", &[]).await.status, 503);
}
