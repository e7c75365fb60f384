//! The native dialect: JSON, an opaque cursor and any number of channels. It reports lost
//! continuity (`docs/dialects/native.md`).

use super::json::{self, Safe};
use super::native_cursor::{self, Decoded, ForeignCharacter};
use super::{Parsed, Poll, Request, rendered_once};
use crate::hub::channel::{ChannelName, Cursor, Kind, Message, RenderKey, SiteName, Take, Tick};
use crate::hub::{Answer, ChannelUpdate, Subscription};
use crate::protocol::http::Reply;
use crate::protocol::http::query::decode_strictly;
use crate::protocol::template::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use smallvec::SmallVec;
use std::fmt::Write;
use std::time::Duration;

/// The native dialect.
#[derive(Debug, Clone, Default)]
pub struct Native {
    /// The one channel of the rule; without it, the part of the path that the rule's `*` matches
    /// names the channels, separated by commas.
    pub channel: Option<Template>,
    /// The parameter that names the function a JSONP answer or an iframe calls; `None` = neither.
    pub callback: Option<String>,
}

impl Native {
    pub(super) fn parse(&self, request: &Request<'_>) -> Parsed {
        let names = match &self.channel {
            None => channels(request.stars.last().copied().unwrap_or_default(), request.site),
            Some(template) => match template.fill(|field| request.field(field)) {
                None => return Parsed::OtherRule,
                Some(name) => request
                    .channel(&name)
                    .map(|name| SmallVec::from_elem(name, 1))
                    .map_err(|error| bad_request(error, CHANNEL_HINT)),
            },
        };
        let polled = names.and_then(|names| poll(names, request));
        let callback = || super::callback(self.callback.as_deref(), request);
        let polled = polled.and_then(|poll| Ok(Poll { callback: callback()?, ..poll }));
        match polled {
            Ok(poll) => Parsed::Poll(poll),
            Err(reply) => Parsed::Refused(reply),
        }
    }

    /// The response, with an update or quiet.
    pub fn render(&self, answer: &Answer, callback: Option<&str>) -> Reply {
        let body = rendered_once(answer, RenderKey::NATIVE, || body(answer).into());
        reply(body, callback)
    }

    /// The response with one more field.
    pub(super) fn render_with_presence(
        &self,
        answer: &Answer,
        callback: Option<&str>,
        presence: &str,
    ) -> Reply {
        reply(body_with_presence(answer, presence).into(), callback)
    }
}

fn reply(body: Bytes, callback: Option<&str>) -> Reply {
    let Some(name) = callback else { return Reply::new(200, "application/json", body) };
    let mut call = format!("{name}(");
    // The body is the UTF-8 that was just written.
    json::verbatim(&mut call, &String::from_utf8_lossy(&body), Safe::Html);
    call.push_str(");");
    Reply::new(200, "text/javascript; charset=UTF-8", call)
        .with("X-Content-Type-Options", "nosniff")
}

/// An answer with the list of users in it.
pub(super) fn body_with_presence(answer: &Answer, presence: &str) -> String {
    let mut out = body(answer);
    // Every answer is an object with other fields before this one.
    out.pop();
    out.push_str(",\"presence\":");
    out.push_str(presence);
    out.push('}');
    out
}

/// The cursor of the native cursor `text` in `channel`; a reply of 400 if it is malformed.
pub fn cursor(channel: &ChannelName, text: &str) -> Result<Cursor, Reply> {
    Ok(decode(text)?.cursor_for(channel))
}

const CHANNEL_HINT: &str = "a channel name is 1 to 255 bytes of UTF-8 without control characters; \
                            write it percent-encoded, several with commas between";

fn bad_request(error: impl std::fmt::Display, hint: &str) -> Reply {
    Reply::error(400, error, hint)
}

/// The channels in `/comet/a,b%2Cc`, each once.
fn channels(rest: &str, site: &SiteName) -> Result<SmallVec<[ChannelName; 1]>, Reply> {
    // One name, as in nearly every poll, needs no search.
    if memchr::memchr(b',', rest.as_bytes()).is_none() {
        return Ok(SmallVec::from_buf([channel(rest, site)?]));
    }
    let mut names = SmallVec::<[ChannelName; 1]>::new();
    let mut seen = std::collections::HashSet::new();
    for escaped in rest.split(',') {
        let name = channel(escaped, site)?;
        if seen.insert(name.clone()) {
            names.push(name);
        }
    }
    Ok(names)
}

fn channel(escaped: &str, site: &SiteName) -> Result<ChannelName, Reply> {
    let bytes = decode_strictly(escaped)
        .ok_or_else(|| bad_request("a % is not followed by two hex digits", CHANNEL_HINT))?;
    let name = ChannelName::from_bytes_of_site(site, &bytes);
    name.map_err(|error| bad_request(error, CHANNEL_HINT))
}

fn poll(names: SmallVec<[ChannelName; 1]>, request: &Request<'_>) -> Result<Poll, Reply> {
    let decoded = decode(request.cursor().unwrap_or_default().as_ref())?;
    let subscription = |channel: ChannelName| {
        let cursor = decoded.cursor_for(&channel);
        Subscription { channel, cursor }
    };
    Ok(Poll {
        subscriptions: names.into_iter().map(subscription).collect(),
        take: Take::All,
        timeout: request.query.text("timeout").map(|text| timeout(&text)).transpose()?,
        callback: None,
    })
}

fn decode(cursor: &str) -> Result<Decoded, Reply> {
    native_cursor::decode(cursor).map_err(|ForeignCharacter| {
        let hint = "send the cursor of the last answer as it was, or none to begin now";
        bad_request("the cursor holds characters that no cursor has", hint)
    })
}

/// Seconds, with an optional fraction.
fn timeout(text: &str) -> Result<Duration, Reply> {
    let digits = text.bytes().any(|b| b.is_ascii_digit());
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds: Option<f64> = text.parse().ok().filter(|_| digits && plain);
    let seconds = seconds.ok_or_else(|| {
        bad_request(
            "the timeout is no number of seconds",
            "write it like timeout=20 or timeout=0.5",
        )
    })?;
    // A value that does not fit a Duration is longer than any hold.
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

pub(super) fn body(answer: &Answer) -> String {
    let bytes: u64 = answer.iter().flat_map(|h| &h.found.messages).map(|m| m.len() + 128).sum();
    let mut out = String::with_capacity(64 + answer.len() * 24 + bytes as usize);
    out.push_str("{\"cursor\":\"");
    native_cursor::encode(&mut out, answer);
    out.push_str("\",\"messages\":[");
    let mut first = true;
    for ChannelUpdate { channel, tick, found } in answer {
        for message in &found.messages {
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            write_message(&mut out, channel, *tick, message);
        }
    }
    out.push(']');
    if answer.iter().any(|heard| heard.found.reset) {
        out.push_str(",\"reset\":true");
    }
    out.push('}');
    out
}

pub(super) fn write_message(
    out: &mut String,
    channel: &ChannelName,
    tick: Tick,
    message: &Message,
) {
    out.push_str("{\"channel\":");
    json::string(out, channel, Safe::Json);
    // Writing to a string cannot fail.
    let _ = write!(out, ",\"id\":\"{}\",\"stamp\":{}", message.position, tick.show(message.stamp));
    let body = &message.payload.body;
    match (message.payload.kind, std::str::from_utf8(body)) {
        (Kind::Json, Ok(json)) => {
            out.push_str(",\"data\":");
            json::verbatim(out, json, Safe::Json);
        }
        (Kind::Text, Ok(text)) => {
            out.push_str(",\"data\":");
            json::string(out, text, Safe::Json);
        }
        _ => {
            out.push_str(",\"base64\":\"");
            STANDARD.encode_string(body, out);
            out.push('"');
        }
    }
    out.push('}');
}
