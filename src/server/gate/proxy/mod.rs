//! The proxy: the public side as a pingora [`ProxyHttp`]. It holds the polls in its
//! `request_filter` and forwards all other requests to the upstream.

pub(super) mod body;
pub(super) mod connection_state;
mod cut;
pub(super) mod error_page;
pub mod forwarded;
mod held_on;
pub(super) mod hop;
pub(super) mod own_connection;
pub(super) mod request_context;
pub(super) mod session;
pub(super) mod tap;
pub(super) mod upstream_request;
pub(super) mod websocket;

use super::counters::{Forwarded, SiteFile};
use super::grip::withheld::{self, Withheld};
use super::poll::hold::Cause;
use super::replay::{HeldReplay, ReleasedReplay};
use super::serve::{Served, serve};
use super::sites::misdirected;
use super::{Gate, Open, RETRY_AFTER, Settings, mercure};
use crate::protocol::http::Reply;
use crate::protocol::http::observer::{Observe, RequestHead};
use crate::server::limits::body_memory::BodyShare;
use crate::server::limits::body_rate::BodyRate;
use crate::server::telemetry::refusal::Refusal;
use async_trait::async_trait;
use body::NotKept;
use bytes::Bytes;
use connection_state::ConnectionState;
use error_page::{page, status_of};
use forwarded::Client;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::HttpPeer;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::{Error, ErrorSource, ErrorType, Result};
use request_context::{Classification, RequestContext};
use session::SessionExchange;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tap::Tap;

/// The proxy: the gate, and the upstream behind it.
pub struct Proxy {
    gate: Gate,
    attention: Arc<dyn Observe>,
}

/// State of one request.
pub struct Context {
    settings: Arc<Settings>,
    began: Instant,
    /// The sender; `None` until it has been determined.
    client: Option<Client>,
    finding: Classification,
    state: Arc<ConnectionState>,
    /// A poll that was held, and is forwarded now.
    released: Option<Box<ReleasedReplay>>,
    held: Option<(Duration, Cause)>,
    /// The number of events of a stream.
    events: Option<u64>,
    /// Whether the upstream has been silent for too long.
    was_cut: Option<cut::WasCut>,
    /// A poll that was cut off at the upstream, and is held on.
    held_on: Option<Box<HeldReplay>>,
    /// The end of such a poll.
    held_on_end: Option<held_on::End>,
    /// A response of the site's that says to hold the request.
    grip: Option<Box<Withheld>>,
    /// Failed connections to the upstream so far.
    failures: usize,
    forwarded: Forwarded,
    tee: Tap,
    file: Option<SiteFile>,
    /// The memory of its kept body.
    body: Option<BodyShare>,
    /// The rate of its body, where nothing beneath measures that.
    body_rate: BodyRate,
    _open: Open,
}

impl Proxy {
    /// Puts `gate` before the upstream of its settings; `attention` observes the exchanges.
    pub fn new(gate: Gate, attention: Arc<dyn Observe>) -> Self {
        Self { gate, attention }
    }

    /// Serves the request if it is a poll; whether it is answered.
    async fn poll(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        let settings = context.settings.clone();
        let client =
            context.client.unwrap_or_else(|| session::client(session.as_downstream(), &settings));
        if let Some(hub) = mercure::hub_of(&settings, session.req_header()) {
            let publish = mercure::publish(&self.gate, &settings, hub, session.as_mut());
            let reply = Box::pin(publish).await?;
            return session::write(session.as_mut(), &reply).await.map(|()| true);
        }
        let Some(body::Form { form, taken, mut share, length }) =
            body::read(session, &settings).await?
        else {
            let reply = NotKept::NoRoom.reply(&self.gate);
            session.set_keepalive(None);
            return session::write(session.as_mut(), &reply).await.map(|()| true);
        };
        let stream = session.as_downstream();
        let read = (form.as_ref(), taken.as_deref());
        let decision = session::decide(&self.gate, &settings, stream, read, client);
        // From here on only the bytes that pingora keeps for the upstream are held, with room to spare.
        drop(form);
        share.shrink_to(2 * length);
        let mut exchange = SessionExchange::new(session.as_mut(), &self.gate, &settings, share);
        match serve(&self.gate, &settings, decision, &mut exchange).await {
            Served::Done { held, events, answer } => {
                (context.held, context.events) = (held, events);
                answer.map(|_| true)
            }
            Served::Forward(released) => {
                context.body = Some(exchange.share);
                context.held = released.as_ref().map(|released| released.held);
                context.released = released;
                Ok(false)
            }
        }
    }

    /// Answers a request for which no descriptor is left.
    async fn reject(&self, session: &mut Session, context: &mut Context) -> Result<()> {
        self.gate.refused(Refusal::FdLimit);
        if let Some(released) = &mut context.released {
            released.failed();
        }
        session.set_keepalive(None);
        let reply = context.finished(page(503).with("Retry-After", RETRY_AFTER));
        session::write(session.as_mut(), &reply).await
    }
}

impl Context {
    /// `reply` as the rule of the request wants its answers, if it was a poll.
    fn finished(&self, reply: Reply) -> Reply {
        match &self.released {
            Some(released) => released.finished(reply),
            None => reply,
        }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        let (settings, client, began, finding, state, _open) = match RequestContext::take() {
            Some(handed) => {
                let RequestContext { settings, client, began, finding, state, open, .. } = *handed;
                (settings, Some(client), began, finding, state, open)
            }
            // A request of pingora's own.
            None => {
                let settings = self.gate.settings();
                let open = self.gate.open();
                (settings, None, Instant::now(), Classification::Undecided, Arc::default(), open)
            }
        };
        Context {
            body_rate: BodyRate::new(settings.body_rate),
            settings,
            began,
            client,
            finding,
            state,
            released: None,
            held: None,
            events: None,
            was_cut: None,
            held_on: None,
            held_on_end: None,
            grip: None,
            failures: 0,
            forwarded: Forwarded::default(),
            tee: Tap::default(),
            file: None,
            body: None,
            _open,
        }
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        if self.gate.is_draining() {
            session.set_keepalive(None);
        }
        let stall = context.settings.write_timeout;
        session::bound_write(session.as_mut(), 0, stall);
        if context.settings.sites.is_some() {
            // No site was chosen for it.
            session.set_keepalive(None);
            return session::write(session.as_mut(), &misdirected()).await.map(|()| true);
        }
        // A client that has switched protocols may be silent in the new one.
        let upgrade = session.as_downstream().is_upgrade_req();
        session.as_mut().set_read_timeout(stall.filter(|_| !upgrade));
        if upgrade {
            // The bytes that follow on the connection are unknown, whatever the upstream responds.
            session.set_keepalive(None);
        }
        // It has to bear none of them (RFC 9110, section 15.2).
        let old = hop::is_old(session.req_header());
        session.as_mut().set_ignore_info_resp(old);
        if context.client.is_none() {
            context.client = Some(session::client(session.as_downstream(), &context.settings));
        }
        let answered = match std::mem::replace(&mut context.finding, Classification::Site) {
            Classification::Site => false,
            // A failure here is about the client.
            Classification::Undecided => {
                self.poll(session, context).await.map_err(|e| e.into_down())?
            }
            Classification::Released(released) => {
                context.held = Some(released.held);
                context.released = Some(released);
                false
            }
        };
        if answered {
            return Ok(true);
        }
        context.state.forward();
        context.file = SiteFile::new(&self.gate);
        if context.file.is_some() {
            return Ok(false);
        }
        self.reject(session, context).await.map(|()| true)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        if let Some(held) = context.held_on.take() {
            held_on::wait(&self.gate, session, context, held).await?;
        }
        context.forwarded.begin();
        let upstream = &context.settings.upstream;
        let mut peer = upstream
            .next()
            .ok_or_else(|| Error::explain(ErrorType::ConnectNoRoute, "no upstream server"))?;
        peer.options.connection_timeout = Some(context.settings.connect_timeout);
        peer.options.total_connection_timeout = Some(context.settings.connect_timeout);
        peer.options.read_timeout = Some(context.settings.read_timeout);
        peer.options.write_timeout = Some(context.settings.read_timeout);
        peer.options.idle_timeout = Some(UPSTREAM_IDLE);
        context.state.look_at(&session.req_header().headers);
        peer.group_key = context.state.group();
        if websocket::is_for(session.req_header()) {
            websocket::prepare(&mut peer, context.settings.read_timeout);
        } else if peer.group_key == 0
            && let Some(most) = context.released.as_ref().and_then(|poll| poll.max_wait())
        {
            // A client's own connection, on which it is signed in, is not cut.
            context.was_cut = Some(cut::prepare(&mut peer, most));
        } else if session.is_http2() {
            own_connection::read_little(&mut peer);
        }
        Ok(Box::new(peer))
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        context: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // Nothing was sent yet, so each of the other servers may be tried.
        context.failures += 1;
        error.set_retry(context.failures < context.settings.upstream.servers());
        error
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        context: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("Peer: {peer}"));
        if held_on::begin(&self.gate, context, &error) {
            // Pingora asks for a peer again, and gets one when the poll has been held on.
            error.set_retry(true);
        } else if !session.req_header().method.is_idempotent()
            || session.as_ref().retry_buffer_truncated()
        {
            error.set_retry(false);
        } else {
            error.retry.decide_reuse(reused);
        }
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        let head = session.req_header();
        let request = RequestHead {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            headers: &head.headers,
            site: context.settings.site_name(),
            poll: context.released.is_some(),
        };
        context.tee.begin(&*self.attention, request);
        let Some(client) = context.client else { return Ok(()) };
        upstream_request::prepare(session, upstream, &client)?;
        withheld::prepare(&context.settings, upstream)?;
        context.released.as_ref().map_or(Ok(()), |released| released.prepare(upstream))
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        if hop::is_old(session.req_header()) && head.remove_header("transfer-encoding").is_some() {
            // Without chunks the end of the connection is the end of the body.
            session.set_keepalive(None);
        }
        if context.grip.is_some() {
            Withheld::swallow(session, head);
            return Ok(());
        }
        context.released.as_mut().map_or(Ok(()), |released| released.head(head))
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        piece: &mut Option<Bytes>,
        last: bool,
        context: &mut Context,
    ) -> Result<Option<Duration>> {
        let length = piece.as_ref().map_or(0, Bytes::len);
        session::bound_write(session.as_mut(), length, context.settings.write_timeout);
        if let Some(released) = &mut context.released {
            released.body(piece.as_ref(), last);
        }
        Ok(None)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        upstream: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        let site = context.settings.site.as_deref();
        context.forwarded.answered(self.gate.counters(), site, upstream.status.as_u16());
        context.state.look_at(&upstream.headers);
        hop::end_here(upstream);
        let to_head = session.req_header().method == http::Method::HEAD;
        context.tee.response_head(upstream.status.as_u16(), &upstream.headers, to_head);
        upstream.remove_header(tap::PUBLISH);
        // What a replay rule forwards is not held once more.
        let grip = Withheld::of(&context.settings, session.req_header(), upstream);
        context.grip = grip.filter(|_| context.released.is_none());
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        piece: &mut Option<Bytes>,
        last: bool,
        context: &mut Context,
    ) -> Result<Option<Duration>> {
        context.tee.response_body(piece.as_deref(), last);
        if let Some(grip) = &mut context.grip
            && let Some(piece) = piece.take()
        {
            grip.take(&piece);
        }
        if last && let Some(released) = &mut context.released {
            released.received();
        }
        Ok(None)
    }

    fn upstream_response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut http::HeaderMap,
        _context: &mut Context,
    ) -> Result<()> {
        trailers.remove(tap::PUBLISH);
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        piece: &mut Option<Bytes>,
        last: bool,
        context: &mut Context,
    ) -> Result<()> {
        context.tee.request_body(piece.as_deref(), last);
        if last && piece.as_ref().is_some_and(Bytes::is_empty) {
            // Pingora would write it as a last chunk, and another one after it, which would be the
            // beginning of the next request.
            *piece = None;
        }
        if session.is_http2() {
            let length = piece.as_ref().map_or(0, Bytes::len);
            session::keep_rate(&mut context.body_rate, length).map_err(|slow| slow.into_down())?;
            if last {
                // A poll that is held asks the site again on the same request.
                context.body_rate.pause(Instant::now());
            }
        }
        Ok(())
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        context: &mut Context,
    ) -> FailToProxy {
        if let Some(end) = &mut context.held_on_end {
            let error_code = held_on::answer(session, end).await;
            return FailToProxy { error_code, can_reuse_downstream: false };
        }
        let status = status_of(error);
        if *error.esource() == ErrorSource::Downstream {
            match status {
                400 => self.gate.refused(Refusal::MalformedBody),
                408 => self.gate.refused(Refusal::BodyTimeout),
                _ => {}
            }
        }
        if let Some(released) = &mut context.released
            && *error.esource() != ErrorSource::Downstream
        {
            released.failed();
        }
        if status > 0 && session.response_written().is_none() {
            session.set_keepalive(None);
            let reply = context.finished(page(status));
            if let Err(error) = session::write(session.as_mut(), &reply).await {
                tracing::debug!(error = error.etype().as_str(), "cannot write an error page");
            }
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    /// The engine's lines show targets unmasked, and bytes that it could not parse.
    fn suppress_error_log(&self, _session: &Session, _context: &Context, _error: &Error) -> bool {
        true
    }

    fn request_summary(&self, _session: &Session, _context: &Context) -> String {
        String::new()
    }

    /// A poll that is cut off is no failure.
    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        context: &Context,
        _error: &Error,
        _what: ProxyWarnLogContext,
    ) -> bool {
        context.held_on.is_some()
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        let client_left = error.is_some_and(|error| *error.esource() == ErrorSource::Downstream);
        let site = context.settings.site.as_deref();
        context.forwarded.end(self.gate.counters(), site, client_left);
        // A client that leaves, or writes nonsense, is no error of the gate's.
        if let Some(error) = error.filter(|_| !client_left) {
            session::log_failure(session.as_downstream(), &context.settings, error);
        }
        if let Some(released) = context.released.as_mut().filter(|_| client_left) {
            released.left();
        }
        if error.is_none() {
            // A response may end without a last piece.
            context.tee.end();
        }
        if let (None, Some(mut released)) = (error, context.released.take()) {
            released.answered();
        }
        if let (None, Some(client), Some(grip)) = (error, context.client, context.grip.take()) {
            // Its connection to the site is another request's by now.
            context.file = None;
            context.state.take_back();
            let settings = &context.settings;
            let ended = grip.serve(&self.gate, settings, session, client).await;
            (context.held, context.events) = ended;
        }
        let client = context.client.and_then(|client| client.address);
        let session = session.as_downstream();
        let began = context.began;
        session::log(session, &context.settings, client, began, context.held, context.events);
    }
}

/// Time that a connection to the upstream is kept for the next request.
const UPSTREAM_IDLE: Duration = Duration::from_secs(60);
