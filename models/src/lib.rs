//! The hub on locks and atomics at each of which the model checker may let
//! another thread go on.

#![allow(dead_code)]

pub mod locks;

include!(concat!(env!("OUT_DIR"), "/hub.rs"));
