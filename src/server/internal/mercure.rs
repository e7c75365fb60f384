//! The Mercure hub on the internal listener: takes updates from the site.
//!
//! `publish.token` publishes on every topic, where one is set; a publisher's token publishes on its
//! own, as on the public listener. The endpoint checks both itself.

use super::Settings;
use super::guard::bears_token;
use crate::protocol::auth::Seconds;
use crate::protocol::http::{Endpoint, Reply, Request};
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
        if bears_token(&settings.token, &head.headers) {
            return Ok(Publisher::TRUSTED);
        }
        hub.publisher(Parameters::new(&head.query), &head.headers, self.seconds())
    }
}

#[async_trait]
impl Endpoint for Mercure {
    fn owns(&self, path: &str) -> bool {
        let settings = self.settings.load();
        settings.mercure.as_ref().is_some_and(|hub| hub.target(path) == Some(Target::Hub))
    }

    fn is_open(&self, _path: &str) -> bool {
        true
    }

    fn refuse(&self, head: &Request) -> Option<Reply> {
        let settings = self.settings.load();
        let hub = settings.mercure.as_ref()?;
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
        let Some(hub) = &settings.mercure else {
            return mercure::plain(404, "there is no hub");
        };
        let publisher = self.publisher(&settings, hub, request);
        let kind = request.headers.get("content-type").and_then(|kind| kind.to_str().ok());
        let made = mercure::made_id((self.clock)(), fastrand::u128(..));
        let update = publisher.and_then(|it| hub.update(&it, kind, &request.body, made));
        match update {
            Ok(update) => (self.publish)(update).await,
            Err(refused) => refused.reply(),
        }
    }
}
