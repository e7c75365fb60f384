//! The connection for pushes from one server: subscriptions, and the messages that come over
//! them.
//!
//! **Overflow.** Pushes that have come and are not worked off are bounded by number and bytes.
//! Beyond that, as when the connection is lost or a probe fails, all channels are stale: they are
//! subscribed to anew on a new connection, in batches, and then read.

use super::link::{self, PROBE, reason};
use super::{Ring, Shared, envelope};
use crate::channel::ChannelName;
use parking_lot::Mutex;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, PushInfo, PushKind, Value, cmd};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Subscriptions in one go.
const BATCH: usize = 512;
/// The bytes of pushes that wait, at the most.
const QUEUE_BYTES: usize = 64 << 20;
/// How long to wait before connecting again, at the least and at the most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What is to be done about a channel's subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Join,
    Leave,
}

/// The channels that are, or are to be, subscribed to.
pub(super) struct Members {
    state: Mutex<State>,
    more: Notify,
}

#[derive(Default)]
struct State {
    members: HashSet<ChannelName>,
    changes: VecDeque<(ChannelName, Change)>,
    /// Why not everything that was subscribed to before is so again; `None` = it is.
    unready: Option<String>,
    /// Subscriptions to be confirmed until it is.
    missing: usize,
}

impl Default for Members {
    fn default() -> Self {
        let unready = Some("not connected yet".to_owned());
        let state = Mutex::new(State { unready, ..State::default() });
        Self { state, more: Notify::new() }
    }
}

impl Members {
    /// A channel is to be subscribed to.
    pub(super) fn join(&self, channel: ChannelName) {
        let mut state = self.state.lock();
        state.members.insert(channel.clone());
        state.changes.push_back((channel, Change::Join));
        drop(state);
        self.more.notify_one();
    }

    /// A subscription may be given up, unless `is_wanted` says that somebody came meanwhile.
    ///
    /// It is asked under the lock: whoever wants the channel after it is queued behind.
    pub(super) fn leave(&self, channel: &ChannelName, is_wanted: impl Fn(&ChannelName) -> bool) {
        let mut state = self.state.lock();
        if !is_wanted(channel) && state.members.remove(channel) {
            state.changes.push_back((channel.clone(), Change::Leave));
        }
        drop(state);
        self.more.notify_one();
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<ChannelName> {
        self.state.lock().members.iter().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.state.lock().members.len()
    }

    /// Why not every subscription is there; `None` = all are.
    pub(super) fn unready(&self) -> Option<String> {
        self.state.lock().unready.clone()
    }

    /// Begins anew on a new connection, with the channels that `first` says first.
    fn begin(&self, first: impl Fn(&ChannelName) -> bool) {
        let mut channels = self.all();
        channels.sort_by_cached_key(|channel| !first(channel));
        let mut state = self.state.lock();
        state.changes = channels.into_iter().map(|channel| (channel, Change::Join)).collect();
        // Some may have come or gone meanwhile.
        let State { members, changes, .. } = &mut *state;
        changes.retain(|(channel, _)| members.contains(channel));
        let queued: HashSet<_> = state.changes.iter().map(|(channel, _)| channel.clone()).collect();
        let late: Vec<_> = state.members.difference(&queued).cloned().collect();
        state.changes.extend(late.into_iter().map(|channel| (channel, Change::Join)));
        state.missing = state.changes.len();
        state.unready = (state.missing > 0)
            .then(|| format!("{} subscriptions are not confirmed yet", state.missing));
    }

    fn end(&self, reason: &str) -> Vec<ChannelName> {
        let mut state = self.state.lock();
        state.unready = Some(format!("pushes do not come: {reason}"));
        state.changes.clear();
        state.members.iter().cloned().collect()
    }

    fn done(&self, count: usize) {
        let mut state = self.state.lock();
        state.missing = state.missing.saturating_sub(count);
        state.unready = (state.missing > 0)
            .then(|| format!("{} subscriptions are not confirmed yet", state.missing));
    }

    /// The next changes of one kind.
    async fn next(&self) -> (Change, Vec<ChannelName>) {
        loop {
            {
                let mut state = self.state.lock();
                if let Some(&(_, change)) = state.changes.front() {
                    let same = state.changes.iter().take_while(|(_, next)| *next == change);
                    let count = same.take(BATCH).count();
                    let batch = state.changes.drain(..count).map(|(channel, _)| channel);
                    return (change, batch.collect());
                }
            }
            self.more.notified().await;
        }
    }
}

/// Pushes on their way from the connection to the channels.
struct Queue {
    sender: mpsc::Sender<PushInfo>,
    bytes: Arc<AtomicUsize>,
    overflowed: Arc<AtomicBool>,
}

impl Queue {
    /// Takes one in, unless there are too many.
    fn put(&self, push: PushInfo) -> Result<(), ()> {
        let length = length(&push);
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        if before > QUEUE_BYTES || self.sender.try_send(push).is_err() {
            self.overflowed.store(true, Ordering::Relaxed);
            return Err(());
        }
        Ok(())
    }
}

fn length(push: &PushInfo) -> usize {
    match push.data.last() {
        Some(Value::BulkString(bytes)) => bytes.len(),
        _ => 0,
    }
}

impl Shared {
    /// Keeps the subscriptions, for ever.
    pub(super) async fn keep_pushes(&self, ring: &Ring) {
        let mut wait = AGAIN.0;
        loop {
            let began = tokio::time::Instant::now();
            let reason = self.serve_pushes(ring).await;
            let stale = self.members.end(&reason);
            tracing::warn!(reason, channels = stale.len(), "pushes from the backplane are lost");
            self.losses.fetch_add(1, Ordering::Relaxed);
            stale.iter().for_each(|channel| self.hub.lost(channel));
            if began.elapsed() > AGAIN.1 * 2 {
                wait = AGAIN.0;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(AGAIN.1);
        }
    }

    /// Until the connection fails; why it did.
    async fn serve_pushes(&self, ring: &Ring) -> String {
        let (sender, pushes) = mpsc::channel(self.queue);
        let (bytes, overflowed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let queue = Queue { sender, bytes: bytes.clone(), overflowed: overflowed.clone() };
        let config = AsyncConnectionConfig::new().set_push_sender(move |push| queue.put(push));
        let connection =
            match link::open(self.link.url(), &self.link.url().servers()[0], config).await {
                Ok(connection) => connection,
                Err(error) => return reason(&error),
            };
        self.members.begin(|channel| self.hub.held_on(channel) > 0);
        tokio::select! {
            reason = self.receive(pushes, &bytes, &overflowed, ring) => reason,
            reason = self.subscribe(connection.clone()) => reason,
            reason = probe(&connection) => reason,
        }
    }

    async fn receive(
        &self,
        mut pushes: mpsc::Receiver<PushInfo>,
        bytes: &AtomicUsize,
        overflowed: &AtomicBool,
        ring: &Ring,
    ) -> String {
        while let Some(push) = pushes.recv().await {
            bytes.fetch_sub(length(&push), Ordering::Relaxed);
            if overflowed.load(Ordering::Relaxed) {
                return "more pushes came than could be worked off".to_owned();
            }
            match push.kind {
                PushKind::Message | PushKind::SMessage => self.pushed(push.data, ring),
                PushKind::Disconnection => break,
                _ => {}
            }
        }
        "the connection was closed".to_owned()
    }

    fn pushed(&self, data: Vec<Value>, ring: &Ring) {
        let mut data = data.into_iter();
        let (Some(Value::BulkString(name)), Some(Value::BulkString(body))) =
            (data.next(), data.next())
        else {
            return;
        };
        let Some(channel) = self.keys.channel(&name) else { return };
        let Some(message) = envelope::read(body) else {
            tracing::warn!(%channel, "somebody published what is no message; it is ignored");
            return;
        };
        let pushed = self.hub.pushed(&channel, message, (self.clock)());
        ring(pushed.wake, u64::from(pushed.stored));
        if pushed.unwanted {
            self.members.leave(&channel, |channel| self.hub.is_joined(channel));
        }
    }

    async fn subscribe(&self, mut connection: MultiplexedConnection) -> String {
        loop {
            let (change, batch) = self.members.next().await;
            let command = match change {
                Change::Join => "SUBSCRIBE",
                Change::Leave => "UNSUBSCRIBE",
            };
            // One command for each, so that each has one answer.
            let mut pipe = redis::pipe();
            for channel in &batch {
                let mut one = cmd(command);
                one.arg(self.keys.pushes(channel));
                pipe.add_command(one);
            }
            let done = connection.req_packed_commands(&pipe, 0, batch.len()).await;
            let values = match done {
                Ok(values) => values,
                Err(error) => return reason(&error),
            };
            let refused = |value: &Value| matches!(value, Value::ServerError(_));
            if let Some(error) = values.iter().find(|value| refused(value)) {
                return format!("Redis refuses: {error:?}");
            }
            if change == Change::Join {
                batch.iter().for_each(|channel| self.hub.confirmed(channel));
                self.members.done(batch.len());
            }
        }
    }
}

async fn probe(connection: &MultiplexedConnection) -> String {
    loop {
        tokio::time::sleep(PROBE).await;
        if let Err(reason) = link::ping(connection).await {
            return reason;
        }
    }
}
