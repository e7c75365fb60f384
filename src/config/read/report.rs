//! Collects the mistakes found on a walk over the config, with their locations and the nearest
//! known keys.

use super::locations::{ConnectionSlots, child, general, is_within};
use super::mistake::{Mistake, Mistakes};
use super::suggest::nearest;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Collects mistakes. The sections share it, so it takes them behind `&self`.
#[derive(Debug, Default)]
pub(in crate::config) struct Report {
    places: ConnectionSlots,
    mistakes: RefCell<Vec<Mistake>>,
    unknown: RefCell<Vec<Unknown>>,
    known: RefCell<BTreeSet<String>>,
    warnings: RefCell<Vec<String>>,
}

#[derive(Debug)]
struct Unknown {
    section: String,
    key: String,
    known_beside: Vec<&'static str>,
}

impl Report {
    /// A report that starts with the mistakes of reading.
    pub(in crate::config) fn new(places: ConnectionSlots, mistakes: Vec<Mistake>) -> Self {
        Self { places, mistakes: RefCell::new(mistakes), ..Self::default() }
    }

    /// Notes that the value at `path` is wrong.
    pub(in crate::config) fn mistake(&self, path: &str, message: impl Into<String>) {
        let (source, line) = self.places.of(path);
        let mistake = Mistake { key: path.to_owned(), line, source, message: message.into() };
        self.mistakes.borrow_mut().push(mistake);
    }

    /// The value at `path` is no mistake, and ought to be looked at.
    pub(in crate::config) fn warn(&self, path: &str, message: &str) {
        self.warnings.borrow_mut().push(format!("{path}: {message}"));
    }

    /// Warnings, each with its key.
    pub(in crate::config) fn warnings(&self) -> Vec<String> {
        self.warnings.borrow().clone()
    }

    /// True if no mistake is noted at or below these paths, so that comparing their values makes
    /// sense.
    pub(in crate::config) fn is_sound(&self, paths: &[&str]) -> bool {
        let mistakes = self.mistakes.borrow();
        !mistakes.iter().any(|mistake| paths.iter().any(|path| is_within(&mistake.key, path)))
    }

    /// True if no mistake is noted so far.
    pub(in crate::config) fn is_empty(&self) -> bool {
        self.mistakes.borrow().is_empty()
    }

    /// True if the value at `path` was written in a file, where its type is known.
    pub(in crate::config) fn is_typed(&self, path: &str) -> bool {
        matches!(self.places.of(path).0, crate::config::Source::File(_))
    }

    /// Notes an unknown key of a section; `known_beside` lists its known keys.
    pub(in crate::config) fn unknown(
        &self,
        section: &str,
        key: String,
        known_beside: &[&'static str],
    ) {
        let section = section.to_owned();
        let known_beside = known_beside.to_vec();
        self.unknown.borrow_mut().push(Unknown { section, key, known_beside });
    }

    /// Notes a known key.
    pub(in crate::config) fn know(&self, path: &str) {
        self.known.borrow_mut().insert(general(path));
    }

    /// Every key that the sections have read, in lists with `[]` for each entry.
    #[cfg(test)]
    pub(in crate::config) fn known(&self) -> BTreeSet<String> {
        self.known.borrow().clone()
    }

    /// All mistakes, after the walk over the whole config; only now can unknown keys be compared
    /// with all known ones.
    pub(in crate::config) fn finish(self) -> Option<Mistakes> {
        for unknown in self.unknown.take() {
            let message = match self.nearest(&unknown) {
                Some(nearest) => format!("unknown key; did you mean {nearest}?"),
                None => "unknown key".to_owned(),
            };
            self.mistake(&child(&unknown.section, &unknown.key), message);
        }
        Mistakes::new(self.mistakes.take())
    }

    /// A known key beside it with nearly the same spelling, or one in another section with the same
    /// spelling.
    fn nearest(&self, unknown: &Unknown) -> Option<String> {
        if let Some(near) = nearest(&unknown.key, unknown.known_beside.iter().copied()) {
            return Some(child(&unknown.section, near));
        }
        let known = self.known.borrow();
        let elsewhere = |path: &&String| {
            path.rsplit('.').next() == Some(unknown.key.as_str()) && !path.contains("[]")
        };
        known.iter().find(elsewhere).cloned()
    }
}
