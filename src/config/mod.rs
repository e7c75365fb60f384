//! The config: text from users, checked once and turned into the modules' own settings, types that
//! cannot be invalid.
//!
//! [`Sources`] are layered (file, environment, command line). A walk over the result reads every
//! key (`section.rs`) and ends in a [`Config`], or in [`Mistakes`], all of them at once.

mod checks;
mod effective;
mod read;
mod reloadable;
mod sites;
mod tables;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

pub use read::mistake::{Mistake, Mistakes, Source};
pub use read::sources::{ENV_PREFIX, Sources, assignment};
pub use tables::grip::Grip;
pub use tables::site::SiteConfig;
pub use tables::{Client, Drain};

use crate::hub;
use crate::hub::channel::ChannelName;
use crate::protocol::address::Address;
use crate::protocol::auth::secret::Secret;
use crate::server::backplane;
use crate::server::gate::client_script::ClientScript;
use crate::server::gate::poll::hold;
use crate::server::gate::pusher::PusherSettings;
use crate::server::gate::route::Rule;
use crate::server::gate::{stream, tls, upstream};
use crate::server::limits::permit;
use crate::server::net::certificate::Identity;
use crate::server::persist::snapshot;
use crate::server::telemetry::log;
use crate::server::webhook;
use ipnet::IpNet;
use read::locations::ConnectionSlots;
use read::report::Report;
use read::section::Section;
use std::path::PathBuf;

/// A config without mistakes.
#[derive(Debug, Clone)]
pub struct Config {
    /// Public listening addresses; at least one.
    pub listen: Vec<Address>,
    /// Listening addresses of the internal listener; at least one.
    pub internal: Vec<Address>,
    /// Host names besides IP literals and `localhost` for which the internal listener answers
    /// without a token, in lower case.
    pub internal_names: Vec<String>,
    /// Networks of proxies that are trusted to name the client's address.
    pub trusted_proxies: Vec<IpNet>,
    /// Number of threads; zero = one per core.
    pub threads: usize,
    /// TLS on the public listener; `None` = plain.
    pub tls: Option<tls::Settings>,
    /// Certificate and key from the files that `tls` names; present if `tls` is.
    pub identity: Option<Identity>,
    /// The upstream servers.
    pub upstream: upstream::Settings,
    /// Token of the internal listener; empty = none required.
    pub token: Secret,
    /// Rate limit of the hook, in messages per second; 0 = no limit.
    pub messages_per_second: u32,
    /// Maximum length of a message, in bytes.
    pub max_message: u64,
    /// Settings of held polls.
    pub hold: hold::Settings,
    /// What streams are like; their spread is [`Drain`]'s.
    pub stream: stream::Settings,
    /// The channels and their histories.
    pub hub: hub::Settings,
    /// Presence on the channels of each site.
    pub presence: Vec<hub::presence::Rules>,
    /// Memory for the users who are present, in bytes.
    pub presence_bytes: u64,
    /// Receivers of events, those of all sites.
    pub webhooks: Vec<webhook::Settings>,
    /// The file in which the history outlives a restart.
    pub snapshot: snapshot::Settings,
    /// Socket through which a new process takes over from this one; `None` = derived from its
    /// internal address.
    pub upgrade: Option<PathBuf>,
    /// Maximum number of held polls.
    pub limits: permit::Settings,
    /// Path at which the browser client is served; `None` = it is not.
    pub client_script: Option<ClientScript>,
    /// Limits on a client's connection.
    pub client: Client,
    /// Shutdown of the gate.
    pub drain: Drain,
    /// The log.
    pub log: log::Settings,
    /// Channels that have series of their own in the metrics.
    pub watched: Vec<ChannelName>,
    /// Backplane that shares the channels with other gates; `None` = they are not shared.
    pub backplane: Option<backplane::Settings>,
    /// The interface of Pushpin.
    pub grip: Grip,
    /// The Mercure hub; `None` = there is none.
    pub mercure: Option<std::sync::Arc<crate::protocol::mercure::Settings>>,
    /// Rules that select polls; empty = as in [`crate::server::gate::route::Routes::new`].
    pub routes: Vec<Rule>,
    /// The Pusher protocol's apps, those of all sites.
    pub pusher: PusherSettings,
    /// What is published of requests to the upstream and its responses.
    pub captured: crate::server::publish::Captured,
    /// Paths of the internal listener that publish as Nchan's publishers do.
    pub nchan: Vec<std::sync::Arc<crate::server::publish::nchan::Rule>>,
    /// Rules for files that the site publishes with, those of all sites.
    pub watch: Vec<crate::server::publish::watch::Rule>,
    /// The sites; none = all hosts are one site without a name, described by the keys above.
    pub sites: Vec<SiteConfig>,
    /// True if a change of the file reloads the config.
    pub watch_file: bool,
    /// Warnings: settings that are valid and probably not intended, each with its key.
    pub warnings: Vec<String>,
    /// The effective config as a TOML table.
    effective: toml_edit::Table,
    /// Location of each value.
    places: ConnectionSlots,
}

/// Origin of the list of upstream servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// The config must name them, in `upstream.servers`.
    Configured,
    /// The caller provides them; the config may omit them.
    Supplied,
}

impl Config {
    /// Reads and checks the sources; the error contains every mistake found.
    pub fn read(sources: &Sources, site: Site) -> Result<Self, Mistakes> {
        let merged = read::sources::merge(sources);
        let report = Report::new(merged.places.clone(), merged.mistakes);
        let mut root = Section::new(&report, "", merged.tree);
        let mut config = tables::config(&mut root);
        config.effective = root.finish();
        config.warnings.extend(report.warnings());
        config.places = merged.places;
        checks::across(&config, site, &report);
        sites::across(&config, &report);
        checks::files(&mut config, &report);
        sites::files(&mut config, &report);
        checks::reachable(&mut config);
        checks::machine(&mut config);
        report.finish().map_or(Ok(config), Err)
    }

    /// True if the public listener speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some() || self.sites.iter().any(|site| site.tls.is_some())
    }

    /// The certificates that it shows.
    pub fn certificates(&self) -> tls::Certificates {
        let mut all = tls::Certificates::of(self.identity.as_ref());
        for site in &self.sites {
            if let Some(identity) = &site.identity {
                all.add(&site.hosts, site.default, identity);
            }
        }
        all
    }

    /// The mistake of a value that only turned out to be wrong in use, such as a name that cannot
    /// be resolved.
    pub fn refusal(&self, key: &str, message: impl Into<String>) -> Mistakes {
        let (source, line) = self.places.of(key);
        Mistake { key: key.to_owned(), line, source, message: message.into() }.into()
    }
}

/// Address and token of a running gate, which `pollgate publish`, `status` and `reload` take from
/// its config.
#[derive(Debug, Clone)]
pub struct Contact {
    /// Its internal addresses.
    pub internal: Vec<Address>,
    /// Its token.
    pub token: Secret,
}

impl Contact {
    /// Reads these two keys alone: the gate reports mistakes anywhere else. A file that is no TOML
    /// at all is still an error.
    pub fn read(sources: &Sources) -> Result<Self, Mistakes> {
        let merged = read::sources::merge(sources);
        let report = Report::new(merged.places, merged.mistakes);
        let mut root = Section::new(&report, "", merged.tree);
        // The sections are not finished, so their other keys are not reported.
        let internal = tables::internal(&mut root);
        let token = root.table("publish", |publish| {
            let token = tables::token(publish);
            publish.all();
            token
        });
        report.finish().map_or(Ok(Self { internal, token }), Err)
    }
}
