//! Configs: input of users, and the reports on it.

use crate::config::{Config, Site, Source, Sources};
use crate::keeping;
use std::fs;
use std::path::Path;

/// Stands in place of secrets, and must not appear anywhere.
const SECRET: &str = "hunter2-and-then-some";

/// Places of secrets in a file, right ones and nearly right ones.
const IN_FILE: &[&str] = &[
    "[publish]\ntoken = \"S\"\n",
    "[publish]\ntoken = [\"S\"]\n",
    "[publish]\ntoken = { a = \"S\" }\n",
    "[publish]\ntokn = \"S\"\n",
    "[publish]\ntoken = \"S\n",
    "[publish]\ntoken = S\n",
    "[publish]\ntoken \"S\"\n",
    "[backplane]\nredis = \"redis://:S@127.0.0.1:1/0\"\n",
    "[backplane]\nredis = \"redis://:S@127.0.0.1:x\"\n",
    "[backplane]\nredis = \"http://:S@127.0.0.1\"\n",
    "[backplane]\nredis = [\"redis://:S@127.0.0.1\"]\n",
    "[[poll]]\npath = \"/x/*\"\ndialect = \"native\"\nauth = { kind = \"signed\", keys = { k = \"S\" } }\n",
    "[[poll]]\npath = \"/x/*\"\nauth = { kind = \"signed\", keys = [\"S\"] }\n",
    "[[poll]]\npath = \"/x/*\"\nauth = { kind = \"signed\", keys = \"S\" }\n",
    "[[poll]]\npath = \"/x/*\"\ndialect = \"native\"\nauth = { kind = \"jwt\", key = \"S\" }\n",
    "[[poll]]\npath = \"/x/*\"\nauth = { kind = \"jwt\", key = [\"S\"], algorithms = [\"none\"] }\n",
    "[[poll]]\npath = \"/x/*\"\nauth = { kind = \"other\", key = \"S\", keys = { k = \"S\" } }\n",
    "",
];

/// The same on the command line and in the environment.
const BESIDE: &[(&str, &str)] = &[
    ("publish.token", "S"),
    ("publish.token", "[\"S\"]"),
    ("publish.token", "\"S"),
    ("publish.token", "{a=\"S\"}"),
    ("backplane.redis", "redis://u:S@a b"),
    ("poll", "[{path=\"/x\",dialect=\"native\",auth={kind=\"signed\",keys={k=\"S\"}}}]"),
    ("threads", "1"),
];

/// A file and what goes over it, with secrets in it at places that the first two bytes choose.
/// The parts have NULs between: the file, then settings, those that begin with `E` of the
/// environment.
pub fn config(data: &[u8]) {
    let [place, beside, data @ ..] = data else { return };
    let text = String::from_utf8_lossy(data);
    if text.contains("hunter2") {
        return;
    }
    let mut parts = text.split('\0');
    let file = keeping::place("config");
    let first = parts.next().unwrap_or_default();
    let secret = IN_FILE[usize::from(*place / 2) % IN_FILE.len()].replace('S', SECRET);
    let written = match place % 2 {
        0 => format!("{secret}{first}"),
        _ => format!("{first}\n{secret}"),
    };
    fs::write(&file, written).expect("a file of our own");
    let mut sources = Sources { file: Some(file.clone()), ..Sources::default() };
    let (key, value) = BESIDE[usize::from(*beside / 2) % BESIDE.len()];
    let beside =
        [format!("{}{key}={}", ["E", ""][usize::from(beside % 2)], value.replace('S', SECRET))];
    for part in beside.iter().map(String::as_str).chain(parts) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match key.strip_prefix('E') {
            Some(key) => {
                let name = format!("POLLGATE__{}", key.replace('.', "__").to_uppercase());
                sources.env.push((name, value.to_owned()));
            }
            None => sources.set(key, value),
        }
    }
    match Config::read(&sources, Site::Supplied) {
        Ok(config) => accepted(&config, &file),
        Err(mistakes) => {
            let shown = format!("{mistakes}\n{}", serde_json::to_string(&mistakes).expect("JSON"));
            assert!(!shown.contains(SECRET), "a secret is told: {shown}");
            for mistake in mistakes.iter() {
                let elsewhere = !matches!(mistake.source, Source::File(_));
                let placed = elsewhere || mistake.line.is_some() || !mistake.key.is_empty();
                assert!(placed, "nobody knows where: {mistake}");
                let readable = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
                assert!(readable(&mistake.message), "no words for people: {mistake:?}");
            }
        }
    }
}

/// The printed config has no secrets and, where there was none, is the same config again.
fn accepted(config: &Config, file: &Path) {
    let shown = config.to_toml();
    assert!(!format!("{shown}{config:?}{:?}", config.warnings).contains(SECRET), "{shown}");
    if shown.contains("***") {
        return;
    }
    fs::write(file, &shown).expect("a file of our own");
    let sources = Sources { file: Some(file.to_owned()), ..Sources::default() };
    match Config::read(&sources, Site::Supplied) {
        Ok(again) => {
            assert_eq!(again.to_toml(), shown);
            assert_eq!(config.changes(&again), Vec::<String>::new());
        }
        Err(mistakes) => panic!("shown, and refused: {mistakes}\n{shown}"),
    }
}
