//! Polls on a pingora session, HTTP/1.x or HTTP/2.

use super::error_page;
use super::forwarded::{Client, Way};
use crate::protocol::http::Reply;
use crate::protocol::http::query::{Query, masked};
use crate::protocol::http::websocket::Messages;
use crate::server::gate::poll::hold::Cause;
use crate::server::gate::replay::{HeldReplay, ReplayEnd};
use crate::server::gate::serve::{Exchange, Framed, Input};
use crate::server::gate::{Decision, Gate, Incoming, Settings, Timer, access_log};
use crate::server::limits::body_memory::BodyShare;
use crate::server::limits::body_rate::BodyRate;
use bytes::Bytes;
use http::Version;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, Result};
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Decides on the session's request; `form` is that of its body, or `body` what this side takes.
pub(in crate::server::gate) fn decide(
    gate: &Gate,
    settings: &Settings,
    session: &ServerSession,
    (form, body): (Option<&Query<'_>>, Option<&[u8]>),
    client: Client,
) -> Decision {
    let head = session.req_header();
    let incoming = Incoming {
        method: head.method.as_str(),
        target: target(head),
        host: host(head),
        path: head.uri.path(),
        query: &Query::parse(head.uri.query().unwrap_or_default()),
        form,
        body,
        headers: &head.headers,
        client: client.address,
        way: Way { client, tls: is_tls(session) },
        can_upgrade: false,
        known: None,
    };
    gate.decide(settings, &incoming)
}

/// A session's request on its way through [`crate::server::gate::serve`].
pub(in crate::server::gate) struct SessionExchange<'a> {
    session: &'a mut ServerSession,
    timer: Timer,
    gate: &'a Gate,
    settings: &'a Settings,
    /// Its part of the memory for bodies.
    pub(in crate::server::gate) share: BodyShare,
}

impl<'a> SessionExchange<'a> {
    /// An exchange of `gate`; `share` is the room that the request's body takes so far.
    pub(in crate::server::gate) fn new(
        session: &'a mut ServerSession,
        gate: &'a Gate,
        settings: &'a Settings,
        share: BodyShare,
    ) -> Self {
        Self { session, timer: Timer::default(), gate, settings, share }
    }
}

impl Exchange for SessionExchange<'_> {
    type Error = Box<Error>;

    async fn settle(&mut self, keep: bool) -> Result<Option<Reply>> {
        // Boxed, as it is over before anything is held.
        if !keep {
            if !self.session.is_body_done() {
                let stall = self.settings.write_timeout;
                let rate = self.settings.body_rate;
                Box::pin(discard_body(self.session, stall, rate)).await?;
            }
            return Ok(None);
        }
        let kept = super::body::keep_body(self.session, self.settings, &mut self.share);
        let kept = Box::pin(kept).await?;
        Ok(kept.map(|why| {
            self.session.set_keepalive(None);
            why.reply(self.gate)
        }))
    }

    fn gate(&self) -> &Gate {
        self.gate
    }

    fn settings(&self) -> &Settings {
        self.settings
    }

    fn waiting(&mut self) -> (&mut Timer, impl Future<Output = ()> + Send) {
        let Self { session, timer, .. } = self;
        (timer, poll_fn(|context| poll_gone(session, context)))
    }

    fn close_after(&mut self) {
        self.session.set_keepalive(None);
    }

    async fn write(&mut self, reply: &Reply) -> Result<()> {
        // Boxed, as are all writes: the engine's futures for them are larger than a held poll.
        Box::pin(write(self.session, reply)).await
    }

    async fn start(&mut self, reply: &Reply, first: &[Bytes]) -> Result<()> {
        let mut head = head(reply, self.session.is_http2())?;
        head.remove_header("Content-Length");
        match self.session.req_header().version {
            // It ends with its connection (RFC 9112, section 6.3).
            Version::HTTP_10 => self.session.set_keepalive(None),
            Version::HTTP_11 => head.insert_header("Transfer-Encoding", "chunked")?,
            _ => {}
        }
        Box::pin(write_head(self.session, head)).await?;
        self.send(first).await
    }

    async fn send(&mut self, pieces: &[Bytes]) -> Result<()> {
        for piece in pieces {
            write_body(self.session, piece.clone(), false).await?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        write_piece(self.session, Bytes::new(), true).await
    }

    fn timer(&mut self) -> &mut Timer {
        &mut self.timer
    }

    fn poll_input(&mut self, context: &mut Context<'_>, _socket: bool) -> Poll<Input> {
        poll_gone(self.session, context).map(|()| Input::Gone)
    }

    fn poll_message(
        &mut self,
        context: &mut Context<'_>,
        _messages: &mut Messages,
        _most: usize,
    ) -> Poll<Input> {
        // No socket is opened on such a session.
        self.poll_input(context, true)
    }

    fn frames(&mut self, _most: u64) -> (&mut Timer, impl Future<Output = Framed> + Send) {
        let (timer, gone) = self.waiting();
        (timer, async {
            gone.await;
            Framed::Gone
        })
    }
}

/// Ready once the client of a session is gone. The future that the engine has for it is made anew for
/// each look: dropping it loses nothing, and it would be part of every held poll.
fn poll_gone(session: &mut ServerSession, context: &mut Context<'_>) -> Poll<()> {
    if let Some(mut idle) = session.watch_h2_stream_close() {
        return Pin::new(&mut idle).poll(context).map(|_| ());
    }
    pin!(session.read_body_or_idle(true)).poll(context).map(|_| ())
}

/// True if the session's connection is over TLS.
pub(in crate::server::gate) fn is_tls(session: &ServerSession) -> bool {
    session.digest().is_some_and(|digest| digest.ssl_digest.is_some())
}

/// The host a request is for: its `Host`, or the authority of its target.
pub(in crate::server::gate) fn host(head: &RequestHeader) -> &str {
    let host = head.headers.get("host").and_then(|host| host.to_str().ok());
    host.or_else(|| head.uri.authority().map(|authority| authority.as_str())).unwrap_or_default()
}

/// Path and query of a request as they came.
pub(in crate::server::gate) fn target(head: &RequestHeader) -> &str {
    head.uri.path_and_query().map_or("/", |target| target.as_str())
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
    let status = session.response_written().map_or(0, |head| head.status.as_u16());
    let answer = (status, session.body_bytes_sent());
    log_answer(session.req_header(), settings, client, began, (answer, held, events));
}

/// Logs a request and the status and length of the answer that it got.
pub(in crate::server::gate) fn log_answer(
    head: &RequestHeader,
    settings: &Settings,
    client: Option<IpAddr>,
    began: Instant,
    ((status, bytes), held, events): Logged,
) {
    if !access_log::is_logged() {
        return;
    }
    let line = access_log::Line {
        client,
        method: head.method.as_str(),
        target: target(head),
        status,
        bytes,
        took: began.elapsed(),
        held,
        events,
    };
    access_log::log(&line, settings);
}

/// The status and length of an answer, how long its request was held, and the events of a stream.
type Logged = ((u16, usize), Option<(Duration, Cause)>, Option<u64>);

/// Logs why a request was not answered by the upstream. The error's own words are left out: they
/// may hold bytes of a head that could not be parsed.
pub(in crate::server::gate) fn log_failure(
    session: &ServerSession,
    settings: &Settings,
    error: &Error,
) {
    let head = session.req_header();
    let target = masked(target(head), &settings.mask);
    let method = head.method.as_str();
    let status = error_page::status_of(error);
    let source = error.esource().as_str();
    let error_type = error.etype().as_str();
    let io = error.root_cause().downcast_ref::<std::io::Error>();
    let cause = io.and_then(std::io::Error::raw_os_error).map(std::io::Error::from_raw_os_error);
    let cause = cause.map(|cause| cause.to_string()).unwrap_or_default();
    tracing::error!(method, %target, status, source, error = error_type, cause, "a request failed");
}

/// Holds a poll that the upstream answers, until it has its slot there.
pub(in crate::server::gate) async fn replay(
    session: &mut ServerSession,
    waiting: Box<HeldReplay>,
) -> ReplayEnd {
    let ended = {
        let gone = pin!(poll_fn(|context| poll_gone(session, context)));
        waiting.wait(&mut Timer::default(), gone).await
    };
    if matches!(ended.cause, Cause::Gone | Cause::Drain) {
        session.set_keepalive(None);
    }
    ended
}

/// Reads and discards the rest of the body.
pub(in crate::server::gate) async fn discard_body(
    session: &mut ServerSession,
    stall: Option<Duration>,
    least: u32,
) -> Result<()> {
    if !session.is_body_done() {
        answer_expect(session).await?;
        let mut rate = BodyRate::new(least);
        while read_piece(session, stall, &mut rate).await?.is_some() {}
    }
    Ok(())
}

/// Reads the next piece of the body; a client that takes longer than `stall`, or is slower than
/// `rate` allows, is an error. Pingora itself has no timeout on its reads of HTTP/2.
pub(in crate::server::gate) async fn read_piece(
    session: &mut ServerSession,
    stall: Option<Duration>,
    rate: &mut BodyRate,
) -> Result<Option<Bytes>> {
    rate.wait(Instant::now());
    let piece = session.read_request_body();
    let piece = match stall {
        None => piece.await?,
        Some(stall) => timeout(stall, piece).await.map_err(|_| {
            Error::explain(ErrorType::ReadTimedout, "the client pauses in a body")
        })??,
    };
    let Some(bytes) = &piece else { return Ok(None) };
    keep_rate(rate, bytes.len())?;
    Ok(piece)
}

/// So many bytes of a body have come, and the next are waited for from now on. A client that is
/// slower than `rate` allows is an error.
pub(in crate::server::gate) fn keep_rate(rate: &mut BodyRate, length: usize) -> Result<()> {
    let now = Instant::now();
    if !rate.took(length, now) {
        let words = "the client is too slow with a body (limits.body_rate)";
        return Err(Error::explain(ErrorType::ReadTimedout, words));
    }
    rate.wait(now);
    Ok(())
}

/// Sends 100 (Continue) to a client that waits for it before it sends its body.
pub(in crate::server::gate) async fn answer_expect(session: &mut ServerSession) -> Result<()> {
    // RFC 9110, section 10.1.1: only HTTP/1.1 waits for it.
    let head = session.req_header();
    let expects = head.version != Version::HTTP_10 && head.headers.get("expect").is_some();
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
    let head = head(reply, session.is_http2())?;
    write_head(session, head).await?;
    write_body(session, body, true).await
}

/// Writes a head; over HTTP/2 that is done at once.
async fn write_head(session: &mut ServerSession, head: ResponseHeader) -> Result<()> {
    match session {
        ServerSession::H2(stream) => stream.write_response_header(Box::new(head), false),
        session => session.write_response_header(Box::new(head)).await,
    }
}

/// Bytes of an HTTP/2 stream that a client has to take within `limits.write_timeout`: what is
/// written at once is timed as a whole there, and only the connection beneath knows of progress.
pub(in crate::server::gate) const PIECE: usize = 16 * 1024;

/// Writes a part of the body; `end` = it is the last.
async fn write_body(session: &mut ServerSession, mut body: Bytes, end: bool) -> Result<()> {
    while session.is_http2() && body.len() > PIECE {
        write_piece(session, body.split_to(PIECE), false).await?;
    }
    write_piece(session, body, end).await
}

async fn write_piece(session: &mut ServerSession, piece: Bytes, end: bool) -> Result<()> {
    match session {
        ServerSession::H2(_) if piece.is_empty() && !end => Ok(()),
        ServerSession::H2(stream) => Box::pin(stream.write_body(piece, end)).await,
        session => Box::pin(session.write_response_body(piece, end)).await,
    }
}

/// Bounds how long the client may take to pieces of up to `length` bytes that are written next, or
/// of what length it was called with before: the engine writes several in one go. Over HTTP/1.1
/// that is done beneath.
pub(in crate::server::gate) fn bound_write(
    session: &mut ServerSession,
    length: usize,
    stall: Option<Duration>,
) {
    let pieces = u32::try_from(length.div_ceil(PIECE)).unwrap_or(u32::MAX).max(1);
    let limit = stall.map(|stall| stall.saturating_mul(pieces));
    if session.is_http2() {
        session.set_write_timeout(limit.max(session.get_write_timeout()));
    }
}

/// The head of `reply`. Over HTTP/2 all names are in lower case, so their case is not kept.
fn head(reply: &Reply, http2: bool) -> Result<ResponseHeader> {
    let length = Some(reply.headers.len() + 3);
    let mut head = match http2 {
        true => ResponseHeader::build_no_case(reply.status, length)?,
        false => ResponseHeader::build(reply.status, length)?,
    };
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
