//! Revokes grants.
//!
//! | request | response |
//! |---|---|
//! | `DELETE /grants?channel=&credential=` | `{"revoked":2}`: number of revoked grants; their held polls are answered with 401 |
//!
//! Both parameters are optional and narrow the selection. A credential is a token, or the value of
//! a cookie, that a client has shown.

use crate::hub::channel::{ChannelName, SiteName};
use crate::protocol::http::query::Query;
use crate::protocol::http::{Endpoint, Reply, Request, Scope};
use async_trait::async_trait;
use http::Method;

/// Revokes grants of a site (none = of all): of a channel, for a credential; `None` = any. Returns
/// their number.
pub type Revoke = Box<dyn Fn(&SiteName, Option<&ChannelName>, Option<&str>) -> usize + Send + Sync>;

/// See the [module](self).
pub struct Grants {
    revoke: Revoke,
}

impl Grants {
    /// An endpoint that calls `revoke`.
    pub fn new(revoke: Revoke) -> Self {
        Self { revoke }
    }

    fn delete(&self, request: &Request) -> Reply {
        let query = Query::parse(&request.query);
        let wanted = |name: &str| query.text(name).filter(|value| !value.is_empty());
        let channel = match wanted("channel").map(|name| ChannelName::new(&name)).transpose() {
            Ok(channel) => channel,
            Err(error) => {
                return Reply::error(400, error, "write channel=<name>, or leave it out for all");
            }
        };
        let revoked =
            (self.revoke)(&request.site, channel.as_ref(), wanted("credential").as_deref());
        Reply::json(200, &serde_json::json!({ "revoked": revoked }))
    }
}

#[async_trait]
impl Endpoint for Grants {
    fn owns(&self, path: &str) -> bool {
        path == "/grants"
    }

    fn scope(&self, _path: &str) -> Scope {
        Scope::Either
    }

    async fn answer(&self, request: &Request) -> Reply {
        match request.method {
            Method::DELETE => self.delete(request),
            _ => Reply::wrong_method(&request.path, "DELETE"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_left_out_means_any() {
        let grants = Grants::new(Box::new(|_, channel, credential| {
            10 * usize::from(channel.is_some()) + usize::from(credential == Some("a b"))
        }));
        for (method, target, status, body) in [
            (Method::DELETE, "/grants", 200, r#"{"revoked":0}"#),
            (Method::DELETE, "/grants?channel=&credential=", 200, r#"{"revoked":0}"#),
            (Method::DELETE, "/grants?channel=x", 200, r#"{"revoked":10}"#),
            (Method::DELETE, "/grants?channel=x&credential=a+b", 200, r#"{"revoked":11}"#),
        ] {
            let reply = grants.answer(&Request::new(method, target)).await;
            assert_eq!((reply.status, &*reply.body), (status, body.as_bytes()), "{target}");
        }
        let bad = grants.answer(&Request::new(Method::DELETE, "/grants?channel=%00a")).await;
        assert_eq!(bad.status, 400);
        assert_eq!(grants.answer(&Request::new(Method::GET, "/grants")).await.status, 405);
    }
}
