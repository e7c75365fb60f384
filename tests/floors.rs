//! The modules stand on floors, as `src/lib.rs` says, and import only downward.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

/// The floors from the ground up. A module may use all that stands on an earlier line, and
/// nothing else: modules on one line do not know each other.
const FLOORS: &[&[&str]] = &[
    // Ground: values in, values out.
    &["channel"],
    &["hub"],
    // First: values, and what translates with them.
    &["address", "metrics", "query", "secret", "strict", "template", "turnstile", "web"],
    &["adopt", "archive", "auth", "dialect", "exchange", "form", "limits"],
    // Second: services, and what they share.
    &["identity", "stream"],
    &[
        "admin",
        "backplane",
        "client",
        "demo",
        "document_root",
        "gate",
        "handover",
        "internal",
        "listen",
        "log",
        "publish",
        "snapshot",
    ],
    // Top: assembly.
    &["config"],
    &["app"],
    &["cli"],
];

/// Where a module stands; `None` if nobody has said.
fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// What is wrong with the imports of `source`, the file of the module `path` (`gate::route`).
fn violations(path: &str, source: &str) -> Vec<String> {
    let module = path.split("::").next().unwrap_or_default();
    let Some(floor) = floor_of(module) else {
        return vec![format!("{module} stands on no floor: give it one in tests/floors.rs")];
    };
    let depth = path.split("::").count();
    let code = without_tests(&without_comments(source));
    let mut wrong = Vec::new();
    for used in used_modules(&code, depth) {
        let below = floor_of(&used).is_some_and(|other| other < floor);
        if used != module && !below {
            wrong.push(format!("{path} uses {used}, which does not stand below {module}"));
        }
    }
    wrong
}

/// The modules that stand right behind `crate::`, or behind as many `super::` as lead there.
fn used_modules(code: &str, depth: usize) -> Vec<String> {
    let supers = "super::".repeat(depth);
    let mut used = Vec::new();
    for root in ["crate::", supers.as_str()] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            // A part of a longer name, or of a path that leads elsewhere.
            if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '$')) {
                continue;
            }
            used.extend(first_names(&code[at + root.len()..]));
        }
    }
    used.sort();
    used.dedup();
    used
}

/// `a::b` as `a`; `{a::{b, c}, d}` as `a` and `d`.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
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

/// Where an item ends: behind its semicolon or its closing brace.
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
fn the_map_names_every_module_and_no_other() {
    let map = fs::read_to_string(src().join("lib.rs")).unwrap();
    let mut declared: Vec<&str> =
        map.lines().filter_map(|line| line.split_once("mod ")?.1.strip_suffix(';')).collect();
    let mut known = FLOORS.concat();
    declared.sort_unstable();
    known.sort_unstable();
    assert_eq!(declared, known);
    for module in known {
        assert!(map.contains(&format!("[`{module}`]")), "{module} is not described");
    }
}

#[test]
fn an_upward_import_is_caught() {
    for (path, source) in [
        ("channel::history", "use crate::hub::Hub;"),
        ("hub", "use crate::dialect::Dialect;"),
        ("query", "use crate::gate;"),
        ("limits", "use std::fmt;\nuse crate::{channel::Time, config::Config};"),
        ("gate", "fn f() -> crate::config::Config { todo!() }"),
        ("gate::front::lane", "use super::super::super::app::App;"),
        ("hub", "pub use super::gate::Gate;"),
        ("config::rule", "use crate::{\n    hub,\n    app::{App, AppError},\n};"),
        ("hub", "#[cfg(test)]\nmod tests { use crate::app; }\nuse crate::gate::Gate;"),
    ] {
        assert_eq!(violations(path, source).len(), 1, "{path}: {source}");
    }
}

#[test]
fn an_import_between_siblings_is_caught() {
    for (path, source) in [
        ("gate::route", "use crate::publish::Publisher;"),
        ("publish", "use crate::listen::Bound;"),
        ("web", "use crate::query::Query;"),
        ("dialect", "use crate::limits::Limits;"),
        ("new_module", "use std::fmt;"),
    ] {
        assert_eq!(violations(path, source).len(), 1, "{path}: {source}");
    }
}

#[test]
fn what_is_allowed_is_not_caught() {
    for (path, source) in [
        ("gate::route", "use crate::dialect::{Dialect, native::Native};\nuse super::hold::Cause;"),
        ("dialect::native", "use crate::channel::Cursor;\nuse crate::{query, web::Reply};"),
        ("gate", "//! See [`crate::app`].\n// use crate::config::Config;\nuse crate::gate::hold;"),
        ("hub", "#[cfg(test)]\nmod tests {\n    use crate::app::App;\n    fn f() {}\n}\n"),
        ("hub", "#[cfg(test)]\nuse crate::app::App;\n#[cfg(test)]\nmod tests;\n"),
        ("cli", "use crate::{app, client, config, log};"),
        ("gate::hold", "use pingora_crate::app;\nuse super::super::hub;"),
    ] {
        assert_eq!(violations(path, source), Vec::<String>::new(), "{path}: {source}");
    }
}
