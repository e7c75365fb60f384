//! One timer for all the waits of a connection.
//!
//! Arming and disarming a timer costs more than the wait it guards when that wait is short, as
//! nearly all of a connection's are. So this timer is moved only to an earlier time; it finds a
//! later deadline when it fires, which is once in a while and not once a wait.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// Time by which a wait may end late while its task runs as usual.
const LATE: Duration = Duration::from_secs(1);

/// True if a wait for a client, limited to `limit`, took so much longer that this process stood
/// still meanwhile, as on a machine that is too busy. What the client has sent by then may not be
/// read yet, so its silence proves nothing.
pub(in crate::server::gate) fn overslept(waited: Duration, limit: Duration) -> bool {
    waited > limit.saturating_add(LATE)
}

/// See the [module](self).
#[derive(Default)]
pub struct Timer {
    /// Fires at the deadline or before it.
    sleep: Option<Pin<Box<Sleep>>>,
    deadline: Option<Instant>,
    /// The task that it wakes when it fires. It need not be polled before.
    armed: Option<Waker>,
}

impl Timer {
    /// Lets the next wait end after `limit`; `None` = never.
    pub fn set(&mut self, limit: Option<Duration>) {
        self.set_from(limit.map(|_| Instant::now()), limit);
    }

    /// The same for a wait that began at that time.
    pub fn set_from(&mut self, began: impl Into<Option<Instant>>, limit: Option<Duration>) {
        // A limit that reaches beyond the clock's end is as good as none.
        let deadline = |began: Instant| began.checked_add(limit?);
        self.deadline = began.into().and_then(deadline);
    }

    /// Lets the next wait end at `deadline`; `None` = never. This reads no clock.
    pub fn set_deadline(&mut self, deadline: Option<std::time::Instant>) {
        self.deadline = deadline.map(Instant::from_std);
    }

    /// Ready once the deadline is over.
    pub fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
            self.armed = None;
        }
        let armed = self.armed.as_ref().is_some_and(|task| task.will_wake(context.waker()));
        if armed && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        while sleep.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        if !armed {
            self.armed = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// The result of `work`, or `None` if it takes longer than `limit`. Work that is done at once
    /// does not touch the clock.
    pub async fn within<T>(
        &mut self,
        limit: Option<Duration>,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        let mut waiting = false;
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Some(done));
            }
            if !std::mem::replace(&mut waiting, true) {
                self.set(limit);
            }
            self.poll_expired(context).map(|()| None)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::pin::pin;

    #[tokio::test(start_paused = true)]
    async fn every_wait_ends_at_its_own_deadline_whatever_came_before() {
        let mut timer = Timer::default();
        for seconds in [10, 75, 3, 3, 60, 0] {
            let limit = Duration::from_secs(seconds);
            let began = Instant::now();
            let done = timer.within(Some(limit), pin!(pending::<()>())).await;
            assert_eq!((done, began.elapsed().as_secs()), (None, seconds));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_wakes_the_task_that_waits_now() {
        let mut timer = Timer::default();
        let waits = |timer: &mut Timer| {
            let mut context = Context::from_waker(Waker::noop());
            timer.poll_expired(&mut context).is_pending()
        };
        let limit = Duration::from_secs(5);
        for _ in 0..3 {
            // Another task has waited before.
            timer.set(Some(limit));
            assert!(waits(&mut timer) && waits(&mut timer));
            let began = Instant::now();
            assert_eq!(timer.within(Some(limit), pin!(pending::<()>())).await, None);
            assert_eq!(began.elapsed().as_secs(), 5);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_in_time_is_done_and_leaves_nothing_that_ends_the_next() {
        let mut timer = Timer::default();
        for _ in 0..5 {
            let work = pin!(tokio::time::sleep(Duration::from_secs(9)));
            assert_eq!(timer.within(Some(Duration::from_secs(10)), work).await, Some(()));
            let work = pin!(tokio::time::sleep(Duration::from_secs(50)));
            assert_eq!(timer.within(None, work).await, Some(()));
        }
    }
}
