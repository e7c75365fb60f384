//! Slots at the upstream: a rule forwards so many polls at once, the others queue in the order in
//! which they came.

use crate::protocol::dialect::replay::Replay;
use crate::server::gate::route::Rule;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;

/// The slots of all rules. They are keyed by the rule's settings, so that they outlive a reload
/// that does not change it.
#[derive(Default)]
pub(super) struct UpstreamSlots {
    rules: Mutex<HashMap<String, Arc<Semaphore>>>,
    closed: AtomicBool,
}

impl UpstreamSlots {
    /// The slots of a rule.
    pub(super) fn of(&self, rule: &Rule, replay: &Replay) -> Arc<Semaphore> {
        let key = format!("{:?} {} {}", rule.path, replay.channel, replay.concurrency);
        let mut rules = self.rules.lock();
        let turns = rules.entry(key);
        let turns = turns.or_insert_with(|| Arc::new(Semaphore::new(replay.concurrency))).clone();
        if self.closed.load(Ordering::SeqCst) {
            turns.close();
        }
        turns
    }

    /// Ends all present and future waits for a slot without one.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.rules.lock().values().for_each(|turns| turns.close());
    }
}
