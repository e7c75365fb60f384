//! Errors of building the gate.

use crate::protocol::address::Address;
use crate::protocol::archive::ArchiveError;
use crate::server::gate::upstream::UpstreamError;
use crate::server::persist::handover::{HandoverError, SocketError};
use crate::server::persist::snapshot::SnapshotError;
use std::io;

/// Reasons why the gate cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The gate cannot listen on an address.
    #[error("cannot listen on {0}: {1}")]
    Listen(Address, io::Error),
    /// An upstream server cannot be used.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The gate cannot listen for signals.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    /// TLS cannot be set up.
    #[error("cannot speak TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(io::Error),
    /// The history cannot be kept in its file.
    #[error("{0}; change history.snapshot, or who may write there")]
    Snapshot(#[from] SnapshotError),
    /// A running gate cannot be found by its config.
    #[error("no running gate can be found by this config; name its upgrade.socket")]
    NoMeeting,
    /// The running gate cannot be reached.
    #[error("{0}; is it there, run by the same user, with the same upgrade.socket?")]
    UpgradeSocket(#[from] SocketError),
    /// The running gate did not hand over; it continues.
    #[error("{0}; the running gate goes on")]
    Handover(#[from] HandoverError),
    /// The history of the running gate cannot be read; it continues.
    #[error("the history of the running gate: {0}; it goes on")]
    Inherited(#[from] ArchiveError),
}
