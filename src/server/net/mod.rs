//! Sockets, streams and certificates, as the services share them.

pub mod certificate;
pub mod client;
pub mod listener;
pub mod quiesce;
pub mod random;
pub mod resolve;
pub mod socket_file;
pub mod stream;
pub mod tls_client;
pub(crate) mod write_stall;
