//! Listening sockets, bound before anything starts: so a busy address is told at once, port 0
//! has its number, and the public listeners can close while the internal ones stay.

use crate::address::Address;
use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::listeners::{L4BufferSettings, ListenerConfig, TcpSocketOptions};
use pingora::protocols::TcpKeepalive;
use pingora::server::{Fds, ListenFds, ShutdownWatch};
use pingora::services::Service;
use pingora::services::listening::Service as ListeningService;
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io;
use std::os::fd::{IntoRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;

/// Connections that wait to be accepted, at the most; the system may allow fewer.
const BACKLOG: i32 = 65_535;

/// A bound socket and where it is.
pub struct Bound {
    /// The address with the port that the system chose, where it was 0.
    pub address: Address,
    socket: Socket,
    /// The mode of a unix socket's file.
    mode: u32,
}

impl Bound {
    /// Binds `address`. A unix socket that nobody listens on any more is replaced; `mode` is its
    /// file's.
    pub fn new(address: &Address, mode: u32) -> io::Result<Self> {
        let (address, socket) = match address {
            Address::Unix(path) => (address.clone(), bind_unix(path, mode)?),
            Address::Tcp { .. } => {
                let not_found = || io::Error::new(io::ErrorKind::NotFound, "no such host");
                let found = address.resolve()?.into_iter().next().ok_or_else(not_found)?;
                let socket = Socket::new(Domain::for_address(found), Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.bind(&found.into())?;
                let bound = socket.local_addr()?.as_socket().unwrap_or(found);
                (Address::tcp(bound), socket)
            }
        };
        socket.listen(BACKLOG)?;
        // The engine accepts on it as it is; a blocking one would stop a whole thread.
        socket.set_nonblocking(true)?;
        Ok(Self { address, socket, mode })
    }
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<Socket> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(socket)
}

/// A pingora service on sockets that are bound already, with a shutdown of its own.
pub struct Listening<A> {
    inner: ListeningService<A>,
    sockets: Vec<(String, RawFd)>,
    shutdown: ShutdownWatch,
    runtime: Arc<OnceLock<Handle>>,
}

impl<A> Listening<A> {
    /// Serves `app` on `bound` until `shutdown` is true.
    pub fn new(
        name: &str,
        app: A,
        bound: Vec<Bound>,
        buffers: Buffers,
        shutdown: ShutdownWatch,
    ) -> Self {
        let mut inner = ListeningService::new(name.to_owned(), app);
        let mut sockets = Vec::new();
        for Bound { address, socket, mode } in bound {
            let (key, config) = match &address {
                Address::Unix(path) => {
                    let path = path.display().to_string();
                    // The engine sets the mode once more, and its own would be for everybody.
                    let mode = fs::Permissions::from_mode(mode);
                    (path.clone(), ListenerConfig::uds(path).permissions(mode))
                }
                Address::Tcp { .. } => {
                    let key = address.to_string();
                    (key.clone(), ListenerConfig::tcp(key).tcp_socket_options(tcp_options()))
                }
            };
            inner.add_listener(config.l4_buffer(buffers.into()));
            sockets.push((key, socket.into_raw_fd()));
        }
        Self { inner, sockets, shutdown, runtime: Arc::default() }
    }

    /// Tells `runtime` where the connections are served, once they are.
    pub fn tell_runtime(mut self, runtime: Arc<OnceLock<Handle>>) -> Self {
        self.runtime = runtime;
        self
    }

    /// Serves with that many threads instead of the general number.
    pub fn threads(mut self, threads: usize) -> Self {
        self.inner.threads = Some(threads);
        self
    }
}

/// The buffers of a listener's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffers {
    /// None: an idle connection holds no memory for what it might read or write one day. The app
    /// gathers for itself.
    None,
    /// Writes are gathered, so that an answer's head and body leave together.
    Write,
}

impl From<Buffers> for L4BufferSettings {
    fn from(buffers: Buffers) -> Self {
        let write = match buffers {
            Buffers::None => Some(0),
            Buffers::Write => None,
        };
        Self { read: Some(0), write }
    }
}

/// A client that vanished without a word is noticed within about two minutes.
fn tcp_options() -> TcpSocketOptions {
    let mut options = TcpSocketOptions::default();
    options.tcp_keepalive = Some(TcpKeepalive {
        idle: Duration::from_secs(60),
        interval: Duration::from_secs(15),
        count: 4,
        #[cfg(target_os = "linux")]
        user_timeout: Duration::ZERO,
    });
    options
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Service for Listening<A> {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        listeners_per_fd: usize,
    ) {
        // A service starts once.
        let _ = self.runtime.set(Handle::current());
        let mut fds = Fds::new();
        for (address, fd) in self.sockets.drain(..) {
            fds.add(address, fd);
        }
        let fds: ListenFds = Arc::new(parking_lot::Mutex::new(fds));
        self.inner.start_service(Some(fds), self.shutdown.clone(), listeners_per_fd).await;
    }

    fn name(&self) -> &str {
        Service::name(&self.inner)
    }

    fn threads(&self) -> Option<usize> {
        self.inner.threads
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn port_zero_becomes_a_real_port_and_a_busy_one_is_told() {
        let first = Bound::new(&"127.0.0.1:0".parse().unwrap(), 0).unwrap();
        assert!(matches!(first.address, Address::Tcp { port: 1.., .. }));
        let second = Bound::new(&first.address, 0).map(|_| ());
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let path = std::env::temp_dir().join(format!("pollgate-{}.sock", std::process::id()));
        let address = Address::Unix(path.clone());
        drop(Bound::new(&address, 0o600).unwrap());
        let live = Bound::new(&address, 0o600).unwrap();
        let busy = Bound::new(&address, 0o600).map(|_| ());
        assert_eq!(busy.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
        fs::remove_file(path).unwrap();
    }
}
