//! A script that waits in a loop of its own costs no worker for clients that wait
//! (`benches/held_loop.py` has the figures).

// A test fails by panicking.
#![cfg(feature = "site-tests")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};
use support::{FORM, Gate, PhpSite, Way};

const RULES: &str = r#"
    [[poll]]
    path     = "/poll.php"
    dialect  = "replay"
    channel  = "talk"
    cursor   = "last"
    max_wait = "1s"
    timeout  = "2s"

    [[capture]]
    path    = "/say.php"
    channel = "talk"
    data    = "{form.text}"
"#;

#[tokio::test]
async fn visitors_before_a_script_that_waits_for_ever_leave_the_workers_alone() {
    const VISITORS: u64 = 60;
    let mut site = PhpSite::of("held-loop");
    site.workers(4).start().await;
    let gate = Gate::start_before(site.addr(), RULES).await;
    let mut speaker = gate.connect().await;
    speaker.send("POST", "/say.php", &[("Content-Type", FORM)], b"text=hello").await;
    assert_eq!(speaker.read_response().await.text(), "said");
    let mut visitors = Vec::new();
    for number in 0..VISITORS {
        let mut visitor = Way::ALL[number as usize % Way::ALL.len()].connect(&gate).await;
        let who = [("Cookie", &*format!("PHPSESSID={number}"))];
        let first = visitor.poll_with("GET", "/poll.php?last=0", &who).await.json();
        assert_eq!((&first["last"], &first["messages"][0]), (&1.into(), &"hello".into()));
        visitor.ask_with("GET", "/poll.php?last=1", &who).await;
        visitors.push(visitor);
    }
    let began = Instant::now();
    let mut most = 0;
    let mut slowest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(12) {
        let asked = Instant::now();
        assert_eq!(gate.get("/page.php").await.text(), "an ordinary page");
        slowest = slowest.max(asked.elapsed());
        most = most.max(site.connections());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // One of them asks at its timeout whether it has missed something.
    assert!(most <= 2, "{most} connections at PHP");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    speaker.send("POST", "/say.php", &[("Content-Type", FORM)], b"text=again").await;
    assert_eq!(speaker.read_response().await.text(), "said");
    for visitor in &mut visitors {
        assert_eq!(visitor.answer().await.json()["messages"][0], "again");
    }
}

#[tokio::test]
async fn a_poll_over_http2_may_ask_the_site_again_after_any_time() {
    let [plain, odd] = Way::HTTP2;
    tokio::join!(is_answered_late(plain), is_answered_late(odd));
}

/// Checks a poll that asks the site at every timeout, for longer than the time after which the
/// rate of a body counts (`limits.body_rate`).
async fn is_answered_late(way: Way) {
    let mut site = PhpSite::of("held-loop");
    site.workers(4).start().await;
    let gate = Gate::start_before(site.addr(), RULES).await;
    let mut visitor = way.connect(&gate).await;
    visitor.ask("/poll.php?last=0").await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(14) {
        assert!(visitor.is_quiet().await, "{way:?}: {}", visitor.answer().await.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut speaker = gate.connect().await;
    speaker.send("POST", "/say.php", &[("Content-Type", FORM)], b"text=late").await;
    assert_eq!(speaker.read_response().await.text(), "said");
    assert_eq!(visitor.answer().await.json()["messages"][0], "late", "{way:?}");
}
