//! Holding a poll: until its channel has an update, its timeout ends, its client is gone, or the
//! gate shuts down.

use super::timer::Timer;
use crate::hub::channel::Time;
use crate::hub::{Answer, Waiter};
use crate::server::gate::grant::GrantGuard;
use crate::server::gate::serve::Exchange;
use crate::server::telemetry::metrics::labels;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// `[hold]`
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Timeout of a poll without messages; zero = for ever.
    pub timeout: Duration,
    /// The share (0 to 1) of the timeout by which a quiet hold may end earlier, at random.
    pub jitter: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(25), jitter: 0.1 }
    }
}

impl Settings {
    /// The hold time of a poll: the rule's timeout, else the general one, less the jitter, and no
    /// longer than the client wants. `None` = for ever.
    pub fn duration(&self, rule: Option<Duration>, client: Option<Duration>) -> Option<Duration> {
        let timeout = rule.unwrap_or(self.timeout);
        let held = timeout.mul_f64(1.0 - self.jitter * fastrand::f64());
        let held = (!timeout.is_zero()).then_some(held);
        shorter(held, client)
    }
}

/// The shorter of two times; `None` is for ever.
pub(in crate::server::gate) fn shorter(
    one: Option<Duration>,
    other: Option<Duration>,
) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

labels! {
    /// Cause of a hold's end.
    Cause {
        /// A message came, before the hold or during it.
        Message = "message",
        /// The client has nothing yet, so that the upstream answers it at once.
        First = "first",
        /// A channel lost its continuity, before the hold or during it.
        Reset = "reset",
        /// Nothing came in time.
        Timeout = "timeout",
        /// The client closed, or half-closed, its connection.
        Gone = "gone",
        /// The gate shuts down.
        Drain = "drain",
        /// The grant has expired or was revoked.
        Expired = "expired",
    }
}

impl Cause {
    /// The cause of an answer with an update.
    pub fn of(answer: &Answer) -> Self {
        if answer.iter().any(|update| update.found.reset) { Self::Reset } else { Self::Message }
    }
}

/// The cause that ended a hold, and the answer if the client is still to get one.
pub(in crate::server::gate) type HoldEnd = (Cause, Option<Answer>);

/// Holds a poll until `timer` expires, at the longest. `gone` ends when the client does.
///
/// Dropping the future ends nothing; dropping the waiter ends the hold and leaves nothing behind.
pub(in crate::server::gate) async fn hold(
    waiter: &mut Waiter,
    leave: Option<&GrantGuard>,
    timer: &mut Timer,
    clock: fn() -> Time,
    mut gone: Pin<&mut impl Future<Output = ()>>,
) -> HoldEnd {
    poll_fn(|context| {
        let mut side = (&mut *timer, gone.as_mut());
        poll_hold(waiter, leave, clock, &mut side, context)
    })
    .await
}

/// The client's side of a hold.
pub(in crate::server::gate) trait Side {
    /// Ready once the client is gone.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Ready once the hold has lasted for its time.
    fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

impl<E: Exchange> Side for E {
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_input(context, false).map(|_| ())
    }

    fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.timer().poll_expired(context)
    }
}

impl<F: Future<Output = ()>> Side for (&mut Timer, Pin<&mut F>) {
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.1.as_mut().poll(context)
    }

    fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll_expired(context)
    }
}

/// The same for a task that keeps nothing for the hold but the waiter.
pub(in crate::server::gate) fn poll_hold(
    waiter: &mut Waiter,
    leave: Option<&GrantGuard>,
    clock: fn() -> Time,
    side: &mut impl Side,
    context: &mut Context<'_>,
) -> Poll<HoldEnd> {
    loop {
        let notified = waiter.poll_notified(context).is_ready();
        if !notified {
            if side.poll_gone(context).is_ready() {
                return Poll::Ready((Cause::Gone, None));
            }
            ready!(side.poll_expired(context));
        }
        // A wake is not before its message, and the hub's time never runs backwards.
        let now = if notified && leave.is_none() { Time(0) } else { clock() };
        if leave.is_some_and(|leave| leave.check(now).is_err()) {
            return Poll::Ready((Cause::Expired, None));
        }
        if !notified {
            let answer = waiter.finish(now);
            let has_update = answer.iter().any(|update| update.found.has_update);
            let cause = if has_update { Cause::of(&answer) } else { Cause::Timeout };
            return Poll::Ready((cause, Some(answer)));
        }
        if let Some(answer) = waiter.look(now) {
            return Poll::Ready((Cause::of(&answer), Some(answer)));
        }
        if waiter.is_due() {
            return Poll::Ready((Cause::Timeout, Some(waiter.finish(now))));
        }
        if waiter.is_draining() {
            return Poll::Ready((Cause::Drain, Some(waiter.finish(now))));
        }
        if waiter.has_lost_site() {
            return Poll::Ready((Cause::Reset, Some(waiter.finish(now))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_only_shortens_its_hold() {
        let settings = Settings { timeout: Duration::from_secs(20), jitter: 0.0 };
        let second = Duration::from_secs(1);
        assert_eq!(settings.duration(None, None), Some(20 * second));
        assert_eq!(settings.duration(Some(10 * second), None), Some(10 * second));
        assert_eq!(settings.duration(None, Some(Duration::MAX)), Some(20 * second));
        assert_eq!(settings.duration(None, Some(second)), Some(second));
        assert_eq!(settings.duration(Some(Duration::ZERO), None), None);
        assert_eq!(settings.duration(Some(Duration::ZERO), Some(second)), Some(second));
    }

    #[test]
    fn jitter_only_shortens_and_stays_in_its_share() {
        let settings = Settings { timeout: Duration::from_secs(10), jitter: 0.5 };
        for _ in 0..1000 {
            let held = settings.duration(None, None).unwrap_or_default();
            assert!((5.0..=10.0).contains(&held.as_secs_f64()), "{held:?}");
        }
    }
}
