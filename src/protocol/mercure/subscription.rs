//! Subscriptions as the hub shows them: in its API, and in the private updates that say that one
//! has begun or ended.

use super::parameters::encoded;
use super::{CONTEXT, Update};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One topic of one subscriber.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Subscription {
    #[serde(rename = "@context", skip_serializing_if = "Option::is_none")]
    context: Option<&'static str>,
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The subscriber, a URN.
    pub subscriber: String,
    /// The selector as the subscriber wrote it.
    pub topic: String,
    active: bool,
    #[serde(rename = "lastEventID", skip_serializing_if = "Option::is_none")]
    last_event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Value>,
}

/// A subscriber with its topics, as the gates of one hub share it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The subscriber, a URN.
    pub subscriber: String,
    /// Its selectors as it wrote them.
    pub topics: Vec<String>,
    /// The payload of its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
}

impl Record {
    /// It as JSON.
    pub fn text(&self) -> String {
        // Only maps whose keys are no strings fail to serialize.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads [`Record::text`].
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Its subscriptions at the hub at `path`.
    pub fn subscriptions(&self, path: &str) -> impl Iterator<Item = Subscription> {
        self.topics.iter().map(move |topic| {
            let subscriber = self.subscriber.clone();
            let payload = self.payload.clone();
            Subscription::new(path, subscriber, topic.clone(), payload)
        })
    }
}

/// The list of subscriptions.
#[derive(Debug, Serialize)]
struct List<'a> {
    #[serde(rename = "@context")]
    context: &'static str,
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "lastEventID")]
    last_event_id: &'a str,
    subscriptions: Vec<Subscription>,
}

impl Subscription {
    /// That of `subscriber` to `topic` at the hub at `path`.
    pub fn new(path: &str, subscriber: String, topic: String, payload: Option<Value>) -> Self {
        let id = format!("{path}/subscriptions/{}/{}", encoded(&topic), encoded(&subscriber));
        Self {
            context: None,
            id,
            kind: "Subscription",
            subscriber,
            topic,
            active: true,
            last_event_id: None,
            payload,
        }
    }

    /// The private update that says that it has begun, or ended. Its topic and its id are those of
    /// the subscription.
    pub fn update(mut self, active: bool) -> Update {
        self.active = active;
        let id = self.id.clone();
        let data = self.shown(None);
        let kind = String::new();
        let retry = 0;
        Update { topics: vec![id.clone()], data, private: true, id, kind, retry }
    }

    /// It as a document of its own.
    pub fn shown(mut self, last_event_id: Option<&str>) -> String {
        self.context = Some(CONTEXT);
        self.last_event_id = last_event_id.map(str::to_owned);
        // Only maps whose keys are no strings fail to serialize.
        serde_json::to_string_pretty(&self).unwrap_or_default()
    }
}

/// The document of several; `id` is the URI that was asked for.
pub fn list(id: &str, last_event_id: &str, subscriptions: Vec<Subscription>) -> String {
    let list = List { context: CONTEXT, id, kind: "Subscriptions", last_event_id, subscriptions };
    serde_json::to_string(&list).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn subscription() -> Subscription {
        let payload = Some(json!({"name": "ann"}));
        let topic = "https://a.example/b c{id}".into();
        Subscription::new("/.well-known/mercure", "urn:uuid:1".into(), topic, payload)
    }

    #[test]
    fn an_update_bears_its_subscription() {
        let update = subscription().update(false);
        let id = "/.well-known/mercure/subscriptions/https%3A%2F%2Fa.example%2Fb+c%7Bid%7D/urn%3Auuid%3A1";
        assert_eq!((&*update.id, &update.topics), (id, &vec![id.to_owned()]));
        assert!(update.private);
        let data: Value = serde_json::from_str(&update.data).unwrap();
        let expected = json!({
            "@context": "https://mercure.rocks/", "id": id, "type": "Subscription",
            "subscriber": "urn:uuid:1", "topic": "https://a.example/b c{id}", "active": false,
            "payload": {"name": "ann"},
        });
        assert_eq!(data, expected);
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_gives_a_subscription_for_each_topic() {
        let topics = vec!["/a\n".to_owned(), "/b{id}".to_owned()];
        for payload in [None, Some(json!({"name": "\u{e9}"}))] {
            let (subscriber, topics) = ("urn:uuid:1".to_owned(), topics.clone());
            let record = Record { subscriber, topics, payload };
            assert_eq!(Record::read(&record.text()), Some(record.clone()));
            let each: Vec<_> = record.subscriptions("/hub").collect();
            assert_eq!(each.iter().map(|one| &one.topic).collect::<Vec<_>>(), ["/a\n", "/b{id}"]);
        }
        assert_eq!(Record::read("{}"), None);
    }

    #[test]
    fn a_list_has_the_newest_id() {
        let list: Value =
            serde_json::from_str(&list("/x", "earliest", vec![subscription()])).unwrap();
        assert_eq!((&list["id"], &list["type"]), (&json!("/x"), &json!("Subscriptions")));
        assert_eq!(list["lastEventID"], "earliest");
        assert_eq!(list["subscriptions"][0]["active"], true);
        assert_eq!(list["subscriptions"][0].get("@context"), None);
    }
}
