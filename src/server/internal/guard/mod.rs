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
//!
//! Where there are sites, a site's token reaches that site and nothing else; the path, if it names
//! a site, has to name that one.

#[cfg(test)]
mod tests;

use super::Timeouts;
use crate::hub::channel::SiteName;
use crate::protocol::auth::secret::Secret;
use crate::protocol::http::validate::host_name;
use crate::protocol::http::{Headers, Reply, Scope};
use crate::protocol::mercure;
use http::{HeaderMap, Method};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The guard's settings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// The bearer token; empty = none is required.
    pub token: Secret,
    /// The sites and their tokens; empty = a site has none of its own.
    pub sites: Vec<(SiteName, Secret)>,
    /// Host names besides IP literals and `localhost` under which the internal side may be reached
    /// without a token.
    pub names: Vec<String>,
    /// Query parameters whose values are not logged.
    pub mask: Vec<String>,
    /// Timeouts of clients.
    pub patience: Timeouts,
    /// The Mercure hubs, at most one of each site.
    pub mercure: Vec<Arc<mercure::Settings>>,
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
) -> Result<Access, Reply> {
    if bears_token(&settings.token, visitor.headers) {
        return Ok(Access::Gate);
    }
    let bears = |(_, token): &&(SiteName, Secret)| bears_token(token, visitor.headers);
    if let Some((site, _)) = settings.sites.iter().find(bears) {
        return Ok(Access::Site(site.clone()));
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
    if settings.token.is_empty() {
        return Ok(Access::Gate);
    }
    if visitor.open {
        return Ok(Access::Probe);
    }
    let error = match visitor.headers.contains_key("authorization") {
        true => "this is not the token",
        false => "a token is wanted here",
    };
    let hint = "send publish.token as Authorization: Bearer <token>";
    Err(Reply::error(401, error, hint).with("WWW-Authenticate", "Bearer"))
}

/// What a request may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// All of the gate.
    Gate,
    /// One site.
    Site(SiteName),
    /// What needs no token.
    Probe,
}

/// The site that a path begins with, and the rest of the path: `/sites/shop/publish`. Nothing is
/// unescaped or folded, so there is one way to write a site.
pub(super) fn site_in(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/sites/")?;
    let (site, _) = rest.split_once('/')?;
    Some((site, &rest[site.len()..]))
}

/// The site that a request is about, with `named` in its path; or its refusal.
pub(super) fn scoped(
    settings: &Settings,
    access: &Access,
    named: Option<&str>,
    scope: Scope,
) -> Result<SiteName, Reply> {
    let known = |name: &str| settings.sites.iter().find(|(site, _)| site.as_str() == name);
    let named = match named.map(|name| (name, known(name))) {
        None => None,
        Some((_, Some((site, _)))) => Some(site),
        // To a site there is no other one.
        Some((_, None)) if matches!(access, Access::Site(_)) => return Err(another_site()),
        Some((name, None)) => {
            let error = format!("there is no site {name:?}");
            return Err(Reply::error(404, error, "the config names the sites: [[site]]"));
        }
    };
    match (access, scope, named) {
        (Access::Site(own), _, Some(site)) if own != site => Err(another_site()),
        (Access::Site(_), Scope::Gate, _) => {
            let hint = "this is about the gate as a whole; send the publish.token of the gate";
            Err(Reply::error(403, "a site's token does not reach this", hint))
        }
        (Access::Site(own), ..) => Ok(own.clone()),
        (Access::Gate | Access::Probe, Scope::Gate, Some(_)) => {
            let hint = "ask for it without /sites/{site}";
            Err(Reply::error(404, "a site has nothing of the kind", hint))
        }
        (Access::Gate | Access::Probe, _, Some(site)) => Ok(site.clone()),
        (Access::Gate | Access::Probe, Scope::Site, None) => match settings.sites.as_slice() {
            [] => Ok(SiteName::NONE),
            [(only, _)] => Ok(only.clone()),
            _ => {
                let hint = "write /sites/{site} before the path, or send that site's token";
                Err(Reply::error(404, "there are several sites, and this names none", hint))
            }
        },
        (Access::Gate | Access::Probe, _, None) => Ok(SiteName::NONE),
    }
}

fn another_site() -> Reply {
    let hint = "a site's publish.token reaches that site alone";
    Reply::error(403, "this token is not that site's", hint)
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
