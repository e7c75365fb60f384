//! What a site's visitors meet: pages of other origins, cookies of all kinds, old clients, and headers
//! that belong to one connection.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::{Client, Gate, PlainSite, Response, Way};

const BARE: &str = r#"
[[poll]]
path = "/bare"
dialect = "timestamp"
channel = "live"
fields = { message = "." }
first = "wait"
origins = ["https://a.example"]
"#;

const ORIGIN: (&str, &str) = ("Origin", "https://a.example");

/// Whether a list in a header has `word`.
fn lists(response: &Response, header: &str, word: &str) -> bool {
    let all = response.all(header).join(",");
    all.split(',').any(|one| one.trim().eq_ignore_ascii_case(word))
}

#[track_caller]
fn is_readable(response: &Response) {
    let origin = response.header("access-control-allow-origin");
    assert_eq!(origin, Some("https://a.example"), "{}", response.status);
    for name in ["ETag", "Retry-After"] {
        assert!(lists(response, "access-control-expose-headers", name), "{name}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_can_poll_bare_messages() {
    let gate = Gate::start_alone(BARE).await;
    for way in Way::ALL {
        let mut poller = way.connect(&gate).await;
        let wants = "if-none-match,x-requested-with,authorization,last-event-id,content-type";
        let asking = [
            ORIGIN,
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", wants),
        ];
        let leave = poller.poll_with("OPTIONS", "/bare", &asking).await;
        assert_eq!(leave.status, 204);
        for name in wants.split(',') {
            assert!(lists(&leave, "access-control-allow-headers", name), "{name} {way:?}");
        }
        gate.publish("live", "hello").await;
        let answer = poller.poll_with("GET", "/bare?timestamp=1", &[ORIGIN]).await;
        assert!(answer.header("etag").is_some(), "{:?}", answer.headers);
        is_readable(&answer);
    }
}

#[tokio::test]
async fn refusals_can_be_read_by_pages_of_listed_origins() {
    let auth = "auth = { kind = \"signed\", keys = { a = \"a secret of ours\" } }\n";
    let rule = |rest: &str| {
        format!(
            "[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\n\
             origins = [\"https://a.example\"]\n{rest}"
        )
    };
    let limits = "[limits]\nper_address = 1\n";
    for way in Way::ALL {
        let gate = Gate::start_alone(&rule(auth)).await;
        let denied = way.connect(&gate).await.poll_with("GET", "/comet/a", &[ORIGIN]).await;
        assert_eq!(denied.status, 401);
        is_readable(&denied);
        let gate = Gate::start_alone(&format!("{limits}{}", rule(""))).await;
        let _held = gate.hold(way, "/comet/a").await;
        let busy = way.connect(&gate).await.poll_with("GET", "/comet/a", &[ORIGIN]).await;
        assert_eq!(busy.status, 429);
        is_readable(&busy);
        let gate = Gate::start_alone(&format!("[hold]\nmax = 1\n{}", rule(""))).await;
        let _held = gate.hold(way, "/comet/a").await;
        let full = way.connect(&gate).await.poll_with("GET", "/comet/a", &[ORIGIN]).await;
        assert_eq!(full.status, 503);
        is_readable(&full);
        let wrong = way.connect(&gate).await.poll_with("DELETE", "/comet/a", &[ORIGIN]).await;
        assert_eq!(wrong.status, 405);
        is_readable(&wrong);
    }
}

#[tokio::test]
async fn a_request_that_comes_too_soon_is_refused_readably() {
    let config = format!("[limits]\nrequests_per_second = 1\n{BARE}");
    for way in Way::ALL {
        let gate = Gate::start_alone(&config).await;
        let mut poller = way.connect(&gate).await;
        let mut refused = None;
        for _ in 0..10 {
            let answer = poller.poll_with("HEAD", "/bare", &[ORIGIN]).await;
            if answer.status == 429 {
                refused = Some(answer);
                break;
            }
        }
        is_readable(&refused.unwrap());
        let foreign = [("Origin", "https://b.example")];
        let other = poller.poll_with("HEAD", "/bare", &foreign).await;
        assert_eq!((other.status, other.header("access-control-allow-origin")), (429, None));
    }
}

#[tokio::test]
async fn the_site_is_told_how_a_poll_came_when_it_is_asked_about_it() {
    let rule = "[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\n\
                auth = { kind = \"upstream\", url = \"/auth.php\", cache = \"0s\" }\n";
    let site = PlainSite::start().await;
    let gate = Gate::with(rule).upstream(site.addr()).tls(support::tls::Identity::any());
    let gate = gate.start().await;
    for way in Way::ALL {
        let mut poller = way.connect(&gate).await;
        let forged = [("Cookie", "a=b"), ("X-Forwarded-Proto", "gopher"), ("Host", "site.example")];
        let headers = if matches!(way, Way::Plain | Way::Odd) { &forged[..] } else { &forged[..2] };
        assert_eq!(poller.poll_with("GET", "/comet/a?timeout=0", headers).await.status, 200);
        let asked = site.last();
        assert!(asked.line().starts_with("GET /auth.php"), "{}", asked.head);
        assert_eq!(poller.poll_with("GET", "/page", headers).await.status, 200);
        let page = site.last();
        for name in ["X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-For", "Forwarded"] {
            assert!(asked.header(name).is_some(), "{name}: {}", asked.head);
            assert_eq!(asked.header(name), page.header(name), "{name} {way:?}");
        }
        assert_eq!(asked.header("X-Forwarded-Proto"), Some("https"));
    }
}

#[tokio::test]
async fn cookies_in_many_pieces_are_one_header() {
    let rule = "[[poll]]\npath = \"/by-cookie\"\ndialect = \"timestamp\"\n\
                channel = \"{cookie.room}\"\n";
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), rule).await;
    gate.publish("blue", "hello").await;
    let pieces: Vec<String> = (0..200).map(|n| format!("c{n}=v{n}")).collect();
    let mut headers: Vec<(&str, &str)> = pieces.iter().map(|one| ("cookie", &**one)).collect();
    headers.push(("cookie", "room=blue"));
    for way in Way::HTTP2 {
        let mut poller = way.connect(&gate).await;
        let page = poller.poll_with("GET", "/page", &headers).await;
        assert_eq!(page.status, 200, "{}", page.text());
        let cookie = format!("{}; room=blue", pieces.join("; "));
        assert_eq!(site.last().header("cookie"), Some(&*cookie));
        let poll = poller.poll_with("GET", "/by-cookie?timestamp=1", &headers).await;
        assert_eq!(poll.json()["msg"], "hello");
        // What is no cookie counts as ever.
        let many: Vec<(String, &str)> = (0..101).map(|n| (format!("x-{n}"), "y")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, *value)).collect();
        assert_eq!(poller.poll_with("GET", "/page", &many).await.status, 431);
    }
}

#[tokio::test]
async fn a_cookie_in_latin_1_hides_no_other() {
    let rule = "[[poll]]\npath = \"/by-cookie\"\ndialect = \"timestamp\"\n\
                channel = \"{cookie.room}\"\n\
                auth = { kind = \"upstream\", url = \"/auth.php\" }\n";
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), rule).await;
    gate.publish("blue", "hello").await;
    for odd in ["", "Content-Length: 0\r\n"] {
        let mut client = gate.connect().await;
        let head = format!("GET /by-cookie?timestamp=1 HTTP/1.1\r\nHost: a\r\n{odd}Cookie: name=J");
        client.send_raw([head.as_bytes(), b"\xf6rg; room=blue\r\n\r\n"].concat()).await;
        let answer = client.read_response().await;
        assert_eq!(answer.json()["msg"], "hello", "{odd:?}");
        let asked = site.last();
        assert!(asked.line().starts_with("GET /auth.php"), "{}", asked.head);
        assert_eq!(asked.header("cookie"), Some("name=J\u{fffd}rg; room=blue"));
    }
    // The one such cookie makes another client.
    let before = site.requests().len();
    let mut client = gate.connect().await;
    let head = "GET /by-cookie?timestamp=1 HTTP/1.1\r\nHost: a\r\nCookie: name=J";
    client.send_raw([head.as_bytes(), b"\xfcrg; room=blue\r\n\r\n"].concat()).await;
    assert_eq!(client.read_response().await.status, 200);
    assert_eq!(site.requests().len(), before + 1);
}

#[tokio::test]
async fn an_old_client_gets_neither_chunks_nor_interim_answers() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), "").await;
    for (answer, keep) in [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", true),
    ] {
        for asks in [false, true] {
            let mut client = gate.connect().await;
            let connection = if asks { "Connection: keep-alive\r\n" } else { "" };
            client.send_raw(format!("GET /page HTTP/1.0\r\n{connection}\r\n")).await;
            let mut visit = site.visit().await;
            let head = &visit.request.head;
            assert!(head.starts_with("GET /page HTTP/1.0\r\n"), "{head}");
            assert_eq!(visit.request.header("host"), None, "{head}");
            assert_eq!(visit.request.header("x-forwarded-host"), None, "{head}");
            visit.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n").await;
            visit.send(answer).await;
            drop(visit);
            let got = client.read_response().await;
            assert_eq!((got.status, got.text()), (200, "hello".into()), "{answer:?}");
            assert_eq!(got.header("transfer-encoding"), None);
            let expected = if keep && asks { "keep-alive" } else { "close" };
            assert_eq!(got.header("connection"), Some(expected), "{answer:?}");
            if expected == "close" {
                client.wait_for_close().await;
            }
        }
    }
}

#[tokio::test]
async fn an_old_client_that_names_a_host_has_it_passed_on_and_expects_nothing() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), "").await;
    let mut client = gate.connect().await;
    let head = "POST /page HTTP/1.0\r\nHost: site.example\r\nExpect: 100-continue\r\n";
    client.send_raw(format!("{head}Content-Length: 2\r\n\r\nhi")).await;
    assert_eq!(client.read_response().await.status, 200);
    let got = site.last();
    assert_eq!((got.header("host"), got.header("expect")), (Some("site.example"), None));
    assert_eq!(got.body, b"hi");
}

#[tokio::test]
async fn without_a_host_http_1_1_is_refused_on_every_listener() {
    let site = PlainSite::start().await;
    let redirect = "[tls]\nredirect = [\"127.0.0.1:0\"]\n";
    let secure = Gate::with(redirect).alone().tls(support::tls::Identity::any()).start().await;
    let gate = Gate::start_before(site.addr(), "").await;
    let plain = [gate.addr(), gate.internal(), &secure.redirect()];
    for addr in plain.into_iter().chain([secure.addr()]) {
        for head in [
            "GET /comet/a?timeout=0 HTTP/1.1\r\n",
            "GET /page HTTP/1.1\r\n",
            "GET /healthz HTTP/1.1\r\nX: Host: a\r\n",
            "GET http://a/page HTTP/1.1\r\n",
            "POST /comet/a HTTP/1.1\r\nContent-Length: 0\r\n",
        ] {
            let mut client = Client::connect(addr).await;
            client.send_raw(format!("{head}\r\n")).await;
            let answer = client.read_response().await;
            assert_eq!(answer.status, 400, "{addr} {head:?}");
            client.wait_for_close().await;
        }
    }
    assert!(site.requests().is_empty());
}

#[tokio::test]
async fn what_belongs_to_the_site_s_connection_ends_at_the_gate() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), "").await;
    for way in Way::ALL {
        let mut poller = way.connect(&gate).await;
        poller.ask("/page").await;
        let mut visit = site.visit().await;
        let head = "HTTP/1.1 200 OK\r\nConnection: close, X-Private, Set-Cookie\r\n\
                    Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2,h2c\r\n\
                    X-Private: a\r\nTE: trailers\r\nTrailer: X-Sum\r\nX-Public: b\r\n\
                    Set-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok";
        visit.send(head).await;
        let got = poller.answer().await;
        let ended = ["keep-alive", "proxy-connection", "upgrade", "x-private", "te", "trailer"];
        for name in ended {
            assert_eq!(got.header(name), None, "{name} {way:?}");
        }
        assert_eq!((got.header("x-public"), got.header("set-cookie")), (Some("b"), Some("a=b")));
        assert!(!lists(&got, "connection", "x-private"));
    }
}
