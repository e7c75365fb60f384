//! URI templates (RFC 6570) as patterns of topics.
//!
//! A template matches the topics that the deployed hub's matcher takes for its expansions: an
//! expression stands for any run of characters that its operator can produce, and the names of its
//! variables do not count. The match goes through the template once and keeps the set of places in
//! the topic that are reachable, so its time is the product of both lengths, whatever they hold.

use crate::hub::TopicPattern;
use smallvec::SmallVec;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    text: Box<str>,
    pieces: Box<[Piece]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Expression(Expression),
}

/// One `{...}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expression {
    /// The operator's sign, which the whole expansion begins with if it is there at all.
    sign: Option<u8>,
    /// The characters of the first value.
    first: Class,
    /// Further values.
    more: More,
}

/// The values of an expression beyond the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    None,
    /// At most so many, of these characters.
    Some(u16, u8, Class),
    /// Any number.
    Any(u8, Class),
}

/// Characters that a value may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    /// Besides the unreserved ones also the reserved ones.
    reserved: bool,
    /// `name=value`.
    pairs: bool,
    /// One more.
    more: Option<u8>,
}

impl Class {
    fn has(self, byte: u8) -> bool {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b',')
            || self.reserved && RESERVED.contains(&byte)
            || self.pairs && byte == b'='
            || self.more == Some(byte)
    }
}

/// RFC 6570, section 1.5.
const RESERVED: &[u8] = b":/?#[]@!$&'()*+,;=";

/// Places in a topic: one for each byte, and one behind the last.
type Places = SmallVec<[bool; 256]>;

impl Template {
    /// Reads a template; `None` if `text` is none, or has no expression.
    pub(super) fn new(text: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            push_literal(&mut pieces, literal)?;
            let (inside, after) = after.split_once('}')?;
            let expression = Piece::Expression(Expression::new(inside)?);
            // Two alike in a row stand for the same as one of them.
            if !is_plain_star(&expression) || pieces.last() != Some(&expression) {
                pieces.push(expression);
            }
            rest = after;
        }
        if pieces.is_empty() {
            return None;
        }
        push_literal(&mut pieces, rest)?;
        Some(Self { text: text.into(), pieces: pieces.into() })
    }

    /// True if `topic` may be an expansion.
    pub(super) fn matches(&self, topic: &str) -> bool {
        let topic = topic.as_bytes();
        let literal = |piece: Option<&Piece>, is: fn(&[u8], &[u8]) -> bool| match piece {
            Some(Piece::Literal(literal)) => is(topic, literal.as_bytes()),
            _ => true,
        };
        // Nearly all that do not match differ here.
        if !literal(self.pieces.first(), <[u8]>::starts_with)
            || !literal(self.pieces.last(), <[u8]>::ends_with)
        {
            return false;
        }
        let mut at = Places::from_elem(false, topic.len() + 1);
        at[0] = true;
        for piece in &self.pieces {
            at = match piece {
                Piece::Literal(literal) => after_literal(&at, topic, literal.as_bytes()),
                Piece::Expression(expression) => expression.after(at, topic),
            };
            if !at.contains(&true) {
                return false;
            }
        }
        at[topic.len()]
    }

    /// Bytes of memory that it takes.
    pub(super) fn cost(&self) -> usize {
        let literals = self.pieces.iter().map(|piece| match piece {
            Piece::Literal(literal) => literal.len(),
            Piece::Expression(_) => 0,
        });
        self.text.len() + size_of_val(&*self.pieces) + literals.sum::<usize>()
    }
}

impl TopicPattern for Template {
    fn text(&self) -> &str {
        &self.text
    }

    fn matches(&self, topic: &str) -> bool {
        Template::matches(self, topic)
    }
}

/// True for an expression that stands for a run of characters and nothing else.
fn is_plain_star(piece: &Piece) -> bool {
    matches!(piece, Piece::Expression(Expression { sign: None, more: More::None, .. }))
}

/// Adds a literal, if it is one (RFC 6570, section 2.1).
fn push_literal(pieces: &mut Vec<Piece>, text: &str) -> Option<()> {
    let is_odd = |c: char| c.is_control() || " \"'<>\\^`|}".contains(c);
    if text.contains(is_odd) || !has_whole_escapes(text) {
        return None;
    }
    if !text.is_empty() {
        pieces.push(Piece::Literal(text.into()));
    }
    Some(())
}

fn has_whole_escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|after| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

impl Expression {
    /// Reads what stands between the braces.
    fn new(inside: &str) -> Option<Self> {
        let (sign, separator, reserved, pairs) = match inside.as_bytes().first()? {
            b'+' => (None, b',', true, false),
            b'#' => (Some(b'#'), b',', true, false),
            b'.' => (Some(b'.'), b'.', false, false),
            b'/' => (Some(b'/'), b'/', false, false),
            b';' => (Some(b';'), b';', false, true),
            b'?' => (Some(b'?'), b'&', false, true),
            b'&' => (Some(b'&'), b'&', false, true),
            _ => (None, b',', false, false),
        };
        let has_operator = b"+#./;?&".contains(&inside.as_bytes()[0]);
        let names = if has_operator { &inside[1..] } else { inside };
        let exploded: Option<Vec<bool>> = names.split(',').map(variable).collect();
        let exploded = exploded?;
        let count = exploded.len();
        let any = exploded.contains(&true);
        let class = |pairs| Class { reserved, pairs, more: None };
        let first = class(pairs || exploded.first() == Some(&true));
        let rest = class(pairs || any);
        // A separator that is a character of the values makes no difference.
        let is_one_run = first.has(separator) && first == rest;
        let more = match (any, count) {
            _ if is_one_run => More::None,
            (true, _) => More::Any(separator, Class { more: Some(separator), ..rest }),
            (false, 1) => More::None,
            (false, _) => More::Some(u16::try_from(count - 1).ok()?, separator, rest),
        };
        Some(Self { sign, first, more })
    }

    /// The places behind it, from those before it.
    fn after(&self, at: Places, topic: &[u8]) -> Places {
        let first = match self.sign {
            None => after_run(at.clone(), topic, self.first),
            Some(sign) => after_run(after_byte(&at, topic, sign), topic, self.first),
        };
        let mut all = first.clone();
        let mut add = |places: &Places| {
            all.iter_mut().zip(places).for_each(|(all, one)| *all |= one);
            places.contains(&true)
        };
        match self.more {
            More::None => {}
            More::Some(most, separator, class) => {
                let mut last = first;
                for _ in 0..most {
                    last = after_run(after_byte(&last, topic, separator), topic, class);
                    if !add(&last) {
                        break;
                    }
                }
            }
            More::Any(separator, class) => {
                add(&after_run(after_byte(&first, topic, separator), topic, class));
            }
        }
        if self.sign.is_some() {
            // Without any value nothing stands there.
            add(&at);
        }
        all
    }
}

/// One variable of an expression (RFC 6570, section 2.3): whether it is exploded.
fn variable(text: &str) -> Option<bool> {
    let (name, exploded) = match text.strip_suffix('*') {
        Some(name) => (name, true),
        None => (text, false),
    };
    let name = match name.split_once(':') {
        None => name,
        Some((name, length)) => {
            let is_length = matches!(length.len(), 1..=4)
                && length.bytes().all(|byte| byte.is_ascii_digit())
                && !length.starts_with('0');
            if exploded || !is_length {
                return None;
            }
            name
        }
    };
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'%');
    let is_name = has_whole_escapes(name)
        && name.split('.').all(|part| !part.is_empty() && part.bytes().all(known));
    is_name.then_some(exploded)
}

fn after_byte(at: &Places, topic: &[u8], byte: u8) -> Places {
    let mut after = Places::from_elem(false, at.len());
    for (place, next) in topic.iter().enumerate() {
        after[place + 1] = at[place] && *next == byte;
    }
    after
}

fn after_literal(at: &Places, topic: &[u8], literal: &[u8]) -> Places {
    let mut after = Places::from_elem(false, at.len());
    for place in (0..at.len()).filter(|place| at[*place]) {
        if topic[place..].starts_with(literal) {
            after[place + literal.len()] = true;
        }
    }
    after
}

/// The places behind any number of characters of `class`, escapes included.
fn after_run(mut at: Places, topic: &[u8], class: Class) -> Places {
    for (place, byte) in topic.iter().enumerate() {
        if !at[place] {
            continue;
        }
        if class.has(*byte) {
            at[place + 1] = true;
        }
        let escape = topic.get(place + 1..place + 3);
        if *byte == b'%' && escape.is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)) {
            at[place + 3] = true;
        }
    }
    at
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, matching: &[&str], others: &[&str]) {
        let parsed = Template::new(template).unwrap();
        for topic in matching {
            assert!(parsed.matches(topic), "{template} {topic}");
        }
        for topic in others {
            assert!(!parsed.matches(topic), "{template} {topic}");
        }
    }

    #[test]
    fn a_plain_variable_stays_within_its_segment() {
        let template = "https://example.com/books/{id}";
        let matching = &["https://example.com/books/1", "https://example.com/books/a%20b,c"];
        let others = &["https://example.com/books/1/pages", "https://example.com/books/1?x=1"];
        check(template, matching, others);
        check("/{a}", &["/", "/é".trim_end_matches('é')], &["/é", "/ ", "/a%2", "/a%zz", "a/"]);
    }

    #[test]
    fn every_operator_has_its_signs_and_separators() {
        check("/x{+a}", &["/x", "/x/y/z?q=1#f", "/x%41"], &["/x y", "/y"]);
        check("/x{#a}", &["/x", "/x#a/b"], &["/xa", "/x/a"]);
        check("/x{.a}", &["/x", "/x.json", "/x.a.b"], &["/xjson", "/x/a"]);
        check("/x{/a}", &["/x", "/x/y"], &["/x/y/z", "/xy"]);
        check("/x{/a,b}", &["/x", "/x/y", "/x/y/z"], &["/x/y/z/1"]);
        check("/x{/a*}", &["/x", "/x/y/z/1/2", "/x/k=v"], &["/xy"]);
        check("/x{;a,b}", &["/x", "/x;a=1", "/x;a=1;b=2"], &["/x;a=1;b=2;c=3", "/x?a=1"]);
        check("/x{?a,b}", &["/x", "/x?z=1", "/x?a=1&b=2"], &["/x?a=1&b=2&c=3", "/x&a=1"]);
        check("/x?f=1{&a}", &["/x?f=1", "/x?f=1&a=2"], &["/x?f=1a", "/x?f=1&a=2&b=3"]);
        check("/x{?a*}", &["/x?a=1&b=2&c=3&d=4"], &["/x?a=1/b"]);
        check("{a,b}", &["", "1", "1,2", "1,2,3"], &["1/2"]);
        check("{a:3}", &["abc", "abcdef"], &["a/b"]);
        check("/{a}-{b}/{c}", &["/1-2/3", "/-/", "/1-2-3/x"], &["/12/3", "/1-2"]);
    }

    #[test]
    fn the_match_may_have_to_go_past_an_early_literal() {
        check("{+a}x{b}", &["x/x", "a/xbxc", "x"], &["x/", "a/b"]);
        check("{a}ab{b}abc", &["abababc", "ababc"], &["abc", "ababcd"]);
    }

    #[test]
    fn what_is_no_template_is_none() {
        let texts = [
            "",
            "plain",
            "/{",
            "/}",
            "/{}",
            "/{a",
            "/a}{b}",
            "/{a b}",
            "/{=a}",
            "/{!a}",
            "/{a,}",
            "/{a:0}",
            "/{a:12345}",
            "/{a:x}",
            "/{a**}",
            "/{a:3*}",
            "/{.}",
            "/{a..b}",
            "/ {a}",
            "/%4{a}",
            "/{%4}",
            "/{{a}}",
            "/{a}\n",
            "/<{a}",
            "/{ä}",
            "/'{a}",
        ];
        for text in texts {
            assert_eq!(Template::new(text), None, "{text:?}");
        }
        assert!(Template::new("/{a.b_c%41}{+d:9999}").is_some());
    }

    /// The time of a match is the product of the lengths; a matcher that goes back would need ages.
    #[test]
    fn hostile_templates_end_soon() {
        let began = std::time::Instant::now();
        let topic = format!("{}!", "a,/".repeat(600));
        for part in ["{a}", "{+a}a", "{/a*}", "{/a,b,c}", "{?a*}{&b*}", "{a}{+b}", "{;a,b}a"] {
            let template = Template::new(&part.repeat(1800 / part.len())).unwrap();
            for _ in 0..3 {
                let _ = template.matches(&topic);
            }
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    }

    proptest::proptest! {
        #[test]
        fn an_expansion_matches(parts in proptest::collection::vec(("[a-z/]{0,4}", "[A-Za-z0-9._~-]{0,6}"), 1..6)) {
            let template: String = parts.iter().map(|(literal, _)| format!("{literal}{{x}}")).collect();
            let topic: String = parts.iter().map(|(literal, value)| format!("{literal}{value}")).collect();
            proptest::prop_assert!(Template::new(&template).unwrap().matches(&topic));
        }

        #[test]
        fn no_text_makes_it_panic(template in "[{}a+/?*:,%=. é]{0,24}", topic in "[a/?%=,é]{0,24}") {
            if let Some(template) = Template::new(&template) {
                template.matches(&topic);
            }
        }
    }
}
