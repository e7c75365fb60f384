//! Query strings and urlencoded forms by PHP's own rules, since clients of PHP sites write them.
//!
//! The rules (PHP manual, "Variables From External Sources", and `parse_str`): pairs are split at
//! `&`; `+` is a space; a bad escape stays literal; `a[b]=c` is an array entry and `a[]=c` appends
//! one; a later value replaces an earlier one with the same name and key; outside brackets a dot or
//! space in a name becomes `_`, and leading spaces are dropped; a name ends at a NUL.

use super::split_at_mark;
use percent_encoding::{CONTROLS, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;
use std::hash::{Hash, Hasher};

/// Decoded parameters in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query<'a> {
    /// Most polls have no more than this one, which needs no allocation.
    first: Option<Parameter<'a>>,
    more: Vec<Parameter<'a>>,
    odd: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Parameter<'a> {
    name: Cow<'a, str>,
    /// `None` for `a=1`, `Some("")` for `a[]=1`, `Some("b")` for `a[b]=1`.
    key: Option<Cow<'a, str>>,
    /// Another bracket follows: the value is an array inside the entry.
    deeper: bool,
    value: Cow<'a, [u8]>,
}

impl<'a> Query<'a> {
    /// Parameters beyond so many are ignored, as PHP ignores them (`max_input_vars`).
    pub const MAX: usize = 1000;

    /// Reads the query of a target, without its `?`, or an urlencoded form.
    pub fn parse(text: &'a str) -> Self {
        let mut query = Self::default();
        let mut rest = Some(text);
        let mut count = 0;
        while let Some(pairs) = rest.filter(|_| count < Self::MAX) {
            let (pair, more) = match split_at_mark(pairs, b'&') {
                Some((pair, more)) => (pair, Some(more)),
                None => (pairs, None),
            };
            rest = more;
            if pair.is_empty() {
                continue;
            }
            count += 1;
            let (name, value) = split_at_mark(pair, b'=').unwrap_or((pair, ""));
            // Nearly every name is plain as it stands.
            if is_plain(name.as_bytes()) {
                let name = Cow::Borrowed(name);
                query.add(Parameter { name, key: None, deeper: false, value: decode(value) });
            } else {
                query.push(decode(name), decode(value));
            }
        }
        query
    }

    /// Adds a parameter whose name and value are decoded already, as in a multipart form.
    pub fn push(&mut self, name: Cow<'a, [u8]>, value: Cow<'a, [u8]>) {
        let name = match name {
            Cow::Borrowed(name) => text(name),
            Cow::Owned(name) => Cow::Owned(text(&name).into_owned()),
        };
        if is_plain(name.as_bytes()) {
            self.add(Parameter { name, key: None, deeper: false, value });
            return;
        }
        self.odd |= is_odd(&name);
        let name = name.split('\0').next().unwrap_or_default().trim_start_matches(' ');
        if name.is_empty() || name.starts_with('[') && !name.contains(']') {
            return;
        }
        let (stem, key, deeper) = split_name(name);
        let name = Cow::Owned(stem.replace(['.', ' '], "_"));
        self.add(Parameter { name, key: key.map(Cow::Owned), deeper, value });
    }

    fn add(&mut self, parameter: Parameter<'a>) {
        match self.first {
            None => self.first = Some(parameter),
            Some(_) if self.more.len() + 1 < Self::MAX => self.more.push(parameter),
            Some(_) => {}
        }
    }

    fn pairs(&self) -> impl DoubleEndedIterator<Item = &Parameter<'a>> {
        self.first.iter().chain(&self.more)
    }

    /// The same with owned data only.
    pub fn into_owned(self) -> Query<'static> {
        let owned = |pair: Parameter<'a>| Parameter {
            name: Cow::Owned(pair.name.into_owned()),
            key: pair.key.map(|key| Cow::Owned(key.into_owned())),
            deeper: pair.deeper,
            value: Cow::Owned(pair.value.into_owned()),
        };
        let more = self.more.into_iter().map(owned).collect();
        Query { first: self.first.map(owned), more, odd: self.odd }
    }

    /// True if a name has a NUL, begins with a bracket, or has one without its end: PHP's versions
    /// read these differently.
    pub fn has_odd_name(&self) -> bool {
        self.odd
    }

    /// The value of the scalar parameter `name`, as bytes.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let last = self.pairs().rev().find(|pair| pair.name == name)?;
        last.key.is_none().then_some(&last.value)
    }

    /// The value of the scalar parameter `name`, as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.bytes(name).map(text)
    }

    /// Feeds `hasher` with all parameters except those for which `left_out` is true, in their
    /// order.
    pub fn hash_without(&self, left_out: impl Fn(&str) -> bool, hasher: &mut impl Hasher) {
        self.pairs().filter(|pair| !left_out(&pair.name)).for_each(|pair| pair.hash(hasher));
    }

    /// True if there is a parameter of that name, scalar or array.
    pub fn has(&self, name: &str) -> bool {
        self.pairs().any(|pair| pair.name == name)
    }

    /// Number of parameters of that name.
    pub fn count(&self, name: &str) -> usize {
        self.pairs().filter(|pair| pair.name == name).count()
    }

    /// True if there is a parameter of that name that is not empty; an array is not empty.
    pub fn has_value(&self, name: &str) -> bool {
        let last = self.pairs().rev().find(|pair| pair.name == name);
        last.is_some_and(|pair| pair.key.is_some() || !pair.value.is_empty())
    }

    /// The entries of the array parameter `name` in their order; a later value replaces an earlier
    /// one with the same key. An entry that is itself an array has no value.
    pub fn entries(&self, name: &str) -> Vec<(String, Option<&[u8]>)> {
        let mut entries: Vec<(String, Option<&[u8]>)> = Vec::new();
        let mut places = std::collections::HashMap::new();
        let mut next = 0u64;
        for pair in self.pairs().filter(|pair| pair.name == name) {
            let Some(key) = &pair.key else {
                // `a=1` replaces the whole array, and `a[b]=2` after it replaces that.
                entries.clear();
                places.clear();
                next = 0;
                continue;
            };
            let key = if key.is_empty() { next.to_string() } else { key.to_string() };
            if let Some(number) = array_index(&key) {
                next = next.max(number.saturating_add(1));
            }
            let value = (!pair.deeper).then_some(&*pair.value);
            match places.get(&key) {
                Some(&place) => entries[place] = (key, value),
                None => {
                    places.insert(key.clone(), entries.len());
                    entries.push((key, value));
                }
            }
        }
        entries
    }
}

fn is_odd(name: &str) -> bool {
    let begins_with_bracket = name.trim_start_matches(' ').starts_with('[');
    let mut rest = name;
    while let Some((_, inner)) = rest.split_once('[') {
        match inner.split_once(']') {
            Some((_, after)) => rest = after,
            None => return true,
        }
    }
    begins_with_bracket || name.contains('\0')
}

/// The variables of a query or an urlencoded form as PHP counts them, empty ones too.
pub fn variables(text: &[u8]) -> usize {
    memchr::memchr_iter(b'&', text).count() + 1
}

/// A key that PHP turns into an integer: plain decimal, no leading zero.
fn array_index(key: &str) -> Option<u64> {
    let number: u64 = key.parse().ok()?;
    (number.to_string() == key).then_some(number)
}

/// Splits `a.b[c.d][e]` into `a.b` and `c.d`; true if more brackets follow.
fn split_name(name: &str) -> (Cow<'_, str>, Option<String>, bool) {
    // A bracket in the very first place is part of the name.
    let open = name.char_indices().skip(1).find(|(_, c)| *c == '[').map(|(at, _)| at);
    let Some(open) = open else { return (name.into(), None, false) };
    let Some(length) = name[open + 1..].find(']') else {
        // Without its end the bracket is one more character that a PHP variable cannot have; the
        // rest is unchanged.
        let mut whole = name.to_owned();
        whole.replace_range(open..=open, "_");
        return (whole.into(), None, false);
    };
    let close = open + 1 + length;
    let key = name[open + 1..close].to_owned();
    (name[..open].into(), Some(key), name[close + 1..].starts_with('['))
}

/// Bytes as text; invalid UTF-8 is replaced. Most are ASCII, which is quickly seen.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// Decodes `+` and `%xx`; an invalid escape stays literal.
fn decode(text: &str) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'+', b'%', text.as_bytes()).is_none() {
        return Cow::Borrowed(text.as_bytes());
    }
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return Cow::Owned(percent_decode_str(&spaced).collect());
    }
    percent_decode_str(text).into()
}

/// Decodes `%xx` strictly: `None` if a `%` is not followed by two hex digits.
pub fn decode_strictly(text: &str) -> Option<Cow<'_, [u8]>> {
    let bytes = text.as_bytes();
    let escaped = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let mut escapes = memchr::memchr_iter(b'%', bytes).peekable();
    if escapes.peek().is_none() {
        return Some(Cow::Borrowed(bytes));
    }
    if !escapes.all(|at| escaped(at + 1) && escaped(at + 2)) {
        return None;
    }
    Some(percent_decode_str(text).into())
}

/// A request's target for a log; see [`mask`].
pub fn masked(target: &str, names: &[String]) -> String {
    let mut shown = String::with_capacity(target.len());
    mask(&mut shown, target, names);
    shown
}

/// Appends a request's target for a log: in ASCII, with `***` in place of the values of the
/// parameters in `names`, named as PHP reads them. `*` in it masks every value.
pub fn mask(out: &mut String, target: &str, names: &[String]) {
    let Some(begin) = memchr::memchr(b'?', target.as_bytes()) else { return show(out, target) };
    show(out, &target[..begin]);
    // Each pair with the mark before it.
    let mut rest = &target[begin..];
    while !rest.is_empty() {
        let end = memchr::memchr(b'&', &rest.as_bytes()[1..]).map_or(rest.len(), |at| at + 1);
        let (pair, others) = rest.split_at(end);
        match memchr::memchr(b'=', pair.as_bytes()) {
            Some(equals) if is_masked(&pair[1..equals], names) => {
                show(out, &pair[..equals]);
                out.push_str("=***");
            }
            _ => show(out, pair),
        }
        rest = others;
    }
}

/// Appends a text in visible ASCII.
fn show(out: &mut String, text: &str) {
    // Without an early end, which lets the compiler look at many bytes at once.
    let odd = text.bytes().fold(false, |odd, byte| odd | !matches!(byte, b' '..=b'~'));
    if !odd {
        out.push_str(text);
    } else {
        out.extend(utf8_percent_encode(text, CONTROLS));
    }
}

fn is_masked(name: &str, mask: &[String]) -> bool {
    if is_plain(name.as_bytes()) {
        return mask.iter().any(|masked| masked == "*" || name.eq_ignore_ascii_case(masked));
    }
    let read = Query::parse(name);
    let named = |masked: &String| {
        masked == "*" || read.pairs().any(|pair| pair.name.eq_ignore_ascii_case(masked))
    };
    mask.iter().any(named)
}

/// True for a name that PHP reads as it stands.
fn is_plain(name: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    !name.is_empty() && name.iter().all(plain)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entries(query: &str, name: &str) -> Vec<(String, String)> {
        let parsed = Query::parse(query);
        let text = |value: Option<&[u8]>| match value {
            Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            None => "(array)".to_owned(),
        };
        parsed.entries(name).into_iter().map(|(key, value)| (key, text(value))).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn scalars_are_decoded_and_the_last_one_counts() {
        let query = Query::parse("a=1&b=x+y%21&a=2&c&d=%zz%4&=5&e.f=6&+g h=7");
        assert_eq!(query.text("a").unwrap(), "2");
        assert_eq!(query.text("b").unwrap(), "x y!");
        assert_eq!(query.text("c").unwrap(), "");
        assert_eq!(query.text("d").unwrap(), "%zz%4");
        assert_eq!(query.text("e_f").unwrap(), "6");
        assert_eq!(query.text("g_h").unwrap(), "7");
        assert!(query.text("missing").is_none() && query.text("").is_none());
    }

    #[test]
    fn brackets_make_arrays() {
        let expected = pairs(&[("a.b", "1"), ("0", "2"), ("7", "3"), ("8", "4")]);
        assert_eq!(entries("s[a.b]=1&s[]=2&s[7]=3&s[]=4", "s"), expected);
        assert_eq!(entries("s%5Ba+b%5D=1", "s"), pairs(&[("a b", "1")]));
        assert_eq!(entries("s[x]=1&s[y]=2&s[x]=3", "s"), pairs(&[("x", "3"), ("y", "2")]));
        assert_eq!(entries("s[x][y]=1", "s"), pairs(&[("x", "(array)")]));
        assert_eq!(entries("s[x]=1&s=2", "s"), vec![]);
        assert_eq!(entries("s[x]tail=1", "s"), pairs(&[("x", "1")]));
    }

    #[test]
    fn an_array_is_no_scalar_and_a_torn_bracket_is_a_name() {
        let query = Query::parse("s[x]=1&t[=2&u[v=3");
        assert!(query.has("s") && query.has_value("s") && query.bytes("s").is_none());
        assert_eq!(query.text("t_").unwrap(), "2");
        assert_eq!(query.text("u_v").unwrap(), "3");
    }

    #[test]
    fn a_present_but_empty_value_is_told_apart() {
        let query = Query::parse("publish=&msg=x&empty");
        assert!(query.has("publish") && !query.has_value("publish"));
        assert!(query.has("empty") && !query.has_value("empty"));
        assert!(query.has_value("msg") && !query.has_value("other"));
    }

    #[test]
    fn entries_are_read_in_one_go_and_those_beyond_the_bound_are_ignored() {
        let text = "s[]=1&".repeat(10_000);
        assert_eq!(Query::parse(&text).entries("s").len(), Query::MAX);
    }

    #[test]
    fn strict_decoding_refuses_bad_escapes() {
        assert_eq!(decode_strictly("a%20b").unwrap(), b"a b".as_slice());
        for bad in ["%", "%4", "a%zz", "%%41"] {
            assert!(decode_strictly(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn masked_parameters_lose_their_values_and_nothing_else() {
        let masked = |target| masked(target, &["token".to_owned()]);
        assert_eq!(masked("/a?x=1&token=s3cret&Tok%65n=t"), "/a?x=1&token=***&Tok%65n=***");
        assert_eq!(
            masked("/a?%20token=s&token[]=s&token%5Ba%5D=s"),
            "/a?%20token=***&token[]=***&token%5Ba%5D=***"
        );
        for plain in ["/a?x=token", "/token=a", "/a?", "/a", "/a?&&x", "/a?token", "/a?b=?&c"] {
            assert_eq!(masked(plain), plain);
        }
    }

    #[test]
    fn every_value_can_be_masked_and_nothing_but_ascii_is_logged() {
        let all = ["*".to_owned()];
        assert_eq!(masked("/a?x=1&y=&z", &all), "/a?x=***&y=***&z");
        assert_eq!(masked("/\u{9b}31m\u{202e}?\u{e4}=1", &[]), "/%C2%9B31m%E2%80%AE?%C3%A4=1");
    }
}
