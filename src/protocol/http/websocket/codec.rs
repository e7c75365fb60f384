//! One frame: a client's read, a server's written.

use super::{CloseCode, MAX_CONTROL};
use bytes::{Buf, Bytes, BytesMut};

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
    for piece in payload.chunks_mut(mask.len()) {
        piece.iter_mut().zip(mask).for_each(|(byte, key)| *byte ^= key);
    }
    Ok(Some(Frame { fin, opcode, payload: payload.freeze() }))
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
