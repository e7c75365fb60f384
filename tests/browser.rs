//! The seed's own pages in a real browser: what is typed in one window appears
//! in the other, through the gate, with the site's code as it is.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::rules::SENDMSG;
use support::{Browser, Gate, PhpSite};

/// Sends by the page's own form and waits for the page's own word that the
/// site stored and published it.
async fn send(window: &support::Window, text: &str) {
    window.execute("document.querySelector('#sent').textContent = ''", vec![]).await;
    window.type_into("#msg", text).await;
    window.click("#btn").await;
    window.wait_for_texts("#sent", &["OK"]).await;
}

#[tokio::test]
async fn what_is_sent_in_one_window_appears_in_both_in_order_and_once() {
    let mut site = PhpSite::of("sendmsg");
    let gate = Gate::start_before(site.addr(), SENDMSG).await;
    site.env("POLLGATE_HOOK", gate.internal().url("")).start().await;

    let browser = Browser::start().await;
    let one = browser.open(&gate.addr().url("/index.html?via=stream")).await;
    let two = browser.open(&gate.addr().url("/index.html?via=curl")).await;
    gate.wait_for_held(2).await;

    send(&one, "first, from one").await;
    two.wait_for_texts("#content div", &["first, from one"]).await;
    send(&two, "second, from two").await;
    one.wait_for_texts("#content div", &["first, from one", "second, from two"]).await;

    // Faster than the polls come back: the history keeps what falls between.
    for text in ["third", "fourth", "fifth"] {
        send(&one, text).await;
    }
    send(&two, "<b>sixth</b> & \"last\", in Zürich").await;
    let all = [
        "first, from one",
        "second, from two",
        "third",
        "fourth",
        "fifth",
        "<b>sixth</b> & \"last\", in Zürich",
    ];
    one.wait_for_texts("#content div", &all).await;
    two.wait_for_texts("#content div", &all).await;

    // Nothing more comes: both windows wait again and show the same.
    gate.wait_for_held(2).await;
    assert_eq!(one.texts("#content div").await, all);
    assert_eq!(two.texts("#content div").await, all);
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn a_window_opened_later_shows_the_latest_message_and_then_what_follows() {
    let mut site = PhpSite::of("sendmsg");
    let gate = Gate::start_before(site.addr(), SENDMSG).await;
    site.env("POLLGATE_HOOK", gate.internal().url("")).start().await;
    gate.publish("live", "old").await;
    gate.publish("live", "latest").await;

    let browser = Browser::start().await;
    let window = browser.open(&gate.addr().url("/index.html")).await;
    window.wait_for_texts("#content div", &["latest"]).await;
    for number in 1..=5 {
        gate.publish("live", format!("message {number}")).await;
    }
    let all = ["latest", "message 1", "message 2", "message 3", "message 4", "message 5"];
    window.wait_for_texts("#content div", &all).await;
    gate.wait_for_held(1).await;
    assert_eq!(window.texts("#content div").await, all);
    window.close().await;
}

#[tokio::test]
async fn novcomet_callbacks_fire_in_the_other_window() {
    let site = PhpSite::start_of("novcomet").await;
    let rules = r#"
        [[poll]]
        path    = "/comet.php"
        when    = ["subscribed"]
        unless  = ["publish"]
        dialect = "novcomet"
        browser_publish = true
    "#;
    let gate = Gate::start_before(site.addr(), rules).await;

    let browser = Browser::start().await;
    let one = browser.open(&gate.addr().url("/index.html")).await;
    let two = browser.open(&gate.addr().url("/index.html")).await;
    gate.wait_for_held(2).await;

    // By the page's own button, which the gate answers in the site's place.
    one.click("#publish-news").await;
    one.wait_for_texts("#published", &["news: true"]).await;
    two.wait_for_texts("#changes li", &["news"]).await;
    one.wait_for_texts("#changes li", &["news"]).await;

    // By the hook, as the site itself would.
    gate.wait_for_held(2).await;
    gate.publish("weather", "").await;
    one.wait_for_texts("#changes li", &["news", "weather"]).await;
    two.wait_for_texts("#changes li", &["news", "weather"]).await;

    gate.wait_for_held(2).await;
    two.click("#publish-news").await;
    one.wait_for_texts("#changes li", &["news", "weather", "news"]).await;
    gate.wait_for_held(2).await;
    assert_eq!(two.texts("#changes li").await, ["news", "weather", "news"]);
    one.close().await;
    two.close().await;
}
