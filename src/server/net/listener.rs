//! Listening sockets, bound before anything starts: so a busy address is reported at once, port 0
//! has its number, and the public listeners can close while the internal ones stay.
//!
//! Accepting can pause: connections wait in the system's backlog then, until it resumes here or in
//! another process that has the same socket.

use crate::protocol::address::Address;
use crate::server::net::resolve::resolve;
use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::listeners::{ConnectionFilter, L4BufferSettings, ListenerConfig, TcpSocketOptions};
use pingora::protocols::{Stream, TcpKeepalive};
use pingora::server::{Fds, ListenFds, ShutdownWatch};
use pingora::services::Service;
use pingora::services::listening::Service as ListeningService;
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Upper bound of connections that wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 65_535;

/// A bound socket and its address.
pub struct Bound {
    /// The address with the port that the system chose, if it was 0.
    pub address: Address,
    /// The requested address.
    pub asked: Address,
    socket: Arc<Socket>,
    /// The mode of a unix socket's file.
    mode: u32,
}

impl Bound {
    /// Binds `address`. Replaces a unix socket on which no process listens any more; `mode` is that
    /// of its file.
    pub fn new(asked: &Address, mode: u32) -> io::Result<Self> {
        let address = asked;
        let (address, socket) = match address {
            Address::Unix(path) => (address.clone(), bind_unix(path, mode)?),
            Address::Tcp { .. } => {
                let not_found = || io::Error::new(io::ErrorKind::NotFound, "no such host");
                let found = resolve(address)?.into_iter().next().ok_or_else(not_found)?;
                let socket = Socket::new(Domain::for_address(found), Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                if found.is_ipv6() {
                    // `[::]` stands for IPv6 alone, whatever the system's default: so it can be
                    // bound beside `0.0.0.0`, and every client has one form of address.
                    socket.set_only_v6(true)?;
                }
                socket.bind(&found.into())?;
                let bound = socket.local_addr()?.as_socket().unwrap_or(found);
                (Address::tcp(bound), socket)
            }
        };
        socket.listen(BACKLOG)?;
        // Pingora accepts on it as it is; a blocking one would stop a whole thread.
        socket.set_nonblocking(true)?;
        Ok(Self { address, asked: asked.clone(), socket: Arc::new(socket), mode })
    }

    /// Takes a socket that another process has bound to `address`, where `asked` was requested.
    pub fn take(address: Address, asked: Address, socket: OwnedFd, mode: u32) -> Self {
        Self { address, asked, socket: Arc::new(socket.into()), mode }
    }

    /// The socket, for another process.
    pub fn share(&self) -> Shared {
        Shared {
            address: self.address.clone(),
            asked: self.asked.clone(),
            socket: self.socket.clone(),
        }
    }
}

/// A bound socket that can be handed to another process.
pub struct Shared {
    /// The address it is bound to.
    pub address: Address,
    /// The requested address.
    pub asked: Address,
    socket: Arc<Socket>,
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// State of accepting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accepting {
    /// Connections are accepted.
    #[default]
    Yes,
    /// Connections wait in the backlog.
    Paused,
    /// Another process accepts the connections from now on.
    Never,
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
    name: String,
    app: Arc<A>,
    bound: Vec<Bound>,
    buffers: Buffers,
    shutdown: ShutdownWatch,
    accepting: watch::Receiver<Accepting>,
    door: Option<Arc<dyn ConnectionFilter>>,
    threads: Option<usize>,
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
        let name = name.to_owned();
        let app = Arc::new(app);
        let threads = None;
        // Nothing will ever pause it.
        let (_, accepting) = watch::channel(Accepting::Yes);
        let runtime = Arc::default();
        let door = None;
        Self { name, app, bound, buffers, shutdown, accepting, door, threads, runtime }
    }

    /// Sets `runtime` to the one that serves the connections, once they are served.
    pub fn share_runtime(mut self, runtime: Arc<OnceLock<Handle>>) -> Self {
        self.runtime = runtime;
        self
    }

    /// Accepts only as `accepting` says.
    pub fn accepting(mut self, accepting: watch::Receiver<Accepting>) -> Self {
        self.accepting = accepting;
        self
    }

    /// Asks `door` to admit every TCP connection before the next one is accepted.
    pub fn door(mut self, door: impl ConnectionFilter + 'static) -> Self {
        self.door = Some(Arc::new(door));
        self
    }

    /// Serves with that many threads instead of the general number.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }
}

impl<A: ServerApp + Send + Sync + 'static> Listening<A> {
    /// Pingora's own service on copies of the sockets, and these.
    fn engine(&self) -> io::Result<(ListeningService<Lasting<A>>, ListenFds)> {
        let app = Lasting { app: self.app.clone(), shutdown: self.shutdown.clone() };
        let mut engine = ListeningService::new(self.name.clone(), app);
        if let Some(door) = &self.door {
            engine.set_connection_filter(door.clone());
        }
        let mut fds = Fds::new();
        for bound in &self.bound {
            let (key, config) = match &bound.address {
                Address::Unix(path) => {
                    let path = path.display().to_string();
                    // Pingora sets the mode once more, and its default would be open to all users.
                    let mode = fs::Permissions::from_mode(bound.mode);
                    (path.clone(), ListenerConfig::uds(path).permissions(mode))
                }
                Address::Tcp { .. } => {
                    let key = bound.address.to_string();
                    (key.clone(), ListenerConfig::tcp(key).tcp_socket_options(tcp_options()))
                }
            };
            engine.add_listener(config.l4_buffer(self.buffers.into()));
            fds.add(key, bound.socket.try_clone()?.into_raw_fd());
        }
        Ok((engine, Arc::new(parking_lot::Mutex::new(fds))))
    }

    /// Accepts until it has to pause or end.
    async fn accept(&self, listeners_per_fd: usize) {
        let mut accepting = self.accepting.clone();
        let mut shutdown = self.shutdown.clone();
        let (stop, stopped) = watch::channel(false);
        let (mut engine, fds) = match self.engine() {
            Ok(ready) => ready,
            Err(error) => {
                // Too many open files, most likely.
                tracing::error!(%error, listener = self.name, "cannot accept; trying again");
                return tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let pause = async {
            tokio::select! {
                _ = shutdown.wait_for(|ending| *ending) => {}
                () = is(&mut accepting, |accepting| accepting != Accepting::Yes) => {}
            }
            // Ends pingora's service.
            let _ = stop.send(true);
        };
        tokio::join!(engine.start_service(Some(fds), stopped, listeners_per_fd), pause);
    }
}

/// Waits until `accepting` is as `wanted`.
async fn is(accepting: &mut watch::Receiver<Accepting>, wanted: impl Fn(Accepting) -> bool) {
    if accepting.wait_for(|accepting| wanted(*accepting)).await.is_err() {
        // Its sender is gone, so it cannot change any more.
        std::future::pending().await
    }
}

/// An app whose connections do not notice when accepting pauses.
struct Lasting<A> {
    app: Arc<A>,
    shutdown: ShutdownWatch,
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Lasting<A> {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        _accepting_ends: &ShutdownWatch,
    ) -> Option<Stream> {
        self.app.process_new(stream, &self.shutdown).await
    }
}

/// The buffers of a listener's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffers {
    /// None: an idle connection holds no memory for reads or writes to come. The app gathers for
    /// itself.
    None,
    /// Writes are gathered, so that a response's head and body leave together.
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
        let mut shutdown = self.shutdown.clone();
        let mut accepting = self.accepting.clone();
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|ending| *ending) => break,
                () = is(&mut accepting, |accepting| accepting != Accepting::Paused) => {}
            }
            if *accepting.borrow() == Accepting::Never || *shutdown.borrow() {
                break;
            }
            self.accept(listeners_per_fd).await;
        }
        self.bound.clear();
        // The app's cleanup is for the end, not for a pause before it.
        let _ = shutdown.wait_for(|ending| *ending).await;
        self.app.cleanup().await;
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        self.threads
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
