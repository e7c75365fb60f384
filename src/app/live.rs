//! The settings of the running parts, and their update by a new config.
//!
//! Everything that is made from a config and may fail (such as name lookups) is made first, as
//! [`Prepared`]; then [`LiveSettings::apply`] stores into each part and cannot fail. A part reads
//! its settings once for each request, so values that belong together for one request belong into
//! one settings value.

use crate::config::{Config, Drain, Mistakes};
use crate::hub::Hub;
use crate::server::backplane::{self, Backplane};
use crate::server::gate;
use crate::server::gate::tls::Tls;
use crate::server::gate::upstream::{Upstream, UpstreamError};
use crate::server::limits::body_memory::BodyMemory;
use crate::server::limits::rate::{AddressRate, MessageRate};
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
    pub(super) drain: Arc<ArcSwap<Drain>>,
    pub(super) metrics: Arc<SharedMetrics>,
    pub(super) webhooks: Webhooks,
    /// Interval at which the history is written to its file.
    pub(super) snapshot_every: watch::Sender<Duration>,
    /// The servers whose health is checked.
    pub(super) upstream: watch::Sender<Arc<Upstream>>,
    /// The servers are the demo's, whatever the config names.
    pub(super) supplied: bool,
    /// Present if the public listener uses TLS, which needs a restart to change.
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) log: Log,
}

/// Values made from a config before it becomes active.
pub(super) struct Prepared {
    upstream: Arc<Upstream>,
}

impl LiveSettings {
    /// The initial settings of the parts.
    pub(super) fn new(
        config: &Config,
        upstream: Upstream,
        supplied: bool,
        tls: Option<Arc<Tls>>,
        log: Log,
    ) -> Self {
        let upstream = Arc::new(upstream);
        let metrics = Arc::new(SharedMetrics::default());
        metrics.watched.watch(&config.watched);
        let (hub, backplane) = table(config);
        hub.presence().rule(config.presence.clone());
        hub.presence().allow(config.presence_bytes);
        let rates = Rates::default();
        let servers = watch::channel(upstream.clone()).0;
        let of = servers.subscribe();
        let addresses = Box::new(move || of.borrow().addresses());
        Self {
            webhooks: Webhooks::new(&config.webhooks, addresses),
            hub,
            backplane,
            gate: shared(gate_settings(config, upstream.clone(), &rates)),
            publish: shared(publish_settings(
                config,
                &Arc::new(MessageRate::new(0)),
                &rates.bodies,
            )),
            internal: shared(internal_settings(config)),
            drain: shared(config.drain.clone()),
            metrics,
            snapshot_every: watch::channel(config.snapshot.every).0,
            upstream: servers,
            supplied,
            tls,
            log,
        }
    }

    /// Prepares `config`. An error changes nothing.
    pub(super) fn prepare(&self, config: &Config) -> Result<Prepared, Mistakes> {
        Ok(Prepared { upstream: self.upstream_of(config)? })
    }

    /// Activates `config`: one line for each part.
    ///
    /// The channels come before the rules that name them. So no request meets a new rule with a
    /// channel's old settings. An old rule with a channel's new settings is the case of every
    /// request under way, and of every held poll: a client cannot distinguish it from having come a
    /// moment earlier.
    pub(super) fn apply(&self, running: &Config, config: &Config, prepared: Prepared) {
        self.log.change(&config.log);
        if let (Some(tls), Some(identity)) = (&self.tls, &config.identity) {
            tls.replace(identity);
        }
        self.drain.store(Arc::new(config.drain.clone()));
        self.internal.store(Arc::new(internal_settings(config)));
        self.metrics.watched.watch(&config.watched);
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
        self.gate.store(Arc::new(gate_settings(config, prepared.upstream.clone(), &rates)));
        tell(&self.upstream, prepared.upstream, Arc::ptr_eq);
        tell(&self.snapshot_every, config.snapshot.every, Duration::eq);
    }

    /// The servers of `config`; if they are unchanged, the ones whose health is checked already.
    fn upstream_of(&self, config: &Config) -> Result<Arc<Upstream>, Mistakes> {
        let checked = self.upstream.borrow().clone();
        if self.supplied {
            return Ok(checked);
        }
        let refused = |error: UpstreamError| config.refusal("upstream.servers", error.to_string());
        let upstream = Upstream::new(&config.upstream.servers).map_err(refused)?;
        Ok(if upstream.is_as(&checked) { checked } else { Arc::new(upstream) })
    }
}

/// The channel table, and its sequencer.
fn table(config: &Config) -> (Hub, Option<Backplane>) {
    let seed = fastrand::u64(..);
    let Some(settings) = &config.backplane else {
        return (Hub::new(config.hub.clone(), seed), None);
    };
    let (origin, wants) = backplane::wants();
    let hub = Hub::fed(config.hub.clone(), seed, origin);
    let backplane = Backplane::new(settings, hub.clone(), wants, system_time);
    (hub, Some(backplane))
}

/// Notifies the watchers if the value has changed.
fn tell<T>(watched: &watch::Sender<T>, new: T, same: fn(&T, &T) -> bool) {
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
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            connections: Arc::new(AddressRate::new(0)),
            requests: Arc::new(AddressRate::new(0)),
            bodies: Arc::default(),
        }
    }
}

impl Rates {
    fn of(settings: &gate::Settings) -> Self {
        let (connections, requests) = (settings.connections.clone(), settings.requests.clone());
        Self { connections, requests, bodies: settings.bodies.clone() }
    }
}

fn gate_settings(config: &Config, upstream: Arc<Upstream>, rates: &Rates) -> gate::Settings {
    rates.bodies.allow(config.client.body_memory);
    gate::Settings {
        client_script: config.client_script.clone(),
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
    }
}

fn publish_settings(
    config: &Config,
    rate: &Arc<MessageRate>,
    bodies: &Arc<BodyMemory>,
) -> publish::Settings {
    publish::Settings {
        max_message: config.max_message,
        rate: rate.allowing(config.messages_per_second),
        capture: config.capture.clone(),
        may_publish: config.may_publish,
        bodies: bodies.clone(),
    }
}

fn internal_settings(config: &Config) -> internal::Settings {
    internal::Settings {
        token: config.token.clone(),
        names: config.internal_names.clone(),
        // `credential`, the parameter that revokes grants, is as secret as a token.
        patience: internal::Timeouts {
            head: config.client.head_timeout,
            idle: config.client.idle_timeout,
            stall: config.client.write_timeout,
        },
        mask: config.log.mask.iter().cloned().chain(["credential".to_owned()]).collect(),
    }
}
