//! The memory of all users, and its division among the sites.
//!
//! A site's users find room as long as they take no more than is free after them. So a site whose
//! visitors flood it gets half of the memory, two such sites get a third each, and there always is
//! room for the others; without a flood a site has all that it needs. (Dynamic thresholds, as in
//! shared-memory switches: Choudhury and Hahne, 1998.) A gate without sites gives its users all of
//! it.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the [module](self).
pub(super) struct Memory {
    all: Arc<Counts>,
    /// What the users of each site take, in bytes.
    sites: Mutex<HashMap<Box<str>, Arc<AtomicU64>>>,
}

/// In bytes.
struct Counts {
    used: AtomicU64,
    most: AtomicU64,
}

/// One site's share; cheap to clone.
#[derive(Clone)]
pub(super) struct Share {
    all: Arc<Counts>,
    /// `None` = there are no sites.
    own: Option<Arc<AtomicU64>>,
}

impl Memory {
    pub(super) fn new(most: u64) -> Self {
        let counts = Counts { used: AtomicU64::new(0), most: AtomicU64::new(most) };
        Self { all: Arc::new(counts), sites: Mutex::default() }
    }

    /// Bounds it, in bytes.
    pub(super) fn allow(&self, most: u64) {
        self.all.most.store(most, Ordering::Relaxed);
    }

    /// What is in use, in bytes.
    pub(super) fn used(&self) -> u64 {
        self.all.used.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.used() > self.all.most.load(Ordering::Relaxed)
    }

    /// The share of a site; empty = there are none.
    pub(super) fn share(&self, site: &str) -> Share {
        let mut sites = self.sites.lock();
        let own = (!site.is_empty()).then(|| match sites.get(site) {
            Some(own) => own.clone(),
            None => {
                // Sites of earlier configs whose last user is gone.
                sites
                    .retain(|_, own| Arc::strong_count(own) > 1 || own.load(Ordering::Relaxed) > 0);
                sites.entry(site.into()).or_default().clone()
            }
        });
        Share { all: self.all.clone(), own }
    }
}

impl Share {
    /// True if there is room for `bytes` more.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        let used = self.all.used.load(Ordering::Relaxed).saturating_add(bytes);
        let Some(free) = self.all.most.load(Ordering::Relaxed).checked_sub(used) else {
            return false;
        };
        self.own.as_ref().is_none_or(|own| own.load(Ordering::Relaxed) + bytes <= free)
    }

    pub(super) fn take(&self, bytes: u64) {
        for count in [Some(&self.all.used), self.own.as_deref()].into_iter().flatten() {
            count.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn give_back(&self, bytes: u64) {
        for count in [Some(&self.all.used), self.own.as_deref()].into_iter().flatten() {
            count.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes as much as fits; returns that.
    fn flood(memory: &Memory, site: &str) -> u64 {
        let share = memory.share(site);
        let mut taken = 0;
        while share.fits(10) {
            share.take(10);
            taken += 10;
        }
        taken
    }

    #[test]
    fn sites_that_flood_the_memory_leave_room_for_the_others() {
        let memory = Memory::new(12_000);
        assert_eq!(flood(&memory, "a"), 6_000);
        assert_eq!(flood(&memory, "b"), 3_000);
        let quiet = memory.share("c");
        assert!(quiet.fits(1_500));
        quiet.take(1_500);
        quiet.give_back(1_500);
        assert_eq!(memory.used(), 9_000);
        // What one gives back is for those that have less; it takes no more than they leave.
        memory.share("a").give_back(2_000);
        assert_eq!((flood(&memory, "a"), memory.used()), (500, 7_500));
        assert_eq!(flood(&memory, "b"), 750);
    }

    #[test]
    fn without_sites_there_is_no_share_to_keep_to() {
        let memory = Memory::new(1_000);
        assert_eq!(flood(&memory, ""), 1_000);
        assert!(!memory.is_full());
        memory.allow(0);
        assert!(memory.is_full() && !memory.share("").fits(1));
    }
}
