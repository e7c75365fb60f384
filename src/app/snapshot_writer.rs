//! The history across restarts: read at the start, written while the gate runs and at its end.

use crate::hub::Hub;
use crate::protocol::archive::StoredReply;
use crate::server::admin;
use crate::server::persist::snapshot::{self, Snapshot, SnapshotError};
use crate::server::publish::{IdempotencyCache, system_time};
use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Writes the hub's history and the stored idempotent replies to the snapshot, if there is one.
pub(super) struct SnapshotWriter {
    hub: Hub,
    answers: IdempotencyCache,
    snapshot: Option<Arc<Snapshot>>,
    /// Interval of the writes; zero = only at the end.
    every: watch::Receiver<Duration>,
}

impl SnapshotWriter {
    /// Reads an earlier gate's snapshot into `hub` and `answers`, which are not in use yet.
    pub(super) fn read(
        settings: &snapshot::Settings,
        (hub, answers): (Hub, IdempotencyCache),
        every: watch::Receiver<Duration>,
    ) -> Result<Self, SnapshotError> {
        let now = system_time();
        let open = |file: &std::path::PathBuf| Snapshot::open(file, &hub, now);
        let opened = settings.file.as_ref().map(open).transpose()?;
        let snapshot = opened.map(|(snapshot, remembered)| {
            answers.recall(remembered, now);
            Arc::new(snapshot)
        });
        Ok(Self { hub, answers, snapshot, every })
    }

    /// Continues a running gate's history, which follows.
    pub(super) fn inherit(
        settings: &snapshot::Settings,
        (hub, answers): (Hub, IdempotencyCache),
        every: watch::Receiver<Duration>,
    ) -> Result<Self, SnapshotError> {
        let snapshot = settings.file.as_ref().map(|file| Arc::new(Snapshot::new(file)));
        // The running gate may have used another file.
        snapshot.as_ref().map_or(Ok(()), |snapshot| snapshot.forget_clean())?;
        Ok(Self { hub, answers, snapshot, every })
    }

    /// Gives the file to another process, or takes it `back`. May take as long as a write.
    pub(super) fn pass_on(&self, back: bool) {
        if let Some(snapshot) = &self.snapshot {
            snapshot.pass_on(back);
        }
    }

    /// Writes for the last time; with `shut` nothing can change any more.
    pub(super) async fn finish(&self, shut: bool) {
        self.write(if shut { Snapshot::finish } else { Snapshot::write }).await;
    }

    pub(super) fn report(&self) -> Option<admin::Snapshot> {
        let snapshot::Report { file, written, error, damaged } = self.snapshot.as_ref()?.report();
        Some(admin::Snapshot { file, written, error, damaged })
    }

    /// Writes on its own thread, as a disk may be slow. The snapshot logs failures.
    async fn write(&self, write: fn(&Snapshot, &Hub, &[StoredReply]) -> std::io::Result<()>) {
        let Some(snapshot) = self.snapshot.clone() else { return };
        let hub = self.hub.clone();
        let answers = self.answers.clone();
        let written =
            tokio::task::spawn_blocking(move || write(&snapshot, &hub, &answers.remembered()))
                .await;
        if let Err(error) = written {
            tracing::error!(%error, "writing the snapshot ended early");
        }
    }
}

#[async_trait]
impl BackgroundService for SnapshotWriter {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        if self.snapshot.is_none() {
            return;
        }
        let mut every = self.every.clone();
        loop {
            let pause = *every.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep(pause), if !pause.is_zero() => {
                    self.write(Snapshot::write).await;
                }
                Ok(()) = every.changed() => {}
                _ = shutdown.changed() => return,
            }
        }
    }
}
