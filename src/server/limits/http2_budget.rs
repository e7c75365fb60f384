//! What all HTTP/2 connections together may have under way at the upstream, and hold unsent of its
//! responses.
//!
//! One packet of a client opens a hundred streams, and each would have a connection to the upstream
//! and a part of a response that the client does not read. So each connection has a small share of
//! its own, and beyond that takes from what all have in common no more than is free of it: greedy
//! connections end with equal shares, and one that comes later finds room. A stream without a slot
//! waits for another one of its connection to end.

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;

/// Requests of one connection that always find room: as many as a browser sends at once over
/// HTTP/1.1.
const OWN_REQUESTS: usize = 6;
/// Requests of all connections that have more.
const COMMON_REQUESTS: usize = 1024;
/// Streams of all connections that wait for a slot.
const MAX_WAITING: usize = 2048;
/// The time after which a stream that waits looks for what other connections have left.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Unsent bytes of one stream that always find room.
const OWN_UNSENT: usize = 512;
/// Unsent bytes of all streams that have more.
const COMMON_UNSENT: usize = 8 << 20;
/// Bytes that a piece of a response takes besides its own: here and in h2.
const PIECE: usize = 256;

/// The budget of all HTTP/2 connections.
#[derive(Debug, Default)]
pub struct Http2Budget {
    requests: AtomicUsize,
    waiting: AtomicUsize,
    unsent: AtomicUsize,
}

impl Http2Budget {
    /// Requests that are under way at the upstream now.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// True while half of what all connections have in common is taken.
    pub fn is_tight(&self) -> bool {
        self.requests() >= COMMON_REQUESTS / 2
    }

    /// Bytes of responses that wait for their clients now.
    pub fn unsent(&self) -> usize {
        self.unsent.load(Ordering::Relaxed)
    }

    /// Streams that wait for a slot now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// The share of one connection.
#[derive(Debug)]
pub(crate) struct Http2Share {
    budget: Arc<Http2Budget>,
    requests: AtomicUsize,
    /// A request has ended.
    ended: Notify,
    unsent: AtomicUsize,
    /// Streams that wait for bytes to leave.
    writers: Mutex<HashMap<u64, Waker>>,
    /// Streams so far.
    streams: AtomicU64,
}

/// The most that a connection may have while all have `used`.
fn allowed(used: usize, own: usize, common: usize) -> usize {
    own.max(common.saturating_sub(used))
}

impl Http2Share {
    /// The share of a connection that begins.
    pub(crate) fn new(budget: &Arc<Http2Budget>) -> Self {
        Self {
            budget: budget.clone(),
            requests: AtomicUsize::new(0),
            ended: Notify::new(),
            unsent: AtomicUsize::new(0),
            writers: Mutex::default(),
            streams: AtomicU64::new(0),
        }
    }

    /// A slot for one more request, if there is room.
    pub(crate) fn try_slot(self: &Arc<Self>) -> Option<RequestSlot> {
        let used = self.budget.requests.fetch_add(1, Ordering::Relaxed);
        let own = self.requests.fetch_add(1, Ordering::Relaxed);
        if own < allowed(used, OWN_REQUESTS, COMMON_REQUESTS) {
            return Some(RequestSlot(self.clone()));
        }
        self.give_back_slot();
        None
    }

    /// A slot once there is room; `None` = too many wait already.
    pub(crate) async fn slot(self: &Arc<Self>) -> Option<RequestSlot> {
        let before = self.budget.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.budget);
        if before >= MAX_WAITING {
            return None;
        }
        loop {
            let ended = self.ended.notified();
            if let Some(slot) = self.try_slot() {
                // There may be room for another one, by what other connections have left.
                self.ended.notify_one();
                return Some(slot);
            }
            // Other connections leave room without a notice.
            let _ = tokio::time::timeout(LOOK_EVERY, ended).await;
        }
    }

    fn give_back_slot(&self) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
        self.budget.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request's slot; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct RequestSlot(Arc<Http2Share>);

impl Drop for RequestSlot {
    fn drop(&mut self) {
        self.0.give_back_slot();
        self.0.ended.notify_one();
    }
}

/// Counts one stream as waiting until it is dropped.
struct Waiting<'a>(&'a Http2Budget);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bytes of one stream's response that are here: read for it, or taken by h2 and not yet by the
/// socket.
#[derive(Debug)]
pub(crate) struct UnsentBytes {
    stream: Arc<StreamShare>,
    /// Bytes that may be read, or were read and have not gone to h2.
    reserved: usize,
}

/// The share of one stream.
#[derive(Debug)]
struct StreamShare {
    connection: Arc<Http2Share>,
    /// Its number among the streams of its connection.
    number: u64,
    bytes: AtomicUsize,
}

impl StreamShare {
    fn take(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.connection.unsent.fetch_add(bytes, Ordering::Relaxed);
        self.connection.budget.unsent.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.connection.unsent.fetch_sub(bytes, Ordering::Relaxed);
        self.connection.budget.unsent.fetch_sub(bytes, Ordering::Relaxed);
        let writers = std::mem::take(&mut *self.connection.writers.lock());
        writers.into_values().for_each(Waker::wake);
    }

    /// Bytes that it may take now, up to `wanted`.
    fn room(&self, wanted: usize) -> usize {
        let used = self.connection.budget.unsent.load(Ordering::Relaxed);
        let most = allowed(used, OWN_UNSENT, COMMON_UNSENT);
        let common = most.saturating_sub(self.connection.unsent.load(Ordering::Relaxed));
        // However much others of its connection have, each goes on.
        let own = OWN_UNSENT.saturating_sub(self.bytes.load(Ordering::Relaxed));
        wanted.min(common.max(own))
    }
}

impl UnsentBytes {
    /// None of a stream that begins.
    pub(crate) fn new(connection: &Arc<Http2Share>) -> Self {
        let number = connection.streams.fetch_add(1, Ordering::Relaxed);
        let (connection, bytes) = (connection.clone(), AtomicUsize::new(0));
        Self { stream: Arc::new(StreamShare { connection, number, bytes }), reserved: 0 }
    }

    /// Has up to `wanted` bytes reserved, as many as there is room for; returns how many are.
    pub(crate) fn reserve(&mut self, wanted: usize) -> usize {
        let more = self.stream.room(wanted.saturating_sub(self.reserved));
        self.stream.take(more);
        self.reserved += more;
        self.reserved.min(wanted)
    }

    /// Gives back what is reserved beyond `held` bytes.
    pub(crate) fn give_back_all_but(&mut self, held: usize) {
        let more = self.reserved.saturating_sub(held);
        self.reserved -= more;
        self.stream.give_back(more);
    }

    /// Ready once some of `wanted` bytes are reserved; returns how many.
    pub(crate) fn poll_reserve(&mut self, wanted: usize, context: &Context<'_>) -> Poll<usize> {
        let reserved = self.reserve(wanted);
        if reserved > 0 {
            return Poll::Ready(reserved);
        }
        let StreamShare { connection, number, .. } = &*self.stream;
        let before = connection.writers.lock().insert(*number, context.waker().clone());
        drop(before);
        // Bytes may have left meanwhile.
        match self.reserve(wanted) {
            0 => Poll::Pending,
            reserved => Poll::Ready(reserved),
        }
    }

    /// A copy of `data`, which counts until h2 drops it: once the socket has taken it, or the stream
    /// is reset. What was reserved for it is not any more.
    pub(crate) fn copy(&mut self, data: &[u8]) -> Bytes {
        let reserved = self.reserved.min(data.len());
        self.reserved -= reserved;
        self.stream.take(data.len() + PIECE - reserved);
        Bytes::from_owner(Piece { data: data.into(), stream: self.stream.clone() })
    }
}

impl Drop for UnsentBytes {
    fn drop(&mut self) {
        let StreamShare { connection, number, .. } = &*self.stream;
        let waker = connection.writers.lock().remove(number);
        drop(waker);
        self.give_back_all_but(0);
    }
}

/// A piece of a response's body.
struct Piece {
    data: Box<[u8]>,
    stream: Arc<StreamShare>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.stream.give_back(self.data.len() + PIECE);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn shares(count: usize) -> (Arc<Http2Budget>, Vec<Arc<Http2Share>>) {
        let budget = Arc::<Http2Budget>::default();
        let shares = (0..count).map(|_| Arc::new(Http2Share::new(&budget))).collect();
        (budget, shares)
    }

    #[test]
    fn greedy_connections_leave_room_for_one_that_comes_later() {
        let (budget, shares) = shares(1000);
        let taken: Vec<Vec<RequestSlot>> = shares
            .iter()
            .map(|share| std::iter::from_fn(|| share.try_slot()).take(100).collect())
            .collect();
        assert_eq!(taken[0].len(), 100);
        assert!(taken.iter().all(|slots| slots.len() >= OWN_REQUESTS));
        let most = COMMON_REQUESTS + OWN_REQUESTS * shares.len();
        assert!(budget.requests() <= most, "{}", budget.requests());
        drop(taken);
        assert_eq!(budget.requests(), 0);
    }

    #[tokio::test]
    async fn streams_that_wait_get_slots_as_others_end_and_are_bounded_themselves() {
        let (budget, shares) = shares(2);
        let others: Vec<_> = (0..COMMON_REQUESTS).map_while(|_| shares[0].try_slot()).collect();
        let mut own: Vec<_> = (0..OWN_REQUESTS).map_while(|_| shares[1].try_slot()).collect();
        assert_eq!(own.len(), OWN_REQUESTS);
        while let Some(slot) = shares[1].try_slot() {
            own.push(slot);
        }
        let waiting: Vec<_> = (0..MAX_WAITING)
            .map(|_| {
                let share = shares[1].clone();
                tokio::spawn(async move { share.slot().await.is_some() })
            })
            .collect();
        while budget.waiting() < MAX_WAITING {
            tokio::task::yield_now().await;
        }
        assert!(shares[1].slot().await.is_none());
        // Each that gets a slot drops it, and so lets the next one in.
        drop(own.pop());
        for one in waiting {
            assert!(one.await.unwrap());
        }
        drop((own, others));
        assert_eq!((budget.requests(), budget.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_waits_finds_what_another_connection_has_left() {
        let (_budget, shares) = shares(2);
        let others: Vec<_> = (0..COMMON_REQUESTS).map_while(|_| shares[0].try_slot()).collect();
        let own: Vec<_> = std::iter::from_fn(|| shares[1].try_slot()).collect();
        let share = shares[1].clone();
        let waiting = tokio::spawn(async move { share.slot().await.is_some() });
        tokio::time::sleep(3 * LOOK_EVERY).await;
        assert!(!waiting.is_finished());
        drop(others);
        assert!(waiting.await.unwrap());
        drop(own);
    }

    #[test]
    fn unsent_bytes_are_bounded_in_all_and_come_back_when_h2_drops_them() {
        let (budget, shares) = shares(1000);
        let context = Context::from_waker(Waker::noop());
        let mut held = Vec::new();
        let mut streams = Vec::new();
        for share in &shares {
            let mut stream = UnsentBytes::new(share);
            while let Poll::Ready(room) = stream.poll_reserve(16 << 10, &context) {
                held.push(stream.copy(&vec![0; room]));
            }
            let mut other = UnsentBytes::new(share);
            assert_eq!(other.reserve(OWN_UNSENT), OWN_UNSENT);
            streams.extend([stream, other]);
        }
        let unsent = budget.unsent.load(Ordering::Relaxed);
        let most = COMMON_UNSENT + (2 * OWN_UNSENT + PIECE) * shares.len();
        assert!(unsent <= most, "{unsent}");
        assert_eq!(shares[0].writers.lock().len(), 1);
        drop(held);
        assert!(streams[0].poll_reserve(16 << 10, &context).is_ready());
        drop(streams);
        assert_eq!(budget.unsent.load(Ordering::Relaxed), 0);
        assert!(shares.iter().all(|share| share.writers.lock().is_empty()));
    }
}
