//! The admin side: the gate's own state, on the internal listener.
//!
//! | request | response |
//! |---|---|
//! | `GET /healthz` | 200 `ok` while the process can answer at all |
//! | `GET /readyz` | 200 `{"ready":true}`, or 503 with the reasons why it is not |
//! | `GET /metrics` | metrics in Prometheus' text format |
//! | `GET /` | a page with live stats; see [`page`] |
//! | `GET /status` | stats, as JSON |
//! | `GET /config` | the settings in force, as TOML, without secrets |
//! | `POST /reload` | reads the config again: 200 with the changes, 422 with the mistakes |
//!
//! It knows none of this itself: its owner hands in the [`Sources`].

mod grants;
pub mod page;
pub mod process;
mod reload;

pub use grants::{Grants, Revoke};
pub use reload::{Mistake, Reload, Reloaded, Reloading};

use crate::hub::channel::SiteName;
use crate::protocol::http::{Endpoint, Reply, Request, Scope};
use crate::server::telemetry::exposition::Text;
use async_trait::async_trait;
use http::Method;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

/// The gate's stats at one moment.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stats {
    /// Polls held.
    pub held: u64,
    /// Streams, by the name of their transport; they are among `held`.
    pub streams: BTreeMap<&'static str, u64>,
    /// Connections of the public side.
    pub connections: u64,
    /// Channels in the table.
    pub channels: u64,
    /// Memory of all messages kept, in bytes.
    pub history_bytes: u64,
    /// Messages published since the start.
    pub publishes: u64,
    /// Messages in responses since the start.
    pub deliveries: u64,
    /// Polls that ended since the start, by cause.
    pub releases: BTreeMap<&'static str, u64>,
    /// Requests refused since the start, by cause, on both listeners.
    pub refusals: BTreeMap<&'static str, u64>,
    /// Requests forwarded to the upstream since the start, by its response.
    pub upstream: BTreeMap<&'static str, u64>,
    /// Number of configs that have come into force, the first included.
    pub generation: u64,
    /// Keys that were changed and take a restart to come into force.
    pub restart: Vec<String>,
    /// The file with the history for the next start, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
    /// The stats of each site, by name; none without sites.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sites: BTreeMap<String, SiteStats>,
}

/// The stats of one site at one moment.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SiteStats {
    /// Polls held.
    pub held: u64,
    /// Channels in the table.
    pub channels: u64,
    /// Channels that were never published to and that polls wait on.
    pub waiting: u64,
    /// Memory of its messages kept, in bytes.
    pub history_bytes: u64,
    /// Messages published since the start.
    pub publishes: u64,
    /// Messages in responses since the start.
    pub deliveries: u64,
    /// Requests forwarded to its upstream since the start, by the response.
    pub upstream: BTreeMap<&'static str, u64>,
}

/// The file with the history for the next start.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Snapshot {
    /// Its path.
    pub file: PathBuf,
    /// Time of the last write, in whole seconds since 1970.
    pub written: Option<u64>,
    /// Error of the last attempt to write it, if that failed.
    pub error: Option<String>,
    /// New path of a file that could not be read at the start.
    pub damaged: Option<PathBuf>,
}

/// The reasons why a site is not ready, or the gate as a whole; empty = it is.
pub type Unready = Box<dyn Fn(&SiteName) -> Vec<String> + Send + Sync>;

/// Callbacks through which the admin side gets its data.
pub struct Sources {
    /// Reasons why the gate is not ready, or one of its sites; empty = it is.
    pub unready: Unready,
    /// The stats of this moment.
    pub stats: Box<dyn Fn() -> Stats + Send + Sync>,
    /// The stats of one site.
    pub site: Box<dyn Fn(&SiteName) -> SiteStats + Send + Sync>,
    /// The same and more, in Prometheus' text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// The settings in force as TOML, secrets masked.
    pub config: Box<dyn Fn() -> String + Send + Sync>,
    /// Reads the config again.
    pub reload: Reload,
}

/// See the [module](self).
pub struct Admin {
    sources: Sources,
    started: Instant,
}

#[derive(Serialize)]
struct Status {
    version: &'static str,
    pid: u32,
    /// Whole seconds since the start.
    uptime: u64,
    #[serde(flatten)]
    stats: Stats,
}

impl Admin {
    /// An admin side whose uptime counts from now.
    pub fn new(sources: Sources) -> Self {
        Self { sources, started: Instant::now() }
    }

    fn readiness(&self, site: &SiteName) -> Reply {
        let reasons = (self.sources.unready)(site);
        if reasons.is_empty() {
            return Reply::json(200, &serde_json::json!({ "ready": true }));
        }
        Reply::json(503, &serde_json::json!({ "ready": false, "reasons": reasons }))
    }

    fn status(&self) -> Reply {
        let status = Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime: self.started.elapsed().as_secs(),
            stats: (self.sources.stats)(),
        };
        Reply::json(200, &status)
    }
}

#[async_trait]
impl Endpoint for Admin {
    fn owns(&self, path: &str) -> bool {
        let paths = ["/healthz", "/readyz", "/metrics", "/status", "/config", "/reload"];
        paths.contains(&path)
    }

    fn is_open(&self, path: &str) -> bool {
        matches!(path, "/healthz" | "/readyz" | "/metrics")
    }

    fn scope(&self, path: &str) -> Scope {
        if matches!(path, "/status" | "/readyz") { Scope::Either } else { Scope::Gate }
    }

    async fn answer(&self, request: &Request) -> Reply {
        if request.path == "/reload" {
            return match request.method {
                Method::POST => reload::answer((self.sources.reload)().await),
                _ => Reply::wrong_method(&request.path, "POST"),
            };
        }
        if request.method != Method::GET {
            return Reply::wrong_method(&request.path, "GET, HEAD");
        }
        match request.path.as_str() {
            "/healthz" => Reply::new(200, "text/plain", "ok"),
            "/readyz" => self.readiness(&request.site),
            "/metrics" => Reply::new(200, Text::CONTENT_TYPE, (self.sources.metrics)()),
            "/status" if !request.site.is_none() => {
                Reply::json(200, &(self.sources.site)(&request.site))
            }
            "/status" => self.status(),
            _ => Reply::new(200, "application/toml", (self.sources.config)()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn ask(unready: &[&str], method: Method, path: &str) -> Reply {
        let reasons: Vec<String> = unready.iter().map(|reason| reason.to_string()).collect();
        let admin = Admin::new(Sources {
            unready: Box::new(move |_| reasons.clone()),
            site: Box::new(|_| SiteStats::default()),
            stats: Box::new(|| Stats { held: 3, generation: 1, ..Stats::default() }),
            metrics: Box::new(|| "up 1\n".to_owned()),
            config: Box::new(|| "listen = []\n".to_owned()),
            reload: Box::new(|| Box::pin(async { Ok(Reloaded::default()) })),
        });
        assert!(admin.owns(path));
        admin.answer(&Request::new(method, path)).await
    }

    #[tokio::test]
    async fn a_gate_that_is_not_ready_says_why() {
        assert_eq!(ask(&[], Method::GET, "/readyz").await.status, 200);
        let reply = ask(&["draining"], Method::GET, "/readyz").await;
        assert_eq!(reply.status, 503);
        assert_eq!(reply.body, r#"{"ready":false,"reasons":["draining"]}"#);
        assert_eq!(ask(&["draining"], Method::GET, "/healthz").await.body, "ok");
    }

    #[tokio::test]
    async fn the_figures_stand_at_the_top_of_the_status() {
        let reply = ask(&[], Method::GET, "/status").await;
        let status: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        for figure in ["held", "channels", "history_bytes", "publishes", "generation", "uptime"] {
            assert!(status[figure].is_u64(), "{figure} in {status}");
        }
        assert_eq!(status["held"], 3);
        assert_eq!(status["restart"], serde_json::json!([]));
        assert!(status["pid"].is_u64() && status["version"].is_string());
    }

    #[tokio::test]
    async fn nothing_here_can_be_written() {
        for path in ["/healthz", "/readyz", "/metrics", "/status", "/config"] {
            let reply = ask(&[], Method::POST, path).await;
            assert_eq!((reply.status, &*reply.headers[0].0), (405, "Allow"));
        }
        assert_eq!(ask(&[], Method::GET, "/config").await.body, "listen = []\n");
    }

    #[tokio::test]
    async fn a_reload_is_asked_for_with_post_alone() {
        let reply = ask(&[], Method::POST, "/reload").await;
        assert_eq!(reply.body, r#"{"generation":0,"changed":[],"restart":[]}"#);
        let reply = ask(&[], Method::GET, "/reload").await;
        assert_eq!((reply.status, &*reply.headers[0].1), (405, "POST"));
    }
}
