//! Shuts the gate down without dropping a poll.

use super::signals::EndSignals;
use super::snapshot_writer::SnapshotWriter;
use super::systemd;
use super::upgrade::UpgradeServer;
use crate::config::Drain;
use crate::hub::{Hub, WakeSet};
use crate::server::gate::Gate;
use crate::server::gate::poll::hold::Cause;
use crate::server::internal::Target;
use crate::server::net::quiesce::Quiesce;
use crate::server::net::socket_file::SocketFile;
use crate::server::publish::{self, Publisher};
use crate::server::telemetry::log;
use crate::server::webhook::Webhooks;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, watch};

/// Shuts the gate down: the public listeners close, every held poll is answered, requests under way
/// finish; only then the internal listeners close too.
pub(super) struct Shutdown {
    pub(super) signals: Arc<Mutex<EndSignals>>,
    pub(super) hub: Hub,
    pub(super) gate: Gate,
    pub(super) publisher: Publisher,
    pub(super) quiesce: Quiesce<Target>,
    pub(super) snapshot_writer: Arc<SnapshotWriter>,
    pub(super) upgrading: Arc<UpgradeServer>,
    pub(super) settings: Arc<ArcSwap<Drain>>,
    pub(super) webhooks: Webhooks,
    pub(super) stop_public: watch::Sender<bool>,
    pub(super) stop_internal: watch::Sender<bool>,
    /// The socket files of the public listeners, and of the internal ones.
    pub(super) public_files: Vec<SocketFile>,
    pub(super) internal_files: Vec<SocketFile>,
}

#[async_trait]
impl ShutdownSignalWatch for Shutdown {
    async fn recv(&self) -> ShutdownSignal {
        let mut moved = self.upgrading.moved.subscribe();
        {
            let mut signals = self.signals.lock().await;
            tokio::select! {
                () = signals.wait() => {}
                _ = moved.wait_for(|moved| *moved) => {}
            }
        }
        let signals = self.signals.clone();
        tokio::spawn(async move {
            signals.lock().await.wait().await;
            tracing::warn!("a signal while draining: ending now, polls are dropped");
            log::flush();
            std::process::exit(1);
        });
        self.drain().await;
        // Nothing is left to wait for.
        ShutdownSignal::FastShutdown
    }
}

impl Shutdown {
    async fn drain(&self) {
        tracing::info!(held = self.hub.held(), "draining");
        /// Time for connections to send responses that are written already.
        const LAST_BYTES: Duration = Duration::from_secs(2);
        /// Time before the deadline at which waiting for the upstream is given up.
        const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
        let drain = self.settings.load_full();
        let deadline = Instant::now() + drain.timeout;
        let moved = *self.upgrading.moved.borrow();
        if !moved {
            systemd::stopping();
        }
        // A send fails only if no receiver is left, and then it is not needed.
        if !moved {
            self.upgrading.close();
            let _ = self.stop_public.send(true);
            // A successor, where there is one, goes on listening on the same files.
            self.public_files.iter().for_each(SocketFile::remove);
        }
        self.release(self.hub.drain(), drain.spread).await;
        let done = || self.hub.held() == 0 && self.gate.under_way() == 0;
        // Polls without an upstream slot by then get a response, rather than being cut off.
        self.until(deadline - CLOSE_TIMEOUT.min(drain.timeout / 4), done).await;
        self.gate.close_queues();
        self.until(deadline, done).await;
        if moved {
            self.part(deadline).await;
        }
        // A response on an HTTP/2 stream is under way until its connection has written it.
        let last = deadline.min(Instant::now() + LAST_BYTES);
        self.until(last, || self.gate.connections() == 0 && self.webhooks.is_idle()).await;
        let _ = self.stop_internal.send(true);
        if !moved {
            self.internal_files.iter().for_each(SocketFile::remove);
            let shut = self.shut().await;
            self.snapshot_writer.finish(shut).await;
            self.upgrading.remove_socket();
        }
        tracing::info!(
            held = self.hub.held(),
            under_way = self.gate.under_way(),
            answered = self.gate.counters().releases.of(Cause::Drain),
            "drained"
        );
    }

    /// Gives idle connections time for one more request, whose response closes them, since a client
    /// that is about to send should not find its connection closed; and lets requests that were
    /// passed to the new process finish.
    async fn part(&self, deadline: Instant) {
        const IDLE: Duration = Duration::from_secs(5);
        let idle = deadline.min(Instant::now() + IDLE);
        self.until(idle, || self.gate.connections() == 0).await;
        let _ = self.stop_public.send(true);
        self.until(deadline, || self.upgrading.in_flight.load(Ordering::SeqCst) == 0).await;
    }

    /// Lets publishes under way finish, and accepts no more; true if that succeeded.
    async fn shut(&self) -> bool {
        /// Timeout of a response under way.
        const LAST_ANSWERS: Duration = Duration::from_secs(5);
        let stop = async {
            self.quiesce.stop().await.resume(Target::Closed);
            self.publisher.quiesce().stop().await.resume(publish::Target::Closed);
        };
        let stopped = tokio::time::timeout(LAST_ANSWERS, stop).await.is_ok();
        if !stopped {
            tracing::warn!("a request on the internal side takes too long; it is cut off");
        }
        stopped
    }

    async fn until(&self, deadline: Instant, done: impl Fn() -> bool + Send + Sync) {
        while !done() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Wakes the held polls evenly over `spread`, so that their clients do not come back all at
    /// once.
    async fn release(&self, mut wakes: Vec<WakeSet>, spread: Duration) {
        const STEP: Duration = Duration::from_millis(20);
        let polls: usize = wakes.iter_mut().map(WakeSet::claim).sum();
        let steps = (spread.as_millis() / STEP.as_millis()).max(1) as usize;
        let batch = polls.div_ceil(steps).max(1);
        let mut room = batch;
        for mut wake in wakes {
            while !wake.is_empty() {
                let ringing = wake.len().min(room);
                wake.notify(ringing);
                room -= ringing;
                if room == 0 {
                    tokio::time::sleep(STEP).await;
                    room = batch;
                }
            }
        }
    }
}
