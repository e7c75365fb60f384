//! Headers of every response to a poll, and the responses outside of any dialect.

use crate::protocol::dialect::Dialect;
use crate::protocol::http::{Headers, Reply, retry_after};
use crate::server::gate::route::{Routes, Rule};
use std::time::Duration;

/// A refusal in the form of the dialect.
pub(in crate::server::gate) fn refusal(rule: &Rule, status: u16, error: &str, hint: &str) -> Reply {
    match rule.dialect {
        Dialect::Native(_) => Reply::error(status, error, hint),
        Dialect::NovComet(_)
        | Dialect::Timestamp(_)
        | Dialect::Nchan(_)
        | Dialect::Replay(_)
        | Dialect::None => {
            Reply::new(status, "text/plain; charset=UTF-8", format!("{error}; {hint}\n"))
        }
    }
}

pub(in crate::server::gate) fn wrong_method(method: &str, rule: &Rule) -> Reply {
    let error = format!("a poll is no {method} request");
    let reply = Reply::error(405, error, "use GET; to publish, use the internal listener");
    reply.with("Allow", rule.allow())
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
    cross_origin(unstored(reply), rule, origin)
}

fn cross_origin(reply: Reply, rule: &Rule, origin: Option<&str>) -> Reply {
    if rule.origins.is_empty() {
        return reply;
    }
    let reply = reply.with("Vary", "Origin");
    let Some(origin) = origin else { return reply };
    let reply = reply.with("Access-Control-Expose-Headers", EXPOSED);
    match origin {
        // Any page may read it, but none of them with the user's credentials.
        "*" => reply.with("Access-Control-Allow-Origin", "*"),
        origin => reply
            .with("Access-Control-Allow-Origin", origin.to_owned())
            .with("Access-Control-Allow-Credentials", "true"),
    }
}

/// Adds the CORS headers to a refusal that came before the rules were matched, if a rule for its
/// path lists the origin.
pub(in crate::server::gate) fn readable(
    reply: Reply,
    routes: &Routes,
    path: &str,
    headers: &dyn Headers,
) -> Reply {
    if headers.get("origin").is_none() {
        return reply;
    }
    let rule = routes.rules_for(path).find(|rule| allowed_origin(rule, headers).is_some());
    match rule {
        Some(rule) => cross_origin(reply, rule, allowed_origin(rule, headers).as_deref()),
        None => reply,
    }
}

/// The headers that a script of another origin may read: the cursor of bare messages, the time of
/// a retry, and the challenge of a refusal.
const EXPOSED: &str = "ETag, Last-Modified, Retry-After, WWW-Authenticate, X-Pollgate-Reset";

/// The headers that a script of another origin may send: credentials, the cursor of bare messages
/// and of streams, and the one that jQuery adds.
const ALLOWED: &str = "Authorization, Cache-Control, Content-Type, If-Modified-Since, \
                       If-None-Match, Last-Event-ID, X-Requested-With";

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
            .with("Access-Control-Allow-Headers", ALLOWED)
            .with("Access-Control-Max-Age", "600");
    }
    finished(reply, rule, origin.as_deref())
}
