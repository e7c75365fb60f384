//! Mercure 0.x: the hub's protocol as values.
//!
//! A hub is one channel ([`CHANNEL`]). An [`Update`] is one message of it that carries its topics;
//! a [`Subscriber`] is a filter over all of them. This module reads publishers' forms and
//! subscribers' queries, checks tokens, matches topics, and writes what subscribers get. It waits
//! for nothing.
//!
//! **Bounds.** Topics are bounded in number, in length and in their sum, and so are the templates
//! of a subscription; a match takes no longer than the product of both.

mod parameters;
mod selector;
mod subscription;
mod template;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod token;
mod update;

pub use parameters::Parameters;
pub use selector::Selectors;
pub use subscription::{Record, Subscription, list};
pub use update::{Stored, Update};

use crate::hub::channel::{ChannelName, SiteName};
use crate::protocol::auth::{Rejection, Seconds, jwt::Verifier};
use crate::protocol::http::path::normalize;
use crate::protocol::http::{Headers, Reply};
use serde_json::Value;
use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use token::Claims;

/// The name of the channel that is the hub.
pub const CHANNEL: &str = "mercure";
/// The cursor before everything that is kept.
pub const EARLIEST: &str = "earliest";
/// Topics of one update, one subscription or one token.
pub const MAX_TOPICS: usize = 1000;
/// The longest topic, id or type, in bytes.
pub const MAX_TOPIC: usize = 2048;
/// All topics of one update or one subscription, in bytes.
pub const MAX_TOPIC_BYTES: usize = 32 << 10;
/// All templates of one subscription, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 4 << 10;

/// The JSON-LD context of the hub's documents.
const CONTEXT: &str = "https://mercure.rocks/";

/// Publishes an update at a site's hub and returns the response to its publisher.
pub type Publish =
    Arc<dyn Fn(SiteName, Update) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync>;

/// `[mercure]`
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The site that the hub is for.
    pub site: SiteName,
    /// Path of the hub.
    pub path: String,
    /// Checks publishers' tokens; `None` = none is valid.
    pub publisher: Option<Verifier>,
    /// Checks subscribers' tokens; `None` = none is valid.
    pub subscriber: Option<Verifier>,
    /// Clients without a token may have public updates.
    pub anonymous: bool,
    /// Origins whose pages may publish with a cookie.
    pub publish_origins: Vec<String>,
    /// Origins whose pages may read the hub's answers.
    pub cors_origins: Vec<String>,
    /// The hub shows its subscriptions to clients that may know them.
    pub subscriptions: bool,
    /// Public updates are also messages on the channels that their topics name.
    pub mirror: bool,
}

/// A request's goal below the hub's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The hub itself.
    Hub,
    /// Its subscriptions: all, those to a topic, or that of one subscriber to it.
    Subscriptions(Option<String>, Option<String>),
}

/// The reason why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// 400.
    Bad(&'static str),
    /// 401.
    Unauthorized(&'static str),
    /// 401: the token is not valid.
    Token(Rejection),
    /// 403.
    Forbidden(&'static str),
}

impl Refused {
    /// The response.
    pub fn reply(&self) -> Reply {
        let (status, words) = match self {
            Self::Bad(words) => (400, Cow::Borrowed(*words)),
            Self::Unauthorized(words) => (401, Cow::Borrowed(*words)),
            Self::Token(rejection) => (401, rejection.to_string().into()),
            Self::Forbidden(words) => (403, Cow::Borrowed(*words)),
        };
        let reply = plain(status, &words);
        if status == 401 { reply.with("WWW-Authenticate", "Bearer") } else { reply }
    }
}

/// A refusal in the hub's form.
pub fn plain(status: u16, words: &str) -> Reply {
    Reply::new(status, "text/plain; charset=utf-8", format!("{words}\n"))
}

/// A publisher whose token is valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Publisher {
    /// `None` = it may publish on every topic.
    topics: Option<Selectors>,
}

impl Publisher {
    /// One that the gate knows otherwise.
    pub const TRUSTED: Self = Self { topics: None };
}

/// A subscriber: what it wants, and what it may have.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscriber {
    /// The topics as it wrote them.
    pub topics: Vec<String>,
    /// Those, as selectors.
    pub wanted: Selectors,
    /// The topics whose private updates it may have.
    pub private: Selectors,
    /// The site's words on it.
    pub payload: Option<Value>,
    /// The first second in which its token is no longer valid.
    pub expires: Option<Seconds>,
    /// Its token.
    pub token: Option<String>,
    /// The id of the last event it got.
    pub last_event_id: Option<String>,
}

impl Settings {
    /// The channel that is the hub.
    pub fn channel(&self) -> Option<ChannelName> {
        // Its name is a good one as it stands.
        ChannelName::new(CHANNEL).ok().map(|name| name.in_site(&self.site))
    }

    /// The part of the hub that a path (as it stands in the target) names; `None` = it is not the
    /// hub's.
    pub fn target(&self, path: &str) -> Option<Target> {
        if normalize(path) == self.path {
            return Some(Target::Hub);
        }
        if !self.subscriptions {
            return None;
        }
        // The rest stays as it came: a slash in a topic is escaped.
        let rest = path.strip_prefix(&self.path)?.strip_prefix("/subscriptions")?;
        let mut parts = match rest.strip_prefix('/') {
            None if rest.is_empty() => return Some(Target::Subscriptions(None, None)),
            None => return None,
            Some(rest) => rest.split('/').map(|part| parameters::decoded(part).into_owned()),
        };
        match (parts.next(), parts.next(), parts.next()) {
            (topic, subscriber, None) => Some(Target::Subscriptions(topic, subscriber)),
            _ => None,
        }
    }

    /// Checks a publisher's token. Nothing of its body is needed for that.
    pub fn publisher(
        &self,
        query: Parameters<'_>,
        headers: &dyn Headers,
        now: Seconds,
    ) -> Result<Publisher, Refused> {
        let token = token::find(query, headers)?;
        let token = token.ok_or(Refused::Unauthorized("a publisher's token is wanted here"))?;
        if token.by_cookie && !token::may_use_cookie(headers, &self.publish_origins) {
            return Err(Refused::Unauthorized("this origin may not publish with a cookie"));
        }
        let (claims, _) = verified(self.publisher.as_ref(), &token.text, now)?;
        match claims.publish {
            None => Err(Refused::Unauthorized("the token is for no publisher")),
            topics => Ok(Publisher { topics }),
        }
    }

    /// Reads a publisher's form; `made` is the id of an update that has none.
    pub fn update(
        &self,
        publisher: &Publisher,
        content_type: Option<&str>,
        body: &[u8],
        made: String,
    ) -> Result<Update, Refused> {
        let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default();
        let is_form = essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded");
        // Bytes outside of escapes that are no text would be no form.
        let text = std::str::from_utf8(body).map_err(|_| Refused::Bad("the form is no text"))?;
        let form = Parameters::new(if is_form { text } else { "" });
        let update = Update::read(form, made, &self.path)?;
        let may = |topic: &String| publisher.topics.as_ref().is_none_or(|all| all.select(topic));
        match update.topics.iter().all(may) {
            true => Ok(update),
            false => Err(Refused::Unauthorized("the token is not for all of these topics")),
        }
    }

    /// Reads a subscriber's request.
    pub fn subscriber(
        &self,
        query: Parameters<'_>,
        headers: &dyn Headers,
        now: Seconds,
    ) -> Result<Subscriber, Refused> {
        let (token, claims, expires) = self.known(query, headers, now)?;
        let topics: Vec<String> =
            query.values("topic").take(MAX_TOPICS + 1).map(Into::into).collect();
        update::check_topics(&topics)?;
        let wanted =
            Selectors::new(&topics).map_err(|_| Refused::Bad("there are too many topics"))?;
        if wanted.template_bytes() > MAX_TEMPLATE_BYTES {
            return Err(Refused::Bad("the templates are too long"));
        }
        let Claims { subscribe: private, payload, .. } = claims;
        let last_event_id = last_event_id(query, headers);
        Ok(Subscriber { topics, wanted, private, payload, expires, token, last_event_id })
    }

    /// Checks that a client may see `uri`, a part of the subscriptions' API.
    pub fn may_see(
        &self,
        uri: &str,
        query: Parameters<'_>,
        headers: &dyn Headers,
        now: Seconds,
    ) -> Result<(), Refused> {
        let (token, claims, _) = self.known(query, headers, now)?;
        match token.is_some() && claims.subscribe.select(uri) {
            true => Ok(()),
            false => Err(Refused::Unauthorized("the token is not for these subscriptions")),
        }
    }

    /// A client's token and its claims; none where the hub has anonymous subscribers.
    fn known(
        &self,
        query: Parameters<'_>,
        headers: &dyn Headers,
        now: Seconds,
    ) -> Result<(Option<String>, Claims, Option<Seconds>), Refused> {
        match token::find(query, headers)? {
            Some(token) => {
                let (claims, expires) = verified(self.subscriber.as_ref(), &token.text, now)?;
                Ok((Some(token.text.into_owned()), claims, expires))
            }
            None if self.anonymous => Ok((None, Claims::default(), None)),
            None => Err(Refused::Unauthorized("a subscriber's token is wanted here")),
        }
    }
}

impl Subscriber {
    /// True if it gets the update.
    pub fn gets(&self, update: &Stored<'_>) -> bool {
        update.topics().any(|topic| self.wanted.select(topic))
            && (!update.is_private() || update.topics().any(|topic| self.private.select(topic)))
    }

    /// Bytes of memory that it takes beside itself.
    pub fn cost(&self) -> usize {
        let topics: usize = self.topics.iter().map(|text| text.len() + size_of::<String>()).sum();
        let payload = self.payload.as_ref().map_or(0, |payload| payload.to_string().len());
        let token = self.token.as_ref().map_or(0, String::len);
        topics + self.wanted.cost() + self.private.cost() + 2 * payload + token
    }
}

fn verified(
    verifier: Option<&Verifier>,
    token: &str,
    now: Seconds,
) -> Result<(Claims, Option<Seconds>), Refused> {
    let verifier = verifier.ok_or(Refused::Unauthorized("no token is valid here"))?;
    let (claims, expires) = verifier.verify(token, now).map_err(Refused::Token)?;
    Ok((Claims::of(&claims)?, expires))
}

/// The cursor of a subscriber: the header comes before the query, and there the protocol's name
/// before those of clients.
fn last_event_id(query: Parameters<'_>, headers: &dyn Headers) -> Option<String> {
    const NAMES: [&str; 4] = ["lastEventID", "Last-Event-ID", "lastEventId", "last_event_id"];
    let header = headers.get("last-event-id").map(str::to_owned);
    let named = || {
        let mut named = NAMES.iter().filter_map(|name| query.first(name));
        named.find(|id| !id.is_empty()).map(Cow::into_owned)
    };
    header.filter(|id| !id.is_empty()).or_else(named)
}

/// The id of an update whose publisher gives none: a UUID of version 7 (RFC 9562, section 5.7).
pub fn made_id(millis: u64, random: u128) -> String {
    let time = u128::from(millis) << 80;
    let random = random & ((1 << 80) - 1);
    urn(time | random, 7)
}

/// The name of a subscriber: a UUID of version 4.
pub fn subscriber_id(random: u128) -> String {
    urn(random, 4)
}

fn urn(bits: u128, version: u128) -> String {
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | version << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    format!("urn:uuid:{}", parts.join("-"))
}
