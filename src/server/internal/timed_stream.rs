//! A connection that is checked on its way to pingora's parser.
//!
//! It tracks bodies, as the parser overlooks chunk extensions and the like: wrong framing is an
//! error here. And it has timeouts: between two requests, for a whole head, for a pause in a body
//! or in taking a response. A client that takes longer meets an error of the kind
//! [`ErrorKind::TimedOut`], between two requests one of the kind [`ErrorKind::ConnectionAborted`],
//! as no client waits for a response there.

use crate::protocol::http::tracker::{BodyTracker, Phase};
use crate::server::net::stream::{pass_on_identity, pass_on_tls};
use crate::server::net::write_stall::WriteStall;
use async_trait::async_trait;
use pingora::protocols::{Shutdown, Stream};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Timeouts of a client; `None` = for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Of a whole head, and of the first byte on a new connection.
    pub head: Option<Duration>,
    /// Between two requests.
    pub idle: Option<Duration>,
    /// In the middle of a body, and in taking some of a response.
    pub stall: Option<Duration>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct TimedStream {
    inner: Stream,
    follower: BodyTracker,
    patience: Timeouts,
    /// No request has come yet.
    fresh: bool,
    reading: Deadline,
    writing: WriteStall,
}

impl TimedStream {
    pub(super) fn new(inner: Stream, patience: Timeouts) -> Self {
        let reading = Deadline::default();
        let writing = WriteStall::default();
        Self { inner, follower: BodyTracker::default(), patience, fresh: true, reading, writing }
    }

    /// The result of a read that has nothing to read.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Timeouts { head, idle, stall } = self.patience;
        let (limit, kind) = match self.follower.place() {
            Phase::Between if self.fresh => (head, ErrorKind::ConnectionAborted),
            Phase::Between => (idle, ErrorKind::ConnectionAborted),
            Phase::Head => (head, ErrorKind::TimedOut),
            Phase::Body => (stall, ErrorKind::TimedOut),
        };
        self.reading.poll(limit, context).map(|()| Err(kind.into()))
    }

    /// Tracks bytes read; returns how many of them may be passed on.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let before = self.follower.place();
        let taken = self.follower.take(bytes)?;
        self.fresh &= bytes.is_empty();
        // A head has one timeout as a whole; all else begins anew.
        if before != Phase::Head || self.follower.place() != Phase::Head {
            self.reading.disarm();
        }
        Ok(taken)
    }

    /// Times a client that does not take written bytes.
    fn accepted<T>(
        &mut self,
        done: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        let stall = self.patience.stall;
        self.writing.watch(&self.inner, || stall, done, context)
    }
}

/// A deadline for a wait that is under way.
#[derive(Debug, Default)]
struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    /// Ready once the wait has taken `limit`; it begins with the first call.
    fn poll(&mut self, limit: Option<Duration>, context: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = limit else { return Poll::Pending };
        self.0.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(context)
    }

    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        // The wrongly framed bytes have been read, and nothing may come behind them.
        this.follower.check()?;
        match Pin::new(&mut this.inner).poll_read(context, buf) {
            Poll::Pending => this.wait(context),
            Poll::Ready(read) => {
                read?;
                let taken = this.take(&buf.filled()[before..])?;
                buf.set_filled(before + taken);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(context, buf);
        this.accepted(written, context)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(context);
        this.accepted(flushed, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

// Pingora's other requirements on a stream are met by the connection itself.

#[async_trait]
impl Shutdown for TimedStream {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

pass_on_identity!(TimedStream);
pass_on_tls!(TimedStream);
