//! GRIP, the interface of Pushpin: a site answers a request with an instruction to hold it, and
//! publishes items that release it or are written to it.
//!
//! [`Instruct`] is read from the headers or the body of the site's response, [`Item`] from a
//! publish request. An item is stored as it is read, so whatever is in a channel is known to be
//! good: its headers hold no line breaks, its statuses can be sent, its base64 is base64.

pub mod content;
pub mod events;
pub mod filter;
pub mod format;
pub mod instruct;
pub mod item;
mod json;
pub mod link;
pub mod params;
pub mod patch;
pub mod sign;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use content::Content;
pub use filter::Filter;
pub use instruct::{Instruct, Mode};
pub use item::Item;

use crate::hub::channel::ChannelName;

/// The type of a response whose body is the instruction.
pub const CONTENT_TYPE: &str = "application/grip-instruct";

/// The features that `Grip-Feature` lists for a site.
pub const FEATURES: &str = "status, session, link:next, link:gone, filter:skip-self, \
                            filter:skip-users, filter:require-sub, filter:build-id, \
                            filter:var-subst";

/// The beginning of the hub's names of GRIP's channels.
pub const PREFIX: &str = "grip/";

/// The hub's name of the channel that GRIP calls `name`; the error says why there is none.
pub fn channel(name: &str) -> Result<ChannelName, String> {
    if name.is_empty() {
        return Err("a channel has no name".to_owned());
    }
    ChannelName::new(&format!("{PREFIX}{name}")).map_err(|error| error.to_string())
}

/// True if a header of this name is between the gate and the site alone, however it is spelled:
/// scripts see `Grip_Sig` and `Grip-Sig` as one.
pub fn is_own(name: &str) -> bool {
    const OWN: &[u8; 5] = b"grip-";
    let mut bytes = name.bytes();
    OWN.iter().all(|own| match bytes.next() {
        Some(byte) if *own == b'-' => !byte.is_ascii_alphanumeric(),
        Some(byte) => byte.eq_ignore_ascii_case(own),
        None => false,
    })
}

/// True if `name` can be a header's name and `value` its value: no line break, no control
/// character.
pub fn is_header(name: &str, value: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let text = |byte: u8| byte == b'\t' || byte >= b' ' && byte != 0x7f;
    !name.is_empty() && name.bytes().all(token) && value.bytes().all(text)
}

/// True if a header of this name is the connection's, the body's or the gate's own, so that it is
/// left out of a response that the gate makes.
pub fn is_left_out(name: &str) -> bool {
    const HOP: [&str; 10] = [
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "pollgate-publish",
    ];
    is_own(name) || HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop))
}
