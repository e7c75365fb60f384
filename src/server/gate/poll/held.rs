//! A held poll, from the decision to hold it to its response.

use super::hold::{self, Cause, HoldEnd};
use super::replies::finished;
use crate::hub::channel::{ChannelName, Cursor, Take, Time};
use crate::hub::presence::{Known, Memberships};
use crate::hub::{Answer, Subscription, Waiter};
use crate::protocol::auth::Rejection;
use crate::protocol::http::Reply;
use crate::server::gate::grant::GrantGuard;
use crate::server::gate::route::Rule;
use crate::server::gate::serve::Exchange;
use crate::server::gate::{Gate, Settings, Shared, Timer};
use crate::server::limits::body_memory::BodyShare;
use crate::server::limits::permit::Permit;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// A poll to hold.
pub struct HeldPoll {
    pub(in crate::server::gate) gate: Gate,
    pub(in crate::server::gate) rule: Arc<Rule>,
    pub(in crate::server::gate) waiter: Waiter,
    pub(in crate::server::gate) duration: Option<Duration>,
    pub(in crate::server::gate) callback: Option<Box<str>>,
    pub(in crate::server::gate) origin: Option<Box<str>>,
    pub(in crate::server::gate) began: Instant,
    pub(in crate::server::gate) leave: Option<GrantGuard>,
    pub(in crate::server::gate) present: Memberships,
    /// The channels whose users stand in the answer.
    pub(in crate::server::gate) rosters: Option<Box<[ChannelName]>>,
    pub(in crate::server::gate) _permit: Permit,
}

/// The outcome of a hold, or of a poll that was answered at once.
#[derive(Default)]
pub struct HoldOutcome {
    /// Time it was held, and the cause that ended that; `None` = it was no poll.
    pub held: Option<(Duration, Cause)>,
    /// The response; `None` if the client is gone.
    pub reply: Option<Reply>,
    /// The room that the response takes until it is written.
    pub share: Option<BodyShare>,
    /// Publish time of the oldest message in it, if there is one.
    pub published: Option<Time>,
}

impl HeldPoll {
    /// Sets the timer to the end of the hold.
    pub(in crate::server::gate) fn set(&self, timer: &mut Timer) {
        let clock = self.gate.shared.clock;
        let left = self.leave.as_ref().and_then(|leave| leave.left(clock()));
        timer.set_from(self.began, hold::shorter(self.duration, left));
    }

    /// Ready once the poll can be answered, or the client of `exchange` is gone. The task that asks
    /// keeps nothing for it but the box.
    pub(in crate::server::gate) fn poll_end(
        &mut self,
        exchange: &mut impl Exchange,
        context: &mut Context<'_>,
    ) -> Poll<HoldEnd> {
        let clock = self.gate.shared.clock;
        hold::poll_hold(&mut self.waiter, self.leave.as_ref(), clock, exchange, context)
    }

    /// The memberships by which its client enters again.
    pub(in crate::server::gate) fn known(&self) -> Option<&Known> {
        self.present.known()
    }

    /// True if the answer shows who is on its channels.
    pub(in crate::server::gate) fn wants_presence(&self) -> bool {
        self.rosters.is_some()
    }

    /// The outcome of a hold that ended with `answer`.
    pub(in crate::server::gate) fn end(
        mut self: Box<Self>,
        settings: &Settings,
        end: HoldEnd,
    ) -> HoldOutcome {
        let mut ended = self.ended(end);
        let Some(answer) = ended.answer.take() else { return ended.outcome };
        let found = Found {
            rule: &self.rule,
            answer: &answer,
            callback: self.callback.as_deref(),
            origin: self.origin.as_deref(),
            was_held: true,
        };
        let outcome = &mut ended.outcome;
        match found.render(settings) {
            Ok((reply, share)) => (outcome.reply, outcome.share) = (Some(reply), share),
            Err(full) => (outcome.reply, outcome.published) = (Some(full), None),
        }
        ended.outcome
    }

    /// The same for a poll that wants to know who is on its channels.
    pub(in crate::server::gate) async fn end_with_presence(
        mut self: Box<Self>,
        end: HoldEnd,
    ) -> HoldOutcome {
        let mut ended = self.ended(end);
        if let (Some(answer), Some(channels)) = (ended.answer.take(), &self.rosters) {
            let answer = (&answer, self.callback.as_deref());
            let reply = self.gate.render_with_presence(&self.rule, answer, channels).await;
            ended.outcome.reply = Some(finished(reply, &self.rule, self.origin.as_deref()));
        }
        ended.outcome
    }

    /// Counts the end of a hold.
    fn ended(&mut self, (cause, answer): HoldEnd) -> Ended {
        let quiet = matches!(cause, Cause::Timeout | Cause::Drain);
        let answer = answer.map(|answer| match quiet {
            true => self.gate.quiet_answer(&self.rule, answer),
            false => answer,
        });
        let held = self.began.elapsed();
        let Shared { counters, metrics, clock, .. } = &*self.gate.shared;
        counters.release(cause, answer.as_ref(), &metrics.watched);
        counters.hold.observe(held);
        let published = answer.as_ref().and_then(oldest);
        let ended = self.leave.as_ref().and_then(|leave| leave.check(clock()).err());
        if ended == Some(Rejection::Revoked) {
            self.present.revoke();
        }
        // One that is denied has no answer of its channels.
        let denial = ended.filter(|_| cause == Cause::Expired).map(|denied| denied.reply());
        let reply = denial.map(|reply| finished(reply, &self.rule, self.origin.as_deref()));
        let held = Some((held, cause));
        Ended { outcome: HoldOutcome { held, reply, share: None, published }, answer }
    }
}

/// A hold that has ended, and the answer that is still to be rendered.
struct Ended {
    outcome: HoldOutcome,
    answer: Option<Answer>,
}

/// The answer to a poll before it is rendered.
pub(super) struct Found<'a> {
    pub(super) rule: &'a Rule,
    pub(super) answer: &'a Answer,
    pub(super) callback: Option<&'a str>,
    pub(super) origin: Option<&'a str>,
    /// The poll was held until now.
    pub(super) was_held: bool,
}

impl Found<'_> {
    /// The response and the room that it takes; the error is the response where there is none. A
    /// client that asks again and again while others do not read costs no rendering.
    pub(super) fn render(&self, settings: &Settings) -> Result<(Reply, Option<BodyShare>), Reply> {
        let Self { rule, answer, callback, origin, was_held } = *self;
        let least = rule.dialect.least_length(answer, callback);
        let rendered = settings.rendered(least, || match was_held {
            true => rule.dialect.render_held(answer, callback),
            false => rule.dialect.render(answer, callback),
        });
        match rendered {
            Ok((reply, share)) => Ok((finished(reply, rule, origin), share)),
            Err(full) => Err(finished(full, rule, origin)),
        }
    }
}

/// A long answer to a poll that is not held; it is rendered when it is written.
pub struct PendingAnswer {
    pub(super) rule: Arc<Rule>,
    pub(super) answer: Answer,
    pub(super) callback: Option<Box<str>>,
    pub(super) origin: Option<Box<str>>,
    pub(super) cause: Cause,
}

impl PendingAnswer {
    /// The response, or the one in its place.
    pub(in crate::server::gate) fn outcome(&self, settings: &Settings) -> HoldOutcome {
        let found = Found {
            rule: &self.rule,
            answer: &self.answer,
            callback: self.callback.as_deref(),
            origin: self.origin.as_deref(),
            was_held: false,
        };
        let (reply, share) = match found.render(settings) {
            Ok(rendered) => rendered,
            Err(full) => (full, None),
        };
        let held = Some((Duration::ZERO, self.cause));
        HoldOutcome { held, reply: Some(reply), share, published: None }
    }
}

impl Gate {
    /// The answer to a poll for which `quiet` is no update: the channel's newest message once more,
    /// if the rule says so.
    pub(super) fn quiet_answer(&self, rule: &Rule, quiet: Answer) -> Answer {
        let (true, [update]) = (rule.dialect.repeats_latest(), quiet.as_slice()) else {
            return quiet;
        };
        let hub = &self.shared.hub;
        let now = (self.shared.clock)();
        let look = |cursor, take| {
            let channel = update.channel.clone();
            hub.look(&[Subscription { channel, cursor }], take, now).ok()
        };
        let position = update.found.position;
        let here = |answer: &Answer| answer.iter().all(|other| other.found.position == position);
        match look(Cursor::Latest, Take::Newest) {
            Some(latest) if here(&latest) => latest,
            // Something was published this moment, and none of it may be skipped.
            Some(_) => look(Cursor::At(position), Take::First).unwrap_or(quiet),
            None => quiet,
        }
    }
}

/// Publish time of the oldest message of an answer.
fn oldest(answer: &Answer) -> Option<Time> {
    let messages = answer.iter().filter_map(|update| update.found.messages.first());
    messages.map(|message| message.published).min()
}
