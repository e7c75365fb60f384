//! Channels as plain data: names, messages, positions and the history that keeps them.
//!
//! Nothing here waits, locks or reads the clock; the time is an argument. The table of channels,
//! with its locks and its held polls, is [`crate::hub`].

mod cursor;
mod history;
mod message;
mod name;
mod stamp;
mod sync;

pub use cursor::{Cursor, Epoch, Position};
pub use history::{
    Accepted, Following, History, KeptMessage, Limits, Lookup, Messages, Moment, Persisted, Take,
};
pub use message::{Kind, Message, Payload, RenderKey, Renders};
pub use name::{ChannelName, NameError, Pattern, SiteName};
pub use stamp::{ShownStamp, Stamp, Tick, Time};
pub use sync::{ReplicaState, Snapshot, Start, Step, SyncRequest};
