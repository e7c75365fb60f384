//! The bodies of `POST /publish`: parses JSON and forms into publish requests.

#[cfg(test)]
mod tests;

use crate::hub::channel::{ChannelName, Payload, SiteName};
use crate::protocol::http::Reply;
use crate::protocol::http::query::Query;
use crate::server::publish::payload::{from_json, is_type};
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

/// Messages that one request may publish, over all of its channels.
const MAX_POSTS: usize = 10_000;

/// The messages of one request.
#[derive(Debug, Default)]
pub(in crate::server::publish) struct PublishRequest {
    pub(in crate::server::publish) posts: Vec<(ChannelName, Payload)>,
    /// True if the request has the form for several messages, and so has its response.
    pub(in crate::server::publish) many: bool,
}

/// Reads `body` by its content type; the error is the response to an invalid one.
pub(in crate::server::publish) fn read(
    content_type: Option<&str>,
    body: &Bytes,
) -> Result<PublishRequest, Reply> {
    let content_type = content_type.unwrap_or_default();
    let form = is_type(content_type, "application/x-www-form-urlencoded");
    if !form && !is_type(content_type, "application/json") {
        let error = match content_type {
            "" => "/publish needs a Content-Type".to_owned(),
            other => format!("/publish does not read {other:?}"),
        };
        let hint = "send application/json, or application/x-www-form-urlencoded: \
                    give curl a string from http_build_query, not an array";
        return Err(Reply::error(415, error, hint));
    }
    let Ok(text) = std::str::from_utf8(body) else {
        return Err(wrong("the body is not UTF-8", "POST /channels/{channel} takes any bytes"));
    };
    let posts = if form { read_form(text)? } else { read_json(text)? };
    match posts.posts.len() {
        0 => Err(wrong("there is nothing to publish", SHAPE)),
        _ => Ok(posts),
    }
}

const SHAPE: &str =
    r#"send {"channel":"live","data":...}, {"channels":["a","b"],"data":...} or an array of these"#;

fn wrong(error: impl fmt::Display, hint: &str) -> Reply {
    Reply::error(422, error, hint)
}

fn too_many() -> Reply {
    wrong(format!("more than {MAX_POSTS} messages in one request"), "send them in several")
}

impl PublishRequest {
    /// The same messages on the channels of `site`.
    pub(in crate::server::publish) fn in_site(mut self, site: &SiteName) -> Self {
        for (channel, _) in &mut self.posts {
            *channel = channel.clone().in_site(site);
        }
        self
    }

    /// Adds one message for each of `channels`, once if a channel is named twice.
    fn add<'a>(
        &mut self,
        channels: impl IntoIterator<Item = &'a [u8]>,
        payload: &Payload,
    ) -> Result<(), Reply> {
        let mut seen = HashSet::new();
        for channel in channels.into_iter().filter(|channel| seen.insert(*channel)) {
            let name = ChannelName::from_bytes(channel).map_err(bad_name)?;
            if self.posts.len() == MAX_POSTS {
                return Err(too_many());
            }
            self.posts.push((name, payload.clone()));
        }
        Ok(())
    }
}

/// The response to an invalid name.
pub(in crate::server::publish) fn bad_name(error: crate::hub::channel::NameError) -> Reply {
    Reply::error(400, error, "a name is 1 to 255 bytes of UTF-8 without control characters")
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Post<'a> {
    channel: Option<String>,
    channels: Option<Bounded<String>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

/// Distinguishes `"data":null`, which is a message, from no `data`, which is a touch.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

fn read_json(text: &str) -> Result<PublishRequest, Reply> {
    let mut posts = PublishRequest::default();
    if text.trim_ascii_start().starts_with('[') {
        posts.many = true;
        let entries: Bounded<&RawValue> =
            serde_json::from_str(text).map_err(|error| wrong(error, SHAPE))?;
        for (index, entry) in entries.0.into_iter().enumerate() {
            let place = |error| wrong(format!("entry {index}: {error}"), SHAPE);
            add_json(&mut posts, entry.get(), place)?;
        }
        return Ok(posts);
    }
    posts.many = add_json(&mut posts, text, |error| wrong(error, SHAPE))?;
    Ok(posts)
}

/// Adds the messages of one JSON object. Returns true if it has the form for several channels.
fn add_json(
    posts: &mut PublishRequest,
    json: &str,
    refuse: impl Fn(String) -> Reply,
) -> Result<bool, Reply> {
    if json.trim_ascii_start().starts_with('[') {
        // serde would read an array as the fields of a struct in their order.
        return Err(refuse("an array stands where an object should".to_owned()));
    }
    let post: Post = serde_json::from_str(json).map_err(|error| refuse(error.to_string()))?;
    let payload = match post.data {
        Some(value) => from_json(value).map_err(|error| refuse(error.to_string()))?,
        None => Payload::empty(),
    };
    match (post.channel, post.channels) {
        (Some(channel), None) => posts.add([channel.as_bytes()], &payload).map(|()| false),
        (None, Some(channels)) => {
            posts.add(channels.0.iter().map(String::as_bytes), &payload).map(|()| true)
        }
        (Some(_), Some(_)) => Err(refuse("there is \"channel\" and \"channels\"".to_owned())),
        (None, None) => Err(refuse("there is no \"channel\"".to_owned())),
    }
}

fn read_form(text: &str) -> Result<PublishRequest, Reply> {
    if text.trim_ascii_start().starts_with(['{', '[']) {
        let hint = "send it with the header Content-Type: application/json";
        return Err(wrong("the form looks like JSON", hint));
    }
    // Beside the channels there are but a few fields; it bounds what reading them takes.
    if text.bytes().filter(|byte| *byte == b'&').count() > MAX_POSTS + 16 {
        return Err(too_many());
    }
    let form = Query::parse(text);
    let payload = form_payload(&form)?;
    let mut posts = PublishRequest::default();
    if let Some(channel) = form.bytes("channel") {
        posts.add([channel], &payload)?;
        return Ok(posts);
    }
    posts.many = true;
    let entries = form.entries("channel");
    if entries.iter().any(|(_, channel)| channel.is_none()) {
        return Err(wrong("a \"channel[]\" is itself an array", FORM_SHAPE));
    }
    posts.add(entries.iter().filter_map(|(_, channel)| *channel), &payload)?;
    if posts.posts.is_empty() {
        return Err(wrong("there is no \"channel\"", FORM_SHAPE));
    }
    Ok(posts)
}

fn form_payload(form: &Query) -> Result<Payload, Reply> {
    match form.bytes("data").map(std::str::from_utf8) {
        Some(Ok(text)) => Ok(Payload::text(text.to_owned())),
        Some(Err(_)) => {
            Err(wrong("\"data\" is not UTF-8", "POST /channels/{channel} takes any bytes"))
        }
        None if form.has("data") => {
            Err(wrong("\"data\" is an array", "encode it with json_encode"))
        }
        None => Ok(Payload::empty()),
    }
}

const FORM_SHAPE: &str = "send channel=live&data=... or channel[]=a&channel[]=b&data=...";

/// A JSON array of no more than [`MAX_POSTS`] entries. A longer one is refused while it is read,
/// so that many tiny entries cannot take a multiple of the body's length.
struct Bounded<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BoundedVisitor(PhantomData))
    }
}

struct BoundedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for BoundedVisitor<T> {
    type Value = Bounded<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut read = Vec::new();
        while let Some(entry) = entries.next_element()? {
            if read.len() == MAX_POSTS {
                return Err(A::Error::custom(format!("more than {MAX_POSTS} entries")));
            }
            read.push(entry);
        }
        Ok(Bounded(read))
    }
}
