//! The end of the listeners, as connections between two requests notice it.
//!
//! A connection waits for its next request after each one, and the end comes once. So it registers
//! its task once, and reads a flag where it would wait; a watch that is waited on costs a lock and
//! a place in a list each time.
//!
//! The end wakes only tasks that wait for a request. A held poll is woken by the drain, which takes
//! its time: one that is woken before would be answered at once.

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
    tasks: Mutex<Slab<(Waker, Arc<AtomicBool>)>>,
}

/// The registration of one task; dropping it ends the registration.
pub(super) struct Registered {
    ending: Ending,
    key: usize,
    /// It waits for a request.
    waits: Arc<AtomicBool>,
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
        for (_, (task, waits)) in tasks {
            if waits.load(Ordering::SeqCst) {
                task.wake();
            }
        }
    }

    /// True from the end on.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::SeqCst)
    }

    /// Registers this task, for its waits.
    pub(super) async fn register(&self) -> Registered {
        let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        let waits = Arc::new(AtomicBool::new(false));
        let key = self.0.tasks.lock().insert((waker, waits.clone()));
        Registered { ending: self.clone(), key, waits }
    }
}

impl Registered {
    /// The task is about to wait for a request; true if the end is there, so that it must not.
    /// Otherwise the end wakes it.
    pub(super) fn wait(&self) -> bool {
        // Stored before the flag is read, as the end stores that before it reads this.
        self.waits.store(true, Ordering::SeqCst);
        self.ending.is_over()
    }

    /// The task goes on.
    pub(super) fn resume(&self) {
        self.waits.store(false, Ordering::SeqCst);
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
        let registered = ending.register().await;
        poll_fn(|_| if registered.wait() { Poll::Ready(()) } else { Poll::Pending }).await;
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

    #[tokio::test]
    async fn the_end_does_not_wake_a_task_that_has_gone_on() {
        let ending = Ending::default();
        let registered = ending.register().await;
        let waker = Arc::new(Woken::default());
        ending.0.tasks.lock()[registered.key].0 = waker.clone().into();
        assert!(!registered.wait());
        registered.resume();
        ending.end();
        assert!(!waker.0.load(Ordering::SeqCst) && registered.wait());
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}
