//! Connections to the upstream: a kept one, or a new one to the first server that can be reached.

use super::failure::Failure;
use super::pool::Pool;
use crate::server::gate::Settings;
use crate::server::gate::proxy::own_connection::dial;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType};
use tokio::time::timeout;

pub(in crate::server::gate) use crate::server::gate::proxy::own_connection::Socket;

/// A connection for one request.
pub(super) struct Link {
    pub(super) server: SocketAddr,
    pub(super) socket: Box<dyn Socket>,
    /// It has served another request before.
    pub(super) kept: bool,
}

/// A connection to the next server; `fresh` = not a kept one.
pub(super) async fn connect(
    pool: &Pool,
    settings: &Settings,
    fresh: bool,
) -> Result<Link, Failure> {
    let upstream = &settings.upstream;
    // Nothing was sent yet, so each of the servers may be tried.
    let mut tries = upstream.servers().max(1);
    loop {
        let server = upstream.next_socket().ok_or(Failure::NoServer)?;
        if !fresh && let Some(socket) = pool.take(&server) {
            return Ok(Link { server, socket, kept: true });
        }
        let failure = match timeout(settings.connect_timeout, dial(&server)).await {
            Ok(Ok(socket)) => return Ok(Link { server, socket, kept: false }),
            Ok(Err(error)) => refused(&error),
            Err(_) => Failure::ConnectTimeout,
        };
        tries -= 1;
        if tries == 0 {
            return Err(failure);
        }
        tracing::debug!(%server, ?failure, "an upstream server cannot be reached");
    }
}

fn refused(error: &Error) -> Failure {
    let io = error.root_cause().downcast_ref::<std::io::Error>();
    match error.etype() {
        ErrorType::ConnectTimedout => Failure::ConnectTimeout,
        _ => Failure::Connect(io.and_then(std::io::Error::raw_os_error)),
    }
}
