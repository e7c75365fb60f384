//! Polls that the upstream answers itself: they are held here, and then forwarded as they came.
//!
//! A held one costs what any held poll does, and nothing at the upstream. Once released, it gets a
//! slot ([`UpstreamSlots`]), so that a publish to many clients is no stampede; if the upstream's
//! response is the same for all, one of them fetches it for the others ([`SingleFlight`]). A poll
//! whose client leaves while it is held or waits for its slot is never forwarded: dropping the
//! future releases all of it.
//!
//! Such a client never sends its position. So nothing is lost only because a poll within
//! `slack` of a publish is forwarded too; see [`RecentRequests`] for what keeps that from going in
//! circles.

mod forwarded;
mod recent_requests;
mod shared_cache;
mod single_flight;
mod slots;

use super::grant::{Allowed, GrantGuard};
use super::poll::admission::{Admission, Purpose};
use super::poll::hold::{self, Cause};
use super::poll::replies::{finished, refusal};
use super::route::Rule;
use super::{Decision, Gate, Incoming, RETRY_AFTER, Settings, Timer};
use crate::hub::channel::{Cursor, Position, Time};
use crate::hub::{PollOutcome, TableFull, Waiter};
use crate::protocol::auth::Rejection;
use crate::protocol::dialect::replay::Replay;
use crate::protocol::dialect::{Dialect, Poll};
use crate::protocol::http::Reply;
use crate::server::limits::permit::Permit;
use crate::server::telemetry::refusal::Refusal;
pub(super) use forwarded::ReleasedReplay;
use recent_requests::RecentRequests;
use single_flight::{Join, Leader, Outcome, SingleFlight};
use slots::UpstreamSlots;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;

/// State that the gate keeps for all of them.
#[derive(Default)]
pub(super) struct Replays {
    turns: UpstreamSlots,
    flights: SingleFlight,
    asked: RecentRequests,
}

impl Replays {
    /// Closes the queues: a poll without a slot is not forwarded any more.
    pub(super) fn close(&self) {
        self.turns.close();
    }
}

/// A poll that waits for an update, for its slot, or for both.
pub struct HeldReplay {
    gate: Gate,
    rule: Arc<Rule>,
    /// Its registration; `None` = it is forwarded as soon as it has its slot.
    waiter: Option<Waiter>,
    /// The grant by which it is held.
    leave: Option<GrantGuard>,
    duration: Option<Duration>,
    cause: Cause,
    /// The channel's position when it was released.
    position: Option<Position>,
    request: recent_requests::Id,
    share: Option<shared_cache::Key>,
    origin: Option<Box<str>>,
    /// The longest time in the queue.
    patience: Duration,
    began: Instant,
    /// `None` = there was no room to hold it: it goes at once or not at all.
    permit: Option<Permit>,
}

/// The end of its wait.
pub(super) struct ReplayEnd {
    pub(super) cause: Cause,
    /// Time until it had its slot.
    pub(super) held: Duration,
    pub(super) end: ReplayOutcome,
}

/// The outcome of its wait.
pub(super) enum ReplayOutcome {
    /// It goes to the upstream.
    Forward(Box<ReleasedReplay>),
    /// It is answered here.
    Reply(Reply),
    /// Its client is gone.
    Gone,
}

/// The outcome of the wait for a slot.
enum SlotOutcome {
    Mine(OwnedSemaphorePermit, Option<Leader>),
    Answered(Reply),
    /// The gate shuts down, or there was no room to wait.
    Refused,
    /// Its grant has expired or was revoked.
    Rejection,
}

/// A request that the upstream answers, told from others.
pub(super) struct ReplayIdentity {
    request: recent_requests::Id,
    /// By which its answer is shared, if it is.
    share: Option<shared_cache::Key>,
}

impl Gate {
    /// Tells a request that `rule` has forwarded later from others.
    pub(super) fn replay_identity(
        &self,
        rule: &Rule,
        replay: &Replay,
        request: &Incoming<'_>,
        poll: &Poll,
    ) -> ReplayIdentity {
        let shared = replay.share && request.method != "HEAD";
        ReplayIdentity {
            request: self.shared.replays.asked.id(request, replay.share),
            share: shared.then(|| shared_cache::Key::of(rule, replay, request, poll)).flatten(),
        }
    }

    /// Decides on a poll that the upstream answers.
    pub(super) fn replay(
        &self,
        settings: &Settings,
        admission: Admission,
        allowed: Option<Allowed>,
    ) -> Decision {
        let (Dialect::Replay(replay), Purpose::Replay(identity)) =
            (&admission.rule.dialect, &admission.purpose)
        else {
            return Decision::Site;
        };
        let (head, id) = (admission.is_head, identity.request);
        let permit = self.admit(settings, &admission, allowed.as_ref());
        let now = (self.shared.clock)();
        let looked = self.look(&admission.poll, replay, id, permit.is_ok() && !head, now);
        let Look { waiter, position, news, repeated } = match looked {
            Ok(looked) => looked,
            Err(full) => {
                let full = (Refusal::TableFull, 503, full.to_string());
                return self.refuse_full(&admission, full);
            }
        };
        let permit = match permit {
            Err(full) if !news && !head && !self.is_draining() => {
                return self.refuse_full(&admission, full);
            }
            permit => permit.ok(),
        };
        let duration = settings.hold.duration(admission.rule.timeout, None);
        let duration = match repeated {
            true => recent_requests::pause(duration, replay.slack),
            false => duration,
        };
        let cause = match news {
            true => Cause::Message,
            false if self.is_draining() => Cause::Drain,
            false => Cause::Timeout,
        };
        let leave = allowed.zip(waiter.as_ref());
        let leave = leave.map(|(allowed, waiter)| self.shared.grants.take(allowed, waiter));
        let Admission { rule, origin, purpose, .. } = admission;
        let share = match purpose {
            Purpose::Replay(identity) => identity.share,
            Purpose::Hold | Purpose::Publish | Purpose::Stream(_) => None,
        };
        Decision::Replay(Box::new(HeldReplay {
            gate: self.clone(),
            rule,
            waiter,
            leave,
            duration,
            cause,
            position,
            request: id,
            share,
            origin,
            patience: settings.read_timeout,
            began: Instant::now(),
            permit,
        }))
    }

    /// Notes that a request was answered for a channel at `position`.
    fn note(&self, request: recent_requests::Id, position: Option<Position>) {
        if let Some(position) = position {
            self.shared.replays.asked.note(request, position);
        }
    }

    /// Checks if a poll has to wait.
    fn look(
        &self,
        poll: &Poll,
        replay: &Replay,
        id: recent_requests::Id,
        hold: bool,
        now: Time,
    ) -> Result<Look, TableFull> {
        let hub = &self.shared.hub;
        // A poll of this dialect is on one channel.
        let update = match hub.poll(&poll.subscriptions, poll.take, hold, now)? {
            PollOutcome::Waiting(waiter) => return Ok(Look::held(waiter, false)),
            PollOutcome::Answer(answer) => answer.into_iter().next(),
        };
        let news = update.as_ref().is_some_and(|update| update.found.news);
        let position = update.map(|update| update.found.position);
        let asked = || self.shared.replays.asked.at(id) == position;
        if let Some(position) = position
            && hold
            && news
            && !replay.slack.is_zero()
            && asked()
        {
            let mut again = poll.subscriptions.clone();
            again.iter_mut().for_each(|subscription| subscription.cursor = Cursor::At(position));
            if let PollOutcome::Waiting(waiter) = hub.poll(&again, poll.take, hold, now)? {
                return Ok(Look::held(waiter, true));
            }
        }
        Ok(Look { waiter: None, position, news, repeated: false })
    }
}

/// The result of that check.
struct Look {
    /// The registration of a poll to hold.
    waiter: Option<Waiter>,
    position: Option<Position>,
    /// Something was published that it may not have.
    news: bool,
    /// It was forwarded since then, so it is held for a moment only.
    repeated: bool,
}

impl Look {
    fn held(waiter: Waiter, repeated: bool) -> Self {
        let position = waiter.positions().next();
        Self { waiter: Some(waiter), position, news: false, repeated }
    }
}

impl HeldReplay {
    /// Holds the poll if it has to be held, and waits for its slot. Dropping the future, or the end
    /// of `gone`, ends both.
    pub(super) async fn wait(
        mut self: Box<Self>,
        timer: &mut Timer,
        mut gone: Pin<&mut impl Future<Output = ()>>,
    ) -> ReplayEnd {
        if let Some(waiter) = &mut self.waiter {
            let (clock, leave) = (self.gate.shared.clock, self.leave.as_ref());
            timer.set(hold::shorter(self.duration, leave.and_then(|leave| leave.left(clock()))));
            let (cause, answer) = hold::hold(waiter, leave, timer, clock, gone.as_mut()).await;
            self.cause = cause;
            if let Some(update) = answer.and_then(|answer| answer.into_iter().next()) {
                self.position = Some(update.found.position);
            }
            self.waiter = None;
        }
        let turn = match self.cause {
            Cause::Gone => None,
            Cause::Expired => Some(SlotOutcome::Rejection),
            _ => {
                timer.set(Some(self.patience));
                // Boxed, as it is not needed while the poll is held.
                let mut turn = Box::pin(self.turn());
                tokio::select! {
                    biased;
                    turn = &mut turn => Some(turn),
                    () = &mut gone => None,
                    () = poll_fn(|context| timer.poll_expired(context)) => Some(SlotOutcome::Refused),
                }
            }
        };
        self.end(turn)
    }

    /// Waits until the poll may go to the upstream, or another poll has fetched its response.
    async fn turn(&self) -> SlotOutcome {
        let replays = &self.gate.shared.replays;
        let Dialect::Replay(replay) = &self.rule.dialect else { return SlotOutcome::Refused };
        let turns = replays.turns.of(&self.rule, replay);
        if self.permit.is_none() {
            return turns
                .try_acquire_owned()
                .map_or(SlotOutcome::Refused, |turn| SlotOutcome::Mine(turn, None));
        }
        let mut lead = None;
        while let Some(key) = &self.share {
            match replays.flights.join(key, self.position, self.cause) {
                Join::Leader(leading) => {
                    lead = Some(leading);
                    break;
                }
                Join::Landed(reply) => return SlotOutcome::Answered(reply),
                Join::Follow(flight) => match flight.landing().await {
                    Outcome::Answer(reply) => return SlotOutcome::Answered(reply),
                    Outcome::EachAlone => break,
                    // The fetching poll's client has left; another poll takes over.
                    Outcome::Abandoned => {}
                },
            }
        }
        turns
            .acquire_owned()
            .await
            .map_or(SlotOutcome::Refused, |turn| SlotOutcome::Mine(turn, lead))
    }

    fn end(self: Box<Self>, turn: Option<SlotOutcome>) -> ReplayEnd {
        let cause = if turn.is_some() { self.cause } else { Cause::Gone };
        let (held, counters) = (self.began.elapsed(), &self.gate.shared.counters);
        counters.release(cause, None, &self.gate.shared.metrics.watched);
        counters.hold.observe(held);
        let end = match turn {
            None => ReplayOutcome::Gone,
            Some(SlotOutcome::Answered(reply)) => {
                self.gate.note(self.request, self.position);
                ReplayOutcome::Reply(reply)
            }
            Some(SlotOutcome::Rejection) => {
                let now = (self.gate.shared.clock)();
                let leave = self.leave.as_ref().map(|leave| leave.check(now));
                let denied = leave.and_then(Result::err).unwrap_or(Rejection::Expired);
                ReplayOutcome::Reply(finished(denied.reply(), &self.rule, self.origin.as_deref()))
            }
            Some(SlotOutcome::Refused) => {
                self.gate.refused(Refusal::SiteQueue);
                let error = "too many polls wait for the site";
                let reply = refusal(&self.rule, 503, error, "try again later");
                let reply = reply.with("Retry-After", RETRY_AFTER);
                ReplayOutcome::Reply(finished(reply, &self.rule, self.origin.as_deref()))
            }
            Some(SlotOutcome::Mine(turn, lead)) => {
                let Self { gate, rule, origin, request, position, began, .. } = *self;
                let (turn, held) = (Some(turn), (held, cause));
                let is_good = false;
                let released = ReleasedReplay {
                    gate,
                    rule,
                    origin,
                    request,
                    position,
                    lead,
                    turn,
                    is_good,
                    began,
                    held,
                };
                ReplayOutcome::Forward(Box::new(released))
            }
        };
        ReplayEnd { cause, held, end }
    }
}
