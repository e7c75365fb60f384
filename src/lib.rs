//! pollgate.
pub mod address;
pub mod admin;
pub mod channel;
pub mod hub;
pub mod internal;
pub mod publish;
pub mod query;
pub mod secret;
pub mod web;
