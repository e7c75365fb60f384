//! Dates as seconds since 1970: those of HTTP (RFC 9110, section 5.6.7), and the calendar.

use std::fmt::Write;

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// Seconds of a day.
pub const DAY: u64 = 86_400;
/// Days of 400 years: the calendar repeats after that.
const ERA: u64 = 146_097;
/// Days from 0000-03-01, where the eras begin, to 1970-01-01.
const EPOCH: u64 = 719_468;
/// The last second that has four digits for its year.
const LAST: u64 = 253_402_300_799;

/// Appends `Sat, 28 Nov 2026 08:50:03 GMT`. A time beyond the year 9999 is its last second.
pub fn write(out: &mut String, second: u64) {
    let second = second.min(LAST);
    let days = second / DAY;
    let rest = second % DAY;
    let (year, month, day) = civil(days);
    let name = DAYS[(days % 7) as usize];
    let month = MONTHS[(month - 1) as usize];
    let hour = rest / 3600;
    let minute = rest / 60 % 60;
    let second = rest % 60;
    // Writing to a string cannot fail.
    let _ = write!(out, "{name}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT");
}

/// Reads that form; `None` for anything else, and for times before 1970.
pub fn read(text: &str) -> Option<u64> {
    let (_, text) = text.trim().split_once(", ")?;
    let mut words = text.split(' ');
    let day = number(words.next()?)?;
    let month = words.next()?;
    let year = number(words.next()?)?;
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let mut clock = words.next()?.split(':').map(number);
    let hour = clock.next()??;
    let minute = clock.next()??;
    let second = clock.next()??;
    let whole = clock.next().is_none() && words.next() == Some("GMT") && words.next().is_none();
    if !whole || !(1..=31).contains(&day) || !(1970..=9999).contains(&year) {
        return None;
    }
    // A leap second is shown as such.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days(year, month, day) * DAY + hour * 3600 + minute * 60 + second)
}

fn number(digits: &str) -> Option<u64> {
    let plain = (1..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

/// Days since 1970 of a date; years begin in March, so that the leap day is their last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month > 2 { year } else { year - 1 };
    let era = year / 400;
    let of_era = year % 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * ERA + of_era * 365 + of_era / 4 - of_era / 100 + of_year - EPOCH
}

/// The year, month and day of a number of days since 1970.
pub fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH;
    let era = days / ERA;
    let of_era = days % ERA;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shown(second: u64) -> String {
        let mut out = String::new();
        write(&mut out, second);
        out
    }

    #[test]
    fn dates_are_written_as_the_specification_says_and_read_back() {
        for (second, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_795_855_803, "Sat, 28 Nov 2026 08:50:03 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (LAST, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(shown(second), text);
            assert_eq!(read(text), Some(second));
        }
        assert_eq!(shown(u64::MAX), shown(LAST));
        for second in (0..LAST).step_by(86_400 * 13 + 7_919) {
            assert_eq!(read(&shown(second)), Some(second));
        }
    }

    #[test]
    fn other_texts_are_no_dates() {
        for bad in [
            "",
            "junk",
            "Sat, 28 Nov 2026 08:50:03",
            "Sat, 28 Nov 2026 08:50:03 CET",
            "Sat, 28 Nov 1969 08:50:03 GMT",
            "Sat, 0 Nov 2026 08:50:03 GMT",
            "Sat, 28 Nov 99999 08:50:03 GMT",
            "Sat, 28 nov 2026 24:50:03 GMT",
            "Sat, 28 Nov 2026 08:50 GMT",
            "Sat, +8 Nov 2026 08:50:03 GMT",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
