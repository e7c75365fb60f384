//! The browser client in Chromium, served by the gate to plain pages: every message once and in
//! order, over each transport, through reloads, cuts, silence, and tabs that come and go.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "js_client/pages.rs"]
mod pages;
#[path = "js_client/relay.rs"]
mod relay;
mod support;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pages::Pages;
use relay::Relay;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{BOUND, Browser, Gate, Process, Window, eventually};

/// A client on `news` that keeps what it gets.
const NEWS: &str = "const client = pollgate('/comet', { onstate: (state) => states.push(state) });\
    client.on('reset', (channel) => resets.push(channel)).on('news', keep);";

async fn wait_for_got(window: &Window, wanted: &[&str]) {
    let wanted = json!(wanted);
    eventually(&format!("{wanted}"), async || window.execute("return got", vec![]).await == wanted)
        .await;
}

async fn open(window: &Window, transport: &str) {
    let condition = format!("client.state === 'open' && client.transport === '{transport}'");
    window.wait_until(&condition).await;
}

#[tokio::test]
async fn every_transport_delivers_each_message_once_and_in_order() {
    let pages = Pages::start(
        "const all = {};\
         for (const name of ['ws', 'sse', 'poll']) {\
           const mine = all[name] = [];\
           const client = pollgate('/comet', { transports: [name], share: false });\
           const add = (data, meta) => mine.push([data, meta]);\
           mine.client = client.on('a', add).on('ö,b', add);\
         }\
         const open = () => Object.values(all).every((mine) => mine.client.state === 'open');",
    )
    .await;
    let gate = Gate::start_before(pages.addr(), "").await;
    let browser = Browser::start().await;
    let window = browser.open(&gate.addr().url("/page")).await;
    window.wait_until("open()").await;
    let mut numbers = Vec::new();
    for number in 0..100 {
        gate.publish_json("a", &json!(number)).await;
        numbers.push(json!(number));
    }
    let odd = [json!(""), json!("\u{2028}\r\n\"<b>"), json!({"a": [null]}), json!(null)];
    for data in &odd {
        gate.publish_json("ö,b", data).await;
    }
    let bytes = gate.publish_as("ö,b", "application/octet-stream", [0, 255, 10]).await;
    for transport in ["ws", "sse", "poll"] {
        window.wait_until(&format!("all.{transport}.length >= 105")).await;
        let script = format!(
            "return all.{transport}.map(([d, m]) => \
             [d instanceof Uint8Array ? Array.from(d) : d, m])"
        );
        let got = window.execute(&script, vec![]).await;
        let of = |channel: &str| -> Vec<Value> {
            let all = got.as_array().unwrap().iter();
            all.filter(|one| one[1]["channel"] == channel).map(|one| one[0].clone()).collect()
        };
        assert_eq!(of("a"), numbers, "{transport}");
        assert_eq!(of("ö,b"), [&odd[..], &[json!([0, 255, 10])]].concat(), "{transport}");
        let meta = got[104][1].clone();
        assert_eq!(meta["id"], bytes["id"]);
        assert_eq!(meta["stamp"], bytes["stamp"]);
        assert_eq!(meta["reset"], json!(false));
        assert!(meta["cursor"].as_str().unwrap().ends_with(bytes["id"].as_str().unwrap()));
        let script = format!("return all.{transport}.client.transport");
        assert_eq!(window.execute(&script, vec![]).await, json!(transport));
    }
    window.close().await;
}

#[tokio::test]
async fn it_is_a_module_too() {
    let pages = Pages::start("import('/pollgate.mjs').then((it) => { window.it = it; });").await;
    let gate = Gate::start_before(pages.addr(), "").await;
    let browser = Browser::start().await;
    let window = browser.open(&gate.addr().url("/page")).await;
    window.wait_until("window.it && it.default === it.pollgate && it.default.call").await;
    window.close().await;
}

#[tokio::test]
async fn a_transport_that_the_rule_lacks_is_passed_over_and_the_winner_is_remembered() {
    let pages = Pages::start(NEWS).await;
    let rule = |transports| {
        format!("[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\ntransports = {transports}")
    };
    let gate = Gate::start_before(pages.addr(), &rule("[\"poll\", \"sse\"]")).await;
    let browser = Browser::start().await;
    let window = browser.open(&gate.addr().url("/page")).await;
    open(&window, "sse").await;
    gate.publish("news", "by sse").await;
    wait_for_got(&window, &["by sse"]).await;
    gate.reconfigure(&rule("[\"poll\"]")).await;
    window.reload().await;
    open(&window, "poll").await;
    gate.publish("news", "by poll").await;
    wait_for_got(&window, &["by sse", "by poll"]).await;
    // It does not look for another where this one works.
    gate.reconfigure(&rule("[\"poll\", \"sse\", \"ws\"]")).await;
    window.reload().await;
    open(&window, "poll").await;
    window.close().await;
}

#[tokio::test]
async fn a_proxy_that_holds_streams_back_leaves_the_polls() {
    let pages = Pages::start(
        "const fetched = window.fetch;\
         window.fetch = (url, how) => how.headers.Accept === 'text/event-stream' \
           ? new Promise(() => {}) : fetched(url, how);\
         window.WebSocket = class { close() {} };",
    )
    .await;
    let gate = Gate::start_before(pages.addr(), "").await;
    let browser = Browser::start().await;
    let window = browser.open(&gate.addr().url("/page")).await;
    let script = format!("{}; window.client = client", NEWS.replace("const client", "var client"));
    window.execute(&script, vec![]).await;
    open(&window, "poll").await;
    gate.publish("news", "after all").await;
    wait_for_got(&window, &["after all"]).await;
    window.close().await;
}

fn signed(expires_in: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let text = format!("k.{}.{}", now + expires_in, URL_SAFE_NO_PAD.encode("news"));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"secret");
    let tag = ring::hmac::sign(&key, text.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{text}.{hex}")
}

#[tokio::test]
async fn a_token_is_asked_for_again_once_it_is_refused() {
    let rule = "[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\n\
                auth = { kind = \"signed\", keys = { k = \"secret\" } }";
    let pages = Pages::start("let asked = 0;").await;
    let gate = Gate::start_before(pages.addr(), rule).await;
    let browser = Browser::start().await;
    for transport in ["ws", "sse", "poll"] {
        let window = browser.open(&gate.addr().url("/page")).await;
        let old = signed(-9);
        let new = signed(3600);
        let script = format!(
            "window.client = pollgate('/comet', {{ token: async () => asked++ ? '{new}' : '{old}',\
             transports: ['{transport}', 'poll'] }}).on('news', keep)"
        );
        window.execute(&script, vec![]).await;
        open(&window, transport).await;
        assert_eq!(window.execute("return asked", vec![]).await, json!(2), "{transport}");
        gate.publish("news", transport).await;
        wait_for_got(&window, &[transport]).await;
        window.close().await;
    }
    // Refused again, and one that cannot be renewed: it ends.
    let window = browser.open(&gate.addr().url("/page")).await;
    let script = format!(
        "window.client = pollgate('/comet', {{ token: () => (asked++, '{0}') }}).on('news', keep);\
         window.other = pollgate('/comet', {{ token: '{0}' }}).on('news', keep)",
        signed(-9)
    );
    window.execute(&script, vec![]).await;
    window.wait_until("client.state === 'closed' && other.state === 'closed'").await;
    assert_eq!(window.execute("return asked", vec![]).await, json!(2));
    window.close().await;
}

#[tokio::test]
async fn a_page_that_is_loaded_again_goes_on_where_it_was() {
    let pages = Pages::start(NEWS).await;
    let gate = Gate::start_before(pages.addr(), "").await;
    let browser = Browser::start().await;
    let window = browser.open(&gate.addr().url("/page")).await;
    open(&window, "ws").await;
    gate.publish("news", "one").await;
    wait_for_got(&window, &["one"]).await;
    window.go_to(&gate.addr().url("/elsewhere")).await;
    gate.wait_for_held(0).await;
    gate.publish("news", "two").await;
    window.go_back().await;
    wait_for_got(&window, &["one", "two"]).await;

    let all: Vec<String> = (0..60).map(|number| format!("{number}")).collect();
    let publish = async {
        for text in &all {
            gate.publish("news", text).await;
            gate.status().await;
        }
    };
    let reload = async {
        for _ in 0..6 {
            window.reload().await;
        }
    };
    tokio::join!(publish, reload);
    let wanted: Vec<&str> =
        ["one", "two"].into_iter().chain(all.iter().map(String::as_str)).collect();
    wait_for_got(&window, &wanted).await;
    assert_eq!(window.execute("return resets", vec![]).await, json!([]));
    window.close().await;
}

#[tokio::test]
async fn a_listener_may_begin_earlier_and_disturbs_no_other() {
    let pages = Pages::start(NEWS).await;
    let gate = Gate::start_before(pages.addr(), "").await;
    gate.publish("news", "one").await;
    gate.publish("news", "two").await;
    let browser = Browser::start().await;
    let window = browser.open(&gate.addr().url("/page")).await;
    open(&window, "ws").await;
    let script = "window.old = []; client.on('news', (d, m) => old.push(d), { from: 'oldest' });\
                  window.both = []; client.on('log', (d, m) => both.push(d), { from: 'oldest' })";
    gate.publish("log", "first").await;
    window.execute(script, vec![]).await;
    gate.publish("news", "three").await;
    window.wait_until("old.length === 3").await;
    wait_for_got(&window, &["three"]).await;
    let script = "window.after = [];\
                  client.on('news', (d) => after.push(d), { from: metas[0].cursor })";
    window.execute(script, vec![]).await;
    window.wait_until("both.length").await;
    gate.publish("news", "four").await;
    gate.publish("log", "second").await;
    window.wait_until("both.length === 2 && after.length === 1").await;
    window.wait_until("old.length === 4 && after[0] === 'four'").await;
    wait_for_got(&window, &["three", "four"]).await;
    window.execute("client.off('news', keep)", vec![]).await;
    gate.publish("news", "five").await;
    window.wait_until("old.length === 5").await;
    wait_for_got(&window, &["three", "four"]).await;
    window.close().await;
}

#[tokio::test]
async fn tabs_share_one_connection_and_survive_the_leading_one() {
    let pages = Pages::start(NEWS).await;
    let gate = Gate::start_before(pages.addr(), "").await;
    let browser = Browser::start().await;
    let window = browser.open(&gate.addr().url("/page")).await;
    open(&window, "ws").await;
    let first = window.tab().await;
    let second = window.open_tab(&gate.addr().url("/page")).await;
    open(&window, "ws").await;
    window.execute("window.room = []; client.on('room', (d) => room.push(d))", vec![]).await;
    eventually("the follower's channel", async || gate.channel("room").await["held"] == 1).await;
    gate.publish("news", "to both").await;
    gate.publish("room", "to the second").await;
    wait_for_got(&window, &["to both"]).await;
    window.wait_until("room[0] === 'to the second'").await;
    assert_eq!(gate.held().await, 1);

    window.look_at(&first).await;
    wait_for_got(&window, &["to both"]).await;
    let texts: Vec<String> = (0..40).map(|number| format!("{number}")).collect();
    let publish = async {
        for text in &texts {
            gate.publish("news", text).await;
            gate.status().await;
        }
    };
    tokio::join!(publish, window.close_tab(&second));
    let wanted: Vec<&str> =
        ["to both"].into_iter().chain(texts.iter().map(String::as_str)).collect();
    wait_for_got(&window, &wanted).await;
    gate.wait_for_held(1).await;
    gate.publish("room", "still here").await;
    window.wait_until("room[1] === 'still here'").await;

    // Another token is another connection.
    let third = window.open_tab(&gate.addr().url("/page")).await;
    window
        .execute("window.own = pollgate('/comet', { token: 'x' }).on('news', keep)", vec![])
        .await;
    window.wait_until("own.state === 'open'").await;
    gate.wait_for_held(2).await;
    window.close_tab(&second).await;
    gate.wait_for_held(1).await;
    drop(third);
    window.close().await;
}

#[tokio::test]
async fn a_leading_tab_that_no_longer_answers_is_replaced() {
    // It holds the lock as a suspended tab would.
    let pages = Pages::start(
        "if (location.search) {\
           var client = pollgate('/comet', { heartbeat: 0.3 }).on('news', keep);\
         } else navigator.locks.request('pollgate:/comet#0', () => new Promise(() => {}));",
    )
    .await;
    let gate = Gate::start_before(pages.addr(), "[stream]\nheartbeat = \"300ms\"").await;
    let browser = Browser::start().await;
    let window = browser.open(&gate.addr().url("/page")).await;
    window.open_tab(&gate.addr().url("/page?client")).await;
    open(&window, "ws").await;
    gate.publish("news", "no more sleep").await;
    wait_for_got(&window, &["no more sleep"]).await;
    window.close().await;
}

#[tokio::test]
async fn close_ends_it() {
    let pages = Pages::start(NEWS).await;
    let gate = Gate::start_before(pages.addr(), "").await;
    let browser = Browser::start().await;
    let window = browser.open(&gate.addr().url("/page")).await;
    open(&window, "ws").await;
    gate.wait_for_held(1).await;
    window.execute("client.close()", vec![]).await;
    gate.wait_for_held(0).await;
    gate.publish("news", "to nobody").await;
    window.execute("dispatchEvent(new Event('online')); client.on('news', keep)", vec![]).await;
    let other = "window.other = pollgate('/comet').on('news', () => {}, { from: 'oldest' })";
    window.execute(other, vec![]).await;
    window.wait_until("other.state === 'open'").await;
    gate.wait_for_held(1).await;
    let end = window.execute("return [client.state, client.transport, got, states]", vec![]).await;
    assert_eq!(end, json!(["closed", null, [], ["open", "closed"]]));
    window.close().await;
}

#[tokio::test]
async fn a_network_that_is_cut_is_waited_for_and_nothing_is_lost() {
    let pages = Pages::start(NEWS).await;
    let gate = Gate::start_before(pages.addr(), "").await;
    let relay = Relay::before(&gate).await;
    let browser = Browser::start().await;
    let window = browser.open(&relay.url("/page")).await;
    open(&window, "ws").await;
    gate.publish("news", "before").await;
    wait_for_got(&window, &["before"]).await;
    relay.cut();
    window.wait_until("client.state === 'offline'").await;
    gate.publish("news", "meanwhile").await;
    relay.restore(&gate);
    wait_for_got(&window, &["before", "meanwhile"]).await;
    open(&window, "ws").await;

    // Another gate has another history: the page hears of it.
    let other = Gate::start_before(pages.addr(), "").await;
    other.publish("news", "elsewhere").await;
    relay.cut();
    relay.restore(&other);
    wait_for_got(&window, &["before", "meanwhile", "elsewhere"]).await;
    assert_eq!(window.execute("return resets", vec![]).await, json!(["news"]));
    window.close().await;
}

#[tokio::test]
async fn a_silent_stream_is_left_for_the_next_transport() {
    let pages = Pages::start(
        "var client = pollgate('/comet', { heartbeat: 0.4, onstate: (s) => states.push(s) })\
         .on('news', keep);",
    )
    .await;
    let gate = Gate::start_before(pages.addr(), "[stream]\nheartbeat = \"400ms\"").await;
    let relay = Relay::before(&gate).await;
    let browser = Browser::start().await;
    let window = browser.open(&relay.url("/page")).await;
    open(&window, "ws").await;
    // Heartbeats keep an idle socket.
    window.execute("window.since = Date.now()", vec![]).await;
    window.wait_until("Date.now() - since > 2500").await;
    open(&window, "ws").await;
    assert_eq!(window.execute("return states", vec![]).await, json!(["open"]));
    for transport in ["sse", "poll"] {
        relay.silence();
        gate.publish("news", transport).await;
        open(&window, transport).await;
    }
    wait_for_got(&window, &["sse", "poll"]).await;
    window.close().await;
}

#[tokio::test]
async fn a_storm_of_refusals_is_spread_and_retry_after_is_heeded() {
    let pages = Pages::start(
        "const begin = (base) => {\
           for (let i = 0; i < 20; i++)\
             pollgate(base + i, { transports: ['poll'], share: false }).on('a', keep);\
         };",
    )
    .await;
    let gate = Gate::start_before(pages.addr(), "").await;
    let browser = Browser::start().await;
    let window = browser.open(&gate.addr().url("/page")).await;
    for (path, least, most) in [("/busy", 0.5, 2.0), ("/later", 2.0, 2.4)] {
        window.execute("begin(arguments[0])", vec![json!(path)]).await;
        let target = |number| format!("{path}{number}/");
        eventually("two requests of each", async || {
            (0..20).all(|number| pages.asked(&target(number)).len() >= 2)
        })
        .await;
        let waits: Vec<f64> = (0..20)
            .map(|number| {
                let asked = pages.asked(&target(number));
                asked[1].duration_since(asked[0]).as_secs_f64()
            })
            .collect();
        let slack = Duration::from_secs(2).as_secs_f64();
        let (min, max) = waits.iter().fold((f64::MAX, 0f64), |(a, b), w| (a.min(*w), b.max(*w)));
        assert!(min > least - 0.05 && max < most + slack, "{path}: {waits:?}");
        assert!(max - min > (most - least) / 3.0, "{path}: {waits:?}");
    }
    window.close().await;
}

#[tokio::test]
async fn the_demo_uses_it_and_names_the_transport() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pollgate"));
    command.args(["demo", "--listen", "127.0.0.1:0", "--internal", "127.0.0.1:0"]);
    let demo = Process::spawn("pollgate demo", &mut command, "");
    let find = |stdout: &str, _: &str| {
        let rest = stdout.split_once("Open ")?.1;
        Some(rest.split_once(' ')?.0.to_owned())
    };
    let url = demo.wait_for_output("address of the page", BOUND, find).await;
    let browser = Browser::start().await;
    let window = browser.open(&url).await;
    window.wait_for_texts("#state", &["open, over WebSocket"]).await;
    window.type_into("#text", "hello\n").await;
    window.wait_until("document.querySelector('#log li')?.textContent.endsWith('hello')").await;
    window.reload().await;
    window.wait_until("document.querySelectorAll('#log li').length === 1").await;
    window.close().await;
}
