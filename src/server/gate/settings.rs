//! What the public side is told by the config.

use super::front;
use super::poll::hold;
use super::route::Routes;
use super::upstream::Upstream;
use crate::server::limits::permit;
use crate::server::limits::rate::Rate;
use ipnet::IpNet;
use std::sync::Arc;
use std::time::Duration;

/// The settings of the public side; one snapshot serves a request from end to end.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which requests are polls.
    pub routes: Routes,
    /// How long polls are held.
    pub hold: hold::Settings,
    /// How many.
    pub limits: permit::Settings,
    /// How often one address may connect; a trusted proxy as often as it likes.
    pub connections: Arc<Rate>,
    /// How often one address may ask.
    pub requests: Arc<Rate>,
    /// Networks whose forwarded headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Query parameters whose values are not logged.
    pub mask: Vec<String>,
    /// The site's servers.
    pub upstream: Arc<Upstream>,
    /// How long connecting to the site may take.
    pub connect_timeout: Duration,
    /// How long the site may be silent.
    pub read_timeout: Duration,
    /// How large the head of a request may be.
    pub head: front::Bounds,
    /// How long the head of a request may take; `None` = for ever.
    pub head_timeout: Option<Duration>,
    /// How long a kept-alive connection may be idle between requests; `None` = for ever.
    pub idle_timeout: Option<Duration>,
    /// How long writing to a client, or the body of its request, may stall; `None` = for ever.
    pub write_timeout: Option<Duration>,
}
