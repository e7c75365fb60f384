//! No line of the log, at any level, in either format, shows what a client or the site keeps
//! secret: tokens in queries, credentials in headers, cookies, bodies, the password of Redis.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::http2::Http2;
use support::tls::Identity;
use support::{Addr, Client, FORM, Gate, PlainSite, eventually};
use tokio::net::TcpListener;

/// Stands for every secret.
const MARKER: &str = "s3cr3tmarker";
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

fn config(level: &str, format: &str) -> String {
    format!(
        r#"
        [log]
        level = "{level}"
        format = "{format}"
        [upstream]
        may_publish = true
        read_timeout = "1s"
        [[poll]]
        path = "/comet/*"
        dialect = "native"
        auth = {{ kind = "jwt", key = "{MARKER}-key" }}
        [[poll]]
        path = "/asked/*"
        dialect = "native"
        auth = {{ kind = "upstream", url = "/auth.php?key={MARKER}" }}
        [[poll]]
        path = "/replay"
        dialect = "replay"
        channel = "news"
        share = true
        [[capture]]
        path = "/*"
        channel = "live"
        data = "{{form.msg}}"
        "#
    )
}

fn jwt() -> String {
    format!("eyJhbGciOiJIUzI1NiJ9.{MARKER}.{MARKER}")
}

fn headers() -> [(&'static str, String); 5] {
    [
        ("Connection", "close".to_owned()),
        ("Authorization", format!("Bearer {}", jwt())),
        ("Cookie", format!("PHPSESSID={MARKER}; pollgate_token={MARKER}")),
        ("X-Api-Key", MARKER.to_owned()),
        ("Content-Type", FORM.to_owned()),
    ]
}

/// Asks for everything that goes wrong, over a new connection each time.
async fn ask(addr: &Addr, target: &str) {
    let headers = headers();
    let headers: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = format!("msg={MARKER}&a;b");
    for method in ["GET", "POST", "PUT"] {
        let mut client = Client::connect(addr).await;
        let body = if method == "GET" { b"" } else { body.as_bytes() };
        client.send(method, target, &headers, body).await;
        client.read_to_end().await;
    }
}

fn assert_silent(gate: &Gate, case: &str) {
    let log = gate.log();
    let line = log.lines().find(|line| line.contains(MARKER));
    assert!(line.is_none(), "{case}: {}", line.unwrap_or_default());
}

fn targets() -> [String; 4] {
    [
        format!("/page?token={MARKER}"),
        format!("/comet/news?token={}&timeout=0", jwt()),
        format!("/asked/news?token={MARKER}&timeout=0"),
        format!("/replay?token={MARKER}"),
    ]
}

/// Raw requests that are refused, and ones that break off.
async fn break_off(addr: &Addr, mark: &str) {
    for raw in [
        format!("GET /?token={mark} HTTP/1.1\r\nHost : a\r\nCookie: {mark}\r\n\r\n"),
        format!(
            "POST /?token={mark} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{mark}\r\n"
        ),
        format!("POST / HTTP/1.1\r\nHost: a\r\nCookie: {mark}\r\nContent-Length: 99\r\n\r\n{mark}"),
        format!("Authorization: {mark}\r\n\r\n"),
        format!(
            "GET /ws?token={mark} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\nCookie: {mark}\r\n\r\n"
        ),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{mark}{mark}{mark}"),
    ] {
        let mut client = Client::connect(addr).await;
        client.send_raw(raw).await;
        client.half_close().await;
        client.read_to_end().await;
    }
}

#[tokio::test]
async fn no_level_shows_what_a_request_to_a_site_that_is_down_holds() {
    for (format, level) in
        LEVELS.map(|level| ("text", level)).into_iter().chain([("json", "trace")])
    {
        let gate = Gate::start_alone(&config(level, format)).await;
        for target in targets() {
            gate.publish("news", MARKER).await;
            ask(gate.addr(), &target).await;
        }
        break_off(gate.addr(), MARKER).await;
        break_off(gate.internal(), MARKER).await;
        let mut http2 = Http2::connect(gate.addr()).await;
        http2.ask("GET", &format!("/page?token={MARKER}"), &[("cookie", MARKER)]).await;
        http2.answer().await;
        http2.ask("GET", &format!("/replay?token={MARKER}"), &[("cookie", MARKER)]).await;
        http2.cancel();
        drop(http2);
        if level != "error" {
            gate.wait_for_log("502").await;
        }
        assert_silent(&gate, &format!("{level} {format}"));
    }
}

#[tokio::test]
async fn no_level_shows_what_a_site_says_that_breaks_off() {
    let answers = [
        format!("HTTP/1.1 200 OK\r\nSet-Cookie: {MARKER}\r\nContent-Length: 99\r\n\r\n{MARKER}"),
        format!("HTTP/1.1 200 OK\r\nSet-Cookie {MARKER}\r\n\r\n{MARKER}"),
        format!("HTTP/1.1 200 OK\r\nPollgate-Publish: live; {MARKER}\r\nContent-Length: 0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{MARKER}\r\n"),
        format!("HTTP/1.1 200 OK\r\nPollgate-Channels: {MARKER}*\r\nContent-Length: 0\r\n\r\n"),
        format!("{MARKER} {MARKER}\r\n\r\n"),
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {MARKER}\r\n\r\n{MARKER}"
        ),
        String::new(),
    ];
    for (format, level) in
        [("text", "trace"), ("json", "debug"), ("text", "info"), ("text", "error")]
    {
        let mut site = PlainSite::start_by_hand().await;
        let gate = Gate::start_before(site.addr(), &config(level, format)).await;
        for answer in &answers {
            for target in targets() {
                gate.publish("news", MARKER).await;
                let asking = ask(gate.addr(), &target);
                let answering = async {
                    loop {
                        let mut visit = site.visit_or_wait().await;
                        visit.try_send(answer).await;
                    }
                };
                tokio::select! { () = asking => {}, () = answering => {} }
            }
        }
        if level != "error" {
            gate.wait_for_log("502").await;
        }
        assert_silent(&gate, &format!("{level} {format}"));
        // The events on the internal page are the log's.
        let page = gate.hook("GET", "/status", &[], "").await.text();
        assert!(!page.contains(MARKER), "{page}");
    }
}

#[tokio::test]
async fn no_level_shows_a_failed_handshake_or_the_password_of_redis() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let redis = silent.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = silent.accept().await {
            drop(stream);
        }
    });
    for level in ["trace", "info"] {
        let backplane = format!("[backplane]\nredis = \"redis://user:{MARKER}@{redis}\"\n");
        let gate = Gate::with(&(config(level, "json") + &backplane)).alone().start().await;
        gate.hook("POST", "/channels/news", &[], MARKER).await;
        gate.wait_for_log("the backplane is away").await;
        assert_silent(&gate, level);
        let gate = Gate::with(&config(level, "text")).tls(Identity::any()).alone().start().await;
        let Addr::Tls(addr) = gate.addr() else { panic!("no TLS") };
        break_off(&Addr::Tcp(*addr), MARKER).await;
        ask(gate.addr(), &format!("/page?token={MARKER}")).await;
        eventually("a line", async || gate.log().contains("502")).await;
        assert_silent(&gate, level);
    }
}
