//! Requests of the protocol: their paths, versions, handshakes and origins.

use super::outbox::Close;
use crate::protocol::http::Reply;
use crate::protocol::http::query::Query;
use crate::protocol::http::websocket;
use crate::protocol::pusher::{App, VERSIONS, code};
use crate::server::gate::poll::admission::Incoming;
use crate::server::gate::stream::is_own;

/// What a path of the fallbacks is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fallback {
    Poll,
    Stream,
    Send,
}

/// What a path of the protocol's says.
pub(super) enum Path<'a> {
    Socket { key: &'a str },
    Fallback { key: &'a str, session: &'a str, what: Fallback },
}

impl<'a> Path<'a> {
    /// Reads a path as it stands in the target; `None` = it is the site's.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let is_key = |key: &str| !key.is_empty() && key.len() <= 128 && !key.contains(['/', '%']);
        if let Some(key) = path.strip_prefix("/app/") {
            return is_key(key).then_some(Self::Socket { key });
        }
        let (key, session) = path.strip_prefix("/pusher/app/")?.split_once('/')?;
        let (session, what) = session.rsplit_once('/')?;
        let what = match what {
            "xhr" => Fallback::Poll,
            "xhr_streaming" => Fallback::Stream,
            "xhr_send" => Fallback::Send,
            _ => return None,
        };
        let (server, id) = session.split_once('/')?;
        let is_word = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        let ours = is_key(key) && is_word(server, 8) && is_word(id, 32);
        ours.then_some(Self::Fallback { key, session, what })
    }
}

/// The content type of lines.
pub(super) const LINES: &str = "application/javascript; charset=UTF-8";

/// Checks the version of the protocol that a client speaks.
pub(super) fn spoken(query: &Query<'_>) -> Result<(), Close> {
    let Some(version) = query.text("protocol") else {
        return Err(Close::new(code::NO_VERSION, "name the protocol's version: protocol=7"));
    };
    let Ok(version) = version.parse::<u32>() else {
        return Err(Close::new(code::BAD_VERSION, "the protocol's version is no number"));
    };
    if !VERSIONS.contains(&version) {
        return Err(Close::new(code::UNKNOWN_VERSION, "this version is not spoken; use 7"));
    }
    Ok(())
}

/// The answer to a WebSocket's key, or the refusal of what is no handshake (RFC 6455, section 4.2).
pub(super) fn handshake(request: &Incoming<'_>) -> Result<String, Reply> {
    let headers = request.headers;
    if !request.can_upgrade || request.method != "GET" || headers.get("upgrade").is_none() {
        let hint = "open it with a WebSocket client, over HTTP/1.1";
        let reply = Reply::error(426, "this is for WebSockets", hint);
        return Err(reply.with("Upgrade", "websocket"));
    }
    if headers.get("sec-websocket-version").map(str::trim) != Some("13") {
        let reply = Reply::error(426, "this version of WebSocket is not known", "use version 13");
        return Err(reply.with("Sec-WebSocket-Version", "13"));
    }
    let key = headers.get("sec-websocket-key").map(str::trim);
    key.and_then(websocket::accept).ok_or_else(|| {
        let hint = "send 16 random bytes in base64";
        Reply::error(400, "there is no proper Sec-WebSocket-Key", hint)
    })
}

/// The request's origin, as it is named to browsers, if the app lists it.
pub(super) fn allowed_origin(app: &App, request: &Incoming<'_>) -> Option<Box<str>> {
    let origin = request.headers.get("origin")?;
    let listed = app.origins.iter().find(|listed| *listed == "*" || *listed == origin);
    let own = || is_own(origin, request.host).then_some(origin);
    listed.map(String::as_str).or_else(own).map(Box::from)
}

/// Lets pages of `origin` read a response, without credentials.
pub(super) fn readable(reply: Reply, origin: Option<&str>) -> Reply {
    let reply = reply.with("Vary", "Origin");
    match origin {
        None => reply,
        Some(origin) => reply.with("Access-Control-Allow-Origin", origin.to_owned()),
    }
}
