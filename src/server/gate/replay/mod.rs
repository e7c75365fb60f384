//! Polls that the upstream answers itself: they are held here, and then forwarded as they came.
//!
//! A held one costs what any held poll does, and nothing at the upstream. Once released, it gets a
//! slot ([`UpstreamSlots`]), so that a publish to many clients is no stampede; if the upstream's
//! response is the same for all, one of them fetches it for the others ([`SingleFlight`]). A poll
//! whose client leaves while it is held or waits for its slot is never forwarded: dropping the
//! future releases all of it.
//!
//! Where a rule has a `max_wait`, a poll that the upstream itself holds is cut off there and held on
//! here; [`slots`] says what becomes of its slot.
//!
//! The gate does not know what such a client has. So nothing is lost only because a poll within
//! `slack` of a publish is forwarded too; see [`RecentRequests`] for what keeps that from going in
//! circles.

mod forwarded;
mod held;
mod recent_requests;
mod shared_cache;
mod single_flight;
mod slots;

use super::grant::Allowed;
use super::poll::admission::{Admission, Purpose};
use super::poll::hold::Cause;
use super::presence::Kind;
use super::route::Rule;
use super::{Decision, Gate, Incoming, RETRY_AFTER, Settings};
use crate::hub::channel::{ChannelName, Cursor, Position, Take, Time};
use crate::hub::{PollOutcome, Subscription, TableFull, Waiter};
use crate::protocol::dialect::replay::Replay;
use crate::protocol::dialect::{Dialect, Poll};
use crate::server::telemetry::refusal::Refusal;
pub(super) use forwarded::ReleasedReplay;
pub use held::HeldReplay;
pub(super) use held::{ReplayEnd, ReplayOutcome};
use recent_requests::{Ids, PAUSE, RecentRequests};
use single_flight::SingleFlight;
use slots::UpstreamSlots;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The gate's state for all of them.
#[derive(Default)]
pub(super) struct Replays {
    turns: UpstreamSlots,
    flights: SingleFlight,
    asked: RecentRequests,
    /// Wakes the queues when a poll was cut off, which others need not repeat.
    cut: Notify,
}

impl Replays {
    /// From now on no poll is forwarded that has no slot yet.
    pub(super) fn close(&self) {
        self.turns.close();
    }
}

/// The keys of a request that the upstream answers.
pub(super) struct ReplayIdentity {
    ids: Ids,
    /// By which its answer is shared, if it is.
    share: Option<shared_cache::Key>,
}

impl Gate {
    /// The keys of a request that `rule` forwards later; `None` = it names no channel.
    pub(super) fn replay_identity(
        &self,
        rule: &Rule,
        replay: &Replay,
        request: &Incoming<'_>,
        poll: &Poll,
    ) -> Option<ReplayIdentity> {
        let channel = &poll.subscriptions.first()?.channel;
        let shared = replay.share && request.method != "HEAD";
        Some(ReplayIdentity {
            ids: self.shared.replays.asked.ids(rule, replay, request, channel),
            share: shared.then(|| shared_cache::Key::of(rule, replay, request, poll)).flatten(),
        })
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
        let Some(channel) = admission.poll.subscriptions.first().map(|one| one.channel.clone())
        else {
            return Decision::Site;
        };
        let head = admission.is_head;
        let ids = identity.ids;
        let permit = self.admit(settings, &admission, allowed.as_ref());
        let now = (self.shared.clock)();
        let looked = self.look(&admission.poll, replay, ids, permit.is_ok() && !head, now);
        let Look { waiter, position, at_once, pausing } = match looked {
            Ok(looked) => looked,
            Err(full) => {
                let full = (Refusal::TableFull, 503, full.to_string());
                return self.refuse_full(&admission, full);
            }
        };
        let permit = match permit {
            Err(full) if at_once.is_none() && !head && !self.is_draining() => {
                return self.refuse_full(&admission, full);
            }
            permit => permit.ok(),
        };
        let timeout = settings.hold.duration(admission.rule.timeout, None);
        let duration = if pausing { pause(timeout, replay.slack) } else { timeout };
        let quiet = if self.is_draining() { Cause::Drain } else { Cause::Timeout };
        let member = allowed.as_ref().and_then(Allowed::member);
        let present = self.enter(&admission, member, Kind::Poll, now);
        let again = allowed.clone().filter(|_| replay.max_wait.is_some()).map(Box::new);
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
            share,
            channel,
            waiter,
            leave,
            _present: present,
            allowed: again,
            duration,
            timeout,
            cause: at_once.unwrap_or(quiet),
            position,
            ids,
            origin,
            patience: settings.read_timeout,
            began: Instant::now(),
            permit,
            head,
            pausing,
            counted: false,
        }))
    }

    /// True if the upstream has nothing for a poll, as far as is known, and nothing was published
    /// since then.
    fn is_quiet(&self, ids: Ids, channel: &ChannelName, now: Time) -> bool {
        let Some(position) = self.shared.replays.asked.quiet_at(ids) else { return false };
        let subscription = Subscription { channel: channel.clone(), cursor: Cursor::At(position) };
        let found = self.shared.hub.look(&[subscription], Take::Newest, now);
        found.is_ok_and(|answer| !answer.iter().any(|update| update.found.has_update))
    }

    /// Decides whether a poll has to wait.
    fn look(
        &self,
        poll: &Poll,
        replay: &Replay,
        ids: Ids,
        hold: bool,
        now: Time,
    ) -> Result<Look, TableFull> {
        let hub = &self.shared.hub;
        let asked = &self.shared.replays.asked;
        let hold_here = hold && !ids.first;
        // A poll of this dialect is on one channel.
        let channel = poll.subscriptions.first().map(|one| one.channel.clone());
        let update = match hub.poll(&poll.subscriptions, poll.take, hold_here, now)? {
            PollOutcome::Waiting(waiter) => return Ok(Look::held(waiter, false)),
            PollOutcome::Answer(answer) => answer.into_iter().next(),
        };
        let has_update = update.as_ref().is_some_and(|update| update.found.has_update);
        let at_once =
            if ids.first { Some(Cause::First) } else { has_update.then_some(Cause::Message) };
        let position = update.map(|update| update.found.position);
        if let Some(position) = position
            && hold
            && at_once.is_some()
            && let Some(channel) = &channel
            && (ids.first || !replay.slack.is_zero())
        {
            let has_all =
                self.is_quiet(ids, channel, now) || !ids.first && asked.has_got(ids, position);
            let pausing = !has_all
                && match ids.first {
                    // A page that is loaded again gets its first answer again.
                    true => asked.is_hasty(ids, position),
                    false => asked.is_repeated(ids, position),
                };
            if has_all || pausing {
                let mut again = poll.subscriptions.clone();
                again.iter_mut().for_each(|one| one.cursor = Cursor::At(position));
                if let PollOutcome::Waiting(waiter) = hub.poll(&again, poll.take, hold, now)? {
                    return Ok(Look::held(waiter, pausing));
                }
            }
        }
        Ok(Look { waiter: None, position, at_once, pausing: false })
    }
}

/// Hold time of a poll that repeats another: at most the slack, within which the update is recent.
fn pause(duration: Option<Duration>, slack: Duration) -> Option<Duration> {
    let most = if slack.is_zero() { PAUSE } else { PAUSE.min(slack) };
    Some(duration.unwrap_or(most).min(most))
}

/// The result of a look.
struct Look {
    /// The registration of a poll that will be held.
    waiter: Option<Waiter>,
    position: Option<Position>,
    /// The cause for which it goes to the upstream at once.
    at_once: Option<Cause>,
    /// It is held for a moment only, as the upstream has just been asked the same.
    pausing: bool,
}

impl Look {
    fn held(waiter: Waiter, pausing: bool) -> Self {
        let position = waiter.positions().next();
        Self { waiter: Some(waiter), position, at_once: None, pausing }
    }
}
