//! An admitted poll's look into the hub: it is answered at once, or held.

use super::admission::{Admission, Decision, Purpose};
use super::held::PendingAnswer;
use super::hold::Cause;
use super::replies::{finished, refusal};
use crate::hub::channel::ChannelName;
use crate::hub::presence::Memberships;
use crate::hub::{Answer, PollOutcome, Waiter};
use crate::server::gate::grant::{Allowed, GrantGuard};
use crate::server::gate::presence::PendingRoster;
use crate::server::gate::{Gate, HeldPoll, RETRY_AFTER, Settings};
use crate::server::limits::permit::{self, Permit};
use crate::server::telemetry::refusal::Refusal;
use std::time::Duration;
use tokio::time::Instant;

/// The reason for not holding a poll: the counter, the status and the words.
pub(in crate::server::gate) type Full = (Refusal, u16, String);

/// Time that a poll with a zero timeout waits until it is known if there are messages.
const CATCH_UP: Duration = Duration::from_secs(3);

impl Gate {
    pub(super) fn poll(
        &self,
        settings: &Settings,
        mut admission: Admission,
        allowed: Option<Allowed>,
    ) -> Decision {
        let known = admission.known.take();
        let poll = &admission.poll;
        // With a backplane, it may take a moment to know if there are messages.
        let no_wait = poll.timeout == Some(Duration::ZERO) || admission.presence.is_any();
        let wanted = (!no_wait || self.shared.hub.is_replica()) && !admission.is_head;
        let (permit, refused) =
            match wanted.then(|| self.admit(settings, &admission, allowed.as_ref())) {
                Some(Ok(permit)) => (Some(permit), None),
                Some(Err(refused)) => (None, Some(refused)),
                None => (None, None),
            };
        let hub = &self.shared.hub;
        let now = (self.shared.clock)();
        let member = allowed.as_ref().and_then(Allowed::member);
        let present = match refused {
            None => self.enter_again(known, &admission, member, now),
            Some(_) => Memberships::default(),
        };
        let found = match permit {
            None => hub.look(&poll.subscriptions, poll.take, now),
            Some(permit) => match hub.poll(&poll.subscriptions, poll.take, true, now) {
                Ok(PollOutcome::Waiting(mut waiter)) if no_wait && !waiter.is_unresolved() => {
                    Ok(waiter.finish(now))
                }
                Ok(PollOutcome::Waiting(mut waiter)) => {
                    waiter.set_no_wait(no_wait);
                    let leave = allowed.map(|allowed| self.shared.grants.take(allowed, &waiter));
                    return self.hold(settings, admission, (waiter, leave, permit, present));
                }
                Ok(PollOutcome::Answer(answer)) => Ok(answer),
                Err(full) => Err(full),
            },
        };
        match (found, refused) {
            (Err(full), _) => {
                self.refuse_full(&admission, (Refusal::TableFull, 503, full.to_string()))
            }
            (Ok(answer), Some(full)) if !answer.iter().any(|update| update.found.has_update) => {
                self.refuse_full(&admission, full)
            }
            (Ok(answer), _) => {
                let cause = self.cause_at_once(&answer);
                self.shared.counters.release(cause, Some(&answer), &self.shared.metrics.watched);
                let quiet = matches!(cause, Cause::Timeout | Cause::Drain);
                let rosters = self.rosters(&admission);
                let Admission { rule, poll, origin, .. } = admission;
                let answer = if quiet { self.quiet_answer(&rule, answer) } else { answer };
                if let Some(channels) = rosters {
                    let callback = poll.callback;
                    let gate = self.clone();
                    return Decision::Roster(Box::new(PendingRoster {
                        gate,
                        rule,
                        answer,
                        callback,
                        origin,
                        cause,
                        channels,
                        present,
                    }));
                }
                let callback = poll.callback;
                if rule.dialect.least_length(&answer, callback.as_deref()) > Settings::SHORT {
                    let pending = PendingAnswer { rule, answer, callback, origin, cause };
                    return Decision::Answer(Box::new(pending));
                }
                let reply = rule.dialect.render(&answer, callback.as_deref());
                Decision::Reply(finished(reply, &rule, origin.as_deref()), Some(cause))
            }
        }
    }

    /// Refuses a poll that finds no room; it may come again.
    pub(in crate::server::gate) fn refuse_full(
        &self,
        admission: &Admission,
        (cause, status, error): Full,
    ) -> Decision {
        let reply = match &admission.purpose {
            Purpose::Stream(opening) => opening.full(&error),
            _ => None,
        };
        let reply = reply.unwrap_or_else(|| {
            refusal(&admission.rule, status, &error, "try again later")
                .with("Retry-After", RETRY_AFTER)
        });
        self.refuse(&admission.rule, admission.origin.as_deref(), cause, reply)
    }

    fn hold(
        &self,
        settings: &Settings,
        admission: Admission,
        (waiter, leave, permit, present): (Waiter, Option<GrantGuard>, Permit, Memberships),
    ) -> Decision {
        let rosters = self.rosters(&admission);
        let Admission { rule, poll, origin, presence, .. } = admission;
        // A poll with a zero timeout waits only until its channels have caught up.
        let no_wait = poll.timeout == Some(Duration::ZERO) || presence.is_any();
        let wait = if no_wait { Some(CATCH_UP) } else { poll.timeout };
        let held = HeldPoll {
            gate: self.clone(),
            duration: settings.hold.duration(rule.timeout, wait),
            rule,
            waiter,
            callback: poll.callback,
            origin,
            began: Instant::now(),
            leave,
            present,
            rosters,
            _permit: permit,
        };
        Decision::Hold(Box::new(held))
    }

    fn cause_at_once(&self, answer: &Answer) -> Cause {
        if answer.iter().any(|update| update.found.has_update) {
            Cause::of(answer)
        } else if self.shared.hub.is_draining() {
            Cause::Drain
        } else {
            Cause::Timeout
        }
    }

    /// A permit to hold a poll, or the cause of its refusal, with the status and words of the
    /// response.
    pub(in crate::server::gate) fn admit(
        &self,
        settings: &Settings,
        admission: &Admission,
        allowed: Option<&Allowed>,
    ) -> Result<Permit, Full> {
        let limits = &settings.limits;
        let crowded = |name: &ChannelName| self.shared.hub.held_on(name) >= limits.per_channel;
        let mut channels = admission.poll.subscriptions.iter().map(|one| &one.channel);
        if limits.per_channel > 0 && channels.any(crowded) {
            let error = "too many polls are held on this channel".to_owned();
            return Err((Refusal::PerChannel, 503, error));
        }
        // Without `limits.per_grant` nothing was looked up.
        let named = allowed.and_then(|allowed| self.shared.grants.named_holder(allowed));
        let holder = admission.holder.map(|holder| named.unwrap_or(holder));
        self.permit(settings, admission.client, holder).map_err(|refusal| {
            let status = if refusal == permit::Rejection::Held { 503 } else { 429 };
            (cause_of(refusal), status, refusal.to_string())
        })
    }
}

/// The counter of a refused permit.
pub(in crate::server::gate) fn cause_of(refusal: permit::Rejection) -> Refusal {
    match refusal {
        permit::Rejection::Held => Refusal::HoldMax,
        permit::Rejection::Address => Refusal::PerAddress,
        permit::Rejection::Grant => Refusal::PerGrant,
    }
}
