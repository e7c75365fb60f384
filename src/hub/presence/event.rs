//! Joins and leaves, as messages and as changes.

use super::Payload;
use crate::hub::channel::Kind;
use std::fmt::Write;
use std::sync::Arc;

/// The reason why a user is not on a channel any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It said so.
    Left,
    /// It did not come back in time.
    Gone,
    /// Its grant was revoked.
    Revoked,
}

impl Why {
    /// The word in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Gone => "gone",
            Self::Revoked => "revoked",
        }
    }

    /// The reason with that word.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Left, Self::Gone, Self::Revoked].into_iter().find(|why| why.as_str() == word)
    }
}

/// Something that has changed on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A user came.
    Joined(Arc<str>),
    /// A user is gone.
    Left(Arc<str>),
    /// The first client came.
    Occupied,
    /// No client is left.
    Vacated,
}

/// Something to announce.
pub(super) enum Event<'a> {
    Join { user: &'a Arc<str>, info: Option<&'a str> },
    Leave { user: &'a Arc<str>, why: Why },
    Count(usize),
    Occupied,
    Vacated,
}

impl Event<'_> {
    /// The message; `None` = it has none.
    pub(super) fn body(&self) -> Option<String> {
        Some(match self {
            Self::Join { user, info } => join(user, *info),
            Self::Leave { user, why } => leave(user, *why),
            Self::Count(count) => count_of(*count),
            Self::Occupied | Self::Vacated => return None,
        })
    }

    pub(super) fn change(&self) -> Option<Change> {
        match self {
            Self::Join { user, .. } => Some(Change::Joined((*user).clone())),
            Self::Leave { user, .. } => Some(Change::Left((*user).clone())),
            Self::Count(_) => None,
            Self::Occupied => Some(Change::Occupied),
            Self::Vacated => Some(Change::Vacated),
        }
    }
}

/// The message that `user` has come.
pub(super) fn join(user: &str, info: Option<&str>) -> String {
    let mut out = "{\"type\":\"join\",\"user\":".to_owned();
    string(&mut out, user);
    // Writing to a string cannot fail.
    let _ = write!(out, ",\"info\":{}}}", info.unwrap_or("null"));
    out
}

/// The message that `user` is gone.
pub(super) fn leave(user: &str, why: Why) -> String {
    let mut out = "{\"type\":\"leave\",\"user\":".to_owned();
    string(&mut out, user);
    let _ = write!(out, ",\"why\":\"{}\"}}", why.as_str());
    out
}

fn count_of(count: usize) -> String {
    format!("{{\"type\":\"count\",\"count\":{count}}}")
}

pub(super) fn payload(body: String) -> Payload {
    Payload { kind: Kind::Json, content_type: "application/json".into(), body: body.into() }
}

fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\0'..='\x1f' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
