//! The dialect's messages on transports that stay open.

use super::{First, Nchan, event_name, id, is_gone, media_type, multipart};
use crate::hub::channel::{Kind, Message, Stamp};
use crate::hub::{Answer, ChannelUpdate};
use crate::protocol::dialect::stream::{Batch, Close, Format, Transport, event};
use crate::protocol::http::query::Query;
use crate::protocol::http::websocket::{self, CloseCode, Opcode};
use crate::protocol::http::{Headers, Reply};
use bytes::Bytes;
use smallvec::SmallVec;

/// The subprotocol of WebSockets whose frames begin with the message's id and content type.
pub const META_SUBPROTOCOL: &str = "ws+meta.nchan";

impl Nchan {
    /// True if a request gets a stream of bodies, since it chooses no transport.
    pub fn is_raw(&self, headers: &dyn Headers, query: &Query<'_>) -> bool {
        let plain = Transport::chosen(headers, query) == Some(Transport::Poll);
        self.raw && plain && !query.has("transport") && chosen(headers, query).is_none()
    }
}

/// The transport that a request chooses, if Nchan has a way of its own to say so.
pub fn chosen(headers: &dyn Headers, query: &Query<'_>) -> Option<Transport> {
    let names = |header: &str, name: &str| {
        let value = headers.get(header).unwrap_or_default();
        value.split([',', ';']).any(|one| one.trim().eq_ignore_ascii_case(name))
    };
    if headers.get("upgrade").is_some() || query.has("transport") {
        return None;
    }
    if names("accept", "text/event-stream") {
        return None;
    }
    match (names("accept", "multipart/mixed"), names("te", "chunked")) {
        (true, _) => Some(Transport::Multipart),
        (_, true) => Some(Transport::Chunked),
        _ => None,
    }
}

impl Nchan {
    /// The id of the event that leaves a client at `place`.
    pub(in crate::protocol::dialect) fn stream_cursor(&self, place: &Answer) -> String {
        id::of(place, None, |_| None).whole()
    }

    pub(in crate::protocol::dialect) fn stream_head(&self, format: &Format) -> Reply {
        match format.transport {
            Transport::Sse => Reply::new(200, "text/event-stream; charset=utf-8", ""),
            Transport::Multipart => {
                let mut head = Reply::new(200, "", "");
                head.content_type = multipart::content_type(&format.nonce).into();
                head
            }
            Transport::WebSocket => Reply::new(101, "", ""),
            Transport::Chunked | Transport::Iframe | Transport::Poll => Reply::new(200, "", ""),
        }
    }

    pub(in crate::protocol::dialect) fn stream_opening(&self, format: &Format) -> String {
        match format.transport {
            Transport::Sse => ": hi\n\n".to_owned(),
            Transport::Multipart => format!("--{}", format.nonce),
            _ => String::new(),
        }
    }

    /// An event that pages do not see: without it, a client that begins with the next message
    /// would miss what comes before it has had one.
    pub(in crate::protocol::dialect) fn stream_place(
        &self,
        format: &Format,
        place: &Answer,
    ) -> Option<Bytes> {
        let wanted = self.first != First::Oldest && format.transport == Transport::Sse;
        wanted.then(|| {
            let mut out = Vec::new();
            event::sse(&mut out, Some("cursor"), &self.stream_cursor(place), "");
            out.into()
        })
    }

    pub(in crate::protocol::dialect) fn stream_heartbeat(&self, format: &Format) -> Vec<u8> {
        match format.transport {
            Transport::Sse => b":\n".to_vec(),
            Transport::WebSocket => websocket::frame(Opcode::Ping, b""),
            // All that stands between two messages would be one.
            _ => Vec::new(),
        }
    }

    pub(in crate::protocol::dialect) fn stream_end(&self, format: &Format, retry: u128) -> String {
        match format.transport {
            Transport::Sse => format!("retry: {retry}\n\n"),
            Transport::Multipart => multipart::END.to_owned(),
            _ => String::new(),
        }
    }

    /// What `found` has for a client at `place`.
    pub(in crate::protocol::dialect) fn stream_batch(
        &self,
        format: &Format,
        place: &Answer,
        found: &Answer,
    ) -> Batch {
        let mut batch = Batch::default();
        if !found.iter().any(|update| update.found.has_update) {
            return batch;
        }
        let mut place = place.clone();
        for (place, update) in place.iter_mut().zip(found) {
            place.found.as_of = update.found.as_of;
        }
        let mut out = Vec::new();
        let mut reset = false;
        for (index, update) in found.iter().enumerate().filter(|(_, update)| update.found.reset) {
            place[index] = update.before_messages();
            reset = true;
            if format.transport == Transport::Sse {
                event::reset(&mut out, format, &update.channel, &self.stream_cursor(&place));
            }
        }
        let messages = super::in_order(found);
        if messages.is_empty() && is_gone(found) {
            if format.transport == Transport::Sse {
                out = b":410: 410 Gone\n\n".to_vec();
            }
            batch.close = Some(Close { code: CloseCode::GoingAway, reason: "410 Gone" });
        }
        let mut sent: SmallVec<[usize; 4]> = SmallVec::from_elem(0, found.len());
        for (index, message) in messages {
            place[index] = found[index].after(message);
            sent[index] += 1;
            let id = id::of(&place, Some(index), |channel| next(&found[channel], sent[channel]));
            match format.transport {
                Transport::Sse => write_event(&mut out, &id.whole(), message),
                Transport::WebSocket => write_frame(&mut out, format, &id.whole(), message),
                Transport::Multipart => {
                    let headers = multipart::headers(&id, std::mem::take(&mut reset));
                    multipart::part(&mut out, &format.nonce, &headers, message);
                }
                _ if format.raw => {
                    out.extend_from_slice(&message.payload.body);
                    out.push(b'\n');
                }
                // A chunk is a message, and one without bytes would be the end.
                _ if message.is_empty() => continue,
                _ => batch.pieces.push(message.payload.body.clone()),
            }
            batch.events += 1;
        }
        if !out.is_empty() {
            batch.pieces.push(out.into());
        }
        batch
    }
}

/// The stamp of the next message of `update` after the first `sent`.
fn next(update: &ChannelUpdate, sent: usize) -> Option<Stamp> {
    update.found.messages.get(sent).map(|message| message.stamp)
}

/// Appends an event. Line ends within the data begin another line of it.
fn write_event(out: &mut Vec<u8>, id: &str, message: &Message) {
    if let Some(event) = event_name(&message.payload) {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(event.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(id.as_bytes());
    let mut rest = &message.payload.body[..];
    loop {
        let end = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        out.extend_from_slice(b"\ndata: ");
        out.extend_from_slice(&rest[..end]);
        if end == rest.len() {
            break;
        }
        let skip = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + skip..];
    }
    out.extend_from_slice(b"\n\n");
}

/// Appends a frame: the body, behind the id and the content type where that was agreed on.
fn write_frame(out: &mut Vec<u8>, format: &Format, id: &str, message: &Message) {
    let payload = &message.payload;
    let media_type = media_type(payload);
    let binary = payload.kind == Kind::Binary || media_type == "application/octet-stream";
    let opcode = if binary { Opcode::Binary } else { Opcode::Text };
    if !format.meta {
        return websocket::write(out, opcode, &payload.body);
    }
    let mut frame = format!("id: {id}\n").into_bytes();
    if !media_type.is_empty() {
        frame.extend_from_slice(b"content-type: ");
        frame.extend_from_slice(media_type.as_bytes());
        frame.push(b'\n');
    }
    frame.push(b'\n');
    frame.extend_from_slice(&payload.body);
    websocket::write(out, opcode, &frame);
}
