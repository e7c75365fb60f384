//! The connection lane: the public listener's own handling of connections.
//!
//! Over HTTP/1.1 the lane reads a request's head itself. A plain poll it holds and answers
//! without the proxy engine ever seeing it, in a fraction of the memory. Every other request is
//! handed to the engine on the same connection, narrowed to just that request
//! (`OneRequest`), and the connection comes back to the lane afterwards. So there is one place
//! that decides where a request ends, requests that arrive early are answered in their order,
//! and a head that could be read in two ways goes nowhere.
//!
//! HTTP/2 connections are pingora's, with plain polls taken out of their streams in the same
//! way.
//!
//! What a connection speaks before that, plain or TLS, is its `Entrance`'s matter.

mod entrance;
mod framing;
mod head;
mod http2;
mod lane;
mod one_request;
mod response;
mod spare;

pub use entrance::Entrance;
pub use head::Bounds;

use super::Gate;
use super::proxy::Proxy;
use async_trait::async_trait;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::protocols::Stream;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use std::sync::Arc;

/// The public listener's app.
pub struct Front {
    gate: Gate,
    proxy: Arc<HttpProxy<Proxy>>,
    entrance: Entrance,
}

impl Front {
    /// A lane before `proxy`, both of them `gate`'s, for connections that come in through
    /// `entrance`.
    pub fn new(gate: Gate, proxy: Arc<HttpProxy<Proxy>>, entrance: Entrance) -> Self {
        Self { gate, proxy, entrance }
    }
}

#[async_trait]
impl ServerApp for Front {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        // The task that calls this is several times as large as the lane's own, and would live as
        // long as the connection.
        tokio::spawn(lane::serve(self.clone(), stream, shutdown.clone()));
        None
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}
