//! The public side: which requests are polls, how they are held and answered, and how all
//! others reach the site.
//!
//! A request is taken apart by whoever has the connection, [`Gate::decide`] says what is to
//! become of it, and [`HeldPoll::wait`] holds it if need be. Neither knows a connection.

pub mod access_log;
mod counters;
pub mod front;
mod grant;
pub mod poll;
pub mod proxy;
mod replay;
pub mod route;
mod settings;
pub mod tls;
pub mod upstream;

pub use counters::{Connected, Counters, Open, SiteAnswer};
pub use poll::admission::{Decision, Incoming};
pub use poll::held::{HeldPoll, HoldOutcome};
pub use poll::timer::Timer;
pub use replay::HeldReplay;
pub use settings::Settings;

use crate::hub::Hub;
use crate::hub::channel::{ChannelName, Time};
use crate::protocol::http::Reply;
use crate::server::limits::descriptors::FdBudget;
use crate::server::limits::permit::Limits;
use crate::server::telemetry::metrics::SharedMetrics;
use crate::server::telemetry::refusal::Refusal;
use arc_swap::ArcSwap;
use grant::Grants;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Publishes an empty message on a channel for a browser; says whether that went well.
pub type BrowserPublish =
    Arc<dyn Fn(ChannelName) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// A cheap handle to the public side.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Arc<ArcSwap<Settings>>,
    hub: Hub,
    limits: Limits,
    clock: fn() -> Time,
    browser_publish: BrowserPublish,
    grants: Grants,
    counters: Counters,
    metrics: Arc<SharedMetrics>,
    replays: replay::Replays,
    files: FdBudget,
}

/// Seconds after which a refused client may come back.
const RETRY_AFTER: &str = "5";

impl Gate {
    /// The public side of `hub`; what it counts together with others is in `metrics`, and what it
    /// may open in `files`.
    pub fn new(
        settings: Arc<ArcSwap<Settings>>,
        hub: Hub,
        clock: fn() -> Time,
        browser_publish: BrowserPublish,
        metrics: Arc<SharedMetrics>,
        files: FdBudget,
    ) -> Self {
        let (limits, counters) = (Limits::default(), Counters::default());
        let (grants, replays) = (Grants::default(), replay::Replays::default());
        let shared = Shared {
            settings,
            hub,
            limits,
            clock,
            browser_publish,
            grants,
            counters,
            metrics,
            replays,
            files,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The settings of this moment.
    pub fn settings(&self) -> Arc<Settings> {
        self.shared.settings.load_full()
    }

    /// What was done since the start.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Counts a request that is refused.
    pub fn refused(&self, cause: Refusal) {
        self.shared.metrics.refusals.count(cause);
    }

    /// Counts that the answer of a poll was written which a message of `published` released.
    pub fn written(&self, published: Option<Time>) {
        if let Some(published) = published {
            self.shared.counters.written(published, (self.shared.clock)());
        }
    }

    /// Counts a request as under way.
    pub fn open(&self) -> Open {
        self.shared.counters.open.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    /// Whether a connection from `peer` may come in; its file is counted from here on, and
    /// [`Gate::connected`] has to follow.
    pub fn admits(&self, peer: Option<IpAddr>) -> bool {
        let settings = self.settings();
        let trusted = |peer: &IpAddr| settings.trusted_proxies.iter().any(|net| net.contains(peer));
        if settings.connections.take(peer.filter(|peer| !trusted(peer))).is_err() {
            self.refused(Refusal::ConnectionRate);
            return false;
        }
        let room = self.shared.files.open(crate::server::limits::descriptors::FdKind::Connection);
        if !room {
            self.refused(Refusal::FdLimit);
        }
        room
    }

    /// Counts a connection that was admitted, until it is dropped.
    pub fn connected(&self) -> Connected {
        Connected::new(self)
    }

    /// The answer to a request of `client` that comes too soon after others; `None` = it may be
    /// served. Asked once for each request, wherever it comes in.
    pub fn rate_limited(&self, settings: &Settings, client: Option<IpAddr>) -> Option<Reply> {
        let wait = settings.requests.take(client).err()?;
        self.refused(Refusal::RequestRate);
        Some(poll::replies::rate_limited(wait))
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.shared.counters.connections.load(Ordering::Relaxed)
    }

    /// How many requests are under way.
    pub fn under_way(&self) -> usize {
        self.shared.counters.open.load(Ordering::Relaxed)
    }

    /// Whether the gate is to end, so that no connection is to be kept.
    pub fn is_draining(&self) -> bool {
        self.shared.hub.is_draining()
    }

    /// Polls that still wait for their turn at the site get none any more, but an answer that says
    /// so.
    pub fn close_queues(&self) {
        self.shared.replays.close();
    }
}
