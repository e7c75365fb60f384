//! Sessions of the HTTP fallbacks: what is remembered of a client between two of its requests.
//!
//! The table is bounded, and a session whose client stays away is forgotten. A session that is not
//! known begins anew, which its client takes for the loss of the old one: it subscribes again. So
//! nothing has to be carried over to another gate, or from one process to the next.
//!
//! One request at a time has the session's client, the newest: pusher-js opens the next one while
//! the gate may not know yet that the last one is gone.

use super::client::Client;
use super::outbox::Close;
use crate::protocol::pusher::code;
use crate::server::telemetry::refusal::Refusal;
use parking_lot::Mutex;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedMutexGuard};

/// Frames of one client that wait to be handled: their bytes, at the most.
const MAX_INBOX: usize = 64 << 10;

/// What a frame takes beside its bytes.
const OVERHEAD: usize = 64;

/// All sessions.
#[derive(Default)]
pub(super) struct Sessions {
    table: Mutex<HashMap<Box<str>, Arc<Session>>>,
    lost: AtomicU64,
}

/// One session.
pub(super) struct Session {
    name: Box<str>,
    client: Arc<tokio::sync::Mutex<Box<Client>>>,
    /// It is over, and its client has to begin anew.
    ended: AtomicBool,
    inbox: Mutex<Inbox>,
    /// There is something in the inbox, or a newer request.
    pub(super) wake: Notify,
    /// Number of the newest request for its frames.
    turn: AtomicU64,
    presence: Mutex<Presence>,
    /// Between two requests it is kept for this long.
    patience: Duration,
}

#[derive(Default)]
struct Inbox {
    frames: Vec<String>,
    bytes: usize,
    /// The client wants a sign of life.
    ping: bool,
}

/// Whether a client is there.
struct Presence {
    /// Requests for frames under way.
    requests: usize,
    /// Without any, when it is over.
    ends: Instant,
}

/// A session for a request.
pub(super) struct Opened {
    pub(super) session: Turn,
    /// It has just begun.
    pub(super) fresh: bool,
}

/// A request for the frames of a session; dropping it ends the request.
pub(super) struct Turn {
    pub(super) session: Arc<Session>,
    number: u64,
    /// The client broke off: it comes back at once, or never.
    pub(super) broken_off: bool,
}

/// How long a client has that broke a stream off.
const RETURN: Duration = Duration::from_secs(5);

/// What a client has sent.
pub(super) struct Sent {
    pub(super) frames: Vec<String>,
    pub(super) ping: bool,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.table.lock().len()
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The session of that name, or a new one for the client that `begin` makes.
    pub(super) fn open(
        &self,
        name: &str,
        most: usize,
        hold: Duration,
        begin: impl FnOnce() -> Result<Box<Client>, (Refusal, Close)>,
    ) -> Result<Opened, (Refusal, Close)> {
        let mut table = self.table.lock();
        if let Some(session) = table.get(name) {
            return Ok(Opened { session: session.turn(), fresh: false });
        }
        if table.len() >= most {
            drop(table);
            // Those that are over make room.
            self.sweep(false);
            table = self.table.lock();
            if table.len() >= most {
                let error = "the server has no room for another session";
                return Err((Refusal::PusherSessions, Close::new(code::OVER_CAPACITY, error)));
            }
        }
        let patience = hold * 2;
        let session = Arc::new(Session {
            name: name.into(),
            client: Arc::new(tokio::sync::Mutex::new(begin()?)),
            ended: AtomicBool::new(false),
            inbox: Mutex::default(),
            wake: Notify::new(),
            turn: AtomicU64::new(0),
            presence: Mutex::new(Presence { requests: 0, ends: Instant::now() + patience }),
            patience,
        });
        let turn = session.turn();
        table.insert(name.into(), session);
        Ok(Opened { session: turn, fresh: true })
    }

    /// Takes frames for a session; the error is a status and its words.
    pub(super) fn send(
        &self,
        name: &str,
        frames: Vec<Cow<'_, str>>,
    ) -> Result<(), (u16, &'static str)> {
        let session = self.table.lock().get(name).cloned();
        let session = session.ok_or((404, "there is no such session"))?;
        let mut inbox = session.inbox.lock();
        let bytes: usize = frames.iter().map(|frame| frame.len() + OVERHEAD).sum();
        if inbox.bytes + bytes > MAX_INBOX {
            return Err((413, "the session has not handled what was sent before"));
        }
        inbox.bytes += bytes;
        inbox.ping |= frames.is_empty();
        inbox.frames.extend(frames.into_iter().map(Cow::into_owned));
        drop(inbox);
        session.wake.notify_one();
        Ok(())
    }

    /// Forgets the sessions that no request is under way for: those that are over, or all.
    pub(super) fn sweep(&self, all: bool) {
        let now = Instant::now();
        let is_over = |session: &Session| {
            let presence = session.presence.lock();
            presence.requests == 0 && (all || presence.ends <= now)
        };
        let mut over = Vec::new();
        self.table.lock().retain(|_, session| {
            let is_over = is_over(session);
            if is_over {
                over.push(session.clone());
            }
            !is_over
        });
        // Their clients leave their channels only now, outside of the lock.
        drop(over);
    }

    /// Forgets one session, as it is over.
    pub(super) fn end(&self, session: &Arc<Session>) {
        session.ended.store(true, Ordering::SeqCst);
        let mut table = self.table.lock();
        if table.get(&session.name).is_some_and(|known| Arc::ptr_eq(known, session)) {
            table.remove(&session.name);
        }
    }

    /// The same, as its client may not have got what was written.
    pub(super) fn lose(&self, session: &Arc<Session>) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.end(session);
    }
}

impl Session {
    fn turn(self: &Arc<Self>) -> Turn {
        self.presence.lock().requests += 1;
        let number = self.turn.fetch_add(1, Ordering::SeqCst) + 1;
        self.wake.notify_one();
        Turn { session: self.clone(), number, broken_off: false }
    }

    /// True if its client has to begin anew.
    pub(super) fn is_lost(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// What the client has sent since.
    pub(super) fn sent(&self) -> Sent {
        let Inbox { frames, ping, .. } = std::mem::take(&mut *self.inbox.lock());
        Sent { frames, ping }
    }
}

impl Turn {
    /// True if there is a newer request for the session's frames.
    pub(super) fn is_over(&self) -> bool {
        self.session.turn.load(Ordering::SeqCst) != self.number
    }

    /// The session's client, once the request before has given it back.
    pub(super) async fn client(&self) -> OwnedMutexGuard<Box<Client>> {
        self.session.client.clone().lock_owned().await
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut presence = self.session.presence.lock();
        presence.requests -= 1;
        let patience = self.session.patience;
        let patience = if self.broken_off { patience.min(RETURN) } else { patience };
        presence.ends = Instant::now() + patience;
    }
}
