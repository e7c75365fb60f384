//! What the public side has done, and what is under way.

use super::Gate;
use super::hold::Cause;
use crate::hub::Answer;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What the public side has done since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages in answers.
    pub deliveries: AtomicU64,
    /// Polls answered with a message.
    pub messages: AtomicU64,
    /// Polls answered quiet at their timeout.
    pub timeouts: AtomicU64,
    /// Polls whose client left.
    pub gone: AtomicU64,
    /// Polls answered because the gate is to end.
    pub drains: AtomicU64,
    /// Polls answered with lost continuity.
    pub resets: AtomicU64,
    /// Polls refused.
    pub refusals: AtomicU64,
    /// Requests under way now, held or forwarded.
    pub(super) open: AtomicUsize,
    /// Connections now.
    pub(super) connections: AtomicUsize,
}

/// Counts one connection until it is dropped.
pub struct Connected(pub(super) Gate);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.shared.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one request as under way until it is dropped.
pub struct Open(pub(super) Gate);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.shared.counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    pub(super) fn count(&self, cause: Cause, answer: Option<&Answer>) {
        let counter = match cause {
            Cause::Message => &self.messages,
            Cause::Reset => &self.resets,
            Cause::Timeout => &self.timeouts,
            Cause::Gone => &self.gone,
            Cause::Drain => &self.drains,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let messages =
            answer.map_or(0, |a| a.iter().map(|h| h.found.messages.len()).sum::<usize>());
        self.deliveries.fetch_add(messages as u64, Ordering::Relaxed);
    }
}
