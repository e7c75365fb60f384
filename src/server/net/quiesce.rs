//! Where things are done from now on, with a way to stop them in between.
//!
//! Whoever does something passes first, and keeps the pass until it is done. [`Quiesce::stop`]
//! waits until all that have passed are done, and keeps the others waiting; so between the stop
//! and what follows it nothing changes. Those who waited then learn the new place. A stop waits
//! behind those before it, and those who come later wait behind the stop.

use std::sync::Arc;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, RwLockReadGuard};

/// Where something is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Target<O> {
    /// In this process.
    #[default]
    Local,
    /// In another process, which is told by this.
    Successor(O),
    /// Closed any more: the gate has ended.
    Closed,
}

/// See the [module](self); a cheap handle.
#[derive(Debug, Default)]
pub struct Quiesce<P> {
    place: Arc<RwLock<P>>,
}

impl<P> Clone for Quiesce<P> {
    fn clone(&self) -> Self {
        Self { place: self.place.clone() }
    }
}

impl<P> Quiesce<P> {
    /// Passes, and tells the place. Cancelling it leaves nothing behind.
    pub async fn pass(&self) -> RwLockReadGuard<'_, P> {
        self.place.read().await
    }

    /// Waits until nobody is within, and stops those who come.
    pub async fn stop(&self) -> Quiesced<P> {
        Quiesced(self.place.clone().write_owned().await)
    }
}

/// Everybody waits while this is there. Dropping it lets them pass as before.
#[derive(Debug)]
pub struct Quiesced<P>(OwnedRwLockWriteGuard<P>);

impl<P> Quiesced<P> {
    /// Lets everybody pass, to `place` from now on.
    pub fn resume(mut self, place: P) {
        *self.0 = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_waits_for_those_within_and_the_others_for_it() {
        let quiesce = Quiesce::<u8>::default();
        let within = quiesce.pass().await;
        let stopping = tokio::spawn({
            let quiesce = quiesce.clone();
            async move { quiesce.stop().await }
        });
        tokio::task::yield_now().await;
        assert!(!stopping.is_finished());
        drop(within);
        let stopped = stopping.await;
        let later = tokio::spawn({
            let quiesce = quiesce.clone();
            async move { *quiesce.pass().await }
        });
        tokio::task::yield_now().await;
        assert!(!later.is_finished());
        assert!(stopped.is_ok_and(|stopped| {
            stopped.resume(7);
            true
        }));
        assert!(later.await.is_ok_and(|place| place == 7));
        drop(quiesce.stop().await);
        assert_eq!(*quiesce.pass().await, 7);
    }
}
