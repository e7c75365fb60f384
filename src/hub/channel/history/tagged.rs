//! Cursors of clients that know a message by the second of its stamp and a number in it.
//!
//! The number, the *tag*, counts from 0 where all messages of that second are of this very life
//! and are known. Where others may have been in the same second (an earlier life, another process,
//! what was evicted before this history began), counting would name two messages alike: there the
//! tag names the stamp itself. So a tag never means another message than the one it was given
//! for, and a cursor that cannot be placed is reset.

use super::{Epoch, History, Lookup, Stamp, Take, Tick, Time};

/// One second in the unit of stamps, and the first tag that does not count.
const SECOND: u64 = 1_000_000;

/// A place in a channel's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// The stamp of the last message before it, or a time.
    pub stamp: Stamp,
    /// The tag of that message; `None` = it is a time.
    pub tag: Option<u64>,
}

impl Moment {
    /// The tag that names `stamp` itself, in any life.
    pub fn exact_tag(stamp: Stamp) -> u64 {
        SECOND + stamp.0 % SECOND
    }

    /// The tag that names `stamp` in the life `epoch` alone.
    pub(super) fn tag_in(epoch: Epoch, stamp: Stamp) -> u64 {
        // Epochs of histories are large; only the exact tags have 1 in this place.
        epoch.number().saturating_mul(SECOND).saturating_add(stamp.0 % SECOND)
    }

    /// The tag of the message here, or that of the time.
    pub fn shown_tag(self) -> u64 {
        self.tag.unwrap_or_else(|| Self::exact_tag(self.stamp))
    }
}

impl History {
    /// Another process may have had messages up to `stamp`, which this life cannot know.
    pub fn set_unknown(&mut self, stamp: Stamp) {
        self.unknown = stamp;
    }

    /// The tag of the newest message ever; that of its stamp where the message is not known.
    pub fn newest_tag(&self) -> u64 {
        self.quiet(self.newest_stamp).tag.unwrap_or_else(|| Moment::exact_tag(self.newest_stamp))
    }

    /// The tag of the next message.
    pub(super) fn next_tag(&self, stamp: Stamp) -> u64 {
        let second = stamp.second();
        let counted = match self.last {
            Some(last) if last.stamp.second() == second => {
                last.tag.filter(|tag| *tag < SECOND).map(|tag| tag + 1)
            }
            _ => (self.first_known().is_none_or(|known| known.second() < second)).then_some(0),
        };
        counted.filter(|tag| *tag < SECOND).unwrap_or_else(|| Moment::exact_tag(stamp))
    }

    /// All messages after this stamp are known; `None` = all.
    fn first_known(&self) -> Option<Stamp> {
        Some(self.evicted_stamp.max(self.unknown)).filter(|stamp| *stamp > Stamp(0))
    }

    /// Where a client is that has got none of the messages kept.
    pub(super) fn before_all(&self) -> Moment {
        match self.evicted_stamp >= self.unknown {
            true => Moment { stamp: self.evicted_stamp, tag: self.evicted_tag },
            false => Moment { stamp: self.unknown, tag: None },
        }
    }

    /// True if a message with this tag was stored here.
    pub(super) fn has_tag(&self, second: u64, tag: u64) -> bool {
        let last = self.last.map(|last| (last.stamp.second(), last.tag.unwrap_or_default()));
        last.is_some_and(|last| (second, tag) <= last)
    }

    pub(super) fn since_exactly(&self, stamp: Stamp, take: Take, tick: Tick, now: Time) -> Lookup {
        let is_ahead = stamp.0 > now.0 && stamp > self.newest_stamp;
        let is_known = self.first_known().is_none_or(|known| stamp >= known);
        if is_ahead || !is_known {
            return self.reset(take, tick, now);
        }
        if self.is_void() {
            return self.since_time(stamp.0, take, tick, now);
        }
        self.kept_from(self.ring.partition_point(|message| message.stamp <= stamp), take, tick, now)
    }

    pub(super) fn since_tag(
        &self,
        (second, tag): (u64, u64),
        take: Take,
        tick: Tick,
        now: Time,
    ) -> Lookup {
        if let Some(skip) = self.after_tag(second, tag) {
            return self.kept_from(skip, take, tick, now);
        }
        let start = second.saturating_mul(SECOND);
        if tag / SECOND == 1 {
            return self.since_exactly(Stamp(start.saturating_add(tag % SECOND)), take, tick, now);
        }
        // A second that is over and known as a whole: nothing is missing, whichever gate counted.
        let is_over = second < (now.0 / SECOND).max(self.newest_stamp.second());
        let is_known = self.first_known().is_none_or(|known| start > known.0);
        if tag < SECOND && is_over && is_known {
            let end = Stamp(start.saturating_add(SECOND - 1));
            return self.since_exactly(end, take, tick, now);
        }
        self.reset(take, tick, now)
    }

    /// How many of the kept messages come up to the one with this tag; `None` = it is not known.
    fn after_tag(&self, second: u64, tag: u64) -> Option<usize> {
        let is_it = |stamp: Stamp, its: u64| stamp.second() == second && its == tag;
        if self.evicted_tag.is_some_and(|its| is_it(self.evicted_stamp, its)) {
            return Some(0);
        }
        let from = self.ring.partition_point(|message| message.stamp.second() < second);
        let first = self.ring.get(from)?;
        // Counted tags of one second follow each other; others grow with the stamp.
        let at = match first.tag < SECOND {
            true => from + usize::try_from(tag.checked_sub(first.tag)?).ok()?,
            false => {
                let stamp = second.saturating_mul(SECOND).saturating_add(tag % SECOND);
                self.ring.partition_point(|message| message.stamp.0 < stamp)
            }
        };
        let message = self.ring.get(at)?;
        is_it(message.stamp, message.tag).then_some(at + 1)
    }

    pub(super) fn since_nth(&self, n: i32, take: Take, tick: Tick, now: Time) -> Lookup {
        let count = usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX);
        let skip = if n > 0 { count - 1 } else { self.ring.len().saturating_sub(count) };
        self.kept_from(skip.min(self.ring.len()), take, tick, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::channel::{Cursor, Limits, Payload};

    const START: u64 = 1_795_856_000;

    fn history(times: &[u64], limits: &Limits) -> History {
        let mut history = History::new(Epoch::from_random(7), Stamp(0));
        for (number, time) in times.iter().enumerate() {
            let now = Time(START * SECOND + time);
            history.push(Payload::text(number.to_string()), limits, now);
        }
        history
    }

    fn found(history: &History, cursor: Cursor) -> (bool, Vec<(u64, u64)>) {
        let now = Time((START + 60) * SECOND);
        let found = history.since(cursor, Take::All, Tick::Micros, now);
        let ids = found.messages.iter().map(|it| (it.stamp.second() - START, it.tag));
        (found.reset, ids.collect())
    }

    fn after(second: u64, tag: u64) -> Cursor {
        Cursor::Tagged { second: START + second, tag }
    }

    #[test]
    fn tags_count_within_their_second_and_place_a_client_exactly() {
        let history = history(&[0, 1, 2, 3_000_000, 3_000_001], &Limits::default());
        let all = vec![(0, 0), (0, 1), (0, 2), (3, 0), (3, 1)];
        assert_eq!(found(&history, Cursor::Oldest), (false, all.clone()));
        for (number, (second, tag)) in all.iter().enumerate() {
            let rest = all[number + 1..].to_vec();
            assert_eq!(found(&history, after(*second, *tag)), (false, rest));
        }
        let before = Cursor::Since(Stamp((START + 3) * SECOND - 1));
        assert_eq!(found(&history, before), (false, all[3..].to_vec()));
        assert_eq!(found(&history, Cursor::Nth(2)), (false, all[1..].to_vec()));
        assert_eq!(found(&history, Cursor::Nth(-2)), (false, all[3..].to_vec()));
        assert_eq!(found(&history, Cursor::Nth(-9)), (false, all.clone()));
        assert_eq!(found(&history, Cursor::Nth(9)), (false, Vec::new()));
    }

    #[test]
    fn what_was_evicted_is_a_gap_but_for_the_client_that_has_all_of_it() {
        let limits = Limits { messages: 2, ..Limits::default() };
        let history = history(&[0, 1, 2, 3], &limits);
        let kept = vec![(0, 2), (0, 3)];
        assert_eq!(found(&history, after(0, 0)), (true, kept.clone()));
        assert_eq!(found(&history, after(0, 1)), (false, kept.clone()));
        assert_eq!(found(&history, after(0, 2)), (false, vec![(0, 3)]));
        assert_eq!(found(&history, Cursor::Since(Stamp(START * SECOND - 1))), (true, kept));
    }

    #[test]
    fn the_future_and_numbers_that_were_never_given_are_reset() {
        let history = history(&[0, 59_900_000], &Limits::default());
        let all = vec![(0, 0), (59, 0)];
        for cursor in [after(61, 0), after(99_999, 0), after(59, 1), after(60, 0)] {
            let reset = found(&history, cursor);
            let is_current =
                matches!(cursor, Cursor::Tagged { second, .. } if second == START + 59);
            // The second 59 is over, and nothing came in it any more.
            assert_eq!(reset, if is_current { (false, vec![]) } else { (true, all.clone()) });
        }
        assert_eq!(found(&history, Cursor::Since(Stamp(u64::MAX))), (true, all.clone()));
        assert_eq!(found(&history, after(u64::MAX - START, u64::MAX)), (true, all));
        // A second that is over and had no such message hides nothing.
        assert_eq!(found(&history, after(30, 4)), (false, vec![(59, 0)]));
    }

    #[test]
    fn a_second_shared_with_another_life_names_stamps_and_not_numbers() {
        let limits = Limits::default();
        let mut history = History::new(Epoch::from_random(7), Stamp(START * SECOND + 5));
        history.push(Payload::text("a"), &limits, Time(START * SECOND + 9));
        history.push(Payload::text("b"), &limits, Time(START * SECOND + 10));
        history.push(Payload::text("c"), &limits, Time((START + 1) * SECOND));
        let all = vec![(0, SECOND + 9), (0, SECOND + 10), (1, 0)];
        assert_eq!(found(&history, after(0, 0)), (true, all.clone()));
        assert_eq!(found(&history, after(0, SECOND + 9)), (false, all[1..].to_vec()));
        assert_eq!(found(&history, after(0, SECOND + 5)), (false, all.clone()));
        assert_eq!(found(&history, after(0, SECOND + 4)), (true, all));
    }

    #[test]
    fn after_a_crash_old_cursors_are_reset_once_and_new_ones_are_good() {
        let mut history = history(&[0, 1], &Limits::default());
        history.doubt(Epoch::from_random(8), Stamp((START + 50) * SECOND));
        let (reset, again) = found(&history, after(0, 0));
        assert!(reset && again.len() == 2 && again.iter().all(|(_, tag)| *tag > 2 * SECOND));
        let (second, tag) = again[0];
        assert_eq!(found(&history, after(second, tag)), (false, again[1..].to_vec()));
        let (second, tag) = again[1];
        assert_eq!(found(&history, after(second, tag)), (false, Vec::new()));
    }

    #[test]
    fn before_the_process_began_nothing_is_known() {
        let mut history = History::new(Epoch::from_random(7), Stamp(0));
        history.set_unknown(Stamp((START + 2) * SECOND + 7));
        assert_eq!(found(&history, after(1, 0)), (true, Vec::new()));
        assert_eq!(found(&history, after(2, 0)), (true, Vec::new()));
        assert_eq!(found(&history, after(3, 0)), (false, Vec::new()));
    }
}
