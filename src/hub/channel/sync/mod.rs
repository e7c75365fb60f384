//! A channel whose positions are given elsewhere, where other gates see it too: joining it,
//! keeping up with it, losing it.
//!
//! What is published elsewhere comes in two ways: *pushes*, which may be lost, and *reads* of
//! the history there, which are whole but late. A [`ReplicaState`] merges them into the channel's local
//! [`History`]. It does no I/O: it is told what happened and says what it [`SyncRequest`]s.
//!
//! **Never a silent hole.** A push is taken only if it is the very next message. Any other one
//! shows that something is missing; then pushes are held back, and a read fills the hole or, where
//! that cannot be done, the history begins anew, so that its cursors are reset.
//!
//! **Overflow.** At most [`MAX_HELD_BACK`] pushes wait for a read, of [`MAX_BYTES`] in all; what
//! comes beyond is dropped, and read afterwards.

#[cfg(test)]
mod tests;

use super::history::{Accepted, History, Limits};
use super::message::Message;
use super::stamp::{Stamp, Time};
use super::{Epoch, Position};
use std::collections::VecDeque;

/// Pushes that wait for the end of a read, at the most.
const MAX_HELD_BACK: usize = 256;
/// Their bytes in all.
const MAX_BYTES: u64 = 1 << 20;

/// What the one who does the I/O is to do. Each is wanted once until it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncRequest {
    /// Subscribe to the channel, then say so ([`ReplicaState::confirmed`]).
    Join,
    /// Read the history elsewhere ([`ReplicaState::read_begins`]).
    Read,
}

/// What an event has led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The channel's waiters are to look again.
    pub wake: bool,
    /// What is to be done.
    pub want: Option<SyncRequest>,
    /// A message was new here.
    pub stored: bool,
}

/// The state of a channel elsewhere, as one read found it.
#[derive(Debug)]
pub struct Snapshot {
    /// The clock there, just before the read.
    pub clock: Position,
    /// The channel there; `None` = there is none.
    pub place: Option<Start>,
    /// Its newest messages without a gap up to `place`: all that are kept, or those after the
    /// position that was asked for.
    pub messages: Vec<Message>,
}

/// Where a channel is.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Just after its newest message.
    pub position: Position,
    /// The stamp of that.
    pub stamp: Stamp,
    /// The newest stamp of its earlier lives; 0 = it had none.
    pub floor: Stamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody here has asked for the channel, or not for long.
    Idle,
    /// The subscription is wanted and not confirmed.
    Joining,
    /// Subscribed; something may be missing.
    Behind,
    /// Subscribed; nothing is missing but what is on its way.
    Live,
}

/// See the [module](self).
#[derive(Debug)]
pub struct ReplicaState {
    phase: Phase,
    held_back: VecDeque<Message>,
    held_bytes: u64,
    overflowed: bool,
    /// How many reads have begun.
    begun: u64,
    /// The number of the latest read that ended well.
    ended: u64,
    reading: bool,
    /// A read is wanted and has not begun.
    asked: bool,
    /// A poll came that only a read which begins after it can place.
    unsure: bool,
    /// The read that is under way was wanted for such a poll.
    awaited: bool,
    /// When the channel was last polled.
    polled: Time,
    /// How many polls the newest pushes have released, by their number.
    released: VecDeque<(u64, usize)>,
}

impl Default for ReplicaState {
    fn default() -> Self {
        Self {
            phase: Phase::Idle,
            held_back: VecDeque::new(),
            held_bytes: 0,
            overflowed: false,
            begun: 0,
            ended: 0,
            reading: false,
            asked: false,
            unsure: false,
            awaited: false,
            polled: Time(0),
            released: VecDeque::new(),
        }
    }
}

impl ReplicaState {
    /// A poll came for the channel.
    pub fn polled(&mut self, now: Time) -> Option<SyncRequest> {
        self.polled = now;
        if self.phase != Phase::Idle {
            return None;
        }
        self.phase = Phase::Joining;
        Some(SyncRequest::Join)
    }

    /// Whether what is here is all there is, but for what is on its way.
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Whether a subscription is wanted or there.
    pub fn is_joined(&self) -> bool {
        self.phase != Phase::Idle
    }

    /// When the channel was last polled.
    pub fn last_polled(&self) -> Time {
        self.polled
    }

    /// A cursor came that cannot be placed here and may be one of another gate's. After the read
    /// of the returned number it can; that one is wanted from now on.
    pub fn is_unsure(&mut self) -> (u64, Option<SyncRequest>) {
        self.unsure = true;
        (self.begun + 1, self.ask())
    }

    /// Whether that read is over.
    pub fn has_read(&self, number: u64) -> bool {
        self.is_live() && self.ended >= number
    }

    /// The subscription is confirmed: from now on every message is pushed.
    pub fn confirmed(&mut self) -> Option<SyncRequest> {
        if self.phase != Phase::Joining {
            return None;
        }
        self.phase = Phase::Behind;
        self.ask()
    }

    /// The subscription is no more; it is wanted again.
    pub fn lost(&mut self) {
        if self.phase != Phase::Idle {
            self.stop(Phase::Joining);
        }
    }

    /// The subscription is given up, as nobody polls any more.
    pub fn left(&mut self) {
        self.stop(Phase::Idle);
    }

    fn stop(&mut self, phase: Phase) {
        self.phase = phase;
        self.drop_held();
        // A read that is under way comes too late: its number is not the newest any more.
        self.begun += u64::from(self.reading);
        self.unsure |= self.reading && self.awaited;
        self.reading = false;
        self.asked = false;
    }

    /// Wants a read to make sure that nothing is missing.
    pub fn audit(&mut self) -> Option<SyncRequest> {
        self.is_live().then(|| self.ask()).flatten()
    }

    fn ask(&mut self) -> Option<SyncRequest> {
        let subscribed = matches!(self.phase, Phase::Behind | Phase::Live);
        if !subscribed || self.asked || self.reading {
            return None;
        }
        self.asked = true;
        Some(SyncRequest::Read)
    }

    /// A read begins; its number. `None` = it is not wanted any more.
    pub fn read_begins(&mut self) -> Option<u64> {
        if self.reading || !matches!(self.phase, Phase::Behind | Phase::Live) {
            return None;
        }
        (self.reading, self.asked) = (true, false);
        self.awaited = std::mem::take(&mut self.unsure);
        self.begun += 1;
        Some(self.begun)
    }

    /// That read failed. It is to be tried again, in a while.
    pub fn read_failed(&mut self, number: u64) -> Option<SyncRequest> {
        if !self.reading || number != self.begun {
            return None;
        }
        self.reading = false;
        self.unsure |= self.awaited;
        self.ask()
    }

    /// That read has found `snapshot`.
    pub fn read_ends(
        &mut self,
        number: u64,
        snapshot: Snapshot,
        history: &mut History,
        limits: &Limits,
        now: Time,
    ) -> Step {
        if !self.reading || number != self.begun {
            return Step::default();
        }
        let waited = !self.is_live() || self.awaited;
        (self.reading, self.ended) = (false, number);
        let mut stored = merge(snapshot, history, limits, now);
        let mut missing = std::mem::take(&mut self.overflowed);
        for message in std::mem::take(&mut self.held_back) {
            match take(message, history, limits, now) {
                Incoming::Stored => stored = true,
                Incoming::Known => {}
                Incoming::Gap => missing = true,
            }
        }
        self.held_bytes = 0;
        self.phase = if missing { Phase::Behind } else { Phase::Live };
        let want = if missing || self.unsure { self.ask() } else { None };
        Step { wake: stored || waited, want, stored }
    }

    /// The channel was read without a subscription, only to be looked at.
    pub fn refreshed(
        &mut self,
        snapshot: Snapshot,
        history: &mut History,
        limits: &Limits,
        now: Time,
    ) {
        if self.phase == Phase::Idle {
            merge(snapshot, history, limits, now);
        }
    }

    /// A message was pushed.
    pub fn pushed(
        &mut self,
        message: Message,
        history: &mut History,
        limits: &Limits,
        now: Time,
    ) -> Step {
        match self.phase {
            Phase::Idle | Phase::Joining => Step::default(),
            Phase::Behind => {
                self.hold_back(message);
                Step::default()
            }
            Phase::Live if is_next(&message, history) => {
                take(message, history, limits, now);
                Step { wake: true, want: None, stored: true }
            }
            Phase::Live if is_known(&message, history) => Step::default(),
            Phase::Live => {
                self.phase = Phase::Behind;
                self.hold_back(message);
                Step { wake: false, want: self.ask(), stored: false }
            }
        }
    }

    /// A message that was published from here has its position. It is taken at once if it can
    /// be; its push comes in any case.
    pub fn offered(
        &mut self,
        message: Message,
        history: &mut History,
        limits: &Limits,
        now: Time,
    ) -> Step {
        if !self.is_live() || !is_next(&message, history) {
            return Step::default();
        }
        self.pushed(message, history, limits, now)
    }

    /// The push of message `seq` has released so many polls: whoever published it wants to know,
    /// and may hear of its position later than of its push.
    pub fn released(&mut self, seq: u64, polls: usize) {
        const MAX: usize = 8;
        if self.released.len() == MAX {
            self.released.pop_front();
        }
        self.released.push_back((seq, polls));
    }

    /// How many polls the push of message `seq` has released.
    pub fn has_released(&self, seq: u64) -> usize {
        self.released.iter().find(|(of, _)| *of == seq).map_or(0, |(_, polls)| *polls)
    }

    fn hold_back(&mut self, message: Message) {
        let length = message.len();
        if self.overflowed
            || self.held_back.len() >= MAX_HELD_BACK
            || self.held_bytes + length > MAX_BYTES && !self.held_back.is_empty()
        {
            self.overflowed = true;
            return;
        }
        self.held_bytes += length;
        self.held_back.push_back(message);
    }

    fn drop_held(&mut self) {
        self.held_back = VecDeque::new();
        (self.held_bytes, self.overflowed) = (0, false);
    }
}

enum Incoming {
    Stored,
    Known,
    Gap,
}

fn is_next(message: &Message, history: &History) -> bool {
    let here = history.position();
    let Position { epoch, seq } = message.position;
    let first = history.is_void() && seq == 1 && message.stamp.0 > here.seq;
    epoch == here.epoch && seq == here.seq + 1 || first
}

fn is_known(message: &Message, history: &History) -> bool {
    let here = history.position();
    message.epoch() == here.epoch && message.position.seq <= here.seq && message.position.seq > 0
}

fn take(message: Message, history: &mut History, limits: &Limits, now: Time) -> Incoming {
    if is_known(&message, history) {
        return Incoming::Known;
    }
    if !is_next(&message, history) {
        return Incoming::Gap;
    }
    if history.is_void() {
        begin(history, message.epoch(), 0, Stamp(0), history.clock());
    }
    match history.accept(message, limits, now) {
        Accepted::Stored(_) => Incoming::Stored,
        Accepted::Known => Incoming::Known,
        Accepted::Gap => Incoming::Gap,
    }
}

fn begin(history: &mut History, epoch: Epoch, seq: u64, missing: Stamp, clock: Position) {
    history.begin(History::after(Position { epoch, seq }, missing, clock));
}

/// Brings `history` to where `snapshot` is; whether anything changed.
fn merge(snapshot: Snapshot, history: &mut History, limits: &Limits, now: Time) -> bool {
    let Snapshot { clock, place, messages } = snapshot;
    let Some(place) = place else {
        if history.is_void() && history.clock().epoch == clock.epoch {
            history.look_at(clock);
            return false;
        }
        history.begin(History::void(clock));
        return true;
    };
    let here = history.position();
    if place.position.epoch == here.epoch && place.position.seq <= here.seq {
        history.look_at(clock);
        return false;
    }
    let first = messages.first().map(|message| message.position.seq);
    let goes_on =
        place.position.epoch == here.epoch && first.is_some_and(|first| first <= here.seq + 1);
    if goes_on {
        history.look_at(clock);
    } else {
        let (seq, missing) = match messages.first() {
            // Only the stamps of earlier lives come before the first message of all.
            Some(message) if message.position.seq == 1 => (0, place.floor),
            Some(message) => {
                let before = Stamp(message.stamp.0.saturating_sub(1));
                (message.position.seq - 1, before.max(place.floor))
            }
            None => (place.position.seq, place.stamp.max(place.floor)),
        };
        begin(history, place.position.epoch, seq, missing, clock);
    }
    for message in messages {
        history.accept(message, limits, now);
    }
    true
}
