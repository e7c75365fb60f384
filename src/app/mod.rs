//! Builds the gate from a config, runs it, and shuts it down without dropping a poll.

mod backplane;
pub mod demo;
mod error;
mod live;
mod live_sites;
mod mercure;
mod presence;
mod pusher;
mod reexec;
mod reload;
mod shutdown;
mod signals;
mod snapshot_writer;
mod stats;
mod sweeper;
mod systemd;
mod upgrade;
mod watcher;

use crate::config::{Config, Site, Sources};
use crate::hub::Subscription;
use crate::hub::channel::{Cursor, SiteName, Take};
use crate::protocol::address::Address;
use crate::protocol::dialect::native::{self, Native};
use crate::protocol::http::Endpoint;
use crate::server::admin::page::Page;
use crate::server::admin::{self, Admin, Grants};
use crate::server::backplane::Backplane;
use crate::server::gate::forward::Forwarder;
use crate::server::gate::front::{AdmissionFilter, Front, Transport};
use crate::server::gate::proxy::Proxy;
use crate::server::gate::pusher::EventPublish;
use crate::server::gate::tls::Tls;
use crate::server::gate::upstream::{HealthChecks, Upstream};
use crate::server::gate::{BrowserPublish, Gate};
use crate::server::internal::pusher::Rest;
use crate::server::internal::{Internal, Mercure};
use crate::server::limits::descriptors::{self, FdBudget};
use crate::server::net::listener::{Accepting, Bound, Buffers, Listening};
use crate::server::net::random;
use crate::server::net::socket_file::SocketFile;
use crate::server::publish::capture::Captures;
use crate::server::publish::grip::Grip;
use crate::server::publish::nchan::NchanPublisher;
use crate::server::publish::{self, Hook, IdempotencyCache, Publisher, Source, system_time};
use crate::server::telemetry::log::Log;
use crate::server::telemetry::metrics::SharedMetrics;
use backplane::{BackplaneService, RedisSequencer};
pub use error::AppError;
use live::LiveSettings;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownWatch};
use pingora::services::background::{BackgroundService, GenBackgroundService};
use pusher::PusherChannels;
use reexec::Reexec;
use reload::{Reload, ReloadTriggers};
use shutdown::Shutdown;
use signals::Signals;
use snapshot_writer::SnapshotWriter;
use stats::StatsSources;
use std::sync::{Arc, OnceLock};
use sweeper::Sweeper;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};
pub use upgrade::Inherited;
use upgrade::{UpgradeServer, Upgrades};
use watcher::WatcherService;

/// Every user may connect to a unix socket of the public side, only the group to an internal one.
const PUBLIC_MODE: u32 = 0o666;
const INTERNAL_MODE: u32 = 0o660;

/// A gate whose listeners are bound, ready to run.
pub struct App {
    server: Server,
    ending: Shutdown,
    /// Public listening addresses.
    pub listen: Vec<Address>,
    /// Addresses that redirect plain HTTP to HTTPS.
    pub redirects: Vec<Address>,
    /// Listening addresses of the internal side.
    pub internal: Vec<Address>,
    /// The upstream servers.
    pub upstream: Vec<Address>,
}

impl App {
    /// Binds the listeners and builds everything behind them. `sources` are the sources of
    /// `config`, which a reload reads again; a reload may also change `log`. The state in
    /// `heritage`, if any, is taken over at the very end.
    pub fn new(
        config: Config,
        sources: Sources,
        site: Site,
        log: Log,
        mut heritage: Inherited,
    ) -> Result<Self, AppError> {
        let public = heritage.bind(&config.listen, PUBLIC_MODE)?;
        let private = heritage.bind(&config.internal, INTERNAL_MODE)?;
        let plain = config.tls.iter().flat_map(|tls| tls.redirect.clone());
        let redirect = heritage.bind(&plain.collect::<Vec<_>>(), PUBLIC_MODE)?;
        let listen = addresses(&public);
        let internal = addresses(&private);
        let redirects = addresses(&redirect);
        let bound = public.iter().chain(&private).chain(&redirect);
        let shared = bound.map(Bound::share).collect();
        let files = |at: &[Address]| at.iter().filter_map(SocketFile::at).collect::<Vec<_>>();
        let public_files = files(&[&listen[..], &redirects].concat());
        let internal_files = files(&internal);
        let (accepting, accepted) = watch::channel(Accepting::Yes);
        let (stop_public, public_stopped) = watch::channel(false);
        let (stop_internal, internal_stopped) = watch::channel(false);
        let mut server = Server::new_with_opt_and_conf(None, engine_settings(&config));
        server.bootstrap();
        let demo = (site == Site::Supplied).then(demo::upstream::bind).transpose()?;
        let servers = match &demo {
            None => {
                let of_sites = config.sites.iter().flat_map(|site| &site.upstream.servers);
                config.upstream.servers.iter().chain(of_sites).cloned().collect()
            }
            Some(bound) => vec![bound.address.clone()],
        };
        let upstreams = match &demo {
            None => live::upstreams(&config).map_err(|(_, error)| error)?,
            Some(_) => vec![(SiteName::NONE, Arc::new(Upstream::new(&servers)?))],
        };
        let certificates = config.certificates();
        let tls = (!certificates.is_empty()).then(|| Tls::new(certificates)).transpose()?;
        let tls = tls.map(Arc::new);
        let live = LiveSettings::new(&config, upstreams, demo.is_some(), tls, log);
        let live = Arc::new(live);
        if let Some(bound) = demo {
            let publish = demo::upstream::publish(internal.first(), live.internal.clone());
            server.add_service(demo::upstream::service(bound, publish, &public_stopped));
        }
        let snapshot_writer =
            if heritage.is_there() { SnapshotWriter::inherit } else { SnapshotWriter::read };
        let every = live.snapshot_every.subscribe();
        let answers = IdempotencyCache::default();
        let kept = (live.hub.clone(), answers.clone());
        let snapshot_writer = Arc::new(snapshot_writer(&config.snapshot, kept, every)?);
        let parts = Parts::new(config.clone(), sources, site, live.clone(), snapshot_writer);

        let captures = Arc::new(Captures::new(parts.publisher.clone()));
        let max_idle = server.configuration.upstream_keepalive_pool_size;
        let forwarder = Arc::new(Forwarder::new(max_idle, captures.clone()));
        let proxy = Proxy::new(parts.gate.clone(), captures);
        let proxy = http_proxy(&server.configuration, proxy);
        let proxy = Arc::new(proxy);
        let entrance = live.tls.clone().map_or(Transport::Plain, Transport::Tls);
        let front =
            |entrance| Front::new(parts.gate.clone(), proxy.clone(), forwarder.clone(), entrance);
        let stopped = public_stopped.clone();
        let gate = Listening::new("gate", front(entrance), public, Buffers::None, stopped);
        let gate = gate.accepting(accepted.clone()).share_runtime(parts.runtime.clone());
        server.add_service(gate.door(AdmissionFilter::new(parts.gate.clone())));
        if let (false, Some(port)) = (redirect.is_empty(), tls_port(&listen)) {
            let front = front(Transport::Redirect(port));
            let stopped = public_stopped.clone();
            let redirect = Listening::new("redirect", front, redirect, Buffers::None, stopped);
            let redirect = redirect.door(AdmissionFilter::new(parts.gate.clone()));
            server.add_service(redirect.accepting(accepted.clone()).threads(1));
        }
        let (internal_app, page) = parts.internal(public_stopped, answers.clone())?;
        let quiesce = internal_app.quiesce();
        let private =
            Listening::new("internal", internal_app, private, Buffers::Write, internal_stopped);
        server.add_service(private.accepting(accepted).threads(1));
        let health_checks = HealthChecks::new(live.upstreams.subscribe());
        server.add_service(background("health checks", Arc::new(health_checks)));
        server.add_service(background(
            "sweeper",
            Arc::new(Sweeper { hub: live.hub.clone(), gate: parts.gate.clone() }),
        ));
        let webhooks = presence::WebhookService(live.webhooks.clone());
        server.add_service(background("webhooks", Arc::new(webhooks)));
        server.add_service(background("page", page));
        server.add_service(background("snapshot", parts.snapshot_writer.clone()));
        if let Some(backplane) = live.backplane.clone() {
            let feeding = BackplaneService { backplane, publisher: parts.publisher.clone() };
            server.add_service(background("backplane", Arc::new(feeding)));
        }
        let Signals { end, hangup, renew } = Signals::listen().map_err(AppError::Signals)?;
        let triggers = ReloadTriggers::new(parts.reload.clone(), hangup);
        server.add_service(background("reload", Arc::new(triggers)));
        server.add_service(background("renewal", Arc::new(Reexec::new(renew))));

        let Parts { gate, publisher, snapshot_writer, reload, .. } = parts;
        let hub = live.hub.clone();
        let settings = live.drain.clone();
        let webhooks = live.webhooks.clone();
        let upgrading = upgrade::Parts {
            hub: hub.clone(),
            answers: answers.clone(),
            publisher: publisher.clone(),
            quiesce: quiesce.clone(),
            snapshot_writer: snapshot_writer.clone(),
            accepting,
            sockets: shared,
        };
        let upgrading = UpgradeServer::new(&config, &mut heritage, upgrading);
        let ready = upgrading.ready(&config, &internal);
        let upgrading = Arc::new(upgrading);
        server.add_service(background("upgrades", Arc::new(Upgrades(upgrading.clone()))));
        heritage.take_over(&hub, &answers, ready)?;
        // The content of a file is compared with the history that was taken over.
        let watching = WatcherService::new(publisher.clone(), &reload);
        server.add_service(background("watcher", Arc::new(watching)));
        let ending = Shutdown {
            signals: Arc::new(Mutex::new(end)),
            upgrading,
            hub,
            gate,
            publisher,
            quiesce,
            snapshot_writer,
            settings,
            webhooks,
            stop_public,
            stop_internal,
            public_files,
            internal_files,
        };
        Ok(Self { server, ending, listen, redirects, internal, upstream: servers })
    }

    /// Serves until a signal ends it. Before it returns, every held poll has been answered, or
    /// `drain.timeout` has passed.
    pub fn run(self) {
        // Connections are taken into the backlog from now on.
        systemd::ready();
        self.server.run(RunArgs { shutdown_signal: Box::new(self.ending) });
    }
}

/// The port that plain HTTP is redirected to: the first one.
fn tls_port(listen: &[Address]) -> Option<u16> {
    listen.iter().find_map(|address| match address {
        Address::Tcp { port, .. } => Some(*port),
        Address::Unix(_) => None,
    })
}

fn addresses(bound: &[Bound]) -> Vec<Address> {
    bound.iter().map(|bound| bound.address.clone()).collect()
}

/// A background service on its own thread.
fn background<T: BackgroundService + Send + Sync + 'static>(
    name: &str,
    task: Arc<T>,
) -> GenBackgroundService<T> {
    let mut service = GenBackgroundService::new(name.to_owned(), task);
    service.threads = Some(1);
    service
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
        upstream_keepalive_pool_size: descriptors::most_idle(descriptors::soft_limit()),
        ..ServerConf::default()
    }
}

/// The shared parts of the listeners.
struct Parts {
    publisher: Publisher,
    gate: Gate,
    reload: Reload,
    /// The runtime of the held polls, after its start.
    runtime: Arc<OnceLock<Handle>>,
    metrics: Arc<SharedMetrics>,
    snapshot_writer: Arc<SnapshotWriter>,
}

impl Parts {
    fn new(
        config: Config,
        sources: Sources,
        site: Site,
        live: Arc<LiveSettings>,
        snapshot_writer: Arc<SnapshotWriter>,
    ) -> Self {
        let hub = live.hub.clone();
        let metrics = live.metrics.clone();
        let runtime = Arc::default();
        let clock = Arc::new(system_time);
        let limits = live.publish.clone();
        let sequencer = live.backplane.clone().map(|gates| Arc::new(RedisSequencer(gates)) as _);
        let publisher_runtime = Arc::clone(&runtime);
        let tally_of = metrics.clone();
        let publisher =
            Publisher::new(hub.clone(), sequencer, clock, limits, publisher_runtime, tally_of);
        let publish = (browser_publish(&publisher), event_publish(&publisher));
        let files = FdBudget::within(descriptors::soft_limit());
        let gate = Gate::new(live.gate.clone(), hub, system_time, publish, metrics.clone(), files);
        presence::connect(&live, &publisher);
        gate.publish_updates(mercure::publish(&publisher, &live.gate));
        presence::list(&gate, &live);
        let reload = Reload::new(sources, site, config, live);
        Self { publisher, gate, reload, runtime, metrics, snapshot_writer }
    }

    /// The app of the internal listener: the hook, the admin endpoints and the page.
    fn internal(
        &self,
        stopping: ShutdownWatch,
        answers: IdempotencyCache,
    ) -> Result<(Internal, Arc<Page>), AppError> {
        let hook = Hook::new(self.publisher.clone(), self.history(), answers);
        let hook = hook.listing(presence::hook_roster(&self.gate));
        let in_force = self.reload.clone();
        let reload = self.reload.clone();
        let sources = self.sources();
        let stats = sources.clone();
        let metrics = sources.clone();
        let site = sources.clone();
        let backplane = self.reload.live().backplane.clone();
        let unready = unready(self.gate.clone(), backplane, stopping);
        let admin = Admin::new(admin::Sources {
            unready: Box::new(unready.clone()),
            stats: Box::new(move || stats.stats()),
            site: Box::new(move |name| site.site(name)),
            metrics: Box::new(move || metrics.metrics()),
            config: Box::new(move || in_force.in_force().config.to_toml()),
            reload: Box::new(move || {
                let reload = reload.clone();
                Box::pin(async move { reload.now("POST /reload").await })
            }),
        });
        let token = random::secret().map_err(AppError::Random)?;
        let overview = Box::new(move || sources.overview(unready(&SiteName::NONE)));
        let page = Arc::new(Page::new(&token, system_time, overview));
        let gate = self.gate.clone();
        let grants = Grants::new(Box::new(move |site, channel, credential| {
            gate.revoke(site, channel, credential)
        }));
        let grip = Grip::new(self.publisher.clone(), self.reload.live().grip.clone());
        let nchan = NchanPublisher::new(self.publisher.clone());
        let live = self.reload.live();
        let publish = mercure::publish(&self.publisher, &live.gate);
        let millis = || system_time().0 / 1_000;
        let mercure = Mercure::new(live.internal.clone(), publish, millis);
        let publisher = self.publisher.clone();
        let gate = self.gate.clone();
        let rest = Rest::new(Box::new(PusherChannels { publisher, gate }));
        let endpoints: Vec<Arc<dyn Endpoint>> = vec![
            Arc::new(hook),
            Arc::new(admin),
            Arc::new(grants),
            Arc::new(rest),
            page.clone(),
            Arc::new(grip),
            Arc::new(nchan),
            Arc::new(mercure),
        ];
        let settings = self.reload.live().internal.clone();
        let most = descriptors::internal(descriptors::soft_limit());
        Ok((Internal::new(settings, token, endpoints, self.metrics.clone(), most), page))
    }

    /// A channel's history, in the native dialect.
    fn history(&self) -> publish::History {
        let hub = self.publisher.hub().clone();
        Arc::new(move |channel, cursor| {
            let cursor = match cursor {
                None => Cursor::Oldest,
                Some(text) => match native::cursor(channel, text) {
                    Ok(cursor) => cursor,
                    Err(reply) => return Some(reply),
                },
            };
            let subscription = Subscription { channel: channel.clone(), cursor };
            let update = hub.read(&subscription, Take::All, system_time())?;
            Some(Native::default().render(&smallvec::smallvec![update], None))
        })
    }

    fn sources(&self) -> StatsSources {
        let Self { gate, publisher, reload, metrics, snapshot_writer, .. } = self;
        StatsSources {
            hub: publisher.hub().clone(),
            gate: gate.clone(),
            publisher: publisher.clone(),
            reload: reload.clone(),
            metrics: metrics.clone(),
            snapshot_writer: snapshot_writer.clone(),
            started: system_time(),
        }
    }
}

fn browser_publish(publisher: &Publisher) -> BrowserPublish {
    let publisher = publisher.clone();
    Arc::new(move |channel| {
        let publisher = publisher.clone();
        let posts = vec![(channel, crate::hub::channel::Payload::empty())];
        Box::pin(async move { publisher.publish(posts, Source::Capture).await.is_ok() })
    })
}

fn event_publish(publisher: &Publisher) -> EventPublish {
    let publisher = publisher.clone();
    Arc::new(move |channel, payload| {
        let publisher = publisher.clone();
        Box::pin(async move {
            // What a client sends as JSON is bounded as what the hook takes.
            let Ok(payload) = publish::payload(Some(&payload.content_type), payload.body) else {
                return false;
            };
            publisher.publish(vec![(channel, payload)], Source::Client).await.is_ok()
        })
    })
}

fn unready(
    gate: Gate,
    backplane: Option<Backplane>,
    stopping: ShutdownWatch,
) -> impl Fn(&SiteName) -> Vec<String> + Clone + Send + Sync + 'static {
    move |site| {
        let mut reasons = Vec::new();
        if *stopping.borrow() {
            reasons.push("the gate is draining".to_owned());
        }
        if !gate.settings().is_upstream_healthy(site) {
            reasons.push("no upstream server answers".to_owned());
        }
        reasons.extend(backplane.iter().flat_map(Backplane::unready));
        reasons
    }
}
