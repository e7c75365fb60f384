//! Holding a poll: until its channel has an update, its timeout ends, its client is gone, or the
//! gate shuts down.

use super::timer::Timer;
use crate::hub::channel::Time;
use crate::hub::{Answer, Waiter};
use crate::server::gate::grant::GrantGuard;
use crate::server::telemetry::metrics::labels;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
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

/// Holds a poll until `timer` expires, at the longest. `gone` ends when the client does.
///
/// Dropping the future ends nothing; dropping the waiter ends the hold and leaves nothing behind.
pub(in crate::server::gate) async fn hold(
    waiter: &mut Waiter,
    leave: Option<&GrantGuard>,
    timer: &mut Timer,
    clock: fn() -> Time,
    mut gone: Pin<&mut impl Future<Output = ()>>,
) -> (Cause, Option<Answer>) {
    loop {
        let woken = poll_fn(|context| {
            if waiter.poll_notified(context).is_ready() {
                return Poll::Ready(Wake::Notified);
            }
            if gone.as_mut().poll(context).is_ready() {
                return Poll::Ready(Wake::Gone);
            }
            timer.poll_expired(context).map(|()| Wake::Expired)
        });
        let woken = woken.await;
        if woken == Wake::Gone {
            return (Cause::Gone, None);
        }
        let now = clock();
        if leave.is_some_and(|leave| leave.check(now).is_err()) {
            return (Cause::Expired, None);
        }
        if woken == Wake::Expired {
            let answer = waiter.finish(now);
            let has_update = answer.iter().any(|update| update.found.has_update);
            let cause = if has_update { Cause::of(&answer) } else { Cause::Timeout };
            return (cause, Some(answer));
        }
        if let Some(answer) = waiter.look(now) {
            return (Cause::of(&answer), Some(answer));
        }
        if waiter.is_due() {
            return (Cause::Timeout, Some(waiter.finish(now)));
        }
        if waiter.is_draining() {
            return (Cause::Drain, Some(waiter.finish(now)));
        }
        if waiter.has_lost_site() {
            return (Cause::Reset, Some(waiter.finish(now)));
        }
    }
}

/// The end of a wait.
#[derive(PartialEq, Eq)]
enum Wake {
    Notified,
    Gone,
    Expired,
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
