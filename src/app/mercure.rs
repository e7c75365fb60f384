//! The hub's way from an update to the channels.

use super::live::LiveSettings;
use crate::hub::channel::{ChannelName, Payload};
use crate::protocol::http::Reply;
use crate::protocol::mercure::{Publish, plain};
use crate::server::backplane::{Entries, Entry, Lost};
use crate::server::gate::mercure::SharedSubscriber;
use crate::server::gate::{self, Gate};
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

/// Lets the gates of one hub list the subscribers of all.
pub(super) fn share(gate: &Gate, live: &LiveSettings) {
    let Some(backplane) = live.backplane.clone() else { return };
    backplane.list_entries(Arc::new(Subscribers(gate.clone())));
    gate.share_subscribers(Arc::new(move |channel| {
        let backplane = backplane.clone();
        Box::pin(async move {
            let found = backplane.entries_elsewhere(&channel).await;
            found.map_err(|failure| failure.to_string())
        })
    }));
}

/// The subscribers of this gate.
struct Subscribers(Gate);

fn entries(shared: Vec<SharedSubscriber>) -> Vec<Entry> {
    shared.into_iter().map(|(channel, id, text)| Entry { channel, id, text }).collect()
}

impl Entries for Subscribers {
    fn are_listed(&self) -> bool {
        self.0.lists_subscribers()
    }

    fn changes(&self, most: usize) -> Result<Vec<Entry>, Lost> {
        self.0.subscriber_changes(most).map(entries).ok_or(Lost)
    }

    fn page(&self, from: usize, most: usize) -> (Vec<Entry>, Option<usize>) {
        let (page, next) = self.0.subscriber_page(from, most);
        (entries(page), next)
    }

    fn report_gone(&self, channel: &ChannelName, texts: Vec<String>) {
        self.0.subscribers_gone(channel, &texts);
    }

    fn report_again(&self) {
        self.0.subscribers_again();
    }
}
