//! Builds the gate from a config, runs it, and shuts it down without dropping a poll.

mod backplane;
pub mod demo;
mod error;
mod internal;
mod listeners;
mod live;
mod live_sites;
mod mercure;
mod parts;
mod presence;
mod pusher;
mod reexec;
mod reload;
mod services;
mod shutdown;
mod signals;
mod snapshot_writer;
mod stats;
mod sweeper;
mod systemd;
mod upgrade;
mod watcher;

use crate::config::{Config, Site, Sources};
use crate::hub::channel::SiteName;
use crate::protocol::address::Address;
use crate::server::gate::tls::Tls;
use crate::server::gate::upstream::Upstream;
use crate::server::limits::descriptors;
use crate::server::net::listener::{Accepting, Bound};
use crate::server::publish::IdempotencyCache;
use crate::server::telemetry::log::Log;
pub use error::AppError;
pub use listeners::Addresses;
use listeners::Listeners;
use live::LiveSettings;
use parts::Parts;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use services::Services;
use shutdown::Shutdown;
use signals::Signals;
use snapshot_writer::SnapshotWriter;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};
pub use upgrade::Inherited;
use upgrade::{UpgradeServer, Upgrades};
use watcher::WatcherService;

/// A gate whose listeners are bound, ready to run.
pub struct App {
    server: Server,
    ending: Shutdown,
    /// The listening addresses.
    pub addresses: Addresses,
    /// The upstream servers.
    pub upstream: Vec<Address>,
}

impl App {
    /// Binds the listeners and builds everything behind them. `sources` are the sources of
    /// `config`, which a reload reads again; a reload may also change `log`. The state in
    /// `inherited`, if any, is taken over at the very end.
    pub fn new(
        config: Config,
        sources: Sources,
        site: Site,
        log: Log,
        mut inherited: Inherited,
    ) -> Result<Self, AppError> {
        let listeners = Listeners::bind(&config, &mut inherited)?;
        let addresses = listeners.addresses();
        let sockets = listeners.shared();
        let demo = (site == Site::Supplied).then(demo::upstream::bind).transpose()?;
        let upstream = upstream_addresses(&config, demo.as_ref());
        let live = live_settings(&config, demo.as_ref(), log)?;
        let kept = kept_state(&config, &live, &inherited)?;
        let parts = Parts::new(config.clone(), sources, site, live.clone(), kept);

        let (accepting, accepted) = watch::channel(Accepting::Yes);
        let (stop_public, public_stopped) = watch::channel(false);
        let (stop_internal, internal_stopped) = watch::channel(false);
        let mut services = Services::new(engine_settings(&config), accepted);
        if let Some(bound) = demo {
            let publish = demo::upstream::publish(addresses.internal.first(), &live.internal);
            services.add(demo::upstream::service(bound, publish, &public_stopped));
        }
        services.add_public(&parts, listeners.public, listeners.redirect, &public_stopped);
        let (internal, page) = parts.internal(public_stopped)?;
        let quiesce = internal.quiesce();
        services.add_internal(internal, listeners.internal, internal_stopped);
        services.add_background(&parts, page);
        let Signals { end, hangup, renew } = Signals::listen().map_err(AppError::Signals)?;
        services.add_signals(&parts, hangup, renew);

        let Parts { gate, publisher, snapshot_writer, reload, answers, .. } = parts;
        let hub = live.hub.clone();
        let upgrading = upgrade::Parts {
            hub: hub.clone(),
            answers: answers.clone(),
            publisher: publisher.clone(),
            quiesce: quiesce.clone(),
            snapshot_writer: snapshot_writer.clone(),
            accepting,
            sockets,
        };
        let upgrading = UpgradeServer::new(&config, &mut inherited, upgrading);
        let ready = upgrading.ready(&config, &addresses.internal);
        let upgrading = Arc::new(upgrading);
        services.background("upgrades", Arc::new(Upgrades(upgrading.clone())));
        inherited.take_over(&hub, &answers, ready)?;
        // The content of a file is compared with the history that was taken over.
        let watching = WatcherService::new(publisher.clone(), &reload);
        services.background("watcher", Arc::new(watching));
        let ending = Shutdown {
            signals: Arc::new(Mutex::new(end)),
            upgrading,
            hub,
            gate,
            publisher,
            quiesce,
            snapshot_writer,
            settings: live.drain.clone(),
            webhooks: live.webhooks.clone(),
            stop_public,
            stop_internal,
            public_files: addresses.public_files(),
            internal_files: addresses.internal_files(),
        };
        Ok(Self { server: services.into_server(), ending, addresses, upstream })
    }

    /// Serves until a signal ends it. Before it returns, every held poll has been answered, or
    /// `drain.timeout` has passed.
    pub fn run(self) {
        // Connections are taken into the backlog from now on.
        systemd::ready();
        self.server.run(RunArgs { shutdown_signal: Box::new(self.ending) });
    }
}

/// The upstream servers that are named at the start: the demo's, or those of the config and of its
/// sites.
fn upstream_addresses(config: &Config, demo: Option<&Bound>) -> Vec<Address> {
    if let Some(bound) = demo {
        return vec![bound.address.clone()];
    }
    let of_sites = config.sites.iter().flat_map(|site| &site.upstream.servers);
    config.upstream.servers.iter().chain(of_sites).cloned().collect()
}

fn live_settings(
    config: &Config,
    demo: Option<&Bound>,
    log: Log,
) -> Result<Arc<LiveSettings>, AppError> {
    let upstreams = match demo {
        None => live::upstreams(config).map_err(|(_, error)| error)?,
        Some(bound) => {
            vec![(SiteName::NONE, Arc::new(Upstream::new(std::slice::from_ref(&bound.address))?))]
        }
    };
    let certificates = config.certificates();
    let tls = (!certificates.is_empty()).then(|| Tls::new(certificates)).transpose()?;
    let live = LiveSettings::new(config, upstreams, demo.is_some(), tls.map(Arc::new), log);
    Ok(Arc::new(live))
}

/// The state that outlives a process, with the writer of its file. A running gate that hands over
/// still owns the file.
fn kept_state(
    config: &Config,
    live: &LiveSettings,
    inherited: &Inherited,
) -> Result<(Arc<SnapshotWriter>, IdempotencyCache), AppError> {
    let begin = if inherited.is_there() { SnapshotWriter::inherit } else { SnapshotWriter::read };
    let answers = IdempotencyCache::default();
    let state = (live.hub.clone(), answers.clone());
    let writer = begin(&config.snapshot, state, live.snapshot_every.subscribe())?;
    Ok((Arc::new(writer), answers))
}

/// pingora's own settings, whose defaults are meant for other purposes.
fn engine_settings(config: &Config) -> ServerConf {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ServerConf {
        threads: if config.threads == 0 { cores } else { config.threads },
        // `Shutdown` drains the gate; pingora then drops the rest at once.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        // The gate decides about each of them: a poll is tried again whenever it has been held on.
        max_retries: usize::MAX,
        // Timeouts of a second and more are tokio's. The engine's own clock, once begun, wakes a
        // hundred times a second for ever.
        fast_timeout_to_tokio_threshold_seconds: Some(0),
        upstream_keepalive_pool_size: descriptors::most_idle(descriptors::soft_limit()),
        ..ServerConf::default()
    }
}
