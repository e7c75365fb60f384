//! The updates of one subscriber's stream.

use super::registry::Registration;
use crate::hub::Answer;
use crate::hub::channel::{Message, Time};
use crate::protocol::dialect::stream::Batch;
use crate::protocol::http::Reply;
use crate::protocol::mercure::{EARLIEST, Stored, Subscriber};
use crate::server::limits::body_memory::BodyShare;
use std::sync::Arc;

/// A batch grows by another event only below this many bytes; what is left is read again once the
/// batch is written.
const MAX_BATCH: usize = 64 << 10;

/// See the [module](self).
pub(in crate::server::gate) struct Updates {
    subscriber: Subscriber,
    /// The id that the client comes back with, until its place is found.
    resume: Option<String>,
    /// The client has an id to come back with.
    has_id: bool,
    /// How many events the last batch had, and when the oldest was published.
    last_batch: (usize, Option<Time>),
    _memory: BodyShare,
    _registration: Option<Registration>,
}

impl Updates {
    /// A comment: the first bytes of a stream, and those that keep it alive.
    pub(in crate::server::gate) const HEARTBEAT: &str = ":\n";

    /// Those of `subscriber`, which takes that much memory and is listed by `registration`.
    pub(super) fn new(
        mut subscriber: Subscriber,
        memory: BodyShare,
        registration: Option<Registration>,
    ) -> Self {
        let resume = subscriber.last_event_id.take();
        // The registration has them, and the filter needs them no more.
        (subscriber.topics, subscriber.token, subscriber.payload) = (Vec::new(), None, None);
        let has_id = resume.is_some();
        let last_batch = (0, None);
        Self {
            subscriber,
            resume,
            has_id,
            last_batch,
            _memory: memory,
            _registration: registration,
        }
    }

    /// Whether the client comes back with an id.
    pub(in crate::server::gate) fn resumes(&self) -> bool {
        self.resume.is_some()
    }

    /// The head, with the id from which the stream goes on. One that the history does not have any
    /// more means that everything kept comes now, and that updates may be missing before it.
    pub(in crate::server::gate) fn finish_head(&self, head: Reply, found: &Answer) -> Reply {
        let Some(id) = &self.resume else { return head };
        let messages = found.first().map(|update| update.found.messages.as_slice());
        let known = place_of(messages.unwrap_or_default(), id).is_some();
        head.with("Last-Event-ID", if known { id.clone() } else { EARLIEST.to_owned() })
    }

    /// Whether the client has to come back for `found`, since updates are missing before it: the
    /// head of its next stream says so, and events cannot. A client without an id would miss the
    /// rest too.
    pub(in crate::server::gate) fn end_before(&self, found: &Answer) -> bool {
        self.has_id && found.iter().any(|update| update.found.reset)
    }

    /// Writes what `found` has for the client. The second value is where the client is afterwards, if
    /// that is before the end of what was found.
    pub(in crate::server::gate) fn write(&mut self, found: &Answer) -> (Batch, Option<Answer>) {
        let mut batch = Batch::default();
        self.last_batch = (0, None);
        let Some(update) = found.first() else { return (batch, None) };
        let messages = update.found.messages.as_slice();
        let skipped = match self.resume.take_if(|_| !messages.is_empty()) {
            Some(id) => place_of(messages, &id).map_or(0, |place| place + 1),
            None => 0,
        };
        let mut part = None;
        let mut bytes = 0;
        let mut before: Option<&Arc<Message>> = None;
        for message in &messages[skipped..] {
            let stored = Stored::of(&message.payload);
            if let Some(stored) = stored.filter(|stored| self.subscriber.gets(stored)) {
                let event = stored.event();
                if let Some(before) =
                    before.filter(|_| bytes > 0 && bytes + event.len() > MAX_BATCH)
                {
                    part = Some(update.at(before.position, before.stamp));
                    break;
                }
                bytes += event.len();
                self.last_batch.0 += 1;
                self.last_batch.1.get_or_insert(message.published);
                batch.pieces.push(event);
            }
            before = Some(message);
        }
        batch.events = self.last_batch.0 as u64;
        self.has_id |= batch.events > 0;
        (batch, part.map(|place| Answer::from_elem(place, 1)))
    }

    /// How many events the last batch had, and when the oldest of them was published.
    pub(in crate::server::gate) fn last_batch(&self) -> (usize, Option<Time>) {
        self.last_batch
    }
}

/// The place of the update `id`. Of several with the same id it is the first: better an update
/// twice than one that is missing.
fn place_of(messages: &[Arc<Message>], id: &str) -> Option<usize> {
    messages
        .iter()
        .position(|message| Stored::of(&message.payload).is_some_and(|stored| stored.id() == id))
}
