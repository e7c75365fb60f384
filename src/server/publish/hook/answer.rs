//! The JSON shapes of the hook's responses.

use crate::hub::Info;
use crate::hub::channel::{Position, ShownStamp, Stamp};
use crate::protocol::http::{Reply, retry_after};
use crate::server::publish::{PayloadError, PublishError, Receipt};
use serde::{Serialize, Serializer};
use std::fmt::Display;

#[derive(Serialize)]
struct Published<'a> {
    channel: &'a str,
    #[serde(serialize_with = "as_text")]
    id: Position,
    #[serde(serialize_with = "as_number")]
    stamp: ShownStamp,
    released: usize,
}

#[derive(Serialize)]
struct PositionFields {
    #[serde(serialize_with = "as_text")]
    id: Position,
    #[serde(serialize_with = "as_number")]
    stamp: ShownStamp,
}

#[derive(Serialize)]
struct Channel<'a> {
    channel: &'a str,
    held: usize,
    kept: usize,
    bytes: u64,
    epoch: String,
    newest: Option<PositionFields>,
    oldest: Option<PositionFields>,
}

#[derive(Serialize)]
struct Page<'a> {
    channels: Vec<Channel<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

/// One object for one message, an array if the request has the form for several.
pub(in crate::server::publish) fn published(receipts: &[Receipt], many: bool) -> Reply {
    match receipts {
        [only] if !many => Reply::json(200, &Published::of(only)),
        all => Reply::json(200, &all.iter().map(Published::of).collect::<Vec<_>>()),
    }
}

pub(in crate::server::publish) fn info(info: &Info) -> Reply {
    Reply::json(200, &Channel::of(info))
}

pub(in crate::server::publish) fn list(infos: &[Info], more: bool) -> Reply {
    let next = infos.last().filter(|_| more).map(|info| info.channel.as_str());
    Reply::json(200, &Page { channels: infos.iter().map(Channel::of).collect(), next })
}

pub(in crate::server::publish) fn forgotten(channel: &str, released: usize) -> Reply {
    Reply::json(200, &serde_json::json!({ "channel": channel, "released": released }))
}

impl<'a> Published<'a> {
    fn of(receipt: &'a Receipt) -> Self {
        let Receipt { channel, id, stamp, released } = receipt;
        Self { channel, id: *id, stamp: *stamp, released: *released }
    }
}

impl<'a> Channel<'a> {
    fn of(info: &'a Info) -> Self {
        let place =
            |(id, stamp): (Position, Stamp)| PositionFields { id, stamp: info.tick.show(stamp) };
        Self {
            channel: &info.channel,
            held: info.held,
            kept: info.kept,
            bytes: info.bytes,
            epoch: info.epoch.to_string(),
            newest: info.newest.map(place),
            oldest: info.oldest.map(place),
        }
    }
}

impl From<PublishError> for Reply {
    fn from(error: PublishError) -> Self {
        match &error {
            PublishError::TooLong { .. } => {
                Reply::error(413, &error, "send less, or raise history.max_message")
            }
            PublishError::TooSoon { wait } => {
                let hint = "nothing was published; send it again, or raise \
                            publish.messages_per_second";
                Reply::error(429, &error, hint).with("Retry-After", retry_after(*wait))
            }
            PublishError::TooMany { .. } => {
                let hint = "send fewer at once, or raise publish.messages_per_second";
                Reply::error(413, &error, hint)
            }
            PublishError::TableFull(_) => {
                let hint = "try again later, or raise history.channels";
                Reply::error(503, &error, hint).with("Retry-After", "5")
            }
            PublishError::Away(_) => {
                let hint = "nothing was published; try again later";
                Reply::error(503, &error, hint).with("Retry-After", "1")
            }
            PublishError::Unknown(_) => {
                let hint = "repeat it with the same Idempotency-Key: it is published once then";
                Reply::error(503, &error, hint).with("Retry-After", "1")
            }
            PublishError::Conflict => {
                Reply::error(422, &error, "send a new key with a new message")
            }
            PublishError::Ended => Reply::error(503, &error, "try again on a new connection"),
        }
    }
}

impl From<PayloadError> for Reply {
    fn from(error: PayloadError) -> Self {
        let (status, hint) = match &error {
            PayloadError::ContentType => (400, "send a plain type such as application/json"),
            PayloadError::NotUtf8 => (422, "encode it as UTF-8, as JSON has to be"),
            PayloadError::NotJson(_) => (422, "send valid JSON, or another Content-Type"),
            PayloadError::TooDeep => (422, "flatten it, or send it as text"),
        };
        Reply::error(status, &error, hint)
    }
}

fn as_text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// A shown stamp is a number already; through a float it would lose digits.
fn as_number<S: Serializer>(stamp: &ShownStamp, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::value::RawValue::from_string(stamp.to_string())
        .map_err(serde::ser::Error::custom)?
        .serialize(serializer)
}
