//! A history that outlives its process: the part that is saved, and its continuation.

use super::{History, Limits, Moment};
use crate::hub::channel::cursor::{Epoch, Position};
use crate::hub::channel::message::{Message, Payload};
use crate::hub::channel::stamp::{Stamp, Time};
use std::sync::Arc;

/// A history without its messages: its position and the bounds of its stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Persisted {
    /// The position of the newest message ever.
    pub position: Position,
    /// Its stamp; 0 = there has been none.
    pub newest_stamp: Stamp,
    /// All future stamps are above it.
    pub floor: Stamp,
    /// Up to this stamp messages may have been evicted; 0 = none were.
    pub evicted_stamp: Stamp,
}

/// One kept message, without the position that follows from its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptMessage {
    /// Its stamp.
    pub stamp: Stamp,
    /// Time of its publish.
    pub published: Time,
    /// Its content.
    pub payload: Payload,
}

impl History {
    /// The state to save; [`History::resume`] makes the history again.
    pub fn kept(&self) -> (Persisted, Vec<Arc<Message>>) {
        let kept = Persisted {
            position: self.position(),
            newest_stamp: self.newest_stamp,
            floor: self.floor,
            evicted_stamp: self.evicted_stamp,
        };
        (kept, self.ring.iter().cloned().collect())
    }

    /// A history that continues where `kept` ended, still without its `messages` messages: the
    /// caller returns those with [`History::give_back`].
    pub fn resume(kept: &Persisted, messages: u64) -> Self {
        let mut history = Self::new(kept.position.epoch, kept.floor);
        history.newest = kept.position.seq.saturating_sub(messages);
        history.newest_stamp = kept.newest_stamp;
        history.evicted_stamp = kept.evicted_stamp;
        history
    }

    /// Puts back the next of the kept messages, oldest first, and evicts messages beyond the
    /// limits.
    pub fn give_back(&mut self, message: KeptMessage, limits: &Limits, now: Time) {
        let KeptMessage { stamp, published, payload } = message;
        let newest_stamp = self.newest_stamp;
        let position = Position { epoch: self.epoch, seq: self.newest.saturating_add(1) };
        self.store(Message { position, stamp, tag: 0, published, payload }, limits, now);
        // Its stamp outlives the newest message.
        self.newest_stamp = newest_stamp.max(stamp);
    }

    /// Begins a new life with the messages of the old one, whose end is unknown: positions were
    /// given out that this history has not seen. So its old cursors are reset, and clients that
    /// only ask if something has changed find a change.
    pub fn doubt(&mut self, epoch: Epoch, now: Stamp) {
        self.epoch = epoch;
        self.floor = self.floor.max(self.newest_stamp).max(now);
        self.evicted_stamp = self.evicted_stamp.max(self.floor);
        (self.last, self.evicted_tag) = (None, None);
        if self.newest > 0 {
            self.newest_stamp = self.floor;
        }
        for message in &mut self.ring {
            let position = Position { epoch, seq: message.position.seq };
            let stamp = message.stamp;
            let published = message.published;
            let payload = message.payload.clone();
            let tag = Moment::tag_in(epoch, stamp);
            *message = Arc::new(Message { position, stamp, tag, published, payload });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::channel::{Cursor, Take, Tick};

    const EPOCH: u64 = 7;

    fn history(limits: &Limits) -> History {
        let mut history = History::new(Epoch::from_random(EPOCH), Stamp(40));
        for second in 1..=4 {
            history.push(Payload::text(format!("{second}")), limits, Time(second * 1_000_000));
        }
        history
    }

    fn again(history: &History, limits: &Limits, now: Time) -> History {
        let (kept, messages) = history.kept();
        let mut again = History::resume(&kept, messages.len() as u64);
        for message in messages {
            let stamp = message.stamp;
            let published = message.published;
            let payload = message.payload.clone();
            again.give_back(KeptMessage { stamp, published, payload }, limits, now);
        }
        again
    }

    #[test]
    fn a_history_goes_on_where_it_ended() {
        let limits = Limits { messages: 2, ..Limits::default() };
        let old = history(&limits);
        let now = Time(5_000_000);
        let mut new = again(&old, &limits, now);
        assert_eq!(new.kept().0, old.kept().0);
        for cursor in [Cursor::At(old.position()), Cursor::Oldest, Cursor::After(Stamp(3_000_000))]
        {
            let a = old.since(cursor, Take::All, Tick::Micros, now);
            let b = { new.since(cursor, Take::All, Tick::Micros, now) };
            assert_eq!(
                (a.has_update, a.reset, a.position, a.stamp),
                (b.has_update, b.reset, b.position, b.stamp)
            );
            assert_eq!(a.messages.len(), b.messages.len());
        }
        assert_eq!(new.push(Payload::empty(), &limits, now).position.seq, 5);
    }

    #[test]
    fn what_has_grown_too_old_meanwhile_is_evicted_and_its_place_is_not_forgotten() {
        let limits = Limits::default();
        let old = history(&limits);
        let new = again(&old, &limits, Time(500_000_000));
        assert!(new.is_empty());
        assert_eq!((new.position(), new.newest_stamp()), (old.position(), old.newest_stamp()));
        let place = Position { seq: 2, ..old.position() };
        let found = new.since(Cursor::At(place), Take::All, Tick::Micros, Time(500_000_000));
        assert!(found.has_update && found.reset);
    }

    #[test]
    fn in_doubt_old_cursors_are_reset_and_everything_counts_as_changed() {
        let limits = Limits::default();
        let mut new = history(&limits);
        let before = new.position();
        let now = Time(6_000_000);
        new.doubt(Epoch::from_random(8), Stamp(5_500_000));
        let find = |cursor| new.since(cursor, Take::All, Tick::Micros, now);
        let found = find(Cursor::At(before));
        assert!(found.reset);
        assert_eq!(found.messages.len(), 4);
        assert!(found.messages.iter().all(|message| message.epoch() == new.position().epoch));
        assert!(!find(Cursor::At(found.position)).has_update, "the answer's cursor is good");
        let after = Some(Stamp(5_000_000));
        let slack = std::time::Duration::ZERO;
        let changed = find(Cursor::Changed { after, slack });
        let again = Cursor::Changed { after: Some(changed.stamp), slack };
        assert_eq!((changed.has_update, find(again).has_update), (true, false));
        assert!(new.push(Payload::empty(), &limits, Time(1)).stamp > Stamp(5_500_000));
    }
}
