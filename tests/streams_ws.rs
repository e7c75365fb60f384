//! WebSockets on the URL of a poll.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::json;
use support::socket::{ACCEPT, BINARY, CLOSE, KEY, PING, PONG, TEXT};
use support::{Client, Gate, PlainSite, Socket, eventually};

const V1: (&str, &str) = ("Sec-WebSocket-Protocol", "pollgate.v1");

#[tokio::test]
async fn a_socket_begins_with_its_cursor_and_gets_poll_answers() {
    let gate = Gate::start_alone("").await;
    let offered = ("Sec-WebSocket-Protocol", "other, pollgate.v1");
    let mut socket = Socket::open(&gate, "/comet/news", &[offered]).await;
    assert_eq!(socket.head.header("sec-websocket-accept"), Some(ACCEPT));
    assert_eq!(socket.head.header("sec-websocket-protocol"), Some("pollgate.v1"));
    assert_eq!(socket.head.header("upgrade"), Some("websocket"));
    assert_eq!(socket.head.header("connection"), Some("Upgrade"));
    assert_eq!(socket.head.header("content-length"), None);
    let first = socket.json().await;
    assert_eq!(first["messages"], json!([]));
    gate.wait_for_held(1).await;
    let published = gate.publish_json("news", &json!({"a": 1})).await;
    assert_eq!(published["released"], 1);
    let frame = socket.json().await;
    let target = format!("/comet/news?cursor={}&timeout=0", first["cursor"].as_str().unwrap());
    assert_eq!(frame, gate.get(&target).await.json());
    drop(socket);
    gate.publish("news", "two").await;
    let target = format!("/comet/news?cursor={}", frame["cursor"].as_str().unwrap());
    let mut again = Socket::open(&gate, &target, &[V1]).await;
    assert_eq!(again.json().await["cursor"], frame["cursor"]);
    assert_eq!(again.json().await["messages"][0]["data"], "two");
}

#[tokio::test]
async fn without_a_subprotocol_frames_are_bare_data() {
    let gate = Gate::start_alone("").await;
    let mut socket = Socket::open(&gate, "/comet/a,b", &[]).await;
    assert_eq!(socket.head.header("sec-websocket-protocol"), None);
    gate.wait_for_held(1).await;
    gate.publish("a", "plain\ntext").await;
    assert_eq!(socket.frame().await, (TEXT, b"plain\ntext".to_vec()));
    gate.publish_as("b", "application/octet-stream", b"\xff\x00").await;
    assert_eq!(socket.frame().await, (BINARY, b"\xff\x00".to_vec()));
    for length in [125, 126, 65_535, 65_536, 200_000] {
        gate.publish("a", "x".repeat(length)).await;
        assert_eq!(socket.text().await.len(), length);
    }
}

#[tokio::test]
async fn a_gap_is_marked_in_the_answer() {
    let gate = Gate::start_alone("[history]\nmessages = 1\n").await;
    gate.publish("news", "one").await;
    gate.publish("news", "two").await;
    let mut socket = Socket::open(&gate, "/comet/news?cursor=aaaaaa-1", &[V1]).await;
    socket.json().await;
    let answer = socket.json().await;
    assert_eq!((&answer["reset"], &answer["messages"][0]["data"]), (&json!(true), &json!("two")));
}

#[tokio::test]
async fn a_handshake_with_something_wrong_is_refused_before_the_upgrade() {
    let config = "[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\norigins = [\"https://a.example\"]\n\
                  [[poll]]\npath = \"/polls/*\"\ndialect = \"native\"\ntransports = [\"poll\"]\n";
    let gate = Gate::start_alone(config).await;
    let other = ("Sec-WebSocket-Protocol", "other");
    assert_eq!(Socket::refusal(&gate, "/comet/news", &[other]).await.status, 400);
    assert_eq!(Socket::refusal(&gate, "/polls/news", &[]).await.status, 400);
    assert_eq!(Socket::refusal(&gate, "/comet/a%zz", &[]).await.status, 400);
    for (origin, status) in [
        ("https://evil.example", 403),
        ("https://a.example.evil", 403),
        ("null", 403),
        ("https://a.example", 101),
        ("http://gate.example", 101),
        ("https://gate.example", 101),
    ] {
        let mut client = gate.connect().await;
        let headers = [("Origin", origin), ("Host", "gate.example")];
        Socket::ask(&mut client, "/comet/news", &headers).await;
        assert_eq!(client.read_head().await.status, status, "{origin}");
    }
    let upgrade = [("Upgrade", "websocket"), ("Connection", "Upgrade")];
    let key = ("Sec-WebSocket-Key", KEY);
    for (headers, status) in [
        (vec![("Sec-WebSocket-Version", "8"), key], 426),
        (vec![key], 426),
        (vec![("Sec-WebSocket-Version", "13")], 400),
        (vec![("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "short")], 400),
    ] {
        let headers = [&upgrade[..], &headers].concat();
        let mut client = gate.connect().await;
        client.send("GET", "/comet/news", &headers, b"").await;
        let response = client.read_response().await;
        assert_eq!(response.status, status, "{headers:?}");
    }
    let plain = gate.get("/comet/news?transport=ws").await;
    assert_eq!(plain.status, 400);
}

#[tokio::test]
async fn a_websocket_elsewhere_is_the_site_s() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), "").await;
    let response = Socket::refusal(&gate, "/elsewhere", &[]).await;
    assert_ne!(response.status, 400);
}

#[tokio::test]
async fn auth_is_answered_before_the_upgrade_and_later_with_a_close() {
    let config = "[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\n\
                  auth = { kind = \"jwt\", key = \"0123456789abcdef0123456789abcdef\", algorithms = [\"HS256\"] }\n";
    let gate = Gate::start_alone(config).await;
    assert_eq!(Socket::refusal(&gate, "/comet/news", &[]).await.status, 401);
    let token = token();
    assert_eq!(
        Socket::refusal(&gate, &format!("/comet/other?token={token}"), &[]).await.status,
        403
    );
    let mut socket = Socket::open(&gate, &format!("/comet/news?token={token}"), &[V1]).await;
    socket.json().await;
    gate.hook("DELETE", "/grants", &[], "").await;
    let (code, why) = socket.closed().await;
    assert_eq!(code, 1008, "{why}");
}

fn token() -> String {
    use base64::Engine;
    let encode = |text: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let head = encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = encode(br#"{"channels":["news"],"exp":4000000000}"#);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"0123456789abcdef0123456789abcdef");
    let text = format!("{head}.{claims}");
    let mac = ring::hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", encode(mac.as_ref()))
}

#[tokio::test]
async fn what_a_client_sends_is_answered_by_the_rules() {
    let gate = Gate::start_alone("").await;
    let open = async || {
        let mut socket = Socket::open(&gate, "/comet/news", &[V1]).await;
        socket.json().await;
        socket
    };
    let mut socket = open().await;
    socket.send(0x80 | PING, b"are you there").await;
    assert_eq!(socket.frame().await, (PONG, b"are you there".to_vec()));
    socket.send(0x80 | PONG, b"unasked").await;
    gate.publish("news", "still here").await;
    assert_eq!(socket.json().await["messages"][0]["data"], "still here");
    for (code, first, payload) in [
        (1008, 0x81, &b"a message"[..]),
        (1008, 0x82, b"\xff"),
        (1008, 0x01, b"the first part"),
        (1002, 0x80, b"the rest of nothing"),
        (1002, 0xc1, b"a reserved bit"),
        (1002, 0x83, b"a reserved opcode"),
        (1002, 0x09, b"a ping in parts"),
        (1000, 0x88, b""),
        (1001, 0x88, b"\x03\xe9bye"),
        (1002, 0x88, b"\x03"),
        (1002, 0x88, b"\x03\xec"),
        (1007, 0x88, b"\x03\xe8\xff"),
    ] {
        let mut socket = open().await;
        socket.send(first, payload).await;
        if code == 1000 {
            assert_eq!(socket.frame().await, (CLOSE, vec![]));
            socket.client.wait_for_close().await;
            continue;
        }
        assert_eq!(socket.closed().await.0, code, "{first:x} {payload:?}");
    }
    let mut unmasked = open().await;
    unmasked.client.send_raw([0x89, 0]).await;
    assert_eq!(unmasked.closed().await.0, 1002);
    let mut long = open().await;
    long.client.send_raw([0x81, 0xff, 0, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4]).await;
    assert_eq!(long.closed().await.0, 1009);
    let mut torn = open().await;
    for byte in [0x89, 0x82, 1, 2, 3, 4, 1 ^ b'h', 2 ^ b'i'] {
        torn.client.send_raw([byte]).await;
    }
    assert_eq!(torn.frame().await, (PONG, b"hi".to_vec()));
    drop((socket, torn));
    gate.wait_for_held(0).await;
}

#[tokio::test]
async fn a_frame_that_comes_with_the_handshake_is_not_lost() {
    let gate = Gate::start_alone("").await;
    let mut client = gate.connect().await;
    let head = format!(
        "GET /comet/news HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    let ping = [0x89, 0x81, 1, 2, 3, 4, 1 ^ b'x'];
    client.send_raw([head.as_bytes(), &ping].concat()).await;
    let head = client.read_head().await;
    let mut socket = Socket { head, client };
    assert_eq!(socket.frame().await, (PONG, b"x".to_vec()));
}

#[tokio::test]
async fn a_silent_client_is_pinged_and_left_after_two() {
    let gate = Gate::start_alone("[stream]\nheartbeat = \"100ms\"\n").await;
    let mut socket = Socket::open(&gate, "/comet/news", &[]).await;
    for _ in 0..5 {
        assert_eq!(socket.frame().await, (PING, vec![]));
        socket.send(0x80 | PONG, b"").await;
    }
    assert_eq!(socket.frame().await.0, PING);
    assert_eq!(socket.frame().await.0, PING);
    socket.client.wait_for_close().await;
    gate.wait_for_held(0).await;
}

#[tokio::test]
async fn no_room_is_a_socket_that_closes_with_1013() {
    let gate = Gate::start_alone("[hold]\nmax = 1\n").await;
    let _held = Socket::open(&gate, "/comet/news", &[]).await;
    gate.wait_for_held(1).await;
    let mut refused = Socket::open(&gate, "/comet/news", &[]).await;
    let (code, why) = refused.closed().await;
    assert!(code == 1013 && why.contains("too many polls"), "{code} {why}");
}

#[tokio::test]
async fn a_drain_and_the_longest_time_close_with_1001() {
    let gate = Gate::start_alone("[stream]\nmax = \"100ms\"\n").await;
    let mut socket = Socket::open(&gate, "/comet/news", &[]).await;
    assert_eq!(socket.closed().await.0, 1001);
    let gate = Gate::start_alone("[drain]\nspread = \"50ms\"\n").await;
    let mut socket = Socket::open(&gate, "/comet/news", &[]).await;
    gate.wait_for_held(1).await;
    gate.signal("TERM");
    assert_eq!(socket.closed().await.0, 1001);
    assert_eq!(gate.wait_for_exit().await, 0);
}

#[tokio::test]
async fn other_dialects_send_the_bodies_of_their_answers() {
    let config = "[[poll]]\npath = \"/backend.php\"\ndialect = \"timestamp\"\nchannel = \"news\"\n\
                  transports = [\"ws\"]\nfirst = \"wait\"\n";
    let gate = Gate::start_alone(config).await;
    assert_eq!(Socket::refusal(&gate, "/backend.php", &[V1]).await.status, 400);
    let mut socket = Socket::open(&gate, "/backend.php", &[]).await;
    gate.wait_for_held(1).await;
    let published = gate.publish("news", "one").await;
    let expected = json!({"msg": "one", "timestamp": published["stamp"]});
    assert_eq!(socket.json().await, expected);
}

#[tokio::test]
async fn sockets_are_counted_and_logged() {
    let gate = Gate::start_alone("").await;
    let mut socket = Socket::open(&gate, "/comet/news", &[]).await;
    gate.wait_for_held(1).await;
    gate.publish("news", "one").await;
    socket.text().await;
    assert_eq!(gate.status().await["streams"]["ws"], 1);
    drop(socket);
    gate.wait_for_log("events=1").await;
    let log = gate.log();
    let line = log.lines().find(|line| line.contains("events=1")).unwrap();
    assert!(line.contains("status=101"), "{line}");
    eventually("no stream", async || gate.status().await["streams"]["ws"] == 0).await;
}

#[tokio::test]
async fn a_client_that_only_shuts_its_side_is_gone() {
    let gate = Gate::start_alone("").await;
    let mut socket = Socket::open(&gate, "/comet/news", &[]).await;
    gate.wait_for_held(1).await;
    Client::half_close(&mut socket.client).await;
    gate.wait_for_held(0).await;
}
