//! The internal listener's access log: one line a request, never its token.
//!
//! Headers are not logged, so `Authorization` is not. Frequent reads and publishes are logged for
//! debugging only; refusals, failures and changes of the gate are logged always.

use crate::protocol::http::query::masked;
use http::Method;
use std::net::IpAddr;
use std::time::Duration;

/// The log target of these lines.
const TARGET: &str = "pollgate::internal";

/// One logged request.
pub(super) struct Line<'a> {
    /// Address of the client; `None` on a unix socket.
    pub(super) peer: Option<IpAddr>,
    /// The method and target; `None` if the head could not be parsed.
    pub(super) asked: Option<(&'a Method, &'a str)>,
    /// The status of the response.
    pub(super) status: u16,
    /// Bytes of the response's body.
    pub(super) bytes: usize,
    /// From the head to the end of the response.
    pub(super) took: Duration,
}

/// Logs one request; masks the values of the query parameters in `mask`.
pub(super) fn log(line: &Line<'_>, mask: &[String]) {
    let usual = line.asked.is_some_and(|(method, target)| is_usual(method, target, line.status));
    if usual && !tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
        return;
    }
    let peer = line.peer.map(|peer| peer.to_string());
    let peer = peer.as_deref().unwrap_or("unix");
    let method = line.asked.map_or("-", |(method, _)| method.as_str());
    let target = line.asked.map_or_else(|| "-".to_owned(), |(_, target)| masked(target, mask));
    let status = line.status;
    let bytes = line.bytes;
    let took_ms = line.took.as_secs_f64() * 1e3;
    match usual {
        true => tracing::debug!(target: TARGET, peer, method, target, status, bytes, took_ms),
        false => tracing::info!(target: TARGET, peer, method, target, status, bytes, took_ms),
    }
}

/// A read or a publish that succeeded, or a probe of a gate that is not ready.
fn is_usual(method: &Method, target: &str, status: u16) -> bool {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let publishes = *method == Method::POST
        && ["/publish", "/channels/", "/apps/"].iter().any(|path| target.starts_with(path));
    (reads || publishes) && status < 400 || reads && target == "/readyz"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_all_the_time_is_only_for_debugging() {
        assert!(is_usual(&Method::GET, "/metrics", 200));
        assert!(is_usual(&Method::GET, "/readyz", 503));
        assert!(is_usual(&Method::POST, "/channels/a", 200));
        assert!(!is_usual(&Method::POST, "/publish", 401));
        assert!(!is_usual(&Method::DELETE, "/channels/a", 200));
        assert!(!is_usual(&Method::POST, "/reload", 200));
        assert!(!is_usual(&Method::GET, "/status", 401));
    }
}
