//! `Grip-Sig`: the token by which a site knows that a request comes from its gate.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
use ring::hmac;
use std::fmt;

/// Signs tokens with HS256 (RFC 7518, section 3.2).
#[derive(Clone)]
pub struct Signer {
    key: hmac::Key,
    issuer: String,
}

impl Signer {
    /// A signer with this key and name.
    pub fn new(key: &[u8], issuer: &str) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), issuer: issuer.to_owned() }
    }

    /// A token that is good until `expires`, in seconds since 1970.
    pub fn token(&self, expires: u64) -> String {
        let head = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"HS256"}"#);
        let claims = serde_json::json!({ "iss": self.issuer, "exp": expires }).to_string();
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = hmac::sign(&self.key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({:?})", self.issuer)
    }
}

/// The bytes of a key as GRIP's programs write it: text, or `base64:` and its base64. `None` if
/// that is none.
pub fn key(text: &str) -> Option<Vec<u8>> {
    match text.strip_prefix("base64:") {
        Some(coded) => BASE64.decode(coded.trim()).ok(),
        None => Some(text.as_bytes().to_vec()),
    }
}
