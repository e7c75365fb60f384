//! Holding a poll: until its channel has news, its time is up, its client is gone, or the gate
//! is to end.

use std::time::Duration;

/// `[hold]`
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How long a quiet poll is held; zero = for ever.
    pub timeout: Duration,
    /// The share (0 to 1) of the timeout by which a quiet hold may end earlier, at random.
    pub jitter: f64,
}
