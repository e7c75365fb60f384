//! One timer for all the waits of a connection.
//!
//! Arming and disarming a timer costs more than the wait it guards when that wait is short, as
//! nearly all of a connection's are. So this timer is moved only to an earlier time; it finds a
//! later deadline when it fires, which is once in a while and not once a wait.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// See the [module](self).
#[derive(Default)]
pub struct Timer {
    /// Fires at the deadline or before it.
    sleep: Option<Pin<Box<Sleep>>>,
    deadline: Option<Instant>,
}

impl Timer {
    /// Lets the next wait end after `limit`; `None` = never.
    pub fn set(&mut self, limit: Option<Duration>) {
        // A limit that reaches beyond the clock's end is as good as none.
        self.deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
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
        }
        while sleep.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
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
