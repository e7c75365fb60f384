//! How many connections an app has, and how many subscribe to which channel.

use crate::hub::channel::ChannelName;
use crate::protocol::pusher::App;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// The connections here, and the channels that they subscribe to.
#[derive(Debug, Default)]
pub struct Occupancy {
    channels: Mutex<BTreeMap<ChannelName, usize>>,
    /// By the app's id.
    connections: Mutex<BTreeMap<Box<str>, usize>>,
}

impl Occupancy {
    pub(super) fn enter(&self, channel: &ChannelName) {
        count_in(&mut self.channels.lock(), channel);
    }

    pub(super) fn leave(&self, channel: &ChannelName) {
        count_out(&mut self.channels.lock(), channel);
    }

    pub(super) fn connect(&self, app: &App) {
        count_in(&mut self.connections.lock(), &app.id);
    }

    pub(super) fn disconnect(&self, app: &App) {
        count_out(&mut self.connections.lock(), &app.id);
    }

    /// How many connections subscribe to a channel.
    pub fn of(&self, channel: &ChannelName) -> usize {
        self.channels.lock().get(channel).copied().unwrap_or_default()
    }

    /// The channels of the same site whose names begin with that of `first`.
    pub fn below(&self, first: &ChannelName) -> Vec<(ChannelName, usize)> {
        let channels = self.channels.lock();
        let is_below =
            |name: &ChannelName| name.site() == first.site() && name.starts_with(first.as_str());
        let found = channels.range(first.clone()..).take_while(|(name, _)| is_below(name));
        found.map(|(name, count)| (name.clone(), *count)).collect()
    }

    /// How many connections an app has.
    pub fn connections_of(&self, app: &App) -> usize {
        self.connections.lock().get(&app.id).copied().unwrap_or_default()
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.lock().values().sum()
    }
}

fn count_in<K: Ord + Clone>(counts: &mut BTreeMap<K, usize>, key: &K) {
    match counts.get_mut(key) {
        Some(count) => *count += 1,
        None => drop(counts.insert(key.clone(), 1)),
    }
}

fn count_out<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
