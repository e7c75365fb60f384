//! WebSocket (RFC 6455): the handshake's values and the frames, as bytes.
//!
//! A frame's header is checked before its payload is waited for, and what breaks a rule ends the
//! connection with the close code that the RFC gives it. Nothing is kept between two frames but
//! the bytes that have come.

use bytes::{Buf, Bytes, BytesMut};
use ring::digest;

/// What a server appends to a client's key (section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The longest payload of a control frame (section 5.5).
const MAX_CONTROL: u64 = 125;

/// The value of `Sec-WebSocket-Accept` for a key; `None` = it is not 16 bytes in base64.
pub fn accept(key: &str) -> Option<String> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    STANDARD.decode(key).ok().filter(|key| key.len() == 16)?;
    let mut sha1 = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key.as_bytes());
    sha1.update(GUID.as_bytes());
    Some(STANDARD.encode(sha1.finish()))
}

/// Why a connection is closed (section 7.4.1, and the IANA registry for the last).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// The other side closed without a reason.
    Normal = 1000,
    /// This side goes away.
    GoingAway = 1001,
    /// The other side broke a rule of the protocol.
    Protocol = 1002,
    /// Text is not UTF-8.
    Invalid = 1007,
    /// What was sent is not allowed here.
    Policy = 1008,
    /// A message is too long.
    TooBig = 1009,
    /// There is no room; come again later.
    TryAgainLater = 1013,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// More of the message before.
    Continuation,
    /// Text.
    Text,
    /// Bytes.
    Binary,
    /// The end.
    Close,
    /// A question for life.
    Ping,
    /// The answer to it.
    Pong,
}

impl Opcode {
    const ALL: [(Self, u8); 6] = [
        (Self::Continuation, 0x0),
        (Self::Text, 0x1),
        (Self::Binary, 0x2),
        (Self::Close, 0x8),
        (Self::Ping, 0x9),
        (Self::Pong, 0xa),
    ];

    /// Whether it is about the connection, not a part of a message.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    fn bits(self) -> u8 {
        Self::ALL.iter().find(|(opcode, _)| *opcode == self).map_or(0, |(_, bits)| *bits)
    }

    fn from_bits(bits: u8) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == bits).map(|(opcode, _)| *opcode)
    }
}

/// A frame of a client's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// It is the last of its message.
    pub fin: bool,
    /// What it is.
    pub opcode: Opcode,
    /// Its payload, unmasked.
    pub payload: Bytes,
}

/// A frame's header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// It is the last of its message.
    pub fin: bool,
    /// What it is.
    pub opcode: Opcode,
    /// How long it is itself.
    length: usize,
    mask: [u8; 4],
    payload: usize,
}

/// Reads the header of a client's frame; `None` = more bytes are needed. A payload above `limit`
/// is refused.
pub fn header(bytes: &[u8], limit: u64) -> Result<Option<Header>, CloseCode> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    let opcode = Opcode::from_bits(first & 0x0f).ok_or(CloseCode::Protocol)?;
    let fin = first & 0x80 != 0;
    let masked = second & 0x80 != 0;
    let short = second & 0x7f;
    // No extension was agreed on that could give a meaning to the other bits; clients have to
    // mask (section 5.1); control frames are short and whole (section 5.5).
    let control = opcode.is_control();
    if first & 0x70 != 0 || !masked || control && (!fin || u64::from(short) > MAX_CONTROL) {
        return Err(CloseCode::Protocol);
    }
    let (payload, at) = match (short, bytes.get(2..)) {
        (126, Some([a, b, ..])) => (u64::from(u16::from_be_bytes([*a, *b])), 4),
        (127, Some([a, b, c, d, e, f, g, h, ..])) => {
            (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 10)
        }
        (126 | 127, _) => return Ok(None),
        _ => (u64::from(short), 2),
    };
    // The shortest form, and no sign bit (section 5.2).
    let is_shortest = match at {
        4 => payload > MAX_CONTROL,
        10 => payload > u64::from(u16::MAX) && payload >> 63 == 0,
        _ => true,
    };
    if !is_shortest {
        return Err(CloseCode::Protocol);
    }
    if !control && payload > limit {
        return Err(CloseCode::TooBig);
    }
    let payload = usize::try_from(payload).map_err(|_| CloseCode::TooBig)?;
    let Some([a, b, c, d, ..]) = bytes.get(at..) else { return Ok(None) };
    Ok(Some(Header { fin, opcode, length: at + 4, mask: [*a, *b, *c, *d], payload }))
}

/// Takes the next frame off `bytes`; `None` = it has not come whole. A payload above `limit` is
/// refused before it is waited for.
pub fn take(bytes: &mut BytesMut, limit: u64) -> Result<Option<Frame>, CloseCode> {
    let Some(Header { fin, opcode, length, mask, payload }) = header(bytes, limit)? else {
        return Ok(None);
    };
    if bytes.len() < length + payload {
        return Ok(None);
    }
    bytes.advance(length);
    let mut payload = bytes.split_to(payload);
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Ok(Some(Frame { fin, opcode, payload: payload.freeze() }))
}

/// Joins a client's frames of text into messages (section 5.4). Between two messages it holds
/// nothing.
#[derive(Debug, Default)]
pub struct Messages {
    #[allow(clippy::box_collection)]
    begun: Option<Box<Vec<u8>>>,
}

impl Messages {
    /// The longest payload that the next frame may have, if a message has at most `most` bytes.
    pub fn room(&self, most: usize) -> u64 {
        most.saturating_sub(self.begun.as_ref().map_or(0, |begun| begun.len())) as u64
    }

    /// Takes a frame that is no control frame; `None` = its message is not whole yet.
    pub fn take(&mut self, frame: Frame) -> Result<Option<Bytes>, CloseCode> {
        let begins = match (frame.opcode, &self.begun) {
            (Opcode::Text, None) => true,
            (Opcode::Continuation, Some(_)) => false,
            (Opcode::Binary, None) => return Err(CloseCode::Policy),
            _ => return Err(CloseCode::Protocol),
        };
        let message = match (begins, frame.fin) {
            (true, true) => frame.payload,
            (_, fin) => {
                let mut begun = self.begun.take().unwrap_or_default();
                begun.extend_from_slice(&frame.payload);
                if !fin {
                    self.begun = Some(begun);
                    return Ok(None);
                }
                Bytes::from(*begun)
            }
        };
        std::str::from_utf8(&message).map_err(|_| CloseCode::Invalid)?;
        Ok(Some(message))
    }
}

/// A whole frame of the server's, which is not masked.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 10);
    write(&mut out, opcode, payload);
    out
}

/// Appends a whole frame of the server's.
pub fn write(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.push(0x80 | opcode.bits());
    match payload.len() {
        short @ 0..=125 => out.push(short as u8),
        middle @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// The frame that closes with `code`; the reason is cut to what fits.
pub fn close(code: CloseCode, reason: &str) -> Vec<u8> {
    close_with(code as u16, reason)
}

/// The same with a code of a subprotocol's own.
pub fn close_with(code: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(MAX_CONTROL as usize - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let payload = [&code.to_be_bytes(), &reason.as_bytes()[..end]].concat();
    frame(Opcode::Close, &payload)
}

/// What a client's close frame is answered with: its own code, or what is wrong with it (sections
/// 5.5.1 and 7.4).
pub fn close_answer(payload: &[u8]) -> Result<u16, CloseCode> {
    match payload {
        [] => Ok(CloseCode::Normal as u16),
        [_] => Err(CloseCode::Protocol),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(CloseCode::Protocol);
            }
            std::str::from_utf8(reason).map(|_| code).map_err(|_| CloseCode::Invalid)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = frame(Opcode::Text, payload);
        (out[0], out[1]) = (first, out[1] | 0x80);
        let at = out.len() - payload.len();
        let mask = [1, 2, 3, 4];
        let body: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
        out.splice(at.., mask.into_iter().chain(body));
        out
    }

    fn read(bytes: &[u8]) -> Result<Option<Frame>, CloseCode> {
        take(&mut BytesMut::from(bytes), 70_000)
    }

    #[test]
    fn the_rfc_s_key_has_the_rfc_s_answer() {
        let accepted = accept("dGhlIHNhbXBsZSBub25jZQ==").unwrap();
        assert_eq!(accepted, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for bad in ["", "dGhl", "no base64 at all", "dGhlIHNhbXBsZSBub25jZQ"] {
            assert_eq!(accept(bad), None, "{bad}");
        }
    }

    #[test]
    fn frames_of_all_lengths_are_read_however_they_are_torn() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let bytes = masked(0x82, &payload);
            for cut in [1, 2, 3, 7, bytes.len() - 1] {
                if cut < bytes.len() {
                    assert_eq!(read(&bytes[..cut]), Ok(None), "{length} at {cut}");
                }
            }
            let mut two = BytesMut::from(&[&*bytes, &bytes[..1]].concat()[..]);
            let frame = take(&mut two, 70_000).unwrap().unwrap();
            assert_eq!(
                (frame.fin, frame.opcode, frame.payload.len()),
                (true, Opcode::Binary, length)
            );
            assert!(frame.payload.iter().all(|byte| *byte == b'x'));
            assert_eq!(two.len(), 1);
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused_by_its_header_alone() {
        let protocol = Err(CloseCode::Protocol);
        assert_eq!(read(&frame(Opcode::Ping, b"")), protocol, "unmasked");
        for first in [0xc1, 0xa1, 0x91, 0x83, 0x8b, 0x8f, 0x09, 0x08] {
            assert_eq!(read(&masked(first, b"a")[..2]), protocol, "{first:x}");
        }
        assert_eq!(read(&masked(0x89, &[0; 126])[..2]), protocol, "a long ping");
        assert_eq!(read(&[0x81, 0xfe, 0, 5]), protocol, "a length in too long a form");
        assert_eq!(read(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), protocol);
        assert_eq!(read(&[0x81, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0]), protocol, "a sign bit");
        let long = read(&[0x81, 0xff, 0, 0, 0, 0, 0xff, 0, 0, 0]);
        assert_eq!(long, Err(CloseCode::TooBig));
    }

    #[test]
    fn a_close_is_answered_with_its_code_or_with_what_is_wrong() {
        let with = |code: u16, reason: &[u8]| [&code.to_be_bytes(), reason].concat();
        assert_eq!(close_answer(b""), Ok(1000));
        assert_eq!(close_answer(&with(1001, b"bye")), Ok(1001));
        assert_eq!(close_answer(&with(3000, "ü".as_bytes())), Ok(3000));
        for code in [0, 999, 1004, 1005, 1006, 1015, 1100, 2999, 5000] {
            assert_eq!(close_answer(&with(code, b"")), Err(CloseCode::Protocol), "{code}");
        }
        assert_eq!(close_answer(b"\x03"), Err(CloseCode::Protocol));
        assert_eq!(close_answer(&with(1000, b"\xff")), Err(CloseCode::Invalid));
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let frame = close(CloseCode::Policy, &"é".repeat(100));
        assert_eq!(frame[..4], [0x88, 124, 0x03, 0xf0]);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }

    #[test]
    fn messages_are_joined_from_their_frames() {
        let frame = |opcode, fin, text: &str| {
            let payload = Bytes::copy_from_slice(text.as_bytes());
            Frame { fin, opcode, payload }
        };
        let text = Opcode::Text;
        let more = Opcode::Continuation;
        let mut messages = Messages::default();
        assert_eq!(messages.take(frame(text, true, "whole")), Ok(Some("whole".into())));
        assert_eq!(messages.take(frame(text, false, "in ")), Ok(None));
        assert_eq!((messages.room(10), messages.room(2)), (7, 0));
        assert_eq!(messages.take(frame(more, false, "pi")), Ok(None));
        assert_eq!(messages.take(frame(more, true, "eces")), Ok(Some("in pieces".into())));
        assert_eq!(messages.room(10), 10);
        assert_eq!(messages.take(frame(more, true, "")), Err(CloseCode::Protocol));
        assert_eq!(messages.take(frame(Opcode::Binary, true, "")), Err(CloseCode::Policy));
        assert_eq!(messages.take(frame(text, false, "")), Ok(None));
        assert_eq!(messages.take(frame(text, true, "")), Err(CloseCode::Protocol));
        let bad = Frame { fin: true, opcode: text, payload: Bytes::from_static(b"\xff") };
        assert_eq!(Messages::default().take(bad), Err(CloseCode::Invalid));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut bytes = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take(&mut bytes, 100) {}
        }
    }
}
