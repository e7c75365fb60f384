//! The page's stats, on a channel of their own.
//!
//! The page polls as any client does, in the native dialect, but in a table of its own: neither the
//! users' channels nor their stats include it. Once a second the stats are published there, and
//! only while a page is open; a page that is opened finds those of the last minutes.

use crate::hub::channel::{ChannelName, Cursor, Kind, Limits, Payload, Take, Time};
use crate::hub::{self, Hub, PollOutcome, Subscription, Waiter};
use crate::protocol::dialect::native::{self, Native};
use crate::protocol::http::Reply;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Interval of the stats.
const EVERY: Duration = Duration::from_secs(1);
/// A page that has not polled for this long is closed, or hidden.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A page's poll is held no longer, whatever happens.
const HOLD: Duration = Duration::from_secs(5);
/// Stats kept for newly opened pages.
const TTL: usize = 120;
/// Upper bound of open pages.
const MAX: usize = 64;

/// See the [module](self).
pub(super) struct PageChannel {
    hub: Hub,
    channel: ChannelName,
    clock: fn() -> Time,
    /// Time of the latest poll of a page.
    looked: Mutex<Option<Instant>>,
    somebody: Notify,
    looking: AtomicUsize,
}

impl PageChannel {
    /// A channel on which nothing is published yet.
    pub(super) fn new(clock: fn() -> Time) -> Self {
        let limits = Limits { messages: TTL, age: Duration::from_secs(180), ..Limits::default() };
        let settings =
            hub::Settings { channels: 1, limits: Arc::new(limits), ..hub::Settings::default() };
        let hub = Hub::new(settings, fastrand::u64(..));
        // A valid name: not empty, not long, and of letters.
        let channel = ChannelName::new("figures").expect("a channel's name");
        let (looked, somebody, looking) = Default::default();
        Self { hub, channel, clock, looked, somebody, looking }
    }

    /// Answers a page's poll, as soon as there are stats after its cursor.
    pub(super) async fn poll(&self, cursor: &str) -> Reply {
        let cursor = match cursor {
            "" => Cursor::Now,
            text => match native::cursor(&self.channel, text) {
                Ok(cursor) => cursor,
                Err(reply) => return reply,
            },
        };
        let Some(_looking) = Viewer::begin(&self.looking) else {
            let reply = Reply::error(503, "too many pages look at the figures", "close some");
            return reply.with("Retry-After", "5");
        };
        *self.looked.lock() = Some(Instant::now());
        self.somebody.notify_one();
        let subscription = Subscription { channel: self.channel.clone(), cursor };
        let polled = self.hub.poll(&[subscription], Take::All, true, (self.clock)());
        let answer = match polled {
            // There is one channel, and room for it.
            Err(full) => return Reply::error(503, full, "try again"),
            Ok(PollOutcome::Answer(answer)) => answer,
            Ok(PollOutcome::Waiting(mut waiter)) => {
                match tokio::time::timeout(HOLD, self.wait_for_update(&mut waiter)).await {
                    Ok(answer) => answer,
                    Err(_) => waiter.finish((self.clock)()),
                }
            }
        };
        Native::default().render(&answer, None)
    }

    async fn wait_for_update(&self, waiter: &mut Waiter) -> hub::Answer {
        loop {
            waiter.notified().await;
            if let Some(answer) = waiter.look((self.clock)()) {
                return answer;
            }
        }
    }

    fn is_looked_at(&self) -> bool {
        self.looked.lock().is_some_and(|last| last.elapsed() < TIMEOUT)
    }

    /// Publishes `stats`, which is JSON, while a page is open; until the process ends.
    pub(super) async fn run(
        &self,
        stats: impl Fn() -> String + Send + Sync,
        shutdown: &mut ShutdownWatch,
    ) {
        loop {
            tokio::select! {
                () = self.somebody.notified() => {}
                _ = shutdown.wait_for(|ending| *ending) => return,
            }
            let mut ticks = tokio::time::interval(EVERY);
            while self.is_looked_at() {
                tokio::select! {
                    _ = ticks.tick() => self.publish(stats()),
                    _ = shutdown.wait_for(|ending| *ending) => return,
                }
            }
        }
    }

    fn publish(&self, json: String) {
        let content_type = "application/json".into();
        let payload = Payload { kind: Kind::Json, content_type, body: json.into() };
        // Dropping the result notifies the pages. There is always room for the one channel.
        drop(self.hub.publish(&[(self.channel.clone(), payload)], (self.clock)()));
    }
}

/// One open page; counted until it is dropped.
struct Viewer<'a>(&'a AtomicUsize);

impl<'a> Viewer<'a> {
    fn begin(looking: &'a AtomicUsize) -> Option<Self> {
        let this = (looking.fetch_add(1, Ordering::Relaxed), Self(looking));
        (this.0 < MAX).then_some(this.1)
    }
}

impl Drop for Viewer<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use tokio::sync::watch;

    fn feed() -> Arc<PageChannel> {
        Arc::new(PageChannel::new(|| Time(1_700_000_000_000_000)))
    }

    fn json(reply: &Reply) -> serde_json::Value {
        serde_json::from_slice(&reply.body).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn figures_are_made_only_while_somebody_looks() {
        let feed = feed();
        let made = Arc::new(AtomicU64::new(0));
        let (_stop, mut shutdown) = watch::channel(false);
        tokio::spawn({
            let feed = feed.clone();
            let made = made.clone();
            let stats = move || made.fetch_add(1, Ordering::Relaxed).to_string();
            async move { feed.run(stats, &mut shutdown).await }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(made.load(Ordering::Relaxed), 0);
        let first = json(&feed.poll("oldest").await);
        assert_eq!(first["messages"][0]["data"], 0);
        let next = json(&feed.poll(first["cursor"].as_str().unwrap()).await);
        assert_eq!(next["messages"][0]["data"], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_nothing_comes_for_is_answered_all_the_same() {
        let reply = feed().poll("").await;
        assert_eq!((reply.status, &json(&reply)["messages"]), (200, &serde_json::json!([])));
        assert_eq!(feed().poll("b{d").await.status, 400);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_a_bound_on_the_pages() {
        let feed = feed();
        let polls = (0..=MAX).map(|_| {
            let feed = feed.clone();
            tokio::spawn(async move { feed.poll("").await.status })
        });
        let mut refused = 0;
        for poll in polls.collect::<Vec<_>>() {
            refused += usize::from(poll.await.unwrap() == 503);
        }
        assert_eq!((refused, feed.looking.load(Ordering::Relaxed)), (1, 0));
    }
}
