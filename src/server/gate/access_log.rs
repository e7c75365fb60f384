//! The access log: one line a request, without its secrets.

use super::Settings;
use super::poll::hold::Cause;
use crate::protocol::http::query::mask;
use crate::server::telemetry::log;
use crate::server::telemetry::metrics::Label;
use std::net::IpAddr;
use std::time::Duration;

/// The log target of the access log.
pub const TARGET: &str = "pollgate::access";

/// One logged request.
pub struct Line<'a> {
    /// The client, behind trusted proxies.
    pub client: Option<IpAddr>,
    /// The method; `-` if the head could not be parsed.
    pub method: &'a str,
    /// Path and query as they came; `-` if the head could not be parsed.
    pub target: &'a str,
    /// The status of the response; 0 = none.
    pub status: u16,
    /// Bytes of the response's body.
    pub bytes: usize,
    /// From the request's head to the end of its response.
    pub took: Duration,
    /// For polls: the time held, and the cause that ended it.
    pub held: Option<(Duration, Cause)>,
    /// For streams: how many events were sent.
    pub events: Option<u64>,
}

/// True if the access log is on.
pub fn is_logged() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::INFO)
}

/// Logs one request that was served with `settings`; masks what those do not have logged.
pub fn log(line: &Line<'_>, settings: &Settings) {
    let mut out = log::Line::new(TARGET);
    if let Some(site) = &settings.site {
        out.quoted("site", site.name.as_str());
    }
    match line.client {
        Some(client) => out.address("client", client),
        None => out.shown("client", "unix"),
    }
    out.quoted("method", line.method);
    out.plain("target", |out| mask(out, line.target, &settings.mask));
    out.number("status", line.status.into());
    out.number("bytes", line.bytes as u64);
    out.milliseconds("took_ms", line.took);
    if let Some((held, cause)) = line.held {
        out.milliseconds("held_ms", held);
        out.quoted("cause", cause.as_str());
        if let Some(events) = line.events {
            out.number("events", events);
        }
    }
    out.end();
}
