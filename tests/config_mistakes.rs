//! A bad config is refused with all of its mistakes at once, each with its place and a word on
//! what to do.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

use pollgate::config::{Config, Mistake, Mistakes, Site, Sources};
use std::path::PathBuf;

/// A file of this text, named after the test that wants it.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
    std::fs::write(&path, text).unwrap();
    path
}

fn refused(sources: &Sources) -> Mistakes {
    match Config::read(sources, Site::Configured) {
        Ok(_) => panic!("accepted"),
        Err(mistakes) => mistakes,
    }
}

/// The mistakes in a file, as `line key: message`.
fn mistakes_of(name: &str, text: &str) -> Vec<String> {
    let sources = Sources { file: Some(file(name, text)), ..Sources::default() };
    let show = |m: &Mistake| {
        format!(
            "{} {}: {}",
            m.line.map_or(String::new(), |line| line.to_string()),
            m.key,
            m.message
        )
    };
    refused(&sources).iter().map(show).collect()
}

#[test]
fn every_mistake_of_a_file_is_told_at_once_with_its_line() {
    let found = mistakes_of(
        "every_mistake",
        r#"listen = ["127.0.0.1:8080", "localhost"]
treads = 4

[upstream]
servers = "127.0.0.1:8000"

[hold]
timeot = "25s"
jitter = 10
max = "many"

[history]
bytes = "1mb"
age = 300

[limts]
per_address = 5

[log]
level = "loud"
mask = ["token", 7]
"#,
    );
    let address = "is no address; write host:port, [::1]:port or unix:/path";
    assert_eq!(
        found,
        [
            format!("1 listen[1]: \"localhost\" {address}"),
            "2 treads: unknown key; did you mean threads?".to_owned(),
            "5 upstream.servers: must be a list in [ ], not text".to_owned(),
            "8 hold.timeot: unknown key; did you mean hold.timeout?".to_owned(),
            "9 hold.jitter: \"10\" is no share; write \"0%\" to \"100%\"".to_owned(),
            "10 hold.max: must be a whole number, not text".to_owned(),
            "13 history.bytes: cannot read \"1mb\"; write a whole number and one of B, KB, MB, GB, \
             TB, KiB, MiB, GiB, TiB, such as \"64KiB\""
                .to_owned(),
            "14 history.age: \"300\" has no unit; write a whole number and one of ms, s, m, h, d, \
             such as \"25s\""
                .to_owned(),
            "16 limts: unknown key; did you mean limits?".to_owned(),
            "20 log.level: \"loud\" is none of off, error, warn, info, debug, trace".to_owned(),
            "21 log.mask[1]: must be text in quotes, not a number".to_owned(),
        ]
    );
}

#[test]
fn mistakes_in_lists_of_tables_have_their_own_lines() {
    let found = mistakes_of(
        "lists_of_tables",
        r#"[upstream]
servers = ["127.0.0.1:8000"]

[[channel]]
match = "a*b"
stamp = "micro"

[[poll]]
path = "/comet/*"
dialect = "native"
slak = "1s"

[[poll]]
path = "/backend.php"
dialect = "timestamp"
channel = "room-{quary.room}"
first = "newest"
fields = { mesage = "msg" }

[[poll]]
dialect = "novcome"

[[poll]]
path = "/comet.php"
dialect = "novcomet"
slack = 2
channel = "x"
auth = { kind = "upstream", url = "auth.php", keys = { a = "b" } }
"#,
    );
    let starts = [
        "5 channel[0].match: \"a*b\" is no pattern",
        "6 channel[0].stamp: \"micro\" is none of micros, millis, seconds; did you mean \"micros\"?",
        "11 poll[0].slak: unknown key",
        "16 poll[1].channel: \"room-{quary.room}\": there is no field {quary.room}",
        "17 poll[1].first: \"newest\" is none of latest, oldest, wait",
        "18 poll[1].fields.mesage: unknown key; did you mean poll[1].fields.message?",
        "20 poll[2].path: missing; write the path of its polls",
        "21 poll[2].dialect: \"novcome\" is none of native, novcomet, timestamp, nchan, replay, none; did",
        "26 poll[3].slack: \"2\" has no unit",
        "27 poll[3].channel: a novcomet rule has no such key; remove it",
        "28 poll[3].auth.keys: auth of the kind upstream has no such key; remove it",
        "28 poll[3].auth.url: \"auth.php\" cannot be asked; write a path of the site such as",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}");
    }
}

#[test]
fn a_key_in_the_wrong_section_is_sent_to_the_right_one() {
    let text = "[upstream]\nservers = [\"127.0.0.1:8000\"]\nthreads = 2\n[publish]\nmax_message = \"1KiB\"\n";
    assert_eq!(
        mistakes_of("wrong_section", text),
        [
            "3 upstream.threads: unknown key; did you mean threads?",
            "5 publish.max_message: unknown key; did you mean history.max_message?",
        ]
    );
}

#[test]
fn a_table_where_a_list_belongs_is_told_how_to_write_it() {
    let text =
        "hold = 5\n[upstream]\nservers = [\"127.0.0.1:8000\"]\n[poll]\npath = \"/x\"\n[[log]]\n";
    assert_eq!(
        mistakes_of("table_for_list", text),
        [
            "1 hold: must be a table, written [hold], not a number",
            "4 poll: must be written [[poll]], not as a table",
            "6 log: must be a table, written [log], not a list",
        ]
    );
}

#[test]
fn a_text_that_is_no_toml_is_told_with_its_line_and_without_its_secrets() {
    let text = "[publish]\ntoken = \"hunter2\n";
    let found = mistakes_of("no_toml", text);
    assert!(found[0].starts_with("2 : no valid TOML"), "{found:?}");
    assert!(!found.concat().contains("hunter2"));
}

#[test]
fn a_file_that_is_not_there_is_told_by_its_name() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("not_there.toml");
    let found = refused(&Sources { file: Some(path), ..Sources::default() }).to_string();
    assert!(found.contains("not_there.toml: cannot read the file"), "{found}");
}

#[test]
fn a_mistake_names_the_place_that_it_was_made_in() {
    let text =
        "[upstream]\nservers = [\"127.0.0.1:8000\"]\n[hold]\ntimeout = \"5x\"\njitter = \"x\"\n";
    let path = file("places", text);
    let mut sources = Sources { file: Some(path.clone()), ..Sources::default() };
    sources.env.push(("POLLGATE__HOLD__JITTER".to_owned(), "y".to_owned()));
    sources.env.push(("POLLGATE__HODL__MAX".to_owned(), "1".to_owned()));
    sources.set("listen", "here");
    let shown = refused(&sources).to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 4, "{shown}");
    let in_file = format!("{}:4: hold.timeout: cannot read \"5x\"", path.display());
    assert!(lines[0].starts_with(&in_file), "{shown}");
    let unknown = "environment variable POLLGATE__HODL__MAX: hodl: unknown key; did you mean hold?";
    assert!(lines.contains(&unknown), "{shown}");
    let jitter = "environment variable POLLGATE__HOLD__JITTER: hold.jitter: \"y\" is no share";
    assert!(lines.iter().any(|line| line.starts_with(jitter)), "{shown}");
    assert!(lines[3].starts_with("command line: listen[0]: \"here\" is no address"), "{shown}");
}

#[test]
fn a_mistake_is_one_line_whatever_the_value() {
    let text = "[upstream]\nservers = [\"127.0.0.1:8000\"]\n[hold]\ntimeout = \"5\\n\\u001b[1m\"\n";
    let found = mistakes_of("one_line", text);
    assert!(found[0].contains(r#"cannot read "5\n\u{1b}[1m""#), "{found:?}");
}

#[test]
fn mistakes_travel_as_json_with_key_line_and_message() {
    let path =
        file("json", "[upstream]\nservers = [\"127.0.0.1:8000\"]\n[hold]\ntimeot = \"1s\"\n");
    let mistakes = refused(&Sources { file: Some(path), ..Sources::default() });
    assert_eq!(
        serde_json::to_value(&mistakes).unwrap(),
        serde_json::json!([{
            "key": "hold.timeot",
            "line": 4,
            "message": "unknown key; did you mean hold.timeout?",
        }])
    );
}

#[test]
fn the_command_line_goes_over_the_environment_and_that_over_the_file() {
    let text = "threads = 1\n[upstream]\nservers = [\"127.0.0.1:8000\"]\n[hold]\nmax = 1\ntimeout = \"1s\"\n";
    let mut sources = Sources { file: Some(file("layers", text)), ..Sources::default() };
    sources.env.push(("POLLGATE__HOLD__MAX".to_owned(), "2".to_owned()));
    sources.env.push(("POLLGATE__THREADS".to_owned(), "2".to_owned()));
    sources.set("threads", "3");
    sources.set("poll", r#"[{path="/x/*",dialect="native"}]"#);
    sources.set_list("upstream.servers", &["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()]);
    let config = Config::read(&sources, Site::Configured).unwrap();
    assert_eq!((config.threads, config.limits.held, config.hold.timeout.as_secs()), (3, 2, 1));
    assert_eq!((config.upstream.servers.len(), config.routes.len()), (2, 1));
}

#[test]
fn a_watch_says_what_it_cannot_watch() {
    let found = mistakes_of(
        "watch",
        r#"
[[watch]]
path = "data.txt"
channel = "a"
[[watch]]
path = "/srv/*/data.txt"
channel = "{2}"
[[watch]]
path = "/srv/*-*.txt"
channel = "{x}"
[[watch]]
path = "/srv/data.txt"
channel = "{1}"
[[watch]]
content = "yes"
"#,
    );
    assert_eq!(
        found,
        [
            "3 watch[0].path: \"data.txt\" must begin with /, as a relative path depends on where \
             the gate was started",
            "7 watch[1].channel: {2} wants a * in the path, which has only 1",
            "9 watch[2].path: \"/srv/*-*.txt\" has more than one * in a segment",
            "10 watch[2].channel: \"{x}\": the only fields of a watched file are {1}, {2}..., \
             what the * of its path stand for",
            "13 watch[3].channel: {1} wants a * in the path, which has none",
            "14 watch[4].path: missing; write the files the site writes, such as \
             \"/dev/shm/*.comet\"",
            "14 watch[4].channel: missing; write the channel's name; {1} is what the first * of the \
             path stands for",
            "15 watch[4].content: must be true or false, not text",
        ]
    );
}

/// The warnings of a config that is valid.
fn warnings_of(name: &str, text: &str) -> Vec<String> {
    let text = format!("[upstream]\nservers = [\"127.0.0.1:8000\"]\n{text}");
    let sources = Sources { file: Some(file(name, &text)), ..Sources::default() };
    Config::read(&sources, Site::Configured).unwrap().warnings
}

#[test]
fn mistakes_in_paths_and_conditions_come_with_their_lines() {
    let found = mistakes_of(
        "rules_in_words",
        r#"[upstream]
servers = ["127.0.0.1:8000"]

[[poll]]
path = "/rooms/*-*/poll"
when = ["do[]=get", "last!="]
unless = ["=send"]
dialect = "timestamp"
channel = "a"

[[poll]]
path = "/rooms/*/poll"
dialect = "replay"
channel = "{path.1}-{path.2}"

[[poll]]
path = "/rooms/*"
dialect = "none"
channel = "a"
timeout = "3s"

[[poll]]
path = "/live/*.php"
dialect = "native"
"#,
    );
    let parameter = "is no parameter; write its name as PHP's $_GET has it, without brackets, with \
                     _ for dots and spaces";
    let extra = "a none rule has no such key; remove it";
    let missing = "missing; end the path in * (the channels stand there), or name the channel";
    assert_eq!(
        found,
        [
            "5 poll[0].path: \"/rooms/*-*/poll\" is no pattern; a segment may have one * only"
                .to_owned(),
            format!("6 poll[0].when[0]: \"do[]\" {parameter}"),
            "7 poll[0].unless[0]: must not be empty".to_owned(),
            "14 poll[1].channel: {path.2} wants 2 * in the path, which has 1".to_owned(),
            format!("19 poll[2].channel: {extra}"),
            format!("20 poll[2].timeout: {extra}"),
            format!("22 poll[3].channel: {missing}"),
        ]
    );
}

#[test]
fn a_rule_that_no_request_reaches_is_warned_of() {
    let rule = |path: &str, more: &str| format!("[[poll]]\npath = \"{path}\"\n{more}\n");
    let timestamp = "dialect = \"timestamp\"\nchannel = \"a\"";
    let filled = "dialect = \"timestamp\"\nchannel = \"a-{query.room}\"";
    let when = format!("when = [\"a=1\"]\n{timestamp}");
    let post = format!("methods = [\"POST\"]\n{timestamp}");
    let none = "dialect = \"none\"";
    for (first, second, hidden) in [
        (rule("/live/*", timestamp), rule("/live/*.php", none), false),
        (rule("/live/*", timestamp), rule("/live/*.php", timestamp), true),
        (rule("/live/*", none), rule("/live/a", "dialect = \"novcomet\""), true),
        (rule("/live/*", "dialect = \"native\""), rule("/live/a", none), true),
        (rule("/live/*", &when), rule("/live/a", timestamp), false),
        (rule("/live/*", filled), rule("/live/a", timestamp), false),
        (rule("/live/*", &post), rule("/live/a", timestamp), false),
        (rule("/live/a", timestamp), rule("/live/*", timestamp), false),
        (
            rule("/live/*", "dialect = \"replay\"\nchannel = \"a\""),
            rule("/live/a", timestamp),
            true,
        ),
    ] {
        let warnings = warnings_of("unreached", &format!("{first}{second}"));
        let told =
            warnings.iter().any(|w| w.starts_with("poll[1].path (line ") && w.contains("/live/"));
        assert_eq!(told, hidden, "{first}{second}{warnings:?}");
    }
}

#[test]
fn mistakes_in_replay_rules_come_with_their_lines() {
    let found = mistakes_of(
        "replay_rules",
        r#"[upstream]
servers = ["127.0.0.1:8000"]

[[poll]]
path = "/a.php"
dialect = "replay"
channel = "a"
first = "wait"
content_type = "application/json"
max_wait = "0s"

[[poll]]
path = "/b.php"
dialect = "replay"
channel = "b"
cursor = "last[]"
first = "latest"
on_timeout = "[]"
content_type = "json"
max_wait = 3

[[poll]]
path = "/c.php"
dialect = "timestamp"
channel = "c"
on_timeout = "[]"
cursor = "x"
max_wait = "3s"
"#,
    );
    let starts = [
        "8 poll[0].first: the rule names no cursor",
        "9 poll[0].content_type: belongs to on_timeout, which is missing; remove it",
        "10 poll[0].max_wait: must be longer than 0",
        "16 poll[1].cursor: \"last[]\" is no parameter",
        "19 poll[1].content_type: \"json\"",
        "20 poll[1].max_wait: \"3\" has no unit",
        "26 poll[2].on_timeout: \"[]\" is none of empty, latest",
        "27 poll[2].cursor: a timestamp rule has no such key; remove it",
        "28 poll[2].max_wait: a timestamp rule has no such key; remove it",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}");
    }
}
