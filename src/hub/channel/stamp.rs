//! Time in the gate: microseconds since 1970, and the ticks in which a channel shows it.

use std::fmt;
use std::time::Duration;

/// A moment, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// The moment `age` before this one, or the beginning of time.
    pub fn before(self, age: Duration) -> Time {
        let micros = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        Time(self.0.saturating_sub(micros))
    }
}

/// The unit in which a channel counts its stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tick {
    /// Microseconds, shown as seconds with six decimals.
    #[default]
    Micros,
    /// Milliseconds, shown as an integer.
    Millis,
    /// Seconds, shown as an integer.
    Seconds,
}

impl Tick {
    /// The length of one tick in microseconds.
    pub const fn micros(self) -> u64 {
        match self {
            Tick::Micros => 1,
            Tick::Millis => 1_000,
            Tick::Seconds => 1_000_000,
        }
    }

    /// The first whole tick that is not before `time`.
    pub fn at_or_after(self, time: Time) -> Stamp {
        let tick = self.micros();
        Stamp(time.0.div_ceil(tick).saturating_mul(tick))
    }

    /// The last tick that every stamp given at `time` or later exceeds.
    pub fn just_before(self, time: Time) -> Stamp {
        Stamp(self.at_or_after(time).0.saturating_sub(self.micros()))
    }

    /// Reads a number as this tick shows it (`1700000000.123456`, `1700000000123`, `1700000000`).
    ///
    /// Zero, negative numbers and texts that are no decimal number are `None`. Digits past the
    /// microsecond are dropped, and a number too large to be a time is the end of time: both keep
    /// the order of stamps.
    pub fn parse(self, text: &str) -> Option<Stamp> {
        let text = text.trim();
        let unit = match self {
            Tick::Millis => 1_000u64,
            Tick::Micros | Tick::Seconds => 1_000_000,
        };
        let micros = if text.bytes().any(|b| matches!(b, b'e' | b'E')) {
            exponent(text, unit)?
        } else {
            decimal(text, unit)?
        };
        (micros > 0).then_some(Stamp(micros))
    }

    /// Shows `stamp` as this tick's number, ready to stand in JSON.
    pub fn show(self, stamp: Stamp) -> ShownStamp {
        ShownStamp { tick: self, stamp }
    }
}

/// `text` as digits, one optional point, digits; times `unit`.
fn decimal(text: &str, unit: u64) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    let number = |part: &str| {
        part.bytes().fold(0u64, |n, b| n.saturating_mul(10).saturating_add(u64::from(b - b'0')))
    };
    let mut place = unit;
    let mut parts = 0u64;
    for digit in fraction.bytes() {
        place /= 10;
        parts += u64::from(digit - b'0') * place;
    }
    Some(number(whole).saturating_mul(unit).saturating_add(parts))
}

/// `text` in the form `1.7e9`; times `unit`.
fn exponent(text: &str, unit: u64) -> Option<u64> {
    let plain = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'+' | b'-' | b'e' | b'E');
    if !text.bytes().all(plain) {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    // The cast saturates: a number beyond u64 becomes the end of time.
    (number > 0.0).then_some((number * unit as f64) as u64)
}

/// A moment in a channel's time, in microseconds since 1970, a multiple of the channel's tick if
/// the channel gave it. Strictly increasing within a channel. Zero stands for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The whole second since 1970 that it is in.
    pub fn second(self) -> u64 {
        self.0 / 1_000_000
    }
}

/// A stamp with its tick, displayed as a JSON number.
#[derive(Debug, Clone, Copy)]
pub struct ShownStamp {
    tick: Tick,
    stamp: Stamp,
}

impl fmt::Display for ShownStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.stamp.0;
        match self.tick {
            Tick::Micros => write!(f, "{}.{:06}", micros / 1_000_000, micros % 1_000_000),
            Tick::Millis => write!(f, "{}", micros / 1_000),
            Tick::Seconds => write!(f, "{}", micros / 1_000_000),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_rounded_up_to_its_tick() {
        assert_eq!(Tick::Seconds.at_or_after(Time(1_000_001)), Stamp(2_000_000));
        assert_eq!(Tick::Seconds.at_or_after(Time(2_000_000)), Stamp(2_000_000));
        assert_eq!(Tick::Millis.at_or_after(Time(1_001)), Stamp(2_000));
        assert_eq!(Tick::Micros.at_or_after(Time(7)), Stamp(7));
    }

    #[test]
    fn what_is_shown_is_read_back() {
        let time = Time(1_700_000_000_123_456);
        for (tick, shown) in [
            (Tick::Micros, "1700000000.123456"),
            (Tick::Millis, "1700000000124"),
            (Tick::Seconds, "1700000001"),
        ] {
            let stamp = tick.at_or_after(time);
            assert_eq!(tick.show(stamp).to_string(), shown);
            assert_eq!(tick.parse(shown), Some(stamp));
        }
    }

    #[test]
    fn only_positive_numbers_are_cursors() {
        for bad in ["", "0", "0.0", "-1", "-1e9", "abc", ".", "1.2.3", "0x10", "NaN", "inf", "1 2"]
        {
            assert_eq!(Tick::Micros.parse(bad), None, "{bad:?}");
        }
        assert_eq!(Tick::Micros.parse(" 12.5 "), Some(Stamp(12_500_000)));
        assert_eq!(Tick::Seconds.parse(".5"), Some(Stamp(500_000)));
        assert_eq!(Tick::Micros.parse("1.1234569"), Some(Stamp(1_123_456)));
        assert_eq!(Tick::Seconds.parse("1.7e9"), Some(Stamp(1_700_000_000_000_000)));
        assert_eq!(Tick::Seconds.parse(&"9".repeat(400)), Some(Stamp(u64::MAX)));
        assert_eq!(Tick::Seconds.parse("1e999"), Some(Stamp(u64::MAX)));
    }
}
