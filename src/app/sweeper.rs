//! Drops old messages of unused channels.

use crate::hub::Hub;
use crate::server::publish::system_time;
use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::time::Duration;

/// Periodically drops messages that are too old, also from unused channels.
pub(super) struct Sweeper {
    pub(super) hub: Hub,
}

#[async_trait]
impl BackgroundService for Sweeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        const EVERY: Duration = Duration::from_secs(5);
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.hub.sweep(system_time()),
                _ = shutdown.changed() => return,
            }
        }
    }
}
