//! The demo site as the gate's upstream, if the config names none.

use crate::app::AppError;
use crate::app::demo::{self, DemoSite};
use crate::app::listeners::PUBLIC_MODE;
use crate::protocol::address::Address;
use crate::server::internal;
use crate::server::net::client::{self, Call};
use crate::server::net::listener::{Bound, Buffers, Listening};
use arc_swap::ArcSwap;
use pingora::server::ShutdownWatch;
use std::sync::Arc;

/// A port of its own for the demo site.
pub(in crate::app) fn bind() -> Result<Bound, AppError> {
    let any = Address::Tcp { host: "127.0.0.1".to_owned(), port: 0 };
    Bound::new(&any, PUBLIC_MODE).map_err(|error| AppError::Listen(any, error))
}

pub(in crate::app) fn service(
    bound: Bound,
    publish: demo::Publish,
    stopped: &ShutdownWatch,
) -> impl pingora::services::Service + use<> {
    let app = pingora::apps::http_app::HttpServer::new_app(DemoSite::new(publish));
    Listening::new("demo site", app, vec![bound], Buffers::Write, stopped.clone()).threads(1)
}

/// Publishes for the demo site through the hook, as any site does.
pub(in crate::app) fn publish(
    hook: Option<&Address>,
    internal: &Arc<ArcSwap<internal::Settings>>,
) -> demo::Publish {
    let internal = internal.clone();
    // A config without an internal address does not get here.
    let hook = hook.cloned();
    Box::new(move |json| {
        let hook = hook.clone();
        let token = internal.load().token.clone();
        Box::pin(async move {
            let hook = hook.ok_or("there is no internal address")?;
            let content_type = Some("application/json");
            let target = "/publish";
            let call = Call { method: "POST", target, content_type, body: json.into() };
            match client::call(&hook, &token, call).await {
                Ok((200, _)) => Ok(()),
                Ok((status, body)) => Err(format!("{status} {}", String::from_utf8_lossy(&body))),
                Err(error) => Err(error.to_string()),
            }
        })
    })
}
