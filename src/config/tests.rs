//! Whole configs: the shipped ones, printing, comparing, and those that must not start.

use super::read::{file, locations};
use super::*;
use crate::hub::channel::Tick;
use crate::protocol::dialect::Dialect;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::path::PathBuf;
use std::time::Duration;

const REFERENCE: &str = include_str!("../../conf/pollgate.toml");

fn flags(pairs: &[(&str, &str)]) -> Sources {
    let mut sources = Sources::default();
    for (key, value) in pairs {
        sources.set(key, value);
    }
    sources
}

/// A config of these flags, in front of a site.
fn config(pairs: &[(&str, &str)]) -> Config {
    Config::read(&flags(pairs), Site::Supplied).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// The mistakes of these flags, as `key: message`.
fn mistakes(pairs: &[(&str, &str)]) -> Vec<String> {
    let wrong = Config::read(&flags(pairs), Site::Configured).err();
    let all = wrong.iter().flat_map(Mistakes::iter);
    all.map(|mistake| format!("{}: {}", mistake.key, mistake.message)).collect()
}

/// Reads a text and returns the report, and the effective table.
fn walk(text: &str) -> (Report, toml_edit::Table) {
    let mut places = ConnectionSlots::default();
    let parsed = file::parse(text).unwrap_or_else(|error| panic!("{error:?}"));
    for (path, line) in parsed.lines {
        places.note(&path, Source::File("test.toml".into()), Some(line));
    }
    let report = Report::new(places, Vec::new());
    let mut root = Section::new(&report, "", parsed.tree);
    tables::config(&mut root);
    let effective = root.finish();
    (report, effective)
}

/// The reference config with its commented-out keys uncommented: `#key`, not `# prose`.
fn uncommented() -> String {
    let bare = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => {
            rest.to_owned()
        }
        _ => line.to_owned(),
    };
    let text = REFERENCE.lines().map(bare).collect::<Vec<_>>().join("\n");
    // The one file that is read together with the config.
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/jwks.json");
    text.replace("/etc/pollgate/jwks.json", keys)
}

#[test]
fn the_reference_config_names_every_key() {
    let text = uncommented();
    let written: Vec<String> = file::parse(&text)
        .unwrap_or_else(|error| panic!("{error:?}"))
        .lines
        .iter()
        .map(|(path, _)| locations::general(path))
        .collect();
    // A site's rules are those that a gate without sites has.
    let rules = ["poll", "channel", "watch", "capture", "webhook", "pusher", "nchan"];
    let rules: Vec<String> = rules
        .iter()
        .map(|rule| format!("{rule}[]."))
        .chain(["mercure.", "grip."].map(str::to_owned))
        .collect();
    let same = |key: &str| {
        let own = key.strip_prefix("site[].")?;
        rules.iter().any(|rule| own.starts_with(rule)).then(|| own.to_owned())
    };
    let known = walk(&text).0.known().into_iter().map(|key| same(&key).unwrap_or(key));
    let missing: Vec<String> = known.filter(|key| !written.contains(key)).collect();
    assert!(missing.is_empty(), "conf/pollgate.toml lacks {missing:?}");
}

#[test]
fn the_manual_names_every_key() {
    let manual = include_str!("../../docs/configuration.md");
    let known = walk(&uncommented()).0.known();
    let name = |key: &String| key.rsplit('.').next().unwrap().to_owned();
    let missing: Vec<String> = known
        .iter()
        .map(name)
        .filter(|name| {
            !manual.contains(&format!("`{name}`")) && !manual.contains(&format!("[{name}]"))
        })
        .collect();
    assert!(missing.is_empty(), "docs/configuration.md lacks {missing:?}");
}

#[test]
fn what_the_reference_config_has_commented_out_is_right() {
    // What belongs to a site, where there are sites; and the sites.
    let sole = ["grip", "mercure", "pusher", "nchan", "webhook", "channel"];
    for left_out in [sole.as_slice(), &["site"]] {
        let mut config: toml_edit::DocumentMut = uncommented().parse().unwrap();
        left_out.iter().for_each(|key| drop(config.remove(key)));
        let wrong = walk(&config.to_string()).0.finish();
        let mistakes: Vec<&Mistake> = wrong.iter().flat_map(Mistakes::iter).collect();
        assert!(mistakes.is_empty(), "without {left_out:?}: {mistakes:?}");
    }
}

#[test]
fn the_reference_config_holds_the_defaults() {
    let (report, mut written) = walk(REFERENCE);
    assert_eq!(report.finish(), None);
    // The one key without a default.
    written["upstream"]["servers"] = toml_edit::value(toml_edit::Array::new());
    assert_eq!(written.to_string(), config(&[]).effective.to_string());
}

#[test]
fn every_shipped_config_is_accepted() {
    let conf = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut seen = Vec::new();
    for file in std::fs::read_dir(&conf).unwrap() {
        let file = file.unwrap().path();
        let sources = Sources { file: Some(file.clone()), ..Sources::default() };
        let config = Config::read(&sources, Site::Configured);
        let config = config.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let dialects: Vec<&str> = config.routes.iter().map(|rule| rule.dialect.name()).collect();
        seen.push((file.file_stem().unwrap().to_string_lossy().into_owned(), dialects));
    }
    seen.sort();
    let seen: Vec<(&str, &[&str])> = seen.iter().map(|(f, d)| (f.as_str(), &d[..])).collect();
    assert_eq!(
        seen,
        [
            ("backend", &["timestamp"][..]),
            ("minimal", &[]),
            ("novcomet", &["novcomet"]),
            ("pollgate", &[]),
            ("sendmsg", &["timestamp"]),
        ]
    );
}

const EVERYTHING: &[(&str, &str)] = &[
    ("listen", "127.0.0.1:0, unix:/run/a.sock"),
    ("internal", "0.0.0.0:7080"),
    ("publish.token", "hunter2"),
    ("trusted_proxies", "10.0.0.0/8,::1"),
    ("upstream.servers", "127.0.0.1:8000"),
    ("hold", r#"{ timeout = "90s", jitter = "2.5%", max = 7 }"#),
    ("limits.idle_timeout", "0"),
    ("log.format", "json"),
    ("channel", r#"[{ match = "a*", messages = 1, stamp = "seconds" }, { match = "*" }]"#),
    (
        "poll",
        r#"[
            { path = "/x", dialect = "native", channel = "room-{query.room}", origins = ["*"] },
            { path = "/c/*", dialect = "novcomet", slack = "1500ms", methods = ["POST"] },
            { path = "/t/*", dialect = "timestamp", channel = "{path.1}", timeout = "0s",
              fields = { message = "m" }, first = "wait", deliver = "latest", embed = true,
              content_type = "application/json", callback = "cb",
              extra = { "a b" = 1.5, list = [1, true, "x"], deep = { er = "y" } } },
        ]"#,
    ),
];

#[test]
fn settings_reach_the_modules_they_are_for() {
    let config = config(EVERYTHING);
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.hold, hold::Settings { timeout: Duration::from_secs(90), jitter: 0.025 });
    assert_eq!((config.limits.held, config.client.idle_timeout), (7, None));
    assert!(config.token.is("hunter2"));
    let [(first, limits), (_, inherited)] = &config.hub.overrides[..] else { panic!() };
    assert!(first.matches("abc") && limits.messages == 1 && limits.tick == Tick::Seconds);
    assert_eq!(inherited, &config.hub.limits);
    let Dialect::Timestamp(timestamp) = &config.routes[2].dialect else { panic!() };
    assert_eq!(
        (timestamp.message_field.as_str(), timestamp.cursor_field.as_str()),
        ("m", "timestamp")
    );
    assert_eq!(
        serde_json::Value::from(timestamp.extra.clone()),
        serde_json::json!({"a b": 1.5, "list": [1, true, "x"], "deep": {"er": "y"}})
    );
    assert_eq!(config.routes[2].timeout, Some(Duration::ZERO));
    assert_eq!(config.routes[0].timeout, None);
}

#[test]
fn what_is_printed_is_read_back_as_the_same_config() {
    for pairs in [&[][..], EVERYTHING] {
        let first = config(pairs);
        let (report, effective) = walk(&first.to_toml().replace("***", "hunter2"));
        assert_eq!(report.finish(), None);
        assert_eq!(effective.to_string(), first.effective.to_string());
    }
}

#[test]
fn a_token_is_printed_masked_and_the_mask_is_no_token() {
    let config = config(&[("publish.token", "hunter2")]);
    assert!(config.to_toml().contains("token = \"***\""));
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(mistakes(&[("publish.token", "***")])[0].contains("POLLGATE__PUBLISH__TOKEN"));
}

#[test]
fn changes_are_told_by_their_keys() {
    let before = config(&[("publish.token", "one"), ("hold.timeout", "60s")]);
    let after = config(&[
        ("publish.token", "two"),
        ("hold.timeout", "1m"),
        ("log.level", "debug"),
        ("threads", "2"),
        ("poll", r#"[{ path = "/a/*", dialect = "native" }]"#),
    ]);
    assert_eq!(before.changes(&after), ["log.level", "poll", "publish.token", "threads"]);
    assert_eq!(before.changes(&before), Vec::<String>::new());
}

#[test]
fn unsafe_combinations_do_not_start() {
    for (pairs, start) in [
        (&[("internal", "0.0.0.0:7080")][..], "publish.token: missing; everyone who can connect"),
        (&[("listen", "127.0.0.1:7080")], "internal: 127.0.0.1:7080 is in listen too"),
        (&[("listen", "[::1]:80,[::1]:80")], "listen[1]: [::1]:80 is there twice"),
        (&[("upstream.servers", "127.0.0.1:8080")], "upstream.servers: 127.0.0.1:8080 is the gate"),
        (&[("listen", "")], "listen: must name at least one address"),
        (&[("history.messages", "0")], "history.messages: must be at least 1"),
        (&[("hold.jitter", "101%")], "hold.jitter: \"101%\" is no share"),
        (&[("upstream.read_timeout", "0s")], "upstream.read_timeout: must be longer than 0"),
    ] {
        let mistakes = mistakes(pairs);
        assert!(mistakes.len() == 1 && mistakes[0].starts_with(start), "{mistakes:?}");
    }
    let same_port_zero = [("listen", "127.0.0.1:0,127.0.0.1:0"), ("internal", "127.0.0.1:0")];
    assert!(mistakes(&same_port_zero).is_empty());
    assert!(mistakes(&[("upstream.servers", "")])[0].starts_with("upstream.servers: missing"));
    // The usual site's port may be the gate's own where a demo stands in for the site.
    let mut demo = Sources::default();
    demo.set("listen", "127.0.0.1:8000");
    assert!(Config::read(&demo, Site::Supplied).is_ok());
    assert!(Config::read(&demo, Site::Configured).is_err());
}

#[test]
fn a_rule_that_could_never_match_is_a_mistake() {
    for (rule, start) in [
        (r#"path = "/x", dialect = "native""#, "poll[0].channel: missing; end the path in *"),
        (r#"path = "/x", dialect = "timestamp""#, "poll[0].channel: missing; write"),
        (r#"path = "/x", dialect = "timestmp""#, "poll[0].dialect: \"timestmp\" is none of"),
        (r#"path = "/x", dialect = "replay", share = true"#, "poll[0].channel: missing; write"),
        (
            r#"path = "/x", dialect = "replay", channel = "a", add_query = "?a""#,
            "poll[0].add_query: \"?a\" is no part of a query",
        ),
        (
            r#"path = "/x", dialect = "replay", channel = "a", concurrency = 0"#,
            "poll[0].concurrency: must be",
        ),
        (r#"path = "/x*", dialect = "native", share = true"#, "poll[0].share: a native rule has"),
        (r#"path = "/x*", dialect = "native", slack = "1s""#, "poll[0].slack: a native rule has"),
        (r#"path = "/x*", dialect = "native", methods = []"#, "poll[0].methods: must name"),
        (r#"path = "/x*", dialect = "native", methods = ["PUT"]"#, "poll[0].methods[0]: \"PUT\""),
        (r#"path = "/x*", dialect = "native", channel = "{path.2}""#, "poll[0].channel: {path.2}"),
        (r#"path = "/x*", dialect = "native", channel = "{form.a}""#, "poll[0].channel: {form.a}"),
        (r#"path = "/x*", dialect = "native", channel = "{json.a}""#, "poll[0].channel: {json..."),
        (r#"path = "/x*", dialect = "native", origins = ["a"]"#, "poll[0].origins[0]: \"a\" is no"),
        (r#"path = "/x*", dialect = "native", when = ["a[b]"]"#, "poll[0].when[0]: \"a[b]\" is no"),
        (
            r#"path = "/x", dialect = "timestamp", channel = "a", fields = { message = "" }"#,
            "poll[0].fields.message: must not be empty",
        ),
        (
            r#"path = "/x", dialect = "timestamp", channel = "a", fields = { message = "." }, embed = true"#,
            "poll[0].embed: the answer is the bare message",
        ),
        (
            r#"path = "/x", dialect = "timestamp", channel = "a", extra = { msg = 1 }"#,
            "poll[0].extra: the answer has a field \"msg\" already",
        ),
        (
            r#"path = "/x", dialect = "timestamp", channel = "a", content_type = "html""#,
            "poll[0].content_type: \"html\" is no content type",
        ),
        (r#"dialect = "native""#, "poll[0].path: missing"),
    ] {
        let mistakes = mistakes(&[("poll", &format!("[{{ {rule} }}]"))]);
        assert!(mistakes.iter().any(|m| m.starts_with(start)), "{rule}: {mistakes:?}");
        assert!(mistakes.len() <= 1, "{rule}: {mistakes:?}");
    }
}

#[test]
fn the_password_of_redis_is_not_shown_and_the_mask_is_none() {
    let shown = config(&[("backplane.redis", "redis://gate:hunter2@a/1")]);
    assert!(
        shown.to_toml().contains("redis = \"redis://gate:***@a:6379/1\""),
        "{}",
        shown.to_toml()
    );
    let other = config(&[("backplane.redis", "redis://gate:other@a/1")]);
    assert_eq!(shown.changes(&other), ["backplane.redis"]);
    for (value, why) in [("redis://:***@a", "holds"), ("a:6379", "must begin with redis://")] {
        let mistakes = mistakes(&[("backplane.redis", value)]);
        assert!(mistakes.len() == 1 && mistakes[0].contains(why), "{mistakes:?}");
    }
}

#[test]
fn what_the_url_of_redis_has_no_use_for_is_a_mistake() {
    for (url, key, value, why) in [
        ("redis://a", "ca", "/ca.pem", "write rediss in place of redis"),
        ("redis-sentinel://a/m", "ca", "/ca.pem", "write rediss in place of redis"),
        ("rediss://a", "ca", "/there/is/no/such", "there is no file"),
        ("rediss://a", "cert", "/cert.pem", "name both files or none"),
        ("rediss://a", "key", "/key.pem", "name both files or none"),
        ("redis://a", "sentinel_password", "x", "the URL names none"),
        ("redis-sentinel://a/m", "sentinel_password", "***", "in place of a password"),
        ("redis-sentinel://a", "prefix", "pg", "as in redis-sentinel://host:26379/mymaster"),
    ] {
        let mistakes = mistakes(&[("backplane.redis", url), (&format!("backplane.{key}"), value)]);
        let told = mistakes.iter().any(|mistake| mistake.contains(why));
        assert!(told, "{url} {key}: {mistakes:?}");
    }
}

#[test]
fn a_snapshot_is_a_file_that_can_be() {
    let snapshot = config(&[]).snapshot;
    assert_eq!((snapshot.file, snapshot.every), (None, Duration::from_secs(30)));
    let snapshot = config(&[("history.snapshot", "/tmp/a"), ("history.snapshot_every", "0s")]);
    let snapshot = snapshot.snapshot;
    assert_eq!((snapshot.file, snapshot.every), (Some("/tmp/a".into()), Duration::ZERO));
    for (file, why) in [
        ("a", "history.snapshot: \"a\" is no absolute path"),
        ("/tmp", "history.snapshot: /tmp is a folder; name a file"),
        ("/none/a", "history.snapshot: there is no folder /none; create it"),
    ] {
        let mistakes = mistakes(&[("history.snapshot", file)]);
        assert!(mistakes.len() == 1 && mistakes[0].starts_with(why), "{mistakes:?}");
    }
}

#[test]
fn the_upgrade_socket_is_an_absolute_path() {
    assert_eq!(config(&[]).upgrade, None);
    let socket = config(&[("upgrade.socket", "/run/a.sock")]).upgrade;
    assert_eq!(socket, Some("/run/a.sock".into()));
    let mistakes = mistakes(&[("upgrade.socket", "a.sock")]);
    assert!(mistakes[0].contains("is no absolute path"), "{mistakes:?}");
}

#[test]
fn a_running_gate_is_found_by_a_config_that_is_wrong_elsewhere() {
    let sources = flags(&[
        ("hold.timeot", "1s"),
        ("internal", "[::1]:1"),
        ("publish.token", "t"),
        ("publish.x", ""),
    ]);
    let contact = Contact::read(&sources).unwrap();
    assert_eq!(contact.internal[0].to_string(), "[::1]:1");
    assert!(contact.token.is("t"));
    assert!(Contact::read(&flags(&[("internal", "nowhere")])).is_err());
}

#[test]
fn types_follow_the_key_outside_of_files() {
    let config = config(&[("publish.token", "12345"), ("hold.max", "12"), ("log.mask", "a, b")]);
    assert!(config.token.is("12345"));
    assert_eq!((config.limits.held, config.log.mask.len()), (12, 2));
    assert!(mistakes(&[("hold.max", "many")])[0].contains("a whole number, not \"many\""));
}

/// Texts that are valid for some key, and any others.
fn value() -> impl Strategy<Value = String> {
    const RIGHT: &[&str] = &[
        "1s",
        "\"1s\"",
        "0",
        "5",
        "10%",
        "\"2KiB\"",
        "true",
        "json",
        "\"native\"",
        "\"a*\"",
        "[]",
        "[\"GET\"]",
        "{ a = 1 }",
        "unix:/a",
        "\"{query.a}\"",
        "\"seconds\"",
        "wait",
        "a,b",
    ];
    let any = "\\PC{0,12}|[0-9a-z\\[\\]{}=\",.%*/-]{0,24}".prop_map(|text| text);
    prop_oneof![3 => select(RIGHT).prop_map(str::to_owned), 1 => any]
}

/// Sets `key`, as `poll[].path` too, to `value`.
fn set(sources: &mut Sources, key: &str, value: &str) {
    match key.split_once("[].") {
        Some(("poll", key)) => {
            let rest = r#"path = "/x/*", dialect = "timestamp", channel = "a""#;
            sources.set("poll", &format!("[{{ {rest}, {key} = {value} }}]"));
        }
        Some((list, key)) => sources.set(list, &format!("[{{ match = \"*\", {key} = {value} }}]")),
        None => sources.set(key, value),
    }
}

proptest! {
    #[test]
    fn any_values_are_refused_or_printed_so_that_they_are_read_back(
        values in vec((0usize..200, value()), 1..3),
        any_key in option::of(value()),
    ) {
        let known: Vec<String> = walk(&uncommented()).0.known().into_iter().collect();
        let mut sources = Sources::default();
        for (index, value) in &values {
            set(&mut sources, &known[index % known.len()], value);
        }
        if let Some(key) = any_key {
            sources.set(&key, "1");
        }
        if let Ok(config) = Config::read(&sources, Site::Supplied) {
            let (report, effective) = walk(&config.to_toml().replace("\"***\"", "\"t\""));
            prop_assert_eq!(report.finish(), None);
            prop_assert_eq!(effective.to_string(), config.effective.to_string());
        }
    }
}
