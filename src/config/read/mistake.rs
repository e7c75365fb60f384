//! Mistakes in a config, reported all at once.

use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// Source of a value of the config.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// In this file.
    File(PathBuf),
    /// In this environment variable.
    Env(String),
    /// On the command line.
    Flag,
    /// Nowhere: the built-in default, or a key that is missing.
    Nowhere,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The key, with dots: `hold.timeout`, `poll[1].path`. Empty if the text is no TOML.
    pub key: String,
    /// The line in the file, from 1.
    pub line: Option<usize>,
    /// Source of the value.
    #[serde(skip)]
    pub source: Source,
    /// The fault and the change that mends it.
    pub message: String,
}

/// All mistakes; never empty. Displayed one per line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// The mistakes in the order of their locations, those of the file first; `None` if there are
    /// none.
    pub(in crate::config) fn new(mut all: Vec<Mistake>) -> Option<Self> {
        // A missing key has no line and comes last within its source.
        let place = |m: &Mistake| (m.source.clone(), m.line.unwrap_or(usize::MAX));
        all.sort_by_key(place);
        all.dedup();
        all.iter_mut().for_each(Mistake::tidy);
        (!all.is_empty()).then_some(Self(all))
    }

    /// Iterates over the mistakes.
    pub fn iter(&self) -> std::slice::Iter<'_, Mistake> {
        self.0.iter()
    }
}

impl Mistake {
    /// Escapes control characters, such as a line feed within a value.
    fn tidy(&mut self) {
        if self.message.contains(char::is_control) {
            let shown = |char: char| match char.is_control() {
                true => char.escape_default().to_string(),
                false => char.to_string(),
            };
            self.message = self.message.chars().map(shown).collect();
        }
    }
}

impl From<Mistake> for Mistakes {
    fn from(mut mistake: Mistake) -> Self {
        mistake.tidy();
        Self(vec![mistake])
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::File(path) => write!(f, "{}:", path.display())?,
            Source::Env(variable) => write!(f, "environment variable {variable}:")?,
            Source::Flag => write!(f, "command line:")?,
            Source::Nowhere => write!(f, "config:")?,
        }
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            let end = if index > 0 { "\n" } else { "" };
            write!(f, "{end}{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
