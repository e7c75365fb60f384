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
            per_address: DEFAULT_PER_ADDRESS,
            per_grant: 0,
            per_channel: 0,
            channels_per_poll: 100,
            connections_per_second: DEFAULT_CONNECTIONS,
            requests_per_second: DEFAULT_REQUESTS,
        }
    }
}

/// Default of [`Settings::per_address`]: a carrier's address may have many visitors behind it, and
/// a hundred such addresses are needed to fill [`Settings::held`].
pub const DEFAULT_PER_ADDRESS: usize = 1_000;
/// Default of [`Settings::connections_per_second`].
pub const DEFAULT_CONNECTIONS: u32 = 200;
/// Default of [`Settings::requests_per_second`].
pub const DEFAULT_REQUESTS: u32 = 1_000;

impl Settings {
    /// The address that counts for [`Settings::per_address`].
    fn held_by(&self, address: Option<IpAddr>) -> Option<IpAddr> {
        counted(address, self.per_address == DEFAULT_PER_ADDRESS)
    }

    /// The address that counts for [`Settings::connections_per_second`].
    pub fn connects(&self, address: Option<IpAddr>) -> Option<IpAddr> {
        counted(address, self.connections_per_second == DEFAULT_CONNECTIONS)
    }

    /// The address that counts for [`Settings::requests_per_second`].
    pub fn asks(&self, address: Option<IpAddr>) -> Option<IpAddr> {
        counted(address, self.requests_per_second == DEFAULT_REQUESTS)
    }
}

/// `address`, if a limit counts it. A default limit does not count addresses that are not of the
/// internet: such a one may be a proxy with all visitors behind it, which `trusted_proxies` does
/// not name.
fn counted(address: Option<IpAddr>, is_default: bool) -> Option<IpAddr> {
    address.filter(|address| !is_default || is_public(address.to_canonical()))
}

/// True for addresses of the internet: not loopback, private (RFC 1918, RFC 4193) or link-local.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_private() || v4.is_link_local()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local()),
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
#[derive(Debug, Default)]
pub struct Permit {
    own: Option<Arc<Counts>>,
    /// Those of the gate as a whole, beside a site's.
    outer: Option<Arc<Counts>>,
    address: Option<IpAddr>,
    /// The address counts in `own`, and in `outer`.
    counted: (bool, bool),
    grant: Option<u64>,
}

impl Limits {
    /// Number of polls that hold a permit.
    pub fn held(&self) -> usize {
        self.counts.held.load(Ordering::Relaxed)
    }

    /// Admits a poll from `address`, by `grant`, if `settings` leave room for it; and if `outer`
    /// does, where these are the limits of a part of it. A grant counts here alone.
    pub fn admit(
        &self,
        address: Option<IpAddr>,
        grant: Option<u64>,
        settings: &Settings,
        outer: Option<(&Self, &Settings)>,
    ) -> Result<Permit, Rejection> {
        // Dropping the permit restores the counts.
        let mut permit = Permit::default();
        if let Some((outer, settings)) = outer {
            let counted = outer.counts.take(address, settings)?;
            permit.outer = Some(outer.counts.clone());
            (permit.counted.1, permit.address) = (counted.is_some(), counted);
        }
        let counted = self.counts.take(address, settings)?;
        permit.own = Some(self.counts.clone());
        permit.counted.0 = counted.is_some();
        permit.address = permit.address.or(counted);
        let by_grant = &self.counts.by_grant;
        permit.grant = by_grant.take(grant, settings.per_grant).ok_or(Rejection::Grant)?;
        Ok(permit)
    }
}

impl Counts {
    /// Counts a poll; its address is returned if it is counted.
    #[inline]
    fn take(
        &self,
        address: Option<IpAddr>,
        settings: &Settings,
    ) -> Result<Option<IpAddr>, Rejection> {
        if self.held.fetch_add(1, Ordering::Relaxed) >= settings.held {
            self.held.fetch_sub(1, Ordering::Relaxed);
            return Err(Rejection::Held);
        }
        if settings.per_address == 0 {
            return Ok(None);
        }
        let address = settings.held_by(address).map(ip_prefix);
        self.by_address.take(address, settings.per_address).ok_or_else(|| {
            self.held.fetch_sub(1, Ordering::Relaxed);
            Rejection::Address
        })
    }

    #[inline]
    fn give_back(&self, address: Option<IpAddr>) {
        self.held.fetch_sub(1, Ordering::Relaxed);
        self.by_address.give_back(address);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Self { own, outer, address, counted, grant } = self;
        if let Some(own) = own {
            own.give_back(address.filter(|_| counted.0));
            own.by_grant.give_back(*grant);
        }
        if let Some(outer) = outer {
            outer.give_back(address.filter(|_| counted.1));
        }
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
        let first = limits.admit(here, None, &settings, None).unwrap();
        let _second = limits.admit(here, None, &settings, None).unwrap();
        assert_eq!(limits.admit(here, None, &settings, None).unwrap_err(), Rejection::Address);
        let _third = limits.admit(there, None, &settings, None).unwrap();
        assert_eq!(limits.admit(there, None, &settings, None).unwrap_err(), Rejection::Held);
        drop(first);
        assert!(limits.admit(here, None, &settings, None).is_ok());
        assert_eq!(limits.counts.by_address.0.lock().len(), 2);
    }

    #[test]
    fn a_part_counts_within_the_whole_and_gives_both_back() {
        let (whole, part) = (Limits::default(), Limits::default());
        let outer = Settings { held: 3, per_address: 2, ..Settings::default() };
        let inner = Settings { per_address: 1, per_grant: 1, ..Settings::default() };
        let address = |last| Some(IpAddr::from([127, 0, 0, last]));
        let admit = |last, grant| part.admit(address(last), grant, &inner, Some((&whole, &outer)));
        let first = admit(1, Some(7)).unwrap();
        assert_eq!(admit(1, None).unwrap_err(), Rejection::Address);
        assert_eq!(admit(2, Some(7)).unwrap_err(), Rejection::Grant);
        assert_eq!((whole.held(), part.held()), (1, 1));
        let more: Vec<_> = [2, 3].map(|last| admit(last, None).unwrap()).into();
        assert_eq!(admit(4, None).unwrap_err(), Rejection::Held);
        drop((first, more));
        assert_eq!((whole.held(), part.held()), (0, 0));
        for limits in [&whole, &part] {
            assert!(limits.counts.by_address.0.lock().is_empty());
            assert!(limits.counts.by_grant.0.lock().is_empty());
        }
    }

    #[test]
    fn the_default_limits_count_addresses_of_the_internet_alone() {
        let default = Settings::default();
        let own = Settings { per_address: 5, ..Settings::default() };
        for (address, public) in [
            ("203.0.113.9", true),
            ("2001:db8::1", true),
            ("::ffff:203.0.113.9", true),
            ("127.0.0.1", false),
            ("10.1.2.3", false),
            ("172.18.0.2", false),
            ("192.168.1.1", false),
            ("169.254.0.1", false),
            ("::1", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("::ffff:10.0.0.1", false),
        ] {
            let address = address.parse().ok();
            for counted in
                [default.held_by(address), default.connects(address), default.asks(address)]
            {
                assert_eq!(counted.is_some(), public, "{address:?}");
            }
            assert_eq!(own.held_by(address), address);
        }
    }

    #[test]
    fn a_network_of_64_bits_is_one_address() {
        let limits = Limits::default();
        let settings = Settings { per_address: 1, ..Settings::default() };
        let admit = |address: &str| limits.admit(address.parse().ok(), None, &settings, None);
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
        let first = limits.admit(here, Some(7), &settings, None).unwrap();
        for _ in 0..3 {
            assert_eq!(limits.admit(here, Some(7), &settings, None).unwrap_err(), Rejection::Grant);
        }
        let second = limits.admit(here, Some(8), &settings, None).unwrap();
        drop((first, second));
        assert_eq!(limits.counts.held.load(Ordering::Relaxed), 0);
        assert!(limits.counts.by_address.0.lock().is_empty());
        assert!(limits.counts.by_grant.0.lock().is_empty());
    }
}
