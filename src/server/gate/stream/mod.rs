//! Streams: subscriptions on a transport that stays open.
//!
//! A stream is admitted as a poll is, and then moves its place in the channels along with what it
//! has sent ([`run`]). It has no queue: a client that is slow gets what the history still has once
//! it is writable, and a reset where the history has moved on. Dropping it gives back its
//! registration and its permit.

mod events;
mod opening;
mod run;
mod shared;

use crate::hub::presence::Memberships;
pub(in crate::server::gate) use events::Events;
pub(in crate::server::gate) use opening::{Opening, busy, is_own};

use super::counters::StreamCount;
use super::grant::{Allowed, GrantGuard};
use super::poll::admission::{Admission, Purpose};
use super::poll::replies::finished;
use super::presence::Kind;
use super::{Decision, Gate};
use crate::hub::channel::{ChannelName, Take};
use crate::hub::{Answer, Waiter};
use crate::protocol::dialect::Dialect;
use crate::protocol::dialect::timestamp::Deliver;
use crate::protocol::http::Reply;
use crate::server::limits::permit::Permit;
use crate::server::telemetry::refusal::Refusal;
use std::num::NonZeroU32;
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

    /// The silence after which a sign of life is sent. They are spread a little, as are the
    /// clients of one moment.
    fn heartbeat(&self) -> Option<NonZeroU32> {
        if self.heartbeat.is_zero() {
            return None;
        }
        let heartbeat = self.heartbeat.mul_f64(1.0 - 0.1 * fastrand::f64());
        let millis = u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX);
        Some(NonZeroU32::new(millis).unwrap_or(NonZeroU32::MIN))
    }

    fn retry(&self) -> u128 {
        self.retry.max(Self::MIN_RETRY).as_millis()
    }
}

/// What a stream has taken: its registration, what the history has for it, its grant and its permit.
pub(super) type Parts = (Waiter, Answer, Option<GrantGuard>, Permit);

/// The channels of a list of users each. A stream has it in a box, as it is there at the beginning
/// only.
type Rosters = Box<[ChannelName]>;

/// A stream that is about to begin, or under way.
pub struct HeldStream {
    gate: Gate,
    said: Events,
    waiter: Waiter,
    leave: Option<GrantGuard>,
    present: Memberships,
    /// The channels whose users come first.
    rosters: Option<Box<Rosters>>,
    /// Its first write.
    first: Option<Box<First>>,
    /// The status of its head.
    status: u16,
    settings: Arc<Settings>,
    began: Instant,
    ends: Option<Instant>,
    /// The client knows where it is.
    placed: bool,
    /// The timer is set for the next of the stream's times, or an earlier one.
    is_timed: bool,
    /// It waits: what wakes it now is mostly a message.
    waits: bool,
    /// Signs of life that a WebSocket's client has left unanswered.
    unanswered: u8,
    /// The silence after which a sign of life is sent, in milliseconds.
    heartbeat: Option<NonZeroU32>,
    /// When it was last written to.
    written: Instant,
    /// How many bytes of its body were sent.
    bytes: usize,
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
        let said = Events::Dialect(rule, opening.format);
        let held = (waiter, found, leave, permit);
        let mut stream = HeldStream::new(self, settings.stream.clone(), said, head, held);
        stream.present = present;
        stream.rosters = rosters.map(Box::new);
        Decision::Stream(Box::new(stream))
    }
}

impl HeldStream {
    /// A stream that begins with `head`: its waiter, the history's messages for it, and its grant
    /// and permit.
    pub(super) fn new(
        gate: &Gate,
        settings: Arc<Settings>,
        said: Events,
        head: Reply,
        (waiter, found, leave, permit): Parts,
    ) -> Self {
        let began = Instant::now();
        let ends = settings.lasts().and_then(|lasts| began.checked_add(lasts));
        Self {
            _count: StreamCount::new(gate, said.transport()),
            gate: gate.clone(),
            said,
            waiter,
            leave,
            present: Memberships::default(),
            rosters: None,
            status: head.status,
            first: Some(Box::new(First { head, found })),
            heartbeat: settings.heartbeat(),
            settings,
            began,
            ends,
            placed: false,
            is_timed: false,
            waits: false,
            unanswered: 0,
            written: began,
            bytes: 0,
            events: 0,
            _permit: permit,
        }
    }
}
