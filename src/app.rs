//! Builds the gate from a config, runs it, and ends it without dropping a poll.

use crate::address::Address;
use crate::admin::{Admin, Figures, Sources};
use crate::channel::{Cursor, Take};
use crate::config::{Config, Site};
use crate::demo::DemoSite;
use crate::dialect::native::{self, Native};
use crate::gate::front::Front;
use crate::gate::proxy::Proxy;
use crate::gate::upstream::{Upstream, UpstreamError};
use crate::gate::{self, BrowserPublish, Gate};
use crate::hub::{Hub, Subscription};
use crate::internal::{self, Internal};
use crate::listen::{Bound, Buffers, Listening};
use crate::publish::{self, By, Hook, Publisher, system_time};
use crate::secret::Secret;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora::services::background::{BackgroundService, background_service};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Why the gate cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(Address, io::Error),
    /// A server of the site cannot be used.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// A unix socket of the public side is for everybody, one of the internal side for the group.
const PUBLIC_MODE: u32 = 0o666;
const INTERNAL_MODE: u32 = 0o660;

/// A gate whose listeners are bound, ready to run.
pub struct App {
    server: Server,
    ending: Ending,
    /// Where the public side listens.
    pub listen: Vec<Address>,
    /// Where the internal side listens.
    pub internal: Vec<Address>,
    /// The site's servers.
    pub upstream: Vec<Address>,
}

impl App {
    /// Binds the listeners and builds everything behind them.
    pub fn new(config: &Config, site: Site) -> Result<Self, AppError> {
        let public = bind_all(&config.listen, PUBLIC_MODE)?;
        let internal = bind_all(&config.internal, INTERNAL_MODE)?;
        let addresses = |bound: &[Bound]| bound.iter().map(|b| b.address.clone()).collect();
        let (listen, internal_addresses): (Vec<_>, Vec<_>) =
            (addresses(&public), addresses(&internal));
        let (stop_public, public_stopped) = watch::channel(false);
        let (stop_internal, internal_stopped) = watch::channel(false);

        let mut server = Server::new_with_opt_and_conf(None, engine_settings(config));
        server.bootstrap();
        let mut upstream_addresses = config.upstream.servers.clone();
        if site == Site::Supplied {
            let hook = internal_addresses.first().cloned();
            let demo = demo_site(hook, config, &public_stopped)?;
            upstream_addresses = vec![demo.0];
            server.add_service(demo.1);
        }
        let upstream = Arc::new(Upstream::new(&upstream_addresses)?);
        let parts = Parts::new(config);
        let ending = Ending {
            hub: parts.hub.clone(),
            gate: parts.gate.clone(),
            drain: config.drain.clone(),
            stop_public,
            stop_internal,
        };

        let proxy =
            http_proxy(&server.configuration, Proxy::new(parts.gate.clone(), upstream.clone()));
        let front = Front::new(parts.gate.clone(), proxy);
        server.add_service(Listening::new(
            "gate",
            front,
            public,
            Buffers::None,
            public_stopped.clone(),
        ));
        let endpoints = parts.endpoints(config, &upstream, public_stopped);
        let settings = internal::Settings {
            token: config.token.clone(),
            names: config.internal_names.clone(),
        };
        let page = Secret::new(format!("{:032x}", fastrand::u128(..)));
        let internal_app =
            Internal::new(Arc::new(ArcSwap::from_pointee(settings)), page, endpoints);
        server.add_service(
            Listening::new("internal", internal_app, internal, Buffers::Write, internal_stopped)
                .threads(1),
        );
        let mut checks = pingora::services::background::GenBackgroundService::new(
            "health checks".to_owned(),
            upstream,
        );
        checks.threads = Some(1);
        server.add_service(checks);
        let mut sweeper = background_service("sweeper", Sweeper { hub: parts.hub.clone() });
        sweeper.threads = Some(1);
        server.add_service(sweeper);
        Ok(Self {
            server,
            ending,
            listen,
            internal: internal_addresses,
            upstream: upstream_addresses,
        })
    }

    /// Serves until a signal ends it; every held poll has been answered by then, or
    /// `drain.timeout` is over.
    pub fn run(self) {
        self.server.run(RunArgs { shutdown_signal: Box::new(self.ending) });
    }
}

fn bind_all(addresses: &[Address], mode: u32) -> Result<Vec<Bound>, AppError> {
    let bind = |address: &Address| {
        Bound::new(address, mode).map_err(|error| AppError::Listen(address.clone(), error))
    };
    addresses.iter().map(bind).collect()
}

/// The engine's own settings, all of which would otherwise be its defaults for other purposes.
fn engine_settings(config: &Config) -> ServerConf {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ServerConf {
        threads: if config.threads == 0 { cores } else { config.threads },
        // Ending is our own business (see `Ending`); what is left then is dropped at once.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        max_retries: 16,
        ..ServerConf::default()
    }
}

/// The demo site on a port of its own, and where that is.
fn demo_site(
    hook: Option<Address>,
    config: &Config,
    stopped: &ShutdownWatch,
) -> Result<(Address, impl pingora::services::Service + use<>), AppError> {
    let any = Address::Tcp { host: "127.0.0.1".to_owned(), port: 0 };
    let bound = bind_all(std::slice::from_ref(&any), PUBLIC_MODE)?;
    let address = bound.first().map_or_else(|| any.clone(), |bound| bound.address.clone());
    let site = DemoSite::new(hook.unwrap_or(any), config.token.clone());
    let app = pingora::apps::http_app::HttpServer::new_app(site);
    Ok((
        address,
        Listening::new("demo site", app, bound, Buffers::Write, stopped.clone()).threads(1),
    ))
}

/// What the listeners have in common.
struct Parts {
    hub: Hub,
    publisher: Publisher,
    gate: Gate,
}

impl Parts {
    fn new(config: &Config) -> Self {
        let hub = Hub::new(config.hub.clone(), fastrand::u64(..));
        let limits = publish::Settings { max_message: config.max_message };
        let limits = Arc::new(ArcSwap::from_pointee(limits));
        let publisher = Publisher::new(hub.clone(), Arc::new(system_time), limits);
        let settings = Arc::new(ArcSwap::from_pointee(gate_settings(config)));
        let gate = Gate::new(settings, hub.clone(), system_time, browser_publish(&publisher));
        Self { hub, publisher, gate }
    }

    fn endpoints(
        &self,
        config: &Config,
        upstream: &Arc<Upstream>,
        stopping: ShutdownWatch,
    ) -> Vec<Arc<dyn crate::web::Endpoint>> {
        let hook = Hook::new(self.publisher.clone(), self.history());
        let admin = Admin::new(Sources {
            unready: unready(upstream.clone(), stopping),
            figures: self.figures(),
            config: {
                let printed = config.to_toml();
                Box::new(move || printed.clone())
            },
        });
        vec![Arc::new(hook), Arc::new(admin)]
    }

    /// A channel's history, as the native dialect answers.
    fn history(&self) -> publish::History {
        let hub = self.hub.clone();
        Arc::new(move |channel, cursor| {
            let cursor = match cursor {
                None => Cursor::Oldest,
                Some(text) => match native::cursor(channel, text) {
                    Ok(cursor) => cursor,
                    Err(reply) => return Some(reply),
                },
            };
            let subscription = Subscription { channel: channel.clone(), cursor };
            let heard = hub.read(&subscription, Take::All, system_time())?;
            Some(Native::default().render(&smallvec::smallvec![heard]))
        })
    }

    fn figures(&self) -> Box<dyn Fn() -> Figures + Send + Sync> {
        let (hub, publisher) = (self.hub.clone(), self.publisher.clone());
        Box::new(move || Figures {
            held: hub.held() as u64,
            channels: hub.channels() as u64,
            history_bytes: hub.cost(),
            publishes: publisher.counts().iter().map(|(_, count)| count).sum(),
            generation: 1,
            restart: Vec::new(),
        })
    }
}

fn gate_settings(config: &Config) -> gate::Settings {
    gate::Settings {
        routes: gate::route::Routes::new(config.routes.clone()),
        hold: config.hold.clone(),
        limits: config.limits.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
        mask: config.log.mask.clone(),
        connect_timeout: config.upstream.connect_timeout,
        read_timeout: config.upstream.read_timeout,
        head: gate::front::Bounds {
            bytes: config.client.head_bytes,
            headers: config.client.head_count,
        },
        head_timeout: config.client.head_timeout,
        idle_timeout: config.client.idle_timeout,
        write_timeout: config.client.write_timeout,
    }
}

fn browser_publish(publisher: &Publisher) -> BrowserPublish {
    let publisher = publisher.clone();
    Arc::new(move |channel| {
        let post = (channel, crate::channel::Payload::empty());
        publisher.publish(vec![post], By::Capture).is_ok()
    })
}

fn unready(
    upstream: Arc<Upstream>,
    stopping: ShutdownWatch,
) -> Box<dyn Fn() -> Vec<String> + Send + Sync> {
    Box::new(move || {
        let mut reasons = Vec::new();
        if *stopping.borrow() {
            reasons.push("the gate is draining".to_owned());
        }
        if !upstream.is_healthy() {
            reasons.push("no upstream server answers".to_owned());
        }
        reasons
    })
}

/// Drops what has grown too old, also from channels that nobody uses.
struct Sweeper {
    hub: Hub,
}

#[async_trait]
impl BackgroundService for Sweeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        const EVERY: Duration = Duration::from_secs(5);
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.hub.sweep(system_time()),
                _ = shutdown.changed() => return,
            }
        }
    }
}

/// Ends the gate: the public listeners close, every held poll is answered, requests under way
/// finish; only then the internal listeners close too.
struct Ending {
    hub: Hub,
    gate: Gate,
    drain: crate::config::Drain,
    stop_public: watch::Sender<bool>,
    stop_internal: watch::Sender<bool>,
}

#[async_trait]
impl ShutdownSignalWatch for Ending {
    async fn recv(&self) -> ShutdownSignal {
        wait_for_signal().await;
        tokio::spawn(async {
            wait_for_signal().await;
            tracing::warn!("second signal: ending now, polls are dropped");
            std::process::exit(1);
        });
        self.drain().await;
        // Nothing is left to wait for.
        ShutdownSignal::FastShutdown
    }
}

impl Ending {
    async fn drain(&self) {
        tracing::info!(held = self.hub.held(), "draining");
        let deadline = Instant::now() + self.drain.timeout;
        // A send fails only where nobody listens any more, which is what it is for.
        let _ = self.stop_public.send(true);
        self.release(self.hub.drain()).await;
        while (self.hub.held() > 0 || self.gate.under_way() > 0) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let _ = self.stop_internal.send(true);
        tracing::info!(
            held = self.hub.held(),
            under_way = self.gate.under_way(),
            answered = self.gate.counters().drains.load(Ordering::Relaxed),
            "drained"
        );
    }

    /// Rings the held polls evenly over `drain.spread`, so that their clients do not come back
    /// as one herd.
    async fn release(&self, mut wakes: Vec<crate::hub::Wake>) {
        const STEP: Duration = Duration::from_millis(20);
        let polls: usize = wakes.iter_mut().map(crate::hub::Wake::claim).sum();
        let steps = (self.drain.spread.as_millis() / STEP.as_millis()).max(1) as usize;
        let batch = polls.div_ceil(steps).max(1);
        let mut room = batch;
        for mut wake in wakes {
            while !wake.is_empty() {
                let ringing = wake.len().min(room);
                wake.ring(ringing);
                room -= ringing;
                if room == 0 {
                    tokio::time::sleep(STEP).await;
                    room = batch;
                }
            }
        }
    }
}

/// Waits for SIGTERM or SIGINT. SIGHUP, which would end the process by default, is ignored.
async fn wait_for_signal() {
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    ) else {
        tracing::error!("cannot listen for signals");
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = term.recv() => return,
            _ = int.recv() => return,
            _ = hup.recv() => tracing::warn!("SIGHUP is ignored: this version cannot reload"),
        }
    }
}
