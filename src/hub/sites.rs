//! One table for each site: names, order of use, counts and costs are the site's own.
//!
//! A gate without sites has one table, and finds it without a lock or a search. One with sites
//! keeps nothing in that: a name that has lost its site finds no room ([`Settings::bounds`]), so a
//! mistake elsewhere ends in a refusal and not on another site's channel.

use super::table::{Class, Table};
use super::{ChannelName, Hub, Limits, Pattern, Settings, TableFull};
use crate::hub::channel::{SiteName, Stamp};
use parking_lot::RwLock;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bounds of one site's channels; those of the table count beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteBounds {
    /// The site.
    pub name: SiteName,
    /// Its channels that were published to.
    pub channels: usize,
    /// Its channels that were never published to and that polls wait on.
    pub waiting: usize,
    /// The memory of those, in bytes.
    pub waiting_bytes: u64,
    /// Memory for its messages, in bytes.
    pub total: u64,
    /// Limits of its channels that no override matches.
    pub limits: Arc<Limits>,
    /// Limits by channel name; the first match wins.
    pub overrides: Vec<(Pattern, Arc<Limits>)>,
}

/// What one site uses of the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Channels that were published to.
    pub channels: usize,
    /// Channels that were never published to and that polls wait on.
    pub waiting: usize,
    /// The memory all its kept messages take, in bytes.
    pub cost: u64,
}

impl Settings {
    /// The bounds of a channel's site; `None` = those of the table alone. A channel of no site
    /// here gets no room.
    pub(super) fn bounds(&self, name: &ChannelName) -> Result<Option<&SiteBounds>, TableFull> {
        match self.site_of(name) {
            None if name.site().is_empty() && self.sites.is_empty() => Ok(None),
            None => Err(TableFull),
            site => Ok(site),
        }
    }

    pub(super) fn site_of(&self, name: &ChannelName) -> Option<&SiteBounds> {
        let site = name.site();
        if site.is_empty() { None } else { self.sites.iter().find(|one| one.name.as_str() == site) }
    }
}

type SiteTable = (SiteName, Arc<Table>);

/// See the [module](self).
pub(super) struct Tables {
    /// The table of a gate without sites.
    root: Arc<Table>,
    sites: RwLock<Vec<SiteTable>>,
    /// The table of sites that are not here; it stays empty.
    none: Arc<Table>,
}

/// A table in use.
pub(super) enum TableRef<'a> {
    Root(&'a Table),
    Site(Arc<Table>),
}

impl Deref for TableRef<'_> {
    type Target = Table;
    fn deref(&self) -> &Table {
        match self {
            Self::Root(table) => table,
            Self::Site(table) => table,
        }
    }
}

impl Tables {
    pub(super) fn new(settings: &Settings) -> Self {
        let root = Arc::new(Table::new());
        let none = Arc::new(Table::new());
        let tables = Self { root, sites: RwLock::default(), none };
        tables.add(settings, Stamp(0));
        tables
    }

    /// The table of a channel.
    pub(super) fn of(&self, name: &ChannelName) -> TableRef<'_> {
        self.of_site(name.site())
    }

    pub(super) fn of_site(&self, site: &str) -> TableRef<'_> {
        if site.is_empty() {
            return TableRef::Root(&self.root);
        }
        let sites = self.sites.read();
        let found = sites.iter().find(|(name, _)| name.as_str() == site);
        TableRef::Site(found.map_or(&self.none, |(_, table)| table).clone())
    }

    /// All tables.
    pub(super) fn all(&self) -> Vec<Arc<Table>> {
        let sites = self.sites.read();
        [&self.root].into_iter().chain(sites.iter().map(|(_, table)| table)).cloned().collect()
    }

    /// The sum of a figure of all tables.
    pub(super) fn sum(&self, figure: impl Fn(&Table) -> u64) -> u64 {
        let sites = self.sites.read();
        figure(&self.root) + sites.iter().map(|(_, table)| figure(table)).sum::<u64>()
    }

    /// A site's table for which `which` holds.
    pub(super) fn find(&self, which: impl Fn(&Table) -> bool) -> Option<Arc<Table>> {
        let sites = self.sites.read();
        sites.iter().map(|(_, table)| table).find(|table| which(table)).cloned()
    }

    /// The table that has most of a figure; `own` of those that have the same.
    pub(super) fn most<'a>(
        &'a self,
        own: Option<&'a Table>,
        figure: impl Fn(&Table) -> u64,
    ) -> TableRef<'a> {
        let sites = self.sites.read();
        let mut most = (own.map_or(0, &figure), None);
        for table in [&self.root].into_iter().chain(sites.iter().map(|(_, table)| table)) {
            let has = figure(table);
            if has > most.0 {
                most = (has, Some(table.clone()));
            }
        }
        match (most.1, own) {
            (Some(table), _) => TableRef::Site(table),
            (None, Some(own)) => TableRef::Root(own),
            (None, None) => TableRef::Root(&self.root),
        }
    }

    /// Adds the tables of new sites, and sets the bounds of all. Positions and stamps that an
    /// earlier site of that name gave out are void: they are not after `floor`.
    pub(super) fn add(&self, settings: &Settings, floor: Stamp) {
        let mut sites = self.sites.write();
        for site in &settings.sites {
            let known = sites.iter().position(|(name, _)| *name == site.name);
            let at = known.unwrap_or_else(|| {
                let table = Table::new();
                table.raise_floors(floor);
                sites.push((site.name.clone(), Arc::new(table)));
                sites.len() - 1
            });
            let table = &sites[at].1;
            table.most_cost.store(site.total, Ordering::Relaxed);
            table.most_channels.store(site.channels, Ordering::Relaxed);
        }
    }

    /// Takes out the tables that have no site in `settings`; of the table without a site, only its
    /// channels go. All that was known of them up to `floor` is void.
    pub(super) fn remove(&self, settings: &Settings, floor: Stamp) -> Vec<Arc<Table>> {
        let mut gone = Vec::new();
        self.sites.write().retain(|(name, table)| {
            let stays = settings.sites.iter().any(|site| site.name == *name);
            if !stays {
                gone.push(table.clone());
            }
            stays
        });
        if !settings.sites.is_empty() {
            gone.push(self.root.clone());
        }
        let void = |table: &Arc<Table>| table.raise_floors(floor);
        gone.iter().chain((!gone.is_empty()).then_some(&self.none)).for_each(void);
        gone
    }

    /// The highest stamp of all channels that were forgotten.
    pub(super) fn highest_floor(&self) -> Stamp {
        Stamp(self.max(|table| table.highest_floor().0))
    }

    fn max(&self, figure: impl Fn(&Table) -> u64) -> u64 {
        let sites = self.sites.read();
        sites.iter().map(|(_, table)| figure(table)).fold(figure(&self.root), u64::max)
    }
}

impl Hub {
    /// True if a channel can be there: its site is one of the settings.
    pub(super) fn has_site(&self, name: &ChannelName) -> bool {
        self.shared.settings.read().bounds(name).is_ok()
    }

    /// What a site uses of the table.
    pub fn usage(&self, site: &SiteName) -> Usage {
        let table = self.shared.tables.of_site(site.as_str());
        Usage {
            channels: table.stored(),
            waiting: table.count(Class::Waiting),
            cost: table.cost.load(Ordering::Relaxed),
        }
    }

    /// The table of a channel.
    pub(super) fn table(&self, name: &ChannelName) -> TableRef<'_> {
        self.shared.tables.of(name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::hub::channel::{Cursor, Payload, Take, Time};
    use crate::hub::{PollOutcome, Subscription};

    const NOW: Time = Time(1_000_000_000);

    fn bounds(name: &str) -> SiteBounds {
        SiteBounds {
            name: SiteName::new(name).unwrap(),
            channels: 100,
            waiting: 100,
            waiting_bytes: 1 << 20,
            total: 1 << 20,
            limits: Arc::default(),
            overrides: Vec::new(),
        }
    }

    fn hub(channels: usize, total: u64, sites: &[&str]) -> Hub {
        let sites = sites.iter().map(|name| bounds(name)).collect();
        Hub::new(Settings { channels, total, sites, ..Settings::default() }, 1)
    }

    fn name(site: &str, name: &str) -> ChannelName {
        ChannelName::new(name).unwrap().in_site(&SiteName::new(site).unwrap_or_default())
    }

    fn publish(hub: &Hub, site: &str, channel: &str) -> Result<(), TableFull> {
        let posts = [(name(site, channel), Payload::text("x".repeat(100)))];
        hub.publish(&posts, NOW).map(drop)
    }

    fn usage(hub: &Hub, site: &str) -> Usage {
        hub.usage(&SiteName::new(site).unwrap())
    }

    fn poll(hub: &Hub, site: &str, channel: &str) -> Result<PollOutcome, TableFull> {
        let one = Subscription { channel: name(site, channel), cursor: Cursor::Now };
        hub.poll(&[one], Take::All, true, NOW)
    }

    #[test]
    fn a_name_that_has_lost_its_site_finds_no_room() {
        let hub = hub(100, 1 << 20, &["a", "b"]);
        publish(&hub, "a", "news").unwrap();
        for site in ["", "c"] {
            assert!(publish(&hub, site, "news").is_err(), "{site:?}");
            assert!(poll(&hub, site, "news").is_err(), "{site:?}");
            assert!(hub.info(&name(site, "news"), NOW).is_none());
        }
        assert!(hub.info(&name("b", "news"), NOW).is_none());
        assert_eq!(hub.channels(), 1);
    }

    #[test]
    fn at_a_bound_of_all_the_site_that_uses_most_gives_way() {
        let hub = hub(10, 1 << 20, &["a", "b"]);
        for at in 0..3 {
            publish(&hub, "b", &format!("b{at}")).unwrap();
        }
        for at in 0..50 {
            publish(&hub, "a", &format!("a{at}")).unwrap();
        }
        assert_eq!((usage(&hub, "a").channels, usage(&hub, "b").channels), (7, 3));
        for at in 0..50 {
            publish(&hub, "b", &format!("b{at}")).unwrap();
        }
        // Of two that use the same, the one that wants more gives way.
        assert_eq!((usage(&hub, "a").channels, usage(&hub, "b").channels), (5, 5));
    }

    #[test]
    fn memory_is_taken_back_from_the_site_that_uses_most() {
        let hub = hub(1000, 4000, &["a", "b"]);
        publish(&hub, "b", "b").unwrap();
        let own = usage(&hub, "b").cost;
        for at in 0..100 {
            publish(&hub, "a", &format!("a{at}")).unwrap();
        }
        assert_eq!(usage(&hub, "b").cost, own);
        assert!(hub.cost() <= 4000);
    }

    #[test]
    fn a_sites_own_bounds_are_kept_too_also_where_they_shrink() {
        let hub = hub(1000, 1 << 30, &["a", "b"]);
        for at in 0..20 {
            publish(&hub, "a", &format!("a{at}")).unwrap();
            publish(&hub, "b", &format!("b{at}")).unwrap();
        }
        let small = SiteBounds { channels: 5, ..bounds("a") };
        let cheap = SiteBounds { total: usage(&hub, "b").cost / 2, ..bounds("b") };
        let sites = vec![small, cheap.clone()];
        hub.reconfigure(Settings { sites, ..Settings::default() }, NOW);
        assert_eq!((usage(&hub, "a").channels, usage(&hub, "b").channels), (5, 20));
        assert!(usage(&hub, "b").cost <= cheap.total);
        for at in 0..20 {
            publish(&hub, "a", &format!("c{at}")).unwrap();
            publish(&hub, "b", &format!("b{at}")).unwrap();
        }
        assert_eq!(usage(&hub, "a").channels, 5);
        assert!(usage(&hub, "b").cost <= cheap.total);
    }

    #[test]
    fn a_site_that_goes_takes_its_channels_along_and_no_other() {
        let hub = hub(100, 1 << 20, &["a", "b"]);
        publish(&hub, "a", "kept").unwrap();
        let Ok(PollOutcome::Waiting(mut gone)) = poll(&hub, "b", "news") else {
            panic!("it waits")
        };
        let Ok(PollOutcome::Waiting(mut stays)) = poll(&hub, "a", "news") else {
            panic!("it waits")
        };
        let before = hub.held();
        hub.reconfigure(Settings { sites: vec![bounds("a")], ..Settings::default() }, NOW);
        assert!(gone.has_lost_site() && !stays.has_lost_site());
        assert!(gone.look(NOW).unwrap()[0].found.reset);
        assert!(stays.look(NOW).is_none());
        drop(gone);
        assert_eq!(hub.held(), before - 1);
        assert_eq!((hub.channels(), usage(&hub, "b")), (1, Usage::default()));
        publish(&hub, "a", "news").unwrap();
        assert_eq!(stays.look(NOW).unwrap()[0].found.messages.len(), 1);
        // And a gate that has no sites any more forgets them all.
        hub.reconfigure(Settings::default(), NOW);
        assert_eq!((hub.channels(), hub.cost()), (0, 0));
        publish(&hub, "", "news").unwrap();
        assert_eq!(hub.channels(), 1);
    }

    #[test]
    fn a_site_that_comes_back_knows_no_position_of_before() {
        let hub = hub(100, 1 << 20, &["a", "b"]);
        let Ok(PollOutcome::Waiting(waiter)) = poll(&hub, "b", "news") else { panic!("it waits") };
        let position = waiter.positions().next().unwrap();
        drop(waiter);
        let with = |sites: &[&str]| {
            let sites = sites.iter().map(|name| bounds(name)).collect();
            Settings { sites, ..Settings::default() }
        };
        let later = |more: u64| Time(NOW.0 + more);
        hub.reconfigure(with(&["a"]), later(10));
        hub.reconfigure(with(&["a", "b"]), later(20));
        let one = Subscription { channel: name("b", "news"), cursor: Cursor::At(position) };
        let found = hub.look(&[one], Take::All, later(30)).unwrap();
        assert!(found[0].found.reset);
    }
}
