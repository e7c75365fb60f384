//! The signed requests of the site: who may ask, and what is asked.
//!
//! A request is signed with the app's secret over its method, path and parameters, of which one is
//! the MD5 of its body. It is good for ten minutes around its timestamp.

use super::App;
use super::channel::is_name;
use crate::protocol::http::Request;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Channels of one event, at the most.
pub const MAX_CHANNELS: usize = 100;

/// Events of one batch, at the most.
pub const MAX_BATCH: usize = 10;

/// Seconds by which the site's clock and this one's may differ.
const MAX_SKEW: u64 = 600;

/// A refusal: the status, and words for the reader of the exception.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// What is wrong.
    pub error: Cow<'static, str>,
}

impl Refusal {
    /// A refusal.
    pub fn new(status: u16, error: impl Into<Cow<'static, str>>) -> Self {
        Self { status, error: error.into() }
    }
}

/// Checks the signature of a request for `app` at `now`, in seconds since 1970.
pub fn authorize(app: &App, request: &Request, now: u64) -> Result<(), Refusal> {
    let refuse = |error: &'static str| Err(Refusal::new(401, error));
    let parameters = parameters(&request.query);
    let of = |name: &str| {
        let found = parameters.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    };
    if of("auth_key") != Some(&*app.key) {
        return refuse("auth_key is not the key of this app");
    }
    if of("auth_version") != Some("1.0") {
        return refuse("auth_version must be 1.0");
    }
    let Some(signature) = of("auth_signature") else {
        return refuse("auth_signature is missing");
    };
    let mut signed: Vec<&(String, String)> =
        parameters.iter().filter(|(name, _)| name != "auth_signature").collect();
    signed.sort_by_key(|(name, _)| name.to_ascii_lowercase());
    let signed: Vec<String> =
        signed.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let text = |path: &str| format!("{}\n{path}\n{}", request.method, signed.join("&"));
    // Libraries sign the path as they write it; some escape it afterwards.
    let plain = percent_decode_str(&request.path).decode_utf8_lossy();
    let verifies = |path: &str| app.signer.verify(text(path).as_bytes(), signature);
    if !verifies(&request.path) && !verifies(&plain) {
        return refuse("auth_signature is wrong: check the app's secret, and what is signed");
    }
    let timestamp = of("auth_timestamp").and_then(|text| text.parse::<u64>().ok());
    if timestamp.is_none_or(|timestamp| timestamp.abs_diff(now) > MAX_SKEW) {
        return refuse("auth_timestamp is more than 600 seconds from this machine's clock");
    }
    let md5 = || format!("{:x}", md5::compute(&request.body));
    match of("body_md5") {
        None if request.body.is_empty() => Ok(()),
        Some(signed) if signed == md5() => Ok(()),
        _ => refuse("body_md5 is not the MD5 of the body"),
    }
}

/// The parameters of a query, decoded; the elements of an array are one value, as they are signed.
fn parameters(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    let mut all: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()).take(100) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name);
        let value = decode(value);
        let (name, is_element) = match name.split_once('[') {
            Some((name, _)) => (name.to_owned(), true),
            None => (name, false),
        };
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, before)) if is_element => {
                before.push(',');
                before.push_str(&value);
            }
            _ => all.push((name, value)),
        }
    }
    all
}

/// The parameter `name` of a request.
pub fn parameter(request: &Request, name: &str) -> Option<String> {
    parameters(&request.query).into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

/// What a request wants to know of channels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Info {
    /// How many users are on a presence channel.
    pub users: bool,
    /// How many connections subscribe.
    pub subscriptions: bool,
    /// The newest event of a cache channel.
    pub cache: bool,
}

impl Info {
    /// The attributes of a comma-separated list; unknown ones are left out, as the protocol grows.
    pub fn of(text: Option<&str>) -> Self {
        let mut info = Self::default();
        for attribute in text.unwrap_or_default().split(',').map(str::trim) {
            match attribute {
                "user_count" => info.users = true,
                "subscription_count" => info.subscriptions = true,
                "cache" => info.cache = true,
                _ => {}
            }
        }
        info
    }

    /// True if something is asked for.
    pub fn is_some(self) -> bool {
        self != Self::default()
    }
}

/// One event that the site publishes.
#[derive(Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// Its data, as a JSON string.
    pub data: String,
    /// The channels it is for, each once.
    pub channels: Vec<String>,
    /// The connection that does not get it.
    pub except: Option<String>,
    /// What to answer of the channels.
    pub info: Info,
}

#[derive(Deserialize)]
struct Posted<'a> {
    name: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    channels: Option<Vec<String>>,
    channel: Option<String>,
    socket_id: Option<String>,
    info: Option<String>,
}

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    batch: Vec<Posted<'a>>,
}

/// Reads the body of `POST /events`; data is at most `most` bytes long.
pub fn events(body: &[u8], most: usize) -> Result<Trigger, Refusal> {
    let posted = serde_json::from_slice::<Posted<'_>>(body).map_err(malformed)?;
    trigger(posted, most)
}

/// Reads the body of `POST /batch_events`.
pub fn batch(body: &[u8], most: usize) -> Result<Vec<Trigger>, Refusal> {
    let Batch { batch } = serde_json::from_slice(body).map_err(malformed)?;
    if batch.len() > MAX_BATCH {
        return Err(Refusal::new(422, "a batch has at most 10 events"));
    }
    batch.into_iter().map(|posted| trigger(posted, most)).collect()
}

fn malformed(error: serde_json::Error) -> Refusal {
    Refusal::new(400, format!("the body is not what it should be: {error}"))
}

fn trigger(posted: Posted<'_>, most: usize) -> Result<Trigger, Refusal> {
    let Posted { name, data, channels, channel, socket_id, info } = posted;
    let name = name.filter(|name| !name.is_empty());
    let name = name.ok_or(Refusal::new(422, "\"name\", the event's name, is missing"))?;
    if name.len() > super::command::MAX_EVENT_NAME {
        return Err(Refusal::new(422, "the event's name is longer than 200 bytes"));
    }
    let data = data.ok_or(Refusal::new(422, "\"data\", the event's data, is missing"))?.get();
    let (data, length) = match serde_json::from_str::<Cow<'_, str>>(data) {
        Ok(text) => (data.to_owned(), text.len()),
        // Data is a string; a program of one's own may send JSON as it is.
        Err(_) => (super::lines::element(data), data.len()),
    };
    if length > most {
        let error = format!("the event's data has {length} bytes, more than {most} (max_event)");
        return Err(Refusal::new(413, error));
    }
    let mut all = channels.unwrap_or_default();
    all.extend(channel);
    if all.is_empty() {
        return Err(Refusal::new(422, "\"channels\" is missing"));
    }
    if all.len() > MAX_CHANNELS {
        return Err(Refusal::new(422, "an event is for at most 100 channels"));
    }
    let mut channels = Vec::with_capacity(all.len());
    for channel in all {
        if !is_name(&channel) {
            let error = format!("{channel:?} is no channel name: -A-Za-z0-9_=@,.; and at most 164");
            return Err(Refusal::new(422, error));
        }
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }
    if channels.len() > 1 && channels.iter().any(|name| name.starts_with("private-encrypted-")) {
        let error = "an event for an encrypted channel is for that channel alone";
        return Err(Refusal::new(422, error));
    }
    if socket_id.as_ref().is_some_and(|id| !super::SocketId::is_valid(id)) {
        return Err(Refusal::new(422, "\"socket_id\" is none"));
    }
    Ok(Trigger { name, data, channels, except: socket_id, info: Info::of(info.as_deref()) })
}
