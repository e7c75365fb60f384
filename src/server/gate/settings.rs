//! The public side's settings from the config.

use super::RETRY_AFTER;
use super::client_script::ClientScript;
use super::poll::hold;
use super::route::Routes;
use super::upstream::Upstream;
use super::{front, pusher, stream};
use crate::protocol::http::Reply;
use crate::server::limits::body_memory::{BodyMemory, BodyShare};
use crate::server::limits::permit;
use crate::server::limits::rate::AddressRate;
use ipnet::IpNet;
use std::sync::Arc;
use std::time::Duration;

impl Settings {
    /// The room that an answer takes until it is written, or the answer in its place where there is
    /// none. What is short, or shared with others, takes none.
    pub(super) fn room_for(&self, reply: &Reply) -> Result<Option<BodyShare>, Reply> {
        /// Shorter answers are as good as written.
        const SHORT: usize = 16 << 10;
        let length = reply.body.len();
        if length <= SHORT || !reply.body.is_unique() {
            return Ok(None);
        }
        let mut share = BodyShare::new(&self.bodies);
        if share.grow(length) {
            return Ok(Some(share));
        }
        let hint = "others do not read their answers; try again later";
        Err(Reply::error(503, "there is no room for the answer", hint)
            .with("Retry-After", RETRY_AFTER))
    }
}

/// The settings of the public side; one snapshot serves a request from end to end.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The browser client; `None` = it is not served.
    pub client_script: Option<ClientScript>,
    /// The Pusher protocol.
    pub pusher: pusher::PusherSettings,
    /// The poll rules.
    pub routes: Routes,
    /// Hold timeout and jitter.
    pub hold: hold::Settings,
    /// What streams are like.
    pub stream: Arc<stream::Settings>,
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
    /// The least rate of a request's body in bytes a second; 0 = any.
    pub body_rate: u32,
    /// The memory for bodies that are kept.
    pub bodies: Arc<BodyMemory>,
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
            || self.pusher.owns(path)
            || self.routes.may_be_poll(path)
    }
}
