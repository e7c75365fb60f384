//! The timestamp dialect: the `backend.php` family. Its client sends the time of the last change it
//! knows and gets a message and its time (`docs/dialects/timestamp.md`).

use super::json::{self, Safe};
use super::{PHP_CONTENT_TYPE, Parsed, Poll, Request, refused, rendered_once, shared};
use crate::hub::channel::{ChannelName, Cursor, Kind, Message, RenderKey, ShownStamp, Take, Tick};
use crate::hub::{Answer, Subscription};
use crate::protocol::http::Reply;
use crate::protocol::template::Template;
use smallvec::smallvec;
use std::borrow::Cow;
use std::fmt::Write;

/// Answer to a poll without a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum First {
    /// The newest message kept, at once if there is one.
    #[default]
    Latest,
    /// The oldest message kept, at once if there is one.
    Oldest,
    /// The next message.
    Wait,
}

/// Selects a message when several are waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deliver {
    /// The first: one per poll, none skipped.
    #[default]
    Next,
    /// The newest.
    Latest,
}

/// The response to a poll at its timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnTimeout {
    /// An empty message.
    #[default]
    Empty,
    /// The newest message again, as from a script that answers unconditionally after its loop.
    Latest,
}

/// The timestamp dialect.
#[derive(Debug, Clone)]
pub struct Timestamp {
    /// The channel.
    pub channel: Template,
    /// The answer's field for the message; `.` = the answer is the message itself.
    pub message_field: String,
    /// The request's parameter and the answer's field for the cursor.
    pub cursor_field: String,
    /// Answer to a poll without a cursor.
    pub first: First,
    /// Selects the message of an answer.
    pub deliver: Deliver,
    /// The response to a poll at its timeout.
    pub on_timeout: OnTimeout,
    /// The content type of the answer; `None` = as PHP sends, or `text/javascript` for JSONP.
    pub content_type: Option<String>,
    /// Constant fields of the answer.
    pub extra: serde_json::Map<String, serde_json::Value>,
    /// True if a JSON message is embedded in the answer as JSON, not as a string.
    pub embed: bool,
    /// The parameter that names the function a JSONP answer calls; `None` = no JSONP.
    pub callback: Option<String>,
    /// Identifies this way to render; from [`RenderKey::unique`].
    pub key: RenderKey,
}

impl Timestamp {
    /// The dialect with the defaults of the original `backend.php`.
    pub fn new(channel: Template) -> Self {
        Self {
            channel,
            message_field: "msg".to_owned(),
            cursor_field: "timestamp".to_owned(),
            first: First::default(),
            deliver: Deliver::default(),
            on_timeout: OnTimeout::default(),
            content_type: None,
            extra: serde_json::Map::new(),
            embed: false,
            callback: None,
            key: RenderKey::unique(),
        }
    }

    pub(super) fn parse(
        &self,
        request: &Request<'_>,
        tick: &dyn Fn(&ChannelName) -> Tick,
    ) -> Parsed {
        let Some(channel) = self.channel.fill(|field| request.field(field)) else {
            return Parsed::OtherRule;
        };
        let channel = match request.channel(&channel) {
            Ok(channel) => channel,
            Err(error) => return refused(error),
        };
        let callback = match super::callback(self.callback.as_deref(), request) {
            Ok(callback) => callback,
            Err(reply) => return Parsed::Refused(reply),
        };
        let resumed = request.resumed().map(|cursor| match self.is_bare() {
            // The id of a stream's event is a position here, as there are no stamps to be seen.
            true => cursor.parse().map_or(Cursor::Lost, Cursor::At),
            false => tick(&channel).parse(&cursor).map_or(Cursor::Now, Cursor::After),
        });
        let stamp = || request.parameter(&self.cursor_field);
        let stamp = || Some(Cursor::After(tick(&channel).parse(&stamp()?)?));
        let cursor =
            resumed.or_else(stamp).or_else(|| self.tag_of(request)).unwrap_or(match self.first {
                First::Latest => Cursor::Latest,
                First::Oldest => Cursor::Oldest,
                First::Wait => Cursor::Now,
            });
        let take = match self.deliver {
            Deliver::Next => Take::First,
            Deliver::Latest => Take::Newest,
        };
        let subscriptions = smallvec![Subscription { channel, cursor }];
        Parsed::Poll(Poll { subscriptions, take, timeout: None, callback })
    }

    /// True if the answer is the message itself, without JSON.
    pub fn is_bare(&self) -> bool {
        self.message_field == "."
    }

    /// The cursor of a client that sends back the `ETag` of its last answer, if no other place
    /// holds one.
    fn tag_of(&self, request: &Request<'_>) -> Option<Cursor> {
        let tag = request.headers.get("if-none-match").filter(|_| self.is_bare())?.trim();
        // A proxy that compresses an answer makes its tag a weak one.
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        let tag = tag.strip_prefix('"')?.strip_suffix('"')?;
        Some(tag.parse().map_or(Cursor::Lost, Cursor::At))
    }

    /// True if the answer is a copy of its own, not one that all clients share.
    pub(super) fn copies(&self, answer: &Answer, callback: Option<&str>) -> bool {
        !self.is_bare() && (callback.is_some() || shared(answer).is_none())
    }

    fn render_bare(&self, answer: &Answer) -> Reply {
        // A poll of this dialect is on one channel.
        let found = answer.first().map(|heard| &heard.found);
        let message = found.and_then(|found| found.messages.first());
        let body = message.map(|message| message.payload.body.clone()).unwrap_or_default();
        let reply = Reply::new(200, PHP_CONTENT_TYPE, body);
        match found {
            Some(found) => reply.with("ETag", format!("\"{}\"", found.position)),
            None => reply,
        }
    }

    pub(super) fn render(&self, answer: &Answer, callback: Option<&str>) -> Reply {
        let reply = if self.is_bare() {
            self.render_bare(answer)
        } else {
            let body = rendered_once(answer, self.key, || self.body(answer).into());
            match callback {
                None => Reply::new(200, PHP_CONTENT_TYPE, body),
                Some(name) => {
                    // The body is the UTF-8 that was just written.
                    let call = format!("{name}({});", String::from_utf8_lossy(&body));
                    Reply::new(200, "text/javascript; charset=UTF-8", call)
                }
            }
        };
        let mut reply = reply.with("X-Content-Type-Options", "nosniff");
        if let Some(content_type) = &self.content_type {
            reply.content_type = Cow::Owned(content_type.clone());
        }
        reply
    }

    fn body(&self, answer: &Answer) -> String {
        // A poll of this dialect is on one channel.
        let heard = answer.first();
        let message = heard.and_then(|heard| heard.found.messages.first());
        let stamp = heard.map(|heard| heard.tick.show(heard.found.stamp));
        self.body_of(message.map(|message| &**message), stamp)
    }

    /// The answer with `message`, which leaves its client at `stamp`.
    pub(super) fn body_of(&self, message: Option<&Message>, stamp: Option<ShownStamp>) -> String {
        let mut out = String::from("{");
        json::string(&mut out, &self.message_field, Safe::Html);
        out.push(':');
        match message {
            Some(message) => self.write_message(&mut out, message),
            None => out.push_str("\"\""),
        }
        out.push(',');
        json::string(&mut out, &self.cursor_field, Safe::Html);
        if let Some(stamp) = stamp {
            // Writing to a string cannot fail.
            let _ = write!(out, ":{stamp}");
        }
        for (name, value) in &self.extra {
            out.push(',');
            json::string(&mut out, name, Safe::Html);
            out.push(':');
            json::verbatim(&mut out, &value.to_string(), Safe::Html);
        }
        out.push('}');
        out
    }

    fn write_message(&self, out: &mut String, message: &Message) {
        let text = String::from_utf8_lossy(&message.payload.body);
        if self.embed && message.payload.kind == Kind::Json {
            json::verbatim(out, &text, Safe::Html);
        } else {
            json::string(out, &text, Safe::Html);
        }
    }
}
