//! The site's side of a socket: requests with events, and what their responses say.

use super::session::{Asked, Asking, End, Session};
use crate::protocol::grip::events::{self, CONTENT_TYPE, Control, Event, Kind, Message};
use crate::protocol::grip::instruct::Channel;
use crate::protocol::grip::params;
use crate::protocol::http::Headers;
use crate::protocol::http::websocket::close_answer;
use crate::server::gate::grip::origin::{Answer, Failed, Origin, back_off};
use crate::server::gate::poll::hold::Cause;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::future::Future;
use std::time::{Duration, Instant};

/// Bytes of content in one request, unless a message alone is longer.
const MAX_CONTENT: usize = 200_000;
/// Times that a site is tried again which cannot be reached.
const MAX_FAILURES: u32 = 5;
/// The shortest time between two requests of a quiet socket.
const MIN_INTERVAL: u64 = 20;
/// Values that are stored in a socket, and channels of one.
const MAX_STORED: usize = 100;
/// What messages for the client begin with where nothing else is said.
const PREFIX: &str = "m:";

impl Session {
    /// The request with the events that are there.
    pub(super) fn request(&mut self) -> impl Future<Output = Asked> + Send + use<> {
        let mut count = 0;
        let mut bytes = 0;
        for event in &self.queue {
            bytes += event.len();
            if count > 0 && bytes > MAX_CONTENT {
                break;
            }
            count += 1;
        }
        let events: Vec<Event> = self.queue.drain(..count).collect();
        self.refresh = false;
        self.asked_at = Instant::now();
        let opens = events.first().is_some_and(|event| event.kind == Kind::Open);
        let replayed = std::mem::take(&mut self.replayed);
        let headers = self.headers(replayed);
        let origin = self.origin.clone();
        async move {
            let body = events::write(&events);
            let mut failures = 0;
            loop {
                match origin.post(headers.clone(), body.clone()).await {
                    Ok(answer) => return Ok((events, answer)),
                    Err(Failed { reached: false, .. }) if !opens && failures < MAX_FAILURES => {
                        tokio::time::sleep(back_off(failures)).await;
                        failures += 1;
                    }
                    Err(failed) => return Err(failed.words),
                }
            }
        }
    }

    fn headers(&self, replayed: usize) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let replayed = (replayed > 0).then(|| replayed.to_string());
        let own = [
            ("accept", CONTENT_TYPE),
            ("content-type", CONTENT_TYPE),
            ("connection-id", &self.id),
            ("sec-websocket-extensions", "grip"),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let stored =
            self.stored.iter().map(|(name, value)| (format!("meta-{name}"), value.clone()));
        let replayed = replayed.map(|bytes| ("content-bytes-replayed".to_owned(), bytes));
        for (name, value) in own.chain(stored).chain(replayed) {
            if let (Ok(name), Ok(value)) =
                (name.parse::<HeaderName>(), HeaderValue::from_str(&value))
            {
                headers.insert(name, value);
            }
        }
        headers
    }

    /// Lets the site know of something whose answer does not matter.
    pub(super) fn notify(&mut self, event: Event) {
        self.detach(None, vec![event]);
    }

    /// Lets the site know that the client is gone, once its last request is over.
    pub(super) fn gone(&mut self, asking: Option<Asking>) {
        self.detach(asking, vec![Event::bare(Kind::Disconnect)]);
    }

    fn detach(&mut self, asking: Option<Asking>, last: Vec<Event>) {
        if std::mem::replace(&mut self.detached, true) {
            return;
        }
        let mut events = std::mem::take(&mut self.queue);
        events.extend(last);
        let (origin, headers): (Origin, HeaderMap) = (self.origin.clone(), self.headers(0));
        tokio::spawn(async move {
            if let Some(asking) = asking {
                let _ = asking.await;
            }
            if let Err(failed) = origin.post(headers, events::write(&events)).await {
                tracing::debug!(error = failed.words, "the site does not learn of a socket's end");
            }
        });
    }

    /// Does what the site says; `opening` = it is its first word.
    pub(super) fn answered(&mut self, asked: Asked, opening: bool) {
        let (offered, answer) = match asked {
            Ok(asked) => asked,
            Err(error) => return self.broken(&error),
        };
        let events = match answer.events() {
            Some(Ok(events)) => events,
            Some(Err(error)) => return self.broken(error),
            None => return self.broken("the site answers with something else than events"),
        };
        if let Err(error) = self.take_headers(&answer, offered, opening) {
            return self.broken(&error);
        }
        for event in events {
            self.on_event(event);
            if self.end.is_some() {
                return;
            }
        }
        if let Some((payload, _)) = &self.closing
            && self.queue.is_empty()
        {
            // The site has the client's close, and has none of its own.
            let close = Some(payload.clone());
            self.end = Some(End { cause: Cause::Gone, close });
        }
    }

    /// Ends a socket whose site does not keep to the protocol.
    fn broken(&mut self, error: &str) {
        tracing::warn!(error, "a WebSocket's site cannot be followed");
        let close = super::close_payload(1011, "");
        self.end.get_or_insert(End { cause: Cause::Reset, close: Some(close) });
    }

    fn take_headers(
        &mut self,
        answer: &Answer,
        offered: Vec<Event>,
        opening: bool,
    ) -> Result<(), String> {
        let headers = &answer.headers;
        if opening {
            for extension in params::list(&headers.all("sec-websocket-extensions"))? {
                if extension.first().is_some_and(|(name, _)| name == "grip") {
                    let prefix = params::get(&extension, "message-prefix").unwrap_or(PREFIX);
                    self.prefix = Some(prefix.to_owned());
                }
            }
        }
        if let Some(interval) = Headers::get(headers, "keep-alive-interval") {
            let seconds: u64 = interval.trim().parse().map_err(|_| "no Keep-Alive-Interval")?;
            self.interval = (seconds > 0).then(|| Duration::from_secs(seconds.max(MIN_INTERVAL)));
        }
        for (name, value) in headers {
            let Some(key) = name.as_str().strip_prefix("set-meta-") else { continue };
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            if value.is_empty() {
                self.stored.remove(key);
            } else if self.stored.len() < MAX_STORED || self.stored.contains_key(key) {
                self.stored.insert(key.to_owned(), value);
            }
        }
        if let Some(accepted) = Headers::get(headers, "content-bytes-accepted") {
            let accepted = accepted.trim().parse().map_err(|_| "no Content-Bytes-Accepted")?;
            self.offer_again(offered, accepted)?;
        }
        Ok(())
    }

    /// Keeps what the site has not taken of the events that it was offered.
    fn offer_again(&mut self, offered: Vec<Event>, accepted: usize) -> Result<(), String> {
        let all: usize = offered.iter().map(Event::len).sum();
        if accepted > all {
            return Err("the site takes more than it was offered".to_owned());
        }
        let mut left = accepted;
        let mut again = Vec::new();
        for event in offered {
            let length = event.len();
            if left >= length {
                left -= length;
                continue;
            }
            let content = event.content.map(|content| content.slice(left..));
            again.push(Event { content, ..event });
            left = 0;
        }
        self.replayed = all - accepted;
        self.queue.splice(..0, again);
        Ok(())
    }

    fn on_event(&mut self, event: Event) {
        let content = event.content.unwrap_or_default();
        match event.kind {
            Kind::Open => {}
            Kind::Text if self.prefix.is_some() && content.starts_with(b"c:") => {
                match events::control(&content[2..]) {
                    Ok(control) => self.on_control(control),
                    Err(error) => self.broken(&error),
                }
            }
            Kind::Text | Kind::Binary => {
                let prefix = self.prefix.as_deref().unwrap_or_default();
                // Without its prefix it is not for the client.
                if !content.starts_with(prefix.as_bytes()) {
                    return;
                }
                let content = content.slice(prefix.len()..);
                if event.kind == Kind::Text && std::str::from_utf8(&content).is_err() {
                    return self.broken("a TEXT of the site's is not UTF-8");
                }
                self.send(&Message { kind: event.kind, content });
            }
            Kind::Ping | Kind::Pong if content.len() > 125 => self.broken("a ping is too long"),
            Kind::Ping | Kind::Pong => self.send(&Message { kind: event.kind, content }),
            Kind::Close => {
                let good = content.len() <= 125 && close_answer(&content).is_ok();
                let own = self.closing.take().map(|(payload, _)| payload);
                let close = match good && !content.is_empty() {
                    true => content,
                    // Without a code of its own it is the client's.
                    false => own.unwrap_or_default(),
                };
                self.end = Some(End { cause: Cause::Message, close: Some(close) });
            }
            Kind::Disconnect => {
                self.detached = true;
                self.end = Some(End { cause: Cause::Reset, close: None });
            }
        }
    }

    fn on_control(&mut self, control: Control) {
        let now = Instant::now();
        match control {
            Control::Subscribe { channel, filters } => {
                let filters = filters.iter().map(String::as_str).collect();
                let channel = match Channel::new(channel, None, filters) {
                    Ok(channel) => channel,
                    Err(error) => return self.broken(&error),
                };
                let most = self.origin.settings().limits.channels_per_poll;
                let known = self.channels.iter().position(|one| one.name == channel.name);
                match known {
                    Some(index) => self.channels[index] = channel,
                    None if most > 0 && self.channels.len() >= most => {
                        return self.broken("more channels than limits.channels_per_poll");
                    }
                    None => self.channels.push(channel),
                }
                self.subscribe((self.gate.shared.clock)());
            }
            Control::Unsubscribe(channel) => {
                self.channels.retain(|one| one.name != channel);
                self.subscribe((self.gate.shared.clock)());
            }
            Control::Detach => {
                self.queue.clear();
                self.detached = true;
            }
            Control::SetMeta(name, Some(value)) => {
                if self.meta.len() < MAX_STORED || self.meta.contains_key(&name) {
                    self.meta.insert(name, value);
                }
            }
            Control::SetMeta(name, None) => {
                self.meta.remove(&name);
            }
            Control::KeepAlive(keep_alive) => {
                self.alive_at = keep_alive.as_ref().and_then(|it| now.checked_add(it.timeout));
                self.keep_alive = keep_alive;
            }
            Control::SendDelayed(message, after) => {
                self.delayed = Some((message, now.checked_add(after)));
            }
            Control::FlushDelayed => self.flush_delayed(),
            Control::Other => {}
        }
    }
}
