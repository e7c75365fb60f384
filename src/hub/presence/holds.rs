//! The holds of one user of a channel, or of its clients without a name.
//!
//! A client that polls on and on ends a hold and begins the next one a moment later, and nothing
//! follows from it: its user is there, and a deadline that ends its grace stands in the wheel. In
//! that state the room *lends* the number of holds to this record, where they begin and end with
//! one atomic operation. All other steps are the room's, under its lock: it recalls the number
//! first, and from then on no hold begins or ends here until it is lent again.

use crate::hub::channel::{ChannelName, Time};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) struct Holds {
    pub(super) channel: ChannelName,
    /// `None` = clients without a name.
    pub(super) user: Option<Arc<str>>,
    /// While the number is lent: [`LENT`], the number of holds, and the second in which the last
    /// grace ends; else 0. One word, so that a hold never ends without its grace.
    word: AtomicU64,
}

const LENT: u64 = 1 << 63;
const ONE: u64 = 1 << 32;
/// The largest number of holds that is lent.
const MAX_HELD: u32 = u32::MAX >> 2;

fn held(word: u64) -> u32 {
    // Masked, so that it fits.
    ((word & !LENT) >> 32) as u32
}

fn until(word: u64) -> u64 {
    word & (ONE - 1)
}

/// Whole seconds, not before `time`.
fn seconds(time: Time) -> u64 {
    time.0.div_ceil(1_000_000).min(ONE - 1)
}

impl Holds {
    pub(super) fn new(channel: ChannelName, user: Option<Arc<str>>) -> Arc<Self> {
        Arc::new(Self { channel, user, word: AtomicU64::new(0) })
    }

    /// Begins a hold, if the number is lent.
    pub(super) fn begin(&self) -> bool {
        let begun = |word| (word & LENT != 0 && held(word) < MAX_HELD).then(|| word + ONE);
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, begun).is_ok()
    }

    /// Ends a hold with a grace until then, if the number is lent.
    pub(super) fn end(&self, grace_until: Time) -> bool {
        let grace = seconds(grace_until);
        let ended = |word| {
            let rest = (word & LENT != 0 && held(word) > 0).then(|| word - ONE)?;
            Some(rest - until(rest) + until(rest).max(grace))
        };
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, ended).is_ok()
    }

    /// Lends the number of holds.
    pub(super) fn lend(&self, held: u32) {
        if held <= MAX_HELD {
            self.word.store(LENT | u64::from(held) << 32, Ordering::Release);
        }
    }

    /// Takes the number back, together with the end of the last grace; `None` = it is not lent.
    pub(super) fn recall(&self) -> Option<(u32, Time)> {
        let word = self.word.swap(0, Ordering::AcqRel);
        (word & LENT != 0).then(|| (held(word), Time(until(word) * 1_000_000)))
    }

    /// The number of holds, if it is lent.
    pub(super) fn count(&self) -> Option<u32> {
        let word = self.word.load(Ordering::Acquire);
        (word & LENT != 0).then(|| held(word))
    }
}
