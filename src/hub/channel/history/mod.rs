//! The ring of a channel's newest messages. [`lookup`] places cursors in it.
//!
//! Overflow: a message pushed beyond the bounds evicts the oldest, and a cursor before the kept
//! messages is answered with [`Lookup::reset`]. Count and bytes never evict the newest message, so
//! a waiting poll that wakes for it finds it. Continuity is within one epoch; [`History::new`]
//! begins one.

mod following;
mod lookup;
mod persisted;
mod tagged;

pub use following::Following;
pub use lookup::{Lookup, Messages, Take};
pub use persisted::{KeptMessage, Persisted};
pub use tagged::Moment;

use super::cursor::{Epoch, Position};
use super::message::{Message, Payload, Renders};
use super::stamp::{Stamp, Tick, Time};
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
