//! Tokens: the places where a request has one, and its claims.

use super::Refused;
use super::parameters::Parameters;
use super::selector::Selectors;
use crate::protocol::http::{Headers, text_cookie};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The cookie of a token.
const COOKIE: &str = "mercureAuthorization";
/// The query parameter of a token.
const PARAMETER: &str = "authorization";
/// The shortest token: shorter ones cannot be signed.
const MIN_BYTES: usize = 41;
/// The claim, and its name with a namespace, which comes first.
const CLAIMS: [&str; 2] = ["https://mercure.rocks/", "mercure"];

/// A request's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: Cow<'a, str>,
    /// A browser sends it by itself, so a page from elsewhere may be behind the request.
    pub(super) by_cookie: bool,
}

/// The token of a request: from the header, else the query, else the cookie. One that cannot be
/// used is an error, whatever the next place has.
pub(super) fn find<'a>(
    query: Parameters<'a>,
    headers: &'a dyn Headers,
) -> Result<Option<Token<'a>>, Refused> {
    let checked = |text: Cow<'a, str>| match text.len() >= MIN_BYTES {
        true => Ok(Some(Token { text, by_cookie: false })),
        false => Err(Refused::Unauthorized("the token is too short")),
    };
    match headers.raw("authorization").as_slice() {
        [] => {}
        [one] => {
            let bearer = std::str::from_utf8(one).ok().and_then(|value| value.split_once(' '));
            return match bearer {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                    checked(token.trim().into())
                }
                _ => Err(Refused::Unauthorized("the Authorization header has no bearer token")),
            };
        }
        _ => return Err(Refused::Unauthorized("there are several Authorization headers")),
    }
    let mut parameters = query.values(PARAMETER);
    match (parameters.next(), parameters.next()) {
        (Some(token), None) => return checked(token),
        (Some(_), Some(_)) => return Err(Refused::Unauthorized("there are several tokens")),
        (None, _) => {}
    }
    let cookie = text_cookie(headers, COOKIE).filter(|token| !token.is_empty());
    Ok(cookie.map(|token| Token { text: token.into(), by_cookie: true }))
}

/// True if the page that a request comes from may publish with a cookie: its `Origin`, or that of
/// its `Referer`, is one of `origins`.
pub(super) fn may_use_cookie(headers: &dyn Headers, origins: &[String]) -> bool {
    let origin = headers.get("origin").filter(|origin| !origin.is_empty());
    let origin = origin.or_else(|| headers.get("referer").and_then(origin_of));
    origin.is_some_and(|origin| origins.iter().any(|pattern| is_origin(pattern, origin)))
}

/// The origin of a URL.
fn origin_of(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    url.get(..scheme.len() + 3 + end)
}

/// True if `pattern` (an origin, `*`, or an origin with one `*`) means `origin`.
fn is_origin(pattern: &str, origin: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == origin,
        Some((before, after)) => origin
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            // It stands for a part of the name: nothing that ends the name may be in it.
            .is_some_and(|part| pattern == "*" || !part.contains(['/', '@', '?', '#', '\\'])),
    }
}

/// The claims of a token.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Claims {
    /// The topics it may publish on; `None` = it may not publish.
    pub(super) publish: Option<Selectors>,
    /// The topics whose private updates it may have.
    pub(super) subscribe: Selectors,
    /// What the site says of the subscriber.
    pub(super) payload: Option<Value>,
}

impl Claims {
    pub(super) fn of(claims: &Map<String, Value>) -> Result<Self, Refused> {
        let wrong = Refused::Unauthorized("the claim \"mercure\" is no object of lists of topics");
        let found = CLAIMS.iter().find_map(|name| claims.get(*name).filter(|it| !it.is_null()));
        let claim = match found {
            None => return Ok(Self::default()),
            Some(claim) => claim.as_object().ok_or(wrong.clone())?,
        };
        let list = |name: &str| -> Result<Option<Selectors>, Refused> {
            let texts = match claim.get(name) {
                None | Some(Value::Null) => return Ok(None),
                Some(Value::Array(texts)) => texts.iter().map(Value::as_str),
                Some(_) => return Err(wrong.clone()),
            };
            let texts: Option<Vec<&str>> = texts.collect();
            let selectors = Selectors::new(&texts.ok_or(wrong.clone())?);
            selectors.map(Some).map_err(|_| Refused::Unauthorized("the token has too many topics"))
        };
        let payload = claim.get("payload").filter(|payload| !payload.is_null()).cloned();
        Ok(Self {
            publish: list("publish")?,
            subscribe: list("subscribe")?.unwrap_or_default(),
            payload,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue};

    const TOKEN: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        pairs.iter().map(|(name, text)| (name.parse().unwrap(), value(text))).collect()
    }

    fn found(query: &str, pairs: &[(&'static str, &str)]) -> Option<(String, bool)> {
        let headers = headers(pairs);
        let token = find(Parameters::new(query), &headers).ok()??;
        Some((token.text.clone().into_owned(), token.by_cookie))
    }

    #[test]
    fn the_header_comes_before_the_query_and_that_before_the_cookie() {
        let header = format!("bearer {TOKEN}h");
        let query = format!("authorization={TOKEN}q");
        let cookie = ("cookie", &*format!("a=b; mercureAuthorization={TOKEN}c"));
        let all = [("authorization", &*header), cookie];
        assert_eq!(found(&query, &all), Some((format!("{TOKEN}h"), false)));
        assert_eq!(found(&query, &[cookie]), Some((format!("{TOKEN}q"), false)));
        assert_eq!(found("", &[cookie]), Some((format!("{TOKEN}c"), true)));
        assert_eq!(found("", &[]), None);
    }

    #[test]
    fn a_token_that_cannot_be_used_is_an_error() {
        let cookie = format!("mercureAuthorization={TOKEN}");
        for (query, pairs) in [
            ("", vec![("authorization", "Basic abc")]),
            ("", vec![("authorization", "Bearer short")]),
            ("", vec![("authorization", "Bearer"), ("cookie", &cookie)]),
            ("authorization=short", vec![("cookie", &*cookie)]),
            (&format!("authorization={TOKEN}&authorization={TOKEN}"), vec![]),
        ] {
            assert!(find(Parameters::new(query), &headers(&pairs)).is_err(), "{query} {pairs:?}");
        }
        let mut two = headers(&[("authorization", &format!("Bearer {TOKEN}"))]);
        two.append("authorization", HeaderValue::from_static("Bearer x"));
        assert!(find(Parameters::default(), &two).is_err());
    }

    #[test]
    fn a_cookie_publishes_only_from_a_listed_origin() {
        let origins = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let may = |pairs: &[(&'static str, &str)], list: &[&str]| {
            may_use_cookie(&headers(pairs), &origins(list))
        };
        let own = ["https://a.example"];
        assert!(may(&[("origin", "https://a.example")], &own));
        assert!(may(&[("referer", "https://a.example/x?y")], &own));
        assert!(may(&[("origin", "https://b.example")], &["*"]));
        assert!(may(&[("origin", "https://x.a.example")], &["https://*.a.example"]));
        for (pairs, list) in [
            (vec![], &["*"][..]),
            (vec![("origin", "https://b.example")], &own[..]),
            (vec![("origin", "https://a.example.evil")], &own[..]),
            (vec![("referer", "https://a.example.evil/https://a.example")], &own[..]),
            (vec![("referer", "https://a.example@evil/")], &own[..]),
            (vec![("referer", "nonsense")], &["*"][..]),
            // The header counts, not the page behind it.
            (vec![("origin", "null"), ("referer", "https://a.example/")], &own[..]),
            (vec![("origin", "https://evil/.a.example")], &["https://*.a.example"][..]),
            (vec![("origin", "https://a.example")], &[][..]),
        ] {
            assert!(!may(&pairs, list), "{pairs:?} {list:?}");
        }
    }

    #[test]
    fn claims_are_read_and_checked() {
        let claims = |text: &str| {
            let value: Value = serde_json::from_str(text).unwrap();
            Claims::of(value.as_object().unwrap())
        };
        let some = claims(r#"{"mercure":{"publish":["*"],"subscribe":["a"],"payload":{"u":1}}}"#);
        let some = some.unwrap();
        assert!(some.publish.unwrap().select("x") && some.subscribe.select("a"));
        assert_eq!(some.payload.unwrap()["u"], 1);
        let none = claims("{}").unwrap();
        assert!(none.publish.is_none() && !none.subscribe.select("a"));
        assert!(claims(r#"{"mercure":{"publish":[]}}"#).unwrap().publish.is_some());
        let both = r#"{"mercure":{"publish":["b"]},"https://mercure.rocks/":{"publish":["a"]}}"#;
        assert!(claims(both).unwrap().publish.unwrap().select("a"));
        for bad in [
            r#"{"mercure":[]}"#,
            r#"{"mercure":{"publish":"*"}}"#,
            r#"{"mercure":{"subscribe":[1]}}"#,
        ] {
            assert!(claims(bad).is_err(), "{bad}");
        }
    }
}
