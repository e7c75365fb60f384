//! Sources of a config: the file, over it the environment, over that the command line.

use super::file::{self, Tree};
use super::locations::{ConnectionSlots, child};
use super::mistake::{Mistake, Source};
use ::config::{ConfigError, Map, Value, ValueKind};
use std::fmt;
use std::path::{Path, PathBuf};

/// Prefix of the gate's environment variables; then section and key with `__` between, in capitals:
/// `POLLGATE__HOLD__TIMEOUT`.
pub const ENV_PREFIX: &str = "POLLGATE__";

/// The sources of a config; a later one overrides an earlier one.
#[derive(Clone, Default)]
pub struct Sources {
    /// Keys with dots and their values, below all other sources.
    pub presets: Vec<(String, String)>,
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// The environment: names and values. Names without [`ENV_PREFIX`] are ignored.
    pub env: Vec<(String, String)>,
    /// Keys with dots and their values, from the command line; of equal keys the last counts.
    pub overrides: Vec<(String, String)>,
}

// The values may be secret.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Sources {
    /// `file` and the environment of this process over it.
    pub fn new(file: Option<PathBuf>) -> Self {
        // A value that is not UTF-8 is kept, damaged, so that it is reported and not ignored.
        let env = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into(), value.to_string_lossy().into()))
            .filter(|(name, _): &(String, String)| name.starts_with(ENV_PREFIX))
            .collect();
        Self { file, env, ..Self::default() }
    }

    /// Sets a key, as `--set` does.
    pub fn set(&mut self, key: &str, value: &str) {
        self.overrides.push((key.to_owned(), value.to_owned()));
    }

    /// Sets a key that holds a list, as repeated flags do; an empty list changes nothing.
    pub fn set_list(&mut self, key: &str, values: &[String]) {
        if !values.is_empty() {
            let list: toml_edit::Array = values.iter().map(String::as_str).collect();
            self.set(key, &list.to_string());
        }
    }
}

/// Splits the argument of `--set`. The error describes the form.
pub fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err(format!("\"{text}\" is no setting; write key=value, such as hold.timeout=25s")),
    }
}

/// The layered sources.
#[derive(Default)]
pub(in crate::config) struct Merged {
    /// The values.
    pub(in crate::config) tree: Tree,
    /// Location of each value.
    pub(in crate::config) places: ConnectionSlots,
    /// Sources that could not be read.
    pub(in crate::config) mistakes: Vec<Mistake>,
}

/// Reads all sources. One that cannot be read is a mistake, and the others are still read.
pub(in crate::config) fn merge(sources: &Sources) -> Merged {
    let mut merged = Merged::default();
    let mut layers = Vec::new();
    for (key, value) in &sources.presets {
        match setting(key, value, &Source::Nowhere, &mut merged.places) {
            Ok(tree) => layers.push(Layer(tree)),
            Err(mistake) => merged.mistakes.push(mistake),
        }
    }
    if let Some(path) = &sources.file {
        match read_file(path, &mut merged.places) {
            Ok(tree) => layers.push(Layer(tree)),
            Err(mistake) => merged.mistakes.push(mistake),
        }
    }
    let from_env = sources.env.iter().filter_map(|(name, value)| {
        let key = name.strip_prefix(ENV_PREFIX)?.to_ascii_lowercase().replace("__", ".");
        Some((key, value, Source::Env(name.clone())))
    });
    let from_flags =
        sources.overrides.iter().map(|(key, value)| (key.clone(), value, Source::Flag));
    for (key, value, source) in from_env.chain(from_flags) {
        match setting(&key, value, &source, &mut merged.places) {
            Ok(tree) => layers.push(Layer(tree)),
            Err(mistake) => merged.mistakes.push(mistake),
        }
    }
    match lay(layers) {
        Ok(tree) => merged.tree = tree,
        Err(error) => merged.mistakes.push(Mistake {
            key: String::new(),
            line: None,
            source: Source::Nowhere,
            message: error.to_string(),
        }),
    }
    merged
}

fn read_file(path: &Path, places: &mut ConnectionSlots) -> Result<Tree, Mistake> {
    let source = Source::File(path.to_owned());
    let mistake =
        |line, message| Mistake { key: String::new(), line, source: source.clone(), message };
    let text = std::fs::read_to_string(path)
        .map_err(|error| mistake(None, format!("cannot read the file: {error}")))?;
    let parsed = file::parse(&text)
        .map_err(|error| mistake(error.line, format!("no valid TOML: {}", error.message)))?;
    for (path, line) in parsed.lines {
        places.note(&path, source.clone(), Some(line));
    }
    Ok(parsed.tree)
}

/// One value of the environment or the command line as a tree of its own.
fn setting(
    key: &str,
    text: &str,
    source: &Source,
    places: &mut ConnectionSlots,
) -> Result<Tree, Mistake> {
    let bare = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let names: Vec<&str> = key.split('.').collect();
    if names.iter().any(|name| name.is_empty() || !name.bytes().all(bare)) {
        return Err(Mistake {
            key: key.to_owned(),
            line: None,
            source: source.clone(),
            message: "no key; write section.key, and a list as a whole, such as \
                      'poll=[{path=\"/comet/*\",dialect=\"native\"}]'"
                .to_owned(),
        });
    }
    let value = file::parse_value(text);
    let nest =
        |value: Value, name: &&str| Value::new(None, Map::from_iter([((*name).to_owned(), value)]));
    let ValueKind::Table(tree) = names.iter().rev().fold(value, nest).kind else {
        // There is at least one name, so the fold ends with a table.
        return Ok(Tree::new());
    };
    for (name, value) in &tree {
        note(name, value, source, places);
    }
    Ok(tree)
}

/// Notes the source of a value; a table is merged into lower layers, anything else replaces them.
fn note(path: &str, value: &Value, source: &Source, places: &mut ConnectionSlots) {
    match &value.kind {
        ValueKind::Table(table) => {
            places.note_table(path, source);
            for (name, value) in table {
                note(&child(path, name), value, source, places);
            }
        }
        _ => {
            places.replace(path);
            places.note(path, source.clone(), None);
        }
    }
}

/// One layer for the config crate. It stands under one name, since the crate reads names at its top
/// as paths with subscripts and would allocate room for `poll[99999999999]`.
#[derive(Clone)]
struct Layer(Tree);

const TOP: &str = "pollgate";

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Layer")
    }
}

impl ::config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn ::config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Tree, ConfigError> {
        Ok(Map::from_iter([(TOP.to_owned(), Value::new(None, self.0.clone()))]))
    }
}

fn lay(layers: Vec<Layer>) -> Result<Tree, ConfigError> {
    let bottom = ::config::Config::builder().add_source(Layer(Tree::new()));
    layers.into_iter().fold(bottom, |below, layer| below.add_source(layer)).build()?.get_table(TOP)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn merged(env: &[(&str, &str)], flags: &[(&str, &str)]) -> Merged {
        let pairs = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        merge(&Sources { env: pairs(env), overrides: pairs(flags), ..Sources::default() })
    }

    fn text(merged: &Merged, section: &str, key: &str) -> Option<String> {
        let table = merged.tree.get(section)?.clone().into_table().ok()?;
        table.get(key)?.clone().into_string().ok()
    }

    #[test]
    fn flags_go_over_the_environment() {
        let env =
            [("POLLGATE__HOLD__TIMEOUT", "1s"), ("POLLGATE__HOLD__JITTER", "5%"), ("HOME", "/")];
        let merged = merged(&env, &[("hold.timeout", "2s"), ("hold.timeout", "3s")]);
        assert_eq!(text(&merged, "hold", "timeout").as_deref(), Some("3s"));
        assert_eq!(text(&merged, "hold", "jitter").as_deref(), Some("5%"));
        assert_eq!(merged.places.of("hold.timeout").0, Source::Flag);
        let variable = Source::Env("POLLGATE__HOLD__JITTER".to_owned());
        assert_eq!(merged.places.of("hold.jitter").0, variable);
        assert!(merged.mistakes.is_empty());
    }

    #[test]
    fn presets_go_below_everything() {
        let presets = [("hold.timeout", "1s"), ("hold.jitter", "5%")];
        let sources = Sources {
            presets: presets.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            env: vec![("POLLGATE__HOLD__TIMEOUT".to_owned(), "2s".to_owned())],
            ..Sources::default()
        };
        let merged = merge(&sources);
        assert_eq!(text(&merged, "hold", "timeout").as_deref(), Some("2s"));
        assert_eq!(text(&merged, "hold", "jitter").as_deref(), Some("5%"));
        assert!(merged.mistakes.is_empty());
    }

    #[test]
    fn a_subscript_in_a_key_is_a_mistake_and_makes_no_room() {
        let merged = merged(&[], &[("poll[99999999999999].path", "/x"), ("", "x"), ("a..b", "x")]);
        assert_eq!(merged.mistakes.len(), 3);
        assert!(merged.tree.is_empty());
    }

    #[test]
    fn repeated_flags_make_a_list() {
        let mut sources = Sources::default();
        sources.set_list("listen", &["unix:/a,b".to_owned(), "[::1]:1".to_owned()]);
        assert_eq!(sources.overrides[0].1, r#"["unix:/a,b", "[::1]:1"]"#);
        sources.set_list("internal", &[]);
        assert_eq!(sources.overrides.len(), 1);
    }

    #[test]
    fn an_assignment_is_split_at_its_first_equals_sign() {
        assert_eq!(assignment("a.b=c=d"), Ok(("a.b".into(), "c=d".into())));
        assert_eq!(assignment("a="), Ok(("a".into(), String::new())));
        assert!(assignment("a").is_err() && assignment("=b").is_err());
    }
}
