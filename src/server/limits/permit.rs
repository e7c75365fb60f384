//! Permits to hold polls: bounds their number, in all and per client, grant and channel.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Limits of polls and clients; zero = no limit, except for [`Settings::held`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Held polls in all.
    pub held: usize,
    /// Held polls of one client address.
    pub per_address: usize,
    /// Held polls of one grant.
    pub per_grant: usize,
    /// Held polls on one channel.
    pub per_channel: usize,
    /// Channels of one poll.
    pub channels_per_poll: usize,
    /// Connections a second of one client address.
    pub connections_per_second: u32,
    /// Requests a second of one client address.
    pub requests_per_second: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            held: 100_000,
            per_address: 0,
            per_grant: 0,
            per_channel: 0,
            channels_per_poll: 100,
            connections_per_second: 0,
            requests_per_second: 0,
        }
    }
}

/// Reason why a poll is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// As many polls as allowed are held.
    #[error("too many polls are held")]
    Held,
    /// As many polls as allowed are held for this client's address.
    #[error("too many polls are held for this address")]
    Address,
    /// As many polls as allowed are held by this grant.
    #[error("too many polls are held for this user")]
    Grant,
}

/// Counts the held polls.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    held: AtomicUsize,
    by_address: PerKeyCounts<IpAddr>,
    by_grant: PerKeyCounts<u64>,
}

/// The right to hold one poll; dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    counts: Arc<Counts>,
    address: Option<IpAddr>,
    grant: Option<u64>,
}

impl Limits {
    /// Admits a poll from `address`, by `grant`, if `settings` leave room for it.
    pub fn admit(
        &self,
        address: Option<IpAddr>,
        grant: Option<u64>,
        settings: &Settings,
    ) -> Result<Permit, Rejection> {
        let counts = &self.counts;
        if counts.held.fetch_add(1, Ordering::Relaxed) >= settings.held {
            counts.held.fetch_sub(1, Ordering::Relaxed);
            return Err(Rejection::Held);
        }
        // From here on dropping the permit restores the counts.
        let mut permit = Permit { counts: counts.clone(), address: None, grant: None };
        let address = address.map(ip_prefix);
        permit.address =
            counts.by_address.take(address, settings.per_address).ok_or(Rejection::Address)?;
        permit.grant = counts.by_grant.take(grant, settings.per_grant).ok_or(Rejection::Grant)?;
        Ok(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counts.held.fetch_sub(1, Ordering::Relaxed);
        self.counts.by_address.give_back(self.address);
        self.counts.by_grant.give_back(self.grant);
    }
}

/// Held polls by key, for keys that have some.
#[derive(Debug)]
struct PerKeyCounts<K>(Mutex<HashMap<K, usize>>);

impl<K> Default for PerKeyCounts<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Copy + Eq + Hash> PerKeyCounts<K> {
    /// Counts one more for `who`; `None` = it has as many as `most` already. The caller must give
    /// the key in the result back; it is `None` where nothing was counted.
    fn take(&self, who: Option<K>, most: usize) -> Option<Option<K>> {
        let Some(who) = who.filter(|_| most > 0) else { return Some(None) };
        let mut shares = self.0.lock();
        let held = shares.entry(who).or_default();
        (*held < most).then(|| {
            *held += 1;
            Some(who)
        })
    }

    fn give_back(&self, who: Option<K>) {
        let Some(who) = who else { return };
        let mut shares = self.0.lock();
        if let Some(held) = shares.get_mut(&who) {
            *held -= 1;
            if *held == 0 {
                shares.remove(&who);
            }
        }
    }
}

/// The prefix of one household or server: an IPv4 address, or the 64 bits of a network, below which
/// IPv6 addresses cost nothing.
pub fn ip_prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_bounded_and_come_back_when_dropped() {
        let limits = Limits::default();
        let settings = Settings { held: 3, per_address: 2, ..Settings::default() };
        let here = Some(IpAddr::from([127, 0, 0, 1]));
        let there = Some(IpAddr::from([127, 0, 0, 2]));
        let first = limits.admit(here, None, &settings).unwrap();
        let _second = limits.admit(here, None, &settings).unwrap();
        assert_eq!(limits.admit(here, None, &settings).unwrap_err(), Rejection::Address);
        let _third = limits.admit(there, None, &settings).unwrap();
        assert_eq!(limits.admit(there, None, &settings).unwrap_err(), Rejection::Held);
        drop(first);
        assert!(limits.admit(here, None, &settings).is_ok());
        assert_eq!(limits.counts.by_address.0.lock().len(), 2);
    }

    #[test]
    fn a_network_of_64_bits_is_one_address() {
        let limits = Limits::default();
        let settings = Settings { per_address: 1, ..Settings::default() };
        let admit = |address: &str| limits.admit(address.parse().ok(), None, &settings);
        let _first = admit("2001:db8::1").unwrap();
        assert_eq!(admit("2001:db8::2:1").unwrap_err(), Rejection::Address);
        let _other = admit("2001:db8:0:1::1").unwrap();
        let _mapped = admit("::ffff:192.0.2.1").unwrap();
        assert_eq!(admit("192.0.2.1").unwrap_err(), Rejection::Address);
    }

    #[test]
    fn a_refusal_for_one_reason_takes_nothing_from_the_others() {
        let limits = Limits::default();
        let settings = Settings { per_address: 2, per_grant: 1, ..Settings::default() };
        let here = Some(IpAddr::from([127, 0, 0, 1]));
        let first = limits.admit(here, Some(7), &settings).unwrap();
        for _ in 0..3 {
            assert_eq!(limits.admit(here, Some(7), &settings).unwrap_err(), Rejection::Grant);
        }
        let second = limits.admit(here, Some(8), &settings).unwrap();
        drop((first, second));
        assert_eq!(limits.counts.held.load(Ordering::Relaxed), 0);
        assert!(limits.counts.by_address.0.lock().is_empty());
        assert!(limits.counts.by_grant.0.lock().is_empty());
    }
}
