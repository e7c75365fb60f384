//! `[grip]`: the interface of Pushpin.

use crate::config::read::section::Section;
use crate::config::read::values::{self, MASK};
use crate::protocol::auth::secret::Secret;
use crate::protocol::grip::sign;
use crate::protocol::http::path::PathPattern;

/// See the [module](self).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grip {
    /// Instructions of the site are followed, and items are taken.
    pub enabled: bool,
    /// The key of `Grip-Sig`; empty = one that no site can verify.
    pub key: Secret,
    /// The name in it.
    pub issuer: String,
    /// The key of the publishers' tokens; empty = they need none.
    pub control_key: Secret,
    /// The paths whose WebSockets become requests to the site.
    pub websocket: Vec<PathPattern>,
}

pub(in crate::config) fn grip(section: &mut Section) -> Grip {
    Grip {
        enabled: section.flag("enabled", false),
        key: section.secret("key", key),
        issuer: section.parsed("iss", "pollgate".to_owned(), values::filled),
        control_key: section.secret("control_key", key),
        websocket: section.list("websocket", Vec::new(), values::path),
    }
}

/// A secret for HS256. Errors do not show it.
fn key(text: &str) -> Result<Secret, String> {
    if text == MASK {
        return Err(format!(
            "\"{MASK}\" is what `pollgate check` shows in place of a key; write the key"
        ));
    }
    if text.contains("-----BEGIN") {
        return Err("this is a PEM; write a secret, the same as the site has".to_owned());
    }
    match sign::key(text) {
        Some(key) if key.is_empty() && !text.is_empty() => Err("the key is empty".to_owned()),
        Some(_) => Ok(Secret::new(text)),
        None => Err("there is no base64 after \"base64:\"".to_owned()),
    }
}
