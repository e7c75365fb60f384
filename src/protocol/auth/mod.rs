//! Authorization of polls: the credentials of a request, and the [`Grant`] they result in.
//!
//! There are three kinds, by poll rule. A [`signed`] token takes three lines of PHP; a [`jwt`]
//! comes from an issuer of such tokens; and an [upstream](Upstream) request asks the site itself,
//! with the client's own cookies. A token is looked for in the parameter `token`, in
//! `Authorization: Bearer` and in the cookie `pollgate_token`, in this order.

pub mod jwt;
mod jwt_keys;
pub mod secret;
pub mod signed;

use crate::hub::channel::{ChannelName, Pattern};
use crate::hub::presence::Member;
use crate::protocol::address::Address;
use crate::protocol::http::query::Query;
use crate::protocol::http::{Headers, Reply, text_cookie};
use std::borrow::Cow;
use std::time::Duration;

/// Seconds since 1970, as tokens count them.
pub type Seconds = u64;

/// Authorization method of a rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Auth {
    /// A request to the upstream decides.
    Upstream(Upstream),
    /// A token signed by the site decides.
    Signed(signed::Keys),
    /// A JSON Web Token (RFC 7519) decides.
    Jwt(jwt::Verifier),
}

/// Authorization by a request to the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// URL of the request.
    pub url: Url,
    /// Time for which a decision is reused for the same client and channel.
    pub cache: Duration,
    /// Timeout of the request.
    pub timeout: Duration,
    /// The cookie that distinguishes users.
    pub session: String,
    /// True if it is also asked about clients that show neither a cookie nor `Authorization` nor a
    /// token. Otherwise those are refused at once.
    pub anonymous: bool,
}

/// URL of an authorization request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Url {
    /// A path (with a query, maybe) on one of the site's upstream servers.
    Path(String),
    /// Another server over plain HTTP.
    Absolute {
        /// Address to connect to.
        server: Address,
        /// The value of `Host`.
        host: String,
        /// Path and query.
        target: String,
    },
}

/// Authorization to poll some channels, for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The channels.
    pub channels: Channels,
    /// The first second in which it is no longer valid; `None` = it does not expire.
    pub expires: Option<Seconds>,
    /// The user that it is for, if it names one.
    pub member: Option<Member>,
}

/// A set of channels, by names or by prefixes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Channels(Vec<Pattern>);

impl Channels {
    /// Maximum number of patterns in one grant; no token needs more, and each poll examines them.
    const MAX: usize = 1000;

    /// A set of names, or of prefixes with a `*`; `None` if one is neither, or if there are too
    /// many.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let patterns = patterns.into_iter().take(Self::MAX + 1).map(Pattern::new);
        let patterns: Vec<Pattern> = patterns.collect::<Option<_>>()?;
        (patterns.len() <= Self::MAX).then_some(Self(patterns))
    }

    /// True if `name` is in the set.
    pub fn has(&self, name: &ChannelName) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }
}

/// Reasons why a poll is not allowed; all are the client's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no token.
    #[error("a token is wanted here")]
    Missing,
    /// The token is not valid, or was tampered with.
    #[error("this is no valid token: {0}")]
    Bad(&'static str),
    /// The token has expired.
    #[error("the token has expired")]
    Expired,
    /// The token is not valid yet.
    #[error("the token is not valid yet")]
    Early,
    /// The token is valid, but not for this channel.
    #[error("not allowed to poll \"{0}\"")]
    Channel(ChannelName),
    /// The channel's name has a `*`, which only grants may have.
    #[error("\"{0}\" has a *, which stands for any rest in a grant and cannot be polled here")]
    Star(ChannelName),
    /// The members of this channel are shown only to clients with a grant for it.
    #[error(
        "the members of \"{0}\" are shown to clients with a grant for it, and there is none here"
    )]
    Members(ChannelName),
    /// The grant was revoked.
    #[error("the leave to poll was taken back")]
    Revoked,
}

impl Rejection {
    /// The response to it.
    pub fn reply(&self) -> Reply {
        let body = serde_json::json!({ "error": self.to_string() });
        match self {
            Self::Channel(_) | Self::Star(_) | Self::Members(_) => Reply::json(403, &body),
            _ => Reply::json(401, &body).with("WWW-Authenticate", "Bearer"),
        }
    }
}

/// The query parameter of a token.
pub const PARAMETER: &str = "token";
/// The cookie of a token.
pub const COOKIE: &str = "pollgate_token";

/// The token of a request.
pub fn token<'a>(query: &'a Query<'_>, headers: &'a dyn Headers) -> Option<Cow<'a, str>> {
    let parameter = query.text(PARAMETER).filter(|token| !token.is_empty());
    let cookie = || text_cookie(headers, COOKIE).filter(|token| !token.is_empty());
    parameter.or_else(|| bearer(headers).or_else(cookie).map(Cow::Borrowed))
}

/// The token behind `Authorization: Bearer` (RFC 6750, section 2.1).
fn bearer(headers: &dyn Headers) -> Option<&str> {
    let (scheme, token) = headers.get("authorization")?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_its_three_places_in_their_order() {
        let mut headers = http::HeaderMap::new();
        let of = |query: &str, headers: &http::HeaderMap| {
            token(&Query::parse(query), headers).map(Cow::into_owned)
        };
        assert_eq!(of("a=b", &headers), None);
        headers.insert("cookie", "x=y; pollgate_token=c".parse().unwrap());
        assert_eq!(of("token=", &headers).unwrap(), "c");
        headers.insert("authorization", "bearer  b".parse().unwrap());
        assert_eq!(of("", &headers).unwrap(), "b");
        assert_eq!(of("token=%61", &headers).unwrap(), "a");
        headers.insert("authorization", "Basic b".parse().unwrap());
        assert_eq!(of("", &headers).unwrap(), "c");
    }

    #[test]
    fn a_grant_has_the_channels_it_names_and_no_others() {
        let channels = Channels::new(["news", "user-7/*"]).unwrap();
        for (name, has) in [("news", true), ("newsroom", false), ("user-7/a", true), ("u", false)] {
            assert_eq!(channels.has(&ChannelName::new(name).unwrap()), has, "{name}");
        }
        assert_eq!(Channels::new(["a*b"]), None);
        assert_eq!(Channels::new(std::iter::repeat_n("a", 1001)), None);
        assert!(!Channels::default().has(&ChannelName::new("a").unwrap()));
    }

    #[test]
    fn a_denial_is_json_with_its_status() {
        let reply = Rejection::Channel(ChannelName::new("a\"b").unwrap()).reply();
        assert_eq!(reply.status, 403);
        assert_eq!(reply.body, r#"{"error":"not allowed to poll \"a\"b\""}"#);
        assert_eq!(Rejection::Missing.reply().status, 401);
    }
}
