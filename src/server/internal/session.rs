//! Sessions of the internal listener: reads requests from a connection and writes responses to it,
//! with a bound on everything.

use super::malformed;
use crate::protocol::http::Reply;
use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use pingora::ErrorType;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Pingora's own timeout of a kept connection: none, as the stream beneath it has one.
pub(super) const NO_LIMIT: u64 = 0;
/// Timeout of a whole body.
const TRANSFER: Duration = Duration::from_secs(60);
/// Time that a closed connection is still read, so that a reset does not overtake the response.
const LINGER: Duration = Duration::from_secs(2);
/// Upper bound of the bytes read then.
const LINGER_BYTES: usize = 16 << 20;

/// The connection is of no more use; the client cannot be answered.
#[derive(Debug)]
pub(super) struct Broken;

/// Waits for a request's head. The refusal is the response to bytes that are none.
pub(super) async fn read_request(session: &mut ServerSession) -> Result<Result<(), Reply>, Broken> {
    // A client that sends its next request early is served in order.
    session.set_pipelining_enabled(true);
    // The stream beneath the session has the timeouts.
    session.set_read_timeout(None);
    match session.read_request().await {
        Ok(true) => Ok(Ok(())),
        Err(error) if is_late(&error) => {
            session.set_keepalive(None);
            let error = "the head of the request did not arrive in time";
            Ok(Err(Reply::error(408, error, "send it faster")))
        }
        Err(error) if *error.etype() == ErrorType::InvalidHTTPHeader => {
            session.set_keepalive(None);
            // The parser's words hold the bytes themselves, tokens too.
            tracing::debug!(error = error.etype().as_str(), "internal listener");
            Ok(Err(malformed("this is no HTTP request")))
        }
        Ok(_) | Err(_) => Err(Broken),
    }
}

/// True if the error is a client's silence in the middle of a request.
fn is_late(error: &pingora::Error) -> bool {
    let io = error.root_cause().downcast_ref::<std::io::Error>();
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut)
}

/// Reads the body; the refusal means that it is longer than `most` bytes.
pub(super) async fn read_body(
    session: &mut ServerSession,
    most: u64,
) -> Result<Result<Bytes, Reply>, Broken> {
    let length = session.get_header(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    // Too many digits for a number are too many bytes, too.
    let length = length.map(|digits| digits.parse().unwrap_or(u64::MAX));
    if length.is_some_and(|length| length > most) {
        return Ok(Err(too_long(session, most)));
    }
    if session.is_body_empty() {
        return Ok(Ok(Bytes::new()));
    }
    if expects_continue(session) {
        // Pingora takes the interim response for one that comes before the body, and would close.
        let kept = session.get_keepalive();
        session.write_continue_response().await.map_err(|_| Broken)?;
        session.set_keepalive(kept);
    }
    match timeout(TRANSFER, collect(session, most)).await {
        Ok(read) => read,
        Err(_) => Ok(Err(late(session))),
    }
}

async fn collect(session: &mut ServerSession, most: u64) -> Result<Result<Bytes, Reply>, Broken> {
    let mut body = BytesMut::new();
    loop {
        match session.read_request_body().await {
            Ok(Some(part)) if (body.len() + part.len()) as u64 > most => {
                return Ok(Err(too_long(session, most)));
            }
            Ok(Some(part)) => body.extend_from_slice(&part),
            Ok(None) => return Ok(Ok(body.freeze())),
            Err(error) if is_late(&error) => return Ok(Err(late(session))),
            Err(error) => {
                session.set_keepalive(None);
                tracing::debug!(error = error.etype().as_str(), "internal listener");
                return Ok(Err(malformed("the body ends early or is badly framed")));
            }
        }
    }
}

fn late(session: &mut ServerSession) -> Reply {
    session.set_keepalive(None);
    Reply::error(408, "the body did not arrive in time", "send it faster")
}

fn too_long(session: &mut ServerSession, most: u64) -> Reply {
    session.set_keepalive(None);
    let error = format!("the body is longer than {most} bytes");
    Reply::error(413, error, "send less, or raise history.max_message")
}

/// RFC 9110, section 10.1.1: only HTTP/1.1 waits for it.
fn expects_continue(session: &ServerSession) -> bool {
    let header = session.req_header();
    header.version == http::Version::HTTP_11
        && header
            .headers
            .get(http::header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Writes `reply`, without its body if `bodiless`. Pingora adds `Connection` itself.
pub(super) async fn write(
    session: &mut ServerSession,
    reply: Reply,
    bodiless: bool,
) -> Result<(), Broken> {
    let head = response_head(&reply).map_err(|error| {
        let error = error.etype().as_str();
        tracing::error!(error, "internal listener: a reply of its own could not be written");
        Broken
    })?;
    let sent = async {
        session.write_response_header(Box::new(head)).await?;
        if !bodiless && !reply.body.is_empty() {
            session.write_response_body(reply.body, true).await?;
        }
        // Flushes the head if there is no body.
        session.finish_body().await
    };
    // A client that takes none of it is timed beneath the session.
    sent.await.map_err(|_: Box<pingora::Error>| Broken)
}

fn response_head(reply: &Reply) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(reply.status, Some(reply.headers.len() + 6))?;
    head.insert_header(CONTENT_LENGTH, reply.body.len().to_string())?;
    if !reply.content_type.is_empty() {
        head.insert_header(CONTENT_TYPE, reply.content_type.as_ref())?;
    }
    head.insert_header(CACHE_CONTROL, "no-store")?;
    head.insert_header(X_CONTENT_TYPE_OPTIONS, "nosniff")?;
    for (name, value) in &reply.headers {
        head.append_header(name.clone().into_owned(), &**value)?;
    }
    Ok(head)
}

/// Closes the connection so that the response arrives: closing one with unread bytes resets it, and
/// a reset overtakes sent bytes (RFC 9112, section 9.6).
pub(super) async fn close(session: ServerSession) {
    let ServerSession::H1(session) = session else { return };
    let mut stream = session.into_inner();
    let drained = async {
        stream.shutdown().await?;
        let mut left = LINGER_BYTES;
        let mut buffer = [0; 4096];
        while left > 0 {
            match stream.read(&mut buffer).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        std::io::Result::Ok(())
    };
    // Either way, the connection ends here.
    let _ = timeout(LINGER, drained).await;
}
