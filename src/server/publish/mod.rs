//! Publishing: every message reaches its channel through the [`Publisher`].
//!
//! A publish is checked as a whole before any of it happens, so an error means that nothing was
//! published. Its [`Receipt`] is true when it is returned: the position is taken and the released
//! polls are claimed. They are notified afterwards, in batches, and the publisher never waits for
//! it.
//!
//! The hook over HTTP is [`Hook`]; the files of [`watch`] publish, too.

pub mod capture;
pub mod grip;
mod hook;
mod idempotency;
pub mod nchan;
mod payload;
mod target;
#[cfg(test)]
mod tests;
mod wakeups;
pub mod watch;

use crate::server::limits::rate::{MessageRate, RateLimited};
pub use hook::{History, Hook, Roster};
pub use idempotency::IdempotencyCache;
use payload::from_json;
pub use payload::{PayloadError, payload};
pub use target::{Answered, Remote, Target};
use wakeups::PendingWakeups;

use crate::hub::channel::{ChannelName, Payload, Position, ShownStamp, SiteName, Time};
use crate::hub::{Hub, Published, TableFull, WakeSet};
use crate::server::limits::body_memory::BodyMemory;
use crate::server::net::quiesce::Quiesce;
use crate::server::telemetry::metrics::{Counts, SharedMetrics, labels};
use crate::server::telemetry::refusal::Refusal;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;

/// Bounds of a publish, and rules for messages in forwarded requests.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The longest message, in bytes.
    pub max_message: u64,
    /// Rate limit of the hook.
    pub rate: Arc<MessageRate>,
    /// What passes on the way to the upstream and is published; of each site.
    pub captured: Vec<(SiteName, Captured)>,
    /// Paths that publish as Nchan's publishers do.
    pub nchan: Vec<Arc<nchan::Rule>>,
    /// The memory for bodies that are kept.
    pub bodies: Arc<BodyMemory>,
}

/// What is published of the requests to an upstream and its responses.
#[derive(Debug, Clone, Default)]
pub struct Captured {
    /// Rules of requests that are messages.
    pub capture: Vec<Arc<capture::Rule>>,
    /// True if the upstream may publish with a header of its responses.
    pub may_publish: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_message: 1 << 20,
            rate: Arc::new(MessageRate::new(0)),
            captured: Vec::new(),
            nchan: Vec::new(),
            bodies: Arc::default(),
        }
    }
}

/// Returns the time; [`system_time`] outside of tests.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// The time of the system's clock, rounded up to the microsecond.
pub fn system_time() -> Time {
    // A clock set before 1970 shows the beginning of time; the hub keeps it from running back.
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let micros = since.as_secs().saturating_mul(1_000_000);
    Time(micros.saturating_add(since.subsec_nanos().div_ceil(1_000).into()))
}

labels! {
    /// Source of a message.
    Source {
        /// The site's code, over the internal listener.
        Hook = "hook",
        /// A watched file.
        Watch = "watch",
        /// A request that the upstream handled.
        Capture = "capture",
        /// A header in the upstream's response.
        Header = "header",
        /// A publisher of the Mercure hub.
        Mercure = "mercure",
        /// A client of the Pusher protocol.
        Client = "client",
        /// Another gate.
        Backplane = "backplane",
    }
}

/// The outcome of one message.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The channel it is on.
    pub channel: ChannelName,
    /// The position it was given.
    pub id: Position,
    /// The stamp it was given, in the channel's tick.
    pub stamp: ShownStamp,
    /// Number of held polls that it released.
    pub released: usize,
}

/// Reason why nothing was published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// A message is too long; the publisher's fault.
    #[error("the message for \"{channel}\" has {length} bytes, more than {most}")]
    TooLong {
        /// The channel it was meant for.
        channel: ChannelName,
        /// Its length in bytes.
        length: u64,
        /// The upper bound, in bytes.
        most: u64,
    },
    /// The hook's rate limit is exceeded; the publisher's fault.
    #[error("too many messages a second")]
    TooSoon {
        /// Time after which the hook takes these messages.
        wait: Duration,
    },
    /// More messages at once than the hook's rate limit allows in a second; the publisher's fault.
    #[error("the request has {messages} messages, and {most} a second are taken")]
    TooMany {
        /// Their number.
        messages: usize,
        /// The upper bound.
        most: u32,
    },
    /// The channel table has no room; the gate's fault.
    #[error(transparent)]
    TableFull(#[from] TableFull),
    /// The sequencer cannot be reached; nothing was published.
    #[error("{0}")]
    Away(String),
    /// The sequencer did not answer; the messages may be published or not.
    #[error("{0}; whether the message was published is unknown")]
    Unknown(String),
    /// The key was used with another message.
    #[error("this Idempotency-Key was used with another message")]
    Conflict,
    /// The gate has ended; nothing was published.
    #[error("the gate takes no messages any more")]
    Ended,
}

/// Marks repetitions of a publish.
#[derive(Debug, Clone, Copy)]
pub struct Idempotency<'a> {
    /// The key.
    pub key: &'a str,
    /// Time that it is known.
    pub kept: Duration,
}

/// Assigns positions in place of the hub, and puts the messages into it: many gates share the
/// channels then.
#[async_trait]
pub trait Sequencer: Send + Sync {
    /// Publishes `posts`, in their order; a repetition under the same key is not published again.
    /// The caller notifies the held polls of the returned wakes.
    async fn publish(
        &self,
        posts: &[(ChannelName, Payload)],
        once: Option<Idempotency<'_>>,
    ) -> Result<Vec<Published>, PublishError>;

    /// Forgets a channel everywhere; `None` if there is none.
    async fn forget(&self, channel: &ChannelName) -> Result<Option<WakeSet>, PublishError>;

    /// Brings the hub up to date with a channel, so that it can be inspected.
    async fn refresh(&self, channel: &ChannelName);
}

/// The only way into the hub; a cheap handle.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    hub: Hub,
    clock: Clock,
    settings: Arc<ArcSwap<Settings>>,
    runtime: Arc<OnceLock<Handle>>,
    /// Assigns the positions; `None` = the hub does.
    sequencer: Option<Arc<dyn Sequencer>>,
    counts: Counts<Source>,
    metrics: Arc<SharedMetrics>,
    /// Every change of the hub passes through it.
    quiesce: Quiesce<Target>,
}

impl Publisher {
    /// A publisher into `hub`, through `sequencer` if that assigns the positions. `runtime` is the
    /// runtime of the held polls, as soon as there is one: a large wake is notified there, between
    /// the deliveries of its batches. `metrics` knows the channels that are counted by themselves.
    pub fn new(
        hub: Hub,
        sequencer: Option<Arc<dyn Sequencer>>,
        clock: Clock,
        settings: Arc<ArcSwap<Settings>>,
        runtime: Arc<OnceLock<Handle>>,
        metrics: Arc<SharedMetrics>,
    ) -> Self {
        let counts = Counts::default();
        let quiesce = Quiesce::default();
        let shared = Shared { hub, clock, settings, runtime, sequencer, counts, metrics, quiesce };
        Self { shared: Arc::new(shared) }
    }

    /// Publishes all of `posts`, or none of them if this is an error other than
    /// [`PublishError::Unknown`]. The receipts come in the order of the posts; a poll that waits on
    /// several of the channels counts once. If the hub assigns the positions, the future is ready
    /// at once.
    pub async fn publish(
        &self,
        posts: Vec<(ChannelName, Payload)>,
        by: Source,
    ) -> Result<Vec<Receipt>, PublishError> {
        self.publish_once(posts, by, None).await
    }

    /// Like [`Publisher::publish`]; with a sequencer, a repetition under the same key gets the
    /// result of the first, whichever gate it comes to.
    pub async fn publish_once(
        &self,
        posts: Vec<(ChannelName, Payload)>,
        by: Source,
        once: Option<Idempotency<'_>>,
    ) -> Result<Vec<Receipt>, PublishError> {
        let most = self.longest_message();
        for (channel, payload) in &posts {
            let length = payload.body.len() as u64;
            if length > most {
                self.shared.metrics.refusals.count(Refusal::MessageSize);
                return Err(PublishError::TooLong { channel: channel.clone(), length, most });
            }
        }
        let place = self.shared.quiesce.pass().await;
        match &*place {
            Target::Local => {}
            Target::Closed => return Err(PublishError::Ended),
            // The other process watches the same files.
            Target::Successor(_) if by == Source::Watch => return Err(PublishError::Ended),
            Target::Successor(onward) => {
                let onward = onward.clone();
                drop(place);
                return onward(posts, by).await;
            }
        }
        if matches!(by, Source::Hook | Source::Mercure) {
            self.take(posts.len())?;
        }
        let published = match &self.shared.sequencer {
            None => self.shared.hub.publish(&posts, self.now())?,
            Some(sequencer) => sequencer.publish(&posts, once).await?,
        };
        drop(place);
        self.shared.counts.add(by, posts.len() as u64);
        posts.iter().for_each(|(channel, _)| self.shared.metrics.watched.published(channel));
        let mut wakes = PendingWakeups::default();
        let receipts = posts.into_iter().zip(published).map(|((channel, _), published)| Receipt {
            channel,
            id: published.message.position,
            stamp: published.tick.show(published.message.stamp),
            released: match published.released {
                0 => wakes.claim(published.wake),
                released => wakes.adopt(published.wake, released),
            },
        });
        let receipts = receipts.collect();
        wakes.notify(self.shared.runtime.get());
        Ok(receipts)
    }

    /// Counts a request whose captured message was not published, since it is not clear what PHP
    /// has read.
    fn count_unclear(&self) {
        self.shared.metrics.refusals.count(Refusal::UnclearCapture);
    }

    /// Counts messages against the hook's rate limit.
    fn take(&self, messages: usize) -> Result<(), PublishError> {
        let refused = match self.shared.settings.load().rate.take(messages) {
            Ok(()) => return Ok(()),
            Err(RateLimited::For(wait)) => PublishError::TooSoon { wait },
            Err(RateLimited::Beyond(most)) => PublishError::TooMany { messages, most },
        };
        self.shared.metrics.refusals.count(Refusal::PublishRate);
        Err(refused)
    }

    /// Puts a state on a channel that has been true since `at`, unless the channel has had a
    /// message since. Returns true if it did. With `keep` its newest message never ages out. With a
    /// sequencer, the channel's history is there, and nothing is done.
    pub fn seed(
        &self,
        channel: &ChannelName,
        payload: Payload,
        at: Time,
        keep: bool,
        by: Source,
    ) -> Result<bool, PublishError> {
        if self.is_shared() {
            return Ok(false);
        }
        let seeded = self.shared.hub.seed(channel, payload, at, keep, self.now())?;
        let Some(published) = seeded else { return Ok(false) };
        self.shared.counts.add(by, 1);
        self.shared.metrics.watched.published(channel);
        let mut wakes = PendingWakeups::default();
        wakes.claim(published.wake);
        wakes.notify(self.shared.runtime.get());
        Ok(true)
    }

    /// Forgets a channel and releases the polls held on it, which get a reset. Returns the number
    /// of those polls; `None` if there is no such channel.
    pub async fn forget(&self, channel: &ChannelName) -> Result<Option<usize>, PublishError> {
        let place = self.shared.quiesce.pass().await;
        if !matches!(*place, Target::Local) {
            return Err(PublishError::Ended);
        }
        let wake = match &self.shared.sequencer {
            None => self.shared.hub.forget(channel),
            Some(sequencer) => sequencer.forget(channel).await?,
        };
        drop(place);
        let mut wakes = PendingWakeups::default();
        let released = wake.map(|wake| match &self.shared.sequencer {
            None => wakes.claim(wake),
            Some(_) => {
                let polls = wake.len();
                wakes.adopt(wake, polls)
            }
        });
        wakes.notify(self.shared.runtime.get());
        Ok(released)
    }

    /// Brings the hub up to date with a channel, if a sequencer assigns its positions.
    pub async fn refresh(&self, channel: &ChannelName) {
        if let Some(sequencer) = &self.shared.sequencer {
            sequencer.refresh(channel).await;
        }
    }

    /// Notifies the polls that a message from the sequencer releases, claimed already; `new`
    /// messages came with it.
    pub fn arrived(&self, wake: WakeSet, new: u64) {
        self.shared.counts.add(Source::Backplane, new);
        let mut wakes = PendingWakeups::default();
        wakes.adopt(wake, 0);
        wakes.notify(self.shared.runtime.get());
    }

    /// Claims and notifies the polls that a message outside of a publish releases.
    pub fn notify(&self, wake: WakeSet) {
        let mut wakes = PendingWakeups::default();
        wakes.claim(wake);
        wakes.notify(self.shared.runtime.get());
    }

    /// True if a sequencer assigns the positions, so that gates share the channels.
    pub fn is_shared(&self) -> bool {
        self.shared.sequencer.is_some()
    }

    /// The quiesce point that every publish passes through.
    pub fn quiesce(&self) -> &Quiesce<Target> {
        &self.shared.quiesce
    }

    /// The settings in force at this moment.
    pub fn settings(&self) -> Arc<Settings> {
        self.shared.settings.load_full()
    }

    /// The longest accepted message, in bytes.
    pub fn longest_message(&self) -> u64 {
        self.shared.settings.load().max_message
    }

    /// Number of published messages, by source.
    pub fn counts(&self) -> &Counts<Source> {
        &self.shared.counts
    }

    /// The hub itself, for read access.
    pub fn hub(&self) -> &Hub {
        &self.shared.hub
    }

    /// The time by this publisher's clock.
    pub fn now(&self) -> Time {
        (self.shared.clock)()
    }
}
