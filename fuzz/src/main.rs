//! Whatever the bytes, nothing panics, and what is understood is understood as it was meant.
//!
//! One program for all targets; `TARGET` in the environment chooses one. The sources are compiled
//! in here, so that they alone are watched by libFuzzer.

#![no_main]
#![allow(dead_code, unused_imports, unreachable_pub)]

mod targets;

#[path = "../../src"]
mod pollgate {
    pub mod address;
    pub mod adopt;
    pub mod archive;
    pub mod auth;
    pub mod channel;
    pub mod dialect;
    pub mod hub;
    pub mod query;
    pub mod secret;
    pub mod strict;
    pub mod template;
    pub mod web;

    /// The lane's reader of heads.
    pub mod gate {
        pub mod front {
            pub mod head;

            /// The method, the target, and whether the lane answers it itself.
            pub fn plain(bytes: &[u8], seen: usize) -> Option<(String, String, bool)> {
                let bounds = head::Bounds { bytes: 16 * 1024, headers: 100 };
                let head::Sighting::Head(length) = head::sight(bytes, seen, bounds) else {
                    return None;
                };
                let own = |head: &head::Head<'_>| {
                    (head.method.to_owned(), head.target.to_owned(), head.plain)
                };
                head::parse(&bytes[..length], bounds, own).ok()
            }
        }
    }

    /// The bodies that the hook reads.
    pub mod publish {
        mod payload;
        mod posts;

        pub fn read(content_type: &str, body: &[u8]) -> bool {
            posts::read(Some(content_type), &bytes::Bytes::copy_from_slice(body)).is_ok()
        }
    }
}

// They name each other as the modules of one crate.
use pollgate::*;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::chosen()(data));
