//! The client's side of a socket: its frames, and the items for it.

use super::session::{End, Session};
use crate::hub::channel::Time;
use crate::protocol::grip::Item;
use crate::protocol::grip::events::{Event, Kind, Message};
use crate::protocol::grip::item::{Action, Content, MessageType};
use crate::protocol::http::websocket::{self, CloseCode, Frame, Opcode};
use crate::server::gate::grip::subscription::News;
use crate::server::gate::poll::hold::Cause;
use crate::server::gate::serve::Framed;
use bytes::Bytes;
use std::sync::atomic::Ordering;

/// The longest message of a client's.
const MAX_MESSAGE: usize = 200_000;
/// Bytes of items that are gathered before they are written.
const MAX_BATCH: usize = 64 << 10;

/// Puts a client's messages together (RFC 6455, section 5.4).
#[derive(Default)]
pub(super) struct Reader {
    begun: Option<Box<(Kind, Vec<u8>)>>,
}

impl Reader {
    /// The longest payload that the next frame may have.
    pub(super) fn room(&self) -> u64 {
        let begun = self.begun.as_ref().map_or(0, |begun| begun.1.len());
        MAX_MESSAGE.saturating_sub(begun) as u64
    }

    /// Takes a frame of a message; `None` = it is not whole yet.
    fn take(&mut self, frame: Frame) -> Result<Option<Event>, CloseCode> {
        let kind = match (frame.opcode, &self.begun) {
            (Opcode::Text, None) => Kind::Text,
            (Opcode::Binary, None) => Kind::Binary,
            (Opcode::Continuation, Some(begun)) => begun.0,
            _ => return Err(CloseCode::Protocol),
        };
        let content = match self.begun.take() {
            None if frame.fin => frame.payload,
            begun => {
                let mut begun = begun.unwrap_or_else(|| Box::new((kind, Vec::new())));
                begun.1.extend_from_slice(&frame.payload);
                if !frame.fin {
                    self.begun = Some(begun);
                    return Ok(None);
                }
                begun.1.into()
            }
        };
        if kind == Kind::Text && std::str::from_utf8(&content).is_err() {
            return Err(CloseCode::Invalid);
        }
        Ok(Some(Event::with(kind, content)))
    }
}

impl Session {
    /// Takes what the client does.
    pub(super) fn on_frame(&mut self, framed: Framed) {
        let frame = match framed {
            Framed::Frame(frame) => frame,
            Framed::Gone => {
                self.end.get_or_insert(End { cause: Cause::Gone, close: None });
                return;
            }
            Framed::Wrong(code) => return self.wrong(code),
        };
        match frame.opcode {
            Opcode::Ping => websocket::write(&mut self.out, Opcode::Pong, &frame.payload),
            Opcode::Pong => {}
            Opcode::Close => match websocket::close_answer(&frame.payload) {
                Err(code) => self.wrong(code),
                Ok(_) => {
                    let content = (!frame.payload.is_empty()).then(|| frame.payload.clone());
                    self.push(Event { kind: Kind::Close, content });
                    // Answered with its code alone, unless the site says something else.
                    let answer = frame.payload.slice(..frame.payload.len().min(2));
                    self.closing = Some((answer, None));
                }
            },
            _ => match self.reader.take(frame) {
                Ok(Some(event)) => self.push(event),
                Ok(None) => {}
                Err(code) => self.wrong(code),
            },
        }
    }

    fn wrong(&mut self, code: CloseCode) {
        let close = super::close_payload(code as u16, "");
        self.gone(None);
        self.end.get_or_insert(End { cause: Cause::Gone, close: Some(close) });
    }

    /// Has the items that are there sent.
    pub(super) fn deliver(&mut self, now: Time) {
        while self.out.len() < MAX_BATCH && self.end.is_none() {
            let Some(news) = self.subscription.as_mut().and_then(|it| it.next(now)) else { break };
            // What a socket misses is the site's to find, which sees no gap but by its own ids.
            let News::Item(index, item, published) = news else { continue };
            self.on_item(index, &item);
            self.gate.written(Some(published));
        }
    }

    fn on_item(&mut self, index: usize, item: &Item) {
        let (Some(format), Some(subscription)) = (&item.formats.ws_message, &self.subscription)
        else {
            return;
        };
        let content = format.content.clone().map(Content::bytes).unwrap_or_default();
        let made_for = &format.content_filters;
        let content = subscription.content((index, item), made_for, content, &self.meta);
        let Some(content) = content else { return };
        match format.action {
            Action::Send => {
                let shared = &self.gate.shared;
                shared.counters.deliveries.fetch_add(1, Ordering::Relaxed);
                shared.counters.releases.count(Cause::Message);
                if let Some(name) = subscription.name(index) {
                    shared.metrics.watched.delivered(name, 1);
                }
                self.events += 1;
                let kind = match format.kind {
                    MessageType::Text => Kind::Text,
                    MessageType::Binary => Kind::Binary,
                    MessageType::Ping => Kind::Ping,
                    MessageType::Pong => Kind::Pong,
                };
                self.send(&Message { kind, content });
            }
            Action::Close => {
                let close = match format.code {
                    Some(code) => super::close_payload(code, &format.reason),
                    None if format.reason.is_empty() => Bytes::new(),
                    None => super::close_payload(1000, &format.reason),
                };
                self.notify(Event::bare(Kind::Close));
                self.end.get_or_insert(End { cause: Cause::Message, close: Some(close) });
            }
            Action::Refresh => self.refresh = true,
            Action::Hint => {}
        }
    }
}
