//! A connection whose bodies are followed on their way to the engine's parser, which overlooks
//! chunk extensions and the like; what is framed wrongly is an error there.

use crate::stream::{pass_on_identity, pass_on_tls};
use crate::strict::follow::Follower;
use async_trait::async_trait;
use pingora::protocols::{Shutdown, Stream};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Followed {
    inner: Stream,
    follower: Follower,
}

impl Followed {
    pub(super) fn new(inner: Stream) -> Self {
        Self { inner, follower: Follower::default() }
    }
}

impl AsyncRead for Followed {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        // The bytes that were framed wrongly have been read, and nothing may come behind them.
        this.follower.check()?;
        ready!(Pin::new(&mut this.inner).poll_read(context, buf))?;
        let taken = this.follower.take(&buf.filled()[before..])?;
        buf.set_filled(before + taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Followed {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

// The rest of what pingora asks of a stream is the connection's own.

#[async_trait]
impl Shutdown for Followed {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

pass_on_identity!(Followed);
pass_on_tls!(Followed);
