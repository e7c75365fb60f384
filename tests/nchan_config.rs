//! The keys of Nchan in the config: mistakes are named, and what is right is shown.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

use pollgate::config::{Config, Site, Sources};

fn read(name: &str, text: &str) -> Result<Config, Vec<String>> {
    let path =
        std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("nchan_{name}.toml"));
    std::fs::write(&path, text).unwrap();
    let sources = Sources { file: Some(path), ..Sources::default() };
    Config::read(&sources, Site::Supplied)
        .map_err(|found| found.iter().map(|m| format!("{}: {}", m.key, m.message)).collect())
}

#[test]
fn a_rule_and_a_publisher_are_shown_as_they_are_in_force() {
    let text = "[[nchan]]\npath = \"/pub/*\"\n[[poll]]\npath = \"/sub/*\"\ndialect = \"nchan\"\n";
    let shown = read("plain", text).unwrap().to_toml();
    for line in [
        "first = \"oldest\"",
        "interval = false",
        "raw = false",
        "existing_only = false",
        "timeout = \"0s\"",
        "transports = [\"poll\", \"sse\", \"ws\", \"chunked\", \"multipart\"]",
        "[[nchan]]",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let text = text.replace("\"nchan\"", "\"nchan\"\nfirst = -2\nbatch = \"raw\"\ngroup = \"g\"");
    let shown = read("number", &text).unwrap().to_toml();
    for line in ["first = -2", "batch = \"raw\"", "group = \"g\""] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
}

#[test]
fn mistakes_are_named() {
    let rule = "[[poll]]\npath = \"/sub/*\"\ndialect = \"nchan\"\n";
    for (name, text, expected) in [
        ("first", format!("{rule}first = \"last\"\n"), "poll[0].first: \"last\" is none of"),
        ("batch", format!("{rule}batch = \"all\"\n"), "poll[0].batch"),
        ("group", format!("{rule}group = \"a,b\"\n"), "poll[0].group: must be 1 to 128"),
        ("iframe", format!("{rule}transports = [\"iframe\"]\n"), "poll[0].transports: an nchan"),
        ("slack", format!("{rule}slack = \"1s\"\n"), "poll[0].slack: a nchan rule has no such"),
        (
            "native",
            "[[poll]]\npath = \"/a/*\"\ndialect = \"native\"\ninterval = true\n".to_owned(),
            "poll[0].interval: a native rule has no such key",
        ),
        (
            "parts",
            "[[poll]]\npath = \"/a/*\"\ndialect = \"native\"\ntransports = [\"multipart\"]\n"
                .to_owned(),
            "poll[0].transports: only an nchan rule",
        ),
        (
            "channel",
            "[[poll]]\npath = \"/sub\"\ndialect = \"nchan\"\n".to_owned(),
            "poll[0].channel: missing",
        ),
        ("path", "[[nchan]]\npath = \"/channels/*\"\n".to_owned(), "nchan[0].path"),
        ("all", "[[nchan]]\npath = \"/*\"\n".to_owned(), "nchan[0].path"),
        ("none", "[[nchan]]\n".to_owned(), "nchan[0].path: missing"),
        ("exact", "[[nchan]]\npath = \"/pub\"\n".to_owned(), "nchan[0].channel: missing"),
        (
            "form",
            "[[nchan]]\npath = \"/pub\"\nchannel = \"{form.a}\"\n".to_owned(),
            "nchan[0].channel: the body is the message",
        ),
        (
            "star",
            "[[nchan]]\npath = \"/pub\"\nchannel = \"{path.1}\"\n".to_owned(),
            "nchan[0].channel: {path.1} wants 1 *",
        ),
        (
            "backplane",
            format!("[backplane]\nredis = \"redis://127.0.0.1\"\n{rule}existing_only = true\n"),
            "poll[0].existing_only: a gate with a backplane",
        ),
        ("key", "[[nchan]]\npath = \"/pub/*\"\ngrupe = \"a\"\n".to_owned(), "nchan[0].grupe"),
    ] {
        let found = match read(name, &text) {
            Ok(_) => panic!("{name} was accepted"),
            Err(found) => found,
        };
        assert!(found.iter().any(|one| one.starts_with(expected)), "{name}: {found:?}");
    }
}
