//! Publishing as to Nchan, over the internal listener: the paths of `[[nchan]]`.
//!
//! | request | response |
//! |---|---|
//! | `POST`, `PUT` | publishes the body, with its content type and its `X-EventSource-Event`, on every channel that the path names; 201 if it released held polls or reached streams, else 202 |
//! | `GET` | 200 with the channel's figures, 404 for none |
//! | `DELETE` | forgets the channels: 200 with their figures of before, 404 for none; their held polls get 410 |
//!
//! Figures are plain text, or what `Accept` asks for: JSON, XML or YAML. Several channels, with
//! commas between their names, are published to at once: all of them, or none.

mod info;

use super::{PublishError, Publisher, Source};
use crate::hub::channel::{ChannelName, Kind, NameError, Payload, SiteName, Time};
use crate::protocol::dialect::nchan::{Nchan, stored_type};
use crate::protocol::dialect::stream::Transport;
use crate::protocol::dialect::{self};
use crate::protocol::http::path::{PathPattern, normalize};
use crate::protocol::http::query::{Query, decode_strictly};
use crate::protocol::http::{Endpoint, Reply, Request, Scope};
use crate::protocol::template::Template;
use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use info::Figures;
use smallvec::SmallVec;
use std::sync::Arc;

/// One `[[nchan]]` rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The site whose channels it publishes on.
    pub site: SiteName,
    /// The path.
    pub path: PathPattern,
    /// The channels, separated by commas; without it, the part of the path that the last `*`
    /// matches names them.
    pub channel: Option<Template>,
    /// The group of the channels: their names begin with it and a slash.
    pub group: Option<String>,
}

/// See the [module](self).
pub struct NchanPublisher {
    publisher: Publisher,
}

/// The most channels that one request may name.
const MAX_CHANNELS: usize = 255;

/// The longest event name that is taken.
const MAX_EVENT: usize = 128;

impl NchanPublisher {
    /// Publishes through `publisher`, whose settings have the rules.
    pub fn new(publisher: Publisher) -> Self {
        Self { publisher }
    }

    /// The rule for a path, of `site` or, without one, of any.
    fn rule(&self, site: Option<&SiteName>, path: &str) -> Option<Arc<Rule>> {
        let normal = normalize(path);
        let settings = self.publisher.settings();
        let mut rules = settings.nchan.iter().filter(|rule| site.is_none_or(|it| *it == rule.site));
        rules.find(|rule| rule.path.matches(&normal)).cloned()
    }

    async fn publish(&self, names: &[ChannelName], request: &Request) -> Reply {
        let payload = match payload(request) {
            Ok(payload) => payload,
            Err(reply) => return reply,
        };
        let posts = names.iter().map(|name| (name.clone(), payload.clone())).collect();
        match self.publisher.publish(posts, Source::Hook).await {
            Ok(receipts) => {
                let released = receipts.iter().map(|receipt| receipt.released).sum::<usize>();
                let mut figures = self.figures(names).unwrap_or_default();
                // Released polls are no longer held, and were subscribers a moment ago.
                figures.subscribers = figures.subscribers.max(released);
                if released > 0 {
                    figures.requested = Some(figures.requested.unwrap_or_default());
                }
                figures.reply(if released > 0 { 201 } else { 202 }, request)
            }
            Err(error) => refused(error),
        }
    }

    async fn forget(&self, names: &[ChannelName], request: &Request) -> Reply {
        let figures = self.figures(names);
        let mut any = false;
        for name in names {
            match self.publisher.forget(name).await {
                Ok(forgotten) => any |= forgotten.is_some(),
                Err(error) => return refused(error),
            }
        }
        match figures {
            Some(figures) if any => figures.reply(200, request),
            _ => Reply::new(404, "", ""),
        }
    }

    /// The figures of the channels together; `None` = there is none of them.
    fn figures(&self, names: &[ChannelName]) -> Option<Figures> {
        let now = self.publisher.now();
        let infos = names.iter().filter_map(|name| self.publisher.hub().info(name, now));
        // A gate with a backplane knows names for a while that are no channels any more.
        let infos = infos.filter(|info| info.held > 0 || info.newest.is_some());
        Figures::of(infos, names.len(), now)
    }
}

#[async_trait]
impl Endpoint for NchanPublisher {
    fn owns(&self, path: &str) -> bool {
        self.rule(None, path).is_some()
    }

    fn scope(&self, _path: &str) -> Scope {
        Scope::Site
    }

    fn longest_body(&self, _path: &str) -> u64 {
        self.publisher.longest_message()
    }

    async fn answer(&self, request: &Request) -> Reply {
        // It may be another site's, or a reload has taken it away meanwhile.
        let rule = self.rule(Some(&request.site), &request.path);
        let Some(rule) = rule else { return Reply::new(404, "", "") };
        let names = match rule.channels(request) {
            Some(Ok(names)) => names,
            Some(Err(error)) => return Reply::error(400, error, "name 1 to 255 channels"),
            None => return Reply::new(404, "", ""),
        };
        if !matches!(request.method, Method::POST | Method::PUT) {
            for name in &names {
                self.publisher.refresh(name).await;
            }
        }
        match request.method {
            Method::POST | Method::PUT => self.publish(&names, request).await,
            Method::GET => match self.figures(&names) {
                Some(figures) => figures.reply(200, request),
                None => Reply::new(404, "", ""),
            },
            Method::DELETE => self.forget(&names, request).await,
            Method::OPTIONS => Reply::new(200, "", "").with("Allow", ALLOW),
            _ => Reply::wrong_method(&request.path, ALLOW),
        }
    }
}

const ALLOW: &str = "GET, POST, PUT, DELETE";

impl Rule {
    /// The channels of a request; `None` = it does not fill the rule's template.
    fn channels(&self, request: &Request) -> Option<Result<SmallVec<[ChannelName; 1]>, NameError>> {
        let normal = normalize(&request.path);
        let stars = self.path.captures(&request.path, &normal)?;
        let query = Query::parse(&request.query);
        let asked = dialect::Request {
            stars: &stars,
            query: &query,
            form: None,
            headers: &request.headers,
            transport: Transport::Poll,
            site: &self.site,
        };
        let names = match &self.channel {
            Some(template) => template.fill(|field| asked.field(field))?.into_bytes(),
            None => decode_strictly(stars.last()?)?.into_owned(),
        };
        if memchr::memchr_iter(b',', &names).count() >= MAX_CHANNELS {
            return Some(Err(NameError::TooLong));
        }
        let dialect = Nchan { group: self.group.clone(), ..Nchan::default() };
        Some(dialect.channels(&names, &self.site))
    }
}

/// The message that is the body of a request. Any content type is taken, as Nchan does.
fn payload(request: &Request) -> Result<Payload, Reply> {
    let visible = |text: &str| text.bytes().all(|b| matches!(b, b' '..=b'~'));
    let header = |name: &str| match request.headers.get(name) {
        None => Ok(None),
        Some(value) => match value.to_str() {
            Ok(text) if visible(text) && text.len() <= MAX_EVENT => Ok(Some(text.trim())),
            _ => {
                let error = format!("{name} is longer than {MAX_EVENT} bytes or not visible ASCII");
                Err(Reply::error(400, error, "send a plain one, or none"))
            }
        },
    };
    let content_type = header("content-type")?.filter(|text| !text.is_empty());
    let event = header("x-eventsource-event")?;
    let body: Bytes = request.body.clone();
    let kind = match std::str::from_utf8(&body) {
        Err(_) => Kind::Binary,
        Ok(_) => match super::payload(content_type, body.clone()) {
            Ok(payload) => payload.kind,
            // What calls itself JSON and is none is a text.
            Err(_) => Kind::Text,
        },
    };
    Ok(Payload { kind, content_type: stored_type(content_type, event).into(), body })
}

/// The response to a publish that was refused: its status says so, as Nchan's does.
fn refused(error: PublishError) -> Reply {
    Reply::from(error)
}

/// Seconds from `then` to `now`.
fn seconds(then: Time, now: Time) -> u64 {
    now.0.saturating_sub(then.0) / 1_000_000
}
