//! The servers, and the partitions of the channels that each of them has.
//!
//! One server has all of them, or the masters of a cluster share them, and may hand them off
//! (`cluster.rs`). A [`Node`] is the state to work with one: a connection for commands, one for
//! pushes, and the reads that wait.

use super::keys::{Keys, PARTITIONS};
use super::link::Link;
use super::reads::Reads;
use super::subscriptions::Members;
use super::topology::Partitions;
use crate::hub::channel::{ChannelName, SyncRequest};
use arc_swap::{ArcSwap, Guard};
use parking_lot::RwLock;
use std::sync::Arc;

/// One server, as it is used from here.
pub(super) struct Node {
    pub(super) link: Link,
    pub(super) members: Members,
    pub(super) reads: Reads,
}

impl Node {
    pub(super) fn new(link: Link) -> Self {
        Self { link, members: Members::default(), reads: Reads::default() }
    }

    /// The node of channels that no server has.
    pub(super) fn detached(link: Link) -> Self {
        Self { link, members: Members::detached(), reads: Reads::default() }
    }

    /// Reasons why it is not ready.
    fn unready(&self) -> impl Iterator<Item = String> + use<> {
        let pushes = self.members.unready();
        let pushes = pushes.map(|reason| format!("Redis at {}: {reason}", self.link.name()));
        self.link.line().err().into_iter().chain(pushes)
    }
}

/// The node of each partition.
type Map = Vec<Arc<Node>>;

/// See the [module](self).
pub(super) struct Nodes {
    map: ArcSwap<Map>,
    /// Held while channels change their node, so that none of their requests gets lost on the way.
    moving: RwLock<()>,
}

impl Nodes {
    /// All partitions are at `node`.
    pub(super) fn one(node: Arc<Node>) -> Self {
        let map = vec![node; PARTITIONS as usize];
        Self { map: ArcSwap::from_pointee(map), moving: RwLock::new(()) }
    }

    /// Moves each partition of `moves` to another node. Calls `lost` for the subscribed channels
    /// and subscribes to them there; returns their number.
    pub(super) fn hand_off(
        &self,
        moves: &[(u32, Arc<Node>)],
        lost: impl Fn(&ChannelName),
    ) -> usize {
        let _moving = self.moving.write();
        let before = self.map.load_full();
        let mut map = (*before).clone();
        for (partition, node) in moves {
            map[*partition as usize] = node.clone();
        }
        for (_, node) in moves {
            node.link.has(partitions_of(&map, node));
        }
        self.map.store(Arc::new(map));
        let mut count = 0;
        for (partition, node) in moves {
            let is_in = |channel: &ChannelName| Keys::partition(channel) == *partition;
            let channels = before[*partition as usize].members.take(is_in);
            count += channels.len();
            for channel in channels {
                lost(&channel);
                node.members.join_again(channel);
            }
        }
        count
    }

    /// The current map of the partitions.
    pub(super) fn now(&self) -> Now {
        Now(self.map.load())
    }

    /// True if a channel is at `node`.
    pub(super) fn is_at(&self, channel: &ChannelName, node: &Node) -> bool {
        std::ptr::eq(Arc::as_ptr(self.now().of(channel)), node)
    }

    /// Does `work` if a channel is at `node`, and keeps it there meanwhile.
    pub(super) fn while_at(&self, channel: &ChannelName, node: &Node, work: impl FnOnce()) {
        let _moving = self.moving.read();
        if self.is_at(channel, node) {
            work();
        }
    }

    /// Queues a channel's request at its node.
    pub(super) fn wants(&self, channel: ChannelName, want: SyncRequest, first: bool) {
        let _moving = self.moving.read();
        let now = self.now();
        let node = now.of(&channel);
        match want {
            SyncRequest::Join => node.members.join(channel),
            SyncRequest::Read => node.reads.add(channel, first),
        }
    }
}

fn partitions_of(map: &Map, node: &Arc<Node>) -> Partitions {
    let has = map.iter().enumerate().filter(|(_, other)| Arc::ptr_eq(other, node));
    has.fold(0, |has, (partition, _)| has | 1 << partition)
}

/// The map of the partitions at one moment.
pub(super) struct Now(Guard<Arc<Map>>);

impl Now {
    /// The node of a channel.
    pub(super) fn of(&self, channel: &ChannelName) -> &Arc<Node> {
        &self.0[Keys::partition(channel) as usize]
    }

    /// The node of a partition.
    pub(super) fn at(&self, partition: u32) -> &Arc<Node> {
        &self.0[partition as usize]
    }

    /// The nodes that have a partition, each once.
    pub(super) fn all(&self) -> Vec<Arc<Node>> {
        let mut nodes: Vec<Arc<Node>> = Vec::new();
        for node in self.0.iter() {
            if !nodes.iter().any(|known| Arc::ptr_eq(known, node)) {
                nodes.push(node.clone());
            }
        }
        nodes
    }

    /// Reasons why they are not ready.
    pub(super) fn unready(&self) -> Vec<String> {
        self.all().iter().flat_map(|node| node.unready()).collect()
    }
}
