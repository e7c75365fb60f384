//! Channel names and the patterns that select them.

use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The name of a channel: 1 to 255 bytes of UTF-8 without control characters, within its site.
///
/// It is displayed, and read as text, without the site; but names of two sites are never equal. So
/// a site cannot reach another one's channels, whatever it calls them, and nothing that is shown
/// to clients has to be stripped.
///
/// Cheap to clone: the text is shared. It begins with the length of the site's name, as one
/// character, and that name; for a channel without a site the length is 0.
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
        Self::checked("", text)
    }

    /// The same within a site.
    pub fn of_site(site: &SiteName, text: &str) -> Result<Self, NameError> {
        Self::checked(site.as_str(), text)
    }

    /// The channel `text` of the same site as this one.
    pub fn sibling(&self, text: &str) -> Result<Self, NameError> {
        Self::checked(self.site(), text)
    }

    fn checked(site: &str, text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(NameError::TooLong);
        }
        let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if !is_plain && text.chars().any(char::is_control) {
            return Err(NameError::Control);
        }
        Ok(Self::join(site, text))
    }

    fn join(site: &str, text: &str) -> Self {
        // On the stack, as each poll makes a name. A site's name has at most `SiteName::MAX_BYTES`.
        let mut joined = SmallVec::<[u8; 64]>::from_slice(&[site.len() as u8]);
        joined.extend_from_slice(site.as_bytes());
        joined.extend_from_slice(text.as_bytes());
        // It is made of texts, so it is one.
        Self(std::str::from_utf8(&joined).unwrap_or("\0").into())
    }

    /// The channel of the same name that belongs to `site`.
    pub fn in_site(self, site: &SiteName) -> Self {
        if site.as_str() == self.site() { self } else { Self::join(site.as_str(), self.as_str()) }
    }

    /// The name of its site; empty = none.
    pub fn site(&self) -> &str {
        &self.0[1..self.start()]
    }

    /// True if it belongs to `site`.
    pub fn is_of(&self, site: &SiteName) -> bool {
        self.site() == site.as_str()
    }

    /// The name as people read it who look after several sites: `shop/news`.
    pub fn path(&self) -> Cow<'_, str> {
        match self.site() {
            "" => Cow::Borrowed(self.as_str()),
            site => Cow::Owned(format!("{site}/{}", self.as_str())),
        }
    }

    /// The name with its site, for records that keep both; see [`ChannelName::from_qualified`].
    pub fn qualified(&self) -> &str {
        if self.start() == 1 { self.as_str() } else { &self.0 }
    }

    /// Reads a record of [`ChannelName::qualified`]. The length of a site's name is a control
    /// character, with which no channel's name begins.
    pub fn from_qualified(bytes: &[u8]) -> Result<Self, NameError> {
        let Some((length @ 1..=SiteName::MAX_LENGTH, rest)) = bytes.split_first() else {
            return Self::from_bytes(bytes);
        };
        let (site, name) = rest.split_at_checked(usize::from(*length)).ok_or(NameError::Control)?;
        let site = std::str::from_utf8(site).ok().and_then(SiteName::new);
        Ok(Self::from_bytes(name)?.in_site(&site.ok_or(NameError::Control)?))
    }

    /// The first byte of the name itself.
    fn start(&self) -> usize {
        1 + usize::from(self.0.as_bytes()[0])
    }

    /// Like [`ChannelName::new`], for bytes that may not be UTF-8.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NameError> {
        Self::from_bytes_of_site(&SiteName::NONE, bytes)
    }

    /// The same within a site.
    pub fn from_bytes_of_site(site: &SiteName, bytes: &[u8]) -> Result<Self, NameError> {
        Self::of_site(site, std::str::from_utf8(bytes).map_err(|_| NameError::NotUtf8)?)
    }

    /// The name as text, without the site.
    pub fn as_str(&self) -> &str {
        &self.0[self.start()..]
    }
}

impl Deref for ChannelName {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a site: 1 to 31 bytes of `a-z`, `0-9` and `-`; empty = that of a gate without
/// sites.
///
/// Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteName(Option<Arc<str>>);

impl SiteName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = Self::MAX_LENGTH as usize;
    /// Below the first character that is none of control.
    const MAX_LENGTH: u8 = 31;
    /// No site.
    pub const NONE: Self = Self(None);

    /// Checks `text` and makes it a name; `None` = it is none.
    pub fn new(text: &str) -> Option<Self> {
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let valid = (1..=Self::MAX_BYTES).contains(&text.len()) && text.bytes().all(known);
        valid.then(|| Self(Some(text.into())))
    }

    /// The name; empty = no site.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// True if it is no site's.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Debug for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
    fn names_of_two_sites_are_shown_alike_and_never_equal() {
        let site = |name: &str| SiteName::new(name).unwrap();
        let plain = ChannelName::new("news").unwrap();
        let shop = plain.clone().in_site(&site("shop"));
        let blog = plain.clone().in_site(&site("blog"));
        assert!(plain != shop && shop != blog && plain != blog);
        for name in [&plain, &shop, &blog] {
            assert_eq!((name.as_str(), name.to_string().as_str(), name.len()), ("news", "news", 4));
            assert_eq!(ChannelName::from_qualified(name.qualified().as_bytes()), Ok(name.clone()));
        }
        assert_eq!((shop.site(), plain.site()), ("shop", ""));
        assert_eq!(
            (shop.sibling("news"), shop.sibling("")),
            (Ok(shop.clone()), Err(NameError::Empty))
        );
        assert_eq!(plain.sibling("news"), Ok(plain.clone()));
        assert_eq!(shop.in_site(&site("blog")), blog);
        assert_eq!(blog.in_site(&SiteName::NONE), plain);
        // The border between site and name cannot be moved.
        let of =
            |in_site: &str, name: &str| ChannelName::new(name).unwrap().in_site(&site(in_site));
        assert_ne!(of("ab", "c"), of("a", "bc"));
    }

    #[test]
    fn a_site_is_named_with_few_characters() {
        for good in ["a", "shop-2", "0", &"x".repeat(31)] {
            assert!(SiteName::new(good).is_some(), "{good}");
        }
        for bad in ["", "Shop", "a.b", "a/b", "ä", "a b", &"x".repeat(32)] {
            assert!(SiteName::new(bad).is_none(), "{bad}");
        }
        for bad in [&b"\x04sho"[..], b"\x04shopnews\x01", b"\x04SHOPx", b"\x04shop", b"\x20"] {
            assert_eq!(ChannelName::from_qualified(bad).is_ok(), bad == b"\x20", "{bad:?}");
        }
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
