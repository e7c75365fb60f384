//! Capture rules: select the requests that are messages, and the parts of them that are published.

use crate::protocol::http::path::PathPattern;
use crate::protocol::template::{Field, Template};
use std::fmt;
use std::str::FromStr;

/// One `[[capture]]` rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The path.
    pub path: PathPattern,
    /// The methods.
    pub methods: Vec<String>,
    /// The channel.
    pub channel: Template,
    /// The message.
    pub data: Template,
    /// Statuses by which the upstream accepts the request.
    pub on: Statuses,
}

impl Rule {
    pub(super) fn fits(&self, method: &str, path: &str) -> bool {
        self.methods.iter().any(|known| known == method) && self.path.matches(path)
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = &Field> {
        self.channel.fields().chain(self.data.fields())
    }

    pub(super) fn wants_request(&self) -> bool {
        self.fields().any(|field| matches!(field, Field::Form(_) | Field::Json(_)))
    }

    pub(super) fn wants_response(&self) -> bool {
        self.fields().any(|field| matches!(field, Field::ResponseBody))
    }
}

/// Statuses of responses: `2xx`, `200`, or several with commas between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(Vec<(u16, u16)>);

impl Statuses {
    pub(super) fn has(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl FromStr for Statuses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = |word: &str| {
            let word = word.trim();
            if let Some(class) = word.strip_suffix("xx") {
                let class: u16 = class.parse().ok().filter(|class| (2..=5).contains(class))?;
                return Some((class * 100, class * 100 + 99));
            }
            let status: u16 = word.parse().ok().filter(|status| (200..=599).contains(status))?;
            Some((status, status))
        };
        let all: Option<Vec<_>> = text.split(',').map(range).collect();
        all.map(Self).ok_or_else(|| {
            format!("\"{text}\" is no status; write \"2xx\", \"200\" or \"2xx,302\"")
        })
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (first, last)) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{}xx", first / 100)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_classes_and_numbers() {
        let on: Statuses = "2xx, 302".parse().unwrap();
        assert!(on.has(200) && on.has(299) && on.has(302) && !on.has(301) && !on.has(500));
        assert_eq!(on.to_string(), "2xx,302");
        for bad in ["", "1xx", "20", "2xx,", "ok", "6xx"] {
            assert!(bad.parse::<Statuses>().is_err(), "{bad}");
        }
    }
}
