//! The NovComet dialect: a client sends ids of files, each with the time of the last change it
//! knows, and gets the ids that have changed (`docs/dialects/novcomet.md`).

use super::json::{self, Safe};
use super::{PHP_CONTENT_TYPE, Parsed, Poll, Request, refused, rendered_once};
use crate::hub::channel::{ChannelName, Cursor, RenderKey, Take, Tick};
use crate::hub::{Answer, ChannelUpdate, Subscription};
use crate::protocol::http::Reply;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::fmt::Write;
use std::time::Duration;

/// The NovComet dialect.
#[derive(Debug, Clone)]
pub struct NovComet {
    /// Reach of "now" into the past for a client without a cursor: a message published within this
    /// time, between two of its polls, is not missed.
    pub slack: Duration,
    /// True if `publish=ID` publishes an empty message at the gate instead of being forwarded.
    pub browser_publish: bool,
}

impl Default for NovComet {
    fn default() -> Self {
        Self { slack: Duration::from_secs(2), browser_publish: false }
    }
}

impl NovComet {
    pub(super) fn parse(
        &self,
        request: &Request<'_>,
        tick: &dyn Fn(&ChannelName) -> Tick,
    ) -> Parsed {
        let entries = match request.form {
            Some(form) if form.has("subscribed") => form.entries("subscribed"),
            _ => request.query.entries("subscribed"),
        };
        let resumed = request.resumed();
        let subscription = |(id, value): (String, Option<&[u8]>)| {
            let channel = request.channel(&id)?;
            let value = match resumed.as_deref().and_then(|cursor| stamp_of(cursor, &channel)) {
                Some(stamp) => stamp.into(),
                None => String::from_utf8_lossy(value.unwrap_or_default()),
            };
            let after = tick(&channel).parse(&value);
            Ok(Subscription { channel, cursor: Cursor::Changed { after, slack: self.slack } })
        };
        match entries.into_iter().map(subscription).collect() {
            Ok(subscriptions) => Parsed::Poll(Poll {
                subscriptions,
                take: Take::Newest,
                timeout: None,
                callback: None,
            }),
            Err(error) => refused(error),
        }
    }

    pub(super) fn render(&self, answer: &Answer) -> Reply {
        let body = rendered_once(answer, RenderKey::NOVCOMET, || body(answer).into());
        Reply::new(200, PHP_CONTENT_TYPE, body).with("X-Content-Type-Options", "nosniff")
    }
}

/// What stands as it is in the ids of a stream.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Appends the id of a stream's event: `ID:STAMP,...`, the ids percent-encoded.
pub(super) fn write_cursor(out: &mut String, place: &Answer) {
    for (index, update) in place.iter().enumerate() {
        let id = utf8_percent_encode(&update.channel, PLAIN);
        let comma = if index > 0 { "," } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(out, "{comma}{id}:{}", update.tick.show(update.found.stamp));
    }
}

/// The stamp of `channel` in the id of a stream's event.
fn stamp_of<'a>(cursor: &'a str, channel: &ChannelName) -> Option<&'a str> {
    let mut pairs = cursor.split(',').filter_map(|pair| pair.split_once(':'));
    let (_, stamp) = pairs.find(|(id, _)| percent_decode_str(id).eq(channel.bytes()))?;
    Some(stamp)
}

pub(super) fn body(answer: &Answer) -> String {
    // A forgotten channel has an update (a reset), but nothing in it has changed yet.
    let changed = |heard: &&ChannelUpdate| {
        let position = heard.found.position;
        heard.found.has_update && position.seq > 0 && !position.epoch.is_clock()
    };
    let mut out = String::new();
    for heard in answer.iter().filter(changed) {
        out.push_str(if out.is_empty() { "{\"s\":1,\"k\":{" } else { "," });
        json::string(&mut out, &heard.channel, Safe::Html);
        // Writing to a string cannot fail.
        let _ = write!(out, ":{}", heard.tick.show(heard.found.stamp));
    }
    if out.is_empty() {
        return "{\"s\":0}".to_owned();
    }
    out.push_str("}}");
    out
}
