//! The ring of a channel's newest messages, and the placing of cursors in it.
//!
//! Overflow: a message pushed beyond the bounds evicts the oldest, and a cursor before the kept
//! messages is answered with [`Lookup::reset`]. Count and bytes never evict the newest message, so
//! a waiting poll that wakes for it finds it. Continuity is within one epoch; [`History::new`]
//! begins one.

mod following;
mod persisted;
mod tagged;

pub use following::Following;
pub use persisted::{KeptMessage, Persisted};
pub use tagged::Moment;

use super::cursor::{Cursor, Epoch, Position};
use super::message::{Message, Payload, Renders};
use super::stamp::{Stamp, Tick, Time};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// The bounds and the tick of one channel's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Messages kept at the most; at least 1.
    pub messages: usize,
    /// Bytes of message bodies kept at the most.
    pub bytes: u64,
    /// Longest time a message is kept; zero = for ever.
    pub age: Duration,
    /// True if the newest message never ages out; `None` = as [`History::keep_newest`] set it.
    pub keep_newest: Option<bool>,
    /// The unit of the stamps.
    pub tick: Tick,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            messages: 100,
            bytes: 1 << 20,
            age: Duration::from_secs(300),
            keep_newest: None,
            tick: Tick::Micros,
        }
    }
}

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
    /// The messages, in order; empty if `news` is false, and after a reset where nothing is kept.
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

/// The result of [`History::accept`] for a message with a sequencer's position.
#[derive(Debug, Clone)]
pub enum Accepted {
    /// It was the next one and is now the newest.
    Stored(Arc<Message>),
    /// It was here before; nothing changed.
    Known,
    /// Messages between the newest and this one are missing, or it is of another epoch; nothing
    /// changed.
    Gap,
}

/// See the [module](self).
#[derive(Debug)]
pub struct History {
    epoch: Epoch,
    /// The seq of the newest message ever; 0 = none yet.
    newest: u64,
    /// Its stamp, kept after its eviction; 0 = none yet.
    newest_stamp: Stamp,
    /// Time at which the newest message was stored, also if it is evicted since; in a life without
    /// messages, the time at which an earlier life may have had its last.
    touched: Time,
    /// Stamps are given above this even if the clock is behind it.
    floor: Stamp,
    /// Up to this stamp messages may have been evicted; 0 = none were.
    evicted_stamp: Stamp,
    /// The last message that was evicted, if it is known.
    evicted_tag: Option<u64>,
    /// The last message that was stored in this life.
    last: Option<Moment>,
    /// Up to this stamp another process may have had messages.
    unknown: Stamp,
    /// Clock of the sequencer that gives the positions, if any, and its time at the latest look.
    clock: Position,
    /// Kept messages; their seqs are contiguous and end with `newest`.
    ring: VecDeque<Arc<Message>>,
    bytes: u64,
    /// The newest message never ages out, unless the limits differ.
    keeps_newest: bool,
    renders: Arc<Renders>,
}

impl History {
    /// Minimum time that the sequencer's record of a channel outlives its messages.
    pub const TTL: Duration = Duration::from_secs(7 * 86_400);

    /// An empty history; all its stamps will be above `floor`.
    pub fn new(epoch: Epoch, floor: Stamp) -> Self {
        Self {
            epoch,
            newest: 0,
            newest_stamp: Stamp(0),
            touched: Time(floor.0),
            floor,
            // An earlier life may have had messages up to here.
            evicted_stamp: floor,
            evicted_tag: None,
            last: None,
            unknown: Stamp(0),
            clock: Position::NOWHERE,
            ring: VecDeque::new(),
            bytes: 0,
            keeps_newest: false,
            renders: Arc::default(),
        }
    }

    /// An empty history just after `position`, with positions from a sequencer. Up to the stamp
    /// `missing` there may have been messages. `clock` is the sequencer's time at which all this
    /// was so.
    pub fn after(position: Position, missing: Stamp, clock: Position) -> Self {
        let mut history = Self::new(position.epoch, missing);
        history.newest = position.seq;
        history.newest_stamp = if position.seq > 0 { missing } else { Stamp(0) };
        history.clock = clock;
        history
    }

    /// The history of a channel that did not exist at the sequencer at the time `clock`. Its
    /// position is that time, so that a client loses no message that comes after it.
    pub fn void(clock: Position) -> Self {
        let mut history = Self::new(clock.epoch, Stamp(0));
        history.newest = clock.seq;
        history.clock = clock;
        history
    }

    /// Stands for the history of a channel that does not exist here. Its position is the time
    /// `now` by `clock`, the table's own: stamps of messages to come are above it. Up to the stamp
    /// `floor` an earlier life may have had messages.
    pub fn unpublished(clock: Epoch, floor: Stamp, now: Time) -> Self {
        let mut history = Self::new(clock, floor);
        history.pass_time(now);
        history
    }

    /// A channel that does not exist here is where the table's time is.
    pub fn pass_time(&mut self, now: Time) {
        if self.is_void() {
            let seq = now.0.saturating_sub(1).max(self.floor.0).max(self.newest);
            self.look_at(Position { epoch: self.epoch, seq });
        }
    }

    /// Continues as `new`, whose positions are unrelated to these.
    pub fn begin(&mut self, new: Self) {
        *self = Self { keeps_newest: self.keeps_newest, ..new };
    }

    /// True if it is from [`History::void`].
    pub fn is_void(&self) -> bool {
        self.epoch.is_clock()
    }

    /// The sequencer's clock, and its time at the latest look.
    pub fn clock(&self) -> Position {
        self.clock
    }

    /// All stamps are above this one.
    pub fn floor(&self) -> Stamp {
        self.floor
    }

    /// True if the newest message never ages out.
    pub fn spares_newest(&self, limits: &Limits) -> bool {
        limits.keep_newest.unwrap_or(self.keeps_newest)
    }

    /// Notes the time of another look that found nothing new.
    pub fn look_at(&mut self, clock: Position) {
        self.clock = clock;
        if self.is_void() {
            (self.epoch, self.newest) = (clock.epoch, clock.seq);
        }
    }

    /// From now on the newest message never ages out, unless the limits differ: it is the content
    /// of a file, for as long as the file exists.
    pub fn keep_newest(&mut self) {
        self.keeps_newest = true;
    }

    /// Stamps `payload`, stores it and evicts messages beyond the limits.
    pub fn push(&mut self, payload: Payload, limits: &Limits, now: Time) -> Arc<Message> {
        self.push_from(payload, now, limits, now)
    }

    /// The same for a state that has been true since `at`, which becomes its stamp. Stamps still
    /// grow: behind a newer message it is stamped after that.
    pub fn push_from(
        &mut self,
        payload: Payload,
        at: Time,
        limits: &Limits,
        now: Time,
    ) -> Arc<Message> {
        let last = self.newest_stamp.max(self.floor);
        let after_last = limits.tick.at_or_after(Time(last.0.saturating_add(limits.tick.micros())));
        let stamp = limits.tick.at_or_after(at.min(now)).max(after_last);
        let position = Position { epoch: self.epoch, seq: self.newest + 1 };
        self.store(Message { position, stamp, tag: 0, published: now, payload }, limits, now)
    }

    /// Stores a message with a sequencer's position and stamp, if it is the next one.
    pub fn accept(&mut self, message: Message, limits: &Limits, now: Time) -> Accepted {
        if message.epoch() != self.epoch || message.position.seq > self.newest + 1 {
            return Accepted::Gap;
        }
        if message.position.seq <= self.newest {
            return Accepted::Known;
        }
        Accepted::Stored(self.store(message, limits, now))
    }

    fn store(&mut self, mut message: Message, limits: &Limits, now: Time) -> Arc<Message> {
        message.tag = self.next_tag(message.stamp);
        self.last = Some(Moment { stamp: message.stamp, tag: Some(message.tag) });
        let message = Arc::new(message);
        self.newest = message.position.seq;
        self.newest_stamp = message.stamp;
        self.touched = now;
        self.bytes += message.len();
        self.ring.push_back(message.clone());
        self.renders = Arc::default();
        self.trim(limits, now);
        message
    }

    /// Evicts messages that are beyond `limits` or too old at `now`.
    pub fn trim(&mut self, limits: &Limits, now: Time) {
        while self.ring.len() > 1
            && (self.ring.len() > limits.messages || self.bytes > limits.bytes)
        {
            self.evict_oldest();
        }
        if limits.age.is_zero() {
            return;
        }
        let oldest_kept = now.before(limits.age);
        let spared = usize::from(self.spares_newest(limits));
        while self.ring.len() > spared
            && self.ring.front().is_some_and(|message| message.published < oldest_kept)
        {
            self.evict_oldest();
        }
    }

    /// Evicts every message; positions and stamps continue.
    pub fn clear(&mut self) {
        while !self.ring.is_empty() {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        if let Some(message) = self.ring.pop_front() {
            self.bytes -= message.len();
            self.evicted_stamp = message.stamp;
            self.evicted_tag = Some(message.tag);
        }
        if self.ring.is_empty() {
            self.renders = Arc::default();
        }
    }

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
    fn since_time(&self, time: u64, take: Take, tick: Tick, now: Time) -> Lookup {
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

    fn quiet(&self, stamp: Stamp) -> Lookup {
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
    fn kept_from(&self, skip: usize, take: Take, tick: Tick, now: Time) -> Lookup {
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

    fn reset(&self, take: Take, tick: Tick, now: Time) -> Lookup {
        let mut found = self.kept_from(0, take, tick, now);
        found.has_update = true;
        found.reset = true;
        found
    }

    /// The position of the newest message ever.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.newest }
    }

    /// The stamp of the newest message ever; `None` before the first.
    pub fn newest_stamp(&self) -> Option<Stamp> {
        (self.newest_stamp > Stamp(0)).then_some(self.newest_stamp)
    }

    /// The newest message kept.
    pub fn newest(&self) -> Option<&Arc<Message>> {
        self.ring.back()
    }

    /// The oldest message kept.
    pub fn oldest(&self) -> Option<&Arc<Message>> {
        self.ring.front()
    }

    /// Number of messages kept.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// True if no message is kept.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Bytes of the bodies kept.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The memory the kept messages take, in bytes.
    pub fn cost(&self) -> u64 {
        self.bytes + self.ring.len() as u64 * Message::OVERHEAD
    }
}
