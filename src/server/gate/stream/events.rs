//! What a stream says: a dialect's events, or the updates of a Mercure hub.

use crate::hub::Answer;
use crate::hub::channel::{RenderKey, Time};
use crate::protocol::dialect::Dialect;
use crate::protocol::dialect::nchan::RESET_HEADER;
use crate::protocol::dialect::stream::{Batch, Format, Transport};
use crate::protocol::http::Reply;
use crate::server::gate::mercure::Updates;
use crate::server::gate::route::Rule;
use bytes::Bytes;
use std::sync::Arc;

/// The events of one stream.
pub(in crate::server::gate) enum Events {
    /// Those of a rule's dialect.
    Dialect(Arc<Rule>, Format),
    /// A hub's updates.
    Mercure(Box<Updates>),
}

impl Events {
    /// The transport that they travel on.
    pub(super) fn transport(&self) -> Transport {
        match self {
            Self::Dialect(_, format) => format.transport,
            Self::Mercure(_) => Transport::Sse,
        }
    }

    /// Whether the head cannot be written before the client's cursor is placed.
    pub(super) fn place_first(&self) -> bool {
        matches!(self, Self::Mercure(updates) if updates.resumes())
    }

    /// The head of the stream, once it is known what the history has for the client.
    pub(super) fn finish_head(&self, head: Reply, found: &Answer) -> Reply {
        match self {
            Self::Dialect(rule, _) => {
                let gap = found.iter().any(|update| update.found.reset);
                match rule.dialect {
                    Dialect::Nchan(_) if gap => head.with(RESET_HEADER, "1"),
                    _ => head,
                }
            }
            Self::Mercure(updates) => updates.finish_head(head, found),
        }
    }

    /// The first bytes.
    pub(super) fn opening(&self, retry: u128) -> String {
        match self {
            Self::Dialect(rule, format) => rule.dialect.stream_opening(format, retry),
            Self::Mercure(_) => Updates::HEARTBEAT.to_owned(),
        }
    }

    /// The event that says where the client is, if there is one.
    pub(super) fn place(&self, place: &Answer) -> Option<Bytes> {
        match self {
            Self::Dialect(rule, format) => rule.dialect.stream_place(format, place),
            Self::Mercure(_) => None,
        }
    }

    /// The event that names the users on its channels.
    pub(super) fn presence(&self, place: &Answer, lists: &str) -> Option<Bytes> {
        match self {
            Self::Dialect(rule, format) => rule.dialect.stream_presence(format, place, lists),
            Self::Mercure(_) => None,
        }
    }

    /// The rule of its dialect.
    pub(super) fn rule(&self) -> Option<&Rule> {
        match self {
            Self::Dialect(rule, _) => Some(rule),
            Self::Mercure(_) => None,
        }
    }

    /// Whether a page sees signs of life only in events.
    pub(super) fn shows_life(&self) -> bool {
        matches!(self, Self::Dialect(_, format) if format.answers)
    }

    /// Names the bytes of an event that are the same for all.
    pub(super) fn key(&self) -> Option<RenderKey> {
        match self {
            Self::Dialect(rule, format) => rule.dialect.stream_key(format),
            Self::Mercure(_) => None,
        }
    }

    /// Writes what `found` has for a client at `place`. The second value is where the client is
    /// afterwards, if that is before the end of what was found.
    pub(super) fn write(&mut self, place: &Answer, found: &Answer) -> (Batch, Option<Answer>) {
        match self {
            Self::Dialect(rule, format) => rule.dialect.stream_events(format, place, found),
            Self::Mercure(updates) => updates.write(found),
        }
    }

    /// Whether the client has to come back for `found`: nothing in the events could say that some
    /// are missing before it.
    pub(super) fn end_before(&self, found: &Answer) -> bool {
        matches!(self, Self::Mercure(updates) if updates.end_before(found))
    }

    /// Of a stream that filters: how many messages its last batch had, and when the oldest of them
    /// was published.
    pub(super) fn filtered(&self) -> Option<(usize, Option<Time>)> {
        match self {
            Self::Dialect(..) => None,
            Self::Mercure(updates) => Some(updates.last_batch()),
        }
    }

    /// The bytes that keep an idle stream alive.
    pub(super) fn heartbeat(&self) -> Vec<u8> {
        match self {
            Self::Dialect(rule, format) => rule.dialect.stream_heartbeat(format),
            Self::Mercure(_) => Updates::HEARTBEAT.into(),
        }
    }

    /// The last bytes, after which the client comes back in `retry` milliseconds.
    pub(super) fn end(&self, place: &Answer, retry: u128) -> String {
        match self {
            Self::Dialect(rule, format) => rule.dialect.stream_end(format, place, retry),
            // Without an empty line, which some clients take for an event.
            Self::Mercure(_) => format!("retry: {retry}\n"),
        }
    }
}
