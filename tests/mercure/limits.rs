//! Bounds, counts, the config.

use super::hub::{PATH, config, form, post, publish, publisher, subscribe, target};
use super::streams::ids;
use crate::support::{Event, Events, FORM, Gate, Way, eventually};

#[tokio::test]
async fn a_subscriber_that_finds_no_room_comes_back() {
    let gate = Gate::start_alone(&format!("{}[hold]\nmax = 1\n", config(""))).await;
    for way in Way::ALL {
        let held = subscribe(&gate, way, &target(&["/a"], &[]), &[]).await;
        gate.wait_for_held(1).await;
        let busy = way.connect(&gate).await.poll(&target(&["/a"], &[])).await;
        let text = busy.text();
        let retry = text.strip_prefix("retry: ").and_then(|rest| rest.lines().next()?.parse().ok());
        assert_eq!((busy.status, busy.header("content-type")), (200, Some("text/event-stream")));
        assert!(retry.is_some_and(|retry: u32| (5_000..15_000).contains(&retry)), "{text}");
        drop(held);
        gate.wait_for_held(0).await;
    }
}

#[tokio::test]
async fn bodies_of_publishers_are_bounded_before_they_are_read() {
    let gate =
        Gate::start_alone(&format!("{}[limits]\nbody_memory = \"64KiB\"\n", config(""))).await;
    let any = format!("Bearer {}", publisher(&["*"]));
    // Without a token nothing of a long body is read.
    let mut client = gate.connect().await;
    client
        .send_raw(format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"))
        .await;
    assert_eq!(client.read_response().await.status, 401);
    // A body that is declared too long.
    let mut client = gate.connect().await;
    client.send_raw(format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: {any}\r\nContent-Length: 100000000\r\n\r\n")).await;
    assert_eq!(client.read_response().await.status, 413);
    // One that is longer than the memory for all bodies.
    let long = form(&[("topic", "/a"), ("data", &"x".repeat(40_000))]);
    assert_eq!(post(&gate, "", &[("Authorization", &any)], &long).await.status, 503);
    let short = form(&[("topic", "/a"), ("id", "1")]);
    assert_eq!(post(&gate, "", &[("Authorization", &any)], &short).await.status, 200);
    let metrics = gate.hook("GET", "/metrics", &[], b"").await.text();
    assert!(metrics.contains("pollgate_publishes_total{by=\"mercure\"} 1"), "{metrics}");
}

#[tokio::test]
async fn publishers_are_served_over_http2_and_with_chunks() {
    let gate = Gate::start_alone(&config("")).await;
    let any = publisher(&["*"]);
    let mut events = subscribe(&gate, Way::Http2, &target(&["/a"], &[]), &[]).await;
    let mut poller = Way::Http2.connect(&gate).await;
    let target = format!("{PATH}?authorization={any}");
    poller.http2().send("POST", &target, &[("content-type", FORM)], b"topic=/a&id=1").await;
    assert_eq!(poller.answer().await.text(), "1");
    let mut client = gate.connect().await;
    client.send_raw(format!(
        "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n\
         7\r\ntopic=/\r\n6\r\na&id=2\r\n0\r\n\r\n"
    )).await;
    assert_eq!(client.read_response().await.text(), "2");
    // The connection goes on.
    assert_eq!(client.get(PATH).await.status, 400);
    assert_eq!(ids(&mut events, 2).await, ["1", "2"]);
}

#[tokio::test]
async fn deliveries_are_counted_where_they_are_made() {
    let gate = Gate::start_alone(&config("")).await;
    let mut a = subscribe(&gate, Way::Plain, &target(&["/a"], &[]), &[]).await;
    let _b = subscribe(&gate, Way::Plain, &target(&["/b"], &[]), &[]).await;
    gate.wait_for_held(2).await;
    publish(&gate, &[("topic", "/a"), ("id", "1")]).await;
    assert_eq!(a.next().await.id(), "1");
    let metrics = async || gate.hook("GET", "/metrics", &[], b"").await.text();
    eventually("one delivery", async || metrics().await.contains("pollgate_deliveries_total 1"))
        .await;
    assert!(metrics().await.contains("pollgate_streams{transport=\"sse\"} 2"));
}

#[tokio::test]
async fn a_heartbeat_comes_also_while_updates_for_others_do() {
    let gate = Gate::start_alone(&format!("{}[stream]\nheartbeat = \"300ms\"\n", config(""))).await;
    let mut events = subscribe(&gate, Way::Plain, &target(&["/a"], &[]), &[]).await;
    let others = async {
        loop {
            publish(&gate, &[("topic", "/b")]).await;
        }
    };
    let beats = async {
        for _ in 0..4 {
            assert_eq!(events.line().await.unwrap(), ":");
        }
    };
    tokio::select! {
        () = beats => {}
        () = others => {}
    }
}

#[tokio::test]
async fn a_hub_that_nobody_could_use_does_not_start() {
    for (config, says) in [
        ("[mercure]\npublisher_key = \"some key\"\n", "mercure.subscriber_key: missing"),
        ("[mercure]\nanonymous = true\n", "mercure.publisher_key: missing"),
        (
            "[mercure]\nanonymous = true\npublisher_key = \"\"\n",
            "mercure.publisher_key: must not be empty",
        ),
        (
            "[mercure]\nanonymous = true\npublisher_key = \"x\"\nalgorithms = [\"none\"]\n",
            "mercure.algorithms[0]",
        ),
        (
            "[mercure]\nanonymous = true\npublisher_key = \"x\"\nalgorithms = [\"RS256\"]\n",
            "mercure.algorithms: RS256 needs another key",
        ),
        (
            "[mercure]\nanonymous = true\npublisher_key = \"x\"\npath = \"mercure\"\n",
            "mercure.path: \"mercure\" is no path",
        ),
        (
            "[mercure]\nanonymous = true\npublisher_key = \"x\"\npublish_origins = [\"a.example\"]\n",
            "mercure.publish_origins[0]",
        ),
        ("[mercure]\nanonymous = true\npublisher_key = \"x\"\ntopics = 1\n", "mercure.topics"),
    ] {
        let finished = Gate::with(config).alone().run_to_exit().await;
        assert_eq!(finished.code, 2, "{config}");
        assert!(finished.stderr.contains(says), "{config}: {}", finished.stderr);
    }
    let sample =
        "[mercure]\nanonymous = true\npublisher_key = \"!ChangeThisMercureHubJWTSecretKey!\"\n";
    let gate = Gate::start_alone(sample).await;
    gate.wait_for_log("everybody knows").await;
}

#[tokio::test]
async fn a_reload_changes_the_hub() {
    let gate = Gate::start_alone(&config("")).await;
    publish(&gate, &[("topic", "/a"), ("id", "1")]).await;
    gate.reconfigure(&config("path = \"/hub\"")).await;
    assert_eq!(post(&gate, "", &[], "").await.status, 502, "the path is the site's again");
    let mut events = Events::open(Way::Plain, &gate, "/hub?topic=/a&lastEventID=earliest").await;
    assert_eq!(events.next().await, Event { id: Some("1".to_owned()), ..Event::default() });
}
