//! Recent requests to the upstream, and the position of their channel at that time.
//!
//! Within the slack after a publish every poll is forwarded. A client that polls again as soon as
//! it is answered would so go in circles, as fast as the upstream responds, until the slack is
//! over. So a poll that repeats, to the letter, one that the upstream has answered since that
//! publish is held for a moment before it goes there again. Forgetting one costs a request, never a
//! message.

use crate::hub::channel::Position;
use crate::protocol::http::Headers;
use crate::server::gate::Incoming;
use lru::LruCache;
use parking_lot::Mutex;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::time::Duration;

/// Time that such a poll is held.
const PAUSE: Duration = Duration::from_secs(1);

/// Requests that are remembered, at some 100 bytes each.
const MAX: usize = 50_000;

/// Hold time of a poll that repeats another: at most the slack, within which the update is recent.
pub(super) fn pause(duration: Option<Duration>, slack: Duration) -> Option<Duration> {
    Some(duration.unwrap_or(PAUSE).min(PAUSE).min(slack))
}

/// Identifies a request by all that may make a difference to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id(u64);

/// See the [module](self).
pub(super) struct RecentRequests {
    hasher: RandomState,
    positions: Mutex<LruCache<Id, Position>>,
}

impl Default for RecentRequests {
    fn default() -> Self {
        let positions = Mutex::new(LruCache::unbounded());
        Self { hasher: RandomState::new(), positions }
    }
}

impl RecentRequests {
    /// The key of `request`. If the response is the same for all (`shared`), its query makes no
    /// difference; else all of it but the parameter that jQuery adds against caches.
    pub(super) fn id(&self, request: &Incoming<'_>, shared: bool) -> Id {
        let mut hasher = self.hasher.build_hasher();
        let header = |name| Headers::get(request.headers, name);
        (request.method, request.host, request.path, request.client).hash(&mut hasher);
        request.headers.raw("cookie").hash(&mut hasher);
        (header("authorization"), header("user-agent")).hash(&mut hasher);
        if !shared {
            request.query.hash_without(|name| name == "_", &mut hasher);
            if let Some(form) = request.form {
                form.hash_without(|name| name == "_", &mut hasher);
            }
        }
        Id(hasher.finish())
    }

    /// Notes that the upstream has answered a request for a channel that was at `position` before.
    pub(super) fn note(&self, id: Id, position: Position) {
        let mut positions = self.positions.lock();
        positions.put(id, position);
        if positions.len() > MAX {
            positions.pop_lru();
        }
    }

    /// The channel's position when the request was last answered.
    pub(super) fn at(&self, id: Id) -> Option<Position> {
        self.positions.lock().get(&id).copied()
    }
}
