//! Record of a request that the fast path answers, and its line in the access log.

use crate::protocol::http::Reply;
use crate::server::gate::front::Front;
use crate::server::gate::front::head::Head;
use crate::server::gate::poll::hold::Cause;
use crate::server::gate::{Open, Settings, access_log};
use bytes::Bytes;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Record of a request that the fast path answers.
pub(super) struct RequestLog {
    pub(super) _open: Open,
    /// Time at which it began, if it is logged.
    pub(super) began: Option<Instant>,
    pub(super) client: Option<IpAddr>,
    /// The target, if it is logged.
    pub(super) target: Option<Box<str>>,
    pub(super) keep: bool,
    /// The method.
    pub(super) method: &'static str,
}

impl RequestLog {
    pub(super) fn log(
        &self,
        settings: &Settings,
        answer: Option<(u16, usize)>,
        held: Option<(Duration, Cause)>,
        events: Option<u64>,
    ) {
        let Some(target) = &self.target else { return };
        // Status 0: the client got no answer.
        let (status, bytes) = answer.unwrap_or_default();
        let line = access_log::Line {
            client: self.client,
            method: self.method,
            target,
            status,
            bytes,
            took: self.began.map_or(Duration::ZERO, |began| began.elapsed()),
            held,
            events,
        };
        access_log::log(&line, &settings.mask);
    }
}

/// Answers a request with `reply`, regardless of its kind.
pub(super) fn reject(
    front: &Front,
    settings: &Settings,
    head: &Head<'_>,
    client: Option<IpAddr>,
    mut reply: Reply,
) -> (Reply, RequestLog) {
    if head.method == "HEAD" {
        reply.body = Bytes::new();
    }
    if access_log::is_logged() {
        let (method, target, status) = (head.method, head.target, reply.status);
        let (bytes, took) = (reply.body.len(), Duration::ZERO);
        let (held, events) = (None, None);
        let line = access_log::Line { client, method, target, status, bytes, took, held, events };
        access_log::log(&line, &settings.mask);
    }
    // The fast path does not wait for a body that was announced.
    let keep = head.keep && head.framing.is_over();
    let log = RequestLog {
        _open: front.gate.open(),
        began: None,
        client,
        target: None,
        keep,
        method: "GET",
    };
    (reply, log)
}
