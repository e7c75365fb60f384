//! Paths of targets, compared as RFC 3986 has them compared.
//!
//! Only escapes of unreserved characters are undone (section 6.2.2.2): `/%63omet` is `/comet`, but
//! `/live%2Fsend` is not `/live/send`, which a site may route elsewhere. Escapes that stay are
//! written in upper case, and what cannot stand in a path is escaped, so that a rule may be
//! written in plain text. Dots and double slashes are not folded.

use crate::hub::channel::Pattern;
use percent_encoding::{AsciiSet, CONTROLS, percent_encode_byte, utf8_percent_encode};
use std::borrow::Cow;
use std::fmt;

/// Bytes that cannot stand in a path (RFC 3986, section 3.3), `%` apart.
const NO_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A rule's path: exact, or a prefix that ends in `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    source: Pattern,
    normal: Pattern,
}

impl PathPattern {
    /// Reads `/comet/*`; `None` as [`Pattern::new`].
    pub fn new(text: &str) -> Option<Self> {
        let source = Pattern::new(text)?;
        let normal = Pattern::new(&normalize(text))?;
        Some(Self { source, normal })
    }

    /// True if a path that is [normal](normalize) is selected.
    pub fn matches(&self, normal: &str) -> bool {
        self.normal.matches(normal)
    }

    /// The part that the `*` stands for in a path that is [normal](normalize).
    pub fn rest<'a>(&self, normal: &'a str) -> Option<&'a str> {
        self.normal.rest(normal)
    }

    /// The part that the `*` stands for in a path as it came, which is selected.
    pub fn raw_rest<'a>(&self, path: &'a str) -> Option<&'a str> {
        if !self.is_prefix() {
            return None;
        }
        let (mut seen, mut at) = (0, 0);
        while seen < self.normal.stem().len() && at < path.len() {
            let (length, normal) = unit(path, at);
            at += length;
            seen += normal.len();
        }
        path.get(at..)
    }

    /// The part before the `*`.
    pub fn stem(&self) -> &str {
        self.source.stem()
    }

    /// True if it ends in a `*`.
    pub fn is_prefix(&self) -> bool {
        self.source.is_prefix()
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

/// The path in the one form in which equal paths are equal.
pub fn normalize(path: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(&byte);
    if path.bytes().all(plain) {
        return path.into();
    }
    let mut normal = String::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        let (length, unit) = unit(path, at);
        at += length;
        normal.push_str(&unit);
    }
    normal.into()
}

/// Length of the unit of `path` at `at`, and its normal form. `at` is on a
/// boundary of characters, and so is the end.
fn unit(path: &str, at: usize) -> (usize, Cow<'_, str>) {
    let bytes = path.as_bytes();
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    if bytes[at] == b'%' {
        let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
            // An escape that is none stands for itself, and makes none with what follows.
            return (1, "%25".into());
        };
        // Two hexadecimal digits are a byte.
        let byte = u8::try_from(high * 16 + low).unwrap_or_default();
        let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        return match unreserved {
            true => (3, char::from(byte).to_string().into()),
            false => (3, percent_encode_byte(byte).into()),
        };
    }
    let length = path[at..].chars().next().map_or(1, char::len_utf8);
    (length, utf8_percent_encode(&path[at..at + length], NO_PATH).into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_escapes_of_unreserved_characters_are_undone() {
        for (path, normal) in [
            ("/a/b", "/a/b"),
            ("/%63omet%2d%7E/a", "/comet-~/a"),
            ("/live%2fsend", "/live%2Fsend"),
            ("/a%2A%25", "/a%2A%25"),
            ("/100%/%zz%4", "/100%25/%25zz%254"),
            ("/%%32f", "/%252f"),
            ("/räume x", "/r%C3%A4ume%20x"),
            ("/r%c3%a4ume%20x", "/r%C3%A4ume%20x"),
            ("/a/../b//c/%2e%2e/", "/a/../b//c/../"),
        ] {
            assert_eq!(normalize(path), normal, "{path}");
            assert_eq!(normalize(&normalize(path)), normal, "{path}");
        }
    }

    #[test]
    fn a_pattern_selects_however_an_equal_path_is_written() {
        let pattern = PathPattern::new("/räume/*").unwrap();
        for (path, rest) in
            [("/r%c3%a4ume/a%2Cb", "a%2Cb"), ("/räume/", ""), ("/%72%C3%a4ume/%2F", "%2F")]
        {
            assert!(pattern.matches(&normalize(path)), "{path}");
            assert_eq!(pattern.raw_rest(path), Some(rest), "{path}");
        }
        assert!(!pattern.matches(&normalize("/r%c3%a4ume%2Fa")));
        assert_eq!((pattern.stem(), pattern.to_string().as_str()), ("/räume/", "/räume/*"));
    }

    proptest::proptest! {
        #[test]
        fn a_normal_path_is_normal_and_its_rest_is_that_of_the_path(path in "[/%a-f0-9A-F2-6ä -]{0,30}") {
            let normal = normalize(&path);
            proptest::prop_assert_eq!(normalize(&normal), normal.as_ref());
            let pattern = PathPattern::new("/a*").unwrap();
            if pattern.matches(&normal) {
                let rest = normalize(pattern.raw_rest(&path).unwrap()).into_owned();
                proptest::prop_assert_eq!(Some(rest.as_str()), pattern.rest(&normal));
            }
        }
    }
}
