//! The subscribers there are now, for the hub's API; and the updates that say that one has come or
//! gone.
//!
//! With several gates, each shares its own with the others: changes wait here until they are taken
//! ([`Registry::changes`]). The shared ones are bounded by [`MAX_SHARED`] bytes, and the changes that
//! wait by [`MAX_CHANGES`]; beyond the first bound a subscriber is listed at its own gate alone, and
//! beyond the second all of them are sent anew.

use super::Shared;
use crate::hub::channel::{ChannelName, SiteName};
use crate::protocol::mercure::{
    Publish, Record, Settings, Subscriber, Subscription, Update, subscriber_id,
};
use parking_lot::Mutex;
use slab::Slab;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;

/// Updates that wait to be published; beyond so many, subscribers come and go faster than any client
/// could follow, and further ones are dropped.
const MAX_WAITING: usize = 10_000;

/// Changes that wait to be sent to the other gates.
const MAX_CHANGES: usize = 10_000;

/// Bytes of the subscribers that one gate shares with the others: its memory in Redis.
const MAX_SHARED: usize = 4 << 20;

/// All subscribers.
#[derive(Clone, Default)]
pub(super) struct Registry {
    shared: Arc<Listed>,
}

#[derive(Default)]
struct Listed {
    subscribers: Mutex<Subscribers>,
    queue: OnceLock<mpsc::Sender<(SiteName, Update)>>,
}

#[derive(Default)]
struct Subscribers {
    each: Slab<Entry>,
    /// They are shared with other gates.
    shares: bool,
    /// Bytes of those that are.
    bytes: usize,
    changes: VecDeque<Change>,
    /// Some changes were dropped.
    lost: bool,
}

struct Entry {
    site: SiteName,
    path: Box<str>,
    /// The hub's channel.
    channel: ChannelName,
    record: Record,
    /// Bytes of its record, if it is shared; else 0.
    shared: usize,
}

enum Change {
    /// The one with this key has come; it may have gone since.
    Come(usize),
    /// The subscriber has gone.
    Gone(ChannelName, String),
}

/// A subscriber's entry; dropping it says that the subscriber has gone.
pub(super) struct Registration {
    registry: Registry,
    key: usize,
}

/// A subscriber of a hub's channel, as it is shared: its id, and its record unless it has gone.
pub type SharedSubscriber = (ChannelName, String, Option<String>);

impl Shared {
    /// Lists a subscriber of a hub; `None` = the hub has no channel.
    pub(super) fn register(&self, hub: &Settings, subscriber: &Subscriber) -> Option<Registration> {
        let registry = self.registry.clone();
        self.begin_updates();
        let record = Record {
            subscriber: subscriber_id(fastrand::u128(..)),
            topics: subscriber.topics.clone(),
            payload: subscriber.payload.clone(),
        };
        let site = hub.site.clone();
        let path = (*hub.path).into();
        let entry = Entry { site, path, channel: hub.channel()?, record, shared: 0 };
        registry.notify(&entry.site, &entry.path, &entry.record, true);
        let key = registry.shared.subscribers.lock().insert(entry);
        Some(Registration { registry, key })
    }

    /// Begins to publish updates.
    pub(super) fn begin_updates(&self) {
        if let Some(publish) = self.publish.get() {
            self.registry.shared.queue.get_or_init(|| worker(publish.clone()));
        }
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

impl Subscribers {
    fn insert(&mut self, mut entry: Entry) -> usize {
        let bytes = if self.shares { entry.record.text().len() } else { 0 };
        if self.bytes + bytes <= MAX_SHARED {
            self.bytes += bytes;
            entry.shared = bytes;
        }
        let is_shared = entry.shared > 0;
        let key = self.each.insert(entry);
        if is_shared {
            self.push(Change::Come(key));
        }
        key
    }

    fn remove(&mut self, key: usize) -> Option<Entry> {
        let entry = self.each.try_remove(key)?;
        self.bytes -= entry.shared;
        if entry.shared > 0 {
            let subscriber = entry.record.subscriber.clone();
            self.push(Change::Gone(entry.channel.clone(), subscriber));
        }
        Some(entry)
    }

    fn push(&mut self, change: Change) {
        if self.changes.len() >= MAX_CHANGES {
            self.changes.clear();
            self.lost = true;
        }
        self.changes.push_back(change);
    }
}

impl Registry {
    /// The subscriptions at a hub to `topic` (all if it is `None`) of `subscriber` (of all if it is
    /// `None`): those here in the order of their coming, and then the ones `elsewhere`.
    pub(super) fn find(
        &self,
        hub: &Settings,
        elsewhere: &[Record],
        topic: Option<&str>,
        subscriber: Option<&str>,
    ) -> Vec<Subscription> {
        let subscribers = self.shared.subscribers.lock();
        let here = subscribers.each.iter().map(|(_, entry)| entry);
        let here = here.filter(|entry| entry.site == hub.site).map(|entry| &entry.record);
        here.chain(elsewhere)
            .filter(|record| subscriber.is_none_or(|one| one == record.subscriber))
            .flat_map(|record| record.subscriptions(&hub.path))
            .filter(|one| topic.is_none_or(|topic| topic == one.topic))
            .collect()
    }

    /// From now on the subscribers are shared with other gates.
    pub(super) fn share(&self) {
        self.shared.subscribers.lock().shares = true;
    }

    /// At most `most` changes since the last call; `None` = some are lost.
    pub(super) fn changes(&self, most: usize) -> Option<Vec<SharedSubscriber>> {
        let mut subscribers = self.shared.subscribers.lock();
        if std::mem::take(&mut subscribers.lost) {
            subscribers.changes.clear();
            return None;
        }
        let most = most.min(subscribers.changes.len());
        let changes: Vec<_> = subscribers.changes.drain(..most).collect();
        let shared = |change| match change {
            Change::Gone(channel, subscriber) => Some((channel, subscriber, None)),
            Change::Come(key) => subscribers.each.get(key).and_then(Entry::shared),
        };
        Some(changes.into_iter().filter_map(shared).collect())
    }

    /// At most `most` of those that are shared, from the key `from` on, and the next key.
    pub(super) fn page(&self, from: usize, most: usize) -> (Vec<SharedSubscriber>, Option<usize>) {
        let subscribers = self.shared.subscribers.lock();
        let end = subscribers.each.capacity().min(from.saturating_add(most));
        let page = (from..end).filter_map(|key| subscribers.each.get(key)?.shared()).collect();
        (page, (end < subscribers.each.capacity()).then_some(end))
    }

    /// All subscribers that are shared have come again: other gates took them for gone.
    pub(super) fn notify_again(&self) {
        let subscribers = self.shared.subscribers.lock();
        for (_, entry) in subscribers.each.iter().filter(|(_, entry)| entry.shared > 0) {
            self.notify(&entry.site, &entry.path, &entry.record, true);
        }
    }

    /// Publishes that a subscriber of the hub at `path` has come, or has gone.
    pub(super) fn notify(&self, site: &SiteName, path: &str, record: &Record, active: bool) {
        let Some(queue) = self.shared.queue.get() else { return };
        for subscription in record.subscriptions(path) {
            if queue.try_send((site.clone(), subscription.update(active))).is_err() {
                tracing::debug!("a subscription's update is dropped");
            }
        }
    }
}

impl Entry {
    /// It as it is shared, if it is.
    fn shared(&self) -> Option<SharedSubscriber> {
        let shared =
            || (self.channel.clone(), self.record.subscriber.clone(), Some(self.record.text()));
        (self.shared > 0).then(shared)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let entry = self.registry.shared.subscribers.lock().remove(self.key);
        if let Some(entry) = entry {
            self.registry.notify(&entry.site, &entry.path, &entry.record, false);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(number: usize, topic: &str) -> Entry {
        let record = Record {
            subscriber: format!("urn:uuid:{number}"),
            topics: vec![topic.to_owned()],
            payload: None,
        };
        let channel = ChannelName::new("mercure").unwrap();
        Entry { site: SiteName::NONE, path: "/hub".into(), channel, record, shared: 0 }
    }

    fn ids(changes: &[SharedSubscriber]) -> Vec<(&str, bool)> {
        changes.iter().map(|(_, id, text)| (&**id, text.is_some())).collect()
    }

    #[test]
    fn changes_are_taken_once_in_their_order_and_only_of_subscribers_that_are_shared() {
        let registry = Registry::default();
        let alone = registry.shared.subscribers.lock().insert(entry(0, "/a"));
        registry.share();
        let keys: Vec<_> =
            (1..4).map(|at| registry.shared.subscribers.lock().insert(entry(at, "/a"))).collect();
        for key in [alone, keys[1]] {
            registry.shared.subscribers.lock().remove(key);
        }
        // One that has gone again need not have come.
        let changes = registry.changes(2).unwrap();
        assert_eq!(ids(&changes), [("urn:uuid:1", true)]);
        let changes = registry.changes(9).unwrap();
        assert_eq!(ids(&changes), [("urn:uuid:3", true), ("urn:uuid:2", false)]);
        assert!(registry.changes(9).unwrap().is_empty());
        let mut all = Vec::new();
        let mut from = Some(0);
        while let Some(place) = from {
            let page;
            (page, from) = registry.page(place, 2);
            all.extend(page);
        }
        assert_eq!(ids(&all), [("urn:uuid:1", true), ("urn:uuid:3", true)]);
    }

    #[test]
    fn the_shared_subscribers_are_bounded_and_so_are_the_changes_that_wait() {
        let registry = Registry::default();
        registry.share();
        let long = "x".repeat(1 << 20);
        let mut keys = Vec::new();
        for number in 0..5 {
            keys.push(registry.shared.subscribers.lock().insert(entry(number, &long)));
        }
        assert_eq!(registry.changes(9).unwrap().len(), 3);
        for key in keys {
            registry.shared.subscribers.lock().remove(key);
        }
        assert_eq!(registry.changes(9).unwrap().len(), 3);
        assert_eq!(registry.shared.subscribers.lock().bytes, 0);
        for number in 0..=MAX_CHANGES {
            registry.shared.subscribers.lock().insert(entry(number, "/a"));
        }
        assert_eq!(registry.changes(9), None);
        assert_eq!(registry.changes(9), Some(Vec::new()), "all of them are sent");
    }
}
