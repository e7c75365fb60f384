//! A WebSocket of the protocol: reads what its client asks, writes what comes on its channels.

use super::client::Client;
use super::outbox::{Close, Outbox, Way};
use super::receive::Receive;
use crate::protocol::http::Reply;
use crate::protocol::http::websocket::{self, CloseCode, Messages, Opcode};
use crate::protocol::pusher::{code, frame};
use crate::server::gate::poll::hold::Cause;
use crate::server::gate::serve::{Exchange, Input, Served};
use crate::server::gate::{Gate, overslept};
use bytes::Bytes;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

/// A connection of the protocol's that is about to begin, or under way.
pub enum HeldPusher {
    /// A WebSocket.
    Socket(Box<PusherSocket>),
    /// A request for the frames of a session.
    Receive(Box<Receive>),
}

impl HeldPusher {
    /// Serves it until either side ends it.
    pub(in crate::server::gate) async fn run<E: Exchange>(
        self,
        exchange: &mut E,
    ) -> Served<E::Error> {
        match self {
            Self::Socket(socket) => socket.run(exchange).await,
            Self::Receive(receive) => receive.run(exchange).await,
        }
    }
}

/// See the [module](self).
pub struct PusherSocket {
    gate: Gate,
    client: Box<Client>,
    head: Option<Reply>,
    began: Instant,
    _count: crate::server::gate::counters::StreamCount,
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
enum Step {
    Look,
    Time,
    Client(Input),
}

impl PusherSocket {
    pub(super) fn new(gate: Gate, client: Box<Client>, head: Reply) -> Self {
        let transport = crate::protocol::dialect::stream::Transport::WebSocket;
        let count = crate::server::gate::counters::StreamCount::new(&gate, transport);
        Self { gate, client, head: Some(head), began: Instant::now(), _count: count }
    }

    async fn run<E: Exchange>(mut self, exchange: &mut E) -> Served<E::Error> {
        let mut events = 0;
        let mut bytes = 0;
        let ended = self.serve(exchange, &mut events, &mut bytes).await;
        let (cause, answer) = match ended {
            Ok(cause) => (cause, Ok(Some((101, bytes)))),
            Err(error) => (Cause::Gone, Err(error)),
        };
        let gate = &self.gate.shared;
        gate.counters.release(cause, None, &gate.metrics.watched);
        exchange.close_after();
        Served::Done { held: Some((self.began.elapsed(), cause)), events: Some(events), answer }
    }

    async fn serve<E: Exchange>(
        &mut self,
        exchange: &mut E,
        events: &mut u64,
        bytes: &mut usize,
    ) -> Result<Cause, E::Error> {
        if let Some(head) = self.head.take() {
            // Boxed, as are all writes but those of events: an idle socket has no room for them.
            Box::pin(exchange.start(&head, &[])).await?;
        }
        let mut messages = Messages::default();
        let mut heard = Instant::now();
        let mut pinged = false;
        let end = loop {
            // What came before is still written.
            let over = self.client.is_over();
            let mut out = Outbox::new(Way::Socket);
            let collected = self.client.collect(&mut out);
            let is_full = out.is_full();
            if !out.is_empty() {
                *bytes += out.bytes();
                *events += std::mem::take(&mut out.events);
                exchange.send(&out.take()).await?;
                self.client.written(&mut out);
            }
            if let Err(close) = collected {
                break End::Close(close);
            }
            if is_full {
                tokio::task::consume_budget().await;
                continue;
            }
            if let Some(close) = over {
                break End::Close(close);
            }
            let silence = self.client.app().ping;
            let patience = if pinged { silence / 2 } else { silence };
            let left = patience.saturating_sub(heard.elapsed());
            match self.next(exchange, &mut messages, left).await {
                Step::Look => tokio::task::consume_budget().await,
                Step::Time if heard.elapsed() < patience => {}
                Step::Time if pinged && overslept(heard.elapsed(), patience) => {
                    heard = Instant::now();
                }
                Step::Time if pinged => {
                    break End::Close(Close::new(code::NO_PONG, "no answer to a ping"));
                }
                Step::Time => {
                    let ping = [Way::Socket.wrap(&frame::ping()).into()];
                    Box::pin(exchange.send(&ping)).await?;
                    (heard, pinged) = (Instant::now(), true);
                }
                Step::Client(input) => {
                    (heard, pinged) = (Instant::now(), false);
                    match Box::pin(self.input(exchange, input)).await? {
                        Ok(()) => {}
                        Err(end) => break end,
                    }
                }
            }
        };
        Box::pin(Self::end(exchange, end)).await
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

    /// Waits for what comes next, for `left` at the most.
    async fn next<E: Exchange>(
        &self,
        exchange: &mut E,
        messages: &mut Messages,
        left: Duration,
    ) -> Step {
        let left = if self.client.has_no_channels() { left.min(TICK) } else { left };
        exchange.timer().set(Some(left));
        let most = self.client.max_frame();
        let next = poll_fn(|context| {
            if let Poll::Ready(input) = exchange.poll_message(context, messages, most) {
                return Poll::Ready(Step::Client(input));
            }
            if self.client.waiter.poll_notified(context).is_ready() {
                return Poll::Ready(Step::Look);
            }
            exchange.timer().poll_expired(context).map(|()| Step::Time)
        });
        next.await
    }
}
