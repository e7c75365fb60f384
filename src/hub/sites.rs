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
        let (root, none) = (Arc::new(Table::new()), Arc::new(Table::new()));
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
    /// channels go.
    pub(super) fn remove(&self, settings: &Settings) -> Vec<Arc<Table>> {
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
