//! Just enough of HTTP/1.1 to read the answers of every contestant.

use std::borrow::Cow;
use std::io;

/// One whole answer.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: Cow<'a, [u8]>,
    pub(crate) etag: &'a [u8],
    pub(crate) last_modified: &'a [u8],
    /// The connection ends with it.
    pub(crate) last: bool,
}

enum Framing {
    Length(usize),
    Chunked,
}

/// The answer at the beginning of `bytes`; `None` if it is not whole yet.
pub(crate) fn parse(bytes: &[u8]) -> io::Result<Option<Answer<'_>>> {
    let mut room = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut room);
    let head_length = match head.parse(bytes).map_err(io::Error::other)? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(length) => length,
    };
    let status = head.code.unwrap_or(0);
    let mut framing = Framing::Length(0);
    let mut etag = &b""[..];
    let mut last_modified = &b""[..];
    let mut last = false;
    for header in head.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            framing = Framing::Length(number(header.value)?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked;
        } else if header.name.eq_ignore_ascii_case("etag") {
            etag = header.value;
        } else if header.name.eq_ignore_ascii_case("last-modified") {
            last_modified = header.value;
        } else if header.name.eq_ignore_ascii_case("connection") {
            last = header.value.eq_ignore_ascii_case(b"close");
        }
    }
    let rest = &bytes[head_length..];
    let framed = match framing {
        Framing::Length(_) if matches!(status, 204 | 304) => Some(Cow::Borrowed(&b""[..])),
        Framing::Length(length) => rest.get(..length).map(Cow::Borrowed),
        Framing::Chunked => chunks(rest)?.map(Cow::Owned),
    };
    Ok(framed.map(|body| Answer { status, body, etag, last_modified, last }))
}

/// A chunked body; `None` if it is not whole yet.
fn chunks(mut rest: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let Some(line) = rest.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&rest[..line]).map_err(io::Error::other)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        rest = &rest[line + 2..];
        if rest.len() < size + 2 {
            return Ok(None);
        }
        body.extend_from_slice(&rest[..size]);
        if size == 0 {
            return Ok(Some(body));
        }
        rest = &rest[size + 2..];
    }
}

/// A decimal number.
pub(crate) fn number(text: &[u8]) -> io::Result<usize> {
    let text = std::str::from_utf8(text).map_err(io::Error::other)?;
    text.trim().parse().map_err(io::Error::other)
}
