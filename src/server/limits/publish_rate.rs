//! Rate limit of the hook, in messages a second: one token bucket for all clients that bear the
//! token.
//!
//! It holds what one second allows, so that a batch comes in one go. A request takes all the tokens
//! it needs, or none.

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

type Bucket<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// See the [module](self).
#[derive(Debug)]
pub struct Rate<C: Clock = MonotonicClock> {
    per_second: u32,
    /// `None` = no limit.
    bucket: Option<Bucket<C>>,
    clock: C,
}

/// Reason why messages are not taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RateLimited {
    /// They exceed the rate for this time.
    For(Duration),
    /// They are more than this, which the bucket holds: never possible.
    Beyond(u32),
}

impl Rate {
    /// So many messages a second; 0 = no limit.
    pub fn new(per_second: u32) -> Self {
        Self::with_clock(per_second, MonotonicClock)
    }

    /// This one with its tokens, if its limit is the same; else a new one.
    pub fn allowing(self: &Arc<Self>, per_second: u32) -> Arc<Self> {
        if self.per_second == per_second { self.clone() } else { Arc::new(Self::new(per_second)) }
    }
}

impl<C: Clock + Clone> Rate<C> {
    fn with_clock(per_second: u32, clock: C) -> Self {
        let quota = NonZeroU32::new(per_second).map(Quota::per_second);
        let bucket = quota.map(|quota| RateLimiter::direct_with_clock(quota, clock.clone()));
        Self { per_second, bucket, clock }
    }

    /// Takes a token for each of `messages`, or none.
    pub(crate) fn take(&self, messages: usize) -> Result<(), RateLimited> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        let wanted = u32::try_from(messages).unwrap_or(u32::MAX);
        let Some(wanted) = NonZeroU32::new(wanted) else { return Ok(()) };
        match bucket.check_n(wanted) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(RateLimited::For(not_until.wait_time_from(self.clock.now()))),
            Err(_) => Err(RateLimited::Beyond(self.per_second)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    #[test]
    fn a_second_s_worth_is_taken_in_one_go_or_not_at_all() {
        let clock = FakeRelativeClock::default();
        let rate = Rate::with_clock(10, clock.clone());
        assert_eq!(rate.take(8), Ok(()));
        let wait = rate.take(4);
        assert!(matches!(wait, Err(RateLimited::For(wait)) if wait <= Duration::from_millis(200)));
        // The refused ones have taken nothing.
        assert_eq!(rate.take(2), Ok(()));
        clock.advance(Duration::from_secs(1));
        assert_eq!((rate.take(11), rate.take(10)), (Err(RateLimited::Beyond(10)), Ok(())));
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        assert_eq!(Rate::new(0).take(usize::MAX), Ok(()));
        assert_eq!(Rate::new(1).take(0), Ok(()));
    }

    #[test]
    fn a_reload_that_does_not_change_it_does_not_fill_it() {
        let rate = Arc::new(Rate::new(1));
        assert!(Arc::ptr_eq(&rate.allowing(1), &rate) && !Arc::ptr_eq(&rate.allowing(2), &rate));
    }
}
