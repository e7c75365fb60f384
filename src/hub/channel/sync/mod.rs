//! A channel whose positions come from a sequencer, where other gates see it too: joining it,
//! keeping up with it, losing it.
//!
//! The sequencer's messages arrive in two ways: *pushes*, which may be lost, and *reads* of its
//! history, which are whole but late. A [`ReplicaState`] merges them into the channel's local
//! [`History`]. It does no I/O: its methods take events and return [`SyncRequest`]s.
//!
//! **Never a silent hole.** A push is taken only if it is the very next message. Any other one
//! shows that something is missing; then pushes are held back, and a read fills the hole or, where
//! that is impossible, the history begins anew, so that its cursors are reset.
//!
//! **Overflow.** At most [`MAX_HELD_BACK`] pushes wait for a read, of [`MAX_BYTES`] in all; further
//! ones are dropped, and read afterwards.

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

/// A request to the caller, which does the I/O. Each is made once until it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncRequest {
    /// Subscribe to the channel, then call [`ReplicaState::confirmed`].
    Join,
    /// Read the sequencer's history ([`ReplicaState::read_begins`]).
    Read,
}

/// The effect of an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The caller wakes the channel's waiters.
    pub wake: bool,
    /// The next request.
    pub want: Option<SyncRequest>,
    /// A message was new here.
    pub stored: bool,
}

/// The state of a channel at the sequencer, as one read found it.
#[derive(Debug)]
pub struct Snapshot {
    /// The sequencer's clock, just before the read.
    pub clock: Position,
    /// The channel's state; `None` = it does not exist there.
    pub place: Option<Start>,
    /// Its newest messages without a gap up to `place`: all that are kept, or those after the
    /// requested position.
    pub messages: Vec<Message>,
}

/// End of a channel's history.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Position just after its newest message.
    pub position: Position,
    /// The stamp of that message.
    pub stamp: Stamp,
    /// The newest stamp of its earlier lives; 0 = it had none.
    pub floor: Stamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No poll here has used the channel, or not for long.
    Idle,
    /// The subscription is requested and not confirmed.
    Joining,
    /// Subscribed; something may be missing.
    Behind,
    /// Subscribed; only messages still in transit are missing.
    Live,
}

/// See the [module](self).
#[derive(Debug)]
pub struct ReplicaState {
    phase: Phase,
    held_back: VecDeque<Message>,
    held_bytes: u64,
    overflowed: bool,
    /// Number of reads that have begun.
    begun: u64,
    /// Number of the latest read that succeeded.
    ended: u64,
    reading: bool,
    /// A read is requested and has not begun.
    asked: bool,
    /// A poll came that only a read which begins after it can place.
    unsure: bool,
    /// The running read was requested for such a poll.
    awaited: bool,
    /// Time of the channel's last poll.
    polled: Time,
    /// Number of polls that each of the newest pushes has released, by message number.
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

    /// True if only messages still in transit may be missing here.
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// True if the subscription is requested or confirmed.
    pub fn is_joined(&self) -> bool {
        self.phase != Phase::Idle
    }

    /// The channel is still in use.
    pub fn touch(&mut self, now: Time) {
        self.polled = now;
    }

    /// Time of the channel's last poll.
    pub fn last_polled(&self) -> Time {
        self.polled
    }

    /// A cursor came that cannot be placed here and may be from another gate. Returns the number of
    /// the read after which it can be placed; that read is requested from now on.
    pub fn is_unsure(&mut self) -> (u64, Option<SyncRequest>) {
        self.unsure = true;
        (self.begun + 1, self.ask())
    }

    /// True if that read is over.
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

    /// The subscription has ended; it is requested again.
    pub fn lost(&mut self) {
        if self.phase != Phase::Idle {
            self.stop(Phase::Joining);
        }
    }

    /// The subscription is given up, as the channel is not polled any more.
    pub fn left(&mut self) {
        self.stop(Phase::Idle);
    }

    fn stop(&mut self, phase: Phase) {
        self.phase = phase;
        self.drop_held();
        // The result of a running read comes too late: its number is not the newest any more.
        self.begun += u64::from(self.reading);
        self.unsure |= self.reading && self.awaited;
        self.reading = false;
        self.asked = false;
    }

    /// Requests a read, in case messages are missing.
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

    /// A read begins. Returns its number; `None` = it is not needed any more.
    pub fn read_begins(&mut self) -> Option<u64> {
        if self.reading || !matches!(self.phase, Phase::Behind | Phase::Live) {
            return None;
        }
        (self.reading, self.asked) = (true, false);
        self.awaited = std::mem::take(&mut self.unsure);
        self.begun += 1;
        Some(self.begun)
    }

    /// That read failed. The caller repeats it after a while.
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

    /// The channel was read without a subscription, only for display.
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

    /// A message that was published through this gate has its position. It is taken at once if
    /// possible; its push comes in any case.
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

    /// The push of message `seq` has released that many polls. Its publisher reports the number,
    /// and may learn the message's position later than the push arrives.
    pub fn released(&mut self, seq: u64, polls: usize) {
        const MAX: usize = 8;
        if self.released.len() == MAX {
            self.released.pop_front();
        }
        self.released.push_back((seq, polls));
    }

    /// Number of polls that the push of message `seq` has released.
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

/// Brings `history` to the state of `snapshot`; true if anything changed.
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
