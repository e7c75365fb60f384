//! All messages published and all ids returned for them, and the rules for missing and repeated
//! ones.

use super::{BRIEF, CAPTURED, CHANNELS, FILE};
use std::collections::{BTreeMap, BTreeSet};

/// All messages published and all ids returned for them.
#[derive(Default)]
pub(crate) struct Ledger {
    /// By channel and epoch: which number stands at which position.
    epochs: [BTreeMap<String, BTreeMap<u64, u64>>; CHANNELS.len()],
    /// By channel and number.
    pub(crate) published: [Vec<Published>; CHANNELS.len()],
    /// The lives that were ended by a kill.
    pub(crate) killed: BTreeSet<u64>,
    /// The lives that one process and its successor had together.
    pub(crate) shared: BTreeSet<u64>,
    /// By channel: from where to where clients went that see no positions, and their story.
    steps: [BTreeMap<(u64, u64), String>; CHANNELS.len()],
}

/// The attempts to publish one number. Each reached one of the lives from its first to its second.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) confirmed: (u64, u64),
    /// In microseconds, if an answer contains it.
    pub(crate) stamp: u64,
    /// The publisher left before the answer.
    pub(crate) left: Vec<(u64, u64)>,
    /// The gate closed the connection before the answer.
    pub(crate) cut_off: Vec<(u64, u64)>,
}

impl Ledger {
    /// A client got this number with this id.
    pub(crate) fn note(&mut self, channel: usize, id: &str, number: u64) -> (String, u64) {
        let (epoch, seq) = id.rsplit_once('-').unwrap_or_else(|| panic!("an id {id:?}"));
        let seq = seq.parse().unwrap();
        let epochs = &mut self.epochs[channel];
        let there = *epochs.entry(epoch.into()).or_default().entry(seq).or_insert(number);
        assert_eq!(there, number, "{}: two messages with the id {id}", CHANNELS[channel]);
        (epoch.into(), seq)
    }

    /// A client that sees no positions got `number` after `last`.
    pub(crate) fn stepped(&mut self, channel: usize, last: Option<u64>, number: u64, story: &str) {
        let next = last.map_or(0, |last| last + 1);
        // A first poll begins with the oldest message.
        if number != next {
            self.steps[channel].entry((next, number)).or_insert_with(|| story.to_owned());
        }
    }

    /// Goes through every epoch; how many numbers came twice in one.
    pub(crate) fn check(&self) -> usize {
        for (channel, steps) in self.steps.iter().enumerate() {
            for ((next, number), story) in steps {
                // The one before may come again, if it was published again.
                let again = number + 1 == *next && self.times(channel, *number) > 1;
                let mut missing = *next..*number;
                let lost = missing.all(|missing| self.may_be_lost(channel, missing, *number));
                assert!(again || (number > next && lost), "{next} was next: {story}");
            }
        }
        let mut doubled = 0;
        for (channel, epochs) in self.epochs.iter().enumerate() {
            for (epoch, numbers) in epochs {
                let story = format!("{} in epoch {epoch}", CHANNELS[channel]);
                doubled += self.check_epoch(channel, numbers, &story);
            }
        }
        doubled
    }

    fn check_epoch(&self, channel: usize, numbers: &BTreeMap<u64, u64>, story: &str) -> usize {
        let mut copies = BTreeMap::<u64, usize>::new();
        let mut before: Option<(u64, u64)> = None;
        for (&seq, &number) in numbers {
            *copies.entry(number).or_default() += 1;
            let next = before.map_or(0, |(_, number)| number + 1);
            assert!(number + 1 >= next, "{story}: {number} at {seq} after {before:?}");
            if channel == FILE {
                assert!(number >= next, "{story}: {number} is told of again at {seq}");
                before = Some((seq, number));
                continue;
            }
            let follows = before.map_or(channel != BRIEF, |(before, _)| seq == before + 1);
            for missing in (next..number).filter(|_| follows) {
                let is_lost = self.may_be_lost(channel, missing, number);
                assert!(is_lost, "{story}: {number} at {seq} after {before:?}, {missing} is lost");
            }
            before = Some((seq, number));
        }
        if channel == FILE {
            return 0;
        }
        let doubled = copies.iter().filter(|(_, copies)| **copies > 1);
        doubled
            .inspect(|&(&number, &copies)| {
                let times = self.times(channel, number);
                let how = &self.published[channel][number as usize];
                assert!(copies <= times, "{story}: {number} came {copies} times: {how:?}");
            })
            .count()
    }

    /// True if a kill came after `missing` was confirmed and before `next` was.
    fn may_be_lost(&self, channel: usize, missing: u64, next: u64) -> bool {
        let published = |number: u64| &self.published[channel][number as usize];
        let lives = published(missing).confirmed.0..published(next).confirmed.1;
        self.killed.range(lives).next().is_some()
    }

    /// Number of times that a number may have been published: the stored reply of a key is passed
    /// on from life to life, unless a kill ends one. Captured messages have no key, so each attempt
    /// without an answer may have been a message.
    fn times(&self, channel: usize, number: u64) -> usize {
        let published = &self.published[channel][number as usize];
        if channel == CAPTURED {
            return 1 + published.left.len() + published.cut_off.len();
        }
        let sure = published.left.iter().chain([&published.confirmed]);
        let mut lives: BTreeSet<u64> = sure.flat_map(|&(first, last)| first..=last).collect();
        let cut_off = published.cut_off.iter().flat_map(|&(first, last)| first..=last);
        lives.extend(cut_off.filter(|life| self.killed.contains(life)));
        let kills = lives.iter().map(|life| self.killed.range(..life).count());
        kills.collect::<BTreeSet<_>>().len()
    }
}
