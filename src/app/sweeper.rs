//! Drops old messages of unused channels, and sessions whose clients stayed away.

use crate::hub::Hub;
use crate::server::gate::Gate;
use crate::server::publish::system_time;
use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::time::Duration;

/// Periodically drops messages that are too old, also from unused channels, and Pusher sessions.
pub(super) struct Sweeper {
    pub(super) hub: Hub,
    pub(super) gate: Gate,
}

#[async_trait]
impl BackgroundService for Sweeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        const EVERY: Duration = Duration::from_secs(1);
        const OF_HUB: u32 = 5;
        let (mut ticks, mut count) = (tokio::time::interval(EVERY), 0);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    self.gate.sweep_pusher();
                    if count == 0 {
                        self.hub.sweep(system_time());
                    }
                    count = (count + 1) % OF_HUB;
                }
                _ = shutdown.changed() => return,
            }
        }
    }
}
