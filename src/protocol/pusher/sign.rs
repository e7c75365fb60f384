//! Signatures: HMAC-SHA-256 in hex, with the app's secret.

use super::SocketId;
use crate::protocol::auth::secret::Secret;
use ring::hmac;
use std::fmt;

/// Signs and checks with one app's secret.
#[derive(Clone)]
pub struct Signer {
    secret: Secret,
    hmac: hmac::Key,
}

impl Signer {
    /// Signs with `secret`.
    pub fn new(secret: Secret) -> Self {
        let hmac = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
        Self { secret, hmac }
    }

    /// The signature of `text`.
    pub fn sign(&self, text: &[u8]) -> String {
        hex(hmac::sign(&self.hmac, text).as_ref())
    }

    /// True if `signature` is that of `text`; takes the same time whatever it is.
    pub fn verify(&self, text: &[u8], signature: &str) -> bool {
        unhex(signature).is_some_and(|tag| hmac::verify(&self.hmac, text, &tag).is_ok())
    }

    /// Checks what a site signed for a subscription: `auth` is `key:signature`.
    pub fn verify_channel(
        &self,
        key: &str,
        auth: &str,
        socket: SocketId,
        channel: &str,
        data: Option<&str>,
    ) -> bool {
        let text = match data {
            Some(data) => format!("{socket}:{channel}:{data}"),
            None => format!("{socket}:{channel}"),
        };
        self.verify_auth(key, auth, &text)
    }

    /// Checks what a site signed for a user's sign-in.
    pub fn verify_user(&self, key: &str, auth: &str, socket: SocketId, data: &str) -> bool {
        self.verify_auth(key, auth, &format!("{socket}::user::{data}"))
    }

    fn verify_auth(&self, key: &str, auth: &str, text: &str) -> bool {
        // The signature has no colon; a key might.
        let Some((by, signature)) = auth.rsplit_once(':') else { return false };
        by == key && self.verify(text.as_bytes(), signature)
    }
}

impl PartialEq for Signer {
    fn eq(&self, other: &Self) -> bool {
        self.secret == other.secret
    }
}

impl Eq for Signer {}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.secret, f)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    };
    // A signature has 32 bytes; a longer text is none, and is not read.
    if text.len() != 64 { None } else { pairs.map(byte).collect() }
}
