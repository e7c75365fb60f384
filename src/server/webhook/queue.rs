//! The bounded queue of one webhook.

use super::Event;
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// See the [module](self).
#[derive(Default)]
pub(super) struct Queue {
    events: Mutex<VecDeque<Event>>,
    filled: Notify,
}

impl Queue {
    /// Adds an event; false if there are `most` of them already.
    pub(super) fn push(&self, event: Event, most: usize) -> bool {
        let mut events = self.events.lock();
        if events.len() >= most {
            return false;
        }
        events.push_back(event);
        let first = events.len() == 1;
        drop(events);
        if first {
            self.filled.notify_one();
        }
        true
    }

    /// Waits until there is an event.
    pub(super) async fn filled(&self) {
        while self.is_empty() {
            self.filled.notified().await;
        }
    }

    /// The `most` oldest events. They stay here until they are [taken off](Self::take_off), so
    /// that none is forgotten that was not sent.
    pub(super) fn oldest(&self, most: usize) -> Vec<Event> {
        self.events.lock().iter().take(most).cloned().collect()
    }

    /// Takes the `count` oldest events off; returns how many there still were.
    pub(super) fn take_off(&self, count: usize) -> usize {
        let mut events = self.events.lock();
        let count = count.min(events.len());
        events.drain(..count);
        count
    }

    /// Empties the queue; returns the number of its events.
    pub(super) fn clear(&self) -> usize {
        self.take_off(usize::MAX)
    }

    pub(super) fn len(&self) -> usize {
        self.events.lock().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
