//! Getting rid of old messages while nobody asks for them.

use crate::hub::Hub;
use crate::server::publish::system_time;
use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::time::Duration;

/// Drops what has grown too old, also from channels that nobody uses.
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
