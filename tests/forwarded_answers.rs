//! Answers of the site on their way to the client: where they end, what of them is passed on, and
//! what is refused. `POLLGATE_TESTS_FORWARD=engine` runs these tests over pingora's engine.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::raw_site::{OK, begun, by_engine};
use support::{Gate, RawSite, Way};

#[tokio::test]
async fn an_answer_ends_where_its_head_says_and_both_connections_go_on() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    let (mut client, mut upstream) = begun(&gate, &site).await;
    for (method, answer, status, body) in [
        ("HEAD", "200 OK\r\nContent-Length: 5\r\n\r\n", 200, ""),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, ""),
        ("HEAD", "200 OK\r\n\r\n", 200, ""),
        ("GET", "204 No Content\r\n\r\n", 204, ""),
        ("DELETE", "204 No Content\r\nContent-Length: 0\r\n\r\n", 204, ""),
        ("GET", "304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n", 304, ""),
        ("GET", "200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""),
        ("GET", "200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello"),
        ("GET", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, ""),
        (
            "GET",
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
            200,
            "hello",
        ),
    ] {
        client.send(method, "/next", &[], b"").await;
        let head = upstream.head().await;
        assert!(head.starts_with(method), "{head}");
        upstream.send(format!("HTTP/1.1 {answer}")).await;
        let got = client.read_response_to(method).await;
        assert_eq!((got.status, got.text().as_str()), (status, body), "{answer:?}");
        assert_eq!(got.header("connection"), Some("keep-alive"), "{answer:?}");
        if status == 304 {
            assert_eq!(got.header("content-length"), Some("5"));
        }
    }
}

#[tokio::test]
async fn trailers_and_extensions_of_chunks_end_at_the_gate() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    let (mut client, mut upstream) = begun(&gate, &site).await;
    client.send_get("/page").await;
    upstream.head().await;
    let chunks = "5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\nPollgate-Publish: news\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n";
    upstream.send(format!("{head}{chunks}")).await;
    assert_eq!(client.read_head().await.header("trailer"), None);
    let body = client.read_until("0\r\n\r\n").await;
    assert_eq!(String::from_utf8(body).unwrap(), "5\r\nhello\r\n0\r\n\r\n");
    client.send_get("/again").await;
    upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(client.read_response().await.text(), "ok");
}

#[tokio::test]
async fn an_answer_to_the_end_of_its_connection_is_whole_for_the_client() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    let mut client = gate.connect().await;
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        client.send_get("/page").await;
        let (mut upstream, _) = site.accept().await;
        upstream.send(format!("{version} 200 OK\r\nConnection: close\r\n\r\nhel")).await;
        upstream.send("lo").await;
        drop(upstream);
        let got = client.read_response().await;
        assert_eq!(got.text(), "hello");
        assert_eq!(got.header("transfer-encoding"), Some("chunked"));
    }
}

#[tokio::test]
async fn interim_answers_are_passed_on_and_bounded() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    let (mut client, mut upstream) = begun(&gate, &site).await;
    client.send_get("/page").await;
    upstream.head().await;
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x\r\nX: y\r\n\r\n";
    upstream.send(hints).await;
    let early = client.read_head().await;
    assert_eq!((early.status, early.header("link")), (103, Some("</a.css>")));
    assert!(client.is_quiet().await);
    upstream.send(format!("HTTP/1.1 102 Processing\r\n\r\n{OK}")).await;
    assert_eq!(client.read_head().await.status, 102);
    assert_eq!(client.read_response().await.text(), "ok");
    if by_engine() {
        return;
    }
    client.send_get("/page").await;
    upstream.head().await;
    upstream.try_send("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000)).await;
    let text = String::from_utf8(client.read_to_end().await).unwrap();
    assert!(text.matches("HTTP/1.1 103").count() < 100, "{text}");
    assert!(!text.contains("HTTP/1.1 200"), "{text}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_taken_for_a_whole_one() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    for (answer, status) in [
        ("", 502),
        ("HTTP/1.1 200 OK\r\n", 502),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", 200),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 200),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", 200),
    ] {
        let mut client = gate.connect().await;
        client.send_get("/page").await;
        let (mut upstream, _) = site.accept().await;
        upstream.send(answer).await;
        drop(upstream);
        let got = client.read_head().await;
        // Nothing of it need have left when it breaks off.
        assert!(got.status == 502 || got.status == status, "{answer:?}: {}", got.status);
        let rest = String::from_utf8(client.read_to_end().await).unwrap();
        if got.status == 200 {
            assert!(rest.len() < 5 || !rest.ends_with("0\r\n\r\n"), "{answer:?}: {rest:?}");
        } else {
            assert!(rest.contains("<h1>502"), "{rest}");
        }
    }
}

/// Answers that two readers could understand differently.
const DOUBTFUL: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 50\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\r\n folded: b\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b=c\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    "HTTP/2 200 OK\r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "<html>no HTTP at all\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nsecret",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello",
];

#[tokio::test]
async fn a_doubtful_answer_is_a_502_and_nothing_of_it_is_passed_on() {
    if by_engine() {
        return;
    }
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    for answer in DOUBTFUL {
        let mut client = gate.connect().await;
        client.send_get("/doubtful").await;
        let (mut upstream, _) = site.accept().await;
        upstream.try_send(format!("{answer}HTTP/1.1 200 OK\r\nX-Smuggled: 1\r\n\r\n")).await;
        let all = String::from_utf8_lossy(&client.read_to_end().await).into_owned();
        assert!(all.starts_with("HTTP/1.1 502"), "{answer:?}: {all}");
        for part in ["hello", "secret", "Set-Cookie", "X-Smuggled", "folded"] {
            assert!(!all.contains(part), "{answer:?}: {all}");
        }
        // Nothing else comes on that connection.
        assert!(upstream.next_head().await.is_none(), "{answer:?}");
        let mut client = Way::Http2.connect(&gate).await;
        client.ask("/doubtful").await;
        let (mut upstream, _) = site.accept().await;
        upstream.try_send(answer).await;
        let got = client.answer().await;
        assert_eq!(got.status, 502, "{answer:?}: {}", got.text());
        assert!(!got.text().contains("hello") && got.header("set-cookie").is_none(), "{answer:?}");
    }
    for fault in ["two Content-Length headers", "a bare LF", "a folded line", "chunks"] {
        gate.wait_for_log(fault).await;
    }
    assert!(!gate.log().contains("secret"), "{}", gate.log());
}

#[tokio::test]
async fn a_chunk_that_is_wrong_later_on_ends_the_answer() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    let mut client = gate.connect().await;
    client.send_get("/page").await;
    let (mut upstream, _) = site.accept().await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    client.read_until("hello\r\n").await;
    upstream.try_send("5\r\nworldX0\r\n\r\n").await;
    let rest = client.read_to_end().await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn what_comes_behind_an_answer_is_no_answer_to_the_next_request() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    for answer in [OK, "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\n\r\n"] {
        let mut client = gate.connect().await;
        client.send_get("/first").await;
        let (mut upstream, _) = site.accept().await;
        let forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
        upstream.send(format!("{answer}{forged}")).await;
        assert_ne!(client.read_response().await.text(), "forged");
        client.send_get("/second").await;
        let (mut next, head) = site.accept().await;
        assert!(head.starts_with("GET /second"), "{head}");
        next.send(OK).await;
        assert_eq!(client.read_response().await.text(), "ok");
        drop(next);
    }
}

#[tokio::test]
async fn an_answer_of_any_length_and_framing_is_passed_on_byte_for_byte() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    let body: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.to_le_bytes()).take(5 << 20).collect();
    for framing in ["length", "chunked", "end"] {
        let mut client = gate.connect().await;
        client.send_get("/large").await;
        let (mut upstream, _) = site.accept().await;
        let sent = body.clone();
        let sending = tokio::spawn(async move {
            match framing {
                "length" => {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", sent.len());
                    upstream.send(head).await;
                    upstream.send(&sent).await;
                }
                "chunked" => {
                    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                    upstream.send(head).await;
                    for (n, piece) in sent.chunks(70_001).enumerate() {
                        let (one, other) = piece.split_at(piece.len().min(n + 1));
                        for part in [one, other].into_iter().filter(|part| !part.is_empty()) {
                            let size = format!("{:x}\r\n", part.len());
                            upstream.send([size.as_bytes(), part, b"\r\n"].concat()).await;
                        }
                    }
                    upstream.send("0\r\n\r\n").await;
                }
                _ => {
                    upstream.send("HTTP/1.1 200 OK\r\n\r\n").await;
                    upstream.send(&sent).await;
                }
            }
        });
        assert!(client.read_response().await.body == body, "{framing}");
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn a_silent_site_is_a_504_and_one_that_goes_on_is_waited_for() {
    let config = "[upstream]\nread_timeout = \"400ms\"";
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, config).await;
    let mut client = gate.connect().await;
    client.send_get("/slow").await;
    let (mut upstream, _) = site.accept().await;
    // In all far longer than the timeout.
    for byte in OK.bytes().take(20) {
        upstream.send([byte]).await;
        assert!(client.is_quiet().await);
    }
    upstream.send(&OK[20..]).await;
    assert_eq!(client.read_response().await.text(), "ok");
    client.send_get("/silent").await;
    upstream.head().await;
    assert_eq!(client.read_response().await.status, 504);
}
