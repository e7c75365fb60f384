//! The modules stand on the floors of `src/lib.rs` and import only downward.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

/// The floors from the ground up. A room may use the rooms of earlier lines, and nothing else:
/// rooms on one line do not know each other.
const FLOORS: &[&[&str]] = &[
    &["hub::channel"],
    &["hub"],
    &["protocol::address", "protocol::http", "protocol::template"],
    &["protocol::archive", "protocol::auth", "protocol::dialect"],
    &["protocol::pusher"],
    &["server::limits", "server::net", "server::telemetry"],
    &[
        "server::admin",
        "server::backplane",
        "server::gate",
        "server::internal",
        "server::persist",
        "server::publish",
        "server::webhook",
    ],
    &["config"],
    &["app"],
    &["cli"],
];

/// The offline tool: it uses no other room, and only `cli` uses it.
const APART: &str = "adopt";

/// Names that `hub` and `protocol` must not use: they read no clock, open nothing and get random
/// values as arguments.
const NOT_IN_VALUES: &[&str] = &[
    "Instant::now",
    "SystemRandom",
    "SystemTime",
    "getrandom",
    "pingora",
    "std::fs",
    "std::net::Tcp",
    "std::net::ToSocketAddrs",
    "std::net::Udp",
    "std::thread",
    "tokio::fs",
    "tokio::net",
    "tokio::time",
];

/// The room that a path below `crate::` leads to: the longest one that it begins with.
fn room_of(path: &str) -> Option<&'static str> {
    let rooms = FLOORS.iter().copied().flatten().copied().chain([APART]);
    let inside = |room: &&str| {
        path.strip_prefix(*room).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    rooms.filter(inside).max_by_key(|room| room.len())
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&room))
}

/// True if `room` may import from `used`.
fn may_use(room: &str, used: &str) -> bool {
    if room == used || (used == APART && room == "cli") {
        return true;
    }
    matches!((floor_of(room), floor_of(used)), (Some(own), Some(below)) if below < own)
}

/// The faults of `source`, the file of the module `path` (`server::gate::route`).
fn violations(path: &str, source: &str) -> Vec<String> {
    // A folder that only holds rooms has no code of its own.
    if ["protocol", "server"].contains(&path) {
        return Vec::new();
    }
    let Some(room) = room_of(path) else {
        return vec![format!("{path} stands on no floor: see tests/floors.rs")];
    };
    let code = without_tests(&without_comments(source));
    let mut wrong = Vec::new();
    for used in used_paths(&code, path) {
        match room_of(&used) {
            Some(used_room) if may_use(room, used_room) => {}
            Some(used_room) => wrong
                .push(format!("{path} uses {used}, and {used_room} does not stand below {room}")),
            None => wrong.push(format!("{path} uses {used}, which stands on no floor")),
        }
    }
    if ["hub", "protocol"].contains(&path.split("::").next().unwrap_or_default()) {
        let named = |word: &&&str| code.contains(**word) || names_through_group(&code, word);
        wrong.extend(NOT_IN_VALUES.iter().filter(named).map(|word| format!("{path} names {word}")));
    }
    wrong
}

/// True if `tokio::fs` is named as `tokio::{.., fs}`.
fn names_through_group(code: &str, word: &str) -> bool {
    let Some((root, name)) = word.rsplit_once("::") else { return false };
    let group = format!("{root}::");
    code.match_indices(&group).any(|(at, _)| {
        let rest = &code[at + group.len()..];
        rest.starts_with('{') && leaves(rest).iter().any(|leaf| leaf.starts_with(name))
    })
}

/// The paths below `crate::` that `code`, in the module `path`, names through `crate` or `super`.
fn used_paths(code: &str, path: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if begins_here(code, at) {
            used.extend(leaves(&code[at + "crate::".len()..]));
        }
    }
    for (at, _) in code.match_indices("super::") {
        if !begins_here(code, at) {
            continue;
        }
        let mut rest = &code[at..];
        let mut base: Vec<&str> = path.split("::").collect();
        while let Some(after) = rest.strip_prefix("super::") {
            base.pop();
            rest = after;
        }
        let base = base.join("::");
        used.extend(
            leaves(rest)
                .into_iter()
                .map(|leaf| if base.is_empty() { leaf } else { format!("{base}::{leaf}") }),
        );
    }
    // A name that the room's parent itself declares, such as a type, belongs to that parent.
    used.sort();
    used.dedup();
    used
}

/// True if a path begins at `at`, and not a part of a longer name or path.
fn begins_here(code: &str, at: usize) -> bool {
    let before = code[..at].chars().next_back();
    !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '$'))
}

/// The paths in `rest`, which begins behind a `::`: `a::b` as itself, `{a::{b, c}, d}` as `a::b`,
/// `a::c` and `d`.
fn leaves(rest: &str) -> Vec<String> {
    let (leaves, _) = tree(rest.trim_start());
    leaves
}

/// The leaves of the use tree that `rest` begins with, and what stands behind it.
fn tree(rest: &str) -> (Vec<String>, &str) {
    if let Some(mut inner) = rest.strip_prefix('{') {
        let mut found = Vec::new();
        loop {
            inner = inner.trim_start_matches([' ', '\n', ',']);
            if let Some(behind) = inner.strip_prefix('}') {
                return (found, behind);
            }
            let (more, behind) = tree(inner);
            if behind.len() == inner.len() {
                return (found, behind);
            }
            found.extend(more);
            inner = behind;
        }
    }
    let length =
        rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*')).unwrap_or(rest.len());
    let (name, behind) = rest.split_at(length);
    match behind.strip_prefix("::") {
        Some(below) if !below.starts_with('<') => {
            let (found, behind) = tree(below);
            let longer = |leaf: String| format!("{name}::{leaf}");
            (found.into_iter().map(longer).collect(), behind)
        }
        _ => {
            // `as other`
            let behind = behind.strip_prefix(" as ").map_or(behind, |alias| {
                alias.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
            });
            (if name.is_empty() { Vec::new() } else { vec![name.to_owned()] }, behind)
        }
    }
}

/// The lines that are no comment; those in this project stand on lines of their own.
fn without_comments(source: &str) -> String {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.map(|line| format!("{line}\n")).collect()
}

/// Without the items under `#[cfg(test)]`: a test may use anything.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("#[cfg(test)]") {
        kept.push_str(before);
        rest = &after[end_of_item(after)..];
    }
    kept + rest
}

/// End of an item: behind its semicolon or its closing brace.
fn end_of_item(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// The `.rs` files below a folder, but for those that are tests as a whole.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_name().is_some_and(|name| name != "tests.rs")
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// `src/gate/route.rs` as `gate::route`, `src/gate/mod.rs` as `gate`.
fn module_path(file: &Path) -> String {
    let relative = file.strip_prefix(src()).unwrap().with_extension("");
    let mut parts: Vec<_> = relative.iter().map(|part| part.to_str().unwrap()).collect();
    if parts.last() == Some(&"mod") {
        parts.pop();
    }
    parts.join("::")
}

#[test]
fn modules_import_only_what_stands_below_them() {
    let mut wrong = Vec::new();
    for file in sources(&src()) {
        let path = module_path(&file);
        // The map and the program belong to no floor; they only name what there is.
        if path != "lib" && path != "main" {
            wrong.extend(violations(&path, &fs::read_to_string(&file).unwrap()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_map_names_every_room_and_src_has_few_entries() {
    let map = fs::read_to_string(src().join("lib.rs")).unwrap();
    for room in FLOORS.concat().into_iter().chain([APART]) {
        assert!(map.contains(&format!("[`{room}`]")), "src/lib.rs does not describe {room}");
    }
    let entries = fs::read_dir(src()).unwrap().count();
    assert!(entries <= 10, "src has {entries} entries: a newcomer can no longer see the floors");
}

#[test]
fn an_upward_import_is_caught() {
    for (path, source) in [
        ("hub::channel::history", "use crate::hub::Hub;"),
        ("hub", "use crate::protocol::dialect::Dialect;"),
        ("protocol::http::query", "use crate::server::gate;"),
        ("server::limits", "use std::fmt;\nuse crate::{hub::channel::Time, config::Config};"),
        ("server::gate", "fn f() -> crate::config::Config { todo!() }"),
        ("server::gate::front::connection", "use super::super::super::super::app::App;"),
        ("hub", "pub use super::server::gate::Gate;"),
        ("config::tables", "use crate::{\n    hub,\n    app::{App, AppError},\n};"),
        ("hub", "#[cfg(test)]\nmod tests { use crate::app; }\nuse crate::server::gate::Gate;"),
        ("protocol::http", "use crate::protocol::dialect::Dialect;"),
    ] {
        assert!(!violations(path, source).is_empty(), "{path}: {source}");
    }
}

#[test]
fn an_import_between_siblings_is_caught() {
    for (path, source) in [
        ("server::gate::route", "use crate::server::publish::Publisher;"),
        ("server::publish", "use super::gate::Gate;"),
        ("server::net", "use crate::server::{limits::rate::Rate, net::stream};"),
        ("protocol::template", "use crate::protocol::http::query::Query;"),
        ("config", "use crate::adopt::File;"),
        ("adopt", "use crate::config::Config;"),
        ("new_module", "use std::fmt;"),
        ("protocol::new_module", "use std::fmt;"),
    ] {
        assert_eq!(violations(path, source).len(), 1, "{path}: {source}");
    }
}

#[test]
fn a_clock_or_a_socket_among_values_is_caught() {
    for (path, source) in [
        ("hub", "let now = std::time::Instant::now();"),
        ("hub::channel::stamp", "use std::time::{Duration, SystemTime};"),
        ("protocol::dialect::native", "use pingora::proxy::Session;"),
        ("protocol::http::form", "use tokio::{fs, sync};"),
        ("protocol::auth", "use std::{fmt, fs::File};"),
        ("protocol::address", "use std::net::ToSocketAddrs;"),
        ("protocol::address", "use std::net::{IpAddr, TcpStream};"),
    ] {
        assert_eq!(violations(path, source).len(), 1, "{path}: {source}");
    }
    assert_eq!(violations("server::net", "let now = std::time::Instant::now();").len(), 0);
}

#[test]
fn what_is_allowed_is_not_caught() {
    for (path, source) in [
        (
            "server::gate::route",
            "use crate::protocol::dialect::{Dialect, native::Native};\nuse super::poll::hold;",
        ),
        (
            "protocol::dialect::native",
            "use crate::hub::channel::Cursor;\nuse crate::{hub, protocol::http::Reply};",
        ),
        (
            "server::gate",
            "//! See [`crate::app`].\n// use crate::config::Config;\nuse crate::server::gate::poll;",
        ),
        ("hub", "#[cfg(test)]\nmod tests {\n    use crate::app::App;\n    fn f() {}\n}\n"),
        ("hub", "#[cfg(test)]\nuse crate::app::App;\n#[cfg(test)]\nmod tests;\n"),
        ("cli", "use crate::{adopt, app, server::net::client, config};"),
        ("server::gate::poll::hold", "use pingora_crate::app;\nuse super::super::route as paths;"),
        ("protocol::address", "use std::net::{IpAddr, SocketAddr};"),
    ] {
        assert_eq!(violations(path, source), Vec::<String>::new(), "{path}: {source}");
    }
}
