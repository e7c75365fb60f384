//! Strict validation of a request's head.
//!
//! A head that two readers could understand differently is refused, so that no request is smuggled
//! past a proxy in front of this listener. pingora parses more leniently, and drops a
//! `Content-Length` beside a `Transfer-Encoding`; so this validator reads the bytes. The rules are
//! those of RFC 9112, sections 2.2, 3.2, 5 and 6.3.

use super::{alphanumeric_and, any_of};
use crate::protocol::http::framing::{Chunks, Framing};
use memchr::{memchr, memchr3};

/// How the body behind a head, up to its empty line, is framed, if the head is beyond doubt; else
/// what is wrong with it.
pub fn framing(head: &[u8]) -> Result<Framing, &'static str> {
    framing_and_host(head).map(|(framing, _)| framing)
}

/// The same with the value of the `Host` header, which is empty where there is none.
pub fn framing_and_host(head: &[u8]) -> Result<(Framing, &str), &'static str> {
    let (declared, host) = look(head)?;
    if declared.encodings > 0 {
        return Ok((Framing::Chunked(Chunks::default()), host));
    }
    if declared.lengths == 0 {
        return Ok((Framing::Length(0), host));
    }
    let length = std::str::from_utf8(declared.length).unwrap_or_default().parse();
    let length = length.map_err(|_| "the Content-Length is beyond all numbers")?;
    Ok((Framing::Length(length), host))
}

fn look(head: &[u8]) -> Result<(Declared<'_>, &str), &'static str> {
    // An empty line before a request is skipped (section 2.2).
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let Some(head) = head.strip_suffix(b"\r\n\r\n") else {
        return Err("the head does not end in an empty line");
    };
    let mut declared = Declared::default();
    let (request_line, mut rest) = first_line(head)?;
    check_request_line(request_line)?;
    declared.host_required = request_line.ends_with(b"HTTP/1.1");
    while let Some(lines) = rest {
        let (line, more) = first_line(lines)?;
        declared.add(line)?;
        rest = more;
    }
    let host = declared.check()?;
    Ok((declared, host))
}

/// The first of some lines and the lines behind it. The last has no end.
pub(super) fn first_line(lines: &[u8]) -> Result<(&[u8], Option<&[u8]>), &'static str> {
    let Some(end) = memchr3(b'\r', b'\n', 0, lines) else { return Ok((lines, None)) };
    let (line, rest) = lines.split_at(end);
    match rest {
        [b'\r', b'\n', rest @ ..] => Ok((line, Some(rest))),
        [b'\n', ..] => Err("a bare LF stands in the head"),
        _ => Err("a bare CR or a NUL stands in the head"),
    }
}

fn check_request_line(line: &[u8]) -> Result<(), &'static str> {
    let whole = || {
        let (method, rest) = line.split_at(memchr(b' ', line)?);
        let rest = &rest[1..];
        let (target, version) = rest.split_at(memchr(b' ', rest)?);
        let current = matches!(version, b" HTTP/1.1" | b" HTTP/1.0");
        (current && is_token(method) && is_target(Some(method), target)).then_some(())
    };
    whole().ok_or("the request line is not METHOD TARGET HTTP/1.1")
}

/// True if a request of HTTP/2 for `target` would be one over HTTP/1.1, too: `*` is for OPTIONS, and
/// some characters stand in no path.
pub fn is_origin_target(method: &str, target: &str) -> bool {
    let absolute = target.starts_with('/') || target == "*";
    absolute && is_target(Some(method.as_bytes()), target.as_bytes())
}

/// The forms of RFC 9112, section 3.2. Forms that pingora or the readers of HTTP/2 refuse are
/// refused here too, so that a request is the same over all protocols. A fragment is never part of
/// them: pingora would cut it off, and with it everything behind.
fn is_target(method: Option<&[u8]>, target: &[u8]) -> bool {
    const NOT_IN_PATH: [bool; 256] = any_of(b"#<>`");
    const NOT_IN_QUERY: [bool; 256] = any_of(b"#<>\"");
    let has = |part: &[u8], odd: &[bool; 256]| part.iter().any(|byte| odd[usize::from(*byte)]);
    let (path, query) = target.split_at(memchr(b'?', target).unwrap_or(target.len()));
    if has(path, &NOT_IN_PATH) || has(query, &NOT_IN_QUERY) {
        return false;
    }
    let whole = |scheme: &[u8]| {
        target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    match target {
        [b'/', ..] => true,
        b"*" => method == Some(b"OPTIONS"),
        [] => false,
        _ => method == Some(b"CONNECT") || whole(b"http://") || whole(b"https://"),
    }
}

/// The headers that decide the end of a request and its host.
#[derive(Default)]
struct Declared<'a> {
    lengths: usize,
    encodings: usize,
    hosts: usize,
    length: &'a [u8],
    encoding: &'a [u8],
    host: &'a [u8],
    /// RFC 9112, section 3.2: a request in HTTP/1.1 has a Host.
    host_required: bool,
}

impl<'a> Declared<'a> {
    fn add(&mut self, line: &'a [u8]) -> Result<(), &'static str> {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err("a folded line stands in the head");
        }
        let end = line.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(line.len());
        let (name, value) = match line.split_at(end) {
            (name @ [_, ..], [b':', value @ ..]) => (name, value.trim_ascii()),
            (_, rest) if rest.contains(&b':') => {
                return Err("a header has a space before its colon, or no proper name");
            }
            _ => return Err("a header has no colon"),
        };
        if name.eq_ignore_ascii_case(b"content-length") {
            self.lengths += 1;
            self.length = value;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.encodings += 1;
            self.encoding = value;
        } else if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
            self.host = value;
        }
        Ok(())
    }

    /// The host, if all of it is in order.
    fn check(&self) -> Result<&'a str, &'static str> {
        if self.lengths > 1 {
            return Err("there are two Content-Length headers");
        }
        if self.lengths > 0 && self.encodings > 0 {
            return Err("there is a Content-Length and a Transfer-Encoding");
        }
        let digits = !self.length.is_empty() && self.length.iter().all(u8::is_ascii_digit);
        if self.lengths > 0 && !digits {
            return Err("the Content-Length is no number");
        }
        let chunked = self.encodings == 1 && self.encoding.eq_ignore_ascii_case(b"chunked");
        if self.encodings > 0 && !chunked {
            return Err("the Transfer-Encoding is not exactly chunked");
        }
        if self.hosts > 1 {
            return Err("there are two Host headers");
        }
        if self.hosts == 0 && self.host_required {
            return Err("there is no Host header");
        }
        if self.hosts == 0 {
            return Ok("");
        }
        let host = std::str::from_utf8(self.host).ok().filter(|host| host_name(host).is_some());
        host.ok_or("the Host is not host[:port]")
    }
}

/// The host in a `Host` header's `host[:port]`, an IPv6 address with its brackets; `None` for
/// anything else.
pub fn host_name(value: &str) -> Option<&str> {
    let end = match value.strip_prefix('[') {
        Some(rest) => memchr(b']', rest.as_bytes())? + 2,
        None => memchr(b':', value.as_bytes()).unwrap_or(value.len()),
    };
    let (host, port) = value.split_at(end);
    let valid_port = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    let valid_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| HOST[usize::from(byte)]),
    };
    (valid_port && valid_host).then_some(host)
}

/// RFC 9110, section 5.6.2.
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// True for the bytes of a host's name.
const HOST: [bool; 256] = alphanumeric_and(b".-_");

/// True for the bytes of a token.
const TOKEN: [bool; 256] = alphanumeric_and(b"!#$%&'*+-.^_`|~");

#[cfg(test)]
mod tests {
    use super::*;

    fn with(headers: &str) -> Result<(), &'static str> {
        framing(format!("POST /publish HTTP/1.1\r\n{headers}\r\n").as_bytes()).map(drop)
    }

    #[test]
    fn plain_heads_pass() {
        for headers in [
            "Host: a\r\n",
            "Host: gate.example:7080\r\nContent-Length: 12\r\n",
            "host:[::1]:1\r\ntransfer-encoding:  Chunked \r\nX: a:b c\r\n",
        ] {
            assert_eq!(with(headers), Ok(()), "{headers:?}");
        }
        assert_eq!(framing(b"\r\nGET / HTTP/1.0\r\n\r\n"), Ok(Framing::Length(0)));
    }

    #[test]
    fn framing_that_would_have_to_be_guessed_is_refused() {
        for headers in [
            "",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length:\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding:\r\n",
            "Content-Length : 1\r\n",
            "Content-Length: 1\r\n Transfer-Encoding: chunked\r\n",
            "X: a\rb\r\n",
            "X: a\r\r\n",
            "X: a\0b\r\n",
            "X: a\nY: b\r\n",
            "X: a\n",
            "no colon\r\n",
            ": no name\r\n",
        ] {
            assert!(with(headers).is_err(), "{headers:?}");
        }
    }

    #[test]
    fn a_host_is_there_once_and_is_a_host() {
        for hosts in ["a\r\nHost: a", "", "a:", "a:x", "a:99999", "a b", "u@a", "a/b", "::1", "[a]"]
        {
            assert!(with(&format!("Host: {hosts}\r\n")).is_err(), "{hosts:?}");
        }
        assert_eq!(host_name("[::1]:80"), Some("[::1]"));
        assert_eq!(host_name("a.example:80"), Some("a.example"));
    }

    #[test]
    fn only_a_plain_request_line_is_read() {
        for line in [
            "GET a HTTP/1.1",
            "GET * HTTP/1.1",
            "GET ftp://a HTTP/1.1",
            "GET /",
            "GET  / HTTP/1.1",
            "GET / HTTP/2.0",
            "GET / x HTTP/1.1",
            "G(T / HTTP/1.1",
            "GET /a#b HTTP/1.1",
            "GET /?a=b#&c=d HTTP/1.1",
            "GET http://a/#b HTTP/1.1",
            "GET /a<b HTTP/1.1",
            "GET /?a=\"b\" HTTP/1.1",
        ] {
            assert!(framing(format!("{line}\r\n\r\n").as_bytes()).is_err(), "{line:?}");
        }
        assert!(framing(b"GET / HTTP/1.1\n\n").is_err());
        assert!(framing(b"").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(head: Vec<u8>, host: String) {
            let _ = framing(&head);
            let _ = framing(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        }
    }
}
