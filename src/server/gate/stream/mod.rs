//! Streams: subscriptions on a transport that stays open.
//!
//! A stream is admitted as a poll is, and then moves its place in the channels along with what it
//! has sent ([`run`]). It has no queue: a client that is slow gets what the history still has once
//! it is writable, and a reset where the history has moved on. Dropping it gives back its
//! registration and its permit.

mod opening;
mod run;

pub(in crate::server::gate) use opening::{Opening, busy, is_own};

use super::counters::StreamCount;
use super::grant::{Allowed, GrantGuard};
use super::poll::admission::{Admission, Purpose};
use super::poll::replies::finished;
use super::presence::{Kind, Memberships};
use super::route::Rule;
use super::{Decision, Gate};
use crate::hub::channel::{ChannelName, Take};
use crate::hub::{Answer, Waiter};
use crate::protocol::dialect::Dialect;
use crate::protocol::dialect::stream::Format;
use crate::protocol::dialect::timestamp::Deliver;
use crate::protocol::http::Reply;
use crate::server::limits::permit::Permit;
use crate::server::telemetry::refusal::Refusal;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// `[stream]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long a stream lasts; zero = for ever.
    pub max: Duration,
    /// After what silence a sign of life is sent; zero = never.
    pub heartbeat: Duration,
    /// After what time a client comes back whose stream has broken off.
    pub retry: Duration,
    /// The time over which clients come back whose streams are ended (`drain.spread`).
    pub spread: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max: Duration::from_secs(600),
            heartbeat: Duration::from_secs(20),
            retry: Duration::from_secs(2),
            spread: Duration::from_secs(2),
        }
    }
}

impl Settings {
    /// The share of `max` by which a stream may end earlier, at random.
    const JITTER: f64 = 0.2;

    /// A client that comes back at once would do so for ever.
    const MIN_RETRY: Duration = Duration::from_millis(500);

    fn lasts(&self) -> Option<Duration> {
        let lasts = self.max.mul_f64(1.0 - Self::JITTER * fastrand::f64());
        (!self.max.is_zero()).then_some(lasts)
    }

    fn retry(&self) -> u128 {
        self.retry.max(Self::MIN_RETRY).as_millis()
    }
}

/// A stream that is about to begin, or under way.
pub struct HeldStream {
    gate: Gate,
    rule: Arc<Rule>,
    format: Format,
    waiter: Waiter,
    leave: Option<GrantGuard>,
    present: Memberships,
    /// The channels whose users come first.
    rosters: Option<Box<[ChannelName]>>,
    /// Its first write.
    first: Option<Box<First>>,
    settings: Arc<Settings>,
    began: Instant,
    ends: Option<Instant>,
    /// How many events were sent.
    events: u64,
    _permit: Permit,
    _count: StreamCount,
}

/// The head of a stream, and what the history has for it at its beginning.
struct First {
    head: Reply,
    found: Answer,
}

impl Gate {
    /// Registers a stream, or refuses it.
    pub(super) fn stream(
        &self,
        settings: &super::Settings,
        admission: Admission,
        allowed: Option<Allowed>,
    ) -> Decision {
        let permit = match self.admit(settings, &admission, allowed.as_ref()) {
            Ok(permit) => permit,
            Err(full) => return self.refuse_full(&admission, full),
        };
        let take = match &admission.rule.dialect {
            Dialect::NovComet(_) => Take::Newest,
            Dialect::Timestamp(timestamp) if timestamp.deliver == Deliver::Latest => Take::Newest,
            _ => Take::All,
        };
        let now = (self.shared.clock)();
        let member = allowed.as_ref().and_then(Allowed::member);
        let present = self.enter(&admission, member, Kind::Stream, now);
        let rosters = self.rosters(&admission);
        let subscribed = self.shared.hub.subscribe(&admission.poll.subscriptions, take, now);
        let (waiter, found) = match subscribed {
            Ok(subscribed) => subscribed,
            Err(full) => {
                let full = (Refusal::TableFull, 503, full.to_string());
                return self.refuse_full(&admission, full);
            }
        };
        let leave = allowed.map(|allowed| self.shared.grants.take(allowed, &waiter));
        let Admission { rule, origin, purpose: Purpose::Stream(opening), .. } = admission else {
            return Decision::Site;
        };
        let head = finished(opening.head(&rule), &rule, origin.as_deref());
        let (settings, began) = (settings.stream.clone(), Instant::now());
        let ends = settings.lasts().and_then(|lasts| began.checked_add(lasts));
        Decision::Stream(Box::new(HeldStream {
            _count: StreamCount::new(self, opening.format.transport),
            gate: self.clone(),
            rule,
            format: opening.format,
            waiter,
            leave,
            present,
            rosters,
            first: Some(Box::new(First { head, found })),
            settings,
            began,
            ends,
            events: 0,
            _permit: permit,
        }))
    }
}
