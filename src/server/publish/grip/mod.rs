//! `POST /grip/publish`: the way in for the items of GRIP's programs.
//!
//! All items of a request are published, or none. Where `grip.control_key` is set, the token that
//! the programs send is verified, in place of `publish.token`.

use super::{PublishError, Publisher, Source};
use crate::hub::channel::{Kind, Payload, SiteName};
use crate::protocol::auth::jwt::Verifier;
use crate::protocol::grip::item;
use crate::protocol::http::{Endpoint, Headers, Reply, Request, Scope};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::Method;
use std::sync::Arc;

/// See the [module](self).
pub struct Grip {
    publisher: Publisher,
    settings: Arc<ArcSwap<Vec<Settings>>>,
}

/// The part of a site's `[grip]` that is about publishing, where the interface is there.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The site.
    pub site: SiteName,
    /// Verifies the publisher's token; `None` = it is `publish.token` that counts.
    pub control: Option<Arc<Verifier>>,
}

impl Grip {
    /// An endpoint that publishes through `publisher`.
    pub fn new(publisher: Publisher, settings: Arc<ArcSwap<Vec<Settings>>>) -> Self {
        Self { publisher, settings }
    }

    /// The refusal of a request without a good token.
    fn unauthorized(&self, request: &Request) -> Option<Reply> {
        let settings = self.settings.load();
        let Some(own) = settings.iter().find(|one| one.site == request.site) else {
            return Some(Reply::error(404, "the site has no [grip]", "set its grip.enabled"));
        };
        let verifier = own.control.as_ref()?;
        let value = Headers::get(&request.headers, "authorization").unwrap_or_default();
        let token =
            value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let token = token.map(|(_, token)| token.trim());
        let now = self.publisher.now().0 / 1_000_000;
        let wrong = match token.map(|token| verifier.grant(token, now)) {
            Some(Ok(_)) => return None,
            Some(Err(rejection)) => rejection.to_string(),
            None => "a token is wanted here".to_owned(),
        };
        let hint = "sign a token with grip.control_key, and send it as Authorization: Bearer";
        Some(Reply::error(401, wrong, hint).with("WWW-Authenticate", "Bearer"))
    }
}

#[async_trait]
impl Endpoint for Grip {
    fn owns(&self, path: &str) -> bool {
        matches!(path, "/grip/publish" | "/grip/publish/") && !self.settings.load().is_empty()
    }

    /// Where one site has no key to verify tokens with, the listener's own are needed for all.
    fn is_open(&self, _path: &str) -> bool {
        self.settings.load().iter().all(|one| one.control.is_some())
    }

    fn scope(&self, _path: &str) -> Scope {
        Scope::Site
    }

    /// Around a message there is at most its escaping, and room for several.
    fn longest_body(&self, _path: &str) -> u64 {
        self.publisher.longest_message().saturating_mul(6).saturating_add(1 << 20)
    }

    async fn answer(&self, request: &Request) -> Reply {
        if let Some(refusal) = self.unauthorized(request) {
            return refusal;
        }
        if request.method != Method::POST {
            return Reply::wrong_method(&request.path, "POST");
        }
        let items = match item::read(&request.body) {
            Ok(items) => items,
            Err(error) => {
                let hint = r#"send {"items":[{"channel":...,"formats":{...}}]}"#;
                return Reply::error(400, error, hint);
            }
        };
        let posts = items.into_iter().map(|(channel, item)| {
            let payload = Payload {
                kind: Kind::Json,
                content_type: "application/json".into(),
                body: item.stored(),
            };
            (channel.in_site(&request.site), payload)
        });
        match self.publisher.publish(posts.collect(), Source::Hook).await {
            Ok(_) => Reply::new(200, "text/plain", "Published\n"),
            Err(PublishError::Unknown(error)) => {
                Reply::error(504, error, "the items may be published or not")
            }
            Err(error) => error.into(),
        }
    }
}
