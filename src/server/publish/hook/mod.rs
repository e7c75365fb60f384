//! The hook: the HTTP API to publish, inspect and delete channels.
//!
//! | request | response |
//! |---|---|
//! | `POST /channels/{channel}` | publishes the body, verbatim, with its content type |
//! | `POST /publish` | publishes the messages of a JSON body or a form; several are all or none |
//! | `GET /channels?after=&limit=` | the channels in the order of their names, a page at a time |
//! | `GET /channels/{channel}` | the state of a channel |
//! | `GET /channels/{channel}/messages?cursor=` | its history after the cursor, or all of it |
//! | `GET /channels/{channel}/presence` | the users on it |
//! | `DELETE /channels/{channel}` | forgets it |
//!
//! Channel names stand percent-encoded in paths, their slashes too. The hook maps a request value
//! to a reply value; the internal listener reads and writes them, and authorizes the requests.

pub(super) mod answer;
pub(super) mod posts;
#[cfg(test)]
mod tests;

use super::idempotency::{Conflict, Id, IdempotencyCache, MAX_KEY_LENGTH, TTL, print};
use super::payload::payload;
use super::{Idempotency, PublishError, Publisher, Source};
use crate::hub::channel::ChannelName;
use crate::protocol::http::query::{Query, decode_strictly};
use crate::protocol::http::{Endpoint, Reply, Request};
use async_trait::async_trait;
use http::Method;
use posts::{PublishRequest, bad_name};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Renders the history of a channel after a cursor, or all of it without one; `None` if there is no
/// such channel. The native dialect decides on its format.
pub type History = Arc<dyn Fn(&ChannelName, Option<&str>) -> Option<Reply> + Send + Sync>;

/// Renders the users on a channel that has presence.
pub type Roster =
    Arc<dyn Fn(ChannelName) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync>;

/// See the [module](self).
pub struct Hook {
    publisher: Publisher,
    history: History,
    roster: Option<Roster>,
    answers: IdempotencyCache,
}

/// Time that a generated key is known: long enough to retry after a lost response.
const MADE_KEPT: Duration = Duration::from_secs(30);

/// The target of a path.
enum Target {
    Publish,
    Channels,
    Channel(ChannelName),
    Messages(ChannelName),
    Presence(ChannelName),
}

impl Hook {
    /// Channels on one page of the list, and the upper bound of a requested page.
    const PAGE: usize = 100;
    const MAX_PAGE_LENGTH: usize = 1_000;

    /// A hook that publishes through `publisher`; `answers` are the stored replies.
    pub fn new(publisher: Publisher, history: History, answers: IdempotencyCache) -> Self {
        Self { publisher, history, roster: None, answers }
    }

    /// The same with lists of users from `roster`.
    pub fn listing(self, roster: Roster) -> Self {
        Self { roster: Some(roster), ..self }
    }

    async fn presence(&self, channel: ChannelName) -> Reply {
        let presence = self.publisher.hub().presence();
        match &self.roster {
            Some(roster) if presence.may_list(&channel) => roster(channel).await,
            _ => {
                let error = format!("there is no presence on \"{channel}\"");
                Reply::error(404, error, "set presence = true on its [[channel]]")
            }
        }
    }

    async fn write(&self, request: &Request, work: impl Future<Output = Reply>) -> Reply {
        let Some(key) = request.headers.get("idempotency-key") else { return work.await };
        let key = key.to_str().unwrap_or_default();
        if key.is_empty() || key.len() > MAX_KEY_LENGTH {
            let hint = format!("send 1 to {MAX_KEY_LENGTH} visible ASCII characters, or none");
            return Reply::error(400, "the Idempotency-Key cannot be used", hint);
        }
        let id =
            Id { method: request.method.clone(), path: request.path.clone(), key: key.to_owned() };
        let print = print(content_type(request), &request.body);
        let done = self.answers.once(id, print, self.publisher.now(), work).await;
        done.unwrap_or_else(|Conflict| {
            let error = "this Idempotency-Key was used with another body";
            Reply::error(422, error, "send a new key with a new message")
        })
    }

    async fn publish(&self, request: &Request, posts: Result<PublishRequest, Reply>) -> Reply {
        let PublishRequest { posts, many } = match posts {
            Ok(posts) => posts,
            Err(reply) => return reply,
        };
        if !self.publisher.is_shared() {
            return match self.publisher.publish(posts, Source::Hook).await {
                Ok(receipts) => answer::published(&receipts, many),
                Err(error) => error.into(),
            };
        }
        // The outcome of a publish may never be known; with a key a retry does no harm.
        let given = request.headers.get("idempotency-key").and_then(|key| key.to_str().ok());
        let made = || format!("{:032x}", fastrand::u128(..));
        let key = given.map_or_else(made, str::to_owned);
        let kept = if given.is_some() { TTL } else { MADE_KEPT };
        let once = Idempotency { key: &format!("{} {key}", request.path), kept };
        match self.publisher.publish_once(posts, Source::Hook, Some(once)).await {
            Ok(receipts) => answer::published(&receipts, many),
            Err(error @ PublishError::Unknown(_)) => {
                Reply::from(error).with("Idempotency-Key", key)
            }
            Err(error) => error.into(),
        }
    }

    async fn forget(&self, channel: &ChannelName) -> Reply {
        match self.publisher.forget(channel).await {
            Ok(Some(released)) => answer::forgotten(channel, released),
            Ok(None) => no_channel(channel),
            Err(error) => error.into(),
        }
    }

    async fn info(&self, channel: &ChannelName) -> Reply {
        self.publisher.refresh(channel).await;
        let info = self.publisher.hub().info(channel, self.publisher.now());
        info.map_or_else(|| no_channel(channel), |info| answer::info(&info))
    }

    fn list(&self, query: &Query) -> Reply {
        let limit = match query.text("limit") {
            None => Self::PAGE,
            Some(text) => match text.parse() {
                Ok(limit @ 1..=Self::MAX_PAGE_LENGTH) => limit,
                _ => {
                    let hint = format!("ask for 1 to {}", Self::MAX_PAGE_LENGTH);
                    return Reply::error(400, "\"limit\" is no number of channels", hint);
                }
            },
        };
        let after = query.text("after");
        let (infos, more) =
            self.publisher.hub().list(after.as_deref(), limit, self.publisher.now());
        answer::list(&infos, more)
    }

    async fn messages(&self, channel: &ChannelName, query: &Query<'_>) -> Reply {
        self.publisher.refresh(channel).await;
        let cursor = query.text("cursor").filter(|cursor| !cursor.is_empty());
        (self.history)(channel, cursor.as_deref()).unwrap_or_else(|| no_channel(channel))
    }
}

#[async_trait]
impl Endpoint for Hook {
    fn owns(&self, path: &str) -> bool {
        matches!(path, "/publish" | "/channels") || path.starts_with("/channels/")
    }

    /// Around a message there is at most its escaping (`\u0001`, `%01`) and its channel's name;
    /// a batch of short messages always has some room.
    fn longest_body(&self, path: &str) -> u64 {
        let message = self.publisher.longest_message();
        match path {
            "/publish" => message.saturating_mul(6).saturating_add(1 << 20),
            _ => message,
        }
    }

    async fn answer(&self, request: &Request) -> Reply {
        let target = match Target::of(&request.path) {
            Ok(target) => target,
            Err(reply) => return reply,
        };
        let query = || Query::parse(&request.query);
        match (target, &request.method) {
            (Target::Publish, &Method::POST) => {
                let read = || posts::read(content_type(request), &request.body);
                self.write(request, async { self.publish(request, read()).await }).await
            }
            (Target::Channel(channel), &Method::POST) => {
                self.write(request, async { self.publish(request, one(channel, request)).await })
                    .await
            }
            (Target::Channel(channel), &Method::DELETE) => {
                self.write(request, self.forget(&channel)).await
            }
            (Target::Channels, &Method::GET) => self.list(&query()),
            (Target::Channel(channel), &Method::GET) => self.info(&channel).await,
            (Target::Messages(channel), &Method::GET) => self.messages(&channel, &query()).await,
            (Target::Presence(channel), &Method::GET) => self.presence(channel).await,
            (target, _) => Reply::wrong_method(&request.path, target.methods()),
        }
    }
}

/// The one message that is the whole body of a request.
fn one(channel: ChannelName, request: &Request) -> Result<PublishRequest, Reply> {
    let payload = payload(content_type(request), request.body.clone())?;
    Ok(PublishRequest { posts: vec![(channel, payload)], many: false })
}

/// The content type of a request; one with foreign bytes in it stands for itself as U+FFFD, which
/// no content type may have.
fn content_type(request: &Request) -> Option<&str> {
    let value = request.headers.get(http::header::CONTENT_TYPE)?;
    Some(std::str::from_utf8(value.as_bytes()).unwrap_or("\u{fffd}"))
}

fn no_channel(channel: &ChannelName) -> Reply {
    let error = format!("there is no channel \"{channel}\"");
    Reply::error(404, error, "its first poll or publish creates it")
}

impl Target {
    /// Its methods, in the form of an `Allow` header.
    fn methods(&self) -> &'static str {
        match self {
            Self::Publish => "POST",
            Self::Channel(_) => "GET, HEAD, POST, DELETE",
            Self::Channels | Self::Messages(_) | Self::Presence(_) => "GET, HEAD",
        }
    }

    fn of(path: &str) -> Result<Self, Reply> {
        let Some(rest) = path.strip_prefix("/channels/") else {
            return Ok(if path == "/publish" { Self::Publish } else { Self::Channels });
        };
        match rest.split_once('/') {
            None => Ok(Self::Channel(channel(rest)?)),
            Some((name, "messages")) => Ok(Self::Messages(channel(name)?)),
            Some((name, "presence")) => Ok(Self::Presence(channel(name)?)),
            Some(_) => {
                let hint = "write a slash in a channel name as %2F";
                Err(Reply::error(404, format!("there is no {path}"), hint))
            }
        }
    }
}

/// The channel that a segment of a path names.
fn channel(segment: &str) -> Result<ChannelName, Reply> {
    let Some(name) = decode_strictly(segment) else {
        let hint = "write a % itself as %25";
        return Err(Reply::error(400, "a % in the path is not followed by two hex digits", hint));
    };
    ChannelName::from_bytes(&name).map_err(bad_name)
}
