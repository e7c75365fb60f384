//! The demo's page in a real browser: a chat that shows who is there.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::{Addr, Browser, Window, demo};

/// Opens the page and gives its window a name.
async fn come_in(browser: &Browser, gate: &Addr, name: &str) -> Window {
    let window = browser.open(&gate.url("/")).await;
    rename(&window, name).await;
    window
}

async fn rename(window: &Window, name: &str) {
    window.execute("document.querySelector('#name').value = ''", Vec::new()).await;
    window.type_into("#name", name).await;
    // The field loses the focus, as it does when a text is written.
    window.click("#text").await;
}

/// Waits until the page shows these users, in any order.
async fn shows(window: &Window, users: &[&str]) {
    let shown = "[...document.querySelectorAll('#users li')].map((one) => one.textContent)";
    let users = serde_json::to_string(users).unwrap();
    window.wait_until(&format!("{shown}.sort().join() == {users}.sort().join()")).await;
}

#[tokio::test]
async fn the_demo_shows_who_is_there() {
    let (_process, gate, _) = demo::start().await;
    let browser = Browser::start().await;
    let ann = come_in(&browser, &gate, "Ann").await;
    shows(&ann, &["Ann"]).await;
    let bob = come_in(&browser, &gate, "<b>Jürg</b>").await;
    shows(&ann, &["Ann", "<b>Jürg</b>"]).await;
    shows(&bob, &["Ann", "<b>Jürg</b>"]).await;

    bob.type_into("#text", "Hello").await;
    bob.click("form button").await;
    ann.wait_for_texts("#log li", &["<b>Jürg</b>Hello"]).await;
    bob.wait_for_texts("#log li", &["<b>Jürg</b>Hello"]).await;

    // A new name is another user; no message is shown twice, and none is missing.
    rename(&ann, "Anna").await;
    shows(&bob, &["Anna", "<b>Jürg</b>"]).await;
    bob.type_into("#text", "again").await;
    bob.click("form button").await;
    ann.wait_for_texts("#log li", &["<b>Jürg</b>Hello", "<b>Jürg</b>again"]).await;

    // A page that is loaded again keeps its name, and one that is left is gone.
    ann.reload().await;
    shows(&ann, &["Anna", "<b>Jürg</b>"]).await;
    bob.go_to("about:blank").await;
    shows(&ann, &["Anna"]).await;
    ann.close().await;
    bob.close().await;
}
