//! The native cursor: every channel's position in one opaque word.
//!
//! It is a list of `tag.epoch-seq`, joined by `~`. The tag is a checksum of the channel's name, so
//! a cursor stays valid when a client adds a channel to its list or removes one. The id of a
//! message (`epoch-seq`) is a cursor too: just after that message.

use crate::hub::Answer;
use crate::hub::channel::{ChannelName, Cursor, Position};
use crate::protocol::http::{alphanumeric_and, split_at_mark};
use smallvec::SmallVec;
use std::fmt::Write;

/// A parsed cursor, before the requested channels are known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    Now,
    Oldest,
    /// In the order of their tags, so that many of them for many channels are soon found.
    Positions(SmallVec<[(Option<u32>, Position); 1]>),
    Undecodable,
}

/// Error for a character that no cursor has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ForeignCharacter;

pub(super) fn decode(text: &str) -> Result<Decoded, ForeignCharacter> {
    if !text.bytes().all(|byte| KNOWN[usize::from(byte)]) {
        return Err(ForeignCharacter);
    }
    Ok(match text {
        "" => Decoded::Now,
        "oldest" => Decoded::Oldest,
        // One position, as in nearly every cursor.
        _ if memchr::memchr(b'~', text.as_bytes()).is_none() => {
            let position = |one| Decoded::Positions(SmallVec::from_buf([one]));
            item(text).map_or(Decoded::Undecodable, position)
        }
        _ => {
            let positions: Option<SmallVec<[_; 1]>> = text.split('~').map(item).collect();
            positions.map_or(Decoded::Undecodable, |mut positions| {
                positions.sort_by_key(|(tag, _)| *tag);
                Decoded::Positions(positions)
            })
        }
    })
}

/// True for the bytes of a cursor.
const KNOWN: [bool; 256] = alphanumeric_and(b"._~-");

fn item(text: &str) -> Option<(Option<u32>, Position)> {
    match split_at_mark(text, b'.') {
        None => Some((None, text.parse().ok()?)),
        Some((tag, position)) => {
            Some((Some(u32::from_str_radix(tag, 36).ok()?), position.parse().ok()?))
        }
    }
}

impl Decoded {
    /// The cursor for `channel`.
    pub(super) fn cursor_for(&self, channel: &ChannelName) -> Cursor {
        let positions = match self {
            Self::Now => return Cursor::Now,
            Self::Oldest => return Cursor::Oldest,
            Self::Undecodable => return Cursor::Lost,
            Self::Positions(positions) => positions,
        };
        let tag = Some(tag_of(channel));
        let mut tagged = positions[positions.partition_point(|(t, _)| *t < tag)..].iter();
        let mut next = || tagged.next().filter(|(t, _)| *t == tag);
        match (next(), next()) {
            (Some((_, position)), None) => Cursor::At(*position),
            // Two names have the same checksum, so the position is ambiguous.
            (Some(_), Some(_)) => Cursor::Lost,
            (None, _) => match positions.as_slice() {
                [(None, position)] => Cursor::At(*position),
                // Those without a tag come first.
                [(None, _), ..] => Cursor::Lost,
                _ => Cursor::Now,
            },
        }
    }
}

/// Appends the cursor for the client's next poll.
pub(super) fn encode(out: &mut String, answer: &Answer) {
    for (index, heard) in answer.iter().enumerate() {
        if index > 0 {
            out.push('~');
        }
        push_tag(out, tag_of(&heard.channel));
        // Writing to a string cannot fail.
        let _ = write!(out, ".{}", heard.found.position);
    }
}

fn tag_of(channel: &ChannelName) -> u32 {
    crc32fast::hash(channel.as_bytes())
}

/// Appends `tag` in base 36, as `u32::from_str_radix` reads it.
fn push_tag(out: &mut String, mut tag: u32) {
    let mut digits = [0u8; 7];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(tag % 36) as usize];
        tag /= 36;
        if tag == 0 {
            break;
        }
    }
    out.extend(digits[start..].iter().map(|digit| char::from(*digit)));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hub::channel::Epoch;

    fn name(text: &str) -> ChannelName {
        ChannelName::new(text).unwrap()
    }

    #[test]
    fn a_tag_is_read_back() {
        for tag in [0, 35, 36, u32::MAX] {
            let mut out = String::new();
            push_tag(&mut out, tag);
            assert_eq!(u32::from_str_radix(&out, 36), Ok(tag));
        }
    }

    #[test]
    fn channels_find_their_own_positions() {
        let epoch = Epoch::from_random(1);
        let mut cursor = String::new();
        push_tag(&mut cursor, tag_of(&name("a")));
        cursor.push_str(&format!(".{epoch}-7"));
        let decoded = decode(&cursor).unwrap();
        assert_eq!(decoded.cursor_for(&name("a")), Cursor::At(Position { epoch, seq: 7 }));
        assert_eq!(decoded.cursor_for(&name("b")), Cursor::Now);
        let id = decode(&format!("{epoch}-7")).unwrap();
        assert_eq!(id.cursor_for(&name("b")), Cursor::At(Position { epoch, seq: 7 }));
    }

    #[test]
    fn rubbish_is_undecodable_and_foreign_characters_are_told() {
        for rubbish in ["x", "~", "a.b", "a.b-1~", "...", "-", "a.b-1~c", "oldest~a.b-1", "Oldest"]
        {
            assert_eq!(decode(rubbish), Ok(Decoded::Undecodable), "{rubbish}");
        }
        for foreign in ["a b", "%", "ä", "a/b", "a+b", "\0"] {
            assert_eq!(decode(foreign), Err(ForeignCharacter), "{foreign}");
        }
        assert_eq!(decode(""), Ok(Decoded::Now));
        assert_eq!(decode("oldest"), Ok(Decoded::Oldest));
    }
}
