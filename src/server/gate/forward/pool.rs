//! Connections to the upstream that are kept between two requests.
//!
//! The connection that came back last is taken first. One that the server has closed, or has sent
//! something on unasked, is never given out; it is found when it would be, or by a look at all of
//! them every few seconds. A look costs no system call: the runtime knows which sockets are ready.
//! Pingora's own pool (0.9.1) asks the system for the peer's address, and starts a task, for each
//! request.

use super::connect::Socket;
use parking_lot::Mutex;
use pingora::protocols::l4::socket::SocketAddr;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep};

/// Time for which a connection is kept.
const IDLE: Duration = Duration::from_secs(60);
/// Interval of the looks at all of them.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// A cheap handle to the kept connections.
#[derive(Clone)]
pub(in crate::server::gate) struct Pool(Arc<Shared>);

struct Shared {
    max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The longest kept one first.
    idle: Vec<Idle>,
    /// A task looks after them.
    swept: bool,
}

struct Idle {
    server: SocketAddr,
    socket: Box<dyn Socket>,
    since: Instant,
}

impl Pool {
    /// Keeps up to `max` connections.
    pub(in crate::server::gate) fn new(max: usize) -> Self {
        Self(Arc::new(Shared { max, state: Mutex::default() }))
    }

    /// A connection to `server` that is still good, as far as that is known.
    pub(super) fn take(&self, server: &SocketAddr) -> Option<Box<dyn Socket>> {
        loop {
            let mut kept = {
                let idle = &mut self.0.state.lock().idle;
                let at = idle.iter().rposition(|kept| kept.server == *server)?;
                idle.remove(at)
            };
            if kept.is_good() {
                return Some(kept.socket);
            }
        }
    }

    /// Keeps a connection; the longest kept one makes room.
    pub(super) fn put(&self, server: SocketAddr, socket: Box<dyn Socket>) {
        let kept = Idle { server, socket, since: Instant::now() };
        let mut state = self.0.state.lock();
        let full = state.idle.len() >= self.0.max && !state.idle.is_empty();
        let dropped = full.then(|| state.idle.remove(0));
        if self.0.max > 0 {
            state.idle.push(kept);
        }
        if !std::mem::replace(&mut state.swept, true) {
            tokio::spawn(sweep(self.clone()));
        }
        drop(state);
        drop(dropped);
    }
}

impl Idle {
    /// True if the server has neither closed it nor sent anything.
    fn is_good(&mut self) -> bool {
        let mut room = [0; 1];
        let socket = &mut self.socket;
        let read = poll_fn(|context| {
            Pin::new(&mut *socket).poll_read(context, &mut ReadBuf::new(&mut room))
        });
        // A task that has done much in one go would find nothing ready.
        let read = pin!(unconstrained(read));
        read.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }
}

/// Closes what has ended or was kept for long enough, until nothing is kept.
async fn sweep(pool: Pool) {
    loop {
        sleep(SWEEP_EVERY).await;
        let now = Instant::now();
        let mut state = pool.0.state.lock();
        let ended = state
            .idle
            .extract_if(.., |kept| now.duration_since(kept.since) >= IDLE || !kept.is_good())
            .collect::<Vec<_>>();
        state.swept = !state.idle.is_empty();
        let over = !state.swept;
        drop(state);
        drop(ended);
        if over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    fn server(port: u16) -> SocketAddr {
        SocketAddr::Inet(([192, 0, 2, 1], port).into())
    }

    /// A pool with one connection, and the server's end of it.
    fn with_one(max: usize) -> (Pool, DuplexStream) {
        let (near, far) = duplex(100);
        let pool = Pool::new(max);
        pool.put(server(1), Box::new(near));
        (pool, far)
    }

    #[tokio::test]
    async fn a_kept_connection_is_given_out_once_and_for_its_server() {
        let (pool, _far) = with_one(10);
        assert!(pool.take(&server(2)).is_none());
        assert!(pool.take(&server(1)).is_some());
        assert!(pool.take(&server(1)).is_none());
    }

    #[tokio::test]
    async fn one_that_was_closed_or_written_to_is_not_given_out() {
        let (pool, far) = with_one(10);
        drop(far);
        assert!(pool.take(&server(1)).is_none());
        let (pool, mut far) = with_one(10);
        assert!(far.write_all(b"HTTP/1.1 408 Timeout\r\n").await.is_ok());
        assert!(pool.take(&server(1)).is_none());
    }

    #[tokio::test]
    async fn the_longest_kept_one_makes_room() {
        let (pool, mut first) = with_one(1);
        let (near, mut second) = duplex(100);
        pool.put(server(1), Box::new(near));
        assert!(first.write_all(b"x").await.is_err() && second.write_all(b"").await.is_ok());
        let (pool, mut far) = with_one(0);
        assert!(far.write_all(b"x").await.is_err() && pool.take(&server(1)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_ended_or_is_not_wanted_is_closed_in_time() {
        let (pool, far) = with_one(10);
        drop(far);
        sleep(SWEEP_EVERY + Duration::from_millis(1)).await;
        assert!(pool.0.state.lock().idle.is_empty() && !pool.0.state.lock().swept);
        let (near, mut far) = duplex(100);
        pool.put(server(1), Box::new(near));
        sleep(IDLE - SWEEP_EVERY).await;
        assert_eq!(pool.0.state.lock().idle.len(), 1);
        sleep(2 * SWEEP_EVERY).await;
        assert!(far.write_all(b"x").await.is_err());
    }
}
