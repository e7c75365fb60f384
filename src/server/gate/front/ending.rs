//! The end of the listeners, as connections between two requests notice it.
//!
//! A connection waits for its next request after each one, and the end comes once. So it registers
//! its task once, and reads a flag where it would wait; a watch that is waited on costs a lock and
//! a place in a list each time.

use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use slab::Slab;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

/// See the [module](self).
#[derive(Clone, Default)]
pub(super) struct Ending(Arc<Shared>);

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    watched: AtomicBool,
    tasks: Mutex<Slab<Waker>>,
}

/// The registration of one task; dropping it ends the registration.
pub(super) struct Registered {
    ending: Ending,
    key: usize,
}

impl Ending {
    /// Follows `shutdown`, which is that of all connections.
    pub(super) fn watch(&self, shutdown: &ShutdownWatch) {
        if self.0.watched.swap(true, Ordering::Relaxed) {
            return;
        }
        let (ending, mut shutdown) = (self.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _ = shutdown.wait_for(|over| *over).await;
            ending.end();
        });
    }

    fn end(&self) {
        self.0.is_over.store(true, Ordering::SeqCst);
        let tasks = std::mem::take(&mut *self.0.tasks.lock());
        tasks.into_iter().for_each(|(_, task)| task.wake());
    }

    /// True from the end on.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::SeqCst)
    }

    /// Has the end wake this task, at whatever it waits for. A task that then reads the flag misses
    /// no end.
    pub(super) async fn register(&self) -> Registered {
        let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        Registered { ending: self.clone(), key: self.0.tasks.lock().insert(waker) }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // At the end, all of them were taken at once.
        let task = self.ending.0.tasks.lock().try_remove(self.key);
        drop(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::watch;
    use tokio::time::timeout;

    /// Waits for the end as a connection does.
    async fn over(ending: Ending) {
        let _registered = ending.register().await;
        let over = poll_fn(|_| if ending.is_over() { Poll::Ready(()) } else { Poll::Pending });
        over.await;
    }

    #[tokio::test]
    async fn the_end_reaches_tasks_that_wait_and_those_that_come_later() {
        let (end, shutdown) = watch::channel(false);
        let ending = Ending::default();
        ending.watch(&shutdown);
        ending.watch(&shutdown);
        let waiting = tokio::spawn(over(ending.clone()));
        while ending.0.tasks.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        let gone = tokio::spawn(over(ending.clone()));
        gone.abort();
        assert!(gone.await.is_err() && !ending.is_over());
        let _ = end.send(true);
        let bound = Duration::from_secs(10);
        assert!(timeout(bound, waiting).await.is_ok());
        assert!(timeout(bound, over(ending.clone())).await.is_ok());
        assert!(ending.is_over() && ending.0.tasks.lock().is_empty());
    }
}
