//! Polls that are cut off at the site and held on, while the gate is upgraded, reloaded, or their
//! grant is revoked; and quiet polls that share one request.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use support::site::Visit;
use support::{Gate, PlainSite, Poller, TempDir, Way};

const SECRET: &str = "a secret of 32 bytes, or of more";

/// The rule with further keys.
fn rule(more: &str) -> String {
    format!(
        "[[poll]]\npath = \"/chat.php\"\ndialect = \"replay\"\nchannel = \"chat\"\n\
         cursor = \"last\"\nmax_wait = \"200ms\"\n{more}\n"
    )
}

async fn reply(visit: &mut Visit, body: &str) {
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}", body.len());
    visit.send(format!("{head}\r\n\r\n{body}")).await;
}

/// A poll that the site holds until it is cut off.
async fn cut_off(gate: &Gate, site: &mut PlainSite, way: Way, target: &str) -> Poller {
    let mut poller = way.connect(gate).await;
    poller.ask(target).await;
    site.visit().await.wait_for_close().await;
    gate.wait_for_held(1).await;
    poller
}

#[tokio::test]
async fn an_upgrade_ends_a_poll_that_is_held_on_and_the_next_process_knows_what_it_missed() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let folder = TempDir::new("upgrade");
        let config = format!(
            "[drain]\nspread = \"0s\"\n[upgrade]\nsocket = \"{}\"\n{}",
            folder.path().join("upgrade.socket").display(),
            rule("on_timeout = \"quiet\"")
        );
        let old = Gate::start_before(site.addr(), &config).await;
        let mut poller = cut_off(&old, &mut site, way, "/chat.php?last=0").await;
        let next = Gate::with(&config).upstream(site.addr()).upgrade().start().await;
        assert_eq!(poller.answer().await.text(), "quiet", "{way:?}");
        assert_eq!(old.wait_for_exit().await, 0, "{}", old.log());
        // What is published before the client is back is not lost.
        next.publish("chat", "").await;
        let mut poller = way.connect(&next).await;
        poller.ask("/chat.php?last=17").await;
        reply(&mut site.visit().await, "news").await;
        assert_eq!(poller.answer().await.text(), "news", "{way:?}");
    }
}

#[tokio::test]
async fn an_upgrade_lets_the_site_answer_a_poll_that_is_there() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let folder = TempDir::new("upgrade");
        let socket = folder.path().join("upgrade.socket");
        let rule = rule("").replace("200ms", "10s");
        let config = format!("[upgrade]\nsocket = \"{}\"\n{rule}", socket.display());
        let old = Gate::start_before(site.addr(), &config).await;
        let mut poller = way.connect(&old).await;
        poller.ask("/chat.php?last=0").await;
        let mut visit = site.visit().await;
        let _next = Gate::with(&config).upstream(site.addr()).upgrade().start().await;
        reply(&mut visit, "news").await;
        assert_eq!(poller.answer().await.text(), "news", "{way:?}");
        assert_eq!(old.wait_for_exit().await, 0, "{}", old.log());
    }
}

#[tokio::test]
async fn a_reload_leaves_a_poll_that_is_held_on_its_rule() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let old = rule("timeout = \"3s\"\non_timeout = \"old\"");
        let new = rule("timeout = \"100ms\"\non_timeout = \"new\"");
        let gate = Gate::start_before(site.addr(), &old).await;
        let mut poller = cut_off(&gate, &mut site, way, "/chat.php?last=0").await;
        gate.reconfigure(&new).await;
        assert_eq!(gate.held().await, 1, "{way:?}");
        assert_eq!(poller.answer().await.text(), "old", "{way:?}");
        let mut poller = way.connect(&gate).await;
        assert_eq!(poller.poll("/chat.php?last=17").await.text(), "new", "{way:?}");
        // One whose rule is gone still goes to the site with news, and is cut off no more.
        gate.reconfigure(&rule("")).await;
        let mut poller = cut_off(&gate, &mut site, way, "/chat.php?last=0&again=1").await;
        gate.reconfigure("").await;
        gate.publish("chat", "").await;
        reply(&mut site.visit().await, "news").await;
        assert_eq!(poller.answer().await.text(), "news", "{way:?}");
    }
}

fn token() -> String {
    let signed = format!("k.99999999999.{}", URL_SAFE_NO_PAD.encode("*"));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = hmac::sign(&key, signed.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{signed}.{hex}")
}

#[tokio::test]
async fn a_poll_that_is_held_on_ends_with_its_grant_and_the_site_is_not_asked_again() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let auth = format!("auth = {{ kind = \"signed\", keys = {{ k = \"{SECRET}\" }} }}");
        let gate = Gate::start_before(site.addr(), &rule(&auth)).await;
        let target = format!("/chat.php?last=0&token={}", token());
        let mut poller = cut_off(&gate, &mut site, way, &target).await;
        let revoked = gate.hook("DELETE", "/grants?channel=chat", &[], b"").await.json();
        assert_eq!(revoked["revoked"], 1, "{way:?}");
        assert_eq!(poller.answer().await.status, 401, "{way:?}");
        gate.publish("chat", "").await;
        assert_eq!(gate.held().await, 0);
        assert_eq!(site.requests().len(), 1, "{way:?}");
    }
}

/// A held poll for the same answer, each way.
async fn hold_each_way(gate: &Gate) -> Vec<Poller> {
    let mut pollers = Vec::new();
    for way in Way::ALL {
        let mut poller = way.connect(gate).await;
        poller.ask("/chat.php?last=17").await;
        gate.wait_for_held(pollers.len() as u64 + 1).await;
        pollers.push(poller);
    }
    pollers
}

#[tokio::test]
async fn with_share_all_quiet_polls_get_the_constant_and_the_site_is_asked_once_with_news() {
    let mut site = PlainSite::start_by_hand().await;
    let more = "share = true\ntimeout = \"300ms\"\non_timeout = \"quiet\"";
    let gate = Gate::start_before(site.addr(), &rule(more)).await;
    let mut pollers = Vec::new();
    for way in Way::ALL {
        let mut poller = way.connect(&gate).await;
        poller.ask("/chat.php?last=17").await;
        pollers.push(poller);
    }
    for poller in &mut pollers {
        assert_eq!(poller.answer().await.text(), "quiet");
    }
    assert!(site.requests().is_empty());
    // A rule that holds for longer, so that a publish finds all of them.
    gate.reconfigure(&rule("share = true\ntimeout = \"1m\"\non_timeout = \"quiet\"")).await;
    let mut pollers = hold_each_way(&gate).await;
    gate.publish("chat", "").await;
    reply(&mut site.visit().await, "news").await;
    for poller in &mut pollers {
        assert_eq!(poller.answer().await.text(), "news");
    }
    assert_eq!(site.requests().len(), 1);
}

#[tokio::test]
async fn with_share_the_constant_ends_polls_whose_one_request_was_cut_off() {
    let mut site = PlainSite::start_by_hand().await;
    let more = "share = true\ntimeout = \"5s\"\non_timeout = \"quiet\"";
    let gate = Gate::start_before(site.addr(), &rule(more)).await;
    let mut pollers = hold_each_way(&gate).await;
    gate.publish("chat", "").await;
    // The site has nothing for them: it holds the one request that goes for all.
    site.visit().await.wait_for_close().await;
    for poller in &mut pollers {
        assert_eq!(poller.answer().await.text(), "quiet");
    }
    assert_eq!(site.requests().len(), 1);
}
