//! Whether messages are taken here, in another process, or not at all any more.

use super::{By, PublishError, Receipt};
use crate::channel::{ChannelName, Payload};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Publishes in another process.
pub type Onward = Arc<
    dyn Fn(Vec<(ChannelName, Payload)>, By) -> Pin<Box<dyn Future<Output = Answered> + Send>>
        + Send
        + Sync,
>;

/// What came of that.
pub type Answered = Result<Vec<Receipt>, PublishError>;

/// Where messages go.
#[derive(Clone, Default)]
pub enum Door {
    /// Into the hub, or to the engine.
    #[default]
    Open,
    /// Into another process.
    Onward(Onward),
    /// Nowhere any more: the gate has ended.
    Shut,
}
