//! Clients on slow lines: they get all of what they read slowly, and are cut off only when they stop.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;
use support::tls::Identity;
use support::{Addr, Client, Gate, PlainSite, eventually, tls};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, interval};

/// More than the system takes at once for a client that does not read.
const LENGTH: usize = 7 << 20;
/// Several times `limits.write_timeout`.
const SLOWNESS: Duration = Duration::from_secs(3);
/// What a slow client reads at a time, and how often.
const SIP: usize = 4 * 1024;
const EVERY: Duration = Duration::from_millis(100);

const CONFIG: &str = "[limits]\nwrite_timeout = \"1s\"\n[history]\nmax_message = \"8MiB\"\n\
                      bytes = \"16MiB\"";

/// A connection that has room for little.
async fn narrow(addr: &Addr) -> TcpStream {
    let (Addr::Tcp(addr) | Addr::Tls(addr)) = addr else { panic!("{addr} is no TCP") };
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(*addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

async fn narrow_client(addr: &Addr) -> Client {
    let stream = narrow(addr).await;
    match addr {
        Addr::Tls(_) => Client::over(tls::over(stream, &["http/1.1"]).await, "localhost"),
        _ => Client::over(stream, "localhost"),
    }
}

/// Reads an answer of [`LENGTH`], slowly at first; whether it is whole.
async fn sip(client: &mut Client) -> usize {
    let head = client.read_head().await;
    assert_eq!(head.status, 200);
    let length: usize = head.header("content-length").unwrap().parse().unwrap();
    let began = Instant::now();
    let mut pace = interval(EVERY);
    let mut read = 0;
    while began.elapsed() < SLOWNESS {
        pace.tick().await;
        read += client.read_exactly(SIP).await.len();
    }
    read + client.read_exactly(length - read).await.len()
}

/// A site that sends [`LENGTH`] bytes to every client.
async fn large_site() -> PlainSite {
    PlainSite::start_with_body(vec![b'x'; LENGTH]).await
}

#[tokio::test]
async fn a_slow_reader_gets_all_of_a_poll_and_of_a_page() {
    let site = large_site().await;
    let gate = Gate::start_before(site.addr(), CONFIG).await;
    gate.publish("large", vec![b'x'; LENGTH]).await;
    let slow = async |target: &str, headers: &[(&str, &str)]| {
        let mut client = narrow_client(gate.addr()).await;
        client.send("GET", target, headers, b"").await;
        sip(&mut client).await
    };
    let odd = [("Content-Length", "0")];
    let target = "/comet/large?cursor=oldest";
    let (plain, odd, page) =
        tokio::join!(slow(target, &[]), slow(target, &odd), slow("/page", &[]));
    assert!(plain > LENGTH && odd > LENGTH && page == LENGTH, "{plain} {odd} {page}");
}

#[tokio::test]
async fn a_slow_reader_over_tls_gets_all() {
    let site = large_site().await;
    let gate = Gate::with(CONFIG).upstream(site.addr()).tls(Identity::any()).start().await;
    gate.publish("large", vec![b'x'; LENGTH]).await;
    let slow = async |target: &str| {
        let mut client = narrow_client(gate.addr()).await;
        client.send_get(target).await;
        sip(&mut client).await
    };
    let (poll, page) = tokio::join!(slow("/comet/large?cursor=oldest"), slow("/page"));
    assert!(poll > LENGTH && page == LENGTH, "{poll} {page}");
}

#[tokio::test]
async fn a_slow_reader_of_the_hook_gets_all() {
    let gate = Gate::start_alone(CONFIG).await;
    gate.publish("large", vec![b'x'; LENGTH]).await;
    let mut client = narrow_client(gate.internal()).await;
    client.send_get("/channels/large/messages").await;
    assert!(sip(&mut client).await > LENGTH);
}

#[tokio::test]
async fn a_slow_reader_over_http2_gets_all_and_one_that_stops_is_cut_off() {
    let site = large_site().await;
    let gate = Gate::start_before(site.addr(), CONFIG).await;
    gate.publish("large", vec![b'x'; LENGTH]).await;
    let host = gate.addr().host();
    let slow = async |target: &str, stops: bool| {
        let stream = narrow(gate.addr()).await;
        let (mut sender, connection) = match gate.addr() {
            Addr::Tls(_) => return LENGTH,
            _ => h2::client::handshake(stream).await.unwrap(),
        };
        let connection = tokio::spawn(connection);
        let request = http::Request::get(format!("http://{host}{target}")).body(()).unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        let began = Instant::now();
        let mut pace = interval(EVERY);
        let mut read = 0;
        while let Some(piece) = body.data().await {
            let Ok(piece) = piece else { break };
            read += piece.len();
            let mut left = piece.len();
            while left > 0 {
                if began.elapsed() < SLOWNESS {
                    pace.tick().await;
                } else if stops {
                    break;
                }
                let sip = left.min(SIP);
                body.flow_control().release_capacity(sip).unwrap();
                left -= sip;
            }
        }
        connection.abort();
        read
    };
    let poll = "/comet/large?cursor=oldest";
    let (poll, page, stopped_poll, stopped_page) = tokio::join!(
        slow(poll, false),
        slow("/page", false),
        slow(poll, true),
        slow("/page", true)
    );
    assert!(poll > LENGTH && page == LENGTH, "{poll} {page}");
    assert!(stopped_poll < LENGTH && stopped_page < LENGTH, "{stopped_poll} {stopped_page}");
}

#[tokio::test]
async fn a_reader_that_stops_in_the_middle_is_cut_off() {
    let site = large_site().await;
    let gate = Gate::start_before(site.addr(), CONFIG).await;
    gate.publish("large", vec![b'x'; LENGTH]).await;
    let mut clients = Vec::new();
    for target in ["/comet/large?cursor=oldest", "/page"] {
        let mut client = narrow_client(gate.addr()).await;
        client.send_get(target).await;
        let began = Instant::now();
        let mut pace = interval(EVERY);
        assert_eq!(client.read_head().await.status, 200);
        while began.elapsed() < Duration::from_millis(1500) {
            pace.tick().await;
            client.read_exactly(SIP).await;
        }
        assert_eq!(gate.status().await["connections"], 1, "{target}");
        let gone = async || gate.status().await["connections"] == 0;
        eventually("the end of a client that stopped", gone).await;
        clients.push(client);
    }
}
