//! Target of internal requests: this process, its successor, or none any more.

use crate::protocol::http::{Reply, Request};
use crate::server::net::quiesce;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Passes a request on to another process and returns its response.
pub type Remote = Arc<dyn Fn(Request) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync>;

/// The process that answers requests.
pub type Target = quiesce::Target<Remote>;

/// The response once no process answers any more.
pub(super) fn ended() -> Reply {
    Reply::error(503, "the gate has ended", "try again; the next one may be there already")
}
