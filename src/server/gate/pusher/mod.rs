//! The Pusher protocol's public side: its WebSocket, and its HTTP fallbacks.
//!
//! | request | response |
//! |---|---|
//! | `GET /app/{key}`, an upgrade | a WebSocket of the protocol ([`socket`]) |
//! | `POST /pusher/app/{key}/{server}/{session}/xhr` | the next frames of a session ([`receive`]) |
//! | `POST .../xhr_streaming` | the same, one after another |
//! | `POST .../xhr_send` | takes frames of the client's |
//!
//! Behind both is a [`client::Client`]: the subscriptions of one connection, as one waiter whose
//! channels come and go. It has no queue: what it has not got yet is in the histories. A WebSocket
//! keeps its client for as long as it lasts; a session of the fallbacks keeps it between two
//! requests, in a table that is bounded ([`session`]), and is the only place where the gate
//! remembers a client.
//!
//! A client may publish nothing but events to the other members of a private channel, and those
//! only if its app says so.

mod client;
mod collect;
mod counts;
mod members;
mod notice;
mod occupancy;
mod outbox;
mod receive;
mod request;
mod session;
mod socket;
mod watchlist;

pub use notice::{Notice, Report};
pub use occupancy::Occupancy;
pub use receive::Receive;
pub use socket::{HeldPusher, PusherSocket};

use super::poll::admission::Incoming;
use super::poll::replies::unstored;
use super::{Decision, Gate, Settings};
use crate::hub::channel::{ChannelName, Payload};
use crate::protocol::http::Reply;
use crate::protocol::pusher::{App, code, lines};
use crate::server::telemetry::refusal::Refusal;
use client::Client;
use counts::Counts;
use notice::Notices;
use outbox::{Close, Way};
use receive::Ends;
use request::{Fallback, LINES, Path, allowed_origin, handshake, readable, spoken};
use session::{Opened, Sessions};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Publishes an event that a client sent; returns true on success.
pub type EventPublish =
    Arc<dyn Fn(ChannelName, Payload) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// `[[pusher]]`, and what is common to all apps.
#[derive(Debug, Clone)]
pub struct PusherSettings {
    /// The apps; none = the protocol is not spoken.
    pub apps: Vec<Arc<PusherApp>>,
    /// Sessions of the HTTP fallbacks at the most.
    pub sessions: usize,
}

impl Default for PusherSettings {
    fn default() -> Self {
        Self { apps: Vec::new(), sessions: 10_000 }
    }
}

/// One app, and how its connections are looked after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PusherApp {
    /// The app.
    pub app: Arc<App>,
    /// The silence after which a client pings, as the handshake says.
    pub activity_timeout: Duration,
    /// The silence of a client after which it is pinged. Half as much later it is closed.
    pub ping: Duration,
    /// Its clients get the numbers of connections that subscribe to their channels.
    pub subscription_count: bool,
    /// A signed-in client sees which users of its list are online.
    pub watchlists: bool,
}

impl PusherSettings {
    /// True if a request for `path` (as it stands in the target) may be for the protocol.
    pub(super) fn owns(&self, path: &str) -> bool {
        !self.apps.is_empty() && Path::of(path).is_some()
    }

    /// True if `path` is one that answers with frames, so that its requests have no body.
    pub(super) fn receives(&self, path: &str) -> bool {
        let receives = |what| what != Fallback::Send;
        !self.apps.is_empty()
            && matches!(Path::of(path), Some(Path::Fallback { what, .. }) if receives(what))
    }

    /// True if the body of a POST to `path` is read here.
    pub(super) fn takes_body(&self, path: &str) -> bool {
        self.owns(path) && !self.receives(path)
    }

    /// The app of that key.
    fn by_key(&self, key: &str) -> Option<&Arc<PusherApp>> {
        self.apps.iter().find(|app| *app.app.key == *key)
    }

    /// The app that goes on for `app` after a reload.
    fn like(&self, app: &PusherApp) -> Option<&Arc<PusherApp>> {
        self.apps.iter().find(|one| one.app.id == app.app.id)
    }

    /// True if only members of one of an app's channels may see what is on `channel`.
    pub(super) fn guards(&self, channel: &str) -> bool {
        self.apps.iter().any(|app| app.app.guards(channel))
    }

    /// True if `channel` is an app's.
    pub(super) fn has(&self, channel: &str) -> bool {
        self.apps.iter().any(|app| app.app.name_of(channel).is_some())
    }
}

/// The state of all connections.
#[derive(Default)]
pub(super) struct Pusher {
    sessions: Sessions,
    occupancy: Occupancy,
    counts: Arc<Counts>,
    notices: Notices,
}

/// Figures of the protocol's connections.
#[derive(Debug, Clone, Copy)]
pub struct PusherFigures {
    /// Connections now, of all transports.
    pub connections: usize,
    /// Sessions of the HTTP fallbacks now, among them.
    pub sessions: usize,
    /// Sessions that were lost since the start: an answer could not be written.
    pub lost: u64,
}

impl Gate {
    /// Which apps have connections, and which channels subscribers.
    pub fn pusher_occupancy(&self) -> &Occupancy {
        &self.shared.pusher.occupancy
    }

    /// Figures of the protocol's connections.
    pub fn pusher_figures(&self) -> PusherFigures {
        let Pusher { sessions, occupancy, .. } = &self.shared.pusher;
        PusherFigures {
            connections: occupancy.connections(),
            sessions: sessions.len(),
            lost: sessions.lost(),
        }
    }

    /// Ends the sessions whose clients stayed away; in a drain all that no request waits on. Sends
    /// numbers of connections that have changed. The caller runs this once a second.
    pub fn sweep_pusher(&self) {
        self.shared.pusher.sessions.sweep(self.is_draining());
        self.shared.pusher.sweep_notices();
    }

    /// Reports what happens on the apps' channels to `report`.
    pub fn report_pusher_to(&self, report: Report) {
        self.shared.pusher.notices.report_to(report);
    }

    /// Decides on a request of the protocol's; `None` = it is none.
    pub(super) fn pusher(&self, settings: &Settings, request: &Incoming<'_>) -> Option<Decision> {
        if settings.pusher.apps.is_empty() {
            return None;
        }
        match Path::of(request.path)? {
            Path::Socket { key } => self.pusher_socket(settings, request, key),
            Path::Fallback { key, session, what } => {
                Some(self.pusher_fallback(settings, request, key, (session, what)))
            }
        }
    }

    fn pusher_socket(
        &self,
        settings: &Settings,
        request: &Incoming<'_>,
        key: &str,
    ) -> Option<Decision> {
        let app = settings.pusher.by_key(key);
        let upgrade = request.headers.get("upgrade").is_some();
        // A site may have pages there; a socket that says which protocol it speaks is none of its.
        if app.is_none() && !(upgrade && request.query.has("protocol")) {
            return None;
        }
        let accept = match handshake(request) {
            Ok(accept) => accept,
            Err(reply) => {
                self.refused(Refusal::BadRequest);
                return Some(Decision::Reply(unstored(reply), None));
            }
        };
        let head = Reply::new(101, "", "")
            .with("Upgrade", "websocket")
            .with("Sec-WebSocket-Accept", accept);
        let opened = self.connect(settings, request, app, Way::Socket);
        Some(match opened {
            Ok(client) => {
                let socket = PusherSocket::new(client, head);
                Decision::Pusher(HeldPusher::Socket(Box::new(socket)))
            }
            Err((cause, close)) => {
                self.refused(cause);
                let mut reply = head;
                reply.body = close.written(Way::Socket).concat().into();
                Decision::Reply(reply, None)
            }
        })
    }

    fn pusher_fallback(
        &self,
        settings: &Settings,
        request: &Incoming<'_>,
        key: &str,
        (session, what): (&str, Fallback),
    ) -> Decision {
        let app = settings.pusher.by_key(key);
        let origin = match app {
            Some(app) => allowed_origin(&app.app, request),
            // Any page may read that there is no such app.
            None => request.headers.get("origin").map(|_| "*".into()),
        };
        let finished = |reply: Reply| readable(unstored(reply), origin.as_deref());
        let refuse = |cause, reply| {
            self.refused(cause);
            Decision::Reply(finished(reply), None)
        };
        if request.method == "OPTIONS" {
            let reply = finished(Reply::new(204, "", "").with("Allow", "POST, OPTIONS"))
                .with("Access-Control-Allow-Methods", "POST, OPTIONS")
                .with("Access-Control-Allow-Headers", "Content-Type")
                .with("Access-Control-Max-Age", "600");
            return Decision::Reply(reply, None);
        }
        if request.method != "POST" {
            return refuse(Refusal::Method, Reply::wrong_method(request.path, "POST, OPTIONS"));
        }
        if request.headers.get("origin").is_some() && origin.is_none() {
            let hint = "list it in the app's origins";
            return refuse(Refusal::CrossOrigin, Reply::error(403, "this origin may not", hint));
        }
        let name = format!("{}/{key}/{session}", settings.site_name());
        let sessions = &self.shared.pusher.sessions;
        if what == Fallback::Send {
            let frames = lines::read(request.body.unwrap_or_default());
            let frames = match frames {
                Ok(frames) => frames,
                Err(error) => {
                    let reply = Reply::error(400, error, "send frames as the protocol says");
                    return refuse(Refusal::BadRequest, reply);
                }
            };
            return match sessions.send(&name, frames) {
                Ok(()) => Decision::Reply(finished(Reply::new(204, "", "")), None),
                Err((status, error)) => {
                    refuse(Refusal::BadRequest, Reply::error(status, error, "begin a new session"))
                }
            };
        }
        // As long as polls are held, but never so long that a client gives up.
        let most = Duration::from_secs(25);
        let hold = settings.hold.duration(Some(settings.hold.timeout), None);
        let hold = hold.filter(|hold| *hold < most).unwrap_or(most);
        let opened = sessions.open(&name, settings.pusher.sessions, hold, || {
            self.connect(settings, request, app, Way::Lines)
        });
        match opened {
            Ok(Opened { session, fresh }) => {
                let ends = match what {
                    Fallback::Stream => Ends::Later,
                    _ => Ends::WithFrames,
                };
                let receive = Receive::new(self.clone(), session, fresh, ends, hold);
                let receive = receive.readable_by(finished);
                Decision::Pusher(HeldPusher::Receive(Box::new(receive)))
            }
            Err((cause, close)) => {
                self.refused(cause);
                let line = close.written(Way::Lines).concat();
                let reply = Reply::new(200, LINES, line);
                Decision::Reply(finished(reply), None)
            }
        }
    }

    /// A new connection, or why there is none.
    fn connect(
        &self,
        settings: &Settings,
        request: &Incoming<'_>,
        app: Option<&Arc<PusherApp>>,
        way: Way,
    ) -> Result<Box<Client>, (Refusal, Close)> {
        let close = |code, reason: &'static str| Close::new(code, reason);
        let Some(app) = app else {
            let error = "no app has this key";
            return Err((Refusal::Rejection, close(code::UNKNOWN_APP, error)));
        };
        spoken(request.query).map_err(|close| (Refusal::BadRequest, close))?;
        if request.headers.get("origin").is_some() && allowed_origin(&app.app, request).is_none() {
            let error = "this origin may not connect";
            return Err((Refusal::CrossOrigin, close(code::UNAUTHORIZED, error)));
        }
        if self.is_draining() {
            let error = "the server restarts";
            return Err((Refusal::HoldMax, close(code::RECONNECT, error)));
        }
        let permit = self.permit(settings, request.client, None);
        let permit = permit.map_err(|full| {
            let cause = super::poll::lookup::cause_of(full);
            (cause, Close::new(code::OVER_CAPACITY, full.to_string()))
        })?;
        let client = Client::new(self.clone(), app.clone(), way, permit);
        client
            .map(Box::new)
            .map_err(|full| (Refusal::TableFull, Close::new(code::OVER_CAPACITY, full.to_string())))
    }
}
