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
    /// the upstream was asked, by the user that it named, else by the session cookie, else by the
    /// client's address. Nothing that a client can add to a request makes it another user.
    pub(in crate::server::gate) fn holder(
        &self,
        auth: &Auth,
        request: &Incoming<'_>,
        allowed: Option<&Allowed>,
    ) -> Option<u64> {
        let upstream = match auth {
            Auth::Signed(_) | Auth::Jwt(_) => {
                let token = auth::token(request.query, request.headers)?;
                return Some(self.shared.hasher.hash_one(token.rsplit_once('.')?.0));
            }
            Auth::Upstream(upstream) => upstream,
        };
        let user = allowed.and_then(|allowed| allowed.user);
        let session = || php_cookie(request.headers, &upstream.session);
        Some(match user.map(Holder::User).or_else(|| session().map(Holder::Session)) {
            Some(holder) => self.shared.hasher.hash_one(holder),
            None => self.shared.hasher.hash_one(Holder::Address(request.client.map(ip_prefix))),
        })
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
