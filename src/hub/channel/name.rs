//! Channel names and the patterns that select them.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The name of a channel: 1 to 255 bytes of UTF-8 without control characters.
///
/// Cheap to clone: the text is shared.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<str>);

/// Reasons why a text is no channel name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a channel name is empty")]
    Empty,
    /// The text is longer than [`ChannelName::MAX_BYTES`].
    #[error("a channel name is longer than 255 bytes")]
    TooLong,
    /// The text holds a control character (C0, DEL or C1).
    #[error("a channel name holds a control character")]
    Control,
    /// The bytes are not UTF-8.
    #[error("a channel name is not UTF-8")]
    NotUtf8,
}

impl ChannelName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Checks `text` and makes it a name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(NameError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(NameError::Control);
        }
        Ok(Self(text.into()))
    }

    /// Like [`ChannelName::new`], for bytes that may not be UTF-8.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NameError> {
        Self::new(std::str::from_utf8(bytes).map_err(|_| NameError::NotUtf8)?)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for ChannelName {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

// Allows a lookup in a table keyed by names with a plain `&str`.
impl std::borrow::Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Selects texts that are equal to it or, with a `*` at its end, begin with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    prefix: bool,
}

impl Pattern {
    /// Reads `scores/*` or `news`; `None` for an empty text, or a `*` anywhere but at the end.
    pub fn new(text: &str) -> Option<Self> {
        let (stem, prefix) = match text.strip_suffix('*') {
            Some(stem) => (stem, true),
            None => (text, false),
        };
        let valid = !stem.contains('*') && (prefix || !stem.is_empty());
        valid.then(|| Self { text: stem.to_owned(), prefix })
    }

    /// True if `text` is selected.
    pub fn matches(&self, text: &str) -> bool {
        if self.prefix { text.starts_with(&self.text) } else { text == self.text }
    }

    /// The part of `text` in place of the `*`; `None` if `text` is not selected or there is no `*`.
    pub fn rest<'a>(&self, text: &'a str) -> Option<&'a str> {
        if self.prefix { text.strip_prefix(self.text.as_str()) } else { None }
    }

    /// The part before the `*`, or the whole text where there is none.
    pub fn stem(&self) -> &str {
        &self.text
    }

    /// True if it ends in a `*`.
    pub fn is_prefix(&self) -> bool {
        self.prefix
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.prefix { "*" } else { "" })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_bounded_and_free_of_control_characters() {
        assert_eq!(ChannelName::new(""), Err(NameError::Empty));
        assert_eq!(ChannelName::new(&"x".repeat(256)), Err(NameError::TooLong));
        assert!(ChannelName::new(&"x".repeat(255)).is_ok());
        for bad in ["a\nb", "a\0", "\u{7f}", "a\u{85}"] {
            assert_eq!(ChannelName::new(bad), Err(NameError::Control), "{bad:?}");
        }
        assert_eq!(ChannelName::from_bytes(b"\xff"), Err(NameError::NotUtf8));
        assert_eq!(ChannelName::new("räume/1, 2").unwrap().as_str(), "räume/1, 2");
    }

    #[test]
    fn a_pattern_matches_whole_names_or_prefixes() {
        let prefix = Pattern::new("scores/*").unwrap();
        assert!(prefix.matches("scores/live") && prefix.matches("scores/"));
        assert!(!prefix.matches("scores"));
        assert_eq!(prefix.rest("scores/live"), Some("live"));
        let exact = Pattern::new("news").unwrap();
        assert!(exact.matches("news") && !exact.matches("newsroom"));
        assert!(Pattern::new("*").unwrap().matches("anything"));
        assert!(Pattern::new("a*b").is_none() && Pattern::new("").is_none());
    }
}
