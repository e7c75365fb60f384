//! Requests that go from the fast path straight to the upstream.

use super::request_log::RequestLog;
use super::{Connection, Disposition};
use crate::protocol::http::Reply;
use crate::server::gate::counters::SiteFile;
use crate::server::gate::forward::{self, Forward, Lane, RequestParts, Room};
use crate::server::gate::front::head::Head;
use crate::server::gate::front::{Front, buffer_pool};
use crate::server::gate::grip::origin::Origin;
use crate::server::gate::grip::withheld::refuse;
use crate::server::gate::proxy::connection_state::next_group;
use crate::server::gate::proxy::error_page::page;
use crate::server::gate::proxy::forwarded::{Client, Way};
use crate::server::gate::{Decision, RETRY_AFTER, Settings};
use crate::server::telemetry::refusal::Refusal;
use bytes::{Buf, Bytes};
use pingora::server::ShutdownWatch;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

/// The end of a request at the upstream.
pub(super) enum Passed {
    /// It is served.
    Over(Disposition),
    /// The lane serves it from here on: the upstream has said to hold it.
    Own(Decision, RequestLog, Client),
}

impl Connection {
    /// The request of `head`, ready to be forwarded; `None` = it is pingora's, as are all requests
    /// of a client that signs in on its connection.
    pub(super) fn prepare(
        &self,
        front: &Front,
        settings: &Settings,
        head: &Head<'_>,
        way: &Way,
    ) -> Option<Box<Forward>> {
        if !head.current || self.group() != 0 {
            return None;
        }
        let request = RequestParts {
            method: head.method,
            target: head.target,
            headers: &head.headers,
            framing: &head.framing,
            socket: head.socket,
            grip: settings.grip.as_deref(),
        };
        front.forwarder.prepare(&request, settings.site_name(), way, head.keep)
    }

    /// The record of a request that is forwarded.
    pub(super) fn record(
        &self,
        front: &Front,
        head: &Head<'_>,
        client: &Client,
        logged: bool,
    ) -> RequestLog {
        RequestLog {
            _open: front.gate.open(),
            began: logged.then(Instant::now),
            client: client.address,
            method: match head.method {
                "GET" => Cow::Borrowed("GET"),
                "POST" => Cow::Borrowed("POST"),
                other => Cow::Owned(other.to_owned()),
            },
            target: Some(head.target.into()),
            keep: head.keep,
        }
    }

    /// Forwards the request whose head is the first `length` pending bytes.
    pub(super) async fn forward(
        &mut self,
        front: &Front,
        settings: &Arc<Settings>,
        length: usize,
        (forward, mut account): (Box<Forward>, RequestLog),
        shutdown: &ShutdownWatch,
    ) -> Passed {
        self.pending.advance(length);
        self.free_pending();
        let Some(file) = SiteFile::new(&front.gate) else {
            front.gate.refused(Refusal::FdLimit);
            let reply = page(503).with("Retry-After", RETRY_AFTER);
            return Passed::Over(self.give_up(settings, &account, reply).await);
        };
        let client = forward.client;
        let lane = Lane {
            stream: &mut self.stream,
            pending: &mut self.pending,
            timer: &mut self.timer,
            gate: &front.gate,
            settings,
            forwarder: &front.forwarder,
            shutdown,
            file,
            room: Room::OF_CONNECTION,
        };
        let outcome = forward::run(lane, forward).await;
        if outcome.signs_in {
            self.join_group(next_group());
        }
        if let Some(failure) = outcome.failure {
            let target = account.target.as_deref().unwrap_or("/");
            failure.report(&front.gate, settings, &account.method, target);
            if !outcome.begun && failure.status() > 0 {
                let reply = page(failure.status());
                return Passed::Over(self.give_up(settings, &account, reply).await);
            }
        }
        self.free_pending();
        if let Some((withheld, head)) = outcome.withheld {
            account.keep = outcome.keep;
            let origin = Origin::of_head(settings, &head).ok_or("the request has no head");
            let held = origin
                .map_err(str::to_owned)
                .and_then(|origin| withheld.hold(&front.gate, settings, origin, client.address));
            let decision = match held {
                Ok(held) => Decision::GripHold(held),
                Err(error) => Decision::Reply(refuse(&error), None),
            };
            return Passed::Own(decision, account, client);
        }
        let bytes = usize::try_from(outcome.bytes).unwrap_or(usize::MAX);
        account.log(settings, Some((outcome.status, bytes)), None, None);
        Passed::Over(if outcome.keep { Disposition::Keep } else { Disposition::Close })
    }

    /// Answers in place of the upstream, and closes: the rest of the request may be still to come.
    async fn give_up(
        &mut self,
        settings: &Settings,
        account: &RequestLog,
        mut reply: Reply,
    ) -> Disposition {
        if account.method == "HEAD" {
            reply.body = Bytes::new();
        }
        let written = self.write(&reply, false).await.ok();
        account.log(settings, written.map(|()| (reply.status, reply.body.len())), None, None);
        Disposition::Close
    }

    /// A connection that waits holds no empty buffer.
    fn free_pending(&mut self) {
        if self.pending.is_empty() {
            buffer_pool::put(std::mem::take(&mut self.pending));
        }
    }
}
