//! Keeps the table within its bounds: opens channels, evicts them and forgets old messages.

use super::table::Table;
use super::{Channel, Hub, Settings, State, TableFull, WakeSet};
use crate::hub::channel::{ChannelName, Epoch, History, Stamp, Time};
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
        });
        while self.channels() > self.shared.settings.read().channels && self.evict_one() {}
        self.reclaim(now);
    }

    /// Drops messages that are too old. The caller runs this periodically: an unused channel would
    /// otherwise keep its messages for ever.
    pub fn sweep(&self, now: Time) {
        let now = self.time(now);
        self.for_each_channel(|channel| self.with_trimmed(&mut channel.state.lock(), now, |_| ()));
    }

    pub(super) fn for_each_channel(&self, mut visit: impl FnMut(&Channel)) {
        for shard in 0..Table::SHARDS {
            self.shared.table.shard(shard).iter().for_each(|channel| visit(channel));
        }
    }

    /// Runs `work` on a channel under its lock, with an up-to-date history. Creates the channel if
    /// it does not exist.
    pub(super) fn with_state<T>(
        &self,
        name: &ChannelName,
        now: Time,
        work: impl FnOnce(&Arc<Channel>, &mut State) -> T,
    ) -> Result<T, TableFull> {
        loop {
            let channel = self.open(name, now)?;
            let mut state = channel.state.lock();
            if !state.forgotten {
                return Ok(self.with_trimmed(&mut state, now, |state| work(&channel, state)));
            }
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

    /// The channel of that name; creates it if it does not exist.
    pub(super) fn open(&self, name: &ChannelName, now: Time) -> Result<Arc<Channel>, TableFull> {
        if let Some(channel) = self.shared.table.touch(name, now) {
            return Ok(channel);
        }
        // Held until the channel is in the table, so that a later change of the settings finds it
        // there.
        let settings = self.shared.settings.read();
        while self.channels() >= settings.channels {
            if !self.evict_one() {
                return Err(TableFull);
            }
        }
        let epoch = Epoch::from_random(self.shared.random.lock().u64(..));
        let state = State {
            history: History::new(epoch, self.floor()),
            limits: settings.limits_for(name).clone(),
            waiters: Slab::new(),
            feed: self.shared.origin.is_some().then(Box::default),
            round: 0,
            forgotten: false,
        };
        Ok(self.shared.table.insert(name, state, now))
    }

    /// Evicts the least recently used quiet channel.
    pub(super) fn evict_one(&self) -> bool {
        let Some(channel) = self.shared.table.remove_oldest_quiet() else { return false };
        drop(self.retire(&channel));
        true
    }

    /// Settles the accounts of a channel that has left the table.
    pub(super) fn retire(&self, channel: &Channel) -> WakeSet {
        let mut state = channel.state.lock();
        state.forgotten = true;
        let newest = state.history.newest_stamp().unwrap_or_default();
        self.shared.floor.fetch_max(newest.0, Ordering::Relaxed);
        self.shared.cost.fetch_sub(state.history.cost(), Ordering::Relaxed);
        state.history.clear();
        state.take_waiters()
    }

    /// Brings the memory of all messages below its bound. Evicts quiet channels first, the least
    /// recently used before the others; then clears the histories of channels with held polls.
    pub(super) fn reclaim(&self, now: Time) {
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

    pub(super) fn floor(&self) -> Stamp {
        Stamp(self.shared.floor.load(Ordering::Relaxed))
    }

    /// The table's time: `now`, or the latest time seen where the clock has stepped back.
    pub(super) fn time(&self, now: Time) -> Time {
        Time(self.shared.latest.fetch_max(now.0, Ordering::Relaxed).max(now.0))
    }
}
