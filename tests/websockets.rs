//! The site's WebSockets pass through the gate.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::site::Visit;
use support::{Addr, Client, Gate, PlainSite, TempDir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const HEADERS: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Opens a WebSocket through the gate; both its ends.
async fn open(gate: &Gate, site: &mut PlainSite) -> (Client, Visit) {
    let mut client = gate.connect().await;
    client.send("GET", "/socket", &HEADERS, b"").await;
    let mut visit = site.visit().await;
    assert_eq!(visit.request.header("upgrade"), Some("websocket"));
    assert_eq!(visit.request.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert!(visit.request.header("x-forwarded-for").is_some());
    visit.send(SWITCH).await;
    let head = client.read_head().await;
    assert_eq!(head.status, 101);
    assert_eq!(head.header("upgrade"), Some("websocket"));
    (client, visit)
}

#[tokio::test]
async fn a_websocket_is_passed_through_both_ways() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), "").await;
    let (mut client, mut visit) = open(&gate, &mut site).await;
    // Frames are no business of the gate: neither side waits for the other.
    for round in 0..3 {
        client.send_raw(format!("from the client {round}\n")).await;
        visit.read_until(&format!("from the client {round}\n")).await;
        visit.send(format!("from the site {round}\n")).await;
        client.read_until(&format!("from the site {round}\n")).await;
    }
    client.close();
    visit.wait_for_close().await;
}

#[tokio::test]
async fn a_websocket_ends_when_the_site_ends_it() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), "").await;
    let (mut client, visit) = open(&gate, &mut site).await;
    drop(visit);
    client.wait_for_close().await;
}

/// A site that agrees to a WebSocket before it is asked, and sends back what it gets.
async fn agrees_at_once() -> Addr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = Addr::Tcp(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    addr
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(SWITCH.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await.map(drop)
}

#[tokio::test]
async fn a_websocket_stays_open_however_early_the_site_agrees() {
    let site = agrees_at_once().await;
    let gate = Gate::start_before(&site, "").await;
    for round in 0..50 {
        let mut client = gate.connect().await;
        client.send("GET", "/socket", &HEADERS, b"").await;
        assert_eq!(client.read_head().await.status, 101, "round {round}");
        client.send_raw("hello?\n").await;
        client.read_until("hello?\n").await;
    }
}

#[tokio::test]
async fn a_site_that_does_not_agree_is_heard() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), "").await;
    for _ in 0..2 {
        let answer = gate.connect().await.request("GET", "/socket", &HEADERS, b"").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "site: GET /socket"));
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(gate.get("/page").await.text(), "site: GET /page");
    }
}

#[tokio::test]
async fn websockets_reach_a_site_on_a_unix_socket() {
    let folder = TempDir::new("websockets");
    let site = PlainSite::start_on(&folder.path().join("site"));
    let gate = Gate::start_before(site.addr(), "").await;
    let answer = gate.connect().await.request("GET", "/socket", &HEADERS, b"").await;
    assert_eq!(answer.text(), "site: GET /socket");
    assert_eq!(site.last().header("upgrade"), Some("websocket"));
}

#[tokio::test]
async fn a_websocket_to_a_site_that_is_down_is_a_502() {
    let gate = Gate::start_alone("").await;
    let answer = gate.connect().await.request("GET", "/socket", &HEADERS, b"").await;
    assert_eq!(answer.status, 502);
}
