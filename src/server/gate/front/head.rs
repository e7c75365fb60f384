//! The head of an HTTP/1.1 request, as the fast path reads it.

use crate::protocol::http::framing::Framing;
use crate::protocol::http::{Headers, split_at_mark, validate};
use crate::server::gate::sites::RequestHost;
use httparse::{EMPTY_HEADER, Header, Status};

/// Upper bounds of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes.
    pub bytes: usize,
    /// Headers.
    pub headers: usize,
}

/// The bytes that begin an HTTP/2 connection (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Result of a scan of the bytes read so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeadScan {
    /// More are needed.
    More,
    /// A head of that many bytes.
    Head(usize),
    /// An HTTP/2 connection.
    Http2,
    /// No request: it is refused with this status.
    Refused(u16, &'static str),
}

/// Looks for the end of a head in `bytes`; the first `seen` of them had none.
pub(super) fn sight(bytes: &[u8], seen: usize, bounds: Bounds) -> HeadScan {
    let preface = bytes.len().min(PREFACE.len());
    if bytes[..preface] == PREFACE[..preface] {
        return if bytes.len() >= PREFACE.len() { HeadScan::Http2 } else { HeadScan::More };
    }
    // A server should ignore empty lines before a request (RFC 9112, section 2.2).
    let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let from = seen.saturating_sub(3).max(start).min(bytes.len());
    let mut line_ends = memchr::memchr_iter(b'\n', &bytes[from..]).map(|at| from + at + 1);
    match line_ends.find(|end| bytes[start..*end].ends_with(b"\r\n\r\n")) {
        Some(end) if end <= bounds.bytes => HeadScan::Head(end),
        Some(_) => HeadScan::Refused(431, "the head of the request is too long"),
        None if bytes.len() >= bounds.bytes => {
            HeadScan::Refused(431, "the head of the request is too long")
        }
        // A head with bare line feeds never ends in the right way; nor does plain noise.
        None if bytes[start..].windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r') => {
            HeadScan::Refused(400, "a bare LF stands in the head")
        }
        None => HeadScan::More,
    }
}

/// A parsed head.
pub(super) struct Head<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    /// The whole target as it came.
    pub(super) target: &'a str,
    /// The value of its `Host` header; empty where there is none.
    pub(super) host: &'a str,
    pub(super) headers: RawHeaders<'a>,
    /// True if the client lets the connection live on after the request.
    pub(super) keep: bool,
    /// True if the fast path answers the request itself, provided it is a poll.
    pub(super) plain: bool,
    /// True if it is a POST without a body, and plain but for that.
    pub(super) empty_post: bool,
    /// True if it is of HTTP/1.1.
    pub(super) current: bool,
    /// True if it asks for another protocol and has no body.
    pub(super) upgrade: bool,
    /// True if it opens a WebSocket, and is plain but for that.
    pub(super) socket: bool,
    pub(super) framing: Framing,
}

impl<'a> Head<'a> {
    /// The host that it names.
    pub(super) fn request_host(&self) -> RequestHost<'_> {
        // The absolute form of a target (RFC 9112, section 3.2.2).
        let absolute =
            if self.target.starts_with('/') { None } else { self.target.split_once("://") };
        let authority = absolute.map(|(_, rest)| match rest.find(['/', '?']) {
            Some(end) => &rest[..end],
            None => rest,
        });
        RequestHost { header: (!self.host.is_empty()).then_some(self.host), authority }
    }
}

/// The headers of a head, borrowed from the buffer.
pub(super) struct RawHeaders<'a>(&'a [Header<'a>]);

impl RawHeaders<'_> {
    /// All of them.
    pub(super) fn each(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|header| (header.name, header.value))
    }

    /// Reads the headers that matter to the connection, whatever their values: [`Headers::get`]
    /// skips values that are not text.
    fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        for Header { name, value } in self.0 {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            // Nearly all headers have another length than these.
            match name.len() {
                6 if is("expect") => seen.expect = true,
                7 if is("upgrade") => seen.upgrade = true,
                10 if is("connection") => {
                    for one in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                        seen.says_close |= one.eq_ignore_ascii_case(b"close");
                        seen.says_upgrade |= one.eq_ignore_ascii_case(b"upgrade");
                    }
                }
                14 if is("content-length") => seen.length = true,
                17 if is("transfer-encoding") => seen.encoding = true,
                _ => {}
            }
        }
        seen
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let named = self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value)
    }
}

/// The headers that a head has, and the words in its `Connection`.
#[derive(Default)]
struct Seen {
    expect: bool,
    upgrade: bool,
    length: bool,
    encoding: bool,
    says_close: bool,
    says_upgrade: bool,
}

impl Headers for RawHeaders<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.named(name).next()?).ok()
    }

    fn values(&self, name: &str) -> Vec<&str> {
        self.named(name).filter_map(|value| std::str::from_utf8(value).ok()).collect()
    }

    fn raw(&self, name: &str) -> Vec<&[u8]> {
        self.named(name).collect()
    }

    fn each(&self, show: &mut dyn FnMut(&str, &[u8])) {
        self.0.iter().for_each(|header| show(header.name, header.value));
    }
}

/// Parses the head `bytes` and lets `with` look at it. The error is the status and words to refuse
/// the request with.
pub(super) fn parse<T>(
    bytes: &[u8],
    bounds: Bounds,
    with: impl FnOnce(&Head<'_>) -> T,
) -> Result<T, (u16, &'static str)> {
    let framing = validate::framing_and_host(bytes).map_err(|wrong| (400, wrong))?;
    // Most heads have few headers; room for many is only made if it is needed.
    let mut few = [EMPTY_HEADER; 32];
    let few = &mut few[..bounds.headers.min(32)];
    match parse_into(bytes, few, framing, with) {
        Err((TooMany, framing, with)) => {
            if bounds.headers <= 32 {
                return Err((431, "the request has too many headers"));
            }
            let mut many = vec![EMPTY_HEADER; bounds.headers];
            let parsed = parse_into(bytes, &mut many, framing, with);
            parsed.unwrap_or(Err((431, "the request has too many headers")))
        }
        Ok(parsed) => parsed,
    }
}

struct TooMany;

type Parsed<'a, T, F> = Result<Result<T, (u16, &'static str)>, (TooMany, (Framing, &'a str), F)>;

fn parse_into<'a, T, F>(
    bytes: &'a [u8],
    room: &'a mut [Header<'a>],
    framing: (Framing, &'a str),
    with: F,
) -> Parsed<'a, T, F>
where
    F: for<'b> FnOnce(&Head<'b>) -> T,
{
    let mut request = httparse::Request::new(room);
    let whole = match request.parse(bytes) {
        Ok(Status::Complete(length)) => length == bytes.len(),
        Ok(Status::Partial) => false,
        Err(httparse::Error::TooManyHeaders) => return Err((TooMany, framing, with)),
        Err(_) => false,
    };
    let (Some(method), Some(target), Some(version), true) =
        (request.method, request.path, request.version, whole)
    else {
        return Ok(Err((400, "the head of the request cannot be read")));
    };
    Ok(Ok(with(&head(method, target, version, request.headers, framing))))
}

fn head<'a>(
    method: &'a str,
    target: &'a str,
    version: u8,
    headers: &'a [Header<'a>],
    (framing, host): (Framing, &'a str),
) -> Head<'a> {
    let headers = RawHeaders(headers);
    let seen = headers.seen();
    // After an upgrade all that follows belongs to the other protocol.
    let upgrade = seen.upgrade && seen.says_upgrade;
    let framing = if upgrade { Framing::Endless } else { framing };
    let bodiless = !seen.length && !seen.encoding;
    let bare =
        method == "GET" && version == 1 && target.starts_with('/') && bodiless && !seen.expect;
    let plain = bare && !seen.upgrade;
    let is_socket = |to: &str| to.trim().eq_ignore_ascii_case("websocket");
    let socket = bare && upgrade && headers.get("upgrade").is_some_and(is_socket);
    let empty_post = method == "POST"
        && version == 1
        && target.starts_with('/')
        && framing.is_over()
        && !seen.encoding
        && !seen.expect
        && !seen.upgrade;
    let (path, query) = split_at_mark(target, b'?').unwrap_or((target, ""));
    let keep = version == 1 && !seen.says_close;
    let upgrade = upgrade && bodiless;
    let current = version == 1;
    Head {
        method,
        path,
        query,
        target,
        host,
        headers,
        keep,
        plain,
        empty_post,
        current,
        upgrade,
        socket,
        framing,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::http::framing::Chunks;

    const BOUNDS: Bounds = Bounds { bytes: 200, headers: 40 };

    #[test]
    fn a_head_is_sighted_however_it_is_torn() {
        let head = b"GET /comet/a HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 1..head.len() {
            assert_eq!(sight(&head[..cut], 0, BOUNDS), HeadScan::More, "{cut}");
            assert_eq!(sight(head, cut, BOUNDS), HeadScan::Head(head.len()), "{cut}");
        }
        assert_eq!(sight(PREFACE, 5, BOUNDS), HeadScan::Http2);
        assert_eq!(sight(b"PRI * HTTP/2.0\r\n\r\nSM", 0, BOUNDS), HeadScan::More);
        assert_eq!(sight(b"\r\nGET / HTTP/1.1\r\n\r\n", 0, BOUNDS), HeadScan::Head(20));
    }

    #[test]
    fn what_never_ends_is_refused() {
        let refused = |bytes: &[u8]| match sight(bytes, 0, BOUNDS) {
            HeadScan::Refused(status, _) => status,
            _ => 0,
        };
        assert_eq!(refused(&[b'a'; 200]), 431);
        assert_eq!(refused(b"GET / HTTP/1.1\nHost: a\n\n"), 400);
    }

    fn look<T>(head: &str, with: impl FnOnce(&Head<'_>) -> T) -> Result<T, (u16, &'static str)> {
        parse(head.as_bytes(), BOUNDS, with)
    }

    #[test]
    fn only_plain_gets_are_plain() {
        let plain = |head: &str| look(head, |head| head.plain).unwrap();
        assert!(plain("GET /a?b=c HTTP/1.1\r\nHost: a\r\nCookie: x=y\r\n\r\n"));
        for odd in [
            "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "GET /a HTTP/1.0\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
            "GET http://a/a HTTP/1.1\r\nHost: a\r\n\r\n",
            "HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert!(!plain(odd), "{odd:?}");
        }
    }

    #[test]
    fn a_header_that_is_no_text_is_still_there() {
        for name in ["Expect", "Upgrade"] {
            let head = [&b"GET /a HTTP/1.1\r\nHost: a\r\n"[..], name.as_bytes(), b": \xdc\r\n\r\n"]
                .concat();
            assert!(!parse(&head, BOUNDS, |head| head.plain).unwrap(), "{name}");
        }
    }

    #[test]
    fn the_framing_and_the_keeping_are_as_the_head_says() {
        let of = |head: &str| look(head, |head| (head.framing.clone(), head.keep)).unwrap();
        let chunked = Framing::Chunked(Chunks::default());
        for (headers, expected) in [
            ("", (Framing::Length(0), true)),
            ("Content-Length: 12\r\n", (Framing::Length(12), true)),
            ("Transfer-Encoding: Chunked\r\n", (chunked, true)),
            ("Connection: x, Close\r\n", (Framing::Length(0), false)),
            ("Connection: upgrade\r\nUpgrade: websocket\r\n", (Framing::Endless, true)),
        ] {
            assert_eq!(of(&format!("POST /a HTTP/1.1\r\nHost: a\r\n{headers}\r\n")), expected);
        }
    }

    #[test]
    fn many_headers_are_read_up_to_the_bound() {
        let head = |count: usize| {
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1))
        };
        for (count, ok) in [(31, true), (33, true), (40, true), (41, false)] {
            assert_eq!(look(&head(count), |_| ()).is_ok(), ok, "{count}");
        }
    }

    #[test]
    fn a_bound_below_the_usual_room_is_exact() {
        let bounds = Bounds { headers: 20, ..BOUNDS };
        for (count, ok) in [(20, true), (21, false), (32, false), (33, false)] {
            let others = "X: y\r\n".repeat(count - 1);
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{others}\r\n");
            assert_eq!(parse(head.as_bytes(), bounds, |_| ()).is_ok(), ok, "{count}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, seen in 0..50usize) {
            sight(&bytes, seen, BOUNDS);
            let _ = parse(&bytes, BOUNDS, |_| ());
        }
    }
}
