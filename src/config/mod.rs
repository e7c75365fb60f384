//! The config: what users write, checked once and turned into the modules' own settings, types
//! that cannot be wrong.
//!
//! [`Sources`] are laid over each other (file, environment, command line), a walk over the
//! result asks for every key (`section.rs`), and either all is well and there is a [`Config`], or
//! there are [`Mistakes`], all of them at once.

mod checks;
mod effective;
mod read;
mod reloadable;
mod tables;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

pub use read::mistake::{Mistake, Mistakes, Source};
pub use read::sources::{ENV_PREFIX, Sources, assignment};
pub use tables::{Client, Drain};

use crate::hub;
use crate::hub::channel::ChannelName;
use crate::protocol::address::Address;
use crate::protocol::auth::secret::Secret;
use crate::server::backplane;
use crate::server::gate::poll::hold;
use crate::server::gate::route::Rule;
use crate::server::gate::{tls, upstream};
use crate::server::limits::permit;
use crate::server::net::certificate::Identity;
use crate::server::persist::snapshot;
use crate::server::telemetry::log;
use ipnet::IpNet;
use read::locations::ConnectionSlots;
use read::report::Report;
use read::section::Section;
use std::path::PathBuf;

/// A config without mistakes.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the gate listens; at least one.
    pub listen: Vec<Address>,
    /// Where the internal listener listens; at least one.
    pub internal: Vec<Address>,
    /// Host names besides IP literals and `localhost` that the internal side answers to without
    /// a token, in lower case.
    pub internal_names: Vec<String>,
    /// Networks whose word about the client's address is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// Threads; zero = one a core.
    pub threads: usize,
    /// TLS on the public listener; `None` = plain.
    pub tls: Option<tls::Settings>,
    /// What the files that `tls` names hold; there if `tls` is.
    pub identity: Option<Identity>,
    /// The site.
    pub upstream: upstream::Settings,
    /// What the internal listener asks for; empty = nothing.
    pub token: Secret,
    /// How many messages a second the hook takes; 0 = no limit.
    pub messages_per_second: u32,
    /// The longest message, in bytes.
    pub max_message: u64,
    /// How long polls are held.
    pub hold: hold::Settings,
    /// The channels and what they keep.
    pub hub: hub::Settings,
    /// The file in which the history outlives a restart.
    pub snapshot: snapshot::Settings,
    /// Where a new process finds this one to take it over; `None` = by its internal address.
    pub upgrade: Option<PathBuf>,
    /// How many polls are held.
    pub limits: permit::Settings,
    /// What is expected of a client's connection.
    pub client: Client,
    /// How the gate ends.
    pub drain: Drain,
    /// The log.
    pub log: log::Settings,
    /// Channels that have series of their own in the metrics.
    pub watched: Vec<ChannelName>,
    /// Where channels are shared with other gates; `None` = they are not.
    pub backplane: Option<backplane::Settings>,
    /// Which requests are polls; empty = as [`crate::server::gate::route::Routes::new`] says.
    pub routes: Vec<Rule>,
    /// Which requests that the site handles are messages.
    pub capture: Vec<std::sync::Arc<crate::server::publish::capture::Rule>>,
    /// Whether the site may publish with a header of its answers.
    pub may_publish: bool,
    /// Which files the site publishes with.
    pub watch: Vec<crate::server::publish::watch::Rule>,
    /// Whether the file is read again when it changes.
    pub watch_file: bool,
    /// What is no mistake and ought to be looked at, each with its key.
    pub warnings: Vec<String>,
    /// The same as a TOML table.
    effective: toml_edit::Table,
    /// Where each value was written.
    places: ConnectionSlots,
}

/// Who names the site's servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// The config has to, in `upstream.servers`.
    Configured,
    /// The caller will; the config may be silent.
    Supplied,
}

impl Config {
    /// Reads and checks; the error has every mistake that was found.
    pub fn read(sources: &Sources, site: Site) -> Result<Self, Mistakes> {
        let merged = read::sources::merge(sources);
        let report = Report::new(merged.places.clone(), merged.mistakes);
        let mut root = Section::new(&report, "", merged.tree);
        let mut config = tables::config(&mut root);
        config.effective = root.finish();
        config.places = merged.places;
        checks::across(&config, site, &report);
        checks::files(&mut config, &report);
        checks::machine(&mut config);
        report.finish().map_or(Ok(config), Err)
    }

    /// The mistake of a value that only turned out to be wrong when it was used, such as a name
    /// that cannot be looked up.
    pub fn refusal(&self, key: &str, message: impl Into<String>) -> Mistakes {
        let (source, line) = self.places.of(key);
        Mistake { key: key.to_owned(), line, source, message: message.into() }.into()
    }
}

/// How to reach a running gate from the outside: what `pollgate publish`, `status` and `reload`
/// take from its config.
#[derive(Debug, Clone)]
pub struct Contact {
    /// Its internal addresses.
    pub internal: Vec<Address>,
    /// Its token.
    pub token: Secret,
}

impl Contact {
    /// Reads these two keys alone: mistakes anywhere else are for the gate to tell. A file that
    /// is no TOML at all is still an error.
    pub fn read(sources: &Sources) -> Result<Self, Mistakes> {
        let merged = read::sources::merge(sources);
        let report = Report::new(merged.places, merged.mistakes);
        let mut root = Section::new(&report, "", merged.tree);
        // The sections are not finished, so what else is in them is nobody's mistake.
        let internal = tables::internal(&mut root);
        let token = root.table("publish", |publish| {
            let token = tables::token(publish);
            publish.all();
            token
        });
        report.finish().map_or(Ok(Self { internal, token }), Err)
    }
}
