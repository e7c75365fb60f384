//! pollgate's ground floor with its unit tests.

#[path = "../../../src"]
mod floor {
    pub mod channel;
    pub mod hub;
}

pub use floor::*;
