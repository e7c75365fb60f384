//! The addresses of the upstream's servers, looked up again while the gate runs.
//!
//! A server that is a name has all the addresses of that name, IPv4 and IPv6. A lookup that fails, or
//! finds nothing, changes nothing: the addresses of before may still be good.

use crate::protocol::address::Address;
use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::lb::Backend;
use pingora::lb::discovery::ServiceDiscovery;
use pingora::protocols::l4::socket::SocketAddr as ServerAddr;
use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;
use tokio::time::timeout;

/// Interval of the lookups: a container that is back at another address is found within it.
pub(super) const LOOK_UP_EVERY: Duration = Duration::from_secs(10);
/// Timeout of one lookup.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The addresses found for a name.
type Found = io::Result<Vec<SocketAddr>>;
/// Looks the addresses of a host and port up.
pub(super) type Lookup = fn(String, u16) -> Pin<Box<dyn Future<Output = Found> + Send>>;

/// The system's lookup, which blocks no thread of the runtime.
pub(super) fn system(host: String, port: u16) -> Pin<Box<dyn Future<Output = Found> + Send>> {
    Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
}

/// A server and its addresses.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) address: Address,
    pub(super) found: Vec<ServerAddr>,
}

impl Server {
    /// True if the server is a name, whose addresses may change.
    pub(super) fn is_name(&self) -> bool {
        matches!(&self.address, Address::Tcp { host, .. } if host.parse::<IpAddr>().is_err())
    }
}

/// See the [module](self).
pub(super) struct Names {
    servers: Mutex<Vec<Server>>,
    /// The first answer is what was known at the start.
    first: Mutex<bool>,
    lookup: Lookup,
}

impl Names {
    pub(super) fn new(servers: Vec<Server>, lookup: Lookup) -> Self {
        Self { servers: Mutex::new(servers), first: Mutex::new(true), lookup }
    }

    async fn look_up(&self) {
        let servers = self.servers.lock().clone();
        for (n, server) in servers.iter().enumerate().filter(|(_, server)| server.is_name()) {
            let Address::Tcp { host, port } = &server.address else { continue };
            match timeout(TIMEOUT, (self.lookup)(host.clone(), *port)).await {
                Ok(Ok(found)) if !found.is_empty() => {
                    let found: Vec<_> = found.into_iter().map(ServerAddr::Inet).collect();
                    let mut servers = self.servers.lock();
                    let set = |found: &[ServerAddr]| found.iter().cloned().collect::<BTreeSet<_>>();
                    if set(&servers[n].found) != set(&found) {
                        tracing::info!(server = %server.address, ?found, "an upstream name has new addresses");
                    }
                    servers[n].found = found;
                }
                failed => {
                    tracing::debug!(server = %server.address, ?failed, "no upstream address found")
                }
            }
        }
    }
}

#[async_trait]
impl ServiceDiscovery for Names {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let first = std::mem::replace(&mut *self.first.lock(), false);
        if !first {
            self.look_up().await;
        }
        let servers = self.servers.lock();
        let found = servers.iter().flat_map(|server| server.found.iter().cloned());
        let backends = found.map(|addr| Backend { addr, weight: 1, ext: Default::default() });
        Ok((backends.collect(), HashMap::new()))
    }
}
