//! The connection for pushes from one server: subscriptions, and the messages that come over them.
//!
//! **Overflow.** Pushes that have come and are not handled yet are bounded by number and bytes.
//! Beyond that, as when the connection is lost or a probe fails, all channels are stale: they are
//! subscribed to anew on a new connection, in batches, and then read.

use super::link::{self, PROBE, TIMEOUT, reason};
use super::nodes::Node;
use super::subscriptions::{Change, UnsubscribeCause};
use super::{OnWake, Shared, envelope};
use crate::hub::channel::ChannelName;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, PushInfo, PushKind, ServerError, ServerErrorKind, Value, cmd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Time to wait for a cluster to report where a slot is.
const SETTLING: Duration = Duration::from_millis(200);
/// Upper bound of the bytes of waiting pushes.
const QUEUE_BYTES: usize = 64 << 20;
/// Pause before reconnecting, the shortest and the longest.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Pushes on their way from the connection to the channels.
struct Queue {
    sender: mpsc::Sender<PushInfo>,
    bytes: Arc<AtomicUsize>,
    overflowed: Arc<AtomicBool>,
}

impl Queue {
    /// Takes one in, unless there are too many.
    fn put(&self, push: PushInfo) -> Result<(), ()> {
        let length = length(&push);
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        if before > QUEUE_BYTES || self.sender.try_send(push).is_err() {
            self.overflowed.store(true, Ordering::Relaxed);
            return Err(());
        }
        Ok(())
    }
}

fn length(push: &PushInfo) -> usize {
    match push.data.last() {
        Some(Value::BulkString(bytes)) => bytes.len(),
        _ => 0,
    }
}

/// The pushes of one connection.
struct Stream {
    pushes: mpsc::Receiver<PushInfo>,
    bytes: Arc<AtomicUsize>,
    overflowed: Arc<AtomicBool>,
}

/// A queue of so many pushes, and its other end.
fn queue(most: usize) -> (Queue, Stream) {
    let (sender, pushes) = mpsc::channel(most);
    let bytes = Arc::<AtomicUsize>::default();
    let overflowed = Arc::<AtomicBool>::default();
    let stream = Stream { pushes, bytes: bytes.clone(), overflowed: overflowed.clone() };
    (Queue { sender, bytes, overflowed }, stream)
}

impl Shared {
    /// Keeps the subscriptions at `node`, for ever.
    pub(super) async fn keep_pushes(&self, node: &Node, on_wake: &OnWake) {
        let mut wait = RETRY_DELAY.0;
        loop {
            let began = tokio::time::Instant::now();
            let reason = self.serve_pushes(node, on_wake).await;
            let stale = node.members.end(&reason);
            let redis = node.link.name();
            let channels = stale.len();
            tracing::warn!(redis, reason, channels, "pushes from the backplane are lost");
            self.losses.fetch_add(1, Ordering::Relaxed);
            for channel in &stale {
                // One that has moved meanwhile was lost before, and may be subscribed to again.
                self.nodes.while_at(channel, node, || self.hub.lost(channel));
            }
            self.look_again();
            if began.elapsed() > RETRY_DELAY.1 * 2 {
                wait = RETRY_DELAY.0;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_DELAY.1);
        }
    }

    /// Serves until the connection fails; returns the reason.
    async fn serve_pushes(&self, node: &Node, on_wake: &OnWake) -> String {
        let (queue, stream) = queue(self.queue);
        let config = AsyncConnectionConfig::new().set_push_sender(move |push| queue.put(push));
        let (server, connection) = match node.link.open(config).await {
            Ok(opened) => opened,
            Err(reason) => return reason,
        };
        node.members.begin(|channel| self.hub.held_on(channel) > 0);
        tokio::select! {
            reason = self.receive(node, stream, on_wake) => reason,
            reason = self.subscribe(node, connection.clone()) => reason,
            reason = probe(&connection) => reason,
            () = node.link.moved(&server) => "another server is the master now".to_owned(),
        }
    }

    async fn receive(&self, node: &Node, mut stream: Stream, on_wake: &OnWake) -> String {
        while let Some(push) = stream.pushes.recv().await {
            stream.bytes.fetch_sub(length(&push), Ordering::Relaxed);
            if stream.overflowed.load(Ordering::Relaxed) {
                return "more pushes came than could be worked off".to_owned();
            }
            match push.kind {
                PushKind::Message | PushKind::SMessage => self.pushed(node, push.data, on_wake),
                PushKind::Subscribe | PushKind::SSubscribe => {
                    if let Some(channel) = self.named(&push.data) {
                        node.members.confirmed(&channel, |channel| self.hub.confirmed(channel));
                    }
                }
                PushKind::Unsubscribe | PushKind::SUnsubscribe => {
                    if let Some(channel) = self.named(&push.data)
                        && node.members.ended(&channel) == UnsubscribeCause::Unasked
                    {
                        // The slot has moved, and so will the subscription.
                        self.nodes.while_at(&channel, node, || {
                            self.hub.lost(&channel);
                            node.members.join_again(channel.clone());
                        });
                        self.look_again();
                    }
                }
                PushKind::Disconnection => break,
                _ => {}
            }
        }
        "the connection was closed".to_owned()
    }

    /// The channel that a push names first.
    fn named(&self, data: &[Value]) -> Option<ChannelName> {
        match data.first()? {
            Value::BulkString(name) => self.keys.channel(name),
            _ => None,
        }
    }

    fn pushed(&self, node: &Node, data: Vec<Value>, on_wake: &OnWake) {
        let Some(channel) = self.named(&data) else { return };
        let Some(Value::BulkString(body)) = data.into_iter().nth(1) else { return };
        let Some(message) = envelope::read(body) else {
            tracing::warn!(%channel, "somebody published what is no message; it is ignored");
            return;
        };
        let pushed = self.hub.pushed(&channel, message, (self.clock)());
        on_wake(pushed.wake, u64::from(pushed.stored));
        if pushed.unwanted {
            node.members.unsubscribe(&channel, |channel| self.hub.is_joined(channel));
        }
    }

    async fn subscribe(&self, node: &Node, mut connection: MultiplexedConnection) -> String {
        loop {
            let (change, batch) = node.members.next().await;
            let command = match change {
                Change::Join => self.scripts.subscribe(),
                Change::Unsubscribe => self.scripts.unsubscribe(),
            };
            // One command for each, so that each has one reply.
            let mut pipe = redis::pipe();
            for channel in &batch {
                let mut one = cmd(command);
                one.arg(self.keys.pushes(channel));
                pipe.add_command(one);
            }
            let done = connection.req_packed_commands(&pipe, 0, batch.len()).await;
            let values = match done {
                Ok(values) => values,
                Err(error) => return reason(&error),
            };
            let errors = values.iter().filter_map(|value| match value {
                Value::ServerError(error) => Some(error),
                _ => None,
            });
            let mut moved = false;
            for error in errors {
                if self.cluster.is_none() || !is_passing(error) {
                    return format!("Redis refuses: {error:?}");
                }
                moved = true;
            }
            // The confirmations wait behind the replies.
            let wait = if moved { SETTLING } else { TIMEOUT * 2 };
            if tokio::time::timeout(wait, node.members.all_answered()).await.is_ok() {
                continue;
            }
            if !moved {
                return "subscriptions are not confirmed".to_owned();
            }
            // A look at the cluster finds their place meanwhile.
            self.look_again();
            node.members.send_again();
        }
    }
}

/// True if a node of a cluster is likely to answer otherwise soon.
fn is_passing(error: &ServerError) -> bool {
    link::is_redirection(error) || error.kind() == Some(ServerErrorKind::ClusterDown)
}

async fn probe(connection: &MultiplexedConnection) -> String {
    loop {
        tokio::time::sleep(PROBE).await;
        if let Err(reason) = link::ping(connection).await {
            return reason;
        }
    }
}
