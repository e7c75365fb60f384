//! A WebSocket of the protocol: reads what its client asks, writes what comes on its channels.

use super::client::Client;
use super::outbox::{Close, Outbox, Way};
use super::receive::Receive;
use crate::protocol::dialect::stream::Transport;
use crate::protocol::http::Reply;
use crate::protocol::http::websocket::{self, CloseCode, Messages, Opcode};
use crate::protocol::pusher::{code, frame};
use crate::server::gate::counters::StreamCount;
use crate::server::gate::overslept;
use crate::server::gate::poll::hold::Cause;
use crate::server::gate::serve::{Exchange, Input, Served};
use bytes::Bytes;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A connection of the protocol's that is about to begin, or under way.
pub enum HeldPusher {
    /// A WebSocket.
    Socket(Box<PusherSocket>),
    /// A request for the frames of a session.
    Receive(Box<Receive>),
}

/// See the [module](self).
///
/// An idle socket is this box and its client's.
pub struct PusherSocket {
    client: Box<Client>,
    head: Option<Box<Reply>>,
    began: Instant,
    /// When its client was last heard of, or pinged.
    heard: Instant,
    pinged: bool,
    /// The timer is set for the end of the client's silence, or an earlier time.
    is_timed: bool,
    /// It waits: what wakes it now is mostly an event.
    waits: bool,
    /// What has come of the client's next message.
    messages: Messages,
    events: u64,
    bytes: usize,
    _count: StreamCount,
}

/// How often a socket without channels, which no channel's end wakes, looks for its own.
const TICK: Duration = Duration::from_secs(1);

/// Why a socket ends.
enum End {
    /// Its client is gone.
    Gone,
    /// The server ends it.
    Close(Close),
    /// The client did, or did what ends it; this is the last frame.
    Frame(Bytes),
}

/// What comes next.
pub(in crate::server::gate) enum Step {
    /// The socket begins.
    Begin,
    Look,
    /// Frames that are not written at once, and the end that came with them.
    Collected(Box<(Outbox, Result<(), Close>)>),
    /// The client has not taken all of a frame at once.
    Rest(Box<(Bytes, Outbox)>),
    Time,
    Client(Input),
}

/// Events that are written without a look at the client and the timer in between.
const MAX_IN_A_ROW: u32 = 8;

impl PusherSocket {
    pub(super) fn new(client: Box<Client>, head: Reply) -> Self {
        let now = Instant::now();
        Self {
            _count: StreamCount::new(&client.gate, Transport::WebSocket),
            client,
            head: Some(Box::new(head)),
            began: now,
            heard: now,
            pinged: false,
            is_timed: false,
            waits: false,
            messages: Messages::default(),
            events: 0,
            bytes: 0,
        }
    }

    /// Takes a step, and all those that need no wait after it; the outcome of the socket, if it ends
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
        let (cause, answer) = match ended {
            Ok(cause) => (cause, Ok(Some((101, self.bytes)))),
            Err(error) => (Cause::Gone, Err(error)),
        };
        let gate = &self.client.gate.shared;
        gate.counters.release(cause, None, &gate.metrics.watched);
        exchange.close_after();
        let held = Some((self.began.elapsed(), cause));
        Some(Served::Done { held, events: Some(self.events), answer })
    }

    /// Does what `step` asks for, and then writes what there is until there is nothing more to
    /// collect; the cause of the socket's end, if that comes.
    async fn follow<E: Exchange>(
        &mut self,
        exchange: &mut E,
        step: Step,
    ) -> Result<Option<Cause>, E::Error> {
        let mut collected = None;
        let ended = match step {
            Step::Begin => {
                if let Some(head) = self.head.take() {
                    exchange.start(&head, &[]).await?;
                }
                None
            }
            Step::Look => None,
            Step::Collected(frames) => {
                collected = Some(*frames);
                None
            }
            Step::Rest(rest) => {
                let (left, mut out) = *rest;
                exchange.send_coded(&left).await?;
                self.client.written(&mut out);
                None
            }
            Step::Time => self.silent(exchange).await?,
            Step::Client(input) => {
                (self.heard, self.pinged, self.is_timed) = (Instant::now(), false, false);
                self.input(exchange, input).await?.err()
            }
        };
        let end = match ended {
            Some(end) => end,
            None => match self.write(exchange, collected).await? {
                Some(close) => End::Close(close),
                None => {
                    self.waits = false;
                    return Ok(None);
                }
            },
        };
        Self::end(exchange, end).await.map(Some)
    }

    /// Writes what was collected, and then what there is; the end of the socket, if that comes.
    async fn write<E: Exchange>(
        &mut self,
        exchange: &mut E,
        mut before: Option<(Outbox, Result<(), Close>)>,
    ) -> Result<Option<Close>, E::Error> {
        loop {
            // What came before it was over is still written.
            let over = self.client.is_over().filter(|_| before.is_none());
            let is_first = before.is_some();
            let (mut out, collected) = before.take().unwrap_or_else(|| self.collect());
            let is_full = out.is_full();
            if !out.is_empty() {
                exchange.send(&out.take()).await?;
                self.client.written(&mut out);
            }
            if let Err(close) = collected {
                return Ok(Some(close));
            }
            tokio::task::consume_budget().await;
            if is_full || is_first {
                continue;
            }
            return Ok(over);
        }
    }

    /// What has come on the client's channels, and the end that this brings about.
    fn collect(&mut self) -> (Outbox, Result<(), Close>) {
        let mut out = Outbox::new(Way::Socket);
        let collected = self.client.collect(&mut out);
        self.bytes += out.bytes();
        self.events += std::mem::take(&mut out.events);
        (out, collected)
    }

    /// Does what the client's silence asks for; the end that this brings about.
    async fn silent<E: Exchange>(&mut self, exchange: &mut E) -> Result<Option<End>, E::Error> {
        self.is_timed = false;
        let (silence, patience) = (self.heard.elapsed(), self.patience());
        if silence < patience {
            return Ok(None);
        }
        if self.pinged && !overslept(silence, patience) {
            return Ok(Some(End::Close(Close::new(code::NO_PONG, "no answer to a ping"))));
        }
        if !self.pinged {
            let ping = [Way::Socket.wrap(&frame::ping()).into()];
            exchange.send(&ping).await?;
        }
        (self.heard, self.pinged) = (Instant::now(), true);
        Ok(None)
    }

    /// How long the client may be silent from now on.
    fn patience(&self) -> Duration {
        let silence = self.client.app().ping;
        if self.pinged { silence / 2 } else { silence }
    }

    /// Writes the last frames.
    async fn end<E: Exchange>(exchange: &mut E, end: End) -> Result<Cause, E::Error> {
        match end {
            End::Gone => Ok(Cause::Gone),
            End::Frame(frame) => exchange.send(&[frame]).await.map(|()| Cause::Gone),
            End::Close(close) => {
                let cause = match close.code {
                    code::RECONNECT => Cause::Drain,
                    code::NO_PONG => Cause::Gone,
                    _ => Cause::Expired,
                };
                exchange.send(&close.written(Way::Socket).map(Bytes::from)).await?;
                Ok(cause)
            }
        }
    }

    /// Does what a client wants; the inner error ends the socket.
    async fn input<E: Exchange>(
        &mut self,
        exchange: &mut E,
        input: Input,
    ) -> Result<Result<(), End>, E::Error> {
        let end = |code| Ok(Err(End::Frame(websocket::close(code, "").into())));
        match input {
            Input::Gone => Ok(Err(End::Gone)),
            Input::Pong => Ok(Ok(())),
            Input::Ping(payload) => {
                let pong = websocket::frame(Opcode::Pong, &payload);
                exchange.send(&[pong.into()]).await.map(Ok)
            }
            Input::Wrong(code) => end(code),
            Input::Close(payload) => match websocket::close_answer(&payload) {
                Ok(_) => {
                    let code = payload.get(..2).unwrap_or_default();
                    Ok(Err(End::Frame(websocket::frame(Opcode::Close, code).into())))
                }
                Err(code) => end(code),
            },
            Input::Text(text) => {
                let Ok(text) = std::str::from_utf8(&text) else { return end(CloseCode::Invalid) };
                let mut out = Outbox::new(Way::Socket);
                // Boxed: its room is taken only while a frame is handled.
                let handled = Box::pin(self.client.handle(text, &mut out)).await;
                if !out.is_empty() {
                    exchange.send(&out.take()).await?;
                }
                Ok(handled.map_err(End::Close))
            }
        }
    }

    /// The next step. Events that come meanwhile one by one are written.
    pub(in crate::server::gate) fn poll_step<E: Exchange>(
        &mut self,
        exchange: &mut E,
        context: &mut Context<'_>,
    ) -> Poll<Result<Step, E::Error>> {
        if self.head.is_some() {
            return Poll::Ready(Ok(Step::Begin));
        }
        if !std::mem::replace(&mut self.is_timed, true) {
            let soon = self.client.has_no_channels().then(|| Instant::now() + TICK);
            let ends = self.heard.checked_add(self.patience());
            exchange.timer().set_deadline(soon.into_iter().chain(ends).min());
        }
        // As a stream of a dialect: once it waits, it is mostly an event that wakes it.
        let woken = std::mem::replace(&mut self.waits, true);
        if woken && let Poll::Ready(step) = self.poll_events(exchange, context) {
            return Poll::Ready(step);
        }
        let most = self.client.max_frame();
        if let Poll::Ready(input) = exchange.poll_message(context, &mut self.messages, most) {
            return Poll::Ready(Ok(Step::Client(input)));
        }
        if !woken && let Poll::Ready(step) = self.poll_events(exchange, context) {
            return Poll::Ready(step);
        }
        exchange.timer().poll_expired(context).map(|()| Ok(Step::Time))
    }

    /// Writes the events that come one by one. Ready once there is something else to do.
    fn poll_events<E: Exchange>(
        &mut self,
        exchange: &mut E,
        context: &mut Context<'_>,
    ) -> Poll<Result<Step, E::Error>> {
        for _ in 0..MAX_IN_A_ROW {
            if self.client.waiter.poll_notified(context).is_pending() {
                return Poll::Pending;
            }
            if self.client.is_over().is_some() {
                break;
            }
            let (mut out, collected) = self.collect();
            if out.is_empty() && collected.is_ok() {
                continue;
            }
            let Some(frame) = out.only().filter(|_| collected.is_ok()) else {
                return Poll::Ready(Ok(Step::Collected(Box::new((out, collected)))));
            };
            match exchange.write_coded(context, &frame) {
                Ok(None) => self.client.written(&mut out),
                Ok(Some(left)) => return Poll::Ready(Ok(Step::Rest(Box::new((left, out))))),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(Step::Look))
    }
}
