//! A real chat in PHP with a database, whose polls are held at the gate: every message in the
//! database reaches every page, and PHP is never stormed.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::Value;
use std::time::Duration;
use support::{FORM, Gate, PhpSite, Way};
use tokio::task::JoinSet;

/// The polls of the chat. Their time is up long after the test has given up: what is not fetched
/// because of a publish is missing.
const RULE: &str = r#"
    [[poll]]
    path        = "/poll.php"
    dialect     = "replay"
    channel     = "room-{query.room}"
    add_query   = "wait=0"
    concurrency = 3
    timeout     = "1h"
"#;

const PAGES: usize = 12;
const SENDERS: usize = 3;
const MESSAGES: usize = 12;

/// The chat, with more workers than the gate may use at once, behind a gate.
async fn chat(more: &str) -> (PhpSite, Gate) {
    let mut site = PhpSite::of("chat");
    let gate = Gate::start_before(site.addr(), &format!("{RULE}{more}\n")).await;
    site.workers(8).env("POLLGATE_HOOK", gate.internal().url("")).start().await;
    // The database must exist before the others use it.
    site.get("/poll.php?wait=0").await;
    (site, gate)
}

/// A page: polls until it has so many messages. With `since` it asks for those it has not; else
/// it is given all of them each time.
async fn page(
    gate_addr: support::Addr,
    way: Way,
    page: usize,
    since: bool,
    wanted: usize,
) -> Vec<String> {
    let mut poller = way.connect_to(&gate_addr).await;
    let mut seen = Vec::new();
    let mut last = 0;
    let cookie = format!("page={page}");
    while seen.len() < wanted {
        let since = if since { last } else { 0 };
        let target = format!("/poll.php?room=1&since={since}");
        let response = poller.poll_with("GET", &target, &[("Cookie", &cookie)]).await;
        assert_eq!(response.status, 200, "{}", response.text());
        let answer: Value = response.json();
        for message in answer["messages"].as_array().unwrap() {
            let id = message["id"].as_u64().unwrap();
            if id > last {
                seen.push(message["text"].as_str().unwrap().to_owned());
                last = id;
            }
        }
    }
    seen
}

/// Sends numbered messages through the gate, as a page's form does.
async fn sender(gate_addr: support::Addr, sender: usize) {
    let mut client = support::Client::connect(&gate_addr).await;
    for number in 0..MESSAGES {
        let body = format!("room=1&text={sender}-{number}");
        let answer = client.post("/send.php", FORM, body).await.json();
        assert!(answer["id"].is_string(), "{answer}");
        // Some come in bursts, others to polls that are held again.
        tokio::time::sleep(Duration::from_millis(if number % 3 == 0 { 60 } else { 0 })).await;
    }
}

async fn everything_reaches_everybody(more: &str, since: bool) -> Value {
    let (site, gate) = chat(more).await;
    let mut pages = JoinSet::new();
    for number in 0..PAGES {
        let way = Way::ALL[number % Way::ALL.len()];
        pages.spawn(page(gate.addr().clone(), way, number, since, SENDERS * MESSAGES));
    }
    gate.wait_for_held(PAGES as u64).await;
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        senders.spawn(sender(gate.addr().clone(), number));
    }
    senders.join_all().await;
    let all: Vec<Vec<String>> =
        tokio::time::timeout(Duration::from_secs(60), pages.join_all()).await.expect("all pages");
    for seen in &all {
        assert_eq!(seen, &all[0], "every page has seen the same in the same order");
        assert_eq!(seen.len(), SENDERS * MESSAGES);
    }
    let figures = site.get("/figures.php").await.json();
    println!("{more:?}: {figures}");
    figures
}

#[tokio::test]
async fn all_that_is_in_the_database_reaches_every_page() {
    let figures = everything_reaches_everybody("", true).await;
    assert!(figures["most"].as_u64().unwrap() <= 3, "{figures}");
}

#[tokio::test]
async fn with_share_too_and_php_has_less_to_do() {
    let figures = everything_reaches_everybody("share = true", false).await;
    assert!(figures["most"].as_u64().unwrap() <= 3, "{figures}");
    let polls = (PAGES * SENDERS * MESSAGES) as u64;
    assert!(figures["all"].as_u64().unwrap() < polls / 2, "{figures}");
}

#[tokio::test]
async fn a_crowd_that_is_released_at_once_is_no_stampede() {
    const CROWD: usize = 150;
    for (more, most, all) in [("", 3, CROWD as u64), ("share = true", 1, 1)] {
        let (site, gate) = chat(more).await;
        let before = site.get("/figures.php").await.json()["all"].as_u64().unwrap();
        let mut pages = JoinSet::new();
        for number in 0..CROWD {
            let way = Way::ALL[number % Way::ALL.len()];
            pages.spawn(page(gate.addr().clone(), way, number, true, 1));
        }
        gate.wait_for_held(CROWD as u64).await;
        let body = "room=1&text=hello";
        gate.connect().await.post("/send.php", FORM, body).await;
        for seen in pages.join_all().await {
            assert_eq!(seen, ["hello"]);
        }
        let figures = site.get("/figures.php").await.json();
        assert!(figures["most"].as_u64().unwrap() <= most, "{more:?}: {figures}");
        assert_eq!(figures["all"].as_u64().unwrap() - before, all, "{more:?}: {figures}");
    }
}
