//! Shutdown of the gate: every held poll is answered in its own dialect, with a valid cursor.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::{Addr, Gate, PlainSite, Way, eventually};

/// All three dialects, on one channel `c`.
const RULES: &str = r#"
    [[poll]]
    path    = "/comet/*"
    dialect = "native"
    [[poll]]
    path    = "/novcomet"
    dialect = "novcomet"
    [[poll]]
    path    = "/timestamp"
    dialect = "timestamp"
    channel = "c"
    first   = "wait"
"#;

/// A gate that answers its held polls at once when it ends.
fn at_once() -> String {
    format!("[drain]\nspread = \"0s\"\ntimeout = \"30s\"\n{RULES}")
}

/// A gate that takes its time, so that a test can look at it meanwhile.
fn slowly() -> String {
    format!("[drain]\nspread = \"4s\"\ntimeout = \"30s\"\n{RULES}")
}

/// Waits until the address refuses connections.
async fn wait_for_refusal(addr: &Addr) {
    let (Addr::Tcp(addr) | Addr::Tls(addr)) = addr else { panic!("no TCP address: {addr}") };
    eventually("new connections to be refused", async || {
        tokio::net::TcpStream::connect(addr).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn each_held_poll_is_answered_quiet_in_its_own_dialect() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&at_once()).await;
        let stamp = gate.publish("c", "old").await["stamp"].clone();
        let mut native = gate.hold(way, "/comet/c").await;
        let mut novcomet = gate.hold(way, &format!("/novcomet?subscribed[c]={stamp}")).await;
        let mut timestamp = gate.hold(way, &format!("/timestamp?timestamp={stamp}")).await;
        let mut first = gate.hold(way, "/timestamp").await;

        gate.signal("TERM");
        let answer = native.answer().await.json();
        assert_eq!(answer["messages"], json!([]), "{answer}");
        assert!(answer["cursor"].as_str().is_some_and(|cursor| !cursor.is_empty()));
        assert_eq!(answer.get("reset"), None);
        assert_eq!(novcomet.answer().await.json(), json!({"s": 0}));
        let quiet = json!({"msg": "", "timestamp": stamp});
        assert_eq!(timestamp.answer().await.json(), quiet);
        assert_eq!(first.answer().await.json(), quiet);
        assert_eq!(gate.wait_for_exit().await, 0);
    }
}

#[tokio::test]
async fn an_answer_of_the_drain_closes_its_connection() {
    for way in Way::HTTP1 {
        let gate = Gate::start_alone(&at_once()).await;
        let mut pollers = Vec::new();
        for target in ["/comet/c", "/novcomet?subscribed[c]=0", "/timestamp"] {
            pollers.push(gate.hold(way, target).await);
        }
        gate.signal("TERM");
        for poller in &mut pollers {
            let response = poller.answer().await;
            assert_eq!(response.status, 200);
            assert_eq!(response.header("connection"), Some("close"));
            poller.client().wait_for_close().await;
        }
        assert_eq!(gate.wait_for_exit().await, 0);
    }
}

#[tokio::test]
async fn the_cursor_of_a_drains_answer_is_good_while_the_history_lives() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&slowly()).await;
        // Many, so that the first is answered well before the last.
        let mut pollers = Vec::new();
        for _ in 0..40 {
            pollers.push(gate.hold(way, "/comet/c").await);
        }
        gate.signal("TERM");
        wait_for_refusal(gate.addr()).await;
        eventually("the first answers", async || gate.held().await < 40).await;
        let mut quiet = None;
        for poller in &mut pollers {
            if !poller.is_quiet().await {
                quiet = Some(poller.answer().await.json());
                break;
            }
        }
        let cursor = quiet.unwrap()["cursor"].as_str().unwrap().to_owned();
        gate.publish("c", "after").await;
        let path = format!("/channels/c/messages?cursor={cursor}");
        let missed = gate.hook("GET", &path, &[], "").await.json();
        assert_eq!(missed["messages"][0]["data"], "after", "{missed}");
        assert_eq!(missed.get("reset"), None);
    }
}

#[tokio::test]
async fn meanwhile_the_site_can_publish_and_nobody_can_connect() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&slowly()).await;
        let mut on_c = Vec::new();
        for _ in 0..40 {
            on_c.push(gate.hold(way, "/comet/c").await);
        }
        assert_eq!(gate.hook("GET", "/healthz", &[], "").await.status, 200);
        gate.signal("TERM");
        wait_for_refusal(gate.addr()).await;

        let ready = gate.hook("GET", "/readyz", &[], "").await;
        assert_eq!(ready.status, 503, "{}", ready.text());
        assert!(ready.text().contains("drain"), "{}", ready.text());
        assert_eq!(gate.hook("GET", "/healthz", &[], "").await.status, 200);

        // Polls still held get the message instead of a quiet answer.
        assert!(gate.held().await > 0, "the drain was over before the test looked");
        let published = gate.publish("c", "news").await;
        let mut got = 0;
        for poller in &mut on_c {
            let answer = poller.answer().await.json();
            got += u64::from(answer["messages"][0]["data"] == "news");
        }
        assert!(got > 0, "nobody got the message");
        assert!(published["released"].as_u64().unwrap() <= got, "{published} but {got}");
        assert_eq!(gate.wait_for_exit().await, 0);
    }
}

#[tokio::test]
async fn a_gate_that_has_nothing_to_finish_ends_at_once() {
    for signal in ["TERM", "INT"] {
        let gate = Gate::start_alone(RULES).await;
        let _idle = gate.connect().await;
        let mut kept = gate.connect().await;
        kept.get("/comet/c?timeout=0").await;
        let began = Instant::now();
        gate.signal(signal);
        assert_eq!(gate.wait_for_exit().await, 0, "{signal}");
        // Neither the spread nor the timeout of the drain.
        assert!(began.elapsed() < Duration::from_secs(2), "{signal}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_gate_ends_soon_after_its_last_held_poll() {
    let gate = Gate::start_alone(&at_once()).await;
    let mut pollers = Vec::new();
    for number in 0..100 {
        let way = Way::ALL[number % Way::ALL.len()];
        let mut poller = way.connect(&gate).await;
        poller.ask("/comet/c").await;
        pollers.push(poller);
    }
    gate.wait_for_held(100).await;
    let began = Instant::now();
    gate.signal("TERM");
    for poller in &mut pollers {
        assert_eq!(poller.answer().await.json()["messages"], json!([]));
    }
    assert_eq!(gate.wait_for_exit().await, 0);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let gate = Gate::start_alone(&slowly()).await;
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(gate.hold(Way::Plain, "/comet/c").await);
    }
    gate.signal("TERM");
    wait_for_refusal(gate.addr()).await;
    gate.signal("TERM");
    assert_eq!(gate.wait_for_exit().await, 1);
}

#[tokio::test]
async fn a_request_that_the_site_is_working_on_is_finished() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let gate = Gate::start_before(site.addr(), &at_once()).await;
        let mut poller = way.connect(&gate).await;
        poller.ask("/slow").await;
        let mut visit = site.visit().await;

        gate.signal("TERM");
        wait_for_refusal(gate.addr()).await;
        visit.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nslow ").await;
        visit.send("pages").await;
        let response = poller.answer().await;
        assert_eq!((response.status, response.text().as_str()), (200, "slow pages"));
        assert_eq!(gate.wait_for_exit().await, 0);
    }
}

#[tokio::test]
async fn a_site_that_never_answers_does_not_keep_the_gate_beyond_its_timeout() {
    let mut site = PlainSite::start_by_hand().await;
    let config = format!("[drain]\nspread = \"0s\"\ntimeout = \"300ms\"\n{RULES}");
    let gate = Gate::start_before(site.addr(), &config).await;
    let mut client = gate.connect().await;
    client.send_get("/slow").await;
    let _visit = site.visit().await;
    let began = Instant::now();
    gate.signal("TERM");
    assert_eq!(gate.wait_for_exit().await, 0);
    assert!(began.elapsed() > Duration::from_millis(300), "it did not wait");
}

#[tokio::test]
async fn a_poll_that_comes_over_a_kept_connection_during_the_drain_is_not_held() {
    for way in Way::HTTP1 {
        let mut site = PlainSite::start_by_hand().await;
        let gate = Gate::start_before(site.addr(), &at_once()).await;
        let mut kept = way.connect(&gate).await;
        // A request under way keeps the drain going, and a second one stands behind it.
        kept.ask("/slow").await;
        let mut visit = site.visit().await;
        kept.ask("/comet/c").await;
        gate.signal("TERM");
        wait_for_refusal(gate.addr()).await;
        visit.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").await;
        let response = kept.answer().await;
        assert_eq!(response.text(), "slow");
        // Either the response announced the close, or the next request is answered.
        if response.header("connection") != Some("close") {
            let answer: Value = kept.answer().await.json();
            assert_eq!(answer["messages"], json!([]));
        }
        assert_eq!(gate.wait_for_exit().await, 0);
    }
}

#[tokio::test]
async fn a_signal_that_comes_right_after_the_start_ends_it_in_order() {
    for _ in 0..20 {
        let gate = Gate::start_alone(RULES).await;
        gate.signal("TERM");
        assert_eq!(gate.wait_for_exit().await, 0);
    }
}

#[tokio::test]
async fn sighup_does_not_end_it() {
    let gate = Gate::start_alone(RULES).await;
    let mut held = gate.hold(Way::Plain, "/comet/c").await;
    gate.signal("HUP");
    gate.publish("c", "still here").await;
    assert_eq!(held.answer().await.json()["messages"][0]["data"], "still here");
}
