//! JSON Web Tokens (RFC 7519), signed with HS256, RS256, ES256 or EdDSA (RFC 7518, RFC 8037).
//!
//! The key decides which algorithm checks a token, never the token alone: a key of one kind is
//! never used as one of another, and there is no `none`. Encrypted tokens are not supported.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use super::{Channels, Grant, Rejection, Seconds, jwt_keys};
use crate::hub::presence::Member;
use crate::protocol::auth::secret::Secret;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};
use std::fmt;

/// Maximum length of a token, in bytes; a longer one is rejected.
const MAX_BYTES: usize = 16 * 1024;

/// The algorithms by their names (RFC 7518, section 3.1).
pub const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("HS256", Algorithm::HS256),
    ("RS256", Algorithm::RS256),
    ("ES256", Algorithm::ES256),
    ("EdDSA", Algorithm::EdDSA),
];

/// Requirements on a token beside its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Name of the claim with the channels: a list of texts, or one text.
    pub claim: String,
    /// `aud` must contain one of these; empty = no requirement.
    pub audience: Vec<String>,
    /// `iss` must be one of these; empty = no requirement.
    pub issuer: Vec<String>,
    /// Tolerated difference between the clocks, in seconds.
    pub leeway: Seconds,
}

impl Default for Expected {
    fn default() -> Self {
        let audience = Vec::new();
        let issuer = Vec::new();
        Self { claim: "channels".to_owned(), audience, issuer, leeway: 0 }
    }
}

/// A key and the one algorithm that it is for.
#[derive(Clone)]
pub struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    /// Text that it was read from.
    source: Secret,
}

/// Reasons why a text is no key, or none that can be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is empty.
    #[error("the key is empty")]
    Empty,
    /// A JSON Web Key, which must not serve as a secret: it may be public.
    #[error("this is a JSON Web Key; write it as a set into a file, and name that as jwks")]
    Jwk,
    /// A PEM of another kind.
    #[error("this PEM is no public key for RS256, ES256 or EdDSA")]
    Pem,
    /// The text is no key set.
    #[error("this is no JSON Web Key Set: {0}")]
    Set(String),
    /// A set without a key for a supported algorithm.
    #[error("none of the keys is for HS256, RS256, ES256 or EdDSA")]
    NoneUsable,
}

impl Key {
    /// The one key in `text`: a public key in PEM, or a secret for HS256.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.trim_start().starts_with('{') {
            return Err(KeyError::Jwk);
        }
        if !text.contains("-----BEGIN") {
            let key = DecodingKey::from_secret(text.as_bytes());
            let algorithm = Algorithm::HS256;
            let source = Secret::new(text);
            return Ok(Self { id: None, algorithm, key, source });
        }
        let pem = text.trim().as_bytes();
        let kinds = [
            (Algorithm::RS256, DecodingKey::from_rsa_pem(pem)),
            (Algorithm::ES256, DecodingKey::from_ec_pem(pem)),
            (Algorithm::EdDSA, DecodingKey::from_ed_pem(pem)),
        ];
        let found = kinds.into_iter().find_map(|(algorithm, key)| Some((algorithm, key.ok()?)));
        let (algorithm, key) = found.ok_or(KeyError::Pem)?;
        Ok(Self { id: None, algorithm, key, source: Secret::new(text) })
    }

    /// A secret for HS256 that need not be text.
    pub fn secret(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.is_empty() {
            return Err(KeyError::Empty);
        }
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let algorithm = Algorithm::HS256;
        let source = Secret::new(hex);
        Ok(Self { id: None, algorithm, key: DecodingKey::from_secret(bytes), source })
    }

    /// The usable keys of a JSON Web Key Set (RFC 7517).
    pub fn set(json: &[u8]) -> Result<Vec<Self>, KeyError> {
        let set: JwkSet =
            serde_json::from_slice(json).map_err(|error| KeyError::Set(error.to_string()))?;
        let keys: Vec<Self> = set.keys.iter().filter_map(Self::of).collect();
        if keys.is_empty() { Err(KeyError::NoneUsable) } else { Ok(keys) }
    }

    fn of(jwk: &Jwk) -> Option<Self> {
        use jsonwebtoken::jwk::EllipticCurve as Curve;
        let common = &jwk.common;
        if matches!(common.public_key_use, Some(PublicKeyUse::Encryption)) {
            return None;
        }
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::OctetKey(key) if !key.value.is_empty() => Algorithm::HS256,
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == Curve::P256 => Algorithm::ES256,
            AlgorithmParameters::OctetKeyPair(key) if key.curve == Curve::Ed25519 => {
                Algorithm::EdDSA
            }
            _ => return None,
        };
        let named = common.key_algorithm.map(|named| named.to_string());
        let ours = ALGORITHMS.iter().find(|(_, known)| *known == algorithm)?.0;
        if named.is_some_and(|named| named != ours) {
            return None;
        }
        let id = common.key_id.clone();
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let source = Secret::new(serde_json::to_string(jwk).ok()?);
        Some(Self { id, algorithm, key, source })
    }

    /// The algorithm that the key is for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {:?})", self.id, self.algorithm)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// Checks tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Verifier {
    keys: Vec<Key>,
    expected: Expected,
}

impl Verifier {
    /// A verifier that accepts a token signed by one of `keys`.
    pub fn new(keys: Vec<Key>, expected: Expected) -> Self {
        jwt_keys::install();
        Self { keys, expected }
    }

    /// The grant of `token` at `now`.
    pub fn grant(&self, token: &str, now: Seconds) -> Result<Grant, Rejection> {
        let (claims, expires) = self.verify(token, now)?;
        let user = match claims.get("sub") {
            Some(Value::String(user)) => Some(user.clone()),
            // Not as RFC 7519, section 4.1.2, has it, but many issuers write their keys so.
            Some(Value::Number(user)) => Some(user.to_string()),
            _ => None,
        };
        let member = user.and_then(|user| Member::new(&user, None));
        Ok(Grant { channels: self.channels(&claims)?, expires, member })
    }

    /// The claims of `token` if it is valid at `now`, and the first second in which it no longer
    /// is.
    pub fn verify(
        &self,
        token: &str,
        now: Seconds,
    ) -> Result<(Map<String, Value>, Option<Seconds>), Rejection> {
        if token.len() > MAX_BYTES {
            return Err(Rejection::Bad("it is too long"));
        }
        let claims = self.claims(token)?;
        let expires = time(&claims, "exp")?;
        let leeway = self.expected.leeway;
        let expires = expires.map(|expires| expires.saturating_add(leeway));
        if expires.is_some_and(|expires| now >= expires) {
            return Err(Rejection::Expired);
        }
        if time(&claims, "nbf")?.is_some_and(|begins| now.saturating_add(leeway) < begins) {
            return Err(Rejection::Early);
        }
        Ok((claims, expires))
    }

    /// The claims, after the signature, `aud` and `iss` are verified.
    fn claims(&self, token: &str) -> Result<Map<String, Value>, Rejection> {
        let header = decode_header(token).map_err(|_| Rejection::Bad("it is no JSON Web Token"))?;
        // A critical extension that is not understood makes the token invalid (RFC 7515, section
        // 4.1.11).
        if header.crit.is_some() {
            return Err(Rejection::Bad("it wants more to be understood than is known here"));
        }
        let fits = |key: &&Key| {
            key.algorithm == header.alg
                && (header.kid.is_none() || key.id.is_none() || key.id == header.kid)
        };
        let mut denied = Rejection::Bad("none of the keys is for it");
        for key in self.keys.iter().filter(fits) {
            match decode::<Map<String, Value>>(token, &key.key, &self.validation(key.algorithm)) {
                Ok(token) => return Ok(token.claims),
                Err(error) => denied = Rejection::Bad(reason(error.kind())),
            }
        }
        Err(denied)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        // `grant` checks the times, against the time it is given.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        let mut required = Vec::new();
        if !self.expected.audience.is_empty() {
            validation.set_audience(&self.expected.audience);
            required.push("aud");
        }
        if !self.expected.issuer.is_empty() {
            validation.set_issuer(&self.expected.issuer);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    fn channels(&self, claims: &Map<String, Value>) -> Result<Channels, Rejection> {
        let wrong = Rejection::Bad("its claim with the channels is no list of names");
        let names: Option<Vec<&str>> = match claims.get(&self.expected.claim) {
            None => Some(Vec::new()),
            Some(Value::String(name)) => Some(vec![name]),
            Some(Value::Array(names)) => names.iter().map(Value::as_str).collect(),
            Some(_) => None,
        };
        names.and_then(Channels::new).ok_or(wrong)
    }
}

/// A claim that is a time (RFC 7519, section 2, NumericDate): seconds, fractions allowed.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<Seconds>, Rejection> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let fraction =
        || value.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64);
    match value.as_u64().or_else(fraction) {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(Rejection::Bad("one of its times is no number")),
    }
}

fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSignature => "its signature is wrong",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::InvalidIssuer => "it is of another issuer",
        ErrorKind::MissingRequiredClaim(_) => "it has no aud or no iss",
        ErrorKind::InvalidAlgorithm => "its algorithm is not the key's",
        _ => "it is no JSON Web Token",
    }
}
