//! The Mercure hub (`docs/dialects/mercure.md`), in every way to the gate.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod mercure {
    pub(crate) mod hub;
    mod hub_sides;
    mod limits;
    mod matching;
    mod publishing;
    mod streams;
}
mod support;
