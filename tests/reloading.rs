//! A reload drops no connection, and a bad config changes nothing.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Client, Gate, PlainSite, Poller, Response, TempDir, Way, eventually, pollgate};
use tokio::task::JoinSet;

/// A rule whose polls are quiet at once, and whose answer names its config.
fn quiet(name: &str) -> String {
    format!(
        "[[poll]]\npath = \"/quiet\"\ndialect = \"timestamp\"\nchannel = \"quiet\"\n\
         timeout = \"10ms\"\nextra = {{ name = \"{name}\" }}\n\
         [[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\n"
    )
}

/// Which of the configs of [`quiet`] a poll meets.
async fn met(gate: &Gate) -> String {
    let answer = gate.get("/quiet?timestamp=99999999999").await.json();
    answer["name"].as_str().unwrap_or_else(|| panic!("no name in {answer}")).to_owned()
}

async fn wait_until_met(gate: &Gate, name: &str) {
    eventually(&format!("the config {name}"), async || met(gate).await == name).await;
}

/// The value of a key in `GET /config`, as TOML.
async fn shown(gate: &Gate, key: &str) -> String {
    let config = gate.hook("GET", "/config", &[], "").await.text();
    let line = config.lines().find(|line| line.starts_with(&format!("{key} =")));
    line.unwrap_or_else(|| panic!("no {key} in {config}")).to_owned()
}

/// The only message of a native answer.
fn data(response: &Response) -> Value {
    let answer = response.json();
    assert_eq!(answer["messages"].as_array().map(Vec::len), Some(1), "{answer}");
    answer["messages"][0]["data"].clone()
}

const BAD: &str = "[hold]\ntimeot = \"1s\"\njitter = \"10\"\n\n[log]\nlevel = \"loud\"\n";

#[tokio::test]
async fn a_reload_tells_what_has_changed() {
    let gate = Gate::start_alone(&quiet("old")).await;
    assert_eq!(gate.status().await["generation"], 1);
    let answer = gate.reconfigure(&format!("[hold]\ntimeout = \"7s\"\n{}", quiet("new"))).await;
    let changed = json!(["hold.timeout", "poll"]);
    assert_eq!(answer, json!({ "generation": 2, "changed": changed, "restart": [] }));
    assert_eq!(met(&gate).await, "new");
    let status = gate.status().await;
    assert_eq!((&status["generation"], &status["restart"]), (&json!(2), &json!([])));
    assert_eq!(shown(&gate, "timeout").await, "timeout = \"7s\"");
    gate.wait_for_log("config reloaded").await;
    gate.wait_for_log("hold.timeout").await;
    assert_eq!(gate.hook("GET", "/reload", &[], "").await.status, 405);
}

#[tokio::test]
async fn sighup_reloads() {
    let gate = Gate::start_alone(&quiet("old")).await;
    gate.write_config(&quiet("new"));
    gate.signal("HUP");
    wait_until_met(&gate, "new").await;
    assert_eq!(gate.status().await["generation"], 2);
}

#[tokio::test]
async fn the_command_reloads_and_prints_the_answer() {
    let gate = Gate::start_alone(&quiet("old")).await;
    let internal = gate.internal().to_string();
    gate.write_config(&quiet("new"));
    let done = pollgate(&["reload", "--internal", &internal]).await;
    assert_eq!(done.code, 0, "{}", done.stderr);
    let answer: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(answer, json!({ "generation": 2, "changed": ["poll"], "restart": [] }));
    assert_eq!(met(&gate).await, "new");

    gate.write_config(BAD);
    let done = pollgate(&["reload", "--internal", &internal]).await;
    assert_eq!(done.code, 2, "{}", done.stderr);
    let answer: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(answer["mistakes"].as_array().map(Vec::len), Some(3), "{answer}");
    for mistake in ["line 2: hold.timeot: unknown key", "line 3: hold.jitter", "line 6: log.level"]
    {
        assert!(done.stderr.contains(mistake), "{mistake} is missing: {}", done.stderr);
    }
    assert_eq!(met(&gate).await, "new");

    let done = pollgate(&["reload", "--internal", "127.0.0.1:1"]).await;
    assert_eq!(done.code, 1, "{}", done.stderr);
}

#[tokio::test]
async fn a_file_that_changes_is_reloaded_if_that_is_wanted() {
    let watched = |name: &str| format!("[reload]\nwatch = true\n{}", quiet(name));
    let gate = Gate::start_alone(&watched("first")).await;
    // As editors do that write into the file itself.
    std::fs::write(gate.config_file(), watched("written")).unwrap();
    wait_until_met(&gate, "written").await;
    // As other editors do, and deployments: a new file in the place of the old one.
    gate.write_config(&watched("renamed"));
    wait_until_met(&gate, "renamed").await;
    // Or the old one is moved away first.
    std::fs::rename(gate.config_file(), gate.folder().join("pollgate.toml~")).unwrap();
    std::fs::write(gate.config_file(), watched("moved")).unwrap();
    wait_until_met(&gate, "moved").await;
    // It is looked at where a link leads, too.
    let real = gate.folder().join("real");
    std::fs::create_dir(&real).unwrap();
    std::fs::write(real.join("config"), watched("linked")).unwrap();
    std::fs::remove_file(gate.config_file()).unwrap();
    std::os::unix::fs::symlink(real.join("config"), gate.config_file()).unwrap();
    wait_until_met(&gate, "linked").await;
    std::fs::write(real.join("config"), watched("behind the link")).unwrap();
    wait_until_met(&gate, "behind the link").await;
}

#[tokio::test]
async fn a_bad_file_that_is_watched_is_told_once_and_changes_nothing() {
    let watched = |name: &str| format!("[reload]\nwatch = true\n{}", quiet(name));
    let gate = Gate::start_alone(&watched("good")).await;
    gate.write_config(BAD);
    gate.wait_for_log("config refused").await;
    // Other events in the folder do not repeat the log line.
    std::fs::write(gate.folder().join("another"), "file").unwrap();
    std::fs::write(gate.config_file(), BAD).unwrap();
    assert_eq!(met(&gate).await, "good");
    gate.write_config(&watched("mended"));
    wait_until_met(&gate, "mended").await;
    let log = gate.log();
    for mistake in ["2: hold.timeot", "3: hold.jitter", "6: log.level", "config refused"] {
        assert_eq!(log.matches(mistake).count(), 1, "{mistake} in {log}");
    }
    assert_eq!(gate.status().await["generation"], 2);
}

#[tokio::test]
async fn watching_begins_and_ends_with_a_reload() {
    let config = |watch: bool, name: &str| format!("[reload]\nwatch = {watch}\n{}", quiet(name));
    let gate = Gate::start_alone(&config(false, "a")).await;
    let answer = gate.reconfigure(&config(true, "a")).await;
    assert_eq!(answer["changed"], json!(["reload.watch"]));
    gate.write_config(&config(true, "b"));
    wait_until_met(&gate, "b").await;
    gate.write_config(&config(false, "c"));
    wait_until_met(&gate, "c").await;
    assert_eq!(gate.status().await["generation"], 4);
}

#[tokio::test]
async fn a_bad_config_changes_nothing_and_every_mistake_is_told() {
    let gate = Gate::start_alone(&quiet("good")).await;
    let before = gate.hook("GET", "/config", &[], "").await.text();
    gate.write_config(BAD);
    let response = gate.reload().await;
    assert_eq!(response.status, 422);
    let answer = response.json();
    assert!(answer["error"].is_string() && answer["hint"].is_string(), "{answer}");
    let mistakes = answer["mistakes"].as_array().unwrap();
    let places: Vec<_> =
        mistakes.iter().map(|m| (m["key"].as_str().unwrap(), &m["line"])).collect();
    let lines = [json!(2), json!(3), json!(6)];
    assert_eq!(
        places,
        [("hold.timeot", &lines[0]), ("hold.jitter", &lines[1]), ("log.level", &lines[2])]
    );
    assert!(mistakes.iter().all(|m| !m["message"].as_str().unwrap().is_empty()), "{answer}");
    for bad in ["this is no TOML", "[upstream]\nservers = [\"no.such.host.invalid:80\"]\n"] {
        gate.write_config(bad);
        // The server of the flags is in force over that of the file, so that one is good.
        let response = gate.reload().await;
        let expected = if bad.starts_with("this") { 422 } else { 200 };
        assert_eq!(response.status, expected, "{bad}: {}", response.text());
        if expected == 200 {
            gate.reconfigure(&quiet("good")).await;
        }
    }
    std::fs::remove_file(gate.config_file()).unwrap();
    let response = gate.reload().await;
    assert_eq!(response.status, 422, "{}", response.text());
    assert_eq!(gate.hook("GET", "/config", &[], "").await.text(), before);
    assert_eq!(met(&gate).await, "good");
}

#[tokio::test]
async fn a_server_that_cannot_be_looked_up_is_a_mistake() {
    let site = PlainSite::named("site").await;
    let config = |server: &str| format!("\n[upstream]\nservers = [\"{server}\"]\n");
    let gate = Gate::start(&config(&site.addr().to_string())).await;
    gate.write_config(&config("no.such.host.invalid:80"));
    let response = gate.reload().await;
    assert_eq!(response.status, 422, "{}", response.text());
    let mistake = &response.json()["mistakes"][0];
    assert_eq!((&mistake["key"], &mistake["line"]), (&json!("upstream.servers"), &json!(3)));
    assert_eq!(gate.get("/").await.text(), "site: GET /");
}

#[tokio::test]
async fn what_takes_a_restart_stays_as_it_was_and_is_reported_until_it_is_so_again() {
    let config = |threads: usize, name: &str| format!("threads = {threads}\n{}", quiet(name));
    let gate = Gate::start_alone(&config(2, "a")).await;
    let answer = gate.reconfigure(&config(1, "b")).await;
    assert_eq!(answer, json!({ "generation": 2, "changed": ["poll"], "restart": ["threads"] }));
    assert_eq!(gate.status().await["restart"], json!(["threads"]));
    assert_eq!(shown(&gate, "threads").await, "threads = 2");
    // Another reload does not make it forgotten.
    let answer = gate.reconfigure(&config(1, "c")).await;
    assert_eq!(answer["restart"], json!(["threads"]));
    let answer = gate.reconfigure(&config(2, "c")).await;
    assert_eq!(answer, json!({ "generation": 4, "changed": [], "restart": [] }));
    assert_eq!(gate.status().await["restart"], json!([]));
}

#[tokio::test]
async fn listeners_stay_where_they_are_until_a_restart() {
    let config = |listen: &str, internal: &str| {
        format!("listen = [\"{listen}\"]\ninternal = [\"{internal}\"]\n{}", quiet("x"))
    };
    let gate = Gate::with(&config("127.0.0.1:0", "127.0.0.1:0")).alone().listen([]).internal([]);
    let gate = gate.start().await;
    let answer = gate.reconfigure(&config("127.0.0.1:2", "127.0.0.1:3")).await;
    assert_eq!(answer["restart"], json!(["internal", "listen"]));
    assert_eq!(met(&gate).await, "x");
    assert_eq!(shown(&gate, "listen").await, "listen = [\"127.0.0.1:0\"]");
}

#[tokio::test]
async fn a_good_config_that_is_bad_together_with_what_takes_a_restart_is_refused() {
    let open = "internal = [\"0.0.0.0:0\"]\n[publish]\ntoken = \"secret\"\n";
    let gate = Gate::with(open).alone().internal([]).token("secret").start().await;
    // On loopback no token is needed. But the listener stays open to other machines.
    gate.write_config("internal = [\"127.0.0.1:0\"]\n");
    let response = gate.reload().await;
    assert_eq!(response.status, 422, "{}", response.text());
    let answer = response.json();
    let keys: Vec<_> = answer["mistakes"].as_array().unwrap().iter().map(|m| &m["key"]).collect();
    assert_eq!(keys, [&json!("internal"), &json!("publish.token")], "{answer}");
    let stranger = Client::connect(gate.internal()).await.get("/status").await;
    assert_eq!(stranger.status, 401);
}

#[tokio::test]
async fn held_polls_stay_held_with_their_rules_and_the_next_ones_have_the_new() {
    let rule = |name: &str| {
        format!(
            "[[poll]]\npath = \"/p\"\ndialect = \"timestamp\"\nchannel = \"c\"\n\
             timeout = \"5m\"\nextra = {{ rule = \"{name}\" }}\n"
        )
    };
    for way in Way::ALL {
        let gate = Gate::start_alone(&rule("old")).await;
        let mut poller = gate.hold(way, "/p?timestamp=0").await;
        gate.reconfigure(&rule("new")).await;
        assert_eq!(gate.held().await, 1);
        gate.publish("c", "hello").await;
        let answer = poller.answer().await.json();
        assert_eq!((&answer["msg"], &answer["rule"]), (&json!("hello"), &json!("old")), "{way:?}");
        let answer = poller.poll("/p?timestamp=0").await.json();
        assert_eq!((&answer["msg"], &answer["rule"]), (&json!("hello"), &json!("new")), "{way:?}");
        // A rule may also be gone while its polls are held.
        let mut poller = gate.hold(way, "/p?timestamp=99999999999").await;
        gate.reconfigure("").await;
        gate.publish("c", "again").await;
        assert_eq!(poller.answer().await.json()["rule"], "new", "{way:?}");
        assert_eq!(poller.poll("/p").await.status, 502, "{way:?}");
    }
}

#[tokio::test]
async fn limits_of_the_history_reach_channels_that_exist() {
    let gate = Gate::start_alone("").await;
    for number in 0..10 {
        gate.publish("many", number.to_string()).await;
        gate.publish("few", number.to_string()).await;
    }
    let few = "[history]\nmessages = 5\n[[channel]]\nmatch = \"few\"\nmessages = 2\n";
    let answer = gate.reconfigure(few).await;
    assert_eq!(answer["changed"], json!(["channel", "history.messages"]));
    assert_eq!(gate.channel("many").await["kept"], 5);
    assert_eq!(gate.channel("few").await["kept"], 2);
    gate.reconfigure("[history]\nmax_message = \"3B\"\n").await;
    let long = gate.hook("POST", "/channels/many", &[("Content-Type", "text/plain")], "long").await;
    assert_eq!(long.status, 413);
}

#[tokio::test]
async fn how_often_the_history_is_written_changes_and_where_does_not() {
    let folder = TempDir::new("snapshot");
    let config = |name: &str, every: &str| {
        let file = folder.path().join(name);
        format!("[history]\nsnapshot = {file:?}\nsnapshot_every = {every:?}\n")
    };
    let gate = Gate::start_alone(&config("first", "1d")).await;
    gate.publish("c", "kept").await;
    let file = folder.path().join("first");
    let has_it = || std::fs::read(&file).unwrap().windows(4).any(|bytes| bytes == b"kept");
    assert!(!has_it());
    let answer = gate.reconfigure(&config("second", "10ms")).await;
    assert_eq!(answer["changed"], json!(["history.snapshot_every"]));
    assert_eq!(answer["restart"], json!(["history.snapshot"]));
    eventually("the message in the file", async || has_it()).await;
    assert!(!folder.path().join("second").exists());
}

#[tokio::test]
async fn an_idle_timeout_is_that_of_the_moment() {
    for way in [Way::Plain, Way::Http2] {
        let gate = Gate::start_alone("").await;
        gate.reconfigure("[limits]\nidle_timeout = \"50ms\"\n").await;
        let mut poller = way.connect(&gate).await;
        assert_eq!(poller.poll("/comet/c?timeout=0").await.status, 200);
        let connections = async || gate.status().await["connections"] == 0;
        eventually(&format!("the end of the idle connection, {way:?}"), connections).await;
    }
}

#[tokio::test]
async fn limits_of_held_polls_are_those_of_the_moment() {
    let gate = Gate::start_alone("").await;
    let _first = gate.hold(Way::Plain, "/comet/a").await;
    gate.reconfigure("[hold]\nmax = 1\n").await;
    assert_eq!(gate.get("/comet/a").await.status, 503);
    gate.reconfigure("[limits]\nper_channel = 2\n").await;
    let _second = gate.hold(Way::Http2, "/comet/a").await;
    assert_eq!(gate.get("/comet/a").await.status, 503);
}

#[tokio::test]
async fn a_new_token_counts_at_once_and_the_old_one_no_more() {
    let config = |token: &str| format!("[publish]\ntoken = \"{token}\"\n");
    let gate = Gate::with(&config("old")).alone().token("old").start().await;
    let answer = gate.reconfigure(&config("new")).await;
    assert_eq!(answer["changed"], json!(["publish.token"]));
    assert!(!gate.log().contains("\"new\""), "{}", gate.log());
    let mut client = Client::connect(gate.internal()).await;
    for (token, status) in [("old", 401), ("new", 200)] {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str())];
        assert_eq!(client.request("GET", "/status", &headers, b"").await.status, status);
    }
}

#[tokio::test]
async fn the_log_changes_its_level_its_format_and_its_masks() {
    let log = |lines: &str| format!("[log]\n{lines}\n{}", quiet("x"));
    let gate = Gate::start_alone(&log("level = \"error\"")).await;
    gate.get("/quiet?timestamp=99999999999&n=silent").await;
    gate.reconfigure(&log("level = \"info\"")).await;
    gate.get("/quiet?timestamp=99999999999&n=text").await;
    gate.wait_for_log("n=text").await;
    assert!(!gate.log().contains("n=silent"), "{}", gate.log());
    gate.reconfigure(&log("format = \"json\"\nmask = [\"n\"]")).await;
    gate.get("/quiet?timestamp=99999999999&n=hidden&m=json").await;
    gate.wait_for_log("m=json").await;
    let log_now = gate.log();
    let line = log_now.lines().find(|line| line.contains("m=json")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert!(line["fields"]["target"].as_str().unwrap().contains("n=***"), "{line}");
    // pingora's own lines come through the `log` crate.
    gate.reconfigure(&log("level = \"debug\"")).await;
    gate.get("/elsewhere").await;
    gate.wait_for_log("pingora").await;
}

#[tokio::test]
async fn the_site_changes_under_traffic_without_an_error() {
    let a = PlainSite::named("a").await;
    let b = PlainSite::named("b").await;
    let config = |site: &PlainSite| format!("[upstream]\nservers = [\"{}\"]\n", site.addr());
    let gate = Gate::start(&config(&a)).await;
    let traffic: Vec<_> = Way::ALL
        .into_iter()
        .map(|way| {
            let addr = gate.addr().clone();
            tokio::spawn(async move {
                let mut visitor = way.connect_to(&addr).await;
                for _ in 0..200 {
                    let response = visitor.poll("/page").await;
                    assert_eq!(response.status, 200, "{way:?}: {}", response.text());
                }
            })
        })
        .collect();
    for turn in 0..40 {
        gate.reconfigure(&config(if turn % 2 == 0 { &b } else { &a })).await;
    }
    for visitor in traffic {
        visitor.await.unwrap();
    }
    assert_eq!(gate.get("/now").await.text(), "a: GET /now");
    gate.reconfigure(&config(&b)).await;
    assert_eq!(gate.get("/now").await.text(), "b: GET /now");
    // Readiness checks the active servers.
    gate.reconfigure("[upstream]\nservers = [\"127.0.0.1:1\"]\n").await;
    let unready = async || gate.hook("GET", "/readyz", &[], "").await.status == 503;
    eventually("the new server found to be down", unready).await;
    gate.reconfigure(&config(&b)).await;
    assert_eq!(gate.hook("GET", "/readyz", &[], "").await.status, 200);
}

#[tokio::test]
async fn a_request_under_way_ends_at_the_site_where_it_began() {
    let mut old = PlainSite::start_by_hand().await;
    let new = PlainSite::named("new").await;
    let config = |site: &PlainSite| format!("[upstream]\nservers = [\"{}\"]\n", site.addr());
    for way in Way::ALL {
        let gate = Gate::start(&config(&old)).await;
        let mut visitor = way.connect(&gate).await;
        visitor.ask("/slow").await;
        let mut visit = old.visit().await;
        gate.reconfigure(&config(&new)).await;
        visit.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").await;
        assert_eq!(visitor.answer().await.text(), "slow");
        assert_eq!(visitor.poll("/next").await.text(), "new: GET /next");
    }
}

/// A rule and the channel that it names, changed together.
fn rule_and_channel(name: &str, tick: &str) -> String {
    format!(
        "[log]\nlevel = \"error\"\n[[channel]]\nmatch = \"news\"\nstamp = \"{tick}\"\n\
         [[poll]]\npath = \"/news\"\ndialect = \"timestamp\"\nchannel = \"news\"\n\
         extra = {{ rule = \"{name}\" }}\n"
    )
}

/// Polls until a rule of that name has answered some times; its stamps must be in whole seconds.
async fn until_whole_seconds(mut poller: Poller, name: &str) {
    let mut met = 0;
    while met < 3 {
        let answer = poller.poll("/news?timestamp=0").await.json();
        if answer["rule"] == name {
            assert!(answer["timestamp"].is_u64(), "a new rule with an old channel: {answer}");
            met += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_poll_meets_a_new_rule_with_its_channel_as_it_was() {
    let gate = Gate::start_alone(&rule_and_channel("old", "micros")).await;
    gate.publish("news", "hello").await;
    // So many channels that changing them all takes a while.
    for number in 0..500 {
        gate.publish(&format!("other-{number}"), "").await;
    }
    for _ in 0..20 {
        let mut pollers = JoinSet::new();
        for way in Way::ALL {
            let poller = way.connect(&gate).await;
            pollers.spawn(until_whole_seconds(poller, "new"));
        }
        gate.reconfigure(&rule_and_channel("new", "seconds")).await;
        pollers.join_all().await;
        gate.reconfigure(&rule_and_channel("old", "micros")).await;
    }
}

/// Two configs that differ in several places which one request meets together: the rule's
/// `origins` and the limit of channels, the site and the proxies that are trusted.
fn coupled(name: &str, most: usize, site: &PlainSite, trusted: &str) -> String {
    format!(
        "trusted_proxies = [{trusted}]\n\
         [upstream]\nservers = [\"{}\"]\n\
         [limits]\nchannels_per_poll = {most}\n\
         [history]\nmessages = 1000\n\
         [log]\nlevel = \"error\"\n[hold]\ntimeout = \"10m\"\n\
         [[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\n\
         origins = [\"https://{name}.example\"]\n",
        site.addr()
    )
}

/// Name of the config that refused a poll for three channels: both parts of the response must
/// agree.
async fn whole_refusal(visitor: &mut Poller) {
    let origin = [("Origin", "https://a.example")];
    let refused = visitor.poll_with("GET", "/comet/x,y,z", &origin).await;
    assert_eq!(refused.status, 400);
    let by_rule = refused.header("access-control-allow-origin").is_some();
    let by_limit = refused.text().contains("at most 1 ");
    assert_eq!(by_rule, by_limit, "half a config: {:?} {}", refused.headers, refused.text());
}

/// Requests the site; its view of the client must fit its own config.
async fn whole_visit(visitor: &mut Poller) {
    let forwarded = [("X-Forwarded-For", "192.0.2.1")];
    let response = visitor.poll_with("GET", "/page", &forwarded).await;
    assert_eq!(response.status, 200, "{}", response.text());
}

/// Polls a channel until it has the message `last`: none may be missing, none come twice.
async fn follow(mut poller: Poller, last: usize) {
    let mut cursor = "oldest".to_owned();
    let mut next = 1;
    while next <= last {
        let response = poller.poll(&format!("/comet/news?cursor={cursor}")).await;
        assert_eq!(response.status, 200, "{}", response.text());
        let answer = response.json();
        assert_eq!(answer["reset"], Value::Null, "{answer}");
        for message in answer["messages"].as_array().unwrap() {
            assert_eq!(message["data"], next);
            next += 1;
        }
        cursor = answer["cursor"].as_str().unwrap().to_owned();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reloads_under_load_drop_nothing_and_leave_nothing_behind() {
    const RELOADS: usize = 1_000;
    const FIRST: usize = 200;
    let a = PlainSite::named("a").await;
    let b = PlainSite::named("b").await;
    let configs = [coupled("a", 1, &a, "\"127.0.0.1\""), coupled("b", 2, &b, "")];
    // One arena: what threads keep for themselves would look like growth.
    let gate = Gate::with(&configs[0]).env("MALLOC_ARENA_MAX", "1").start().await;
    // Before the other polls come, which are held now and then.
    let mut held = gate.hold(Way::Plain, "/comet/quiet").await;
    let done = Arc::new(AtomicBool::new(false));
    let mut load = tokio::task::JoinSet::new();
    for way in Way::ALL {
        load.spawn(follow(way.connect(&gate).await, RELOADS));
        let mut visitor = way.connect(&gate).await;
        let done = done.clone();
        load.spawn(async move {
            while !done.load(Ordering::Relaxed) {
                whole_refusal(&mut visitor).await;
                whole_visit(&mut visitor).await;
            }
        });
    }
    let mut before = (0, 0);
    for turn in 1..=RELOADS {
        let answer = gate.reconfigure(&configs[turn % 2]).await;
        assert_eq!(answer["generation"], turn + 1);
        gate.publish_json("news", &json!(turn)).await;
        if turn == FIRST {
            before = (gate.own_memory(), gate.open_files());
        }
    }
    done.store(true, Ordering::Relaxed);
    while let Some(visitor) = load.join_next().await {
        visitor.unwrap();
    }
    let after = (gate.own_memory(), gate.open_files());
    println!("memory and open files after {FIRST} reloads: {before:?}, after {RELOADS}: {after:?}");
    assert!(after.0 < before.0 + (10 << 20), "memory grows: {before:?}, {after:?}");
    assert!(after.1 < before.1 + 20, "files stay open: {before:?}, {after:?}");
    gate.publish("quiet", "still held").await;
    assert_eq!(data(&held.answer().await), "still held");
    for (site, forwarded) in [(&a, "192.0.2.1, 127.0.0.1"), (&b, "127.0.0.1")] {
        let requests = site.requests();
        let visits: Vec<_> = requests.iter().filter(|r| r.line() == "GET /page").collect();
        assert!(!visits.is_empty(), "no visit to one of the sites");
        for visit in visits {
            assert_eq!(visit.header("x-forwarded-for"), Some(forwarded), "half a config");
        }
    }
}

/// Every key that is a secret.
fn secrets(folder: &std::path::Path) -> String {
    let file = |name: &str| format!("{{ file = \"{}\" }}", folder.join(name).display());
    let rule = |path: &str, auth: &str| {
        format!("[[poll]]\npath = \"{path}\"\ndialect = \"native\"\nauth = {auth}\n")
    };
    let signed = format!("{{ kind = \"signed\", keys = {{ k = {} }} }}", file("signed"));
    let jwt = format!("{{ kind = \"jwt\", key = {} }}", file("jwt"));
    format!(
        "[publish]\ntoken = {}\n[backplane]\nredis = {}\nsentinel_password = {}\n{}{}",
        file("token"),
        file("redis"),
        file("sentinel"),
        rule("/signed/*", &signed),
        rule("/jwt/*", &jwt)
    )
}

fn write_secret(folder: &std::path::Path, name: &str, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_secret_in_a_file_is_read_again_by_a_reload() {
    let folder = support::TempDir::new("secrets");
    write_secret(folder.path(), "token", "old\n", 0o600);
    let token = format!("{{ file = \"{}\" }}", folder.path().join("token").display());
    let config = format!("[publish]\ntoken = {token}\n");
    let gate = Gate::with(&config).alone().token("old").start().await;
    let status = async |token: &str| {
        let mut client = Client::connect(gate.internal()).await;
        let bearer = format!("Bearer {token}");
        client.request("POST", "/reload", &[("Authorization", bearer.as_str())], b"").await
    };
    assert_eq!(status("wrong").await.status, 401);
    write_secret(folder.path(), "token", "new\r\n", 0o604);
    let reloaded = status("old").await;
    assert_eq!(reloaded.json()["changed"], json!(["publish.token"]), "{}", reloaded.text());
    assert_eq!(status("old").await.status, 401);
    assert_eq!(status("new").await.status, 200);
    gate.wait_for_log("publish.token: every user of this machine can read").await;
    // One that is gone changes nothing.
    std::fs::remove_file(folder.path().join("token")).unwrap();
    let refused = status("new").await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert_eq!(refused.json()["mistakes"][0]["key"], "publish.token", "{}", refused.text());
    assert_eq!(status("new").await.status, 422);
}

#[tokio::test]
async fn every_secret_can_stand_in_a_file_and_none_is_shown() {
    let folder = support::TempDir::new("secrets");
    for (name, text) in [
        ("token", "hunter2-token"),
        ("redis", "redis-sentinel://:hunter2-redis@10.0.0.5/mymaster"),
        ("sentinel", "hunter2-sentinel"),
        ("signed", "hunter2-signed"),
        ("jwt", "hunter2-jwt"),
    ] {
        write_secret(folder.path(), name, &format!("{text}\n"), 0o600);
    }
    let upstream = "[upstream]\nservers = [\"127.0.0.1:1\"]\n";
    let file = folder.write("gate.toml", format!("{upstream}{}", secrets(folder.path())));
    let file = file.display().to_string();
    let done = support::pollgate(&["check", "--config", &file]).await;
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    assert_eq!(done.stdout.matches("***").count(), 5, "{}", done.stdout);
    assert!(
        !done.stdout.contains("hunter2") && !done.stderr.contains("hunter2"),
        "{}",
        done.stdout
    );
    for (name, text) in [("token", ""), ("signed", "\n"), ("token", "a\0b hunter2")] {
        write_secret(folder.path(), name, text, 0o600);
        let done = support::pollgate(&["check", "--config", &file]).await;
        assert_eq!(done.code, 2, "{name} {text:?}: {}{}", done.stdout, done.stderr);
        assert!(!done.stderr.contains("hunter2"), "{}", done.stderr);
        write_secret(folder.path(), name, "good", 0o600);
    }
    for bad in ["{ path = \"/x\" }", "{ file = 1 }", "{ file = \"/x\", more = 1 }", "[]"] {
        let set = format!("publish.token={bad}");
        let done = support::pollgate(&["check", "--config", &file, "--set", &set]).await;
        assert_eq!(done.code, 2, "{bad}: {}{}", done.stdout, done.stderr);
    }
}
