//! A connection that has become one of another protocol: bytes pass both ways, whatever they mean.
//!
//! Both sides may be quiet for any time, and a tunnel that is holds no buffer. A side that is slow to
//! read is waited for before more is read from the other. The end of one side is passed on; the
//! other one may go on as long as it makes progress.

use super::fill::fill;
use crate::server::gate::Timer;
use crate::server::gate::front::buffer_pool;
use bytes::{Buf, BytesMut};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes read at once.
const ROOM: usize = 16 * 1024;

/// One direction.
struct Lane {
    /// Read, and not yet written.
    bytes: BytesMut,
    unflushed: bool,
    /// Nothing more comes; the end was passed on.
    ended: bool,
    over: bool,
    passed: u64,
}

impl Lane {
    fn new(bytes: BytesMut) -> Self {
        Self { bytes, unflushed: false, ended: false, over: false, passed: 0 }
    }

    /// Ready once the direction has ended; the error is that the tunnel has.
    fn poll<R, W>(
        &mut self,
        from: &mut R,
        to: &mut W,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), ()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while !self.bytes.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(context, &self.bytes));
                let length = written.map_err(|_| ())?;
                if length == 0 {
                    return Poll::Ready(Err(()));
                }
                self.bytes.advance(length);
                self.passed += length as u64;
                self.unflushed = true;
            }
            if self.unflushed {
                ready!(Pin::new(&mut *to).poll_flush(context)).map_err(|_| ())?;
                self.unflushed = false;
            }
            if self.ended {
                if !self.over {
                    ready!(Pin::new(&mut *to).poll_shutdown(context)).map_err(|_| ())?;
                    self.over = true;
                }
                return Poll::Ready(Ok(()));
            }
            if self.bytes.capacity() > 0 {
                buffer_pool::put(std::mem::take(&mut self.bytes));
            }
            let length = ready!(fill(from, &mut self.bytes, ROOM, context)).map_err(|_| ())?;
            self.ended = length == 0;
        }
    }
}

/// Passes bytes until both sides have ended, or one has and the other is silent for `patience`.
/// `answer` are the first ones for the client, `early` the first ones of it. Returns how many the
/// client got.
pub(super) async fn run<C, U>(
    client: &mut C,
    upstream: &mut U,
    (answer, early): (BytesMut, BytesMut),
    timer: &mut Timer,
    patience: Duration,
) -> u64
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut up = Lane::new(early);
    let mut down = Lane::new(answer);
    let mut waited = None;
    timer.set(None);
    poll_fn(|context| {
        let to_upstream = up.poll(client, upstream, context);
        let to_client = down.poll(upstream, client, context);
        match (to_upstream, to_client) {
            (Poll::Ready(Err(())), _) | (_, Poll::Ready(Err(()))) => return Poll::Ready(()),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(()),
            (Poll::Pending, Poll::Pending) => return Poll::Pending,
            _ => {}
        }
        let progress = up.passed + down.passed;
        if waited != Some(progress) {
            waited = Some(progress);
            timer.set(Some(patience));
        }
        timer.poll_expired(context)
    })
    .await;
    down.passed
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    /// A tunnel through pipes of eight bytes; its far ends, and how many bytes the client got.
    fn tunnel() -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<u64>) {
        let (client, mut near) = duplex(8);
        let (mut far, upstream) = duplex(8);
        let run = tokio::spawn(async move {
            let first = (BytesMut::from("101 head"), BytesMut::from("early bytes"));
            let mut timer = Timer::default();
            let patience = Duration::from_secs(60);
            run(&mut near, &mut far, first, &mut timer, patience).await
        });
        (client, upstream, run)
    }

    async fn read(stream: &mut DuplexStream, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_both_ways_however_narrow_the_pipes_and_long_the_pauses() {
        let (mut client, mut upstream, run) = tunnel();
        assert_eq!(read(&mut client, 8).await, b"101 head");
        assert_eq!(read(&mut upstream, 11).await, b"early bytes");
        tokio::time::sleep(Duration::from_secs(100_000)).await;
        upstream.write_all(b"down").await.unwrap();
        assert_eq!(read(&mut client, 4).await, b"down");
        client.write_all(b"up").await.unwrap();
        assert_eq!(read(&mut upstream, 2).await, b"up");
        drop(client);
        drop(upstream);
        assert_eq!(run.await.unwrap(), 12);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_one_side_is_passed_on_and_the_other_may_go_on() {
        let (mut client, mut upstream, run) = tunnel();
        assert_eq!(read(&mut client, 8).await, b"101 head");
        client.shutdown().await.unwrap();
        let mut all = Vec::new();
        upstream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"early bytes");
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            upstream.write_all(b"more").await.unwrap();
            assert_eq!(read(&mut client, 4).await, b"more");
        }
        // The other side goes on and on without a word.
        assert_eq!(run.await.unwrap(), 20);
    }
}
