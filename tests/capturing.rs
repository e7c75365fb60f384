//! Requests to the site publish messages (`[[capture]]`), and so do headers of its responses
//! (`Pollgate-Publish`); the requests and the responses pass unharmed.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::http2::Http2;
use support::rules::BACKEND;
use support::{FORM, Gate, PhpSite, PlainSite};

const SEND: &str = r#"
    [[capture]]
    path    = "/send"
    channel = "live"
    data    = "{form.msg}"
    [history]
    max_message = "4KiB"
"#;

/// The messages of the channel, oldest first.
async fn said(gate: &Gate, channel: &str) -> Vec<Value> {
    let answer = gate.hook("GET", &format!("/channels/{channel}/messages"), &[], "").await;
    if answer.status == 404 {
        return Vec::new();
    }
    let answer = answer.json();
    let messages = answer["messages"].as_array().unwrap();
    messages.iter().map(|message| message["data"].clone()).collect()
}

#[tokio::test]
async fn what_a_form_says_is_published_by_the_time_its_sender_is_answered() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), SEND).await;
    let mut held = gate.connect().await;
    held.send_get("/comet/live").await;
    gate.wait_for_held(1).await;

    let mut client = gate.connect().await;
    let answer = client.post("/send", FORM, "msg=caf%C3%A9+1&x=2").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "site: POST /send"));
    assert_eq!(said(&gate, "live").await, [json!("café 1")]);
    assert_eq!(held.read_response().await.json()["messages"][0]["data"], "café 1");
    assert_eq!(site.last().body, b"msg=caf%C3%A9+1&x=2");

    let multipart = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"msg\"\r\n\r\n\
                     file\r\n--b\r\nContent-Disposition: form-data; name=\"msg\"\r\n\r\ntwo\r\n\
                     --b\r\nContent-Disposition: form-data; name=\"msg\"; filename=\"a\"\r\n\r\n\
                     a file\r\n--b--\r\n";
    client.post("/send", "multipart/form-data; boundary=b", multipart).await;
    let chunked = "POST /send HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: \
                   application/x-www-form-urlencoded\r\n\r\n5\r\nmsg=t\r\n4\r\nhree\r\n0\r\n\r\n";
    client.send_raw(chunked).await;
    assert_eq!(client.read_response().await.status, 200);
    assert_eq!(said(&gate, "live").await, [json!("café 1"), json!("two"), json!("three")]);

    // Nothing to fill the template with, too much of it, or another method or path.
    client.post("/send", FORM, "text=x").await;
    client.post("/send", "text/plain", "msg=x").await;
    let large = client.post("/send", FORM, format!("msg={}", "x".repeat(5000))).await;
    assert_eq!(large.status, 200);
    client.get("/send?msg=x").await;
    client.post("/send/", FORM, "msg=x").await;
    assert_eq!(said(&gate, "live").await.len(), 3);
    gate.wait_for_log("longer than 4096 bytes (history.max_message)").await;
}

#[tokio::test]
async fn every_part_of_a_request_and_its_answer_can_be_the_message() {
    let mut site = PlainSite::start_by_hand().await;
    let rules = r#"
        [[capture]]
        path    = "/rooms/*"
        methods = ["POST", "PUT"]
        channel = "room-{path.1}"
        data    = "{query.x}/{header.x-who}/{cookie.c}/{json.a.b}"
        on      = "2xx,302"
        [[capture]]
        path    = "/rooms/*"
        methods = ["PUT"]
        channel = "whole"
        data    = "{json.a}"
        [[capture]]
        path    = "/rooms/*"
        methods = ["PUT"]
        channel = "answers"
        data    = "{response.body}"
    "#;
    let gate = Gate::start_before(site.addr(), rules).await;
    let headers = [("X-Who", "me"), ("Cookie", "a=b; c=d"), ("Content-Type", "application/json")];
    let body = br#"{"a":{"b":"text","n":[1.50]}}"#;
    for (status, answer, messages) in [
        ("500 Oops", "{\"ok\":1}", 0),
        ("201 Created", "{\"ok\":2}", 1),
        ("302 Found", "{\"ok\":3}", 2),
    ] {
        let mut client = gate.connect().await;
        client.send("PUT", "/rooms/7%2Fb?x=q", &headers, body).await;
        let mut visit = site.visit().await;
        visit.read_until("}}").await;
        let length = answer.len();
        let head =
            format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n");
        visit.send(format!("{head}Content-Length: {length}\r\n\r\n{answer}")).await;
        assert_eq!(client.read_response().await.text(), answer);
        assert_eq!(
            said(&gate, "room-7%2Fb").await,
            vec![json!("q/me/d/text"); messages],
            "{status}"
        );
    }
    assert_eq!(said(&gate, "whole").await, [json!({"b": "text", "n": [1.5]})]);
    assert_eq!(said(&gate, "answers").await, [json!({"ok": 2})]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_publishes_nothing() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), SEND).await;
    let mut client = gate.connect().await;
    client.send("POST", "/send", &[("Content-Type", FORM)], b"msg=x").await;
    let mut visit = site.visit().await;
    visit.read_until("msg=x").await;
    visit.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    drop(visit);
    client.read_to_end().await;
    assert!(said(&gate, "live").await.is_empty());
}

#[tokio::test]
async fn the_site_publishes_with_a_header_only_where_it_may() {
    let answer = "HTTP/1.1 103 Early Hints\r\nPollgate-Publish: early; data=x\r\n\r\n\
                  HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\
                  Pollgate-Publish: a%2Fb; data=hello%20there, whole\r\npollgate-publish: c; \
                  data=\r\n\r\n{\"x\":1}";
    for (may, count) in [("true", 1), ("false", 0)] {
        let mut site = PlainSite::start_by_hand().await;
        let rules = format!("[upstream]\nmay_publish = {may}\n");
        let gate = Gate::start_before(site.addr(), &rules).await;
        let mut client = gate.connect().await;
        client.send("GET", "/x", &[("Pollgate-Publish", "spoofed; data=x")], b"").await;
        let mut visit = site.visit().await;
        assert_eq!(visit.request.header("pollgate-publish"), None);
        visit.send(answer).await;
        let seen = client.read_until("{\"x\":1}").await;
        let seen = String::from_utf8(seen).unwrap().to_ascii_lowercase();
        assert!(!seen.contains("pollgate"), "{seen}");
        for (channel, data) in
            [("a%2Fb", json!("hello there")), ("whole", json!({"x": 1})), ("c", json!(""))]
        {
            assert_eq!(said(&gate, channel).await, vec![data; count], "{channel}");
        }
        for channel in ["early", "spoofed"] {
            assert!(said(&gate, channel).await.is_empty(), "{channel}");
        }
    }
}

#[tokio::test]
async fn a_malformed_header_publishes_nothing_and_leaves_the_answer_as_it_is() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), "[upstream]\nmay_publish = true\n").await;
    let mut client = gate.connect().await;
    client.send_get("/x").await;
    let mut visit = site.visit().await;
    visit
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nPollgate-Publish: a; data=%zz\r\n\r\nok")
        .await;
    let answer = client.read_response().await;
    assert_eq!((answer.text().as_str(), answer.header("pollgate-publish")), ("ok", None));
    gate.wait_for_log("no escape").await;
    assert!(said(&gate, "a").await.is_empty());
}

#[tokio::test]
async fn requests_over_http2_are_captured_like_any() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), SEND).await;
    let mut client = Http2::connect(gate.addr()).await;
    let kind = ("content-type", FORM);
    client.send("POST", "/send", &[kind], b"msg=one").await;
    assert_eq!(client.answer().await.status, 200);
    client.send("POST", "/send", &[kind, ("content-length", "7")], b"msg=two").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(said(&gate, "live").await, [json!("one"), json!("two")]);
}

#[tokio::test]
async fn a_body_that_waits_for_the_sites_leave_is_captured_when_it_comes() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), SEND).await;
    let head = [("Expect", "100-continue"), ("Content-Length", "7"), ("Content-Type", FORM)];
    for (early, count) in [
        ("HTTP/1.1 100 Continue\r\n\r\n", 1),
        // The client sends a part all the same, and the site does not mind what is missing.
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 1),
    ] {
        let mut client = gate.connect().await;
        client.send("POST", "/send", &head, b"").await;
        let mut visit = site.visit().await;
        if early.contains(" 100 ") {
            visit.send(early).await;
            assert_eq!(client.read_head().await.status, 100);
            client.send_raw("msg=one").await;
            visit.read_until("msg=one").await;
            visit.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
        } else {
            client.send_raw("msg=t").await;
            visit.read_until("msg=t").await;
            visit.send(early).await;
        }
        let answer = client.read_response().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        assert_eq!(said(&gate, "live").await, vec![json!("one"); count]);
    }
    gate.wait_for_log("before it had the whole request").await;
}

#[tokio::test]
async fn compressed_answers_are_read_and_passed_as_they_are() {
    let mut site = PlainSite::start_by_hand().await;
    let rules = r#"
        [[capture]]
        path    = "/send"
        channel = "answers"
        data    = "{response.body}"
    "#;
    let gate = Gate::start_before(site.addr(), rules).await;
    let wrapped = b"\x78\x01\x01\x05\x00\xfa\xffhello\x06\x2c\x02\x15";
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x01\x05\x00\xfa\xffhello\x86\xa6\x10\x36\x05\0\0\0";
    let codings: [(&str, &[u8], usize); 6] = [
        ("br", b"\x0b\x02\x80hello\x03", 1),
        ("deflate", wrapped, 2),
        ("deflate", &wrapped[2..12], 3),
        ("gzip", gzip, 4),
        ("x-own", b"hello", 4),
        ("br", b"no brotli", 4),
    ];
    for (coding, body, count) in codings {
        let mut client = Http2::connect(gate.addr()).await;
        let accept = [("content-type", FORM), ("accept-encoding", "br, deflate, gzip")];
        client.send("POST", "/send", &accept, b"msg=x").await;
        let mut visit = site.visit().await;
        visit.read_until("0\r\n\r\n").await;
        assert_eq!(visit.request.header("accept-encoding"), Some("br, deflate, gzip"));
        let head = format!("Content-Type: text/plain\r\nContent-Encoding: {coding}\r\n");
        let length = body.len();
        let head = format!("{head}Connection: close\r\nContent-Length: {length}");
        visit.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n")).await;
        visit.send(body).await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.body.as_slice(), answer.header("content-encoding")),
            (body, Some(coding))
        );
        assert_eq!(said(&gate, "answers").await, vec![json!("hello"); count], "{coding}");
    }
    gate.wait_for_log("is in the coding \"x-own\"").await;
}

#[tokio::test]
async fn a_php_site_that_knows_nothing_of_the_gate_is_captured() {
    let site = PhpSite::start_of("backend").await;
    let capture = r#"
        [[capture]]
        path    = "/backend.php"
        methods = ["GET"]
        channel = "data.txt"
        data    = "{query.msg}"
    "#;
    let gate = Gate::start_before(site.addr(), &format!("{BACKEND}{capture}")).await;
    let mut client = gate.connect().await;
    client.send_get("/backend.php?timestamp=0").await;
    gate.wait_for_held(1).await;
    assert_eq!(gate.get("/backend.php?msg=hello+you").await.status, 200);
    assert_eq!(client.read_response().await.json()["msg"], "hello you");
    let file = std::fs::read_to_string(site.root().join("data.txt")).unwrap();
    assert_eq!(file, "hello you");
}

/// A site may route `/live%2Fsend` to something else than `/live/send`.
#[tokio::test]
async fn an_escaped_slash_in_a_path_is_none() {
    let site = PlainSite::start().await;
    let rules = SEND.replace("/send", "/live/send");
    let gate = Gate::start_before(site.addr(), &rules).await;
    let mut client = gate.connect().await;
    for path in ["/live%2Fsend", "/live%2fsend", "/live/send%3F", "/x/../live/send"] {
        assert_eq!(client.post(path, FORM, "msg=one").await.status, 200);
    }
    client.post("/live/%73end", FORM, "msg=two").await;
    assert_eq!(said(&gate, "live").await, [json!("two")]);
}

/// What only one of two readers would read so (`capture_oracle.rs` has forms).
#[tokio::test]
async fn values_that_the_site_may_read_otherwise_are_not_published() {
    let site = PlainSite::start().await;
    let rules = r#"
        [[capture]]
        path    = "/send"
        channel = "live"
        data    = "{header.x-who}/{cookie.c}"
        [[capture]]
        path    = "/send"
        channel = "json"
        data    = "{json.a}"
        [[capture]]
        path    = "/send"
        channel = "room-{query.r}"
        data    = "{query.x}"
    "#;
    let gate = Gate::start_before(site.addr(), rules).await;
    let mut client = gate.connect().await;
    for headers in [
        [("X-Who", "a"), ("X-Who", "b"), ("Cookie", "c=1")],
        [("X-Who", "a"), ("Cookie", "c=1"), ("Cookie", "c=2")],
        [("X-Who", "a"), ("Cookie", "c; c=2"), ("X-A", "b")],
        [("X-Who", "a"), ("Cookie", "c[x]=1; c=2"), ("X-A", "b")],
    ] {
        client.request("POST", "/send", &headers, b"").await;
    }
    let json = [("Content-Type", "application/json")];
    for body in [r#"{"a":1,"b":"\ud800"}"#, r#"{"a":1}x"#] {
        client.request("POST", "/send", &json, body.as_bytes()).await;
    }
    client.request("POST", "/send?r=%FF&x=1", &[], b"").await;
    client.request("POST", &format!("/send?r=1&{}x=1", "a&".repeat(1000)), &[], b"").await;
    let channels = gate.hook("GET", "/channels", &[], "").await.json();
    assert_eq!(channels["channels"], json!([]), "{channels}");
    client.request("POST", "/send?r=1&x=1", &[("X-Who", "a"), ("Cookie", "c=1")], b"").await;
    client.request("POST", "/send", &json, br#"{"a":1}"#).await;
    assert_eq!(said(&gate, "live").await, [json!("a/1")]);
    assert_eq!(said(&gate, "json").await, [json!(1)]);
    assert_eq!(said(&gate, "room-1").await, [json!("1")]);
}
