//! Keeps the table within its bounds: opens channels, evicts them and forgets old messages.
//!
//! Readers never evict what writers stored. A channel that was never published to exists only
//! while polls wait on it, in room of its own; a publish makes it a stored one. Room among those
//! is made by the empty ones first, then by those with messages, at last by those that keep their
//! newest message; of each, those that no poll waits on go first, the least recently used before
//! the others.

use super::table::{Class, Table};
use super::{Channel, Hub, Settings, State, TableFull, WakeSet};
use crate::hub::channel::{ChannelName, Epoch, History, Position, Stamp, Time};
use slab::Slab;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Hub {
    /// Applies new settings; existing channels are trimmed to them.
    pub fn reconfigure(&self, settings: Settings, now: Time) {
        let now = self.time(now);
        *self.shared.settings.write() = settings;
        self.for_each_channel(|channel| {
            let limits = self.shared.settings.read().limits_for(&channel.name).clone();
            let mut state = channel.state.lock();
            state.limits = limits;
            self.with_trimmed(&mut state, now, |_| ());
            drop(state);
            self.settle(channel);
        });
        while self.channels() > self.shared.settings.read().channels && self.evict_one() {}
        self.reclaim(now);
    }

    /// Drops messages that are too old. The caller runs this periodically: an unused channel would
    /// otherwise keep its messages for ever.
    pub fn sweep(&self, now: Time) {
        let now = self.time(now);
        self.for_each_channel(|channel| {
            self.with_trimmed(&mut channel.state.lock(), now, |_| ());
            self.settle(channel);
        });
    }

    pub(super) fn for_each_channel(&self, mut visit: impl FnMut(&Arc<Channel>)) {
        for shard in 0..Table::SHARDS {
            self.shared.table.shard(shard).iter().for_each(&mut visit);
        }
    }

    /// Lists a channel as what it is by now.
    pub(super) fn settle(&self, channel: &Arc<Channel>) {
        let class = channel.state.lock().class();
        if !channel.is_listed_as(class) {
            self.shared.table.settle(channel);
        }
    }

    /// Runs `work` on a stored channel, which is created where it does not exist, with an
    /// up-to-date history and under its lock.
    pub(super) fn with_stored<T>(
        &self,
        name: &ChannelName,
        now: Time,
        work: impl FnOnce(&mut State, Time) -> T,
    ) -> Result<T, TableFull> {
        loop {
            let channel = self.open(name, now)?;
            let mut state = channel.state.lock();
            if state.forgotten || !state.stored {
                continue;
            }
            // Not before any position that was given out for the channel while it did not exist.
            let now = self.time(now);
            let result = self.with_trimmed(&mut state, now, |state| work(state, now));
            drop(state);
            self.settle(&channel);
            return Ok(result);
        }
    }

    /// Runs `work` on a trimmed history and adds the change of its size to the table's total.
    pub(super) fn with_trimmed<T>(
        &self,
        state: &mut State,
        now: Time,
        work: impl FnOnce(&mut State) -> T,
    ) -> T {
        if state.forgotten {
            // `retire` settles its accounts.
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

    /// The stored channel of that name, created where it does not exist. Polls that wait on it
    /// go on waiting.
    pub(super) fn open(&self, name: &ChannelName, now: Time) -> Result<Arc<Channel>, TableFull> {
        let known = self.shared.table.touch(name, now);
        if let Some(channel) = &known
            && channel.state.lock().stored
        {
            return Ok(channel.clone());
        }
        // Held until the channel is in the table, so that a later change of the settings finds it
        // there.
        let settings = self.shared.settings.read();
        while self.channels() >= settings.channels {
            if !self.evict_one() {
                return Err(TableFull);
            }
        }
        let channel = match known {
            Some(channel) => channel,
            None => {
                let mut state = self.new_state(name, &settings, now);
                state.stored = true;
                state.history = self.first_life(name, &state.history);
                self.shared.table.insert(name, state, now)
            }
        };
        let mut state = channel.state.lock();
        if !state.stored && !state.forgotten {
            state.stored = true;
            let new = self.first_life(name, &state.history);
            state.history.begin(new);
        }
        drop(state);
        self.settle(&channel);
        Ok(channel)
    }

    /// The history that a channel begins which was not published to: its positions of before go
    /// on in it.
    fn first_life(&self, name: &ChannelName, void: &History) -> History {
        let epoch = Epoch::from_random(self.shared.random.lock().u64(..));
        if self.is_replica() {
            return History::new(epoch, self.shared.table.floor(name));
        }
        let mut history = History::after(Position { epoch, seq: 0 }, void.floor(), void.clock());
        history.set_unknown(self.unknown());
        history
    }

    /// The channel of that name, for a poll to wait on; where it does not exist it is created in
    /// the room for those that were never published to. Of that, polls on several channels may
    /// take only a half.
    pub(super) fn open_for_waiting(
        &self,
        name: &ChannelName,
        several: bool,
        now: Time,
    ) -> Result<Arc<Channel>, TableFull> {
        let table = &self.shared.table;
        if let Some(channel) = table.touch(name, now) {
            return Ok(channel);
        }
        let settings = self.shared.settings.read();
        let share = if several { 2 } else { 1 };
        let (names, bytes) = (settings.waiting / share, settings.waiting_bytes / share as u64);
        while table.count(Class::Waiting) >= names
            || table.waiting_bytes() + Table::waiting_cost(name) > bytes
        {
            // Only replicas have some that no poll waits on.
            if !self.evict(Class::Waiting, false) {
                return Err(TableFull);
            }
        }
        let state = self.new_state(name, &settings, now);
        Ok(table.insert(name, state, now))
    }

    fn new_state(&self, name: &ChannelName, settings: &Settings, now: Time) -> State {
        State {
            history: self.unpublished(name, now),
            limits: settings.limits_for(name).clone(),
            waiters: Slab::new(),
            feed: self.shared.origin.is_some().then(Box::default),
            polled: Time(0),
            round: 0,
            stored: false,
            forgotten: false,
        }
    }

    /// The history of a channel that does not exist. To be asked for after it was not found, so
    /// that the floor is that of its last life.
    pub(super) fn unpublished(&self, name: &ChannelName, now: Time) -> History {
        let floor = self.shared.table.floor(name);
        if self.is_replica() {
            let epoch = Epoch::from_random(self.shared.random.lock().u64(..));
            return History::new(epoch, floor);
        }
        let mut history = History::unpublished(self.clock(), floor, now);
        history.set_unknown(self.unknown());
        history
    }

    /// Up to this stamp another process may have published.
    fn unknown(&self) -> Stamp {
        Stamp(self.shared.unknown.load(Ordering::Relaxed))
    }

    /// The epoch of the positions of channels that do not exist.
    pub(super) fn clock(&self) -> Epoch {
        Epoch::from_number(self.shared.clock.load(Ordering::Relaxed))
    }

    /// Evicts the stored channel that is worth least.
    pub(super) fn evict_one(&self) -> bool {
        Class::STORED.into_iter().any(|class| self.evict(class, false) || self.evict(class, true))
    }

    fn evict(&self, class: Class, busy: bool) -> bool {
        let fits = |state: &State| busy || state.waiters.is_empty();
        // The one that was found may be used before it is taken; then look again.
        for _ in 0..8 {
            let Some(channel) = self.shared.table.oldest(class, fits) else { return false };
            let retire = |channel: &Channel, state: &mut State| self.retire(channel, state);
            if self.shared.table.remove(&channel.name, fits, retire).is_some() {
                return true;
            }
        }
        false
    }

    /// Lets a channel go that was here only for the polls that waited on it.
    pub(super) fn release(&self, name: &ChannelName) {
        if self.is_replica() {
            return;
        }
        let idle = |state: &State| !state.stored && state.waiters.is_empty();
        self.shared.table.remove(name, idle, |channel, state| self.retire(channel, state));
    }

    /// Settles the accounts of a channel that leaves the table.
    pub(super) fn retire(&self, channel: &Channel, state: &mut State) -> WakeSet {
        state.forgotten = true;
        let newest = state.history.newest_stamp().unwrap_or_default();
        self.shared.table.raise_floor(&channel.name, newest);
        self.shared.cost.fetch_sub(state.history.cost(), Ordering::Relaxed);
        state.history.clear();
        state.take_waiters()
    }

    /// Brings the memory of all messages below its bound: histories are emptied, in the order in
    /// which channels make room.
    pub(super) fn reclaim(&self, now: Time) {
        let total = self.shared.settings.read().total;
        while self.cost() > total {
            let quiet = |state: &State| state.waiters.is_empty();
            let table = &self.shared.table;
            let oldest = [Class::Filled, Class::Kept]
                .into_iter()
                .find_map(|class| table.oldest(class, quiet).or(table.oldest(class, |_| true)));
            let Some(channel) = oldest else { return };
            let mut state = channel.state.lock();
            if !state.forgotten {
                self.with_trimmed(&mut state, now, |state| state.history.clear());
            }
            drop(state);
            self.settle(&channel);
        }
    }

    /// The table's time: `now`, or the latest time seen where the clock has stepped back.
    pub(super) fn time(&self, now: Time) -> Time {
        Time(self.shared.latest.fetch_max(now.0, Ordering::SeqCst).max(now.0))
    }
}
