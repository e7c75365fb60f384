//! The internal listener: reads requests, guards them, and dispatches them to its endpoints.
//!
//! Order: the head is read and validated (400), the guard decides (401, 403), an endpoint is found
//! (404), the body is read within that endpoint's bound (413), the endpoint answers.
//! `Expect: 100-continue` is answered only once it is clear that the body is wanted.
//!
//! [`Timeouts`] bounds the time of a client; the maker of the app sets the number of connections.
//!
//! A connection is kept unless the client asks for its end or is HTTP/1.0, or part of the request
//! was left unread. It ends with the process: a drain leaves it be, so that the site can publish
//! until the last poll is answered.

mod access_log;
mod guard;
mod mercure;
pub mod pusher;
mod session;
mod target;
mod timed_stream;

pub use guard::{PAGE_HEADER, Settings};
pub use mercure::Mercure;
pub use target::{Remote, Target};
pub use timed_stream::Timeouts;

use crate::protocol::auth::secret::Secret;
use crate::protocol::http::validate;
use crate::protocol::http::{Endpoint, Reply, Request, Scope};
use crate::server::net::quiesce::Quiesce;
use crate::server::telemetry::metrics::SharedMetrics;
use crate::server::telemetry::refusal::Refusal;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use guard::Requester;
use http::Method;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream, ServerApp};
use pingora::http::RequestHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use session::Broken;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use timed_stream::TimedStream;

/// The internal listener's app; see the [module](self).
pub struct Internal(Arc<App>);

/// The same, for connections whose bodies are tracked.
struct App {
    settings: Arc<ArcSwap<Settings>>,
    page: Secret,
    endpoints: Vec<Arc<dyn Endpoint>>,
    metrics: Arc<SharedMetrics>,
    quiesce: Quiesce<Target>,
    places: ConnectionSlots,
}

/// Slots for connections; each takes a descriptor from the rest of the process.
struct ConnectionSlots {
    most: usize,
    taken: AtomicUsize,
}

/// One slot; dropping it frees it.
struct ConnectionSlot<'a>(&'a AtomicUsize);

impl ConnectionSlots {
    fn take(&self) -> Option<ConnectionSlot<'_>> {
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let taken = ConnectionSlot(&self.taken);
        (before < self.most).then_some(taken)
    }
}

impl Drop for ConnectionSlot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Internal {
    /// An app that tries `endpoints` in their order. `page` is the token of the internal page, made
    /// anew at each start; empty = there is no page. Refusals are counted in `metrics`. Beyond
    /// `most` connections new ones are closed at once.
    pub fn new(
        settings: Arc<ArcSwap<Settings>>,
        page: Secret,
        endpoints: Vec<Arc<dyn Endpoint>>,
        metrics: Arc<SharedMetrics>,
        most: usize,
    ) -> Self {
        let quiesce = Quiesce::default();
        let taken = AtomicUsize::new(0);
        let places = ConnectionSlots { most, taken };
        Self(Arc::new(App { settings, page, endpoints, metrics, quiesce, places }))
    }

    /// The quiesce point that every request passes through.
    pub fn quiesce(&self) -> Quiesce<Target> {
        self.0.quiesce.clone()
    }
}

#[async_trait]
impl ServerApp for Internal {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let Some(_place) = self.0.places.take() else {
            self.0.metrics.refusals.count(Refusal::FdLimit);
            return None;
        };
        let patience = self.0.settings.load().patience;
        self.0.process_new(Box::new(TimedStream::new(stream, patience)), shutdown).await
    }
}

impl App {
    /// The response to the request whose head has been read.
    async fn reply(&self, session: &mut ServerSession) -> Result<Reply, Broken> {
        let mut request = match read_head(session) {
            Ok(request) => request,
            Err(reply) => {
                self.refused(&reply, Refusal::HeadTimeout, Refusal::MalformedHead);
                return Ok(reply);
            }
        };
        let settings = self.settings.load_full();
        let (site, path) = match guard::site_in(&request.path) {
            Some((site, rest)) if !settings.sites.is_empty() => (Some(site), rest),
            _ => (None, request.path.as_str()),
        };
        let endpoint = self.endpoints.iter().find(|endpoint| endpoint.owns(path));
        let visitor = Requester {
            method: &request.method,
            headers: &request.headers,
            local: session.client_addr().is_none_or(|peer| peer.as_inet().is_none()),
            open: endpoint.is_some_and(|endpoint| endpoint.is_open(path)),
            page: endpoint.is_some_and(|endpoint| endpoint.may_be_visited(path)),
        };
        let access = match guard::admit(&settings, &self.page, &visitor) {
            Ok(access) => access,
            Err(refusal) => {
                let unauthorized = refusal.status == 401;
                let cause = if unauthorized { Refusal::Unauthorized } else { Refusal::CrossOrigin };
                self.metrics.refusals.count(cause);
                return Ok(refusal);
            }
        };
        let Some(endpoint) = endpoint else {
            let error = format!("there is no {path}");
            return Ok(Reply::error(404, error, "publish with POST /publish"));
        };
        let open = endpoint.is_open(path);
        let scope = endpoint.scope(path);
        let (path, longest) = (path.to_owned(), endpoint.longest_body(path));
        // Others that need no token are about the gate as a whole.
        let is_probe = open && site.is_none() && scope != Scope::Site;
        if !settings.sites.is_empty() && !is_probe {
            match guard::scoped(&settings, &access, site, scope) {
                Ok(site) => request.site = site,
                Err(refusal) => {
                    if refusal.status == 403 {
                        self.metrics.refusals.count(Refusal::Unauthorized);
                    }
                    return Ok(refusal);
                }
            }
        }
        request.path = path;
        if let Some(refusal) = endpoint.refuse(&request) {
            if refusal.status == 401 {
                self.metrics.refusals.count(Refusal::Unauthorized);
            }
            return Ok(refusal);
        }
        match session::read_body(session, longest).await? {
            Ok(body) => request.body = body,
            Err(refusal) => {
                self.refused(&refusal, Refusal::BodyTimeout, Refusal::MalformedBody);
                return Ok(refusal);
            }
        }
        if request.method == Method::HEAD {
            request.method = Method::GET;
        }
        let place = self.quiesce.pass().await;
        let successor = match &*place {
            Target::Local if endpoint.waits(&request.path) => {
                drop(place);
                return Ok(endpoint.answer(&request).await);
            }
            Target::Local => return Ok(endpoint.answer(&request).await),
            Target::Successor(onward) => Some(onward.clone()),
            Target::Closed => None,
        };
        drop(place);
        // A new connection leads to the process that serves the next request.
        session.set_keepalive(None);
        match successor {
            Some(ask) => Ok(ask(request).await),
            None => Ok(target::ended()),
        }
    }

    /// Counts a request that was not read.
    fn refused(&self, reply: &Reply, late: Refusal, malformed: Refusal) {
        match reply.status {
            408 => self.metrics.refusals.count(late),
            400 => self.metrics.refusals.count(malformed),
            413 => self.metrics.refusals.count(Refusal::MessageSize),
            _ => {}
        }
    }

    fn log(
        &self,
        session: &ServerSession,
        asked: bool,
        (status, bytes): (u16, usize),
        began: Instant,
    ) {
        let asked = asked.then(|| {
            let head = session.req_header();
            (&head.method, std::str::from_utf8(head.raw_path()).unwrap_or("-"))
        });
        let peer = session.client_addr().and_then(|peer| peer.as_inet()).map(|peer| peer.ip());
        let line = access_log::Line { peer, asked, status, bytes, took: began.elapsed() };
        access_log::log(&line, &self.settings.load().mask);
    }
}

#[async_trait]
impl HttpServerApp for App {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let mut bodiless = false;
        let read = session::read_request(&mut session).await;
        let began = Instant::now();
        let asked = matches!(read, Ok(Ok(())));
        let reply = match read {
            Ok(Ok(())) => {
                bodiless = session.req_header().method == Method::HEAD;
                let keep = wants_to_stay(session.req_header());
                // On every request: pingora resets it to "for ever" when it parses one.
                session.set_keepalive(keep.then_some(session::NO_LIMIT));
                self.reply(&mut session).await
            }
            Ok(Err(refusal)) => {
                self.refused(&refusal, Refusal::HeadTimeout, Refusal::MalformedHead);
                Ok(refusal)
            }
            Err(broken) => Err(broken),
        };
        let whole = match reply {
            Ok(reply) => {
                let status = reply.status;
                let bytes = reply.body.len();
                let whole = session::write(&mut session, reply, bodiless).await.is_ok();
                self.log(&session, asked, (status, bytes), began);
                whole
            }
            // The client is gone.
            Err(Broken) => return None,
        };
        if !whole {
            return None;
        }
        if session.get_keepalive().is_none() {
            session::close(session).await;
            return None;
        }
        let settings = HttpPersistentSettings::for_session(&session);
        let stream = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}

/// The request that a parsed head makes, still without its body; or the refusal of an ambiguous
/// head.
fn read_head(session: &mut ServerSession) -> Result<Request, Reply> {
    let checked = validate::framing(&session.to_h1_raw());
    let header = session.req_header();
    let target = std::str::from_utf8(header.raw_path());
    let checked = checked.and_then(|_| match target {
        Ok(target) if target.starts_with('/') => Ok(target),
        Ok(_) => Err("the target is not a path"),
        Err(_) => Err("the target is not UTF-8"),
    });
    match checked {
        Ok(target) => {
            let mut request = Request::new(header.method.clone(), target);
            request.headers = header.headers.clone();
            Ok(request)
        }
        Err(error) => {
            // The end of this request is in doubt, and with it the beginning of the next one.
            session.set_keepalive(None);
            Err(malformed(error))
        }
    }
}

/// The response to bytes that are no proper HTTP request.
fn malformed(error: impl std::fmt::Display) -> Reply {
    Reply::error(400, error, "send a plain HTTP/1.1 request")
}

/// True if the client waits for the response's length rather than for the end of the connection.
/// HTTP/1.0 is closed even if it asks to be kept: PHP's stream wrapper is such a client, and reads
/// to the end.
fn wants_to_stay(header: &RequestHeader) -> bool {
    let close = |value: &http::HeaderValue| {
        value
            .as_bytes()
            .split(|b| *b == b',')
            .any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
    };
    header.version == http::Version::HTTP_11
        && !header.headers.get_all(http::header::CONNECTION).iter().any(close)
}
