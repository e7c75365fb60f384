//! The log: every line is whole, describes an event, and contains no secret.

#![allow(clippy::unwrap_used, clippy::panic)]
mod support;

use serde_json::Value;
use support::{Client, Gate, PlainSite, Way, eventually, eventually_some};

const JSON: &str = "[log]\nformat = \"json\"\nlevel = \"debug\"\n";

/// All whole lines of a log as JSON; panics with one that is none.
fn lines(gate: &Gate) -> Vec<Value> {
    let log = gate.log();
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
    whole.lines().map(parse).collect()
}

/// The line of that log target whose request's target contains `part`.
async fn line(gate: &Gate, log: &str, part: &str) -> Value {
    let find = async || {
        lines(gate).into_iter().find(|line| {
            line["target"] == log
                && line["fields"]["target"].as_str().is_some_and(|target| target.contains(part))
        })
    };
    eventually_some(&format!("a line of {log} about {part}"), support::BOUND, find).await
}

#[tokio::test]
async fn hostile_targets_stay_within_their_line() {
    let site = PlainSite::start().await;
    let gate = Gate::with(JSON).upstream(site.addr()).start().await;
    for (number, hostile) in [
        "\",\"status\":\"forged",
        "\\\\\\\",\\n{}",
        "%0a%0d{\"forged\":true}",
        "<script>&'`${x}",
        "\u{9b}31m\u{202e}\u{2028}\u{feff}ä",
        "'; DROP TABLE--",
    ]
    .into_iter()
    .enumerate()
    {
        for path in ["/comet/x", "/page"] {
            let target = format!("{path}?timeout=0&n={number}{}&x={hostile}", path.len());
            let mut client = gate.connect().await;
            // Spaces would end the target.
            let target = target.replace(' ', "+");
            client.send_raw(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let status = client.read_response().await.status;
            if status == 200 {
                let part = format!("n={number}{}", path.len());
                let line = line(&gate, "pollgate::access", &part).await;
                assert_eq!(line["fields"]["status"], status, "{line}");
                assert!(line["fields"]["target"].as_str().unwrap().is_ascii(), "{line}");
            }
        }
    }
    for line in lines(&gate) {
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
        assert!(line["fields"]["forged"].is_null() && line["forged"].is_null(), "{line}");
    }
}

#[tokio::test]
async fn every_way_to_poll_leaves_a_line_with_its_hold_and_cause() {
    for way in Way::ALL {
        let gate = Gate::start_alone(JSON).await;
        let mut poller = gate.hold(way, "/comet/news?x=held").await;
        gate.publish("news", "one").await;
        poller.answer().await;
        let line = line(&gate, "pollgate::access", "x=held").await;
        let fields = &line["fields"];
        assert_eq!((&fields["status"], &fields["cause"]), (&200.into(), &"message".into()));
        assert_eq!(fields["client"], "127.0.0.1", "{way:?}");
        let held = fields["held_ms"].as_f64();
        let took = fields["took_ms"].as_f64();
        assert!(held.unwrap() > 0.0 && took >= held, "{way:?}: {fields}");
    }
}

#[tokio::test]
async fn a_head_that_nobody_understands_leaves_a_line_too() {
    let gate = Gate::start_alone(JSON).await;
    let mut client = gate.connect().await;
    client.send_raw("GET / HTTP/1.1\r\nHost : a\r\n\r\n").await;
    assert_eq!(client.read_response().await.status, 400);
    let line = line(&gate, "pollgate::access", "-").await;
    assert_eq!((&line["fields"]["method"], &line["fields"]["status"]), (&"-".into(), &400.into()));
}

#[tokio::test]
async fn the_internal_side_tells_of_refusals_and_changes_and_never_the_token() {
    let config = "[log]\nformat = \"json\"\n";
    let gate = Gate::with(config).alone().env("POLLGATE__PUBLISH__TOKEN", "s3cret").token("s3cret");
    let gate = gate.start().await;
    gate.publish("news", "one").await;
    gate.forget("news").await;
    let mut client = Client::connect(gate.internal()).await;
    let wrong = [("Authorization", "Bearer wr0ng")];
    assert_eq!(client.request("GET", "/status?token=s3cret", &wrong, b"").await.status, 401);
    let refused = line(&gate, "pollgate::internal", "/status").await;
    assert_eq!(refused["fields"]["target"], "/status?token=***");
    assert_eq!((&refused["fields"]["status"], &refused["level"]), (&401.into(), &"INFO".into()));
    let forgotten = line(&gate, "pollgate::internal", "/channels/news").await;
    assert_eq!(forgotten["fields"]["method"], "DELETE");
    let log = gate.log();
    assert!(!log.contains("s3cret") && !log.contains("wr0ng"), "{log}");
    // Publishes and probes come all the time.
    assert!(!log.contains("POST") && !log.contains("/healthz"), "{log}");
}

#[tokio::test]
async fn the_internal_side_tells_of_everything_for_debugging() {
    let gate = Gate::start_alone(JSON).await;
    gate.publish("news", "one").await;
    let published = line(&gate, "pollgate::internal", "/channels/news").await;
    let fields = &published["fields"];
    assert_eq!((&fields["method"], &fields["status"]), (&"POST".into(), &200.into()));
    assert_eq!((&fields["peer"], &published["level"]), (&"127.0.0.1".into(), &"DEBUG".into()));
}

#[tokio::test]
async fn every_value_of_a_query_can_be_masked() {
    let gate = Gate::start_alone("[log]\nmask = [\"*\"]\n").await;
    gate.get("/comet/news?timeout=0&user=alice").await;
    gate.wait_for_log("/comet/news?timeout=***&user=*** status=200").await;
    eventually("a log without values", async || !gate.log().contains("alice")).await;
}

#[tokio::test]
async fn lines_about_the_start_are_json_where_the_log_is() {
    let gate = Gate::start_alone(JSON).await;
    for line in gate.stdout().lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()), "{line}");
    }
    assert!(gate.stdout().contains("internal"), "{}", gate.stdout());
}

#[tokio::test]
async fn a_log_that_is_not_read_holds_up_neither_requests_nor_the_end() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_pollgate"))
        .args(["--listen", "127.0.0.1:0", "--internal", "127.0.0.1:0", "--upstream", "127.0.0.1:1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = std::collections::HashMap::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while address.len() < 2 {
        let line = lines.next().unwrap().unwrap();
        if let Some((word @ ("gate" | "internal"), url)) = line.split_once(' ') {
            let found = support::Addr::parse(url.trim()).unwrap();
            address.insert(word.to_owned(), found);
        }
    }
    let mut client = Client::connect(&address["gate"]).await;
    let long = "x".repeat(2_000);
    for number in 0..1_500 {
        let target = format!("/comet/a?timeout=0&n={number}&x={long}");
        assert_eq!(client.get(&target).await.status, 200, "{number}");
    }
    let mut internal = Client::connect(&address["internal"]).await;
    let metrics = support::Metrics::parse(&internal.get("/metrics").await.text());
    assert!(metrics.value("pollgate_log_lines_dropped_total") > 0.0);
    let pid = child.id().to_string();
    assert!(Command::new("sh").args(["-c", "kill -TERM $0", &pid]).status().unwrap().success());
    eventually("its end", async || child.try_wait().unwrap().is_some()).await;
    assert!(child.wait().unwrap().success());
}
