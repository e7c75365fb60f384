//! What a request says of the stream that it wants, and the refusals that its transport needs.

use crate::protocol::dialect::Dialect;
use crate::protocol::dialect::Poll;
use crate::protocol::dialect::nchan::{self, META_SUBPROTOCOL};
use crate::protocol::dialect::stream::{Format, SUBPROTOCOL, Transport, close_frame};
use crate::protocol::http::Reply;
use crate::protocol::http::websocket::{self, CloseCode};
use crate::server::gate::Gate;
use crate::server::gate::poll::admission::Incoming;
use crate::server::gate::poll::replies::{refusal, unstored};
use crate::server::gate::route::Rule;
use crate::server::telemetry::refusal::Refusal;

/// A stream that a request asks for.
pub(in crate::server::gate) struct Opening {
    pub(in crate::server::gate) format: Format,
    /// The answer to a WebSocket's key.
    accept: Option<Box<str>>,
}

/// Milliseconds after which a client comes back that found no room, at random.
const BUSY_RETRY: std::ops::Range<u32> = 5_000..15_000;

/// The longest nonce that is taken over.
const MAX_NONCE: usize = 256;

impl Gate {
    /// The stream that `request` asks for; `None` = a poll. The error is why it cannot be had.
    pub(in crate::server::gate) fn opening(
        &self,
        rule: &Rule,
        request: &Incoming<'_>,
    ) -> Result<Option<Box<Opening>>, (Refusal, Reply)> {
        let only_polls = rule.transports == [Transport::Poll];
        let own = match &rule.dialect {
            Dialect::Nchan(nchan) if nchan.is_raw(request.headers, request.query) => {
                Some(Transport::Chunked)
            }
            Dialect::Nchan(_) => nchan::chosen(request.headers, request.query),
            _ => None,
        };
        let chosen = own.or_else(|| Transport::chosen(request.headers, request.query));
        let transport = match chosen {
            Some(chosen) => chosen,
            // The parameter is this rule's own only if there is something to choose.
            None if only_polls => Transport::Poll,
            None => return Err(unavailable(rule, "there is no such transport")),
        };
        // HEAD is answered at once, whatever it would get.
        if request.method == "HEAD" {
            return Ok(None);
        }
        if !rule.transports.contains(&transport) {
            let error = format!("there is no transport \"{}\" here", transport.name());
            return Err(match transport {
                Transport::WebSocket => bad_request(rule, &error, TRANSPORTS_HINT),
                _ => unavailable(rule, &error),
            });
        }
        match transport {
            Transport::Poll => Ok(None),
            Transport::WebSocket => socket(rule, request).map(Some),
            Transport::Multipart => {
                let mut format = Format::of(Transport::Multipart);
                format.nonce = std::iter::repeat_with(fastrand::alphanumeric).take(32).collect();
                Ok(Some(Opening::of(format)))
            }
            _ => Ok(Some(Opening::of(format(transport, rule, request)))),
        }
    }
}

const TRANSPORTS_HINT: &str = "choose one of the rule's transports";

fn unavailable(rule: &Rule, error: &str) -> (Refusal, Reply) {
    (Refusal::BadRequest, refusal(rule, 406, error, TRANSPORTS_HINT))
}

fn bad_request(rule: &Rule, error: &str, hint: &str) -> (Refusal, Reply) {
    (Refusal::BadRequest, refusal(rule, 400, error, hint))
}

fn format(transport: Transport, rule: &Rule, request: &Incoming<'_>) -> Format {
    let native = matches!(rule.dialect, Dialect::Native(_));
    let only_data = native && request.query.text("format").is_some_and(|it| it == "data");
    let raw = match &rule.dialect {
        Dialect::Nchan(nchan) => nchan.is_raw(request.headers, request.query),
        _ => false,
    };
    let nonce = rule.csp_nonce.as_deref().and_then(|name| request.headers.get(name));
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'_' | b'-');
    let nonce = nonce.filter(|nonce| nonce.len() <= MAX_NONCE && nonce.bytes().all(known));
    Format { only_data, raw, nonce: nonce.unwrap_or_default().into(), ..Format::of(transport) }
}

/// A WebSocket's handshake (RFC 6455, section 4.2).
fn socket(rule: &Rule, request: &Incoming<'_>) -> Result<Box<Opening>, (Refusal, Reply)> {
    let headers = request.headers;
    if !request.can_upgrade || request.method != "GET" || headers.get("upgrade").is_none() {
        let hint = "open it with a WebSocket client, over HTTP/1.1";
        return Err(bad_request(rule, "this is no WebSocket handshake", hint));
    }
    if headers.get("sec-websocket-version").map(str::trim) != Some("13") {
        let reply = refusal(rule, 426, "this version of WebSocket is not known", "use version 13");
        return Err((Refusal::BadRequest, reply.with("Sec-WebSocket-Version", "13")));
    }
    let key = headers.get("sec-websocket-key").map(str::trim);
    let Some(accept) = key.and_then(websocket::accept) else {
        let hint = "send 16 random bytes in base64";
        return Err(bad_request(rule, "there is no proper Sec-WebSocket-Key", hint));
    };
    if let Some(origin) = headers.get("origin")
        && !is_own(origin, request.host)
        && !rule.origins.iter().any(|listed| listed == origin || listed == "*")
    {
        let hint = "list it in the rule's origins";
        let reply = refusal(rule, 403, "this origin may not open a WebSocket here", hint);
        return Err((Refusal::CrossOrigin, reply));
    }
    let offered = headers.all("sec-websocket-protocol");
    let mut offered = offered.split(',').map(str::trim).filter(|name| !name.is_empty()).peekable();
    let native = matches!(rule.dialect, Dialect::Native(_));
    let any = offered.peek().is_some();
    let known = match rule.dialect {
        Dialect::Nchan(_) => META_SUBPROTOCOL,
        _ => SUBPROTOCOL,
    };
    let agreed = (native || known == META_SUBPROTOCOL) && offered.any(|name| name == known);
    if any && !agreed {
        let hint = format!("offer {known} or nothing");
        return Err(bad_request(rule, "none of these subprotocols is known", &hint));
    }
    let mut format = Format::of(Transport::WebSocket);
    (format.answers, format.meta) = (agreed && native, agreed && !native);
    Ok(Box::new(Opening { format, accept: Some(accept.into()) }))
}

/// Whether a page of `origin` is the own host's, whatever the scheme: a proxy in front may have
/// ended TLS.
pub(in crate::server::gate) fn is_own(origin: &str, host: &str) -> bool {
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    let plain = |text: &str| {
        let text = text.to_ascii_lowercase();
        let text = text.strip_suffix(":443").or(text.strip_suffix(":80")).unwrap_or(&text);
        text.to_owned()
    };
    authority.is_some_and(|authority| !host.is_empty() && plain(authority) == plain(host))
}

impl Opening {
    fn of(format: Format) -> Box<Self> {
        Box::new(Self { format, accept: None })
    }

    /// The same for what the dialect has read; the error is the answer where both do not go
    /// together.
    pub(in crate::server::gate) fn for_poll(
        mut self: Box<Self>,
        poll: &Poll,
    ) -> Result<Box<Self>, Reply> {
        if self.format.only_data && poll.subscriptions.len() > 1 {
            let hint = "name one channel, or leave format=data out";
            let error = "bare data does not say which channel it is from";
            return Err(Reply::error(400, error, hint));
        }
        if self.format.transport == Transport::Iframe {
            if poll.callback.is_none() {
                let hint = "name the function of the page in ?callback=";
                return Err(Reply::error(400, "an iframe needs a function to call", hint));
            }
            self.format.callback.clone_from(&poll.callback);
        }
        Ok(self)
    }

    /// The head of the stream.
    pub(super) fn head(&self, rule: &Rule) -> Reply {
        let head = rule.dialect.stream_head(&self.format);
        let Some(accept) = &self.accept else { return head };
        let head = upgrade(head, accept);
        match (self.format.answers, self.format.meta) {
            (true, _) => head.with("Sec-WebSocket-Protocol", SUBPROTOCOL),
            (false, true) => head.with("Sec-WebSocket-Protocol", META_SUBPROTOCOL),
            (false, false) => head,
        }
    }

    /// The answer where there is no room, if this transport has one of its own: browsers take an
    /// error for the end of an event stream, and show pages nothing of one before a WebSocket.
    pub(in crate::server::gate) fn full(&self, why: &str) -> Option<Reply> {
        match (self.format.transport, &self.accept) {
            (Transport::Sse, _) => Some(busy(why)),
            (Transport::WebSocket, Some(accept)) => {
                let mut reply = upgrade(Reply::new(101, "", ""), accept);
                reply.body = close_frame(CloseCode::TryAgainLater, why);
                Some(reply)
            }
            _ => None,
        }
    }
}

fn upgrade(head: Reply, accept: &str) -> Reply {
    head.with("Upgrade", "websocket").with("Sec-WebSocket-Accept", accept.to_owned())
}

/// An event stream that says nothing but when to come back.
pub(in crate::server::gate) fn busy(why: &str) -> Reply {
    let retry = fastrand::u32(BUSY_RETRY);
    unstored(Reply::new(200, "text/event-stream", format!("retry: {retry}\n: {why}\n\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_host_is_the_own_origin_whatever_the_scheme() {
        assert!(is_own("https://a.example", "a.example"));
        assert!(is_own("http://A.example:80", "a.example"));
        assert!(is_own("https://a.example:8443", "a.example:8443"));
        for (origin, host) in [
            ("https://b.example", "a.example"),
            ("https://a.example:8443", "a.example"),
            ("https://a.example.evil", "a.example"),
            ("null", "null"),
            ("a.example", "a.example"),
            ("https://", ""),
        ] {
            assert!(!is_own(origin, host), "{origin} {host}");
        }
    }
}
