//! Counters and histograms, and their text form for Prometheus.
//!
//! A count on every poll is a relaxed addition to an atomic: no lock, nothing allocated, no name
//! looked up. The libraries at hand keep a histogram behind a lock and a labelled counter in a map,
//! which would stand in the way of every delivery. Reading is not atomic over several numbers; each
//! by itself is true.
//!
//! Labels are enums ([`labels`]), so a series exists from the start, and no client can make one.
//! The only names from outside are those of [`Watched`], which the config lists.

use super::channel_series::Watched;
use super::refusal::Refusal;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The values of one label.
pub trait Label: Copy + 'static {
    /// All of them, in the order of [`Label::index`].
    const ALL: &'static [Self];

    /// The value as it is written.
    fn as_str(self) -> &'static str;

    /// Its index in [`Label::ALL`].
    fn index(self) -> usize;
}

/// Declares an enum as a [`Label`]; a further value is a further line.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$value_doc])* $value,)+ }

        impl $crate::server::telemetry::metrics::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$value),+];

            fn as_str(self) -> &'static str {
                match self { $(Self::$value => $word),+ }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(crate) use labels;

/// A counter for each value of a label.
#[derive(Debug)]
pub struct Counts<L> {
    counts: Box<[AtomicU64]>,
    label: PhantomData<L>,
}

impl<L: Label> Default for Counts<L> {
    fn default() -> Self {
        Self { counts: L::ALL.iter().map(|_| AtomicU64::new(0)).collect(), label: PhantomData }
    }
}

impl<L: Label> Counts<L> {
    /// Counts one.
    pub fn count(&self, label: L) {
        self.add(label, 1);
    }

    /// Counts several.
    pub fn add(&self, label: L, several: u64) {
        self.counts[label.index()].fetch_add(several, Ordering::Relaxed);
    }

    /// The count of `label`.
    pub fn of(&self, label: L) -> u64 {
        self.counts[label.index()].load(Ordering::Relaxed)
    }

    /// All of it.
    pub fn all(&self) -> impl Iterator<Item = (L, u64)> {
        L::ALL.iter().map(|label| (*label, self.of(*label)))
    }

    /// The sum of all counts.
    pub fn sum(&self) -> u64 {
        self.all().map(|(_, count)| count).sum()
    }
}

/// A histogram of durations.
#[derive(Debug)]
pub struct Histogram {
    /// The upper bounds of all buckets but the last, which has none, in microseconds.
    pub(super) bounds: &'static [u64],
    pub(super) buckets: Box<[AtomicU64]>,
    /// Microseconds; at a hundred thousand held polls they overflow after five years.
    sum: AtomicU64,
}

impl Histogram {
    /// Buckets up to each of `bounds`, which are microseconds and grow, and one beyond.
    pub fn new(bounds: &'static [u64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0) }
    }

    /// Counts one.
    pub fn observe(&self, time: Duration) {
        let micros = u64::try_from(time.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
        let bucket = self.bounds.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// Number of observations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// The sum of all, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 / 1e6
    }
}

/// Metrics that both listeners and all sources of messages share.
#[derive(Debug, Default)]
pub struct SharedMetrics {
    /// Requests refused.
    pub refusals: Counts<Refusal>,
    /// Channels with series of their own.
    pub watched: Watched,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(unreachable_pub)]
    mod word {
        crate::server::telemetry::metrics::labels! {
        /// Two words.
        Word {
            /// One.
            Yes = "yes",
            /// The other.
            No = "no",
        }
        }
    }
    use word::Word;

    #[test]
    fn every_label_has_its_own_count_from_the_start() {
        let counts = Counts::<Word>::default();
        counts.count(Word::No);
        counts.add(Word::No, 2);
        let all: Vec<_> = counts.all().map(|(label, count)| (label.as_str(), count)).collect();
        assert_eq!(all, [("yes", 0), ("no", 3)]);
        assert_eq!((counts.of(Word::No), counts.sum()), (3, 3));
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&[1_000, 10_000]);
        for micros in [0, 1_000, 1_001, 10_000, 10_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        histogram.observe(Duration::MAX);
        let counts: Vec<u64> =
            histogram.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        assert_eq!((counts, histogram.count()), (vec![2, 2, 2], 6));
    }
}
