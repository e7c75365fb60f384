//! A poll that has been forwarded to the upstream: the request as it is sent, and the effect of its
//! response on other polls.

use super::held::HeldReplay;
use super::shared_cache::may_share;
use super::single_flight::Leader;
use super::slots::Slot;
use crate::protocol::http::Reply;
use crate::server::gate::poll::hold::Cause;
use crate::server::gate::poll::replies::finished;
use bytes::Bytes;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The longest time for which the body of a response keeps its slot.
const SLOT_GRACE: Duration = Duration::from_secs(5);

/// A poll on its way to the upstream. Dropping it gives its slot to the next.
pub(in crate::server::gate) struct ReleasedReplay {
    poll: Box<HeldReplay>,
    lead: Option<Leader>,
    slot: Option<Slot>,
    /// Dropped when the upstream's response is here: from its head on, that frees the slot.
    receiving: Option<oneshot::Sender<()>>,
    /// The head of the response has come.
    is_begun: bool,
    /// The upstream has answered, and not with a failure of its own.
    is_good: bool,
    /// Time at which its head was there.
    pub(in crate::server::gate) began: Instant,
    /// Time it was held, and the cause that ended the hold.
    pub(in crate::server::gate) held: (Duration, Cause),
}

impl ReleasedReplay {
    pub(super) fn new(
        poll: Box<HeldReplay>,
        slot: Slot,
        lead: Option<Leader>,
        held: Duration,
    ) -> Self {
        let began = poll.began;
        let held = (held, poll.cause);
        let slot = Some(slot);
        let receiving = None;
        Self { poll, lead, slot, receiving, is_begun: false, is_good: false, began, held }
    }

    /// Longest time that the upstream may take to begin its response, after which the poll is held
    /// on; `None` = that is not for this poll.
    pub(in crate::server::gate) fn max_wait(&self) -> Option<Duration> {
        self.poll.replay()?.max_wait.filter(|_| self.poll.can_hold_on())
    }

    /// The poll that was cut off at the upstream, to be held on.
    pub(in crate::server::gate) fn cut_off(mut self) -> Box<HeldReplay> {
        if let Some(lead) = self.lead.take() {
            lead.quiet();
        }
        self.poll.cut_off(self.slot.take());
        self.poll
    }

    /// The client left before there was a response; the script may still be at work.
    pub(in crate::server::gate) fn left(&mut self) {
        let slot = self.slot.take();
        if !self.is_begun {
            self.poll.park(slot);
        }
    }

    /// Prepares the request for the upstream.
    pub(in crate::server::gate) fn prepare(&self, upstream: &mut RequestHeader) -> Result<()> {
        if let Some(replay) = self.poll.replay()
            && replay.add_query.is_some()
        {
            let target = replay.target(upstream.raw_path());
            upstream.set_raw_path(&target)?;
        }
        if self.lead.is_some() {
            // A part that one client has cached already is no response for the others.
            for name in ["if-none-match", "if-modified-since", "if-range", "range"] {
                upstream.remove_header(name);
            }
        }
        Ok(())
    }

    /// The head of the upstream's response, on its way to the client.
    pub(in crate::server::gate) fn head(&mut self, head: &mut ResponseHeader) -> Result<()> {
        if head.status.is_informational() {
            return Ok(());
        }
        let shared = may_share(&head.headers);
        let reply = self.finished(Reply::new(200, "", ""));
        for (name, value) in &reply.headers {
            // A header of the upstream itself takes precedence.
            if head.headers.get(&**name).is_none() {
                head.insert_header(name.clone().into_owned(), &**value)?;
            }
        }
        self.is_begun = true;
        self.is_good = !head.status.is_server_error();
        if let Some(slot) = self.slot.take() {
            let (done, received) = oneshot::channel();
            self.receiving = Some(done);
            // A client that reads slowly does not keep others from the upstream.
            tokio::spawn(async move {
                let _ = timeout(SLOT_GRACE, received).await;
                drop(slot);
            });
        }
        if let Some(lead) = &mut self.lead {
            lead.head(head, shared);
        }
        Ok(())
    }

    /// `reply` in place of the upstream's response, with the headers of the rule's responses.
    pub(in crate::server::gate) fn finished(&self, reply: Reply) -> Reply {
        finished(reply, &self.poll.rule, self.poll.origin.as_deref())
    }

    /// A piece of its body; with the last one the response is complete.
    pub(in crate::server::gate) fn body(&mut self, piece: Option<&Bytes>, last: bool) {
        if let (Some(lead), Some(piece)) = (&mut self.lead, piece) {
            lead.body(piece);
        }
        if last {
            self.answered();
        }
    }

    /// The upstream's response is complete here; the client may be slow to read it.
    pub(in crate::server::gate) fn received(&mut self) {
        self.receiving = None;
    }

    /// The upstream's response is complete, with or without a body.
    pub(in crate::server::gate) fn answered(&mut self) {
        self.slot = None;
        self.receiving = None;
        self.complete();
        // Before the client has it, as its next poll may be here at once.
        if self.is_good {
            self.poll.gate.note(self.poll.ids, self.poll.position);
        }
    }

    /// The upstream did not answer: no other poll may count on this one.
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
