//! Old sites as they were found, behind a gate with the config that `pollgate adopt` prints for
//! them, not a letter of it changed: their pages show what they showed, and lose less.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::{Browser, Client, FORM, Gate, PhpSite, Window, eventually, pollgate};

/// A site that runs, and the gate with the config that was adopted from it.
async fn adopted(name: &str) -> (PhpSite, Gate) {
    adopted_from(PhpSite::of(name)).await
}

async fn adopted_from(mut site: PhpSite) -> (PhpSite, Gate) {
    site.workers(4).start().await;
    let done = pollgate(&["adopt", &site.root().display().to_string()]).await;
    assert_eq!(done.code, 0, "{}", done.stderr);
    let gate = Gate::start_before(site.addr(), &done.stdout).await;
    (site, gate)
}

/// A page straight from PHP, and the same through the gate.
async fn both(browser: &Browser, site: &PhpSite, gate: &Gate, page: &str) -> (Window, Window) {
    let alone = browser.open(&site.addr().url(page)).await;
    let gated = browser.open(&gate.addr().url(page)).await;
    (alone, gated)
}

/// Waits for the next second to begin, so that what follows quickly is within it, and what went
/// before is not.
async fn a_second_to_begin() {
    let second = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_secs()
    };
    let before = second();
    eventually("a new second", async || second() > before).await;
}

/// The time at which a file was changed, in the whole seconds that PHP sees.
fn seconds(site: &PhpSite, file: &str) -> u64 {
    let changed = std::fs::metadata(site.root().join(file)).unwrap().modified().unwrap();
    changed.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// Publishes twice at once; `None` if that was not within one second.
async fn twice_in_a_second(
    site: &PhpSite,
    file: &str,
    mut publish: impl AsyncFnMut(&str),
) -> Option<()> {
    a_second_to_begin().await;
    publish("first").await;
    let first = seconds(site, file);
    publish("second").await;
    (seconds(site, file) == first).then_some(())
}

#[tokio::test]
async fn backend_php_loses_what_comes_twice_in_a_second_and_the_gate_does_not() {
    let (site, gate) = adopted("backend").await;
    let mut gated = gate.connect().await;
    let first = gated.poll("/backend.php?timestamp=0").await.json();
    let mut cursor = first["timestamp"].clone();
    for _ in 0..10 {
        gated.send_get(&format!("/backend.php?timestamp={cursor}")).await;
        gate.wait_for_held(1).await;
        let publish = async |text: &str| {
            let stored = gate.get(&format!("/backend.php?msg={text}")).await;
            assert_eq!((stored.status, stored.text().as_str()), (200, ""));
            gate.wait_for_newest("data.txt", text).await;
        };
        let same = twice_in_a_second(&site, "data.txt", publish).await;
        let one = gated.read_response().await.json();
        assert_eq!(one["msg"], "first");
        let two = gated.poll(&format!("/backend.php?timestamp={}", one["timestamp"])).await.json();
        assert_eq!(two["msg"], "second");
        cursor = two["timestamp"].clone();
        if same.is_some() {
            // PHP's own poll with the time of the first message does not return the second.
            let seen = seconds(&site, "data.txt");
            let mut alone = Client::connect(site.addr()).await;
            alone.send_get(&format!("/backend.php?timestamp={seen}")).await;
            assert!(alone.is_quiet().await);
            return;
        }
    }
    panic!("the machine was never quick enough for two writes in a second");
}

#[tokio::test]
async fn the_page_of_backend_php_shows_the_same_with_and_without_the_gate() {
    let (site, gate) = adopted("backend").await;
    let browser = Browser::start().await;
    let (alone, gated) = both(&browser, &site, &gate, "/index.html").await;
    gate.wait_for_held(1).await;
    let mut all = alone.texts("#content div").await;
    all.retain(|text| !text.is_empty());
    for text in ["from the site", "<b>from</b> the gate"] {
        // PHP alone would lose a message written in the same second as one that it has returned.
        a_second_to_begin().await;
        let window = if text.contains('<') { &gated } else { &alone };
        window.type_into("#msg", text).await;
        window.click("#btn").await;
        all.push(text.to_owned());
        let wanted: Vec<&str> = all.iter().map(String::as_str).collect();
        alone.wait_for_texts("#content div", &wanted).await;
        gated.wait_for_texts("#content div", &wanted).await;
    }
    alone.close().await;
    gated.close().await;
}

#[tokio::test]
async fn the_page_of_sendmsg_shows_the_same_with_and_without_the_gate() {
    let (site, gate) = adopted("live").await;
    let browser = Browser::start().await;
    let (alone, gated) = both(&browser, &site, &gate, "/index.html").await;
    gate.wait_for_held(1).await;
    let mut all = Vec::new();
    for (window, text) in [(&gated, "one"), (&alone, "two, in Zürich")] {
        a_second_to_begin().await;
        window.type_into("#msg", text).await;
        window.click("#btn").await;
        window.wait_for_texts("#sent", &["OK"]).await;
        all.push(text);
        gated.wait_for_texts("#content div", &all).await;
        alone.wait_for_texts("#content div", &all).await;
    }
    alone.close().await;
    gated.close().await;
}

#[tokio::test]
async fn novcomet_callbacks_fire_with_and_without_the_gate() {
    let (site, gate) = adopted("novcomet").await;
    let topic = format!("{}-{}-", std::process::id(), site.addr().port());
    let browser = Browser::start().await;
    let page = format!("/index.html?{topic}");
    let (alone, gated) = both(&browser, &site, &gate, &page).await;
    gate.wait_for_held(1).await;
    // The script looks for a time later than that of its first poll, in whole seconds.
    a_second_to_begin().await;
    a_second_to_begin().await;
    alone.click("#publish-news").await;
    alone.wait_for_texts("#published", &["news: true"]).await;
    gated.wait_for_texts("#changes li", &["news"]).await;
    alone.wait_for_texts("#changes li", &["news"]).await;
    gate.wait_for_held(1).await;
    gated.click("#publish-weather").await;
    gated.wait_for_texts("#changes li", &["news", "weather"]).await;
    alone.wait_for_texts("#changes li", &["news", "weather"]).await;
    alone.close().await;
    gated.close().await;
    for name in ["news", "weather"] {
        let _ = std::fs::remove_file(format!("/dev/shm/{topic}{name}.comet"));
    }
}

#[tokio::test]
async fn a_jsonp_page_shows_the_same_with_and_without_the_gate() {
    let (site, gate) = adopted("jsonp").await;
    let browser = Browser::start().await;
    let (alone, gated) = both(&browser, &site, &gate, "/index.html").await;
    let mut all = vec!["none yet"];
    for text in ["first", "second"] {
        gated.wait_for_texts("#headlines h2", &all).await;
        alone.wait_for_texts("#headlines h2", &all).await;
        a_second_to_begin().await;
        let stored =
            gate.connect().await.post("/write.php", FORM, format!("headline={text}")).await;
        assert_eq!(stored.text(), "stored");
        all.push(text);
    }
    gated.wait_for_texts("#headlines h2", &all).await;
    alone.wait_for_texts("#headlines h2", &all).await;
    alone.close().await;
    gated.close().await;
}

#[tokio::test]
async fn a_page_that_polls_with_post_shows_the_same_with_and_without_the_gate() {
    let (site, gate) = adopted("postpoll").await;
    let browser = Browser::start().await;
    let (alone, gated) = both(&browser, &site, &gate, "/index.html?attic").await;
    gate.wait_for_held(1).await;
    let mut all = Vec::new();
    for (window, text) in [(&gated, "anybody here?"), (&alone, "nobody")] {
        a_second_to_begin().await;
        window.type_into("#say", text).await;
        window.click("#btn").await;
        all.push(text);
        gated.wait_for_texts("#room p", &all).await;
        alone.wait_for_texts("#room p", &all).await;
    }
    alone.close().await;
    gated.close().await;
}

#[tokio::test]
async fn a_page_that_counts_milliseconds_shows_the_same_with_and_without_the_gate() {
    let (site, gate) = adopted("millis").await;
    let browser = Browser::start().await;
    let (alone, gated) = both(&browser, &site, &gate, "/index.html").await;
    let mut all = vec!["empty board"];
    for text in ["first", "second"] {
        gated.wait_for_texts("#board li", &all).await;
        alone.wait_for_texts("#board li", &all).await;
        a_second_to_begin().await;
        let stored = gate.connect().await.post("/board.php", FORM, format!("text={text}")).await;
        assert_eq!(stored.json(), json!({"ok": true}));
        all.push(text);
    }
    gated.wait_for_texts("#board li", &all).await;
    alone.wait_for_texts("#board li", &all).await;
    let year: Value = gated.execute("return document.title.slice(0, 2)", vec![]).await;
    assert_eq!(year, "20", "the page makes a date of it");
    alone.close().await;
    gated.close().await;
}

#[tokio::test]
async fn a_page_that_polls_a_database_shows_the_same_with_and_without_the_gate() {
    shows_the_same_talk(PhpSite::of("talk"), "[[watch]]").await;
}

#[tokio::test]
async fn a_page_that_polls_a_database_server_shows_the_same_with_and_without_the_gate() {
    let mut site = PhpSite::of("talk");
    // As on a server, no file of the site contains the address of the database.
    let db = site.root().join("db.php");
    let source = std::fs::read_to_string(&db).unwrap();
    let named = source.replace("'sqlite:' . __DIR__ . '/talk.sqlite'", "getenv('TALK')");
    assert_ne!(named, source);
    std::fs::write(&db, named).unwrap();
    let place = format!("sqlite:{}", site.root().join("elsewhere").display());
    site.env("TALK", place);
    shows_the_same_talk(site, "[[capture]]").await;
}

/// Checks that the page shows every message, published by this section of the config.
async fn shows_the_same_talk(site: PhpSite, section: &str) {
    let (site, gate) = adopted_from(site).await;
    let config = std::fs::read_to_string(gate.config_file()).unwrap();
    assert!(config.contains(section), "{config}");
    let browser = Browser::start().await;
    let (alone, gated) = both(&browser, &site, &gate, "/index.html").await;
    gate.wait_for_held(1).await;
    let mut all = Vec::new();
    for text in ["one", "two", "three"] {
        gated.type_into("#said", text).await;
        gated.click("#btn").await;
        all.push(text);
        gated.wait_for_texts("#talk li", &all).await;
    }
    alone.wait_for_texts("#talk li", &all).await;
    alone.close().await;
    gated.close().await;
}

#[tokio::test]
async fn a_file_that_is_the_whole_answer_comes_from_the_gate() {
    let (site, gate) = adopted("bare").await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = gate.connect().await;
        client.send_get("/wait.php").await;
        clients.push(client);
    }
    gate.wait_for_held(3).await;
    std::fs::write(site.root().join("status.txt"), "<b>open</b>").unwrap();
    for client in &mut clients {
        let response = client.read_response().await;
        assert_eq!((response.status, response.text().as_str()), (200, "<b>open</b>"));
    }
    assert!(!site.log().contains("/wait.php"), "no poll reached PHP: {}", site.log());
}

#[tokio::test]
async fn a_script_that_always_answers_at_its_timeout_is_answered_for_with_the_newest() {
    let (site, gate) = adopted("latest").await;
    let mut gated = gate.connect().await;
    let first = gated.poll("/news.php").await.json();
    assert_eq!(first["news"], "none yet");
    let quiet = gated.poll(&format!("/news.php?seen={}", first["seen"])).await;
    let alone = site.get(&format!("/news.php?seen={}", seconds(&site, "news.txt"))).await;
    assert_eq!(quiet.json()["news"], alone.json()["news"]);
    gated.send_get(&format!("/news.php?seen={}", quiet.json()["seen"])).await;
    gate.wait_for_held(1).await;
    std::fs::write(site.root().join("news.txt"), "snow").unwrap();
    assert_eq!(gated.read_response().await.json()["news"], "snow");
}

#[tokio::test]
async fn quiet_polls_of_one_action_leave_the_workers_to_the_others() {
    let mut site = PhpSite::of("actions");
    let place = format!("sqlite:{}", site.root().join("elsewhere").display());
    site.env("NOTES", place);
    let (_site, gate) = adopted_from(site).await;
    let add = async |note: &str| {
        let body = format!("note={note}");
        let stored = gate.connect().await.post("/notes.php?do=add", FORM, body).await;
        assert_eq!(stored.text(), "stored");
    };
    add("old").await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = gate.connect().await;
        client.send_get("/notes.php?do=wait&last=1").await;
        clients.push(client);
    }
    // Four workers, ten quiet polls: the page is answered.
    gate.wait_for_held(10).await;
    assert_eq!(gate.get("/notes.php?do=count").await.text(), "1");
    add("new").await;
    for client in &mut clients {
        assert_eq!(client.read_response().await.json()["notes"][0]["note"], "new");
    }
}

#[tokio::test]
async fn a_script_that_waits_by_calling_itself_is_held_at_the_gate() {
    let (_site, gate) = adopted("recursion").await;
    let order = async |dish: &str| {
        let body = format!("dish={dish}");
        assert_eq!(gate.connect().await.post("/order.php", FORM, body).await.text(), "ordered");
    };
    order("soup").await;
    let mut client = gate.connect().await;
    let first = client.poll("/orders.php").await.json();
    assert_eq!(first[0]["dish"], "soup");
    client.send_get("/orders.php?after=1").await;
    gate.wait_for_held(1).await;
    order("fish").await;
    assert_eq!(client.read_response().await.json()[0]["dish"], "fish");
}

#[tokio::test]
async fn a_trial_says_whether_the_gate_answers_as_php_does() {
    let mut site = PhpSite::of("backend");
    site.workers(4).start().await;
    let url = site.addr().url("");
    let done = pollgate(&["adopt", &site.root().display().to_string(), "--try", &url]).await;
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.contains("GET /backend.php: alike"), "{}", done.stdout);
    site.stop();
    let done = pollgate(&["adopt", &site.root().display().to_string(), "--try", &url]).await;
    assert_eq!(done.code, 1, "{}", done.stdout);
}
