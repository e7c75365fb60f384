//! The channel table: publish, poll, wait.
//!
//! **No wake is lost.** A poll that finds nothing is registered on its channel under the same
//! lock as its look into the history, so a publish either comes before the look and is found, or
//! after it and finds the registration.
//!
//! **Unlock, then wake.** A publish stores its message, takes the channel's waiters and unlocks;
//! the caller then rings them, in batches, through [`Wake`]. A waiter that is rung looks again:
//! a ring for something it already has is harmless.
//!
//! **A dropped [`Waiter`] is gone.** It takes itself off its channels, so a cancelled poll leaves
//! nothing behind.
//!
//! **A forgotten channel stays forgotten.** Eviction and `forget` mark the channel under its
//! lock; whoever still holds it looks the name up again and meets a new life with a new epoch.
//!
//! Locks are taken in the order shard, then channel, and never two of a kind.

mod bell;
mod table;
mod waiter;

pub use waiter::{Waiter, Wake};

use crate::channel::{
    Accepted, ChannelName, Cursor, Epoch, Found, History, Limits, Message, Pattern, Payload,
    Position, Stamp, Take, Tick, Time,
};
use bell::Bell;
use parking_lot::{Mutex, RwLock};
use slab::Slab;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use table::Table;

/// What bounds the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Channels in all; at this many, the least recently used quiet one makes room.
    pub channels: usize,
    /// Memory for messages in all channels, in bytes.
    pub total: u64,
    /// Limits of the channels that no override matches.
    pub limits: Arc<Limits>,
    /// Limits by channel name; the first match wins.
    pub overrides: Vec<(Pattern, Arc<Limits>)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { channels: 100_000, total: 256 << 20, limits: Arc::default(), overrides: Vec::new() }
    }
}

impl Settings {
    fn limits_for(&self, name: &ChannelName) -> &Arc<Limits> {
        let matching = self.overrides.iter().find(|(pattern, _)| pattern.matches(name));
        matching.map_or(&self.limits, |(_, limits)| limits)
    }
}

/// The table has no room for another channel, and none of its channels is quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the channel table is full and none of its channels is quiet")]
pub struct Full;

/// One channel of a poll, and where the client is in it.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The channel.
    pub channel: ChannelName,
    /// Where to begin.
    pub cursor: Cursor,
}

/// What one channel of a poll has for it.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The channel.
    pub channel: ChannelName,
    /// The unit of its stamps.
    pub tick: Tick,
    /// What was found, and where the client is with it.
    pub found: Found,
}

/// What all channels of a poll have for it, in the order of its subscriptions.
pub type Answer = SmallVec<[Heard; 1]>;

/// The outcome of [`Hub::poll`].
#[derive(Debug)]
pub enum Polled {
    /// There is something to say at once.
    Answer(Answer),
    /// There is nothing yet; the waiter is told when there is.
    Waiting(Waiter),
}

/// The outcome of a publish to one channel.
#[derive(Debug)]
pub struct Published {
    /// The message with the position it was given.
    pub message: Arc<Message>,
    /// The unit of its channel's stamps.
    pub tick: Tick,
    /// The held polls that it releases, to be rung.
    pub wake: Wake,
}

/// What is known of one channel.
#[derive(Debug, Clone)]
pub struct Info {
    /// Its name.
    pub channel: ChannelName,
    /// Polls held on it.
    pub held: usize,
    /// Messages kept.
    pub kept: usize,
    /// Bytes of the messages kept.
    pub bytes: u64,
    /// The current life of its history.
    pub epoch: Epoch,
    /// The unit of its stamps.
    pub tick: Tick,
    /// The newest message ever: its position and stamp.
    pub newest: Option<(Position, Stamp)>,
    /// The oldest message kept.
    pub oldest: Option<(Position, Stamp)>,
}

/// A cheap handle to the channel table.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    table: Table,
    settings: RwLock<Settings>,
    /// The latest time seen. The table's time never runs backwards, so a position that was given
    /// out is never overtaken by a message from before it.
    latest: AtomicU64,
    /// The highest stamp of all channels that were forgotten. New lives begin above it, so a
    /// stamp cursor of an earlier life never hides a message of a later one.
    floor: AtomicU64,
    /// Memory of all messages kept, in bytes.
    cost: AtomicU64,
    /// Polls held now.
    held: AtomicUsize,
    /// Nothing is held any more.
    draining: AtomicBool,
    random: Mutex<fastrand::Rng>,
}

/// One channel: a name and what its lock guards.
#[derive(Debug)]
struct Channel {
    name: ChannelName,
    /// When it was last used, in microseconds since 1970; for eviction.
    used: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    history: History,
    limits: Arc<Limits>,
    waiters: Slab<Arc<Bell>>,
    /// Counts how often the waiters were taken; a registration is only good in its own round.
    round: u64,
    /// The channel left the table; whoever holds it must look it up again.
    forgotten: bool,
}

impl State {
    fn take_waiters(&mut self) -> Wake {
        self.round += 1;
        Wake::new(std::mem::take(&mut self.waiters))
    }
}

impl Hub {
    /// An empty table; `seed` feeds the epochs, which must differ from one start to the next.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let shared = Shared {
            table: Table::new(),
            settings: RwLock::new(settings),
            latest: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            cost: AtomicU64::new(0),
            held: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Looks into every channel of a poll. Registers a waiter where none has news, unless `hold`
    /// is false: then the quiet state is the answer.
    pub fn poll(
        &self,
        subscriptions: &[Subscription],
        take: Take,
        hold: bool,
        now: Time,
    ) -> Result<Polled, Full> {
        let now = self.time(now);
        let mut waiter = Waiter::new(self.clone(), take);
        let mut answer = Answer::new();
        let mut news = !hold;
        for subscription in subscriptions {
            let (heard, seat) =
                self.look(subscription, take, hold.then_some(waiter.bell()), now)?;
            news |= heard.found.news;
            answer.push(heard);
            waiter.sit(seat);
        }
        // Looked at after the registration: a drain that came before it has set the flag, one
        // that comes after it finds the registration.
        if news || self.is_draining() {
            return Ok(Polled::Answer(answer));
        }
        waiter.hold(answer);
        Ok(Polled::Waiting(waiter))
    }

    /// Looks into one channel and, where there is no news, registers `bell` under the same lock.
    fn look(
        &self,
        subscription: &Subscription,
        take: Take,
        bell: Option<&Arc<Bell>>,
        now: Time,
    ) -> Result<(Heard, Option<waiter::Seat>), Full> {
        self.with_state(&subscription.channel, now, |channel, state| {
            let tick = state.limits.tick;
            let found = state.history.since(subscription.cursor, take, tick, now);
            let seat = bell.filter(|_| !found.news).map(|bell| waiter::Seat {
                channel: channel.clone(),
                key: state.waiters.insert(bell.clone()),
                round: state.round,
            });
            (Heard { channel: channel.name.clone(), tick, found }, seat)
        })
    }

    /// Puts one message on each of the named channels: all of them, or none where the table has
    /// no room for one. The caller rings the wakes.
    pub fn publish(
        &self,
        posts: &[(ChannelName, Payload)],
        now: Time,
    ) -> Result<Vec<Published>, Full> {
        let now = self.time(now);
        for (name, _) in posts {
            self.open(name, now)?;
        }
        let published = posts.iter().map(|(name, payload)| self.put(name, payload, now)).collect();
        self.reclaim(now);
        published
    }

    fn put(&self, name: &ChannelName, payload: &Payload, now: Time) -> Result<Published, Full> {
        self.with_state(name, now, |_, state| {
            let message = state.history.push(payload.clone(), &state.limits, now);
            Published { message, tick: state.limits.tick, wake: state.take_waiters() }
        })
    }

    /// Puts a message on a channel whose position was given elsewhere. Nothing changes unless it
    /// is the channel's next one.
    pub fn accept(
        &self,
        name: &ChannelName,
        message: Message,
        now: Time,
    ) -> Result<(Accepted, Wake), Full> {
        let now = self.time(now);
        let accepted = self.with_state(name, now, |_, state| {
            let accepted = state.history.accept(message, &state.limits, now);
            let wake = match accepted {
                Accepted::Stored(_) => state.take_waiters(),
                Accepted::Known | Accepted::Gap => Wake::default(),
            };
            (accepted, wake)
        });
        self.reclaim(now);
        accepted
    }

    /// Gives a channel an empty history of the given epoch, as [`Hub::accept`] needs it; its
    /// waiters are to be rung, and find themselves reset.
    pub fn restart(&self, name: &ChannelName, epoch: Epoch, now: Time) -> Result<Wake, Full> {
        let now = self.time(now);
        self.with_state(name, now, |_, state| {
            let floor = state.history.newest_stamp().unwrap_or_default();
            state.history = History::new(epoch, floor.max(self.floor()));
            state.take_waiters()
        })
    }

    /// Forgets a channel and its history. `None` if there is no such channel. Its held polls are
    /// to be rung; they find themselves reset, and its next life has a new epoch.
    pub fn forget(&self, name: &ChannelName) -> Option<Wake> {
        let channel = self.shared.table.remove(name)?;
        Some(self.bury(&channel))
    }

    /// What is known of a channel; `None` if there is no such channel.
    pub fn info(&self, name: &ChannelName, now: Time) -> Option<Info> {
        let now = self.time(now);
        let channel = self.shared.table.peek(name)?;
        Some(self.describe(&channel, now))
    }

    /// What is known of at most `most` channels in the order of their names, after the name
    /// `after`; and whether there are more.
    pub fn list(&self, after: Option<&str>, most: usize, now: Time) -> (Vec<Info>, bool) {
        let now = self.time(now);
        let (channels, more) = self.shared.table.page(after, most);
        (channels.iter().map(|channel| self.describe(channel, now)).collect(), more)
    }

    fn describe(&self, channel: &Channel, now: Time) -> Info {
        self.with_trimmed(&mut channel.state.lock(), now, |state| Info {
            channel: channel.name.clone(),
            held: state.waiters.len(),
            kept: state.history.len(),
            bytes: state.history.bytes(),
            epoch: state.history.position().epoch,
            tick: state.limits.tick,
            newest: state.history.newest_stamp().map(|stamp| (state.history.position(), stamp)),
            oldest: state.history.oldest().map(|message| (message.position, message.stamp)),
        })
    }

    /// What a channel's history has for a cursor, without creating or holding anything.
    pub fn read(&self, subscription: &Subscription, take: Take, now: Time) -> Option<Heard> {
        let now = self.time(now);
        let channel = self.shared.table.peek(&subscription.channel)?;
        self.with_trimmed(&mut channel.state.lock(), now, |state| {
            let tick = state.limits.tick;
            let found = state.history.since(subscription.cursor, take, tick, now);
            Some(Heard { channel: subscription.channel.clone(), tick, found })
        })
    }

    /// The unit of a channel's stamps, whether or not the channel exists.
    pub fn tick(&self, name: &ChannelName) -> Tick {
        self.shared.settings.read().limits_for(name).tick
    }

    /// From now on no poll is held. Returns the waiters of all channels, to be rung: they find
    /// nothing, and [`Hub::is_draining`].
    pub fn drain(&self) -> Vec<Wake> {
        self.shared.draining.store(true, Ordering::SeqCst);
        let mut wakes = Vec::new();
        self.for_each_channel(|channel| {
            let mut state = channel.state.lock();
            if !state.waiters.is_empty() {
                wakes.push(state.take_waiters());
            }
        });
        wakes
    }

    /// Whether [`Hub::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::SeqCst)
    }

    /// How many polls are held on a channel now.
    pub fn held_on(&self, name: &ChannelName) -> usize {
        self.shared.table.peek(name).map_or(0, |channel| channel.state.lock().waiters.len())
    }

    /// How many polls are held now.
    pub fn held(&self) -> usize {
        self.shared.held.load(Ordering::Relaxed)
    }

    /// How many channels there are.
    pub fn channels(&self) -> usize {
        self.shared.table.len()
    }

    /// The memory all kept messages take, in bytes.
    pub fn cost(&self) -> u64 {
        self.shared.cost.load(Ordering::Relaxed)
    }

    /// Takes on new settings; existing channels are trimmed to them.
    pub fn reconfigure(&self, settings: Settings, now: Time) {
        let now = self.time(now);
        *self.shared.settings.write() = settings;
        self.for_each_channel(|channel| {
            let limits = self.shared.settings.read().limits_for(&channel.name).clone();
            let mut state = channel.state.lock();
            state.limits = limits;
            self.with_trimmed(&mut state, now, |_| ());
        });
        while self.channels() > self.shared.settings.read().channels && self.evict_one() {}
        self.reclaim(now);
    }

    /// Drops what has grown too old. To be called every now and then: a channel that nobody uses
    /// would otherwise keep its messages for ever.
    pub fn sweep(&self, now: Time) {
        let now = self.time(now);
        self.for_each_channel(|channel| self.with_trimmed(&mut channel.state.lock(), now, |_| ()));
    }

    fn for_each_channel(&self, mut visit: impl FnMut(&Channel)) {
        for shard in 0..Table::SHARDS {
            self.shared.table.shard(shard).iter().for_each(|channel| visit(channel));
        }
    }

    /// Runs `work` on a channel, which is created where it does not exist, with an up-to-date
    /// history and under its lock.
    fn with_state<T>(
        &self,
        name: &ChannelName,
        now: Time,
        work: impl FnOnce(&Arc<Channel>, &mut State) -> T,
    ) -> Result<T, Full> {
        loop {
            let channel = self.open(name, now)?;
            let mut state = channel.state.lock();
            if !state.forgotten {
                return Ok(self.with_trimmed(&mut state, now, |state| work(&channel, state)));
            }
        }
    }

    /// Runs `work` on a trimmed history and books what that changed in the memory of all.
    fn with_trimmed<T>(
        &self,
        state: &mut State,
        now: Time,
        work: impl FnOnce(&mut State) -> T,
    ) -> T {
        if state.forgotten {
            // Its accounts are settled by `bury`.
            return work(state);
        }
        let before = state.history.cost();
        state.history.trim(&state.limits, now);
        let result = work(state);
        // Wrapping addition of the difference is a subtraction where the history shrank.
        let change = state.history.cost().wrapping_sub(before);
        if change != 0 {
            self.shared.cost.fetch_add(change, Ordering::Relaxed);
        }
        result
    }

    /// The channel of that name, created where it does not exist.
    fn open(&self, name: &ChannelName, now: Time) -> Result<Arc<Channel>, Full> {
        if let Some(channel) = self.shared.table.touch(name, now) {
            return Ok(channel);
        }
        let (limits, most) = {
            let settings = self.shared.settings.read();
            (settings.limits_for(name).clone(), settings.channels)
        };
        while self.channels() >= most {
            if !self.evict_one() {
                return Err(Full);
            }
        }
        let epoch = Epoch::from_random(self.shared.random.lock().u64(..));
        let state = State {
            history: History::new(epoch, self.floor()),
            limits,
            waiters: Slab::new(),
            round: 0,
            forgotten: false,
        };
        Ok(self.shared.table.insert(name, state, now))
    }

    /// Evicts the least recently used quiet channel.
    fn evict_one(&self) -> bool {
        let Some(channel) = self.shared.table.remove_oldest_quiet() else { return false };
        drop(self.bury(&channel));
        true
    }

    /// Settles the accounts of a channel that has left the table.
    fn bury(&self, channel: &Channel) -> Wake {
        let mut state = channel.state.lock();
        state.forgotten = true;
        let newest = state.history.newest_stamp().unwrap_or_default();
        self.shared.floor.fetch_max(newest.0, Ordering::Relaxed);
        self.shared.cost.fetch_sub(state.history.cost(), Ordering::Relaxed);
        state.history.clear();
        state.take_waiters()
    }

    /// Brings the memory of all messages below its bound: quiet channels go, the least recently
    /// used first; then the histories of those that polls are held on.
    fn reclaim(&self, now: Time) {
        let total = self.shared.settings.read().total;
        while self.cost() > total && self.evict_one() {}
        while self.cost() > total {
            let Some(channel) =
                self.shared.table.oldest_with(|c| !c.state.lock().history.is_empty())
            else {
                return;
            };
            let mut state = channel.state.lock();
            if !state.forgotten {
                self.with_trimmed(&mut state, now, |state| state.history.clear());
            }
        }
    }

    fn floor(&self) -> Stamp {
        Stamp(self.shared.floor.load(Ordering::Relaxed))
    }

    /// The table's time: `now`, or the latest time seen where the clock has stepped back.
    fn time(&self, now: Time) -> Time {
        Time(self.shared.latest.fetch_max(now.0, Ordering::Relaxed).max(now.0))
    }
}
