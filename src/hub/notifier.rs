//! The notifier of one held poll: a publish notifies it, one task waits on it.

use atomic_waker::AtomicWaker;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// Shared between a waiter and the channels it is registered on.
#[derive(Debug, Default)]
pub(super) struct Notifier {
    /// A publish or another caller has claimed this poll and will wake it.
    claimed: AtomicBool,
    waker: AtomicWaker,
}

impl Notifier {
    /// Claims the poll. True for the first claim: of several concurrent publishes, one counts it as
    /// released.
    pub(super) fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }

    /// Wakes the waiting task. Only useful after [`Notifier::claim`].
    pub(super) fn notify(&self) {
        self.waker.wake();
    }

    /// Ready once claimed, and then unclaimed again.
    pub(super) fn poll_claimed(&self, context: &mut Context<'_>) -> Poll<()> {
        // Registered before the look, so that a claim in between finds the waker.
        self.waker.register(context.waker());
        if self.claimed.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Wakes one held poll from outside, so that it looks at changes beside its channels.
#[derive(Clone)]
pub struct WakeHandle(pub(super) std::sync::Arc<Notifier>);

impl WakeHandle {
    /// Wakes the poll, unless another caller has claimed it.
    pub fn notify(&self) {
        if self.0.claim() {
            self.0.notify();
        }
    }
}
