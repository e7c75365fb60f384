//! The hub's way from an update to the channels.

use crate::hub::channel::Payload;
use crate::protocol::http::Reply;
use crate::protocol::mercure::{Publish, plain};
use crate::server::gate;
use crate::server::publish::{Publisher, Source};
use arc_swap::ArcSwap;
use std::sync::Arc;

/// Publishes updates through `publisher`: on the channel of the site's hub, and on those that their topics
/// name, where the hub of `settings` mirrors them. The response to the publisher is the update's
/// id.
pub(super) fn publish(publisher: &Publisher, settings: &Arc<ArcSwap<gate::Settings>>) -> Publish {
    let publisher = publisher.clone();
    let settings = settings.clone();
    Arc::new(move |site, update| {
        let publisher = publisher.clone();
        let settings = settings.clone();
        Box::pin(async move {
            // A reload may have taken the hub away meanwhile.
            let settings = settings.load_full().of_site(&site);
            let hub = settings.as_ref().and_then(|settings| settings.mercure.as_ref());
            let Some((hub, channel)) = hub.and_then(|hub| Some((hub, hub.hub.channel()?))) else {
                return plain(404, "there is no hub");
            };
            let mut posts = vec![(channel, update.payload())];
            if hub.hub.mirror {
                let names = update.mirrors().into_iter().map(|name| name.in_site(&site));
                posts.extend(names.map(|name| (name, Payload::text(update.data.clone()))));
            }
            match publisher.publish(posts, Source::Mercure).await {
                Ok(_) => Reply::new(200, "text/plain", update.id),
                Err(error) => error.into(),
            }
        })
    })
}
