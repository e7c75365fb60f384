//! Serving a decision, whatever carries the request.
//!
//! The fast path, HTTP/2 and the proxy differ in how they write and how they notice that a client
//! is gone. That is an [`Exchange`]; all else is here, once. Dropping the future drops what is
//! held for the client.

use super::poll::hold::Cause;
use super::replay::{ReleasedReplay, ReplayOutcome};
use super::{Decision, Gate, Settings, Timer};
use crate::protocol::http::Reply;
use crate::protocol::http::websocket::{CloseCode, Frame, Messages};
use bytes::Bytes;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};
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

/// Does what was decided on a request.
pub(super) async fn serve<E: Exchange>(
    gate: &Gate,
    settings: &Settings,
    decision: Decision,
    exchange: &mut E,
) -> Served<E::Error> {
    let decision = match decision {
        // Boxed, as all that is not there while a poll is held is to take no room meanwhile.
        Decision::Ask(pending) => Box::pin(pending.resume(settings)).await,
        decided => decided,
    };
    if matches!(decision, Decision::Site) {
        return Served::Forward(None);
    }
    let decision = match exchange.settle(matches!(decision, Decision::Replay(_))).await {
        Ok(None) => decision,
        Ok(Some(refusal)) => Decision::Reply(refusal, None),
        Err(error) => return Served::Done { held: None, events: None, answer: Err(error) },
    };
    let (reply, held, published) = match decision {
        Decision::Hold(held) => {
            let (timer, gone) = exchange.waiting();
            let ended = held.wait(timer, pin!(gone)).await;
            (ended.reply, Some((ended.held, ended.cause)), ended.published)
        }
        Decision::Reply(reply, cause) => {
            (Some(reply), cause.map(|cause| (Duration::ZERO, cause)), None)
        }
        Decision::Replay(waiting) => {
            let ended = {
                let (timer, gone) = exchange.waiting();
                Box::pin(async move { waiting.wait(timer, pin!(gone)).await }).await
            };
            let held = Some((ended.held, ended.cause));
            match ended.end {
                ReplayOutcome::Reply(reply) => (Some(reply), held, None),
                ReplayOutcome::Gone => (None, held, None),
                ReplayOutcome::Forward(released) => {
                    if ended.cause == Cause::Drain {
                        exchange.close_after();
                    }
                    return Served::Forward(Some(released));
                }
            }
        }
        // Boxed: what a stream needs beside a poll is its own.
        Decision::Stream(stream) => return Box::pin(stream.run(exchange)).await,
        Decision::Roster(pending) => {
            let (reply, cause) = Box::pin(pending.reply()).await;
            (Some(reply), Some((Duration::ZERO, cause)), None)
        }
        Decision::Pusher(pusher) => return Box::pin(pusher.run(exchange)).await,
        Decision::Grip(socket) => return Box::pin(socket.run(exchange)).await,
        Decision::GripHold(held) => return held.run(exchange).await,
        Decision::Publish(publish) => (Some(Box::pin(gate.publish(publish)).await), None, None),
        Decision::Site | Decision::Ask(_) => return Served::Forward(None),
    };
    if let Some((_, Cause::Gone | Cause::Drain)) = held {
        exchange.close_after();
    }
    let Some(reply) = reply else { return Served::Done { held, events: None, answer: Ok(None) } };
    if reply.status == 101 {
        // What comes now is of the other protocol.
        exchange.close_after();
    }
    // Many clients that read slowly, or not at all, are refused before they fill the memory.
    let (reply, _share) = match settings.room_for(&reply) {
        Ok(share) => (reply, share),
        Err(full) => (full, None),
    };
    let written = exchange.write(&reply).await;
    if written.is_ok() {
        gate.written(published);
    }
    Served::Done {
        held,
        events: None,
        answer: written.map(|()| Some((reply.status, reply.body.len()))),
    }
}
