//! A quiesce point: callers enter through it before they do work, and it can be stopped and moved
//! to another target.
//!
//! A caller enters first, and keeps the guard until its work is done. [`Quiesce::stop`] waits until
//! all that have entered are done, and keeps the others waiting; so between the stop and its end
//! nothing changes. The waiting callers then get the new target. A stop waits behind those before
//! it, and later callers wait behind the stop.

use std::sync::Arc;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, RwLockReadGuard};

/// The target of work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Target<O> {
    /// In this process.
    #[default]
    Local,
    /// Another process, reached through this.
    Successor(O),
    /// None any more: the gate has ended.
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
    /// Enters, and returns the target. Cancelling it leaves nothing behind.
    pub async fn pass(&self) -> RwLockReadGuard<'_, P> {
        self.place.read().await
    }

    /// Waits until no caller is inside, and stops later ones.
    pub async fn stop(&self) -> Quiesced<P> {
        Quiesced(self.place.clone().write_owned().await)
    }
}

/// All callers wait while this exists. Dropping it lets them enter as before.
#[derive(Debug)]
pub struct Quiesced<P>(OwnedRwLockWriteGuard<P>);

impl<P> Quiesced<P> {
    /// Lets all callers enter, with the target `place` from now on.
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
