//! Drops old messages of unused channels, and ends the graces of absent users and the sessions of
//! absent clients.

use crate::hub::Hub;
use crate::server::gate::Gate;
use crate::server::publish::system_time;
use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// Periodically drops messages that are too old, also from unused channels, and users and Pusher
/// sessions that have not come back.
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
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        for round in 0_u64.. {
            tokio::select! {
                _ = ticks.tick() => {
                    // After a standstill, clients that seem to be absent may have come back without
                    // being heard yet: they have until the next tick.
                    let stood_still = last.elapsed() > 2 * EVERY;
                    last = Instant::now();
                    if !stood_still {
                        self.hub.presence().sweep(system_time());
                        self.gate.sweep_pusher();
                    }
                    if round % CHANNELS == 0 {
                        self.hub.sweep(system_time());
                    }
                }
                _ = shutdown.changed() => return,
            }
        }
    }
}
