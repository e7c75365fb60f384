//! The public side's settings from the config.

use super::RETRY_AFTER;
use super::client_script::ClientScript;
use super::poll::hold;
use super::route::Routes;
use super::sites::{Site, Sites};
use super::upstream::Upstream;
use super::{front, grip, mercure, pusher, stream};
use crate::hub::channel::SiteName;
use crate::protocol::http::Reply;
use crate::server::limits::body_memory::{BodyMemory, BodyShare};
use crate::server::limits::permit;
use crate::server::limits::rate::AddressRate;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

impl Settings {
    /// Bytes up to which an answer is as good as written, so that it takes no room.
    pub(super) const SHORT: usize = 16 << 10;

    /// The room that an answer takes until it is written, or the answer in its place where there is
    /// none. What is short, or shared with others, takes none.
    pub(super) fn room_for(&self, reply: &Reply) -> Result<Option<BodyShare>, Reply> {
        let share = fitted(BodyShare::new(&self.bodies), reply);
        share.ok_or_else(|| self.no_room())
    }

    /// The answer that `render` makes, of `least` bytes of its own at the least, and the room that
    /// it takes; the error is the answer in its place. Where there is no room, it is not rendered.
    pub(super) fn rendered(
        &self,
        least: usize,
        render: impl FnOnce() -> Reply,
    ) -> Result<(Reply, Option<BodyShare>), Reply> {
        rendered(&self.bodies, least, render).ok_or_else(|| self.no_room())
    }

    fn no_room(&self) -> Reply {
        let hint = "others do not read their answers; try again later";
        Reply::error(503, "there is no room for the answer", hint).with("Retry-After", RETRY_AFTER)
    }
}

/// See [`Settings::rendered`].
fn rendered(
    bodies: &Arc<BodyMemory>,
    least: usize,
    render: impl FnOnce() -> Reply,
) -> Option<(Reply, Option<BodyShare>)> {
    let mut share = BodyShare::new(bodies);
    if least > Settings::SHORT && !share.grow(least) {
        return None;
    }
    let reply = render();
    let share = fitted(share, &reply)?;
    Some((reply, share))
}

/// The share that `reply` needs, out of the one that was taken for it. The outer `None` = there is
/// no room.
#[allow(clippy::option_option)]
fn fitted(mut share: BodyShare, reply: &Reply) -> Option<Option<BodyShare>> {
    let length = reply.body.len();
    if length <= Settings::SHORT || !reply.body.is_unique() {
        return Some(None);
    }
    share.resize(length).then_some(Some(share))
}

/// The settings of the public side; one snapshot serves a request from end to end.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The browser client; `None` = it is not served.
    pub client_script: Option<ClientScript>,
    /// The interface of Pushpin; `None` = it is off.
    pub grip: Option<Arc<grip::Settings>>,
    /// The Mercure hub; `None` = there is none.
    pub mercure: Option<mercure::Settings>,
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
    /// The site that these are the settings of; `None` = the gate's as a whole.
    pub site: Option<Arc<Site>>,
    /// The sites, by host; `None` = there are none, and all requests are served with these.
    pub sites: Option<Arc<Sites>>,
}

impl Settings {
    /// True if a server behind the gate answers; of `site`, if that is one.
    pub fn is_upstream_healthy(&self, site: &SiteName) -> bool {
        let Some(sites) = &self.sites else { return self.upstream.is_healthy() };
        let mut asked = sites.all().iter().filter(|one| site.is_none() || one.site_name() == site);
        asked.any(|settings| settings.upstream.is_healthy())
    }

    /// Counts a request against the rate limits of its client's address: the gate's, and the
    /// site's. The error is the time after which it may come again.
    pub(super) fn take_request(&self, client: Option<IpAddr>) -> Result<(), Duration> {
        match &self.site {
            None => self.requests.take(self.limits.asks(client)),
            Some(site) => {
                self.requests.take(site.gate_limits.asks(client))?;
                site.requests.take(self.limits.asks(client))
            }
        }
    }

    /// False if a request for `path` (as it stands in the target) can only be the upstream's.
    pub(super) fn may_serve(&self, path: &str) -> bool {
        self.client_script.as_ref().is_some_and(|script| script.owns(path))
            || self.mercure.as_ref().is_some_and(|hub| hub.owns(path))
            || self.pusher.owns(path)
            || self.routes.may_be_poll(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(most: usize) -> Arc<BodyMemory> {
        let memory = Arc::new(BodyMemory::default());
        memory.allow(most);
        memory
    }

    fn reply(length: usize) -> Reply {
        Reply::new(200, "text/plain", vec![b'x'; length])
    }

    #[test]
    fn an_answer_without_room_is_not_rendered() {
        let memory = memory(1 << 20);
        let first = rendered(&memory, 900 << 10, || reply(900 << 10));
        assert!(first.is_some() && memory.used() == 900 << 10);
        let mut rendered_at_all = false;
        let second = rendered(&memory, 900 << 10, || {
            rendered_at_all = true;
            reply(900 << 10)
        });
        assert!(second.is_none() && !rendered_at_all && memory.used() == 900 << 10);
        drop(first);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn an_answer_takes_the_room_of_what_it_has_become() {
        let memory = memory(100 << 10);
        for (least, length, used) in [(0, 1000, 0), (20, 17, 17), (20, 60, 60), (0, 60, 60)] {
            let answer = rendered(&memory, least << 10, || reply(length << 10));
            let expected = if length == 1000 { 0 } else { used << 10 };
            assert_eq!((answer.is_some(), memory.used()), (length < 1000, expected));
            drop(answer);
            assert_eq!(memory.used(), 0);
        }
    }

    #[test]
    fn a_shared_answer_takes_no_room() {
        let memory = memory(100 << 10);
        let shared = reply(1 << 20);
        let answer = rendered(&memory, 0, || shared.clone());
        assert!(answer.is_some_and(|(_, share)| share.is_none()) && memory.used() == 0);
    }
}
