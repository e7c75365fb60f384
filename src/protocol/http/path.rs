//! Paths of targets, compared as RFC 3986 has them compared.
//!
//! Only escapes of unreserved characters are undone (section 6.2.2.2): `/%63omet` is `/comet`, but
//! `/live%2Fsend` is not `/live/send`, which a site may route elsewhere. Escapes that stay are
//! written in upper case, and what cannot stand in a path is escaped, so that a rule may be
//! written in plain text. Dots and double slashes are not folded.
//!
//! A `*` at the end of a pattern matches the rest of the path, which may be empty and may hold
//! slashes. Any other `*` matches one or more characters within one segment, and a segment has at
//! most one. So a match never backtracks: it reads the path once, whatever the path is.

use super::alphanumeric_and;
use percent_encoding::{AsciiSet, CONTROLS, percent_encode_byte, utf8_percent_encode};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

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

/// What the `*`s of a pattern match, in their order.
pub type Captures<'a> = SmallVec<[&'a str; 2]>;

/// A rule's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    source: String,
    /// The pattern in the form in which paths are compared.
    normal: String,
    /// The length of `normal` before the first `*`, or of all of it.
    stem: usize,
    stars: Vec<Star>,
}

/// One `*` and the text behind it, as far as the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Star {
    /// Within a segment, which ends in `inside`; `beyond` follows the segment.
    Segment { inside: String, beyond: String },
    /// The rest of the path.
    Rest,
}

/// Reasons why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The text is empty.
    #[error("something must be there")]
    Empty,
    /// Two `*` stand in one segment.
    #[error("a segment may have one * only")]
    TwoInOneSegment,
}

impl FromStr for PathPattern {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        let normal = normalize(text).into_owned();
        let mut pieces = normal.split('*').peekable();
        let stem = pieces.next().map_or(0, str::len);
        let mut stars = Vec::new();
        while let Some(after) = pieces.next() {
            let last = pieces.peek().is_none();
            stars.push(match after.find('/') {
                _ if last && after.is_empty() => Star::Rest,
                None if !last => return Err(PathError::TwoInOneSegment),
                slash => {
                    let (inside, beyond) = after.split_at(slash.unwrap_or(after.len()));
                    Star::Segment { inside: inside.to_owned(), beyond: beyond.to_owned() }
                }
            });
        }
        Ok(Self { source: text.to_owned(), stem, stars, normal })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl PathPattern {
    /// True if a path that is [normal](normalize) is selected.
    pub fn matches(&self, normal: &str) -> bool {
        self.spans(normal.as_bytes()).is_some()
    }

    /// What the `*`s match in `path` as it came; `normal` is the same path, [normal](normalize).
    /// `None` if it is not selected.
    pub fn captures<'a>(&self, path: &'a str, normal: &str) -> Option<Captures<'a>> {
        let mut spans = self.spans(normal.as_bytes())?;
        if path != normal {
            to_raw(path, &mut spans);
        }
        spans.into_iter().map(|span| path.get(span)).collect()
    }

    /// What the `*`s match in a path that is [normal](normalize); `None` if it is not selected.
    pub fn captures_normal<'a>(&self, normal: &'a str) -> Option<Captures<'a>> {
        self.spans(normal.as_bytes())?.into_iter().map(|span| normal.get(span)).collect()
    }

    /// `path` as it came, which is selected, without what the `*` at the pattern's end matches.
    pub fn before_rest<'a>(&self, path: &'a str) -> &'a str {
        let captures = self.captures(path, &normalize(path)).filter(|_| self.has_rest());
        let rest = captures.and_then(|captures| captures.last().copied()).unwrap_or_default();
        path.strip_suffix(rest).unwrap_or(path)
    }

    /// The number of `*`s.
    pub fn stars(&self) -> usize {
        self.stars.len()
    }

    /// True if it ends in a `*`, which matches the rest of the path.
    pub fn has_rest(&self) -> bool {
        self.stars.last() == Some(&Star::Rest)
    }

    /// True if every path that `other` selects is selected by this one, too. May be false where
    /// that is hard to see.
    pub fn covers(&self, other: &Self) -> bool {
        // No path of a config holds this character, so only a `*` matches it.
        let sample = |rest: &str| {
            let mut sample = other.normal[..other.stem].to_owned();
            for star in &other.stars {
                match star {
                    Star::Segment { inside, beyond } => {
                        sample.extend(["\u{1}", inside, beyond]);
                    }
                    Star::Rest => sample.push_str(rest),
                }
            }
            self.spans(sample.as_bytes()).is_some()
        };
        sample("") && (!other.has_rest() || self.has_rest() && sample("\u{1}"))
    }

    /// The places in the normal `path` that the `*`s match.
    fn spans(&self, path: &[u8]) -> Option<SmallVec<[Range<usize>; 2]>> {
        let mut spans = SmallVec::new();
        path.strip_prefix(&self.normal.as_bytes()[..self.stem])?;
        let mut at = self.stem;
        for star in &self.stars {
            let Star::Segment { inside, beyond } = star else {
                spans.push(at..path.len());
                return Some(spans);
            };
            let end = memchr::memchr(b'/', &path[at..]).map_or(path.len(), |slash| at + slash);
            let matched = path[at..end].strip_suffix(inside.as_bytes())?;
            path[end..].strip_prefix(beyond.as_bytes())?;
            // What the pattern goes on with is no part of an escape.
            let is_cut = matched.iter().rev().take(2).any(|byte| *byte == b'%');
            if matched.is_empty() || is_cut {
                return None;
            }
            spans.push(at..at + matched.len());
            at = end + beyond.len();
        }
        (at == path.len()).then_some(spans)
    }
}

/// Turns places in the normal path into those in the path as it came.
fn to_raw(path: &str, spans: &mut [Range<usize>]) {
    let mut seen = 0;
    let mut at = 0;
    let mut forward = |to: usize| {
        while seen < to && at < path.len() {
            let (length, normal) = unit(path, at);
            at += length;
            seen += normal.len();
        }
        at
    };
    for span in spans {
        *span = forward(span.start)..forward(span.end);
    }
}

/// True for the bytes that stand for themselves in a path (RFC 3986, section 3.3).
const PLAIN: [bool; 256] = alphanumeric_and(b"-._~/!$&'()*+,;=:@");

/// The path in the one form in which equal paths are equal.
pub fn normalize(path: &str) -> Cow<'_, str> {
    if path.bytes().all(|byte| PLAIN[usize::from(byte)]) {
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

    fn pattern(text: &str) -> PathPattern {
        text.parse().unwrap()
    }

    fn captures(text: &str, path: &str) -> Option<Vec<String>> {
        let found = pattern(text).captures(path, &normalize(path))?;
        Some(found.into_iter().map(str::to_owned).collect())
    }

    #[test]
    fn a_star_at_the_end_is_the_rest_and_any_other_is_within_a_segment() {
        for (text, path, expected) in [
            ("/comet", "/comet", &[][..]),
            ("/comet/*", "/comet/", &[""]),
            ("/comet/*", "/comet/a/b%2Cc,d", &["a/b%2Cc,d"]),
            ("/com*", "/comets/a", &["ets/a"]),
            ("/comet/*", "/%63omet/a%2Cb", &["a%2Cb"]),
            ("/rooms/*/poll", "/rooms/7/poll", &["7"]),
            ("/rooms/*/poll", "/rooms/%C3%A4%20b/poll", &["%C3%A4%20b"]),
            ("/rooms/*/poll", "/rooms/100%/poll", &["100%"]),
            ("/rooms/*/poll", "/rooms/a%2fb/poll", &["a%2fb"]),
            ("/räume/*", "/%72%C3%a4ume/%2F", &["%2F"]),
            ("/live/*.php", "/live/a.b.php", &["a.b"]),
            ("/live/room-*.php", "/live/room-.php.php", &[".php"]),
            ("/a/*/b/*", "/a/1/b/2/3", &["1", "2/3"]),
            ("/a/*/b/*", "/%61/%31/b/", &["%31", ""]),
            ("/*/x-*-y/z", "/1/x-2-y/z", &["1", "2"]),
            ("/räume/*/x", "/r%C3%A4ume/1/x", &["1"]),
        ] {
            assert_eq!(captures(text, path).unwrap(), expected, "{text} {path}");
        }
        for (text, path) in [
            ("/comet", "/comet/"),
            ("/comet/*", "/comet"),
            ("/rooms/*/poll", "/rooms//poll"),
            ("/rooms/*/poll", "/rooms/a/b/poll"),
            ("/rooms/*/poll", "/rooms/a%2Fpoll"),
            ("/räume/*", "/r%c3%a4ume%2Fa"),
            ("/rooms/*F/poll", "/rooms/a%2F/poll"),
            ("/rooms/*2F/poll", "/rooms/a%2F/poll"),
            ("/rooms/*/poll", "/rooms/a/poll/"),
            ("/rooms/*/poll", "/rooms/a/polls"),
            ("/live/*.php", "/live/.php"),
            ("/live/*.php", "/live/a.php/b"),
            ("/live/*.php", "/live/a.phpx"),
            ("/a/*/b/*", "/a/1/b"),
            ("/x/../a", "/a"),
        ] {
            assert_eq!(captures(text, path), None, "{text} {path}");
        }
    }

    #[test]
    fn a_segment_has_one_star_only() {
        for text in ["/a*b*", "/**", "/a/*-*/b", "**"] {
            assert_eq!(text.parse::<PathPattern>(), Err(PathError::TwoInOneSegment), "{text}");
        }
        assert_eq!("".parse::<PathPattern>(), Err(PathError::Empty));
    }

    #[test]
    fn a_pattern_covers_what_it_selects_all_of() {
        for (one, other) in [
            ("/a", "/a"),
            ("/a*", "/a"),
            ("/a/*", "/a/*"),
            ("/a/*", "/a/*/b/*"),
            ("/*/b", "/a/b"),
            ("/*/b", "/x*/b"),
            ("/live/*.php", "/live/room-*.php"),
            ("*", "/live/*.php"),
        ] {
            assert!(pattern(one).covers(&pattern(other)), "{one} {other}");
        }
        for (one, other) in [
            ("/a", "/a*"),
            ("/a/b", "/a/*"),
            ("/a/*/c", "/a/*"),
            ("/x*/b", "/*/b"),
            ("/a/b/*", "/a/*"),
            ("/*.php", "/live/*.php"),
        ] {
            assert!(!pattern(one).covers(&pattern(other)), "{one} {other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_the_stars_match_is_that_of_the_normal_path(path in "[/%a-f0-9A-F2-6ä -]{0,30}") {
            let normal = normalize(&path);
            proptest::prop_assert_eq!(normalize(&normal), normal.as_ref());
            for text in ["/a*", "/*/a*", "/*2/*F/*"] {
                let pattern = pattern(text);
                let raw = pattern.captures(&path, &normal);
                let raw = raw.map(|stars| stars.iter().map(|star| normalize(star).into_owned()).collect::<Vec<_>>());
                let expected = pattern.captures_normal(&normal);
                let expected = expected.map(|stars| stars.iter().map(|star| (*star).to_owned()).collect());
                proptest::prop_assert_eq!(raw, expected, "{}", text);
            }
        }
    }
}
