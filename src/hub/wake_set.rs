//! The wakes that a publish leaves to its caller.

use super::notifier::Notifier;
use slab::Slab;
use std::fmt;
use std::sync::Arc;

/// The waiters that a publish has taken off its channel, for waking in batches.
///
/// Dropping it wakes the rest: a wake cannot be lost, only be late.
#[derive(Default)]
pub struct WakeSet {
    pub(super) notifiers: Vec<Arc<Notifier>>,
}

impl WakeSet {
    pub(super) fn new(waiters: Slab<Arc<Notifier>>) -> Self {
        Self { notifiers: waiters.into_iter().map(|(_, notifier)| notifier).collect() }
    }

    /// Claims the polls for this publish and returns how many it releases: those that no other
    /// publish has claimed before. Only those remain in the set.
    pub fn claim(&mut self) -> usize {
        self.notifiers.retain(|notifier| notifier.claim());
        self.notifiers.len()
    }

    /// Number of polls still to wake.
    pub fn len(&self) -> usize {
        self.notifiers.len()
    }

    /// True if all were woken.
    pub fn is_empty(&self) -> bool {
        self.notifiers.is_empty()
    }

    /// Wakes at most `most` of the claimed polls; true while there are more.
    pub fn notify(&mut self, most: usize) -> bool {
        let rest = self.notifiers.len().saturating_sub(most);
        for notifier in self.notifiers.drain(rest..) {
            notifier.notify();
        }
        !self.notifiers.is_empty()
    }
}

impl Drop for WakeSet {
    fn drop(&mut self) {
        for notifier in self.notifiers.drain(..) {
            notifier.claim();
            notifier.notify();
        }
    }
}

impl fmt::Debug for WakeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WakeSet({})", self.notifiers.len())
    }
}
