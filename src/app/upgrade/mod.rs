//! Upgrades: a new process takes over the sockets and the history from the running one.
//!
//! [`Inherited`] is the new process's side, [`UpgradeServer`] the old one's. Their protocol is in
//! [`crate::server::persist::handover`].

mod successor;

use super::AppError;
use super::snapshot_writer::SnapshotWriter;
use super::systemd;
use crate::config::Config;
use crate::hub::Hub;
use crate::protocol::address::Address;
use crate::protocol::archive::{Reader, Writer};
use crate::server::internal::Target;
use crate::server::net::listener::{Accepting, Bound, Shared};
use crate::server::net::quiesce::{Quiesce, Quiesced};
use crate::server::persist::handover::{
    self, HandoverError, NewProcess, OldProcess, Ready, SocketError,
};
use crate::server::publish::{self, IdempotencyCache, Publisher, system_time};
use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use successor::Successor;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// The upgrade socket of a gate with this config, and true if its path is the default; `None` = it
/// has none.
fn upgrade_socket(config: &Config) -> Option<(PathBuf, bool)> {
    let default = || Some((handover::default_path(config.internal.first()?)?, true));
    config.upgrade.clone().map(|path| (path, false)).or_else(default)
}

/// State that this process takes over from a running gate; empty at an ordinary start.
#[derive(Default)]
pub struct Inherited {
    new_process: Option<NewProcess>,
    sockets: Vec<(handover::Socket, OwnedFd)>,
}

impl Inherited {
    /// Asks the running gate for its sockets. It continues to serve meanwhile.
    pub fn ask(config: &Config) -> Result<Self, AppError> {
        let (path, _) = upgrade_socket(config).ok_or(AppError::NoMeeting)?;
        let (new_process, sockets) = NewProcess::begin(handover::join(&path)?)?;
        Ok(Self { new_process: Some(new_process), sockets })
    }

    /// True if there is a running gate to take over from.
    pub(super) fn is_there(&self) -> bool {
        self.new_process.is_some()
    }

    /// The sockets for `addresses`: inherited ones, and new ones.
    pub(super) fn bind(
        &mut self,
        addresses: &[Address],
        mode: u32,
    ) -> Result<Vec<Bound>, AppError> {
        let bind = |address: &Address| match self.take(&address.to_string()) {
            Some((bound, fd)) => Ok(Bound::take(bound, address.clone(), fd, mode)),
            None => {
                Bound::new(address, mode).map_err(|error| AppError::Listen(address.clone(), error))
            }
        };
        addresses.iter().map(bind).collect()
    }

    /// The inherited socket that was configured as `address`, or is bound to it.
    fn take(&mut self, address: &str) -> Option<(Address, OwnedFd)> {
        let asked = |(socket, _): &(handover::Socket, _)| socket.asked == address;
        let bound = |(socket, _): &(handover::Socket, _)| socket.bound == address;
        let found = self.sockets.iter().position(asked);
        let found = found.or_else(|| self.sockets.iter().position(bound))?;
        let (socket, fd) = self.sockets.swap_remove(found);
        Some((socket.bound.parse().ok()?, fd))
    }

    /// The upgrade socket: the running gate's, or a new one.
    fn meet(&mut self, path: PathBuf, default: bool) -> Result<UpgradeSocket, SocketError> {
        let (listener, inherited) = match self.take(&Address::Unix(path.clone()).to_string()) {
            Some((_, fd)) => (UnixListener::from(fd), true),
            None => (handover::bind(&path, default)?, false),
        };
        Ok(UpgradeSocket { path, listener, inherited })
    }

    /// Takes over the history and the stored idempotent replies of the running gate. From then on
    /// this process is the gate.
    pub(super) fn take_over(
        self,
        hub: &Hub,
        answers: &IdempotencyCache,
        ready: Ready,
    ) -> Result<(), AppError> {
        let Some(new_process) = self.new_process else { return Ok(()) };
        // Sockets without a use here are closed; the running gate closes them, too.
        drop(self.sockets);
        let history = new_process.ready(ready)?;
        let now = system_time();
        let remembered = Reader::begin(history)?.restore(hub, false, now)?;
        answers.recall(remembered, now);
        new_process.loaded()?;
        let channels = hub.channels();
        let bytes = hub.cost();
        tracing::info!(channels, bytes, "took over from the running gate");
        Ok(())
    }
}

/// Hands this gate over to a new process that asks for it.
pub(super) struct UpgradeServer {
    pub(super) hub: Hub,
    answers: IdempotencyCache,
    pub(super) publisher: Publisher,
    pub(super) quiesce: Quiesce<Target>,
    pub(super) snapshot_writer: Arc<SnapshotWriter>,
    pub(super) accepting: watch::Sender<Accepting>,
    /// Set once another process has taken over.
    pub(super) moved: watch::Sender<bool>,
    /// Number of requests that are passed to the new process.
    pub(super) in_flight: Arc<AtomicUsize>,
    upgrade_socket: Option<UpgradeSocket>,
    sockets: Mutex<Vec<Shared>>,
}

/// The socket that new processes connect to.
struct UpgradeSocket {
    path: PathBuf,
    listener: UnixListener,
    /// It was inherited from the running gate.
    inherited: bool,
}

/// The parts of a gate that an upgrade needs.
pub(super) struct Parts {
    pub(super) hub: Hub,
    pub(super) answers: IdempotencyCache,
    pub(super) publisher: Publisher,
    pub(super) quiesce: Quiesce<Target>,
    pub(super) snapshot_writer: Arc<SnapshotWriter>,
    pub(super) accepting: watch::Sender<Accepting>,
    pub(super) sockets: Vec<Shared>,
}

impl UpgradeServer {
    /// Listens for new processes. If that fails, the gate runs all the same.
    pub(super) fn new(config: &Config, heritage: &mut Inherited, parts: Parts) -> Self {
        let cannot = |error| {
            tracing::warn!(%error, "this gate cannot be upgraded, only restarted");
        };
        let meet = |(path, default)| heritage.meet(path, default).map_err(cannot).ok();
        let Parts { hub, answers, publisher, quiesce, snapshot_writer, accepting, sockets } = parts;
        let moved = watch::channel(false).0;
        let in_flight = Arc::default();
        let upgrade_socket = upgrade_socket(config).and_then(meet);
        let sockets = Mutex::new(sockets);
        Self {
            hub,
            answers,
            publisher,
            quiesce,
            snapshot_writer,
            accepting,
            moved,
            in_flight,
            upgrade_socket,
            sockets,
        }
    }

    /// This process's announcement to the previous one.
    pub(super) fn ready(&self, config: &Config, internal: &[Address]) -> Ready {
        Ready {
            internal: internal.first().map(ToString::to_string).unwrap_or_default(),
            token: config.token.reveal().to_owned(),
            upgrade: self
                .upgrade_socket
                .as_ref()
                .is_some_and(|upgrade_socket| upgrade_socket.inherited),
        }
    }

    /// Releases the sockets: they close with their listeners.
    pub(super) fn close(&self) {
        self.sockets.lock().clear();
    }

    /// Removes the upgrade socket, unless another process owns it now.
    pub(super) fn remove_socket(&self) {
        if let (Some(upgrade_socket), false) = (&self.upgrade_socket, *self.moved.borrow()) {
            // The next gate replaces a leftover.
            let _ = std::fs::remove_file(&upgrade_socket.path);
        }
    }

    /// Hands over to the process at the other end. Call this on a thread that may block.
    fn hand_over(&self, stream: UnixStream, runtime: &Handle) -> Result<(), HandoverError> {
        let old = OldProcess::begin(stream)?;
        self.offer(&old)?;
        let ready = old.ready()?;
        if self.hub.is_draining() {
            old.refuse("the running gate is ending");
            return Err(HandoverError::Refused("this gate is ending".to_owned()));
        }
        let Some(address) = ready.address() else { return Err(HandoverError::Unexpected) };
        let Some(paused) = self.freeze(runtime) else {
            old.refuse("a publish at the running gate does not end; it goes on");
            return Err(HandoverError::Refused("a publish does not end".to_owned()));
        };
        old.history(|to| {
            let mut writer = Writer::begin(to, true, self.hub.memory())?;
            self.answers.remembered().iter().try_for_each(|one| writer.remembered(one))?;
            self.hub.presence().dump().iter().try_for_each(|one| writer.member(one))?;
            self.hub.traces().try_for_each(|trace| writer.channel(&trace))?;
            writer.end().map(drop)
        })?;
        self.hub.move_on(true);
        let successor = old.process();
        old.go()?;
        successor.into_iter().for_each(systemd::moved_to);
        paused.move_on(Successor::new(address, ready.token, self.in_flight.clone()));
        if !ready.upgrade {
            self.remove_socket();
        }
        self.moved.send_replace(true);
        Ok(())
    }

    /// Hands over copies of all sockets.
    fn offer(&self, old: &OldProcess) -> Result<(), HandoverError> {
        let describe = |asked: &dyn Display, bound: &dyn Display| handover::Socket {
            asked: asked.to_string(),
            bound: bound.to_string(),
        };
        let sockets = self.sockets.lock();
        let listeners = sockets.iter().map(|s| (describe(&s.asked, &s.address), s.as_fd()));
        let own = self.upgrade_socket.iter().map(|upgrade_socket| {
            let address = Address::Unix(upgrade_socket.path.clone());
            (describe(&address, &address), upgrade_socket.listener.as_fd())
        });
        old.sockets(&listeners.chain(own).collect::<Vec<_>>())
    }

    /// Stops everything that could change the history. `None` if something does not stop.
    fn freeze(&self, runtime: &Handle) -> Option<Paused<'_>> {
        /// Timeout of a request on the internal side.
        const TIMEOUT: Duration = Duration::from_secs(5);
        self.snapshot_writer.pass_on(false);
        let mut paused = Paused { gate: self, stopped: None, moved_on: false };
        self.accepting.send_replace(Accepting::Paused);
        let stop = async {
            let quiesce = self.quiesce.stop().await;
            (quiesce, self.publisher.quiesce().stop().await)
        };
        let stopped = runtime.block_on(async { tokio::time::timeout(TIMEOUT, stop).await });
        paused.stopped = Some(stopped.ok()?);
        self.hub.presence().pause(true);
        Some(paused)
    }
}

/// A stopped gate; dropping it resumes everything as before.
struct Paused<'a> {
    gate: &'a UpgradeServer,
    stopped: Option<(Quiesced<Target>, Quiesced<publish::Target>)>,
    moved_on: bool,
}

impl Paused<'_> {
    /// Resumes everything at `successor`.
    fn move_on(mut self, successor: Successor) {
        if let Some((internal, publishing)) = self.stopped.take() {
            let tick = {
                let hub = self.gate.hub.clone();
                move |name: &_| hub.tick(name)
            };
            publishing.resume(publish::Target::Successor(successor.clone().publish(tick)));
            internal.resume(Target::Successor(successor.ask()));
            self.gate.accepting.send_replace(Accepting::Never);
            self.gate.close();
        }
        self.moved_on = true;
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        if self.moved_on {
            return;
        }
        self.gate.hub.presence().pause(false);
        self.gate.hub.move_on(false);
        self.gate.accepting.send_replace(Accepting::Yes);
        self.gate.snapshot_writer.pass_on(true);
    }
}

/// [`UpgradeServer`] as a service.
pub(super) struct Upgrades(pub(super) Arc<UpgradeServer>);

#[async_trait]
impl BackgroundService for Upgrades {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let Some(upgrade_socket) = &self.0.upgrade_socket else { return };
        let listener = upgrade_socket.listener.try_clone();
        let listener = listener.and_then(tokio::net::UnixListener::from_std);
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "this gate cannot be upgraded"),
        };
        while !*self.0.moved.borrow() {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted.and_then(|(stream, _)| stream.into_std()),
                _ = shutdown.changed() => return,
            };
            let upgrading = self.0.clone();
            let runtime = Handle::current();
            let done = tokio::task::spawn_blocking(move || {
                let stream = stream?;
                stream.set_nonblocking(false)?;
                upgrading.hand_over(stream, &runtime)
            });
            match done.await {
                Ok(Ok(())) => tracing::info!("a new process has taken over"),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a new process did not take over; going on");
                    // Prevents a tight loop if the socket keeps failing.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => tracing::error!(%error, "an upgrade ended early; going on"),
            }
        }
    }
}
