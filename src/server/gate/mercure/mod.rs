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
use crate::hub::channel::{Cursor, Take};
use crate::protocol::auth::Seconds;
use crate::protocol::http::{Headers, Reply};
use crate::protocol::mercure::{self, Parameters, Publish, Refused, Stored, Target};
use crate::server::limits::body_memory::BodyMemory;
use crate::server::telemetry::refusal::Refusal;
use registry::Registry;
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
}

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
                self.subscriptions(hub, request, (topic.as_deref(), subscriber.as_deref()))
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

    /// The answer of the subscriptions' API.
    fn subscriptions(
        &self,
        hub: &Settings,
        request: &Incoming<'_>,
        (topic, subscriber): (Option<&str>, Option<&str>),
    ) -> Reply {
        let query = Parameters::new(raw_query(request));
        // The path as it came is the topic that a token has to be for.
        if let Err(refused) = hub.hub.may_see(request.path, query, request.headers, self.seconds())
        {
            return self.refuse_mercure(&refused);
        }
        let newest = self.newest_id(hub);
        let found = self.shared.mercure.registry.find(&hub.hub, topic, subscriber);
        let body = match (subscriber, found.into_iter()) {
            (None, found) => mercure::list(request.path, &newest, found.collect()),
            (Some(_), mut found) => match found.next() {
                Some(one) => one.shown(Some(&newest)),
                None => return mercure::plain(404, "there is no such subscription"),
            },
        };
        let reply = match request.headers.get("if-none-match") == Some(newest.as_str()) {
            true => Reply::new(304, "", ""),
            false => Reply::new(200, "application/ld+json", body),
        };
        reply.with("ETag", newest)
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
