//! One request for all: if the upstream's response is the same for all clients, one of the polls
//! that a publish has released fetches it, and the others get it too.

use super::shared_cache::Key;
use crate::hub::channel::Position;
use crate::protocol::http::Reply;
use crate::server::gate::poll::hold::Cause;
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
/// Bytes of responses that are kept for polls that come a little later.
const MAX_KEPT: usize = 32 << 20;
/// Upper bound of tracked fetches, under way and done.
const MAX_FLIGHTS: usize = 10_000;
/// Time that a response is kept for polls that the same publish has released.
const TTL: Duration = Duration::from_secs(5);
/// Longest time that the body of a response may be on its way: a client that takes it slowly must
/// not delay the others, so another poll fetches it.
const STUCK: Duration = Duration::from_secs(3);
/// Time that a response is kept for polls whose hold timed out, for which no position proves that
/// it is new enough.
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

/// The outcome of a fetch for the polls that wait for it.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// A response for all.
    Answer(Reply),
    /// A response that is not for all, or none: each poll is forwarded by itself.
    EachAlone,
    /// The upstream has nothing for them: they are held on.
    Quiet,
    /// No end: another poll has to fetch it.
    Abandoned,
}

/// Progress of a fetch.
#[derive(Debug, Clone)]
enum State {
    RecentRequests,
    /// The head of the response has come, at that time.
    Answering(Instant),
    Landed(Outcome),
}

/// A poll's part in getting the response.
pub(super) enum Join {
    /// Fetch it.
    Leader(Leader),
    /// It is being fetched.
    Follow(Flight),
    /// It was fetched just now.
    Landed(Reply),
}

/// A fetch under way, as the other polls see it.
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
    /// Joins the fetch of the response for a channel at `position`, or leads a new one.
    pub(super) fn join(&self, key: &Key, position: Option<Position>, cause: Cause) -> Join {
        let mut flying = self.board.0.lock();
        if let Some(flight) = flying.by_key.get(key)
            && flight.covers(position)
        {
            // Look at once: the fetch may end meanwhile.
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
        flying.put(*key, flight.clone());
        let board = self.board.clone();
        let key = *key;
        Join::Leader(Leader { board, key, flight, sender, answer: None })
    }
}

fn kept_for(cause: Cause) -> Duration {
    match cause {
        Cause::Message | Cause::Reset => TTL,
        Cause::First | Cause::Timeout | Cause::Gone | Cause::Drain | Cause::Expired => QUIET_TTL,
    }
}

impl Flight {
    /// True if its response has all that a poll released at `position` must get.
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

    /// Drops entries that are old, or beyond the bounds.
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

/// The fetching poll. Dropping it lets another one take over.
pub(super) struct Leader {
    board: Arc<Shared>,
    key: Key,
    flight: Flight,
    sender: watch::Sender<State>,
    /// The response so far, if it can be shared.
    answer: Option<(Reply, BytesMut)>,
}

impl Leader {
    /// The head of the answer, as the client is to get it; `shared` = it is for others, too.
    pub(super) fn head(&mut self, head: &ResponseHeader, shared: bool) {
        let shared = shared.then(|| shared_head(head)).flatten();
        self.answer = shared.map(|reply| (reply, BytesMut::new()));
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

    /// The response is complete.
    pub(super) fn complete(mut self) {
        let Some((mut reply, body)) = self.answer.take() else { return };
        reply.body = body.freeze();
        let mut flying = self.board.0.lock();
        // A later fetch may have taken its entry.
        let ours = |flight: &Flight| flight.state.same_channel(&self.flight.state);
        if flying.by_key.peek(&self.key).is_some_and(ours) {
            flying.kept += reply.body.len();
        }
        self.sender.send_replace(State::Landed(Outcome::Answer(reply)));
        flying.trim();
    }

    /// The upstream has nothing for any of them.
    pub(super) fn quiet(self) {
        self.sender.send_replace(State::Landed(Outcome::Quiet));
    }

    /// There is no response.
    pub(super) fn fail(self) {
        self.sender.send_replace(State::Landed(Outcome::EachAlone));
    }
}

/// The head of a response for all; `None` if it is for one client alone. A refusal, a redirection
/// to a login, or a part of a body are responses to one client.
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
