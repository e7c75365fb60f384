//! Reads channels from Redis that have just been joined, or may have missed a message. Those that
//! hold polls come first.

use super::link::{self, LinkConnection, TIMEOUT, reason};
use super::nodes::Node;
use super::scripts::snapshot;
use super::{OnWake, Shared};
use crate::hub::channel::{ChannelName, Position, SyncRequest};
use parking_lot::Mutex;
use redis::Value;
use redis::aio::ConnectionLike;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::Notify;

/// Channels read in one go: it bounds the memory of a reply.
const BATCH: usize = 32;
/// Time to wait after a read that failed.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Channels to read; each is there once at the most.
#[derive(Default)]
pub(super) struct Reads {
    queues: Mutex<[VecDeque<ChannelName>; 2]>,
    more: Notify,
}

impl Reads {
    pub(super) fn add(&self, channel: ChannelName, first: bool) {
        self.queues.lock()[usize::from(!first)].push_back(channel);
        self.more.notify_one();
    }

    pub(super) fn len(&self) -> usize {
        self.queues.lock().iter().map(VecDeque::len).sum()
    }

    async fn next(&self) -> Vec<ChannelName> {
        loop {
            let batch: Vec<_> = {
                let mut queues = self.queues.lock();
                let mut next = || {
                    let [first, then] = &mut *queues;
                    first.pop_front().or_else(|| then.pop_front())
                };
                std::iter::from_fn(&mut next).take(BATCH).collect()
            };
            if !batch.is_empty() {
                return batch;
            }
            self.more.notified().await;
        }
    }
}

/// One read under way.
struct Read {
    channel: ChannelName,
    number: u64,
    after: Position,
}

impl Shared {
    /// Reads queued channels at `node`, for ever.
    pub(super) async fn read_all(&self, node: &Node, on_wake: &OnWake) {
        loop {
            let begin = |channel: ChannelName| {
                if !self.nodes.is_at(&channel, node) {
                    // It has moved, and with it the request.
                    let first = self.hub.held_on(&channel) > 0;
                    self.nodes.wants(channel, SyncRequest::Read, first);
                    return None;
                }
                let (number, after) = self.hub.read_begins(&channel)?;
                Some(Read { channel, number, after })
            };
            let reads: Vec<_> = node.reads.next().await.into_iter().filter_map(begin).collect();
            if !reads.is_empty() && !self.read(node, reads, on_wake).await {
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }

    /// Returns true if all of it went well; failed reads are queued again.
    async fn read(&self, node: &Node, reads: Vec<Read>, on_wake: &OnWake) -> bool {
        let mut values = self.ask(node, &reads).await.into_iter();
        let mut well = true;
        for read in reads {
            match values.next().and_then(snapshot) {
                Some(snapshot) => {
                    let now = (self.clock)();
                    let ended = self.hub.read_ends(&read.channel, read.number, snapshot, now);
                    on_wake(ended.wake, 0);
                }
                None => {
                    well = false;
                    if self.hub.read_failed(&read.channel, read.number) {
                        let first = self.hub.held_on(&read.channel) > 0;
                        self.nodes.wants(read.channel, SyncRequest::Read, first);
                    }
                }
            }
        }
        well
    }

    /// Gives up a connection over which reads are refused, unless it is for a while.
    fn handle_errors(&self, node: &Node, line: &LinkConnection, values: &[Value]) {
        for value in values {
            let Value::ServerError(error) = value else { continue };
            if self.cluster.is_some() && link::is_redirection(error) {
                self.look_again();
                continue;
            }
            tracing::warn!(error = ?error, "a channel's history cannot be read");
            node.link.give_up(line, format!("{error:?}"));
            return;
        }
    }

    /// The replies in the order of the reads; none at all if the connection fails.
    async fn ask(&self, node: &Node, reads: &[Read]) -> Vec<Value> {
        let Ok(mut line) = node.link.line() else { return Vec::new() };
        let mut pipe = redis::pipe();
        for read in reads {
            pipe.add_command(self.scripts.read(&self.keys, &read.channel, read.after));
        }
        let asked = line.connection.req_packed_commands(&pipe, 0, reads.len());
        match tokio::time::timeout(TIMEOUT * 2, asked).await {
            Ok(Ok(values)) => {
                self.handle_errors(node, &line, &values);
                values
            }
            Ok(Err(error)) => {
                node.link.give_up(&line, reason(&error));
                Vec::new()
            }
            Err(_) => {
                node.link.give_up(&line, "a read was not answered");
                Vec::new()
            }
        }
    }
}
