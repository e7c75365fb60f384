//! A request and a reply as plain values, whatever carries them.

use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;

/// The headers of a request, whoever has parsed them.
pub trait Headers {
    /// The first header of that (lower case) name, if its value is visible ASCII or UTF-8.
    fn get(&self, name: &str) -> Option<&str>;
}

impl Headers for http::HeaderMap {
    fn get(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(http::HeaderMap::get(self, name)?.as_bytes()).ok()
    }
}

/// The value of the cookie `name`, as it stands.
pub fn cookie<'a>(headers: &'a dyn Headers, name: &str) -> Option<&'a str> {
    let pairs = headers.get("cookie")?.split(';');
    pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v)
}

/// An answer: status, headers and whole body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The value of `Content-Type`; empty = none is sent.
    pub content_type: Cow<'static, str>,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
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
        // Only maps with keys that are no strings fail to serialize, and no reply is made of one.
        Self::new(status, "application/json", serde_json::to_vec(body).unwrap_or_default())
    }

    /// An error as `{"error","hint"}`.
    pub fn error(status: u16, error: impl fmt::Display, hint: impl fmt::Display) -> Self {
        let body = serde_json::json!({ "error": error.to_string(), "hint": hint.to_string() });
        Self::json(status, &body)
    }

    /// The reply with one more header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut headers = http::HeaderMap::new();
        headers.insert("cookie", http::HeaderValue::from_static("xa=1; a=2; b=3=4"));
        assert_eq!(cookie(&headers, "a"), Some("2"));
        assert_eq!(cookie(&headers, "b"), Some("3=4"));
        assert_eq!(cookie(&headers, "c"), None);
    }
}
