//! Connects presence in the hub with the parts that wake, list and report.

use super::live::LiveSettings;
use crate::hub::channel::ChannelName;
use crate::hub::presence::{Change, Sinks};
use crate::protocol::dialect::presence;
use crate::protocol::http::Reply;
use crate::server::gate::Gate;
use crate::server::publish::{Publisher, Roster};
use crate::server::webhook::{Event, Webhooks};
use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::sync::Arc;

/// Lets joins and leaves wake the polls that wait for them.
pub(super) fn connect(live: &LiveSettings, publisher: &Publisher) {
    let publisher = publisher.clone();
    let wake = Box::new(move |wake| publisher.notify(wake));
    let unsettled: Box<dyn Fn(&ChannelName) + Send + Sync> = match live.backplane.clone() {
        Some(backplane) => Box::new(move |channel| backplane.presence_changed(channel)),
        None => Box::new(|_| ()),
    };
    let webhooks = live.webhooks.clone();
    let change = Box::new(move |channel: &ChannelName, change: &Change, _| {
        webhooks.push(&Event::of(channel, change));
    });
    live.hub.presence().report_to(Sinks { wake, change, unsettled });
}

/// Lists of users that are on several gates come from the backplane.
pub(super) fn list(gate: &Gate, live: &LiveSettings) {
    let Some(backplane) = live.backplane.clone() else { return };
    gate.list_users_from(Arc::new(move |channel| {
        let backplane = backplane.clone();
        Box::pin(
            async move { backplane.roster(channel).await.map_err(|failure| failure.to_string()) },
        )
    }));
}

/// The hook's lists of users.
pub(super) fn hook_roster(gate: &Gate) -> Roster {
    let gate = gate.clone();
    Arc::new(move |channel| {
        let roster = gate.roster(channel);
        Box::pin(async move {
            match roster.await {
                Ok(roster) => Reply::new(200, "application/json", presence::list(&roster)),
                Err(reason) => {
                    Reply::error(503, reason, "try again later").with("Retry-After", "1")
                }
            }
        })
    })
}

/// Sends webhooks while the gate runs.
pub(super) struct WebhookService(pub(super) Webhooks);

#[async_trait]
impl BackgroundService for WebhookService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = self.0.run() => {}
            _ = shutdown.changed() => {}
        }
    }
}
