//! Who may poll: the credentials that a request bears, and the [`Grant`] that they are worth.
//!
//! Three kinds, by poll rule. A [`signed`] token is three lines of PHP; a [`jwt`] comes from
//! whoever issues such tokens; and the site itself can be [asked](Upstream), with the client's own
//! cookies. Tokens travel as the parameter `token`, as `Authorization: Bearer`, or as the cookie
//! `pollgate_token`, looked for in this order.

pub mod jwt;
mod jwt_keys;
pub mod secret;
pub mod signed;

use crate::hub::channel::{ChannelName, Pattern};
use crate::protocol::address::Address;
use crate::protocol::http::query::Query;
use crate::protocol::http::{Headers, Reply, cookie};
use std::borrow::Cow;
use std::time::Duration;

/// Seconds since 1970, as tokens count them.
pub type Seconds = u64;

/// How a rule finds out who may poll.
#[derive(Debug, Clone, PartialEq)]
pub enum Auth {
    /// The site is asked.
    Upstream(Upstream),
    /// By a token that the site has signed.
    Signed(signed::Keys),
    /// By a JSON Web Token (RFC 7519).
    Jwt(jwt::Verifier),
}

/// The site is asked whether a client may poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// What is asked.
    pub url: Url,
    /// How long its word is good for the same client and channel.
    pub cache: Duration,
    /// How long it may take to answer.
    pub timeout: Duration,
}

/// Where the site is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Url {
    /// A path (with a query, maybe) on one of the site's own servers.
    Path(String),
    /// Somewhere else over plain HTTP.
    Absolute {
        /// Where to connect to.
        server: Address,
        /// The value of `Host`.
        host: String,
        /// Path and query.
        target: String,
    },
}

/// Leave to poll some channels, for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The channels.
    pub channels: Channels,
    /// The first second in which it is good no more; `None` = it does not end by itself.
    pub expires: Option<Seconds>,
}

/// A set of channels, by their names or by how these begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Channels(Vec<Pattern>);

impl Channels {
    /// Most patterns in one grant; no token needs more, and each poll looks at them.
    const MAX: usize = 1000;

    /// Of names, or beginnings of names with a `*`; `None` where one is neither, or where there
    /// are too many.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let patterns = patterns.into_iter().take(Self::MAX + 1).map(Pattern::new);
        let patterns: Vec<Pattern> = patterns.collect::<Option<_>>()?;
        (patterns.len() <= Self::MAX).then_some(Self(patterns))
    }

    /// Whether `name` is one of them.
    pub fn has(&self, name: &ChannelName) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }
}

/// Why a poll is not allowed; the client's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no token.
    #[error("a token is wanted here")]
    Missing,
    /// The token is none of ours, or was tampered with.
    #[error("this is no valid token: {0}")]
    Bad(&'static str),
    /// The token's time is over.
    #[error("the token has expired")]
    Expired,
    /// The token's time has not come.
    #[error("the token is not valid yet")]
    Early,
    /// The token is good, but not for this channel.
    #[error("not allowed to poll \"{0}\"")]
    Channel(ChannelName),
    /// The leave was taken back.
    #[error("the leave to poll was taken back")]
    Revoked,
}

impl Rejection {
    /// The answer to it.
    pub fn reply(&self) -> Reply {
        let body = serde_json::json!({ "error": self.to_string() });
        match self {
            Self::Channel(_) => Reply::json(403, &body),
            _ => Reply::json(401, &body).with("WWW-Authenticate", "Bearer"),
        }
    }
}

/// The parameter in which a token travels.
pub const PARAMETER: &str = "token";
/// The cookie in which a token travels.
pub const COOKIE: &str = "pollgate_token";

/// The token that a request bears.
pub fn token<'a>(query: &'a Query<'_>, headers: &'a dyn Headers) -> Option<Cow<'a, str>> {
    let parameter = query.text(PARAMETER).filter(|token| !token.is_empty());
    let cookie = || cookie(headers, COOKIE).filter(|token| !token.is_empty());
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
