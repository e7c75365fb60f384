//! The Pusher protocol's REST requests, which the site's server library sends.
//!
//! | request | response |
//! |---|---|
//! | `POST /apps/{id}/events` | publishes an event on up to 100 channels |
//! | `POST /apps/{id}/batch_events` | up to 10 events |
//! | `GET /apps/{id}/channels` | the channels that have subscribers |
//! | `GET /apps/{id}/channels/{channel}` | one of them |
//! | `GET /apps/{id}/channels/{channel}/users` | who is on a presence channel |
//! | `GET /apps/{id}/connections` | how many connections the app has |
//! | `POST /apps/{id}/users/{user}/terminate_connections` | ends a user's connections |
//! | `GET /up` | 200 while the gate runs |
//!
//! Each but the last is signed with the app's secret, in place of the listener's token. The app's id
//! names its site, too. Errors are
//! words, since libraries put the body into an exception.

use crate::hub::channel::{ChannelName, Payload};
use crate::protocol::http::{Endpoint, Reply, Request};
use crate::protocol::pusher::channel::{Kind, USER_PREFIX, is_cache, is_name};
use crate::protocol::pusher::event::{Event, Mark, TERMINATE};
use crate::protocol::pusher::rest::{self, Info, Refusal, Trigger};
use crate::protocol::pusher::{App, event};
use async_trait::async_trait;
use http::Method;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The parts of the gate that the requests are about.
#[async_trait]
pub trait Channels: Send + Sync {
    /// True if there are apps.
    fn has_apps(&self) -> bool;

    /// The app of that id.
    fn app(&self, id: &str) -> Option<Arc<App>>;

    /// The longest data of an event of any app, in bytes.
    fn max_event(&self) -> usize;

    /// The time, in seconds since 1970.
    fn now(&self) -> u64;

    /// Publishes all of these messages, or none; the error is the response.
    async fn publish(&self, posts: Vec<(ChannelName, Payload)>) -> Result<(), Reply>;

    /// How many connections subscribe to a channel.
    fn subscriptions(&self, channel: &ChannelName) -> usize;

    /// The channels with subscribers of the same site whose names begin with that of `beginning`.
    fn occupied(&self, beginning: &ChannelName) -> Vec<(ChannelName, usize)>;

    /// Who is on a presence channel.
    async fn users(&self, channel: &ChannelName) -> Result<Vec<String>, String>;

    /// The messages that a channel still has, oldest first.
    fn messages(&self, channel: &ChannelName) -> Vec<Payload>;

    /// How many connections an app has.
    fn connections(&self, app: &App) -> usize;
}

/// See the [module](self).
pub struct Rest {
    channels: Box<dyn Channels>,
}

/// What a path behind the app's id is for.
enum Target {
    Events,
    Batch,
    List,
    One(String),
    Users(String),
    Connections,
    Terminate(String),
}

impl Target {
    fn of(path: &str) -> Option<Self> {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let parts: Vec<&str> = path.split('/').collect();
        Some(match parts.as_slice() {
            ["events"] => Self::Events,
            ["batch_events"] => Self::Batch,
            ["channels"] => Self::List,
            ["channels", name] => Self::One(decode(name)),
            ["channels", name, "users"] => Self::Users(decode(name)),
            ["connections"] => Self::Connections,
            ["users", user, "terminate_connections"] => Self::Terminate(decode(user)),
            _ => return None,
        })
    }

    fn method(&self) -> &'static str {
        match self {
            Self::Events | Self::Batch | Self::Terminate(_) => "POST",
            Self::List | Self::One(_) | Self::Users(_) | Self::Connections => "GET, HEAD",
        }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        let text = format!("{}\n", refusal.error);
        Self::new(refusal.status, "text/plain; charset=UTF-8", text)
    }
}

fn refusal(status: u16, error: &'static str) -> Reply {
    Refusal::new(status, error).into()
}

impl Rest {
    /// The requests about `channels`.
    pub fn new(channels: Box<dyn Channels>) -> Self {
        Self { channels }
    }

    async fn reply(&self, request: &Request) -> Result<Reply, Reply> {
        let below = request.path.strip_prefix("/apps/").unwrap_or_default();
        let (id, path) = below.split_once('/').unwrap_or((below, ""));
        let app = self.channels.app(id).ok_or_else(|| refusal(404, "no app has this id"))?;
        let target = Target::of(path).ok_or_else(|| refusal(404, "there is no such path"))?;
        if !target.method().split(", ").any(|method| method == request.method.as_str()) {
            return Err(Reply::wrong_method(&request.path, target.method()));
        }
        rest::authorize(&app, request, self.channels.now())?;
        let info = || Info::of(rest::parameter(request, "info").as_deref());
        match target {
            Target::Events => {
                let trigger = rest::events(&request.body, app.max_event)?;
                let attributes = self.attributes(&app, &trigger).await?;
                self.publish(&app, &[trigger]).await?;
                Ok(Reply::json(
                    200,
                    &match attributes {
                        Some(channels) => json!({ "channels": channels }),
                        None => json!({}),
                    },
                ))
            }
            Target::Batch => {
                let triggers = rest::batch(&request.body, app.max_event)?;
                let mut attributes = Vec::new();
                for trigger in &triggers {
                    // A batch reports each event's only channel.
                    let of = self.attributes(&app, trigger).await?.unwrap_or_default();
                    attributes.push(of.into_iter().next().map_or(json!({}), |(_, of)| of));
                }
                self.publish(&app, &triggers).await?;
                let any = triggers.iter().any(|trigger| trigger.info.is_some());
                Ok(Reply::json(200, &if any { json!({ "batch": attributes }) } else { json!({}) }))
            }
            Target::List => self.list(&app, request, info()).await,
            Target::One(name) => self.one(&app, &name, info()).await,
            Target::Users(name) => self.users(&app, &name).await,
            Target::Connections => {
                Ok(Reply::json(200, &json!({ "connections": self.channels.connections(&app) })))
            }
            Target::Terminate(user) => {
                let channel = self.channel(&app, &format!("{USER_PREFIX}{user}"))?;
                let event = Event { event: TERMINATE, data: "\"\"", user: None, except: None };
                self.channels.publish(vec![(channel, event.payload())]).await?;
                Ok(Reply::json(200, &json!({})))
            }
        }
    }

    /// The channel of the app's that is called `name`.
    fn channel(&self, app: &App, name: &str) -> Result<ChannelName, Reply> {
        if !is_name(name) {
            return Err(refusal(400, "this is no name of a channel"));
        }
        app.channel(name).map_err(|_| refusal(400, "this is no name of a channel"))
    }

    async fn publish(&self, app: &App, triggers: &[Trigger]) -> Result<(), Reply> {
        let mut posts = Vec::new();
        for Trigger { name, data, channels, except, .. } in triggers {
            let except = except.as_deref().map(Mark::of);
            let payload = Event { event: name, data, user: None, except }.payload();
            for channel in channels {
                posts.push((self.channel(app, channel)?, payload.clone()));
            }
        }
        if posts.is_empty() {
            return Ok(());
        }
        self.channels.publish(posts).await
    }

    /// What an event's sender wants to know of its channels.
    async fn attributes(
        &self,
        app: &App,
        trigger: &Trigger,
    ) -> Result<Option<Map<String, Value>>, Reply> {
        if !trigger.info.is_some() {
            return Ok(None);
        }
        let mut attributes = Map::new();
        for name in &trigger.channels {
            let channel = self.channel(app, name)?;
            // Of channels that are none for users, their number is left out.
            let users = trigger.info.users && Kind::of(name) == Kind::Presence;
            let info = Info { users, ..trigger.info };
            attributes
                .insert(name.clone(), Value::Object(self.figures(&channel, name, info).await?));
        }
        Ok(Some(attributes))
    }

    async fn figures(
        &self,
        channel: &ChannelName,
        name: &str,
        info: Info,
    ) -> Result<Map<String, Value>, Reply> {
        let mut figures = Map::new();
        if info.users {
            figures.insert("user_count".to_owned(), self.users_of(channel).await?.len().into());
        }
        if info.subscriptions {
            let count = self.channels.subscriptions(channel);
            figures.insert("subscription_count".to_owned(), count.into());
        }
        if info.cache && is_cache(name) {
            let messages = self.channels.messages(channel);
            let cached = messages.iter().rev().find(|payload| !event::is_from_client(payload));
            let data =
                cached.and_then(|payload| serde_json::from_slice::<Value>(&payload.body).ok());
            let data = data.map(|stored| json!({ "data": stored["data"] }));
            figures.insert("cache".to_owned(), data.unwrap_or(Value::Null));
        }
        Ok(figures)
    }

    async fn users_of(&self, channel: &ChannelName) -> Result<Vec<String>, Reply> {
        let users = self.channels.users(channel).await;
        users.map_err(|reason| Refusal::new(503, reason).into())
    }

    async fn list(&self, app: &App, request: &Request, info: Info) -> Result<Reply, Reply> {
        let prefix = rest::parameter(request, "filter_by_prefix").unwrap_or_default();
        if info.users && !prefix.starts_with("presence-") {
            let error = "user_count is for presence channels: filter_by_prefix=presence-";
            return Err(refusal(400, error));
        }
        let mut channels = Map::new();
        let beginning = app.channel(&prefix);
        let occupied = beginning.map(|beginning| self.channels.occupied(&beginning));
        // What no channel's name begins with, none is called.
        for (channel, _) in occupied.unwrap_or_default() {
            let Some(name) = app.name_of(&channel) else { continue };
            channels.insert(name.to_owned(), self.figures(&channel, name, info).await?.into());
        }
        Ok(Reply::json(200, &json!({ "channels": channels })))
    }

    async fn one(&self, app: &App, name: &str, info: Info) -> Result<Reply, Reply> {
        if info.users && Kind::of(name) != Kind::Presence {
            return Err(refusal(400, "user_count is for presence channels"));
        }
        let channel = self.channel(app, name)?;
        let mut figures = self.figures(&channel, name, info).await?;
        let occupied = self.channels.subscriptions(&channel) > 0;
        figures.insert("occupied".to_owned(), occupied.into());
        Ok(Reply::json(200, &figures))
    }

    async fn users(&self, app: &App, name: &str) -> Result<Reply, Reply> {
        if Kind::of(name) != Kind::Presence {
            return Err(refusal(400, "only presence channels have users"));
        }
        let channel = self.channel(app, name)?;
        let users = self.users_of(&channel).await?.into_iter();
        let users: Vec<Value> = users.map(|id| json!({ "id": id })).collect();
        Ok(Reply::json(200, &json!({ "users": users })))
    }
}

#[async_trait]
impl Endpoint for Rest {
    fn owns(&self, path: &str) -> bool {
        self.channels.has_apps() && (path == "/up" || path.starts_with("/apps/"))
    }

    /// Their signature is what others have a token for.
    fn is_open(&self, path: &str) -> bool {
        self.owns(path)
    }

    /// Around an event's data there is at most its escaping and the names of its channels.
    fn longest_body(&self, path: &str) -> u64 {
        let one = (self.channels.max_event() as u64).saturating_mul(6).saturating_add(64 << 10);
        match path.ends_with("/batch_events") {
            true => one.saturating_mul(rest::MAX_BATCH as u64),
            false => one,
        }
    }

    async fn answer(&self, request: &Request) -> Reply {
        if request.path == "/up" {
            return match request.method {
                Method::GET => Reply::json(200, &json!({ "health": "OK" })),
                _ => Reply::wrong_method("/up", "GET, HEAD"),
            };
        }
        self.reply(request).await.unwrap_or_else(|refused| refused)
    }
}
