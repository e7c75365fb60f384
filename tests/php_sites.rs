//! Real PHP sites behind the gate: their polls are held and released by what
//! their own PHP publishes, and everything else passes unharmed.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::bytes::{by_rule, first_difference};
use support::rules::{BACKEND, NOVCOMET, SENDMSG};
use support::{Client, FORM, Gate, PhpSite, Response, allow_open_files, eventually};

/// The `sendmsg` site with ONE worker behind a gate: a poll that went through
/// to PHP would stop the site.
async fn sendmsg_behind_a_gate() -> (PhpSite, Gate) {
    let mut site = PhpSite::of("sendmsg");
    let gate = Gate::start_before(site.addr(), SENDMSG).await;
    site.env("POLLGATE_HOOK", gate.internal().url("")).start().await;
    (site, gate)
}

/// Posts a message to the site through the gate, as the page does, and answers
/// what the site's PHP was answered by the hook.
async fn send(gate: &Gate, how: &str, text: &str) -> Value {
    let body = format!("msg={text}");
    let path = format!("/live/sendmsg.php?{how}");
    let response = gate.connect().await.post(&path, FORM, body).await;
    let answer = response.json();
    assert_eq!(answer["info"], "OK", "{how}: {answer}");
    answer["data"]["published"].clone()
}

/// One poll, with the cursor of the answer before; `Value::Null` for the first.
async fn poll(client: &mut Client, cursor: &Value) -> Value {
    let cursor = if cursor.is_null() { "0".into() } else { cursor.to_string() };
    let response = client.poll(&format!("/backend.php?timestamp={cursor}")).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/html; charset=UTF-8"));
    response.json()
}

#[tokio::test]
async fn the_page_loads_through_the_gate() {
    let (_site, gate) = sendmsg_behind_a_gate().await;
    let page = gate.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("function connect()"), "{}", page.text());
    let jquery = gate.get("/jquery.php").await;
    assert_eq!(jquery.status, 200, "{}", jquery.text());
    assert!(jquery.text().contains("jQuery"));
}

#[tokio::test]
async fn a_held_poll_is_released_by_the_sites_own_php() {
    let (_site, gate) = sendmsg_behind_a_gate().await;
    let mut client = gate.connect().await;
    let large = "0123456789".repeat(10_000);
    for text in ["hello", &large] {
        for via in ["via=stream", "via=curl"] {
            for to in ["to=publish", "to=channel"] {
                let how = format!("{via}&{to}");
                // From now on: an old stamp would be answered with the last round's message.
                let newest = gate.hook("GET", "/channels/live", &[], "").await;
                let cursor = match newest.status {
                    200 => newest.json()["newest"]["stamp"].to_string(),
                    _ => "0".into(),
                };
                client.send_get(&format!("/backend.php?timestamp={cursor}")).await;
                gate.wait_for_held(1).await;
                assert!(client.is_quiet().await);

                let published = send(&gate, &how, text).await;
                assert_eq!(published["channel"], "live", "{how}");
                assert_eq!(published["released"], 1, "{how}");
                let answer = client.read_response().await.json();
                assert_eq!(answer["msg"], *text, "{how}");
                assert_eq!(answer["timestamp"], published["stamp"], "{how}");
            }
        }
    }
}

#[tokio::test]
async fn what_php_publishes_between_two_polls_arrives_whole_and_in_order() {
    let (_site, gate) = sendmsg_behind_a_gate().await;
    send(&gate, "via=stream", "before").await;
    let mut client = gate.connect().await;
    let mut answer = poll(&mut client, &Value::Null).await;
    assert_eq!(answer["msg"], "before");

    for number in 0..10 {
        let via = if number % 2 == 0 { "via=stream" } else { "via=curl" };
        send(&gate, via, &format!("message+{number}")).await;
    }
    for number in 0..10 {
        answer = poll(&mut client, &answer["timestamp"]).await;
        assert_eq!(answer["msg"], format!("message {number}"));
    }
    // None came twice: the next poll is held until something new is published.
    client.send_get(&format!("/backend.php?timestamp={}", answer["timestamp"])).await;
    gate.wait_for_held(1).await;
    send(&gate, "via=stream", "after").await;
    assert_eq!(client.read_response().await.json()["msg"], "after");
}

#[tokio::test]
async fn the_site_learns_when_the_hook_cannot_be_reached() {
    let mut site = PhpSite::of("sendmsg");
    let gate = Gate::start_before(site.addr(), SENDMSG).await;
    // Nothing listens there: the site is not yet running, and is not the hook.
    site.env("POLLGATE_HOOK", "http://127.0.0.1:1").start().await;
    for via in ["via=stream", "via=curl"] {
        let path = format!("/live/sendmsg.php?{via}");
        let answer = gate.connect().await.post(&path, FORM, "msg=x").await.json();
        assert_eq!(answer["status"], 0);
        assert_eq!(answer["info"], "stored, but not published: 0");
    }
}

#[tokio::test]
async fn a_novcomet_poll_is_released_by_an_empty_message() {
    let site = PhpSite::start_of("novcomet").await;
    let gate = Gate::start_before(site.addr(), NOVCOMET).await;
    let mut client = gate.connect().await;
    client.send_get("/comet.php?subscribed%5Bnews%5D=0&subscribed[weather]=0&_=17").await;
    gate.wait_for_held(1).await;

    let published = gate.publish("news", "").await;
    assert_eq!(published["released"], 1);
    let response = client.read_response().await;
    assert_eq!(response.header("content-type"), Some("text/html; charset=UTF-8"));
    assert_eq!(response.json(), json!({"s": 1, "k": {"news": published["stamp"]}}));
}

#[tokio::test]
async fn a_novcomet_publish_still_reaches_the_sites_php() {
    let mut site = PhpSite::of("novcomet");
    let dir = site.root().display().to_string();
    site.env("COMET_DIR", dir).start().await;
    let gate = Gate::start_before(site.addr(), NOVCOMET).await;
    assert_eq!(gate.get("/comet.php?publish=news").await.text(), "true");
    assert!(site.root().join("news.comet").is_file());
}

#[tokio::test]
async fn a_novcomet_poll_is_released_by_php_that_knows_nothing_of_the_gate() {
    let mut site = PhpSite::of("novcomet");
    let dir = site.root().display().to_string();
    site.env("COMET_DIR", &dir).start().await;
    let watch = format!("[[watch]]\npath = \"{dir}/*.comet\"\nchannel = \"{{1}}\"\n");
    let gate = Gate::start_before(site.addr(), &format!("{NOVCOMET}{watch}")).await;
    let mut client = gate.connect().await;
    client.send_get("/comet.php?subscribed[news]=0&subscribed[weather]=0").await;
    gate.wait_for_held(1).await;
    assert_eq!(gate.get("/comet.php?publish=news").await.text(), "true");
    let answer = client.read_response().await.json();
    assert_eq!(answer["s"], 1);
    assert!(answer["k"]["news"].is_number() && answer["k"]["weather"].is_null(), "{answer}");
}

#[tokio::test]
async fn one_script_for_both_ways_is_told_apart_by_its_parameters() {
    let site = PhpSite::start_of("backend").await;
    let gate = Gate::start_before(site.addr(), BACKEND).await;
    let mut client = gate.connect().await;
    client.send_get("/backend.php?timestamp=0").await;
    gate.wait_for_held(1).await;

    // The message goes to PHP, which has its one worker free for it.
    let stored = gate.get("/backend.php?msg=to+be+stored").await;
    assert_eq!((stored.status, stored.text().as_str()), (200, ""));
    let file = std::fs::read_to_string(site.root().join("data.txt")).unwrap();
    assert_eq!(file, "to be stored");

    gate.publish("data.txt", "to be delivered").await;
    assert_eq!(client.read_response().await.json()["msg"], "to be delivered");
}

#[tokio::test]
async fn one_worker_serves_pages_while_two_thousand_polls_are_held() {
    const POLLS: usize = 2_000;
    allow_open_files(3 * POLLS as u64);
    let (_site, gate) = sendmsg_behind_a_gate().await;
    let mut clients = Vec::with_capacity(POLLS);
    for _ in 0..POLLS {
        let mut client = gate.connect().await;
        client.send_get("/backend.php?timestamp=0").await;
        clients.push(client);
    }
    gate.wait_for_held(POLLS as u64).await;

    for _ in 0..5 {
        let page = gate.get("/").await;
        assert_eq!(page.status, 200);
        assert!(page.text().contains("function connect()"));
    }

    let published = send(&gate, "via=stream", "to+all").await;
    assert_eq!(published["released"], POLLS);
    for client in &mut clients {
        assert_eq!(client.read_response().await.json()["msg"], "to all");
    }
}

/// The digest that the site's own PHP returns for the first `size` bytes of the rule.
async fn digest(site: &PhpSite, size: usize) -> Value {
    site.get(&format!("/sha256.php?size={size}")).await.json()
}

#[tokio::test]
async fn an_upload_of_twenty_megabytes_arrives_unharmed() {
    const SIZE: usize = 20 * 1024 * 1024;
    let site = PhpSite::start_of("plain").await;
    let gate = Gate::start_before(site.addr(), "").await;
    let bytes = by_rule(SIZE);
    let expected = digest(&site, SIZE).await;
    assert_eq!(expected["size"], SIZE);

    let kind = "application/octet-stream";
    let raw = gate.connect().await.post("/upload.php", kind, &bytes).await;
    assert_eq!(raw.json(), expected);

    let mut form = b"--edge\r\nContent-Disposition: form-data; name=\"file\"; \
        filename=\"bytes.bin\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        .to_vec();
    form.extend_from_slice(&bytes);
    form.extend_from_slice(b"\r\n--edge--\r\n");
    let kind = "multipart/form-data; boundary=edge";
    let multipart = gate.connect().await.post("/upload.php", kind, &form).await;
    assert_eq!(multipart.json(), expected);
}

#[tokio::test]
async fn a_download_of_fifty_megabytes_arrives_unharmed() {
    const SIZE: usize = 50 * 1024 * 1024;
    let site = PhpSite::start_of("plain").await;
    let gate = Gate::start_before(site.addr(), "").await;
    let expected = by_rule(SIZE);
    for path in ["/download.php", "/download.php?length=no"] {
        let response = gate.get(path).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.body.len(), SIZE, "{path}");
        assert_eq!(first_difference(&response.body, &expected), None, "{path}");
    }
}

#[tokio::test]
async fn a_streamed_answer_is_not_delayed() {
    let site = PhpSite::start_of("plain").await;
    let gate = Gate::start_before(site.addr(), "").await;
    let mut client = gate.connect().await;
    client.send_get("/slow.php?until=go").await;
    // PHP produces the second chunk only after the first has been seen here.
    client.read_until("first\n").await;
    std::fs::write(site.root().join("go"), "").unwrap();
    client.read_until("second\n").await;
}

#[tokio::test]
async fn answers_pass_as_the_site_gave_them() {
    let site = PhpSite::start_of("plain").await;
    let gate = Gate::start_before(site.addr(), "").await;
    let page = gate.get("/?name=%3Cb%3E").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Hello, &lt;b&gt;."));
    assert_eq!(page.all("set-cookie"), ["seen=yes", "lang=en"]);
    assert_eq!(page.body, site.get("/?name=%3Cb%3E").await.body);
    for code in [201, 204, 302, 304, 404, 418, 500, 503] {
        let response = gate.get(&format!("/status.php?code={code}")).await;
        assert_eq!(response.status, code);
        let location = (code == 302).then_some("/index.php");
        assert_eq!(response.header("location"), location);
    }
    let posted = gate.connect().await.post("/echo.php?a=1&b[]=2", FORM, "x=%C3%BC&y").await.json();
    assert_eq!(posted["method"], "POST");
    assert_eq!(posted["uri"], "/echo.php?a=1&b[]=2");
    assert_eq!(posted["body"], "x=%C3%BC&y");
}

#[tokio::test]
async fn a_site_that_dies_and_returns_disturbs_no_held_poll() {
    let (mut site, gate) = sendmsg_behind_a_gate().await;
    let mut held = gate.connect().await;
    held.send_get("/backend.php?timestamp=0").await;
    gate.wait_for_held(1).await;

    site.stop();
    let refused = gate.get("/").await;
    assert_eq!(refused.status, 502);
    assert!(!refused.body.is_empty(), "a page for people");
    assert_eq!(gate.held().await, 1);
    assert!(held.is_quiet().await);

    site.restart_on_same_port().await;
    eventually("pages again", async || gate.get("/").await.status == 200).await;
    assert_eq!(gate.held().await, 1);
    let published = send(&gate, "via=stream", "back").await;
    assert_eq!(published["released"], 1);
    assert_eq!(held.read_response().await.json()["msg"], "back");
}

#[tokio::test]
async fn held_polls_are_released_by_the_hook_while_the_site_is_down() {
    let (mut site, gate) = sendmsg_behind_a_gate().await;
    let mut held = gate.connect().await;
    held.send_get("/backend.php?timestamp=0").await;
    gate.wait_for_held(1).await;
    site.stop();
    gate.publish("live", "from elsewhere").await;
    assert_eq!(held.read_response().await.json()["msg"], "from elsewhere");
}

/// PHP's view of a request that claims another origin.
async fn echo(gate: &Gate) -> Value {
    let headers = [
        ("X-Forwarded-For", "203.0.113.7"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "bank.example"),
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "for the gate alone"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Cookie", "a=1; b=2"),
        ("X-Own", "stays"),
    ];
    let response = gate.connect().await.request("GET", "/echo.php", &headers, b"").await;
    response.json()["headers"].clone()
}

#[tokio::test]
async fn forwarded_headers_are_set_and_not_taken_from_strangers() {
    let site = PhpSite::start_of("plain").await;
    let gate = Gate::start_before(site.addr(), "").await;
    let seen = echo(&gate).await;
    let host = gate.addr().to_string();
    assert_eq!(seen["host"], host);
    assert_eq!(seen["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen["x-forwarded-proto"], "http");
    assert_eq!(seen["x-forwarded-host"], host);
    assert_eq!(seen["cookie"], "a=1; b=2");
    assert_eq!(seen["x-own"], "stays");
}

#[tokio::test]
async fn forwarded_headers_of_a_trusted_proxy_are_believed() {
    let site = PhpSite::start_of("plain").await;
    let gate = Gate::start_before(site.addr(), r#"trusted_proxies = ["127.0.0.0/8"]"#).await;
    let seen = echo(&gate).await;
    let chain = seen["x-forwarded-for"].as_str().unwrap();
    assert!(chain.starts_with("203.0.113.7"), "{chain}");
    assert_eq!(seen["x-forwarded-proto"], "https");
    assert_eq!(seen["x-forwarded-host"], "bank.example");
}

#[tokio::test]
async fn headers_of_one_hop_end_at_the_gate() {
    let site = PhpSite::start_of("plain").await;
    let gate = Gate::start_before(site.addr(), "").await;
    let seen = echo(&gate).await;
    for name in ["x-hop", "keep-alive", "proxy-connection"] {
        assert_eq!(seen[name], Value::Null, "{name}");
    }
    let connection = seen["connection"].as_str().unwrap_or("");
    assert!(!connection.to_lowercase().contains("x-hop"), "{connection}");
}

#[tokio::test]
async fn a_site_that_does_not_answer_in_time_is_a_504() {
    let site = PhpSite::start_of("plain").await;
    let config = "[upstream]\nread_timeout = \"300ms\"\n";
    let gate = Gate::start_before(site.addr(), config).await;
    let response: Response = gate.get("/slow.php?silent=1&until=never").await;
    assert_eq!(response.status, 504);
    assert!(!response.body.is_empty(), "a page for people");
}
