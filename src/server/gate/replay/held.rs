//! A poll that the upstream answers, between the decision to hold it and its way there.

use super::recent_requests::Ids;
use super::shared_cache;
use super::single_flight::{Join, Leader, Outcome};
use super::slots::{RuleSlots, Slot};
use super::{RETRY_AFTER, ReleasedReplay};
use crate::hub::channel::{ChannelName, Cursor, Position, Take};
use crate::hub::presence::Memberships;
use crate::hub::{PollOutcome, Subscription, Waiter};
use crate::protocol::auth::Rejection;
use crate::protocol::dialect::Dialect;
use crate::protocol::dialect::replay::Replay;
use crate::protocol::http::Reply;
use crate::server::gate::grant::{Allowed, GrantGuard};
use crate::server::gate::poll::hold::{self, Cause};
use crate::server::gate::poll::replies::{finished, refusal};
use crate::server::gate::route::Rule;
use crate::server::gate::{Gate, Timer};
use crate::server::limits::permit::Permit;
use crate::server::telemetry::refusal::Refusal;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A poll that waits for an update, for its slot, or for both.
pub struct HeldReplay {
    pub(super) gate: Gate,
    pub(super) rule: Arc<Rule>,
    pub(super) channel: ChannelName,
    /// Its registration; `None` = it is forwarded as soon as it has its slot.
    pub(super) waiter: Option<Waiter>,
    /// The grant by which it is held.
    pub(super) leave: Option<GrantGuard>,
    pub(super) _present: Memberships,
    /// The authorization by which it may be held again.
    pub(super) allowed: Option<Box<Allowed>>,
    /// Time of the next hold.
    pub(super) duration: Option<Duration>,
    /// Time after which a poll without an update is answered or forwarded.
    pub(super) timeout: Option<Duration>,
    pub(super) cause: Cause,
    /// The channel's position when it was released.
    pub(super) position: Option<Position>,
    pub(super) ids: Ids,
    pub(super) share: Option<shared_cache::Key>,
    pub(super) origin: Option<Box<str>>,
    /// The longest time in the queue, and of the upstream.
    pub(super) patience: Duration,
    pub(super) began: Instant,
    /// `None` = there was no room to hold it: it goes at once or not at all.
    pub(super) permit: Option<Permit>,
    /// It is a HEAD request, which is never held.
    pub(super) head: bool,
    /// It is held for a moment only, and then forwarded.
    pub(super) pausing: bool,
    /// Its hold is in the metrics.
    pub(super) counted: bool,
}

/// The end of its wait.
pub(in crate::server::gate) struct ReplayEnd {
    pub(in crate::server::gate) cause: Cause,
    /// Time until it had its slot.
    pub(in crate::server::gate) held: Duration,
    pub(in crate::server::gate) end: ReplayOutcome,
}

/// The outcome of its wait.
pub(in crate::server::gate) enum ReplayOutcome {
    /// It goes to the upstream.
    Forward(Box<ReleasedReplay>),
    /// It is answered here.
    Reply(Reply),
    /// Its client is gone.
    Gone,
}

/// The outcome of the wait for a slot.
enum SlotOutcome {
    Mine(Slot, Option<Leader>),
    Answered(Reply),
    /// The upstream has nothing for it, as another poll has found out.
    Quiet,
    /// The gate shuts down, or there was no room to wait.
    Refused,
    /// Its grant has expired or was revoked.
    Rejection,
}

/// The continuation after a hold without an update.
enum AtTimeout {
    Hold,
    Forward,
    Probe(Slot),
    Reply(Reply),
}

impl HeldReplay {
    /// Holds the poll where it has to wait, and then waits for its slot. Dropping it, or the end of
    /// `gone`, ends both.
    pub(in crate::server::gate) async fn wait(
        mut self: Box<Self>,
        timer: &mut Timer,
        mut gone: Pin<&mut impl Future<Output = ()>>,
    ) -> ReplayEnd {
        loop {
            if self.waiter.is_some() {
                self.hold(timer, gone.as_mut()).await;
            }
            let turn = match self.cause {
                Cause::Gone => None,
                Cause::Expired => Some(SlotOutcome::Rejection),
                _ => match self.at_timeout() {
                    AtTimeout::Hold => continue,
                    AtTimeout::Reply(reply) => Some(SlotOutcome::Answered(reply)),
                    AtTimeout::Probe(slot) => Some(SlotOutcome::Mine(slot, None)),
                    AtTimeout::Forward => {
                        timer.set(Some(self.patience));
                        // Boxed, as it is not needed while the poll is held.
                        let mut turn = Box::pin(self.turn());
                        tokio::select! {
                            biased;
                            turn = &mut turn => Some(turn),
                            () = &mut gone => None,
                            () = poll_fn(|context| timer.poll_expired(context)) => {
                                Some(SlotOutcome::Refused)
                            }
                        }
                    }
                },
            };
            match turn {
                Some(SlotOutcome::Quiet) => self.hold_on(),
                turn => return self.end(turn),
            }
        }
    }

    async fn hold(&mut self, timer: &mut Timer, gone: Pin<&mut impl Future<Output = ()>>) {
        let Some(waiter) = &mut self.waiter else { return };
        let clock = self.gate.shared.clock;
        let leave = self.leave.as_ref();
        timer.set(hold::shorter(self.duration, leave.and_then(|leave| leave.left(clock()))));
        let (cause, answer) = hold::hold(waiter, leave, timer, clock, gone).await;
        self.cause = cause;
        if let Some(update) = answer.and_then(|answer| answer.into_iter().next()) {
            self.position = Some(update.found.position);
        }
        self.waiter = None;
    }

    /// Decides about a poll that has come to its timeout, or that the shutdown has released.
    fn at_timeout(&mut self) -> AtTimeout {
        let pausing = std::mem::take(&mut self.pausing);
        let quiet = matches!(self.cause, Cause::Timeout | Cause::Drain);
        let Some(replay) = self.replay() else { return AtTimeout::Forward };
        if !quiet || pausing || self.head || self.permit.is_none() {
            return AtTimeout::Forward;
        }
        if let Some(reply) = replay.quiet_reply() {
            return AtTimeout::Reply(finished(reply, &self.rule, self.origin.as_deref()));
        }
        let Some(max_wait) = replay.max_wait.filter(|_| self.cause == Cause::Timeout) else {
            return AtTimeout::Forward;
        };
        // A script that waits by itself is asked only whether the client has missed something.
        self.duration = if self.is_quiet() {
            None
        } else if let Some(slot) = self.slots(replay).try_probe() {
            return AtTimeout::Probe(slot);
        } else {
            Some(max_wait)
        };
        self.register();
        AtTimeout::Hold
    }

    /// Holds the poll on for which the upstream has nothing.
    pub(super) fn hold_on(&mut self) {
        let answers = self.replay().is_some_and(|replay| replay.on_timeout.is_some());
        let left = self.timeout.map(|timeout| timeout.saturating_sub(self.began.elapsed()));
        self.duration = left.filter(|_| answers);
        self.register();
    }

    /// Registers the poll from its position on.
    fn register(&mut self) {
        let shared = &self.gate.shared;
        let replay = self.replay();
        let slack = replay.map_or(Duration::ZERO, |replay| replay.slack);
        let cursor = self.position.map_or(Cursor::Recent(slack), Cursor::At);
        let subscription = Subscription { channel: self.channel.clone(), cursor };
        let polled = shared.hub.poll(&[subscription], Take::Newest, true, (shared.clock)());
        let (waiter, answer) = match polled {
            Ok(PollOutcome::Waiting(waiter)) => (Some(waiter), None),
            Ok(PollOutcome::Answer(answer)) => (None, answer.into_iter().next()),
            Err(_) => (None, None),
        };
        let allowed = self.allowed.as_deref().cloned().zip(waiter.as_ref());
        self.leave = allowed.map(|(allowed, waiter)| shared.grants.take(allowed, waiter));
        if waiter.is_none() {
            let has_update = answer.as_ref().is_some_and(|update| update.found.has_update);
            self.cause = if has_update { Cause::Message } else { Cause::Drain };
            self.position = answer.map(|update| update.found.position).or(self.position);
        }
        self.waiter = waiter;
    }

    /// The upstream held the poll for longer than it may: holds it on here. Its script may still
    /// be at work, so its slot stays taken.
    pub(super) fn cut_off(&mut self, slot: Option<Slot>) {
        self.park(slot);
        let replays = &self.gate.shared.replays;
        if let Some(position) = self.position {
            replays.asked.note_quiet(self.ids, position);
            replays.cut.notify_waiters();
        }
        self.cause = Cause::Timeout;
        self.hold_on();
    }

    /// Keeps a slot taken whose script may still be at work.
    pub(super) fn park(&self, slot: Option<Slot>) {
        let waits = self.replay().filter(|replay| replay.max_wait.is_some());
        if let (Some(replay), Some(slot), Some(position)) = (waits, slot, self.position) {
            self.slots(replay).park(slot, self.channel.clone(), position, self.patience);
        }
    }

    /// True if it can be cut off and held on.
    pub(super) fn can_hold_on(&self) -> bool {
        !self.head && self.permit.is_some()
    }

    pub(super) fn replay(&self) -> Option<&Replay> {
        match &self.rule.dialect {
            Dialect::Replay(replay) => Some(replay),
            _ => None,
        }
    }

    fn slots(&self, replay: &Replay) -> RuleSlots {
        let shared = &self.gate.shared;
        shared.replays.turns.of(&self.rule, (replay, &self.channel), &shared.hub, (shared.clock)())
    }

    fn is_quiet(&self) -> bool {
        self.gate.is_quiet(self.ids, &self.channel, (self.gate.shared.clock)())
    }

    /// Waits until the poll may go to the upstream, or another poll has fetched its response.
    async fn turn(&self) -> SlotOutcome {
        let replays = &self.gate.shared.replays;
        let Some(replay) = self.replay() else { return SlotOutcome::Refused };
        let slots = self.slots(replay);
        if self.permit.is_none() {
            let slot = slots.try_take();
            return slot.map_or(SlotOutcome::Refused, |slot| SlotOutcome::Mine(slot, None));
        }
        // A shutdown holds nothing on.
        let quiet =
            if self.cause == Cause::Drain { SlotOutcome::Refused } else { SlotOutcome::Quiet };
        let is_quiet = || replay.max_wait.is_some() && !self.head && self.is_quiet();
        let mut lead = None;
        while let Some(key) = &self.share {
            if is_quiet() {
                return quiet;
            }
            match replays.flights.join(key, self.position, self.cause) {
                Join::Leader(leading) => {
                    lead = Some(leading);
                    break;
                }
                Join::Landed(reply) => return SlotOutcome::Answered(reply),
                Join::Follow(flight) => match flight.landing().await {
                    Outcome::Answer(reply) => return SlotOutcome::Answered(reply),
                    Outcome::EachAlone => break,
                    Outcome::Quiet => return quiet,
                    // The fetching poll's client has left; another poll takes over.
                    Outcome::Abandoned => {}
                },
            }
        }
        let mut slot = pin!(slots.take());
        loop {
            let mut cut = pin!(replays.cut.notified());
            // Before the look, so that none is missed.
            cut.as_mut().enable();
            if is_quiet() {
                if let Some(lead) = lead {
                    lead.quiet();
                }
                return quiet;
            }
            tokio::select! {
                biased;
                slot = &mut slot => {
                    return slot.map_or(SlotOutcome::Refused, |slot| SlotOutcome::Mine(slot, lead));
                }
                () = cut => {}
            }
        }
    }

    fn end(mut self: Box<Self>, turn: Option<SlotOutcome>) -> ReplayEnd {
        let cause = if turn.is_some() { self.cause } else { Cause::Gone };
        let held = self.began.elapsed();
        if !std::mem::replace(&mut self.counted, true) {
            let counters = &self.gate.shared.counters;
            counters.release(cause, None, &self.gate.shared.metrics.watched);
            counters.hold.observe(held);
        }
        let end = match turn {
            None => ReplayOutcome::Gone,
            Some(SlotOutcome::Answered(reply)) => {
                // The upstream's own, which this client has now; a constant says nothing.
                if self.share.is_some() && self.cause != Cause::Timeout {
                    self.gate.note(self.ids, self.position);
                }
                ReplayOutcome::Reply(reply)
            }
            Some(SlotOutcome::Rejection) => {
                let now = (self.gate.shared.clock)();
                let leave = self.leave.as_ref().map(|leave| leave.check(now));
                let denied = leave.and_then(Result::err).unwrap_or(Rejection::Expired);
                ReplayOutcome::Reply(finished(denied.reply(), &self.rule, self.origin.as_deref()))
            }
            Some(SlotOutcome::Refused | SlotOutcome::Quiet) => {
                self.gate.refused(Refusal::SiteQueue);
                let error = "too many polls wait for the site";
                let reply = refusal(&self.rule, 503, error, "try again later");
                let reply = reply.with("Retry-After", RETRY_AFTER);
                ReplayOutcome::Reply(finished(reply, &self.rule, self.origin.as_deref()))
            }
            Some(SlotOutcome::Mine(slot, lead)) => {
                self.leave = None;
                if self.replay().is_none_or(|it| it.max_wait.is_none()) {
                    self.permit = None;
                }
                ReplayOutcome::Forward(Box::new(ReleasedReplay::new(self, slot, lead, held)))
            }
        };
        ReplayEnd { cause, held, end }
    }
}

impl Gate {
    /// Notes that a poll was answered whose channel was at `position`.
    pub(super) fn note(&self, ids: Ids, position: Option<Position>) {
        if let Some(position) = position {
            self.shared.replays.asked.note(ids, position);
        }
    }
}
