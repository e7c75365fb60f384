//! The proxy: the public side as a pingora [`ProxyHttp`]. It holds the polls in its
//! `request_filter` and forwards all other requests to the upstream.

pub(super) mod body;
pub(super) mod error_page;
pub mod forwarded;
pub(super) mod request_context;
pub(super) mod session;
pub(super) mod tap;
pub(super) mod websocket;

use super::counters::{Forwarded, SiteFile};
use super::poll::hold::Cause;
use super::replay::ReleasedReplay;
use super::serve::{Served, serve};
use super::{Gate, Open, RETRY_AFTER, Settings};
use crate::protocol::http::observer::Observe;
use crate::server::telemetry::refusal::Refusal;
use async_trait::async_trait;
use bytes::Bytes;
use error_page::{page, status_of};
use forwarded::Client;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::HttpPeer;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
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
    /// A poll that was held, and is forwarded now.
    released: Option<Box<ReleasedReplay>>,
    held: Option<(Duration, Cause)>,
    /// How many events a stream had.
    events: Option<u64>,
    /// Failed connections to the upstream so far.
    failures: usize,
    forwarded: Forwarded,
    tee: Tap,
    file: Option<SiteFile>,
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
        let client = context.client.and_then(|client| client.address);
        let form = body::read(session, &settings).await?;
        let stream = session.as_downstream();
        let decision = session::decide(&self.gate, &settings, stream, form.as_ref(), client);
        let mut exchange =
            SessionExchange::new(session.as_mut(), &self.gate, settings.write_timeout);
        match serve(&self.gate, &settings, decision, &mut exchange).await {
            Served::Done { held, events, answer } => {
                (context.held, context.events) = (held, events);
                answer.map(|_| true)
            }
            Served::Forward(released) => {
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
        let reply = page(503).with("Retry-After", RETRY_AFTER);
        session::write(session.as_mut(), &reply).await
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        let (settings, client, began, finding, _open) = match RequestContext::take() {
            Some(handed) => {
                let RequestContext { settings, client, began, finding, open } = *handed;
                (settings, Some(client), began, finding, open)
            }
            // A request of pingora's own.
            None => {
                let (settings, open) = (self.gate.settings(), self.gate.open());
                (settings, None, Instant::now(), Classification::Undecided, open)
            }
        };
        Context {
            settings,
            began,
            client,
            finding,
            released: None,
            held: None,
            events: None,
            failures: 0,
            forwarded: Forwarded::default(),
            tee: Tap::default(),
            file: None,
            _open,
        }
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        if self.gate.is_draining() {
            session.set_keepalive(None);
        }
        let stall = context.settings.write_timeout;
        session.as_mut().set_write_timeout(stall);
        // A client that has switched protocols may be silent in the new one.
        let upgrade = session.as_downstream().is_upgrade_req();
        session.as_mut().set_read_timeout(stall.filter(|_| !upgrade));
        if upgrade {
            // The bytes that follow on the connection are unknown, whatever the upstream responds.
            session.set_keepalive(None);
        }
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
        if websocket::is_for(session.req_header()) {
            websocket::prepare(&mut peer);
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

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        context.tee.begin(&*self.attention, session.req_header(), context.released.is_some());
        let Some(client) = context.client else { return Ok(()) };
        // A target with a host in it names the host twice (RFC 9112, section 3.2.2). Pingora has
        // checked that both are the same.
        if !upstream.raw_path().starts_with(b"/") && upstream.uri.path().starts_with('/') {
            upstream.set_uri(upstream.uri.clone());
        }
        let headers = &session.req_header().headers;
        let is_tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let proto = if is_tls { "https" } else { "http" };
        let set =
            forwarded::forwarded(&client, headers, session::host(session.req_header()), proto);
        let names = upstream.headers.keys();
        let dropped = names.filter(|name| forwarded::is_dropped(name.as_str(), client.trusted));
        for name in dropped.cloned().collect::<Vec<_>>() {
            upstream.remove_header(&name);
        }
        for (name, value) in set {
            upstream.insert_header(name, value)?;
        }
        let cookies = headers.get_all("cookie");
        if cookies.iter().nth(1).is_some() {
            // HTTP/2 may split a cookie header that HTTP/1.1 has in one piece (RFC 9113, section
            // 8.2.3).
            let cookies: Vec<&[u8]> = cookies.iter().map(|value| value.as_bytes()).collect();
            upstream.insert_header("cookie", cookies.join(&b"; "[..]))?;
        }
        context.released.as_ref().map_or(Ok(()), |released| released.prepare(upstream))
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        head: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        context.released.as_mut().map_or(Ok(()), |released| released.head(head))
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        piece: &mut Option<Bytes>,
        last: bool,
        context: &mut Context,
    ) -> Result<Option<Duration>> {
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
        context.forwarded.answered(self.gate.counters(), upstream.status.as_u16());
        let to_head = session.req_header().method == http::Method::HEAD;
        context.tee.response_head(upstream, to_head);
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
        _session: &mut Session,
        piece: &mut Option<Bytes>,
        last: bool,
        context: &mut Context,
    ) -> Result<()> {
        context.tee.request_body(piece.as_deref(), last);
        Ok(())
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        context: &mut Context,
    ) -> FailToProxy {
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
            if let Err(error) = session::write(session.as_mut(), &page(status)).await {
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

    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        let client_left = error.is_some_and(|error| *error.esource() == ErrorSource::Downstream);
        context.forwarded.end(self.gate.counters(), client_left);
        // A client that leaves, or writes nonsense, is no error of the gate's.
        if let Some(error) = error.filter(|_| !client_left) {
            session::log_failure(session.as_downstream(), &context.settings, error);
        }
        if error.is_none() {
            // A response may end without a last piece.
            context.tee.end();
        }
        if let (None, Some(mut released)) = (error, context.released.take()) {
            released.answered();
        }
        let client = context.client.and_then(|client| client.address);
        let (session, began) = (session.as_downstream(), context.began);
        session::log(session, &context.settings, client, began, context.held, context.events);
    }
}

/// Time that a connection to the upstream is kept for the next request.
const UPSTREAM_IDLE: Duration = Duration::from_secs(60);
