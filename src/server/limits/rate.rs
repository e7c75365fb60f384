//! Rate limits of connections and requests of an address: a token bucket for each.
//!
//! A bucket holds what one second allows, so that a page with its pictures comes in one go. The
//! addresses seen last have one, at most [`MAX`]; a forgotten address begins with a full one. So
//! memory is bounded, and an attacker with more addresses than that is not what this stops.

use crate::server::limits::permit::ip_prefix;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
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
pub struct Rate<C: Clock = MonotonicClock> {
    per_second: u32,
    /// `None` = no limit.
    buckets: Option<RateLimiter<IpAddr, Recent, C, NoOpMiddleware<C::Instant>>>,
}

impl Rate {
    /// So many times a second; 0 = no limit.
    pub fn new(per_second: u32) -> Self {
        Self::with_clock(per_second, MonotonicClock)
    }

    /// This one with its buckets, if its limit is the same; else a new one.
    pub fn allowing(self: &Arc<Self>, per_second: u32) -> Arc<Self> {
        if self.per_second == per_second { self.clone() } else { Arc::new(Self::new(per_second)) }
    }
}

impl<C: Clock> Rate<C> {
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
        let rate = Rate::with_clock(2, clock.clone());
        let (here, there) = (ip("192.0.2.1"), ip("192.0.2.2"));
        assert!(rate.take(here).is_ok() && rate.take(here).is_ok());
        let wait = rate.take(here).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(500), "{wait:?}");
        assert!(rate.take(there).is_ok());
        clock.advance(Duration::from_millis(500));
        assert!(rate.take(here).is_ok() && rate.take(here).is_err());
    }

    #[test]
    fn a_network_of_64_bits_has_one_bucket() {
        let rate = Rate::with_clock(1, FakeRelativeClock::default());
        assert!(rate.take(ip("2001:db8::1")).is_ok());
        assert!(rate.take(ip("2001:db8::2:1")).is_err());
        assert!(rate.take(ip("2001:db8:0:1::1")).is_ok());
        assert!(rate.take(ip("::ffff:192.0.2.1")).is_ok() && rate.take(ip("192.0.2.1")).is_err());
    }

    #[test]
    fn whoever_is_not_limited_never_waits() {
        assert!((0..1000).all(|_| Rate::new(0).take(ip("192.0.2.1")).is_ok()));
        let rate = Arc::new(Rate::new(1));
        assert!((0..1000).all(|_| rate.take(None).is_ok()));
    }

    #[test]
    fn a_reload_that_changes_no_rate_fills_no_bucket() {
        let rate = Arc::new(Rate::new(1));
        assert!(Arc::ptr_eq(&rate.allowing(1), &rate));
        assert!(!Arc::ptr_eq(&rate.allowing(2), &rate));
    }

    #[test]
    fn only_so_many_addresses_are_remembered() {
        let rate = Rate::with_clock(1, FakeRelativeClock::default());
        for n in 0..u32::try_from(MAX).unwrap() + 100 {
            assert!(rate.take(Some(IpAddr::from(n.to_be_bytes()))).is_ok());
        }
        assert_eq!(rate.buckets.unwrap().into_state_store().0.lock().len(), MAX);
    }
}
