//! The one loop of all transports: wait, read what came after the place, write it, move the
//! place.

use super::shared::Woken;
use super::{First, HeldStream};
use crate::hub::Answer;
use crate::hub::channel::Time;
use crate::protocol::auth::Rejection;
use crate::protocol::dialect::stream::{Batch, Close, Transport, close_frame};
use crate::protocol::http::websocket::{self, CloseCode, Opcode};
use crate::server::gate::grant::GrantGuard;
use crate::server::gate::poll::hold::Cause;
use crate::server::gate::serve::{Exchange, Input, Served};
use crate::server::gate::{Timer, overslept};
use bytes::Bytes;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Why a stream ends, and what a WebSocket says of it.
struct End {
    cause: Cause,
    close: Option<Bytes>,
}

impl End {
    /// An end that its messages bring about.
    fn of(Close { code, reason }: Close) -> Self {
        Self { cause: Cause::Reset, close: Some(close_frame(code, reason)) }
    }

    /// True if the stream could go on, but for its time or the gate's.
    fn is_of_time(&self) -> bool {
        matches!(self.cause, Cause::Drain | Cause::Timeout)
    }
}

/// The next bytes.
struct Outgoing {
    batch: Batch,
    /// The publish time of the oldest message in them.
    published: Option<Time>,
    /// They are all that was found.
    all: bool,
}

/// The next step.
pub(in crate::server::gate) enum Step {
    /// The stream begins.
    Begin,
    Woken(Woken),
    Heartbeat,
    Client(Input),
}

/// How long a stream waits until its client's cursor is placed.
const CATCH_UP: Duration = Duration::from_secs(3);

/// Signs of life that a WebSocket's client may leave unanswered.
const MAX_UNANSWERED: u8 = 2;

impl HeldStream {
    /// Takes a step, and all those that need no wait after it; the outcome of the stream, if it ends
    /// with them.
    pub(in crate::server::gate) async fn go_on<E: Exchange>(
        &mut self,
        exchange: &mut E,
        step: Result<Step, E::Error>,
    ) -> Option<Served<E::Error>> {
        let ended = match step {
            Ok(step) => self.follow(exchange, step).await.transpose()?,
            Err(error) => Err(error),
        };
        let revoked =
            |leave: &GrantGuard| leave.check((self.gate.shared.clock)()) == Err(Rejection::Revoked);
        if self.leave.as_ref().is_some_and(revoked) {
            self.present.revoke();
        }
        let gate = &self.gate.shared;
        let (cause, answer) = match ended {
            // The client has left before there was a head.
            Ok(cause) if self.first.is_some() => (cause, Ok(None)),
            Ok(cause) => (cause, Ok(Some((self.status, self.bytes)))),
            Err(error) => (Cause::Gone, Err(error)),
        };
        gate.counters.release(cause, None, &gate.metrics.watched);
        if self.status == 101 || !matches!(cause, Cause::Timeout | Cause::Expired) {
            exchange.close_after();
        }
        Some(Served::Done {
            held: Some((self.began.elapsed(), cause)),
            events: Some(self.events),
            answer,
        })
    }

    /// Does what `step` asks for, and then writes what there is until there is nothing more to look
    /// for; the cause of the stream's end, if that comes.
    async fn follow<E: Exchange>(
        &mut self,
        exchange: &mut E,
        step: Step,
    ) -> Result<Option<Cause>, E::Error> {
        let mut closed = None;
        match step {
            Step::Begin => {
                if self.said.place_first()
                    && let Some(end) = Box::pin(self.find_place(exchange)).await
                {
                    return Ok(Some(end));
                }
                closed = self.begin(exchange).await?;
            }
            Step::Woken(Woken::Look) => {}
            step => {
                self.is_timed = false;
                if let Some(end) = self.attend(exchange, step).await? {
                    return self.end(exchange, end).await.map(Some);
                }
            }
        }
        let end = loop {
            let now = Instant::now();
            // What came before its time was over is still written.
            let is_last = match closed.map(End::of).or_else(|| self.is_over(now)) {
                Some(end) if !end.is_of_time() => break end,
                over => over.is_some(),
            };
            let outgoing = match self.waiter.look((self.gate.shared.clock)()) {
                Some(found) if self.said.end_before(&found) => {
                    break End { cause: Cause::Reset, close: Some(Bytes::new()) };
                }
                found => found.map(|found| self.take(&found)),
            };
            if let Some(Outgoing { batch, published, all }) = outgoing {
                if !batch.pieces.is_empty() {
                    self.bytes += batch.pieces.iter().map(Bytes::len).sum::<usize>();
                    self.written = now;
                    exchange.send(&batch.pieces).await?;
                }
                self.gate.written(published);
                closed = batch.close;
                tokio::task::consume_budget().await;
                if closed.is_some() || !all {
                    continue;
                }
                // What comes after the look notifies the stream, which stays registered: there is
                // nothing more to look for.
            }
            if is_last && let Some(end) = self.is_over(Instant::now()) {
                break end;
            }
            if !self.placed && !self.waiter.is_unresolved() {
                self.send_place(exchange).await?;
            }
            self.waits = false;
            return Ok(None);
        };
        self.end(exchange, end).await.map(Some)
    }

    /// Does what time or the client asks for; the end that this brings about.
    async fn attend<E: Exchange>(
        &mut self,
        exchange: &mut E,
        step: Step,
    ) -> Result<Option<End>, E::Error> {
        match step {
            Step::Begin | Step::Woken(Woken::Look) => Ok(None),
            Step::Woken(Woken::Rest(rest)) => {
                let (left, published) = *rest;
                exchange.send_coded(&left).await?;
                self.gate.written(Some(published));
                Ok(None)
            }
            Step::Heartbeat => {
                let silence = self.written.elapsed();
                if self.heartbeat().is_none_or(|after| silence < after) {
                    return Ok(None);
                }
                let late = self.heartbeat().is_some_and(|after| overslept(silence, after));
                if self.is_socket() && self.unanswered >= MAX_UNANSWERED && !late {
                    return Ok(Some(End { cause: Cause::Gone, close: None }));
                }
                let mut sign = self.said.heartbeat();
                // A page does not see pings; an answer without messages it does.
                if let Some(place) = self.said.shows_life().then(|| self.place()).flatten() {
                    sign.extend_from_slice(&place);
                }
                self.bytes += sign.len();
                exchange.send(&[sign.into()]).await?;
                self.unanswered = (self.unanswered + 1).min(MAX_UNANSWERED);
                self.written = Instant::now();
                Ok(None)
            }
            Step::Client(input) => {
                self.unanswered = 0;
                match answer(input) {
                    Ok(Some(pong)) => exchange.send(&[pong]).await.map(|()| None),
                    Ok(None) => Ok(None),
                    Err(end) => Ok(Some(end)),
                }
            }
        }
    }

    /// Waits until the client's cursor is placed, and what the history has after it is known. The
    /// result is why the stream ends before it has begun.
    async fn find_place<E: Exchange>(&mut self, exchange: &mut E) -> Option<Cause> {
        let (timer, gone) = exchange.waiting();
        timer.set(Some(CATCH_UP));
        let mut gone = pin!(gone);
        while self.waiter.is_unresolved() && !self.waiter.is_draining() {
            tokio::select! {
                biased;
                () = &mut gone => return Some(Cause::Gone),
                () = self.waiter.notified() => {}
                () = poll_fn(|context| timer.poll_expired(context)) => break,
            }
            let found = self.waiter.look((self.gate.shared.clock)());
            let is_news = found.is_some();
            if let Some(first) = &mut self.first {
                first.found = found.unwrap_or_else(|| self.waiter.place().clone());
            }
            if is_news {
                break;
            }
        }
        None
    }

    /// Writes the head and all that is there already; the end that this brings about.
    async fn begin<E: Exchange>(&mut self, exchange: &mut E) -> Result<Option<Close>, E::Error> {
        let opening = self.said.opening(self.settings.retry());
        self.placed = !self.waiter.is_unresolved();
        let mut first = Vec::from(opening);
        if let Some(place) = self.placed.then(|| self.place()).flatten() {
            first.extend_from_slice(&place);
        }
        if self.placed
            && let Some(presence) = self.presence().await
        {
            first.extend_from_slice(&presence);
        }
        let Some(begun) = self.first.take() else { return Ok(None) };
        let First { head, found } = *begun;
        let head = self.said.finish_head(head, &found);
        let outgoing = self.take(&found);
        drop(found);
        let mut pieces = vec![Bytes::from(first)];
        pieces.extend(outgoing.batch.pieces.iter().cloned());
        pieces.retain(|piece| !piece.is_empty());
        self.bytes += pieces.iter().map(Bytes::len).sum::<usize>();
        exchange.start(&head, &pieces).await?;
        self.gate.written(outgoing.published);
        self.written = Instant::now();
        Ok(outgoing.batch.close)
    }

    /// Says where the client is, once that is known.
    async fn send_place<E: Exchange>(&mut self, exchange: &mut E) -> Result<(), E::Error> {
        self.placed = true;
        let presence = self.presence().await;
        let place: Vec<Bytes> = self.place().into_iter().chain(presence).collect();
        if place.is_empty() {
            return Ok(());
        }
        self.bytes += place.iter().map(Bytes::len).sum::<usize>();
        exchange.send(&place).await
    }

    /// The bytes for what was found. The client's place moves to where it is with them: a stream
    /// whose write fails has ended.
    fn take(&mut self, found: &Answer) -> Outgoing {
        let (batch, part) = self.said.write(self.waiter.place(), found);
        let all = part.is_none();
        let place = part.as_ref().unwrap_or(found);
        for (index, update) in place.iter().enumerate() {
            self.waiter.advance(index, &update.found);
        }
        self.events += batch.events;
        if !found.iter().any(|update| update.found.has_update) {
            return Outgoing { batch, published: None, all };
        }
        let gate = &self.gate.shared;
        if let Some((messages, published)) = self.said.filtered() {
            if let Some(update) = found.first() {
                gate.counters.filtered(&update.channel, messages, &gate.metrics.watched);
            }
            return Outgoing { batch, published, all };
        }
        gate.counters.delivered(found, place, &gate.metrics.watched);
        let messages = found.iter().filter_map(|update| update.found.messages.first());
        let published = messages.map(|message| message.published).min();
        Outgoing { batch, published, all }
    }

    fn place(&self) -> Option<Bytes> {
        self.said.place(self.waiter.place())
    }

    /// The users on its channels, if it has asked for them and they are known.
    async fn presence(&mut self) -> Option<Bytes> {
        let channels = self.rosters.take()?;
        // Boxed, as it is there at the beginning only.
        let lists = Box::pin(self.gate.lists(self.said.rule()?, &channels)).await.ok()?;
        self.said.presence(self.waiter.place(), &lists)
    }

    /// The silence after which a sign of life is sent.
    fn heartbeat(&self) -> Option<Duration> {
        self.heartbeat.map(|millis| Duration::from_millis(millis.get().into()))
    }

    fn is_socket(&self) -> bool {
        self.said.transport() == Transport::WebSocket
    }

    /// True if the stream is to end now.
    pub(super) fn has_ended(&self, now: Instant) -> bool {
        self.is_over(now).is_some()
    }

    /// Why the stream is to end now, if it is.
    fn is_over(&self, now: Instant) -> Option<End> {
        let end = |cause, code, why| Some(End { cause, close: Some(close_frame(code, why)) });
        let clock = self.gate.shared.clock;
        if let Some(Err(denied)) = self.leave.as_ref().map(|leave| leave.check(clock())) {
            return end(Cause::Expired, CloseCode::Policy, &denied.to_string());
        }
        if self.waiter.is_draining() {
            return end(Cause::Drain, CloseCode::GoingAway, "restart");
        }
        if self.waiter.has_lost_site() {
            return end(Cause::Reset, CloseCode::GoingAway, "this site is gone");
        }
        if self.ends.is_some_and(|ends| now >= ends) {
            return end(Cause::Timeout, CloseCode::GoingAway, "stream.max");
        }
        None
    }

    /// Sets the timer for the next of the stream's times. What is written later puts that off, which
    /// is seen when the timer fires.
    fn set_timer(&self, timer: &mut Timer) {
        let left = self.leave.as_ref().and_then(|leave| leave.left((self.gate.shared.clock)()));
        let times = [
            self.heartbeat().and_then(|after| self.written.checked_add(after)),
            self.ends,
            left.and_then(|left| Instant::now().checked_add(left)),
        ];
        timer.set_deadline(times.into_iter().flatten().min());
    }

    /// The next step. The events meanwhile that are the same for all are written.
    pub(in crate::server::gate) fn poll_step<E: Exchange>(
        &mut self,
        exchange: &mut E,
        context: &mut Context<'_>,
    ) -> Poll<Result<Step, E::Error>> {
        if self.first.is_some() {
            return Poll::Ready(Ok(Step::Begin));
        }
        if !std::mem::replace(&mut self.is_timed, true) {
            self.set_timer(exchange.timer());
        }
        // The client comes first when the wait begins, and the message when it is woken, which is
        // mostly why.
        let woken = std::mem::replace(&mut self.waits, true);
        if woken && let Poll::Ready(woken) = self.poll_shared(exchange, context) {
            return Poll::Ready(woken.map(Step::Woken));
        }
        if let Poll::Ready(input) = exchange.poll_input(context, self.is_socket()) {
            return Poll::Ready(Ok(Step::Client(input)));
        }
        if !woken && let Poll::Ready(woken) = self.poll_shared(exchange, context) {
            return Poll::Ready(woken.map(Step::Woken));
        }
        exchange.timer().poll_expired(context).map(|()| Ok(Step::Heartbeat))
    }

    /// Writes the last bytes.
    async fn end<E: Exchange>(&self, exchange: &mut E, end: End) -> Result<Cause, E::Error> {
        match (end.close, self.is_socket()) {
            // The client is gone.
            (None, _) => {}
            (Some(close), true) => exchange.send(&[close]).await?,
            (Some(_), false) => {
                let spread = self.settings.spread.mul_f64(fastrand::f64());
                let retry = (super::Settings::MIN_RETRY + spread).as_millis();
                let place = self.waiter.place();
                let last = self.said.end(place, retry);
                if !last.is_empty() {
                    exchange.send(&[last.into()]).await?;
                }
                exchange.finish().await?;
            }
        }
        Ok(end.cause)
    }
}

/// What is sent for what a client did; the error is that it ends the stream.
fn answer(input: Input) -> Result<Option<Bytes>, End> {
    let end = |close| End { cause: Cause::Gone, close };
    match input {
        Input::Gone => Err(end(None)),
        Input::Pong => Ok(None),
        Input::Ping(payload) => Ok(Some(websocket::frame(Opcode::Pong, &payload).into())),
        Input::Wrong(CloseCode::Policy) | Input::Text(_) => {
            let why = "this socket takes no messages; publish through the hook";
            Err(end(Some(close_frame(CloseCode::Policy, why))))
        }
        Input::Wrong(code) => Err(end(Some(close_frame(code, "")))),
        Input::Close(payload) => Err(end(Some(match websocket::close_answer(&payload) {
            Ok(_) => websocket::frame(Opcode::Close, payload.get(..2).unwrap_or_default()).into(),
            Err(code) => close_frame(code, ""),
        }))),
    }
}
