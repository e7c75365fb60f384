//! Polls on a pingora session, HTTP/1.x or HTTP/2.

use super::error_page;
use super::forwarded::Client;
use crate::protocol::http::Reply;
use crate::protocol::http::query::{Query, masked};
use crate::server::gate::poll::hold::Cause;
use crate::server::gate::serve::{Exchange, Input};
use crate::server::gate::{Decision, Gate, Incoming, Settings, Timer, access_log};
use crate::server::telemetry::refusal::Refusal;
use bytes::Bytes;
use http::Version;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, Result};
use std::future::Future;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Decides on the session's request; `form` is that of its body.
pub(in crate::server::gate) fn decide(
    gate: &Gate,
    settings: &Settings,
    session: &ServerSession,
    form: Option<&Query<'_>>,
    client: Option<IpAddr>,
) -> Decision {
    let head = session.req_header();
    let incoming = Incoming {
        method: head.method.as_str(),
        target: head.uri.path_and_query().map_or("/", |target| target.as_str()),
        host: host(head),
        path: head.uri.path(),
        query: &Query::parse(head.uri.query().unwrap_or_default()),
        form,
        headers: &head.headers,
        client,
        can_upgrade: false,
    };
    gate.decide(settings, &incoming)
}

/// A session's request on its way through [`crate::server::gate::serve`].
pub(in crate::server::gate) struct SessionExchange<'a> {
    session: &'a mut ServerSession,
    timer: Timer,
    gate: &'a Gate,
    /// How long the request's body may pause.
    stall: Option<Duration>,
}

impl<'a> SessionExchange<'a> {
    /// An exchange of `gate`'s; `stall` is how long the request's body may pause.
    pub(in crate::server::gate) fn new(
        session: &'a mut ServerSession,
        gate: &'a Gate,
        stall: Option<Duration>,
    ) -> Self {
        Self { session, timer: Timer::default(), gate, stall }
    }
}

impl Exchange for SessionExchange<'_> {
    type Error = Box<Error>;

    async fn settle(&mut self, keep: bool) -> Result<Option<Reply>> {
        if !keep {
            discard_body(self.session, self.stall).await?;
            return Ok(None);
        }
        if super::body::keep_body(self.session, self.stall).await? {
            return Ok(None);
        }
        self.gate.refused(Refusal::BadRequest);
        self.session.set_keepalive(None);
        Ok(Some(error_page::page(413)))
    }

    fn waiting(&mut self) -> (&mut Timer, impl Future<Output = ()> + Send) {
        let session = &mut *self.session;
        let gone = async {
            let _ = session.read_body_or_idle(true).await;
        };
        (&mut self.timer, gone)
    }

    fn close_after(&mut self) {
        self.session.set_keepalive(None);
    }

    async fn write(&mut self, reply: &Reply) -> Result<()> {
        write(self.session, reply).await
    }

    async fn start(&mut self, reply: &Reply, first: &[Bytes]) -> Result<()> {
        let mut head = head(reply)?;
        head.remove_header("Content-Length");
        match self.session.req_header().version {
            // It ends with its connection (RFC 9112, section 6.3).
            Version::HTTP_10 => self.session.set_keepalive(None),
            Version::HTTP_11 => head.insert_header("Transfer-Encoding", "chunked")?,
            _ => {}
        }
        self.session.write_response_header(Box::new(head)).await?;
        self.send(first).await
    }

    async fn send(&mut self, pieces: &[Bytes]) -> Result<()> {
        for piece in pieces {
            self.session.write_response_body(piece.clone(), false).await?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        self.session.write_response_body(Bytes::new(), true).await
    }

    fn listening(&mut self, _socket: bool) -> (&mut Timer, impl Future<Output = Input> + Send) {
        let (timer, gone) = self.waiting();
        (timer, async {
            gone.await;
            Input::Gone
        })
    }
}

/// The host a request is for: its `Host`, or the authority of its target.
pub(in crate::server::gate) fn host(head: &RequestHeader) -> &str {
    let host = head.headers.get("host").and_then(|host| host.to_str().ok());
    host.or_else(|| head.uri.authority().map(|authority| authority.as_str())).unwrap_or_default()
}

/// Logs the session's request and its response.
pub(in crate::server::gate) fn log(
    session: &ServerSession,
    settings: &Settings,
    client: Option<IpAddr>,
    began: Instant,
    held: Option<(Duration, Cause)>,
    events: Option<u64>,
) {
    if !access_log::is_logged() {
        return;
    }
    let head = session.req_header();
    let line = access_log::Line {
        client,
        method: head.method.as_str(),
        target: head.uri.path_and_query().map_or("/", |target| target.as_str()),
        status: session.response_written().map_or(0, |head| head.status.as_u16()),
        bytes: session.body_bytes_sent(),
        took: began.elapsed(),
        held,
        events,
    };
    access_log::log(&line, &settings.mask);
}

/// Logs why a request was not answered by the upstream. The error's own words are left out: they
/// may hold bytes of a head that could not be parsed.
pub(in crate::server::gate) fn log_failure(
    session: &ServerSession,
    settings: &Settings,
    error: &Error,
) {
    let head = session.req_header();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let target = masked(target, &settings.mask);
    let (method, status) = (head.method.as_str(), error_page::status_of(error));
    let (source, error_type) = (error.esource().as_str(), error.etype().as_str());
    let io = error.root_cause().downcast_ref::<std::io::Error>();
    let cause = io.and_then(std::io::Error::raw_os_error).map(std::io::Error::from_raw_os_error);
    let cause = cause.map(|cause| cause.to_string()).unwrap_or_default();
    tracing::error!(method, %target, status, source, error = error_type, cause, "a request failed");
}

/// Reads and discards the rest of the body.
pub(in crate::server::gate) async fn discard_body(
    session: &mut ServerSession,
    stall: Option<Duration>,
) -> Result<()> {
    if !session.is_body_done() {
        answer_expect(session).await?;
        while read_piece(session, stall).await?.is_some() {}
    }
    Ok(())
}

/// Reads the next piece of the body; a client that takes longer than `stall` is an error. Pingora
/// itself has no timeout on its reads of HTTP/2.
pub(in crate::server::gate) async fn read_piece(
    session: &mut ServerSession,
    stall: Option<Duration>,
) -> Result<Option<Bytes>> {
    let piece = session.read_request_body();
    let Some(stall) = stall else { return piece.await };
    let late = |_| Error::explain(ErrorType::ReadTimedout, "the client pauses in a body");
    timeout(stall, piece).await.map_err(late)?
}

/// Sends 100 (Continue) to a client that waits for it before it sends its body.
pub(in crate::server::gate) async fn answer_expect(session: &mut ServerSession) -> Result<()> {
    let expects = session.req_header().headers.get("expect").is_some();
    if expects && !session.is_body_done() {
        // Pingora takes a 100 (Continue) for a refusal, and then gives up the connection.
        let kept = session.get_keepalive();
        session.write_continue_response().await?;
        session.set_keepalive(kept);
    }
    Ok(())
}

/// Writes a whole response; to HEAD without its body.
pub(in crate::server::gate) async fn write(
    session: &mut ServerSession,
    reply: &Reply,
) -> Result<()> {
    let to_head = session.req_header().method == http::Method::HEAD;
    let body = if to_head { Bytes::new() } else { reply.body.clone() };
    session.write_response_header(Box::new(head(reply)?)).await?;
    session.write_response_body(body, true).await
}

fn head(reply: &Reply) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(reply.status, Some(reply.headers.len() + 2))?;
    if !reply.content_type.is_empty() {
        head.insert_header("Content-Type", &*reply.content_type)?;
    }
    for (name, value) in &reply.headers {
        head.append_header(name.clone().into_owned(), &**value)?;
    }
    // RFC 9110, section 8.6: none with 204, and with 304 only that of the whole answer.
    if !matches!(reply.status, 204 | 304) {
        head.insert_header("Content-Length", reply.body.len())?;
    }
    Ok(head)
}

/// The sender of the session's request.
pub(in crate::server::gate) fn client(session: &ServerSession, settings: &Settings) -> Client {
    // Without a peer it is a unix socket.
    let peer = session.client_addr().and_then(SocketAddr::as_inet).map(|addr| addr.ip());
    Client::of(peer, &session.req_header().headers, &settings.trusted_proxies)
}
