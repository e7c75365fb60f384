//! A connection narrowed to one request.
//!
//! The reader of this stream sees exactly one request: the bytes that the fast path has read
//! already, then the body as [`Framing`] follows it, and nothing behind it. Bytes that the client
//! sends beyond it are kept aside for the fast path, and the client's end is still noticed
//! meanwhile. Writes are gathered, so that a response's head and the beginning of its body leave
//! together.

use crate::protocol::http::framing::Framing;
use crate::server::gate::proxy::connection_state::ConnectionState;
use crate::server::limits::body_rate::BodyRate;
use crate::server::net::stream::{pass_on_identity, pass_on_tls};
use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::protocols::{Shutdown, Stream};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes of following requests that are kept aside; more stay in the kernel.
const MAX_ASIDE: usize = 64 * 1024;
/// Bytes gathered before they are written.
const MAX_GATHERED: usize = 16 * 1024;
/// Bytes read at once of a request.
const MAX_READ: usize = 16 * 1024;
/// The time that the upstream may take to begin its response to a client that closed its half of
/// the connection, or is gone.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct OneRequest {
    inner: Stream,
    framing: Framing,
    /// Read by the fast path, not yet by the reader of this stream.
    ahead: BytesMut,
    /// Bytes at the start of `ahead` that are known to belong to the request.
    cleared: usize,
    aside: BytesMut,
    gathered: BytesMut,
    rate: BodyRate,
    upgrade: Upgrade,
    /// Some of the answer has been written.
    answered: bool,
    /// Carries the streams of HTTP/2, whose writes wait for one another.
    turn: Option<Turn>,
    /// The wait for a response after the client's end.
    patience: Option<Pin<Box<Sleep>>>,
    state: Arc<ConnectionState>,
}

/// The turn of a connection whose streams write one after another.
///
/// A crowd that is released writes stream by stream, each from a task of its own, and wakes the
/// connection's task with it. That task lets all others that are ready go first, once, so that what
/// they write leaves in one system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The next flush waits for the others.
    Others,
    /// They have had their turn.
    Own,
}

/// The progress of a change of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upgrade {
    /// Nothing holds up what follows the head.
    Free,
    /// The bytes after the head are of the next protocol, if the response agrees to it; pingora would
    /// take it for nonsense until then.
    Awaited,
    /// The answer did not agree: what follows the head is nothing.
    Refused,
}

impl OneRequest {
    /// The request that begins with the first `head` of `ahead`; `framing` is its body's.
    pub(super) fn new(
        inner: Stream,
        ahead: BytesMut,
        head: usize,
        framing: Framing,
        rate: BodyRate,
    ) -> Self {
        let aside = BytesMut::new();
        let gathered = BytesMut::new();
        let upgrade = Upgrade::Free;
        let state = Arc::default();
        Self {
            inner,
            framing,
            ahead,
            cleared: head,
            aside,
            gathered,
            rate,
            upgrade,
            answered: false,
            turn: None,
            patience: None,
            state,
        }
    }

    /// The same, as the streams of one connection share it.
    pub(super) fn shared_by_streams(mut self) -> Self {
        self.turn = Some(Turn::Others);
        self
    }

    /// The same, on a connection with this `state`.
    pub(super) fn on(mut self, state: Arc<ConnectionState>) -> Self {
        self.state = state;
        self
    }

    /// The same, whose head asks for another protocol.
    pub(super) fn awaiting_upgrade(mut self) -> Self {
        self.upgrade = Upgrade::Awaited;
        self
    }

    /// The connection, and the bytes of the next requests that have come; `None` if this request
    /// was not read to its end.
    pub(super) fn finish(mut self) -> Option<(Stream, BytesMut)> {
        if self.cleared > 0 || !self.framing.is_over() {
            return None;
        }
        self.ahead.unsplit(self.aside);
        Some((self.inner, self.ahead))
    }

    /// Returns bytes that the fast path has read, as far as they belong to the request.
    fn read_ahead(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        if self.cleared == 0 {
            self.cleared = self.framing.take(&self.ahead)?;
        }
        let length = self.cleared.min(buf.remaining());
        buf.put_slice(&self.ahead[..length]);
        self.ahead.advance(length);
        self.cleared -= length;
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        Ok(length > 0)
    }

    /// Reads what comes after the request, only to notice the client's end.
    fn watch(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [0u8; 512];
        while self.aside.len() < MAX_ASIDE {
            let mut buf = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut self.inner).poll_read(context, &mut buf))?;
            if buf.filled().is_empty() {
                return self.ended(context);
            }
            self.aside.extend_from_slice(buf.filled());
        }
        Poll::Pending
    }

    /// Handles the client's end of stream. It may have closed only its half of the connection and
    /// still read, which looks the same.
    fn ended(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.state.is_forwarded() {
            return Poll::Ready(Ok(()));
        }
        if self.answered {
            // A write to a client that is gone fails.
            return Poll::Pending;
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(HALF_CLOSED)));
        patience.as_mut().poll(context).map(Ok)
    }

    /// Returns the request's bytes, and after them nothing.
    fn read_request(
        &mut self,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.upgrade != Upgrade::Free && self.cleared == 0 {
            return self.watch(context);
        }
        if buf.remaining() == 0 || self.read_ahead(buf)? {
            return Poll::Ready(Ok(()));
        }
        if self.framing.is_over() {
            return self.watch(context);
        }
        let before = buf.filled().len();
        // An upgrade or HTTP/2 has no end of its own and may be as slow as it likes.
        let counts = !matches!(self.framing, Framing::Endless);
        if counts {
            self.rate.wait(Instant::now());
        }
        // Pingora's own buffer stays as it is filled, for as long as the client takes for the rest.
        let room = buf.remaining().min(MAX_READ);
        let mut piece = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.inner).poll_read(context, &mut piece))?;
        let length = piece.filled().len();
        buf.advance(length);
        if counts && length > 0 && !self.rate.took(length, Instant::now()) {
            let words = "the body of the request comes too slowly (limits.body_rate)";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, words)));
        }
        let taken = self.framing.take(&buf.filled()[before..])?;
        self.aside.extend_from_slice(&buf.filled()[before + taken..]);
        buf.set_filled(before + taken);
        Poll::Ready(Ok(()))
    }

    /// Looks at what is written for the answer to a change of the protocol.
    fn look_at(&mut self, written: &[u8]) {
        const BEGINNING: &[u8] = b"HTTP/1.1 ";
        let Some(status) = written.strip_prefix(BEGINNING).and_then(|rest| rest.get(..3)) else {
            return;
        };
        match status {
            b"101" => {
                self.upgrade = Upgrade::Free;
                self.ahead.unsplit(std::mem::take(&mut self.aside));
            }
            // An answer before the answer.
            [b'1', ..] => {}
            _ => self.upgrade = Upgrade::Refused,
        }
    }

    fn write_gathered(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(context, &self.gathered))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
        }
        self.gathered = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for OneRequest {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = this.read_request(context, buf);
        // A reader that waits for more has nothing more to write just now, so gathered bytes must
        // not wait with it. A response that the upstream sends slowly passes as it comes.
        // A connection of HTTP/2 is flushed after every read that waits.
        if read.is_pending() && !this.gathered.is_empty() && this.turn.is_none() {
            match this.write_gathered(context) {
                Poll::Ready(Ok(())) => {
                    let _ = Pin::new(&mut this.inner).poll_flush(context);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        read
    }
}

impl AsyncWrite for OneRequest {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.gathered.len() + buf.len() > MAX_GATHERED {
            ready!(this.write_gathered(context))?;
        }
        this.answered = true;
        if this.upgrade == Upgrade::Awaited {
            this.look_at(buf);
        }
        if buf.len() > MAX_GATHERED {
            return Pin::new(&mut this.inner).poll_write(context, buf);
        }
        this.gathered.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.turn == Some(Turn::Others) && !this.gathered.is_empty() {
            this.turn = Some(Turn::Own);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(this.write_gathered(context))?;
        if let Some(turn) = &mut this.turn {
            *turn = Turn::Others;
        }
        Pin::new(&mut this.inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.write_gathered(context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }
}

// Pingora's other requirements on a stream are met by the connection itself.

#[async_trait]
impl Shutdown for OneRequest {
    async fn shutdown(&mut self) {
        let _ = tokio::io::AsyncWriteExt::flush(self).await;
        self.inner.shutdown().await;
    }
}

pass_on_identity!(OneRequest);
pass_on_tls!(OneRequest);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_streams_write_one_after_another_leaves_at_once() {
        let (near, mut far) = tokio::io::duplex(1000);
        let (stream, rate): (Stream, _) = (Box::new(near), BodyRate::default());
        let one = OneRequest::new(stream, BytesMut::new(), 0, Framing::Endless, rate);
        let mut one = one.shared_by_streams();
        for _ in 0..3 {
            one.write_all(b"first ").await.unwrap();
            let flushed = poll_fn(|context| {
                let flushed = Pin::new(&mut one).poll_flush(context);
                Poll::Ready(flushed.is_ready())
            });
            assert!(!flushed.await, "other streams may have something to write");
            one.write_all(b"second").await.unwrap();
            one.flush().await.unwrap();
            let mut read = [0; 100];
            let length = far.read(&mut read).await.unwrap();
            assert_eq!(&read[..length], b"first second");
        }
        // With nothing to write there is nothing to wait for.
        let flushed =
            poll_fn(|context| Poll::Ready(Pin::new(&mut one).poll_flush(context).is_ready()));
        assert!(flushed.await);
    }
}
