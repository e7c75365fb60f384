//! Whose answer may be given to others: `share = true` makes the gate a shared cache for a few
//! seconds (RFC 9111).
//!
//! The key is what the site was asked: host, method, path, query and form, and the two headers
//! that make a difference to any client's reading. Cookies are not part of a key there, so an
//! answer that depends on them has to say so (`Cache-Control: private`, `Vary: Cookie`).

use crate::protocol::dialect::Poll;
use crate::protocol::dialect::replay::Replay;
use crate::server::gate::Incoming;
use crate::server::gate::digest::Digest;
use crate::server::gate::route::Rule;
use http::{HeaderMap, HeaderName, header};
use std::hash::Hash;

/// Request headers in the key; a `Vary` may name them.
const KEY_HEADERS: [HeaderName; 2] = [header::ACCEPT_ENCODING, header::ORIGIN];

/// Polls with one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// The key of a poll; `None` if its answer is for itself alone: it bears `Authorization`
    /// (RFC 9111, section 3.5).
    pub(super) fn of(
        rule: &Rule,
        replay: &Replay,
        request: &Incoming<'_>,
        poll: &Poll,
    ) -> Option<Self> {
        if !request.headers.values("authorization").is_empty() {
            return None;
        }
        let mut digest = Digest::new();
        rule.path.to_string().hash(&mut digest);
        replay.channel.to_string().hash(&mut digest);
        poll.subscriptions.first()?.channel.hash(&mut digest);
        request.host.to_ascii_lowercase().hash(&mut digest);
        (request.method, request.path).hash(&mut digest);
        // jQuery adds this one against caches.
        request.query.hash_without(|name| name == "_", &mut digest);
        digest.write_part_end();
        if let Some(form) = request.form {
            form.hash_without(|name| name == "_", &mut digest);
        }
        digest.write_part_end();
        for name in &KEY_HEADERS {
            request.headers.values(name.as_str()).hash(&mut digest);
        }
        Some(Self(digest.end()))
    }
}

/// True if a response with these headers may be given to other clients that sent the same request.
pub(super) fn may_share(headers: &HeaderMap) -> bool {
    let has = |name: &str| headers.contains_key(name);
    if has("set-cookie") || has("set-cookie2") {
        return false;
    }
    let members = |name| {
        let values = headers.get_all(name).iter().map(|value| value.as_bytes());
        values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
    };
    let unshared = |directive: &[u8]| {
        let name = directive.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        // With a list of fields these two mean these fields; without them the answer is not whole.
        [b"private".as_slice(), b"no-store", b"no-cache"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
    };
    let in_key = |name: &[u8]| {
        let known = |key: &HeaderName| name.eq_ignore_ascii_case(key.as_str().as_bytes());
        name.is_empty() || name.eq_ignore_ascii_case(b"host") || KEY_HEADERS.iter().any(known)
    };
    !members(header::CACHE_CONTROL).any(unshared) && members(header::VARY).all(in_key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shared(headers: &[(&'static str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        may_share(&map)
    }

    #[test]
    fn an_answer_is_for_all_unless_its_headers_say_otherwise() {
        for headers in [
            vec![],
            vec![("cache-control", "max-age=0, must-revalidate"), ("vary", "Accept-Encoding")],
            vec![("vary", "origin, ,Host"), ("vary", "accept-encoding")],
            vec![("cache-control", "public")],
        ] {
            assert!(shared(&headers), "{headers:?}");
        }
        for headers in [
            vec![("set-cookie", "a=b")],
            vec![("cache-control", "max-age=1, Private")],
            vec![("cache-control", "public"), ("cache-control", "NO-STORE")],
            vec![("cache-control", "no-cache=\"set-cookie\"")],
            vec![("cache-control", "private = \"a, b\"")],
            vec![("vary", "*")],
            vec![("vary", "Accept-Encoding, Cookie")],
            vec![("vary", "accept-encoding"), ("vary", "user-agent")],
        ] {
            assert!(!shared(&headers), "{headers:?}");
        }
    }
}
