//! WebSocket (RFC 6455): the handshake's values and the frames, as bytes.
//!
//! A frame's header is checked before its payload is waited for, and what breaks a rule ends the
//! connection with the close code that the RFC gives it. Nothing is kept between two frames but
//! the bytes that have come, and between the frames of one message what has come of it.

mod codec;
mod messages;
#[cfg(test)]
mod tests;

pub use codec::{Frame, Header, Opcode, frame, header, take, write};
pub use messages::{Incoming, Messages};

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
