//! Whether the gate answers on the internal side itself, leaves that to another process, or is
//! past answering.

use crate::protocol::http::{Reply, Request};
use crate::server::net::quiesce;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Passes a request on to another process and answers what that answered.
pub type Remote = Arc<dyn Fn(Request) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync>;

/// Where requests are answered.
pub type Target = quiesce::Target<Remote>;

/// What is said when there is nobody left to answer.
pub(super) fn ended() -> Reply {
    Reply::error(503, "the gate has ended", "try again; the next one may be there already")
}
