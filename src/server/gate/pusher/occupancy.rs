//! How many connections subscribe to which channel.

use crate::hub::channel::ChannelName;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// The channels that connections subscribe to here, and how many do.
#[derive(Debug, Default)]
pub struct Occupancy(Mutex<BTreeMap<ChannelName, usize>>);

impl Occupancy {
    pub(super) fn enter(&self, channel: &ChannelName) {
        *self.0.lock().entry(channel.clone()).or_default() += 1;
    }

    pub(super) fn leave(&self, channel: &ChannelName) {
        let mut channels = self.0.lock();
        if let Some(count) = channels.get_mut(channel) {
            *count -= 1;
            if *count == 0 {
                channels.remove(channel);
            }
        }
    }

    /// How many connections subscribe to a channel.
    pub fn of(&self, channel: &ChannelName) -> usize {
        self.0.lock().get(channel).copied().unwrap_or_default()
    }

    /// The channels whose names begin with `prefix`.
    pub fn below(&self, prefix: &str) -> Vec<(ChannelName, usize)> {
        let channels = self.0.lock();
        let from = (std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded);
        let found = channels.range::<str, _>(from);
        let found = found.take_while(|(name, _)| name.starts_with(prefix));
        found.map(|(name, count)| (name.clone(), *count)).collect()
    }
}
