//! The user that a held poll counts for (`limits.per_grant`).

use super::{Allowed, Grants};
use crate::protocol::auth::{self, Auth};
use crate::protocol::http::{Headers, cookies};
use crate::server::gate::Incoming;
use crate::server::limits::permit::ip_prefix;
use percent_encoding::percent_decode;
use std::hash::BuildHasher;
use std::net::IpAddr;

impl Grants {
    /// Tells the polls of one user from those of others, also where a grant is found again and
    /// again: by the token without its signature, which may be written in several ways; or, where
    /// the upstream is asked, by the session cookie, else by the client's address, unless it names
    /// the user ([`Grants::named_holder`]). Nothing that a client can add to a request makes it
    /// another user.
    pub(in crate::server::gate) fn holder(
        &self,
        auth: &Auth,
        request: &Incoming<'_>,
    ) -> Option<u64> {
        let upstream = match auth {
            Auth::Signed(_) | Auth::Jwt(_) => {
                let token = auth::token(request.query, request.headers)?;
                return self.token_holder(&token);
            }
            Auth::Upstream(upstream) => upstream,
        };
        Some(match php_cookie(request.headers, &upstream.session).map(Holder::Session) {
            Some(holder) => self.shared.hasher.hash_one(holder),
            None => self.shared.hasher.hash_one(Holder::Address(request.client.map(ip_prefix))),
        })
    }

    /// The same by a token that was found elsewhere.
    pub(in crate::server::gate) fn token_holder(&self, token: &str) -> Option<u64> {
        Some(self.shared.hasher.hash_one(token.rsplit_once('.')?.0))
    }

    /// The same for the user that the upstream named, if it named one.
    pub(in crate::server::gate) fn named_holder(&self, allowed: &Allowed) -> Option<u64> {
        allowed.user.map(|user| self.shared.hasher.hash_one(Holder::User(user)))
    }
}

/// The user of a rule that asks the upstream.
#[derive(Hash)]
enum Holder {
    User(u64),
    Session(Vec<u8>),
    Address(Option<IpAddr>),
}

/// A cookie as PHP reads it: the first of that name, in which dots and spaces are `_`, with its
/// escapes undone. So no other spelling of it is another one.
fn php_cookie(headers: &dyn Headers, name: &str) -> Option<Vec<u8>> {
    let fold = |byte: &u8| if matches!(byte, b'.' | b' ') { b'_' } else { *byte };
    let found = cookies(headers).find(|(known, _)| known.iter().map(fold).eq(name.bytes()));
    let value: Vec<u8> = percent_decode(found?.1.trim_ascii()).collect();
    (!value.is_empty()).then_some(value)
}
