//! Durations, sizes and shares as users write them: whole numbers with a unit.
//!
//! Displayed values are read back as the same value.

use std::time::Duration;

const DURATIONS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// The longest duration: a century. Beyond it, adding to the clock could overflow.
const MAX_LENGTH: Duration = Duration::from_secs(36_500 * 86_400);

/// Reads `25s`, `500ms`, `5m`, `2h` or `1d`; a `0` needs no unit. The error describes the form.
pub(in crate::config) fn duration(text: &str) -> Result<Duration, String> {
    let hint = "write a whole number and one of ms, s, m, h, d, such as \"25s\"";
    let millis = number_with_unit(text, &DURATIONS, hint)?;
    let duration = Duration::from_millis(millis);
    if duration > MAX_LENGTH {
        Err("the longest duration is \"36500d\"".to_owned())
    } else {
        Ok(duration)
    }
}

/// Reads `512B`, `64KiB` or `10MB`; a `0` needs no unit. The error describes the form.
pub(in crate::config) fn size(text: &str) -> Result<u64, String> {
    let hint = "write a whole number and one of B, KB, MB, GB, TB, KiB, MiB, GiB, TiB, such as \
                \"64KiB\"";
    number_with_unit(text, &SIZES, hint)
}

/// Reads `10%` or `2.5%` in percent, from 0 to 100; a `0` needs no sign.
pub(in crate::config) fn percent(text: &str) -> Result<f64, String> {
    let error = || format!("\"{text}\" is no share; write \"0%\" to \"100%\"");
    let number = match text.strip_suffix('%') {
        Some(number) => number,
        None if text == "0" => text,
        None => return Err(error()),
    };
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let percent: f64 = number.parse().ok().filter(|_| plain).ok_or_else(error)?;
    if percent > 100.0 { Err(error()) } else { Ok(percent) }
}

/// Shows a duration in the largest unit that leaves a whole number. Fractions of a millisecond are
/// dropped; no duration read here has them.
pub(in crate::config) fn show_duration(duration: Duration) -> String {
    // No duration read here is longer than `MAX_LENGTH`, which fits.
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 { "0s".to_owned() } else { in_largest_unit(millis, &DURATIONS) }
}

/// Shows a size in the unit that leaves the smallest whole number.
pub(in crate::config) fn show_size(bytes: u64) -> String {
    if bytes == 0 { "0B".to_owned() } else { in_largest_unit(bytes, &SIZES) }
}

/// Shows a share in percent.
pub(in crate::config) fn show_percent(percent: f64) -> String {
    format!("{percent}%")
}

fn number_with_unit(text: &str, units: &[(&str, u64)], hint: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if unit.is_empty() && !number.is_empty() {
        let zero = number.bytes().all(|b| b == b'0');
        return if zero { Ok(0) } else { Err(format!("\"{text}\" has no unit; {hint}")) };
    }
    let scale = units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
    let Some(scale) = scale.filter(|_| !number.is_empty()) else {
        return Err(format!("cannot read \"{text}\"; {hint}"));
    };
    let product = number.parse().ok().and_then(|number: u64| number.checked_mul(scale));
    product.ok_or_else(|| format!("\"{text}\" is too large"))
}

fn in_largest_unit(value: u64, units: &[(&str, u64)]) -> String {
    let exact = units.iter().filter(|(_, scale)| value.is_multiple_of(*scale));
    match exact.max_by_key(|(_, scale)| *scale) {
        Some((name, scale)) => format!("{}{name}", value / scale),
        // Each list has a unit of 1, which divides everything.
        None => value.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_and_sizes_are_written_with_units() {
        for (text, millis) in
            [("25s", 25_000), ("500ms", 500), ("5m", 300_000), ("2h", 7_200_000), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, bytes) in
            [("64KiB", 65_536), ("1MiB", 1 << 20), ("10MB", 10_000_000), ("512B", 512), ("0B", 0)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        assert_eq!(percent("2.5%"), Ok(2.5));
    }

    #[test]
    fn a_number_without_a_unit_is_told_so() {
        assert!(duration("25").unwrap_err().contains("has no unit"));
        assert!(size("1024").unwrap_err().contains("has no unit"));
        assert!(percent("10").is_err());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in ["", "s", "-1s", "1.5s", "1 s", "1S", "1w", "99999999999999d", "36501d"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "KiB", "1kib", "1Mb", "1 KiB", "-1B", "99999999999TiB"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "%", "-1%", "101%", "1e1%", "NaN%", ".%", "1.2.3%"] {
            assert!(percent(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values_are_shown_in_their_largest_unit() {
        let millis = |n| show_duration(Duration::from_millis(n));
        assert_eq!((millis(300_000), millis(75_000)), ("5m".to_owned(), "75s".to_owned()));
        assert_eq!((millis(1_500), millis(0)), ("1500ms".to_owned(), "0s".to_owned()));
        assert_eq!((show_size(1 << 20), show_size(10_000_000)), ("1MiB".into(), "10MB".into()));
        assert_eq!((show_size(1_001), show_percent(2.5)), ("1001B".into(), "2.5%".into()));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(millis in 0u64..3_000_000_000_000, bytes: u64, n in 0.0..100.0f64) {
            let long = Duration::from_millis(millis);
            prop_assert_eq!(duration(&show_duration(long)), Ok(long));
            prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
            // Tiny shares are shown in plain digits too, never as 1e-7.
            prop_assert_eq!(percent(&show_percent(n)), Ok(n));
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = (duration(&text), size(&text), percent(&text));
        }
    }
}
