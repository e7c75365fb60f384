//! The public side: classifies requests, holds and answers the polls among them, and forwards all
//! others to the upstream.
//!
//! The owner of the connection parses a request, [`Gate::decide`] decides about it, and a
//! [`HeldPoll`] is held if need be. Neither of the two knows a connection.

pub mod access_log;
pub mod client_script;
mod counters;
mod digest;
pub mod forward;
pub mod front;
mod grant;
pub mod grip;
pub mod mercure;
pub mod poll;
mod presence;
pub mod proxy;
pub mod pusher;
mod replay;
pub mod route;
mod serve;
mod settings;
pub mod sites;
pub mod stream;
pub mod tls;
pub mod upstream;
mod upstream_names;

pub use counters::{Connected, Counters, Open, SiteAnswer};
pub use poll::admission::{Decision, Incoming};
pub use poll::browser_publish::PublishByBrowser;
pub use poll::held::{HeldPoll, HoldOutcome, PendingAnswer};
pub use poll::timer::Timer;
use poll::timer::overslept;
pub use presence::{PendingRoster, RosterSource};
pub use replay::HeldReplay;
pub use settings::Settings;
pub use stream::HeldStream;

use crate::hub::Hub;
use crate::hub::channel::{ChannelName, Time};
use crate::protocol::dialect::stream::Transport;
use crate::protocol::http::query::Query;
use crate::protocol::http::{Headers, Reply};
use crate::server::limits::descriptors::FdBudget;
use crate::server::limits::http2_budget::Http2Budget;
use crate::server::limits::permit::Limits;
use crate::server::telemetry::metrics::SharedMetrics;
use crate::server::telemetry::refusal::Refusal;
use arc_swap::ArcSwap;
use grant::Grants;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

/// Publishes an empty message on a channel for a browser; returns true on success.
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
    event_publish: pusher::EventPublish,
    pusher: pusher::Pusher,
    grants: Grants,
    counters: Counters,
    metrics: Arc<SharedMetrics>,
    replays: replay::Replays,
    mercure: mercure::Shared,
    files: FdBudget,
    http2: Arc<Http2Budget>,
    /// The source of lists of users, if the hub does not have them.
    rosters: OnceLock<RosterSource>,
}

/// Seconds after which a refused client may retry.
const RETRY_AFTER: &str = "5";

impl Gate {
    /// The public side of `hub`; `metrics` are the counts it shares with other parts, and `files`
    /// is its budget of descriptors.
    pub fn new(
        settings: Arc<ArcSwap<Settings>>,
        hub: Hub,
        clock: fn() -> Time,
        (browser_publish, event_publish): (BrowserPublish, pusher::EventPublish),
        metrics: Arc<SharedMetrics>,
        files: FdBudget,
    ) -> Self {
        let limits = Limits::default();
        let counters = Counters::default();
        let grants = Grants::default();
        let replays = replay::Replays::default();
        let shared = Shared {
            settings,
            hub,
            limits,
            clock,
            browser_publish,
            event_publish,
            pusher: pusher::Pusher::default(),
            grants,
            counters,
            metrics,
            replays,
            mercure: mercure::Shared::default(),
            files,
            http2: Arc::default(),
            rosters: OnceLock::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The settings in force at this moment.
    pub fn settings(&self) -> Arc<Settings> {
        self.shared.settings.load_full()
    }

    /// The counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// What all HTTP/2 connections have under way.
    pub fn http2(&self) -> &Arc<Http2Budget> {
        &self.shared.http2
    }

    /// Counts a request that is refused.
    pub fn refused(&self, cause: Refusal) {
        self.shared.metrics.refusals.count(cause);
    }

    /// Counts that the response to a poll was written which a message of `published` released.
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

    /// True if a connection from `peer` may come in; its descriptor is counted from here on, and
    /// [`Gate::connected`] has to follow.
    pub fn admits(&self, peer: Option<IpAddr>) -> bool {
        let settings = self.settings();
        let trusted = |peer: &IpAddr| settings.trusted_proxies.iter().any(|net| net.contains(peer));
        if settings
            .connections
            .take(settings.limits.connects(peer).filter(|peer| !trusted(peer)))
            .is_err()
        {
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

    /// The response to a request of `client` that exceeds its rate limit; `None` = it may be
    /// served. Called once for each request, on every path.
    pub fn rate_limited(
        &self,
        settings: &Settings,
        client: Option<IpAddr>,
        (path, query, headers): (&str, &str, &dyn Headers),
    ) -> Option<Reply> {
        let wait = settings.take_request(client).err()?;
        self.refused(Refusal::RequestRate);
        let transport = Transport::chosen(headers, &Query::parse(query));
        let hub = settings.mercure.as_ref().filter(|hub| hub.owns(path));
        let may_stream = || hub.is_some() || settings.routes.may_stream(path);
        let streams = transport == Some(Transport::Sse) && may_stream();
        // Browsers take an error for the end of an event stream.
        let reply = match streams {
            true => stream::busy("too many requests from this address"),
            false => poll::replies::rate_limited(wait),
        };
        Some(match hub {
            Some(hub) => hub.cross_origin(reply, headers),
            None => poll::replies::readable(reply, &settings.routes, path, headers),
        })
    }

    /// The response to a request that no site takes; it counts against the rate limit as any does.
    fn misdirected(
        &self,
        settings: &Settings,
        client: Option<IpAddr>,
        about: (&str, &str, &dyn Headers),
        reply: Reply,
    ) -> Reply {
        self.rate_limited(settings, client, about).unwrap_or_else(|| {
            self.refused(Refusal::Misdirected);
            reply
        })
    }

    /// Number of open connections.
    pub fn connections(&self) -> usize {
        self.shared.counters.connections.load(Ordering::Relaxed)
    }

    /// Number of requests under way.
    pub fn under_way(&self) -> usize {
        self.shared.counters.open.load(Ordering::Relaxed)
    }

    /// True if the gate is shutting down, so that no connection is kept.
    pub fn is_draining(&self) -> bool {
        self.shared.hub.is_draining()
    }

    /// Closes the queues for the upstream: polls that still wait for a slot get none any more, but
    /// a response that explains it.
    pub fn close_queues(&self) {
        self.shared.replays.close();
    }
}
