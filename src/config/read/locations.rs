//! Key paths, and the location of each value.

use super::mistake::Source;
use std::collections::BTreeMap;

/// The path of `key` in the table at `path`; the root is empty.
pub(in crate::config) fn child(path: &str, key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let dot = if path.is_empty() { "" } else { "." };
    if !key.is_empty() && key.bytes().all(bare) {
        format!("{path}{dot}{key}")
    } else {
        format!("{path}{dot}{key:?}")
    }
}

/// The path of an entry of the list at `path`.
pub(in crate::config) fn entry(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// `path` with `[]` for the entries of every list, as entries share their keys.
pub(in crate::config) fn general(path: &str) -> String {
    let mut general = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('[') {
        general.push_str(before);
        general.push_str("[]");
        rest = after.split_once(']').map_or("", |(_, rest)| rest);
    }
    general + rest
}

/// True if `path` is `outer`, or a part of it.
pub(in crate::config) fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Location of each value. Layers are noted from the lowest to the highest.
#[derive(Debug, Clone, Default)]
pub(in crate::config) struct ConnectionSlots(BTreeMap<String, (Source, Option<usize>)>);

impl ConnectionSlots {
    /// Notes the location of a value.
    pub(in crate::config) fn note(&mut self, path: &str, source: Source, line: Option<usize>) {
        self.0.insert(path.to_owned(), (source, line));
    }

    /// Notes the location of a table; one that a lower layer has too keeps its location.
    pub(in crate::config) fn note_table(&mut self, path: &str, source: &Source) {
        self.0.entry(path.to_owned()).or_insert_with(|| (source.clone(), None));
    }

    /// Forgets the locations of lower layers at and below `path`: a higher layer replaces them.
    pub(in crate::config) fn replace(&mut self, path: &str) {
        self.0.retain(|other, _| !is_within(other, path));
    }

    /// Location of the value at `path`; for a missing one, the location of its table.
    pub(in crate::config) fn of(&self, path: &str) -> (Source, Option<usize>) {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return place.clone();
            }
            match path.rfind(['.', '[']) {
                Some(cut) => path = &path[..cut],
                None => return (Source::Nowhere, None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_with_dots_and_brackets() {
        assert_eq!(child("", "hold"), "hold");
        assert_eq!(child("hold", "timeout"), "hold.timeout");
        assert_eq!(child(&entry("poll", 1), "a b"), "poll[1].\"a b\"");
        assert_eq!(general("poll[12].fields.message"), "poll[].fields.message");
        assert_eq!(general("a[1].b[2"), "a[].b[]");
    }

    #[test]
    fn a_missing_key_is_at_its_table() {
        let mut places = ConnectionSlots::default();
        places.note("poll[1]", Source::Flag, Some(7));
        assert_eq!(places.of("poll[1].path"), (Source::Flag, Some(7)));
        assert_eq!(places.of("hold.timeout"), (Source::Nowhere, None));
    }

    #[test]
    fn a_higher_layer_replaces_all_below_its_key() {
        let mut places = ConnectionSlots::default();
        for path in ["poll", "poll[0].path", "polls"] {
            places.note(path, Source::Flag, Some(1));
        }
        places.replace("poll");
        assert_eq!(places.of("poll[0].path"), (Source::Nowhere, None));
        assert_eq!(places.of("polls"), (Source::Flag, Some(1)));
    }
}
