//! The bell of one held poll: rung by a publish, listened to by one task.

use atomic_waker::AtomicWaker;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// Shared between a waiter and the channels it is registered on.
#[derive(Debug, Default)]
pub(super) struct Notifier {
    /// Somebody has taken it upon them to release this poll.
    claimed: AtomicBool,
    waker: AtomicWaker,
}

impl Notifier {
    /// Claims the poll. True for the first to do so: of several publishes at once, one counts
    /// it as released.
    pub(super) fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }

    /// Wakes the task that listens. Only useful after [`Notifier::claim`].
    pub(super) fn notify(&self) {
        self.waker.wake();
    }

    /// Ready once claimed; then the bell is as new.
    pub(super) fn poll_claimed(&self, context: &mut Context<'_>) -> Poll<()> {
        // Registered before the look, so that a claim in between finds the waker.
        self.waker.register(context.waker());
        if self.claimed.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Rings one held poll from outside, so that it looks at what has changed beside its channels.
#[derive(Clone)]
pub struct WakeHandle(pub(super) std::sync::Arc<Notifier>);

impl WakeHandle {
    /// Wakes the poll, unless somebody else is about to.
    pub fn notify(&self) {
        if self.0.claim() {
            self.0.notify();
        }
    }
}
