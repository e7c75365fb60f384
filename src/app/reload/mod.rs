//! Reloading: reads the config again from its sources, checks it as a whole, and then activates it,
//! or changes nothing at all.
//!
//! `POST /reload` ([`Reload::now`]), SIGHUP and a change of the file ([`ReloadTriggers`]) trigger
//! it, one at a time. Requests under way continue with the settings they started with.

mod file;

use super::live::LiveSettings;
use super::systemd;
use crate::config::{Config, Mistakes, Site, Sources};
use crate::server::admin::{self, Reloaded};
use async_trait::async_trait;
use file::ConfigFile;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::sync::Arc;
use tokio::signal::unix::Signal;
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinError, spawn_blocking};

/// The active config, and the result of the latest reload.
pub(super) struct ActiveConfig {
    pub(super) config: Config,
    /// Number of activations, the first included.
    pub(super) generation: u64,
    /// The keys whose values differ in the sources and need a restart.
    pub(super) restart: Vec<String>,
}

/// A cheap handle to the shared reloader.
#[derive(Clone)]
pub(super) struct Reload {
    shared: Arc<Shared>,
}

struct Shared {
    sources: Sources,
    site: Site,
    live: Arc<LiveSettings>,
    in_force: watch::Sender<Arc<ActiveConfig>>,
    /// Content of the file at the latest read; `None` = it could not be read. Locked during a
    /// reload, so that reloads run one at a time.
    file: parking_lot::Mutex<Option<Vec<u8>>>,
}

impl Reload {
    /// Reloads from `sources` into `live`, where `config` is active.
    pub(super) fn new(
        sources: Sources,
        site: Site,
        config: Config,
        live: Arc<LiveSettings>,
    ) -> Self {
        let first = ActiveConfig { config, generation: 1, restart: Vec::new() };
        let in_force = watch::channel(Arc::new(first)).0;
        let file = parking_lot::Mutex::new(bytes(&sources));
        Self { shared: Arc::new(Shared { sources, site, live, in_force, file }) }
    }

    /// The settings of the running parts.
    pub(super) fn live(&self) -> &LiveSettings {
        &self.shared.live
    }

    /// The active config.
    pub(super) fn in_force(&self) -> Arc<ActiveConfig> {
        self.shared.in_force.borrow().clone()
    }

    /// Watches for the activation of a config.
    pub(super) fn watch(&self) -> watch::Receiver<Arc<ActiveConfig>> {
        self.shared.in_force.subscribe()
    }

    /// Reloads, and returns the changes or the mistakes of the config. `why` is for the log. Once
    /// begun it runs to its end, even if the caller no longer waits.
    pub(super) async fn now(&self, why: &'static str) -> admin::Reloading {
        let shared = self.shared.clone();
        // Reading files and looking up names may take time.
        let done = spawn_blocking(move || {
            let mut file = shared.file.lock();
            *file = bytes(&shared.sources);
            shared.reload(why)
        });
        let lost = |error: JoinError| {
            vec![admin::Mistake { message: error.to_string(), ..Default::default() }]
        };
        done.await.unwrap_or_else(|error| Err(lost(error)))
    }

    /// Reloads if the file's content has changed since the latest read. The log has the result.
    async fn if_file_changed(&self) {
        let shared = self.shared.clone();
        let done = spawn_blocking(move || {
            let mut file = shared.file.lock();
            let bytes = bytes(&shared.sources);
            if *file != bytes {
                *file = bytes;
                let _ = shared.reload("the file has changed");
            }
        });
        // It only fails while the process ends.
        let _ = done.await;
    }
}

/// The file's content, to detect changes. It is read before the config: a change between the two
/// reads causes one reload too many, not one too few.
fn bytes(sources: &Sources) -> Option<Vec<u8>> {
    std::fs::read(sources.file.as_ref()?).ok()
}

impl Shared {
    /// Call this with `file` locked.
    fn reload(&self, why: &str) -> admin::Reloading {
        systemd::reloading();
        let replaced = self.replace();
        systemd::ready();
        match replaced {
            Ok(reloaded) => {
                let Reloaded { generation, changed, restart } = &reloaded;
                tracing::info!(why, generation, ?changed, ?restart, "config reloaded");
                Ok(reloaded)
            }
            Err(mistakes) => {
                let generation = self.in_force.borrow().generation;
                for mistake in mistakes.iter() {
                    tracing::error!("{mistake}");
                }
                tracing::error!(why, generation, "config refused, nothing has changed");
                Err(mistakes.iter().map(as_reported).collect())
            }
        }
    }

    fn replace(&self) -> Result<Reloaded, Mistakes> {
        let running = self.in_force.borrow().clone();
        let read = Config::read(&self.sources, self.site)?;
        let fit = read.taken_on_by(&running.config, self.site)?;
        let prepared = self.live.prepare(&fit.config)?;
        self.live.apply(&running.config, &fit.config, prepared);
        for warning in &fit.config.warnings {
            tracing::warn!("{warning}");
        }
        let changed = running.config.changes(&fit.config);
        let generation = running.generation + 1;
        let config = fit.config;
        let restart = fit.restart;
        let reloaded = Reloaded { generation, changed, restart: restart.clone() };
        self.in_force.send_replace(Arc::new(ActiveConfig { config, generation, restart }));
        Ok(reloaded)
    }
}

fn as_reported(mistake: &crate::config::Mistake) -> admin::Mistake {
    let key = mistake.key.clone();
    let line = mistake.line;
    let message = mistake.message.clone();
    admin::Mistake { key, line, message }
}

/// Reloads on SIGHUP and, if `reload.watch` is set, when the file changes.
pub(super) struct ReloadTriggers {
    reload: Reload,
    hangup: Mutex<Signal>,
}

impl ReloadTriggers {
    pub(super) fn new(reload: Reload, hangup: Signal) -> Self {
        Self { reload, hangup: Mutex::new(hangup) }
    }
}

#[async_trait]
impl BackgroundService for ReloadTriggers {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut hangup = self.hangup.lock().await;
        let mut file = ConfigFile::new(self.reload.shared.sources.file.clone());
        let mut in_force = self.reload.watch();
        loop {
            file.watch(in_force.borrow_and_update().config.watch_file);
            // The sender of a signal gets no response here; the log has the result.
            tokio::select! {
                _ = hangup.recv() => drop(self.reload.now("SIGHUP").await),
                () = file.stirred() => self.reload.if_file_changed().await,
                _ = in_force.changed() => {}
                _ = shutdown.changed() => return,
            }
        }
    }
}
