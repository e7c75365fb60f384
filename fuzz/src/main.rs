//! Whatever the bytes, nothing panics, and what is understood is understood as it was meant.
//!
//! One program for all targets; `TARGET` in the environment chooses one.

#![no_main]
#![allow(dead_code, unused_imports, unreachable_pub)]

mod keeping;
mod protocols;
mod settings;
mod targets;

/// Readers that only their own modules can reach, compiled once more. They find the rest of the
/// crate below, where they look for it.
#[path = "../../src/server"]
pub mod server {
    pub mod net {
        pub mod stream;
    }

    pub mod limits {
        pub mod body_rate;
    }

    /// The lane's reader of heads, and pingora's beside it.
    pub mod gate {
        pub mod proxy {
            pub mod connection_state;
        }

        /// As the reader of heads names it.
        pub mod sites {
            #[derive(Debug, Clone, Copy)]
            pub struct RequestHost<'a> {
                pub header: Option<&'a str>,
                pub authority: Option<&'a str>,
            }
        }

        pub mod front {
            pub mod agreement;
            pub mod head;
            pub mod one_request;

            /// The method, the target, and true if the lane answers it itself.
            pub fn plain(bytes: &[u8], seen: usize) -> Option<(String, String, bool)> {
                let bounds = head::Bounds { bytes: 16 * 1024, headers: 100 };
                let head::HeadScan::Head(length) = head::sight(bytes, seen, bounds) else {
                    return None;
                };
                let own = |head: &head::Head<'_>| {
                    (head.method.to_owned(), head.target.to_owned(), head.plain)
                };
                head::parse(&bytes[..length], bounds, own).ok()
            }
        }
    }

    /// The bodies that the hook reads, and what the upstream's responses announce.
    pub mod publish {
        pub mod capture {
            mod header;

            pub fn announced(headers: &http::HeaderMap) -> bool {
                header::read(headers).is_ok()
            }
        }

        pub mod hook {
            mod posts;

            pub fn read(content_type: &str, body: &[u8]) -> bool {
                posts::read(Some(content_type), &bytes::Bytes::copy_from_slice(body)).is_ok()
            }
        }

        mod payload;
    }

    /// Messages on their way between gates.
    pub mod backplane {
        mod envelope;

        pub fn read(bytes: &[u8]) -> Option<crate::hub::channel::Message> {
            envelope::read(bytes.to_vec())
        }
    }
}

pub use pollgate::{adopt, config, hub, protocol};

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::chosen()(data));
