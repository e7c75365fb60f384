//! pollgate.
pub mod address;
pub mod channel;
pub mod client;
pub mod dialect;
pub mod gate;
pub mod hub;
pub mod limits;
pub mod listen;
pub mod log;
pub mod query;
pub mod secret;
pub mod template;
pub mod web;
