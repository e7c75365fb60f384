//! HTTP/2: pingora serves the streams; plain polls among them are held here.

use crate::protocol::http::validate::is_origin_target;
use crate::protocol::http::{Headers, Reply};
use crate::server::gate::proxy::Proxy;
use crate::server::gate::proxy::connection_state::ConnectionState;
use crate::server::gate::proxy::request_context::RequestContext;
use crate::server::gate::proxy::session::{self, SessionExchange};
use crate::server::gate::serve::{Served, serve};
use crate::server::gate::sites::{Chosen, RequestHost, ambiguous, misdirected};
use crate::server::gate::tls::Presented;
use crate::server::gate::{Gate, Settings};
use crate::server::limits::body_memory::BodyShare;
use crate::server::telemetry::refusal::Refusal;
use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use std::net::IpAddr;
use std::sync::Arc;

/// Bytes of one stream that wait to be sent, at the most.
const UNSENT: usize = 16 << 10;

/// The app of one HTTP/2 connection: its idle timeout is fixed when the connection begins.
pub(super) struct Http2 {
    gate: Gate,
    proxy: Arc<HttpProxy<Proxy>>,
    state: Arc<ConnectionState>,
    options: HttpServerOptions,
    /// Upper bound of the headers of one stream.
    head_bytes: u32,
    /// The certificate that its client was shown.
    shown: Option<Presented>,
}

impl Http2 {
    /// An app for a connection that begins now.
    pub(super) fn new(gate: Gate, proxy: Arc<HttpProxy<Proxy>>, shown: Option<Presented>) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        let settings = gate.settings();
        options.h2_idle_timeout = settings.idle_timeout;
        let head_bytes = u32::try_from(settings.head.bytes).unwrap_or(u32::MAX);
        Self { gate, proxy, state: Arc::default(), options, head_bytes, shown }
    }

    /// The response to a stream that is not served, regardless of the request.
    fn reject(
        &self,
        stream: &ServerSession,
        settings: &Settings,
        client: Option<IpAddr>,
    ) -> Option<Reply> {
        if stream.req_header().headers.len() > settings.head.headers {
            self.gate.refused(Refusal::HeadTooLarge);
            let words = "the request has too many headers\n";
            return Some(Reply::new(431, "text/plain; charset=UTF-8", words));
        }
        let head = stream.req_header();
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        // CONNECT has none, and the engine refuses it.
        if head.method != http::Method::CONNECT && !is_origin_target(head.method.as_str(), target) {
            self.gate.refused(Refusal::MalformedHead);
            let words = "the request's path is none\n";
            return Some(Reply::new(400, "text/plain; charset=UTF-8", words));
        }
        let query = head.uri.query().unwrap_or_default();
        self.gate.rate_limited(settings, client, (head.uri.path(), query, &head.headers))
    }

    /// The settings that a stream is served with, or the response where there are none for it.
    fn choose(
        &self,
        stream: &ServerSession,
        settings: &Arc<Settings>,
        client: Option<IpAddr>,
    ) -> Result<Arc<Settings>, Reply> {
        let head = stream.req_header();
        let mut hosts = head.headers.get_all("host").iter().map(|host| host.to_str().unwrap_or(""));
        let header = hosts.next();
        let authority = head.uri.authority().map(|authority| authority.as_str());
        let chosen = match hosts.next() {
            Some(_) if settings.sites.is_some() => Chosen::Ambiguous,
            _ => settings.choose(RequestHost { header, authority }, self.shown.as_ref()),
        };
        let reply = match chosen {
            Chosen::Own => return Ok(settings.clone()),
            Chosen::Site(chosen) => return Ok(chosen),
            Chosen::Misdirected => misdirected(),
            Chosen::Ambiguous => ambiguous(),
        };
        let query = head.uri.query().unwrap_or_default();
        let about = (head.uri.path(), query, &head.headers as &dyn Headers);
        Err(self.gate.misdirected(settings, client, about, reply))
    }

    /// Holds or answers the stream, or returns its classification. It stays where it is: a held poll
    /// is as large as what this moves about.
    async fn poll(&self, stream: &mut ServerSession) -> Option<Box<RequestContext>> {
        join_cookies(stream);
        let settings = self.gate.settings();
        let client = session::client(stream, &settings);
        let (settings, refused) = match self.choose(stream, &settings, client.address) {
            Ok(chosen) => (chosen, None),
            Err(reply) => (settings, Some(reply)),
        };
        let handed = RequestContext::new(&self.gate, settings, client).on(self.state.clone());
        let settings = handed.settings.clone();
        let refused = refused.or_else(|| self.reject(stream, &settings, client.address));
        if let Some(reply) = refused {
            stream.set_write_timeout(settings.write_timeout);
            // Boxed: a held poll has no room for it.
            let _ = Box::pin(session::write(stream, &reply)).await;
            session::log(stream, &settings, client.address, handed.began, None, None);
            return None;
        }
        let head = stream.req_header();
        let receives =
            head.method == http::Method::POST && settings.pusher.receives(head.uri.path());
        if head.method != http::Method::GET && !receives || !stream.is_body_done() {
            return Some(handed);
        }
        let decision = session::decide(&self.gate, &settings, stream, (None, None), client);
        stream.set_write_timeout(settings.write_timeout);
        let share = BodyShare::new(&settings.bodies);
        let mut exchange = SessionExchange::new(stream, &self.gate, &settings, share);
        let (held, events) = match serve(&self.gate, &settings, decision, &mut exchange).await {
            Served::Done { held, events, .. } => (held, events),
            Served::Forward(None) => return Some(handed.for_site()),
            Served::Forward(Some(released)) => return Some(handed.released(released)),
        };
        session::log(stream, &settings, client.address, handed.began, held, events);
        None
    }
}

/// Joins the pieces that a client may take its cookies apart into (RFC 9113, section 8.2.3), before
/// headers are counted.
fn join_cookies(stream: &mut ServerSession) {
    let head = stream.req_header_mut();
    let cookies = head.headers.get_all("cookie");
    if cookies.iter().nth(1).is_some() {
        let cookies: Vec<&[u8]> = cookies.iter().map(|value| value.as_bytes()).collect();
        let joined = cookies.join(&b"; "[..]);
        // Joined values are one value.
        let _ = head.insert_header("cookie", joined);
    }
}

#[async_trait]
impl HttpServerApp for Http2 {
    async fn process_new_http(
        self: &Arc<Self>,
        mut stream: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let handed = self.poll(&mut stream).await?;
        Box::pin(handed.scope(self.proxy.process_new_http(stream, shutdown))).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        // With bounds on the streams, and on those that a client opens only to reset them.
        let mut options = default_h2_options();
        options.max_header_list_size(self.head_bytes);
        // A client that grants a large window and does not read is not to have it filled here.
        options.max_send_buffer_size(UNSENT);
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;

    /// Bytes of the future that a function of two arguments returns.
    fn size_of_future<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_held_poll_has_no_room_for_the_engine_s_writes() {
        let poll = size_of_future::<&'static Http2, &'static mut ServerSession, _>(Http2::poll);
        assert!(poll <= 1500, "{poll}");
    }
}
