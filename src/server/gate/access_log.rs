//! The access log: one line a request, without its secrets.

use super::Settings;
use super::poll::hold::Cause;
use crate::protocol::http::query::masked;
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
    let site = settings.site.as_ref().map(|site| site.name.as_str());
    let client = line.client.map(|client| client.to_string());
    let client = client.as_deref().unwrap_or("unix");
    let method = line.method;
    let status = line.status;
    let bytes = line.bytes;
    let target = masked(line.target, &settings.mask);
    let took_ms = milliseconds(line.took);
    match (line.held, line.events) {
        (Some((held, cause)), Some(events)) => {
            let held_ms = milliseconds(held);
            let cause = cause.as_str();
            tracing::info!(target: TARGET, site, client, method, %target, status, bytes, took_ms, held_ms, cause, events);
        }
        (Some((held, cause)), None) => {
            let held_ms = milliseconds(held);
            let cause = cause.as_str();
            tracing::info!(target: TARGET, site, client, method, %target, status, bytes, took_ms, held_ms, cause);
        }
        (None, _) => {
            tracing::info!(target: TARGET, site, client, method, %target, status, bytes, took_ms)
        }
    }
}

/// Rounded to the microsecond.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
