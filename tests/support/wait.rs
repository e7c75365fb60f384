//! Waiting for a condition, with a bound.

use std::time::{Duration, Instant};

/// Bound on each wait of a test.
pub const BOUND: Duration = Duration::from_secs(10);

/// Silence after which a connection counts as quiet: far longer than a gate takes to
/// answer a poll that it does not hold.
pub const QUIET: Duration = Duration::from_millis(50);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks again and again until `look` answers true. Panics with `what` after
/// three times [`BOUND`], also when a single look takes that long.
pub async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    // On a machine that does other work a thousand clients take their time.
    eventually_some(what, 3 * BOUND, async || look().await.then_some(())).await;
}

/// As [`eventually`], for a look that finds something, with a bound of its own.
pub async fn eventually_some<T>(
    what: &str,
    bound: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + bound;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, look()).await {
            Ok(Some(found)) => return found,
            Ok(None) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            _ => panic!("waited {bound:?} in vain: {what}"),
        }
    }
}
