//! Sentinels: they watch a master and its replicas, and know which one is the master.
//!
//! One of them is asked whenever a connection is made, the next one if it does not reply within
//! [`TIMEOUT`](super::link::TIMEOUT). Meanwhile one is subscribed to: it announces when it makes
//! another server the master (`+switch-master`), and is asked every [`PROBE`](super::link::PROBE),
//! as an announcement may get lost. Both use the same one, so that two that disagree do not send us
//! to and fro; it is doubted, and another one takes its place, when its reply turns out to be
//! wrong.

use super::Server;
use super::connect::Access;
use super::link::{PROBE, request, text};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, PushKind, Value, cmd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Time to wait before subscribing to another one.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// See the [module](self).
pub(super) struct Sentinels {
    access: Arc<Access>,
    master: String,
    /// Number of doubts so far, which selects the sentinel to ask.
    turn: AtomicUsize,
    announced: watch::Sender<Option<Server>>,
}

impl Sentinels {
    /// Those of the URL of `access`, which know `master`.
    pub(super) fn new(access: Arc<Access>, master: String) -> Self {
        let turn = AtomicUsize::new(0);
        let announced = watch::Sender::new(None);
        Self { access, master, turn, announced }
    }

    /// The master's address, from the first sentinel that replies.
    pub(super) async fn ask(&self) -> Result<Server, String> {
        let mut reasons = Vec::new();
        for _ in self.access.url().servers() {
            let turn = self.turn.load(Ordering::Relaxed);
            let sentinel = self.at(turn);
            match self.ask_one(sentinel).await {
                Ok(server) => return Ok(server),
                Err(reason) => reasons.push(format!("{sentinel}: {reason}")),
            }
            self.give_up(turn);
        }
        Err(format!("no sentinel says where the master is ({})", reasons.join("; ")))
    }

    async fn ask_one(&self, sentinel: &Server) -> Result<Server, String> {
        let config = AsyncConnectionConfig::new();
        let mut connection = self.access.open_sentinel(sentinel, config).await?;
        self.question(&mut connection).await
    }

    /// Asks over a connection, and stores the reply.
    async fn question(&self, connection: &mut MultiplexedConnection) -> Result<Server, String> {
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let server = match request(connection, &question).await {
            Ok(Value::Array(words)) => read(&words),
            Ok(Value::Nil) => return Err(format!("it knows no master \"{}\"", self.master)),
            Ok(_) => None,
            Err(reason) => return Err(reason),
        };
        let server = server.ok_or("it answers something else; is it a sentinel?")?;
        self.announced.send_if_modified(|announced| {
            let is_new = announced.as_ref() != Some(&server);
            *announced = Some(server.clone());
            is_new
        });
        Ok(server)
    }

    /// The current sentinel may be wrong; the next one takes its place.
    pub(super) fn suspect(&self) {
        self.give_up(self.turn.load(Ordering::Relaxed));
    }

    fn give_up(&self, turn: usize) {
        // Only once, even if several tasks have found it out.
        let set = Ordering::Relaxed;
        let get = Ordering::Relaxed;
        let _ = self.turn.compare_exchange(turn, turn.wrapping_add(1), set, get);
    }

    fn at(&self, turn: usize) -> &Server {
        let servers = self.access.url().servers();
        &servers[turn % servers.len()]
    }

    /// Waits until the master is elsewhere than at `server`.
    pub(super) async fn moved(&self, server: &Server) {
        let mut announced = self.announced.subscribe();
        let is_another = |announced: &Option<Server>| {
            announced.as_ref().is_some_and(|announced| announced != server)
        };
        // Its sender is in `self`.
        let _ = announced.wait_for(is_another).await;
    }

    /// Subscribes to one of them, for ever.
    pub(super) async fn keep(&self) {
        let mut before = String::new();
        loop {
            let turn = self.turn.load(Ordering::Relaxed);
            if let Err(reason) = self.listen(turn).await {
                let reason = format!("{}: {reason}", self.at(turn));
                if reason != before {
                    tracing::warn!(reason, "a sentinel cannot be listened to");
                }
                before = reason;
                self.give_up(turn);
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Listens until it fails, or another one takes its place.
    async fn listen(&self, turn: usize) -> Result<(), String> {
        let spoken = Arc::<Notify>::default();
        let speaks = spoken.clone();
        let config = AsyncConnectionConfig::new().set_push_sender(move |push: PushInfo| {
            if matches!(push.kind, PushKind::Message | PushKind::Disconnection) {
                speaks.notify_one();
            }
            Ok::<(), ()>(())
        });
        let sentinel = self.at(turn);
        let mut connection = self.access.open_sentinel(sentinel, config).await?;
        let mut subscribe = cmd("SUBSCRIBE");
        request(&mut connection, subscribe.arg("+switch-master")).await?;
        while self.turn.load(Ordering::Relaxed) == turn {
            self.question(&mut connection).await?;
            // Any announcement is a reason to ask.
            let _ = tokio::time::timeout(PROBE, spoken.notified()).await;
        }
        Ok(())
    }
}

fn read(words: &[Value]) -> Option<Server> {
    let [host, port] = words else { return None };
    let host = text(host)?.to_owned();
    let port = text(port)?.parse().ok()?;
    Some(Server { host, port })
}
