//! Time series of single channels, and of sites.

use crate::hub::channel::{ChannelName, SiteName};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one channel, or of all of a site's.
#[derive(Debug, Default)]
pub struct Series {
    /// Messages published.
    pub publishes: AtomicU64,
    /// Messages in responses.
    pub deliveries: AtomicU64,
}

/// The channels that the config lists, and its sites; nothing is counted for any other.
#[derive(Debug, Default)]
pub struct Watched {
    all: ArcSwap<AllSeries>,
}

/// One value, as each delivery looks it up.
#[derive(Debug, Clone, Default)]
struct AllSeries {
    channels: HashMap<ChannelName, Arc<Series>>,
    sites: Vec<(SiteName, Arc<Series>)>,
}

impl Watched {
    /// Watches `names` from now on; already watched ones keep their counts.
    pub fn watch(&self, names: &[ChannelName]) {
        let before = self.all.load();
        let series = |name: &ChannelName| before.channels.get(name).cloned().unwrap_or_default();
        let channels = names.iter().map(|name| (name.clone(), series(name))).collect();
        self.all.store(Arc::new(AllSeries { channels, sites: before.sites.clone() }));
    }

    /// Counts these sites from now on; the ones that were there keep their counts.
    pub fn watch_sites(&self, names: &[SiteName]) {
        let before = self.all.load();
        let series = |name: &SiteName| before.site(name).cloned().unwrap_or_default();
        let sites = names.iter().map(|name| (name.clone(), series(name))).collect();
        self.all.store(Arc::new(AllSeries { sites, channels: before.channels.clone() }));
    }

    /// The counts of a site.
    pub fn site(&self, name: &SiteName) -> Option<Arc<Series>> {
        self.all.load().site(name).cloned()
    }

    /// Counts a message published on `channel`.
    pub fn published(&self, channel: &ChannelName) {
        self.with(channel, |series| series.publishes.fetch_add(1, Ordering::Relaxed));
    }

    /// Counts messages of `channel` in a response.
    pub fn delivered(&self, channel: &ChannelName, messages: usize) {
        self.with(channel, |series| {
            series.deliveries.fetch_add(messages as u64, Ordering::Relaxed)
        });
    }

    fn with(&self, channel: &ChannelName, count: impl Fn(&Series) -> u64) {
        let all = self.all.load();
        if !all.channels.is_empty()
            && let Some(series) = all.channels.get(channel)
        {
            count(series);
        }
        if !all.sites.is_empty() {
            let own = all.sites.iter().find(|(site, _)| channel.is_of(site));
            own.map(|(_, series)| count(series));
        }
    }

    /// All of them, in the order of their names.
    pub fn all(&self) -> Vec<(ChannelName, Arc<Series>)> {
        let all = self.all.load();
        let mut all: Vec<_> = all.channels.iter().map(|(n, s)| (n.clone(), s.clone())).collect();
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

impl AllSeries {
    fn site(&self, name: &SiteName) -> Option<&Arc<Series>> {
        self.sites.iter().find(|(known, _)| known == name).map(|(_, series)| series)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_channels_are_counted_and_go_on_after_a_change() {
        let name = |text| ChannelName::new(text).unwrap();
        let watched = Watched::default();
        watched.published(&name("a"));
        watched.watch(&[name("a")]);
        watched.published(&name("a"));
        watched.published(&name("b"));
        watched.delivered(&name("a"), 3);
        watched.watch(&[name("b"), name("a")]);
        let counts = |(name, series): &(ChannelName, Arc<Series>)| {
            let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
            (name.to_string(), count(&series.publishes), count(&series.deliveries))
        };
        let all: Vec<_> = watched.all().iter().map(counts).collect();
        assert_eq!(all, [("a".to_owned(), 1, 3), ("b".to_owned(), 0, 0)]);
    }
}
