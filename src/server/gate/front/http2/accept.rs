//! The streams of one HTTP/2 connection: each is accepted, and served in a task of its own.
//!
//! The engine's own loop gives each task the room of everything that a stream may become. Here the
//! session is in a box, so that a stream that is held has room for its hold alone.

use super::Http2;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Accept, HttpSession, handshake};
use pingora::protocols::{Digest, Stream};
use pingora::server::ShutdownWatch;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Malformed requests after which a connection is given up.
const MAX_MALFORMED: usize = 32;

/// The streams of a connection that are served now.
#[derive(Default)]
struct Streams {
    open: AtomicUsize,
    none: Notify,
}

/// One of them; dropping it ends it.
pub(super) struct OpenStream(Arc<Streams>);

impl OpenStream {
    fn of(streams: &Arc<Streams>) -> Self {
        streams.open.fetch_add(1, Ordering::Relaxed);
        Self(streams.clone())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.none.notify_one();
        }
    }
}

impl Streams {
    /// Ends once there has been no stream for `time`. An accepted stream ends the wait, and the next
    /// one begins anew.
    async fn idle(&self, time: Duration) {
        while self.open.load(Ordering::Relaxed) != 0 {
            self.none.notified().await;
        }
        tokio::time::sleep(time).await;
    }
}

impl Http2 {
    /// Serves a connection until either side ends it. At a shutdown no more streams are accepted
    /// than those that the client opened before it knew of it, and the others are served to their
    /// ends.
    pub(in crate::server::gate::front) async fn accept(
        self: Arc<Self>,
        stream: Stream,
        mut shutdown: ShutdownWatch,
    ) {
        let digest = Arc::new(Digest {
            ssl_digest: stream.get_ssl_digest(),
            timing_digest: stream.get_timing_digest(),
            proxy_digest: stream.get_proxy_digest(),
            socket_digest: stream.get_socket_digest(),
        });
        let Ok(mut connection) = handshake(stream, Some(self.options())).await else { return };
        let streams = Arc::new(Streams::default());
        let mut is_ending = false;
        let mut malformed = 0;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = shutdown.changed(), if !is_ending => {
                    connection.graceful_shutdown();
                    is_ending = true;
                    continue;
                }
                accepted = HttpSession::from_h2_conn(&mut connection, digest.clone()) => accepted,
                () = streams.idle(self.idle_timeout.unwrap_or_default()),
                    if !is_ending && self.idle_timeout.is_some() => return,
            };
            match accepted {
                Ok(Some(H2Accept::Session(session))) => {
                    // The one allocation of a session's size; the task moves a pointer.
                    let session = Box::new(ServerSession::H2(session));
                    let open = OpenStream::of(&streams);
                    tokio::spawn(self.clone().stream(session, open, shutdown.clone()));
                }
                Ok(Some(H2Accept::Rejected)) => {
                    malformed += 1;
                    if malformed >= MAX_MALFORMED {
                        return;
                    }
                }
                // The client has closed the connection, or broken it.
                Ok(None) | Err(_) => return,
            }
        }
    }
}
