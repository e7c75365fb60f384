//! One request for all: where the site's answer is the same for everybody, one of the polls that
//! a publish has released fetches it, and the others get it too.

use crate::hub::channel::{ChannelName, Position};
use crate::protocol::dialect::Poll;
use crate::protocol::dialect::replay::Replay;
use crate::protocol::http::{Headers, Reply};
use crate::server::gate::Incoming;
use crate::server::gate::poll::hold::Cause;
use crate::server::gate::route::Rule;
use bytes::{Bytes, BytesMut};
use lru::LruCache;
use parking_lot::Mutex;
use pingora::http::ResponseHeader;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout_at;

/// The longest body that is shared, in bytes.
const MAX_BODY: usize = 1 << 20;
/// Bytes of answers that are kept for those who come a little later.
const MAX_KEPT: usize = 32 << 20;
/// Fetches that are known of, under way and done.
const MAX_FLIGHTS: usize = 10_000;
/// How long an answer is kept for those that the same publish has released.
const TTL: Duration = Duration::from_secs(5);
/// How long the body of an answer may be on its way: a client that takes it slowly is not to
/// delay the others, so another one goes.
const STUCK: Duration = Duration::from_secs(3);
/// How long for those whose time was up, for which no position says that it is new enough.
const QUIET_TTL: Duration = Duration::from_secs(1);

/// Headers that are one client's own, or one connection's.
const OWN_HEADERS: [&str; 14] = [
    "set-cookie",
    "set-cookie2",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "content-type",
    "date",
    "age",
];

/// Polls with one answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    rule: String,
    channel: ChannelName,
    request: String,
}

impl Key {
    pub(super) fn of(
        rule: &Rule,
        replay: &Replay,
        request: &Incoming<'_>,
        poll: &Poll,
    ) -> Option<Self> {
        let header = |name| Headers::get(request.headers, name).unwrap_or_default();
        let (encoding, origin) = (header("accept-encoding"), header("origin"));
        Some(Self {
            rule: format!("{:?} {}", rule.path, replay.channel),
            channel: poll.subscriptions.first()?.channel.clone(),
            // The two headers that make a difference to any client's reading of an answer.
            request: format!("{} {}\n{encoding}\n{origin}", request.method, request.path),
        })
    }
}

/// How a fetch ended for those who wait for it.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// With an answer for all.
    Answer(Reply),
    /// With one that is not for all, or none: each is to go by itself.
    EachAlone,
    /// Not at all; another is to go.
    Abandoned,
}

/// How far a fetch is.
#[derive(Debug, Clone)]
enum State {
    RecentRequests,
    /// The head of the answer has come, at that time.
    Answering(Instant),
    Landed(Outcome),
}

/// What to do for an answer.
pub(super) enum Join {
    /// Fetch it.
    Leader(Leader),
    /// It is being fetched.
    Follow(Flight),
    /// It was fetched just now.
    Landed(Reply),
}

/// A fetch under way, as the others see it.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    position: Option<Position>,
    began: Instant,
    state: watch::Receiver<State>,
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct SingleFlight {
    board: Arc<Shared>,
}

struct Shared(Mutex<InFlight>);

struct InFlight {
    by_key: LruCache<Key, Flight>,
    /// Bytes of bodies in the outcomes.
    kept: usize,
}

impl Default for Shared {
    fn default() -> Self {
        Self(Mutex::new(InFlight { by_key: LruCache::unbounded(), kept: 0 }))
    }
}

impl SingleFlight {
    /// Joins those who want the answer for a channel at `position`, or leads them.
    pub(super) fn join(&self, key: &Key, position: Option<Position>, cause: Cause) -> Join {
        let mut flying = self.board.0.lock();
        if let Some(flight) = flying.by_key.get(key)
            && flight.covers(position)
        {
            // Look at once: it may end meanwhile.
            let state = flight.state.borrow().clone();
            let flies = flight.state.has_changed().is_ok();
            match state {
                State::RecentRequests if flies => return Join::Follow(flight.clone()),
                State::Answering(since) if flies && since.elapsed() < STUCK => {
                    return Join::Follow(flight.clone());
                }
                State::Landed(Outcome::Answer(reply))
                    if flight.began.elapsed() < kept_for(cause) =>
                {
                    return Join::Landed(reply);
                }
                _ => {}
            }
        }
        let (sender, state) = watch::channel(State::RecentRequests);
        let flight = Flight { position, began: Instant::now(), state };
        flying.put(key.clone(), flight.clone());
        let (board, key) = (self.board.clone(), key.clone());
        Join::Leader(Leader { board, key, flight, sender, answer: None })
    }
}

fn kept_for(cause: Cause) -> Duration {
    match cause {
        Cause::Message | Cause::Reset => TTL,
        Cause::Timeout | Cause::Gone | Cause::Drain | Cause::Expired => QUIET_TTL,
    }
}

impl Flight {
    /// Whether its answer has all that a poll released at `position` is to get.
    fn covers(&self, position: Option<Position>) -> bool {
        self.position.zip(position).is_some_and(|(own, other)| own.covers(other))
    }

    fn bytes(&self) -> usize {
        match &*self.state.borrow() {
            State::Landed(Outcome::Answer(reply)) => reply.body.len(),
            _ => 0,
        }
    }

    /// Waits for its end.
    pub(super) async fn landing(mut self) -> Outcome {
        loop {
            let state = self.state.borrow_and_update().clone();
            let changed = match state {
                State::Landed(outcome) => return outcome,
                State::RecentRequests => self.state.changed().await.is_ok(),
                State::Answering(since) => {
                    let changed = timeout_at((since + STUCK).into(), self.state.changed()).await;
                    matches!(changed, Ok(Ok(())))
                }
            };
            if !changed {
                return Outcome::Abandoned;
            }
        }
    }
}

impl InFlight {
    fn put(&mut self, key: Key, flight: Flight) {
        if let Some(before) = self.by_key.put(key, flight) {
            self.kept -= before.bytes().min(self.kept);
        }
        self.trim();
    }

    /// Drops what is old, and what is too much.
    fn trim(&mut self) {
        while let Some((_, flight)) = self.by_key.peek_lru() {
            let over = self.kept > MAX_KEPT || self.by_key.len() > MAX_FLIGHTS;
            let old =
                matches!(*flight.state.borrow(), State::Landed(_)) && flight.began.elapsed() > TTL;
            if !over && !old {
                return;
            }
            self.kept -= flight.bytes().min(self.kept);
            self.by_key.pop_lru();
        }
    }
}

/// The one that fetches. Dropping it lets another go in its place.
pub(super) struct Leader {
    board: Arc<Shared>,
    key: Key,
    flight: Flight,
    sender: watch::Sender<State>,
    /// The answer so far, if it can be shared.
    answer: Option<(Reply, BytesMut)>,
}

impl Leader {
    /// The head of the answer, as the client is to get it.
    pub(super) fn head(&mut self, head: &ResponseHeader) {
        self.answer = shared_head(head).map(|reply| (reply, BytesMut::new()));
        self.sender.send_replace(match self.answer {
            Some(_) => State::Answering(Instant::now()),
            None => State::Landed(Outcome::EachAlone),
        });
    }

    /// A piece of its body.
    pub(super) fn body(&mut self, piece: &Bytes) {
        let Some((_, body)) = &mut self.answer else { return };
        if body.len() + piece.len() > MAX_BODY {
            self.answer = None;
            self.sender.send_replace(State::Landed(Outcome::EachAlone));
            return;
        }
        body.extend_from_slice(piece);
    }

    /// The answer is whole.
    pub(super) fn complete(mut self) {
        let Some((mut reply, body)) = self.answer.take() else { return };
        reply.body = body.freeze();
        let mut flying = self.board.0.lock();
        // Its place may have been given to a later one.
        let ours = |flight: &Flight| flight.state.same_channel(&self.flight.state);
        if flying.by_key.peek(&self.key).is_some_and(ours) {
            flying.kept += reply.body.len();
        }
        self.sender.send_replace(State::Landed(Outcome::Answer(reply)));
        flying.trim();
    }

    /// There is none.
    pub(super) fn fail(self) {
        self.sender.send_replace(State::Landed(Outcome::EachAlone));
    }
}

/// The head of an answer for all; `None` if it is for one alone. A refusal, a redirection to a
/// login, or a part of a body are answers to whoever has asked.
fn shared_head(head: &ResponseHeader) -> Option<Reply> {
    let status = head.status.as_u16();
    if !(200..300).contains(&status) || status == 206 {
        return None;
    }
    let length = head.headers.get("content-length").and_then(|length| length.to_str().ok());
    if length.and_then(|length| length.parse::<usize>().ok()).is_some_and(|l| l > MAX_BODY) {
        return None;
    }
    let mut reply = Reply::new(status, "", "");
    for (name, value) in &head.headers {
        let value = std::str::from_utf8(value.as_bytes()).ok()?.to_owned();
        if name.as_str() == "content-type" {
            reply.content_type = value.into();
        } else if !OWN_HEADERS.contains(&name.as_str()) {
            reply.headers.push((Cow::Owned(name.as_str().to_owned()), value.into()));
        }
    }
    Some(reply)
}
