//! The subscribers there are now, for the hub's API; and the updates that say that one has come or
//! gone.

use super::Shared;
use crate::hub::channel::SiteName;
use crate::protocol::mercure::{
    Publish, Settings, Subscriber, Subscription, Update, subscriber_id,
};
use parking_lot::Mutex;
use serde_json::Value;
use slab::Slab;
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;

/// Updates that wait to be published; beyond so many, subscribers come and go faster than any client
/// could follow, and further ones are dropped.
const MAX_WAITING: usize = 10_000;

/// All subscribers.
#[derive(Clone, Default)]
pub(super) struct Registry {
    shared: Arc<Listed>,
}

#[derive(Default)]
struct Listed {
    subscribers: Mutex<Slab<Entry>>,
    queue: OnceLock<mpsc::Sender<(SiteName, Update)>>,
}

struct Entry {
    site: SiteName,
    path: Box<str>,
    subscriber: String,
    topics: Vec<String>,
    payload: Option<Value>,
}

/// A subscriber's entry; dropping it says that the subscriber has gone.
pub(super) struct Registration {
    registry: Registry,
    key: usize,
}

impl Shared {
    /// Lists a subscriber of a hub.
    pub(super) fn register(&self, hub: &Settings, subscriber: &Subscriber) -> Registration {
        let registry = self.registry.clone();
        if let Some(publish) = self.publish.get() {
            registry.shared.queue.get_or_init(|| worker(publish.clone()));
        }
        let entry = Entry {
            site: hub.site.clone(),
            path: (*hub.path).into(),
            subscriber: subscriber_id(fastrand::u128(..)),
            topics: subscriber.topics.clone(),
            payload: subscriber.payload.clone(),
        };
        registry.notify(&entry, true);
        let key = registry.shared.subscribers.lock().insert(entry);
        Registration { registry, key }
    }
}

/// Publishes one update after the other, so that a subscriber does not go before it has come.
fn worker(publish: Publish) -> mpsc::Sender<(SiteName, Update)> {
    let (sender, mut waiting) = mpsc::channel(MAX_WAITING);
    tokio::spawn(async move {
        while let Some((site, update)) = waiting.recv().await {
            let reply = publish(site, update).await;
            if reply.status != 200 {
                tracing::debug!(status = reply.status, "a subscription's update is not published");
            }
        }
    });
    sender
}

impl Registry {
    /// The subscriptions at a hub to `topic` (all if it is `None`) of `subscriber` (of all if it is `None`),
    /// in the order of their coming.
    pub(super) fn find(
        &self,
        hub: &Settings,
        topic: Option<&str>,
        subscriber: Option<&str>,
    ) -> Vec<Subscription> {
        let entries = self.shared.subscribers.lock();
        let entries = entries.iter().map(|(_, entry)| entry);
        let entries = entries.filter(|entry| entry.site == hub.site);
        let entries = entries.filter(|entry| subscriber.is_none_or(|one| one == entry.subscriber));
        entries
            .flat_map(|entry| entry.subscriptions(&hub.path))
            .filter(|one| topic.is_none_or(|topic| topic == one.topic))
            .collect()
    }

    fn notify(&self, entry: &Entry, active: bool) {
        let Some(queue) = self.shared.queue.get() else { return };
        for subscription in entry.subscriptions(&entry.path) {
            if queue.try_send((entry.site.clone(), subscription.update(active))).is_err() {
                tracing::debug!("a subscription's update is dropped");
            }
        }
    }
}

impl Entry {
    fn subscriptions(&self, path: &str) -> impl Iterator<Item = Subscription> {
        self.topics.iter().map(move |topic| {
            let subscriber = self.subscriber.clone();
            let payload = self.payload.clone();
            Subscription::new(path, subscriber, topic.clone(), payload)
        })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let entry = self.registry.shared.subscribers.lock().try_remove(self.key);
        if let Some(entry) = entry {
            self.registry.notify(&entry, false);
        }
    }
}
