//! Serving a decision, whatever carries the request.
//!
//! The fast path, HTTP/2 and the proxy differ in how they write and how they notice that a client
//! is gone. That is an [`Exchange`]; all else is here, once. Dropping the future drops what is
//! held for the client.

use super::grip::Held as GripHold;
use super::grip::socket::Socket as GripSocket;
use super::poll::hold::Cause;
use super::pusher::{HeldPusher, PusherSocket, Receive};
use super::replay::{ReleasedReplay, ReplayOutcome};
use super::{Decision, Gate, HeldPoll, HeldStream, HoldOutcome, Settings, Timer};
use crate::protocol::http::Reply;
use crate::protocol::http::websocket::{CloseCode, Frame, Messages};
use bytes::Bytes;
use std::future::{Future, poll_fn, ready};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// A request and the way back to its client.
pub(super) trait Exchange: Send {
    /// Why writing failed.
    type Error: Send;

    /// Reads what is left of the request's body, since it would be taken for the client's end;
    /// with `keep` it stays there for the upstream. A reply is a refusal to be sent instead.
    fn settle(
        &mut self,
        keep: bool,
    ) -> impl Future<Output = Result<Option<Reply>, Self::Error>> + Send;

    /// The gate that serves it.
    fn gate(&self) -> &Gate;

    /// The settings that it is served with.
    fn settings(&self) -> &Settings;

    /// The timer of this exchange, and a future that ends when the client is gone.
    fn waiting(&mut self) -> (&mut Timer, impl Future<Output = ()> + Send);

    /// The connection is not kept after the answer.
    fn close_after(&mut self);

    /// Writes the head of a stream together with its first bytes.
    fn start(
        &mut self,
        head: &Reply,
        first: &[Bytes],
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Writes more of a stream, all of it at once.
    fn send(&mut self, pieces: &[Bytes]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// True if the pieces of a stream travel as chunks (RFC 9112, section 7.1).
    fn is_chunked(&self) -> bool {
        false
    }

    /// Writes a piece that is a chunk already, if pieces travel as chunks, as far as that goes at
    /// once; the result is what is left for [`Exchange::send_coded`], if that is not done.
    fn write_coded(
        &mut self,
        _context: &mut Context<'_>,
        piece: &Bytes,
    ) -> Result<Option<Bytes>, Self::Error> {
        Ok(Some(piece.clone()))
    }

    /// The same to its end.
    fn send_coded(
        &mut self,
        piece: &Bytes,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        self.send(std::slice::from_ref(piece))
    }

    /// Ends a stream.
    fn finish(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The timer of this exchange.
    fn timer(&mut self) -> &mut Timer;

    /// The next thing that the client of a stream does; `socket` = it speaks in frames. A stream
    /// that waits holds no future for it: the task is woken when there may be more.
    fn poll_input(&mut self, context: &mut Context<'_>, socket: bool) -> Poll<Input>;

    /// The same for a socket whose client sends messages, each at most `most` bytes long. What has
    /// come of the next one is kept in `messages`.
    fn poll_message(
        &mut self,
        context: &mut Context<'_>,
        messages: &mut Messages,
        most: usize,
    ) -> Poll<Input>;

    /// The timer, and the next frame of a socket's client, whose payload is at most `most` bytes
    /// long. Cancelling it loses nothing.
    fn frames(&mut self, most: u64) -> (&mut Timer, impl Future<Output = Framed> + Send);

    /// Writes a whole answer.
    fn write(&mut self, reply: &Reply) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// What the client of a stream does.
pub(super) enum Input {
    /// It is gone.
    Gone,
    /// It asks for life, and wants these bytes back.
    Ping(Bytes),
    /// It lives.
    Pong,
    /// It closes its socket, with that payload.
    Close(Bytes),
    /// It did what ends its socket.
    Wrong(CloseCode),
    /// It sent a message of text, where it may.
    Text(Bytes),
}

/// A frame of a socket's client, or its end.
pub(super) enum Framed {
    /// It is gone.
    Gone,
    /// This is the next frame.
    Frame(Frame),
    /// It did what ends its socket.
    Wrong(CloseCode),
}

/// How long a poll was held, and why that ended.
pub(super) type Held = Option<(Duration, Cause)>;

/// The outcome of [`serve`].
pub(super) enum Served<E> {
    /// The request is over: the status and length of its answer, if its client was there to get
    /// one.
    Done {
        held: Held,
        /// How many events a stream had.
        events: Option<u64>,
        answer: Result<Option<(u16, usize)>, E>,
    },
    /// It is the upstream's; perhaps after a hold.
    Forward(Option<Box<ReleasedReplay>>),
}

/// A poll that is held and then answered, a stream, or a request that is answered at once. There are
/// many of them at a time: the task that runs one keeps nothing else for it.
pub(super) struct Answering {
    held: Option<Holding>,
    /// The rest of the request's body is read.
    is_settled: bool,
    outcome: HoldOutcome,
}

/// What is held for a client.
enum Holding {
    Poll(Box<HeldPoll>),
    Stream(Box<HeldStream>),
    Pusher(Box<PusherSocket>),
    /// Others have futures of their own.
    Receive(Box<Receive>),
    Grip(Box<GripHold>),
    GripSocket(Box<GripSocket>),
}

impl Answering {
    /// What a decision comes to; the error is one that takes more than that.
    pub(super) fn of(settings: &Settings, decision: Decision) -> Result<Self, Decision> {
        match decision {
            Decision::Hold(held) => Ok(Self::holding(Holding::Poll(held))),
            Decision::Stream(stream) => Ok(Self::holding(Holding::Stream(stream))),
            Decision::Pusher(HeldPusher::Socket(socket)) => {
                Ok(Self::holding(Holding::Pusher(socket)))
            }
            Decision::Pusher(HeldPusher::Receive(receive)) => {
                Ok(Self::holding(Holding::Receive(receive)))
            }
            Decision::GripHold(held) => Ok(Self::holding(Holding::Grip(held))),
            Decision::Grip(socket) => Ok(Self::holding(Holding::GripSocket(socket))),
            Decision::Reply(reply, cause) => {
                let held = cause.map(|cause| (Duration::ZERO, cause));
                Ok(Self::with(HoldOutcome { held, reply: Some(reply), ..HoldOutcome::default() }))
            }
            Decision::Answer(pending) => Ok(Self::with(pending.outcome(settings))),
            decision => Err(decision),
        }
    }

    /// A stream whose request has no body.
    pub(super) fn stream(stream: Box<HeldStream>) -> Self {
        Self { is_settled: true, ..Self::holding(Holding::Stream(stream)) }
    }

    fn holding(held: Holding) -> Self {
        Self { held: Some(held), is_settled: false, outcome: HoldOutcome::default() }
    }

    fn with(outcome: HoldOutcome) -> Self {
        Self { held: None, is_settled: false, outcome }
    }

    /// The answer to a request whose body is read.
    fn settled(reply: Option<Reply>, held: Held) -> Self {
        let outcome = HoldOutcome { held, reply, ..HoldOutcome::default() };
        Self { held: None, is_settled: true, outcome }
    }

    /// Holds and answers.
    ///
    /// An idle stream or socket is its box alone: this future holds its wait, and each step that
    /// takes more than an event is in a box of its own, for as long as it takes.
    // The future of an `async fn` has its arguments twice.
    #[allow(clippy::manual_async_fn)]
    pub(super) fn run<'a, E: Exchange>(
        &'a mut self,
        exchange: &'a mut E,
    ) -> impl Future<Output = Served<E::Error>> + Send + 'a {
        async move {
            if !self.is_settled {
                match exchange.settle(false).await {
                    Ok(None) => {}
                    Ok(Some(refusal)) => *self = Self::settled(Some(refusal), None),
                    Err(error) => return ended(None, Err(error)),
                }
            }
            match &mut self.held {
                Some(Holding::Poll(held)) => {
                    held.set(exchange.timer());
                    let late = poll_fn(|context| self.poll_held(exchange, context)).await;
                    if let Some(late) = late {
                        self.outcome = late.await;
                    }
                }
                Some(Holding::Stream(stream)) => {
                    let served = loop {
                        let step = poll_fn(|context| stream.poll_step(exchange, context)).await;
                        if let Some(served) = Box::pin(stream.go_on(exchange, step)).await {
                            break served;
                        }
                    };
                    self.held = None;
                    return served;
                }
                Some(Holding::Pusher(socket)) => {
                    let served = loop {
                        let step = poll_fn(|context| socket.poll_step(exchange, context)).await;
                        if let Some(served) = Box::pin(socket.go_on(exchange, step)).await {
                            break served;
                        }
                    };
                    self.held = None;
                    return served;
                }
                Some(_) => {
                    if let Some(serving) = self.serve_held(exchange) {
                        return serving.await;
                    }
                }
                None => {}
            }
            self.prepare(exchange);
            let written = match &self.outcome.reply {
                Some(reply) => exchange.write(reply).await,
                None => return ended(self.outcome.held, Ok(None)),
            };
            if written.is_ok() {
                exchange.gate().written(self.outcome.published);
            }
            let answer = self.outcome.reply.as_ref().map(|reply| (reply.status, reply.body.len()));
            ended(self.outcome.held, written.map(|()| answer))
        }
    }

    /// Serves what has a future of its own.
    fn serve_held<'a, E: Exchange>(
        &mut self,
        exchange: &'a mut E,
    ) -> Option<Serving<'a, E::Error>> {
        match self.held.take()? {
            Holding::Receive(receive) => Some(Box::pin(receive.run(exchange))),
            Holding::Grip(held) => Some(held.run(exchange)),
            Holding::GripSocket(socket) => Some(Box::pin(socket.run(exchange))),
            // These wait in place.
            Holding::Poll(_) | Holding::Stream(_) | Holding::Pusher(_) => None,
        }
    }

    /// Ready at the end of the hold; with a future if the outcome is still to come.
    fn poll_held<E: Exchange>(
        &mut self,
        exchange: &mut E,
        context: &mut Context<'_>,
    ) -> Poll<Option<Later>> {
        let Some(Holding::Poll(held)) = &mut self.held else { return Poll::Ready(None) };
        let end = ready!(held.poll_end(exchange, context));
        let Some(Holding::Poll(held)) = self.held.take() else { return Poll::Ready(None) };
        if held.wants_presence() {
            return Poll::Ready(Some(Box::pin(held.end_with_presence(end))));
        }
        self.outcome = held.end(exchange.settings(), end);
        Poll::Ready(None)
    }

    /// Prepares the exchange for the answer, and the answer for its room.
    fn prepare<E: Exchange>(&mut self, exchange: &mut E) {
        let HoldOutcome { held, reply, share, .. } = &mut self.outcome;
        if let Some((_, Cause::Gone | Cause::Drain)) = held {
            exchange.close_after();
        }
        let Some(reply) = reply else { return };
        if reply.status == 101 {
            // What comes now is of the other protocol.
            exchange.close_after();
        }
        // Many clients that read slowly, or not at all, are refused before they fill the memory.
        if share.is_none() {
            match exchange.settings().room_for(reply) {
                Ok(room) => *share = room,
                Err(full) => *reply = full,
            }
        }
    }
}

/// The end of a request that had one answer at the most.
fn ended<E>(held: Held, answer: Result<Option<(u16, usize)>, E>) -> Served<E> {
    Served::Done { held, events: None, answer }
}

/// Does what was decided on a request.
pub(super) async fn serve<E: Exchange>(
    gate: &Gate,
    settings: &Settings,
    decision: Decision,
    exchange: &mut E,
) -> Served<E::Error> {
    let mut answering = match Answering::of(settings, decision) {
        Ok(answering) => answering,
        Err(decision) => match serve_other(gate, settings, decision, exchange).await {
            Ok(answering) => answering,
            Err(served) => return served,
        },
    };
    answering.run(exchange).await
}

/// The future of what is served in one of its own.
type Serving<'a, E> = Pin<Box<dyn Future<Output = Served<E>> + Send + 'a>>;

/// The outcome of a hold that is still to come.
type Later = Pin<Box<dyn Future<Output = HoldOutcome> + Send>>;

/// The outcome of a request that was not just answered: what is still to be done, or its end.
type Other<E> = Result<Answering, Served<E>>;

/// Does what was decided on such a request, in a future that has room for that alone.
pub(super) fn serve_other<'a, E: Exchange>(
    gate: &'a Gate,
    settings: &'a Settings,
    decision: Decision,
    exchange: &'a mut E,
) -> Pin<Box<dyn Future<Output = Other<E::Error>> + Send + 'a>> {
    match decision {
        Decision::Ask(pending) => Box::pin(async move {
            let decision = Box::pin(pending.resume(settings)).await;
            match Answering::of(settings, decision) {
                Ok(answering) => Ok(answering),
                Err(decision) => serve_other(gate, settings, decision, exchange).await,
            }
        }),
        Decision::Replay(waiting) => Box::pin(async move {
            if let Err(end) = settle(exchange, true).await {
                return end;
            }
            let ended = {
                let (timer, gone) = exchange.waiting();
                waiting.wait(timer, pin!(gone)).await
            };
            let held = Some((ended.held, ended.cause));
            match ended.end {
                ReplayOutcome::Reply(reply) => Ok(Answering::settled(Some(reply), held)),
                ReplayOutcome::Gone => Ok(Answering::settled(None, held)),
                ReplayOutcome::Forward(released) => {
                    if ended.cause == Cause::Drain {
                        exchange.close_after();
                    }
                    Err(Served::Forward(Some(released)))
                }
            }
        }),
        Decision::Roster(pending) => Box::pin(async move {
            if let Err(end) = settle(exchange, false).await {
                return end;
            }
            let (reply, cause) = pending.reply().await;
            Ok(Answering::settled(Some(reply), Some((Duration::ZERO, cause))))
        }),
        Decision::Later(reply) => Box::pin(async move {
            if let Err(end) = settle(exchange, false).await {
                return end;
            }
            Ok(Answering::settled(Some(reply.await), None))
        }),
        Decision::Publish(publish) => Box::pin(async move {
            if let Err(end) = settle(exchange, false).await {
                return end;
            }
            Ok(Answering::settled(Some(gate.publish(publish).await), None))
        }),
        Decision::Site => Box::pin(ready(Err(Served::Forward(None)))),
        // These are `Answering`'s.
        Decision::Hold(_)
        | Decision::Stream(_)
        | Decision::Pusher(_)
        | Decision::Grip(_)
        | Decision::GripHold(_)
        | Decision::Reply(..)
        | Decision::Answer(_) => {
            let answering = Answering::of(settings, decision);
            Box::pin(ready(answering.map_err(|_| Served::Forward(None))))
        }
    }
}

/// Reads the rest of a request's body; the error is the end that this brings about.
async fn settle<E: Exchange>(exchange: &mut E, keep: bool) -> Result<(), Other<E::Error>> {
    match exchange.settle(keep).await {
        Ok(None) => Ok(()),
        Ok(Some(refusal)) => Err(Ok(Answering::settled(Some(refusal), None))),
        Err(error) => Err(Err(ended(None, Err(error)))),
    }
}
