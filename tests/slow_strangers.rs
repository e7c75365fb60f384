//! Clients that read slowly, not at all, or send a byte now and then: what they take of the gate
//! has a bound, and no other client waits for them.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use support::http2::Http2;
use support::{Addr, BOUND, Client, Gate, Metrics, PlainSite, eventually_some};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// A connection whose client never reads.
struct Deaf(TcpStream);

impl AsyncRead for Deaf {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Deaf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Closes its connection when it is dropped.
struct Closing(tokio::task::JoinHandle<Result<(), h2::Error>>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// So many requests on one HTTP/2 connection with huge windows, which is never read.
async fn never_read(gate: &Gate, target: &str, streams: usize) -> impl Sized + use<> {
    let Addr::Tcp(addr) = *gate.addr() else { panic!("not over TCP") };
    let stream = Deaf(TcpStream::connect(addr).await.unwrap());
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size((1 << 31) - 1)
        .initial_connection_window_size((1 << 31) - 1)
        .handshake::<_, bytes::Bytes>(stream)
        .await
        .unwrap();
    let connection = Closing(tokio::spawn(connection));
    let mut answers = Vec::new();
    for _ in 0..streams {
        let uri = format!("http://{addr}{target}");
        let request = http::Request::get(uri).version(http::Version::HTTP_2).body(()).unwrap();
        let mut sender = sender.clone().ready().await.unwrap();
        answers.push(sender.send_request(request, true).unwrap().0);
    }
    (sender, connection, answers)
}

/// A site whose every answer is that long.
async fn long_answers(length: usize) -> Addr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = Addr::Tcp(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut seen = vec![0; 4096];
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                while matches!(stream.read(&mut seen).await, Ok(1..)) {
                    let mut left = length;
                    if stream.write_all(head.as_bytes()).await.is_err() {
                        return;
                    }
                    while left > 0 {
                        let piece = &[b'x'; 16 << 10][..left.min(16 << 10)];
                        if stream.write_all(piece).await.is_err() {
                            return;
                        }
                        left -= piece.len();
                    }
                }
            });
        }
    });
    addr
}

/// The most that the gate's memory grows by while its figures still move.
async fn growth(gate: &Gate, idle: u64) -> u64 {
    let mut most = 0;
    for _ in 0..40 {
        most = most.max(gate.own_memory().saturating_sub(idle));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    most >> 20
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_client_that_never_reads_does_not_fill_the_memory() {
    let site = long_answers(1 << 20).await;
    // Answers that are made here: 32 MiB of them (`limits.body_memory`), and some 100 KiB for each
    // stream. What the site sends stays there.
    for (target, connections, most) in
        [("/comet/news?cursor=oldest&timeout=0", 4, 96), ("/page", 16, 64)]
    {
        let gate = Gate::start_before(&site, "").await;
        for _ in 0..10 {
            gate.publish("news", vec![b'x'; 32 << 10]).await;
        }
        never_read_by(&gate, target, connections, most).await;
    }
}

/// So many connections with a hundred streams each make the gate grow by less than `most` MiB.
async fn never_read_by(gate: &Gate, target: &str, count: u64, most: u64) {
    let idle = gate.own_memory();
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(never_read(gate, target, 100).await);
    }
    let grown = growth(gate, idle).await;
    println!("{count} connections of 100 streams each on {target}: {grown} MiB");
    assert!(grown < most, "{target}: {grown} MiB");
    // Others get their answers.
    let mut other = gate.connect().await.bound(Duration::from_secs(30));
    assert_eq!(other.get("/comet/other?timeout=0").await.status, 200);
    drop(connections);
    // What is under way is still rendered, which takes a busy machine its time.
    let free = async || {
        let text = gate.hook("GET", "/metrics", &[], "").await.text();
        (Metrics::parse(&text).value("pollgate_body_bytes") == 0.0).then_some(())
    };
    eventually_some("what answers took is free again", 12 * BOUND, free).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_http2_clients_that_never_read_do_not_fill_the_memory_either() {
    const CONNECTIONS: u64 = 280;
    let site = long_answers(1 << 20).await;
    let gate = Gate::start_before(&site, "").await;
    let metrics = async || Metrics::parse(&gate.hook("GET", "/metrics", &[], "").await.text());
    let idle = gate.own_memory();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(never_read(&gate, "/page", 100).await);
    }
    // Each has its own slots, and all share what there is besides.
    let refused = "pollgate_refusals_total{cause=\"http2_streams\"}";
    let full = async || {
        let metrics = metrics().await;
        let waiting = metrics.value("pollgate_http2_requests_waiting");
        (waiting >= 2048.0 && metrics.value(refused) > 0.0).then_some(metrics)
    };
    let seen = eventually_some("the slots are taken", BOUND, full).await;
    let most = (1024 + 6 * CONNECTIONS) as f64;
    assert!(seen.value("pollgate_http2_requests") <= most);
    let grown = growth(&gate, idle).await;
    println!("{CONNECTIONS} connections of 100 streams each: {grown} MiB");
    assert!(grown < 80, "{grown} MiB");
    // One that comes later has all that it needs, over either protocol.
    let mut other = gate.connect().await.bound(Duration::from_secs(30));
    let length = other.get("/page").await.body.len();
    assert_eq!(length, 1 << 20);
    let mut late = Http2::connect(gate.addr()).await;
    late.ask("GET", "/page", &[]).await;
    assert_eq!(late.answer().await.body.len(), 1 << 20);
    assert_eq!(late.most_streams(), 16);
    drop(connections);
    let free = async || {
        let metrics = metrics().await;
        let names = ["pollgate_http2_requests", "pollgate_http2_requests_waiting"];
        names.iter().all(|name| metrics.value(name) == 0.0).then_some(())
    };
    eventually_some("all slots are free again", 12 * BOUND, free).await;
}

#[tokio::test]
async fn a_body_that_trickles_ends() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), "limits.body_rate = 1000").await;
    let over_http1 = async {
        let mut client = gate.connect().await.bound(Duration::from_secs(60));
        client.send_raw("POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
        trickle(async || client.try_send_raw("x").await.is_err()).await
    };
    let over_http2 = async {
        let Addr::Tcp(addr) = *gate.addr() else { panic!("not over TCP") };
        let stream = TcpStream::connect(addr).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let _connection = Closing(tokio::spawn(connection));
        let request = http::Request::post(format!("http://{addr}/page")).body(()).unwrap();
        let mut sender = sender.ready().await.unwrap();
        let (answer, mut body) = sender.send_request(request, false).unwrap();
        let ended = trickle(async || body.send_data("x".into(), false).is_err()).await;
        let status = answer.await.map(|answer| answer.status().as_u16());
        assert!(!matches!(status, Ok(200)), "{status:?}");
        ended
    };
    let (http1, http2) = tokio::join!(over_http1, over_http2);
    assert!(http1 && http2, "a byte now and then was taken for 25 s: {http1} {http2}");
}

/// Has a byte sent now and then; true if that fails within 25 s.
async fn trickle(mut send_fails: impl AsyncFnMut() -> bool) -> bool {
    for _ in 0..50 {
        if send_fails().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    false
}

#[tokio::test]
async fn a_slow_reader_of_a_replayed_answer_keeps_no_slot() {
    let site = long_answers(20 << 20).await;
    let config = "[[poll]]\npath = \"/live\"\ndialect = \"replay\"\nchannel = \"live\"\n\
                  concurrency = 1\ntimeout = \"100ms\"\n";
    let gate = Gate::start_before(&site, config).await;
    let mut slow = gate.connect().await;
    slow.send_get("/live").await;
    slow.read_until("\r\n\r\n").await;
    let mut other = Client::connect(gate.addr()).await;
    other.send_get("/live").await;
    let head = other.read_until("\r\n\r\n").await;
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
}
