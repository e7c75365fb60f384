//! Reading from a connection: heads, and the client's end.
//!
//! A connection that waits for bytes holds no buffer for them.

use super::Connection;
use crate::server::gate::Settings;
use crate::server::gate::front::ending::Registered;
use crate::server::gate::front::head::{self, HeadScan};
use crate::server::gate::front::{Front, buffer_pool};
use bytes::BytesMut;
use pingora::protocols::Stream;
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

/// Bytes read at once; most heads are shorter.
const READ: usize = 4096;

/// Time that a new connection has for its request when the gate shuts down.
const LAST_CALL: Duration = Duration::from_millis(500);

impl Connection {
    /// Reads until there is a head, or bytes that can be none. `None` = the connection must be
    /// closed without a response. Also returns the settings that the request is served with.
    pub(super) async fn read_head(
        &mut self,
        front: &Front,
        registered: &Registered,
    ) -> Option<(HeadScan, Arc<Settings>)> {
        let settings = front.gate.settings();
        if self.pending.is_empty() {
            // A new connection has its request with it; a kept one may be idle for a while.
            let fresh = self.fresh;
            let idle = if fresh { settings.head_timeout } else { settings.idle_timeout };
            drop(settings);
            let first = pin!(async {
                let read = poll_fn(|context| {
                    match poll_read_some(&mut self.stream, &mut self.pending, context) {
                        Poll::Pending if registered.wait() => Poll::Ready(None),
                        read => read.map(Some),
                    }
                });
                let read = read.await;
                registered.resume();
                if let Some(length) = read {
                    return length > 0;
                }
                // A client that connected at the very end has its request on the way, and gets its
                // response.
                let last = read_some(&mut self.stream, &mut self.pending);
                fresh && Box::pin(timeout(LAST_CALL, last)).await.is_ok_and(|length| length > 0)
            });
            if !self.timer.within(idle, first).await.unwrap_or(false) {
                return None;
            }
        }
        // Nearly every head comes in one piece.
        let settings = front.gate.settings();
        let sighting = match head::sight(&self.pending, 0, settings.head) {
            HeadScan::More => Box::pin(self.read_rest(&settings)).await?,
            sighting => sighting,
        };
        Some((sighting, settings))
    }

    async fn read_rest(&mut self, settings: &Settings) -> Option<HeadScan> {
        let reading = pin!(async {
            loop {
                let seen = self.pending.len();
                if read_some(&mut self.stream, &mut self.pending).await == 0 {
                    return None;
                }
                match head::sight(&self.pending, seen, settings.head) {
                    HeadScan::More => {}
                    sighting => return Some(sighting),
                }
            }
        });
        let late = HeadScan::Refused(408, "the head of the request did not arrive in time");
        self.timer.within(settings.head_timeout, reading).await.unwrap_or(Some(late))
    }

    /// Closes, after reading a little of what may still be coming: a reset would take the response
    /// away from a client that is still writing.
    pub(super) async fn close(mut self) {
        const LINGER: Duration = Duration::from_secs(1);
        const MAX: usize = 256 * 1024;
        let lingering = pin!(async {
            let _ = AsyncWriteExt::shutdown(&mut self.stream).await;
            let mut sum = 0;
            while sum < MAX {
                self.pending.clear();
                match read_some(&mut self.stream, &mut self.pending).await {
                    0 => return,
                    length => sum += length,
                }
            }
        });
        self.timer.within(Some(LINGER), lingering).await;
    }
}

/// Ends when the client does. Meanwhile the client can send its next request, kept in `pending` up
/// to `most` bytes; more stays in the kernel.
pub(super) async fn gone(stream: &mut Stream, pending: &mut BytesMut, most: usize) {
    poll_fn(|context| poll_gone(stream, pending, most, context)).await;
}

/// The same, for a task that waits for more than that.
pub(super) fn poll_gone(
    stream: &mut Stream,
    pending: &mut BytesMut,
    most: usize,
    context: &mut Context<'_>,
) -> Poll<()> {
    while pending.len() < most {
        if ready!(poll_read_some(stream, pending, context)) == 0 {
            return Poll::Ready(());
        }
    }
    Poll::Pending
}

/// Reads once, and returns the number of bytes; 0 = nothing will come any more.
pub(super) async fn read_some(stream: &mut Stream, pending: &mut BytesMut) -> usize {
    poll_fn(|context| poll_read_some(stream, pending, context)).await
}

/// Reads once. The buffer is on the stack during the read only: a connection that waits holds
/// none.
pub(super) fn poll_read_some(
    stream: &mut Stream,
    pending: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<usize> {
    let mut room = [MaybeUninit::uninit(); READ];
    let mut buf = ReadBuf::uninit(&mut room);
    let read = ready!(Pin::new(stream).poll_read(context, &mut buf));
    if pending.capacity() == 0 && !buf.filled().is_empty() {
        *pending = buffer_pool::take();
    }
    pending.extend_from_slice(buf.filled());
    Poll::Ready(read.map_or(0, |()| buf.filled().len()))
}
