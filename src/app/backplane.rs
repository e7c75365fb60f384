//! Connects the backplane and the publisher, which share channels with other gates.

use crate::hub::channel::{ChannelName, Payload};
use crate::hub::{Published, WakeSet};
use crate::server::backplane::{Backplane, Failure};
use crate::server::publish::{Idempotency, PublishError, Publisher, Sequencer};
use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::sync::Arc;

/// The backplane as the sequencer of messages.
pub(super) struct RedisSequencer(pub(super) Backplane);

#[async_trait]
impl Sequencer for RedisSequencer {
    async fn publish(
        &self,
        posts: &[(ChannelName, Payload)],
        once: Option<Idempotency<'_>>,
    ) -> Result<Vec<Published>, PublishError> {
        let once = once.map(|Idempotency { key, kept }| (key, kept));
        Ok(self.0.publish(posts, once).await?)
    }

    async fn forget(&self, channel: &ChannelName) -> Result<Option<WakeSet>, PublishError> {
        Ok(self.0.forget(channel).await?)
    }

    async fn refresh(&self, channel: &ChannelName) {
        self.0.refresh(channel).await;
    }
}

impl From<Failure> for PublishError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Away(reason) => Self::Away(reason),
            Failure::Unknown(reason) => Self::Unknown(reason),
            Failure::Conflict => Self::Conflict,
        }
    }
}

/// Feeds the table from the backplane while the gate runs.
pub(super) struct BackplaneService {
    pub(super) backplane: Backplane,
    pub(super) publisher: Publisher,
}

#[async_trait]
impl BackgroundService for BackplaneService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let publisher = self.publisher.clone();
        let on_wake = Arc::new(move |wake, new| publisher.arrived(wake, new));
        tokio::select! {
            () = self.backplane.run(on_wake) => {}
            _ = shutdown.wait_for(|ending| *ending) => {}
        }
    }
}
