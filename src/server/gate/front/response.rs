//! Responses of the fast path: head and body as one piece of bytes.

use crate::protocol::http::Reply;
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime};

/// A body up to this many bytes is copied behind its head, so that both leave in one write; a
/// longer one is worth a write of its own.
pub(super) const MAX_COPIED: usize = 16 * 1024;

/// Appends the head of `reply`, and its body if it is short. `keep` = the connection stays.
pub(super) fn write(out: &mut BytesMut, reply: &Reply, keep: bool) {
    let body = if matches!(reply.status, 101 | 204 | 304) { Body::None } else { Body::Whole };
    head(out, reply, keep, body);
    if reply.body.len() <= MAX_COPIED {
        out.extend_from_slice(&reply.body);
    }
}

/// Appends the head of a stream: of chunks, or of another protocol.
pub(super) fn write_stream(out: &mut BytesMut, reply: &Reply, keep: bool) {
    head(out, reply, keep, if reply.status == 101 { Body::None } else { Body::Chunked });
}

/// The body behind a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    Whole,
    Chunked,
}

fn head(out: &mut BytesMut, reply: &Reply, keep: bool, body: Body) {
    let short = reply.body.len() <= MAX_COPIED;
    let room = if short { reply.body.len() } else { 0 };
    let second = second();
    if !is_constant(reply) {
        out.reserve(320 + room);
        return render(out, reply, keep, body, second);
    }
    // The answers to one message are alike, and follow each other.
    LAST.with_borrow_mut(|last| {
        let of = Of { status: reply.status, length: reply.body.len(), keep, body, second };
        if last.of != Some(of) || !last.has_fields_of(reply) {
            last.of = Some(of);
            last.content_type = text(&reply.content_type).unwrap_or_default();
            last.fields.clear();
            let fields = reply.headers.iter();
            last.fields
                .extend(fields.filter_map(|(name, value)| Some((text(name)?, text(value)?))));
            last.bytes.clear();
            render(&mut last.bytes, reply, keep, body, second);
        }
        out.reserve(last.bytes.len() + room);
        out.extend_from_slice(&last.bytes);
    });
}

thread_local! {
    static LAST: RefCell<Last> = RefCell::default();
}

/// The last head of a thread, with what it was made of.
#[derive(Default)]
struct Last {
    of: Option<Of>,
    content_type: &'static str,
    fields: Vec<(&'static str, &'static str)>,
    bytes: BytesMut,
}

/// All of a head but its fields.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Of {
    status: u16,
    length: usize,
    keep: bool,
    body: Body,
    second: u64,
}

impl Last {
    fn has_fields_of(&self, reply: &Reply) -> bool {
        let fields = self.fields.iter().zip(&reply.headers);
        self.fields.len() == reply.headers.len()
            && is_same(self.content_type, &reply.content_type)
            && fields
                .into_iter()
                .all(|(own, other)| is_same(own.0, &other.0) && is_same(own.1, &other.1))
    }
}

/// True if the texts are at the same place, as constants are.
fn is_same(one: &str, other: &str) -> bool {
    std::ptr::eq(one, other)
}

/// True if all fields of its head are constants.
fn is_constant(reply: &Reply) -> bool {
    let fields = reply.headers.iter().all(|(name, value)| text(name).and(text(value)).is_some());
    fields && text(&reply.content_type).is_some()
}

/// The text, if it is a constant.
#[allow(clippy::ptr_arg)]
fn text(text: &Cow<'static, str>) -> Option<&'static str> {
    match text {
        Cow::Borrowed(text) => Some(text),
        Cow::Owned(_) => None,
    }
}

fn render(out: &mut BytesMut, reply: &Reply, keep: bool, body: Body, second: u64) {
    let reason = http::StatusCode::from_u16(reply.status).ok();
    let reason = reason.and_then(|status| status.canonical_reason()).unwrap_or_default();
    put(out, ["HTTP/1.1 ", itoa::Buffer::new().format(reply.status), " ", reason, "\r\n"]);
    if !reply.content_type.is_empty() {
        header(out, "Content-Type", &reply.content_type);
    }
    for (name, value) in &reply.headers {
        header(out, name, value);
    }
    match body {
        Body::None => {}
        Body::Whole => {
            header(out, "Content-Length", itoa::Buffer::new().format(reply.body.len()));
        }
        Body::Chunked => header(out, "Transfer-Encoding", "chunked"),
    }
    put_date_of(out, second);
    let connection = match reply.status {
        101 => "Upgrade",
        _ if keep => "keep-alive",
        _ => "close",
    };
    header(out, "Connection", connection);
    out.extend_from_slice(b"\r\n");
}

/// Appends the line before a chunk of `length` bytes (RFC 9112, section 7.1).
pub(super) fn put_chunk_size(out: &mut BytesMut, length: usize) {
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.extend_from_slice(&[b"0123456789abcdef"[length >> (4 * digit) & 0xf]]);
    }
    out.extend_from_slice(b"\r\n");
}

/// `piece` as a chunk; `None` = it is so long that it is better written where it is.
pub(in crate::server::gate) fn chunk(piece: &Bytes) -> Option<Bytes> {
    /// The longest size, and the line ends.
    const AROUND: usize = 20;
    if piece.is_empty() || piece.len() > MAX_COPIED {
        return None;
    }
    let mut bytes = BytesMut::with_capacity(piece.len() + AROUND);
    put_chunk_size(&mut bytes, piece.len());
    bytes.extend_from_slice(piece);
    bytes.extend_from_slice(b"\r\n");
    Some(bytes.freeze())
}

/// The length of the piece that is in a chunk.
pub(in crate::server::gate) fn chunk_length(chunk: &[u8]) -> usize {
    let size = memchr::memchr(b'\n', chunk).unwrap_or_default();
    chunk.len().saturating_sub(size + 3)
}

/// Seconds since 1970.
fn second() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Appends a `Date` header.
pub(in crate::server::gate) fn put_date(out: &mut BytesMut) {
    put_date_of(out, second());
}

fn put_date_of(out: &mut BytesMut, second: u64) {
    out.extend_from_slice(b"Date: ");
    out.extend_from_slice(&date(second));
    out.extend_from_slice(b"\r\n");
}

/// The part of the body that is still unwritten after [`write`].
pub(super) fn rest(reply: &Reply) -> &[u8] {
    if reply.body.len() <= MAX_COPIED { &[] } else { &reply.body }
}

/// A header line. An invalid header value is left out: no published text can begin a line of its
/// own.
fn header(out: &mut BytesMut, name: &str, value: &str) {
    if value.bytes().all(|byte| byte >= b' ' && byte != 0x7f || byte == b'\t') {
        put(out, [name, ": ", value, "\r\n"]);
    }
}

fn put<const PARTS: usize>(out: &mut BytesMut, parts: [&str; PARTS]) {
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

/// The `Date` of a response (RFC 9110, section 5.6.7), made once a second and thread.
fn date(second: u64) -> [u8; 29] {
    thread_local! {
        static LAST: Cell<(u64, [u8; 29])> = const { Cell::new((u64::MAX, [0; 29])) };
    }
    let (last, text) = LAST.get();
    if last == second {
        return text;
    }
    let mut text = [b' '; 29];
    let shown = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
    let length = shown.len().min(text.len());
    text[..length].copy_from_slice(&shown.as_bytes()[..length]);
    LAST.set((second, text));
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn bytes(reply: &Reply, keep: bool) -> Vec<u8> {
        let mut out = BytesMut::new();
        write(&mut out, reply, keep);
        out.to_vec()
    }

    #[test]
    fn an_answer_is_one_piece_of_head_and_body() {
        let reply = Reply::new(200, "text/plain", "hello").with("X-A", "b");
        let text = String::from_utf8(bytes(&reply, true)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-A: b\r\n"));
        assert!(head.contains("\r\nContent-Length: 5\r\nDate: ") && head.ends_with("keep-alive"));
        assert_eq!((body, rest(&reply)), ("hello", &b""[..]));
        let empty = String::from_utf8(bytes(&Reply::new(204, "", ""), false)).unwrap();
        assert!(!empty.contains("Content-") && empty.ends_with("Connection: close\r\n\r\n"));
    }

    #[test]
    fn a_long_body_is_left_to_a_second_write() {
        let reply = Reply::new(200, "text/plain", vec![b'x'; MAX_COPIED + 1]);
        assert!(bytes(&reply, true).ends_with(b"\r\n\r\n"));
        assert_eq!(rest(&reply).len(), MAX_COPIED + 1);
    }

    #[test]
    fn no_value_begins_a_line_of_its_own() {
        let reply = Reply::new(200, "text/plain", "").with("X-A", "b\r\nSet-Cookie: c=d");
        assert!(!String::from_utf8(bytes(&reply, true)).unwrap().contains("Set-Cookie"));
    }

    #[test]
    fn a_chunk_s_size_is_in_hexadecimal() {
        for length in [0, 1, 9, 10, 15, 16, 255, 256, 4096, 65_535, usize::MAX] {
            let mut out = BytesMut::new();
            put_chunk_size(&mut out, length);
            assert_eq!(out, format!("{length:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn a_chunk_is_its_piece_with_its_size() {
        for length in [1, 15, 16, MAX_COPIED] {
            let piece = Bytes::from(vec![b'\n'; length]);
            let coded = chunk(&piece).unwrap();
            assert_eq!(coded, [format!("{length:x}\r\n").as_bytes(), &piece, b"\r\n"].concat());
            assert_eq!(chunk_length(&coded), length);
        }
        assert!(chunk(&Bytes::new()).is_none());
        assert!(chunk(&Bytes::from(vec![0; MAX_COPIED + 1])).is_none());
    }

    #[test]
    fn the_date_follows_the_clock() {
        assert_eq!(&date(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&date(784_111_778), b"Sun, 06 Nov 1994 08:49:38 GMT");
    }

    #[test]
    fn a_head_is_its_own_whatever_the_last_one_was() {
        let plain = |length: usize| Reply::new(200, "text/plain", vec![b'x'; length]);
        let replies = [
            plain(1),
            plain(2),
            plain(1).with("X-A", "b"),
            plain(1).with("X-A", "c"),
            plain(1).with("X-A", String::from("d")),
            plain(1).with("X-B", "b").with("X-A", "b"),
            Reply::new(404, "text/plain", "x"),
            Reply::new(200, "text/html", "x"),
        ];
        for one in &replies {
            for other in &replies {
                for keep in [true, false] {
                    bytes(other, !keep);
                    for _ in 0..2 {
                        let mut out = BytesMut::new();
                        let now = second();
                        render(&mut out, one, keep, Body::Whole, now);
                        out.extend_from_slice(&one.body);
                        let written = bytes(one, keep);
                        // The second may have passed in between.
                        assert!(written == out[..] || second() > now, "{one:?} after {other:?}");
                    }
                }
            }
        }
    }
}
