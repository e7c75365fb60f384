//! Lines that requests leave: formatted in one go, in the log's own format.
//!
//! The event machinery visits each field through several layers, which costs more than all else
//! that a delivery needs. These lines look the same; `log.level` has to be asked beforehand.

use super::{Format, queue};
use crate::protocol::http::date::{self, civil};
use std::cell::{Cell, RefCell};
use std::fmt::{self, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

/// The format in force.
static STYLE: AtomicU8 = AtomicU8::new(Style::Text as u8);

/// Look of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Style {
    Text,
    /// Text on a terminal.
    Color,
    Json,
}

impl Style {
    /// The look of a format; `terminal` = lines go to one.
    pub(super) fn of(format: Format, terminal: bool) -> Self {
        match format {
            Format::Json => Self::Json,
            Format::Text if terminal => Self::Color,
            Format::Text => Self::Text,
        }
    }

    /// From now on lines look like this.
    pub(super) fn set(self) {
        STYLE.store(self as u8, Ordering::Relaxed);
    }

    fn current() -> Self {
        match STYLE.load(Ordering::Relaxed) {
            style if style == Self::Json as u8 => Self::Json,
            style if style == Self::Color as u8 => Self::Color,
            _ => Self::Text,
        }
    }
}

/// A line of the level INFO; it is logged at [`Line::end`].
#[derive(Debug)]
pub struct Line {
    out: String,
    style: Style,
    target: &'static str,
    any: bool,
}

impl Line {
    /// Begins a line of the log `target`.
    pub fn new(target: &'static str) -> Self {
        Self::begin(Style::current(), target, SystemTime::now())
    }

    fn begin(style: Style, target: &'static str, now: SystemTime) -> Self {
        let mut out = SPARE.take();
        out.clear();
        match style {
            Style::Text => {
                put_time(&mut out, now);
                put(&mut out, &["  INFO ", target, ":"]);
            }
            Style::Color => {
                out.push_str("\x1b[2m");
                put_time(&mut out, now);
                put(&mut out, &["\x1b[0m \x1b[32m INFO\x1b[0m \x1b[2m", target, "\x1b[0m"]);
                out.push_str("\x1b[2m:\x1b[0m");
            }
            Style::Json => {
                out.push_str("{\"timestamp\":\"");
                put_time(&mut out, now);
                out.push_str("\",\"level\":\"INFO\",\"fields\":{");
            }
        }
        Self { out, style, target, any: false }
    }

    fn name(&mut self, name: &str) {
        match self.style {
            Style::Text => put(&mut self.out, &[" ", name, "="]),
            Style::Color => {
                put(&mut self.out, &[" \x1b[3m", name, "\x1b[0m\x1b[2m=\x1b[0m"]);
            }
            Style::Json => {
                let comma = if self.any { "," } else { "" };
                put(&mut self.out, &[comma, "\"", name, "\":"]);
            }
        }
        self.any = true;
    }

    /// Adds a text in quotes.
    pub fn quoted(&mut self, name: &str, value: &str) {
        self.name(name);
        if value.bytes().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\')) {
            put(&mut self.out, &["\"", value, "\""]);
        } else if self.style == Style::Json {
            self.json(value);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(self.out, "{value:?}");
        }
    }

    /// Adds a value that needs no escapes, in quotes.
    pub fn shown(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        let _ = write!(self.out, "\"{value}\"");
    }

    /// Adds an IP address, in quotes.
    pub fn address(&mut self, name: &str, address: IpAddr) {
        let IpAddr::V4(address) = address else { return self.shown(name, address) };
        self.name(name);
        for (index, octet) in address.octets().into_iter().enumerate() {
            put(
                &mut self.out,
                &[if index == 0 { "\"" } else { "." }, itoa::Buffer::new().format(octet)],
            );
        }
        self.out.push('"');
    }

    /// Adds a text of visible ASCII that `write` appends; without quotes where lines are text.
    pub fn plain(&mut self, name: &str, write: impl FnOnce(&mut String)) {
        self.name(name);
        if self.style != Style::Json {
            return write(&mut self.out);
        }
        let begin = self.out.len();
        self.out.push('"');
        write(&mut self.out);
        if memchr::memchr2(b'"', b'\\', &self.out.as_bytes()[begin + 1..]).is_some() {
            let value = self.out.split_off(begin + 1);
            self.out.pop();
            return self.json(&value);
        }
        self.out.push('"');
    }

    /// Adds a number.
    pub fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        self.out.push_str(itoa::Buffer::new().format(value));
    }

    /// Adds a time in milliseconds, rounded to the microsecond.
    pub fn milliseconds(&mut self, name: &str, time: Duration) {
        self.name(name);
        let rounded = u64::from((time.subsec_nanos() + 500) / 1000);
        let micros = time.as_secs().saturating_mul(1_000_000).saturating_add(rounded);
        let mut digits = itoa::Buffer::new();
        put(&mut self.out, &[digits.format(micros / 1000), "."]);
        put_fraction(&mut self.out, (micros % 1000) as u32);
    }

    fn json(&mut self, value: &str) {
        // A string is always valid JSON.
        self.out.push_str(&serde_json::to_string(value).unwrap_or_default());
    }

    /// Logs it.
    pub fn end(self) {
        let out = self.finish();
        queue::push(out.as_bytes());
        SPARE.set(out);
    }

    fn finish(mut self) -> String {
        if self.style == Style::Json {
            put(&mut self.out, &["},\"target\":\"", self.target, "\"}"]);
        }
        self.out.push('\n');
        self.out
    }
}

thread_local! {
    /// The room of the last line.
    static SPARE: RefCell<String> = const { RefCell::new(String::new()) };
}

fn put(out: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| out.push_str(part));
}

/// Appends thousandths without the zeros at their end, but for the first digit.
fn put_fraction(out: &mut String, thousandths: u32) {
    let digit = |by: u32| char::from(b'0' + (thousandths / by % 10) as u8);
    out.push(digit(100));
    if !thousandths.is_multiple_of(100) {
        out.push(digit(10));
    }
    if !thousandths.is_multiple_of(10) {
        out.push(digit(1));
    }
}

/// Appends `2026-11-28T08:50:03.123456Z`. All but the fraction is made once a second and thread.
fn put_time(out: &mut String, now: SystemTime) {
    const LENGTH: usize = 19;
    thread_local! {
        static LAST: Cell<(u64, [u8; LENGTH])> = const { Cell::new((u64::MAX, [b' '; LENGTH])) };
    }
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let second = since.as_secs();
    let (last, mut text) = LAST.get();
    if last != second {
        let (year, month, day) = civil(second / date::DAY);
        let rest = second % date::DAY;
        let hour = rest / 3600;
        let minute = rest / 60 % 60;
        let shown =
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}", second % 60);
        let length = shown.len().min(LENGTH);
        text[..length].copy_from_slice(&shown.as_bytes()[..length]);
        LAST.set((second, text));
    }
    out.push_str(std::str::from_utf8(&text).unwrap_or_default());
    let micros = since.subsec_micros();
    let digit = |by: u32| b'0' + (micros / by % 10) as u8;
    let [a, b, c, d, e, f] = [100_000, 10_000, 1_000, 100, 10, 1].map(digit);
    out.push_str(std::str::from_utf8(&[b'.', a, b, c, d, e, f, b'Z']).unwrap_or_default());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::io;
    use std::sync::Arc;
    use tracing_subscriber::fmt::MakeWriter;

    const TARGET: &str = "pollgate::access";

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// The line that the event machinery makes of the same.
    fn event(style: Style, method: &str, target: &str, ms: f64) -> String {
        let kept = Kept::default();
        let lines = tracing_subscriber::fmt().with_writer(kept.clone());
        let client = "192.0.2.1";
        let status = 200u16;
        let log = || {
            tracing::info!(target: TARGET, client, method, %target, status, took_ms = ms);
        };
        match style {
            Style::Json => tracing::subscriber::with_default(lines.json().finish(), log),
            _ => {
                let lines = lines.with_ansi(style == Style::Color);
                tracing::subscriber::with_default(lines.finish(), log);
            }
        }
        let bytes = kept.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn line(style: Style, method: &str, target: &str, time: Duration) -> String {
        let mut line = Line::begin(style, TARGET, SystemTime::now());
        line.address("client", [192, 0, 2, 1].into());
        line.quoted("method", method);
        line.plain("target", |out| out.push_str(target));
        line.number("status", 200);
        line.milliseconds("took_ms", time);
        line.finish()
    }

    /// The line without its time, and that.
    fn without_time(line: &str) -> (String, String) {
        let begin = line.find("20").unwrap();
        let end = line.find('Z').unwrap() + 1;
        (format!("{}{}", &line[..begin], &line[end..]), line[begin..end].to_owned())
    }

    #[test]
    fn a_line_looks_as_an_event_does() {
        for style in [Style::Text, Style::Color, Style::Json] {
            for (method, target, micros) in [
                ("GET", "/comet/news?cursor=1", 1_500),
                ("P\"U\\T", "/a?b=\"c\\d\"", 0),
                ("\u{e4}\u{1b}", "/", 12_345_678),
                ("-", "-", 10),
                ("-", "-", 2_120),
            ] {
                let time = Duration::from_micros(micros);
                let (own, at) = without_time(&line(style, method, target, time));
                let (event, event_at) =
                    without_time(&event(style, method, target, micros as f64 / 1e3));
                assert_eq!(own, event);
                assert_eq!((at.len(), &at[..14]), (event_at.len(), &event_at[..14]));
            }
        }
    }

    #[test]
    fn an_address_is_written_as_it_is_shown() {
        for address in ["0.0.0.0", "10.20.0.255", "255.255.255.255", "::1", "2001:db8::a"] {
            let mut line = Line::begin(Style::Text, TARGET, SystemTime::now());
            line.address("client", address.parse().unwrap());
            assert!(line.finish().ends_with(&format!(" client=\"{address}\"\n")));
        }
    }

    #[test]
    fn a_time_is_written_to_the_microsecond() {
        for (micros, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_795_855_803_000_042, "2026-11-28T08:50:03.000042Z"),
            (1_795_855_803_999_999, "2026-11-28T08:50:03.999999Z"),
            (951_782_399_100_000, "2000-02-28T23:59:59.100000Z"),
        ] {
            let mut out = String::new();
            put_time(&mut out, SystemTime::UNIX_EPOCH + Duration::from_micros(micros));
            assert_eq!(out, expected);
        }
    }
}
