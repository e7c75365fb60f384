//! The Pusher protocol's REST requests, between the publisher and the gate, and what an app's
//! webhook learns from the gate.

use crate::hub::Subscription;
use crate::hub::channel::{ChannelName, Cursor, Payload, Take};
use crate::protocol::http::Reply;
use crate::protocol::pusher::App;
use crate::server::gate::Gate;
use crate::server::gate::pusher::{Notice, Report};
use crate::server::internal::pusher::Channels;
use crate::server::publish::{Publisher, Source, system_time};
use crate::server::webhook::{Detail, Event, EventName, Sent, Webhooks};
use async_trait::async_trait;
use std::sync::Arc;

/// What the requests are about.
pub(super) struct PusherChannels {
    pub(super) publisher: Publisher,
    pub(super) gate: Gate,
}

#[async_trait]
impl Channels for PusherChannels {
    fn has_apps(&self) -> bool {
        !self.gate.settings().pusher.apps.is_empty()
    }

    fn app(&self, id: &str) -> Option<Arc<App>> {
        let settings = self.gate.settings();
        let app = settings.pusher.apps.iter().find(|app| *app.app.id == *id)?;
        Some(app.app.clone())
    }

    fn max_event(&self) -> usize {
        let settings = self.gate.settings();
        settings.pusher.apps.iter().map(|app| app.app.max_event).max().unwrap_or_default()
    }

    fn now(&self) -> u64 {
        system_time().0 / 1_000_000
    }

    async fn publish(&self, posts: Vec<(ChannelName, Payload)>) -> Result<(), Reply> {
        let published = self.publisher.publish(posts, Source::Hook).await;
        published.map(|_| ()).map_err(Reply::from)
    }

    fn subscriptions(&self, channel: &ChannelName) -> usize {
        self.gate.pusher_occupancy().of(channel)
    }

    fn occupied(&self, beginning: &ChannelName) -> Vec<(ChannelName, usize)> {
        self.gate.pusher_occupancy().below(beginning)
    }

    async fn users(&self, channel: &ChannelName) -> Result<Vec<String>, String> {
        let roster = self.gate.roster(channel.clone()).await?;
        Ok(roster.members.iter().map(|one| one.user.to_string()).collect())
    }

    fn messages(&self, channel: &ChannelName) -> Vec<Payload> {
        let subscription = Subscription { channel: channel.clone(), cursor: Cursor::Oldest };
        let update = self.publisher.hub().read(&subscription, Take::All, system_time());
        let messages = update.map(|update| update.found.messages).unwrap_or_default();
        messages.iter().map(|message| message.payload.clone()).collect()
    }

    fn connections(&self, app: &App) -> usize {
        self.gate.pusher_occupancy().connections_of(app)
    }
}

/// Queues what happens on an app's channels for the app's webhook.
pub(super) fn report(webhooks: Webhooks) -> Report {
    Arc::new(move |channel, notice| {
        let name = match notice {
            Notice::ClientEvent { .. } => EventName::ClientEvent,
            Notice::CacheMiss => EventName::CacheMiss,
            Notice::SubscriptionCount(_) => EventName::SubscriptionCount,
        };
        if !webhooks.want(name, channel) {
            return;
        }
        let (detail, user) = match notice {
            Notice::ClientEvent { event, data, socket, user } => {
                let text = serde_json::from_str::<Box<str>>(data);
                let sent = Sent {
                    event: event.into(),
                    data: text.unwrap_or_else(|_| data.into()),
                    socket: socket.to_string().into(),
                };
                (Detail::Sent(Arc::new(sent)), user.map(Arc::from))
            }
            Notice::CacheMiss => (Detail::None, None),
            Notice::SubscriptionCount(count) => (Detail::Count(count), None),
        };
        webhooks.push(&Event { name, channel: channel.clone(), user, detail });
    })
}
