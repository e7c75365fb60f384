//! The connection for commands to one server: publishes and reads.
//!
//! It is either up, or down with a known reason; nothing waits for it to come back. One that fails
//! a command or a probe is given up and made anew.

use super::connect::{Access, LinkTarget};
use super::keys::{Keys, LAYOUT, PARTITIONS};
use super::scripts::Scripts;
use super::tls::describe;
use super::topology::Partitions;
use super::{Kind, Server};
use crate::server::net::tls_client::cause;
use arc_swap::ArcSwap;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Cmd, PushInfo, PushKind, RedisError, ServerError, ServerErrorKind,
    Value, cmd,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Timeout of a server's reply.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);
/// Interval of probes of an idle connection.
pub(super) const PROBE: Duration = Duration::from_secs(2);
/// Pause before reconnecting, the shortest and the longest.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// See the [module](self).
pub(super) struct Link {
    access: Arc<Access>,
    place: LinkTarget,
    /// Its name in messages.
    name: String,
    keys: Keys,
    /// The partitions in which the layout is noted and checked.
    noted: AtomicU64,
    scripts: Arc<Scripts>,
    state: ArcSwap<State>,
    trouble: Notify,
}

/// State of the connection.
enum State {
    Up(MultiplexedConnection),
    Down(String),
}

/// The connection of one moment.
pub(super) struct LinkConnection {
    pub(super) connection: MultiplexedConnection,
    state: Arc<State>,
}

impl Link {
    pub(super) fn new(
        access: Arc<Access>,
        place: LinkTarget,
        keys: Keys,
        scripts: Arc<Scripts>,
    ) -> Self {
        let state = ArcSwap::from_pointee(State::Down("not connected yet".to_owned()));
        let name = access.url().to_string();
        let noted = AtomicU64::new(1 << (PARTITIONS - 1));
        Self { access, place, name, keys, noted, scripts, state, trouble: Notify::new() }
    }

    /// The link to a node of a cluster, which is at `server`.
    pub(super) fn to_node(
        access: Arc<Access>,
        server: Server,
        keys: Keys,
        scripts: Arc<Scripts>,
    ) -> Self {
        let name = server.to_string();
        let link = Self::new(access, LinkTarget::Fixed(server), keys, scripts);
        Self { name, noted: AtomicU64::new(0), ..link }
    }

    /// Its name in messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A node of a cluster has these partitions.
    pub(super) fn has(&self, partitions: Partitions) {
        self.noted.store(partitions, Ordering::Relaxed);
    }

    /// There is no connection and there will be none.
    pub(super) fn is_down(&self, reason: String) {
        self.state.store(Arc::new(State::Down(reason)));
    }

    /// The connection, or the reason why there is none.
    pub(super) fn line(&self) -> Result<LinkConnection, String> {
        let state = self.state.load_full();
        match &*state {
            State::Up(connection) => Ok(LinkConnection { connection: connection.clone(), state }),
            State::Down(reason) => Err(format!("Redis at {} is away: {reason}", self.name)),
        }
    }

    /// Gives up `line`, which has failed; from now on there is none until a new one stands.
    pub(super) fn give_up(&self, line: &LinkConnection, reason: impl Into<String>) {
        if self.end(line, reason.into()) {
            self.trouble.notify_one();
        }
    }

    /// True if `line` was the one in use.
    fn end(&self, line: &LinkConnection, reason: String) -> bool {
        let before = self.state.compare_and_swap(&line.state, Arc::new(State::Down(reason)));
        Arc::ptr_eq(&before, &line.state)
    }

    /// Keeps the connection up, for ever.
    pub(super) async fn keep(&self) {
        tokio::join!(self.place.keep(), self.keep_connected());
    }

    async fn keep_connected(&self) {
        let mut wait = RETRY_DELAY.0;
        loop {
            let closed = Arc::<Notify>::default();
            match self.connect(&closed).await {
                Ok((server, connection)) => {
                    tracing::info!(redis = %server, "connected to the backplane");
                    wait = RETRY_DELAY.0;
                    self.serve(&server, connection, &closed).await;
                }
                Err(reason) => {
                    self.place.suspect();
                    if self.has_update(&reason) {
                        tracing::warn!(redis = self.name, reason, "the backplane is away");
                    }
                    self.state.store(Arc::new(State::Down(reason)));
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_DELAY.1);
        }
    }

    fn has_update(&self, reason: &str) -> bool {
        !matches!(&**self.state.load(), State::Down(before) if before == reason)
    }

    /// Probes the connection until it fails, or is `closed`.
    async fn serve(&self, server: &Server, connection: MultiplexedConnection, closed: &Notify) {
        let state = Arc::new(State::Up(connection.clone()));
        self.state.store(state.clone());
        let line = LinkConnection { connection, state };
        loop {
            tokio::select! {
                () = tokio::time::sleep(PROBE) => {}
                () = closed.notified() => {
                    self.end(&line, "the connection was closed".to_owned());
                    break;
                }
                () = self.moved(server) => {
                    self.end(&line, "another server is the master now".to_owned());
                    break;
                }
                // Given up already, unless that was an earlier connection.
                () = self.trouble.notified() => {
                    if !Arc::ptr_eq(&self.state.load(), &line.state) {
                        break;
                    }
                }
            }
            if let Err(reason) = is_master(&mut line.connection.clone()).await {
                self.end(&line, reason);
                break;
            }
        }
        if let State::Down(reason) = &**self.state.load() {
            tracing::warn!(redis = %server, reason, "the backplane is away");
        }
    }

    /// A connection to the server's current address.
    pub(super) async fn open(
        &self,
        config: AsyncConnectionConfig,
    ) -> Result<(Server, MultiplexedConnection), String> {
        let server = self.place.find().await?;
        match self.access.open(&server, config).await {
            Ok(connection) => Ok((server, connection)),
            Err(reason) if self.name.ends_with(&server.to_string()) => Err(reason),
            Err(reason) => Err(format!("{server}: {reason}")),
        }
    }

    /// Waits until the server is known to be elsewhere than at `server`.
    pub(super) async fn moved(&self, server: &Server) {
        self.place.moved(server).await;
    }

    async fn connect(
        &self,
        closed: &Arc<Notify>,
    ) -> Result<(Server, MultiplexedConnection), String> {
        let closed = closed.clone();
        let config = AsyncConnectionConfig::new().set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                closed.notify_one();
            }
            Ok::<(), ()>(())
        });
        let (server, mut connection) = self.open(config).await?;
        is_master(&mut connection).await?;
        self.check_layout(&mut connection).await?;
        for script in self.scripts.all() {
            let load = script.load_async(&mut connection).await;
            load.map_err(|error| reason(&error))?;
        }
        Ok((server, connection))
    }

    /// Gates that divide the channels in another way would not get each other's messages.
    async fn check_layout(&self, connection: &mut MultiplexedConnection) -> Result<(), String> {
        let noted = self.noted.load(Ordering::Relaxed);
        let mut pipe = redis::pipe();
        for partition in (0..PARTITIONS).filter(|partition| noted >> partition & 1 == 1) {
            pipe.cmd("SET").arg(self.keys.layout(partition)).arg(LAYOUT).arg("NX").arg("GET");
        }
        let count = pipe.len();
        let found = if count == 0 {
            Ok(Vec::new())
        } else {
            connection.req_packed_commands(&pipe, 0, count).await
        };
        for found in found.map_err(|error| reason(&error))? {
            match found {
                Value::Nil => {}
                // A slot that is about to move; its next owner finds the note there.
                Value::ServerError(error) if self.is_node() && is_redirection(&error) => {}
                Value::ServerError(error) if is_redirection(&error) => {
                    return Err("it is a node of a cluster; write redis-cluster://".to_owned());
                }
                found if text(&found) == Some(LAYOUT) => {}
                found => {
                    let found = found.extract_error().map_err(|error| reason(&error))?;
                    return Err(format!(
                        "its keys are laid out as {:?}, for another version of pollgate, not as \
                         {LAYOUT:?}; use another backplane.prefix",
                        text(&found).unwrap_or("something else")
                    ));
                }
            }
        }
        Ok(())
    }

    fn is_node(&self) -> bool {
        *self.access.url().kind() == Kind::Cluster
    }
}

/// Checks that the server at the other end gives positions; else the reason.
async fn is_master(connection: &mut MultiplexedConnection) -> Result<(), String> {
    let role = request(connection, &cmd("ROLE")).await?;
    let word = match &role {
        Value::Array(words) => words.first().and_then(text),
        _ => None,
    };
    match word {
        Some("master") => Ok(()),
        Some("sentinel") => {
            Err("it is a sentinel; write redis-sentinel:// and the master's name".to_owned())
        }
        _ => Err("it is a replica; name the master".to_owned()),
    }
}

/// Checks that the server still replies; else the reason.
pub(super) async fn ping(connection: &MultiplexedConnection) -> Result<(), String> {
    request(&mut connection.clone(), &cmd("PING")).await.map(drop)
}

/// The reply to a command; a server's error is an error.
pub(super) async fn request(
    connection: &mut MultiplexedConnection,
    cmd: &Cmd,
) -> Result<Value, String> {
    let value = connection.req_packed_command(cmd).await;
    value.and_then(Value::extract_error).map_err(|error| reason(&error))
}

/// True if a node of a cluster refuses a command as it does not have the slot, or not all of it. It
/// has done nothing then.
pub(super) fn is_redirection(error: &ServerError) -> bool {
    let kinds = [ServerErrorKind::Moved, ServerErrorKind::Ask, ServerErrorKind::TryAgain];
    // Raised within a script.
    let within = || error.details().is_some_and(|detail| detail.contains("non local key"));
    error.kind().is_some_and(|kind| kinds.contains(&kind)) || within()
}

/// The reason of an error, in words that fit behind "Redis is away".
pub(super) fn reason(error: &RedisError) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", TIMEOUT.as_secs());
    }
    cause(error).map_or_else(|| error.to_string(), describe)
}

/// The text of a reply.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}
