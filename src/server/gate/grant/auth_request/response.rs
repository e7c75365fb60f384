//! The upstream's response: which channels a client may have, and who it is.

use super::{AuthRequest, CHANNELS};
use crate::hub::presence::Member;
use crate::protocol::http::Reply;
use crate::protocol::http::query::decode_strictly;
use crate::server::gate::grant::Names;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming as Body;
use std::collections::HashSet;
use std::hash::BuildHasher;

/// The longest body of a refusal that is passed on, in bytes.
const MAX_BODY: usize = 64 << 10;
/// The header in which the answer may name the user.
const USER: &str = "pollgate-user";
/// The header with more about that user, as JSON.
const USER_INFO: &str = "pollgate-user-info";

/// The upstream's response.
pub(super) enum AuthResponse {
    /// Authorization for these channels.
    Permission(Permission),
    No(Reply),
    Nothing(String),
}

pub(super) struct Permission {
    pub(super) grant: u64,
    /// A hash of the user that the upstream named.
    pub(super) user: Option<u64>,
    /// The user who is present by it.
    pub(super) member: Option<Member>,
    pub(super) names: Names,
    /// Number of revocations at the time of the request.
    pub(super) seen: u64,
}

impl AuthRequest {
    /// What the response says of the channels that were asked for.
    pub(super) async fn understand(&self, answer: Response<Body>) -> Result<AuthResponse, String> {
        let status = answer.status();
        if status.is_success() {
            return self.allowed(answer.headers());
        }
        if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(format!("it answered {status}; answer 2xx to allow, 401 or 403 to refuse"));
        }
        let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let content_type = text(header::CONTENT_TYPE).unwrap_or_default().to_owned();
        let scheme = text(header::WWW_AUTHENTICATE).map(str::to_owned);
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(|_| "its refusal is too long, or breaks off".to_owned())?;
        let mut reply = Reply::new(status.as_u16(), "", body.to_bytes());
        reply.content_type = content_type.into();
        Ok(AuthResponse::No(match scheme {
            Some(scheme) => reply.with("WWW-Authenticate", scheme),
            None => reply,
        }))
    }

    /// The channels that a response authorizes.
    fn allowed(&self, headers: &HeaderMap) -> Result<AuthResponse, String> {
        let grant = self.grants.number();
        let seen = 0;
        let asked = self.channels.iter().map(|(_, name)| name);
        let user = headers.get(USER).filter(|user| !user.is_empty());
        let member = user.and_then(|user| member(user, headers.get(USER_INFO)));
        let user = user.map(|user| self.grants.shared.hasher.hash_one(user.as_bytes()));
        if !headers.contains_key(CHANNELS) {
            return Ok(AuthResponse::Permission(Permission {
                grant,
                user,
                member,
                names: asked.cloned().collect(),
                seen,
            }));
        }
        let granted = granted(headers).ok_or(
            "its Pollgate-Channels is no list of percent-encoded names; it has no patterns",
        )?;
        let names = asked.filter(|name| granted.contains(name.as_str())).cloned().collect();
        Ok(AuthResponse::Permission(Permission { grant, user, member, names, seen }))
    }
}

/// The user that a response names. An info that cannot be used is left out.
fn member(user: &HeaderValue, info: Option<&HeaderValue>) -> Option<Member> {
    let user = std::str::from_utf8(user.as_bytes()).ok()?;
    let usable = |info: &&str| {
        let reason = if info.len() > Member::MAX_INFO {
            "it is longer than 1 KB"
        } else if serde_json::from_str::<&serde_json::value::RawValue>(info).is_err() {
            "it is no JSON"
        } else {
            return true;
        };
        tracing::warn!(user, reason, "a Pollgate-User-Info is left out");
        false
    };
    let info = info.and_then(|info| std::str::from_utf8(info.as_bytes()).ok());
    Member::new(user, info.filter(usable))
}

/// The names in the response's list. The list is taken apart before its names are decoded, and a
/// name is a name: `room-%2A` is a channel with a star in it, never all rooms.
fn granted(headers: &HeaderMap) -> Option<HashSet<String>> {
    let mut names = HashSet::new();
    for list in headers.get_all(CHANNELS) {
        for name in list.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name.contains('*') {
                return None;
            }
            names.insert(String::from_utf8(decode_strictly(name)?.into_owned()).ok()?);
        }
    }
    Some(names)
}
