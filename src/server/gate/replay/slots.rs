//! UpstreamSlots at the site: so many polls of a rule are there at once, the others queue in the order in
//! which they came.

use crate::protocol::dialect::replay::Replay;
use crate::server::gate::route::Rule;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;

/// The turns of all rules. They belong to what a rule says, so that they outlive a reload that
/// leaves it as it is.
#[derive(Default)]
pub(super) struct UpstreamSlots {
    rules: Mutex<HashMap<String, Arc<Semaphore>>>,
    closed: AtomicBool,
}

impl UpstreamSlots {
    /// The turns of a rule.
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

    /// Whoever waits for a turn, or will, gets none.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.rules.lock().values().for_each(|turns| turns.close());
    }
}
