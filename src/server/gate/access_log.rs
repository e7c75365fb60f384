//! The access log: one line a request, without its secrets.

use super::poll::hold::Cause;
use crate::protocol::http::query::masked;
use crate::server::telemetry::metrics::Label;
use std::net::IpAddr;
use std::time::Duration;

/// The log target of the access log.
pub const TARGET: &str = "pollgate::access";

/// What is logged of one request.
pub struct Line<'a> {
    /// The client, behind trusted proxies.
    pub client: Option<IpAddr>,
    /// The method; `-` where the head was not understood.
    pub method: &'a str,
    /// Path and query as they came; `-` where the head was not understood.
    pub target: &'a str,
    /// The status answered; 0 = none.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: usize,
    /// From the request's head to the end of its answer.
    pub took: Duration,
    /// For polls: how long it was held, and why that ended.
    pub held: Option<(Duration, Cause)>,
}

/// Whether the access log is on.
pub fn is_logged() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::INFO)
}

/// Logs one request; the values of the query parameters in `mask` are not shown.
pub fn log(line: &Line<'_>, mask: &[String]) {
    let client = line.client.map(|client| client.to_string());
    let client = client.as_deref().unwrap_or("unix");
    let (method, status, bytes) = (line.method, line.status, line.bytes);
    let target = masked(line.target, mask);
    let took_ms = milliseconds(line.took);
    match line.held {
        Some((held, cause)) => {
            let held_ms = milliseconds(held);
            let cause = cause.as_str();
            tracing::info!(target: TARGET, client, method, %target, status, bytes, took_ms, held_ms, cause);
        }
        None => tracing::info!(target: TARGET, client, method, %target, status, bytes, took_ms),
    }
}

/// To the microsecond.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
