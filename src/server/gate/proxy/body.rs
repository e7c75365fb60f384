//! Bodies of POST polls, which are read before they are forwarded.

use super::session;
use crate::protocol::http::form::{Encoding, FileFields};
use crate::protocol::http::query::Query;
use crate::server::gate::Settings;
use crate::server::limits::body_memory::BodyShare;
use crate::server::limits::body_rate::BodyRate;
use bytes::BytesMut;
use pingora::Result;
use pingora::proxy::Session;

/// The longest body that is parsed or kept, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// What became of the body of a POST that may be a poll.
pub(in crate::server::gate) enum Form {
    /// It is none, or nobody wants it.
    None,
    /// It was read, and takes that of the memory for bodies.
    Read(Query<'static>, BodyShare, usize),
    /// It is none that can be read.
    Torn(BodyShare, usize),
    /// There is no room to read it.
    NoRoom,
}

/// The form of a POST that may be a poll. The body stays available for the upstream: pingora
/// repeats the bytes read from its retry buffer, which is just large enough.
pub(in crate::server::gate) async fn read(
    session: &mut Session,
    settings: &Settings,
) -> Result<Form> {
    let head = session.req_header();
    if head.method != http::Method::POST || !settings.routes.may_take_form(head.uri.path()) {
        return Ok(Form::None);
    }
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let encoding = header("content-type").and_then(Encoding::of);
    let length = header("content-length").and_then(|length| length.parse::<usize>().ok());
    let (Some(encoding), Some(length @ 0..=MAX_BYTES)) = (encoding, length) else {
        return Ok(Form::None);
    };
    // Pingora keeps it for the site; here it is read, and taken apart.
    let mut share = BodyShare::new(&settings.bodies);
    if !share.grow(3 * length) {
        return Ok(Form::NoRoom);
    }
    session.enable_retry_buffering();
    session::answer_expect(session.as_mut()).await?;
    let mut body = BytesMut::new();
    let (stall, mut rate) = (settings.write_timeout, BodyRate::new(settings.body_rate));
    while let Some(chunk) = session::read_piece(session.as_mut(), stall, &mut rate).await? {
        body.extend_from_slice(&chunk);
    }
    Ok(match encoding.parse(&body, FileFields::Count) {
        Some(form) => Form::Read(form, share, length),
        None => Form::Torn(share, length),
    })
}

/// Why a body is not kept.
pub(in crate::server::gate) enum NotKept {
    /// It is too long for that.
    TooLong,
    /// There is no room for it.
    NoRoom,
}

/// Reads the body of a request that is held before the site gets it, and keeps it, as `share`
/// says.
pub(in crate::server::gate) async fn keep_body(
    session: &mut Session,
    settings: &Settings,
    share: &mut BodyShare,
) -> Result<Option<NotKept>> {
    if session.as_mut().is_body_done() {
        return Ok(None);
    }
    session.enable_retry_buffering();
    session::answer_expect(session.as_mut()).await?;
    let mut length = 0;
    let (stall, mut rate) = (settings.write_timeout, BodyRate::new(settings.body_rate));
    while let Some(chunk) = session::read_piece(session.as_mut(), stall, &mut rate).await? {
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
