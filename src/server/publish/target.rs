//! Target of messages: this process, its successor, or none any more.

use super::{PublishError, Receipt, Source};
use crate::hub::channel::{ChannelName, Payload};
use crate::server::net::quiesce;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Publishes in another process.
pub type Remote = Arc<
    dyn Fn(Vec<(ChannelName, Payload)>, Source) -> Pin<Box<dyn Future<Output = Answered> + Send>>
        + Send
        + Sync,
>;

/// The result of that publish.
pub type Answered = Result<Vec<Receipt>, PublishError>;

/// The process that takes messages: this one (into the hub or to the sequencer), or its successor.
pub type Target = quiesce::Target<Remote>;
