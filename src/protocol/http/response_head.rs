//! The head of a response, read strictly.
//!
//! A head that two readers could understand differently is refused, so that an upstream that is
//! broken, or talked into it, cannot make a client see a response that was not meant for it. The
//! rules are those of RFC 9112, sections 2.2, 4, 5 and 6.3. Reading allocates nothing for a head of
//! the usual size.

use super::Headers;
use super::framing::{Chunks, Framing};
use super::validate::{first_line, is_token};
use smallvec::SmallVec;

/// The longest head, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;
/// Headers of one head.
const MAX_HEADERS: usize = 256;

/// End of the head that `bytes` begin with; the first `seen` of them had none. `None` = more are
/// needed; the error names the fault.
pub fn end(bytes: &[u8], seen: usize) -> Result<Option<usize>, &'static str> {
    let from = seen.saturating_sub(3).min(bytes.len());
    for at in memchr::memchr_iter(b'\n', &bytes[from..]).map(|at| from + at) {
        if at == 0 || bytes[at - 1] != b'\r' {
            return Err("a bare LF stands in the head of the response");
        }
        if at + 1 > MAX_BYTES {
            break;
        }
        if bytes[..at + 1].ends_with(b"\r\n\r\n") {
            return Ok(Some(at + 1));
        }
    }
    if bytes.len() >= MAX_BYTES { Err("the head of the response is too long") } else { Ok(None) }
}

/// True for the head of a response that is followed by another to the same request.
pub fn is_interim(head: &[u8]) -> bool {
    matches!(head.get(9..12), Some([b'1', digits @ ..]) if digits != b"01")
}

/// A parsed head.
#[derive(Debug)]
pub struct ResponseHead<'a> {
    /// The status, of three digits.
    pub status: u16,
    /// The words behind it, perhaps none.
    pub reason: &'a [u8],
    /// Names as they came, and values without the space around them.
    pub fields: SmallVec<[(&'a str, &'a [u8]); 24]>,
    /// `Content-Length`.
    pub length: Option<u64>,
    /// The body comes in chunks.
    pub chunked: bool,
    /// The connection stays after the response.
    pub keep: bool,
}

impl<'a> ResponseHead<'a> {
    /// Parses the bytes up to and with the empty line; the error names the fault.
    pub fn parse(head: &'a [u8]) -> Result<Self, &'static str> {
        let head = head.strip_suffix(b"\r\n\r\n").ok_or("the head of the response has no end")?;
        let (status_line, mut rest) = first_line(head)?;
        let (minor, status, reason) = parse_status_line(status_line)?;
        let mut parsed = Self {
            status,
            reason,
            fields: SmallVec::new(),
            length: None,
            chunked: false,
            keep: minor == 1,
        };
        let mut encodings = 0;
        let mut closes = false;
        let mut keeps = false;
        while let Some(lines) = rest {
            let (line, more) = first_line(lines)?;
            rest = more;
            let (name, value) = parse_field(line)?;
            if parsed.fields.len() == MAX_HEADERS {
                return Err("the response has too many headers");
            }
            parsed.fields.push((name, value));
            match name.len() {
                14 if name.eq_ignore_ascii_case("content-length") => {
                    if parsed.length.is_some() {
                        return Err("the response has two Content-Length headers");
                    }
                    parsed.length = Some(parse_length(value)?);
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    encodings += 1;
                    parsed.chunked = value.eq_ignore_ascii_case(b"chunked");
                }
                10 if name.eq_ignore_ascii_case("connection") => {
                    closes |= lists(value, b"close");
                    keeps |= lists(value, b"keep-alive");
                }
                _ => {}
            }
        }
        if encodings > 0 && parsed.length.is_some() {
            return Err("the response has a Content-Length and a Transfer-Encoding");
        }
        if encodings > 1 || (encodings == 1 && !parsed.chunked) {
            return Err("the Transfer-Encoding of the response is not exactly chunked");
        }
        if encodings > 0 && minor == 0 {
            return Err("the response has a Transfer-Encoding in HTTP/1.0");
        }
        parsed.keep = !closes && (parsed.keep || keeps);
        Ok(parsed)
    }

    /// Framing of the body (RFC 9112, section 6.3); `to_head` = the request was a HEAD.
    pub fn framing(&self, to_head: bool) -> Framing {
        if to_head || matches!(self.status, 100..200 | 204 | 304) {
            return Framing::Length(0);
        }
        match (self.chunked, self.length) {
            (true, _) => Framing::Chunked(Chunks::of_response()),
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Endless,
        }
    }

    /// The values of all headers of that (lower case) name.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let named = self.fields.iter().filter(move |field| field.0.eq_ignore_ascii_case(name));
        named.map(|field| field.1)
    }
}

impl Headers for ResponseHead<'_> {
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
        self.fields.iter().for_each(|(name, value)| show(name, value));
    }
}

/// True if `word` is in the comma-separated list.
fn lists(list: &[u8], word: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(word))
}

/// The minor version, the status, and the words behind it.
fn parse_status_line(line: &[u8]) -> Result<(u8, u16, &[u8]), &'static str> {
    const WRONG: &str = "the response does not begin with HTTP/1.1 and a status";
    let rest = line.strip_prefix(b"HTTP/1.").ok_or(WRONG)?;
    let [minor @ (b'0' | b'1'), b' ', rest @ ..] = rest else { return Err(WRONG) };
    let (digits, rest) = rest.split_at_checked(3).ok_or(WRONG)?;
    if !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
        return Err(WRONG);
    }
    let reason = match rest {
        [] => rest,
        [b' ', reason @ ..] if is_value(reason) => reason,
        _ => return Err(WRONG),
    };
    let status = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    Ok((minor - b'0', status, reason))
}

fn parse_field(line: &[u8]) -> Result<(&str, &[u8]), &'static str> {
    if line.starts_with(b" ") || line.starts_with(b"\t") {
        return Err("a folded line stands in the head of the response");
    }
    let colon = memchr::memchr(b':', line).ok_or("a header of the response has no colon")?;
    let name = &line[..colon];
    let value = trimmed(&line[colon + 1..]);
    // A token is ASCII.
    let text = std::str::from_utf8(name).ok().filter(|_| is_token(name));
    let name = text.ok_or("a header of the response has no proper name")?;
    if !is_value(value) {
        return Err("a header of the response has a control character");
    }
    Ok((name, value))
}

/// Without spaces and tabs around it (RFC 9110, section 5.5); no other character is one.
fn trimmed(value: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let start = value.iter().position(is_text).unwrap_or(value.len());
    let end = value.iter().rposition(is_text).map_or(start, |last| last + 1);
    &value[start..end]
}

/// RFC 9110, section 5.5: no control character but the tab.
fn is_value(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
}

fn parse_length(value: &[u8]) -> Result<u64, &'static str> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|it| it.parse().ok());
    number.ok_or("the Content-Length of the response is no number")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn framing(head: &str, to_head: bool) -> Result<Framing, &'static str> {
        let head = head.as_bytes();
        let end = end(head, 0)?.ok_or("no end")?;
        assert_eq!(end, head.len());
        ResponseHead::parse(head).map(|head| head.framing(to_head))
    }

    #[test]
    fn the_body_ends_as_the_head_says() {
        let chunked = || Framing::Chunked(Chunks::of_response());
        for (head, expected) in [
            ("200 OK\r\nContent-Length: 5\r\n", Framing::Length(5)),
            ("200\r\nContent-Length:007\r\n", Framing::Length(7)),
            ("200 \r\nTransfer-Encoding: Chunked\r\n", chunked()),
            ("200 OK\r\n", Framing::Endless),
            ("204 No Content\r\nContent-Length: 5\r\n", Framing::Length(0)),
            ("304 Not Modified\r\nContent-Length: 5\r\n", Framing::Length(0)),
            ("304 Not Modified\r\n", Framing::Length(0)),
            ("100 Continue\r\n", Framing::Length(0)),
            ("101 Switching Protocols\r\n", Framing::Length(0)),
        ] {
            let head = format!("HTTP/1.1 {head}\r\n");
            assert_eq!(framing(&head, false), Ok(expected), "{head:?}");
            assert_eq!(framing(&head, true), Ok(Framing::Length(0)), "{head:?}");
        }
        assert_eq!(framing("HTTP/1.0 200 OK\r\n\r\n", false), Ok(Framing::Endless));
    }

    #[test]
    fn a_head_that_could_be_read_in_two_ways_is_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\n X: a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\nY: b\r\n\r\n",
            "HTTP/1.1 200 OK\nX: a\n\n",
            "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\x01b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: a\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.2 200 OK\r\n\r\n",
            "http/1.1 200 OK\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "200 OK\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert!(framing(head, false).is_err(), "{head:?}");
            assert!(framing(head, true).is_err(), "{head:?}");
        }
    }

    #[test]
    fn the_connection_stays_as_its_version_and_its_words_say() {
        for (head, keep) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", false),
        ] {
            assert_eq!(ResponseHead::parse(head.as_bytes()).unwrap().keep, keep, "{head:?}");
        }
    }

    #[test]
    fn a_head_ends_in_one_place_however_it_is_torn() {
        let head = b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n";
        let all = [&head[..], b"body\nof\r\n\r\nlines"].concat();
        for cut in 0..head.len() {
            assert_eq!(end(&all[..cut], 0), Ok(None), "{cut}");
            assert_eq!(end(&all, cut), Ok(Some(head.len())), "{cut}");
        }
        assert!(end(&[b'a'; MAX_BYTES], 0).is_err());
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS + 1));
        assert!(ResponseHead::parse(many.as_bytes()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, seen in 0..50usize) {
            let _ = end(&bytes, seen);
            let _ = ResponseHead::parse(&bytes);
            let _ = ResponseHead::parse(&[&b"HTTP/1.1 200 "[..], &bytes, b"\r\n\r\n"].concat());
        }
    }
}
