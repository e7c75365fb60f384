//! What the rules say of a channel.

use super::{PREFIX, Presence, Rules, Settings, has_companion};
use crate::hub::channel::ChannelName;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Presence<'_> {
    /// Number of changes of the rules.
    pub(super) fn generation(&self) -> u64 {
        self.rooms().generation.load(Ordering::Relaxed)
    }

    /// The settings of a channel; `None` = presence is off there. The channels of joins and leaves
    /// have none of their own.
    pub fn settings(&self, channel: &ChannelName) -> Option<Arc<Settings>> {
        if !self.is_on() || channel.starts_with(PREFIX) || !has_companion(channel) {
            return None;
        }
        let rules = self.rooms().rules.read();
        let rules = Rules::of(&rules, channel)?;
        rules.settings(channel).cloned()
    }

    /// True if there is a list of the users on a channel.
    pub fn may_list(&self, channel: &ChannelName) -> bool {
        self.settings(channel).is_some()
            || self.shard_of(channel).lock().rooms.get(channel).is_some_and(|room| room.lists())
    }

    /// The channel whose joins and leaves are on `channel`, and its settings.
    pub fn subject(&self, channel: &ChannelName) -> Option<(ChannelName, Arc<Settings>)> {
        if !self.is_on() {
            return None;
        }
        let subject = channel.sibling(channel.strip_prefix(PREFIX)?).ok()?;
        let settings = self.settings(&subject)?;
        Some((subject, settings))
    }

    /// True if the channel is watched without having presence.
    pub fn is_watched(&self, channel: &ChannelName) -> bool {
        self.entry(channel).is_some_and(|settings| settings.is_none())
    }

    /// The settings with which clients enter a channel: `None` = none does, and `Some(None)` = those
    /// of a channel that is watched without having presence.
    #[allow(clippy::option_option)]
    pub fn entry(&self, channel: &ChannelName) -> Option<Option<Arc<Settings>>> {
        if !self.is_on() || channel.starts_with(PREFIX) {
            return None;
        }
        let rules = self.rooms().rules.read();
        let rules = Rules::of(&rules, channel)?;
        match rules.settings(channel).filter(|_| has_companion(channel)) {
            Some(settings) => Some(Some(settings.clone())),
            None => rules.occupancy.then_some(None),
        }
    }
}
