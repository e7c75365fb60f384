//! All that was published and all that anybody was told of it, and what may be missing or doubled.

use super::{BRIEF, CHANNELS};
use std::collections::{BTreeMap, BTreeSet};

/// All that was published and all that anybody was told of it.
#[derive(Default)]
pub(crate) struct Ledger {
    /// By channel and epoch: which number stands at which position.
    epochs: [BTreeMap<String, BTreeMap<u64, u64>>; CHANNELS.len()],
    /// By channel and number.
    pub(crate) published: [Vec<Published>; CHANNELS.len()],
    /// The lives that were ended by a kill.
    pub(crate) killed: BTreeSet<u64>,
}

/// How one number was published. Each attempt came to one of the lives from its first to its
/// second.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) confirmed: (u64, u64),
    /// The publisher left before the answer.
    pub(crate) left: Vec<(u64, u64)>,
    /// The gate closed the connection before the answer.
    pub(crate) cut_off: Vec<(u64, u64)>,
}

impl Ledger {
    /// Somebody was told that this number has this id.
    pub(crate) fn note(&mut self, channel: usize, id: &str, number: u64) -> (String, u64) {
        let (epoch, seq) = id.rsplit_once('-').unwrap_or_else(|| panic!("an id {id:?}"));
        let seq = seq.parse().unwrap();
        let epochs = &mut self.epochs[channel];
        let there = *epochs.entry(epoch.into()).or_default().entry(seq).or_insert(number);
        assert_eq!(there, number, "{}: two messages with the id {id}", CHANNELS[channel]);
        (epoch.into(), seq)
    }

    /// Goes through every epoch; how many numbers came twice in one.
    pub(crate) fn check(&self) -> usize {
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
            let follows = before.map_or(channel != BRIEF, |(before, _)| seq == before + 1);
            for missing in (next..number).filter(|_| follows) {
                let is_lost = self.may_be_lost(channel, missing, number);
                assert!(is_lost, "{story}: {number} at {seq} after {before:?}, {missing} is lost");
            }
            before = Some((seq, number));
        }
        let doubled = copies.iter().filter(|(_, copies)| **copies > 1);
        doubled
            .inspect(|&(&number, &copies)| {
                let (lives, how) =
                    (self.lives(channel, number), &self.published[channel][number as usize]);
                assert!(copies <= lives, "{story}: {number} came {copies} times: {how:?}");
            })
            .count()
    }

    /// Whether a kill came after `missing` was confirmed and before `next` was.
    fn may_be_lost(&self, channel: usize, missing: u64, next: u64) -> bool {
        let published = |number: u64| &self.published[channel][number as usize];
        let lives = published(missing).confirmed.0..published(next).confirmed.1;
        self.killed.range(lives).next().is_some()
    }

    /// In how many lives a number may have been published.
    fn lives(&self, channel: usize, number: u64) -> usize {
        let published = &self.published[channel][number as usize];
        let sure = published.left.iter().chain([&published.confirmed]);
        let mut lives: BTreeSet<u64> = sure.flat_map(|&(first, last)| first..=last).collect();
        let cut_off = published.cut_off.iter().flat_map(|&(first, last)| first..=last);
        lives.extend(cut_off.filter(|life| self.killed.contains(life)));
        lives.len()
    }
}
