//! A request for the frames of a session: a poll that ends with them, or a stream of lines.

use super::client::Client;
use super::outbox::{Close, Outbox, Way};
use super::request::LINES;
use super::session::{Sent, Sessions, Turn};
use crate::protocol::http::Reply;
use crate::protocol::pusher::{code, frame, lines};
use crate::server::gate::poll::hold::Cause;
use crate::server::gate::serve::{Exchange, Served};
use crate::server::gate::{Gate, overslept};
use bytes::Bytes;
use std::future::poll_fn;
use std::pin::pin;
use std::time::{Duration, Instant};

/// When an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// With the first frames.
    WithFrames,
    /// When the client wants another one.
    Later,
}

/// The most that a streamed answer has, in UTF-16 units: with more, pusher-js reads it to the end
/// of a line, drops what comes after, and opens the next one. So the line that passes this is the
/// last, and what comes after waits.
const MAX_STREAM: usize = 256 << 10;

/// How long a client has time to open the next one.
const TURN_OVER: Duration = Duration::from_secs(30);

/// See the [module](self).
pub struct Receive {
    gate: Gate,
    turn: Turn,
    fresh: bool,
    ends: Ends,
    hold: Duration,
    head: Reply,
    began: Instant,
    /// The last sign of life of a streaming client, or the ping after it.
    heard: Instant,
    pinged: bool,
}

/// What comes next.
enum Step {
    Look,
    Time,
    Gone,
}

/// Why a request ends.
enum End {
    /// Frames or a sign of life were written.
    Written(Cause),
    /// The client is gone.
    Gone,
    /// A newer request has taken over.
    Over,
    /// The session was lost, and its client has to begin anew.
    Lost,
    /// The session ends.
    Close(Close),
}

impl Receive {
    pub(super) fn new(gate: Gate, turn: Turn, fresh: bool, ends: Ends, hold: Duration) -> Self {
        let head = Reply::new(200, LINES, "");
        let began = Instant::now();
        Self { gate, turn, fresh, ends, hold, head, began, heard: began, pinged: false }
    }

    /// With the headers that let a page read the answer.
    pub(super) fn readable_by(mut self, finished: impl FnOnce(Reply) -> Reply) -> Self {
        self.head = finished(self.head);
        self
    }

    fn sessions(&self) -> &Sessions {
        &self.gate.shared.pusher.sessions
    }

    pub(in crate::server::gate) async fn run<E: Exchange>(
        mut self,
        exchange: &mut E,
    ) -> Served<E::Error> {
        let mut events = 0;
        let mut bytes = 0;
        let served = match self.ends {
            Ends::WithFrames => self.poll(exchange, &mut events, &mut bytes).await,
            Ends::Later => self.stream(exchange, &mut events, &mut bytes).await,
        };
        let (cause, answer) = match served {
            Ok(Some(cause)) => (cause, Ok(Some((200, bytes)))),
            Ok(None) => (Cause::Gone, Ok(None)),
            Err(error) => {
                // What was written may have come or not.
                self.sessions().lose(&self.turn.session);
                (Cause::Gone, Err(error))
            }
        };
        let gate = &self.gate.shared;
        gate.counters.release(cause, None, &gate.metrics.watched);
        let held = Some((self.began.elapsed(), cause));
        Served::Done { held, events: Some(events), answer }
    }

    /// One answer, with whatever there is; `None` = its client is gone.
    async fn poll<E: Exchange>(
        &mut self,
        exchange: &mut E,
        events: &mut u64,
        bytes: &mut usize,
    ) -> Result<Option<Cause>, E::Error> {
        let mut body = Vec::new();
        let mut out = Outbox::new(Way::Lines);
        let cause = if self.fresh {
            // The next one gets the first frames.
            body.extend_from_slice(lines::OPEN.as_bytes());
            Cause::Message
        } else {
            let ends = Instant::now() + self.hold;
            let Some(mut client) = self.client(exchange).await else {
                exchange.close_after();
                return Ok(None);
            };
            let end = match self.turn.session.is_lost() {
                true => End::Lost,
                false => self.next(exchange, &mut client, &mut out, Some(ends)).await,
            };
            match end {
                End::Lost => {
                    body.extend_from_slice(lines::OPEN.as_bytes());
                    Cause::Reset
                }
                End::Written(cause) => {
                    body = self.line(&mut out, events);
                    if body.is_empty() {
                        body.extend_from_slice(lines::HEARTBEAT.as_bytes());
                    }
                    cause
                }
                End::Over => {
                    body.extend_from_slice(lines::HEARTBEAT.as_bytes());
                    Cause::Timeout
                }
                End::Gone => {
                    // Its client begins anew, as nothing says what it has got.
                    self.sessions().end(&self.turn.session);
                    exchange.close_after();
                    return Ok(None);
                }
                End::Close(close) => {
                    body = self.line(&mut out, events);
                    body.extend(close.written(Way::Lines).concat());
                    self.sessions().end(&self.turn.session);
                    exchange.close_after();
                    Cause::Drain
                }
            }
        };
        *bytes = body.len();
        let mut reply = std::mem::replace(&mut self.head, Reply::new(200, "", ""));
        reply.body = body.into();
        exchange.write(&reply).await?;
        self.gate.written(out.published.take());
        Ok(Some(cause))
    }

    /// One line after another, until the client opens another request.
    async fn stream<E: Exchange>(
        &mut self,
        exchange: &mut E,
        events: &mut u64,
        bytes: &mut usize,
    ) -> Result<Option<Cause>, E::Error> {
        let mut first = Vec::new();
        if self.fresh {
            first.push(Bytes::from_static(lines::OPEN.as_bytes()));
        }
        let mut units = first.iter().map(|line| lines::units(line)).sum::<usize>();
        let head = std::mem::replace(&mut self.head, Reply::new(200, "", ""));
        exchange.start(&head, &first).await?;
        let Some(mut client) = self.client(exchange).await else { return Ok(None) };
        let cause = loop {
            let mut out = Outbox::new(Way::Lines);
            let is_over = units > MAX_STREAM;
            let end = match is_over {
                _ if self.turn.session.is_lost() => End::Lost,
                // What comes now is for the next request.
                true => self.turned(exchange).await,
                false => self.next(exchange, &mut client, &mut out, None).await,
            };
            let line = self.line(&mut out, events);
            let close = match &end {
                End::Close(close) => close.written(Way::Lines).concat(),
                End::Lost => lines::OPEN.into(),
                _ => Vec::new(),
            };
            let pieces: Vec<Bytes> =
                [line, close].into_iter().filter(|one| !one.is_empty()).map(Bytes::from).collect();
            if !pieces.is_empty() {
                units += pieces.iter().map(|line| lines::units(line)).sum::<usize>();
                *bytes += pieces.iter().map(Bytes::len).sum::<usize>();
                exchange.send(&pieces).await?;
                self.gate.written(out.published.take());
            }
            match end {
                End::Written(_) if !is_over => tokio::task::consume_budget().await,
                End::Written(cause) => break cause,
                End::Over => break Cause::Message,
                End::Lost => break Cause::Reset,
                End::Gone => {
                    self.turn.broken_off = true;
                    exchange.close_after();
                    return Ok(None);
                }
                End::Close(_) => {
                    self.sessions().end(&self.turn.session);
                    exchange.close_after();
                    break Cause::Drain;
                }
            }
        };
        exchange.finish().await?;
        Ok(Some(cause))
    }

    /// The session's client; `None` = this one is gone, or the session.
    async fn client<E: Exchange>(
        &self,
        exchange: &mut E,
    ) -> Option<tokio::sync::OwnedMutexGuard<Box<Client>>> {
        let (_, gone) = exchange.waiting();
        tokio::select! {
            client = self.turn.client() => Some(client),
            () = gone => None,
        }
    }

    /// What is written next: waits for it, until `ends` at the most.
    async fn next<E: Exchange>(
        &mut self,
        exchange: &mut E,
        client: &mut Client,
        out: &mut Outbox,
        ends: Option<Instant>,
    ) -> End {
        loop {
            if self.turn.is_over() {
                return End::Over;
            }
            let Sent { frames, ping } = self.turn.session.sent();
            if ping || !frames.is_empty() {
                (self.heard, self.pinged) = (Instant::now(), false);
            }
            for frame in frames {
                if let Err(close) = Box::pin(client.handle(&frame, out)).await {
                    return End::Close(close);
                }
            }
            if let Some(close) = client.is_over() {
                return End::Close(close);
            }
            if let Err(close) = client.collect(out) {
                return End::Close(close);
            }
            if ping && out.is_empty() {
                out.push_life();
            }
            if !out.is_empty() {
                return End::Written(Cause::Message);
            }
            let silence = client.app().ping;
            let patience = if self.pinged { silence / 2 } else { silence };
            let left = match ends {
                Some(ends) => ends.saturating_duration_since(Instant::now()),
                None => patience.saturating_sub(self.heard.elapsed()),
            };
            // A drain does not wake a client without channels.
            let tick = client.has_no_channels().then_some(Duration::from_secs(1));
            let waits = tick.map_or(left, |tick| tick.min(left));
            match self.wait(exchange, Some(client), waits).await {
                Step::Gone => return End::Gone,
                Step::Look => {}
                Step::Time if ends.is_some_and(|ends| Instant::now() >= ends) => {
                    return End::Written(Cause::Timeout);
                }
                Step::Time if ends.is_some() || self.heard.elapsed() < patience => {}
                Step::Time if self.pinged && overslept(self.heard.elapsed(), patience) => {
                    self.heard = Instant::now();
                }
                Step::Time if self.pinged => {
                    return End::Close(Close::new(code::NO_PONG, "no answer to a ping"));
                }
                Step::Time => {
                    (self.heard, self.pinged) = (Instant::now(), true);
                    out.push(&frame::ping());
                    return End::Written(Cause::Timeout);
                }
            }
        }
    }

    /// Waits until a newer request takes over.
    async fn turned<E: Exchange>(&self, exchange: &mut E) -> End {
        let ends = Instant::now() + TURN_OVER;
        while !self.turn.is_over() {
            let left = ends.saturating_duration_since(Instant::now());
            match self.wait(exchange, None, left).await {
                Step::Gone => return End::Gone,
                Step::Time if Instant::now() >= ends => break,
                _ => {}
            }
        }
        End::Over
    }

    async fn wait<E: Exchange>(
        &self,
        exchange: &mut E,
        client: Option<&Client>,
        left: Duration,
    ) -> Step {
        let (timer, gone) = exchange.waiting();
        timer.set(Some(left));
        let woken = async {
            match client {
                Some(client) => client.waiter.notified().await,
                None => std::future::pending().await,
            }
        };
        let mut gone = pin!(gone);
        tokio::select! {
            biased;
            () = &mut gone => Step::Gone,
            () = woken => Step::Look,
            () = self.turn.session.wake.notified() => Step::Look,
            () = poll_fn(|context| timer.poll_expired(context)) => Step::Time,
        }
    }

    /// The line of what there is to write.
    fn line(&self, out: &mut Outbox, events: &mut u64) -> Vec<u8> {
        *events += std::mem::take(&mut out.events);
        if out.is_empty() {
            return Vec::new();
        }
        lines::frames(&out.take())
    }
}
