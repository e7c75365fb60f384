//! The least rate of request bodies: a client that sends a byte now and then never pauses for
//! long, and would stay for ever.

use std::time::{Duration, Instant};

/// The time for which a client may make the gate wait before its rate counts.
const GRACE: Duration = Duration::from_secs(10);

/// Measures the rate of one body. Only the time counts in which the gate waits for the client, so
/// an upstream that reads slowly is not held against it.
#[derive(Debug, Default)]
pub struct BodyRate {
    /// Bytes a second; 0 = any rate will do.
    least: u32,
    bytes: u64,
    waited: Duration,
    since: Option<Instant>,
}

impl BodyRate {
    /// A body that has to come with `least` bytes a second; 0 = any rate will do.
    pub fn new(least: u32) -> Self {
        Self { least, ..Self::default() }
    }

    /// The gate waits for more from `now` on.
    pub fn wait(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// The gate waits for the client no more: its body has come, or goes out once again.
    pub fn pause(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }

    /// So many bytes have come; whether that is fast enough.
    pub fn took(&mut self, bytes: usize, now: Instant) -> bool {
        self.pause(now);
        self.bytes += bytes as u64;
        let Some(counted) = self.waited.checked_sub(GRACE) else { return true };
        self.bytes as f64 >= counted.as_secs_f64() * f64::from(self.least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_taken(least: u32, bytes: usize, pause: Duration, pieces: usize, busy: Duration) -> bool {
        let mut rate = BodyRate::new(least);
        let mut now = Instant::now();
        (0..pieces).all(|_| {
            rate.wait(now);
            now += pause;
            let taken = rate.took(bytes, now);
            now += busy;
            taken
        })
    }

    #[test]
    fn a_trickle_ends_after_its_grace_and_a_slow_client_does_not() {
        let second = Duration::from_secs(1);
        let none = Duration::ZERO;
        assert!(is_taken(256, 1, second, 10, none));
        assert!(!is_taken(256, 1, second, 20, none));
        assert!(is_taken(256, 400, second, 1000, none));
        assert!(is_taken(0, 1, second, 1000, none));
        // The upstream is slow, not the client.
        assert!(is_taken(256, 400, second, 100, 100 * second));
    }

    #[test]
    fn the_time_after_a_body_has_come_does_not_count() {
        let mut rate = BodyRate::new(256);
        let began = Instant::now();
        rate.wait(began);
        rate.pause(began);
        assert!(rate.took(0, began + 100 * GRACE));
    }
}
