//! The hub with its unit tests.

#[path = "../../../src/hub/mod.rs"]
pub mod hub;
