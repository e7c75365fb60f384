//! The page on the internal listener, in a real browser.
//!
//! With `POLLGATE_SCREENSHOTS=FOLDER` in the environment, what the page looks like is left there.

#![allow(clippy::unwrap_used)]
mod support;

use support::{Browser, Client, Gate, Look, PlainSite, Way, eventually};

fn url(gate: &Gate) -> String {
    format!("http://{}/", gate.internal())
}

#[tokio::test]
async fn the_page_is_closed_to_frames_and_to_scripts_that_are_not_its_own() {
    let gate = Gate::start_alone("").await;
    let mut client = Client::connect(gate.internal()).await;
    let first = client.get("/").await;
    let second = client.get("/").await;
    assert_eq!(first.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(first.header("x-frame-options"), Some("DENY"));
    assert_eq!(first.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(first.header("cache-control"), Some("no-store"));
    let policy = first.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'nonce-"), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
    let nonce = policy.split("script-src 'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert_eq!(first.text().matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    assert!(!second.text().contains(nonce), "a nonce is for one answer");
    let text = first.text();
    assert!(!text.contains("{{") && !text.contains("innerHTML"), "{text}");
    for outside in ["src=\"http", "href=\"http", "@import", "url("] {
        assert!(!text.contains(outside), "the page needs {outside}");
    }
    assert_eq!(client.request("POST", "/", &[], b"").await.status, 405);
}

#[tokio::test]
async fn figures_move_a_message_is_published_and_hostile_names_are_inert() {
    const HOSTILE: &str = "<img src=x onerror=\"document.title='broken'\">";
    let gate = Gate::start_alone("").await;
    let _one = gate.hold(Way::Plain, "/comet/news").await;
    gate.publish(HOSTILE, "<script>document.title='broken'</script>").await;
    let browser = Browser::start().await;
    let window = browser.open(&url(&gate)).await;
    window.wait_until("document.querySelector('[data-figure=held] .now').textContent == '1'").await;
    let _two = gate.hold(Way::Http2, "/comet/news").await;
    window.wait_until("document.querySelector('[data-figure=held] .now').textContent == '2'").await;
    window.wait_for_texts("#busiest tr td:nth-child(2)", &["2", "0"]).await;
    window.wait_for_texts("#busiest button", &["news", HOSTILE]).await;
    // A curve needs figures of several seconds.
    window
        .wait_until(
            "(document.querySelector('.curve').getAttribute('d').match(/L/g) || []).length > 1",
        )
        .await;
    // The hostile channel.
    window.click("#busiest tr:nth-child(2) button").await;
    let message = "<script>document.title='broken'</script>";
    window.wait_for_texts("#messages pre", &[message]).await;
    // A message to the held polls.
    window.click("#busiest tr:nth-child(1) button").await;
    window.wait_for_texts("#messages pre", &[]).await;
    window.type_into("#data", "hello <b>you</b>").await;
    window.click("#publish button").await;
    window
        .wait_until("/released 2 polls/.test(document.getElementById('published').textContent)")
        .await;
    window.wait_for_texts("#messages pre", &["hello <b>you</b>"]).await;
    window.wait_until("document.querySelectorAll('img, b, #figures script').length == 0").await;
    window.wait_until("/held – pollgate/.test(document.title)").await;
    // Something is refused.
    assert_eq!(gate.get("/comet/%zz").await.status, 400);
    window.wait_for_texts("#refused td", &["bad request", "1", "1"]).await;
    let channel = gate.channel("news").await;
    assert_eq!(channel["kept"], 1);
    window.close().await;
}

#[tokio::test]
async fn the_page_is_no_channel_and_no_figure_of_the_gate() {
    let gate = Gate::start_alone("").await;
    let browser = Browser::start().await;
    let window = browser.open(&url(&gate)).await;
    window.wait_until("document.querySelector('[data-figure=held] .now').textContent == '0'").await;
    window
        .wait_until("document.querySelector('[data-figure=publishes] .now').textContent == '0'")
        .await;
    let status = gate.status().await;
    for figure in ["held", "channels", "publishes", "deliveries", "connections"] {
        assert_eq!(status[figure], 0, "{figure}: {status}");
    }
    window.close().await;
}

#[tokio::test]
async fn with_a_token_the_page_asks_for_it_and_remembers_it_in_its_tab() {
    let gate = Gate::with("").alone().env("POLLGATE__PUBLISH__TOKEN", "s3cret").token("s3cret");
    let gate = gate.start().await;
    assert_eq!(Client::connect(gate.internal()).await.get("/page/figures").await.status, 401);
    let browser = Browser::start().await;
    let window = browser.open(&url(&gate)).await;
    window.wait_until("!document.getElementById('login').hidden").await;
    window.type_into("#token", "wrong").await;
    window.click("#login button").await;
    window
        .wait_until("/not the token/.test(document.getElementById('login-error').textContent)")
        .await;
    window.type_into("#token", "s3cret").await;
    window.click("#login button").await;
    window.wait_until("document.querySelector('[data-figure=held] .now').textContent == '0'").await;
    window.wait_until("document.getElementById('login').hidden").await;
    window.execute("location.reload()", Vec::new()).await;
    window.wait_until("document.querySelector('[data-figure=held] .now').textContent == '0'").await;
    let place = window.execute("return location.href", Vec::new()).await;
    assert_eq!(place, url(&gate));
    window.type_into("#name", "news").await;
    window.type_into("#data", "hello").await;
    window.click("#publish button").await;
    window.wait_until("/^Published/.test(document.getElementById('published').textContent)").await;
    assert!(!gate.log().contains("s3cret"), "{}", gate.log());
    window.close().await;
}

#[tokio::test]
async fn a_gate_that_comes_back_is_shown_again() {
    let gate = Gate::start_alone("").await;
    let browser = Browser::start().await;
    let window = browser.open(&url(&gate)).await;
    window.wait_until("/no upstream/.test(document.getElementById('state').textContent)").await;
    let internal = gate.internal().to_string();
    drop(gate);
    window.wait_until("/trying again/.test(document.getElementById('state').textContent)").await;
    let gate = Gate::with("").alone().internal([&internal]).start().await;
    gate.publish("news", "one").await;
    window.wait_for_texts("#busiest button", &["news"]).await;
    // Its page token is the new one's.
    window.type_into("#name", "news").await;
    window.click("#publish button").await;
    window.wait_until("/^Published/.test(document.getElementById('published').textContent)").await;
    window.close().await;
}

#[tokio::test]
async fn the_page_fits_every_screen_and_can_be_read_on_it() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), "[limits]\nper_channel = 40\n").await;
    let mut pollers = Vec::new();
    for (channel, count) in [
        ("news", 30),
        ("scores/final", 12),
        ("chat-with-a-name-that-is-quite-long-and-has-no-spaces-at-all", 5),
        ("房间", 3),
    ] {
        for _ in 0..count {
            let mut poller = Way::Plain.connect(&gate).await;
            let path =
                percent_encoding::utf8_percent_encode(channel, percent_encoding::NON_ALPHANUMERIC);
            poller.ask(&format!("/comet/{path}?timeout=60")).await;
            pollers.push(poller);
        }
    }
    gate.wait_for_held(50).await;
    gate.get("/comet/%zz").await;
    gate.get("/page").await;
    let browser = Browser::start().await;
    for (name, look) in [
        ("desk-light", Look::default()),
        ("desk-dark", Look { dark: true, ..Look::default() }),
        ("phone-light", Look { phone: true, ..Look::default() }),
        ("phone-dark", Look { phone: true, dark: true }),
    ] {
        let window = browser.open_as(&url(&gate), look).await;
        window.wait_until("document.querySelectorAll('#busiest tr').length >= 4").await;
        let dark =
            window.execute("return matchMedia('(prefers-color-scheme: dark)').matches", vec![]);
        assert_eq!(dark.await, look.dark, "{name}");
        window.type_into("#name", "news").await;
        window.click("#look button").await;
        for number in 0..3 {
            gate.publish("quiet", format!("{number}")).await;
            gate.publish_json("scores/now", &serde_json::json!({"home": number, "away": 1})).await;
        }
        gate.publish(
            "news",
            format!("Hello, {name}! A message that is long enough for a second line on a phone."),
        )
        .await;
        window.wait_until("document.querySelectorAll('#messages li').length > 0").await;
        let rounds = if std::env::var_os("POLLGATE_SCREENSHOTS").is_some() { 8 } else { 1 };
        for round in 0..rounds {
            for _ in 0..round * 3 {
                gate.publish("scores/final", "x").await;
            }
            let points = format!(
                "document.querySelector('.curve').getAttribute('d').split(/[ML]/).length > {}",
                round + 2
            );
            window.wait_until(&points).await;
        }
        // Nothing sticks out at the side.
        let width =
            window.execute("return [document.documentElement.scrollWidth, innerWidth]", vec![]);
        let width = width.await;
        assert!(width[0].as_u64() <= width[1].as_u64(), "{name}: {width}");
        let unnamed = "return Array.from(document.querySelectorAll('input, textarea, select, button')) \
                       .filter((e) => !(e.labels && e.labels.length) && !e.textContent.trim()).length";
        assert_eq!(window.execute(unnamed, vec![]).await, 0, "{name}: a control without a name");
        if let Some(folder) = std::env::var_os("POLLGATE_SCREENSHOTS") {
            let file = std::path::Path::new(&folder).join(format!("{name}.png"));
            window.execute("scrollTo(0, 0)", vec![]).await;
            std::fs::write(file, window.screenshot().await).unwrap();
            window.execute("scrollTo(0, document.body.scrollHeight)", vec![]).await;
            let file = std::path::Path::new(&folder).join(format!("{name}-end.png"));
            std::fs::write(file, window.screenshot().await).unwrap();
        }
        window.close().await;
    }
    eventually("pollers", async || pollers.len() == 50).await;
}

#[tokio::test]
async fn a_channel_s_users_are_listed_and_hostile_names_among_them_are_inert() {
    const USER: &str = "<img src=x onerror=\"document.title='broken'\">";
    let mut site = PlainSite::start_by_hand().await;
    let config = r#"
[[channel]]
match = "room"
presence = true
[[poll]]
path = "/comet/*"
dialect = "native"
auth = { kind = "upstream", url = "/auth", anonymous = true }
"#;
    let gate = Gate::start_before(site.addr(), config).await;
    let mut client = gate.connect().await;
    client.send_get("/comet/room").await;
    let yes = format!("HTTP/1.1 204 No Content\r\nPollgate-User: {USER}\r\n\r\n");
    site.visit().await.send(yes).await;
    gate.wait_for_held(1).await;
    let browser = Browser::start().await;
    let window = browser.open(&url(&gate)).await;
    window.wait_for_texts("#busiest button", &["room", "presence:room"]).await;
    window.click("#busiest tr:nth-child(1) button").await;
    let users = format!("1 user on 1 connection: {USER}");
    window.wait_for_texts("#members", &[&users]).await;
    window.wait_until("document.title != 'broken'").await;
}
