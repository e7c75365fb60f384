//! Formats: bytes to values and back. Nothing here waits, opens a file or reads a clock.

pub mod address;
pub mod archive;
pub mod auth;
pub mod dialect;
pub mod http;
pub mod pusher;
pub mod template;
