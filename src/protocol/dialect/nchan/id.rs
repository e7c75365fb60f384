//! Message ids: a second since 1970 and, for every channel of the poll, a number in that second.
//!
//! `1795855803:1` is the second message of its second. For several channels there is a vector:
//! `1795855803:[1],0,-` is the second message on the first channel, where the second channel has
//! had one message in this second and the third none. A channel whose place is in another second,
//! and cannot be left out without doubt, has its stamp there: `s1795855802999999`. Clients send
//! back what they got.

use crate::hub::channel::{Cursor, Message, Moment, Stamp};
use crate::hub::{Answer, ChannelUpdate};
use std::fmt::Write;

/// Microseconds of a second: the unit of stamps.
const SECOND: u64 = 1_000_000;

/// An id in its two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) second: u64,
    pub(super) tag: String,
}

impl Id {
    /// As event streams and WebSockets have it.
    pub(super) fn whole(&self) -> String {
        format!("{}:{}", self.second, self.tag)
    }
}

/// A client's place in a channel.
fn moment(place: &ChannelUpdate) -> Moment {
    match place.found.tag {
        Some(_) => Moment { stamp: place.found.stamp, tag: place.found.tag },
        // A place just before a message is that of the message before it.
        None if place.found.before.tag.is_some() => place.found.before,
        None => Moment { stamp: place.found.stamp, tag: None },
    }
}

/// The id that leaves a client at `place`; `from` is the channel of the message that it is of, and
/// `pending` is for each channel the next message that the client has yet to get.
pub(super) fn of(
    place: &Answer,
    from: Option<usize>,
    pending: impl Fn(usize) -> Option<Stamp>,
) -> Id {
    if let [only] = place.as_slice() {
        let at = moment(only);
        return Id { second: at.stamp.second(), tag: at.shown_tag().to_string() };
    }
    // A time that is no message's hides the messages after it only where there is no message.
    let newest = |told: bool| {
        let moments = place.iter().map(moment).filter(|at| !told || at.tag.is_some());
        moments.map(|at| at.stamp.second()).max()
    };
    let second = newest(true).or_else(|| newest(false)).unwrap_or_default();
    let start = second.saturating_mul(SECOND);
    let mut tag = String::new();
    for (index, update) in place.iter().enumerate() {
        if index > 0 {
            tag.push(',');
        }
        let at = moment(update);
        let seen = u64::from(at.stamp.second() == second);
        let is_from = from == Some(index);
        let next = pending(index).is_none_or(|next| next.second() >= second);
        // All that comes on this channel is in that second or later.
        let is_sure = next && update.found.as_of.0 / SECOND >= second;
        let nothing = match at.tag {
            Some(_) => at.stamp.0 < start,
            None => update.found.before.stamp.0 < start,
        };
        // Writing to a string cannot fail.
        let _ = match (at.tag, seen == 1) {
            (Some(its), true) if is_from => write!(tag, "[{its}]"),
            (Some(its), true) => write!(tag, "{its}"),
            _ if is_sure && nothing => write!(tag, "-"),
            _ => write!(tag, "s{}", at.stamp.0),
        };
    }
    Id { second, tag }
}

/// The order in which messages of several channels come: by second, by number, by channel.
pub(super) fn order(index: usize, message: &Message) -> (u64, u64, usize) {
    (message.stamp.second(), message.tag, index)
}

/// The cursors of an id in `channels` channels; `None` = it is none.
pub(super) fn cursors(second: u64, tags: Option<&str>, channels: usize) -> Option<Vec<Cursor>> {
    if second == 0 {
        return Some(vec![Cursor::Oldest; channels]);
    }
    let start = Cursor::Since(Stamp(second.saturating_mul(SECOND).saturating_sub(1)));
    let Some(tags) = tags else { return Some(vec![start; channels]) };
    let mut cursors = Vec::with_capacity(channels);
    for tag in tags.split(',') {
        if cursors.len() == channels {
            return None;
        }
        cursors.push(cursor(second, tag.trim())?.unwrap_or(start));
    }
    // The first message of a client that polled the first channel alone.
    if cursors.len() == 1 {
        cursors.resize(channels, start);
    }
    (cursors.len() == channels).then_some(cursors)
}

/// `Some(None)` = with the beginning of the second.
fn cursor(second: u64, tag: &str) -> Option<Option<Cursor>> {
    let tag = tag.strip_prefix('[').and_then(|tag| tag.strip_suffix(']')).unwrap_or(tag);
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    if let Some(rest) = tag.strip_prefix('-') {
        return (rest.is_empty() || number(rest).is_some()).then_some(None);
    }
    if let Some(stamp) = tag.strip_prefix('s') {
        return Some(Some(Cursor::Since(Stamp(number(stamp)?))));
    }
    let tag = if tag.is_empty() { 0 } else { number(tag)? };
    Some(Some(Cursor::Tagged { second, tag }))
}

/// Splits `1795855803:0`; the number may be missing.
pub(super) fn split(id: &str) -> Option<(u64, Option<&str>)> {
    let (second, tags) = match id.split_once(':') {
        Some((second, tags)) => (second, Some(tags)),
        None => (id, None),
    };
    let plain = !second.is_empty() && second.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| (second.parse().unwrap_or(u64::MAX), tags))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const START: Cursor = Cursor::Since(Stamp(7_000_000 - 1));

    fn at(tag: u64) -> Cursor {
        Cursor::Tagged { second: 7, tag }
    }

    fn read(id: &str, channels: usize) -> Option<Vec<Cursor>> {
        let (second, tags) = split(id)?;
        cursors(second, tags, channels)
    }

    #[test]
    fn an_id_is_read_for_as_many_channels_as_there_are() {
        assert_eq!(read("7:3", 1), Some(vec![at(3)]));
        assert_eq!(read("7:[3]", 1), Some(vec![at(3)]));
        assert_eq!(read("7:", 1), Some(vec![at(0)]));
        assert_eq!(read("7", 1), Some(vec![START]));
        assert_eq!(read("7:-", 1), Some(vec![START]));
        assert_eq!(read("7:-1", 1), Some(vec![START]));
        assert_eq!(read("0:0", 2), Some(vec![Cursor::Oldest; 2]));
        assert_eq!(read("7:[3],-,0", 3), Some(vec![at(3), START, at(0)]));
        assert_eq!(read("7:3", 3), Some(vec![at(3), START, START]));
        let stamp = Cursor::Since(Stamp(6_999_999));
        assert_eq!(read("7:s6999999,[1]", 2), Some(vec![stamp, at(1)]));
    }

    #[test]
    fn other_texts_are_no_ids() {
        for bad in ["", "a", ":0", "-1:0", "7:a", "7:1,", "7:1:1", " 7:0", "7:[1", "7:s", "7:--"] {
            assert_eq!(read(bad, 1), None, "{bad:?}");
        }
        assert_eq!(read("7:1,2", 3), None);
        assert_eq!(read("7:1,2,3,4", 3), None);
        assert_eq!(read("99999999999999999999:0", 1).unwrap().len(), 1, "far in the future");
    }
}
