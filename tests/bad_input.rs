//! Whatever is sent to the public side, it is answered or closed in time, nothing panics, and
//! polls are held and released as before.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;
use support::{BOUND, Client, FORM, Gate, PlainSite, Response, Way};

/// All three dialects.
const RULES: &str = r#"
    [[poll]]
    path    = "/comet/*"
    dialect = "native"
    [[poll]]
    path    = "/novcomet"
    when    = ["subscribed"]
    unless  = ["publish"]
    dialect = "novcomet"
    timeout = "50ms"
    [[poll]]
    path    = "/timestamp"
    unless  = ["msg"]
    dialect = "timestamp"
    channel = "c"
    timeout = "50ms"
    callback = "callback"
"#;

/// A gate that finishes its quiet polls soon, before a site.
async fn start() -> (PlainSite, Gate) {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), &format!("[hold]\ntimeout = \"5s\"\n{RULES}")).await;
    (site, gate)
}

/// Checks that the gate still does what it is there for, and that nothing in it panicked.
async fn is_well(gate: &Gate, after: &str) {
    gate.wait_for_held(0).await;
    let mut poller = gate.hold(Way::Plain, "/comet/well").await;
    gate.publish("well", after).await;
    assert_eq!(poller.answer().await.json()["messages"][0]["data"], after);
    assert_eq!(gate.get("/page").await.text(), "site: GET /page", "{after}");
    let log = gate.log();
    assert!(!log.contains("panicked"), "{after}: {log}");
}

/// Sends raw bytes and reads until the gate closes; the status of each answer.
async fn statuses(gate: &Gate, bytes: &[u8]) -> Vec<u16> {
    let mut client = gate.connect().await;
    // It may have heard enough before the end.
    let _ = client.try_send_raw(bytes).await;
    let all = client.read_to_end().await;
    let text = String::from_utf8_lossy(&all).into_owned();
    let heads = text.split("HTTP/1.1 ").skip(1);
    heads.map(|head| head.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0)).collect()
}

/// One poll or page, which is answered in time whatever it is.
async fn answered(gate: &Gate, target: &str) -> Response {
    gate.connect().await.get(target).await
}

#[tokio::test]
async fn escapes_that_are_none_and_bytes_that_are_no_utf_8() {
    let (_site, gate) = start().await;
    for target in [
        "/comet/a%",
        "/comet/a%4",
        "/comet/%zz",
        "/comet/%FF",
        "/comet/%C3",
        "/comet/%ED%A0%80",
        "/comet/%00",
        "/comet/a%0D%0Ab",
    ] {
        assert_eq!(answered(&gate, target).await.status, 400, "{target}");
    }
    for target in [
        "/%",
        "/%zz?%",
        "/%FF?%FF=%FF",
        "/?a=%",
        "/novcomet?subscribed[%FF]=%FF",
        "/novcomet?subscribed[a]=%",
        "/timestamp?timestamp=%",
        "/timestamp?timestamp=%FF",
        "/timestamp?%FF",
        "/comet/c?timeout=0&cursor=&%FF=%",
        "/novcomet?subscribed[a]=%00",
    ] {
        assert_eq!(answered(&gate, target).await.status, 200, "{target}");
    }
    is_well(&gate, "escapes").await;
}

#[tokio::test]
async fn bytes_above_ascii_in_a_target() {
    let (_site, gate) = start().await;
    for target in [&b"/comet/\xff\xfe?timeout=0"[..], b"/page?\xc3", b"/\x80/x"] {
        let bytes =
            [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat();
        let statuses = statuses(&gate, &bytes).await;
        assert_eq!(statuses.len(), 1, "{target:?}: {statuses:?}");
    }
    is_well(&gate, "bytes above ASCII").await;
}

#[tokio::test]
async fn ten_thousand_ids_in_one_query_are_refused() {
    let (_site, gate) = start().await;
    // 130 kB: more than a head may have.
    let query = "subscribed[]=1&".repeat(10_000);
    let mut client = gate.connect().await;
    let _ = client.try_send_raw(format!("GET /novcomet?{query} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    let status = client.read_response().await.status;
    assert!(matches!(status, 414 | 431 | 400), "{status}");
    // As many as a head has room for, and in a form.
    let query = "subscribed[]=1&".repeat(4_000);
    assert_eq!(answered(&gate, &format!("/novcomet?{query}")).await.status, 400);
    let response = gate.connect().await.post("/novcomet", FORM, &query).await;
    assert_eq!(response.status, 400);
    assert_eq!(gate.status().await["channels"], 0);
    is_well(&gate, "ten thousand ids").await;
}

#[tokio::test]
async fn thousands_of_channels_in_one_native_poll_are_refused() {
    let (_site, gate) = start().await;
    let names: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
    assert_eq!(answered(&gate, &format!("/comet/{}", names.join(","))).await.status, 400);
    assert_eq!(answered(&gate, &format!("/comet/{}", ",".repeat(30_000))).await.status, 400);
    assert_eq!(gate.status().await["channels"], 0);
    is_well(&gate, "thousands of channels").await;
}

#[tokio::test]
async fn numbers_that_are_too_much() {
    let (_site, gate) = start().await;
    gate.publish("c", "x").await;
    let nines = "9".repeat(5_000);
    let zeros = format!("0.{}1", "0".repeat(5_000));
    for number in [
        "-1",
        "-0",
        "1e9",
        "1e308",
        "1e400",
        "-1e400",
        "1e-400",
        "1E5",
        "+1",
        "0x1F",
        "1_000",
        "NaN",
        "inf",
        "-inf",
        "18446744073709551615",
        "18446744073709551616",
        "1..2",
        ".",
        "-",
        "e",
        "1e",
        "1e99999999999999999999",
        &nines,
        &zeros,
    ] {
        for path in ["/timestamp?timestamp=", "/novcomet?subscribed[c]="] {
            let response = answered(&gate, &format!("{path}{number}")).await;
            assert_eq!(response.status, 200, "{path}{number}");
            response.json();
        }
        let timeout = answered(&gate, &format!("/comet/c?cursor=oldest&timeout=0{number}")).await;
        assert!(matches!(timeout.status, 200 | 400), "{number}");
    }
    is_well(&gate, "numbers").await;
}

#[tokio::test]
async fn cursors_that_are_too_much() {
    let (_site, gate) = start().await;
    let long = "a".repeat(50_000);
    for cursor in [long.as_str(), "~~~~", "....", "-.-", "a.b-c"] {
        let response = answered(&gate, &format!("/comet/c?cursor={cursor}")).await;
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.json()["reset"], true);
    }
    // Well-formed, with thousands of positions, none of them in this channel.
    let many = format!("{}a.a-1", "a.a-1~".repeat(5_000));
    let answer = answered(&gate, &format!("/comet/c?timeout=0&cursor={many}")).await.json();
    assert!(answer["cursor"].as_str().unwrap().len() < 100, "{answer}");
    is_well(&gate, "cursors").await;
}

#[tokio::test]
async fn control_characters_in_channel_names() {
    let (_site, gate) = start().await;
    for byte in (0..32u8).chain([127]) {
        for path in ["/comet/a", "/novcomet?subscribed[a"] {
            let target = format!("{path}%{byte:02X}b]=0");
            let response = answered(&gate, &target).await;
            // PHP ends a parameter's name at a NUL, and so this one has lost its bracket.
            let ended = byte == 0 && path.starts_with("/novcomet");
            assert_eq!(response.status, if ended { 200 } else { 400 }, "{target}");
        }
    }
    is_well(&gate, "control characters").await;
}

#[tokio::test]
async fn a_hundred_thousand_brackets() {
    let (_site, gate) = start().await;
    for brackets in ["[", "]", "[]", "[a]", "a[", "subscribed[", "subscribed[a]["] {
        let text = brackets.repeat(60_000 / brackets.len());
        for target in [format!("/novcomet?{text}"), format!("/novcomet?subscribed{text}=1")] {
            let response = answered(&gate, &target).await;
            assert!(matches!(response.status, 200 | 400), "{brackets}: {}", response.status);
        }
        let text = brackets.repeat(100_000 / brackets.len());
        for form in
            [text.clone(), text[..60_000].to_owned(), format!("subscribed{}", &text[..60_000])]
        {
            let response = gate.connect().await.post("/novcomet", FORM, &form).await;
            assert!(matches!(response.status, 200 | 400), "{brackets}: {}", response.status);
        }
    }
    is_well(&gate, "brackets").await;
}

#[tokio::test]
async fn forms_that_are_torn() {
    let (_site, gate) = start().await;
    let multipart = "multipart/form-data; boundary=e";
    for (kind, body) in [
        (multipart, "--e"),
        (multipart, "--e\r\n\r\n\r\n--e--"),
        (multipart, "--e\r\nContent-Disposition: form-data\r\n\r\nx\r\n--e--\r\n"),
        (multipart, "--e\r\nContent-Disposition: form-data; name=\"\r\n\r\nx\r\n--e--\r\n"),
        (multipart, ""),
        ("multipart/form-data; boundary=", "--\r\n"),
        ("multipart/form-data; boundary=\"", "--\r\n"),
        (FORM, ""),
        (FORM, "&&&===&=&"),
        (FORM, "timestamp"),
        (FORM, "timestamp[]=1"),
    ] {
        let response = gate.connect().await.post("/timestamp", kind, body).await;
        assert_eq!(response.status, 200, "{kind} {body}");
    }
    is_well(&gate, "torn forms").await;
}

/// Heads that two readers could understand differently, or that are none.
const DOUBTFUL: &[(&str, &[u8])] = &[
    ("length and chunks", b"POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunks and length", b"POST /page HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    ("two lengths", b"POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    ("two lengths alike", b"POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na"),
    ("a list of lengths", b"POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na"),
    ("a negative length", b"POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"),
    ("a signed length", b"POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na"),
    ("a length in hex", b"POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na"),
    ("a length beyond numbers", b"POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\na"),
    ("another encoding", b"POST /page HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("an encoding that looks like chunked", b"POST /page HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("chunked twice", b"POST /page HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunked with a tab", b"POST /page HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("two hosts", b"GET /page HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("two hosts alike", b"GET /page HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    ("a host that is none", b"GET /page HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("a host with a user", b"GET /page HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    ("a folded line", b"GET /page HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n"),
    ("a folded first line", b"GET /page HTTP/1.1\r\n Host: a\r\n\r\n"),
    ("a bare LF", b"GET /page HTTP/1.1\r\nHost: a\r\nX: a\nY: b\r\n\r\n"),
    ("bare LFs alone", b"GET /page HTTP/1.1\nHost: a\n\n"),
    ("a bare CR", b"GET /page HTTP/1.1\r\nHost: a\r\nX: a\rY: b\r\n\r\n"),
    ("a NUL", b"GET /page HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
    ("a NUL in the target", b"GET /pa\0ge HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a space before the colon", b"GET /page HTTP/1.1\r\nHost : a\r\n\r\n"),
    ("a space in a name", b"GET /page HTTP/1.1\r\nHost: a\r\nX Y: a\r\n\r\n"),
    ("no name", b"GET /page HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n"),
    ("no colon", b"GET /page HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n"),
    ("HTTP/0.9", b"GET /page\r\n\r\n"),
    ("HTTP/1.2", b"GET /page HTTP/1.2\r\nHost: a\r\n\r\n"),
    ("HTTP/3.0", b"GET /page HTTP/3.0\r\nHost: a\r\n\r\n"),
    ("two spaces", b"GET  /page HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a space in the target", b"GET /pa ge HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a tab for a space", b"GET\t/page HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("no method", b" /page HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a method with brackets", b"G(T /page HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    ("binary", b"\x00\x01\x02\x03\xff\xfe\r\n\r\n\r\n\r\n"),
];

#[tokio::test]
async fn a_head_that_is_in_doubt_is_refused_and_closed() {
    let (site, gate) = start().await;
    for (what, bytes) in DOUBTFUL {
        // Nothing behind it is taken for a request.
        let smuggled = [bytes, &b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"[..]].concat();
        assert_eq!(statuses(&gate, &smuggled).await, [400], "{what}");
    }
    assert_eq!(site.requests().len(), 0, "{:?}", site.last());
    is_well(&gate, "doubtful heads").await;
}

#[tokio::test]
async fn a_poll_whose_head_is_in_doubt_is_refused_and_closed_too() {
    let (_site, gate) = start().await;
    for (what, bytes) in DOUBTFUL {
        let text = String::from_utf8_lossy(bytes);
        if !text.contains("/page ") || text.contains('\u{fffd}') {
            continue;
        }
        let poll = text.replace("POST /page", "GET /page").replace("/page", "/comet/c?timeout=0");
        assert_eq!(statuses(&gate, poll.as_bytes()).await, [400], "{what}");
    }
    is_well(&gate, "doubtful polls").await;
}

#[tokio::test]
async fn chunks_that_are_in_doubt_are_not_forwarded() {
    let (site, gate) = start().await;
    let good: &[u8] = b"3\r\nabc\r\n0\r\n\r\n";
    for (what, chunks) in [
        ("a size that is no hex", &b"xyz\r\nabc\r\n0\r\n\r\n"[..]),
        ("a signed size", b"+3\r\nabc\r\n0\r\n\r\n"),
        ("a size with 0x", b"0x3\r\nabc\r\n0\r\n\r\n"),
        ("a space before the size", b" 3\r\nabc\r\n0\r\n\r\n"),
        ("a bare LF after the size", b"3\nabc\r\n0\r\n\r\n"),
        ("a bare LF after the data", b"3\r\nabc\n0\r\n\r\n"),
        ("a bare CR after the size", b"3\rabc\r\n0\r\n\r\n"),
        ("no line end after the data", b"3\r\nabcdef0\r\n\r\n"),
        ("a size beyond numbers", b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        ("no size", b"\r\nabc\r\n0\r\n\r\n"),
        ("a bare LF in an extension", b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
    ] {
        let head = b"POST /page HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let bytes = [&head[..], chunks, smuggled].concat();
        assert_eq!(statuses(&gate, &bytes).await, [400], "{what}");
    }
    let told = site.requests();
    assert!(told.iter().all(|request| !request.head.contains("smuggled")), "{told:?}");
    let headers = [("Transfer-Encoding", "chunked")];
    let response = gate.connect().await.request("POST", "/page", &headers, good).await;
    assert_eq!(response.text(), "site: POST /page");
    is_well(&gate, "doubtful chunks").await;
}

#[tokio::test]
async fn heads_that_are_too_much_are_refused() {
    let (_site, gate) = start().await;
    for (what, head) in [
        ("a long header", format!("X: {}\r\n", "x".repeat(200_000))),
        ("a long name", format!("{}: x\r\n", "x".repeat(200_000))),
        ("many headers", "X: x\r\n".repeat(20_000)),
        ("a few headers too many", "X: x\r\n".repeat(101)),
    ] {
        for path in ["/comet/c?timeout=0", "/page"] {
            let bytes = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{head}\r\n");
            let statuses = statuses(&gate, bytes.as_bytes()).await;
            let refused = matches!(statuses[..], [] | [400 | 431]);
            assert!(refused, "{what} {path}: {statuses:?}");
        }
    }
    is_well(&gate, "large heads").await;
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_head_is_not_waited_for() {
    let site = PlainSite::start().await;
    let config = format!("[limits]\nhead_timeout = \"200ms\"\nidle_timeout = \"200ms\"\n{RULES}");
    let gate = Gate::start_before(site.addr(), &config).await;
    for beginning in ["", "G", "GET /comet/c HTTP/1.1\r\n", "PRI * HT", "\r\n", "POST / HTTP/1.1\r"]
    {
        let mut client = gate.connect().await.bound(Duration::from_secs(5));
        client.send_raw(beginning).await;
        let rest = String::from_utf8_lossy(&client.read_to_end().await).into_owned();
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{beginning:?}: {rest}");
    }
    // A kept connection that stays quiet is closed too, after a poll as after a page.
    for target in ["/comet/c?timeout=0", "/page"] {
        let mut client = gate.connect().await.bound(Duration::from_secs(5));
        client.get(target).await;
        client.wait_for_close().await;
    }
    is_well(&gate, "slow heads").await;
}

#[tokio::test]
async fn a_hold_may_be_longer_than_the_timeouts_of_a_connection() {
    let config = format!("[limits]\nhead_timeout = \"100ms\"\nidle_timeout = \"100ms\"\n{RULES}");
    for way in Way::ALL {
        let gate = Gate::start_alone(&config).await;
        let mut poller = way.connect(&gate).await;
        let quiet = poller.poll("/comet/c?timeout=0.5").await;
        assert_eq!(quiet.json()["messages"], serde_json::json!([]));
    }
}

#[tokio::test]
async fn connections_that_break_off_anywhere_leave_nothing_behind() {
    let (_site, gate) = start().await;
    let whole = "POST /timestamp HTTP/1.1\r\nHost: a\r\n\
                 Content-Type: application/x-www-form-urlencoded\r\n\
                 Content-Length: 11\r\n\r\ntimestamp=0";
    for length in 0..whole.len() {
        let mut client = Client::connect(gate.addr()).await;
        client.send_raw(&whole[..length]).await;
    }
    is_well(&gate, "broken connections").await;
    let within = tokio::time::timeout(BOUND, gate.status()).await;
    assert_eq!(within.unwrap()["held"], 0);
}
