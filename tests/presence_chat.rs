//! The chat of `docs/presence.md` in a real browser: who is there, as tabs open and close.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::Path;
use support::{Browser, Gate, PhpSite, Window};

const CONFIG: &str = r#"
[[channel]]
match = "room"
presence = true
grace = "30s"
stream_grace = "2s"
[[poll]]
path = "/comet/*"
dialect = "native"
auth = { kind = "signed", keys = { k1 = "a long random secret" } }
"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_page_shows_the_chat_that_is_tested() {
    let page = std::fs::read_to_string(root().join("docs/presence.md")).unwrap();
    let chat = std::fs::read_to_string(root().join("tests/sites/presence/index.php")).unwrap();
    assert!(page.contains(&format!("```php\n{chat}```\n")), "copy index.php into the page");
}

async fn come_in(browser: &Browser, gate: &Gate, name: &str) -> Window {
    let window = browser.open(&gate.addr().url("/")).await;
    window.type_into("#name", name).await;
    window.click("button").await;
    window
}

#[tokio::test]
async fn a_chat_shows_who_is_there() {
    let mut site = PhpSite::of("presence");
    let gate = Gate::start_before(site.addr(), CONFIG).await;
    let client = root().join("clients/php/Pollgate.php");
    site.env("POLLGATE_CLIENT", client.display().to_string());
    site.env("POLLGATE_INTERNAL", gate.internal().to_string()).workers(4).start().await;
    let browsers = (Browser::start().await, Browser::start().await);
    let ann = come_in(&browsers.0, &gate, "Ann").await;
    ann.wait_for_texts("#users li", &["Ann"]).await;
    let bob = come_in(&browsers.1, &gate, "<b>Bob</b>").await;
    ann.wait_for_texts("#users li", &["Ann", "<b>Bob</b>"]).await;
    bob.wait_for_texts("#users li", &["Ann", "<b>Bob</b>"]).await;
    bob.type_into("#text", "Hello").await;
    bob.click("#form button").await;
    ann.wait_for_texts("#messages li", &["<b>Bob</b>: Hello"]).await;
    // A page that is loaded again has the list again.
    ann.reload().await;
    let names = "[...document.querySelectorAll('#users li')].map((one) => one.textContent).sort()";
    let both = format!("{names}.join() == '<b>Bob</b>,Ann'");
    ann.wait_until(&both).await;
    bob.wait_until(&both).await;
    bob.go_to("about:blank").await;
    ann.wait_for_texts("#users li", &["Ann"]).await;
}
