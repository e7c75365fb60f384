//! The fast path: the public listener's own handling of connections.
//!
//! Over HTTP/1.1 the fast path reads a request's head itself. It holds and answers a plain poll
//! without pingora's proxy ever seeing it, in a fraction of the memory. It hands every other
//! request off to pingora on the same connection, narrowed to just that request (`OneRequest`), and
//! gets the connection back afterwards. So one place decides where a request ends, requests that
//! arrive early are answered in their order, and a head that could be read in two ways goes
//! nowhere.
//!
//! HTTP/2 connections are pingora's, with plain polls taken out of their streams in the same way.
//!
//! The `Transport` decides what a connection speaks before that, plain or TLS.

#[cfg(test)]
mod agreement;
pub(super) mod buffer_pool;
mod connection;
mod ending;
mod handshake;
mod head;
mod http2;
mod http2_window;
mod one_request;
pub(super) mod response;
mod steady;

pub use handshake::Transport;
pub use head::Bounds;

use super::Gate;
use super::forward::Forwarder;
use super::proxy::Proxy;
use async_trait::async_trait;
use ending::Ending;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::listeners::ConnectionFilter;
use pingora::protocols::Stream;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use steady::SteadyStream;

/// The public listener's app.
pub struct Front {
    gate: Gate,
    proxy: Arc<HttpProxy<Proxy>>,
    forwarder: Arc<Forwarder>,
    entrance: Transport,
    ending: Ending,
}

impl Front {
    /// A fast path before `forwarder` and `proxy`, all of them `gate`'s, for connections that come
    /// in through `entrance`.
    pub fn new(
        gate: Gate,
        proxy: Arc<HttpProxy<Proxy>>,
        forwarder: Arc<Forwarder>,
        entrance: Transport,
    ) -> Self {
        Self { gate, proxy, forwarder, entrance, ending: Ending::default() }
    }

    /// True if no connection is kept any more.
    fn is_ending(&self) -> bool {
        self.ending.is_over() || self.gate.is_draining()
    }
}

/// Closes connections that come too often, or find no room, before the next one is accepted. They
/// get no response.
///
/// A connection that it admits reaches the app: in between, pingora only sets options of the
/// socket, which Linux does not refuse.
pub struct AdmissionFilter {
    gate: Gate,
}

impl AdmissionFilter {
    /// The admission filter of `gate`.
    pub fn new(gate: Gate) -> Self {
        Self { gate }
    }
}

impl fmt::Debug for AdmissionFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdmissionFilter")
    }
}

#[async_trait]
impl ConnectionFilter for AdmissionFilter {
    async fn should_accept(&self, peer: Option<&std::net::SocketAddr>) -> bool {
        peer.is_none_or(|peer| self.gate.admits(Some(peer.ip().to_canonical())))
    }
}

#[async_trait]
impl ServerApp for Front {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        // The task that calls this is several times as large as the fast path's own, and would live
        // as long as the connection.
        let peer = peer(&stream);
        // `AdmissionFilter` has admitted TCP connections; pingora does not ask it about unix
        // sockets.
        if peer.is_none() && !self.gate.admits(None) {
            return None;
        }
        self.ending.watch(shutdown);
        let connected = self.gate.connected();
        let stream: Stream = Box::new(SteadyStream::new(stream, self.gate.clone()));
        tokio::spawn(connection::run(self.clone(), stream, peer, connected, shutdown.clone()));
        None
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

/// The far end of a connection; `None` on a unix socket.
fn peer(stream: &Stream) -> Option<IpAddr> {
    let digest = stream.get_socket_digest()?;
    Some(digest.peer_addr().and_then(SocketAddr::as_inet)?.ip().to_canonical())
}
