//! The head of a request as the upstream gets it.
//!
//! The rules are those of `proxy::forwarded`, which the engine applies, too. The framing is written
//! anew from what the reader of the head made of it, so that it has one meaning.

use crate::protocol::grip::is_own;
use crate::protocol::http::Headers;
use crate::protocol::http::framing::Framing;
use crate::server::gate::grip;
use crate::server::gate::proxy::forwarded::{Way, is_dropped, is_of_hop};
use bytes::BytesMut;
use smallvec::SmallVec;

/// A request to be forwarded.
#[derive(Clone, Copy)]
pub(in crate::server::gate) struct RequestParts<'a> {
    pub(in crate::server::gate) method: &'a str,
    /// Path and query as they came.
    pub(in crate::server::gate) target: &'a str,
    pub(in crate::server::gate) headers: &'a dyn Headers,
    /// Framing of its body.
    pub(in crate::server::gate) framing: &'a Framing,
    /// It opens a WebSocket.
    pub(in crate::server::gate) socket: bool,
    /// The site speaks GRIP: no header of GRIP comes from the client.
    pub(in crate::server::gate) grip: Option<&'a grip::Settings>,
}

/// Names that the header `Connection` gives, beside those that every connection may have.
type Named<'a> = SmallVec<[&'a [u8]; 4]>;

/// Names that `Connection` may give.
const MAX_NAMED: usize = 8;

/// False if the `Connection` header names what is not the connection's, or is none.
pub(in crate::server::gate) fn is_plain(headers: &dyn Headers) -> bool {
    let lists = headers.raw("connection");
    let named = named(&lists);
    named.len() <= MAX_NAMED
        && named.iter().all(|name| {
            let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
            let lower = name.to_ascii_lowercase();
            name.iter().all(token) && !lower.starts_with(b"x-forwarded-") && lower != b"host"
        })
}

fn named<'a>(lists: &[&'a [u8]]) -> Named<'a> {
    let words = lists.iter().flat_map(|list| list.split(|byte| *byte == b','));
    let usual = |word: &&[u8]| {
        let usual: [&[u8]; 4] = [b"", b"keep-alive", b"close", b"upgrade"];
        usual.iter().any(|usual| word.eq_ignore_ascii_case(usual))
    };
    words.map(<[u8]>::trim_ascii).filter(|word| !usual(word)).take(MAX_NAMED + 1).collect()
}

/// Appends the head.
pub(in crate::server::gate) fn write(out: &mut BytesMut, request: &RequestParts<'_>, way: &Way) {
    let RequestParts { method, target, headers, framing, socket, grip } = *request;
    put(out, &[method.as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\n"]);
    let lists = headers.raw("connection");
    let named = named(&lists);
    let cookies = headers.raw("cookie");
    let trusted = way.client.trusted;
    let mut has_length = false;
    headers.each(&mut |name, value| {
        let mut lower = SmallVec::<[u8; 64]>::from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        // A header's name is ASCII.
        let lower = std::str::from_utf8(&lower).unwrap_or_default();
        has_length |= lower == "content-length";
        let ends_here = is_of_hop(lower)
            || matches!(lower, "x-forwarded-host" | "x-forwarded-proto")
            || is_dropped(lower, trusted)
            || (cookies.len() > 1 && lower == "cookie")
            || (grip.is_some() && is_own(lower))
            || named.iter().any(|word| word.eq_ignore_ascii_case(lower.as_bytes()));
        if !ends_here {
            put(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
        }
    });
    if cookies.len() > 1 {
        // A request has them in one header (RFC 6265, section 5.4).
        put(out, &[b"Cookie: ", &cookies.join(&b"; "[..]), b"\r\n"]);
    }
    let host = headers.get("host").unwrap_or_default();
    way.show(headers, host, &mut |name, parts| {
        put(out, &[name.as_bytes(), b": "]);
        parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        put(out, &[b"\r\n"]);
    });
    for (name, value) in grip.iter().flat_map(|grip| grip.headers()) {
        put(out, &[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    match framing {
        Framing::Chunked(_) => put(out, &[b"Transfer-Encoding: chunked\r\n"]),
        Framing::Length(length) if has_length => {
            put(out, &[b"Content-Length: ", itoa::Buffer::new().format(*length).as_bytes()]);
            put(out, &[b"\r\n"]);
        }
        Framing::Length(_) | Framing::Endless => {}
    }
    if socket {
        put(out, &[b"Connection: Upgrade\r\nUpgrade: websocket\r\n"]);
    }
    put(out, &[b"\r\n"]);
}

pub(super) fn put(out: &mut BytesMut, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::http::framing::Chunks;
    use crate::server::gate::proxy::forwarded::Client;
    use http::{HeaderMap, HeaderName};

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        map
    }

    fn head(headers: &[(&str, &str)], framing: Framing, socket: bool) -> String {
        let map = map(headers);
        let peer = "192.0.2.1".parse().ok();
        let way = Way { client: Client { peer, trusted: false, address: peer }, tls: false };
        let method = "PUT";
        let target = "/a?b";
        let mut out = BytesMut::new();
        let headers = &map;
        let framing = &framing;
        let request = RequestParts { method, target, headers, framing, socket, grip: None };
        write(&mut out, &request, &way);
        String::from_utf8(out.to_vec()).unwrap()
    }

    const OWN: &str = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n\
        X-Forwarded-Host: a\r\nForwarded: for=192.0.2.1;host=\"a\";proto=http\r\n";

    #[test]
    fn a_head_goes_on_without_what_is_of_its_connection() {
        let headers = [
            ("host", "a"),
            ("connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("x-own", "stays"),
            ("x_own", "goes"),
            ("content-length", "03"),
        ];
        let expected = format!(
            "PUT /a?b HTTP/1.1\r\nhost: a\r\nx-own: stays\r\n{OWN}Content-Length: 3\r\n\r\n"
        );
        assert_eq!(head(&headers, Framing::Length(3), false), expected);
    }

    #[test]
    fn the_framing_and_an_upgrade_are_written_anew() {
        let chunked = Framing::Chunked(Chunks::default());
        let headers = [("host", "a"), ("transfer-encoding", "CHUNKED")];
        let expected =
            format!("PUT /a?b HTTP/1.1\r\nhost: a\r\n{OWN}Transfer-Encoding: chunked\r\n\r\n");
        assert_eq!(head(&headers, chunked, false), expected);
        let headers = [("host", "a"), ("connection", "upgrade"), ("upgrade", "WebSocket")];
        let end = "proto=http\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert!(head(&headers, Framing::Endless, true).ends_with(end));
    }

    #[test]
    fn cookies_in_pieces_are_one_header() {
        let headers = [("host", "a"), ("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")];
        let head = head(&headers, Framing::Length(0), false);
        assert!(head.contains("\r\nx: y\r\nCookie: a=1; b=2\r\n"), "{head}");
        assert_eq!(head.to_lowercase().matches("cookie").count(), 1);
    }

    #[test]
    fn a_connection_that_names_the_host_or_nonsense_is_not_plain() {
        for (value, plain) in [
            ("keep-alive", true),
            ("close, X-Own ,, te", true),
            ("host", false),
            ("X-Forwarded-For", false),
            ("\"a\"", false),
            ("a b", false),
            (":authority", false),
            ("a,b,c,d,e,f,g,h", true),
            ("a,b,c,d,e,f,g,h,i", false),
        ] {
            assert_eq!(is_plain(&map(&[("connection", value)])), plain, "{value}");
        }
    }
}
