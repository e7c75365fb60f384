//! A client's position in a channel.

use super::stamp::Stamp;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A random id of one life of a channel's history; shown in base 62.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u64);

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl Epoch {
    /// The least that shows as six characters.
    const LEAST: u64 = 62u64.pow(5);

    /// Makes an epoch of `random` bits; it always shows as six characters.
    pub fn from_random(random: u64) -> Self {
        Self(Self::LEAST + random % (62u64.pow(6) - Self::LEAST))
    }

    /// An epoch for one life of a sequencer's clock, named by `id`, in a position within its time.
    /// No channel has it.
    pub fn of_clock(id: u32) -> Self {
        // Always as many letters, so that answers have one length.
        let first = Self::LEAST / 62;
        Self(first + u64::from(id) % (Self::LEAST - first))
    }

    /// True if it is from [`Epoch::of_clock`].
    pub fn is_clock(self) -> bool {
        (1..Self::LEAST).contains(&self.0)
    }

    /// The epoch as a number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The epoch that is `number`.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(base62(self.0, &mut [0; 11]))
    }
}

impl FromStr for Epoch {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        if text.is_empty() || text.len() > 11 {
            return Err(());
        }
        let mut number = 0u64;
        for byte in text.bytes() {
            let digit = digit(byte).ok_or(())?;
            number = number.checked_mul(62).and_then(|n| n.checked_add(digit)).ok_or(())?;
        }
        Ok(Self(number))
    }
}

/// The value of `byte` in base 62: its index in [`DIGITS`].
fn digit(byte: u8) -> Option<u64> {
    let place = match byte {
        b'0'..=b'9' => byte - b'0',
        b'A'..=b'Z' => byte - b'A' + 10,
        b'a'..=b'z' => byte - b'a' + 36,
        _ => return None,
    };
    Some(place.into())
}

/// Writes `number` in base 62 at the end of `room` and returns what it wrote.
pub(super) fn base62(mut number: u64, room: &mut [u8; 11]) -> &str {
    let mut start = room.len();
    loop {
        start -= 1;
        room[start] = DIGITS[(number % 62) as usize];
        number /= 62;
        if number == 0 {
            // The digits are ASCII, so this never takes the default.
            return std::str::from_utf8(&room[start..]).unwrap_or_default();
        }
    }
}

/// An exact position in a channel's history: just after message `seq` of the life `epoch`.
///
/// The first message of a life has seq 1. Shown as `Xk3v9Q-42`; as the id of a message it means
/// that message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The life of the history.
    pub epoch: Epoch,
    /// Number of messages that life had had. In a clock's epoch: microseconds since 1970.
    pub seq: u64,
}

impl Position {
    /// Nowhere: no history can place it.
    pub const NOWHERE: Self = Self { epoch: Epoch(0), seq: 0 };

    /// True if a reader here has every message up to `other`. At one clock there are none.
    pub fn covers(self, other: Position) -> bool {
        self.epoch == other.epoch && (self.seq >= other.seq || self.epoch.is_clock())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(base62(self.epoch.0, &mut [0; 11]))?;
        f.write_str("-")?;
        f.write_str(itoa::Buffer::new().format(self.seq))
    }
}

impl FromStr for Position {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        // Cheaper than a search: an epoch has few digits.
        let end = text.bytes().position(|byte| byte == b'-').ok_or(())?;
        let (epoch, seq) = (&text[..end], &text[end + 1..]);
        if seq.is_empty() || !seq.bytes().all(|b| b.is_ascii_digit()) {
            return Err(());
        }
        // Digits that do not fit are a position far in the future, which no history can place.
        Ok(Self { epoch: epoch.parse()?, seq: seq.parse().unwrap_or(u64::MAX) })
    }
}

/// Starting point of a poll in one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// With the next message published.
    Now,
    /// With the oldest message kept.
    Oldest,
    /// With the newest message kept, at once if there is one.
    Latest,
    /// Just after an exact position.
    At(Position),
    /// After a legacy stamp cursor: with the first message whose stamp is greater.
    After(Stamp),
    /// After everything up to a stamp, for a client that is to learn of every gap: with the first
    /// message whose stamp is greater, if all of those are known.
    Since(Stamp),
    /// Just after the message with this [`Message::tag`](super::Message::tag) in this second
    /// since 1970.
    Tagged {
        /// The second of its stamp.
        second: u64,
        /// Its number in that second.
        tag: u64,
    },
    /// With the `n`th message kept: the `n`th oldest, or the `-n`th newest where it is negative.
    Nth(i32),
    /// For a client that only asks if the channel's newest stamp, which outlives its message, is
    /// greater than `after`. Without a stamp, or with one ahead of both the clock and the newest
    /// stamp, it means `slack` ago: such a client never receives its position, so this connects
    /// each of its polls with the next.
    Changed {
        /// The client's stamp, if it has one.
        after: Option<Stamp>,
        /// Reach of "now" into the past.
        slack: Duration,
    },
    /// For a client whose position only the upstream knows: everything published within that time
    /// and later. The client learns that there is something, but not its content.
    Recent(Duration),
    /// A cursor that cannot be placed.
    Lost,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_back_as_it_is_shown() {
        for random in [0, 1, 61, u64::MAX, 0xdead_beef] {
            let epoch = Epoch::from_random(random);
            let position = Position { epoch, seq: 42 };
            let shown = position.to_string();
            assert_eq!(shown.len(), "Xk3v9Q-42".len(), "{shown}");
            assert_eq!(shown.parse(), Ok(position));
        }
    }

    #[test]
    fn a_clock_s_epoch_is_never_a_channel_s() {
        for id in [0, 1, 915_000_000, u32::MAX] {
            assert!(Epoch::of_clock(id).is_clock());
            assert!(!Epoch::from_random(u64::from(id)).is_clock());
        }
        assert!(!Position::NOWHERE.epoch.is_clock());
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for bad in
            ["", "-", "a", "a-", "-1", "a-b", "a--1", "ü-1", "aaaaaaaaaaaa-1", "zzzzzzzzzzz-1"]
        {
            assert_eq!(bad.parse::<Position>(), Err(()), "{bad:?}");
        }
        let huge: Position = format!("abc-{}", "9".repeat(99)).parse().unwrap();
        assert_eq!(huge.seq, u64::MAX);
    }
}
