//! The upstream: the servers behind the gate, and which of them gets a request.

use crate::protocol::address::Address;
use crate::server::net::resolve::resolve;
use pingora::lb::health_check::{HealthObserve, TcpHealthCheck};
use pingora::lb::prelude::RoundRobin;
use pingora::lb::{Backend, Backends, LoadBalancer, discovery};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora::upstreams::peer::HttpPeer;
use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::sync::watch;

/// `[upstream]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The upstream's servers.
    pub servers: Vec<Address>,
    /// Timeout of connecting.
    pub connect_timeout: Duration,
    /// Longest silence of the upstream.
    pub read_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            servers: vec![Address::Tcp { host: "127.0.0.1".to_owned(), port: 8000 }],
            connect_timeout: Duration::from_secs(3),
            read_timeout: Duration::from_secs(60),
        }
    }
}

/// Interval of the health checks.
const HEALTH_CHECK_EVERY: Duration = Duration::from_secs(2);

/// The upstream's servers, in turn; healthy ones come first. [`HealthChecks`] finds out which are.
pub struct Upstream {
    balancer: LoadBalancer<RoundRobin>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backends = self.balancer.backends().get_backend();
        f.debug_set().entries(backends.iter().map(|backend| backend.addr.to_string())).finish()
    }
}

/// A server of the upstream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Its name cannot be looked up.
    #[error("upstream {0} cannot be looked up: {1}")]
    Lookup(Address, std::io::Error),
    /// Its name has no address.
    #[error("upstream {0} has no address")]
    NoAddress(Address),
}

impl Upstream {
    /// Looks the servers up.
    pub fn new(servers: &[Address]) -> Result<Self, UpstreamError> {
        let backends = servers.iter().map(backend).collect::<Result<BTreeSet<_>, _>>()?;
        let backends = Backends::new(discovery::Static::new(backends));
        let mut balancer = LoadBalancer::from_backends(backends);
        let mut check = TcpHealthCheck::new();
        check.health_changed_callback = Some(Box::new(TellHealth));
        balancer.set_health_check(check);
        balancer.health_check_frequency = Some(HEALTH_CHECK_EVERY);
        balancer.parallel_health_check = true;
        // A list that is known already is there at the first look.
        {
            let mut update = pin!(balancer.update());
            let _ = update.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        Ok(Self { balancer })
    }

    /// The next server in turn that passes its health checks; if none does, the next in turn all
    /// the same, as it may be back by now.
    pub fn next(&self) -> Option<HttpPeer> {
        match self.choose()? {
            SocketAddr::Inet(addr) => Some(HttpPeer::new(addr, false, String::new())),
            SocketAddr::Unix(addr) => {
                HttpPeer::new_uds(addr.as_pathname()?.to_str()?, false, String::new()).ok()
            }
        }
    }

    /// Address of the next server, for requests that are not forwarded ones.
    pub fn next_address(&self) -> Option<Address> {
        Some(match self.choose()? {
            SocketAddr::Inet(addr) => Address::tcp(addr),
            SocketAddr::Unix(addr) => Address::Unix(addr.as_pathname()?.to_owned()),
        })
    }

    fn choose(&self) -> Option<SocketAddr> {
        let healthy = self.balancer.select(b"", 64);
        let chosen = healthy.or_else(|| self.balancer.select_with(b"", 64, |_, _| true))?;
        Some(chosen.addr)
    }

    /// True if `other` has the same servers at the same addresses.
    pub fn is_as(&self, other: &Self) -> bool {
        self.balancer.backends().get_backend() == other.balancer.backends().get_backend()
    }

    /// Number of servers.
    pub fn servers(&self) -> usize {
        self.balancer.backends().get_backend().len()
    }

    /// True if a server passes its health checks.
    pub fn is_healthy(&self) -> bool {
        let backends = self.balancer.backends();
        backends.get_backend().iter().any(|backend| backends.ready(backend))
    }
}

/// Logs when a server becomes unhealthy or healthy.
struct TellHealth;

#[async_trait::async_trait]
impl HealthObserve for TellHealth {
    async fn observe(&self, server: &Backend, healthy: bool) {
        let server = &server.addr;
        match healthy {
            true => tracing::info!(%server, "an upstream server answers again"),
            false => tracing::warn!(%server, "an upstream server does not answer"),
        }
    }
}

/// Checks the health of the servers in force, across reloads: a background service.
pub struct HealthChecks {
    upstream: watch::Receiver<Arc<Upstream>>,
}

impl HealthChecks {
    /// Checks the servers of `upstream`, and new ones as soon as it has them.
    pub fn new(upstream: watch::Receiver<Arc<Upstream>>) -> Self {
        Self { upstream }
    }
}

#[async_trait::async_trait]
impl BackgroundService for HealthChecks {
    async fn start(&self, shutdown: ShutdownWatch) {
        let mut upstream = self.upstream.clone();
        loop {
            let checked = upstream.borrow_and_update().clone();
            // Dropping the checks of servers that were replaced ends them.
            tokio::select! {
                () = checked.balancer.start(shutdown.clone()) => return,
                Ok(()) = upstream.changed() => {}
            }
        }
    }
}

fn backend(server: &Address) -> Result<Backend, UpstreamError> {
    let addr = match server {
        Address::Unix(path) => {
            let lookup = |error| UpstreamError::Lookup(server.clone(), error);
            let addr = std::os::unix::net::SocketAddr::from_pathname(path).map_err(lookup)?;
            SocketAddr::Unix(addr)
        }
        Address::Tcp { .. } => {
            let lookup = |error| UpstreamError::Lookup(server.clone(), error);
            let found = resolve(server).map_err(lookup)?;
            // PHP's built-in server listens on IPv4 for "localhost".
            let v4 = found.iter().find(|addr| addr.is_ipv4()).or(found.first());
            SocketAddr::Inet(*v4.ok_or_else(|| UpstreamError::NoAddress(server.clone()))?)
        }
    };
    Ok(Backend { addr, weight: 1, ext: Default::default() })
}
