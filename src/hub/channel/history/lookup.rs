//! The placing of cursors in a history: which messages a client that has the cursor gets, and the
//! position it has after them.

use super::{History, Moment};
use crate::hub::channel::cursor::{Cursor, Position};
use crate::hub::channel::message::{Message, Renders};
use crate::hub::channel::stamp::{Stamp, Tick, Time};
use smallvec::SmallVec;
use std::sync::Arc;

/// Messages in order; one is stored inline, as nearly every answer holds just one.
pub type Messages = SmallVec<[Arc<Message>; 1]>;

/// Selects among the messages after a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// All of them.
    All,
    /// The first.
    First,
    /// The newest.
    Newest,
}

/// The result of placing a cursor in a history.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// True if the poll gets its answer now. Otherwise it waits for messages after
    /// [`Lookup::position`].
    pub has_update: bool,
    /// True if messages may be missing between the cursor and this answer.
    pub reset: bool,
    /// The messages, in order; empty if `has_update` is false, and after a reset where nothing is kept.
    pub messages: Messages,
    /// The client's position after the whole of this answer.
    pub position: Position,
    /// The same in the channel's time: the client's own stamp if it could be placed and nothing
    /// came after it; else the newest stamp; else the clock.
    pub stamp: Stamp,
    /// The tag of the message that `stamp` is from; `None` = it is a time.
    pub tag: Option<u64>,
    /// Where a client is that has got none of `messages`.
    pub before: Moment,
    /// Stamps of messages that are not found here are not before this time. Zero where a
    /// sequencer gives them.
    pub as_of: Time,
    /// Renderings to share: present if `messages` is just the channel's newest message.
    pub renders: Option<Arc<Renders>>,
}

impl History {
    /// Places `cursor`. Call [`History::trim`] before, so that no outdated message is found.
    pub fn since(&self, cursor: Cursor, take: Take, tick: Tick, now: Time) -> Lookup {
        let mut found = self.placed(cursor, take, tick, now);
        found.as_of = now;
        found
    }

    fn placed(&self, cursor: Cursor, take: Take, tick: Tick, now: Time) -> Lookup {
        match cursor {
            Cursor::Now => self.quiet(self.here(tick, now)),
            Cursor::Oldest => self.kept_from(0, take, tick, now),
            Cursor::Latest => self.kept_from(self.ring.len().saturating_sub(1), take, tick, now),
            Cursor::Lost => self.reset(take, tick, now),
            Cursor::At(position) => self.since_position(position, take, tick, now),
            Cursor::After(stamp) => self.since_stamp(stamp, take, tick, now),
            Cursor::Since(stamp) => self.since_exactly(stamp, take, tick, now),
            Cursor::Tagged { second, tag } => self.since_tag((second, tag), take, tick, now),
            Cursor::Nth(n) => self.since_nth(n, take, tick, now),
            Cursor::Recent(slack) => {
                let mut found = self.quiet(self.here(tick, now));
                found.has_update = self.touched > now.before(slack);
                found
            }
            Cursor::Changed { after, slack } => {
                let after = after.filter(|stamp| !self.is_ahead(*stamp, now));
                let after = after.unwrap_or(Stamp(now.before(slack).0));
                self.changed_since(after, tick, now)
            }
        }
    }

    fn since_position(&self, position: Position, take: Take, tick: Tick, now: Time) -> Lookup {
        if position.epoch.is_clock() && position.epoch == self.clock.epoch {
            return self.since_time(position.seq, take, tick, now);
        }
        if position.epoch != self.epoch || position.seq > self.newest {
            return self.reset(take, tick, now);
        }
        // Never underflows: `newest` counts at least the kept messages.
        let evicted = self.newest - self.ring.len() as u64;
        match position.seq.checked_sub(evicted) {
            Some(skip) => self.kept_from(skip as usize, take, tick, now),
            None => self.reset(take, tick, now),
        }
    }

    /// Places the position of a channel that did not exist at `time`, by the sequencer's clock.
    pub(super) fn since_time(&self, time: u64, take: Take, tick: Tick, now: Time) -> Lookup {
        if self.is_void() {
            // Before that, a channel may have come and gone.
            let kept = time.saturating_add(Self::TTL.as_micros() as u64) >= self.clock.seq
                && time >= self.floor.0;
            let here = self.here(tick, now);
            return if kept { self.quiet(here) } else { self.reset(take, tick, now) };
        }
        let all_there = Stamp(time) >= self.evicted_stamp;
        if all_there && self.newest == 0 {
            return self.quiet(self.here(tick, now));
        }
        let skip = self.ring.partition_point(|message| message.stamp.0 <= time);
        if !all_there || skip == self.ring.len() {
            return self.reset(take, tick, now);
        }
        self.kept_from(skip, take, tick, now)
    }

    /// The messages after `time` by the sequencer's clock, for a client without an earlier
    /// position.
    pub fn since_arrival(&self, time: Time, take: Take, tick: Tick, now: Time) -> Lookup {
        let skip = self.ring.partition_point(|message| message.stamp.0 <= time.0);
        self.kept_from(skip, take, tick, now)
    }

    /// The quiet answer to a poll that cannot be placed yet: its own cursor.
    pub fn unresolved(&self, cursor: Cursor, tick: Tick, arrived: Time) -> Lookup {
        let (position, stamp, tag) = match cursor {
            Cursor::At(position) => (position, tick.just_before(arrived), None),
            Cursor::After(stamp)
            | Cursor::Since(stamp)
            | Cursor::Changed { after: Some(stamp), .. } => (Position::NOWHERE, stamp, None),
            Cursor::Tagged { second, tag } => {
                let start = Stamp(second.saturating_mul(1_000_000));
                (Position::NOWHERE, start, Some(tag))
            }
            _ => (Position::NOWHERE, tick.just_before(arrived), None),
        };
        Lookup { position, tag, ..self.quiet(stamp) }
    }

    /// True if the sequencer's history cannot change how `cursor` is placed here, given that at
    /// most the very newest messages are missing here.
    pub fn can_place(&self, cursor: Cursor) -> bool {
        match cursor {
            Cursor::At(position) if position.epoch.is_clock() => position.epoch == self.clock.epoch,
            Cursor::At(position) => position.epoch == self.epoch && position.seq <= self.newest,
            Cursor::Since(stamp) => stamp <= self.newest_stamp,
            Cursor::Tagged { second, tag } => self.has_tag(second, tag),
            _ => true,
        }
    }

    fn since_stamp(&self, stamp: Stamp, take: Take, tick: Tick, now: Time) -> Lookup {
        if self.is_ahead(stamp, now) {
            return self.quiet(self.here(tick, now));
        }
        if self.newest_stamp <= stamp || self.ring.is_empty() {
            return self.quiet(stamp);
        }
        let skip = self.ring.partition_point(|message| message.stamp <= stamp);
        let mut found = self.kept_from(skip, take, tick, now);
        found.reset = stamp < self.evicted_stamp;
        found
    }

    fn changed_since(&self, stamp: Stamp, tick: Tick, now: Time) -> Lookup {
        if self.newest_stamp <= stamp {
            return self.quiet(stamp);
        }
        let mut found = self.kept_from(self.ring.len().saturating_sub(1), Take::Newest, tick, now);
        found.has_update = true;
        // After a crash everything has changed since, later than the newest message; a client that
        // got the message's own stamp would get the same answer again and again.
        found.stamp = self.newest_stamp;
        found
    }

    /// True if `stamp` is beyond both the clock and every stamp given. At the clock itself counts
    /// as beyond: a message published this very moment may still get that stamp.
    fn is_ahead(&self, stamp: Stamp, now: Time) -> bool {
        stamp.0 >= now.0 && stamp > self.newest_stamp
    }

    /// The channel's time at its end: its newest stamp, else the last tick before all future
    /// stamps.
    fn here(&self, tick: Tick, now: Time) -> Stamp {
        if self.newest_stamp > Stamp(0) {
            return self.newest_stamp;
        }
        let now = if self.clock.epoch.is_clock() { Time(self.clock.seq + 1) } else { now };
        tick.just_before(now).max(self.floor)
    }

    pub(super) fn quiet(&self, stamp: Stamp) -> Lookup {
        Lookup {
            has_update: false,
            reset: false,
            messages: Messages::new(),
            position: self.position(),
            stamp,
            tag: self.last.filter(|last| last.stamp == stamp).and_then(|last| last.tag),
            before: self.before_all(),
            as_of: Time(0),
            renders: None,
        }
    }

    /// The kept messages but for the first `skip`.
    pub(super) fn kept_from(&self, skip: usize, take: Take, tick: Tick, now: Time) -> Lookup {
        let mut found = self.quiet(self.here(tick, now));
        let end = self.ring.len();
        if skip >= end {
            return found;
        }
        let range = match take {
            Take::All => skip..end,
            Take::First => skip..skip + 1,
            Take::Newest => end - 1..end,
        };
        found.renders = (range == (end - 1..end)).then(|| self.renders.clone());
        if let Some(before) = range.start.checked_sub(1).and_then(|at| self.ring.get(at)) {
            found.before = Moment { stamp: before.stamp, tag: Some(before.tag) };
        }
        found.messages.extend(self.ring.range(range).cloned());
        if let Some(last) = found.messages.last() {
            found.position = last.position;
            (found.stamp, found.tag) = (last.stamp, Some(last.tag));
        }
        found.has_update = true;
        found
    }

    pub(super) fn reset(&self, take: Take, tick: Tick, now: Time) -> Lookup {
        let mut found = self.kept_from(0, take, tick, now);
        found.has_update = true;
        found.reset = true;
        found
    }
}
