//! One value as written, before it is read as the type of its key.

use ::config::{Value, ValueKind};

/// A value, and the reliability of its type.
#[derive(Debug)]
pub(in crate::config) struct Raw {
    /// The value.
    pub(in crate::config) kind: ValueKind,
    /// True if it comes from a file. A value from the environment or the command line is text, and
    /// its key determines the type.
    pub(in crate::config) typed: bool,
}

impl Raw {
    /// Text.
    pub(in crate::config) fn text(self) -> Result<String, String> {
        match self.kind {
            ValueKind::String(text) => Ok(text),
            other => Err(format!("must be text in quotes, not {}", name(&other))),
        }
    }

    /// Text with a unit behind a number; a bare number is passed on as text, so that the parser of
    /// the units can name the missing one.
    pub(in crate::config) fn quantity(self) -> Result<String, String> {
        match self.kind {
            ValueKind::I64(number) => Ok(number.to_string()),
            ValueKind::Float(number) => Ok(number.to_string()),
            _ => self.text(),
        }
    }

    /// A whole number that is not negative.
    pub(in crate::config) fn number(self) -> Result<usize, String> {
        let number = match &self.kind {
            ValueKind::I64(number) => usize::try_from(*number).ok(),
            ValueKind::String(text) if !self.typed => text.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| match &self.kind {
            ValueKind::I64(number) => format!("must not be negative, and is {number}"),
            ValueKind::String(text) if !self.typed => {
                format!("must be a whole number, not \"{text}\"")
            }
            other => format!("must be a whole number, not {}", name(other)),
        })
    }

    /// True or false.
    pub(in crate::config) fn flag(self) -> Result<bool, String> {
        match &self.kind {
            ValueKind::Boolean(flag) => Ok(*flag),
            ValueKind::String(text) if !self.typed => {
                text.parse().map_err(|_| format!("must be true or false, not \"{text}\""))
            }
            other => Err(format!("must be true or false, not {}", name(other))),
        }
    }

    /// A list; outside of files also text separated by commas, or one entry alone.
    pub(in crate::config) fn list(self) -> Result<Vec<Value>, String> {
        match self.kind {
            ValueKind::Array(list) => Ok(list),
            ValueKind::String(text) if !self.typed => {
                let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
                Ok(entries.map(|entry| Value::new(None, entry)).collect())
            }
            other => Err(format!("must be a list in [ ], not {}", name(&other))),
        }
    }
}

/// The kind of a wrong value, without its content.
pub(in crate::config) fn name(kind: &ValueKind) -> &'static str {
    match kind {
        // Dates are kept as nil.
        ValueKind::Nil => "a date",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => {
            "a number"
        }
        ValueKind::Float(_) => "a number with a fraction",
        ValueKind::String(_) => "text",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    }
}
