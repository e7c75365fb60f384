//! The nodes of a Redis cluster: its masters, found by asking all of them for the division of the
//! slots, now and then, and at once when something does not fit.
//!
//! **Owner of a slot.** A node's view of itself and of others counts by its config epoch, as among
//! the nodes themselves. A node that cannot be reached keeps its partitions until another one
//! claims them; publishes to them fail meanwhile, the others go on.
//!
//! **A partition that moves** takes its channels along: they are subscribed to at the new node,
//! then read. Their positions go on if nothing can have got lost (`continue.lua`): the old node,
//! after it gave the partition away, is the process that it was, and so is the new one since before
//! it got it. That takes looks at both, a few seconds apart at the most. In all other cases, as
//! after a failover, another server gives the positions, and a new epoch begins.

use super::connect::Access;
use super::continuity::{Judged, MasterState, judge};
use super::link::{Link, LinkConnection};
use super::nodes::Node;
use super::topology::{Master, slot};
use super::view::{View, ask};
use super::{OnWake, Server, Shared};
use crate::server::backplane::keys::PARTITIONS;
use redis::aio::ConnectionLike;
use redis::{AsyncConnectionConfig, Pipeline, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// Interval of looks while everything is in its place, and while it is not.
const LOOK: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(200));
/// Shortest pause after a look.
const REST: Duration = Duration::from_millis(30);
/// Time to wait for the two nodes between which a partition moves to agree.
const AGREE: Duration = Duration::from_secs(1);
/// Looks that are further apart prove nothing about the time between.
const RECENT: Duration = Duration::from_secs(10);

/// See the [module](self).
pub(super) struct Cluster {
    access: Arc<Access>,
    look: Notify,
    detached: Arc<Node>,
    /// All nodes have been asked once since the start.
    is_known: AtomicBool,
}

impl Cluster {
    /// Nothing is known of it yet; all partitions are `detached`.
    pub(super) fn new(access: Arc<Access>, detached: Arc<Node>) -> Self {
        Self { access, look: Notify::new(), detached, is_known: AtomicBool::new(false) }
    }

    /// Reason why it is not ready yet.
    pub(super) fn unready(&self) -> Option<String> {
        let known = self.is_known.load(Ordering::Relaxed);
        (!known).then(|| "not every node of the cluster has said what it has".to_owned())
    }
}

/// A master, as of the latest look.
struct Known {
    node: Arc<Node>,
    server: Server,
    /// The task that serves it; `None` = not started yet.
    task: Option<AbortHandle>,
    state: MasterState,
}

impl Known {
    fn is_up(&self) -> bool {
        self.node.link.line().is_ok()
    }
}

/// The known state of a cluster.
#[derive(Default)]
struct Knowledge {
    masters: BTreeMap<String, Known>,
    /// Time since when a partition is waited for.
    waiting: HashMap<u32, Instant>,
    last_look: Option<Instant>,
}

/// A partition that moves to another node, and the note to write there before.
struct Move {
    partition: u32,
    to: String,
    note: Option<redis::Cmd>,
    /// Nothing was lost on the way.
    whole: bool,
}

impl Shared {
    /// Something does not fit: the cluster may have divided its slots anew.
    pub(super) fn look_again(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.look.notify_one();
        }
    }

    /// Keeps the nodes of the cluster at work, for ever.
    pub(super) async fn keep_cluster(self: &Arc<Self>, cluster: &Cluster, on_wake: &OnWake) {
        let mut known = Knowledge::default();
        let mut tasks = JoinSet::new();
        loop {
            let found = known.look(cluster).await;
            self.meet(cluster, &mut known, &found);
            let moves = self.moves(cluster, &mut known, &found);
            let moves = self.note(&mut known, moves).await;
            self.move_to(cluster, &mut known, moves);
            for master in known.masters.values_mut().filter(|master| master.task.is_none()) {
                let shared = self.clone();
                let node = master.node.clone();
                let on_wake = on_wake.clone();
                let task = tasks.spawn(async move { shared.keep_node(&node, &on_wake).await });
                master.task = Some(task);
            }
            self.part(&mut known, &found);
            // Reap ended tasks.
            while tasks.try_join_next().is_some() {}
            known.last_look = Some(Instant::now());
            tokio::time::sleep(REST).await;
            let settled = self.is_settled(&known);
            cluster.is_known.fetch_or(settled, Ordering::Relaxed);
            let wait = if settled { LOOK.0 } else { LOOK.1 };
            let _ = tokio::time::timeout(wait, cluster.look.notified()).await;
        }
    }

    /// True if every partition is where it belongs, by its node's own view.
    fn is_settled(&self, known: &Knowledge) -> bool {
        let said = |node: &Arc<Node>| {
            let mut masters = known.masters.values();
            masters.any(|master| Arc::ptr_eq(&master.node, node) && master.state.claims().is_some())
        };
        known.waiting.is_empty() && self.nodes.now().all().iter().all(said)
    }

    /// Makes nodes of the masters that are new, or have moved.
    fn meet(&self, cluster: &Cluster, known: &mut Knowledge, found: &[View]) {
        for master in found.iter().flat_map(|view| &view.masters) {
            let before = known.masters.get(&master.id);
            if before.is_some_and(|before| before.server == master.server || before.is_up()) {
                continue;
            }
            let access = cluster.access.clone();
            let server = master.server.clone();
            let link = Link::to_node(access, server, self.keys.clone(), self.scripts.clone());
            let new = Known {
                node: Arc::new(Node::new(link)),
                server: master.server.clone(),
                task: None,
                state: MasterState::default(),
            };
            if let Some(before) = known.masters.insert(master.id.clone(), new) {
                before.task.iter().for_each(AbortHandle::abort);
            }
        }
    }

    /// The partitions that have to move.
    fn moves(&self, cluster: &Cluster, known: &mut Knowledge, found: &[View]) -> Vec<Move> {
        if found.is_empty() {
            return Vec::new();
        }
        let now = self.nodes.now();
        let mut moves = Vec::new();
        for partition in 0..PARTITIONS {
            let to = owner(found, partition);
            let there = to.as_ref().and_then(|to| known.masters.get(&to.id));
            if there.is_none() {
                let slot = slot(partition);
                cluster.detached.link.is_down(format!("no node says that it has slot {slot}"));
            }
            let node = there.map_or(&cluster.detached, |there| &there.node);
            let id = to.map_or_else(String::new, |to| to.id.clone());
            if Arc::ptr_eq(node, now.at(partition)) {
                known.waiting.remove(&partition);
                let there = known.masters.get_mut(&id);
                there.into_iter().for_each(|there| there.state.uses(partition));
                continue;
            }
            let since = *known.waiting.entry(partition).or_insert_with(Instant::now);
            let from =
                known.masters.values().find(|from| Arc::ptr_eq(&from.node, now.at(partition)));
            let is_patient = since.elapsed() < AGREE;
            let is_close = known.last_look.is_some_and(|last_look| last_look.elapsed() < RECENT);
            let from = from.map(|from| &from.state);
            let judged = match there {
                Some(there) => judge(partition, from, &there.state, is_patient, is_close),
                None if is_patient => Judged::Wait,
                None => Judged::New,
            };
            let (note, whole) = match judged {
                Judged::Wait => continue,
                Judged::New => (None, false),
                Judged::Note { from, to, term } => {
                    let note = self.scripts.lineage(self.keys.lineage(partition), from, to, term);
                    (Some(note), from.is_some())
                }
            };
            moves.push(Move { partition, to: id, note, whole });
        }
        moves
    }

    /// Writes the notes at the new nodes; returns the moves that may proceed, the others have to
    /// wait.
    async fn note(&self, known: &mut Knowledge, moves: Vec<Move>) -> Vec<Move> {
        let mut by_node: BTreeMap<String, Vec<Move>> = BTreeMap::new();
        let (noted, mut done): (Vec<_>, Vec<_>) =
            moves.into_iter().partition(|one| one.note.is_some());
        for one in noted {
            by_node.entry(one.to.clone()).or_default().push(one);
        }
        for (id, moves) in by_node {
            let line = known.masters.get(&id).and_then(|to| to.node.link.line().ok());
            let Some(line) = line else { continue };
            let answers = send_notes(line, &moves).await;
            for (one, answer) in moves.into_iter().zip(answers) {
                match answer {
                    Value::Int(1) => done.push(one),
                    // The next look tries again, and finds another server, too.
                    other => tracing::warn!(?other, "where channels come from cannot be noted"),
                }
            }
        }
        done
    }

    fn move_to(&self, cluster: &Cluster, known: &mut Knowledge, moves: Vec<Move>) {
        if moves.is_empty() {
            return;
        }
        let mut places = Vec::new();
        let mut reported: BTreeMap<(String, bool), u32> = BTreeMap::new();
        for Move { partition, to, whole, .. } in moves {
            known.waiting.remove(&partition);
            let node = match known.masters.get_mut(&to) {
                Some(there) => {
                    there.state.gets(partition);
                    there.node.clone()
                }
                None => cluster.detached.clone(),
            };
            *reported.entry((node.link.name().to_owned(), whole)).or_default() += 1;
            places.push((partition, node));
        }
        for ((redis, whole), partitions) in reported {
            tracing::info!(redis, partitions, whole, "a node of the cluster has more channels");
        }
        if self.nodes.hand_off(&places, |channel| self.hub.lost(channel)) > 0 {
            self.losses.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Drops the nodes that are no masters any more.
    fn part(&self, known: &mut Knowledge, found: &[View]) {
        if found.is_empty() {
            return;
        }
        let used = self.nodes.now().all();
        known.masters.retain(|id, master| {
            let listed = found.iter().flat_map(|view| &view.masters).any(|other| other.id == *id);
            let stays = listed || used.iter().any(|node| Arc::ptr_eq(node, &master.node));
            if !stays {
                master.task.iter().for_each(AbortHandle::abort);
            }
            stays
        });
    }
}

/// The owner of a partition, by the views at hand.
fn owner(found: &[View], partition: u32) -> Option<&Master> {
    let masters = found.iter().flat_map(|view| &view.masters);
    let claims = masters.filter(|master| master.has >> partition & 1 == 1);
    claims.max_by_key(|master| (master.epoch, master.is_asked))
}

impl Knowledge {
    /// Asks all nodes that can be asked; without any, those that the URL names. Returns their
    /// views.
    async fn look(&mut self, cluster: &Cluster) -> Vec<View> {
        let mut requests = JoinSet::new();
        for (id, master) in &self.masters {
            if let Ok(line) = master.node.link.line() {
                let id = id.clone();
                let server = master.server.clone();
                requests.spawn(async move { (id, ask(line.connection, &server).await) });
            }
        }
        let mut views: HashMap<String, View> = HashMap::new();
        while let Some(asked) = requests.join_next().await {
            if let Ok((id, Ok(view))) = asked {
                views.insert(id, view);
            }
        }
        for (id, master) in &mut self.masters {
            // Another node may have taken its address.
            let is_itself = |view: &View| view.own().is_none_or(|own| own.id == *id);
            let is_up = master.is_up();
            master.state.saw(views.remove(id).filter(is_itself), is_up);
        }
        let views = self.masters.values().filter_map(|master| master.state.view.clone());
        let found: Vec<_> = views.collect();
        if found.is_empty() { self.look_outside(cluster).await } else { found }
    }

    /// Asks the nodes of the URL, and the known ones, over connections of their own.
    async fn look_outside(&self, cluster: &Cluster) -> Vec<View> {
        let mut requests = JoinSet::new();
        let known = self.masters.values().map(|master| &master.server);
        let servers: BTreeSet<_> = cluster.access.url().servers().iter().chain(known).collect();
        for server in servers {
            let server = server.clone();
            let access = cluster.access.clone();
            requests.spawn(async move {
                let opened = access.open(&server, AsyncConnectionConfig::new()).await;
                match opened {
                    Ok(connection) => ask(connection, &server).await,
                    Err(reason) => Err(reason),
                }
                .map_err(|reason| format!("{server}: {reason}"))
            });
        }
        let mut reasons = Vec::new();
        while let Some(asked) = requests.join_next().await {
            match asked {
                Ok(Ok(view)) => return vec![view],
                Ok(Err(reason)) => reasons.push(reason),
                Err(_) => {}
            }
        }
        reasons.sort();
        cluster.detached.link.is_down(reasons.join("; "));
        Vec::new()
    }
}

/// Sends notes; returns a reply for each.
async fn send_notes(mut line: LinkConnection, moves: &[Move]) -> Vec<Value> {
    let mut pipe = Pipeline::new();
    for note in moves.iter().filter_map(|one| one.note.as_ref()) {
        pipe.add_command(note.clone());
    }
    let count = pipe.len();
    let sent = line.connection.req_packed_commands(&pipe, 0, count);
    let answers = tokio::time::timeout(AGREE, sent).await.ok().and_then(Result::ok);
    answers.unwrap_or_else(|| vec![Value::Nil; count])
}
