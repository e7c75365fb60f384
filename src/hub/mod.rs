//! The channel table: publishes messages, answers polls and registers waiters.
//!
//! **No wake is lost.** A poll that finds nothing is registered on its channel under the same
//! lock as its look into the history, so a publish either comes before the look and is found, or
//! after it and finds the registration.
//!
//! **Unlock, then wake.** A publish stores its message, takes the channel's waiters and unlocks;
//! the caller then wakes them, in batches, through [`WakeSet`]. A waiter that wakes looks again: a
//! wake for something it already has is harmless.
//!
//! **A dropped [`Waiter`] is gone.** It removes itself from its channels, so a cancelled poll
//! leaves nothing behind.
//!
//! **A channel exists once it is published to.** Before that, and after it was forgotten, its
//! position is a time: a poll needs nothing stored to be given one, and the first message goes on
//! from it. What polls wait on meanwhile has room of its own.
//!
//! **A forgotten channel stays forgotten.** Eviction and `forget` mark the channel under its lock;
//! a caller that still holds it looks the name up again and finds a new life with a new epoch.
//!
//! Locks are taken in the order presence, shard, channel, and never two of a kind.

pub mod channel;
mod dump;
mod eviction;
mod following;
mod inspect;
mod interest;
mod look;
mod notifier;
pub mod presence;
mod registration;
mod regroup;
mod replica;
mod settings;
mod sites;
mod table;
#[cfg(test)]
mod tests;
mod update;
mod waiter;
mod wake_set;

pub use dump::{ChannelDump, Dump};
pub use following::Rendered;
pub use inspect::Info;
pub use interest::{Interest, TopicPattern, Topics};
pub use notifier::WakeHandle;
pub use replica::{Applied, SyncSink};
pub use settings::Settings;
pub use sites::{SiteBounds, Usage};
pub use update::{Answer, ChannelUpdate};
pub use waiter::Waiter;
pub use wake_set::WakeSet;

use crate::hub::channel::{
    ChannelName, Cursor, Epoch, History, Limits, Message, Pattern, Payload, ReplicaState, Stamp,
    Take, Tick, Time,
};
use interest::Index;
use notifier::Notifier;
use parking_lot::{Mutex, RwLock};
use sites::Tables;
use slab::Slab;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use table::{Class, Table};

/// The table has no room for another channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no room for another channel")]
pub struct TableFull;

/// One channel of a poll, and the client's position in it.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The channel.
    pub channel: ChannelName,
    /// Cursor from which the poll reads.
    pub cursor: Cursor,
}

/// The outcome of [`Hub::poll`].
#[derive(Debug)]
pub enum PollOutcome {
    /// There is an answer at once.
    Answer(Answer),
    /// There is none yet; the waiter wakes when there is.
    Waiting(Waiter),
}

/// The outcome of a publish to one channel.
#[derive(Debug)]
pub struct Published {
    /// The message with the position it was given.
    pub message: Arc<Message>,
    /// The unit of its channel's stamps.
    pub tick: Tick,
    /// The held polls that the message releases; the caller wakes them.
    pub wake: WakeSet,
    /// Number of those that are claimed or already woken.
    pub released: usize,
}

/// A cheap handle to the channel table.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    tables: Tables,
    settings: RwLock<Settings>,
    /// Receives the channels' sync requests, where a sequencer gives the positions.
    origin: Option<SyncSink>,
    /// The latest time seen. The table's time never runs backwards, so a position that was given
    /// out is never overtaken by a message from before it.
    latest: AtomicU64,
    /// The epoch of the positions of channels that do not exist: it is that of the table's time.
    clock: AtomicU64,
    /// Up to this time another process may have published, of which nothing is known.
    unknown: AtomicU64,
    /// Polls held now.
    held: AtomicUsize,
    /// No poll is held any more.
    draining: AtomicBool,
    /// The table continues in another process.
    moved: AtomicBool,
    presence: presence::Rooms,
    random: Mutex<fastrand::Rng>,
}

/// One channel: a name and what its lock guards.
#[derive(Debug)]
struct Channel {
    name: ChannelName,
    /// The [`Class`] it is listed under; changed only with its shard locked.
    class: AtomicU8,
    /// Time of its last use, in microseconds since 1970; for eviction.
    used: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    history: History,
    limits: Arc<Limits>,
    waiters: Slab<Arc<Notifier>>,
    /// Those that want some of its messages; `None` = there are none.
    selective: Option<Box<Index>>,
    /// Sync state of the channel, where a sequencer gives the positions.
    feed: Option<Box<ReplicaState>>,
    /// When a poll last came; 0 = never.
    polled: Time,
    /// The memory of the messages in its table, which counts its own.
    account: Arc<AtomicU64>,
    /// Counts how often the waiters were taken; a registration is valid only in its own round.
    round: u64,
    /// It was published to; where positions are given elsewhere: it exists there.
    stored: bool,
    /// The channel left the table; a caller that holds it must look it up again.
    forgotten: bool,
}

impl Channel {
    fn is_listed_as(&self, class: Class) -> bool {
        self.class.load(Ordering::Relaxed) == class as u8
    }
}

impl State {
    fn class(&self) -> Class {
        if !self.stored {
            Class::Waiting
        } else if self.history.is_empty() {
            Class::Empty
        } else if self.history.spares_newest(&self.limits) {
            Class::Kept
        } else {
            Class::Filled
        }
    }

    /// Number of waiters.
    fn held(&self) -> usize {
        self.waiters.len() + self.selective.as_ref().map_or(0, |index| index.len())
    }

    fn is_unheld(&self) -> bool {
        self.waiters.is_empty() && self.selective.is_none()
    }

    /// Takes all waiters: any of them may miss something.
    fn take_waiters(&mut self) -> WakeSet {
        let mut wake = self.take_unselective();
        if let Some(index) = &mut self.selective {
            index.wake(&mut wake.notifiers);
        }
        wake
    }

    /// Takes the waiters that `message`, which was just stored, is for.
    fn take_waiters_for(&mut self, message: &Message) -> WakeSet {
        let mut wake = self.take_unselective();
        if let Some(index) = &mut self.selective {
            index.wake_for(message, &mut wake.notifiers);
        }
        wake
    }

    /// Takes the waiters that the messages are for which came since the last one that was looked at.
    fn take_waiters_for_new(&mut self, now: Time) -> WakeSet {
        let mut wake = self.take_unselective();
        if let Some(index) = &mut self.selective {
            let cursor = Cursor::At(index.through());
            let found = self.history.since(cursor, Take::All, self.limits.tick, now);
            index.wake_for_all(&found, &mut wake.notifiers);
        }
        wake
    }

    fn take_unselective(&mut self) -> WakeSet {
        self.round += 1;
        WakeSet::new(std::mem::take(&mut self.waiters))
    }
}

impl Hub {
    /// An empty table; `seed` feeds the epochs, which must differ from one start to the next.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self::with_origin(settings, seed, None)
    }

    /// A table whose channels get their messages and positions from a sequencer; `origin` receives
    /// their sync requests.
    pub fn replica(settings: Settings, seed: u64, origin: SyncSink) -> Self {
        Self::with_origin(settings, seed, Some(origin))
    }

    fn with_origin(settings: Settings, seed: u64, origin: Option<SyncSink>) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let clock = AtomicU64::new(Epoch::of_clock(random.u32(..)).number());
        let shared = Shared {
            tables: Tables::new(&settings),
            settings: RwLock::new(settings),
            origin,
            latest: AtomicU64::new(0),
            clock,
            unknown: AtomicU64::new(0),
            held: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            presence: presence::Rooms::default(),
            random: Mutex::new(random),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The table begins with nothing known of what may have been published up to `now`, unless it
    /// continues another one ([`Hub::remember`]).
    pub fn begin(&self, now: Time) {
        self.shared.unknown.store(self.time(now).0, Ordering::Relaxed);
    }

    /// Stores one message on each of the named channels: on all of them, or on none where the table
    /// has no room for one. The caller wakes the released polls.
    pub fn publish(
        &self,
        posts: &[(ChannelName, Payload)],
        now: Time,
    ) -> Result<Vec<Published>, TableFull> {
        let now = self.time(now);
        for (name, _) in posts {
            self.open(name, now)?;
        }
        let published = posts.iter().map(|(name, payload)| self.put(name, payload, now)).collect();
        self.reclaim(now);
        published
    }

    fn put(
        &self,
        name: &ChannelName,
        payload: &Payload,
        now: Time,
    ) -> Result<Published, TableFull> {
        self.with_stored(name, now, |state, now| {
            let message = state.history.push(payload.clone(), &state.limits, now);
            let wake = state.take_waiters_for(&message);
            Published { message, tick: state.limits.tick, wake, released: 0 }
        })
    }

    /// Stores a state that has been true since `at`, stamped with that time, unless the channel has
    /// had a message since. With `keep` its newest message never ages out, unless the settings
    /// differ.
    pub fn seed(
        &self,
        name: &ChannelName,
        payload: Payload,
        at: Time,
        keep: bool,
        now: Time,
    ) -> Result<Option<Published>, TableFull> {
        let now = self.time(now);
        let published = self.with_stored(name, now, |state, now| {
            if keep {
                state.history.keep_newest();
            }
            let tick = state.limits.tick;
            // After a crash the channel's newest stamp is that of the start, whatever it has.
            let newest = state.history.newest().map(|message| message.stamp);
            let newest = newest.or(state.history.newest_stamp());
            let since = newest >= Some(tick.at_or_after(at.min(now)));
            // A message that should stay may have aged out before it was marked so.
            let is_there = !keep || !state.history.is_empty();
            if since && is_there {
                return None;
            }
            let message = state.history.push_from(payload, at, &state.limits, now);
            let wake = state.take_waiters_for(&message);
            Some(Published { message, tick, wake, released: 0 })
        });
        self.reclaim(now);
        published
    }

    /// From now on the channel's newest message never ages out, unless the settings differ. Does
    /// not create the channel.
    pub fn keep_newest(&self, name: &ChannelName) {
        if let Some(channel) = self.table(name).peek(name) {
            channel.state.lock().history.keep_newest();
            self.settle(&channel);
        }
    }

    /// Forgets a channel and its history; `None` if it does not exist. The caller wakes its held
    /// polls; they find themselves reset, and its next life has a new epoch.
    pub fn forget(&self, name: &ChannelName) -> Option<WakeSet> {
        // A client that has a position is reset, also if nothing was published.
        let floor = Stamp(self.shared.latest.load(Ordering::SeqCst));
        let table = self.table(name);
        table.remove(
            name,
            |_| true,
            |channel, state| {
                table.raise_floor(&channel.name, floor);
                Self::retire(&table, channel, state)
            },
        )
    }

    /// The limits of a channel, which need not exist.
    pub fn limits(&self, name: &ChannelName) -> Arc<Limits> {
        self.shared.settings.read().limits_for(name).clone()
    }

    /// The unit of a channel's stamps; the channel need not exist.
    pub fn tick(&self, name: &ChannelName) -> Tick {
        self.shared.settings.read().limits_for(name).tick
    }

    /// From now on no poll is held. Returns the waiters of all channels; the caller wakes them, and
    /// they find nothing and [`Hub::is_draining`].
    pub fn drain(&self) -> Vec<WakeSet> {
        self.shared.draining.store(true, Ordering::SeqCst);
        let mut wakes = Vec::new();
        self.for_each_channel(|channel| {
            let mut state = channel.state.lock();
            if !state.is_unheld() {
                wakes.push(state.take_waiters());
            }
        });
        wakes
    }

    /// True once [`Hub::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::SeqCst)
    }

    /// Number of polls held on a channel now.
    pub fn held_on(&self, name: &ChannelName) -> usize {
        self.table(name).peek(name).map_or(0, |channel| channel.state.lock().held())
    }

    /// Number of polls held now.
    pub fn held(&self) -> usize {
        self.shared.held.load(Ordering::Relaxed)
    }

    /// Number of channels that were published to.
    pub fn channels(&self) -> usize {
        self.shared.tables.sum(|table| table.stored() as u64) as usize
    }

    /// Number of never-published channels that polls wait on, and their memory in bytes.
    pub fn waiting(&self) -> (usize, u64) {
        let tables = &self.shared.tables;
        let count = tables.sum(|table| table.count(Class::Waiting) as u64);
        (count as usize, tables.sum(Table::waiting_bytes))
    }

    /// The memory all kept messages take, in bytes.
    pub fn cost(&self) -> u64 {
        self.shared.tables.sum(|table| table.cost.load(Ordering::Relaxed))
    }
}
