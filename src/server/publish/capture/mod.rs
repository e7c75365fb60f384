//! Captures messages from requests that the upstream handles (`[[capture]]`), and from its
//! responses to them (`Pollgate-Publish`).
//!
//! The requests pass untouched. Their bodies, and the responses', are kept beside them if a rule
//! needs them, up to the longest message; of more, nothing is published and a line logged. A
//! message is published once the response is complete; a request whose response breaks off
//! publishes nothing.

mod body;
pub(super) mod decode;
pub(super) mod header;
mod rule;
mod source;

pub use rule::{Rule, Statuses};

use super::{Publisher, Source, payload};
use crate::hub::channel::{ChannelName, Payload};
use crate::protocol::http::form::{Encoding, Purpose};
use crate::protocol::http::observer::{Completion, Observe, Observer, RequestHead};
use crate::protocol::http::path::normalize;
use crate::protocol::http::{Headers, to_map};
use crate::server::limits::body_memory::BodyShare;
use body::Body;
use bytes::Bytes;
use decode::decode;
use header::Announced;
use http::{HeaderMap, HeaderValue};
use source::{Content, ExchangeValues, single};
use std::sync::Arc;

/// Observes the requests that match the rules.
pub struct Captures(Publisher);

impl Captures {
    /// Publishes captured messages through `publisher`, by its settings of the moment.
    pub fn new(publisher: Publisher) -> Self {
        Self(publisher)
    }
}

impl Observe for Captures {
    fn attend(&self, request: RequestHead<'_>) -> Option<Box<dyn Observer>> {
        let settings = self.0.settings();
        let path = normalize(request.path);
        // A poll is a poll, whatever its path is captured for; and the upstream does not handle a
        // HEAD request as it would handle the method that it stands in for.
        let captured = !request.poll && request.method != "HEAD";
        let fits = |rule: &&Arc<Rule>| captured && rule.fits(request.method, &path);
        let rules: Vec<Arc<Rule>> = settings.capture.iter().filter(fits).cloned().collect();
        if rules.is_empty() && !settings.may_publish {
            return None;
        }
        let most = usize::try_from(settings.max_message).unwrap_or(usize::MAX);
        let body = |wanted: bool| Body {
            share: BodyShare::new(&settings.bodies),
            crowded: false,
            bytes: Some(Vec::new()).filter(|_| wanted),
            most,
            over: false,
        };
        Some(Box::new(CapturedExchange {
            publisher: self.0.clone(),
            may_publish: settings.may_publish,
            path: path.into_owned(),
            query: request.query.to_owned(),
            request_headers: if rules.is_empty() {
                HeaderMap::new()
            } else {
                to_map(request.headers)
            },
            request: body(rules.iter().any(|rule| rule.wants_request())),
            sent: 0,
            sent_all: false,
            response: body(false),
            response_headers: HeaderMap::new(),
            announced: Vec::new(),
            answered: false,
            rules,
        }))
    }
}

/// An observed request.
struct CapturedExchange {
    publisher: Publisher,
    rules: Vec<Arc<Rule>>,
    may_publish: bool,
    path: String,
    query: String,
    request_headers: HeaderMap,
    request: Body,
    /// Bytes of the request's body that have passed.
    sent: u64,
    /// They are all of it.
    sent_all: bool,
    response_headers: HeaderMap,
    response: Body,
    /// The messages that the response's head announces.
    announced: Vec<Announced>,
    answered: bool,
}

impl Observer for CapturedExchange {
    fn begin(&mut self) {
        self.request.begin();
        (self.sent, self.sent_all) = (0, false);
    }

    fn request_body(&mut self, piece: &[u8], last: bool) {
        self.request.add(piece);
        self.sent += piece.len() as u64;
        self.sent_all |= last;
    }

    fn response_head(&mut self, status: u16, headers: &dyn Headers) {
        self.answered = true;
        self.rules.retain(|rule| rule.on.has(status));
        if self.may_publish {
            match header::read(headers) {
                Ok(announced) => self.announced = announced,
                Err(why) => tracing::warn!(
                    path = ?self.path,
                    "the site's Pollgate-Publish is not understood, nothing is published: {why}"
                ),
            }
        }
        let whole = self.announced.iter().any(|announced| announced.data.is_none())
            || self.rules.iter().any(|rule| rule.wants_response());
        if whole {
            self.response.bytes = Some(Vec::new());
            self.response_headers = to_map(headers);
        }
    }

    fn response_body(&mut self, piece: &[u8]) {
        self.response.add(piece);
    }

    fn end(self: Box<Self>) -> Completion {
        Box::pin(async move {
            if !self.answered {
                return;
            }
            let answer = self.answer();
            self.publish_captured(&answer).await;
            self.publish_announced(&answer).await;
        })
    }
}

impl CapturedExchange {
    /// The response's body, decoded. A caller that does not need it may ignore the error.
    fn answer(&self) -> Result<Bytes, String> {
        let codings = self.response_headers.get_all("content-encoding").iter();
        let codings: Result<Vec<_>, _> = codings.map(|coding| coding.to_str()).collect();
        let codings = codings.map_err(|error| error.to_string())?.join(",");
        decode(self.response.whole()?, &codings, self.response.most)
    }

    fn answer_type(&self) -> Option<&str> {
        self.response_headers.get("content-type")?.to_str().ok()
    }

    async fn publish_captured(&self, answer: &Result<Bytes, String>) {
        if self.rules.is_empty() {
            return;
        }
        let content = self.content().await;
        for rule in &self.rules {
            let wanted = [
                content.as_ref().err().filter(|_| rule.wants_request()),
                answer.as_ref().err().filter(|_| rule.wants_response()),
            ];
            if let Some(why) = wanted.into_iter().flatten().next() {
                let path = &self.path;
                tracing::warn!(?path, "a captured message is not published: {why}");
                self.publisher.count_unclear();
                continue;
            }
            let content = content.as_ref().ok();
            let (channel, payload) = match self.fill(rule, content, answer.as_ref().ok()) {
                Ok(Some(filled)) => filled,
                Ok(None) => {
                    tracing::debug!(path = ?self.path, "a [[capture]] rule cannot be filled");
                    continue;
                }
                Err(why) => {
                    let path = &self.path;
                    tracing::warn!(?path, "a captured message is not published: {why}");
                    self.publisher.count_unclear();
                    continue;
                }
            };
            self.publish(vec![(channel, payload)], Source::Capture).await;
        }
    }

    async fn publish_announced(&self, answer: &Result<Bytes, String>) {
        let mut posts = Vec::with_capacity(self.announced.len());
        for announced in &self.announced {
            let data = match (&announced.data, answer) {
                (Some(data), _) => payload(None, data.clone()),
                (None, Ok(body)) => payload(self.answer_type(), body.clone()),
                (None, Err(why)) => return self.complain(why),
            };
            match data {
                Ok(data) => posts.push((announced.channel.clone(), data)),
                Err(error) => return self.complain(&error.to_string()),
            }
        }
        if !posts.is_empty() {
            self.publish(posts, Source::Header).await;
        }
    }

    fn complain(&self, why: &str) {
        tracing::warn!(path = ?self.path, "what the site announced is not published: {why}");
    }

    async fn publish(&self, posts: Vec<(ChannelName, Payload)>, by: Source) {
        if let Err(error) = self.publisher.publish(posts, by).await {
            tracing::warn!(path = ?self.path, %error, "what passed is not published");
        }
    }

    fn fill(
        &self,
        rule: &Rule,
        content: Option<&Content>,
        answer: Option<&Bytes>,
    ) -> Result<Option<(ChannelName, Payload)>, String> {
        let source = ExchangeValues::new(self, rule, content, answer)?;
        let filled = || {
            let channel = rule.channel.fill(|field| source.text(field))?;
            let channel = ChannelName::new(&channel).ok()?;
            let data = match rule.data.only_field() {
                Some(field) => source.payload(field)?,
                None => Payload::text(rule.data.fill(|field| source.text(field))?),
            };
            Some((channel, data))
        };
        Ok(filled())
    }

    /// True if the upstream has the whole request. A body of a known length is there with its last
    /// byte, even if the client has not signalled its end yet.
    fn is_sent(&self) -> bool {
        let length = self.request_headers.get("content-length");
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        self.sent_all || length == Some(self.sent)
    }

    /// The parsed body of the request.
    async fn content(&self) -> Result<Content, String> {
        if self.request.bytes.is_none() {
            return Ok(Content::Nothing);
        }
        if !self.is_sent() {
            return Err("the site answered before it had the whole request".to_owned());
        }
        let body = self.request.whole()?;
        let coding = self.request_headers.get_all("content-encoding").iter();
        if coding.map(HeaderValue::as_bytes).any(|coding| !coding.eq_ignore_ascii_case(b"identity"))
        {
            return Err("the request has a Content-Encoding, which PHP leaves as it is".to_owned());
        }
        let kind = single(&self.request_headers, "content-type")?;
        let kind = kind.map(|kind| kind.to_str().map_err(|error| error.to_string()));
        let kind = kind.transpose()?.unwrap_or_default();
        if let Some(encoding) = Encoding::of(kind).map_err(|error| error.to_string())? {
            let form = encoding.parse(body, Purpose::Capture);
            return form.map(Content::Form).map_err(|error| error.to_string());
        }
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence == "application/json" || essence.ends_with("+json") {
            return Ok(source::json(body).map_or(Content::Nothing, Content::Json));
        }
        Ok(Content::Nothing)
    }
}
