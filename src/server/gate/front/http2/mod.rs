//! HTTP/2: pingora speaks it; polls and streams of events among its streams are served here, and
//! what is the upstream's is forwarded.

mod accept;
mod forward;

use crate::protocol::http::validate::is_origin_target;
use crate::protocol::http::{Headers, Reply};
use crate::server::gate::forward::Forwarder;
use crate::server::gate::front::Front;
use crate::server::gate::proxy::Proxy;
use crate::server::gate::proxy::connection_state::ConnectionState;
use crate::server::gate::proxy::request_context::RequestContext;
use crate::server::gate::proxy::session::{self, SessionExchange};
use crate::server::gate::serve::{Answering, Served, serve};
use crate::server::gate::sites::{Chosen, RequestHost, ambiguous, misdirected};
use crate::server::gate::tls::Presented;
use crate::server::gate::{Decision, Gate, HeldStream, Settings};
use crate::server::limits::body_memory::BodyShare;
use crate::server::limits::http2_budget::{Http2Share, RequestSlot};
use crate::server::telemetry::refusal::Refusal;
use accept::OpenStream;
use pingora::apps::HttpServerApp;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of one stream that wait to be sent, at the most.
const UNSENT: usize = 16 << 10;
/// Streams of a connection that begins while the others have most of what all have in common. h2
/// keeps over a kilobyte of each, whatever becomes of it.
const STREAMS_WHEN_TIGHT: u32 = 16;

/// The app of one HTTP/2 connection: its idle timeout is fixed when the connection begins.
pub(super) struct Http2 {
    gate: Gate,
    proxy: Arc<HttpProxy<Proxy>>,
    forwarder: Arc<Forwarder>,
    state: Arc<ConnectionState>,
    share: Arc<Http2Share>,
    idle_timeout: Option<Duration>,
    /// Upper bound of the headers of one stream.
    head_bytes: u32,
    /// The certificate that its client was shown.
    shown: Option<Presented>,
}

impl Http2 {
    /// An app for a connection that begins now.
    pub(super) fn new(front: &Front, shown: Option<Presented>) -> Self {
        let gate = front.gate.clone();
        let proxy = front.proxy.clone();
        let forwarder = front.forwarder.clone();
        let settings = gate.settings();
        let idle_timeout = settings.idle_timeout;
        let head_bytes = u32::try_from(settings.head.bytes).unwrap_or(u32::MAX);
        let share = Arc::new(Http2Share::new(gate.http2()));
        let state = Arc::default();
        Self { gate, proxy, forwarder, state, share, idle_timeout, head_bytes, shown }
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

    /// Bounds on the streams, and on those that a client opens only to reset them.
    fn options(&self) -> H2Options {
        let mut options = default_h2_options();
        options.max_header_list_size(self.head_bytes);
        // A client that grants a large window and does not read is not to have it filled here.
        options.max_send_buffer_size(UNSENT);
        if self.gate.http2().is_tight() {
            options.max_concurrent_streams(STREAMS_WHEN_TIGHT);
        }
        options
    }

    /// Serves one stream. Each way has a future in a box of its own, so that none has the room of
    /// another.
    async fn stream(
        self: Arc<Self>,
        mut session: Box<ServerSession>,
        _open: OpenStream,
        shutdown: ShutdownWatch,
    ) {
        let begun = match self.begin(&mut session) {
            Begun::Decided(handed, Decision::Ask(pending)) => {
                let settings = handed.settings.clone();
                let decision = Box::pin(pending.resume(&settings)).await;
                Begun::Decided(handed, decision)
            }
            begun => begun,
        };
        let handed = match begun {
            Begun::Decided(handed, Decision::Stream(stream)) => {
                return Box::pin(self.events(&mut session, handed, stream)).await;
            }
            Begun::Decided(handed, decision) => {
                let poll = Box::pin(self.poll(&mut session, handed, decision)).await;
                let Some(handed) = poll else { return };
                handed
            }
            Begun::Rejected(handed, reply) => {
                return Box::pin(self.answer(&mut session, &handed, &reply)).await;
            }
            Begun::Handed(handed) => handed,
        };
        Box::pin(self.upstream(session, handed, shutdown)).await;
    }

    /// Has the upstream answer the stream, by a way from here or by pingora, once its connection has
    /// a slot for it.
    async fn upstream(
        &self,
        mut session: Box<ServerSession>,
        handed: Box<RequestContext>,
        shutdown: ShutdownWatch,
    ) {
        let slot = match self.share.try_slot() {
            Some(slot) => slot,
            None => {
                let waited = Box::pin(self.wait_for_slot(&mut session));
                let Some(slot) = waited.await else { return };
                slot
            }
        };
        let forwarded = Box::pin(self.forward(&mut session, handed, &shutdown));
        let Some(handed) = forwarded.await else { return };
        let engine = self.proxy.process_new_http(*session, &shutdown);
        Box::pin(handed.scope(engine)).await;
        drop(slot);
    }

    /// A slot once a stream of this connection has ended; `None` = the client has reset the stream,
    /// or too many wait, and the client may send it again (RFC 9113, section 8.7).
    async fn wait_for_slot(&self, session: &mut ServerSession) -> Option<RequestSlot> {
        let ServerSession::H2(stream) = session else { return None };
        let waited = tokio::select! {
            slot = self.share.slot() => slot,
            _ = stream.idle() => return None,
        };
        if waited.is_none() {
            self.gate.refused(Refusal::Http2Streams);
            stream.shutdown_with_reason(h2::Reason::REFUSED_STREAM);
        }
        waited
    }

    /// Finds out what the stream wants.
    fn begin(&self, session: &mut ServerSession) -> Begun {
        join_cookies(session);
        let settings = self.gate.settings();
        let client = session::client(session, &settings);
        let (settings, refused) = match self.choose(session, &settings, client.address) {
            Ok(chosen) => (chosen, None),
            Err(reply) => (settings, Some(reply)),
        };
        let handed = RequestContext::new(&self.gate, settings, client).on(self.state.clone());
        let settings = &handed.settings;
        let refused = refused.or_else(|| self.reject(session, settings, client.address));
        if let Some(reply) = refused {
            return Begun::Rejected(handed, Box::new(reply));
        }
        let head = session.req_header();
        let receives =
            head.method == http::Method::POST && settings.pusher.receives(head.uri.path());
        if head.method != http::Method::GET && !receives || !session.is_body_done() {
            return Begun::Handed(handed);
        }
        let decision = session::decide(&self.gate, settings, session, (None, None), client);
        Begun::Decided(handed, decision)
    }

    /// Writes a response that is known from the beginning.
    async fn answer(&self, session: &mut ServerSession, handed: &RequestContext, reply: &Reply) {
        let RequestContext { settings, client, began, .. } = handed;
        session.set_write_timeout(settings.write_timeout);
        let _ = session::write(session, reply).await;
        session::log(session, settings, client.address, *began, None, None);
    }

    /// Serves a stream of events to its end.
    async fn events(
        &self,
        session: &mut ServerSession,
        handed: Box<RequestContext>,
        stream: Box<HeldStream>,
    ) {
        let RequestContext { settings, client, began, .. } = &*handed;
        drop_headers(session);
        session.set_write_timeout(settings.write_timeout);
        let share = BodyShare::new(&settings.bodies);
        let mut exchange = SessionExchange::new(session, &self.gate, settings, share);
        let served = Answering::stream(stream).run(&mut exchange).await;
        if let Served::Done { held, events, .. } = served {
            session::log(session, settings, client.address, *began, held, events);
        }
    }

    /// Does what was decided, or returns the request if it is the upstream's.
    async fn poll(
        &self,
        session: &mut ServerSession,
        handed: Box<RequestContext>,
        decision: Decision,
    ) -> Option<Box<RequestContext>> {
        let settings = handed.settings.clone();
        if matches!(decision, Decision::Hold(_)) {
            drop_headers(session);
        }
        session.set_write_timeout(settings.write_timeout);
        let share = BodyShare::new(&settings.bodies);
        let mut exchange = SessionExchange::new(session, &self.gate, &settings, share);
        let (held, events) = match serve(&self.gate, &settings, decision, &mut exchange).await {
            Served::Done { held, events, .. } => (held, events),
            Served::Forward(None) => return Some(handed.for_site()),
            Served::Forward(Some(released)) => return Some(handed.released(released)),
        };
        session::log(session, &settings, handed.client.address, handed.began, held, events);
        None
    }
}

/// A stream whose request was looked at.
enum Begun {
    /// It gets this response, regardless of the request.
    Rejected(Box<RequestContext>, Box<Reply>),
    /// The gate serves it, unless it turns out to be the upstream's.
    Decided(Box<RequestContext>, Decision),
    /// Pingora serves it.
    Handed(Box<RequestContext>),
}

/// Drops the headers of a request that is held: all that is still to be known of it is its method
/// and its target.
fn drop_headers(session: &mut ServerSession) {
    let head = session.req_header();
    let target = session::target(head).as_bytes();
    let bare = RequestHeader::build_no_case(head.method.clone(), target, Some(0));
    if let Ok(mut bare) = bare {
        bare.set_version(head.version);
        *session.req_header_mut() = bare;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;

    /// Bytes of the future that a function of four arguments returns.
    fn size_of_future<A, B, C, D, F: Future>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_stream_has_room_for_its_own_way_alone() {
        type App = &'static Http2;
        type Session = &'static mut ServerSession;
        let task = size_of_future::<Arc<Http2>, _, _, _, _>(Http2::stream);
        let events =
            size_of_future::<App, Session, Box<RequestContext>, Box<HeldStream>, _>(Http2::events);
        let poll = size_of_future::<App, Session, Box<RequestContext>, Decision, _>(Http2::poll);
        assert!(task <= 340, "{task}");
        assert!(events <= 800, "{events}");
        assert!(poll <= 1600, "{poll}");
    }
}
