//! A client that takes nothing of what is written to it.
//!
//! A write that waits is given up once the client has made no progress for a time. Progress is a
//! write that the system takes, or, as the system's buffers can hold minutes' worth of a slow line, a
//! byte that the client has acknowledged meanwhile. So a client may read as slowly as it likes,
//! but not stop. On a unix socket, where nothing is acknowledged, only the first counts; its
//! buffers are small.

use pingora::protocols::Stream;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// Watches the writes of one connection. Holds nothing while none of them waits.
#[derive(Debug, Default)]
pub(crate) struct WriteStall(Option<Box<Waiting>>);

#[derive(Debug)]
struct Waiting {
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
    /// Bytes that the client had acknowledged when the time began.
    acknowledged: u64,
}

impl WriteStall {
    /// The outcome of a write to `stream` that came to `written`; `limit` is asked when it begins
    /// to wait, `None` = for ever. A client that makes no progress is an error of the kind
    /// [`ErrorKind::TimedOut`].
    pub(crate) fn watch<T>(
        &mut self,
        stream: &Stream,
        limit: impl FnOnce() -> Option<Duration>,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.0 = None;
            return written;
        }
        if self.0.is_none() {
            let Some(limit) = limit() else { return Poll::Pending };
            let sleep = Box::pin(sleep(limit));
            let acknowledged = acknowledged(stream);
            self.0 = Some(Box::new(Waiting { limit, sleep, acknowledged }));
        }
        let Some(waiting) = &mut self.0 else { return Poll::Pending };
        while waiting.sleep.as_mut().poll(context).is_ready() {
            let now = acknowledged(stream);
            if now <= waiting.acknowledged {
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            waiting.acknowledged = now;
            waiting.sleep.as_mut().reset(Instant::now() + waiting.limit);
        }
        Poll::Pending
    }
}

/// The bytes that the client has acknowledged so far; 0 on a unix socket.
fn acknowledged(stream: &Stream) -> u64 {
    let digest = stream.get_socket_digest();
    digest.and_then(|digest| digest.tcp_info()).map_or(0, |info| info.tcpi_bytes_acked)
}
