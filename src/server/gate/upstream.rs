//! The upstream: the servers behind the gate, and which of them gets a request.

use super::upstream_names::{self, Names, Server};
use crate::hub::channel::SiteName;
use crate::protocol::address::Address;
use crate::server::net::resolve::resolve;
use pingora::lb::health_check::{HealthObserve, TcpHealthCheck};
use pingora::lb::prelude::RoundRobin;
use pingora::lb::{Backend, Backends, LoadBalancer};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora::upstreams::peer::HttpPeer;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

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
    /// Looks the servers up. [`HealthChecks`] does so again, for those that are names.
    pub fn new(servers: &[Address]) -> Result<Self, UpstreamError> {
        let servers = servers.iter().map(server).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::of(servers, upstream_names::system))
    }

    fn of(servers: Vec<Server>, lookup: upstream_names::Lookup) -> Self {
        let has_names = servers.iter().any(Server::is_name);
        let backends = Backends::new(Box::new(Names::new(servers, lookup)));
        let mut balancer = LoadBalancer::from_backends(backends);
        balancer.update_frequency = has_names.then_some(upstream_names::LOOK_UP_EVERY);
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
        Self { balancer }
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

    /// Addresses of all servers, the next one first, for requests that are not forwarded ones.
    pub fn addresses(&self) -> Vec<Address> {
        let mut all = Vec::new();
        for _ in 0..self.servers() {
            all.extend(self.next_address().filter(|next| !all.contains(next)));
        }
        all
    }

    /// Socket address of the server that [`Self::next`] would name.
    pub(super) fn next_socket(&self) -> Option<SocketAddr> {
        self.choose()
    }

    fn choose(&self) -> Option<SocketAddr> {
        // Of one server there is no choice, and the balancer's costs as much as a head.
        let all = self.balancer.backends().get_backend();
        if let (1, Some(only)) = (all.len(), all.first()) {
            return Some(only.addr.clone());
        }
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

impl Default for Upstream {
    /// One without servers.
    fn default() -> Self {
        Self::of(Vec::new(), upstream_names::system)
    }
}

/// Checks the health of the servers in force, across reloads: a background service.
pub struct HealthChecks {
    upstreams: watch::Receiver<Vec<(SiteName, Arc<Upstream>)>>,
}

impl HealthChecks {
    /// Checks the servers of `upstreams`, and new ones as soon as it has them.
    pub fn new(upstreams: watch::Receiver<Vec<(SiteName, Arc<Upstream>)>>) -> Self {
        Self { upstreams }
    }
}

#[async_trait::async_trait]
impl BackgroundService for HealthChecks {
    async fn start(&self, shutdown: ShutdownWatch) {
        let mut upstreams = self.upstreams.clone();
        let mut ending = shutdown.clone();
        loop {
            // Dropping the checks of servers that were replaced ends them.
            let mut checks = JoinSet::new();
            for (_, checked) in upstreams.borrow_and_update().clone() {
                let shutdown = shutdown.clone();
                checks.spawn(async move { checked.balancer.start(shutdown).await });
            }
            tokio::select! {
                _ = ending.wait_for(|ending| *ending) => return,
                Ok(()) = upstreams.changed() => {}
            }
        }
    }
}

/// Looks a server up.
fn server(address: &Address) -> Result<Server, UpstreamError> {
    let lookup = |error| UpstreamError::Lookup(address.clone(), error);
    let found = match address {
        Address::Unix(path) => {
            let addr = std::os::unix::net::SocketAddr::from_pathname(path).map_err(lookup)?;
            vec![SocketAddr::Unix(addr)]
        }
        Address::Tcp { .. } => {
            resolve(address).map_err(lookup)?.into_iter().map(SocketAddr::Inet).collect()
        }
    };
    if found.is_empty() {
        return Err(UpstreamError::NoAddress(address.clone()));
    }
    Ok(Server { address: address.clone(), found })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn addrs(all: &[&str]) -> Vec<std::net::SocketAddr> {
        all.iter().map(|one| one.parse().unwrap()).collect()
    }

    /// An upstream of one name, which was found at these addresses.
    fn upstream(found: &[&str], lookup: upstream_names::Lookup) -> Upstream {
        let address = Address::Tcp { host: "php.internal".to_owned(), port: 80 };
        let found = addrs(found).into_iter().map(SocketAddr::Inet).collect();
        Upstream::of(vec![Server { address, found }], lookup)
    }

    fn seen(upstream: &Upstream) -> BTreeSet<String> {
        (0..8).map(|_| upstream.next_address().unwrap().to_string()).collect()
    }

    fn set(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_addresses_of_a_name_have_their_turn() {
        let both = ["10.0.0.1:80", "[fd00::1]:80"];
        let upstream = upstream(&both, upstream_names::system);
        assert_eq!((seen(&upstream), upstream.servers()), (set(&both), 2));
        let asked: Vec<_> = upstream.addresses().iter().map(ToString::to_string).collect();
        assert_eq!(asked.into_iter().collect::<BTreeSet<_>>(), set(&both));
    }

    #[tokio::test]
    async fn a_name_is_looked_up_again_and_a_failed_lookup_changes_nothing() {
        static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
        let upstream = upstream(&["10.0.0.1:80"], |host, port| {
            assert_eq!((host.as_str(), port), ("php.internal", 80));
            Box::pin(async {
                match LOOKUPS.fetch_add(1, Ordering::SeqCst) {
                    0 => Err(io::ErrorKind::NotFound.into()),
                    1 => Ok(Vec::new()),
                    _ => Ok(addrs(&["10.0.0.2:80", "10.0.0.3:80"])),
                }
            })
        });
        assert_eq!(upstream.balancer.update_frequency, Some(upstream_names::LOOK_UP_EVERY));
        for expected in [&["10.0.0.1:80"][..], &["10.0.0.1:80"], &["10.0.0.2:80", "10.0.0.3:80"]] {
            upstream.balancer.update().await.unwrap();
            assert_eq!(seen(&upstream), set(expected));
        }
    }

    #[test]
    fn an_address_is_not_looked_up() {
        let servers = ["127.0.0.1:80", "[::1]:80", "unix:/run/php.sock"];
        let servers: Vec<Address> = servers.iter().map(|one| one.parse().unwrap()).collect();
        assert_eq!(Upstream::new(&servers).unwrap().balancer.update_frequency, None);
    }
}
