//! The admin page: `GET /` on the internal listener.
//!
//! It is one file that needs nothing from elsewhere. Its policy (Content Security Policy, level 3)
//! lets nothing run but the script that bears the nonce of this very response, and everything that
//! the script shows is inserted as text. It carries the page token, which the guard requires of
//! pages that write; if `publish.token` is set it asks for that, too.

mod feed;

use super::Stats;
use crate::hub::channel::Time;
use crate::protocol::auth::secret::Secret;
use crate::protocol::http::query::Query;
use crate::protocol::http::{Endpoint, Reply, Request};
use crate::server::net::random;
use async_trait::async_trait;
use feed::PageChannel;
use http::Method;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use serde::Serialize;

/// The data of the page, at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// Seconds since 1970.
    pub time: f64,
    /// The version.
    pub version: &'static str,
    /// The process; another one has another page token.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime: u64,
    /// Reasons why the gate is not ready; empty = it is.
    pub unready: Vec<String>,
    /// The stats of `/status`.
    #[serde(flatten)]
    pub stats: Stats,
    /// Resident memory in bytes.
    pub memory: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Limit of open file descriptors.
    pub max_fds: Option<u64>,
    /// The channels with most held polls.
    pub busiest: Vec<BusyChannel>,
    /// Recent log events.
    pub events: Vec<Event>,
}

/// One of the busiest channels.
#[derive(Debug, Clone, Serialize)]
pub struct BusyChannel {
    /// Its name.
    pub channel: String,
    /// Its site, if there are sites.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub site: String,
    /// Polls held on it.
    pub held: usize,
    /// Messages kept.
    pub kept: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The epoch of its history.
    pub epoch: String,
    /// Messages that this epoch has had.
    pub messages: u64,
}

/// An event of the log.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// Seconds since 1970.
    pub time: f64,
    /// `ERROR`, `WARN` or `INFO`.
    pub level: &'static str,
    /// Its message and values.
    pub text: String,
}

/// Number of channels that the page lists.
pub const BUSIEST: usize = 10;

/// See the [module](self).
pub struct Page {
    /// The page, split where the nonce of a response goes.
    parts: Vec<String>,
    feed: PageChannel,
    overview: Box<dyn Fn() -> Overview + Send + Sync>,
}

const HTML: &str = include_str!("page.html");
const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("page.js");

const FIGURES: &str = "/page/figures";

impl Page {
    /// A page that carries `token` and shows the data of `overview`.
    pub fn new(
        token: &Secret,
        clock: fn() -> Time,
        overview: Box<dyn Fn() -> Overview + Send + Sync>,
    ) -> Self {
        let whole = HTML
            .replace("{{style}}", CSS)
            .replace("{{script}}", JS)
            .replace("{{token}}", token.reveal());
        let parts = whole.split("{{nonce}}").map(str::to_owned).collect();
        Self { parts, feed: PageChannel::new(clock), overview }
    }

    fn html(&self) -> Reply {
        let Ok(nonce) = random::secret() else {
            return Reply::error(500, "the system gives no random bytes", "look at /status");
        };
        let nonce = nonce.reveal();
        let policy = format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
             connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'"
        );
        Reply::new(200, "text/html; charset=utf-8", self.parts.join(nonce))
            .with("Content-Security-Policy", policy)
            .with("X-Frame-Options", "DENY")
            .with("Referrer-Policy", "no-referrer")
            .with("Cross-Origin-Resource-Policy", "same-origin")
    }
}

#[async_trait]
impl Endpoint for Page {
    fn owns(&self, path: &str) -> bool {
        matches!(path, "/" | FIGURES)
    }

    /// The page itself holds no data; it asks for the token before it shows any.
    fn is_open(&self, path: &str) -> bool {
        path == "/"
    }

    fn may_be_visited(&self, path: &str) -> bool {
        path == "/"
    }

    fn waits(&self, path: &str) -> bool {
        path == FIGURES
    }

    async fn answer(&self, request: &Request) -> Reply {
        if request.method != Method::GET {
            return Reply::wrong_method(&request.path, "GET, HEAD");
        }
        match request.path.as_str() {
            FIGURES => {
                let query = Query::parse(&request.query);
                self.feed.poll(&query.text("cursor").unwrap_or_default()).await
            }
            _ => self.html(),
        }
    }
}

#[async_trait]
impl BackgroundService for Page {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let stats = || serde_json::to_string(&(self.overview)()).unwrap_or_default();
        self.feed.run(stats, &mut shutdown).await;
    }
}
