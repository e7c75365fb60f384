//! HTTP/2: the streams are pingora's; plain polls among them are held here.

use crate::gate::forward::Client;
use crate::gate::hold::Cause;
use crate::gate::proxy::Proxy;
use crate::gate::{Decision, Gate, Settings, session};
use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The app of an HTTP/2 connection.
pub(super) struct Http2 {
    gate: Gate,
    proxy: Arc<HttpProxy<Proxy>>,
    options: HttpServerOptions,
}

impl Http2 {
    pub(super) fn new(gate: Gate, proxy: Arc<HttpProxy<Proxy>>) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = gate.settings().idle_timeout;
        Self { gate, proxy, options }
    }

    /// Holds or answers the stream, or gives it back.
    async fn poll(&self, mut stream: Box<ServerSession>) -> Option<Box<ServerSession>> {
        let head = stream.req_header();
        if head.method != http::Method::GET || !stream.is_body_done() {
            return Some(stream);
        }
        let settings = self.gate.settings();
        let (_open, began) = (self.gate.open(), Instant::now());
        let client = client(&stream, &settings);
        let decision = session::decide(&self.gate, &settings, &stream, None, client);
        stream.set_write_timeout(settings.write_timeout);
        let held = match decision {
            Decision::Site => return Some(stream),
            Decision::Publish(channel) => {
                let reply = self.gate.publish(channel).await;
                let _ = session::write(&mut stream, reply).await;
                None
            }
            Decision::Reply(reply, cause) => {
                let _ = session::write(&mut stream, reply).await;
                cause.map(|cause| (Duration::ZERO, cause))
            }
            Decision::Hold(held) => match session::hold(&mut stream, held).await {
                Ok(ended) => Some((ended.held, ended.cause)),
                Err(_) => Some((began.elapsed(), Cause::Gone)),
            },
        };
        session::log(&stream, &settings, client, began, held);
        None
    }
}

fn client(stream: &ServerSession, settings: &Settings) -> Option<IpAddr> {
    let peer = session::peer_address(stream);
    Client::of(peer, &stream.req_header().headers, &settings.trusted_proxies).address
}

#[async_trait]
impl HttpServerApp for Http2 {
    async fn process_new_http(
        self: &Arc<Self>,
        stream: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let stream = self.poll(Box::new(stream)).await?;
        self.proxy.process_new_http(*stream, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        // With bounds on the streams and on the headers of one.
        Some(default_h2_options())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
