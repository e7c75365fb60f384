//! How many polls may be held, and by whom.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What bounds polls and clients; zero = no bound, except for [`Settings::held`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Held polls in all.
    pub held: usize,
    /// Held polls of one client address.
    pub per_address: usize,
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
            per_channel: 0,
            channels_per_poll: 100,
            connections_per_second: 0,
            requests_per_second: 0,
        }
    }
}

/// Why a poll is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As many polls as allowed are held.
    #[error("too many polls are held")]
    Held,
    /// As many polls as allowed are held for this client's address.
    #[error("too many polls are held for this address")]
    Address,
}

/// Counts the held polls.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    held: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// The right to hold one poll; dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    counts: Arc<Counts>,
    address: Option<IpAddr>,
}

impl Limits {
    /// Admits a poll from `address`, if `settings` leave room for it.
    pub fn admit(&self, address: Option<IpAddr>, settings: &Settings) -> Result<Permit, Refusal> {
        let counts = &self.counts;
        if counts.held.fetch_add(1, Ordering::Relaxed) >= settings.held {
            counts.held.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Held);
        }
        // From here on the drop guard counts it out again.
        let mut permit = Permit { counts: counts.clone(), address: None };
        if let Some(address) = address.filter(|_| settings.per_address > 0) {
            let mut by_address = counts.by_address.lock();
            let held = by_address.entry(address).or_default();
            if *held >= settings.per_address {
                return Err(Refusal::Address);
            }
            *held += 1;
            permit.address = Some(address);
        }
        Ok(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counts.held.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut by_address = self.counts.by_address.lock();
        if let Some(held) = by_address.get_mut(&address) {
            *held -= 1;
            if *held == 0 {
                by_address.remove(&address);
            }
        }
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
        let first = limits.admit(here, &settings).unwrap();
        let _second = limits.admit(here, &settings).unwrap();
        assert_eq!(limits.admit(here, &settings).unwrap_err(), Refusal::Address);
        let _third = limits.admit(there, &settings).unwrap();
        assert_eq!(limits.admit(there, &settings).unwrap_err(), Refusal::Held);
        drop(first);
        assert!(limits.admit(here, &settings).is_ok());
        assert_eq!(limits.counts.by_address.lock().len(), 2);
    }
}
