//! Recent requests to the upstream, and the position of their channel at that time.
//!
//! Within the slack after a publish a poll is forwarded, as the gate does not know what its client
//! has. Three things are remembered that spare the upstream such a request:
//!
//! - A request that it has answered since that publish. A client that polls again as soon as it is
//!   answered would go in circles otherwise, as fast as the upstream responds. It is held for a
//!   moment before it goes there again.
//! - A client that it has answered since then, and that now polls with another position: it has
//!   got what there was, so it is held like any other.
//! - A request that the upstream itself held since then, until it was cut off there: it has nothing
//!   for this position. Such polls are held until something is published.
//!
//! Forgetting one costs a request, never a message.

use crate::hub::channel::{ChannelName, Position};
use crate::protocol::dialect::replay::{First, Replay};
use crate::protocol::http::Headers;
use crate::server::gate::Incoming;
use crate::server::gate::route::Rule;
use lru::LruCache;
use parking_lot::Mutex;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::time::{Duration, Instant};

/// Time that a poll is held that repeats another.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Entries that are remembered, at some 100 bytes each.
const MAX: usize = 50_000;

/// A key of what is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id(u64);

/// The keys of one poll.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids {
    /// All of the request that may make a difference to the upstream.
    pub(super) request: Id,
    /// Its client and channel, whatever its position; `None` where positions are not known.
    visitor: Option<Id>,
    /// Its channel and position, whichever client polls; where there is none, the request.
    state: Id,
    /// The client has nothing yet, and is not to wait for it.
    pub(super) first: bool,
}

/// See the [module](self).
pub(super) struct RecentRequests {
    hasher: RandomState,
    entries: Mutex<LruCache<Id, Entry>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    position: Position,
    at: Instant,
    /// The request that was answered.
    request: Id,
}

impl Default for RecentRequests {
    fn default() -> Self {
        let entries = Mutex::new(LruCache::unbounded());
        Self { hasher: RandomState::new(), entries }
    }
}

impl RecentRequests {
    /// The keys of `request` on `channel`. If the response is the same for all clients, neither
    /// they nor the rest of the query make a difference.
    pub(super) fn ids(
        &self,
        rule: &Rule,
        replay: &Replay,
        request: &Incoming<'_>,
        channel: &ChannelName,
    ) -> Ids {
        let position = replay.position(request.query, request.form);
        let is_named = replay.cursor.is_some();
        let hash = |tag: u8, with_client: bool, with_query: bool, without: Option<&str>| {
            let mut hasher = self.hasher.build_hasher();
            tag.hash(&mut hasher);
            let header = |name| Headers::get(request.headers, name);
            (request.method, request.host, request.path).hash(&mut hasher);
            if with_client {
                request.client.hash(&mut hasher);
                request.headers.raw("cookie").hash(&mut hasher);
                (header("authorization"), header("user-agent")).hash(&mut hasher);
            }
            if with_query {
                let left_out = |name: &str| name == "_" || Some(name) == without;
                request.query.hash_without(left_out, &mut hasher);
                if let Some(form) = request.form {
                    form.hash_without(left_out, &mut hasher);
                }
            }
            hasher
        };
        let mut asked = hash(0, true, !replay.share, None);
        if replay.share {
            position.hash(&mut asked);
        }
        let request_id = Id(asked.finish());
        let visitor = is_named.then(|| {
            let mut visitor = hash(1, true, !replay.share, replay.cursor.as_deref());
            channel.hash(&mut visitor);
            Id(visitor.finish())
        });
        let state = Id(if replay.share || position.is_some() {
            let path = rule.path.to_string();
            self.hasher.hash_one((2u8, request.host, path, channel, &position))
        } else {
            self.hasher.hash_one((3u8, request_id))
        });
        let first = is_named && replay.first == First::Forward && position.is_none();
        Ids { request: request_id, visitor, state, first }
    }

    /// Notes that the upstream has answered a poll whose channel was at `position` before.
    pub(super) fn note(&self, ids: Ids, position: Position) {
        let entry = Entry { position, at: Instant::now(), request: ids.request };
        self.put([Some(ids.request), ids.visitor], entry);
    }

    /// Notes that the upstream had nothing for a poll whose channel was at `position`.
    pub(super) fn note_quiet(&self, ids: Ids, position: Position) {
        let entry = Entry { position, at: Instant::now(), request: ids.request };
        self.put([Some(ids.state), None], entry);
    }

    fn put(&self, keys: [Option<Id>; 2], entry: Entry) {
        let mut entries = self.entries.lock();
        for key in keys.into_iter().flatten() {
            entries.put(key, entry);
            if entries.len() > MAX {
                entries.pop_lru();
            }
        }
    }

    /// True if the upstream has answered this very request since the channel is at `position`.
    pub(super) fn is_repeated(&self, ids: Ids, position: Position) -> bool {
        self.at(ids.request, position).is_some()
    }

    /// As [`RecentRequests::is_repeated`], within the last [`PAUSE`].
    pub(super) fn is_hasty(&self, ids: Ids, position: Position) -> bool {
        self.at(ids.request, position).is_some_and(|entry| entry.at.elapsed() < PAUSE)
    }

    /// True if the client polls on with what it got when the channel was at `position` already.
    pub(super) fn has_got(&self, ids: Ids, position: Position) -> bool {
        let entry = ids.visitor.and_then(|visitor| self.at(visitor, position));
        entry.is_some_and(|entry| entry.request != ids.request)
    }

    /// The channel's position when the upstream had nothing for such a poll.
    pub(super) fn quiet_at(&self, ids: Ids) -> Option<Position> {
        self.entries.lock().get(&ids.state).map(|entry| entry.position)
    }

    fn at(&self, key: Id, position: Position) -> Option<Entry> {
        let entry = self.entries.lock().get(&key).copied();
        entry.filter(|entry| entry.position.covers(position))
    }
}
