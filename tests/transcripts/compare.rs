//! Comparing what is documented with what came, byte for byte but for the values that time and
//! chance give.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::time::SystemTime;

/// The date of every answer in the pages.
const DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";

/// A value that is another one in every run. All values of a kind have one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The value of a `Date` header.
    Date,
    /// The life of a channel: six letters and digits, before `-` and a number or as `"epoch"`.
    Epoch,
    /// The table's life in the position of a channel that was never published to: five letters and
    /// digits, before `-` and sixteen digits.
    TableEpoch,
    /// Sixteen digits: the table's time in such a position.
    TableTime,
    /// Ten digits, a point, six digits.
    Micros,
    /// Thirteen digits.
    Millis,
    /// Ten digits.
    Seconds,
}

/// The values of `text` that time and chance gave, in their order.
fn marks(text: &str) -> Vec<(Range<usize>, Kind)> {
    let mut marks = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match mark_at(text.as_bytes(), at) {
            Some((length, kind)) => {
                marks.push((at..at + length, kind));
                at += length;
            }
            None => at += 1,
        }
    }
    marks
}

fn mark_at(text: &[u8], at: usize) -> Option<(usize, Kind)> {
    let (before, rest) = text.split_at(at);
    if before.ends_with(b"\r\nDate: ") {
        return Some((rest.iter().position(|byte| *byte == b'\r')?, Kind::Date));
    }
    if before.last().is_some_and(u8::is_ascii_alphanumeric) {
        return None;
    }
    let word = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let behind = &rest[word..];
    let digits_behind =
        |from: usize| behind.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
    if word == 6
        && (behind.starts_with(b"-") && digits_behind(1) > 0 || before.ends_with(b"\"epoch\":\""))
    {
        return Some((6, Kind::Epoch));
    }
    if word == 5 && behind.starts_with(b"-") && digits_behind(1) == 16 {
        return Some((5, Kind::TableEpoch));
    }
    // Stamps from 2023 to 2033; a page writes another year where the value itself is meant.
    if digits != word
        || !(rest.starts_with(b"17") || rest.starts_with(b"18") || rest.starts_with(b"19"))
    {
        return None;
    }
    match (word, behind.starts_with(b".")) {
        (10, true) if digits_behind(1) == 6 => Some((17, Kind::Micros)),
        (10, false) => Some((10, Kind::Seconds)),
        (13, false) => Some((13, Kind::Millis)),
        (16, false) => Some((16, Kind::TableTime)),
        _ => None,
    }
}

/// Real values of the documented ones.
#[derive(Debug, Default)]
pub(crate) struct Meanings {
    real: BTreeMap<(Kind, String), String>,
}

impl Meanings {
    /// The real text for the documented `text`. A whole second that no answer has shown before is
    /// the client's own clock; any other stamp must have been received.
    pub(crate) fn really(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut end = 0;
        for (range, kind) in marks(text) {
            out.push_str(&text[end..range.start]);
            end = range.end;
            let documented = &text[range];
            let meaning = self.real.entry((kind, documented.to_owned()));
            out.push_str(match (meaning, kind) {
                (Entry::Occupied(meaning), _) => meaning.into_mut(),
                (Entry::Vacant(meaning), Kind::Seconds) => {
                    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
                    meaning.insert(now.to_string())
                }
                // A life that no gate here has begun.
                (Entry::Vacant(_), Kind::Epoch) => documented,
                (Entry::Vacant(_), _) => panic!("{documented} is sent, but nobody received it"),
            });
        }
        out + &text[end..]
    }

    /// Compares `real` with `documented`; the error describes the difference.
    pub(crate) fn compare(&mut self, documented: &str, real: &str) -> Result<(), String> {
        let mut end = 0;
        let mut at = 0;
        for (range, kind) in marks(documented) {
            at = equal(&documented[end..range.start], real, at)?;
            end = range.end;
            let found = mark_at(real.as_bytes(), at).filter(|(_, found)| *found == kind);
            let value = &documented[range];
            let Some((length, _)) = found else {
                return Err(format!("{value} is not {:?}", line(real, at)));
            };
            self.learn(kind, value, &real[at..at + length])?;
            at += length;
        }
        at = equal(&documented[end..], real, at)?;
        if at == real.len() { Ok(()) } else { Err(format!("more came: {:?}", &real[at..])) }
    }

    /// Notes that `documented` stands for `real`, if it can: one for one, and in the same order.
    fn learn(&mut self, kind: Kind, documented: &str, real: &str) -> Result<(), String> {
        if kind == Kind::Date {
            let valid = httpdate::parse_http_date(real).is_ok();
            return valid.then_some(()).ok_or(format!("{real:?} is no date"));
        }
        for ((of, other), meant) in &self.real {
            let fits = match kind {
                _ if *of != kind => true,
                Kind::Epoch => (other == documented) == (meant == real),
                // Equally long numbers are in the order of their texts.
                _ => other.as_str().cmp(documented) == meant.as_str().cmp(real),
            };
            if !fits {
                return Err(format!("{documented} is {real} here, but {other} was {meant} before"));
            }
        }
        self.real.insert((kind, documented.to_owned()), real.to_owned());
        Ok(())
    }

    /// The documentation of `real`, which keeps the values of `documented` where they fit.
    pub(crate) fn documentation_of(&mut self, documented: &str, real: &str) -> String {
        let mut written: Vec<_> = marks(documented)
            .into_iter()
            .map(|(range, kind)| (kind, documented[range].to_owned()))
            .collect();
        let mut out = String::new();
        let mut end = 0;
        for (range, kind) in marks(real) {
            out.push_str(&real[end..range.start]);
            end = range.end;
            let value = &real[range];
            let before =
                written.iter().position(|(of, _)| *of == kind).map(|at| written.remove(at));
            out.push_str(&self.name(kind, value, before.map(|(_, name)| name)));
        }
        out + &real[end..]
    }

    fn name(&mut self, kind: Kind, real: &str, before: Option<String>) -> String {
        if kind == Kind::Date {
            return DATE.to_owned();
        }
        let known = self.real.iter().find(|((of, _), meant)| *of == kind && *meant == real);
        if let Some(((_, name), _)) = known {
            return name.clone();
        }
        // Steps of seven seconds look like real life; those between are for what comes in between.
        let seconds = (0..100).map(|number| number * 7).chain(0..700);
        let invented = seconds.map(|second| invent(kind, second));
        for name in before.into_iter().chain(invented) {
            if self.learn(kind, &name, real).is_ok() {
                return name;
            }
        }
        panic!("no name fits {real} in {self:?}");
    }
}

/// A value for a page, so many seconds after the first.
fn invent(kind: Kind, second: u64) -> String {
    const EPOCHS: [&str; 4] = ["Xk3v9Q", "b7Rm2T", "Zq81Lw", "e5Hn0P"];
    let whole = 1_700_000_000 + second;
    match kind {
        Kind::Date => DATE.to_owned(),
        Kind::Epoch => EPOCHS[second as usize % EPOCHS.len()].to_owned(),
        Kind::TableEpoch => "kT4aB".to_owned(),
        Kind::TableTime => format!("{whole}{:06}", 123_456 + second),
        Kind::Micros => format!("{whole}.{:06}", (123_456 + second * 38_833) % 1_000_000),
        Kind::Millis => format!("{whole}{:03}", (123 + second * 39) % 1_000),
        Kind::Seconds => whole.to_string(),
    }
}

/// End of `literal` in `real`, if it stands there at `at`.
fn equal(literal: &str, real: &str, at: usize) -> Result<usize, String> {
    let rest = &real[at..];
    if rest.starts_with(literal) {
        return Ok(at + literal.len());
    }
    let same = literal.bytes().zip(rest.bytes()).take_while(|(a, b)| a == b).count();
    let documented = literal.as_bytes().get(same..).unwrap_or_default();
    let documented = String::from_utf8_lossy(documented);
    let documented = documented.split("\r\n").next().unwrap_or_default();
    Err(format!("{documented:?} is documented where {:?} came", line(real, at + same)))
}

/// The rest of the line of `text` from `at`.
fn line(text: &str, at: usize) -> String {
    let rest = String::from_utf8_lossy(&text.as_bytes()[at.min(text.len())..]).into_owned();
    rest.split("\r\n").next().unwrap_or_default().to_owned()
}

const DOCUMENTED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n\r\n\
    {\"id\":\"Xk3v9Q-1\",\"stamp\":1700000000.123456}{\"id\":\"Xk3v9Q-2\",\"stamp\":1700000000.123457}";

const REAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nDate: Wed, 02 Dec 2026 10:00:00 GMT\r\n\r\n\
    {\"id\":\"aB3dE6-1\",\"stamp\":1796205600.000001}{\"id\":\"aB3dE6-2\",\"stamp\":1796205601.900000}";

#[test]
fn equal_answers_of_another_day_are_equal() {
    Meanings::default().compare(DOCUMENTED, REAL).unwrap();
}

#[test]
fn every_wrong_byte_is_found() {
    let wrongs = [
        ("200 OK", "201 OK"),
        ("Content-Length: 9", "Content-Length: 10"),
        ("Content-Length", "content-length"),
        ("Date: Wed", "Date: Xyz"),
        ("\"id\"", "\"Id\""),
        ("aB3dE6-2", "aB3dE6-3"),
        ("aB3dE6-2", "aB3dE7-2"),
        ("1796205601.900000", "1796205600.000001"),
        ("1796205601.900000", "1796205599.000000"),
        ("1796205601.900000", "1796205601"),
        ("1796205601.900000}", "1796205601.900000} "),
        ("1796205601.900000}", "1796205601.900000"),
    ];
    for (right, wrong) in wrongs {
        let changed = REAL.replacen(right, wrong, 1);
        assert_ne!(changed, REAL, "{right} is not there");
        let compared = Meanings::default().compare(DOCUMENTED, &changed);
        assert!(compared.is_err(), "{right} -> {wrong} went unseen");
    }
}

#[test]
fn headers_in_another_order_differ() {
    let documented = "HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\n\r\n";
    let real = "HTTP/1.1 200 OK\r\nB: 2\r\nA: 1\r\n\r\n";
    let why = Meanings::default().compare(documented, real).unwrap_err();
    assert_eq!(why, "\"A: 1\" is documented where \"B: 2\" came");
}

#[test]
fn what_was_received_is_sent_as_it_really_was() {
    let mut meanings = Meanings::default();
    meanings.compare(DOCUMENTED, REAL).unwrap();
    let sent =
        meanings.really("?cursor=89xg7k.Xk3v9Q-2&timestamp=1700000000.123457&old=1600000000");
    assert_eq!(sent, "?cursor=89xg7k.aB3dE6-2&timestamp=1796205601.900000&old=1600000000");
    assert_eq!(meanings.really("?cursor=Qqqqqq-1"), "?cursor=Qqqqqq-1");
}

#[test]
#[should_panic(expected = "nobody received it")]
fn a_stamp_that_was_not_received_cannot_be_sent() {
    Meanings::default().really("?timestamp=1700000000.123456");
}

#[test]
fn an_updated_page_keeps_the_values_it_had() {
    let reordered = REAL
        .replace("Content-Length: 9\r\n", "")
        .replace("\r\n\r\n", "\r\nContent-Length: 9\r\n\r\n");
    let mut meanings = Meanings::default();
    let written = meanings.documentation_of(DOCUMENTED, &reordered);
    assert!(written.ends_with(DOCUMENTED.split("\r\n\r\n").last().unwrap()), "{written}");
    Meanings::default().compare(&written, &reordered).unwrap();
}
