//! The hub's way from an update to the channels.

use crate::hub::channel::{ChannelName, Payload};
use crate::protocol::http::Reply;
use crate::protocol::mercure::{CHANNEL, Publish, plain};
use crate::server::gate;
use crate::server::publish::{Publisher, Source};
use arc_swap::ArcSwap;
use std::sync::Arc;

/// Publishes updates through `publisher`: on the hub's channel, and on those that their topics
/// name, where the hub of `settings` mirrors them. The response to the publisher is the update's
/// id.
pub(super) fn publish(publisher: &Publisher, settings: &Arc<ArcSwap<gate::Settings>>) -> Publish {
    let publisher = publisher.clone();
    let settings = settings.clone();
    Arc::new(move |update| {
        let publisher = publisher.clone();
        let settings = settings.clone();
        Box::pin(async move {
            let Ok(channel) = ChannelName::new(CHANNEL) else {
                return plain(500, "the hub has no channel");
            };
            let mirrors = settings.load().mercure.as_ref().is_some_and(|hub| hub.hub.mirror);
            let mut posts = vec![(channel, update.payload())];
            if mirrors {
                let names = update.mirrors().into_iter();
                posts.extend(names.map(|name| (name, Payload::text(update.data.clone()))));
            }
            match publisher.publish(posts, Source::Mercure).await {
                Ok(_) => Reply::new(200, "text/plain", update.id),
                Err(error) => error.into(),
            }
        })
    })
}
