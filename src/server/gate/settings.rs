//! The public side's settings from the config.

use super::client_script::ClientScript;
use super::poll::hold;
use super::route::Routes;
use super::upstream::Upstream;
use super::{front, stream};
use crate::server::limits::permit;
use crate::server::limits::rate::AddressRate;
use ipnet::IpNet;
use std::sync::Arc;
use std::time::Duration;

/// The settings of the public side; one snapshot serves a request from end to end.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The browser client; `None` = it is not served.
    pub client_script: Option<ClientScript>,
    /// The poll rules.
    pub routes: Routes,
    /// Hold timeout and jitter.
    pub hold: hold::Settings,
    /// What streams are like.
    pub stream: stream::Settings,
    /// Limits on the number of held polls.
    pub limits: permit::Settings,
    /// Rate limit of connections of one address; trusted proxies are exempt.
    pub connections: Arc<AddressRate>,
    /// Rate limit of requests of one address.
    pub requests: Arc<AddressRate>,
    /// Networks whose forwarded headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Query parameters whose values are not logged.
    pub mask: Vec<String>,
    /// The upstream's servers.
    pub upstream: Arc<Upstream>,
    /// Timeout of connecting to the upstream.
    pub connect_timeout: Duration,
    /// Longest silence of the upstream.
    pub read_timeout: Duration,
    /// Upper bounds of a request's head.
    pub head: front::Bounds,
    /// Timeout of a request's head; `None` = for ever.
    pub head_timeout: Option<Duration>,
    /// Timeout of a kept-alive connection between requests; `None` = for ever.
    pub idle_timeout: Option<Duration>,
    /// Timeout of a stalled write to a client, or of a stalled request body; `None` = for ever.
    pub write_timeout: Option<Duration>,
}

impl Settings {
    /// False if a request for `path` (as it stands in the target) can only be the upstream's.
    pub(super) fn may_serve(&self, path: &str) -> bool {
        self.client_script.as_ref().is_some_and(|script| script.owns(path))
            || self.routes.may_be_poll(path)
    }
}
