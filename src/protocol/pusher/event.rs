//! Events: how they stand on a channel, and what its subscribers get.
//!
//! A message is `{"event","data"}` and may say besides who sent it (`user_id`) and which connection
//! does not get it (`except`, a [`Mark`], so that readers of the channel do not learn socket ids).
//! Any other message, which the hook may publish, is an event `message` with its text as data.

use super::sign::hex;
use crate::hub::channel::{Kind, Payload};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The event that ends the connections of a user, on the user's channel.
pub const TERMINATE: &str = "pusher_internal:terminate";

/// Stands for a connection in messages: the beginning of its id's SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u64);

impl Mark {
    /// The mark of a socket id.
    pub fn of(socket: &str) -> Self {
        let hash = digest(&SHA256, socket.as_bytes());
        let first = hash.as_ref().first_chunk().copied().unwrap_or_default();
        // Zero is that of no connection.
        Self(u64::from_be_bytes(first).max(1))
    }

    fn read(text: &str) -> Option<Self> {
        u64::from_str_radix(text, 16).ok().map(Self)
    }
}

#[derive(Deserialize, Serialize)]
struct Stored<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    except: Option<Cow<'a, str>>,
}

/// An event that is about to be published.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Its name.
    pub event: &'a str,
    /// Its data, as JSON: a string from a site, any value from a client.
    pub data: &'a str,
    /// The member that sent it.
    pub user: Option<&'a str>,
    /// The connection that does not get it.
    pub except: Option<Mark>,
}

impl Event<'_> {
    /// The message that it is on its channel.
    pub fn payload(&self) -> Payload {
        // Written by hand, as its data is JSON already and stays as it is.
        let mut body = String::with_capacity(self.event.len() + self.data.len() + 64);
        body.push_str("{\"event\":");
        push_string(&mut body, self.event);
        body.push_str(",\"data\":");
        body.push_str(self.data);
        if let Some(user) = self.user {
            body.push_str(",\"user_id\":");
            push_string(&mut body, user);
        }
        if let Some(Mark(mark)) = self.except {
            body.push_str(",\"except\":\"");
            body.push_str(&hex(&mark.to_be_bytes()));
            body.push('"');
        }
        body.push('}');
        Payload { kind: Kind::Json, content_type: "application/json".into(), body: body.into() }
    }
}

/// Appends a JSON string.
pub(super) fn push_string(out: &mut String, text: &str) {
    // Strings always serialize.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// A message as the frame that subscribers get.
#[derive(Debug)]
pub struct Delivery {
    /// The connection that does not get it.
    pub except: Option<Mark>,
    /// The frame: an envelope as JSON.
    pub frame: String,
}

fn stored(payload: &Payload) -> Option<Stored<'_>> {
    if payload.kind != Kind::Json {
        return None;
    }
    serde_json::from_slice(&payload.body).ok()
}

/// True if a message is an event that a client sent; cache channels do not keep these.
pub fn is_from_client(payload: &Payload) -> bool {
    stored(payload).is_some_and(|stored| stored.event.starts_with("client-"))
}

/// True if a message ends the connections of its channel's user.
pub fn is_terminate(payload: &Payload) -> bool {
    memchr::memmem::find(&payload.body, TERMINATE.as_bytes()).is_some()
        && stored(payload).is_some_and(|stored| stored.event == TERMINATE)
}

/// What the subscribers of `channel` get for a message.
pub fn deliver(channel: &str, payload: &Payload) -> Delivery {
    let mut frame = String::with_capacity(payload.body.len() + channel.len() + 48);
    frame.push_str("{\"event\":");
    let Some(Stored { event, data, user_id, except }) = stored(payload) else {
        push_string(&mut frame, "message");
        push_channel(&mut frame, channel);
        let text = match std::str::from_utf8(&payload.body) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(STANDARD.encode(&payload.body)),
        };
        push_string(&mut frame, &text);
        frame.push('}');
        return Delivery { except: None, frame };
    };
    push_string(&mut frame, &event);
    push_channel(&mut frame, channel);
    let data = data.map_or("null", RawValue::get);
    // Clients parse the data of a site's event, so it has to be a string; that of a client's event
    // reaches the others as it was sent.
    match data.starts_with('"') || event.starts_with("client-") {
        true => frame.push_str(data),
        false => push_string(&mut frame, data),
    }
    if let Some(user) = user_id {
        frame.push_str(",\"user_id\":");
        push_string(&mut frame, &user);
    }
    frame.push('}');
    Delivery { except: except.and_then(|mark| Mark::read(&mark)), frame }
}

fn push_channel(frame: &mut String, channel: &str) {
    frame.push_str(",\"channel\":");
    push_string(frame, channel);
    frame.push_str(",\"data\":");
}

#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    user: String,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
}

/// What the subscribers of a presence channel get for a message about its users, and the user whose
/// own connections do not; `None` = nothing.
pub fn deliver_member(channel: &str, payload: &Payload) -> Option<(Mark, String)> {
    let Change { kind, user, info } = serde_json::from_slice(&payload.body).ok()?;
    let info = info.map(RawValue::get).filter(|info| *info != "null");
    let frame = match &*kind {
        "join" => super::frame::member_added(channel, &user, info),
        "leave" => super::frame::member_removed(channel, &user),
        _ => return None,
    };
    Some((Mark::of(&user), frame))
}

/// What those get who watch a user, for a message about it; `None` = nothing.
pub fn deliver_watched(payload: &Payload) -> Option<String> {
    let Change { kind, user, .. } = serde_json::from_slice(&payload.body).ok()?;
    match &*kind {
        "join" => super::frame::watchlist(&[&user], &[]),
        "leave" => super::frame::watchlist(&[], &[&user]),
        _ => None,
    }
}

/// A delivery in the form of a transport, with the connection that does not get it before it, so
/// that one rendering is shared by all.
#[derive(Debug, Clone)]
pub struct Shared(Bytes);

const MARK: usize = size_of::<u64>();

impl Shared {
    /// Packs `bytes` for all connections but one.
    pub fn pack(except: Option<Mark>, bytes: &[u8]) -> Bytes {
        [&except.map_or(0, |mark| mark.0).to_be_bytes()[..], bytes].concat().into()
    }

    /// What [`Shared::pack`] made.
    pub fn of(packed: Bytes) -> Self {
        Self(packed)
    }

    /// The bytes for the connection of `mark`; `None` = they are not for it.
    pub fn for_connection(&self, mark: Mark) -> Option<Bytes> {
        let except = self.0.first_chunk::<MARK>().copied().map_or(0, u64::from_be_bytes);
        (except != mark.0).then(|| self.0.slice(MARK.min(self.0.len())..))
    }
}
