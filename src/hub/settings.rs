//! The bounds of the channel table.

use super::SiteBounds;
use crate::hub::channel::{ChannelName, Limits, Pattern};
use std::sync::Arc;

/// Bounds of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Channels that were published to; at this many, the one that is worth least makes room.
    pub channels: usize,
    /// Channels that were never published to and that polls wait on.
    pub waiting: usize,
    /// The memory of those, in bytes.
    pub waiting_bytes: u64,
    /// Memory for messages in all channels, in bytes.
    pub total: u64,
    /// Limits of the channels that no override matches.
    pub limits: Arc<Limits>,
    /// Limits by channel name; the first match wins.
    pub overrides: Vec<(Pattern, Arc<Limits>)>,
    /// The sites that share the table; none = the table is that of a gate without sites.
    pub sites: Vec<SiteBounds>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            channels: 100_000,
            waiting: 100_000,
            waiting_bytes: 32 << 20,
            total: 256 << 20,
            limits: Arc::default(),
            overrides: Vec::new(),
            sites: Vec::new(),
        }
    }
}

impl Settings {
    pub(super) fn limits_for(&self, name: &ChannelName) -> &Arc<Limits> {
        let (limits, overrides) = match self.site_of(name) {
            None => (&self.limits, &self.overrides),
            Some(site) => (&site.limits, &site.overrides),
        };
        let matching = overrides.iter().find(|(pattern, _)| pattern.matches(name));
        matching.map_or(limits, |(_, limits)| limits)
    }
}
