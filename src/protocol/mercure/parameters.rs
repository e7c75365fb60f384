//! Parameters as the deployed hub reads them: repeated names keep all their values.

use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// The pairs of a query or an urlencoded form, decoded as they are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parameters<'a>(&'a str);

impl<'a> Parameters<'a> {
    /// The parameters of a query without its `?`, or of an urlencoded form.
    pub fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// The values of `name`, in their order. Bytes that are not UTF-8 are replaced.
    pub fn values(self, name: &'a str) -> impl Iterator<Item = Cow<'a, str>> + 'a {
        let pairs = self.0.split('&').filter(|pair| !pair.is_empty());
        pairs.filter_map(move |pair| {
            let (known, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(known) == name).then(|| decoded(value))
        })
    }

    /// The first value of `name`.
    pub fn first(self, name: &'a str) -> Option<Cow<'a, str>> {
        self.values(name).next()
    }
}

/// Text with its escapes and its `+` undone.
pub(super) fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['+', '%']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

/// Text as one parameter of a query.
pub(super) fn encoded(text: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    // A space is a plus; a plus of the text itself is escaped by then.
    utf8_percent_encode(text, KEPT).to_string().replace("%20", "+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_names_keep_all_their_values() {
        let query = Parameters::new("topic=a%2Fb&x=1&&topic=c+d&topic&%74opic=%c3%a9&topic=%ff");
        let topics: Vec<_> = query.values("topic").collect();
        assert_eq!(topics, ["a/b", "c d", "", "é", "\u{fffd}"]);
        assert_eq!(query.first("y"), None);
        assert_eq!(Parameters::new("a=%").first("a").as_deref(), Some("%"));
    }

    #[test]
    fn what_is_encoded_is_decoded_again() {
        for text in ["a b+c", "https://example.com/x?y=1&z={id}", "é%20", "urn:uuid:a-b"] {
            assert_eq!(decoded(&encoded(text)), text);
        }
        assert_eq!(encoded("https://example.com/a b"), "https%3A%2F%2Fexample.com%2Fa+b");
    }
}
