//! State of a connection that the lane and pingora share.
//!
//! Windows sites authenticate a *connection* (NTLM, and Negotiate as far as it falls back to it): the
//! sender of the next request on it counts as the same user. So a client that begins to sign in gets
//! upstream connections of its own, which are never shared.

use crate::protocol::http::Headers;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// See the [module](self).
#[derive(Debug, Default)]
pub(in crate::server::gate) struct ConnectionState {
    /// The request is the site's by now.
    forwarded: AtomicBool,
    /// The group of the client's connections to the site; 0 = all clients share them.
    group: AtomicU64,
}

impl ConnectionState {
    /// The state of a connection whose connections to the site are of this group.
    pub(in crate::server::gate) fn of_group(group: u64) -> Self {
        Self { forwarded: AtomicBool::new(false), group: AtomicU64::new(group) }
    }

    /// Notes that the site has the request. A client that has sent it all may close its half of the
    /// connection, and still gets the answer if that begins soon.
    pub(in crate::server::gate) fn forward(&self) {
        self.forwarded.store(true, Ordering::Relaxed);
    }

    /// Notes that the site has answered, and the request is held here.
    pub(in crate::server::gate) fn take_back(&self) {
        self.forwarded.store(false, Ordering::Relaxed);
    }

    /// True if the upstream has the request.
    pub(in crate::server::gate) fn is_forwarded(&self) -> bool {
        self.forwarded.load(Ordering::Relaxed)
    }

    /// The group of the client's connections to the site.
    pub(in crate::server::gate) fn group(&self) -> u64 {
        self.group.load(Ordering::Relaxed)
    }

    /// Gives the client connections of its own if `headers` sign a connection in, or ask for it.
    pub(in crate::server::gate) fn look_at(&self, headers: &dyn Headers) {
        if self.group() == 0 && signs_in(headers) {
            // Of two requests on one connection the first decides.
            let own = next_group();
            let order = Ordering::Relaxed;
            let _ = self.group.compare_exchange(0, own, order, order);
        }
    }
}

/// A group of connections to the site that no other connection is of.
pub(in crate::server::gate) fn next_group() -> u64 {
    /// All clients share group 0.
    static GROUP: AtomicU64 = AtomicU64::new(1);
    GROUP.fetch_add(1, Ordering::Relaxed)
}

/// True if a request or response is part of authenticating a connection (RFC 4559).
pub(in crate::server::gate) fn signs_in(headers: &dyn Headers) -> bool {
    let request = headers.raw("authorization");
    let response = headers.raw("www-authenticate");
    let values = request.into_iter().chain(response);
    let mut challenges = values.flat_map(|value| value.split(|byte| *byte == b','));
    challenges.any(|challenge| {
        let scheme = challenge.trim_ascii().split(|byte| *byte == b' ').next().unwrap_or_default();
        [&b"NTLM"[..], b"Negotiate"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn group(name: &'static str, value: &str) -> u64 {
        let state = ConnectionState::default();
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        state.look_at(&headers);
        let group = state.group();
        state.look_at(&headers);
        assert_eq!(state.group(), group);
        group
    }

    #[test]
    fn a_client_that_signs_its_connection_in_has_a_group_of_its_own() {
        let groups = [
            group("authorization", "NTLM TlRMTVNTUAAB"),
            group("authorization", "negotiate YII="),
            group("www-authenticate", "Basic realm=\"a\", Negotiate"),
            group("www-authenticate", "NTLM"),
        ];
        assert!(groups.iter().all(|group| *group > 0));
        assert!((1..groups.len()).all(|n| !groups[..n].contains(&groups[n])), "{groups:?}");
        for (name, value) in [
            ("authorization", "Basic bnRsbTo="),
            ("authorization", "Bearer NTLM"),
            ("www-authenticate", "Basic realm=\"NTLM\""),
            ("x-authorization", "NTLM a"),
        ] {
            assert_eq!(group(name, value), 0, "{value}");
        }
    }
}
