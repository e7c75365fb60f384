//! The sharded map from names to channels, each shard in the order of use.

use super::{Channel, ChannelName, State, Time};
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

type Shard = LruCache<ChannelName, Arc<Channel>>;

pub(super) struct Table {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    len: AtomicUsize,
}

impl Table {
    pub(super) const SHARDS: usize = 64;
    /// Number of channels of a shard that one search for a quiet one examines. Busy ones move to
    /// the young end, so the next search continues behind them.
    const SEARCH: usize = 32;

    pub(super) fn new() -> Self {
        Self {
            shards: (0..Self::SHARDS).map(|_| Mutex::new(Shard::unbounded())).collect(),
            hasher: RandomState::new(),
            len: AtomicUsize::new(0),
        }
    }

    fn shard_of(&self, name: &ChannelName) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(name) as usize;
        self.shards[hash % Self::SHARDS].lock()
    }

    /// The channels of one shard.
    pub(super) fn shard(&self, index: usize) -> Vec<Arc<Channel>> {
        self.shards[index].lock().iter().map(|(_, channel)| channel.clone()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// The channel of that name; makes it the most recently used one.
    pub(super) fn touch(&self, name: &ChannelName, now: Time) -> Option<Arc<Channel>> {
        let mut shard = self.shard_of(name);
        let channel = shard.get(name)?;
        channel.used.store(now.0, Ordering::Relaxed);
        Some(channel.clone())
    }

    /// The channel of that name, without using it.
    pub(super) fn peek(&self, name: &ChannelName) -> Option<Arc<Channel>> {
        self.shard_of(name).peek(name).cloned()
    }

    /// Inserts a channel. If a concurrent caller has just done so, returns that caller's channel.
    pub(super) fn insert(&self, name: &ChannelName, state: State, now: Time) -> Arc<Channel> {
        let mut shard = self.shard_of(name);
        if let Some(channel) = shard.get(name) {
            return channel.clone();
        }
        let used = AtomicU64::new(now.0);
        let channel = Arc::new(Channel { name: name.clone(), used, state: Mutex::new(state) });
        shard.put(name.clone(), channel.clone());
        self.len.fetch_add(1, Ordering::Relaxed);
        channel
    }

    pub(super) fn remove(&self, name: &ChannelName) -> Option<Arc<Channel>> {
        let channel = self.shard_of(name).pop(name)?;
        self.len.fetch_sub(1, Ordering::Relaxed);
        Some(channel)
    }

    /// Removes the least recently used channel without waiters and marks it as forgotten.
    pub(super) fn remove_oldest_quiet(&self) -> Option<Arc<Channel>> {
        // A poll may use the channel between the search and the removal; then search again.
        for _ in 0..8 {
            let channel = self.oldest_with(|channel| channel.state.lock().waiters.is_empty())?;
            let mut shard = self.shard_of(&channel.name);
            let mut state = channel.state.lock();
            if state.waiters.is_empty() && !state.forgotten {
                state.forgotten = true;
                drop(state);
                shard.pop(&channel.name);
                self.len.fetch_sub(1, Ordering::Relaxed);
                return Some(channel);
            }
        }
        None
    }

    /// The least recently used channel that `fits`. A search does not examine every channel (see
    /// [`Table::SEARCH`]), so `None` means "none found", not "none there".
    pub(super) fn oldest_with(&self, fits: impl Fn(&Channel) -> bool) -> Option<Arc<Channel>> {
        let oldest_of_shard = |shard: &Mutex<Shard>| {
            let mut shard = shard.lock();
            for _ in 0..Self::SEARCH.min(shard.len()) {
                let (name, channel) = shard.peek_lru()?;
                if fits(channel) {
                    return Some(channel.clone());
                }
                let name = name.clone();
                shard.promote(&name);
            }
            None
        };
        let age = |channel: &Arc<Channel>| channel.used.load(Ordering::Relaxed);
        self.shards.iter().filter_map(oldest_of_shard).min_by_key(age)
    }

    /// At most `most` channels after the name `after`, in the order of their names, and true if
    /// there are more.
    pub(super) fn page(&self, after: Option<&str>, most: usize) -> (Vec<Arc<Channel>>, bool) {
        let mut channels: Vec<Arc<Channel>> = (0..Self::SHARDS)
            .flat_map(|index| self.shard(index))
            .filter(|channel| after.is_none_or(|after| channel.name.as_str() > after))
            .collect();
        let more = channels.len() > most;
        if more {
            channels.select_nth_unstable_by(most, |a, b| a.name.cmp(&b.name));
            channels.truncate(most);
        }
        channels.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        (channels, more)
    }
}
