//! Webhooks: POSTs to the site about the users on its channels.
//!
//! Each `[[webhook]]` has one queue and one request under way, so events arrive in the order in
//! which they happened, of every channel. What has come within [`GATHER`] goes in one request. One
//! that is not answered with 2xx is repeated with growing pauses for [`REPEAT`], with the same
//! body; the queue waits meanwhile. So each event arrives at least once, unless the receiver is away
//! for longer: then it counts as failed. At [`MAX_QUEUE`] new events are dropped and counted.
//!
//! The body is `{"time_ms","events":[{"name","channel","user"?}]}`, and with a secret
//! `Pollgate-Signature: sha256=<hex HMAC-SHA-256 of the body>`. For a Pusher app, channels and users
//! are named as Pusher does, its clients' events, cache misses and numbers of subscriptions are
//! among the events, and its secret signs in `X-Pusher-Signature`.

mod event;
mod queue;
mod send;

pub use event::{Detail, Event, EventName, Sent};
use queue::{Queue, Room};

use crate::hub::channel::{ChannelName, SiteName};
use crate::protocol::address::Address;
use crate::protocol::auth::Url;
use crate::protocol::auth::secret::Secret;
use crate::protocol::pusher::App;
use crate::protocol::pusher::channel::USER_PREFIX;
use crate::server::net::tls_client::TlsClient;
use crate::server::telemetry::metrics::{Counts, labels};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Events that happen within this time go in one request.
const GATHER: Duration = Duration::from_millis(500);
/// The most events in one request, and their weight.
const MAX_BATCH: Room = Room { events: 500, weight: 256 << 10 };
/// The most events that wait for one webhook, and their weight.
const MAX_QUEUE: Room = Room { events: 10_000, weight: 8 << 20 };
/// Time for which a request is repeated.
const REPEAT: Duration = Duration::from_secs(300);

/// A `[[webhook]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The site whose events it gets.
    pub site: SiteName,
    /// The receiver: a path on the upstream, or another server.
    pub url: Url,
    /// TLS to that server; `None` = plain HTTP.
    pub tls: Option<TlsClient>,
    /// `Host` of requests to a path; empty = the server's address.
    pub host: String,
    /// The events that it gets.
    pub events: Vec<EventName>,
    /// The key of the signatures; empty = none.
    pub secret: Secret,
    /// The Pusher app whose events it gets, in that protocol's form.
    pub pusher: Option<Arc<App>>,
}

impl Settings {
    fn gets(&self, name: EventName, channel: &ChannelName) -> bool {
        // Pusher knows no events of a user's own channel.
        let is_own = |app: &Arc<App>| {
            app.name_of(channel).is_some_and(|name| !name.starts_with(USER_PREFIX))
        };
        self.events.contains(&name)
            && channel.is_of(&self.site)
            && self.pusher.as_ref().is_none_or(is_own)
    }
}

labels! {
    /// The end of an event.
    Outcome {
        /// The receiver has it.
        Sent = "sent",
        /// The receiver did not take it in time.
        Failed = "failed",
        /// There was no room in the queue.
        Dropped = "dropped",
    }
}

labels! {
    /// Why a request was not taken, and is repeated.
    Cause {
        /// There was no connection, or it broke.
        Connection = "connection",
        /// TLS failed; a certificate is not trusted, mostly.
        Tls = "tls",
        /// The receiver did not answer in time.
        Timeout = "timeout",
        /// It answered with another status than 2xx.
        Status = "status",
    }
}

/// Names the upstream servers of a site at the moment.
pub type Servers = Box<dyn Fn(&SiteName) -> Vec<Address> + Send + Sync>;

/// A cheap handle to all webhooks.
#[derive(Clone)]
pub struct Webhooks {
    shared: Arc<Shared>,
}

struct Shared {
    hooks: Mutex<Vec<Arc<Hook>>>,
    changed: Notify,
    counts: Arc<Counts<Outcome>>,
    failures: Counts<Cause>,
    servers: Servers,
}

/// One webhook.
struct Hook {
    settings: Settings,
    queue: Queue,
}

impl Webhooks {
    /// Webhooks to paths on `servers`; nothing is sent before [`Webhooks::run`].
    pub fn new(settings: &[Settings], servers: Servers) -> Self {
        let shared = Shared {
            hooks: Mutex::default(),
            changed: Notify::new(),
            counts: Arc::default(),
            failures: Counts::default(),
            servers,
        };
        let webhooks = Self { shared: Arc::new(shared) };
        webhooks.apply(settings);
        webhooks
    }

    /// Applies new settings. A webhook that stays as it is keeps its queue; the events of one that
    /// is gone are dropped.
    pub fn apply(&self, settings: &[Settings]) {
        let mut hooks = self.shared.hooks.lock();
        let mut before = std::mem::take(&mut *hooks);
        for new in settings {
            let known = before.iter().position(|hook| hook.settings == *new);
            hooks.push(match known {
                Some(known) => before.swap_remove(known),
                None => Arc::new(Hook { settings: new.clone(), queue: Queue::default() }),
            });
        }
        drop(hooks);
        for gone in before {
            self.shared.counts.add(Outcome::Dropped, gone.queue.clear() as u64);
        }
        self.shared.changed.notify_one();
    }

    /// True if a webhook gets such an event.
    pub fn want(&self, name: EventName, channel: &ChannelName) -> bool {
        self.shared.hooks.lock().iter().any(|hook| hook.settings.gets(name, channel))
    }

    /// Queues an event at the webhooks that get its kind.
    pub fn push(&self, event: &Event) {
        let hooks = self.shared.hooks.lock();
        let gets = |hook: &&Arc<Hook>| hook.settings.gets(event.name, &event.channel);
        for hook in hooks.iter().filter(gets) {
            if !hook.queue.push(event.clone(), MAX_QUEUE) {
                self.shared.counts.count(Outcome::Dropped);
            }
        }
    }

    /// True if no event waits.
    pub fn is_idle(&self) -> bool {
        self.shared.hooks.lock().iter().all(|hook| hook.queue.is_empty())
    }

    /// Number of events by their end.
    pub fn counts(&self) -> &Counts<Outcome> {
        &self.shared.counts
    }

    /// Number of requests that were not taken, by cause.
    pub fn failures(&self) -> &Counts<Cause> {
        &self.shared.failures
    }

    /// Sends events, for ever. Cancelling it ends that.
    pub async fn run(&self) {
        let mut running: Vec<Running> = Vec::new();
        loop {
            let hooks = self.shared.hooks.lock().clone();
            running.retain(|task| hooks.iter().any(|hook| Arc::ptr_eq(hook, &task.hook)));
            for hook in hooks {
                if !running.iter().any(|task| Arc::ptr_eq(&hook, &task.hook)) {
                    let task = send::send_all(hook.clone(), self.shared.clone());
                    running.push(Running { hook, task: tokio::spawn(task) });
                }
            }
            self.shared.changed.notified().await;
        }
    }
}

/// The task of a webhook, which ends with this.
struct Running {
    hook: Arc<Hook>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}
