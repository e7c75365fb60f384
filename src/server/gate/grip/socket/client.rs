//! The client's side of a socket: its frames, and the items for it.

use super::session::{End, Session};
use crate::hub::channel::Time;
use crate::protocol::grip::events::{Event, Kind, Message};
use crate::protocol::grip::item::{Action, MessageType};
use crate::protocol::grip::{Content, Item};
use crate::protocol::http::websocket::{self, CloseCode, Incoming, Opcode};
use crate::server::gate::grip::subscription::News;
use crate::server::gate::poll::hold::Cause;
use crate::server::gate::serve::Framed;
use bytes::Bytes;
use std::sync::atomic::Ordering;

/// The longest message of a client's.
pub(super) const MAX_MESSAGE: usize = 200_000;
/// Bytes of items that are gathered before they are written.
const MAX_BATCH: usize = 64 << 10;

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
        match self.reader.take(frame) {
            Err(code) => self.wrong(code),
            Ok(None | Some(Incoming::Pong)) => {}
            Ok(Some(Incoming::Ping(payload))) => {
                websocket::write(&mut self.out, Opcode::Pong, &payload);
            }
            Ok(Some(Incoming::Text(text))) => self.push(Event::with(Kind::Text, text)),
            Ok(Some(Incoming::Binary(bytes))) => self.push(Event::with(Kind::Binary, bytes)),
            Ok(Some(Incoming::Close(payload))) => match websocket::close_answer(&payload) {
                Err(code) => self.wrong(code),
                Ok(_) => {
                    let content = (!payload.is_empty()).then(|| payload.clone());
                    self.push(Event { kind: Kind::Close, content });
                    // Answered with its code alone, unless the site says something else.
                    let answer = payload.slice(..payload.len().min(2));
                    self.closing = Some((answer, None));
                }
            },
        }
    }

    fn wrong(&mut self, code: CloseCode) {
        let close = super::close_payload(code as u16, "");
        self.gone(None);
        self.end.get_or_insert(End { cause: Cause::Gone, close: Some(close) });
    }

    /// Has the items that are there sent; true = there may be more of them.
    pub(super) fn deliver(&mut self, now: Time) -> bool {
        while self.end.is_none() {
            if self.out.len() >= MAX_BATCH {
                return true;
            }
            let Some(news) = self.subscription.as_mut().and_then(|it| it.next(now)) else { break };
            // What a socket misses is the site's to find, which sees no gap but by its own ids.
            let News::Item(index, item, published) = news else { continue };
            self.on_item(index, &item);
            self.gate.written(Some(published));
        }
        false
    }

    fn on_item(&mut self, index: usize, item: &Item) {
        let (Some(format), Some(subscription)) = (&item.formats.ws_message, &self.subscription)
        else {
            return;
        };
        let content = format.content.as_ref().map(Content::bytes).unwrap_or_default();
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
