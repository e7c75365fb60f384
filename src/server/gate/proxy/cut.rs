//! Cutting off polls that the upstream itself holds.
//!
//! The connection of such a poll fails to be read once the upstream has been silent for too long.
//! With the first byte of its response that is over: a response that has begun is never cut.

use super::own_connection::{self, ReadRule};
use pingora::upstreams::peer::HttpPeer;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Set once the upstream has been silent for too long.
pub(super) type WasCut = Arc<AtomicBool>;

/// Lets the upstream be silent for `most` before its response.
pub(super) fn prepare(peer: &mut HttpPeer, most: Duration) -> WasCut {
    let was_cut = WasCut::default();
    let flag = was_cut.clone();
    own_connection::prepare(peer, move || Limited::new(most, flag.clone()));
    was_cut
}

/// See the [module](self).
#[derive(Debug)]
struct Limited {
    most: Duration,
    /// Runs from the first read that has to wait.
    sleep: Option<Pin<Box<Sleep>>>,
    begun: bool,
    was_cut: WasCut,
}

impl Limited {
    fn new(most: Duration, was_cut: WasCut) -> Self {
        Self { most, sleep: None, begun: false, was_cut }
    }
}

impl ReadRule for Limited {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        inner: &mut S,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(inner).poll_read(context, buf);
        if read.is_ready() {
            self.begun = true;
            self.sleep = None;
        }
        if self.begun {
            return read;
        }
        let most = self.most;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(most)));
        if sleep.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.was_cut.store(true, Ordering::SeqCst);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::server::gate::proxy::own_connection::Ruled;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn only_a_response_that_has_not_begun_is_cut() {
        for (first, begins) in [(9, true), (11, false)] {
            let (near, mut far) = tokio::io::duplex(100);
            let most = Duration::from_secs(10);
            let was_cut = WasCut::default();
            let flag = was_cut.clone();
            let mut limited = Ruled { inner: near, rule: Limited::new(most, was_cut) };
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
