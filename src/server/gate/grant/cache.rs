//! A cache of the upstream's recent authorization decisions, by client and channel.

use super::{Credentials, Revocation};
use crate::hub::channel::ChannelName;
use crate::hub::presence::Member;
use lru::LruCache;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::time::Instant;

/// Cached decisions, at some 200 bytes each; beyond them the least used is dropped, which costs a
/// request.
const MAX: usize = 50_000;

/// Digest of client and channel, so that no cookie is kept, and no two of them are confused.
pub(super) type Key = [u8; 32];

/// The upstream's decision.
#[derive(Debug, Clone)]
pub(super) struct CachedDecision {
    pub(super) grant: u64,
    pub(super) allowed: bool,
    pub(super) credentials: Credentials,
    pub(super) channel: ChannelName,
    pub(super) user: Option<u64>,
    pub(super) member: Option<Member>,
    /// Time of expiry.
    pub(super) until: Instant,
}

/// See the [module](self).
pub(super) struct DecisionCache(Mutex<LruCache<Key, CachedDecision>>);

impl Default for DecisionCache {
    fn default() -> Self {
        Self(Mutex::new(LruCache::unbounded()))
    }
}

impl DecisionCache {
    /// The decision, if it has not expired.
    pub(super) fn recall(&self, key: &Key) -> Option<CachedDecision> {
        let mut words = self.0.lock();
        let word = words.get(key)?;
        if Instant::now() < word.until {
            return Some(word.clone());
        }
        words.pop(key);
        None
    }

    pub(super) fn keep(&self, key: Key, word: CachedDecision) {
        let mut words = self.0.lock();
        words.put(key, word);
        if words.len() > MAX {
            words.pop_lru();
        }
    }

    /// Drops the decisions about a channel for clients that have shown that credential; returns the
    /// grants that they were part of.
    pub(super) fn forget(&self, revocation: &Revocation) -> HashSet<u64> {
        let mut words = self.0.lock();
        let meant = |word: &CachedDecision| {
            revocation.means(std::slice::from_ref(&word.channel), &word.credentials)
        };
        let keys: Vec<Key> =
            words.iter().filter(|(_, word)| meant(word)).map(|(key, _)| *key).collect();
        let forgotten = keys.iter().filter_map(|key| words.pop(key));
        forgotten.filter(|word| word.allowed).map(|word| word.grant).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hub::channel::SiteName;
    use std::time::Duration;

    fn decision(grant: u64, channel: &str, credential: u64, seconds: u64) -> CachedDecision {
        let channel = ChannelName::new(channel).unwrap();
        let until = Instant::now() + Duration::from_secs(seconds);
        CachedDecision {
            grant,
            allowed: true,
            credentials: [credential].as_slice().into(),
            channel,
            user: None,
            member: None,
            until,
        }
    }

    #[test]
    fn a_word_is_good_for_its_time_and_until_it_is_forgotten() {
        let memory = DecisionCache::default();
        memory.keep([1; 32], decision(1, "a", 7, 100));
        memory.keep([2; 32], decision(1, "b", 7, 100));
        memory.keep([3; 32], decision(2, "a", 8, 0));
        assert_eq!(memory.recall(&[1; 32]).unwrap().grant, 1);
        assert!(memory.recall(&[3; 32]).is_none());
        let b = ChannelName::new("b").unwrap();
        let forget = |channel: Option<&ChannelName>, credential| {
            let site = SiteName::NONE;
            let channel = channel.cloned();
            memory.forget(&Revocation { site, channel, credential }).len()
        };
        assert_eq!(forget(Some(&b), Some(8)), 0);
        assert_eq!(forget(Some(&b), None), 1);
        assert!(memory.recall(&[2; 32]).is_none() && memory.recall(&[1; 32]).is_some());
        assert_eq!(forget(None, Some(7)), 1);
        assert!(memory.recall(&[1; 32]).is_none());
    }

    #[test]
    fn the_least_used_is_forgotten_first() {
        let memory = DecisionCache::default();
        for number in 0..=MAX {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            memory.keep(key, decision(number as u64, "a", 1, 100));
            memory.recall(&[0; 32]);
        }
        let mut second = [0; 32];
        second[7] = 1;
        assert!(memory.recall(&[0; 32]).is_some() && memory.recall(&second).is_none());
    }
}
