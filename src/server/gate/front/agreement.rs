//! Checks that three readers see the same request: the fast path, pingora behind it, and a third
//! reader that knows no more of HTTP than that lines end in CRLF and that a colon ends a name.
//!
//! A head that the fast path takes is either a plain poll, and then pingora would have seen that
//! poll and nothing behind it; or it is handed off, and then pingora sees that one request, with
//! the body that the fast path follows, and later bytes stay with the fast path.

use super::head::{self, Bounds, HeadScan};
use super::one_request::OneRequest;
use crate::protocol::http::Headers;
use crate::protocol::http::framing::Framing;
use bytes::BytesMut;
use pingora::protocols::http::ServerSession;
use std::io::{Cursor, Read};

const BOUNDS: Bounds = Bounds { bytes: 16 * 1024, headers: 100 };

/// The head of a request as one reader takes it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    method: String,
    target: Vec<u8>,
    /// Sorted by name; values of one name in their order.
    headers: Vec<(String, Vec<u8>)>,
}

/// Pingora's reading of the request.
#[derive(Debug, PartialEq, Eq)]
enum Engine {
    /// Pingora refuses the head.
    Refused,
    /// The body breaks off after these bytes, or is none.
    Broken(Seen, Vec<u8>),
    Whole(Seen, Vec<u8>),
}

/// Panics if the readers disagree on `bytes`, all that a client sends, of which `came` are there
/// when the fast path looks. Returns true if there was a request.
pub(crate) fn check(bytes: &[u8], came: usize) -> bool {
    let HeadScan::Head(length) = head::sight(bytes, 0, BOUNDS) else { return false };
    let ours = head::parse(&bytes[..length], BOUNDS, |head| {
        let third = third(&bytes[..length]);
        assert_eq!((head.method, head.target.as_bytes()), (&*third.method, &*third.target));
        for (name, _) in &third.headers {
            assert_eq!(head.headers.values(name), texts(&third, name), "{name}");
        }
        (third, head.framing.clone(), head.plain)
    });
    let Ok((third, framing, plain)) = ours else { return false };
    let (body, end) = body(&bytes[length..], framing.clone());
    let (engine, rest) = engine(bytes, came.clamp(length, bytes.len()), length, framing.clone());
    let story = || {
        let text = String::from_utf8_lossy(bytes);
        format!("{text:?}, framed {framing:?}: the engine saw {engine:?} and left {rest:?}")
    };
    if plain {
        let expected = Engine::Whole(third, Vec::new());
        assert_eq!(engine, expected, "not the same plain poll: {}", story());
        assert_eq!(rest.as_deref(), Some(&bytes[length..]), "{}", story());
        return true;
    }
    match &engine {
        Engine::Refused => {}
        Engine::Broken(seen, got) => {
            assert_eq!(*seen, third, "another head: {}", story());
            // Pingora may be kinder or harsher than the fast path, but must not see what that does
            // not.
            // A request that may change the protocol has all that follows for its body, of which
            // pingora reads the chunks, if it declares them. The connection ends with it.
            if framing != Framing::Endless {
                assert!(body.starts_with(got), "bytes that are no body: {}", story());
            }
        }
        Engine::Whole(seen, got) => {
            assert_eq!(*seen, third, "another head: {}", story());
            if framing != Framing::Endless {
                assert!(end.is_some() && *got == body, "another body: {}", story());
                let behind = end.map(|end| &bytes[length + end..]);
                assert_eq!(rest.as_deref(), behind, "{}", story());
            }
        }
    }
    true
}

/// The third reader's head.
fn third(head: &[u8]) -> Seen {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut words = lines.next().unwrap_or_default().split(|byte| *byte == b' ');
    let method = String::from_utf8_lossy(words.next().unwrap_or_default()).into_owned();
    let target = words.next().unwrap_or_default().to_vec();
    let fields = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
        Some((name, line[colon + 1..].trim_ascii().to_vec()))
    });
    let mut headers: Vec<_> = fields.collect();
    headers.sort_by(|(one, _), (other, _)| one.cmp(other));
    Seen { method, target, headers }
}

/// The values of that name that are text, as the fast path shows them.
fn texts<'a>(seen: &'a Seen, name: &str) -> Vec<&'a str> {
    let named = seen.headers.iter().filter(|(known, _)| known == name);
    named.filter_map(|(_, value)| std::str::from_utf8(value).ok()).collect()
}

/// The third reader's body, as far as it is there, and where it ends.
fn body(bytes: &[u8], mut framing: Framing) -> (Vec<u8>, Option<usize>) {
    let chunked = matches!(framing, Framing::Chunked(_));
    let taken = framing.take(bytes);
    let end = taken.ok().filter(|_| framing.is_over());
    if !chunked {
        return (bytes[..taken.unwrap_or_default()].to_vec(), end);
    }
    let mut body = Vec::new();
    let mut rest = bytes;
    while let Some(at) = memchr::memmem::find(rest, b"\r\n") {
        let size = std::str::from_utf8(&rest[..at]).unwrap_or_default();
        let Ok(size) = usize::from_str_radix(size, 16) else { break };
        let chunk = &rest[at + 2..];
        body.extend_from_slice(&chunk[..size.min(chunk.len())]);
        rest = chunk.get(size.saturating_add(2)..).unwrap_or_default();
        if size == 0 {
            break;
        }
    }
    (body, end)
}

/// Hands the request off as the fast path does. Returns the bytes left for the fast path; `None` if
/// the connection ends with the request.
fn engine(bytes: &[u8], came: usize, head: usize, framing: Framing) -> (Engine, Option<Vec<u8>>) {
    let connection = Box::new(Cursor::new(bytes[came..].to_vec()));
    let ahead = BytesMut::from(&bytes[..came]);
    let one = OneRequest::new(connection, ahead, head, framing, Default::default());
    let mut session = ServerSession::new_http1(Box::new(one));
    let engine = now(read(&mut session));
    let ServerSession::H1(session) = session else { return (engine, None) };
    let one: Result<Box<OneRequest>, _> = session.into_inner().into_any().downcast();
    let Some((left, pending)) = one.ok().and_then(|one| one.finish()) else {
        return (engine, None);
    };
    let mut rest = pending.to_vec();
    if let Ok(mut left) = left.into_any().downcast::<Cursor<Vec<u8>>>() {
        let _ = left.read_to_end(&mut rest);
    }
    (engine, Some(rest))
}

async fn read(session: &mut ServerSession) -> Engine {
    if !matches!(session.read_request().await, Ok(true)) {
        return Engine::Refused;
    }
    let head = session.req_header();
    let values = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.as_str().to_owned(), value.as_bytes().to_vec())
    };
    let mut headers: Vec<_> = head.headers.iter().map(values).collect();
    headers.sort_by(|(one, _), (other, _)| one.cmp(other));
    let method = head.method.to_string();
    let target = head.raw_path().to_vec();
    let seen = Seen { method, target, headers };
    let mut body = Vec::new();
    loop {
        match session.read_request_body().await {
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            Ok(None) => return Engine::Whole(seen, body),
            Err(_) => return Engine::Broken(seen, body),
        }
    }
}

/// The result of `work`, which has nothing to wait for.
fn now<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.unwrap_or_else(|error| unreachable!("a runtime without I/O: {error}")).block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn they_agree_on_what_browsers_and_attackers_send() {
        for (text, is_request) in [
            ("GET /comet/a?cursor=x HTTP/1.1\r\nHost: a\r\nCookie: x=y\r\n\r\n", true),
            (
                "\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
                true,
            ),
            ("GET /\u{fc}%20?a b HTTP/1.1\r\nHost: a\r\n\r\n", false),
            ("GET /\u{fc} HTTP/1.1\r\nHost: a\r\nX: \u{fc}\r\n\r\n", true),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c, websocket\r\nConnection: upgrade\r\n\r\nbytes",
                true,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\n\r\n",
                true,
            ),
            ("GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", true),
            ("POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nabcd", true),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc", true),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET",
                true,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\nGET",
                true,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n",
                true,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
                false,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                false,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
                true,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n\0\r\n\r\n",
                true,
            ),
            ("get / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n", false),
            ("GET / HTTP/1.1\nHost: a\n\n", false),
        ] {
            for came in 0..=text.len() {
                assert_eq!(check(text.as_bytes(), came), is_request, "{text:?}");
            }
        }
    }

    /// Lines that decide what a request is, and others.
    const LINES: &[&str] = &[
        "Host: a.example",
        "host: a.example:80",
        "Cookie: a=b; c=d",
        "X-Forwarded-For: 1.2.3.4",
        "Connection: close",
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
        "Content-Length: 0",
        "Content-Length: 5",
        "content-length:  7  ",
        "Content-Length: +5",
        "Content-Length: 18446744073709551616",
        "Transfer-Encoding: chunked",
        "transfer-encoding: CHUNKED",
        "Transfer-Encoding: identity",
        "Expect: 100-continue",
        "Content-Type: application/x-www-form-urlencoded",
        "X: \u{fc}\t,",
        "X:",
    ];
    const FIRST: &[&str] = &[
        "GET /comet/news?cursor=Xk3v9Q-42 HTTP/1.1",
        "GET / HTTP/1.1",
        "POST /publish HTTP/1.1",
        "PUT /a%2Fb?x=%00 HTTP/1.1",
        "GET /comet/a HTTP/1.0",
        "HEAD /comet/a HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "CONNECT a:443 HTTP/1.1",
        "GET http://a.example/comet/a HTTP/1.1",
        "DELETE //a/../b HTTP/1.1",
    ];
    const REST: &[&str] = &[
        "",
        "hello",
        "helloGET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
        "0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
        "A\r\n0123456789\r\n00\r\nX: y\r\n\r\n",
        "5;a=b\r\nhello\r\n0\r\n\r\n",
    ];
    /// Bytes that attackers put in between.
    const ODD: &[&[u8]] = &[
        b"\r",
        b"\n",
        b"\r\n",
        b"\0",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"\x0b",
        b"\x0c",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"\xc2\xa0",
        b"chunked",
        b"0",
        b"5",
        b"x",
    ];

    /// Builds a request, with a number for each choice.
    fn request(
        first: usize,
        lines: &[usize],
        rest: usize,
        edits: &[(u16, usize, bool)],
    ) -> Vec<u8> {
        let mut text = format!("{}\r\n", FIRST[first % FIRST.len()]);
        for line in lines {
            text += LINES[line % LINES.len()];
            text += "\r\n";
        }
        text += "\r\n";
        text += REST[rest % REST.len()];
        let mut bytes = text.into_bytes();
        for (at, odd, replace) in edits {
            let at = usize::from(*at) % (bytes.len() + 1);
            let until = (at + usize::from(*replace)).min(bytes.len());
            bytes.splice(at..until, ODD[odd % ODD.len()].iter().copied());
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn they_agree_on_requests_with_something_odd_in_them(
            first in 0..100usize,
            lines in prop::collection::vec(0..100usize, 0..5),
            rest in 0..100usize,
            edits in prop::collection::vec((any::<u16>(), 0..100usize, any::<bool>()), 0..3),
            came: u8,
        ) {
            check(&request(first, &lines, rest, &edits), came.into());
        }
    }
}
