//! Requests on their way to the site: when one is sent again, how its body passes, and what happens
//! when either side leaves. `POLLGATE_TESTS_FORWARD=engine` runs these tests over pingora's engine.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use socket2::SockRef;
use std::time::Duration;
use support::raw_site::{OK, begun, by_engine};
use support::{Client, Gate, Metrics, QUIET, RawSite, eventually};

async fn metrics(gate: &Gate) -> Metrics {
    Metrics::parse(&gate.hook("GET", "/metrics", &[], "").await.text())
}

#[tokio::test]
async fn a_request_on_a_kept_connection_that_breaks_is_sent_again_once_if_that_does_no_harm() {
    for (method, body, again) in [
        ("GET", "", true),
        ("HEAD", "", true),
        ("PUT", "hello", true),
        ("DELETE", "", true),
        ("POST", "hello", false),
        ("PATCH", "hello", false),
        ("POST", "", false),
    ] {
        let site = RawSite::start().await;
        let gate = Gate::start_before(&site.addr, "").await;
        let (mut client, mut kept) = begun(&gate, &site).await;
        client.send(method, "/again", &[], body.as_bytes()).await;
        // The site has closed it a moment ago, as it seems.
        assert!(kept.head().await.starts_with(method));
        kept.read(body.len()).await;
        drop(kept);
        if again {
            let (mut fresh, head) = site.accept().await;
            assert!(head.starts_with(&format!("{method} /again")), "{head}");
            assert_eq!(fresh.read(body.len()).await, body.as_bytes());
            // Once only: this one is not sent a third time.
            drop(fresh);
        }
        let got = client.read_response_to(method).await;
        assert_eq!(got.status, 502, "{method}");
        assert!(site.accept_within(QUIET).await.is_none(), "{method} came once more");
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_site_has_closed_is_not_used() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    for method in ["GET", "POST"] {
        let (mut client, kept) = begun(&gate, &site).await;
        drop(kept);
        assert!(client.is_quiet().await);
        client.send(method, "/next", &[], b"").await;
        let (mut fresh, head) = site.accept().await;
        assert!(head.starts_with(method), "{head}");
        fresh.send(OK).await;
        assert_eq!(client.read_response().await.text(), "ok", "{method}");
        drop(fresh);
    }
}

#[tokio::test]
async fn a_request_that_nothing_was_sent_of_goes_to_the_next_server() {
    let site = RawSite::start().await;
    let gone = RawSite::start().await;
    let nowhere = gone.addr.to_string();
    drop(gone);
    let config = format!("[upstream]\nservers = [\"{nowhere}\", \"{}\"]", site.addr);
    let gate = Gate::with(&config).start().await;
    for method in ["GET", "POST", "GET", "POST"] {
        let mut client = gate.connect().await;
        client.send(method, "/page", &[], b"").await;
        let (mut upstream, _) = site.accept().await;
        upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(client.read_response().await.text(), "ok", "{method}");
    }
}

#[tokio::test]
async fn a_body_passes_as_it_comes_and_as_it_is_framed() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    let (mut client, mut upstream) = begun(&gate, &site).await;
    client.send("POST", "/length", &[("Content-Length", "10")], b"hello").await;
    let head = upstream.head().await;
    assert!(head.contains("\r\nContent-Length: 10\r\n"), "{head}");
    assert_eq!(upstream.read(5).await, b"hello");
    assert!(client.is_quiet().await);
    client.send_raw("world").await;
    assert_eq!(upstream.read(5).await, b"world");
    upstream.send(OK).await;
    assert_eq!(client.read_response().await.text(), "ok");
    client.send("POST", "/chunked", &[("Transfer-Encoding", "chunked")], b"5\r\nhel").await;
    let head = upstream.head().await;
    assert!(head.contains("\r\nTransfer-Encoding: chunked\r\n"), "{head}");
    assert!(!head.contains("Content-Length"), "{head}");
    upstream.read_until("hel").await;
    client.send_raw("lo\r\n0\r\nX-Trailer: 1\r\n\r\n").await;
    let rest = upstream.read_until("0\r\n\r\n").await;
    assert!(rest.contains("lo") && !rest.contains("X-Trailer"), "{rest}");
    upstream.send(OK).await;
    assert_eq!(client.read_response().await.text(), "ok");
    // Nothing of it is left over on either side.
    client.send_get("/after").await;
    assert!(upstream.head().await.starts_with("GET /after"));
}

#[tokio::test]
async fn a_long_upload_arrives_byte_for_byte() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    let body: Vec<u8> = (0..2_000_000_u32).flat_map(|n| n.to_le_bytes()).take(4 << 20).collect();
    let mut client = gate.connect().await;
    let sending = body.clone();
    let sent = tokio::spawn(async move {
        client.send("PUT", "/large", &[], &sending).await;
        client.read_response().await.status
    });
    let (mut upstream, _) = site.accept().await;
    assert!(upstream.read(body.len()).await == body);
    upstream.send(OK).await;
    assert_eq!(sent.await.unwrap(), 200);
}

#[tokio::test]
async fn a_client_that_waits_for_a_100_gets_it_from_the_site() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    let (mut client, mut upstream) = begun(&gate, &site).await;
    let headers = [("Expect", "100-continue"), ("Content-Length", "5")];
    client.send("POST", "/upload", &headers, b"").await;
    let head = upstream.head().await;
    assert!(head.to_lowercase().contains("\r\nexpect: 100-continue\r\n"), "{head}");
    assert!(client.is_quiet().await);
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.read_head().await.status, 100);
    client.send_raw("hello").await;
    assert_eq!(upstream.read(5).await, b"hello");
    upstream.send(OK).await;
    assert_eq!(client.read_response().await.text(), "ok");
    if by_engine() {
        // It keeps neither connection then.
        return;
    }
    // One that is refused keeps its body.
    client.send("POST", "/upload", &headers, b"").await;
    upstream.head().await;
    upstream.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno").await;
    let got = client.read_response().await;
    assert_eq!((got.status, got.header("connection")), (417, Some("close")));
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_reaches_the_client() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    for closes in [false, true] {
        let mut client = gate.connect().await;
        client.send("POST", "/upload", &[("Content-Length", "100000000")], b"hello").await;
        let (mut upstream, _) = site.accept().await;
        assert_eq!(upstream.read(5).await, b"hello");
        upstream.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nlong").await;
        if closes {
            drop(upstream);
        }
        let got = client.read_response().await;
        assert_eq!((got.status, got.text().as_str()), (413, "long"), "{closes}");
        assert_eq!(got.header("connection"), Some("close"));
        if by_engine() {
            // It waits for the rest.
            continue;
        }
        // It is not waited for: neither connection serves another request.
        let _ = client.try_send_raw(vec![b'x'; 1000]).await;
        client.read_to_end().await;
    }
}

#[tokio::test]
async fn both_directions_go_on_at_the_same_time() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    let mut client = gate.connect().await;
    client.send("POST", "/echo", &[("Content-Length", "9")], b"one").await;
    let (mut upstream, _) = site.accept().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").await;
    assert_eq!(upstream.read(3).await, b"one");
    upstream.send("ONE").await;
    assert_eq!(client.read_head().await.status, 200);
    for (small, large) in [("one", "ONE"), ("two", "TWO"), ("six", "SIX")] {
        if small != "one" {
            client.send_raw(small).await;
            assert_eq!(upstream.read(3).await, small.as_bytes());
            upstream.send(large).await;
        }
        assert_eq!(client.read_exactly(3).await, large.as_bytes());
    }
}

#[tokio::test]
async fn a_body_that_breaks_a_rule_or_stops_ends_at_the_gate() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "[limits]\nwrite_timeout = \"300ms\"").await;
    for (body, status) in [("5\r\nhelloX", 400), ("5;a\r\nhello", 400), ("5\r\nhel", 408)] {
        let mut client = gate.connect().await;
        client.send("POST", "/upload", &[("Transfer-Encoding", "chunked")], b"").await;
        let (mut upstream, _) = site.accept().await;
        client.send_raw(body).await;
        assert_eq!(client.read_response().await.status, status, "{body:?}");
        let rest = String::from_utf8(upstream.rest().await).unwrap();
        assert!(!rest.contains("0\r\n\r\n"), "{rest}");
    }
    let causes = async || {
        let metrics = metrics(&gate).await;
        let refused =
            |cause| metrics.value(&format!("pollgate_refusals_total{{cause=\"{cause}\"}}"));
        refused("malformed_body") == 2.0 && refused("body_timeout") == 1.0
    };
    eventually("the refusals are counted by their causes", causes).await;
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_body_does_not_make_the_site_late() {
    if by_engine() {
        return;
    }
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "[upstream]\nread_timeout = \"300ms\"").await;
    let mut client = gate.connect().await;
    client.send("POST", "/upload", &[("Content-Length", "20")], b"").await;
    let (mut upstream, _) = site.accept().await;
    for _ in 0..20 {
        assert!(client.is_quiet().await);
        client.send_raw("x").await;
        upstream.read(1).await;
    }
    upstream.send(OK).await;
    assert_eq!(client.read_response().await.text(), "ok");
}

#[tokio::test]
async fn a_client_that_leaves_in_its_body_ends_the_request() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    let mut client = gate.connect().await;
    client.send("POST", "/upload", &[("Content-Length", "100")], b"hello").await;
    let (mut upstream, _) = site.accept().await;
    assert_eq!(upstream.read(5).await, b"hello");
    client.close();
    assert_eq!(upstream.rest().await, b"");
    let counted = async || {
        metrics(&gate).await.value("pollgate_upstream_requests_total{status=\"gone\"}") == 1.0
    };
    eventually("the client is counted as gone", counted).await;
    assert!(!gate.log().contains("a request failed"), "{}", gate.log());
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_their_order() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    let mut client = gate.connect().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let post = "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\ntwo";
    let poll = get("/comet/news?timeout=0");
    client.send_raw(format!("{}{post}{poll}{}", get("/1"), get("/4"))).await;
    let (mut upstream, head) = site.accept().await;
    assert!(head.starts_with("GET /1 "), "{head}");
    upstream.send(OK).await;
    assert!(upstream.head().await.starts_with("POST /2 "));
    assert_eq!(upstream.read(3).await, b"two");
    upstream.send(OK).await;
    assert!(upstream.head().await.starts_with("GET /4 "));
    upstream.send(OK).await;
    for expected in ["ok", "ok", "{", "ok"] {
        assert!(client.read_response().await.text().starts_with(expected));
    }
}

#[tokio::test]
async fn a_client_that_resets_its_connection_ends_its_request_at_once() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    let support::Addr::Tcp(addr) = gate.addr() else { return };
    let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    // Its close is a reset.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    let mut client = Client::over(stream, "localhost");
    client.send_get("/slow").await;
    let (mut upstream, _) = site.accept().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
    assert_eq!(client.read_head().await.status, 200);
    client.close();
    assert_eq!(upstream.rest().await, b"");
}
