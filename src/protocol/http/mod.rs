//! A request and a reply as plain values, independent of the connection, and the trait of the
//! endpoints that answer one with the other.

pub mod condition;
pub mod date;
pub mod form;
pub mod framing;
mod multipart;
pub mod observer;
pub mod path;
pub mod query;
pub mod response_head;
pub mod tracker;
pub mod validate;
pub mod websocket;

use crate::hub::channel::SiteName;
use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// A table that is true for letters, digits and `marks`.
pub(super) const fn alphanumeric_and(marks: &[u8]) -> [bool; 256] {
    let mut table = any_of(marks);
    let mut byte = 0;
    while byte < 256 {
        table[byte] |= (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    table
}

/// A table that is true for `marks`.
const fn any_of(marks: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut mark = 0;
    while mark < marks.len() {
        table[marks[mark] as usize] = true;
        mark += 1;
    }
    table
}

/// The texts before and behind the first `mark`, which is ASCII: [`str::split_once`] for the short
/// texts of a poll, at a third of its instructions.
pub fn split_at_mark(text: &str, mark: u8) -> Option<(&str, &str)> {
    debug_assert!(mark.is_ascii());
    let at = memchr::memchr(mark, text.as_bytes())?;
    Some((&text[..at], &text[at + 1..]))
}

/// The headers of a request, independent of their parser.
pub trait Headers: Sync {
    /// The first header of that (lower case) name, if its value is visible ASCII or UTF-8.
    fn get(&self, name: &str) -> Option<&str>;

    /// The values of all headers of that (lower case) name that are visible ASCII or UTF-8.
    fn values(&self, name: &str) -> Vec<&str>;

    /// The values of all headers of that (lower case) name as they came, text or not.
    fn raw(&self, name: &str) -> Vec<&[u8]>;

    /// Shows every header, with its name as it came.
    fn each(&self, show: &mut dyn FnMut(&str, &[u8]));

    /// The values that are text in one list, as RFC 9110, section 5.3, allows.
    fn all(&self, name: &str) -> String {
        self.values(name).join(", ")
    }
}

impl Headers for http::HeaderMap {
    fn get(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(http::HeaderMap::get(self, name)?.as_bytes()).ok()
    }

    fn values(&self, name: &str) -> Vec<&str> {
        let values = self.get_all(name).iter();
        values.filter_map(|value| std::str::from_utf8(value.as_bytes()).ok()).collect()
    }

    fn raw(&self, name: &str) -> Vec<&[u8]> {
        self.get_all(name).iter().map(http::HeaderValue::as_bytes).collect()
    }

    fn each(&self, show: &mut dyn FnMut(&str, &[u8])) {
        self.iter().for_each(|(name, value)| show(name.as_str(), value.as_bytes()));
    }
}

/// The headers as a map of their own, without those that it cannot hold.
pub fn to_map(headers: &dyn Headers) -> http::HeaderMap {
    let mut map = http::HeaderMap::new();
    headers.each(&mut |name, value| {
        let name = http::HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    });
    map
}

/// The cookies, names and values unchanged, as bytes: a cookie that is no UTF-8 hides none of the
/// others. HTTP/2 clients send them in several headers (RFC 9113, section 8.2.3).
pub fn cookies(headers: &dyn Headers) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs = headers.raw("cookie").into_iter().flat_map(|value| value.split(|b| *b == b';'));
    pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        Some((&pair[..equals], &pair[equals + 1..]))
    })
}

/// The value of the cookie `name`, unchanged.
pub fn cookie<'a>(headers: &'a dyn Headers, name: &str) -> Option<&'a [u8]> {
    cookies(headers).find(|(known, _)| *known == name.as_bytes()).map(|(_, value)| value)
}

/// The value of the cookie `name`, if it is UTF-8.
pub fn text_cookie<'a>(headers: &'a dyn Headers, name: &str) -> Option<&'a str> {
    std::str::from_utf8(cookie(headers, name)?).ok()
}

/// The value of `Retry-After` for a retry after `wait`: whole seconds, not 0.
pub fn retry_after(wait: Duration) -> String {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    seconds.max(1).to_string()
}

/// A whole request, its body read.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path of the target, still escaped; without the `/sites/{site}` that is `site`.
    pub path: String,
    /// The text behind the `?`; empty without one.
    pub query: String,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The site that it is for; none = the gate as a whole.
    pub site: SiteName,
}

impl Request {
    /// A request for `target` (path and query) without headers or body.
    pub fn new(method: Method, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            headers: http::HeaderMap::new(),
            body: Bytes::new(),
            site: SiteName::NONE,
        }
    }

    /// The path with its site, by which requests for the same are known.
    pub fn whole_path(&self) -> Cow<'_, str> {
        match self.site.as_str() {
            "" => Cow::Borrowed(&self.path),
            site => Cow::Owned(format!("/sites/{site}{}", self.path)),
        }
    }
}

/// The extent of what a path of the internal listener is about, where there are sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The gate as a whole: a site's token does not suffice.
    Gate,
    /// One site, which the token or the path has to name.
    Site,
    /// One site, or all of them.
    Either,
}

/// A part of the internal listener that answers some paths.
#[async_trait]
pub trait Endpoint: Send + Sync {
    /// True if it answers `path`, for any method.
    fn owns(&self, path: &str) -> bool;

    /// True if `path` is for probes, which send no token.
    fn is_open(&self, _path: &str) -> bool {
        false
    }

    /// True if `path` is a page that other sites may link to.
    fn may_be_visited(&self, _path: &str) -> bool {
        false
    }

    /// What a request for `path` is about, where there are sites.
    fn scope(&self, _path: &str) -> Scope {
        Scope::Gate
    }

    /// The refusal of a request whose head alone says that it is not allowed; its body is not read
    /// then.
    fn refuse(&self, _head: &Request) -> Option<Reply> {
        None
    }

    /// Maximum length of the body of a request for `path`, in bytes.
    fn longest_body(&self, _path: &str) -> u64 {
        64 << 10
    }

    /// True if a request for `path` waits for updates. It changes nothing, so a caller that stops
    /// all changes need not wait for its end.
    fn waits(&self, _path: &str) -> bool {
        false
    }

    /// Answers `request`. HEAD arrives as GET; the session drops the body of its response.
    async fn answer(&self, request: &Request) -> Reply;
}

/// A response: status, headers and whole body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The value of `Content-Type`; empty = none is sent.
    pub content_type: Cow<'static, str>,
    /// Further headers.
    pub headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// A reply without further headers.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let content_type = Cow::Borrowed(content_type);
        Self { status, content_type, headers: Vec::new(), body: body.into() }
    }

    /// `body` as JSON.
    pub fn json(status: u16, body: &impl serde::Serialize) -> Self {
        // Only maps whose keys are no strings fail to serialize, and no reply is made of one.
        Self::new(status, "application/json", serde_json::to_vec(body).unwrap_or_default())
    }

    /// An error as `{"error","hint"}`.
    pub fn error(status: u16, error: impl fmt::Display, hint: impl fmt::Display) -> Self {
        let body = serde_json::json!({ "error": error.to_string(), "hint": hint.to_string() });
        Self::json(status, &body)
    }

    /// The response to a method that `path` does not support; `allow` lists the supported ones.
    pub fn wrong_method(path: &str, allow: &'static str) -> Self {
        let hint = format!("use one of: {allow}");
        Self::error(405, format!("{path} has no such method"), hint).with("Allow", allow)
    }

    /// The reply with one more header.
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut headers = http::HeaderMap::new();
        headers.insert("cookie", http::HeaderValue::from_static("xa=1; a=2; b=3=4"));
        headers.append("cookie", http::HeaderValue::from_static("d=5"));
        assert_eq!(text_cookie(&headers, "d"), Some("5"));
        assert_eq!(text_cookie(&headers, "a"), Some("2"));
        assert_eq!(text_cookie(&headers, "b"), Some("3=4"));
        assert_eq!(text_cookie(&headers, "c"), None);
    }

    #[test]
    fn a_cookie_that_is_no_text_hides_no_other() {
        let mut headers = http::HeaderMap::new();
        let value = http::HeaderValue::from_bytes(b"a=1; name=J\xf6rg; b=2").unwrap();
        headers.insert("cookie", value);
        assert_eq!(
            (text_cookie(&headers, "a"), text_cookie(&headers, "b")),
            (Some("1"), Some("2"))
        );
        assert_eq!(cookie(&headers, "name"), Some(&b"J\xf6rg"[..]));
        assert_eq!(text_cookie(&headers, "name"), None);
    }
}
