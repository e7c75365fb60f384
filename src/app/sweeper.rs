//! Drops old messages of unused channels, ends the graces of absent users, and forgets sessions
//! whose clients stayed away.

use crate::hub::Hub;
use crate::server::gate::Gate;
use crate::server::publish::system_time;
use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::time::Duration;

/// Periodically drops messages that are too old, also from unused channels, the users who have not
/// come back, and Pusher sessions.
pub(super) struct Sweeper {
    pub(super) hub: Hub,
    pub(super) gate: Gate,
}

#[async_trait]
impl BackgroundService for Sweeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        const EVERY: Duration = Duration::from_secs(1);
        /// Ticks between two looks at all channels.
        const CHANNELS: u64 = 5;
        let mut ticks = tokio::time::interval(EVERY);
        for round in 0_u64.. {
            tokio::select! {
                _ = ticks.tick() => {
                    self.gate.sweep_pusher();
                    self.hub.presence().sweep(system_time());
                    if round % CHANNELS == 0 {
                        self.hub.sweep(system_time());
                    }
                }
                _ = shutdown.changed() => return,
            }
        }
    }
}
