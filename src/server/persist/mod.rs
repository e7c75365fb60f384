//! Persistence: the history beyond one process, in a file or handed to a successor.

pub mod handover;
pub mod snapshot;
