//! Requests that are no polls reach the site unchanged, and the site's responses the client.
//!
//! There are polls beside them, so that requests are classified before they are forwarded.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::HashSet;
use support::rules::BACKEND;
use support::site::Recorded;
use support::{FORM, Gate, PlainSite, TempDir, Way, eventually};

/// The site's view of a GET with these headers.
async fn seen_with(config: &str, way: Way, headers: &[(&str, &str)]) -> Recorded {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), config).await;
    let mut poller = way.connect(&gate).await;
    let response = poller.poll_with("GET", "/page", headers).await;
    assert_eq!(response.status, 200, "{}", response.text());
    site.last()
}

#[tokio::test]
async fn a_request_reaches_the_site_as_it_came() {
    for way in Way::ALL {
        let site = PlainSite::start().await;
        let gate = Gate::start_before(site.addr(), BACKEND).await;
        for target in [
            "/",
            "/a%2Fb//c/../d?x=%zz&y=a+b&x[]=1",
            "/backend.php?msg=hello%20you",
            "/%E4?q=%FF",
            "/?a=b?c=d&&",
        ] {
            let mut poller = way.connect(&gate).await;
            let headers = [("Cookie", "a=1; b=2"), ("X-Own", "ä stays"), ("Accept", "*/*")];
            let response = poller.poll_with("GET", target, &headers).await;
            assert_eq!(response.text(), format!("site: GET {target}"));
            let seen = site.last();
            assert_eq!(seen.line(), format!("GET {target}"));
            assert_eq!(seen.header("cookie"), Some("a=1; b=2"));
            assert_eq!(seen.header("x-own"), Some("ä stays"));
            assert_eq!(seen.header("host"), Some(gate.addr().to_string().as_str()));
        }
    }
}

#[tokio::test]
async fn an_answer_reaches_the_client_as_it_was_given() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let gate = Gate::start_before(site.addr(), BACKEND).await;
        for (head, status) in [
            ("HTTP/1.1 404 Not Found\r\nX-Own: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n", 404),
            ("HTTP/1.0 500 Oh\r\nX-Own: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n", 500),
        ] {
            let mut poller = way.connect(&gate).await;
            poller.ask("/page").await;
            let mut visit = site.visit().await;
            visit.send(format!("{head}Content-Length: 5\r\n\r\nhello")).await;
            let response = poller.answer().await;
            assert_eq!((response.status, response.text().as_str()), (status, "hello"));
            assert_eq!(response.header("x-own"), Some("1"));
            assert_eq!(response.all("set-cookie"), ["a=1", "b=2"]);
            assert_eq!(response.header("x-accel-buffering"), None, "nothing is added");
        }
    }
}

#[tokio::test]
async fn headers_of_one_hop_end_at_the_gate() {
    let headers = [
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "for the gate alone"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "trailers"),
        ("Proxy-Authorization", "Basic x"),
        ("X-Own", "stays"),
    ];
    for way in Way::HTTP1 {
        let seen = seen_with("", way, &headers).await;
        for name in ["x-hop", "keep-alive", "proxy-connection"] {
            assert_eq!(seen.header(name), None, "{}", seen.head);
        }
        let connection = seen.header("connection").unwrap_or("").to_lowercase();
        assert!(!connection.contains("x-hop"), "{connection}");
        assert_eq!(seen.header("x-own"), Some("stays"));
    }
}

#[tokio::test]
async fn an_upgrade_to_anything_but_websocket_is_not_passed_on() {
    for protocol in ["h2c", "TLS/1.0"] {
        let headers = [
            ("Connection", "Upgrade, HTTP2-Settings"),
            ("Upgrade", protocol),
            ("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
        ];
        let seen = seen_with("", Way::Plain, &headers).await;
        assert_eq!(seen.header("upgrade"), None, "{}", seen.head);
        assert_eq!(seen.header("http2-settings"), None, "{}", seen.head);
    }
}

#[tokio::test]
async fn the_site_is_told_who_asks_whoever_they_say_they_are() {
    let spoofed = [
        ("X-Forwarded-For", "203.0.113.7"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "bank.example"),
        ("X-Forwarded-Port", "443"),
        ("X-Forwarded-Server", "bank"),
        ("X-Forwarded-Prefix", "/admin"),
        ("Forwarded", "for=203.0.113.7"),
        ("X-Real-IP", "203.0.113.7"),
        ("X-Client-IP", "203.0.113.7"),
        ("Client-IP", "203.0.113.7"),
        ("True-Client-IP", "203.0.113.7"),
        // PHP has `HTTP_X_REAL_IP` of all of these.
        ("X_Real_IP", "203.0.113.7"),
        ("X.Real.IP", "203.0.113.7"),
        ("X!Real-IP", "203.0.113.7"),
        ("Client_IP", "203.0.113.7"),
        ("X_Forwarded_For", "203.0.113.7"),
        ("X-Forwarded_Host", "203.0.113.7"),
        ("X-Forwarded-User", "203.0.113.7"),
        ("X-Forwarded-Ssl", "203.0.113.7"),
        ("Pollgate_Channels", "203.0.113.7"),
        ("Content_Length", "203.0.113.7"),
    ];
    for way in Way::ALL {
        for headers in [&[][..], &spoofed] {
            let seen = seen_with("", way, headers).await;
            let host = seen.header("host").unwrap().to_owned();
            assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
            assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
            assert_eq!(seen.header("x-forwarded-host"), Some(&*host));
            let forwarded = format!("for=127.0.0.1;host=\"{host}\";proto=http");
            assert_eq!(seen.header("forwarded"), Some(&*forwarded));
            assert!(!seen.head.contains("203.0.113.7"), "{}", seen.head);
            for name in ["x-forwarded-port", "x-forwarded-server", "x-forwarded-prefix"] {
                assert_eq!(seen.header(name), None);
            }
        }
    }
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_added() {
    let headers = [
        ("X-Forwarded-For", "203.0.113.7, 10.0.0.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "site.example"),
        ("Forwarded", "for=203.0.113.7"),
    ];
    for way in Way::ALL {
        let seen = seen_with("trusted_proxies = [\"127.0.0.0/8\"]", way, &headers).await;
        let told = "203.0.113.7, 10.0.0.1, 127.0.0.1";
        assert_eq!(seen.header("x-forwarded-for"), Some(told));
        assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
        assert_eq!(seen.header("x-forwarded-host"), Some("site.example"));
        let forwarded = seen.header("forwarded").unwrap();
        assert!(forwarded.starts_with("for=203.0.113.7, for=127.0.0.1;"), "{forwarded}");
        // Another network is still a stranger.
        let seen = seen_with("trusted_proxies = [\"10.0.0.0/8\"]", way, &headers).await;
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    }
}

/// Its own spellings pass, except beside headers that the gate sets.
#[tokio::test]
async fn a_trusted_proxy_may_send_names_with_underscores() {
    let headers = [
        ("X_Own", "1"),
        ("X-Forwarded-User", "alice"),
        ("X_Forwarded_For", "203.0.113.7"),
        ("X_Forwarded_Proto", "203.0.113.7"),
        ("Pollgate_Channels", "203.0.113.7"),
    ];
    for way in Way::ALL {
        let seen = seen_with("trusted_proxies = [\"127.0.0.0/8\"]", way, &headers).await;
        assert_eq!(seen.header("x_own"), Some("1"), "{}", seen.head);
        assert_eq!(seen.header("x-forwarded-user"), Some("alice"), "{}", seen.head);
        assert!(!seen.head.contains("203.0.113.7"), "{}", seen.head);
    }
}

#[tokio::test]
async fn a_poll_that_is_replayed_and_a_question_who_may_poll_bear_no_stranger_names() {
    let headers = [("X_Real_IP", "203.0.113.7"), ("X-Forwarded-User", "203.0.113.7")];
    let rules = "[[poll]]\npath = \"/replay\"\ndialect = \"replay\"\nchannel = \"news\"\n\
                 timeout = \"1ms\"\n[[poll]]\npath = \"/asked/*\"\ndialect = \"native\"\n\
                 auth = { kind = \"upstream\", url = \"/auth.php\", anonymous = true }\n";
    for way in Way::ALL {
        for target in ["/replay", "/asked/news?timeout=0"] {
            let site = PlainSite::start().await;
            let gate = Gate::start_before(site.addr(), rules).await;
            way.connect(&gate).await.poll_with("GET", target, &headers).await;
            let seen = site.last();
            assert!(!seen.head.contains("203.0.113.7"), "{way:?}: {}", seen.head);
        }
    }
}

#[tokio::test]
async fn headers_that_would_mislead_php_or_speak_for_the_site_are_dropped() {
    let headers = [
        ("Proxy", "http://evil.example"),
        ("Pollgate-Publish", "news"),
        ("Pollgate-Channels", "a,b"),
        ("Pollgate-Page", "x"),
    ];
    for way in Way::ALL {
        let seen = seen_with("", way, &headers).await;
        for (name, _) in headers {
            assert_eq!(seen.header(name), None, "{}", seen.head);
        }
    }
}

#[tokio::test]
async fn a_chunked_upload_is_streamed_without_delay() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), BACKEND).await;
    let mut client = gate.connect().await;
    client.send("POST", "/upload", &[("Transfer-Encoding", "chunked")], b"").await;
    let mut visit = site.visit().await;
    assert_eq!(visit.request.header("transfer-encoding"), Some("chunked"));
    // The second chunk is sent only when the first has arrived.
    for text in ["first", "second"] {
        client.send_raw(format!("{:x}\r\n{text}\r\n", text.len())).await;
        visit.read_until(text).await;
    }
    client.send_raw("0\r\n\r\n").await;
    visit.read_until("0\r\n\r\n").await;
    visit.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
    assert_eq!(client.read_response().await.text(), "done");
}

#[tokio::test]
async fn a_download_is_streamed_without_delay() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), BACKEND).await;
    let chunks = "Transfer-Encoding: chunked\r\n";
    for framing in [chunks, "Content-Length: 11\r\n", ""] {
        let chunked = framing == chunks;
        let mut client = gate.connect().await;
        client.send_get("/events").await;
        let mut visit = site.visit().await;
        visit.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n")).await;
        let head = client.read_head().await;
        assert_eq!(head.status, 200, "the head comes before the body");
        for text in ["first", "second"] {
            let piece = match chunked {
                true => format!("{:x}\r\n{text}\r\n", text.len()),
                false => text.to_owned(),
            };
            visit.send(piece).await;
            client.read_until(text).await;
        }
    }
}

#[tokio::test]
async fn leave_to_send_a_body_comes_from_the_site() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), BACKEND).await;
    let mut client = gate.connect().await;
    let headers = [("Expect", "100-continue"), ("Content-Length", "5")];
    client.send("POST", "/upload", &headers, b"").await;
    let mut visit = site.visit().await;
    visit.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.read_head().await.status, 100);
    client.send_raw("hello").await;
    visit.read_until("hello").await;
    visit.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.read_response().await.status, 204);
}

#[tokio::test]
async fn several_servers_are_asked_in_turn() {
    for way in Way::ALL {
        let one = PlainSite::named("one").await;
        let two = PlainSite::named("two").await;
        let plan = Gate::with("").upstream(one.addr()).upstream(two.addr());
        let gate = plan.start().await;
        let mut poller = way.connect(&gate).await;
        for _ in 0..10 {
            assert_eq!(poller.poll("/page").await.status, 200);
        }
        let counts = (one.requests().len(), two.requests().len());
        assert_eq!(counts, (5, 5));
    }
}

#[tokio::test]
async fn a_dead_server_is_passed_over() {
    for way in Way::ALL {
        let alive = PlainSite::named("alive").await;
        let gate = Gate::with("").alone().upstream(alive.addr()).start().await;
        let mut poller = way.connect(&gate).await;
        for round in 0..10 {
            let response = poller.poll("/page").await;
            assert_eq!(response.text(), "alive: GET /page", "{round}");
        }
        // Nothing was sent yet, so even a POST may be retried at another server.
        let response = gate.connect().await.post("/page", FORM, "a=b").await;
        assert_eq!(response.text(), "alive: POST /page");
        assert_eq!(alive.last().body, b"a=b");
    }
}

#[tokio::test]
async fn a_server_that_comes_up_is_used() {
    let folder = TempDir::new("late");
    let path = folder.path().join("site.sock");
    let addr = support::Addr::Unix(path.clone());
    let gate = Gate::start_before(&addr, "").await;
    assert_eq!(gate.get("/page").await.status, 502);
    let site = PlainSite::start_on(&path);
    eventually("the site's answer", async || gate.get("/page").await.status == 200).await;
    let seen = site.last();
    assert_eq!(seen.line(), "GET /page");
}

#[tokio::test]
async fn a_site_that_is_down_is_a_502_and_disturbs_no_poll() {
    for way in Way::ALL {
        let gate = Gate::start_alone(BACKEND).await;
        let mut held = gate.hold(way, "/backend.php?timestamp=0").await;
        let mut poller = way.connect(&gate).await;
        let response = poller.poll("/page").await;
        assert_eq!(response.status, 502);
        assert!(response.text().contains("<h1>"), "a page for people: {}", response.text());
        assert_eq!(response.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(held.is_quiet().await);
        gate.publish("data.txt", "still here").await;
        assert_eq!(held.answer().await.json()["msg"], "still here");
    }
}

#[tokio::test]
async fn a_site_that_hangs_up_without_an_answer_is_a_502() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), BACKEND).await;
    for nonsense in ["", "nonsense\r\n\r\n"] {
        let mut client = gate.connect().await;
        client.send("POST", "/page", &[], b"x=1").await;
        let mut visit = site.visit().await;
        visit.read_until("x=1").await;
        visit.send(nonsense).await;
        drop(visit);
        assert_eq!(client.read_response().await.status, 502, "{nonsense:?}");
    }
}

#[tokio::test]
async fn a_site_that_takes_too_long_is_a_504_and_disturbs_no_poll() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let config = format!("[upstream]\nread_timeout = \"200ms\"\n{BACKEND}");
        let gate = Gate::start_before(site.addr(), &config).await;
        let mut held = gate.hold(way, "/backend.php?timestamp=0").await;
        let mut poller = way.connect(&gate).await;
        poller.ask("/page").await;
        let _visit = site.visit().await;
        let response = poller.answer().await;
        assert_eq!(response.status, 504);
        assert!(response.text().contains("<h1>"), "a page for people: {}", response.text());
        assert!(held.is_quiet().await);
        gate.publish("data.txt", "still here").await;
        assert_eq!(held.answer().await.json()["msg"], "still here");
    }
}

#[tokio::test]
async fn a_form_that_was_looked_into_reaches_the_site_byte_for_byte() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), BACKEND).await;
    let multipart = "--e\r\nContent-Disposition: form-data; name=\"msg\"\r\n\r\n\u{1}ü\r\n\
                     --e\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a\"\r\n\r\n\0\
                     \r\n--e--\r\ntail";
    let long = format!("msg={}", "0123456789abcdef".repeat(65_000 / 16));
    for (kind, body) in [
        (FORM, "msg=a+b%20%zz&&x[]=1&=&timestamp=5"),
        (FORM, &long),
        ("multipart/form-data; boundary=e", multipart),
    ] {
        for expect in [&[][..], &[("Expect", "100-continue")]] {
            let headers = [&[("Content-Type", kind)], expect].concat();
            let mut client = gate.connect().await;
            let target = "/backend.php?q=1";
            let response = client.request("POST", target, &headers, body.as_bytes()).await;
            assert_eq!(response.text(), format!("site: POST {target}"), "{kind}");
            let seen = site.last();
            assert_eq!(seen.body, body.as_bytes());
            assert_eq!(seen.header("content-length"), Some(&*body.len().to_string()));
            assert_eq!(seen.header("content-type"), Some(kind));
            // The connection goes on.
            assert_eq!(client.get("/page").await.text(), "site: GET /page");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_no_small_form_is_no_poll() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), BACKEND).await;
    let long = format!("timestamp=0&x={}", "y".repeat(64 * 1024));
    for (kind, body) in [
        ("application/json", r#"{"timestamp":0}"#),
        ("text/plain", "timestamp=0"),
        ("", "timestamp=0"),
        (FORM, &long),
        ("multipart/form-data; boundary=e", "--e\r\nContent-Dispo"),
        ("multipart/form-data", "--e--"),
    ] {
        let headers = [("Content-Type", kind)];
        let headers = if kind.is_empty() { &[][..] } else { &headers };
        let mut client = gate.connect().await;
        let response = client.request("POST", "/backend.php", headers, body.as_bytes()).await;
        assert_eq!(response.text(), "site: POST /backend.php", "{kind}");
        assert_eq!(site.last().body, body.as_bytes(), "{kind}");
    }
    // A form whose length is not known beforehand.
    let headers = [("Content-Type", FORM), ("Transfer-Encoding", "chunked")];
    let body = b"b\r\ntimestamp=0\r\n0\r\n\r\n";
    let response = gate.connect().await.request("POST", "/backend.php", &headers, body).await;
    assert_eq!(response.text(), "site: POST /backend.php");
    // The chunks may be written anew: the size may be in upper case.
    assert!(site.last().body.eq_ignore_ascii_case(body), "{:?}", site.last());
    assert_eq!(gate.held().await, 0);
}

#[tokio::test]
async fn connections_to_the_site_are_kept_and_used_again() {
    for way in Way::ALL {
        let site = PlainSite::start().await;
        let gate = Gate::start_before(site.addr(), BACKEND).await;
        // Each from a client of its own, one after the other.
        for _ in 0..20 {
            assert_eq!(way.connect(&gate).await.poll("/page").await.status, 200);
        }
        let connections: HashSet<_> = site.requests().iter().map(|r| r.connection).collect();
        assert_eq!(site.requests().len(), 20);
        // A client that has its answer may be back before the connection is in the pool again.
        assert!(connections.len() <= 10, "{} connections for 20 requests", connections.len());
        // On one connection the next request is only read when it is.
        let mut client = gate.connect().await;
        let site_before = site.requests().len();
        for _ in 0..10 {
            assert_eq!(client.get("/page").await.status, 200);
        }
        let later: HashSet<_> =
            site.requests()[site_before..].iter().map(|r| r.connection).collect();
        assert!(later.len() <= 2, "{} connections for 10 requests in a row", later.len());
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request_to_the_site() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), BACKEND).await;
    let mut client = gate.connect().await;
    client.send_get("/slow").await;
    let mut visit = site.visit().await;
    client.close();
    visit.wait_for_close().await;
}

#[tokio::test]
async fn the_log_tells_of_forwarded_requests_without_a_hold() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), "").await;
    gate.get("/page?x=1").await;
    gate.wait_for_log("target=/page?x=1 status=200").await;
    let log = gate.log();
    let line = log.lines().find(|line| line.contains("target=/page?x=1")).unwrap();
    assert!(!line.contains("held_ms"), "{line}");
}
