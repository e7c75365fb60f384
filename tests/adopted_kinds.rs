//! A small site of each kind, behind a gate with the config that `pollgate adopt` prints for it,
//! not a letter of it changed: a first poll is answered as by PHP alone, a burst arrives whole, a
//! quiet poll ends as in PHP, and waiting visitors leave the workers to the pages.

// A test fails by panicking.
#![cfg(feature = "site-tests")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};
use support::{Client, FORM, Gate, PhpSite, Response, pollgate};

/// A kind of site.
struct Kind {
    site: &'static str,
    /// The variable of its environment with the address of its database.
    database: &'static str,
    /// An ordinary page and its text.
    page: (&'static str, &'static str),
    /// The request that stores a text: path and parameter.
    store: (&'static str, &'static str),
    /// The address of a poll after this position.
    poll: fn(position: &str) -> String,
    /// The position after an answer.
    position: fn(&Response) -> String,
    /// The texts in an answer.
    texts: fn(&Response) -> Vec<String>,
}

/// The texts of a JSON answer's list of rows.
fn of_rows(response: &Response, list: &str, text: &str) -> Vec<String> {
    let rows = response.json()[list].as_array().unwrap().clone();
    rows.iter().map(|row| row[text].as_str().unwrap().to_owned()).collect()
}

fn last_id(response: &Response, list: &str) -> String {
    response.json()[list].as_array().unwrap().last().unwrap()["id"].to_string()
}

const KINDS: &[Kind] = &[
    // A route's method that returns its answer, and another route that the rule's star matches.
    Kind {
        site: "routes",
        database: "MESSAGES",
        page: ("/chat/rooms", "[\"attic\",\"cellar\"]"),
        store: ("/chat/7", "text"),
        poll: |position| format!("/chat/7?after={position}"),
        position: |response| last_id(response, "messages"),
        texts: |response| of_rows(response, "messages", "text"),
    },
    // A controller of CodeIgniter at the addresses of `routes.php`.
    Kind {
        site: "ci",
        database: "BOARD",
        page: ("/", "a board"),
        store: ("/tell", "line"),
        poll: |position| format!("/news?after={position}"),
        position: |response| last_id(response, "lines"),
        texts: |response| of_rows(response, "lines", "line"),
    },
    // Several actions in one script, bound parameters.
    Kind {
        site: "actions",
        database: "NOTES",
        page: ("/notes.php?do=title", "notes"),
        store: ("/notes.php?do=add", "note"),
        poll: |position| format!("/notes.php?do=wait&last={position}"),
        position: |response| last_id(response, "notes"),
        texts: |response| of_rows(response, "notes", "note"),
    },
    // HTML, and two parameters that together make a request one that writes.
    Kind {
        site: "two",
        database: "NONE",
        page: ("/chat.php?room=other&text=x", "stored"),
        store: ("/chat.php?room=7", "text"),
        poll: |position| format!("/chat.php?room=7&lines={position}"),
        position: |response| {
            response.text().split('"').nth(1).unwrap_or_else(|| panic!("{response:?}")).to_owned()
        },
        texts: |response| {
            let text = response.text();
            let inner = text.split(['>', '<']).nth(2).unwrap_or_default();
            inner.lines().map(str::to_owned).collect()
        },
    },
];

impl Kind {
    async fn start(&self) -> (PhpSite, Gate) {
        let mut site = PhpSite::of(self.site);
        let place = format!("sqlite:{}", site.root().with_file_name("elsewhere").display());
        site.env(self.database, place).workers(4).start().await;
        let gate = Gate::start_before(site.addr(), &adopt(&site).await).await;
        (site, gate)
    }

    /// The site with one text stored, the gate, a client that has it, and its position.
    async fn begin(&self) -> (PhpSite, Gate, Client, String) {
        let (site, gate) = self.start().await;
        self.store(&gate, "old").await;
        let mut client = gate.connect().await;
        let first = client.poll(&(self.poll)("0")).await;
        let position = (self.position)(&first);
        (site, gate, client, position)
    }

    async fn store(&self, gate: &Gate, text: &str) {
        let body = format!("{}={text}", self.store.1);
        let stored = gate.connect().await.post(self.store.0, FORM, body).await;
        assert_eq!(stored.status, 200, "{}: {}", self.site, stored.text());
    }

    /// Polls until so many texts have come; returns them and the last position.
    async fn collect(&self, client: &mut Client, from: &str, count: usize) -> Vec<String> {
        let mut position = from.to_owned();
        let mut all = Vec::new();
        while all.len() < count {
            let response = client.poll(&(self.poll)(&position)).await;
            let texts = (self.texts)(&response);
            if !texts.is_empty() {
                position = (self.position)(&response);
            }
            all.extend(texts);
        }
        all
    }
}

async fn adopt(site: &PhpSite) -> String {
    let done = pollgate(&["adopt", &site.root().display().to_string()]).await;
    assert_eq!(done.code, 0, "{}", done.stderr);
    done.stdout
}

#[tokio::test]
async fn a_first_poll_is_answered_as_by_php_alone() {
    for kind in KINDS {
        let (site, gate) = kind.start().await;
        kind.store(&gate, "old").await;
        let target = (kind.poll)("0");
        let alone = site.get(&target).await;
        let gated = gate.get(&target).await;
        assert_eq!(gated.status, alone.status, "{}", kind.site);
        assert_eq!(gated.text(), alone.text(), "{}", kind.site);
        assert_eq!(gated.header("Content-Type"), alone.header("Content-Type"), "{}", kind.site);
        assert_eq!((kind.texts)(&gated), ["old"], "{}", kind.site);
    }
}

#[tokio::test]
async fn a_burst_arrives_whole_and_in_order() {
    for kind in KINDS {
        let (_site, gate, mut client, position) = kind.begin().await;
        let storing = async {
            gate.wait_for_held(1).await;
            for text in ["one", "two", "three"] {
                kind.store(&gate, text).await;
            }
        };
        let (all, ()) = tokio::join!(kind.collect(&mut client, &position, 3), storing);
        assert_eq!(all, ["one", "two", "three"], "{}", kind.site);
    }
}

#[tokio::test]
async fn a_quiet_poll_ends_as_in_php() {
    for kind in KINDS.iter().filter(|kind| kind.site != "actions") {
        let (site, _gate, mut client, position) = kind.begin().await;
        let target = (kind.poll)(&position);
        let (alone, gated) = tokio::join!(site.get(&target), client.poll(&target));
        assert_eq!((gated.status, gated.text()), (alone.status, alone.text()), "{}", kind.site);
        let types = [gated.header("Content-Type"), alone.header("Content-Type")];
        // PHP's own has a space more or less.
        let types = types.map(|one| one.unwrap_or_default().to_lowercase().replace(' ', ""));
        assert_eq!(types[0], types[1], "{}", kind.site);
    }
}

#[tokio::test]
async fn waiting_visitors_leave_the_workers_to_the_pages() {
    for kind in KINDS {
        let (site, gate, _client, position) = kind.begin().await;
        let mut visitors = Vec::new();
        for number in 0..20 {
            let mut visitor = gate.connect().await;
            let who = [("Cookie", &*format!("PHPSESSID={number}"))];
            visitor.send("GET", &(kind.poll)("0"), &who, b"").await;
            visitor.read_response().await;
            visitor.send("GET", &(kind.poll)(&position), &who, b"").await;
            visitors.push(visitor);
        }
        gate.wait_for_held(20).await;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            let asked = Instant::now();
            assert_eq!(gate.get(kind.page.0).await.text(), kind.page.1, "{}", kind.site);
            assert!(asked.elapsed() < Duration::from_secs(1), "{}", kind.site);
            // The visitors' two at the most, and the page's.
            assert!(site.connections() <= 3, "{}", kind.site);
        }
    }
}

/// The rule that a question or a line of PHP stands before, without the `#`.
fn answered(config: &str) -> String {
    let rule = |line: &str| {
        line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).map(str::to_owned)
    };
    let lines = config.lines().map(|line| rule(line).unwrap_or_else(|| line.to_owned()));
    lines.collect::<Vec<_>>().join("\n")
}

/// The config for a site, without its comments' line ends.
fn joined(config: &str) -> String {
    config.replace("\n# ", " ")
}

/// Changes a script of the site.
fn rewrite(site: &PhpSite, script: &str, from: &str, to: &str) {
    let script = site.root().join(script);
    let source = std::fs::read_to_string(&script).unwrap();
    let changed = source.replace(from, to);
    assert_ne!(changed, source);
    std::fs::write(&script, changed).unwrap();
}

#[tokio::test]
async fn a_script_that_waits_for_a_change_since_it_was_asked_works_with_the_line_that_is_printed() {
    let mut site = PhpSite::of("changed");
    site.workers(4);
    let config = adopt(&site).await;
    let joined = joined(&config);
    let line = joined.split('`').find(|part| part.starts_with("if (isset")).unwrap();
    rewrite(&site, "watch.php", "== $then) {", &format!("== $then) {{ {line}"));
    site.start().await;
    let gate = Gate::start_before(site.addr(), &answered(&config)).await;
    let mut visitors = Vec::new();
    for _ in 0..10 {
        let mut visitor = gate.connect().await;
        visitor.send_get("/watch.php").await;
        visitors.push(visitor);
    }
    gate.wait_for_held(10).await;
    assert!(!site.log().contains("/watch.php"), "no poll reached PHP: {}", site.log());
    std::fs::write(site.root().join("price.txt"), "12\n").unwrap();
    for visitor in &mut visitors {
        assert_eq!(visitor.read_response().await.text(), "<b>12</b>");
    }
}

#[tokio::test]
async fn a_key_of_a_cache_is_watched_with_the_line_that_the_question_names() {
    let mut site = PhpSite::of("key");
    site.workers(4);
    let config = adopt(&site).await;
    let gate = Gate::start_before(site.addr(), &answered(&config)).await;
    let joined = joined(&config);
    let from = joined.find("file_get_contents(").unwrap();
    let line = &joined[from..from + joined[from..].find(';').unwrap() + 1];
    let line = line.replace("127.0.0.1:7080", &gate.internal().to_string());
    rewrite(&site, "set.php", "echo 'set'", &format!("{line}\necho 'set'"));
    site.start().await;
    let set = async |text: &str| {
        let body = format!("board={text}");
        assert_eq!(gate.connect().await.post("/set.php", FORM, body).await.text(), "set");
    };
    set("one").await;
    let mut visitor = gate.connect().await;
    let first = visitor.poll("/board.php?v=0").await.json();
    assert_eq!((&first["v"], &first["board"]), (&1.into(), &"one".into()));
    visitor.send_get("/board.php?v=1").await;
    gate.wait_for_held(1).await;
    set("two").await;
    assert_eq!(visitor.read_response().await.json()["board"], "two");
}
