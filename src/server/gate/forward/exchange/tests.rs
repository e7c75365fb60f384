#![allow(clippy::unwrap_used)]

use super::*;
use crate::protocol::http::framing::Chunks;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

/// The far ends of an exchange, and what comes of it: whether the connection to the upstream can be
/// kept, or why it failed.
struct Ends {
    client: DuplexStream,
    upstream: DuplexStream,
    run: JoinHandle<Result<bool, Failure>>,
}

/// An exchange through pipes of `narrow` bytes; `pending` came with the head.
fn exchange(narrow: usize, body: Framing, pending: &'static str) -> Ends {
    let (client, mut near) = duplex(narrow);
    let (far, upstream) = duplex(narrow);
    let run = tokio::spawn(async move {
        let mut pending = BytesMut::from(pending);
        let mut timer = Timer::default();
        let mut tap = Tap::default();
        let near = Near {
            stream: &mut near,
            pending: &mut pending,
            timer: &mut timer,
            tap: &mut tap,
            grip: false,
        };
        let second = Duration::from_secs(1);
        let bounds = Bounds {
            silence: 60 * second,
            stall: Some(30 * second),
            aside: 1000,
            room: Room::OF_CONNECTION,
        };
        let head = BytesMut::from("head;");
        let mut exchange = Exchange::new(near, far, head, body, BodyRate::default(), bounds);
        let length = exchange.read_head().await?;
        exchange.accept(length, false, |head, _| {
            let framing = head.framing(false);
            Ok(Onward::Deliver(Delivery { framing, to_head: false, keep: true, grip: false }))
        })?;
        exchange.deliver().await?;
        Ok(exchange.finish().is_some())
    });
    Ends { client, upstream, run }
}

async fn read_until(stream: &mut DuplexStream, mark: &str) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(mark.as_bytes()) {
        seen.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(seen).unwrap()
}

/// Writes at one end while the other one is read until `mark`.
async fn pass(from: &mut DuplexStream, text: &str, to: &mut DuplexStream, mark: &str) -> String {
    let (written, read) = tokio::join!(from.write_all(text.as_bytes()), read_until(to, mark));
    written.unwrap();
    read
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 5\r\n\r\nhello";
const PASSED: &str =
    "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello";

#[tokio::test(start_paused = true)]
async fn both_directions_pass_whole_however_narrow_the_pipes() {
    for narrow in [1, 2, 3, 8, 1000] {
        let mut ends = exchange(narrow, Framing::Length(8), "ab");
        let sent = pass(&mut ends.client, "cdefghnext", &mut ends.upstream, "fgh").await;
        assert_eq!(sent, "head;abcdefgh");
        let passed = pass(&mut ends.upstream, ANSWER, &mut ends.client, "hello").await;
        assert_eq!(passed, PASSED);
        assert_eq!(ends.run.await.unwrap(), Ok(true), "{narrow}");
    }
}

#[tokio::test(start_paused = true)]
async fn chunks_are_framed_anew_on_both_ways() {
    for narrow in [1, 5, 1000] {
        let mut ends = exchange(narrow, Framing::Chunked(Chunks::default()), "");
        let body = "0003\r\nabc\r\n0\r\nX: y\r\n\r\n";
        let sent = pass(&mut ends.client, body, &mut ends.upstream, "0\r\n\r\n").await;
        assert!(sent.starts_with("head;") && !sent.contains("X: y"), "{sent}");
        let answer = "HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                      3;x\r\nabc\r\n0\r\nX: y\r\n\r\n";
        let passed = pass(&mut ends.upstream, answer, &mut ends.client, "0\r\n\r\n").await;
        assert!(!passed.contains("X: y") && !passed.contains(';'), "{passed}");
        assert_eq!(ends.run.await.unwrap(), Ok(true), "{narrow}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_wait_without_progress_is_too_long() {
    let mut ends = exchange(1000, Framing::Length(0), "");
    read_until(&mut ends.upstream, "head;").await;
    for byte in ANSWER.bytes() {
        tokio::time::sleep(Duration::from_secs(59)).await;
        ends.upstream.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(ends.run.await.unwrap(), Ok(true));
    let ends = exchange(1000, Framing::Length(0), "");
    assert_eq!(ends.run.await.unwrap(), Err(Failure::Silent));
    // The client pauses, and the upstream waits for it.
    let mut ends = exchange(1000, Framing::Length(3), "");
    for byte in b"ab" {
        tokio::time::sleep(Duration::from_secs(29)).await;
        ends.client.write_all(&[*byte]).await.unwrap();
    }
    assert_eq!(ends.run.await.unwrap(), Err(Failure::BodyTimeout));
    drop(ends.upstream);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closed_its_half_is_waited_for_until_an_answer_begins() {
    let mut ends = exchange(1000, Framing::Length(0), "");
    ends.client.shutdown().await.unwrap();
    tokio::time::sleep(HALF_CLOSED - Duration::from_millis(10)).await;
    ends.upstream.write_all(&ANSWER.as_bytes()[..ANSWER.len() - 1]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(50)).await;
    ends.upstream.write_all(b"o").await.unwrap();
    assert_eq!(ends.run.await.unwrap(), Ok(true));
    let mut ends = exchange(1000, Framing::Length(0), "");
    ends.client.shutdown().await.unwrap();
    assert_eq!(ends.run.await.unwrap(), Err(Failure::Gone));
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_only_if_both_sides_are_through() {
    for (answer, sent, kept) in [
        (ANSWER.to_owned(), 5, true),
        (format!("{ANSWER}x"), 5, false),
        (ANSWER.to_owned(), 4, false),
    ] {
        let mut ends = exchange(1000, Framing::Length(5), "");
        ends.client.write_all(&b"hello"[..sent]).await.unwrap();
        read_until(&mut ends.upstream, &"hello"[..sent]).await;
        ends.upstream.write_all(answer.as_bytes()).await.unwrap();
        assert_eq!(ends.run.await.unwrap(), Ok(kept), "{answer:?} {sent}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_holds_up_the_upstream_and_not_the_memory() {
    let mut ends = exchange(1000, Framing::Length(0), "");
    ends.upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await.unwrap();
    let mut taken = 0;
    let piece = [b'x'; 1000];
    let writing = async {
        loop {
            ends.upstream.write_all(&piece).await.unwrap();
            taken += piece.len();
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10_000), writing).await.is_err());
    assert!(taken < 2 * Room::OF_CONNECTION.large, "{taken}");
}
