//! Watches the files that the site writes, with the active config's rules.

use super::reload::{ActiveConfig, Reload};
use crate::server::publish::Publisher;
use crate::server::publish::watch::{Settings, Watcher};
use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::sync::Arc;
use tokio::sync::watch;

/// Watches to the very end, so that a file written while the gate drains still releases polls.
pub(super) struct WatcherService {
    watcher: Watcher,
    configs: watch::Receiver<Arc<ActiveConfig>>,
}

impl WatcherService {
    /// Starts to watch; the existing content is on its channels when this returns.
    pub(super) fn new(publisher: Publisher, reload: &Reload) -> Self {
        let watcher = Watcher::new(settings(&reload.in_force()), publisher);
        Self { watcher, configs: reload.watch() }
    }
}

fn settings(in_force: &ActiveConfig) -> Settings {
    let config = &in_force.config;
    Settings { rules: config.watch.clone(), files: config.hub.channels }
}

#[async_trait]
impl BackgroundService for WatcherService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let stop = async {
            let _ = shutdown.changed().await;
        };
        let mut configs = self.configs.clone();
        let follow = async {
            while configs.changed().await.is_ok() {
                self.watcher.reconfigure(settings(&configs.borrow_and_update().clone()));
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = self.watcher.run(stop) => {}
            () = follow => {}
        }
    }
}
