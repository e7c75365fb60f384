//! One cluster node's view of itself and of the others.

use super::Server;
use super::link::reason;
use super::scripts::number;
use super::topology::{Master, masters};
use redis::Value;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use std::time::Duration;

/// Timeout of a node's reply.
const TIMEOUT: Duration = Duration::from_millis(700);

/// See the [module](self).
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The id of its data, the same before and after the rest was read.
    pub(super) replid: String,
    /// Microseconds since 1970 by its clock, after that.
    pub(super) time: u64,
    pub(super) masters: Vec<Master>,
}

impl View {
    /// Its own entry, if it is a master.
    pub(super) fn own(&self) -> Option<&Master> {
        self.masters.iter().find(|master| master.is_asked)
    }
}

/// Asks the node at `server`; the error is the reason of a failure.
pub(super) async fn ask(
    mut connection: MultiplexedConnection,
    server: &Server,
) -> Result<View, String> {
    let mut pipe = redis::pipe();
    pipe.cmd("INFO").arg("replication").cmd("CLUSTER").arg("NODES");
    pipe.cmd("INFO").arg("replication").cmd("TIME");
    let asked = connection.req_packed_commands(&pipe, 0, pipe.len());
    let Ok(answers) = tokio::time::timeout(TIMEOUT, asked).await else {
        return Err("it does not say how the slots are divided".to_owned());
    };
    let answers = answers.map_err(|error| reason(&error))?;
    for answer in &answers {
        if let Value::ServerError(error) = answer {
            return Err(refused(error));
        }
    }
    read(&answers, server).ok_or_else(|| "it has answered something else".to_owned())
}

fn refused(error: &redis::ServerError) -> String {
    let detail = error.details().unwrap_or_default();
    match detail.contains("cluster support disabled") {
        true => "it is no node of a cluster; write redis:// and one server".to_owned(),
        false => format!("{} {detail}", error.code()),
    }
}

fn read(answers: &[Value], server: &Server) -> Option<View> {
    let [before, nodes, after, Value::Array(time)] = answers else { return None };
    let replid = replid(text(before)?)?;
    // Its data has changed between the two.
    if Some(replid) != self::replid(text(after)?) {
        return None;
    }
    let time = number(time.first()?)? * 1_000_000 + number(time.get(1)?)?;
    Some(View { replid: replid.to_owned(), time, masters: masters(text(nodes)?, server)? })
}

fn replid(info: &str) -> Option<&str> {
    info.lines().find_map(|line| line.strip_prefix("master_replid:")).map(str::trim)
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::VerbatimString { text, .. } => Some(text),
        other => super::link::text(other),
    }
}
