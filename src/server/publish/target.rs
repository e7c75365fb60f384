//! Whether messages are taken here, in another process, or not at all any more.

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

/// What came of that.
pub type Answered = Result<Vec<Receipt>, PublishError>;

/// Where messages are taken: into the hub (or to where positions are given), or elsewhere.
pub type Target = quiesce::Target<Remote>;
