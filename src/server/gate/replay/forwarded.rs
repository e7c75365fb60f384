//! A poll that is the site's by now: what the site is asked, and what its answer means to others.

use super::recent_requests;
use super::single_flight::Leader;
use crate::hub::channel::Position;
use crate::protocol::dialect::Dialect;
use crate::protocol::http::Reply;
use crate::server::gate::Gate;
use crate::server::gate::poll::hold::Cause;
use crate::server::gate::poll::replies::finished;
use crate::server::gate::route::Rule;
use bytes::Bytes;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;

/// A poll on its way to the site. Dropping it gives its turn to the next.
pub(in crate::server::gate) struct ReleasedReplay {
    pub(super) gate: Gate,
    pub(super) rule: Arc<Rule>,
    pub(super) origin: Option<Box<str>>,
    pub(super) request: recent_requests::Id,
    pub(super) position: Option<Position>,
    pub(super) lead: Option<Leader>,
    pub(super) turn: Option<OwnedSemaphorePermit>,
    /// The site has answered, and not with a failure of its own.
    pub(super) is_good: bool,
    /// When its head was there.
    pub(in crate::server::gate) began: Instant,
    /// How long it was held, and why no longer.
    pub(in crate::server::gate) held: (Duration, Cause),
}

impl ReleasedReplay {
    /// Makes the request as the site is to get it.
    pub(in crate::server::gate) fn prepare(&self, upstream: &mut RequestHeader) -> Result<()> {
        if let Dialect::Replay(replay) = &self.rule.dialect
            && replay.add_query.is_some()
        {
            let target = replay.target(upstream.raw_path());
            upstream.set_raw_path(&target)?;
        }
        if self.lead.is_some() {
            // What one of them has already is no answer for the others.
            for name in ["if-none-match", "if-modified-since", "if-range", "range"] {
                upstream.remove_header(name);
            }
        }
        Ok(())
    }

    /// The head of the site's answer, on its way to the client.
    pub(in crate::server::gate) fn head(&mut self, head: &mut ResponseHeader) -> Result<()> {
        if head.status.is_informational() {
            return Ok(());
        }
        let reply = finished(Reply::new(200, "", ""), &self.rule, self.origin.as_deref());
        for (name, value) in &reply.headers {
            // What the site says itself counts.
            if head.headers.get(&**name).is_none() {
                head.insert_header(name.clone().into_owned(), &**value)?;
            }
        }
        self.is_good = !head.status.is_server_error();
        if let Some(lead) = &mut self.lead {
            lead.head(head);
        }
        Ok(())
    }

    /// A piece of its body; with the last one the site has done its work.
    pub(in crate::server::gate) fn body(&mut self, piece: Option<&Bytes>, last: bool) {
        if let (Some(lead), Some(piece)) = (&mut self.lead, piece) {
            lead.body(piece);
        }
        if last {
            self.answered();
        }
    }

    /// The site has said all that it has to say, whether with a body or without.
    pub(in crate::server::gate) fn answered(&mut self) {
        self.turn = None;
        self.complete();
        // Before the client has it, as its next poll may be here at once.
        if self.is_good {
            self.gate.note(self.request, self.position);
        }
    }

    /// The site did not answer: nobody else is to count on this poll.
    pub(in crate::server::gate) fn failed(&mut self) {
        if let Some(lead) = self.lead.take() {
            lead.fail();
        }
    }

    fn complete(&mut self) {
        if let Some(lead) = self.lead.take() {
            lead.complete();
        }
    }
}
