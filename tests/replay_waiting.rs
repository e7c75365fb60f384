//! Polls that the site itself would hold: they cost it no worker (`docs/dialects/replay.md`).

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};
use support::site::Visit;
use support::{FORM, Gate, PlainSite, Poller, Way, eventually};

const RULE: &str = r#"
    [[poll]]
    path    = "/chat.php"
    dialect = "replay"
    channel = "chat"
    cursor  = "last"
"#;

/// The rule with further keys.
fn rule(more: &str) -> String {
    format!("{RULE}{more}\n")
}

async fn reply(visit: &mut Visit, body: &str) {
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}", body.len());
    visit.send(format!("{head}\r\n\r\n{body}")).await;
}

async fn cut_offs(gate: &Gate) -> f64 {
    let text = gate.hook("GET", "/metrics", &[], b"").await.text();
    support::Metrics::parse(&text).value("pollgate_upstream_requests_total{status=\"cut\"}")
}

#[tokio::test]
async fn a_client_that_has_nothing_yet_is_forwarded_at_once_and_the_next_poll_is_held() {
    for way in Way::ALL {
        let site = PlainSite::start().await;
        let gate = Gate::start_before(site.addr(), RULE).await;
        gate.publish("chat", "").await;
        for first in ["/chat.php", "/chat.php?last=", "/chat.php?last=0&x=1"] {
            let mut poller = way.connect(&gate).await;
            assert_eq!(poller.poll(first).await.text(), format!("site: GET {first}"), "{way:?}");
            // Although the channel was published to a moment ago.
            poller
                .ask(&format!("{first}{}last=17", if first.contains('?') { "&" } else { "?" }))
                .await;
            gate.wait_for_held(1).await;
            gate.publish("chat", "").await;
            assert_eq!(poller.answer().await.status, 200);
        }
        assert_eq!(site.requests().len(), 6);
    }
}

#[tokio::test]
async fn another_client_is_still_forwarded_after_a_publish() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), RULE).await;
    gate.publish("chat", "").await;
    let mut poller = Way::Plain.connect(&gate).await;
    poller.poll("/chat.php?last=16").await;
    let mut other = Way::Plain.connect(&gate).await;
    let who = [("Cookie", "PHPSESSID=other")];
    let answer = other.poll_with("GET", "/chat.php?last=17", &who).await;
    assert_eq!(answer.text(), "site: GET /chat.php?last=17");
}

#[tokio::test]
async fn a_page_that_is_loaded_again_gets_its_content_again_but_no_loop_does() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), RULE).await;
    let began = Instant::now();
    for _ in 0..3 {
        let mut poller = Way::Plain.connect(&gate).await;
        assert_eq!(poller.poll("/chat.php?last=0").await.text(), "site: GET /chat.php?last=0");
    }
    let took = began.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(10)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_first_poll_is_held_where_the_rule_says_so() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), &rule("first = \"wait\"")).await;
    let mut poller = gate.hold(Way::Plain, "/chat.php").await;
    assert!(site.requests().is_empty());
    gate.publish("chat", "").await;
    assert_eq!(poller.answer().await.status, 200);
}

#[tokio::test]
async fn a_quiet_poll_gets_the_constant_and_the_site_is_not_asked() {
    for way in Way::ALL {
        let site = PlainSite::start().await;
        let more = "timeout = \"200ms\"\non_timeout = '{\"news\":[]}'\n\
                    content_type = \"application/json\"\norigins = [\"https://a.example\"]";
        let gate = Gate::start_before(site.addr(), &rule(more)).await;
        let mut poller = way.connect(&gate).await;
        for _ in 0..2 {
            let answer = poller.poll("/chat.php?last=17").await;
            assert_eq!((answer.status, &*answer.text()), (200, "{\"news\":[]}"), "{way:?}");
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert_eq!(answer.header("vary"), Some("Origin"));
        }
        assert!(site.requests().is_empty());
        // HEAD is never held, and so has no timeout.
        poller.ask_with("HEAD", "/chat.php?last=17", &[]).await;
        site.wait_for_requests(1).await;
    }
}

#[tokio::test]
async fn a_shutdown_answers_with_the_constant() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), &rule("on_timeout = \"quiet\"")).await;
    let mut poller = gate.hold(Way::Plain, "/chat.php?last=17").await;
    gate.signal("TERM");
    assert_eq!(poller.answer().await.text(), "quiet");
    assert!(site.requests().is_empty());
}

/// A poll that the site holds until it is cut off.
async fn cut_off(gate: &Gate, site: &mut PlainSite, way: Way) -> Poller {
    let mut poller = way.connect(gate).await;
    poller.ask("/chat.php?last=0").await;
    let mut visit = site.visit().await;
    visit.wait_for_close().await;
    gate.wait_for_held(1).await;
    poller
}

#[tokio::test]
async fn a_poll_that_the_site_holds_is_cut_off_and_forwarded_again_with_news() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let gate = Gate::start_before(site.addr(), &rule("max_wait = \"200ms\"")).await;
        let mut poller = cut_off(&gate, &mut site, way).await;
        assert!(poller.is_quiet().await);
        // A second time for nothing, and then for an answer.
        gate.publish("chat", "").await;
        site.visit().await.wait_for_close().await;
        gate.wait_for_held(1).await;
        gate.publish("chat", "").await;
        let mut visit = site.visit().await;
        reply(&mut visit, "news").await;
        assert_eq!(poller.answer().await.text(), "news", "{way:?}");
        assert_eq!(cut_offs(&gate).await, 2.0);
        eventually("the end of it all", async || gate.held().await == 0).await;
        assert!(!gate.log().contains("ERROR") && !gate.log().contains("WARN"), "{}", gate.log());
        // The client polls on.
        let mut poller = way.connect(&gate).await;
        poller.ask("/chat.php?last=0&again=1").await;
        reply(&mut site.visit().await, "more").await;
        assert_eq!(poller.answer().await.text(), "more");
    }
}

#[tokio::test]
async fn a_posted_form_goes_to_the_site_again_after_it_was_cut_off() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), &rule("max_wait = \"200ms\"")).await;
    let mut client = gate.connect().await;
    client.send("POST", "/chat.php", &[("Content-Type", FORM)], b"last=0&x=1").await;
    let mut visit = site.visit().await;
    visit.read_until("last=0&x=1").await;
    visit.wait_for_close().await;
    gate.wait_for_held(1).await;
    gate.publish("chat", "").await;
    let mut visit = site.visit().await;
    visit.read_until("last=0&x=1").await;
    reply(&mut visit, "news").await;
    assert_eq!(client.read_response().await.text(), "news");
}

#[tokio::test]
async fn a_response_that_has_begun_is_never_cut() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), &rule("max_wait = \"200ms\"")).await;
    let mut poller = Way::Plain.connect(&gate).await;
    poller.ask("/chat.php").await;
    let mut visit = site.visit().await;
    visit.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nsl").await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    visit.send("ow").await;
    assert_eq!(poller.answer().await.text(), "slow");
    assert_eq!(cut_offs(&gate).await, 0.0);
}

#[tokio::test]
async fn what_is_published_while_the_poll_is_at_the_site_is_not_lost() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let gate = Gate::start_before(site.addr(), &rule("max_wait = \"500ms\"")).await;
        let mut poller = way.connect(&gate).await;
        poller.ask("/chat.php").await;
        let mut visit = site.visit().await;
        gate.publish("chat", "").await;
        visit.wait_for_close().await;
        reply(&mut site.visit().await, "news").await;
        assert_eq!(poller.answer().await.text(), "news", "{way:?}");
    }
}

#[tokio::test]
async fn a_poll_that_is_held_on_gets_the_constant_at_its_timeout() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let more = "max_wait = \"200ms\"\ntimeout = \"900ms\"\non_timeout = \"quiet\"";
        let gate = Gate::start_before(site.addr(), &rule(more)).await;
        let began = Instant::now();
        let mut poller = cut_off(&gate, &mut site, way).await;
        assert_eq!(poller.answer().await.text(), "quiet", "{way:?}");
        assert!(began.elapsed() > Duration::from_millis(750), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_client_that_leaves_or_a_shutdown_ends_a_poll_that_is_held_on() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let config = rule("max_wait = \"200ms\"") + "[drain]\ntimeout = \"5s\"\n";
        let gate = Gate::start_before(site.addr(), &config).await;
        cut_off(&gate, &mut site, way).await.close();
        gate.wait_for_held(0).await;
        let mut poller = way.connect(&gate).await;
        poller.ask("/chat.php?last=0&other=1").await;
        site.visit().await.wait_for_close().await;
        gate.wait_for_held(1).await;
        gate.signal("TERM");
        // The site has nothing for it, so it is not asked again.
        assert_eq!(poller.answer().await.status, 503, "{way:?}");
    }
}

#[tokio::test]
async fn a_script_that_was_cut_off_keeps_its_slot_until_its_channel_has_news() {
    let mut site = PlainSite::start_by_hand().await;
    let config =
        rule("max_wait = \"200ms\"\nconcurrency = 1").replace("\"chat\"", "\"{query.room}\"");
    let gate = Gate::start_before(site.addr(), &config).await;
    let mut one = Way::Plain.connect(&gate).await;
    one.ask("/chat.php?room=a").await;
    let mut visit = site.visit().await;
    visit.wait_for_close().await;
    gate.wait_for_held(1).await;
    // Its script may still wait, so no other poll is let in.
    let mut other = Way::Plain.connect(&gate).await;
    other.ask("/chat.php?room=b").await;
    assert!(other.is_quiet().await);
    gate.publish("a", "").await;
    for _ in 0..2 {
        let mut visit = site.visit().await;
        reply(&mut visit, "news").await;
    }
    assert_eq!((one.answer().await.status, other.answer().await.status), (200, 200));
}

#[tokio::test]
async fn one_poll_finds_out_for_all_with_the_same_position_that_there_is_nothing() {
    let mut site = PlainSite::start_by_hand().await;
    let gate =
        Gate::start_before(site.addr(), &rule("max_wait = \"300ms\"\ntimeout = \"100ms\"")).await;
    let mut pollers = Vec::new();
    for number in 0..20 {
        let mut poller = Way::ALL[number % 4].connect(&gate).await;
        poller.ask_with("GET", "/chat.php?last=17", &[("Cookie", &*format!("s={number}"))]).await;
        pollers.push(poller);
    }
    site.visit().await.wait_for_close().await;
    gate.wait_for_held(20).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(site.requests().len(), 1);
    gate.publish("chat", "").await;
    for _ in 0..20 {
        reply(&mut site.visit().await, "news").await;
    }
    for mut poller in pollers {
        assert_eq!(poller.answer().await.text(), "news");
    }
}

#[tokio::test]
async fn a_shared_poll_that_is_cut_off_holds_on_all_that_wait_for_it() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), &rule("max_wait = \"300ms\"\nshare = true")).await;
    let mut pollers = Vec::new();
    for way in Way::ALL {
        pollers.push(gate_hold(&gate, way, pollers.len() as u64 + 1).await);
    }
    gate.publish("chat", "").await;
    site.visit().await.wait_for_close().await;
    gate.wait_for_held(4).await;
    gate.publish("chat", "").await;
    reply(&mut site.visit().await, "news").await;
    for mut poller in pollers {
        assert_eq!(poller.answer().await.text(), "news");
    }
    assert_eq!(site.requests().len(), 2);
}

async fn gate_hold(gate: &Gate, way: Way, count: u64) -> Poller {
    let mut poller = way.connect(gate).await;
    poller.ask("/chat.php?last=17").await;
    gate.wait_for_held(count).await;
    poller
}
