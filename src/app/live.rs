//! The settings of the running parts, and their update by a new config.
//!
//! Everything that is made from a config and may fail (such as name lookups) is made first, as
//! [`Prepared`]; then [`LiveSettings::apply`] stores into each part and cannot fail. A part reads
//! its settings once for each request, so values that belong together for one request belong into
//! one settings value.

use super::live_sites::{self, Upstreams};
use crate::config::{Config, Drain, Grip, Mistakes, SiteConfig};
use crate::hub::Hub;
use crate::hub::channel::SiteName;
use crate::protocol::address::Address;
use crate::protocol::auth::jwt::{self, Expected, Verifier};
use crate::protocol::auth::secret::Secret;
use crate::protocol::grip::sign::{self, Signer};
use crate::server::backplane::{self, Backplane};
use crate::server::gate;
use crate::server::gate::sites::Sites;
use crate::server::gate::tls::Tls;
use crate::server::gate::upstream::{Upstream, UpstreamError};
use crate::server::limits::body_memory::BodyMemory;
use crate::server::limits::rate::{AddressRate, MessageRate};
use crate::server::net::random;
use crate::server::publish::system_time;
use crate::server::telemetry::log::Log;
use crate::server::telemetry::metrics::SharedMetrics;
use crate::server::webhook::Webhooks;
use crate::server::{internal, publish};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The settings of each part.
pub(super) struct LiveSettings {
    pub(super) hub: Hub,
    /// The sequencer of the hub's messages, if channels are shared with other gates.
    pub(super) backplane: Option<Backplane>,
    pub(super) gate: Arc<ArcSwap<gate::Settings>>,
    pub(super) publish: Arc<ArcSwap<publish::Settings>>,
    pub(super) internal: Arc<ArcSwap<internal::Settings>>,
    pub(super) grip: Arc<ArcSwap<Vec<publish::grip::Settings>>>,
    pub(super) drain: Arc<ArcSwap<Drain>>,
    pub(super) metrics: Arc<SharedMetrics>,
    pub(super) webhooks: Webhooks,
    /// Interval at which the history is written to its file.
    pub(super) snapshot_every: watch::Sender<Duration>,
    /// The servers whose health is checked, by site.
    pub(super) upstreams: watch::Sender<Upstreams>,
    /// The servers are the demo's, whatever the config names.
    pub(super) supplied: bool,
    /// Present if the public listener uses TLS, which needs a restart to change.
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) log: Log,
}

/// Values made from a config before it becomes active.
pub(super) struct Prepared {
    upstreams: Upstreams,
}

impl LiveSettings {
    /// The initial settings of the parts.
    pub(super) fn new(
        config: &Config,
        upstreams: Upstreams,
        supplied: bool,
        tls: Option<Arc<Tls>>,
        log: Log,
    ) -> Self {
        let metrics = Arc::new(SharedMetrics::default());
        watch_series(&metrics, config);
        let (hub, backplane) = table(config);
        hub.presence().rule(config.presence.clone());
        hub.presence().allow(config.presence_bytes);
        let rates = Rates::default();
        let servers = watch::channel(upstreams.clone()).0;
        let of = servers.subscribe();
        let addresses = Box::new(move |site: &SiteName| {
            let upstream = live_sites::upstream_of(&of.borrow(), site);
            upstream.map(|upstream| upstream.addresses()).unwrap_or_default()
        });
        Self {
            webhooks: Webhooks::new(&config.webhooks, addresses),
            hub,
            backplane,
            gate: shared(gate_settings(config, &upstreams, &rates)),
            publish: shared(publish_settings(
                config,
                &Arc::new(MessageRate::new(0)),
                &rates.bodies,
            )),
            internal: shared(internal_settings(config)),
            grip: shared(grip_publish(config)),
            drain: shared(config.drain.clone()),
            metrics,
            snapshot_every: watch::channel(config.snapshot.every).0,
            upstreams: servers,
            supplied,
            tls,
            log,
        }
    }

    /// Prepares `config`. An error changes nothing.
    pub(super) fn prepare(&self, config: &Config) -> Result<Prepared, Mistakes> {
        Ok(Prepared { upstreams: self.upstreams_of(config)? })
    }

    /// Activates `config`: one line for each part.
    ///
    /// The channels come before the rules that name them. So no request meets a new rule with a
    /// channel's old settings. An old rule with a channel's new settings is the case of every
    /// request under way, and of every held poll: a client cannot distinguish it from having come a
    /// moment earlier.
    pub(super) fn apply(&self, running: &Config, config: &Config, prepared: Prepared) {
        self.log.change(&config.log);
        let certificates = config.certificates();
        if let Some(tls) = self.tls.as_ref().filter(|_| !certificates.is_empty()) {
            tls.replace(certificates);
        }
        self.drain.store(Arc::new(config.drain.clone()));
        self.internal.store(Arc::new(internal_settings(config)));
        self.grip.store(Arc::new(grip_publish(config)));
        watch_series(&self.metrics, config);
        if config.hub != running.hub {
            self.hub.reconfigure(config.hub.clone(), system_time());
        }
        if config.presence != running.presence {
            self.hub.presence().rule(config.presence.clone());
        }
        self.hub.presence().allow(config.presence_bytes);
        self.webhooks.apply(&config.webhooks);
        let rate = self.publish.load().rate.clone();
        let rates = Rates::of(&self.gate.load());
        self.publish.store(Arc::new(publish_settings(config, &rate, &rates.bodies)));
        self.gate.store(Arc::new(gate_settings(config, &prepared.upstreams, &rates)));
        let same = |old: &Upstreams, new: &Upstreams| {
            let pairs = old.iter().zip(new);
            old.len() == new.len() && pairs.into_iter().all(|(a, b)| Arc::ptr_eq(&a.1, &b.1))
        };
        send_if_changed(&self.upstreams, prepared.upstreams, same);
        send_if_changed(&self.snapshot_every, config.snapshot.every, Duration::eq);
    }

    /// The servers of `config`; those that are unchanged are the ones whose health is checked
    /// already.
    fn upstreams_of(&self, config: &Config) -> Result<Upstreams, Mistakes> {
        let checked = self.upstreams.borrow().clone();
        if self.supplied {
            return Ok(checked);
        }
        let new =
            upstreams(config).map_err(|(key, error)| config.refusal(&key, error.to_string()))?;
        let kept = |(name, upstream): (SiteName, Arc<Upstream>)| {
            let known = live_sites::upstream_of(&checked, &name);
            let known = known.filter(|known| upstream.is_as(known));
            (name, known.unwrap_or(upstream))
        };
        Ok(new.into_iter().map(kept).collect())
    }
}

/// The upstream of each site; an error has the key of its servers.
pub(super) fn upstreams(config: &Config) -> Result<Upstreams, (String, UpstreamError)> {
    let of = |key: String, servers: &[Address]| match Upstream::new(servers) {
        Ok(upstream) => Ok(Arc::new(upstream)),
        Err(error) => Err((key, error)),
    };
    if config.sites.is_empty() {
        let upstream = of("upstream.servers".to_owned(), &config.upstream.servers)?;
        return Ok(vec![(SiteName::NONE, upstream)]);
    }
    let site = |(at, site): (usize, &SiteConfig)| {
        let key = format!("site[{at}].upstream.servers");
        Ok((site.name.clone(), of(key, &site.upstream.servers)?))
    };
    config.sites.iter().enumerate().map(site).collect()
}

/// The series of single channels and of the sites.
fn watch_series(metrics: &SharedMetrics, config: &Config) {
    let sites: Vec<_> = config.sites.iter().map(|site| site.name.clone()).collect();
    metrics.watched.watch(&config.watched);
    metrics.watched.watch_sites(&sites);
}

/// The channel table, and its sequencer.
fn table(config: &Config) -> (Hub, Option<Backplane>) {
    let seed = fastrand::u64(..);
    let Some(settings) = &config.backplane else {
        let hub = Hub::new(config.hub.clone(), seed);
        hub.begin(system_time());
        return (hub, None);
    };
    let (origin, wants) = backplane::wants();
    let hub = Hub::replica(config.hub.clone(), seed, origin);
    let backplane = Backplane::new(settings, hub.clone(), wants, system_time);
    (hub, Some(backplane))
}

/// Notifies the watchers if the value has changed.
fn send_if_changed<T>(watched: &watch::Sender<T>, new: T, same: fn(&T, &T) -> bool) {
    watched.send_if_modified(|old| {
        let changed = !same(old, &new);
        *old = new;
        changed
    });
}

fn shared<T>(settings: T) -> Arc<ArcSwap<T>> {
    Arc::new(ArcSwap::from_pointee(settings))
}

/// The token buckets per address: a reload keeps the levels of those it does not change.
struct Rates {
    connections: Arc<AddressRate>,
    requests: Arc<AddressRate>,
    bodies: Arc<BodyMemory>,
    /// The counts of the sites, which go on, too.
    sites: Option<Arc<Sites>>,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            connections: Arc::new(AddressRate::new(0)),
            requests: Arc::new(AddressRate::new(0)),
            bodies: Arc::default(),
            sites: None,
        }
    }
}

impl Rates {
    fn of(settings: &gate::Settings) -> Self {
        let connections = settings.connections.clone();
        let requests = settings.requests.clone();
        let bodies = settings.bodies.clone();
        let sites = settings.sites.clone();
        Self { connections, requests, bodies, sites }
    }
}

fn gate_settings(config: &Config, upstreams: &Upstreams, rates: &Rates) -> gate::Settings {
    rates.bodies.allow(config.client.body_memory);
    let upstream = live_sites::upstream_of(upstreams, &SiteName::NONE).unwrap_or_default();
    let settings = gate::Settings {
        client_script: config.client_script.clone(),
        grip: grip_gate(&config.grip),
        mercure: config
            .mercure
            .clone()
            .map(|hub| gate::mercure::Settings { hub, max_message: config.max_message }),
        routes: gate::route::Routes::new(config.routes.clone()),
        pusher: config.pusher.clone(),
        hold: config.hold.clone(),
        stream: Arc::new(gate::stream::Settings {
            spread: config.drain.spread,
            ..config.stream.clone()
        }),
        limits: config.limits.clone(),
        connections: rates.connections.allowing(config.limits.connections_per_second),
        requests: rates.requests.allowing(config.limits.requests_per_second),
        trusted_proxies: config.trusted_proxies.clone(),
        mask: config.log.mask.clone(),
        upstream,
        connect_timeout: config.upstream.connect_timeout,
        read_timeout: config.upstream.read_timeout,
        head: gate::front::Bounds {
            bytes: config.client.head_bytes,
            headers: config.client.head_count,
        },
        body_rate: config.client.body_rate,
        bodies: rates.bodies.clone(),
        head_timeout: config.client.head_timeout,
        idle_timeout: config.client.idle_timeout,
        write_timeout: config.client.write_timeout,
        site: None,
        sites: None,
    };
    let sites = live_sites::sites(config, &settings, upstreams, rates.sites.as_deref());
    gate::Settings { sites, ..settings }
}

/// The side of GRIP that holds requests.
pub(super) fn grip_gate(grip: &Grip) -> Option<Arc<gate::grip::Settings>> {
    // Sites that verify nothing take any token for the sign that they are behind a gate.
    let any = || random::secret().ok().map(|secret| secret.reveal().into());
    let signer = grip_key(&grip.key).or_else(any).map(|key| Signer::new(&key, &grip.issuer));
    grip.enabled.then(|| Arc::new(gate::grip::Settings::new(signer, grip.websocket.clone())))
}

/// The side of GRIP that takes items.
fn grip_publish(config: &Config) -> Vec<publish::grip::Settings> {
    let settings = |(site, grip): (SiteName, &Grip)| {
        let key = grip_key(&grip.control_key).and_then(|key| jwt::Key::secret(&key).ok());
        let control = key.map(|key| Arc::new(Verifier::new(vec![key], Expected::default())));
        grip.enabled.then_some(publish::grip::Settings { site, control })
    };
    let of_sites = config.sites.iter().map(|site| (site.name.clone(), &site.grip));
    let all = [(SiteName::NONE, &config.grip)].into_iter().chain(of_sites);
    all.filter_map(settings).collect()
}

/// The bytes of a key that the config has checked.
fn grip_key(key: &Secret) -> Option<Vec<u8>> {
    sign::key(key.reveal()).filter(|key| !key.is_empty())
}

fn publish_settings(
    config: &Config,
    rate: &Arc<MessageRate>,
    bodies: &Arc<BodyMemory>,
) -> publish::Settings {
    publish::Settings {
        max_message: config.max_message,
        rate: rate.allowing(config.messages_per_second),
        captured: live_sites::captured(config),
        nchan: config.nchan.clone(),
        bodies: bodies.clone(),
    }
}

fn internal_settings(config: &Config) -> internal::Settings {
    let of_sites = config.sites.iter().filter_map(|site| site.mercure.as_ref());
    internal::Settings {
        token: config.token.clone(),
        mercure: config.mercure.iter().chain(of_sites).cloned().collect(),
        max_message: config.max_message,
        names: config.internal_names.clone(),
        sites: config.sites.iter().map(|site| (site.name.clone(), site.token.clone())).collect(),
        // `credential`, the parameter that revokes grants, is as secret as a token.
        patience: internal::Timeouts {
            head: config.client.head_timeout,
            idle: config.client.idle_timeout,
            stall: config.client.write_timeout,
        },
        mask: config.log.mask.iter().cloned().chain(["credential".to_owned()]).collect(),
    }
}
