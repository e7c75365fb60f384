//! Answers that are remembered, so that a publisher may repeat itself without harm.
//!
//! A write that bears an `Idempotency-Key` is done once: a repetition within [`KEPT`] gets the
//! first answer, one that comes while the first is at work waits for it, and the same key with
//! another body is a conflict. Only answers of success are remembered: an error published
//! nothing, so it may be mended and sent again under the same key.
//!
//! Overflow: beyond [`MOST_KEYS`] or [`MOST_BYTES`] the oldest are dropped, and a repetition of
//! those is done anew. Cancelling a write before it is done leaves its key as if never used.

use crate::channel::Time;
use crate::web::Reply;
use lru::LruCache;
use parking_lot::Mutex;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex as Slot, OwnedMutexGuard};

/// How long an answer is remembered.
pub(super) const KEPT: Duration = Duration::from_secs(300);
/// Keys remembered at the most.
const MOST_KEYS: usize = 10_000;
/// Bytes of keys and answers remembered at the most.
const MOST_BYTES: usize = 16 << 20;
/// The longest key, in bytes.
pub(super) const LONGEST_KEY: usize = 255;

/// What one key stands for: it belongs to a method and a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub(super) method: http::Method,
    pub(super) path: String,
    pub(super) key: String,
}

/// The answers remembered.
#[derive(Default)]
pub(super) struct Answers {
    table: Mutex<Table>,
    hashers: [RandomState; 2],
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
    print: Print,
    since: Time,
    bytes: usize,
    /// Locked while the write is at work; then the answer, if it is one to remember.
    slot: Arc<Slot<Option<Reply>>>,
}

/// Tells one body from another without keeping it.
type Print = [u64; 2];

/// The key was used for something else.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict;

enum Turn {
    /// Nobody has done it yet, and nobody will while this is held.
    First(OwnedMutexGuard<Option<Reply>>),
    /// Somebody has, or is about to.
    After(Arc<Slot<Option<Reply>>>),
}

impl Answers {
    /// The remembered answer for `id`, or else what `work` answers. `content` is what must be
    /// the same for a repetition to be one.
    pub(super) async fn once(
        &self,
        id: Id,
        content: impl Hash,
        now: Time,
        work: impl Future<Output = Reply>,
    ) -> Result<Reply, Conflict> {
        let print = self.hashers.each_ref().map(|hasher| hasher.hash_one(&content));
        let mut answer = match self.turn(&id, print, now)? {
            Turn::First(slot) => slot,
            Turn::After(slot) => slot.lock_owned().await,
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

    fn turn(&self, id: &Id, print: Print, now: Time) -> Result<Turn, Conflict> {
        let mut table = self.table.lock();
        table.expire(now);
        if let Some(entry) = table.entries.peek(id) {
            if entry.print == print {
                return Ok(Turn::After(entry.slot.clone()));
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
            Ok(guard) => Turn::First(guard),
            // Never: nobody else knows the slot yet. Waiting for it would be right, too.
            Err(_) => Turn::After(slot),
        })
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.table.lock().entries.len()
    }
}

impl Id {
    /// The memory an entry takes without its answer, roughly, in bytes.
    fn cost(&self) -> usize {
        self.path.len() + self.key.len() + 300
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

    /// Books the length of an answer. Its entry may have been dropped meanwhile.
    fn grow(&mut self, id: &Id, bytes: usize) {
        if let Some(entry) = self.entries.peek_mut(id) {
            entry.bytes += bytes;
            self.bytes += bytes;
        }
        self.bound();
    }

    fn bound(&mut self) {
        while self.entries.len() > MOST_KEYS || self.bytes > MOST_BYTES {
            if !self.drop_oldest() {
                return;
            }
        }
    }

    fn expire(&mut self, now: Time) {
        let kept_since = now.before(KEPT);
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

    async fn once(answers: &Answers, key: &str, content: &str, at: u64, body: &str) -> String {
        let work = ready(reply(body));
        match answers.once(id(key), content, Time(at * 1_000_000), work).await {
            Ok(reply) => String::from_utf8(reply.body.to_vec()).unwrap(),
            Err(Conflict) => "conflict".into(),
        }
    }

    #[tokio::test]
    async fn a_repetition_gets_the_first_answer_for_five_minutes() {
        let answers = Answers::default();
        assert_eq!(once(&answers, "k", "a", 1000, "first").await, "first");
        assert_eq!(once(&answers, "k", "a", 1300, "second").await, "first");
        assert_eq!(once(&answers, "k", "b", 1300, "second").await, "conflict");
        assert_eq!(once(&answers, "other", "b", 1300, "second").await, "second");
        assert_eq!(once(&answers, "k", "a", 1301, "third").await, "third");
    }

    #[tokio::test]
    async fn an_error_is_not_remembered_and_may_be_mended() {
        let answers = Answers::default();
        let failed = ready(Reply::error(422, "no", "mend it"));
        assert_eq!(answers.once(id("k"), "a", Time(1), failed).await.unwrap().status, 422);
        assert_eq!(once(&answers, "k", "b", 0, "mended").await, "mended");
        assert_eq!(once(&answers, "k", "a", 0, "x").await, "conflict");
    }

    #[tokio::test]
    async fn a_second_request_waits_for_the_first() {
        let answers = Arc::new(Answers::default());
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        let slow = async move {
            finished.await.unwrap();
            reply("first")
        };
        let (first, second) = {
            let (a, b) = (answers.clone(), answers.clone());
            (
                tokio::spawn(async move { a.once(id("k"), "a", Time(1), slow).await }),
                tokio::spawn(
                    async move { b.once(id("k"), "a", Time(1), ready(reply("second"))).await },
                ),
            )
        };
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        assert_eq!(answers.once(id("k"), "b", Time(1), ready(reply("x"))).await, Err(Conflict));
        finish.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(reply("first")));
        assert_eq!(second.await.unwrap(), Ok(reply("first")));
    }

    #[tokio::test]
    async fn a_cancelled_first_leaves_the_key_to_the_second() {
        let answers = Answers::default();
        let never = answers.once(id("k"), "a", Time(1), std::future::pending());
        assert!(tokio::time::timeout(Duration::from_millis(5), never).await.is_err());
        assert_eq!(once(&answers, "k", "a", 0, "second").await, "second");
    }

    #[tokio::test]
    async fn keys_and_bytes_are_bounded_and_the_oldest_go_first() {
        let answers = Answers::default();
        for key in 0..MOST_KEYS + 1 {
            once(&answers, &key.to_string(), "a", 1, "x").await;
        }
        assert_eq!(answers.len(), MOST_KEYS);
        assert_eq!(once(&answers, "1", "a", 1, "new").await, "x");
        assert_eq!(once(&answers, "0", "a", 1, "new").await, "new");
        once(&answers, "huge", "a", 1, &"x".repeat(MOST_BYTES)).await;
        assert_eq!(answers.len(), 0);
        assert_eq!(answers.table.lock().bytes, 0);
    }
}
