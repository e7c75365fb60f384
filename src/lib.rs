//! pollgate holds a PHP site's long polls in front of it and releases them when it publishes.
//!
//! The modules stand on floors; each uses only what is on its own module's path or below it
//! (`tests/floors.rs` sees to that).
//!
//! **Ground: values in, values out.** Time is an argument; there is no I/O and no clock.
//! [`channel`] is a channel's name, messages and history; [`hub`] is the table of channels with
//! their waiting polls. The promise that no message is lost silently is kept here.
//!
//! **First: pure translation.** [`address`], [`secret`], [`query`], [`strict`], [`template`] and
//! [`web`] are values that users write or clients send; [`form`] reads what browsers put into
//! bodies; [`exchange`] is what passes between a client and the site, for those who listen along;
//! [`dialect`] turns requests into polls and answers into bytes; [`archive`] is the history as a
//! stream of bytes; [`auth`] turns credentials into leave to poll; [`limits`] gives out the right
//! to hold; [`adopt`] turns the PHP of an old site into a config; [`metrics`] counts; [`turnstile`]
//! stops what is to go on elsewhere.
//!
//! **Second: services.** The only floor that knows pingora, sockets and files. [`gate`] is the
//! public side, [`publish`] the ways in, [`admin`] the gate about itself, [`internal`] the
//! private listener that serves both; [`listen`] binds sockets, [`snapshot`] keeps the history in
//! a file, [`handover`] gives sockets and history to a new process, [`backplane`] shares channels
//! with other gates, [`log`] writes lines, [`client`] calls a hook, [`demo`] is a site to try it with,
//! [`document_root`] reads the files of one. [`stream`] is what they share that put a stream
//! around another, [`identity`] a certificate with its key.
//!
//! **Top: assembly.** [`config`] composes every module's settings; [`app`] builds, runs and ends
//! the whole; [`cli`] is the command line.
//!
//! What holds everywhere: a poll is registered under the same lock as its look into the history;
//! unlock, then wake; what a client holds (a waiter, a permit) is given back by dropping it; one
//! config snapshot serves a request from end to end; nothing panics on input.

pub mod channel;
pub mod hub;

pub mod address;
pub mod adopt;
pub mod archive;
pub mod auth;
pub mod dialect;
pub mod exchange;
pub mod form;
pub mod limits;
pub mod metrics;
pub mod query;
pub mod secret;
pub mod strict;
pub mod template;
pub mod turnstile;
pub mod web;

pub mod identity;
pub mod stream;

pub mod admin;
pub mod backplane;
pub mod client;
pub mod demo;
pub mod document_root;
pub mod gate;
pub mod handover;
pub mod internal;
pub mod listen;
pub mod log;
pub mod publish;
pub mod snapshot;

pub mod app;
pub mod cli;
pub mod config;
