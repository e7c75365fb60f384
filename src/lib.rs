//! pollgate holds a PHP site's long polls in front of it and releases them when the site publishes.
//!
//! The modules stand on floors, and `ls src` shows them. A module imports only from lower floors
//! and from its own room; rooms beside each other do not know each other. `tests/floors.rs` reads
//! the floor from each file's path and fails on any other import.
//!
//! **1. Channels.** [`hub`] is the table of channels and the polls that wait on them;
//! [`hub::channel`] is one channel as plain data: name, messages, history, cursor. Time is an
//! argument; there is no clock and no I/O. The promise that no message is lost silently is kept
//! here.
//!
//! **2. Formats.** `protocol` turns bytes into values and back; nothing there waits or opens
//! anything. [`protocol::http`] is a request and its answer as values, with queries and forms read
//! by PHP's rules; [`protocol::address`] and [`protocol::template`] are values that operators
//! write; [`protocol::dialect`] is one wire format of a poll per file; [`protocol::auth`] turns
//! tokens into grants; [`protocol::archive`] is the history as a stream of bytes;
//! [`protocol::grip`] is what a site says to hold, and what it publishes; [`protocol::mercure`] and
//! [`protocol::pusher`], above these, are the protocols of those names.
//!
//! **3. Services.** `server` is the only room that knows pingora, sockets and files. Its rooms
//! share [`server::net`] (listeners, streams, certificates), [`server::telemetry`] (logs and
//! metrics) and [`server::limits`]. [`server::gate`] is the public listener, [`server::publish`]
//! the ways in, [`server::internal`] the private listener, [`server::admin`] the gate about
//! itself, [`server::backplane`] channels shared with other gates, [`server::persist`] the history
//! beyond one process,
//! [`server::webhook`] sends events to the site.
//!
//! **4. Config.** [`config`] turns text into checked settings and composes those of every room.
//!
//! **5. Assembly.** [`app`] builds, runs, reloads, upgrades and ends the whole; [`cli`] is the
//! command line.
//!
//! [`adopt`] stands apart: an offline tool that reads the PHP of an old site and prints a config.
//!
//! Five rules hold everywhere. A poll is registered under the same lock as its look into the
//! history. Locks are released before waiters wake. What a client holds (a waiter, a permit) is
//! released by dropping it. One config snapshot serves a request from end to end. No input panics.

pub mod adopt;
pub mod app;
pub mod cli;
pub mod config;
pub mod hub;
pub mod protocol;
pub mod server;
