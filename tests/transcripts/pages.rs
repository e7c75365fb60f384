//! The pages, with their links and commands.

use std::path::{Path, PathBuf};

/// A page of the documentation.
pub(crate) struct Page {
    /// Its path from the root of the repository.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// A use of the program on a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// Empty where there is none.
    pub(crate) command: String,
    pub(crate) flags: Vec<String>,
}

impl Page {
    pub(crate) fn read(name: &str) -> Page {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        Page { name: name.to_owned(), path, text }
    }

    /// All pages: those at the root and everything below `docs/`.
    pub(crate) fn all() -> Vec<Page> {
        let mut names =
            vec!["README.md".to_owned(), "CONTRIBUTING.md".into(), "CHANGELOG.md".into()];
        let mut folders = vec!["docs".to_owned()];
        while let Some(folder) = folders.pop() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&folder);
            for entry in std::fs::read_dir(path).unwrap().map(Result::unwrap) {
                let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(name),
                    false if name.ends_with(".md") => names.push(name),
                    false => {}
                }
            }
        }
        names.iter().map(|name| Page::read(name)).collect()
    }

    /// The links that lead nowhere.
    pub(crate) fn broken_links(&self) -> Vec<String> {
        let mut broken = links(&self.text);
        broken.retain(|link| !self.leads_somewhere(link));
        broken
    }

    fn leads_somewhere(&self, link: &str) -> bool {
        if link.starts_with("https://") || link.starts_with("http://") {
            return true;
        }
        let (file, heading) = link.split_once('#').unwrap_or((link, ""));
        let path = match file {
            "" => self.path.clone(),
            file => self.path.with_file_name(file),
        };
        if heading.is_empty() {
            return path.exists();
        }
        std::fs::read_to_string(path).is_ok_and(|text| headings(&text).any(|h| h == heading))
    }

    /// The uses of the program in the page's code.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let (prose, code) = split(&self.text);
        let inline = prose.split('`').skip(1).step_by(2);
        code.lines().chain(inline).filter_map(call).collect()
    }
}

/// The text outside of fenced blocks, and the text inside of them.
fn split(text: &str) -> (String, String) {
    let mut prose = String::new();
    let mut code = String::new();
    let mut inside = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
            continue;
        }
        let part = if inside { &mut code } else { &mut prose };
        part.push_str(line);
        part.push('\n');
    }
    (prose, code)
}

/// The targets of `[text](target)`, outside of code.
fn links(text: &str) -> Vec<String> {
    let (prose, _) = split(text);
    let outside: String =
        prose.split('`').enumerate().map(|(n, part)| if n % 2 == 0 { part } else { "x" }).collect();
    let targets = outside.split("](").skip(1);
    targets.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

/// The headings as links name them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let (prose, _) = split(text);
    let slug = |line: &str| {
        let kept = line.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    let headings: Vec<String> = prose
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| slug(line.trim_start_matches('#').trim()))
        .collect();
    headings.into_iter()
}

/// The use of the program in one line of code, if it is one.
fn call(line: &str) -> Option<Call> {
    let line = line.trim().trim_start_matches("$ ");
    let by_cargo = line.strip_prefix("cargo run -- ").map(|rest| format!("pollgate {rest}"));
    let line = by_cargo.unwrap_or_else(|| code_line(line));
    let mut words = line.split_whitespace().peekable();
    let program = words.next()?;
    if program != "pollgate" && !program.ends_with("/pollgate") {
        return None;
    }
    let is_command = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase());
    let command = words.next_if(is_command).unwrap_or_default().to_owned();
    let flags = words.take_while(|word| !matches!(*word, "&" | "|" | ">" | "#"));
    let flags = flags.filter(|word| word.starts_with("--"));
    let flags = flags.map(|flag| flag.split('=').next().unwrap_or(flag).to_owned());
    Some(Call { command, flags: flags.collect() })
}

/// A line without the variables set before its program.
fn code_line(line: &str) -> String {
    let set = |word: &&str| {
        word.contains('=') && word.bytes().next().is_some_and(|b| b.is_ascii_uppercase())
    };
    line.split_whitespace().skip_while(set).collect::<Vec<_>>().join(" ")
}

#[test]
fn links_and_headings_are_found() {
    let text = "# A page: `x`, y\n[a](b.md#c) and `[no](no)`\n```\n[no](no)\n# no\n```\n[d](#e)\n";
    assert_eq!(links(text), ["b.md#c", "#e"]);
    assert_eq!(headings(text).collect::<Vec<_>>(), ["a-page-x-y"]);
}

#[test]
fn a_link_to_nowhere_is_found() {
    let mut page = Page::read("README.md");
    page.text =
        "[a](no.md) [b](docs/configuration.md#no) [c](docs/configuration.md#keys)".to_owned();
    assert_eq!(page.broken_links(), ["no.md", "docs/configuration.md#no"]);
}

#[test]
fn uses_of_the_program_are_found() {
    let read = |line: &str| call(line).map(|call| (call.command, call.flags.join(" ")));
    let some = |command: &str, flags: &str| Some((command.to_owned(), flags.to_owned()));
    assert_eq!(read("$ pollgate run --set a=--b --config x"), some("run", "--set --config"));
    assert_eq!(read("A=b target/release/pollgate --listen x"), some("", "--listen"));
    assert_eq!(read("cargo run -- check --config=x"), some("check", "--config"));
    assert_eq!(read("pollgate publish news - # --no"), some("publish", ""));
    assert_eq!(read("curl --data x"), None);
}
