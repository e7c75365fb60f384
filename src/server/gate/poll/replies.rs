//! Headers of every response to a poll, and the responses outside of any dialect.

use crate::protocol::dialect::Dialect;
use crate::protocol::http::{Headers, Reply, retry_after};
use crate::server::gate::route::Rule;
use std::time::Duration;

/// A refusal in the form of the dialect.
pub(in crate::server::gate) fn refusal(rule: &Rule, status: u16, error: &str, hint: &str) -> Reply {
    match rule.dialect {
        Dialect::Native(_) => Reply::error(status, error, hint),
        Dialect::NovComet(_) | Dialect::Timestamp(_) | Dialect::Replay(_) => {
            Reply::new(status, "text/plain; charset=UTF-8", format!("{error}; {hint}\n"))
        }
    }
}

pub(in crate::server::gate) fn wrong_method(method: &str, rule: &Rule) -> Reply {
    let error = format!("a poll is no {method} request");
    let reply = Reply::error(405, error, "use GET; to publish, use the internal listener");
    unstored(reply.with("Allow", rule.allow()))
}

/// The response to an address that exceeds its rate limit; it may retry after `wait`.
pub(in crate::server::gate) fn rate_limited(wait: Duration) -> Reply {
    let words = "too many requests from this address; try again later\n";
    let reply = Reply::new(429, "text/plain; charset=UTF-8", words);
    unstored(reply.with("Retry-After", retry_after(wait)))
}

/// The headers that keep all caches on the way to the client from storing a response.
pub(in crate::server::gate) fn unstored(reply: Reply) -> Reply {
    reply.with("Cache-Control", "no-store").with("X-Accel-Buffering", "no")
}

/// Adds the headers of every response to a poll.
pub(in crate::server::gate) fn finished(reply: Reply, rule: &Rule, origin: Option<&str>) -> Reply {
    let reply = unstored(reply);
    if rule.origins.is_empty() {
        return reply;
    }
    let reply = reply.with("Vary", "Origin");
    match origin {
        None => reply,
        // Any page may read it, but none of them with the user's credentials.
        Some("*") => reply.with("Access-Control-Allow-Origin", "*"),
        Some(origin) => reply
            .with("Access-Control-Allow-Origin", origin.to_owned())
            .with("Access-Control-Allow-Credentials", "true"),
    }
}

/// The origin of a request, if the rule lists it.
pub(in crate::server::gate) fn allowed_origin(
    rule: &Rule,
    headers: &dyn Headers,
) -> Option<Box<str>> {
    let origin = headers.get("origin")?;
    let listed = rule.origins.iter().find(|listed| *listed == origin || *listed == "*")?;
    Some(listed.as_str().into())
}

pub(in crate::server::gate) fn preflight(rule: &Rule, headers: &dyn Headers) -> Reply {
    let origin = allowed_origin(rule, headers);
    let mut reply = Reply::new(204, "", "").with("Allow", rule.allow());
    if origin.is_some() {
        reply = reply
            .with("Access-Control-Allow-Methods", rule.allow())
            .with("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID")
            .with("Access-Control-Max-Age", "600");
    }
    finished(reply, rule, origin.as_deref())
}
