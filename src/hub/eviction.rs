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
        self.shared.tables.add(&settings, Stamp(now.0));
        *self.shared.settings.write() = settings;
        self.remove_sites(now);
        self.for_each_channel(|channel| {
            let limits = self.shared.settings.read().limits_for(&channel.name).clone();
            let mut state = channel.state.lock();
            state.limits = limits;
            self.with_trimmed(&mut state, now, |_| ());
            drop(state);
            self.settle(channel);
        });
        {
            let settings = self.shared.settings.read();
            self.shared.tables.all().iter().for_each(|table| self.keep_count(&settings, table));
        }
        self.reclaim(now);
    }

    /// Forgets the channels of sites that are gone, and wakes their polls, which find themselves
    /// reset. No channel comes into such a site any more: one is opened with the settings locked.
    fn remove_sites(&self, now: Time) {
        let gone = self.shared.tables.remove(&self.shared.settings.read(), Stamp(now.0));
        for table in gone {
            for channel in table.channels() {
                let retire =
                    |channel: &Channel, state: &mut State| Self::retire(&table, channel, state);
                // Dropped outside of the locks, and so woken.
                drop(table.remove(&channel.name, |_| true, retire));
            }
        }
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
        for table in self.shared.tables.all() {
            table.channels().for_each(|channel| visit(&channel));
        }
    }

    /// Lists a channel as what it is by now.
    pub(super) fn settle(&self, channel: &Arc<Channel>) {
        let class = channel.state.lock().class();
        if !channel.is_listed_as(class) {
            self.table(&channel.name).settle(channel);
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
            state.account.fetch_add(change, Ordering::Relaxed);
        }
        result
    }

    /// The stored channel of that name, created where it does not exist. Polls that wait on it
    /// go on waiting.
    pub(super) fn open(&self, name: &ChannelName, now: Time) -> Result<Arc<Channel>, TableFull> {
        let table = self.table(name);
        let known = table.touch(name, now);
        if let Some(channel) = &known
            && channel.state.lock().stored
        {
            return Ok(channel.clone());
        }
        // Held until the channel is in the table, so that a later change of the settings finds it
        // there.
        let settings = self.shared.settings.read();
        self.make_room(&settings, name)?;
        let channel = match known {
            Some(channel) => channel,
            None => {
                let mut state = self.new_state(name, &settings, now);
                state.stored = true;
                state.history = self.first_life(name, &state.history);
                table.insert(name, state, now)
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
            return History::new(epoch, self.table(name).floor(name));
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
        let table = self.table(name);
        if let Some(channel) = table.touch(name, now) {
            return Ok(channel);
        }
        let settings = self.shared.settings.read();
        let share = if several { 2 } else { 1 };
        let cost = Table::waiting_cost(name);
        // Only replicas have some that no poll waits on.
        if let Some(site) = settings.bounds(name)? {
            let names = site.waiting / share;
            let bytes = site.waiting_bytes / share as u64;
            while table.count(Class::Waiting) >= names || table.waiting_bytes() + cost > bytes {
                if !self.evict(&table, Class::Waiting, false) {
                    return Err(TableFull);
                }
            }
        }
        let names = settings.waiting / share;
        let bytes = settings.waiting_bytes / share as u64;
        let is_full = |(count, used): (usize, u64)| count >= names || used + cost > bytes;
        while is_full(self.waiting()) {
            let most = self.shared.tables.most(Some(&table), |it| it.count(Class::Waiting) as u64);
            if !self.evict(&most, Class::Waiting, false) {
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
            account: self.table(name).cost.clone(),
            round: 0,
            stored: false,
            forgotten: false,
        }
    }

    /// The history of a channel that does not exist. To be asked for after it was not found, so
    /// that the floor is that of its last life.
    pub(super) fn unpublished(&self, name: &ChannelName, now: Time) -> History {
        let floor = self.table(name).floor(name);
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

    /// Makes room for one more stored channel: in its site, and then where there are most.
    pub(super) fn make_room(
        &self,
        settings: &Settings,
        name: &ChannelName,
    ) -> Result<(), TableFull> {
        let table = self.table(name);
        if let Some(site) = settings.bounds(name)? {
            while table.stored() >= site.channels {
                self.evict_one(&table)?;
            }
        }
        while self.channels() >= settings.channels {
            self.evict_one(&self.shared.tables.most(Some(&table), |it| it.stored() as u64))?;
        }
        Ok(())
    }

    /// Brings the number of stored channels below its bounds: that of `table`, and that of all.
    pub(super) fn keep_count(&self, settings: &Settings, table: &Table) {
        let most = table.most_channels.load(Ordering::Relaxed);
        while table.stored() > most && self.evict_one(table).is_ok() {}
        while self.channels() > settings.channels {
            let crowded = self.shared.tables.most(None, |it| it.stored() as u64);
            if self.evict_one(&crowded).is_err() {
                return;
            }
        }
    }

    /// Evicts the stored channel of a table that is worth least.
    fn evict_one(&self, table: &Table) -> Result<(), TableFull> {
        let evicted = Class::STORED
            .into_iter()
            .any(|class| self.evict(table, class, false) || self.evict(table, class, true));
        if evicted { Ok(()) } else { Err(TableFull) }
    }

    fn evict(&self, table: &Table, class: Class, busy: bool) -> bool {
        let fits = |state: &State| busy || state.waiters.is_empty();
        // The one that was found may be used before it is taken; then look again.
        for _ in 0..8 {
            let Some(channel) = table.oldest(class, fits) else { return false };
            let retire = |channel: &Channel, state: &mut State| Self::retire(table, channel, state);
            if table.remove(&channel.name, fits, retire).is_some() {
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
        let table = self.table(name);
        table.remove(name, idle, |channel, state| Self::retire(&table, channel, state));
    }

    /// Settles the accounts of a channel that leaves the table.
    pub(super) fn retire(table: &Table, channel: &Channel, state: &mut State) -> WakeSet {
        state.forgotten = true;
        let newest = state.history.newest_stamp().unwrap_or_default();
        table.raise_floor(&channel.name, newest);
        state.account.fetch_sub(state.history.cost(), Ordering::Relaxed);
        state.history.clear();
        state.take_waiters()
    }

    /// Brings the memory of all messages below its bounds: histories are emptied, in the order in
    /// which channels make room. Where all sites together have too much, the one that has most of
    /// it gives way.
    pub(super) fn reclaim(&self, now: Time) {
        let total = self.shared.settings.read().total;
        let has = |table: &Table| table.cost.load(Ordering::Relaxed);
        while let Some(table) = self.shared.tables.find(Table::costs_too_much) {
            if !self.empty_oldest(&table, now) {
                break;
            }
        }
        while self.cost() > total {
            if !self.empty_oldest(&self.shared.tables.most(None, has), now) {
                return;
            }
        }
    }

    /// Empties the history of a table's channel that is worth least; false = there is none.
    fn empty_oldest(&self, table: &Table, now: Time) -> bool {
        let quiet = |state: &State| state.waiters.is_empty();
        let oldest = [Class::Filled, Class::Kept]
            .into_iter()
            .find_map(|class| table.oldest(class, quiet).or(table.oldest(class, |_| true)));
        let Some(channel) = oldest else { return false };
        let mut state = channel.state.lock();
        if !state.forgotten {
            self.with_trimmed(&mut state, now, |state| state.history.clear());
        }
        drop(state);
        self.settle(&channel);
        true
    }

    /// The table's time: `now`, or the latest time seen where the clock has stepped back.
    pub(super) fn time(&self, now: Time) -> Time {
        // Mostly, another poll has just been here.
        let latest = self.shared.latest.load(Ordering::SeqCst);
        if now.0 <= latest {
            return Time(latest);
        }
        Time(self.shared.latest.fetch_max(now.0, Ordering::SeqCst).max(now.0))
    }
}
