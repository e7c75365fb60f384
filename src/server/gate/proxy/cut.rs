//! Cutting off polls that the upstream itself holds.
//!
//! The connection of such a poll fails to be read once the upstream has been silent for too long.
//! With the first byte of its response that is over: a response that has begun is never cut.

use super::own_connection::{self, Socket};
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket};
use pingora::upstreams::peer::HttpPeer;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Set once the upstream has been silent for too long.
pub(super) type WasCut = Arc<AtomicBool>;

/// Lets the upstream be silent for `most` before its response.
pub(super) fn prepare(peer: &mut HttpPeer, most: Duration) -> WasCut {
    let was_cut = WasCut::default();
    let flag = was_cut.clone();
    own_connection::prepare(peer, move |inner| {
        Box::new(Limited { inner, most, sleep: None, begun: false, was_cut: flag.clone() })
    });
    was_cut
}

/// See the [module](self).
#[derive(Debug)]
struct Limited<S> {
    inner: S,
    most: Duration,
    /// Runs from the first read that has to wait.
    sleep: Option<Pin<Box<Sleep>>>,
    begun: bool,
    was_cut: WasCut,
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let read = Pin::new(&mut this.inner).poll_read(context, buf);
        if read.is_ready() {
            this.begun = true;
            this.sleep = None;
        }
        if this.begun {
            return read;
        }
        let most = this.most;
        let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep(most)));
        if sleep.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        this.was_cut.store(true, Ordering::SeqCst);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S: Socket> VirtualSocket for Limited<S> {
    /// The gate's own options are set already.
    fn set_socket_option(&self, _option: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn only_a_response_that_has_not_begun_is_cut() {
        for (first, begins) in [(9, true), (11, false)] {
            let (near, mut far) = tokio::io::duplex(100);
            let most = Duration::from_secs(10);
            let was_cut = WasCut::default();
            let flag = was_cut.clone();
            let mut limited = Limited { inner: near, most, sleep: None, begun: false, was_cut };
            tokio::spawn(async move {
                sleep(Duration::from_secs(first)).await;
                let _ = far.write_all(b"a").await;
                sleep(Duration::from_secs(60)).await;
                let _ = far.write_all(b"b").await;
            });
            let mut read = Vec::new();
            let ended = limited.read_to_end(&mut read).await;
            let expected = if begins { &b"ab"[..] } else { b"" };
            assert_eq!((&*read, ended.is_ok()), (expected, begins));
            assert_eq!(flag.load(Ordering::SeqCst), !begins);
        }
    }
}
