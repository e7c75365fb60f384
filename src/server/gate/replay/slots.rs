//! Slots at the upstream: a rule forwards so many polls at once, the others queue in the order in
//! which they came.
//!
//! A poll that is cut off may keep its worker: PHP notices that the client is gone only when it writes.
//! So its slot stays taken, until the channel is published to, for which the script waits, or until
//! the gate would not have waited for any response any longer. And one slot is left free for polls
//! with an update by those that only ask at their timeout whether they have missed something.

use crate::hub::Hub;
use crate::hub::Subscription;
use crate::hub::channel::{ChannelName, Cursor, Position, Take, Time};
use crate::protocol::dialect::replay::Replay;
use crate::server::gate::route::Rule;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The slots of all rules. They are keyed by the rule's settings, so that they outlive a reload
/// that does not change it.
#[derive(Default)]
pub(super) struct UpstreamSlots {
    rules: Mutex<HashMap<String, RuleSlots>>,
    closed: AtomicBool,
}

/// The slots of one rule.
#[derive(Clone)]
pub(super) struct RuleSlots {
    pub(super) all: Arc<Semaphore>,
    /// Those that a poll at its timeout may take.
    probes: Arc<Semaphore>,
    /// At most as many as there are slots.
    parked: Arc<Mutex<Vec<Parked>>>,
}

/// A slot; dropping it gives it to the next poll.
pub(super) struct Slot {
    _slot: OwnedSemaphorePermit,
    _probe: Option<OwnedSemaphorePermit>,
}

/// The slot of a poll that was cut off.
struct Parked {
    _slot: Slot,
    channel: ChannelName,
    position: Position,
    until: Instant,
}

impl UpstreamSlots {
    /// The slots of a rule of the site that `channel` belongs to.
    pub(super) fn of(
        &self,
        rule: &Rule,
        (replay, channel): (&Replay, &ChannelName),
        hub: &Hub,
        now: Time,
    ) -> RuleSlots {
        let site = channel.site();
        let key = format!("{site} {} {} {}", rule.path, replay.channel, replay.concurrency);
        let mut rules = self.rules.lock();
        let slots = rules.entry(key).or_insert_with(|| RuleSlots {
            all: Arc::new(Semaphore::new(replay.concurrency)),
            probes: Arc::new(Semaphore::new(replay.concurrency - 1)),
            parked: Arc::default(),
        });
        let slots = slots.clone();
        drop(rules);
        if self.closed.load(Ordering::SeqCst) {
            slots.all.close();
        }
        slots.free_parked(hub, now);
        slots
    }

    /// Ends all present and future waits for a slot without one.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.rules.lock().values().for_each(|slots| slots.all.close());
    }
}

impl RuleSlots {
    /// A slot that is free now.
    pub(super) fn try_take(&self) -> Option<Slot> {
        let slot = self.all.clone().try_acquire_owned().ok()?;
        Some(Slot { _slot: slot, _probe: None })
    }

    /// A slot for a poll at its timeout, if one is free now.
    pub(super) fn try_probe(&self) -> Option<Slot> {
        let probe = self.probes.clone().try_acquire_owned().ok()?;
        let slot = self.all.clone().try_acquire_owned().ok()?;
        Some(Slot { _slot: slot, _probe: Some(probe) })
    }

    /// The next slot; `None` if there is none any more.
    pub(super) async fn take(&self) -> Option<Slot> {
        let slot = self.all.clone().acquire_owned().await.ok()?;
        Some(Slot { _slot: slot, _probe: None })
    }

    /// Keeps a slot taken whose poll was cut off when its channel was at `position`, for `most` at
    /// the longest.
    pub(super) fn park(
        &self,
        slot: Slot,
        channel: ChannelName,
        position: Position,
        most: Duration,
    ) {
        let until = Instant::now() + most;
        self.parked.lock().push(Parked { _slot: slot, channel, position, until });
        let parked = Arc::downgrade(&self.parked);
        tokio::spawn(async move {
            tokio::time::sleep_until(until.into()).await;
            if let Some(parked) = parked.upgrade() {
                parked.lock().retain(|parked| parked.until > until);
            }
        });
    }

    /// Frees the slots of those for whose channel there is an update.
    fn free_parked(&self, hub: &Hub, now: Time) {
        self.parked.lock().retain(|parked| {
            let channel = parked.channel.clone();
            let cursor = Cursor::At(parked.position);
            let found = hub.look(&[Subscription { channel, cursor }], Take::Newest, now);
            found.is_ok_and(|answer| !answer.iter().any(|update| update.found.has_update))
        });
    }
}
