use super::*;
use bytes::Bytes;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, 0], &stream.to_be_bytes(), payload].concat()
}

fn update(stream: u32, window: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, stream, &window.to_be_bytes())
}

/// What h2 sees of these bytes, in pieces of that length.
fn seen(window: &mut Window, bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut out = BytesMut::new();
    bytes.chunks(piece).for_each(|piece| window.received(piece, &mut out).unwrap());
    out.to_vec()
}

fn granted(window: &mut Window) -> Option<u32> {
    window.grant().map(|frame| u32::from_be_bytes(frame[HEADER..].try_into().unwrap()))
}

#[test]
fn all_passes_but_the_window_of_the_connection() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let settings = frame(4, 0, &[0; 12]);
    let headers = frame(1, 1, &[7; 300]);
    let of_stream = update(1, 1 << 20);
    let short = frame(WINDOW_UPDATE, 0, &[1; 3]);
    let other = [&preface[..], &settings, &of_stream, &headers, &short].concat();
    let all = [&preface[..], &settings, &update(0, 1 << 30), &of_stream, &headers].concat();
    let all = [&all[..], &update(0, 1), &short].concat();
    for piece in [1, 2, 5, 9, 13, 1000] {
        let mut window = Window::default();
        assert_eq!(seen(&mut window, &all, piece), other, "{piece}");
        assert_eq!(window.withheld, (1 << 30) + 1);
    }
}

#[test]
fn the_window_comes_as_data_leaves() {
    let mut window = Window { passing: 0, ..Window::default() };
    let most = MAX_UNSENT as u32;
    assert_eq!(granted(&mut window), None);
    seen(&mut window, &update(0, 1 << 30), 100);
    assert_eq!(granted(&mut window), Some(most - INITIAL as u32));
    assert_eq!(granted(&mut window), None);
    // Headers and settings take none of it.
    window.sent(&[frame(1, 1, &[0; 1 << 20]), frame(4, 0, &[0; 600])].concat());
    assert_eq!(granted(&mut window), None);
    let data = frame(DATA, 1, &vec![0; 100 << 10]);
    data.chunks(7).for_each(|piece| window.sent(piece));
    assert_eq!(granted(&mut window), None);
    window.sent(&data);
    assert_eq!(granted(&mut window), Some(200 << 10));
    // Never within another frame.
    window.sent(&[&data[..], &data].concat());
    let headers = frame(1, 3, &[7; 30]);
    assert_eq!(seen(&mut window, &headers[..20], 100), headers[..20]);
    assert_eq!(granted(&mut window), None);
    assert_eq!(seen(&mut window, &headers[20..], 100), headers[20..]);
    assert_eq!(granted(&mut window), Some(200 << 10));
}

#[test]
fn a_window_that_is_too_large_ends_the_connection() {
    let mut window = Window { passing: 0, ..Window::default() };
    let mut out = BytesMut::new();
    window.received(&update(0, (1 << 31) - 1 - INITIAL as u32), &mut out).unwrap();
    window.received(&update(0, 1), &mut out).unwrap_err();
    // A window of nothing is h2's to refuse.
    let mut window = Window { passing: 0, ..Window::default() };
    assert_eq!(seen(&mut window, &update(0, 0), 100), update(0, 0));
}

/// The length of an answer.
const ANSWER: usize = 128 << 10;

/// A server that answers each request; returns the bytes that h2 has taken, all together.
async fn serve(stream: DuplexStream) -> Arc<AtomicUsize> {
    let taken = Arc::<AtomicUsize>::default();
    let count = taken.clone();
    tokio::spawn(async move {
        let mut builder = h2::server::Builder::new();
        builder.max_send_buffer_size(16 << 10);
        let mut connection = builder.handshake(BoundedWindow::new(stream)).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
                let mut left = ANSWER;
                while left > 0 {
                    stream.reserve_capacity(left);
                    let room = poll_fn(|context| stream.poll_capacity(context)).await;
                    let Some(Ok(room)) = room else { return };
                    left -= room;
                    count.fetch_add(room, Ordering::Relaxed);
                    stream.send_data(Bytes::from(vec![0; room]), left == 0).unwrap();
                }
            });
        }
    });
    taken
}

async fn ask(stream: DuplexStream, streams: usize) -> Vec<h2::client::ResponseFuture> {
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size((1 << 31) - 1)
        .initial_connection_window_size((1 << 31) - 1)
        .handshake::<_, Bytes>(stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..streams {
        let request = http::Request::get("http://a/").body(()).unwrap();
        let mut sender = sender.clone().ready().await.unwrap();
        answers.push(sender.send_request(request, true).unwrap().0);
    }
    answers
}

/// Passes bytes on, and none of the server's while `reads` is false.
async fn pass_on(client: DuplexStream, server: DuplexStream, reads: Arc<tokio::sync::Notify>) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let there = async { tokio::io::copy(&mut from_client, &mut to_server).await };
    let back = async {
        // The server's settings, which the client waits for.
        let mut settings = [0; 64];
        let length = from_server.read(&mut settings).await?;
        to_client.write_all(&settings[..length]).await?;
        reads.notified().await;
        tokio::io::copy(&mut from_server, &mut to_client).await
    };
    let _ = tokio::join!(there, back);
}

#[tokio::test]
async fn a_hundred_streams_of_a_client_that_does_not_read_hold_one_bound() {
    // Not full before h2 knows of all streams: it reads no more when it cannot write.
    const PIPE: usize = 1 << 20;
    let (client, to_client) = duplex(4096);
    let (server, to_server) = duplex(PIPE);
    let taken = serve(server).await;
    let reads = Arc::<tokio::sync::Notify>::default();
    tokio::spawn(pass_on(to_client, to_server, reads.clone()));
    let answers = ask(client, 100).await;
    // All that can run has run once the count stays.
    let mut before = usize::MAX;
    let mut still = 0;
    while still < 1000 {
        tokio::task::yield_now().await;
        let now = taken.load(Ordering::Relaxed);
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
    // The pipe is full, and h2 has a buffer for what it writes next.
    let most = PIPE + MAX_UNSENT as usize + (32 << 10);
    assert!(before > PIPE - (64 << 10) && before <= most, "{before} bytes");
    reads.notify_one();
    let mut sum = 0;
    for answer in answers {
        let mut body = answer.await.unwrap().into_body();
        while let Some(piece) = body.data().await {
            let length = piece.unwrap().len();
            body.flow_control().release_capacity(length).unwrap();
            sum += length;
        }
    }
    assert_eq!(sum, 100 * ANSWER);
}
