//! An open socket: its loop, and what is due in it.

use super::client::MAX_MESSAGE;
use crate::hub::channel::Time;
use crate::protocol::grip::events::{Event, KeepAlive, Kind, Message};
use crate::protocol::grip::filter::Meta;
use crate::protocol::grip::instruct::Channel;
use crate::protocol::http::websocket::{self, Messages, Opcode};
use crate::server::gate::grip::origin::{Answer, Origin};
use crate::server::gate::grip::subscription::Subscription;
use crate::server::gate::poll::hold::Cause;
use crate::server::gate::serve::{Exchange, Framed};
use crate::server::gate::{Gate, overslept};
use bytes::Bytes;
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

/// A request at the site: the events in it, and the site's response.
pub(super) type Asked = Result<(Vec<Event>, Answer), String>;
pub(super) type Asking = Pin<Box<dyn Future<Output = Asked> + Send>>;

/// The end of a socket.
pub(super) struct End {
    pub(super) cause: Cause,
    /// The payload of the close frame; `None` = the connection is cut.
    pub(super) close: Option<Bytes>,
}

/// State of an open socket.
pub(super) struct Session {
    pub(super) gate: Gate,
    pub(super) origin: Origin,
    /// Names the socket to the site.
    pub(super) id: String,
    /// Values for filters.
    pub(super) meta: Meta,
    /// Values that the site has stored in the socket, for its own requests.
    pub(super) stored: Meta,
    /// What messages for the client begin with; `None` = the site does not control the socket.
    pub(super) prefix: Option<String>,
    /// The site is not asked any more.
    pub(super) detached: bool,
    pub(super) channels: Vec<Channel>,
    pub(super) subscription: Option<Subscription>,
    /// Events for the site.
    pub(super) queue: Vec<Event>,
    /// Bytes at their beginning that the site was offered before.
    pub(super) replayed: usize,
    /// The site is asked although there are no events.
    pub(super) refresh: bool,
    /// The time between two requests of a quiet socket.
    pub(super) interval: Option<Duration>,
    pub(super) asked_at: Instant,
    pub(super) keep_alive: Option<KeepAlive>,
    pub(super) alive_at: Option<Instant>,
    pub(super) delayed: Option<(Message, Option<Instant>)>,
    /// Frames for the client.
    pub(super) out: Vec<u8>,
    pub(super) end: Option<End>,
    /// The client has closed its side, with this payload, and waits for the site's until then.
    pub(super) closing: Option<(Bytes, Option<Instant>)>,
    pub(super) reader: Messages,
    pub(super) bytes: usize,
    pub(super) events: u64,
}

enum Step {
    Answer(Asked),
    Client(Framed),
    Look,
    Due,
}

/// Bytes for the site that are kept while it is asked; then the client is not read.
const MAX_QUEUE: usize = 200_000;
/// How long the site may take to close a socket that its client has closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Signs of life that a client may leave unanswered.
const MAX_UNANSWERED: u32 = 2;

impl Session {
    pub(super) fn new(gate: &Gate, origin: &Origin) -> Self {
        Self {
            gate: gate.clone(),
            origin: origin.clone(),
            id: format!("{:032x}", fastrand::u128(..)),
            meta: Meta::new(),
            stored: Meta::new(),
            prefix: None,
            detached: false,
            channels: Vec::new(),
            subscription: None,
            queue: Vec::new(),
            replayed: 0,
            refresh: false,
            interval: None,
            asked_at: Instant::now(),
            keep_alive: None,
            alive_at: None,
            delayed: None,
            out: Vec::new(),
            end: None,
            closing: None,
            reader: Messages::default(),
            bytes: 0,
            events: 0,
        }
    }

    /// Puts an event for the site behind the others.
    pub(super) fn push(&mut self, event: Event) {
        if !self.detached {
            self.queue.push(event);
        }
    }

    /// Serves the socket until its end; `first` is the site's response to its opening.
    pub(super) async fn serve<E: Exchange>(
        &mut self,
        exchange: &mut E,
        first: Answer,
    ) -> Result<Cause, E::Error> {
        let shared = self.gate.shared.clone();
        let heartbeat = self.origin.settings().stream.heartbeat;
        let heartbeat = (!heartbeat.is_zero()).then_some(heartbeat);
        let mut heard = Instant::now();
        let mut unanswered = 0;
        let mut asking: Option<Asking> = None;
        self.answered(Ok((Vec::new(), first)), true);
        loop {
            let is_full = self.deliver((shared.clock)());
            if let Some(End { close: Some(payload), .. }) = &self.end {
                websocket::write(&mut self.out, Opcode::Close, payload);
            }
            if !self.out.is_empty() {
                self.bytes += self.out.len();
                let out = Bytes::from(std::mem::take(&mut self.out));
                exchange.send(&[out]).await?;
            }
            if let Some(end) = self.end.take() {
                if end.cause == Cause::Gone && end.close.is_none() {
                    self.gone(asking);
                }
                return Ok(end.cause);
            }
            if is_full {
                tokio::task::consume_budget().await;
                continue;
            }
            let due_ask = self.interval.is_some_and(|after| self.asked_at.elapsed() >= after);
            if asking.is_none()
                && !self.detached
                && (!self.queue.is_empty() || self.refresh || due_ask)
            {
                asking = Some(Box::pin(self.request()));
            }
            let times = [
                heartbeat.and_then(|after| heard.checked_add(after)),
                self.interval
                    .filter(|_| asking.is_none())
                    .and_then(|it| self.asked_at.checked_add(it)),
                self.alive_at,
                self.delayed.as_ref().and_then(|(_, at)| *at),
                self.closing.as_ref().and_then(|(_, until)| *until),
            ];
            let reads = self.closing.is_none() && self.queued() < MAX_QUEUE;
            let step = {
                let (timer, frame) = exchange.frames(self.reader.room(MAX_MESSAGE));
                let due = times.into_iter().flatten().min();
                timer.set(due.map(|due| due.saturating_duration_since(Instant::now())));
                let mut frame = pin!(frame);
                let answer = async {
                    match &mut asking {
                        Some(asking) => asking.await,
                        None => pending().await,
                    }
                };
                let news = async {
                    match &self.subscription {
                        Some(subscription) => subscription.notified().await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    answer = answer => Step::Answer(answer),
                    () = news => Step::Look,
                    framed = &mut frame, if reads => Step::Client(framed),
                    () = poll_fn(|context| timer.poll_expired(context)) => Step::Due,
                }
            };
            match step {
                Step::Look => {}
                Step::Answer(answer) => {
                    asking = None;
                    self.answered(answer, false);
                }
                Step::Client(framed) => {
                    (heard, unanswered) = (Instant::now(), 0);
                    self.on_frame(framed);
                    if let Some((payload, until)) = &mut self.closing
                        && until.is_none()
                    {
                        *until = Instant::now().checked_add(CLOSE_TIMEOUT);
                        if self.detached {
                            let close = Some(payload.clone());
                            self.end = Some(End { cause: Cause::Gone, close });
                        }
                    }
                }
                Step::Due => {
                    self.on_time();
                    let silence = heard.elapsed();
                    if let Some(after) = heartbeat.filter(|after| silence >= *after) {
                        heard = Instant::now();
                        if !overslept(silence, after) {
                            unanswered += 1;
                        }
                        websocket::write(&mut self.out, Opcode::Ping, b"");
                        if unanswered > MAX_UNANSWERED {
                            self.end = Some(End { cause: Cause::Gone, close: None });
                        }
                    }
                }
            }
            if self.subscription.as_ref().is_some_and(Subscription::is_draining)
                || self.gate.is_draining()
            {
                let close = super::close_payload(1001, "restart");
                self.gone(asking.take());
                self.end.get_or_insert(End { cause: Cause::Drain, close: Some(close) });
            }
        }
    }

    /// Does what is due at this time.
    fn on_time(&mut self) {
        let now = Instant::now();
        if self.alive_at.is_some_and(|at| at <= now)
            && let Some(keep_alive) = self.keep_alive.clone()
        {
            self.send(&keep_alive.message);
            self.alive_at = now.checked_add(keep_alive.timeout);
        }
        if self.delayed.as_ref().is_some_and(|(_, at)| at.is_some_and(|at| at <= now)) {
            self.flush_delayed();
        }
        if let Some((payload, Some(until))) = &self.closing
            && *until <= now
        {
            let close = Some(payload.clone());
            self.end.get_or_insert(End { cause: Cause::Gone, close });
        }
    }

    pub(super) fn flush_delayed(&mut self) {
        if let Some((message, _)) = self.delayed.take() {
            self.send(&message);
        }
    }

    /// A message for the client.
    pub(super) fn send(&mut self, message: &Message) {
        let opcode = match message.kind {
            Kind::Binary => Opcode::Binary,
            Kind::Ping => Opcode::Ping,
            Kind::Pong => Opcode::Pong,
            _ => Opcode::Text,
        };
        websocket::write(&mut self.out, opcode, &message.content);
        if let Some(keep_alive) = self.keep_alive.as_ref().filter(|it| !it.interval) {
            self.alive_at = Instant::now().checked_add(keep_alive.timeout);
        }
    }

    fn queued(&self) -> usize {
        self.queue.iter().map(|event| event.len() + 16).sum()
    }

    /// Subscribes to the channels that there are now.
    pub(super) fn subscribe(&mut self, now: Time) {
        let before = self.subscription.as_ref().map(Subscription::places).unwrap_or_default();
        let hub = &self.gate.shared.hub;
        let site = self.origin.settings().site_name();
        self.subscription = match self.channels.is_empty() {
            true => None,
            false => Subscription::new((hub, site), &self.channels, &before, now).ok(),
        };
        if self.subscription.is_none() && !self.channels.is_empty() {
            let close = super::close_payload(1013, "there is no room for another channel");
            self.end.get_or_insert(End { cause: Cause::Reset, close: Some(close) });
        }
    }
}
