//! Rate limits, as token buckets: requests and connections by address, and messages in all.
//!
//! A bucket holds one second's worth, so that a page with its pictures, or a batch of messages,
//! comes in one go. An address is a bucket of [`AddressRate`]; only the addresses seen last have
//! one, at most [`MAX`], and an address that was evicted begins with a full one. So memory is
//! bounded, and an attacker with more addresses than that is not stopped here. [`MessageRate`] is
//! one bucket for all publishers, from which a request takes all that it wants, or nothing.

use crate::server::limits::permit::ip_prefix;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use lru::LruCache;
use parking_lot::Mutex;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// Upper bound of addresses with a bucket, each of them less than a hundred bytes.
const MAX: usize = 65_536;

/// The rate limit of each address.
#[derive(Debug)]
pub struct AddressRate<C: Clock = MonotonicClock> {
    per_second: u32,
    /// `None` = no limit.
    buckets: Option<RateLimiter<IpAddr, Recent, C, NoOpMiddleware<C::Instant>>>,
}

impl AddressRate {
    /// So many times a second; 0 = no limit.
    pub fn new(per_second: u32) -> Self {
        Self::with_clock(per_second, MonotonicClock)
    }

    /// This one with its buckets, if its limit is the same; else a new one.
    pub fn allowing(self: &Arc<Self>, per_second: u32) -> Arc<Self> {
        if self.per_second == per_second { self.clone() } else { Arc::new(Self::new(per_second)) }
    }
}

impl<C: Clock> AddressRate<C> {
    fn with_clock(per_second: u32, clock: C) -> Self {
        let quota = NonZeroU32::new(per_second).map(Quota::per_second);
        let buckets = quota.map(|quota| RateLimiter::new(quota, Recent::default(), clock));
        Self { per_second, buckets }
    }

    /// Takes a token from the bucket of `address`. The error is the time until there is one again.
    /// A client without an address (on a unix socket) is never refused.
    pub fn take(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        let (Some(buckets), Some(address)) = (&self.buckets, address) else { return Ok(()) };
        let taken = buckets.check_key(&ip_prefix(address));
        taken.map_err(|not_until| not_until.wait_time_from(buckets.clock().now()))
    }
}

/// The buckets of the addresses seen last.
#[derive(Debug)]
struct Recent(Mutex<LruCache<IpAddr, Nanos>>);

impl Default for Recent {
    fn default() -> Self {
        // Bounded below: with a bound of its own it would take the room for all at once.
        Self(Mutex::new(LruCache::unbounded()))
    }
}

impl StateStore for Recent {
    type Key = IpAddr;

    fn measure_and_replace<T, F, E>(&self, key: &IpAddr, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut buckets = self.0.lock();
        let (taken, bucket) = f(buckets.get(key).copied())?;
        buckets.put(*key, bucket);
        if buckets.len() > MAX {
            buckets.pop_lru();
        }
        Ok(taken)
    }
}

type Bucket<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// The rate of messages in all; see the [module](self).
#[derive(Debug)]
pub struct MessageRate<C: Clock = MonotonicClock> {
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

impl MessageRate {
    /// So many messages a second; 0 = no limit.
    pub fn new(per_second: u32) -> Self {
        Self::with_clock(per_second, MonotonicClock)
    }

    /// This one with its tokens, if its limit is the same; else a new one.
    pub fn allowing(self: &Arc<Self>, per_second: u32) -> Arc<Self> {
        if self.per_second == per_second { self.clone() } else { Arc::new(Self::new(per_second)) }
    }
}

impl<C: Clock + Clone> MessageRate<C> {
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_bucket_holds_a_second_s_worth_and_fills_again() {
        let clock = FakeRelativeClock::default();
        let rate = AddressRate::with_clock(2, clock.clone());
        let here = ip("192.0.2.1");
        let there = ip("192.0.2.2");
        assert!(rate.take(here).is_ok() && rate.take(here).is_ok());
        let wait = rate.take(here).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(500), "{wait:?}");
        assert!(rate.take(there).is_ok());
        clock.advance(Duration::from_millis(500));
        assert!(rate.take(here).is_ok() && rate.take(here).is_err());
    }

    #[test]
    fn a_network_of_64_bits_has_one_bucket() {
        let rate = AddressRate::with_clock(1, FakeRelativeClock::default());
        assert!(rate.take(ip("2001:db8::1")).is_ok());
        assert!(rate.take(ip("2001:db8::2:1")).is_err());
        assert!(rate.take(ip("2001:db8:0:1::1")).is_ok());
        assert!(rate.take(ip("::ffff:192.0.2.1")).is_ok() && rate.take(ip("192.0.2.1")).is_err());
    }

    #[test]
    fn whoever_is_not_limited_never_waits() {
        assert!((0..1000).all(|_| AddressRate::new(0).take(ip("192.0.2.1")).is_ok()));
        let rate = Arc::new(AddressRate::new(1));
        assert!((0..1000).all(|_| rate.take(None).is_ok()));
    }

    #[test]
    fn a_reload_that_changes_no_rate_fills_no_bucket() {
        let rate = Arc::new(AddressRate::new(1));
        assert!(Arc::ptr_eq(&rate.allowing(1), &rate));
        assert!(!Arc::ptr_eq(&rate.allowing(2), &rate));
    }

    #[test]
    fn only_so_many_addresses_are_remembered() {
        let rate = AddressRate::with_clock(1, FakeRelativeClock::default());
        for n in 0..u32::try_from(MAX).unwrap() + 100 {
            assert!(rate.take(Some(IpAddr::from(n.to_be_bytes()))).is_ok());
        }
        assert_eq!(rate.buckets.unwrap().into_state_store().0.lock().len(), MAX);
    }

    #[test]
    fn a_second_s_worth_of_messages_is_taken_in_one_go_or_not_at_all() {
        let clock = FakeRelativeClock::default();
        let rate = MessageRate::with_clock(10, clock.clone());
        assert_eq!(rate.take(8), Ok(()));
        let wait = rate.take(4);
        assert!(matches!(wait, Err(RateLimited::For(wait)) if wait <= Duration::from_millis(200)));
        // The refused ones have taken nothing.
        assert_eq!(rate.take(2), Ok(()));
        clock.advance(Duration::from_secs(1));
        assert_eq!((rate.take(11), rate.take(10)), (Err(RateLimited::Beyond(10)), Ok(())));
    }

    #[test]
    fn without_a_limit_no_message_is_counted() {
        assert_eq!(MessageRate::new(0).take(usize::MAX), Ok(()));
        assert_eq!(MessageRate::new(1).take(0), Ok(()));
    }

    #[test]
    fn a_reload_that_changes_no_message_rate_fills_no_bucket() {
        let rate = Arc::new(MessageRate::new(1));
        assert!(Arc::ptr_eq(&rate.allowing(1), &rate) && !Arc::ptr_eq(&rate.allowing(2), &rate));
    }
}
