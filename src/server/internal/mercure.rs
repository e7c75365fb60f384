//! The Mercure hub on the internal listener: takes updates from the site.
//!
//! `publish.token` publishes on every topic, where one is set; a publisher's token publishes on its
//! own, as on the public listener. The endpoint checks both itself. Where there are several sites, a
//! site's own token names its hub, and the path does for others: `/sites/{site}/.well-known/mercure`.

use super::Settings;
use super::guard::bears_token;
use crate::protocol::auth::Seconds;
use crate::protocol::http::{Endpoint, Reply, Request, Scope};
use crate::protocol::mercure::{self, Parameters, Publish, Publisher, Refused, Target};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::Method;
use std::sync::Arc;

/// See the [module](self).
pub struct Mercure {
    settings: Arc<ArcSwap<Settings>>,
    publish: Publish,
    /// Milliseconds since 1970.
    clock: fn() -> u64,
}

impl Mercure {
    /// The hub of `settings`, which publishes through `publish`. `clock` returns milliseconds since
    /// 1970.
    pub fn new(settings: Arc<ArcSwap<Settings>>, publish: Publish, clock: fn() -> u64) -> Self {
        Self { settings, publish, clock }
    }

    fn seconds(&self) -> Seconds {
        (self.clock)() / 1_000
    }

    /// The publisher that a request's head shows.
    fn publisher(
        &self,
        settings: &Settings,
        hub: &mercure::Settings,
        head: &Request,
    ) -> Result<Publisher, Refused> {
        let of_site = settings.sites.iter().filter(|(site, _)| *site == head.site);
        let mut tokens = [&settings.token].into_iter().chain(of_site.map(|(_, token)| token));
        if tokens.any(|token| bears_token(token, &head.headers)) {
            return Ok(Publisher::TRUSTED);
        }
        hub.publisher(Parameters::new(&head.query), &head.headers, self.seconds())
    }
}

/// The hub of a request's site, if the path is that hub's.
fn hub_of<'a>(settings: &'a Settings, head: &Request) -> Option<&'a mercure::Settings> {
    let hub = settings.mercure.iter().find(|hub| hub.site == head.site)?;
    (hub.target(&head.path) == Some(Target::Hub)).then_some(hub)
}

fn no_hub() -> Reply {
    mercure::plain(404, "there is no hub")
}

#[async_trait]
impl Endpoint for Mercure {
    fn owns(&self, path: &str) -> bool {
        let settings = self.settings.load();
        settings.mercure.iter().any(|hub| hub.target(path) == Some(Target::Hub))
    }

    fn is_open(&self, _path: &str) -> bool {
        true
    }

    fn scope(&self, _path: &str) -> Scope {
        Scope::Site
    }

    fn refuse(&self, head: &Request) -> Option<Reply> {
        let settings = self.settings.load();
        let Some(hub) = hub_of(&settings, head) else { return Some(no_hub()) };
        if head.method != Method::POST {
            return Some(Reply::wrong_method(&head.path, "POST"));
        }
        self.publisher(&settings, hub, head).err().map(|refused| refused.reply())
    }

    /// Each byte of a message may be escaped, and beside it stand its topics.
    fn longest_body(&self, _path: &str) -> u64 {
        let most = self.settings.load().max_message;
        most.saturating_add(2 * mercure::MAX_TOPIC_BYTES as u64).saturating_mul(3)
    }

    async fn answer(&self, request: &Request) -> Reply {
        let settings = self.settings.load_full();
        let Some(hub) = hub_of(&settings, request) else { return no_hub() };
        let publisher = self.publisher(&settings, hub, request);
        let kind = request.headers.get("content-type").and_then(|kind| kind.to_str().ok());
        let made = mercure::made_id((self.clock)(), fastrand::u128(..));
        let update = publisher.and_then(|it| hub.update(&it, kind, &request.body, made));
        match update {
            Ok(update) => (self.publish)(request.site.clone(), update).await,
            Err(refused) => refused.reply(),
        }
    }
}
