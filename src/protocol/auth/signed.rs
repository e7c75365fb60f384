//! Signed tokens, which a site makes with `hash_hmac` and nothing else.
//!
//! `<key id>.<unix expiry>.<base64url of channels>.<hex HMAC-SHA-256 of all before the last dot>`,
//! the channels joined by commas, each a name or a prefix of names with a `*`. Before the last dot
//! there may be one more field: the user, in base64url.

use super::{Channels, Grant, Rejection, Seconds};
use crate::hub::presence::Member;
use crate::protocol::auth::secret::Secret;
use base64::Engine;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use std::fmt;

/// Maximum length of a token, in bytes; a longer one is rejected.
const MAX_BYTES: usize = 16 * 1024;

/// The signing keys of tokens, by id.
#[derive(Clone)]
pub struct Keys(Vec<Key>);

#[derive(Clone)]
struct Key {
    id: String,
    secret: Secret,
    hmac: hmac::Key,
}

impl Keys {
    /// Keys by id. With several, one can be replaced while its tokens are still in use.
    pub fn new(keys: impl IntoIterator<Item = (String, Secret)>) -> Self {
        let key = |(id, secret): (String, Secret)| {
            let hmac = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
            Key { id, secret, hmac }
        };
        Self(keys.into_iter().map(key).collect())
    }

    /// The grant of `token` at `now`.
    pub fn grant(&self, token: &str, now: Seconds) -> Result<Grant, Rejection> {
        if token.len() > MAX_BYTES {
            return Err(Rejection::Bad("it is too long"));
        }
        let malformed = Rejection::Bad("it is not <key>.<expiry>.<channels>.<signature>");
        let Some((signed, signature)) = token.rsplit_once('.') else { return Err(malformed) };
        let mut parts = signed.split('.');
        let (Some(id), Some(expires), Some(channels), user, None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed);
        };
        // The signature is checked before any content is trusted.
        let key = self.0.iter().find(|key| key.id == id);
        let key = key.ok_or(Rejection::Bad("its key is not known"))?;
        let wrong = Rejection::Bad("its signature is wrong");
        let Some(signature) = unhex(signature) else { return Err(wrong) };
        hmac::verify(&key.hmac, signed.as_bytes(), &signature).map_err(|_| wrong)?;
        let expires = number(expires).ok_or(Rejection::Bad("its expiry is no number"))?;
        if now >= expires {
            return Err(Rejection::Expired);
        }
        let names =
            text(channels).ok_or(Rejection::Bad("its channels are no base64url of UTF-8"))?;
        let channels = Channels::new(names.split(',').filter(|name| !name.is_empty()));
        let channels = channels.ok_or(Rejection::Bad("a * stands inside of a channel"))?;
        let user =
            user.map(|user| text(user).ok_or(Rejection::Bad("its user is no base64url of UTF-8")));
        let member = user.transpose()?.and_then(|user| Member::new(&user, None));
        Ok(Grant { channels, expires: Some(expires), member })
    }
}

/// The text of a field in base64url.
fn text(field: &str) -> Option<String> {
    String::from_utf8(BASE64URL.decode(field.trim_end_matches('=')).ok()?).ok()
}

/// The `=` at the end is optional, since sites differ.
const BASE64URL: GeneralPurpose = URL_SAFE_NO_PAD;

fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&Key, &Key)| a.id == b.id && a.secret == b.secret;
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(same)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hub::channel::ChannelName;

    fn keys() -> Keys {
        let keys = [("k1", "old secret"), ("k2", "new secret")];
        Keys::new(keys.map(|(id, secret)| (id.to_owned(), Secret::new(secret))))
    }

    fn sign(secret: &str, signed: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, signed.as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{signed}.{hex}")
    }

    #[test]
    fn a_token_is_good_for_its_channels_until_its_second_has_come() {
        // "news,user-7/*"
        let token = sign("new secret", "k2.1700000000.bmV3cyx1c2VyLTcvKg==");
        let grant = keys().grant(&token, 1_699_999_999).unwrap();
        assert_eq!(grant.expires, Some(1_700_000_000));
        assert!(grant.channels.has(&ChannelName::new("user-7/inbox").unwrap()));
        assert!(!grant.channels.has(&ChannelName::new("user-8").unwrap()));
        assert_eq!(keys().grant(&token, 1_700_000_000), Err(Rejection::Expired));
        let unpadded = sign("old secret", "k1.1700000000.bmV3cyx1c2VyLTcvKg");
        assert_eq!(keys().grant(&unpadded, 0).unwrap().channels, grant.channels);
    }

    #[test]
    fn a_token_may_name_its_user() {
        let grant = |signed: &str| keys().grant(&sign("new secret", signed), 0);
        let user = |signed: &str| grant(signed).unwrap().member.map(|it| it.user().to_string());
        assert_eq!(user("k2.1700000000.bmV3cw"), None);
        assert_eq!(user("k2.1700000000.bmV3cw.w7xzZXIgNw").unwrap(), "üser 7");
        assert_eq!(user("k2.1700000000.bmV3cw."), None);
        let long = BASE64URL.encode("x".repeat(256));
        assert_eq!(user(&format!("k2.1700000000.bmV3cw.{long}")), None);
        for bad in
            ["k2.1700000000.bmV3cw.%", "k2.1700000000.bmV3cw._w", "k2.1700000000.bmV3cw.Nw.Nw"]
        {
            assert!(matches!(grant(bad), Err(Rejection::Bad(_))), "{bad}");
        }
    }

    #[test]
    fn what_was_not_signed_with_the_key_it_names_is_bad() {
        let good = sign("new secret", "k2.1700000000.bmV3cw");
        let bad = |token: &str| matches!(keys().grant(token, 0), Err(Rejection::Bad(_)));
        assert!(!bad(&good));
        for other in [
            good.replace("k2", "k1"),
            good.replace("k2", "k3"),
            good.replace("17", "18"),
            good.replace("bmV3cw", "Kg"),
            format!("{good}0"),
            good[..good.len() - 2].to_owned(),
            good.replace('.', ":"),
            sign("new secret", "k2.1.2.bmV3cw"),
            sign("new secret", "k2.+1700000000.bmV3cw"),
            sign("new secret", "k2.1700000000.%%%"),
            sign("new secret", "k2.1700000000.YSpi"),
            String::new(),
            ".".repeat(20_000),
        ] {
            assert!(bad(&other), "{other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(token: String, rest in "[0-9a-f.é]{0,90}") {
            let _ = keys().grant(&token, 0);
            let _ = keys().grant(&format!("k1.{rest}"), 0);
        }
    }
}
