//! Messages in requests that the site handles (`[[capture]]`), and in its answers to them
//! (`Pollgate-Publish`).
//!
//! The requests pass untouched. What a rule needs of their bodies, and of the answer's, is kept
//! beside them up to the longest message; of more, nothing is published and a line logged. A
//! message is published once the answer is complete; a request whose answer breaks off
//! publishes nothing.

use super::decode::decode;
use super::header::{self, Announced};
use super::{By, Publisher, from_json, payload};
use crate::channel::{ChannelName, Pattern, Payload};
use crate::exchange::{Attendant, Attention, Deed, Opening};
use crate::query::Query;
use crate::template::{Field, Template};
use crate::web::cookie;
use bytes::Bytes;
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// One `[[capture]]` rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The path, percent-decoded: exact, or a prefix.
    pub path: Pattern,
    /// The methods.
    pub methods: Vec<String>,
    /// The channel.
    pub channel: Template,
    /// The message.
    pub data: Template,
    /// Which answers mean that the site has taken the request.
    pub on: Statuses,
}

impl Rule {
    fn fits(&self, method: &str, path: &str) -> bool {
        self.methods.iter().any(|known| known == method) && self.path.matches(path)
    }

    fn fields(&self) -> impl Iterator<Item = &Field> {
        self.channel.fields().chain(self.data.fields())
    }

    fn wants_request(&self) -> bool {
        self.fields().any(|field| matches!(field, Field::Form(_) | Field::Json(_)))
    }

    fn wants_response(&self) -> bool {
        self.fields().any(|field| matches!(field, Field::ResponseBody))
    }
}

/// Statuses of answers: `2xx`, `200`, or several with commas between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(Vec<(u16, u16)>);

impl Statuses {
    fn has(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl FromStr for Statuses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = |word: &str| {
            let word = word.trim();
            if let Some(class) = word.strip_suffix("xx") {
                let class: u16 = class.parse().ok().filter(|class| (2..=5).contains(class))?;
                return Some((class * 100, class * 100 + 99));
            }
            let status: u16 = word.parse().ok().filter(|status| (200..=599).contains(status))?;
            Some((status, status))
        };
        let all: Option<Vec<_>> = text.split(',').map(range).collect();
        all.map(Self).ok_or_else(|| {
            format!("\"{text}\" is no status; write \"2xx\", \"200\" or \"2xx,302\"")
        })
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (first, last)) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{}xx", first / 100)?,
            }
        }
        Ok(())
    }
}

/// Listens to the requests that the rules are about.
pub struct Captures(Publisher);

impl Captures {
    /// What is overheard is published there, by its settings of the moment.
    pub fn new(publisher: Publisher) -> Self {
        Self(publisher)
    }
}

impl Attention for Captures {
    fn attend(&self, request: Opening<'_>) -> Option<Box<dyn Attendant>> {
        let settings = self.0.settings();
        let path = percent_decode_str(request.path).decode_utf8_lossy();
        // A poll is a poll, whatever its path is captured for; and a HEAD request is not handled as
        // what it asks for would be.
        let captured = !request.poll && request.method != "HEAD";
        let fits = |rule: &&Arc<Rule>| captured && rule.fits(request.method, &path);
        let rules: Vec<Arc<Rule>> = settings.capture.iter().filter(fits).cloned().collect();
        if rules.is_empty() && !settings.may_publish {
            return None;
        }
        let most = usize::try_from(settings.max_message).unwrap_or(usize::MAX);
        let body =
            |wanted: bool| Body { bytes: Some(Vec::new()).filter(|_| wanted), most, over: false };
        Some(Box::new(Overheard {
            publisher: self.0.clone(),
            may_publish: settings.may_publish,
            path: path.into_owned(),
            query: request.query.to_owned(),
            request_headers: if rules.is_empty() {
                HeaderMap::new()
            } else {
                request.headers.clone()
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

/// A body as far as it is kept.
struct Body {
    /// `None` = nobody wants it.
    bytes: Option<Vec<u8>>,
    most: usize,
    /// It was longer than that.
    over: bool,
}

impl Body {
    fn add(&mut self, piece: &[u8]) {
        let Some(bytes) = self.bytes.as_mut().filter(|_| !self.over) else { return };
        if bytes.len() + piece.len() > self.most {
            self.over = true;
            *bytes = Vec::new();
        } else {
            bytes.extend_from_slice(piece);
        }
    }

    /// All of it, if it was wanted and is not too long.
    fn whole(&self) -> Result<&[u8], String> {
        match &self.bytes {
            Some(bytes) if !self.over => Ok(bytes),
            _ => Err(format!("the body is longer than {} bytes (history.max_message)", self.most)),
        }
    }
}

struct Overheard {
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
    /// What the answer's head publishes.
    announced: Vec<Announced>,
    answered: bool,
}

impl Attendant for Overheard {
    fn begin(&mut self) {
        self.request.over = false;
        self.request.bytes.iter_mut().for_each(Vec::clear);
        (self.sent, self.sent_all) = (0, false);
    }

    fn request_body(&mut self, piece: &[u8], last: bool) {
        self.request.add(piece);
        self.sent += piece.len() as u64;
        self.sent_all |= last;
    }

    fn response_head(&mut self, status: u16, headers: &HeaderMap) {
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
            self.response_headers = headers.clone();
        }
    }

    fn response_body(&mut self, piece: &[u8]) {
        self.response.add(piece);
    }

    fn end(self: Box<Self>) -> Deed {
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

impl Overheard {
    /// The answer's body, decoded. Whoever does not need it may ignore the error.
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
                continue;
            }
            let content = content.as_ref().ok();
            let filled = self.fill(rule, content, answer.as_ref().ok());
            let Some((channel, payload)) = filled else {
                tracing::debug!(path = ?self.path, "a [[capture]] rule cannot be filled");
                continue;
            };
            self.publish(vec![(channel, payload)], By::Capture).await;
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
            self.publish(posts, By::Header).await;
        }
    }

    fn complain(&self, why: &str) {
        tracing::warn!(path = ?self.path, "what the site announced is not published: {why}");
    }

    async fn publish(&self, posts: Vec<(ChannelName, Payload)>, by: By) {
        if let Err(error) = self.publisher.publish(posts, by).await {
            tracing::warn!(path = ?self.path, %error, "what passed is not published");
        }
    }

    fn fill(
        &self,
        rule: &Rule,
        content: Option<&Content>,
        answer: Option<&Bytes>,
    ) -> Option<(ChannelName, Payload)> {
        let source = Source { overheard: self, rule, content, answer };
        let channel = rule.channel.fill(|field| source.text(field))?;
        let channel = ChannelName::new(&channel).ok()?;
        let data = match rule.data.only_field() {
            Some(field) => source.payload(field)?,
            None => Payload::text(rule.data.fill(|field| source.text(field))?),
        };
        Some((channel, data))
    }

    /// Whether the site has the whole request. A body of a known length is there with its last
    /// byte, even if the client is still to say so.
    fn is_sent(&self) -> bool {
        let length = self.request_headers.get("content-length");
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        self.sent_all || length == Some(self.sent)
    }

    /// What the request's body says.
    async fn content(&self) -> Result<Content, String> {
        if self.request.bytes.is_none() {
            return Ok(Content::Nothing);
        }
        if !self.is_sent() {
            return Err("the site answered before it had the whole request".to_owned());
        }
        let body = self.request.whole()?;
        let kind = self.request_headers.get("content-type").and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        Ok(match essence.as_str() {
            "application/x-www-form-urlencoded" => {
                Content::Form(Query::parse(&String::from_utf8_lossy(body)).into_owned())
            }
            "multipart/form-data" => {
                multipart(body, kind).await.map_or(Content::Nothing, Content::Form)
            }
            _ if essence == "application/json" || essence.ends_with("+json") => {
                serde_json::from_slice(body).map_or(Content::Nothing, Content::Json)
            }
            _ => Content::Nothing,
        })
    }
}

/// The fields of a multipart form, without its files; `None` if it is torn.
async fn multipart(body: &[u8], kind: &str) -> Option<Query<'static>> {
    let boundary = multer::parse_boundary(kind).ok()?;
    let mut form = multer::Multipart::with_reader(body, boundary);
    let mut query = Query::default();
    while let Some(field) = form.next_field().await.ok()? {
        let name = field.name().filter(|_| field.file_name().is_none()).map(str::to_owned);
        let value = field.bytes().await.ok()?.to_vec();
        if let Some(name) = name {
            query.push(Cow::Owned(name.into_bytes()), Cow::Owned(value));
        }
    }
    Some(query)
}

enum Content {
    Nothing,
    Form(Query<'static>),
    Json(Box<RawValue>),
}

/// Where the fields of a rule find their values.
struct Source<'a> {
    overheard: &'a Overheard,
    rule: &'a Rule,
    content: Option<&'a Content>,
    answer: Option<&'a Bytes>,
}

impl Source<'_> {
    /// A field as a part of a text.
    fn text(&self, field: &Field) -> Option<Cow<'_, str>> {
        let payload = self.payload(field)?;
        Some(Cow::Owned(String::from_utf8_lossy(&payload.body).into_owned()))
    }

    /// A field as a whole message.
    fn payload(&self, field: &Field) -> Option<Payload> {
        let bytes = match field {
            Field::Query(name) => Query::parse(&self.overheard.query).bytes(name)?.to_vec(),
            Field::Form(name) => match self.content? {
                Content::Form(form) => form.bytes(name)?.to_vec(),
                Content::Nothing | Content::Json(_) => return None,
            },
            Field::Json(path) => match self.content? {
                Content::Json(json) => return from_json(member(json, path)?).ok(),
                Content::Nothing | Content::Form(_) => return None,
            },
            Field::Header(name) => self.overheard.request_headers.get(name)?.as_bytes().to_vec(),
            Field::Cookie(name) => {
                let cookie = cookie(&self.overheard.request_headers, name)?;
                percent_decode_str(cookie).collect()
            }
            Field::Path(1) => self.rule.path.rest(&self.overheard.path)?.as_bytes().to_vec(),
            Field::Path(_) => return None,
            Field::ResponseBody => {
                return payload(self.overheard.answer_type(), self.answer?.clone()).ok();
            }
        };
        payload(None, bytes.into()).ok()
    }
}

/// The member of a JSON value at this path.
fn member<'a>(json: &'a RawValue, path: &[String]) -> Option<&'a RawValue> {
    path.iter().try_fold(json, |json, name| {
        let mut members: HashMap<Cow<'_, str>, &RawValue> =
            serde_json::from_str(json.get()).ok()?;
        members.remove(name.as_str())
    })
}

#[cfg(test)]
#[path = "capture/tests.rs"]
mod tests;
