//! A client's frames, joined into messages (RFC 6455, section 5.4).
//!
//! A message has at most the length that its reader allows, whatever the number of its frames.
//! Text is checked frame by frame, so that one that cannot become UTF-8 any more ends at the frame
//! that breaks it. Control frames may come between the frames of a message.

use super::{CloseCode, Frame, Opcode, codec};
use bytes::{Bytes, BytesMut};

/// A client's next whole message, or a control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A message of text, which is UTF-8.
    Text(Bytes),
    /// A message of bytes.
    Binary(Bytes),
    /// A ping, with the payload that its pong has to have.
    Ping(Bytes),
    /// A pong.
    Pong,
    /// The client closes; see [`close_answer`](super::close_answer).
    Close(Bytes),
}

/// What has come of a client's next message. Between two messages it holds nothing.
#[derive(Debug, Default)]
pub struct Messages {
    begun: Option<Box<Begun>>,
}

/// The beginning of a message.
#[derive(Debug)]
struct Begun {
    is_text: bool,
    bytes: Vec<u8>,
    /// So many bytes at the start are UTF-8.
    checked: usize,
}

impl Messages {
    /// Takes the next message or control frame off `pending`; `None` = more bytes are needed. A
    /// message of more than `most` bytes is refused by the header of the frame that exceeds it.
    pub fn next(
        &mut self,
        pending: &mut BytesMut,
        most: usize,
    ) -> Result<Option<Incoming>, CloseCode> {
        while let Some(frame) = codec::take(pending, self.room(most))? {
            if let Some(incoming) = self.take(frame)? {
                return Ok(Some(incoming));
            }
        }
        Ok(None)
    }

    /// The longest payload that the next frame may have, if a message has at most `most` bytes.
    pub fn room(&self, most: usize) -> u64 {
        most.saturating_sub(self.begun.as_ref().map_or(0, |begun| begun.bytes.len())) as u64
    }

    /// Takes a frame; `None` = its message is not whole yet.
    pub fn take(&mut self, frame: Frame) -> Result<Option<Incoming>, CloseCode> {
        let Frame { fin, opcode, payload } = frame;
        let is_text = match (opcode, &self.begun) {
            (Opcode::Ping, _) => return Ok(Some(Incoming::Ping(payload))),
            (Opcode::Pong, _) => return Ok(Some(Incoming::Pong)),
            (Opcode::Close, _) => return Ok(Some(Incoming::Close(payload))),
            (Opcode::Text, None) => true,
            (Opcode::Binary, None) => false,
            (Opcode::Continuation, Some(begun)) => begun.is_text,
            _ => return Err(CloseCode::Protocol),
        };
        let content = match self.begun.take() {
            None if fin => {
                if is_text && std::str::from_utf8(&payload).is_err() {
                    return Err(CloseCode::Invalid);
                }
                payload
            }
            begun => {
                let mut begun = begun.unwrap_or_else(|| Begun::new(is_text));
                begun.push(&payload, fin)?;
                if !fin {
                    self.begun = Some(begun);
                    return Ok(None);
                }
                Bytes::from(begun.bytes)
            }
        };
        Ok(Some(if is_text { Incoming::Text(content) } else { Incoming::Binary(content) }))
    }
}

impl Begun {
    fn new(is_text: bool) -> Box<Self> {
        Box::new(Self { is_text, bytes: Vec::new(), checked: 0 })
    }

    /// Adds the payload of a frame, which is the `last` one of its message or is not.
    fn push(&mut self, payload: &[u8], last: bool) -> Result<(), CloseCode> {
        self.bytes.extend_from_slice(payload);
        if !self.is_text {
            return Ok(());
        }
        match std::str::from_utf8(&self.bytes[self.checked..]) {
            Ok(_) => self.checked = self.bytes.len(),
            // A character that the next frame may complete.
            Err(cut) if cut.error_len().is_none() && !last => self.checked += cut.valid_up_to(),
            Err(_) => return Err(CloseCode::Invalid),
        }
        Ok(())
    }
}
