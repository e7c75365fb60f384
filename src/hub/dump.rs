//! The table as values, for a process that continues it.
//!
//! A dump goes channel by channel. It takes each channel's lock only to count up its messages;
//! their bytes are shared, not copied. So a dump does not stop the table, and it is exact only if
//! nothing is published meanwhile; a caller that needs an exact dump stops publishing first.

use super::{Channel, Hub, State};
use crate::hub::channel::{
    ChannelName, Cursor, Epoch, History, KeptMessage, Lookup, Message, Persisted, Position, Stamp,
    Time,
};
use slab::Slab;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// State of the table as a whole, beside its channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dump {
    /// The latest time seen.
    pub latest: Time,
    /// The highest stamp of all channels that were forgotten.
    pub floor: Stamp,
    /// The epoch of the positions of channels that do not exist; `None` = those are void.
    pub clock: Option<Epoch>,
}

/// One channel's state in a dump.
#[derive(Debug, Clone)]
pub struct ChannelDump {
    /// Its name.
    pub channel: ChannelName,
    /// Time of its last use.
    pub used: Time,
    /// End of its history: position, stamps and bounds.
    pub kept: Persisted,
    /// The messages kept.
    pub messages: Vec<Arc<Message>>,
}

impl Hub {
    /// State of the table as a whole.
    pub fn memory(&self) -> Dump {
        let latest = Time(self.shared.latest.load(Ordering::Relaxed));
        Dump { latest, floor: self.shared.tables.highest_floor(), clock: Some(self.clock()) }
    }

    /// The current channels, least recently used first. Each is read when its turn comes; a channel
    /// that is forgotten meanwhile is left out.
    pub fn traces(&self) -> impl Iterator<Item = ChannelDump> + use<> {
        let mut channels: Vec<Arc<Channel>> =
            self.shared.tables.all().iter().flat_map(|table| table.channels()).collect();
        channels.sort_by_cached_key(|channel| channel.used.load(Ordering::Relaxed));
        channels.into_iter().filter_map(|channel| {
            let state = channel.state.lock();
            let is_stored = state.stored && !state.forgotten;
            let (kept, messages) = is_stored.then(|| state.history.kept())?;
            drop(state);
            let used = Time(channel.used.load(Ordering::Relaxed));
            Some(ChannelDump { channel: channel.name.clone(), used, kept, messages })
        })
    }

    /// Takes over the state of an earlier table. Time and stamps continue above it.
    pub fn remember(&self, memory: Dump) {
        self.shared.latest.fetch_max(memory.latest.0, Ordering::Relaxed);
        self.shared.tables.all().iter().for_each(|table| table.raise_floors(memory.floor));
        if let Some(clock) = memory.clock.filter(|clock| clock.is_clock()) {
            self.shared.clock.store(clock.number(), Ordering::Relaxed);
            self.shared.unknown.store(0, Ordering::Relaxed);
        }
    }

    /// Adds a channel of an earlier table with `count` messages, oldest first, as far as they fit
    /// into the settings. With `doubt`, positions may have been given out after that table was
    /// written, so the channel begins a new epoch. A channel of a site that is not here is left out.
    /// The first error stops the restore.
    ///
    /// Meant for a table that is not in use yet; a channel that exists stays as it is.
    pub fn restore<E>(
        &self,
        (channel, used, kept): (&ChannelName, Time, &Persisted),
        (count, messages): (u64, impl Iterator<Item = Result<KeptMessage, E>>),
        doubt: bool,
        now: Time,
    ) -> Result<(), E> {
        let now = self.time(now);
        let (limits, known) = {
            let settings = self.shared.settings.read();
            (settings.limits_for(channel).clone(), settings.bounds(channel).is_ok())
        };
        if !known {
            let mut messages = messages;
            return messages.try_for_each(|message| message.map(drop));
        }
        let mut history = History::resume(kept, count);
        history.look_at(Position { epoch: self.clock(), seq: now.0 });
        for message in messages {
            history.give_back(message?, &limits, now);
        }
        if doubt {
            let epoch = Epoch::from_random(self.shared.random.lock().u64(..));
            history.doubt(epoch, limits.tick.at_or_after(now));
        }
        // Of a table that is not in use yet, one that has no room for more than none is as good.
        let _ = self.make_room(&self.shared.settings.read(), channel);
        let cost = history.cost();
        let table = self.table(channel);
        let account = table.cost.clone();
        let feed = self.shared.origin.is_some().then(Box::default);
        let polled = Time(0);
        let waiters = Slab::new();
        let selective = None;
        let round = 0;
        let stored = true;
        let forgotten = false;
        let state = State {
            history,
            limits,
            waiters,
            selective,
            feed,
            polled,
            account,
            round,
            stored,
            forgotten,
        };
        if table.peek(channel).is_none() {
            table.cost.fetch_add(cost, Ordering::Relaxed);
            table.insert(channel, state, used);
        }
        self.reclaim(now);
        Ok(())
    }

    /// Marks the table as continued in another process, which gives out positions that this one
    /// cannot know; `false` takes the mark back. While it is set, an unknown cursor is no reason
    /// for a reset: the poll is answered with the cursor that it has, and its client comes again.
    pub fn move_on(&self, moved: bool) {
        self.shared.moved.store(moved, Ordering::SeqCst);
    }

    pub(super) fn unless_moved(&self, mut found: Lookup, cursor: Cursor) -> Lookup {
        if !self.shared.moved.load(Ordering::SeqCst) {
            return found;
        }
        match cursor {
            Cursor::At(position) if found.reset => found.position = position,
            Cursor::After(stamp) if !found.has_update => {
                found.stamp = stamp;
                return found;
            }
            Cursor::Since(stamp) if found.reset => (found.stamp, found.tag) = (stamp, None),
            Cursor::Tagged { second, tag } if found.reset => {
                let start = Stamp(second.saturating_mul(1_000_000));
                (found.stamp, found.tag) = (start, Some(tag));
            }
            _ => return found,
        }
        found.has_update = false;
        found.reset = false;
        found.messages.clear();
        found.renders = None;
        found
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hub::channel::{Payload, Take};
    use crate::hub::{PollOutcome, Settings, Subscription};
    use std::convert::Infallible;

    const NOW: Time = Time(1_000_000_000);

    fn name(name: &str) -> ChannelName {
        ChannelName::new(name).unwrap()
    }

    fn hub(channels: &[&str]) -> Hub {
        let hub = Hub::new(Settings::default(), 1);
        for (at, channel) in channels.iter().enumerate() {
            let payload = Payload::text(format!("on {channel}"));
            hub.publish(&[(name(channel), payload)], Time(NOW.0 + at as u64)).unwrap();
        }
        hub
    }

    fn again(old: &Hub, settings: Settings, doubt: bool) -> Hub {
        let new = Hub::new(settings, 2);
        new.remember(old.memory());
        for trace in old.traces() {
            let count = trace.messages.len() as u64;
            let messages = trace.messages.iter().map(|message| {
                let stamp = message.stamp;
                let published = message.published;
                Ok::<_, Infallible>(KeptMessage {
                    stamp,
                    published,
                    payload: message.payload.clone(),
                })
            });
            let head = (&trace.channel, trace.used, &trace.kept);
            new.restore(head, (count, messages), doubt, NOW).unwrap();
        }
        new
    }

    fn position(hub: &Hub, channel: &str) -> crate::hub::channel::Position {
        hub.info(&name(channel), NOW).unwrap().newest.unwrap().0
    }

    fn poll(hub: &Hub, channel: &str, cursor: Cursor) -> PollOutcome {
        let subscription = Subscription { channel: name(channel), cursor };
        hub.poll(&[subscription], Take::All, true, NOW).unwrap()
    }

    #[test]
    fn a_table_goes_on_with_its_positions_its_time_and_its_costs() {
        let old = hub(&["a", "b"]);
        old.forget(&name("b"));
        let new = again(&old, Settings::default(), false);
        assert_eq!(new.memory(), old.memory());
        assert_eq!((new.channels(), new.cost()), (old.channels(), old.cost()));
        let here = position(&old, "a");
        assert_eq!(position(&new, "a"), here);
        assert!(matches!(poll(&new, "a", Cursor::At(here)), PollOutcome::Waiting(_)));
        let posts = [(name("a"), Payload::empty())];
        assert_eq!(new.publish(&posts, NOW).unwrap()[0].message.position.seq, here.seq + 1);
    }

    #[test]
    fn what_is_too_much_for_the_new_settings_is_evicted_the_longest_unused_first() {
        let old = hub(&["a", "b", "c"]);
        let new = again(&old, Settings { channels: 2, ..Settings::default() }, false);
        assert!(new.info(&name("a"), NOW).is_none());
        assert!(new.info(&name("b"), NOW).is_some() && new.info(&name("c"), NOW).is_some());
        let new = again(&old, Settings { total: 1, ..Settings::default() }, false);
        assert_eq!(new.cost(), 0);
    }

    #[test]
    fn in_doubt_every_channel_begins_a_new_epoch() {
        let old = hub(&["a"]);
        let new = again(&old, Settings::default(), true);
        let PollOutcome::Answer(answer) = poll(&new, "a", Cursor::At(position(&old, "a"))) else {
            unreachable!("the cursor was placed");
        };
        assert!(answer[0].found.reset);
        assert_eq!(answer[0].found.messages.len(), 1);
    }

    #[test]
    fn a_table_that_has_moved_on_sends_polls_back_with_the_cursor_they_have() {
        let hub = hub(&["a"]);
        hub.drain();
        hub.move_on(true);
        let later = crate::hub::channel::Position { seq: 9, ..position(&hub, "a") };
        let PollOutcome::Answer(answer) = poll(&hub, "a", Cursor::At(later)) else {
            unreachable!()
        };
        let found = &answer[0].found;
        assert_eq!((found.has_update, found.reset, found.position), (false, false, later));
        let stamp = Stamp(NOW.0 + 77);
        let PollOutcome::Answer(answer) = poll(&hub, "a", Cursor::After(stamp)) else {
            unreachable!()
        };
        assert_eq!((answer[0].found.has_update, answer[0].found.stamp), (false, stamp));
        let PollOutcome::Answer(answer) = poll(&hub, "a", Cursor::Oldest) else { unreachable!() };
        assert_eq!(answer[0].found.messages.len(), 1, "what is known is still told");
    }
}
