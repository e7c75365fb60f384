//! The Pusher Channels protocol, version 7: names, signatures, frames and requests as bytes.
//!
//! Laravel Echo, pusher-js and the server libraries of many languages speak it. A Pusher channel
//! `orders` of the app `shop` is the channel `shop/orders`, and an event on it is a message
//! `{"event","data"}`, so that the hook, polls and streams share it.
//!
//! Nothing here waits, opens anything or knows a client: [`Command`] is what a client asks,
//! [`frame`] what it is answered, [`event`] what messages look like on both sides, [`lines`] the
//! framing of the HTTP fallbacks, [`rest`] the signed requests of the site.

pub mod channel;
mod command;
pub mod event;
pub mod frame;
pub mod lines;
pub mod rest;
mod sign;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use command::{Command, Member, parse, watchlist};
pub use sign::Signer;

use crate::hub::channel::{ChannelName, NameError, SiteName};
use std::fmt;

/// The versions of the protocol that are spoken: they differ in nothing that matters here.
pub const VERSIONS: std::ops::RangeInclusive<u32> = 5..=7;

/// Codes of errors, which are also those of the close that follows (the protocol's own numbers).
/// Clients do not come back after 40xx, after a second after 41xx, and at once after 42xx.
pub mod code {
    /// No app has this key.
    pub const UNKNOWN_APP: u16 = 4001;
    /// The app was switched off.
    pub const DISABLED_APP: u16 = 4003;
    /// The version of the protocol is no number.
    pub const BAD_VERSION: u16 = 4006;
    /// This version of the protocol is not spoken.
    pub const UNKNOWN_VERSION: u16 = 4007;
    /// The client named no version of the protocol.
    pub const NO_VERSION: u16 = 4008;
    /// The connection, or what it asked for, is not authorized.
    pub const UNAUTHORIZED: u16 = 4009;
    /// There is no room for another connection.
    pub const OVER_CAPACITY: u16 = 4100;
    /// Come back at once, for no reason of the client's.
    pub const RECONNECT: u16 = 4200;
    /// The client did not answer a ping.
    pub const NO_PONG: u16 = 4201;
    /// A client event is not taken.
    pub const CLIENT_EVENT: u16 = 4301;
    /// A watchlist is not taken.
    pub const WATCHLIST: u16 = 4302;
}

/// One app: what its clients and its site sign with, and what its clients may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// Its site.
    pub site: SiteName,
    /// Its id, which no other app of the gate has: the beginning of its channels' names, and of its REST paths.
    pub id: Box<str>,
    /// Its public key.
    pub key: Box<str>,
    /// Signs with its secret.
    pub signer: Signer,
    /// Whether the members of a private channel may send events to each other.
    pub client_events: bool,
    /// Origins whose pages may connect; `*` = any.
    pub origins: Vec<String>,
    /// The longest data of an event, in bytes.
    pub max_event: usize,
}

impl App {
    /// The longest id: what a name of Pusher's leaves of a channel's.
    pub const MAX_ID: usize = 64;

    /// The channel that is called `name` here.
    pub fn channel(&self, name: &str) -> Result<ChannelName, NameError> {
        Ok(ChannelName::new(&format!("{}/{name}", self.id))?.in_site(&self.site))
    }

    /// The app's own name of a channel of its site; `None` = it is not one of its.
    pub fn name_of<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel.strip_prefix(&*self.id)?.strip_prefix('/')
    }

    /// True if only members may see what is on this channel of the app's.
    pub fn guards(&self, channel: &str) -> bool {
        self.name_of(channel).is_some_and(|name| channel::Kind::of(name).is_guarded())
    }
}

/// Names one connection: two numbers, as the server libraries check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketId(u32, u32);

impl SocketId {
    /// The id with these random bits.
    pub fn from_random(random: u64) -> Self {
        Self((random >> 32) as u32, random as u32)
    }

    /// Whether a text could be a socket id.
    pub fn is_valid(text: &str) -> bool {
        let digits = |part: &str| {
            !part.is_empty() && part.len() <= 20 && part.bytes().all(|b| b.is_ascii_digit())
        };
        text.split_once('.').is_some_and(|(a, b)| digits(a) && digits(b))
    }

    /// What messages say that are not for this connection.
    pub fn mark(self) -> event::Mark {
        event::Mark::of(&self.to_string())
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}
