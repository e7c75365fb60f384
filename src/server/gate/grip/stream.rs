//! A stream: what the site began, and then the items as they come.
//!
//! Where a link leads on, the site is asked there for more: at once if the response was not held,
//! else when something may be missing, at a hint, and when some channel was quiet for long.

use super::hold::{Held, reply};
use super::origin::{Answer, Last, back_off};
use super::subscription::{News, Places, Subscription};
use crate::hub::channel::Time;
use crate::protocol::dialect::stream::Transport;
use crate::protocol::grip::item::Action;
use crate::protocol::grip::link::Link;
use crate::protocol::grip::{Content, Instruct, Mode};
use crate::server::gate::counters::StreamCount;
use crate::server::gate::poll::hold::Cause;
use crate::server::gate::serve::{Exchange, Served};
use bytes::Bytes;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

/// State of a stream beside its hold.
struct Stream {
    subscription: Option<Subscription>,
    /// The target of the link that the instruction is from.
    target: Option<String>,
    /// The site has to decide.
    ask: bool,
    /// Nothing has come since the site was asked because something may be missing.
    asked: bool,
    /// When a sign of life is due.
    alive_at: Option<Instant>,
    /// When the site is asked for more.
    next_at: Option<Instant>,
    bytes: usize,
    events: u64,
}

/// The bytes to write.
#[derive(Default)]
struct Batch {
    pieces: Vec<Bytes>,
    bytes: usize,
    published: Option<Time>,
    /// The item that ends the stream was among them.
    closes: bool,
}

/// Bytes that are gathered before they are written.
const MAX_BATCH: usize = 64 << 10;
/// Times that a link is asked which cannot be had.
const MAX_FAILURES: u32 = 5;

impl Held {
    /// Serves the stream until either side ends it.
    pub(super) async fn stream<E: Exchange>(
        mut self: Box<Self>,
        exchange: &mut E,
    ) -> Served<E::Error> {
        let content_type = self.instruct.response.header("content-type").unwrap_or_default();
        let transport = match content_type.starts_with("text/event-stream") {
            true => Transport::Sse,
            false => Transport::Chunked,
        };
        let _count = StreamCount::new(&self.gate, transport);
        let mut stream = Stream {
            subscription: None,
            target: None,
            ask: self.instruct.mode == Mode::None,
            asked: false,
            alive_at: None,
            next_at: None,
            bytes: 0,
            events: 0,
        };
        let status = self.instruct.response.code;
        let ended = Box::pin(self.serve_stream(&mut stream, exchange)).await;
        let (cause, answer) = match ended {
            Ok(cause) => (cause, Ok(Some((status, stream.bytes)))),
            Err(error) => (Cause::Gone, Err(error)),
        };
        self.over(cause);
        if cause != Cause::Timeout {
            exchange.close_after();
        }
        let held = Some((self.began.elapsed(), cause));
        Served::Done { held, events: Some(stream.events), answer }
    }

    /// The cause of the end.
    async fn serve_stream<E: Exchange>(
        &mut self,
        stream: &mut Stream,
        exchange: &mut E,
    ) -> Result<Cause, E::Error> {
        // Boxed, as it is not there while the stream is quiet.
        if let Some(end) = Box::pin(self.begin(stream, exchange)).await? {
            return Ok(end);
        }
        let end = loop {
            if std::mem::take(&mut stream.ask) {
                // Boxed, as it is not there while the stream is quiet.
                match Box::pin(self.go_on(stream, exchange)).await? {
                    None => continue,
                    Some(end) => break end,
                }
            }
            // Dropped before the wait, where it would be a part of every quiet stream.
            let (closes, full) = {
                let batch = self.batch(stream);
                if !batch.pieces.is_empty() {
                    stream.bytes += batch.bytes;
                    exchange.send(&batch.pieces).await?;
                    self.sent(stream, &batch);
                }
                (batch.closes, batch.bytes >= MAX_BATCH)
            };
            if closes {
                break Cause::Timeout;
            }
            if stream.ask || full {
                tokio::task::consume_budget().await;
                continue;
            }
            let Some(subscription) = &stream.subscription else { break Cause::Timeout };
            if subscription.is_draining() {
                break Cause::Drain;
            }
            let due = stream.alive_at.into_iter().chain(stream.next_at).min();
            exchange.timer().set_deadline(due);
            let mut waits = false;
            let gone = poll_fn(|context| {
                // As a stream of a dialect: once it waits, it is mostly an item that wakes it.
                let woken = std::mem::replace(&mut waits, true);
                if woken && subscription.poll_notified(context).is_ready() {
                    return Poll::Ready(Some(false));
                }
                if exchange.poll_input(context, false).is_ready() {
                    return Poll::Ready(Some(true));
                }
                if !woken && subscription.poll_notified(context).is_ready() {
                    return Poll::Ready(Some(false));
                }
                exchange.timer().poll_expired(context).map(|()| None)
            });
            match gone.await {
                Some(true) => return Ok(Cause::Gone),
                Some(false) => continue,
                None => {}
            }
            let now = Instant::now();
            if stream.next_at.is_some_and(|due| due <= now) {
                stream.ask = true;
            } else if let Some(keep_alive) = self.instruct.keep_alive.as_ref()
                && stream.alive_at.is_some_and(|due| due <= now)
            {
                stream.bytes += keep_alive.data.len();
                let sign = [keep_alive.data.clone()];
                stream.alive_at = now.checked_add(keep_alive.timeout);
                exchange.send(&sign).await?;
            }
        };
        exchange.finish().await?;
        Ok(end)
    }

    /// Subscribes, and writes the head and the beginning; the cause if that is the end.
    async fn begin<E: Exchange>(
        &mut self,
        stream: &mut Stream,
        exchange: &mut E,
    ) -> Result<Option<Cause>, E::Error> {
        let subscribed = self.subscribe(stream, &Places::new());
        let begun = subscribed.and_then(|()| Subscription::beginning(&self.instruct));
        let beginning = match begun {
            Ok(beginning) => beginning,
            Err(error) => {
                exchange.write(&super::withheld::refuse(&error)).await?;
                return Ok(Some(Cause::Timeout));
            }
        };
        let mut head = reply(&self.instruct.response);
        if matches!(head.status, 204 | 205 | 304) {
            exchange.write(&head).await?;
            return Ok(Some(Cause::Timeout));
        }
        head.body = Bytes::new();
        stream.bytes += beginning.len();
        let first = [beginning];
        exchange.start(&head, if first[0].is_empty() { &[] } else { &first }).await?;
        // The client has it.
        self.instruct.response.headers = Vec::new();
        self.instruct.response.body = Bytes::new();
        Ok(None)
    }

    /// Subscribes to the channels of the instruction, and sets its timers.
    fn subscribe(&self, stream: &mut Stream, before: &Places) -> Result<(), String> {
        let shared = &self.gate.shared;
        let after = |time: Duration| Instant::now().checked_add(time);
        stream.subscription = match self.instruct.mode {
            Mode::None => None,
            _ => {
                let now = (shared.clock)();
                let of = (&shared.hub, self.origin.settings().site_name());
                let subscribed = Subscription::new(of, &self.instruct.channels, before, now);
                Some(subscribed.map_err(|full| full.to_string())?)
            }
        };
        stream.alive_at = self.instruct.keep_alive.as_ref().and_then(|it| after(it.timeout));
        stream.next_at = self.instruct.next.as_ref().and_then(|next| after(next.timeout));
        Ok(())
    }

    /// The items that are there.
    fn batch(&self, stream: &mut Stream) -> Batch {
        let mut batch = Batch::default();
        let Some(subscription) = &mut stream.subscription else { return batch };
        let shared = &self.gate.shared;
        let has_next = self.instruct.next.is_some();
        while batch.bytes < MAX_BATCH && !batch.closes {
            let Some(news) = subscription.next((shared.clock)()) else { break };
            let News::Item(index, item, published) = news else {
                if has_next && !std::mem::replace(&mut stream.asked, true) {
                    stream.ask = true;
                    break;
                }
                continue;
            };
            if !subscription.follows(index, &item)
                && has_next
                && !std::mem::replace(&mut stream.asked, true)
            {
                stream.ask = true;
                break;
            }
            let Some(format) = &item.formats.http_stream else { continue };
            let content = format.content.as_ref().map(Content::bytes).unwrap_or_default();
            let made_for = &format.content_filters;
            let content =
                subscription.content((index, &item), made_for, content, &self.instruct.meta);
            let Some(content) = content else { continue };
            stream.asked = false;
            match format.action {
                Action::Send => {
                    batch.bytes += content.len();
                    batch.published.get_or_insert(published);
                    stream.events += 1;
                    shared.counters.deliveries.fetch_add(1, Ordering::Relaxed);
                    if let Some(name) = subscription.name(index) {
                        shared.metrics.watched.delivered(name, 1);
                    }
                    if !content.is_empty() {
                        batch.pieces.push(content);
                    }
                }
                Action::Hint if has_next => {
                    stream.ask = true;
                    break;
                }
                Action::Close => batch.closes = true,
                Action::Hint | Action::Refresh => {}
            }
        }
        batch
    }

    fn sent(&self, stream: &mut Stream, batch: &Batch) {
        let shared = &self.gate.shared;
        shared.counters.releases.count(Cause::Message);
        self.gate.written(batch.published);
        let after = |time: Duration| Instant::now().checked_add(time);
        if let Some(keep_alive) = self.instruct.keep_alive.as_ref().filter(|it| !it.interval) {
            stream.alive_at = after(keep_alive.timeout);
        }
        if let (Some(next), Some(subscription)) = (&self.instruct.next, &mut stream.subscription)
            && subscription.were_all_active()
        {
            stream.next_at = after(next.timeout);
        }
    }

    /// Asks the site for more, and writes it; the cause of the end if the stream ends there.
    async fn go_on<E: Exchange>(
        &mut self,
        stream: &mut Stream,
        exchange: &mut E,
    ) -> Result<Option<Cause>, E::Error> {
        let next = self.instruct.next.as_ref();
        let link = next.and_then(|next| self.origin.resolve(stream.target.as_deref(), &next.uri));
        let Some(link) = link else {
            tracing::warn!("a GRIP stream has no link to go on with");
            return Ok(Some(Cause::Timeout));
        };
        let last = stream.subscription.as_ref().map(Subscription::last).unwrap_or_default();
        let answer = {
            let input = poll_fn(|context| exchange.poll_input(context, false));
            let asked = pin!(self.follow(&link, &last));
            tokio::select! {
                biased;
                answer = asked => answer,
                _ = input => return Ok(Some(Cause::Gone)),
            }
        };
        let instruct = answer.and_then(Answer::instruct).and_then(|instruct| match instruct.mode {
            Mode::Response => Err("a stream cannot go on as a held response".to_owned()),
            _ => Ok(instruct),
        });
        let instruct = match instruct {
            Ok(instruct) => instruct,
            Err(error) => {
                tracing::warn!(error, "a GRIP stream cannot go on");
                return Ok(Some(Cause::Timeout));
            }
        };
        let gone = self.instruct.gone.take();
        self.instruct = Instruct { gone, ..instruct };
        stream.target = Some(link.target);
        let before = stream.subscription.as_ref().map(Subscription::places).unwrap_or_default();
        let subscribed = self.subscribe(stream, &before);
        let more = match subscribed.and_then(|()| Subscription::beginning(&self.instruct)) {
            Ok(more) => more,
            Err(error) => {
                tracing::warn!(error, "a GRIP stream cannot go on");
                return Ok(Some(Cause::Timeout));
            }
        };
        let empty = more.is_empty();
        self.instruct.response.body = Bytes::new();
        if !empty {
            stream.bytes += more.len();
            exchange.send(&[more]).await?;
        }
        if stream.subscription.is_some() {
            return Ok(None);
        }
        if self.instruct.next.is_none() {
            return Ok(Some(Cause::Timeout));
        }
        stream.ask = true;
        if empty {
            // Pages without anything on them would be a loop at full speed.
            let input = poll_fn(|context| exchange.poll_input(context, false));
            tokio::select! {
                () = tokio::time::sleep(back_off(0)) => {}
                _ = input => return Ok(Some(Cause::Gone)),
            }
        }
        Ok(None)
    }

    async fn follow(&self, link: &Link, last: &[(String, String)]) -> Result<Answer, String> {
        let last: Vec<Last<'_>> = last.iter().map(|(name, id)| (&**name, &**id)).collect();
        let mut failures = 0;
        loop {
            let error = match self.origin.follow(link, &last).await {
                Ok(answer) if (200..300).contains(&answer.status) => return Ok(answer),
                Ok(answer) => format!("{} answers {}", link.target, answer.status),
                Err(error) => error,
            };
            if failures == MAX_FAILURES {
                return Err(error);
            }
            tracing::debug!(error, "a GRIP link is asked again");
            tokio::time::sleep(back_off(failures)).await;
            failures += 1;
        }
    }
}
