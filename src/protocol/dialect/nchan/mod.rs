//! The Nchan dialect: what clients of nginx with Nchan speak. An answer is one bare message; its
//! place is in `Last-Modified` and `ETag`, and in the id of an event (`docs/dialects/nchan.md`).
//!
//! Where Nchan says nothing of a gap, or holds a client whose place cannot be found, an answer
//! comes at once and bears `X-Pollgate-Reset: 1`.

mod id;
mod multipart;
mod stream;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use stream::{META_SUBPROTOCOL, chosen};

use super::{Parsed, Poll, Request, refused};
use crate::hub::channel::{
    ChannelName, Cursor, Lookup, Message, NameError, Payload, SiteName, Stamp, Take,
};
use crate::hub::{Answer, ChannelUpdate, Subscription};
use crate::protocol::http::query::decode_strictly;
use crate::protocol::http::{Reply, date};
use crate::protocol::template::Template;
use id::Id;
use smallvec::SmallVec;

/// Where a client without a place begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum First {
    /// With the oldest message kept.
    #[default]
    Oldest,
    /// With the next message published.
    Newest,
    /// With the `n`th message kept: the `n`th oldest, or the `-n`th newest.
    Nth(i32),
}

/// The form of an answer with all waiting messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// `multipart/mixed`: each with its content type.
    Multipart,
    /// The bodies, a line feed behind each.
    Raw,
}

/// The Nchan dialect.
#[derive(Debug, Clone, Default)]
pub struct Nchan {
    /// The channels, separated by commas; without it, the part of the path that the rule's `*`
    /// matches names them.
    pub channel: Option<Template>,
    /// The group of the channels: their names begin with it and a slash.
    pub group: Option<String>,
    /// Where a client without a place begins.
    pub first: First,
    /// Polls are never held.
    pub interval: bool,
    /// All waiting messages in one answer; `None` = one message an answer.
    pub batch: Option<Batch>,
    /// A request that chooses no transport gets a stream of the bodies, a line feed behind each.
    pub raw: bool,
    /// Channels that were never published to are refused.
    pub existing_only: bool,
}

/// The header that says that messages may be missing before this answer.
pub const RESET_HEADER: &str = "X-Pollgate-Reset";

/// The parameter of a stored content type that names the event of an event stream.
const EVENT_PARAMETER: &str = ";nchan-event=";

impl Nchan {
    pub(super) fn parse(&self, request: &Request<'_>) -> Parsed {
        let Some(names) = self.names(request) else { return Parsed::OtherRule };
        let names = match self.channels(&names, request.site) {
            Ok(names) => names,
            Err(error) => return refused(error),
        };
        let first = match self.first {
            First::Oldest => Cursor::Oldest,
            First::Newest | First::Nth(0) => Cursor::Now,
            First::Nth(n) => Cursor::Nth(n),
        };
        let cursors = match place(request) {
            Place::None => vec![first; names.len()],
            Place::At(second, tags) => id::cursors(second, tags.as_deref(), names.len())
                .unwrap_or_else(|| vec![Cursor::Lost; names.len()]),
            Place::Unknown => vec![Cursor::Lost; names.len()],
        };
        let subscriptions = names.into_iter().zip(cursors);
        Parsed::Poll(Poll {
            subscriptions: subscriptions
                .map(|(channel, cursor)| Subscription { channel, cursor })
                .collect(),
            take: if self.batch.is_some() { Take::All } else { Take::First },
            timeout: self.interval.then_some(std::time::Duration::ZERO),
            callback: None,
        })
    }

    /// The names as they are written, with their commas.
    fn names(&self, request: &Request<'_>) -> Option<Vec<u8>> {
        match &self.channel {
            Some(template) => Some(template.fill(|field| request.field(field))?.into_bytes()),
            // An escaped comma separates, too: nginx matches the decoded path.
            None => decode_strictly(request.stars.last()?).map(|names| names.into_owned()),
        }
    }

    /// The channels of a text, each in the group and the site.
    pub fn channels(
        &self,
        names: &[u8],
        site: &SiteName,
    ) -> Result<SmallVec<[ChannelName; 1]>, NameError> {
        let name = |name: &[u8]| in_group(site, self.group.as_deref(), name);
        names.split(|byte| *byte == b',').map(name).collect()
    }

    /// An upper bound of the channels that a request names.
    pub(super) fn count_channels(&self, request: &Request<'_>) -> usize {
        let names = self.names(request);
        1 + names.map_or(0, |names| memchr::memchr_iter(b',', &names).count())
    }

    /// True if the answer is a copy of its messages.
    pub(super) fn copies(&self, answer: &Answer) -> bool {
        self.batch.is_some() && answer.iter().any(|update| !update.found.messages.is_empty())
    }

    /// The response to a poll, with an update or quiet; `held` = it was held until now.
    pub(super) fn render(&self, answer: &Answer, held: bool) -> Reply {
        let reset = answer.iter().any(|update| update.found.reset);
        let any = answer.iter().any(|update| !update.found.messages.is_empty());
        let reply = match (any, reset) {
            (true, _) if self.batch.is_some() => self.all(answer),
            (true, _) => one(answer),
            (false, true) if held && is_gone(answer) => Reply::new(410, "", ""),
            (false, false) if !self.interval => placed(Reply::new(408, "", ""), end(answer)),
            (false, _) => placed(Reply::new(304, "", ""), end(answer)),
        };
        let reply = reply.with("Vary", "If-None-Match, If-Modified-Since");
        if reset { reply.with(RESET_HEADER, "1") } else { reply }
    }

    /// All messages in one answer.
    fn all(&self, answer: &Answer) -> Reply {
        let messages = in_order(answer);
        let mut body = Vec::new();
        let content_type = match (self.batch, messages.as_slice()) {
            // A single one is answered as ever.
            (Some(Batch::Multipart), [(_, message)]) => {
                body.extend_from_slice(&message.payload.body);
                media_type(&message.payload).to_owned()
            }
            (Some(Batch::Multipart), _) => {
                let boundary = multipart::boundary(messages.iter().map(|(_, message)| *message));
                multipart::begin(&mut body, &boundary);
                for (_, message) in &messages {
                    multipart::part(&mut body, &boundary, "", message);
                }
                body.extend_from_slice(multipart::END.as_bytes());
                multipart::content_type(&boundary)
            }
            _ => {
                for (_, message) in &messages {
                    body.extend_from_slice(&message.payload.body);
                    body.push(b'\n');
                }
                String::new()
            }
        };
        let from = messages.last().map(|(index, _)| *index);
        let place = answer.iter().map(ChannelUpdate::end).collect();
        let mut reply = placed(Reply::new(200, "", body), id::of(&place, from, |_| None));
        reply.content_type = content_type.into();
        reply.with("X-Content-Type-Options", "nosniff")
    }
}

/// The channel `name` of a group of a site.
fn in_group(site: &SiteName, group: Option<&str>, name: &[u8]) -> Result<ChannelName, NameError> {
    match group {
        None => ChannelName::from_bytes_of_site(site, name),
        Some(_) if name.is_empty() => Err(NameError::Empty),
        Some(group) => {
            ChannelName::from_bytes_of_site(site, &[group.as_bytes(), b"/", name].concat())
        }
    }
}

/// The second and the tag of a message, as publishers are given its id.
pub fn message_id(stamp: Stamp, tag: u64) -> String {
    format!("{}:{tag}", stamp.second())
}

/// The content type under which a message is stored that names an event, or has no type.
pub fn stored_type(content_type: Option<&str>, event: Option<&str>) -> String {
    let mut stored = content_type.unwrap_or_default().to_owned();
    if let Some(event) = event.filter(|event| !event.is_empty()) {
        stored.push_str(EVENT_PARAMETER);
        stored.push_str(event);
    }
    stored
}

/// The content type that a message was published with; empty = none.
fn media_type(payload: &Payload) -> &str {
    let stored = &*payload.content_type;
    stored.split_once(EVENT_PARAMETER).map_or(stored, |(media_type, _)| media_type)
}

/// The event that a message was published as.
fn event_name(payload: &Payload) -> Option<&str> {
    let (_, event) = payload.content_type.split_once(EVENT_PARAMETER)?;
    Some(event)
}

/// The place that a request names.
enum Place {
    None,
    At(u64, Option<String>),
    Unknown,
}

/// The place of a request: what was in an answer's headers, or an id.
fn place(request: &Request<'_>) -> Place {
    let header = |name| request.headers.get(name).map(str::trim).filter(|text| !text.is_empty());
    if let Some(since) = header("if-modified-since") {
        let Some(second) = date::read(since) else { return Place::Unknown };
        let tag = header("if-none-match").map(|tag| {
            // A proxy that compresses an answer makes its tag a weak one.
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag).to_owned()
        });
        return Place::At(second, tag);
    }
    let named = header("last-event-id").map(str::to_owned).or_else(|| {
        let filled = |name: &&str| request.query.text(name).filter(|id| !id.is_empty());
        super::stream::RESUME_NAMES.iter().find_map(filled).map(|id| id.into_owned())
    });
    // NchanSubscriber begins its long polls so, where it has an id from before.
    let Some(named) = named.or_else(|| header("etag").map(str::to_owned)) else {
        return Place::None;
    };
    match id::split(&named) {
        Some((second, tags)) => Place::At(second, tags.map(str::to_owned)),
        None => Place::Unknown,
    }
}

/// The messages of all channels, each with the index of its own.
fn in_order(answer: &Answer) -> Vec<(usize, &Message)> {
    let mut messages = Vec::new();
    for (index, update) in answer.iter().enumerate() {
        messages.extend(update.found.messages.iter().map(|message| (index, &**message)));
    }
    if answer.len() > 1 {
        messages.sort_by_key(|(index, message)| id::order(*index, message));
    }
    messages
}

/// An answer of one message: the first of all channels.
fn one(answer: &Answer) -> Reply {
    let firsts = answer.iter().enumerate().filter_map(|(index, update)| {
        update.found.messages.first().map(|message| (index, &**message))
    });
    let Some((from, message)) = firsts.min_by_key(|(index, message)| id::order(*index, message))
    else {
        return Reply::new(304, "", "");
    };
    let place: Answer = answer
        .iter()
        .enumerate()
        .map(|(index, update)| match index == from {
            true => update.after(message),
            false => update.before_messages(),
        })
        .collect();
    let pending = |index: usize| match index == from {
        true => None,
        false => answer[index].found.messages.first().map(|next| next.stamp),
    };
    let body = message.payload.body.clone();
    let mut reply = placed(Reply::new(200, "", body), id::of(&place, Some(from), pending));
    reply.content_type = media_type(&message.payload).to_owned().into();
    reply.with("X-Content-Type-Options", "nosniff")
}

/// The id of a client that has all of `answer`.
fn end(answer: &Answer) -> Id {
    id::of(answer, None, |_| None)
}

/// The reply with its place.
fn placed(reply: Reply, id: Id) -> Reply {
    let mut modified = String::with_capacity(29);
    date::write(&mut modified, id.second);
    reply.with("Last-Modified", modified).with("ETag", id.tag)
}

/// True if a channel was deleted under a client that waited on it.
fn is_gone(answer: &Answer) -> bool {
    let is_none = |found: &Lookup| {
        found.reset && (found.position.epoch.is_clock() || found.position.seq == 0)
    };
    answer.iter().any(|update| is_none(&update.found))
}
