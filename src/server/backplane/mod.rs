//! Many gates, one table: channels shared over Redis.
//!
//! Every publish is one script in Redis, which gives the message its position, keeps it in the
//! channel's history and pushes it to the gates. A gate joins a channel at its first poll,
//! and leaves it [`LINGER`] after its last one; meanwhile polls are served from its own table
//! ([`crate::hub`]), which merges pushes and reads as [`crate::hub::channel::Feed`] says.
//!
//! **Nothing waits for Redis to come back.** A publish while it is away fails at once and
//! says so; one that is not answered says that nobody knows. Polls stay held, and are answered
//! when the channels have caught up.
//!
//! **Bounds.** Pushes that wait are bounded by number and bytes (`pushes.rs`), reads by their
//! batch (`reads.rs`); subscriptions and their queues by the number of channels in the table.

mod cluster;
mod commands;
mod connect;
mod continuity;
mod envelope;
mod keys;
mod link;
mod nodes;
mod pushes;
mod reads;
mod scripts;
mod sentinel;
mod subscriptions;
mod tls;
mod topology;
mod url;
mod view;

pub use tls::Tls;
pub use url::{Kind, Server, Url, UrlError};

use crate::hub::channel::{
    ChannelName, Epoch, Message, Payload, Position, Stamp, SyncRequest, Time,
};
use crate::hub::{Hub, Published, WakeSet};
use crate::protocol::auth::secret::Secret;
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
    /// Where Redis is.
    pub redis: Url,
    /// What its keys begin with.
    pub prefix: String,
    /// The password of the sentinels; empty = they have none.
    pub sentinel_password: Secret,
    /// The files for TLS.
    pub files: TlsFiles,
    /// What is in them, and whom this machine trusts; there if the URL asks for TLS.
    pub tls: Option<Tls>,
    /// Pushes that may wait to be worked off; beyond it they are dropped, and read later.
    pub queue: usize,
}

impl Settings {
    /// With room for as many pushes as a burst may bring.
    pub fn new(redis: Url, prefix: String) -> Self {
        let (sentinel_password, files, tls) = Default::default();
        Self { redis, prefix, sentinel_password, files, tls, queue: 16_384 }
    }
}

/// The files that TLS to Redis needs, as PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who is trusted; `None` = whom this machine trusts.
    pub ca: Option<PathBuf>,
    /// The certificate that is shown to Redis, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How long a channel stays subscribed after its last poll.
pub const LINGER: Duration = Duration::from_secs(60);
/// How often channels are looked through for those to leave and those to audit.
const SWEEP: Duration = Duration::from_secs(5);
/// In how many sweeps each channel is audited once.
const AUDIT: usize = 12;
/// Messages published in one go.
const BATCH: usize = 128;

/// Rings the polls that a message from elsewhere releases, and counts how many messages were new.
pub type OnWake = Arc<dyn Fn(WakeSet, u64) + Send + Sync>;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Redis cannot be reached, or has refused; nothing was done.
    #[error("{0}")]
    Away(String),
    /// No answer came; it may have been done or not.
    #[error("{0}")]
    Unknown(String),
    /// The idempotency key was used with another message.
    #[error("this Idempotency-Key was used with another message")]
    Conflict,
}

/// What the backplane has to say about itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Channels that are subscribed to, or to be.
    pub subscriptions: u64,
    /// Channels that wait to be read.
    pub reads: u64,
    /// How often pushes were lost since the start: connections that ended, and overflows.
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
    wants: tokio::sync::Mutex<mpsc::UnboundedReceiver<(ChannelName, SyncRequest)>>,
}

/// What the channels of a table want, on its way to the backplane. It is bounded by their number,
/// as each says it once.
pub struct SyncRequests(mpsc::UnboundedReceiver<(ChannelName, SyncRequest)>);

/// The two ends: one for [`Hub::fed`], one for [`Backplane::new`].
pub fn wants() -> (crate::hub::SyncSink, SyncRequests) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let origin = Arc::new(move |channel: &ChannelName, want| {
        // Nobody listens any more at the end of the process.
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
        let node = Arc::new(if is_cluster { Node::nowhere(link) } else { Node::new(link) });
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
            wants: tokio::sync::Mutex::new(wants.0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Keeps the connections and the channels, for ever. Cancelling it ends all of that.
    pub async fn run(&self, on_wake: OnWake) {
        let shared = &self.shared;
        tokio::join!(shared.keep_all(&on_wake), shared.pass_on_wants(), shared.sweep());
    }

    /// Why not everything is as it should be; empty = it is.
    pub fn unready(&self) -> Vec<String> {
        let cluster = self.shared.cluster.as_ref().and_then(Cluster::unready);
        self.shared.nodes.now().unready().into_iter().chain(cluster).collect()
    }

    /// Stats of this moment.
    pub fn figures(&self) -> Stats {
        let nodes = self.shared.nodes.now().all();
        Stats {
            subscriptions: nodes.iter().map(|node| node.members.len() as u64).sum(),
            reads: nodes.iter().map(|node| node.reads.len() as u64).sum(),
            losses: self.shared.losses.load(Ordering::Relaxed),
        }
    }

    /// Publishes `posts` and offers them to the channels here. With a key, and how long that is
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
        let (stamp, position) = (Stamp(stamp.unwrap_or_default()), Position { epoch, seq: 0 });
        Ok(Some(shared.hub.reborn(channel, position, stamp, (shared.clock)())))
    }

    /// Brings a channel that is not joined here to where it is elsewhere, so that it can be
    /// looked at. Where that fails, what is here is all there is to see.
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
        let message = || Message { position, stamp, published: now, payload: payload.clone() };
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

    /// Leaves the channels that nobody polls any more; audits the others in turn.
    async fn sweep(&self) {
        let mut ticks = tokio::time::interval(SWEEP);
        for round in 0.. {
            ticks.tick().await;
            let before = (self.clock)().before(LINGER);
            for node in self.nodes.now().all() {
                for (index, channel) in node.members.all().iter().enumerate() {
                    if self.hub.leave(channel, before) {
                        node.members.leave(channel, |channel| self.hub.is_joined(channel));
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

    /// What is to be told first: a wrong key, then that nobody knows.
    fn rank(&self) -> u8 {
        match self {
            Self::Conflict => 0,
            Self::Unknown(_) => 1,
            Self::Away(_) => 2,
        }
    }

    /// Where messages before it were published, nobody can say that nothing was.
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
