//! The documentation, checked against the program: every transcript in `docs/` is replayed byte for
//! byte, every link has a target, every command and flag exists.
//!
//! A transcript is a fenced block with the word `transcript`:
//!
//! | line | meaning |
//! |---|---|
//! | `# client` | the lines below are on a connection to the gate; `# client NAME` is another one |
//! | `# hook` | the lines below are on a connection to the internal listener |
//! | `> TEXT` | sent; an empty `>` line ends the head, the rest is the body |
//! | `< TEXT` | received, likewise |
//! | `# held N` | waits until N polls are held, and checks that no client was sent anything |
//! | `# publish CHANNEL TEXT` | publishes a text, as `pollgate publish` does |
//!
//! A `#` line may give a reason behind a colon. The blocks of a page are one conversation with one
//! gate; a block `toml transcript` is its config and begins a new one.
//!
//! Values of time and chance (dates, epochs, stamps) are documented with made-up ones: each stands
//! for one real value from its first use on. All else must be equal, byte for byte.
//!
//! After an intended change, `UPDATE_TRANSCRIPTS=1 cargo test --test transcripts` writes the gate's
//! current answers into the pages; read the difference before you commit it.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

#[path = "transcripts/compare.rs"]
mod compare;
#[path = "transcripts/pages.rs"]
mod pages;
#[path = "transcripts/replay.rs"]
mod replay;

use pages::Page;
use std::collections::BTreeMap;
use support::pollgate;

/// Replays a page, or rewrites it where that is asked for.
async fn replay(name: &str) {
    let page = Page::read(name);
    let (replayed, mistakes) = replay::replay(&page.text).await;
    if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
        std::fs::write(&page.path, replayed).unwrap();
    } else {
        assert!(mistakes.is_empty(), "{name}:{}", mistakes.join("\n"));
    }
}

#[tokio::test]
async fn the_native_dialect_is_as_its_page_says() {
    replay("docs/dialects/native.md").await;
}

#[tokio::test]
async fn presence_is_as_its_page_says() {
    replay("docs/presence.md").await;
}

#[tokio::test]
async fn the_novcomet_dialect_is_as_its_page_says() {
    replay("docs/dialects/novcomet.md").await;
}

#[tokio::test]
async fn the_timestamp_dialect_is_as_its_page_says() {
    replay("docs/dialects/timestamp.md").await;
}

#[tokio::test]
async fn the_hook_is_as_its_page_says() {
    replay("docs/hook.md").await;
}

#[test]
fn no_transcript_is_on_a_page_that_nobody_replays() {
    let replayed = [
        "docs/dialects/native.md",
        "docs/dialects/novcomet.md",
        "docs/dialects/timestamp.md",
        "docs/presence.md",
    ];
    for page in Page::all() {
        let has_one = page.text.lines().any(replay::is_transcript);
        let known = replayed.contains(&page.name.as_str()) || page.name == "docs/hook.md";
        assert_eq!(has_one, known, "{}", page.name);
    }
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    for page in Page::all() {
        broken.extend(page.broken_links().into_iter().map(|link| format!("{}: {link}", page.name)));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[tokio::test]
async fn every_command_and_flag_in_the_pages_exists() {
    let mut helps = BTreeMap::new();
    for command in ["", "run", "upgrade", "demo", "check", "publish", "status", "reload", "adopt"] {
        let args = [command, "--help"];
        let help = pollgate(&args[usize::from(command.is_empty())..]).await;
        assert_eq!(help.code, 0, "{}", help.stderr);
        helps.insert(command, help.stdout);
    }
    let mut wrong = Vec::new();
    for page in Page::all() {
        for call in page.calls() {
            let Some(help) = helps.get(call.command.as_str()) else {
                wrong.push(format!("{}: there is no `pollgate {}`", page.name, call.command));
                continue;
            };
            let known = |flag: &String| {
                help.split(|c: char| c.is_whitespace() || c == ',').any(|word| word == flag)
            };
            let unknown = call.flags.iter().filter(|flag| !known(flag));
            wrong.extend(
                unknown.map(|f| format!("{}: `pollgate {}` has no {f}", page.name, call.command)),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_of_the_library_is_on_the_code_map() {
    let map = Page::read("docs/architecture.md").text;
    let library = Page::read("src/lib.rs").text;
    for module in library.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let module = module.trim_end_matches(';');
        let named =
            map.contains(&format!("`{module}.rs`")) || map.contains(&format!("`{module}/`"));
        assert!(named, "docs/architecture.md does not name {module}");
    }
}
