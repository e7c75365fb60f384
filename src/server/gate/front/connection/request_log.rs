//! Record of a request that the fast path answers, and its line in the access log.

use super::Disposition;
use super::exchange::Unwritten;
use crate::protocol::http::Reply;
use crate::server::gate::front::Front;
use crate::server::gate::front::head::Head;
use crate::server::gate::poll::hold::Cause;
use crate::server::gate::{Open, Settings, access_log};
use bytes::Bytes;
use std::borrow::Cow;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Record of a request that the fast path answers or forwards.
pub(super) struct RequestLog {
    pub(super) _open: Open,
    /// Time at which it began, if it is logged.
    pub(super) began: Option<Instant>,
    pub(super) client: Option<IpAddr>,
    pub(super) method: Cow<'static, str>,
    /// The target, if it may be logged.
    pub(super) target: Option<Box<str>>,
    pub(super) keep: bool,
}

impl RequestLog {
    /// Logs the end of a request with the answer that was written, and whether it was held and how
    /// many events it had; what becomes of the connection, which is kept or not.
    pub(super) fn end(
        &self,
        settings: &Settings,
        answer: Result<Option<(u16, usize)>, Unwritten>,
        (held, events): (Option<(Duration, Cause)>, Option<u64>),
        keep: bool,
    ) -> Disposition {
        let written = answer.ok().flatten();
        self.log(settings, written, held, events);
        if written.is_some() && keep { Disposition::Keep } else { Disposition::Close }
    }

    pub(super) fn log(
        &self,
        settings: &Settings,
        answer: Option<(u16, usize)>,
        held: Option<(Duration, Cause)>,
        events: Option<u64>,
    ) {
        let (Some(target), Some(began)) = (&self.target, self.began) else { return };
        // Status 0: the client got no answer.
        let (status, bytes) = answer.unwrap_or_default();
        let line = access_log::Line {
            client: self.client,
            method: &self.method,
            target,
            status,
            bytes,
            took: began.elapsed(),
            held,
            events,
        };
        access_log::log(&line, settings);
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
        let method = head.method;
        let target = head.target;
        let status = reply.status;
        let bytes = reply.body.len();
        let took = Duration::ZERO;
        let held = None;
        let events = None;
        let line = access_log::Line { client, method, target, status, bytes, took, held, events };
        access_log::log(&line, settings);
    }
    // The fast path does not wait for a body that was announced.
    let keep = head.keep && head.framing.is_over();
    let log = RequestLog {
        _open: front.gate.open(),
        began: None,
        client,
        method: Cow::Borrowed(""),
        target: None,
        keep,
    };
    (reply, log)
}
