//! The harness of the integration tests: the real gate, real PHP sites, a bare HTTP client and a
//! real browser, each stopped when its value is dropped.
//!
//! A test reads as a story:
//!
//! ```ignore
//! let gate = Gate::start("").await;
//! let mut client = Client::connect(gate.addr()).await;
//! client.send_get("/comet/news?cursor=").await;
//! gate.wait_for_held(1).await;
//! gate.publish("news", "hello").await;
//! assert_eq!(client.read_response().await.json()["messages"][0]["data"], "hello");
//! ```
//!
//! Nothing here sleeps but the two functions of [`wait`], between two checks of a condition; every
//! wait has a bound and panics with its condition.

// Every test file compiles this module for itself and uses a part of it.
#![allow(dead_code, unused_imports, unreachable_pub)]
// A harness reports by panicking, and shows what the processes wrote: that is
// how a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

pub mod addr;
#[cfg(feature = "site-tests")]
pub mod browser;
pub mod bytes;
pub mod demo;
pub mod events;
#[cfg(feature = "site-tests")]
pub mod firefox;
pub mod gate;
pub mod grip;
pub mod http;
pub mod http2;
pub mod metrics;
#[cfg(feature = "site-tests")]
pub mod nchan;
#[cfg(feature = "site-tests")]
pub mod php;
pub mod process;
pub mod pusher;
#[cfg(feature = "site-tests")]
pub mod pusher_peers;
#[cfg(feature = "site-tests")]
pub mod pushpin;
pub mod raw_site;
pub mod rules;
pub mod site;
pub mod socket;
pub mod temp;
pub mod tls;
pub mod wait;
pub mod way;

pub use addr::Addr;
#[cfg(feature = "site-tests")]
pub use browser::{Browser, Look, Page, Window};
pub use events::{Event, Events};
#[cfg(feature = "site-tests")]
pub use firefox::Firefox;
pub use gate::{Finished, Gate, pollgate};
pub use http::{Client, FORM, Response};
pub use metrics::Metrics;
#[cfg(feature = "site-tests")]
pub use nchan::Nchan;
#[cfg(feature = "site-tests")]
pub use php::PhpSite;
pub use process::{Process, allow_open_files};
pub use raw_site::RawSite;
pub use site::PlainSite;
pub use socket::Socket;
pub use temp::TempDir;
pub use wait::{BOUND, QUIET, eventually, eventually_some};
pub use way::{Poller, Way};
