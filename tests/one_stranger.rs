//! One anonymous client, with the settings as they come: it takes neither what writers stored nor
//! the room for what they will write, and its memory has a bound.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::allow_open_files;
use support::{Client, Gate, Metrics, PlainSite, Way, eventually};

/// So many names that no other poll has, of `tag`.
fn names(tag: usize, count: usize) -> String {
    let names = (0..count).map(|number| format!("stranger-{tag}-{number}"));
    names.collect::<Vec<_>>().join(",")
}

async fn texts(gate: &Gate, channel: &str) -> usize {
    let history = gate.hook("GET", &format!("/channels/{channel}/messages"), &[], "").await;
    history.json()["messages"].as_array().unwrap().len()
}

#[tokio::test]
async fn polls_that_are_not_held_evict_nothing() {
    let gate = Gate::start_alone("history.channels = 1000").await;
    for channel in ["news", "scores"] {
        gate.publish(channel, "1").await;
        gate.publish(channel, "2").await;
    }
    let mut stranger = gate.connect().await;
    for tag in 0..1_000 {
        let target = format!("/comet/{}?timeout=0", names(tag, 100));
        assert_eq!(stranger.get(&target).await.status, 200);
    }
    let head = stranger.request("HEAD", "/comet/another", &[], b"").await;
    assert_eq!(head.status, 200);
    for channel in ["news", "scores"] {
        assert_eq!(texts(&gate, channel).await, 2, "{channel}");
    }
    assert_eq!(gate.status().await["channels"], 2);
}

#[tokio::test]
async fn held_polls_refuse_no_publish_and_stay_below_64_mib() {
    allow_open_files(4_096);
    let gate = Gate::start_alone("").await;
    gate.publish("news", "1").await;
    let idle = gate.own_memory();
    let mut strangers = Vec::new();
    let mut held = 0;
    for tag in 0..1_000 {
        let mut client = Client::connect(gate.addr()).await;
        client.send_get(&format!("/comet/{}?timeout=60", names(tag, 100))).await;
        strangers.push(client);
    }
    eventually("all of them are held or refused", async || {
        let metrics = gate.hook("GET", "/metrics", &[], "").await.text();
        let refused = Metrics::parse(&metrics);
        let refused = refused.value("pollgate_refusals_total{cause=\"table_full\"}");
        held = gate.held().await;
        held as f64 + refused >= 1_000.0
    })
    .await;
    let grown = (gate.own_memory() - idle) >> 20;
    println!("{held} of 1000 polls on 100 names each are held, in {grown} MiB");
    assert!(held > 100 && grown < 64, "{held} held, {grown} MiB");
    for number in 0..100 {
        gate.publish(&format!("new-{number}"), "1").await;
    }
    assert_eq!(texts(&gate, "news").await, 1);
    // One that waits on a channel of its own still finds room.
    let mut guest = gate.connect().await;
    guest.send_get("/comet/guest").await;
    gate.wait_for_held(held + 1).await;
    gate.publish("guest", "hello").await;
    assert!(guest.read_response().await.text().contains("hello"));
}

#[tokio::test]
async fn the_cursor_of_a_channel_without_messages_sees_its_first_one() {
    let gate = Gate::start_alone("").await;
    let polled = gate.get("/comet/fresh?timeout=0").await.json();
    let history = gate.hook("GET", "/channels/fresh/messages", &[], "").await;
    assert_eq!(history.status, 200, "{}", history.text());
    assert_eq!(history.json()["messages"].as_array().unwrap().len(), 0);
    gate.publish("fresh", "first").await;
    for answer in [polled, history.json()] {
        let cursor = answer["cursor"].as_str().unwrap();
        let next = gate.get(&format!("/comet/fresh?timeout=0&cursor={cursor}")).await.json();
        assert_eq!(next["messages"][0]["data"], "first", "{next}");
        assert!(next["reset"].is_null(), "{next}");
    }
}

#[tokio::test]
async fn a_rule_that_lists_its_channels_has_no_others() {
    let rule =
        "[[poll]]\npath = \"/live/*\"\ndialect = \"native\"\nchannels = [\"news\", \"room-*\"]";
    let gate = Gate::start_alone(rule).await;
    for good in ["news", "room-7", "news,room-a"] {
        assert_eq!(gate.get(&format!("/live/{good}?timeout=0")).await.status, 200, "{good}");
    }
    for bad in ["newsroom", "news,other", "room"] {
        let refused = gate.get(&format!("/live/{bad}?timeout=0")).await;
        assert_eq!(refused.status, 404, "{bad}");
        let answer = refused.json();
        assert!(answer["error"].as_str().unwrap().contains("none of the channels"), "{answer}");
        assert!(answer["hint"].as_str().unwrap().contains("channels"), "{answer}");
    }
}

const ASKED: &str = r#"
[[poll]]
path = "/comet/*"
dialect = "native"
auth = { kind = "upstream", url = "/auth.php", cache = "1h", timeout = "60s" }
"#;

#[tokio::test]
async fn too_many_names_are_refused_before_the_site_is_asked() {
    for way in Way::ALL {
        let site = PlainSite::start().await;
        let gate = Gate::start_before(site.addr(), ASKED).await;
        let names: Vec<String> = (0..8_000).map(|number| format!("{number:x}")).collect();
        let target = format!("/comet/{}", names.join(","));
        let mut poller = way.connect(&gate).await;
        let refused = poller.poll_with("GET", &target, &[("Cookie", "a=b")]).await;
        assert_eq!(refused.status, 400, "{way:?}: {}", refused.text());
        assert!(refused.text().contains("channels_per_poll"), "{}", refused.text());
        assert!(site.requests().is_empty(), "{way:?}");
    }
}

#[tokio::test]
async fn a_client_that_shows_nothing_is_not_asked_about() {
    for way in Way::ALL {
        let site = PlainSite::start().await;
        let gate = Gate::start_before(site.addr(), ASKED).await;
        let mut poller = way.connect(&gate).await;
        let refused = poller.poll("/comet/a").await;
        assert_eq!(refused.status, 401, "{way:?}: {}", refused.text());
        assert!(site.requests().is_empty(), "{way:?}");
        let cookie = [("Cookie", "PHPSESSID=abc")];
        let asked = poller.poll_with("GET", "/comet/a?timeout=0", &cookie).await;
        assert_eq!(asked.status, 200, "{way:?}: {}", asked.text());
    }
}

#[tokio::test]
async fn slow_questions_about_one_address_leave_room_for_others() {
    let mut site = PlainSite::start_by_hand().await;
    let config = format!("trusted_proxies = [\"127.0.0.1\"]\n{ASKED}");
    let gate = Gate::start_before(site.addr(), &config).await;
    let ask = async |address: &str, cookie: &str| {
        let mut client = gate.connect().await;
        let headers = [("X-Forwarded-For", address), ("Cookie", cookie)];
        client.send("GET", "/comet/a?timeout=0", &headers, b"").await;
        client
    };
    let mut slow = Vec::new();
    for number in 0..32 {
        slow.push(ask("192.0.2.1", &format!("a={number}")).await);
    }
    let mut visits = Vec::new();
    for _ in 0..4 {
        visits.push(site.visit().await);
    }
    let mut other = ask("192.0.2.2", "a=other").await;
    let mut visit = site.visit().await;
    assert_eq!(visit.request.header("cookie"), Some("a=other"));
    visit.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(other.read_response().await.status, 200);
}

#[tokio::test]
async fn the_bound_on_headers_is_exact() {
    for way in Way::ALL {
        let gate = Gate::start_alone("limits.head_count = 20").await;
        for (count, status) in [(5, 200), (30, 431)] {
            let names: Vec<String> = (0..count).map(|number| format!("x-{number}")).collect();
            let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "y")).collect();
            let mut poller = way.connect(&gate).await;
            let response = poller.poll_with("GET", "/comet/a?timeout=0", &headers).await;
            assert_eq!(response.status, status, "{way:?}: {count}");
        }
    }
}

const FORMS: &str =
    "[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\nmethods = [\"GET\", \"POST\"]\n";

fn form(body: &str) -> String {
    format!(
        "POST /comet/forms?timeout=60 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn forms_of_held_polls_take_little_and_their_sum_is_bounded() {
    allow_open_files(4_096);
    let gate = Gate::start_alone(FORMS).await;
    let idle = gate.own_memory();
    let request = form(&"a&".repeat(32_000));
    let mut strangers = Vec::new();
    for _ in 0..1_000 {
        let mut client = Client::connect(gate.addr()).await;
        client.send_raw(&request).await;
        strangers.push(client);
    }
    let value = async |series: &str| {
        Metrics::parse(&gate.hook("GET", "/metrics", &[], "").await.text()).value(series)
    };
    let mut held = 0;
    eventually("all of them are held or refused", async || {
        held = gate.held().await;
        let refused = value("pollgate_refusals_total{cause=\"body_memory\"}").await;
        held as f64 + refused >= 1_000.0
    })
    .await;
    let grown = gate.own_memory().saturating_sub(idle) >> 20;
    println!("{held} of 1000 polls with forms of 64 KB are held, in {grown} MiB");
    assert!(held > 100 && held < 1_000 && grown < 64, "{held} held, {grown} MiB");
    assert!(value("pollgate_body_bytes").await <= f64::from(32 << 20));
    drop(strangers);
    eventually("the memory is free again", async || value("pollgate_body_bytes").await == 0.0)
        .await;
    let mut client = gate.connect().await;
    client.send_raw(&form("a=b")).await;
    gate.wait_for_held(1).await;
}

#[tokio::test]
async fn captures_beyond_the_memory_for_bodies_are_given_up() {
    let site = PlainSite::start().await;
    let config = "limits.body_memory = \"64KiB\"\n[[capture]]\npath = \"/send\"\nmethods = [\"POST\"]\n\
                  channel = \"live\"\ndata = \"{form.msg}\"\n";
    let gate = Gate::start_before(site.addr(), config).await;
    let head = "POST /send HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n\r\n";
    let mut unfinished = gate.connect().await;
    unfinished.send_raw(format!("{head}msg={}", "x".repeat(60_000))).await;
    let metrics = async || Metrics::parse(&gate.hook("GET", "/metrics", &[], "").await.text());
    eventually("the first one is kept", async || {
        metrics().await.value("pollgate_body_bytes") >= 60_000.0
    })
    .await;
    let long = format!("msg={}", "y".repeat(10_000));
    let kind = "application/x-www-form-urlencoded";
    assert_eq!(gate.connect().await.post("/send", kind, &long).await.status, 200);
    gate.wait_for_log("limits.body_memory").await;
    assert_eq!(metrics().await.value("pollgate_bodies_refused_total"), 1.0);
    drop(unfinished);
    eventually("room", async || metrics().await.value("pollgate_body_bytes") == 0.0).await;
    assert_eq!(gate.connect().await.post("/send", kind, "msg=short").await.status, 200);
    gate.wait_for_newest("live", "short").await;
}
