//! The Mercure hub on the public listener.
//!
//! | request | response |
//! |---|---|
//! | `GET` the hub | a stream of the updates that the client's topics select |
//! | `POST` the hub | publishes an update, with a publisher's token |
//! | `GET` its `/subscriptions[/topic[/subscriber]]` | who is subscribed, where the config shows it |
//!
//! The hub is one channel. A subscriber is a stream on it with a filter ([`Updates`]): an update
//! that is not for it moves its cursor and nothing else. What a subscription takes of memory beyond
//! a stream's usual is bounded in sum.

mod publish;
mod registry;
mod subscribe;
mod updates;

pub(super) use publish::{hub_of, publish};
pub(super) use updates::Updates;

use super::poll::admission::{Admission, Incoming};
use super::poll::replies::{refusal, unstored};
use super::{Decision, Gate, stream};
use crate::hub::Subscription as ChannelSubscription;
use crate::hub::channel::{ChannelName, Cursor, Take};
use crate::protocol::auth::Seconds;
use crate::protocol::http::{Headers, Reply};
use crate::protocol::mercure::{self, Parameters, Publish, Record, Refused, Stored, Target};
use crate::server::limits::body_memory::BodyMemory;
use crate::server::telemetry::refusal::Refusal;
use registry::Registry;
pub use registry::SharedSubscriber;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

/// The hub's settings as the public side needs them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The protocol's.
    pub hub: Arc<mercure::Settings>,
    /// The longest message, in bytes.
    pub max_message: u64,
}

/// What all requests to the hub share.
#[derive(Default)]
pub(super) struct Shared {
    publish: OnceLock<Publish>,
    /// The memory of all subscriptions.
    memory: Arc<BodyMemory>,
    registry: Registry,
    elsewhere: OnceLock<SubscribersElsewhere>,
}

/// Reads the records of the subscribers of a hub's channel at other gates; the error is a reason.
pub type SubscribersElsewhere = Arc<
    dyn Fn(ChannelName) -> Pin<Box<dyn Future<Output = Result<Vec<String>, String>> + Send>>
        + Send
        + Sync,
>;

/// The headers that a page of another origin may read, and those that it may send.
const EXPOSED: &str = "ETag, Last-Event-ID, WWW-Authenticate";
const ALLOWED: &str = "authorization, cache-control, content-type, last-event-id";
const METHODS: &str = "GET, HEAD, POST, OPTIONS";

impl Settings {
    /// True if a request for `path` (as it stands in the target) is for the hub.
    pub(super) fn owns(&self, path: &str) -> bool {
        self.hub.target(path).is_some()
    }

    /// Adds the CORS headers.
    pub(super) fn cross_origin(&self, reply: Reply, headers: &dyn Headers) -> Reply {
        let listed = &self.hub.cors_origins;
        if listed.is_empty() {
            return reply;
        }
        let reply = reply.with("Vary", "Origin");
        let Some(origin) = headers.get("origin") else { return reply };
        let reply = match listed.iter().find(|one| *one == origin || *one == "*") {
            None => return reply,
            // Any page may read it, but none of them with the user's credentials.
            Some(any) if any == "*" => reply.with("Access-Control-Allow-Origin", "*"),
            Some(_) => reply
                .with("Access-Control-Allow-Origin", origin.to_owned())
                .with("Access-Control-Allow-Credentials", "true"),
        };
        reply.with("Access-Control-Expose-Headers", EXPOSED)
    }

    fn preflight(&self, headers: &dyn Headers) -> Reply {
        let reply = Reply::new(204, "", "").with("Allow", METHODS);
        let reply = self.finished(reply, headers);
        let listed = reply.headers.iter().any(|(name, _)| name == "Access-Control-Allow-Origin");
        match listed {
            false => reply,
            true => reply
                .with("Access-Control-Allow-Methods", METHODS)
                .with("Access-Control-Allow-Headers", ALLOWED)
                .with("Access-Control-Max-Age", "600"),
        }
    }

    /// Adds the headers of every answer.
    fn finished(&self, reply: Reply, headers: &dyn Headers) -> Reply {
        self.cross_origin(unstored(reply), headers)
    }
}

impl Gate {
    /// Publishes the updates of publishers through `publish` from now on.
    pub fn publish_updates(&self, publish: Publish) {
        // A second call changes nothing: there is one hub.
        let _ = self.shared.mercure.publish.set(publish);
    }

    /// Decides on a request for the hub; `None` = it is for something else.
    pub(super) fn mercure(
        &self,
        settings: &super::Settings,
        request: &Incoming<'_>,
    ) -> Option<Decision> {
        let hub = settings.mercure.as_ref()?;
        let target = hub.hub.target(request.path)?;
        let reply = match (request.method, target) {
            ("GET" | "HEAD", Target::Hub) => return Some(self.subscribe(settings, hub, request)),
            ("GET" | "HEAD", Target::Subscriptions(topic, subscriber)) => {
                return Some(self.subscriptions(hub, request, (topic, subscriber)));
            }
            ("OPTIONS", _) => hub.preflight(request.headers),
            (_, target) => {
                self.refused(Refusal::Method);
                let allow = if target == Target::Hub { METHODS } else { "GET, HEAD, OPTIONS" };
                Reply::wrong_method(request.path, allow)
            }
        };
        Some(Decision::Reply(hub.finished(reply, request.headers), None))
    }

    /// Counts a refusal of the hub's, and returns the response.
    fn refuse_mercure(&self, refused: &Refused) -> Reply {
        self.refused(match refused {
            Refused::Bad(_) => Refusal::BadRequest,
            Refused::Unauthorized(_) | Refused::Token(_) | Refused::Forbidden(_) => {
                Refusal::Rejection
            }
        });
        refused.reply()
    }

    /// Whole seconds since 1970.
    fn seconds(&self) -> Seconds {
        (self.shared.clock)().0 / 1_000_000
    }

    /// The answer of the subscriptions' API; with several gates, once the others' are read.
    fn subscriptions(
        &self,
        hub: &Settings,
        request: &Incoming<'_>,
        (topic, subscriber): (Option<String>, Option<String>),
    ) -> Decision {
        let query = Parameters::new(raw_query(request));
        // The path as it came is the topic that a token has to be for.
        if let Err(refused) = hub.hub.may_see(request.path, query, request.headers, self.seconds())
        {
            let reply = self.refuse_mercure(&refused);
            return Decision::Reply(hub.finished(reply, request.headers), None);
        }
        let known = request.headers.get("if-none-match").map(str::to_owned);
        let path = request.path.to_owned();
        let finish = hub.finished(Reply::new(200, "", ""), request.headers).headers;
        let gate = self.clone();
        let channel = hub_channel(hub);
        let hub = hub.clone();
        let reply = move |elsewhere: &[Record]| {
            let wanted = (topic.as_deref(), subscriber.as_deref());
            let mut reply = gate.listed(&hub, &path, known.as_deref(), wanted, elsewhere);
            reply.headers.extend(finish);
            reply
        };
        let elsewhere = self.shared.mercure.elsewhere.get();
        let Some((elsewhere, channel)) = elsewhere.zip(channel) else {
            return Decision::Reply(reply(&[]), None);
        };
        let reading = elsewhere(channel);
        Decision::Later(Box::pin(async move {
            let read = reading.await.unwrap_or_else(|reason| {
                tracing::debug!(reason, "the subscriptions of other gates are not known");
                Vec::new()
            });
            let records: Vec<_> = read.iter().filter_map(|text| Record::read(text)).collect();
            reply(&records)
        }))
    }

    /// The list of subscriptions, or one of them.
    fn listed(
        &self,
        hub: &Settings,
        path: &str,
        known: Option<&str>,
        (topic, subscriber): (Option<&str>, Option<&str>),
        elsewhere: &[Record],
    ) -> Reply {
        let newest = self.newest_id(hub);
        let found = self.shared.mercure.registry.find(&hub.hub, elsewhere, topic, subscriber);
        let body = match (subscriber, found.into_iter()) {
            (None, found) => mercure::list(path, &newest, found.collect()),
            (Some(_), mut found) => match found.next() {
                Some(one) => one.shown(Some(&newest)),
                None => return mercure::plain(404, "there is no such subscription"),
            },
        };
        let reply = match known == Some(newest.as_str()) {
            true => Reply::new(304, "", ""),
            false => Reply::new(200, "application/ld+json", body),
        };
        reply.with("ETag", newest)
    }

    /// Lists the subscribers of other gates, too, which `elsewhere` reads, and shares the ones here with
    /// them: from now on changes wait to be taken.
    pub fn share_subscribers(&self, elsewhere: SubscribersElsewhere) {
        self.shared.mercure.registry.share();
        // Set once, at the start.
        let _ = self.shared.mercure.elsewhere.set(elsewhere);
    }

    /// True if a hub lists its subscribers.
    pub fn lists_subscribers(&self) -> bool {
        let settings = self.settings();
        let lists = |settings: &super::Settings| {
            settings.mercure.as_ref().is_some_and(|hub| hub.hub.subscriptions)
        };
        let mut sites = settings.sites.iter().flat_map(|sites| sites.all());
        lists(&settings) || sites.any(|site| lists(site))
    }

    /// At most `most` changes of the subscribers here since the last call; `None` = some are lost.
    pub fn subscriber_changes(&self, most: usize) -> Option<Vec<SharedSubscriber>> {
        self.shared.mercure.registry.changes(most)
    }

    /// At most `most` of the subscribers here, from the place `from` on, and the next place.
    pub fn subscriber_page(
        &self,
        from: usize,
        most: usize,
    ) -> (Vec<SharedSubscriber>, Option<usize>) {
        self.shared.mercure.registry.page(from, most)
    }

    /// Publishes that the subscribers of a gate that is dead have gone.
    pub fn subscribers_gone(&self, channel: &ChannelName, records: &[String]) {
        self.shared.mercure.begin_updates();
        let settings = self.settings();
        let sites = settings.sites.iter().flat_map(|sites| sites.all());
        let hubs = [&settings].into_iter().chain(sites).filter_map(|one| one.mercure.as_ref());
        for hub in hubs.filter(|hub| hub_channel(hub).as_ref() == Some(channel)) {
            for record in records.iter().filter_map(|text| Record::read(text)) {
                let (site, path) = (&hub.hub.site, &hub.hub.path);
                self.shared.mercure.registry.notify(site, path, &record, false);
            }
        }
    }

    /// Publishes that the subscribers here have come, as they were taken for gone.
    pub fn subscribers_again(&self) {
        self.shared.mercure.registry.notify_again();
    }

    /// The id of the newest update.
    fn newest_id(&self, hub: &Settings) -> String {
        let newest = hub.hub.channel().and_then(|channel| {
            let subscription = ChannelSubscription { channel, cursor: Cursor::Latest };
            let now = (self.shared.clock)();
            let update = self.shared.hub.read(&subscription, Take::Newest, now)?;
            let message = update.found.messages.last()?.clone();
            Stored::of(&message.payload).map(|stored| stored.id().to_owned())
        });
        newest.unwrap_or_else(|| mercure::EARLIEST.to_owned())
    }
}

fn hub_channel(hub: &Settings) -> Option<ChannelName> {
    hub.hub.channel()
}

/// The answer to a poll on the hub's channel: private updates pass through it.
pub(super) fn not_for_polls(settings: &super::Settings, admission: &Admission) -> Option<Reply> {
    settings.mercure.as_ref()?;
    let mut channels = admission.poll.subscriptions.iter().map(|one| &*one.channel);
    channels.any(|name| name == mercure::CHANNEL).then(|| {
        let error = format!("\"{}\" is the Mercure hub's channel", mercure::CHANNEL);
        refusal(&admission.rule, 404, &error, "subscribe at the hub (mercure.path)")
    })
}

/// The text behind the `?`.
fn raw_query<'a>(request: &Incoming<'a>) -> &'a str {
    request.target.split_once('?').map_or("", |(_, query)| query)
}

/// The answer to a subscriber that finds no room: browsers take an error for the end of a stream.
fn busy(why: &str) -> Reply {
    stream::busy(why)
}
