//! The sharded map from names to channels.
//!
//! Each shard keeps a list for every [`Class`] of channel, in the order of use, so that room is
//! made where it costs least and a poll never takes a place of what was published.

use super::{Channel, ChannelName, State, Time, WakeSet};
use crate::hub::channel::Stamp;
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// The order in which channels make room: the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Class {
    /// Never published to: it is here for the polls that wait on it.
    Waiting,
    /// Published to; none of its messages is left.
    Empty,
    /// It has messages.
    Filled,
    /// It has messages, of which the newest never ages out.
    Kept,
}

impl Class {
    /// The stored ones, in the order in which they make room.
    pub(super) const STORED: [Self; 3] = [Self::Empty, Self::Filled, Self::Kept];
    /// In the order in which they are most often asked for.
    const LOOKUP: [Self; 4] = [Self::Filled, Self::Waiting, Self::Kept, Self::Empty];
    const COUNT: usize = 4;
}

type List = LruCache<ChannelName, Arc<Channel>>;

struct Shard([List; Class::COUNT]);

impl Shard {
    fn list(&mut self, class: Class) -> &mut List {
        &mut self.0[class as usize]
    }

    /// The channel of that name, moved to the young end of its list.
    fn get(&mut self, name: &ChannelName) -> Option<Arc<Channel>> {
        Class::LOOKUP.into_iter().find_map(|class| self.list(class).get(name).cloned())
    }

    fn peek(&self, name: &ChannelName) -> Option<&Arc<Channel>> {
        Class::LOOKUP.into_iter().find_map(|class| self.0[class as usize].peek(name))
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<Channel>> {
        self.0.iter().flat_map(|list| list.iter().map(|(_, channel)| channel))
    }
}

pub(super) struct Table {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    counts: [AtomicUsize; Class::COUNT],
    /// The memory of the waiting channels, in bytes.
    waiting_bytes: AtomicU64,
    /// For every part of all names the highest stamp of those channels that were forgotten.
    floors: Box<[AtomicU64]>,
    /// Memory of all messages kept, in bytes; each channel adds to it.
    pub(super) cost: Arc<AtomicU64>,
    /// Upper bound of that, if the table is a site's.
    pub(super) most_cost: AtomicU64,
    /// Upper bound of the channels that were published to, if the table is a site's.
    pub(super) most_channels: AtomicUsize,
}

impl Table {
    pub(super) const SHARDS: usize = 64;
    /// Number of channels of a list that one search for a quiet one examines. Busy ones move to the
    /// young end, so the next search continues behind them.
    const SEARCH: usize = 32;
    const FLOORS: usize = 1024;
    /// The memory of a waiting channel beside its name, in bytes: its record, its places in the
    /// table and room for its first waiters.
    const WAITING_COST: u64 = 480;

    pub(super) fn new() -> Self {
        let shard = || Shard(std::array::from_fn(|_| List::unbounded()));
        Self {
            shards: (0..Self::SHARDS).map(|_| Mutex::new(shard())).collect(),
            hasher: RandomState::new(),
            counts: std::array::from_fn(|_| AtomicUsize::new(0)),
            waiting_bytes: AtomicU64::new(0),
            floors: (0..Self::FLOORS).map(|_| AtomicU64::new(0)).collect(),
            cost: Arc::default(),
            most_cost: AtomicU64::new(u64::MAX),
            most_channels: AtomicUsize::new(usize::MAX),
        }
    }

    fn hash(&self, name: &ChannelName) -> usize {
        self.hasher.hash_one(name) as usize
    }

    fn shard_of(&self, name: &ChannelName) -> MutexGuard<'_, Shard> {
        self.shards[self.hash(name) % Self::SHARDS].lock()
    }

    fn floor_cell(&self, name: &ChannelName) -> &AtomicU64 {
        &self.floors[self.hash(name) / Self::SHARDS % Self::FLOORS]
    }

    /// New lives of a channel begin above this stamp, and what was known of it before is void.
    pub(super) fn floor(&self, name: &ChannelName) -> Stamp {
        Stamp(self.floor_cell(name).load(Ordering::SeqCst))
    }

    pub(super) fn raise_floor(&self, name: &ChannelName, stamp: Stamp) {
        self.floor_cell(name).fetch_max(stamp.0, Ordering::SeqCst);
    }

    /// The highest of all floors.
    pub(super) fn highest_floor(&self) -> Stamp {
        Stamp(self.floors.iter().map(|floor| floor.load(Ordering::SeqCst)).max().unwrap_or(0))
    }

    pub(super) fn raise_floors(&self, stamp: Stamp) {
        self.floors.iter().for_each(|floor| {
            floor.fetch_max(stamp.0, Ordering::SeqCst);
        });
    }

    /// All channels, shard by shard.
    pub(super) fn channels(&self) -> impl Iterator<Item = Arc<Channel>> {
        (0..Self::SHARDS).flat_map(|index| self.shard(index))
    }

    /// The channels of one shard.
    pub(super) fn shard(&self, index: usize) -> Vec<Arc<Channel>> {
        self.shards[index].lock().iter().cloned().collect()
    }

    /// Number of channels that were published to.
    pub(super) fn stored(&self) -> usize {
        Class::STORED.into_iter().map(|class| self.count(class)).sum()
    }

    pub(super) fn count(&self, class: Class) -> usize {
        self.counts[class as usize].load(Ordering::Relaxed)
    }

    /// True if its messages take more memory than its site may have.
    pub(super) fn costs_too_much(&self) -> bool {
        self.cost.load(Ordering::Relaxed) > self.most_cost.load(Ordering::Relaxed)
    }

    /// The memory of the waiting channels, in bytes.
    pub(super) fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// The memory of a waiting channel of that name, in bytes.
    pub(super) fn waiting_cost(name: &ChannelName) -> u64 {
        Self::WAITING_COST + name.len() as u64
    }

    /// The channel of that name; makes it the most recently used one.
    pub(super) fn touch(&self, name: &ChannelName, now: Time) -> Option<Arc<Channel>> {
        let mut shard = self.shard_of(name);
        let channel = shard.get(name)?;
        drop(shard);
        channel.used.store(now.0, Ordering::Relaxed);
        Some(channel)
    }

    /// The channel of that name, without using it.
    pub(super) fn peek(&self, name: &ChannelName) -> Option<Arc<Channel>> {
        self.shard_of(name).peek(name).cloned()
    }

    /// Inserts a channel. If a concurrent caller has just done so, returns that caller's channel.
    pub(super) fn insert(&self, name: &ChannelName, state: State, now: Time) -> Arc<Channel> {
        let mut shard = self.shard_of(name);
        if let Some(channel) = shard.get(name) {
            return channel;
        }
        let class = state.class();
        let channel = Arc::new(Channel {
            name: name.clone(),
            class: AtomicU8::new(class as u8),
            used: AtomicU64::new(now.0),
            state: Mutex::new(state),
        });
        self.enlist(&mut shard, &channel, class);
        channel
    }

    /// Moves a channel to the list of what it is by now.
    pub(super) fn settle(&self, channel: &Arc<Channel>) {
        let mut shard = self.shard_of(&channel.name);
        let state = channel.state.lock();
        let class = state.class();
        if state.forgotten || channel.is_listed_as(class) {
            return;
        }
        drop(state);
        self.strike(&mut shard, channel);
        self.enlist(&mut shard, channel, class);
    }

    fn enlist(&self, shard: &mut Shard, channel: &Arc<Channel>, class: Class) {
        channel.class.store(class as u8, Ordering::Relaxed);
        shard.list(class).put(channel.name.clone(), channel.clone());
        self.counts[class as usize].fetch_add(1, Ordering::Relaxed);
        if class == Class::Waiting {
            self.waiting_bytes.fetch_add(Self::waiting_cost(&channel.name), Ordering::Relaxed);
        }
    }

    fn strike(&self, shard: &mut Shard, channel: &Channel) {
        for class in Class::LOOKUP {
            if channel.is_listed_as(class) && shard.list(class).pop(&channel.name).is_some() {
                self.counts[class as usize].fetch_sub(1, Ordering::Relaxed);
                if class == Class::Waiting {
                    let cost = Self::waiting_cost(&channel.name);
                    self.waiting_bytes.fetch_sub(cost, Ordering::Relaxed);
                }
            }
        }
    }

    /// Takes out the channel of that name, if it `fits`. It is retired under both locks, so that
    /// its floor is there for all that do not find it any more.
    pub(super) fn remove(
        &self,
        name: &ChannelName,
        fits: impl FnOnce(&State) -> bool,
        retire: impl FnOnce(&Channel, &mut State) -> WakeSet,
    ) -> Option<WakeSet> {
        let mut shard = self.shard_of(name);
        let channel = shard.peek(name)?.clone();
        let mut state = channel.state.lock();
        if state.forgotten || !fits(&state) {
            return None;
        }
        let wake = retire(&channel, &mut state);
        drop(state);
        self.strike(&mut shard, &channel);
        Some(wake)
    }

    /// The least recently used channel of a class that `fits`. A search does not examine every
    /// channel (see [`Table::SEARCH`]), so `None` means "none found", not "none there".
    pub(super) fn oldest(
        &self,
        class: Class,
        fits: impl Fn(&State) -> bool,
    ) -> Option<Arc<Channel>> {
        if self.count(class) == 0 {
            return None;
        }
        let oldest_of_shard = |shard: &Mutex<Shard>| {
            let mut shard = shard.lock();
            let list = shard.list(class);
            for _ in 0..Self::SEARCH.min(list.len()) {
                let (name, channel) = list.peek_lru()?;
                if fits(&channel.state.lock()) {
                    return Some(channel.clone());
                }
                let name = name.clone();
                list.promote(&name);
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
