//! A held poll, from the decision to hold it to its response.

use super::hold::{self, Cause};
use super::replies::finished;
use crate::hub::channel::{ChannelName, Cursor, Take, Time};
use crate::hub::{Answer, Subscription, Waiter};
use crate::protocol::auth::Rejection;
use crate::protocol::http::Reply;
use crate::server::gate::grant::GrantGuard;
use crate::server::gate::presence::Memberships;
use crate::server::gate::route::Rule;
use crate::server::gate::{Gate, Shared, Timer};
use crate::server::limits::permit::Permit;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
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

/// The outcome of a hold.
pub struct HoldOutcome {
    /// The cause that ended it.
    pub cause: Cause,
    /// Time it was held.
    pub held: Duration,
    /// The response; `None` if the client is gone.
    pub reply: Option<Reply>,
    /// Publish time of the oldest message in it, if there is one.
    pub published: Option<Time>,
}

impl HeldPoll {
    /// Holds the poll until it can be answered or `gone` ends. Dropping the future ends the hold.
    ///
    /// Everything stays in the box meanwhile: the size of this future is the cost of a held poll.
    pub async fn wait(
        mut self: Box<Self>,
        timer: &mut Timer,
        gone: Pin<&mut impl Future<Output = ()>>,
    ) -> HoldOutcome {
        let clock = self.gate.shared.clock;
        let left = self.leave.as_ref().and_then(|leave| leave.left(clock()));
        timer.set_from(self.began, hold::shorter(self.duration, left));
        let leave = self.leave.as_ref();
        let (cause, answer) = hold::hold(&mut self.waiter, leave, timer, clock, gone).await;
        let quiet = matches!(cause, Cause::Timeout | Cause::Drain);
        let answer = answer.map(|answer| match quiet {
            true => self.gate.quiet_answer(&self.rule, answer),
            false => answer,
        });
        let held = self.began.elapsed();
        let Shared { counters, metrics, .. } = &*self.gate.shared;
        counters.release(cause, answer.as_ref(), &metrics.watched);
        counters.hold.observe(held);
        let published = answer.as_ref().and_then(oldest);
        let ended = self.leave.as_ref().and_then(|leave| leave.check(clock()).err());
        if ended == Some(Rejection::Revoked) {
            self.present.revoke();
        }
        let denial = ended.filter(|_| cause == Cause::Expired).map(|denied| denied.reply());
        let callback = self.callback.as_deref();
        let rendered = match (answer, &self.rosters) {
            (Some(answer), Some(channels)) => {
                let answer = (&answer, callback);
                // Boxed, as it is not there while the poll is held.
                let reply = self.gate.render_with_presence(&self.rule, answer, channels);
                Some(Box::pin(reply).await)
            }
            (answer, _) => answer.map(|answer| self.rule.dialect.render_held(&answer, callback)),
        };
        let reply = rendered.or(denial);
        let reply = reply.map(|reply| finished(reply, &self.rule, self.origin.as_deref()));
        HoldOutcome { cause, held, reply, published }
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
