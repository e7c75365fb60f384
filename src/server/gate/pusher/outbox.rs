//! Frames on their way out, in the form of their transport.

use crate::hub::channel::{RenderKey, Time};
use crate::protocol::http::websocket::{self, Opcode};
use crate::protocol::pusher::{frame, lines};
use bytes::Bytes;
use std::borrow::Cow;

/// Frames are collected until they have this many bytes.
const MAX_BATCH: usize = 64 << 10;

/// The transport of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Frames of a WebSocket.
    Socket,
    /// Elements of lines, for the HTTP fallbacks.
    Lines,
}

impl Way {
    /// Names the renderings of this transport.
    pub(super) fn key(self) -> RenderKey {
        RenderKey::PUSHER.variant(match self {
            Self::Socket => 1,
            Self::Lines => 2,
        })
    }

    /// True for the transport's form of no frame at all.
    pub(super) fn is_empty(self, wrapped: &[u8]) -> bool {
        wrapped.len() <= 2
    }

    /// A frame in the transport's form.
    pub(super) fn wrap(self, frame: &str) -> Vec<u8> {
        match self {
            Self::Socket => websocket::frame(Opcode::Text, frame.as_bytes()),
            Self::Lines => lines::element(frame).into_bytes(),
        }
    }
}

/// Why a connection ends, as its client learns.
#[derive(Debug)]
pub(in crate::server::gate) struct Close {
    pub(super) code: u16,
    pub(super) reason: Cow<'static, str>,
}

impl Close {
    pub(super) fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// The error, and the end, as they are written.
    pub(super) fn written(&self, way: Way) -> [Vec<u8>; 2] {
        let error = frame::error(Some(self.code), &self.reason);
        match way {
            Way::Socket => [way.wrap(&error), websocket::close_with(self.code, &self.reason)],
            Way::Lines => {
                // A session that is not open yet takes no frames.
                [Vec::new(), lines::close(self.code, &self.reason).into_bytes()]
            }
        }
    }
}

/// Frames that wait to be written.
#[derive(Debug)]
pub(in crate::server::gate) struct Outbox {
    way: Way,
    frames: Vec<Bytes>,
    bytes: usize,
    /// A sign of life is wanted, if there is nothing else.
    life: bool,
    /// Events among them.
    pub(super) events: u64,
    /// The time of the oldest message among them.
    pub(super) published: Option<Time>,
}

impl Outbox {
    pub(super) fn new(way: Way) -> Self {
        Self { way, frames: Vec::new(), bytes: 0, life: false, events: 0, published: None }
    }

    /// Adds a frame of the protocol's own.
    pub(super) fn push(&mut self, frame: &str) {
        self.push_wrapped(self.way.wrap(frame).into());
    }

    /// Adds a frame that has the transport's form.
    pub(super) fn push_wrapped(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push(frame);
    }

    /// Has something written, if only a line without frames.
    pub(super) fn push_life(&mut self) {
        self.life = true;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty() && !self.life
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// True if no more is added before it is written; what is left stays in the histories.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MAX_BATCH
    }

    /// The frame, if it is the only one and the whole of what is written.
    pub(super) fn only(&self) -> Option<Bytes> {
        match self.frames.as_slice() {
            [frame] => Some(frame.clone()),
            _ => None,
        }
    }

    /// The frames, each as it is written.
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        (self.bytes, self.life) = (0, false);
        std::mem::take(&mut self.frames)
    }
}
