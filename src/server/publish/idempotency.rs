//! A cache of replies by idempotency key, so that a publisher may retry without harm.
//!
//! A write that bears an `Idempotency-Key` is done once: a repetition within [`TTL`] gets the first
//! reply, one that comes while the first is at work waits for it, and the same key with another
//! body is a conflict. Only successes are stored: an error published nothing, so the request may be
//! corrected and sent again under the same key.
//!
//! Overflow: beyond [`MAX_KEYS`] or [`MAX_BYTES`] the oldest are dropped, and a repetition of those
//! is done anew. Cancelling a write before it is done leaves its key as if never used. Stored
//! replies can move into another process, with the history: [`IdempotencyCache::remembered`].

use crate::hub::channel::Time;
use crate::protocol::archive::StoredReply;
use crate::protocol::http::Reply;
use lru::LruCache;
use parking_lot::Mutex;
use ring::digest::{Context, SHA256};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex as Slot, OwnedMutexGuard};

/// Time that a reply is stored.
pub(super) const TTL: Duration = Duration::from_secs(300);
/// Upper bound of stored keys.
const MAX_KEYS: usize = 10_000;
/// Upper bound of the bytes of stored keys and replies.
const MAX_BYTES: usize = 16 << 20;
/// The longest key, in bytes.
pub(super) const MAX_KEY_LENGTH: usize = 255;

/// A key within its scope, a method and a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub(super) method: http::Method,
    pub(super) path: String,
    pub(super) key: String,
}

/// The stored replies; a cheap handle.
#[derive(Clone, Default)]
pub struct IdempotencyCache {
    table: Arc<Mutex<Table>>,
}

struct Table {
    /// In the order of their age; looking one up does not make it younger.
    entries: LruCache<Id, Entry>,
    bytes: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0 }
    }
}

struct Entry {
    print: Fingerprint,
    since: Time,
    bytes: usize,
    /// Locked while the write is at work; then the reply, if it is one to store.
    slot: Arc<Slot<Option<Reply>>>,
}

/// Distinguishes bodies without keeping them, in any process.
type Fingerprint = [u64; 2];

/// The fingerprint of a body of that type.
pub(super) fn print(content_type: Option<&str>, body: &[u8]) -> Fingerprint {
    let mut digest = Context::new(&SHA256);
    // With the type's length before it, so that no other type and body run together into the same.
    let kind = content_type.map_or(u64::MAX, |kind| kind.len() as u64);
    for piece in [&kind.to_le_bytes()[..], content_type.unwrap_or_default().as_bytes(), body] {
        digest.update(piece);
    }
    let digest = digest.finish();
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    [number(&digest.as_ref()[..8]), number(&digest.as_ref()[8..16])]
}

/// The key was used for another request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict;

enum Claim {
    /// The write has not been done, and no other caller does it while this is held.
    First(OwnedMutexGuard<Option<Reply>>),
    /// Another caller has done it, or is about to.
    After(Arc<Slot<Option<Reply>>>),
}

impl IdempotencyCache {
    /// The stored reply for `id`, or else the result of `work`. A repetition must have the same
    /// `print`.
    pub(super) async fn once(
        &self,
        id: Id,
        print: Fingerprint,
        now: Time,
        work: impl Future<Output = Reply>,
    ) -> Result<Reply, Conflict> {
        let mut answer = match self.turn(&id, print, now)? {
            Claim::First(slot) => slot,
            Claim::After(slot) => slot.lock_owned().await,
        };
        if let Some(reply) = &*answer {
            return Ok(reply.clone());
        }
        let reply = work.await;
        if reply.status < 300 {
            *answer = Some(reply.clone());
            self.table.lock().grow(&id, reply.body.len());
        }
        Ok(reply)
    }

    /// All stored replies, the oldest first, for [`IdempotencyCache::recall`] in another process.
    pub fn remembered(&self) -> Vec<StoredReply> {
        let table = self.table.lock();
        let done = |(id, entry): (&Id, &Entry)| {
            // A write that is still at work has no reply.
            let reply = entry.slot.try_lock().ok()?.clone()?;
            Some(id.remembered(entry, reply))
        };
        table.entries.iter().rev().filter_map(done).collect()
    }

    /// Takes over another process's stored replies.
    pub fn recall(&self, remembered: Vec<StoredReply>, now: Time) {
        let mut table = self.table.lock();
        for one in remembered {
            // A clock that was set back makes nothing last longer.
            let since = one.since.min(now);
            let Some((id, print, reply)) = Id::recalled(one) else { continue };
            let bytes = id.cost() + reply.body.len();
            let slot = Arc::new(Slot::new(Some(reply)));
            table.insert(&id, Entry { print, since, bytes, slot });
        }
        table.expire(now);
    }

    fn turn(&self, id: &Id, print: Fingerprint, now: Time) -> Result<Claim, Conflict> {
        let mut table = self.table.lock();
        table.expire(now);
        if let Some(entry) = table.entries.peek(id) {
            if entry.print == print {
                return Ok(Claim::After(entry.slot.clone()));
            }
            // A key whose write has failed is free for another body.
            let failed = entry.slot.try_lock().is_ok_and(|answer| answer.is_none());
            if !failed {
                return Err(Conflict);
            }
        }
        let slot = Arc::new(Slot::new(None));
        let guard = slot.clone().try_lock_owned();
        table.insert(id, Entry { print, since: now, bytes: id.cost(), slot: slot.clone() });
        Ok(match guard {
            Ok(guard) => Claim::First(guard),
            // Cannot happen: no other caller knows the slot yet. Waiting for it would be right,
            // too.
            Err(_) => Claim::After(slot),
        })
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.table.lock().entries.len()
    }
}

impl Id {
    /// The memory an entry takes without its reply, roughly, in bytes.
    fn cost(&self) -> usize {
        self.path.len() + self.key.len() + 300
    }

    fn remembered(&self, entry: &Entry, reply: Reply) -> StoredReply {
        let Reply { status, content_type, headers, body } = reply;
        let headers = headers.into_iter().map(|(name, value)| (name.into(), value.into()));
        StoredReply {
            method: self.method.to_string(),
            path: self.path.clone(),
            key: self.key.clone(),
            since: entry.since,
            print: entry.print,
            status,
            content_type: content_type.into_owned(),
            headers: headers.collect(),
            body,
        }
    }

    /// `None` if there is no such method.
    fn recalled(remembered: StoredReply) -> Option<(Self, Fingerprint, Reply)> {
        let StoredReply { method, path, key, print, status, content_type, headers, body, .. } =
            remembered;
        let method = method.parse().ok()?;
        let headers = headers.into_iter().map(|(name, value)| (name.into(), value.into()));
        let headers = headers.collect();
        let reply = Reply { status, content_type: content_type.into(), headers, body };
        Some((Self { method, path, key }, print, reply))
    }
}

impl Table {
    fn insert(&mut self, id: &Id, entry: Entry) {
        self.bytes += entry.bytes;
        if let Some(replaced) = self.entries.put(id.clone(), entry) {
            self.bytes -= replaced.bytes;
        }
        self.bound();
    }

    /// Adds the length of a reply. Its entry may have been dropped meanwhile.
    fn grow(&mut self, id: &Id, bytes: usize) {
        if let Some(entry) = self.entries.peek_mut(id) {
            entry.bytes += bytes;
            self.bytes += bytes;
        }
        self.bound();
    }

    fn bound(&mut self) {
        while self.entries.len() > MAX_KEYS || self.bytes > MAX_BYTES {
            if !self.drop_oldest() {
                return;
            }
        }
    }

    fn expire(&mut self, now: Time) {
        let kept_since = now.before(TTL);
        while self.entries.peek_lru().is_some_and(|(_, entry)| entry.since < kept_since) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some((_, entry)) = self.entries.pop_lru() else { return false };
        self.bytes -= entry.bytes;
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::future::ready;

    fn id(key: &str) -> Id {
        Id { method: http::Method::POST, path: "/publish".into(), key: key.into() }
    }

    fn reply(body: &str) -> Reply {
        Reply::new(200, "text/plain", body.to_owned())
    }

    async fn once(
        answers: &IdempotencyCache,
        key: &str,
        content: &str,
        at: u64,
        body: &str,
    ) -> String {
        let work = ready(reply(body));
        let print = print(None, content.as_bytes());
        match answers.once(id(key), print, Time(at * 1_000_000), work).await {
            Ok(reply) => String::from_utf8(reply.body.to_vec()).unwrap(),
            Err(Conflict) => "conflict".into(),
        }
    }

    #[tokio::test]
    async fn a_repetition_gets_the_first_answer_for_five_minutes() {
        let answers = IdempotencyCache::default();
        assert_eq!(once(&answers, "k", "a", 1000, "first").await, "first");
        assert_eq!(once(&answers, "k", "a", 1300, "second").await, "first");
        assert_eq!(once(&answers, "k", "b", 1300, "second").await, "conflict");
        assert_eq!(once(&answers, "other", "b", 1300, "second").await, "second");
        assert_eq!(once(&answers, "k", "a", 1301, "third").await, "third");
    }

    #[tokio::test]
    async fn an_error_is_not_remembered_and_may_be_mended() {
        let answers = IdempotencyCache::default();
        let failed = ready(Reply::error(422, "no", "mend it"));
        assert_eq!(
            answers.once(id("k"), print(None, b"a"), Time(1), failed).await.unwrap().status,
            422
        );
        assert_eq!(once(&answers, "k", "b", 0, "mended").await, "mended");
        assert_eq!(once(&answers, "k", "a", 0, "x").await, "conflict");
    }

    #[tokio::test]
    async fn a_second_request_waits_for_the_first() {
        let answers = Arc::new(IdempotencyCache::default());
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        let slow = async move {
            finished.await.unwrap();
            reply("first")
        };
        let (first, second) = {
            let a = answers.clone();
            let b = answers.clone();
            (
                tokio::spawn(
                    async move { a.once(id("k"), print(None, b"a"), Time(1), slow).await },
                ),
                tokio::spawn(async move {
                    b.once(id("k"), print(None, b"a"), Time(1), ready(reply("second"))).await
                }),
            )
        };
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        assert_eq!(
            answers.once(id("k"), print(None, b"b"), Time(1), ready(reply("x"))).await,
            Err(Conflict)
        );
        finish.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(reply("first")));
        assert_eq!(second.await.unwrap(), Ok(reply("first")));
    }

    #[tokio::test]
    async fn a_cancelled_first_leaves_the_key_to_the_second() {
        let answers = IdempotencyCache::default();
        let never = answers.once(id("k"), print(None, b"a"), Time(1), std::future::pending());
        assert!(tokio::time::timeout(Duration::from_millis(5), never).await.is_err());
        assert_eq!(once(&answers, "k", "a", 0, "second").await, "second");
    }

    #[tokio::test]
    async fn keys_and_bytes_are_bounded_and_the_oldest_go_first() {
        let answers = IdempotencyCache::default();
        for key in 0..MAX_KEYS + 1 {
            once(&answers, &key.to_string(), "a", 1, "x").await;
        }
        assert_eq!(answers.len(), MAX_KEYS);
        assert_eq!(once(&answers, "1", "a", 1, "new").await, "x");
        assert_eq!(once(&answers, "0", "a", 1, "new").await, "new");
        once(&answers, "huge", "a", 1, &"x".repeat(MAX_BYTES)).await;
        assert_eq!(answers.len(), 0);
        assert_eq!(answers.table.lock().bytes, 0);
    }

    #[tokio::test]
    async fn another_process_goes_on_with_what_is_done() {
        let old = IdempotencyCache::default();
        once(&old, "early", "a", 1000, "first").await;
        once(&old, "late", "a", 1200, "second").await;
        let undone = old.once(id("undone"), print(None, b"a"), Time(1), std::future::pending());
        tokio::select! {
            _ = undone => {}
            () = async {
                let new = IdempotencyCache::default();
                let now = Time(1301 * 1_000_000);
                new.recall(old.remembered(), now);
                assert_eq!(new.len(), 1, "the first is too old");
                assert_eq!(once(&new, "late", "a", 1301, "x").await, "second");
                assert_eq!(once(&new, "late", "b", 1301, "x").await, "conflict");
                assert_eq!(once(&new, "late", "a", 1501, "anew").await, "anew");
            } => {}
        }
    }

    #[test]
    fn a_print_is_of_the_type_and_the_body() {
        let prints = [(None, "a"), (Some(""), "a"), (Some("a"), ""), (Some("a"), "a")];
        let prints = prints.map(|(kind, body)| print(kind, body.as_bytes()));
        for (at, one) in prints.iter().enumerate() {
            assert_eq!(prints.iter().filter(|other| *other == one).count(), 1, "{at}");
        }
    }
}
