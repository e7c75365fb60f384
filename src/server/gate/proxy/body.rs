//! Bodies of POST polls, which are read before they are forwarded.

use super::error_page::page;
use super::session;
use crate::protocol::http::Reply;
use crate::protocol::http::form::{Encoding, Purpose};
use crate::protocol::http::query::Query;
use crate::server::gate::{Gate, RETRY_AFTER, Settings};
use crate::server::limits::body_memory::BodyShare;
use crate::server::limits::body_rate::BodyRate;
use crate::server::telemetry::refusal::Refusal;
use bytes::{Bytes, BytesMut};
use pingora::Result;
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;

/// The longest body that is parsed or kept, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// The body of a POST that may be a poll, as far as it was read.
pub(in crate::server::gate) struct Form {
    /// `None` = it is no form, or no rule needs it.
    pub(in crate::server::gate) form: Option<Query<'static>>,
    /// The body as it is, where this side takes it; none, if it is too long for that.
    pub(in crate::server::gate) taken: Option<Bytes>,
    /// Its part of the memory for bodies.
    pub(in crate::server::gate) share: BodyShare,
    /// Bytes that were read.
    pub(in crate::server::gate) length: usize,
}

/// The form of a POST that may be a poll. The body stays available for the upstream: pingora
/// repeats the bytes read from its retry buffer, which is just large enough. `None` = there is no
/// room to read it.
pub(in crate::server::gate) async fn read(
    session: &mut Session,
    settings: &Settings,
) -> Result<Option<Form>> {
    let mut share = BodyShare::new(&settings.bodies);
    let head = session.req_header();
    if head.method == http::Method::POST && settings.pusher.takes_body(head.uri.path()) {
        return take(session, settings, share).await;
    }
    if head.method != http::Method::POST || !settings.routes.may_take_form(head.uri.path()) {
        return Ok(Some(Form { form: None, taken: None, share, length: 0 }));
    }
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let encoding = header("content-type").and_then(|kind| Encoding::of(kind).ok().flatten());
    let length = header("content-length").and_then(|length| length.parse::<usize>().ok());
    let (Some(encoding), Some(length @ 0..=MAX_BYTES)) = (encoding, length) else {
        return Ok(Some(Form { form: None, taken: None, share, length: 0 }));
    };
    // Pingora keeps it for the site; here it is read, and taken apart.
    if !share.grow(3 * length) {
        return Ok(None);
    }
    session.enable_retry_buffering();
    session::answer_expect(session.as_mut()).await?;
    let mut body = BytesMut::new();
    let stall = settings.write_timeout;
    let mut rate = BodyRate::new(settings.body_rate);
    while let Some(chunk) = session::read_piece(session.as_mut(), stall, &mut rate).await? {
        body.extend_from_slice(&chunk);
    }
    let form = encoding.parse(&body, Purpose::Poll).ok();
    Ok(Some(Form { form, taken: None, share, length }))
}

/// The body of a request that is this side's own. One that is too long is not read to its end.
async fn take(
    session: &mut Session,
    settings: &Settings,
    mut share: BodyShare,
) -> Result<Option<Form>> {
    session::answer_expect(session.as_mut()).await?;
    let mut body = BytesMut::new();
    let stall = settings.write_timeout;
    let mut rate = BodyRate::new(settings.body_rate);
    while let Some(chunk) = session::read_piece(session.as_mut(), stall, &mut rate).await? {
        if !share.grow(chunk.len()) {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BYTES {
            return Ok(Some(Form { form: None, taken: None, share, length: body.len() }));
        }
    }
    let length = body.len();
    let taken = Some(body.freeze());
    Ok(Some(Form { form: None, taken, share, length }))
}

/// Why a body is not kept.
pub(in crate::server::gate) enum NotKept {
    /// It is too long for that.
    TooLong,
    /// There is no room for it.
    NoRoom,
}

impl NotKept {
    /// Counts the refusal, and returns the answer to its client.
    pub(in crate::server::gate) fn reply(self, gate: &Gate) -> Reply {
        let (cause, reply) = match self {
            Self::TooLong => (Refusal::BadRequest, page(413)),
            Self::NoRoom => (Refusal::BodyMemory, page(503).with("Retry-After", RETRY_AFTER)),
        };
        gate.refused(cause);
        reply
    }
}

/// Reads the body of a request that is held before the site gets it, and keeps it, as `share`
/// says.
pub(in crate::server::gate) async fn keep_body(
    session: &mut ServerSession,
    settings: &Settings,
    share: &mut BodyShare,
) -> Result<Option<NotKept>> {
    if session.is_body_done() {
        return Ok(None);
    }
    session.enable_retry_buffering();
    session::answer_expect(session).await?;
    let mut length = 0;
    let stall = settings.write_timeout;
    let mut rate = BodyRate::new(settings.body_rate);
    while let Some(chunk) = session::read_piece(session, stall, &mut rate).await? {
        length += chunk.len();
        if length > MAX_BYTES {
            return Ok(Some(NotKept::TooLong));
        }
        if !share.grow(chunk.len()) {
            return Ok(Some(NotKept::NoRoom));
        }
    }
    Ok(None)
}
