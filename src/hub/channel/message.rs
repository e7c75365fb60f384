//! Messages and what is rendered from them.

use super::cursor::{Epoch, Position};
use super::stamp::{Stamp, Time};
use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a message's bytes are, decided once when it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Valid JSON (and so valid UTF-8), to be passed on verbatim.
    Json,
    /// Valid UTF-8.
    Text,
    /// Anything else.
    Binary,
}

/// What a publisher hands in: bytes with their content type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// What the bytes are.
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

/// One message of a channel, with its place in it.
#[derive(Debug)]
pub struct Message {
    /// Its place: the epoch and its number in it.
    pub position: Position,
    /// Its place in the channel's time.
    pub stamp: Stamp,
    /// When it was published, by the gate's clock; its age counts from here.
    pub published: Time,
    /// What it says.
    pub payload: Payload,
}

impl Message {
    /// What a message costs beside its bytes, roughly, in bytes: its own record and its slot.
    pub(super) const OVERHEAD: u64 = 160;

    /// The length of its body in bytes.
    pub fn len(&self) -> u64 {
        self.payload.body.len() as u64
    }

    /// Whether its body is empty: a touch.
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

    /// A key that no one else has, for a dialect whose settings shape its answer.
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(2);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What has been rendered from a channel's newest message, shared by all who are answered with
/// it. It is replaced together with that message, so a channel keeps one set at the most.
#[derive(Debug, Default)]
pub struct Renders(Mutex<SmallVec<[(RenderKey, Bytes); 1]>>);

impl Renders {
    /// More ways than this are rendered anew each time; it bounds what one message can hold.
    const MAX: usize = 8;

    /// What was rendered under `key`, or what `render` makes now.
    pub fn get_or_render(&self, key: RenderKey, render: impl FnOnce() -> Bytes) -> Bytes {
        let mut rendered = self.0.lock();
        if let Some((_, bytes)) = rendered.iter().find(|(known, _)| *known == key) {
            return bytes.clone();
        }
        // Rendering under the lock makes the others wait for one rendering instead of doing
        // their own; it is a copy of one message.
        let bytes = render();
        if rendered.len() < Self::MAX {
            rendered.push((key, bytes.clone()));
        }
        bytes
    }
}
