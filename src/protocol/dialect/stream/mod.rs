//! Streams: what a dialect's messages look like on a transport that stays open.
//!
//! A stream is a place in its channels that moves. `stream_events` writes what came after that
//! place and moves it along, event by event, so that whatever breaks off can go on from the last
//! event. Where an event is the same for all clients (one channel, its newest message), it is
//! rendered once for each transport and shared.

pub(super) mod event;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use super::{Dialect, PHP_CONTENT_TYPE, native_cursor, novcomet};
use crate::hub::channel::{Message, RenderKey, Time};
use crate::hub::{Answer, ChannelUpdate};
use crate::protocol::http::query::Query;
use crate::protocol::http::websocket::{self, CloseCode, Opcode};
use crate::protocol::http::{Headers, Reply};
use bytes::Bytes;
use event::Content;
use smallvec::SmallVec;

/// The way in which answers travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Transport {
    /// One answer to one request.
    #[default]
    Poll,
    /// Server-Sent Events (WHATWG HTML, section 9.2).
    Sse,
    /// WebSocket (RFC 6455).
    WebSocket,
    /// A line of JSON for each event.
    Chunked,
    /// A page of scripts in a hidden frame.
    Iframe,
    /// `multipart/mixed`: a part for each message.
    Multipart,
}

/// Names in the query under which clients send the id of the last event they got.
pub(super) const RESUME_NAMES: [&str; 4] =
    ["lastEventId", "last_event_id", "lastEventID", "last-event-id"];

impl Transport {
    /// All of them, with their names in the config and in `?transport=`.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("poll", Self::Poll),
        ("sse", Self::Sse),
        ("ws", Self::WebSocket),
        ("chunked", Self::Chunked),
        ("iframe", Self::Iframe),
        ("multipart", Self::Multipart),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, one)| *one == self).map_or("", |(name, _)| name)
    }

    /// The one that a request chooses; `None` = it names one that does not exist.
    pub fn chosen(headers: &dyn Headers, query: &Query<'_>) -> Option<Self> {
        if headers.get("upgrade").is_some_and(|to| to.trim().eq_ignore_ascii_case("websocket")) {
            return Some(Self::WebSocket);
        }
        if let Some(accept) = headers.get("accept") {
            let types = || accept.split([',', ';']).map(str::trim);
            if types().any(|one| one.eq_ignore_ascii_case("text/event-stream")) {
                return Some(Self::Sse);
            }
            if types().any(|one| one.eq_ignore_ascii_case("application/x-ndjson")) {
                return Some(Self::Chunked);
            }
        }
        let Some(name) = query.text("transport") else { return Some(Self::Poll) };
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, transport)| *transport)
    }
}

/// What a stream's events look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// The transport.
    pub transport: Transport,
    /// An event is the message's data and nothing else (`format=data`).
    pub only_data: bool,
    /// A message is its body and a line feed (a raw stream of Nchan's).
    pub raw: bool,
    /// A WebSocket's subprotocol was agreed on: a frame is a whole answer.
    pub answers: bool,
    /// A WebSocket's frames begin with the id and the content type of their message.
    pub meta: bool,
    /// The function that an iframe's scripts call.
    pub callback: Option<Box<str>>,
    /// The nonce of an iframe's scripts, empty = none; the boundary between parts.
    pub nonce: Box<str>,
}

impl Format {
    /// The plain format of a transport.
    pub fn of(transport: Transport) -> Self {
        let callback = None;
        let nonce = Box::default();
        let only_data = false;
        let raw = false;
        let answers = false;
        let meta = false;
        Self { transport, only_data, raw, answers, meta, callback, nonce }
    }
}

/// The one subprotocol that native WebSockets have.
pub const SUBPROTOCOL: &str = "pollgate.v1";

/// What is written at once.
#[derive(Debug, Default)]
pub struct Batch {
    /// The bytes; shared ones are pieces of their own.
    pub pieces: SmallVec<[Bytes; 1]>,
    /// How many events they are.
    pub events: u64,
    /// The stream ends after them.
    pub close: Option<Close>,
}

/// The end of a stream that its messages bring about.
#[derive(Debug, Clone, Copy)]
pub struct Close {
    /// A WebSocket's close code.
    pub code: CloseCode,
    /// The reason beside it.
    pub reason: &'static str,
}

impl Batch {
    fn one(bytes: impl Into<Bytes>, events: u64) -> Self {
        Self { pieces: SmallVec::from_elem(bytes.into(), 1), events, close: None }
    }
}

/// A batch grows by another message only below this many bytes of bodies; what is left is read
/// again once the batch is written.
const MAX_BATCH: u64 = 64 << 10;

/// How long an iframe's first comment is: browsers used to hold back shorter beginnings.
const PADDING: usize = 1024;

impl Dialect {
    /// The id of the event that leaves a client at `place`.
    pub fn stream_cursor(&self, place: &Answer) -> String {
        let mut out = String::new();
        match (self, place.first()) {
            (Self::Nchan(nchan), _) => out = nchan.stream_cursor(place),
            (Self::NovComet(_), _) => novcomet::write_cursor(&mut out, place),
            (Self::Timestamp(timestamp), Some(update)) if !timestamp.is_bare() => {
                out = update.tick.show(update.found.stamp).to_string();
            }
            (Self::Timestamp(_), Some(update)) => out = update.found.position.to_string(),
            _ => native_cursor::encode(&mut out, place),
        }
        out
    }

    /// The head of a stream; its body follows event by event.
    pub fn stream_head(&self, format: &Format) -> Reply {
        if let Self::Nchan(nchan) = self {
            return nchan.stream_head(format);
        }
        match format.transport {
            Transport::Sse => Reply::new(200, "text/event-stream", ""),
            Transport::Chunked => Reply::new(200, "application/x-ndjson", ""),
            Transport::Iframe => {
                Reply::new(200, PHP_CONTENT_TYPE, "").with("X-Content-Type-Options", "nosniff")
            }
            Transport::WebSocket | Transport::Multipart | Transport::Poll => {
                Reply::new(101, "", "")
            }
        }
    }

    /// A stream's first bytes. `retry` is after how many milliseconds its client comes back.
    pub fn stream_opening(&self, format: &Format, retry: u128) -> String {
        if let Self::Nchan(nchan) = self {
            return nchan.stream_opening(format);
        }
        match format.transport {
            Transport::Sse => format!("retry: {retry}\n"),
            Transport::Iframe => {
                let padding = " ".repeat(PADDING);
                format!("<!DOCTYPE html><meta charset=\"UTF-8\"><!--{padding}-->\n")
            }
            Transport::Chunked | Transport::WebSocket | Transport::Multipart | Transport::Poll => {
                String::new()
            }
        }
    }

    /// The event that only says where the client is: the first of every stream.
    pub fn stream_place(&self, format: &Format, place: &Answer) -> Option<Bytes> {
        if let Self::Nchan(nchan) = self {
            return nchan.stream_place(format, place);
        }
        let cursor = self.stream_cursor(place);
        let mut out = Vec::new();
        match format.transport {
            Transport::Sse => event::sse(&mut out, Some("cursor"), &cursor, ""),
            Transport::Chunked => {
                out.extend_from_slice(format!("{{\"cursor\":\"{cursor}\"}}\n").as_bytes());
            }
            Transport::WebSocket if format.answers => {
                return Some(
                    websocket::frame(Opcode::Text, super::native::body(place).as_bytes()).into(),
                );
            }
            // A frame is loaded again with the cursor of its last event; one that had none begins
            // where the stream's end says.
            Transport::Iframe | Transport::WebSocket | Transport::Multipart | Transport::Poll => {
                return None;
            }
        }
        Some(out.into())
    }

    /// The event with the list of users, which is JSON; `None` = the transport has no place for it.
    pub fn stream_presence(&self, format: &Format, place: &Answer, list: &str) -> Option<Bytes> {
        let cursor = self.stream_cursor(place);
        let mut out = Vec::new();
        match format.transport {
            Transport::WebSocket if format.answers => {
                let answer = super::native::body_with_presence(place, list);
                websocket::write(&mut out, Opcode::Text, answer.as_bytes());
            }
            Transport::WebSocket | Transport::Poll => return None,
            _ => event::presence(&mut out, format, &cursor, list),
        }
        Some(out.into())
    }

    /// Writes what `found` has for a client at `place`. The second value is where the client is
    /// afterwards, if that is before the end of what was found.
    pub fn stream_events(
        &self,
        format: &Format,
        place: &Answer,
        found: &Answer,
    ) -> (Batch, Option<Answer>) {
        let bytes = || found.iter().flat_map(|update| &update.found.messages).map(|it| it.len());
        let fits = found.iter().all(|update| update.found.messages.len() <= 1)
            || bytes().sum::<u64>() <= MAX_BATCH;
        if fits {
            return (self.stream_batch(format, place, found), None);
        }
        let (some, all) = some_of(place, found);
        let part = (!all).then(|| some.iter().map(ChannelUpdate::end).collect());
        (self.stream_batch(format, place, &some), part)
    }

    fn stream_batch(&self, format: &Format, place: &Answer, found: &Answer) -> Batch {
        if let [ChannelUpdate { found: lookup, .. }] = found.as_slice()
            && let (Some(renders), Some(key), false) =
                (&lookup.renders, self.stream_key(format), lookup.reset)
            && lookup.messages.len() == 1
        {
            let render = || match self {
                Self::Nchan(nchan) => {
                    let batch = nchan.stream_batch(format, place, found);
                    batch.pieces.into_iter().next().unwrap_or_default()
                }
                _ => self.write_events(format, place, found).0.into(),
            };
            let bytes = renders.get_or_render(key, render);
            return if bytes.is_empty() { Batch::default() } else { Batch::one(bytes, 1) };
        }
        if let Self::Nchan(nchan) = self {
            return nchan.stream_batch(format, place, found);
        }
        let (bytes, events) = self.write_events(format, place, found);
        match bytes.is_empty() {
            true => Batch::default(),
            false => Batch::one(bytes, events),
        }
    }

    /// Names the bytes of an event that are the same for all clients of a transport.
    pub fn stream_key(&self, format: &Format) -> Option<RenderKey> {
        let dialect = match self {
            Self::Native(_) => RenderKey::NATIVE,
            Self::NovComet(_) => RenderKey::NOVCOMET,
            Self::Timestamp(timestamp) => timestamp.key,
            Self::Nchan(_) => RenderKey::NCHAN,
            Self::Replay(_) | Self::None => return None,
        };
        let way = match (format.transport, format.only_data, format.answers) {
            (Transport::Sse, false, _) => 1,
            (Transport::Sse, true, _) => 2,
            (Transport::Chunked, ..) if format.raw => 8,
            (Transport::Chunked, false, _) => 3,
            (Transport::Chunked, true, _) => 4,
            (Transport::WebSocket, _, true) => 5,
            (Transport::WebSocket, _, false) if format.meta => 7,
            (Transport::WebSocket, _, false) => 6,
            // What they call is the client's choice.
            (Transport::Iframe | Transport::Multipart | Transport::Poll, ..) => return None,
        };
        Some(dialect.variant(way))
    }

    fn write_events(&self, format: &Format, place: &Answer, found: &Answer) -> (Vec<u8>, u64) {
        let mut out = Vec::new();
        if !found.iter().any(|update| update.found.has_update) {
            return (out, 0);
        }
        if format.answers {
            let answer = super::native::body(found);
            websocket::write(&mut out, Opcode::Text, answer.as_bytes());
            return (out, 1);
        }
        let mut place = place.clone();
        let mut events = 0;
        for (index, update) in
            found.iter().enumerate().filter(|(_, update)| update.found.has_update)
        {
            if update.found.reset {
                place[index] = update.before_messages();
                event::reset(&mut out, format, &update.channel, &self.stream_cursor(&place));
            }
            if let Self::NovComet(_) = self {
                place[index] = update.at(update.found.position, update.found.stamp);
                continue;
            }
            for message in &update.found.messages {
                place[index] = update.after(message);
                let content = self.content(format, update, message);
                event::write(&mut out, format, &self.stream_cursor(&place), content);
                events += 1;
            }
        }
        if let Self::NovComet(_) = self {
            let body = novcomet::body(found);
            event::write(&mut out, format, &self.stream_cursor(&place), Content::Json(body.into()));
            events += 1;
        }
        (out, events)
    }

    /// What an event holds: an element of a native answer, or the body of another dialect's.
    fn content<'a>(
        &self,
        format: &Format,
        update: &ChannelUpdate,
        message: &'a Message,
    ) -> Content<'a> {
        let bare = match self {
            Self::Timestamp(timestamp) => timestamp.is_bare(),
            _ => format.only_data || format.transport == Transport::WebSocket,
        };
        if bare {
            return Content::of(&message.payload);
        }
        match self {
            Self::Timestamp(timestamp) => {
                let stamp = update.tick.show(message.stamp);
                Content::Json(timestamp.body_of(Some(message), Some(stamp)).into())
            }
            _ => {
                let mut out = String::new();
                super::native::write_message(&mut out, &update.channel, update.tick, message);
                Content::Event(out)
            }
        }
    }

    /// The bytes that keep an idle stream alive.
    pub fn stream_heartbeat(&self, format: &Format) -> Vec<u8> {
        if let Self::Nchan(nchan) = self {
            return nchan.stream_heartbeat(format);
        }
        match format.transport {
            Transport::Sse => b":\n".to_vec(),
            Transport::WebSocket => websocket::frame(Opcode::Ping, b""),
            Transport::Chunked | Transport::Iframe | Transport::Multipart | Transport::Poll => {
                b"\n".to_vec()
            }
        }
    }

    /// A stream's last bytes, after which its client comes back in `retry` milliseconds.
    pub fn stream_end(&self, format: &Format, place: &Answer, retry: u128) -> String {
        if let Self::Nchan(nchan) = self {
            return nchan.stream_end(format, retry);
        }
        match format.transport {
            Transport::Sse => format!("retry: {retry}\n\n"),
            Transport::Iframe => event::reload(format, &self.stream_cursor(place), retry),
            Transport::Chunked | Transport::WebSocket | Transport::Multipart | Transport::Poll => {
                String::new()
            }
        }
    }
}

/// As much of `found` as goes into one batch, and whether that is all.
fn some_of(place: &Answer, found: &Answer) -> (Answer, bool) {
    let mut bytes = 0;
    let mut all = true;
    let some = found.iter().zip(place).map(|(update, before)| {
        let mut taken = 0;
        for message in &update.found.messages {
            if bytes > 0 && bytes + message.len() > MAX_BATCH {
                break;
            }
            bytes += message.len().max(1);
            taken += 1;
        }
        if taken == update.found.messages.len() {
            return update.clone();
        }
        all = false;
        let Some(last) = taken.checked_sub(1).and_then(|at| update.found.messages.get(at)) else {
            let mut none = before.clone();
            none.found.as_of = Time(0);
            return none;
        };
        let mut some = update.after(last);
        // What is left is not seen in this part.
        (some.found.before, some.found.as_of) = (update.found.before, Time(0));
        (some.found.has_update, some.found.reset) = (true, update.found.reset);
        some.found.messages = update.found.messages.iter().take(taken).cloned().collect();
        some
    });
    let some = some.collect();
    (some, all)
}

/// The end of a WebSocket.
pub fn close_frame(code: CloseCode, reason: &str) -> Bytes {
    websocket::close(code, reason).into()
}
