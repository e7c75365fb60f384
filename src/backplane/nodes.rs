//! The servers, and which of them has which partition of the channels.
//!
//! One server has all of them. A [`Node`] is what it takes to work with one: a connection for
//! commands, one for pushes, and the reads that wait.

use super::keys::{Keys, PARTITIONS};
use super::link::Link;
use super::members::Members;
use super::reads::Reads;
use crate::channel::{ChannelName, Want};
use arc_swap::{ArcSwap, Guard};
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

    /// Why not everything is as it should be.
    fn unready(&self) -> impl Iterator<Item = String> + use<> {
        self.link.line().err().into_iter().chain(self.members.unready())
    }
}

/// The node of each partition.
type Map = Vec<Arc<Node>>;

/// See the [module](self).
pub(super) struct Nodes {
    map: ArcSwap<Map>,
}

impl Nodes {
    /// All partitions are at `node`.
    pub(super) fn one(node: Node) -> Self {
        let node = Arc::new(node);
        let map = vec![node; PARTITIONS as usize];
        Self { map: ArcSwap::from_pointee(map) }
    }

    /// Where the partitions are at this moment.
    pub(super) fn now(&self) -> Now {
        Now(self.map.load())
    }

    /// What a channel wants is to be done at its node.
    pub(super) fn wants(&self, channel: ChannelName, want: Want, first: bool) {
        let now = self.now();
        let node = now.of(&channel);
        match want {
            Want::Join => node.members.join(channel),
            Want::Read => node.reads.add(channel, first),
        }
    }
}

/// Where the partitions are at one moment.
pub(super) struct Now(Guard<Arc<Map>>);

impl Now {
    /// The node of a channel.
    pub(super) fn of(&self, channel: &ChannelName) -> &Arc<Node> {
        &self.0[Keys::partition(channel) as usize]
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

    /// Why not everything is as it should be.
    pub(super) fn unready(&self) -> Vec<String> {
        self.all().iter().flat_map(|node| node.unready()).collect()
    }
}
