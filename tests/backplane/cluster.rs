//! A Redis Cluster on loopback: masters that share the slots, and replicas of the first ones.

use super::redis::Redis;
use crate::support::eventually_some;
use std::time::Duration;

/// Bound on waiting for the cluster.
const BOUND: Duration = Duration::from_secs(40);
const MASTERS: usize = 3;
/// First slot of each master; every master has some of the channels c0 to c8.
const SLOTS: [usize; MASTERS + 1] = [0, 5_700, 9_000, 16_384];

/// See the [module](self). Dropping it ends all of it.
pub(crate) struct RedisCluster {
    /// The masters at first, then the replicas.
    pub(crate) nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Three masters, the first `replicas` of which have a replica each.
    pub(crate) async fn start(replicas: usize) -> RedisCluster {
        let mut nodes = Vec::new();
        let args = [
            ["--cluster-enabled", "yes"],
            ["--cluster-node-timeout", "1500"],
            // Those that are left go on.
            ["--cluster-require-full-coverage", "no"],
            ["--repl-diskless-sync-delay", "0"],
        ];
        for _ in 0..MASTERS + replicas {
            nodes.push(Redis::start_with(args.as_flattened()).await);
        }
        let cluster = RedisCluster { nodes };
        cluster.join().await;
        cluster
    }

    async fn join(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            ok(&node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]));
            if index < MASTERS {
                let first = SLOTS[index].to_string();
                let last = (SLOTS[index + 1] - 1).to_string();
                ok(&node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]));
            }
            let first = self.nodes[0].port().to_string();
            ok(&node.ask(&["CLUSTER", "MEET", "127.0.0.1", &first]));
        }
        let count = format!("cluster_known_nodes:{}", self.nodes.len());
        self.all_say(&[&count]).await;
        for replica in MASTERS..self.nodes.len() {
            let master = self.id(replica - MASTERS);
            let replica = &self.nodes[replica];
            ok(&replica.ask(&["CLUSTER", "REPLICATE", &master]));
            let linked = async || {
                let info = replica.ask(&["INFO", "replication"]);
                info.contains("master_link_status:up").then_some(())
            };
            eventually_some("a replica that follows", BOUND, linked).await;
        }
        self.all_say(&["cluster_state:ok", "cluster_slots_assigned:16384"]).await;
    }

    async fn all_say(&self, words: &[&str]) {
        let say = async || {
            let info = |node: &Redis| node.ask(&["CLUSTER", "INFO"]);
            let says = |info: String| words.iter().all(|word| info.contains(word));
            self.nodes.iter().all(|node| says(info(node))).then_some(())
        };
        eventually_some("a cluster that stands", BOUND, say).await;
    }

    /// URL for the gates: some of the nodes.
    pub(crate) fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{}", self.nodes[0].port())
    }

    /// The slot that a channel is in.
    pub(crate) fn slot_of(&self, channel: &str) -> String {
        let partition = crc32fast::hash(channel.as_bytes()) % 64;
        let key = format!("pg:{{{partition}}}:s:{channel}");
        self.nodes[0].ask(&["CLUSTER", "KEYSLOT", &key])
    }

    pub(crate) fn id(&self, node: usize) -> String {
        self.nodes[node].ask(&["CLUSTER", "MYID"])
    }

    /// The number of the master that had a channel at first.
    pub(crate) fn node_of(&self, channel: &str) -> usize {
        let slot: usize = self.slot_of(channel).parse().unwrap();
        (0..MASTERS).find(|node| slot < SLOTS[node + 1]).unwrap()
    }

    /// Opens the slot of a channel for its way from one node to another.
    pub(crate) fn begin_migration(&self, channel: &str, from: usize, to: usize) {
        let slot = self.slot_of(channel);
        let source = &self.nodes[from];
        let target = &self.nodes[to];
        ok(&target.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id(from)]));
        ok(&source.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.id(to)]));
    }

    /// Moves the slot of a channel, with all that is in it, as `redis-cli --cluster reshard` does.
    pub(crate) fn migrate(&self, channel: &str, from: usize, to: usize) {
        self.begin_migration(channel, from, to);
        let slot = self.slot_of(channel);
        let source = &self.nodes[from];
        let target = &self.nodes[to];
        let to_id = self.id(to);
        loop {
            let keys = source.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
            let keys: Vec<_> = keys.lines().filter(|key| !key.is_empty()).collect();
            if keys.is_empty() {
                break;
            }
            let port = target.port().to_string();
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            migrate.extend(keys);
            let done = source.ask(&migrate);
            // A key that has just expired needs no move.
            assert!(done == "OK" || done == "NOKEY", "{done}");
        }
        for node in [target, source].into_iter().chain(&self.nodes) {
            let said = node.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
            assert!(said == "OK" || said.contains("with masters"), "{said}");
        }
    }
}

fn ok(answer: &str) {
    assert_eq!(answer, "OK");
}
