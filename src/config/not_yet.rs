//! What the contract names and this version does not have. It may stand in a config with its
//! default; set to anything else it is a mistake, never accepted and ignored.
//!
//! To build one of these, delete its line here and read the key in its section.

use super::raw::Raw;
use ::config::ValueKind;
use toml_edit::Value;

/// What a key holds where nobody has set it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unset {
    /// Nothing: the key is not there.
    Absent,
}

impl Unset {
    /// The default as TOML; `None` = the key is left out.
    pub(super) fn value(self) -> Option<Value> {
        match self {
            Self::Absent => None,
        }
    }

    /// Whether what was written is the default.
    pub(super) fn is(self, raw: &Raw) -> bool {
        match (&raw.kind, self) {
            (ValueKind::Array(list), Self::Absent) => list.is_empty(),
            _ => false,
        }
    }
}

/// Keys, in lists with `[]` for every entry.
pub(super) const KEYS: &[(&str, Unset)] = &[("poll[].auth", Unset::Absent)];

/// What such a mistake says.
pub(super) const MESSAGE: &str = "is not part of this version; remove it";
