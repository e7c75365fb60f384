//! Builds the gate from a config, runs it, and ends it without dropping a poll.

mod ending;
mod figures;
mod history;

use crate::address::Address;
use crate::admin::{Admin, Sources};
use crate::channel::{Cursor, Take};
use crate::client::{self, Call};
use crate::config::{Config, Site};
use crate::demo::{self, DemoSite};
use crate::dialect::native::{self, Native};
use crate::gate::front::Front;
use crate::gate::proxy::Proxy;
use crate::gate::upstream::{Upstream, UpstreamError};
use crate::gate::{self, BrowserPublish, Gate};
use crate::hub::{Hub, Subscription};
use crate::internal::{self, Internal};
use crate::listen::{Bound, Buffers, Listening};
use crate::metrics::Tally;
use crate::publish::{self, By, Hook, Publisher, system_time};
use crate::secret::Secret;
use crate::snapshot::SnapshotError;
use crate::web::Endpoint;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use ending::Ending;
use figures::Sight;
use history::Keeping;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownWatch};
use pingora::services::background::{BackgroundService, GenBackgroundService};
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
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
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(io::Error),
    /// The history cannot be kept where it should.
    #[error("{0}; change history.snapshot, or who may write there")]
    Snapshot(#[from] SnapshotError),
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
        let private = bind_all(&config.internal, INTERNAL_MODE)?;
        let (listen, internal) = (addresses(&public), addresses(&private));
        let (stop_public, public_stopped) = watch::channel(false);
        let (stop_internal, internal_stopped) = watch::channel(false);
        let mut server = Server::new_with_opt_and_conf(None, engine_settings(config));
        server.bootstrap();
        let servers = match site {
            Site::Configured => config.upstream.servers.clone(),
            Site::Supplied => {
                let (address, service) = demo_site(internal.first(), config, &public_stopped)?;
                server.add_service(service);
                vec![address]
            }
        };
        let upstream = Arc::new(Upstream::new(&servers)?);
        let parts = Parts::new(config)?;

        let proxy = Proxy::new(parts.gate.clone(), upstream.clone());
        let front = Front::new(parts.gate.clone(), http_proxy(&server.configuration, proxy));
        let stopped = public_stopped.clone();
        let gate = Listening::new("gate", front, public, Buffers::None, stopped);
        server.add_service(gate.tell_runtime(parts.crowd.clone()));
        let internal_app = parts.internal(config, &upstream, public_stopped)?;
        let turnstile = internal_app.turnstile();
        let private =
            Listening::new("internal", internal_app, private, Buffers::Write, internal_stopped);
        server.add_service(private.threads(1));
        server.add_service(background("health checks", upstream));
        server.add_service(background("sweeper", Arc::new(Sweeper { hub: parts.hub.clone() })));
        server.add_service(background("snapshot", parts.keeping.clone()));

        let Parts { hub, gate, publisher, keeping, .. } = parts;
        let drain = config.drain.clone();
        let ending =
            Ending { hub, gate, publisher, turnstile, keeping, drain, stop_public, stop_internal };
        Ok(Self { server, ending, listen, internal, upstream: servers })
    }

    /// Serves until a signal ends it; every held poll has been answered by then, or
    /// `drain.timeout` is over.
    pub fn run(self) {
        self.server.run(RunArgs { shutdown_signal: Box::new(self.ending) });
    }
}

fn addresses(bound: &[Bound]) -> Vec<Address> {
    bound.iter().map(|bound| bound.address.clone()).collect()
}

/// A background service on a thread of its own.
fn background<T: BackgroundService + Send + Sync + 'static>(
    name: &str,
    task: Arc<T>,
) -> GenBackgroundService<T> {
    let mut service = GenBackgroundService::new(name.to_owned(), task);
    service.threads = Some(1);
    service
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
    hook: Option<&Address>,
    config: &Config,
    stopped: &ShutdownWatch,
) -> Result<(Address, impl pingora::services::Service + use<>), AppError> {
    let any = Address::Tcp { host: "127.0.0.1".to_owned(), port: 0 };
    let bound = bind_all(std::slice::from_ref(&any), PUBLIC_MODE)?;
    let address = bound.first().map_or_else(|| any.clone(), |bound| bound.address.clone());
    let site = DemoSite::new(demo_publish(hook.cloned().unwrap_or(any), config.token.clone()));
    let app = pingora::apps::http_app::HttpServer::new_app(site);
    Ok((
        address,
        Listening::new("demo site", app, bound, Buffers::Write, stopped.clone()).threads(1),
    ))
}

/// How the demo site publishes: through the hook, as any site does.
fn demo_publish(hook: Address, token: Secret) -> demo::Publish {
    Box::new(move |json| {
        let (hook, token) = (hook.clone(), token.clone());
        Box::pin(async move {
            let content_type = Some("application/json");
            let target = "/publish";
            let call = Call { method: "POST", target, content_type, body: json.into() };
            match client::call(&hook, &token, call).await {
                Ok((200, _)) => Ok(()),
                Ok((status, body)) => Err(format!("{status} {}", String::from_utf8_lossy(&body))),
                Err(error) => Err(error.to_string()),
            }
        })
    })
}

/// What the listeners have in common.
struct Parts {
    hub: Hub,
    publisher: Publisher,
    gate: Gate,
    /// The runtime of the held polls, once it runs.
    crowd: Arc<OnceLock<Handle>>,
    tally: Arc<Tally>,
    keeping: Arc<Keeping>,
}

impl Parts {
    fn new(config: &Config) -> Result<Self, AppError> {
        let hub = Hub::new(config.hub.clone(), fastrand::u64(..));
        let keeping = Arc::new(Keeping::read(&config.snapshot, hub.clone())?);
        let limits = publish::Settings { max_message: config.max_message };
        let limits = Arc::new(ArcSwap::from_pointee(limits));
        let (crowd, tally) = (Arc::default(), Arc::new(Tally::default()));
        tally.watched.watch(&config.watched);
        let publisher = Publisher::new(
            hub.clone(),
            Arc::new(system_time),
            limits,
            Arc::clone(&crowd),
            tally.clone(),
        );
        let settings = Arc::new(ArcSwap::from_pointee(gate_settings(config)));
        let publish = browser_publish(&publisher);
        let gate = Gate::new(settings, hub.clone(), system_time, publish, tally.clone());
        Ok(Self { hub, publisher, gate, crowd, tally, keeping })
    }

    /// The app of the internal listener: the hook, and the gate about itself.
    fn internal(
        &self,
        config: &Config,
        upstream: &Arc<Upstream>,
        stopping: ShutdownWatch,
    ) -> Result<Internal, AppError> {
        let hook = Hook::new(self.publisher.clone(), self.history());
        let printed = config.to_toml();
        let sight = self.sight();
        let admin = Admin::new(Sources {
            unready: unready(upstream.clone(), stopping),
            figures: Box::new(move || sight.figures()),
            metrics: {
                let sight = self.sight();
                Box::new(move || sight.metrics())
            },
            config: Box::new(move || printed.clone()),
        });
        let settings = internal::Settings {
            token: config.token.clone(),
            names: config.internal_names.clone(),
            mask: config.log.mask.clone(),
        };
        let page = Secret::random().map_err(AppError::Random)?;
        let endpoints: Vec<Arc<dyn Endpoint>> = vec![Arc::new(hook), Arc::new(admin)];
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        Ok(Internal::new(settings, page, endpoints, self.tally.clone()))
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

    fn sight(&self) -> Sight {
        let Self { hub, gate, publisher, tally, keeping, .. } = self;
        Sight {
            hub: hub.clone(),
            gate: gate.clone(),
            publisher: publisher.clone(),
            tally: tally.clone(),
            keeping: keeping.clone(),
            started: system_time(),
        }
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
        let publisher = publisher.clone();
        let posts = vec![(channel, crate::channel::Payload::empty())];
        Box::pin(async move { publisher.publish(posts, By::Capture).await.is_ok() })
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
