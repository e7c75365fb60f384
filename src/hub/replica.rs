//! Channels that get their messages and positions from a sequencer: the table's side of it.
//!
//! Every event is applied under the channel's lock, together with its history, so that a poll
//! always sees a consistent pair. The table's [`SyncSink`] receives a channel's request after
//! unlocking.

use super::registration::Unresolved;
use super::{Channel, Hub, State, TableFull, WakeSet};
use crate::hub::channel::{
    ChannelName, Cursor, History, Lookup, Message, Position, Snapshot, Stamp, Step, SyncRequest,
    Take, Time,
};
use std::sync::Arc;

/// Receives the sync requests of channels. It must not call back into the table.
pub type SyncSink = Arc<dyn Fn(&ChannelName, SyncRequest) + Send + Sync>;

/// The effect of a pushed message.
#[derive(Debug, Default)]
pub struct Applied {
    /// The polls that it releases, claimed already; the caller wakes them.
    pub wake: WakeSet,
    /// Number of polls that the same message had released when its push came.
    pub before: usize,
    /// It was new here.
    pub stored: bool,
    /// No poll here uses this channel.
    pub unwanted: bool,
}

impl Hub {
    /// True if the channels are replicas of a sequencer's.
    pub fn is_replica(&self) -> bool {
        self.shared.origin.is_some()
    }

    /// True if no message of a channel is known to be missing.
    pub fn is_live(&self, name: &ChannelName) -> bool {
        let is_live = |state: &mut State| state.feed.as_ref().is_some_and(|feed| feed.is_live());
        self.with_known(name, is_live).unwrap_or(false)
    }

    /// True if a subscription to a channel is requested or confirmed.
    pub fn is_joined(&self, name: &ChannelName) -> bool {
        let joined = |state: &mut State| state.feed.as_ref().is_some_and(|feed| feed.is_joined());
        self.with_known(name, joined).unwrap_or(false)
    }

    /// The subscription to a channel is confirmed.
    pub fn confirmed(&self, name: &ChannelName) {
        let want = self.with_known(name, |state| state.feed.as_mut()?.confirmed());
        self.request_sync(name, want.flatten());
    }

    /// The subscription to a channel has ended; it is requested again.
    pub fn lost(&self, name: &ChannelName) {
        self.with_known(name, |state| state.feed.iter_mut().for_each(|feed| feed.lost()));
    }

    /// Gives up the subscription to a channel that was not polled since `before` and has no waiter;
    /// true if it did.
    pub fn unsubscribe(&self, name: &ChannelName, before: Time) -> bool {
        let left = self.with_known(name, |state| match (state.is_unheld(), &mut state.feed) {
            (true, Some(feed)) if feed.last_polled() < before => {
                feed.left();
                true
            }
            _ => false,
        });
        left.unwrap_or(true)
    }

    /// Makes a channel read the sequencer's history, in case messages are missing.
    pub fn audit(&self, name: &ChannelName) {
        let want = self.with_known(name, |state| state.feed.as_mut()?.audit());
        self.request_sync(name, want.flatten());
    }

    /// A read of a channel begins. Returns its number and the channel's position; `None` if the
    /// read is not needed any more.
    pub fn read_begins(&self, name: &ChannelName) -> Option<(u64, Position)> {
        let begun = self.with_known(name, |state| {
            let number = state.feed.as_mut()?.read_begins()?;
            Some((number, state.history.position()))
        });
        begun.flatten()
    }

    /// That read failed; true if the caller has to repeat it, after a while.
    pub fn read_failed(&self, name: &ChannelName, number: u64) -> bool {
        let want = self.with_known(name, |state| state.feed.as_mut()?.read_failed(number));
        want.flatten().is_some()
    }

    /// That read has found `snapshot`. Returns the waiters to wake.
    pub fn read_ends(
        &self,
        name: &ChannelName,
        number: u64,
        snapshot: Snapshot,
        now: Time,
    ) -> Applied {
        let now = self.time(now);
        self.step(name, now, |state| match &mut state.feed {
            None => Step::default(),
            Some(feed) => feed.read_ends(number, snapshot, &mut state.history, &state.limits, now),
        })
    }

    /// A message of a channel was pushed.
    pub fn pushed(&self, name: &ChannelName, message: Message, now: Time) -> Applied {
        let now = self.time(now);
        self.step(name, now, |state| match &mut state.feed {
            None => Step::default(),
            Some(feed) => feed.pushed(message, &mut state.history, &state.limits, now),
        })
    }

    /// A message that was published through this gate has its position.
    pub fn offered(&self, name: &ChannelName, message: Message, now: Time) -> Applied {
        let now = self.time(now);
        let seq = message.position.seq;
        let mut before = 0;
        let pushed = self.step(name, now, |state| match &mut state.feed {
            None => Step::default(),
            Some(feed) => {
                before = feed.has_released(seq);
                feed.offered(message, &mut state.history, &state.limits, now)
            }
        });
        Applied { before, ..pushed }
    }

    /// A channel was forgotten at the sequencer and is at the beginning of another life. `stamp` is
    /// the newest of its earlier lives. The wake is claimed already.
    pub fn reborn(
        &self,
        name: &ChannelName,
        position: Position,
        stamp: Stamp,
        now: Time,
    ) -> WakeSet {
        let now = self.time(now);
        let pushed = self.step(name, now, |state| {
            let clock = state.history.clock();
            state.history.begin(History::after(position, stamp, clock));
            Step { wake: true, want: None, stored: false }
        });
        pushed.wake
    }

    /// Stores the result of a read in a channel without a subscription, so that it can be shown.
    pub fn refresh(
        &self,
        name: &ChannelName,
        snapshot: Snapshot,
        now: Time,
    ) -> Result<(), TableFull> {
        let now = self.time(now);
        let channel = self.open_for_waiting(name, true, now)?;
        let mut state = channel.state.lock();
        self.with_trimmed(&mut state, now, |state| {
            if let Some(feed) = state.feed.as_mut().filter(|feed| !feed.is_joined()) {
                feed.refreshed(snapshot, &mut state.history, &state.limits, now);
            }
            state.note_existence();
        });
        drop(state);
        self.keep_within_bounds(&channel);
        Ok(())
    }

    fn step(
        &self,
        name: &ChannelName,
        now: Time,
        work: impl FnOnce(&mut State) -> Step,
    ) -> Applied {
        let Some(channel) = self.table(name).peek(name) else {
            return Applied { unwanted: true, ..Applied::default() };
        };
        let mut state = channel.state.lock();
        let step = self.with_trimmed(&mut state, now, work);
        state.note_existence();
        let unwanted = !state.feed.as_ref().is_some_and(|feed| feed.is_joined());
        let mut wake = match step.wake {
            true => state.take_waiters_for_new(now),
            false => WakeSet::default(),
        };
        // Claimed under the lock, so that the publisher of the message finds the number.
        let newest = state.history.position().seq;
        if wake.claim() > 0
            && let Some(feed) = &mut state.feed
        {
            feed.released(newest, wake.len());
        }
        drop(state);
        self.keep_within_bounds(&channel);
        self.request_sync(name, step.want);
        if step.stored {
            self.reclaim(now);
        }
        Applied { wake, stored: step.stored, unwanted, before: 0 }
    }

    /// Lists a channel that may exist elsewhere by now, and makes room for it.
    fn keep_within_bounds(&self, channel: &Arc<Channel>) {
        self.settle(channel);
        self.keep_count(&self.shared.settings.read(), &self.table(&channel.name));
    }

    fn with_known<T>(&self, name: &ChannelName, work: impl FnOnce(&mut State) -> T) -> Option<T> {
        let channel = self.table(name).peek(name)?;
        let mut state = channel.state.lock();
        (!state.forgotten).then(|| work(&mut state))
    }

    pub(super) fn request_sync(&self, name: &ChannelName, want: Option<SyncRequest>) {
        if let (Some(want), Some(origin)) = (want, &self.shared.origin) {
            origin(name, want);
        }
    }
}

impl State {
    /// A channel that exists elsewhere counts as stored here.
    fn note_existence(&mut self) {
        self.stored = !self.history.is_void() && self.history.position().seq > 0;
    }

    /// Looks into the history of a replica for a poll that has just come. A cursor that cannot be
    /// placed yet is quiet, and is placed later.
    pub(super) fn look_at_replica(
        &mut self,
        cursor: Cursor,
        take: Take,
        now: Time,
        want: &mut Option<SyncRequest>,
    ) -> (Lookup, Option<Unresolved>) {
        let Some(feed) = &mut self.feed else {
            return (self.history.since(cursor, take, self.limits.tick, now), None);
        };
        *want = feed.polled(now);
        let mut unresolved = Unresolved { cursor, arrived: now, read: None, quiet: false };
        if !self.history.can_place(cursor) {
            let (read, wanted) = feed.is_unsure();
            *want = want.or(wanted);
            unresolved.read = Some(read);
        }
        self.place(unresolved, take, now)
    }

    /// Places a cursor if that is possible by now.
    pub(super) fn place(
        &self,
        unresolved: Unresolved,
        take: Take,
        now: Time,
    ) -> (Lookup, Option<Unresolved>) {
        let Unresolved { cursor, arrived, read, .. } = unresolved;
        let tick = self.limits.tick;
        let feed = self.feed.as_ref();
        // Messages of before may still be on their way.
        let unsure_of_time = |found: Lookup| Lookup { as_of: Time(0), ..found };
        let is_live = feed.is_some_and(|feed| feed.is_live());
        let was_read = read.is_none_or(|read| feed.is_some_and(|feed| feed.has_read(read)));
        let found = match cursor {
            Cursor::Now if is_live && unresolved.arrived < now => {
                self.history.since_arrival(arrived, take, tick, now)
            }
            _ => self.history.since(cursor, take, tick, now),
        };
        let found = unsure_of_time(found);
        let sure = match cursor {
            Cursor::At(_) | Cursor::Since(_) | Cursor::Tagged { .. } => {
                self.history.can_place(cursor) || is_live && was_read
            }
            Cursor::After(_) | Cursor::Changed { .. } => {
                found.has_update && (is_live || !found.reset)
            }
            _ => is_live,
        };
        if sure {
            return (found, None);
        }
        let quiet = is_live && matches!(cursor, Cursor::After(_) | Cursor::Changed { .. });
        let found = if quiet { found } else { self.history.unresolved(cursor, tick, arrived) };
        (found, Some(Unresolved { quiet, ..unresolved }))
    }
}
