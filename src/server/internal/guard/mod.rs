//! The guard: decides which requests the internal listener serves.
//!
//! Two dangers, two rules. A client that can reach the listener must know the token, if one is
//! configured. And a browser that can reach it must not be turned against it by a page from
//! elsewhere: a request that bears the marks of such a page is refused, with or without a token.
//! Programs that publish (PHP, curl) leave no such marks.
//!
//! The internal page is a page, too; its requests carry the page token, which a page from elsewhere
//! cannot read, except one that has had its own name resolved to this listener (DNS rebinding). So
//! the page token counts only under a host that no stranger can own. And as browsers mark nothing
//! on plain HTTP, where no token is required such a page could read all that any program can: there
//! every request has to name a host of ours, or none.

#[cfg(test)]
mod tests;

use super::Timeouts;
use crate::protocol::auth::secret::Secret;
use crate::protocol::http::validate::host_name;
use crate::protocol::http::{Headers, Reply};
use crate::protocol::mercure;
use http::{HeaderMap, Method};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The guard's settings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// The bearer token; empty = none is required.
    pub token: Secret,
    /// Host names besides IP literals and `localhost` under which the internal side may be reached
    /// without a token.
    pub names: Vec<String>,
    /// Query parameters whose values are not logged.
    pub mask: Vec<String>,
    /// Timeouts of clients.
    pub patience: Timeouts,
    /// The Mercure hub; `None` = there is none.
    pub mercure: Option<Arc<mercure::Settings>>,
    /// The longest message, in bytes.
    pub max_message: u64,
}

/// The header in which the internal page carries its token.
pub const PAGE_HEADER: &str = "pollgate-page";

/// The parts of a request that the guard checks.
pub(super) struct Requester<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    /// It came over a unix socket, which no browser reaches.
    pub(super) local: bool,
    /// The path requires no token.
    pub(super) open: bool,
    /// The path is a page that a link elsewhere may lead to.
    pub(super) page: bool,
}

/// Admits `visitor`, or returns the refusal.
pub(super) fn admit(
    settings: &Settings,
    page: &Secret,
    visitor: &Requester<'_>,
) -> Result<(), Reply> {
    if bears_token(&settings.token, visitor.headers) {
        return Ok(());
    }
    if came_from_a_page(visitor) && !is_our_page(settings, page, visitor.headers) {
        let hint = "a browser page may not do this; publish from the server's side, \
                    or send the token as Authorization: Bearer";
        return Err(Reply::error(403, "refused to a page from elsewhere", hint));
    }
    if settings.token.is_empty() && !visitor.local && !names_us(settings, visitor.headers) {
        let error = "this host name is not known here";
        let hint = "ask for the gate by IP address or localhost, name the host in internal_names, \
                    or set publish.token";
        return Err(Reply::error(403, error, hint));
    }
    if settings.token.is_empty() || visitor.open {
        return Ok(());
    }
    let error = match visitor.headers.contains_key("authorization") {
        true => "this is not the token",
        false => "a token is wanted here",
    };
    let hint = "send publish.token as Authorization: Bearer <token>";
    Err(Reply::error(401, error, hint).with("WWW-Authenticate", "Bearer"))
}

/// True if a request bears the token, where one is set.
pub(super) fn bears_token(token: &Secret, headers: &HeaderMap) -> bool {
    let Some(value) = Headers::get(headers, "authorization") else { return false };
    // The scheme's name is case-insensitive (RFC 9110, section 11.1).
    let Some((scheme, offered)) = value.split_once(' ') else { return false };
    !token.is_empty() && scheme.eq_ignore_ascii_case("bearer") && token.is(offered.trim())
}

/// True if a request bears the marks of a browser page that must not make it by itself: any page
/// for a write, one of another origin for a read.
fn came_from_a_page(visitor: &Requester<'_>) -> bool {
    let site = Headers::get(visitor.headers, "sec-fetch-site");
    if matches!(*visitor.method, Method::GET | Method::HEAD) {
        // A user who follows a link to our page sees it; the page with the link does not.
        let dest = Headers::get(visitor.headers, "sec-fetch-dest");
        let visits = visitor.page && dest == Some("document");
        return matches!(site, Some("cross-site" | "same-site")) && !visits;
    }
    // No program sends such a header, even one with foreign bytes.
    visitor.headers.contains_key("origin")
        || visitor.headers.contains_key("sec-fetch-site") && site != Some("none")
}

fn is_our_page(settings: &Settings, page: &Secret, headers: &HeaderMap) -> bool {
    let offered = Headers::get(headers, PAGE_HEADER).unwrap_or_default();
    let host = Headers::get(headers, "host").unwrap_or_default();
    !page.is_empty() && page.is(offered) && is_ours(settings, host)
}

/// True if a request is for a host of ours, or comes from a simple program that names none.
fn names_us(settings: &Settings, headers: &HeaderMap) -> bool {
    !headers.contains_key("host")
        || Headers::get(headers, "host").is_some_and(|host| is_ours(settings, host))
}

/// True if no stranger can have this `Host` resolved to this listener.
fn is_ours(settings: &Settings, host: &str) -> bool {
    let Some(name) = host_name(host) else { return false };
    let literal = match name.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']').is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok()),
        None => name.parse::<Ipv4Addr>().is_ok(),
    };
    literal
        || name.eq_ignore_ascii_case("localhost")
        || settings.names.iter().any(|ours| name.eq_ignore_ascii_case(ours))
}
