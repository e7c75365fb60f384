//! Messages and the renderings made from them.

use super::cursor::{Epoch, Position};
use super::stamp::{Stamp, Time};
use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The kind of a message's bytes, decided once when it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Valid JSON (and so valid UTF-8), passed on verbatim.
    Json,
    /// Valid UTF-8.
    Text,
    /// Anything else.
    Binary,
}

/// Input of a publisher: bytes with their content type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Kind of the bytes.
    pub kind: Kind,
    /// The content type they were published with.
    pub content_type: Arc<str>,
    /// The bytes, verbatim.
    pub body: Bytes,
}

impl Payload {
    /// A text message.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self { kind: Kind::Text, content_type: "text/plain".into(), body: body.into() }
    }

    /// A message without content: a touch.
    pub fn empty() -> Self {
        Self::text(Bytes::new())
    }
}

/// One message of a channel, with its position in it.
#[derive(Debug)]
pub struct Message {
    /// Its position: the epoch and its number in it.
    pub position: Position,
    /// Its position in the channel's time.
    pub stamp: Stamp,
    /// Its number within the second of its stamp, for clients that know a message by second and
    /// number; given as it is stored ([`crate::hub::channel::Moment`]).
    pub tag: u64,
    /// Time of its publish by the gate's clock; its age counts from here.
    pub published: Time,
    /// Content of the message.
    pub payload: Payload,
}

impl Message {
    /// Rough cost of a message beside its bytes, in bytes: its own record and its slot.
    pub(super) const OVERHEAD: u64 = 160;

    /// The length of its body in bytes.
    pub fn len(&self) -> u64 {
        self.payload.body.len() as u64
    }

    /// True if its body is empty: a touch.
    pub fn is_empty(&self) -> bool {
        self.payload.body.is_empty()
    }

    /// The epoch it belongs to.
    pub fn epoch(&self) -> Epoch {
        self.position.epoch
    }
}

/// Names one way to render a message: two renderings with one key are the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenderKey(u64);

impl RenderKey {
    /// The native dialect.
    pub const NATIVE: Self = Self(0);
    /// The NovComet dialect.
    pub const NOVCOMET: Self = Self(1);
    /// The Nchan dialect.
    pub const NCHAN: Self = Self(2);

    /// Frames of the Pusher protocol.
    pub const PUSHER: Self = Self(1 << 55);

    /// The key of the same rendering in a transfer coding.
    pub const fn coded(self) -> Self {
        self.variant(0x80)
    }

    /// The key of another way to write the same rendering: the `n`th.
    pub const fn variant(self, n: u8) -> Self {
        Self(self.0 | (n as u64) << 56)
    }

    /// A key that no other dialect has, for one whose settings shape its answer.
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(3);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Renderings of a channel's newest message, shared by all polls that get it. They are replaced
/// together with that message, so a channel keeps one set at the most.
#[derive(Debug, Default)]
pub struct Renders(Mutex<SmallVec<[(RenderKey, Bytes); 1]>>);

impl Renders {
    /// Most renderings kept, which bounds the memory of one message; others are rendered each time.
    const MAX: usize = 12;

    /// The rendering under `key`, if there is one.
    pub fn get(&self, key: RenderKey) -> Option<Bytes> {
        let rendered = self.0.lock();
        rendered.iter().find(|(known, _)| *known == key).map(|(_, bytes)| bytes.clone())
    }

    /// The rendering under `key` in a transfer coding; calls `code` the first time, which may have
    /// none. `None` also if nothing is rendered under `key`.
    pub fn get_coded(
        &self,
        key: RenderKey,
        code: impl FnOnce(&Bytes) -> Option<Bytes>,
    ) -> Option<Bytes> {
        if let Some(coded) = self.get(key.coded()) {
            return Some(coded);
        }
        let coded = code(&self.get(key)?)?;
        Some(self.get_or_render(key.coded(), || coded))
    }

    /// The rendering under `key`; calls `render` if there is none yet.
    pub fn get_or_render(&self, key: RenderKey, render: impl FnOnce() -> Bytes) -> Bytes {
        let mut rendered = self.0.lock();
        if let Some((_, bytes)) = rendered.iter().find(|(known, _)| *known == key) {
            return bytes.clone();
        }
        // Rendering under the lock makes other polls wait for one rendering instead of making their
        // own; it is a copy of one message.
        let bytes = render();
        if rendered.len() < Self::MAX {
            rendered.push((key, bytes.clone()));
        }
        bytes
    }
}
