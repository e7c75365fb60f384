//! `/metrics` is correct, in the form that Prometheus reads.

#![allow(clippy::unwrap_used)]
mod support;

use support::{Client, Gate, Metrics, PlainSite, Way, eventually};

/// Metric families that the contract names.
const FAMILIES: [&str; 34] = [
    "pollgate_bodies_refused_total",
    "pollgate_body_bytes",
    "pollgate_build_info",
    "pollgate_channels",
    "pollgate_config_generation",
    "pollgate_connections",
    "pollgate_deliveries_total",
    "pollgate_held_polls",
    "pollgate_history_bytes",
    "pollgate_hold_seconds",
    "pollgate_http2_requests",
    "pollgate_http2_requests_waiting",
    "pollgate_http2_unsent_bytes",
    "pollgate_log_lines_dropped_total",
    "pollgate_mercure_wakes_total",
    "pollgate_presence_bytes",
    "pollgate_presence_members",
    "pollgate_publish_to_write_seconds",
    "pollgate_publishes_total",
    "pollgate_pusher_connections",
    "pollgate_pusher_sessions",
    "pollgate_pusher_sessions_lost_total",
    "pollgate_refusals_total",
    "pollgate_releases_total",
    "pollgate_streams",
    "pollgate_upstream_requests_total",
    "pollgate_upstream_seconds",
    "pollgate_waiting_channels",
    "pollgate_webhook_events_total",
    "pollgate_webhook_failures_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

async fn metrics(gate: &Gate) -> Metrics {
    let response = Client::connect(gate.internal()).await.get("/metrics").await;
    assert_eq!(response.status, 200);
    let kind = response.header("content-type");
    assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
    Metrics::parse(&response.text())
}

/// Waits until a series has this value: an answer is counted just after it was written.
async fn wait_for(gate: &Gate, series: &str, value: f64) {
    let what = format!("{series} to be {value}");
    eventually(&what, async || metrics(gate).await.value(series) == value).await;
}

#[tokio::test]
async fn a_fresh_gate_has_every_series_at_nothing() {
    let gate = Gate::start_alone("").await;
    let metrics = metrics(&gate).await;
    let families: Vec<&str> = metrics.families.keys().map(String::as_str).collect();
    assert_eq!(families, FAMILIES);
    for by in ["hook", "watch", "capture", "header", "backplane"] {
        assert_eq!(metrics.value(&format!("pollgate_publishes_total{{by=\"{by}\"}}")), 0.0);
    }
    for cause in ["message", "timeout", "gone", "drain", "reset"] {
        assert_eq!(metrics.value(&format!("pollgate_releases_total{{cause=\"{cause}\"}}")), 0.0);
    }
    assert_eq!(metrics.nonzero("pollgate_refusals_total"), []);
    assert_eq!(metrics.value("pollgate_config_generation"), 1.0);
    let version = format!("pollgate_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(metrics.value(&version), 1.0);
    assert!(metrics.value("process_resident_memory_bytes") > 1e6);
    assert!(metrics.value("process_open_fds") <= metrics.value("process_max_fds"));
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let started = metrics.value("process_start_time_seconds");
    assert!((now - 60.0..=now).contains(&started), "{started} at {now}");
}

#[tokio::test]
async fn every_way_to_poll_is_counted_alike() {
    for way in Way::ALL {
        let gate = Gate::start_alone("").await;
        // Released by a message.
        let mut first = gate.hold(way, "/comet/news").await;
        assert_eq!(metrics(&gate).await.value("pollgate_held_polls"), 1.0, "{way:?}");
        gate.publish("news", "one").await;
        let cursor = first.answer().await.json()["cursor"].as_str().unwrap().to_owned();
        wait_for(&gate, "pollgate_publish_to_write_seconds_count", 1.0).await;
        // Answered at once, with two messages that waited for it; that is no release of a held
        // poll, so its delay is not measured.
        gate.publish("news", "two").await;
        gate.publish("news", "three").await;
        first.poll(&format!("/comet/news?cursor={cursor}")).await;
        // Quiet at its end, held and not held.
        first.poll("/comet/news?timeout=0.05").await;
        first.poll("/comet/news?timeout=0").await;
        // Of another life of the channel.
        let (channel, _) = cursor.split_once('.').unwrap();
        first.poll(&format!("/comet/news?cursor={channel}.AAAAAA-9")).await;
        // Its client leaves.
        gate.hold(way, "/comet/news").await.close();
        wait_for(&gate, "pollgate_releases_total{cause=\"gone\"}", 1.0).await;
        gate.wait_for_held(0).await;

        let metrics = metrics(&gate).await;
        let released =
            |cause: &str| metrics.value(&format!("pollgate_releases_total{{cause=\"{cause}\"}}"));
        let causes = ["message", "timeout", "reset", "gone", "drain"].map(released);
        assert_eq!(causes, [2.0, 2.0, 1.0, 1.0, 0.0], "{way:?}");
        assert_eq!(metrics.value("pollgate_publishes_total{by=\"hook\"}"), 3.0);
        // One, two, and all three with the reset.
        assert_eq!(metrics.value("pollgate_deliveries_total"), 6.0, "{way:?}");
        assert_eq!(metrics.value("pollgate_hold_seconds_count"), 3.0, "{way:?}");
        assert!(metrics.value("pollgate_hold_seconds_sum") >= 0.05);
        assert_eq!(metrics.value("pollgate_publish_to_write_seconds_count"), 1.0, "{way:?}");
        let delay = metrics.value("pollgate_publish_to_write_seconds_sum");
        assert!(delay > 0.0 && delay < 20.0, "{way:?}: {delay}");
        assert_eq!(metrics.value("pollgate_held_polls"), 0.0);
        assert_eq!(metrics.value("pollgate_channels"), 1.0);
        assert!(metrics.value("pollgate_history_bytes") > 0.0);
        assert_eq!(metrics.nonzero("pollgate_refusals_total"), [], "{way:?}");
        assert_eq!(metrics.nonzero("pollgate_upstream_requests_total"), [], "{way:?}");
    }
}

#[tokio::test]
async fn refusals_are_counted_by_their_cause_whatever_the_way() {
    let config = "[hold]\nmax = 3\n[limits]\nper_address = 2\nper_channel = 1\n\
                  channels_per_poll = 2\n[history]\nchannels = 3\n";
    for way in Way::ALL {
        let gate = Gate::start_alone(config).await;
        let _a = gate.hold(way, "/comet/a").await;
        let mut poller = way.connect(&gate).await;
        assert_eq!(poller.poll("/comet/a").await.status, 503);
        let _b = gate.hold(way, "/comet/b").await;
        assert_eq!(poller.poll("/comet/c").await.status, 429);
        assert_eq!(poller.poll("/comet/a,b,c").await.status, 400);
        assert_eq!(poller.poll("/comet/%zz").await.status, 400);
        assert_eq!(poller.poll_with("PUT", "/comet/a", &[]).await.status, 405);
        let metrics = metrics(&gate).await;
        let refused: Vec<(String, f64)> = metrics
            .nonzero("pollgate_refusals_total")
            .iter()
            .map(|(series, count)| (series.split('"').nth(1).unwrap().to_owned(), *count))
            .collect();
        let wanted = ["bad_request", "channels_per_poll", "method", "per_address", "per_channel"];
        assert_eq!(refused, wanted.map(|cause| (cause.to_owned(), 1.0)), "{way:?}");
    }
}

#[tokio::test]
async fn heads_that_nobody_understands_are_counted_by_what_is_wrong() {
    let gate = Gate::start_alone("[limits]\nhead_bytes = \"1KiB\"\nhead_timeout = \"200ms\"\n");
    let gate = gate.await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(2000));
    for (bytes, status) in [
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (long.as_str(), 431),
        ("GET / HTTP/1.1\r\nHos", 408),
    ] {
        let mut client = gate.connect().await;
        client.send_raw(bytes).await;
        assert_eq!(client.read_response().await.status, status);
    }
    let metrics = metrics(&gate).await;
    for cause in ["malformed_head", "head_too_large", "head_timeout"] {
        let series = format!("pollgate_refusals_total{{cause=\"{cause}\"}}");
        assert_eq!(metrics.value(&series), 1.0, "{cause}");
    }
}

#[tokio::test]
async fn requests_of_the_site_are_counted_by_what_it_answers() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), "").await;
    for (answer, status) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /\r\n\r\n", 302),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404),
        ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", 500),
        ("", 502),
    ] {
        let mut client = gate.connect().await;
        client.send_get("/page").await;
        let mut visit = site.visit().await;
        visit.send(answer).await;
        drop(visit);
        let mut response = client.read_response().await;
        if response.status == 103 {
            response = client.read_response().await;
        }
        assert_eq!(response.status, status);
    }
    // The client does not wait for the answer.
    let mut client = gate.connect().await;
    client.send_get("/page").await;
    let visit = site.visit().await;
    client.close();
    wait_for(&gate, "pollgate_upstream_requests_total{status=\"gone\"}", 1.0).await;
    drop(visit);
    for status in ["2xx", "3xx", "4xx", "5xx", "none"] {
        wait_for(&gate, &format!("pollgate_upstream_requests_total{{status=\"{status}\"}}"), 1.0)
            .await;
    }
    let metrics = metrics(&gate).await;
    assert_eq!(metrics.value("pollgate_upstream_seconds_count"), 4.0);
}

#[tokio::test]
async fn only_listed_channels_have_series_of_their_own() {
    let config = "[metrics]\nchannels = [\"news\", \"a\\\"b\\\\\"]\n";
    let gate = Gate::start_alone(config).await;
    let mut poller = gate.hold(Way::Plain, "/comet/news,other").await;
    let held = "pollgate_channel_held_polls{channel=\"news\"}";
    assert_eq!(metrics(&gate).await.value(held), 1.0);
    gate.publish("news", "one").await;
    poller.answer().await;
    gate.publish("other", "one").await;
    gate.publish("a\"b\\", "one").await;
    let metrics = metrics(&gate).await;
    assert_eq!(metrics.value(held), 0.0);
    assert_eq!(metrics.value("pollgate_channel_publishes_total{channel=\"news\"}"), 1.0);
    assert_eq!(metrics.value("pollgate_channel_deliveries_total{channel=\"news\"}"), 1.0);
    assert_eq!(metrics.value("pollgate_channel_publishes_total{channel=\"a\\\"b\\\\\"}"), 1.0);
    assert!(!metrics.has("pollgate_channel_publishes_total{channel=\"other\"}"));
    assert_eq!(metrics.nonzero("pollgate_channel_publishes_total").len(), 2);
}

#[tokio::test]
async fn the_metrics_want_no_token_and_count_those_who_have_none() {
    let gate = Gate::with("").alone().env("POLLGATE__PUBLISH__TOKEN", "s3cret").token("s3cret");
    let gate = gate.start().await;
    let mut client = Client::connect(gate.internal()).await;
    assert_eq!(client.get("/status").await.status, 401);
    assert_eq!(client.get("/metrics").await.status, 200);
    let refused = client.request("POST", "/publish", &[("Origin", "http://a")], b"").await;
    assert_eq!(refused.status, 403);
    let metrics = metrics(&gate).await;
    assert_eq!(metrics.value("pollgate_refusals_total{cause=\"unauthorized\"}"), 1.0);
    assert_eq!(metrics.value("pollgate_refusals_total{cause=\"cross_origin\"}"), 1.0);
    assert_eq!(gate.status().await["refusals"]["unauthorized"], 1);
}
