//! Bodies of POST polls, which are read before they are forwarded.

use super::session;
use crate::protocol::http::form::{Encoding, FileFields};
use crate::protocol::http::query::Query;
use crate::server::gate::Settings;
use bytes::BytesMut;
use pingora::Result;
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;
use std::time::Duration;

/// The longest body that is parsed or kept, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// The form of a POST that may be a poll. The body stays available for the upstream: pingora
/// repeats the bytes read from its retry buffer, which is just large enough.
pub(in crate::server::gate) async fn read(
    session: &mut Session,
    settings: &Settings,
) -> Result<Option<Query<'static>>> {
    let head = session.req_header();
    if head.method != http::Method::POST || !settings.routes.may_take_form(head.uri.path()) {
        return Ok(None);
    }
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let encoding = header("content-type").and_then(|kind| Encoding::of(kind).ok().flatten());
    let length = header("content-length").and_then(|length| length.parse::<usize>().ok());
    let (Some(encoding), Some(0..=MAX_BYTES)) = (encoding, length) else {
        return Ok(None);
    };
    session.enable_retry_buffering();
    session::answer_expect(session.as_mut()).await?;
    let mut body = BytesMut::new();
    while let Some(chunk) = session::read_piece(session.as_mut(), settings.write_timeout).await? {
        body.extend_from_slice(&chunk);
    }
    Ok(encoding.parse(&body, FileFields::Count).ok())
}

/// Reads the body of a request that is held before it is forwarded, and keeps it. False = it is too
/// long for that.
pub(in crate::server::gate) async fn keep_body(
    session: &mut ServerSession,
    stall: Option<Duration>,
) -> Result<bool> {
    if session.is_body_done() {
        return Ok(true);
    }
    session.enable_retry_buffering();
    session::answer_expect(session).await?;
    let mut length = 0;
    while let Some(chunk) = session::read_piece(session, stall).await? {
        length += chunk.len();
        if length > MAX_BYTES {
            return Ok(false);
        }
    }
    Ok(true)
}
