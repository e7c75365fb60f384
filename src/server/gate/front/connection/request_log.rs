//! Record of a request that the fast path answers, and its line in the access log.

use super::Action;
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
}

impl RequestLog {
    pub(super) fn log(
        &self,
        settings: &Settings,
        reply: Option<&Reply>,
        held: Option<(Duration, Cause)>,
    ) {
        let Some(target) = &self.target else { return };
        let line = access_log::Line {
            client: self.client,
            method: "GET",
            target,
            status: reply.map_or(0, |reply| reply.status),
            bytes: reply.map_or(0, |reply| reply.body.len()),
            took: self.began.map_or(Duration::ZERO, |began| began.elapsed()),
            held,
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
) -> (Action, RequestLog) {
    if head.method == "HEAD" {
        reply.body = Bytes::new();
    }
    if access_log::is_logged() {
        let (method, target, status) = (head.method, head.target, reply.status);
        let (bytes, took, held) = (reply.body.len(), Duration::ZERO, None);
        let line = access_log::Line { client, method, target, status, bytes, took, held };
        access_log::log(&line, &settings.mask);
    }
    // The fast path does not wait for a body that was announced.
    let keep = head.keep && head.framing.is_over();
    let _open = front.gate.open();
    (Action::Answer(reply, None), RequestLog { _open, began: None, client, target: None, keep })
}
