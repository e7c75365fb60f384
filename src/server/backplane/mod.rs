//! The backplane: many gates share their channels over Redis.
//!
//! Every publish is one script in Redis, which gives the message its position, keeps it in the
//! channel's history and pushes it to the gates. A gate joins a channel at its first poll, and
//! leaves it [`LINGER`] after its last one; meanwhile polls are served from its own table
//! ([`crate::hub`]), which merges pushes and reads as [`crate::hub::channel::ReplicaState`]
//! describes.
//!
//! **Nothing waits for Redis to come back.** A publish while it is away fails at once, with that
//! reason; one without a reply fails as unknown. Polls stay held, and are answered when the
//! channels have caught up.
//!
//! **Bounds.** Pushes that wait are bounded by number and bytes (`pushes.rs`), reads by their batch
//! (`reads.rs`); subscriptions and their queues by the number of channels in the table.

mod cluster;
mod commands;
mod connect;
mod continuity;
mod directory;
mod envelope;
mod keys;
mod link;
mod nodes;
mod presence;
mod pushes;
mod reads;
mod scripts;
mod sentinel;
mod subscriptions;
mod tls;
mod topology;
mod url;
mod view;

pub use directory::{Entries, Entry, Lost};
pub use url::{Kind, Server, Url, UrlError};

use crate::hub::channel::{
    ChannelName, Epoch, Message, Payload, Position, Stamp, SyncRequest, Time,
};
use crate::hub::{Hub, Published, WakeSet};
use crate::protocol::auth::secret::Secret;
use crate::server::net::tls_client::TlsClient;
use cluster::Cluster;
use commands::Call;
use connect::{Access, LinkTarget};
use keys::Keys;
use link::Link;
use nodes::{Node, Nodes};
use redis::Value;
use scripts::{Placed, Scripts};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// `[backplane]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The servers of Redis.
    pub redis: Url,
    /// Prefix of its keys.
    pub prefix: String,
    /// The password of the sentinels; empty = they have none.
    pub sentinel_password: Secret,
    /// The files for TLS.
    pub files: TlsFiles,
    /// Their contents, and the machine's authorities; present if the URL asks for TLS.
    pub tls: Option<TlsClient>,
    /// Upper bound of waiting pushes; beyond it they are dropped, and read later.
    pub queue: usize,
    /// After this time without a sign of life a gate's users count as gone.
    pub lease: Duration,
}

impl Settings {
    /// With room for as many pushes as a burst may bring.
    pub fn new(redis: Url, prefix: String) -> Self {
        let (sentinel_password, files, tls) = Default::default();
        let lease = Duration::from_secs(30);
        Self { redis, prefix, sentinel_password, files, tls, queue: 16_384, lease }
    }
}

/// The files that TLS to Redis needs, as PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Trusted authorities; `None` = those of this machine.
    pub ca: Option<PathBuf>,
    /// The certificate presented to Redis, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Time that a channel stays subscribed after its last poll.
pub const LINGER: Duration = Duration::from_secs(60);
/// Interval of sweeps, which find channels to leave and to audit.
const SWEEP: Duration = Duration::from_secs(5);
/// Number of sweeps in which each channel is audited once.
const AUDIT: usize = 12;
/// Messages published in one go.
const BATCH: usize = 128;

/// Notifies the polls that a message from Redis releases, and counts the new messages.
pub type OnWake = Arc<dyn Fn(WakeSet, u64) + Send + Sync>;

/// Reason why a request to Redis failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Redis cannot be reached, or has refused; nothing was done.
    #[error("{0}")]
    Away(String),
    /// No reply came; it may have been done or not.
    #[error("{0}")]
    Unknown(String),
    /// The idempotency key was used with another message.
    #[error("this Idempotency-Key was used with another message")]
    Conflict,
}

/// The backplane's stats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Channels that are subscribed to, or will be.
    pub subscriptions: u64,
    /// Channels that wait to be read.
    pub reads: u64,
    /// Losses of pushes since the start: connections that ended, and overflows.
    pub losses: u64,
}

/// A cheap handle.
#[derive(Clone)]
pub struct Backplane {
    shared: Arc<Shared>,
}

struct Shared {
    hub: Hub,
    clock: fn() -> Time,
    keys: Keys,
    scripts: Arc<Scripts>,
    nodes: Nodes,
    cluster: Option<Cluster>,
    queue: usize,
    losses: AtomicU64,
    presence: presence::Presence,
    directory: directory::Directory,
    wants: tokio::sync::Mutex<mpsc::UnboundedReceiver<(ChannelName, SyncRequest)>>,
}

/// Requests of a table's channels to the backplane. It is bounded by their number, as each requests
/// a thing once.
pub struct SyncRequests(mpsc::UnboundedReceiver<(ChannelName, SyncRequest)>);

/// The two ends: one for [`Hub::replica`], one for [`Backplane::new`].
pub fn wants() -> (crate::hub::SyncSink, SyncRequests) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let origin = Arc::new(move |channel: &ChannelName, want| {
        // At the end of the process the receiver is gone.
        let _ = sender.send((channel.clone(), want));
    });
    (origin, SyncRequests(receiver))
}

impl Backplane {
    /// A backplane that feeds `hub`; nothing happens before [`Backplane::run`].
    pub fn new(settings: &Settings, hub: Hub, wants: SyncRequests, clock: fn() -> Time) -> Self {
        let keys = Keys::new(settings.prefix.clone());
        let is_cluster = *settings.redis.kind() == Kind::Cluster;
        let scripts = Arc::new(Scripts::new(is_cluster));
        let access = Arc::new(Access::new(settings));
        let place = LinkTarget::of(&access);
        let link = Link::new(access.clone(), place, keys.clone(), scripts.clone());
        let node = Arc::new(if is_cluster { Node::detached(link) } else { Node::new(link) });
        let cluster = is_cluster.then(|| Cluster::new(access, node.clone()));
        let shared = Shared {
            hub,
            clock,
            keys,
            scripts,
            nodes: Nodes::one(node),
            cluster,
            queue: settings.queue,
            losses: AtomicU64::new(0),
            presence: presence::Presence::new(settings.lease),
            directory: directory::Directory::default(),
            wants: tokio::sync::Mutex::new(wants.0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Keeps the connections and the channels, for ever. Cancelling it ends all of that.
    pub async fn run(&self, on_wake: OnWake) {
        let shared = &self.shared;
        tokio::join!(
            shared.keep_all(&on_wake),
            shared.pass_on_wants(),
            shared.sweep(),
            shared.keep_presence(),
            shared.keep_directory()
        );
    }

    /// Reasons why it is not ready; empty = it is.
    pub fn unready(&self) -> Vec<String> {
        let cluster = self.shared.cluster.as_ref().and_then(Cluster::unready);
        self.shared.nodes.now().unready().into_iter().chain(cluster).collect()
    }

    /// Stats of this moment.
    pub fn stats(&self) -> Stats {
        let nodes = self.shared.nodes.now().all();
        Stats {
            subscriptions: nodes.iter().map(|node| node.members.len() as u64).sum(),
            reads: nodes.iter().map(|node| node.reads.len() as u64).sum(),
            losses: self.shared.losses.load(Ordering::Relaxed),
        }
    }

    /// Publishes `posts` and offers them to the channels here. With a key, and the time that it is
    /// known, a repetition is not published again.
    pub async fn publish(
        &self,
        posts: &[(ChannelName, Payload)],
        once: Option<(&str, Duration)>,
    ) -> Result<Vec<Published>, Failure> {
        let shared = &self.shared;
        let mut published = Vec::with_capacity(posts.len());
        for (batch, chunk) in posts.chunks(BATCH).enumerate() {
            let call = |(index, (channel, payload)): (usize, &(ChannelName, Payload))| -> Call {
                let limits = shared.hub.limits(channel);
                let index = batch * BATCH + index;
                let once = once.map(|(key, kept)| (shared.keys.once(channel, index, key), kept));
                let scripts = &shared.scripts;
                let publish =
                    scripts.publish(&shared.keys, channel, payload, &limits, once.as_ref());
                (channel.clone(), publish)
            };
            let calls: Vec<_> = chunk.iter().enumerate().map(call).collect();
            let mut failed = Vec::new();
            for ((channel, payload), answer) in chunk.iter().zip(shared.call(&calls).await) {
                match answer.and_then(|value| read_placed(&value)) {
                    Ok(placed) => published.push(shared.offer(channel, payload, placed)),
                    Err(failure) => failed.push(failure),
                }
            }
            if let Some(failure) = failed.into_iter().min_by_key(Failure::rank) {
                return Err(failure.after(!published.is_empty()));
            }
        }
        Ok(published)
    }

    /// Forgets a channel everywhere; `None` if there is none. The wake is that of the polls held
    /// here.
    pub async fn forget(&self, channel: &ChannelName) -> Result<Option<WakeSet>, Failure> {
        let shared = &self.shared;
        let epoch = Epoch::from_random(fastrand::u64(..));
        let forget = shared.scripts.forget(&shared.keys, channel, epoch);
        let stamp = shared.call_one(channel, forget).await?;
        if stamp == Value::Nil {
            return Ok(None);
        }
        let stamp = link::text(&stamp).and_then(|text| text.parse().ok());
        let stamp = Stamp(stamp.unwrap_or_default());
        let position = Position { epoch, seq: 0 };
        Ok(Some(shared.hub.reborn(channel, position, stamp, (shared.clock)())))
    }

    /// Brings a channel that is not joined here up to date with Redis, so that it can be inspected.
    /// If that fails, the local history is all there is to see.
    pub async fn refresh(&self, channel: &ChannelName) {
        let shared = &self.shared;
        if shared.hub.is_joined(channel) {
            return;
        }
        let read = shared.scripts.read(&shared.keys, channel, Position::NOWHERE);
        let Ok(found) = shared.call_one(channel, read).await else { return };
        let snapshot = scripts::snapshot(found);
        if let Some(snapshot) = snapshot.filter(|snapshot| snapshot.place.is_some()) {
            // A table without room shows what it has.
            let _ = shared.hub.refresh(channel, snapshot, (shared.clock)());
        }
    }
}

impl Shared {
    /// Keeps the nodes at work, for ever.
    async fn keep_all(self: &Arc<Self>, on_wake: &OnWake) {
        match &self.cluster {
            Some(cluster) => self.keep_cluster(cluster, on_wake).await,
            None => self.keep_node(self.nodes.now().at(0), on_wake).await,
        }
    }

    async fn keep_node(&self, node: &Node, on_wake: &OnWake) {
        tokio::join!(
            node.link.keep(),
            self.keep_pushes(node, on_wake),
            self.read_all(node, on_wake)
        );
    }

    /// Puts a message that has its position on its channel here, if that follows it.
    fn offer(&self, channel: &ChannelName, payload: &Payload, placed: Placed) -> Published {
        let now = (self.clock)();
        let Placed { position, stamp } = placed;
        let message =
            || Message { position, stamp, tag: 0, published: now, payload: payload.clone() };
        let pushed = self.hub.offered(channel, message(), now);
        let tick = self.hub.tick(channel);
        let released = pushed.wake.len() + pushed.before;
        Published { message: Arc::new(message()), tick, wake: pushed.wake, released }
    }

    async fn pass_on_wants(&self) {
        let mut wants = self.wants.lock().await;
        while let Some((channel, want)) = wants.recv().await {
            let first = want == SyncRequest::Read && self.hub.held_on(&channel) > 0;
            self.nodes.wants(channel, want, first);
        }
    }

    /// Leaves the channels without recent polls; audits the others in turn.
    async fn sweep(&self) {
        let mut ticks = tokio::time::interval(SWEEP);
        for round in 0.. {
            ticks.tick().await;
            let before = (self.clock)().before(LINGER);
            for node in self.nodes.now().all() {
                for (index, channel) in node.members.all().iter().enumerate() {
                    if self.hub.unsubscribe(channel, before) {
                        node.members.unsubscribe(channel, |channel| self.hub.is_joined(channel));
                    } else if index % AUDIT == round % AUDIT {
                        self.hub.audit(channel);
                    }
                }
            }
        }
    }
}

impl Failure {
    fn of_server(error: &redis::ServerError) -> Self {
        if error.code() == "CONFLICT" {
            return Self::Conflict;
        }
        if link::is_redirection(error) {
            let reason = "Redis Cluster is moving the channel to another node";
            return Self::Away(reason.to_owned());
        }
        let detail = error.details().unwrap_or_default();
        Self::Away(format!("Redis refuses: {} {detail}", error.code()))
    }

    /// Rank for reports: a wrong key first, then an unknown outcome.
    fn rank(&self) -> u8 {
        match self {
            Self::Conflict => 0,
            Self::Unknown(_) => 1,
            Self::Away(_) => 2,
        }
    }

    /// If messages before it were published, it can no longer mean that nothing was.
    fn after(self, some: bool) -> Self {
        match self {
            Self::Away(reason) if some => Self::Unknown(reason),
            other => other,
        }
    }
}

fn read_placed(value: &Value) -> Result<Placed, Failure> {
    let strange = || Failure::Unknown("Redis has answered something else".to_owned());
    scripts::placed(value).ok_or_else(strange)
}
