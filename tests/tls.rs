//! TLS on the public listener: polls are held and released over it, the site gets the scheme, and a
//! certificate is checked before any client sees it.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use support::bytes::{by_rule, first_difference};
use support::tls::{self, Identity};
use support::{Addr, Client, Gate, PlainSite, TempDir, Way, pollgate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn gate() -> Gate {
    Gate::with("").alone().tls(Identity::any()).start().await
}

fn tcp(addr: &Addr) -> std::net::SocketAddr {
    match addr {
        Addr::Tcp(tcp) | Addr::Tls(tcp) => *tcp,
        Addr::Unix(_) => panic!("{addr} is no TCP"),
    }
}

#[tokio::test]
async fn polls_are_held_and_released_over_tls_in_every_way() {
    let gate = gate().await;
    for way in Way::ALL {
        let mut poller = gate.hold(way, "/comet/news").await;
        assert!(poller.is_quiet().await, "{way:?}");
        let published = gate.publish("news", "hello").await;
        assert_eq!(published["released"], 1, "{way:?}");
        assert_eq!(poller.answer().await.json()["messages"][0]["data"], "hello", "{way:?}");
        // The connection is kept for the next poll.
        assert_eq!(poller.poll("/comet/news?timeout=0").await.status, 200, "{way:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_hold_over_tls() {
    let gate = gate().await;
    for way in Way::ALL {
        let poller = gate.hold(way, "/comet/news").await;
        poller.close();
        gate.wait_for_held(0).await;
    }
}

#[tokio::test]
async fn polls_over_tls_are_answered_when_the_gate_ends() {
    let gate = Gate::with("[drain]\nspread = \"0s\"\n").alone().tls(Identity::any()).start().await;
    let mut pollers = Vec::new();
    for way in Way::ALL {
        pollers.push(gate.hold(way, "/comet/news").await);
    }
    gate.signal("TERM");
    for mut poller in pollers {
        assert_eq!(poller.answer().await.status, 200);
    }
    assert_eq!(gate.wait_for_exit().await, 0);
}

#[tokio::test]
async fn either_version_of_tls_will_do_and_the_protocol_is_agreed_on() {
    let gate = gate().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (offered, chosen) in [
            (vec!["h2", "http/1.1"], Some("h2")),
            (vec!["http/1.1"], Some("http/1.1")),
            (vec![], None),
        ] {
            let stream = tls::try_connect(gate.addr(), &offered, &[version]).await.unwrap();
            let agreed = stream.get_ref().1.alpn_protocol();
            assert_eq!(agreed, chosen.map(str::as_bytes), "{version:?}");
            if chosen != Some("h2") {
                let mut client = Client::over(stream, gate.addr().host());
                assert_eq!(client.get("/comet/news?timeout=0").await.status, 200, "{version:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_session_is_resumed_from_what_the_client_kept() {
    let gate = gate().await;
    let config = std::sync::Arc::new(tls::client_config(&["http/1.1"], rustls::ALL_VERSIONS));
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let stream = tls::connect_with(gate.addr(), config.clone()).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        let mut client = Client::over(stream, gate.addr().host());
        assert_eq!(client.get("/comet/news?timeout=0").await.status, 200);
        kinds.push(kind);
    }
    use rustls::HandshakeKind::{Full, Resumed};
    assert_eq!(kinds, [Some(Full), Some(Resumed)]);
}

#[tokio::test]
async fn http2_that_was_not_agreed_on_is_refused_cleanly() {
    let gate = gate().await;
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for offered in [vec!["http/1.1"], vec![]] {
        let stream = tls::connect(gate.addr(), &offered).await;
        let mut client = Client::over(stream, gate.addr().host());
        client.send_raw(PREFACE).await;
        assert_eq!(client.read_response().await.status, 400);
        client.wait_for_close().await;
    }
    // The other way round: who has agreed on HTTP/2 and speaks HTTP/1.1 is let go.
    let stream = tls::connect(gate.addr(), &["h2"]).await;
    let mut client = Client::over(stream, gate.addr().host());
    client.send_get("/comet/news").await;
    client.wait_for_close().await;
}

#[tokio::test]
async fn the_site_is_told_that_the_client_came_over_tls() {
    let site = PlainSite::start().await;
    let gate = Gate::with("").upstream(site.addr()).tls(Identity::any()).start().await;
    for way in [Way::Plain, Way::Http2] {
        let mut poller = way.connect(&gate).await;
        let answer = poller.poll_with("GET", "/page", &[("X-Forwarded-Proto", "http")]).await;
        assert_eq!(answer.status, 200, "{way:?}: {}", answer.text());
        let asked = site.last();
        assert_eq!(asked.header("X-Forwarded-Proto"), Some("https"), "{way:?}");
        let hop = asked.header("Forwarded").unwrap_or_default();
        assert!(hop.ends_with("proto=https"), "{way:?}: {hop}");
    }
}

#[tokio::test]
async fn large_bodies_pass_over_tls_both_ways() {
    let body = by_rule(3_000_000);

    let site = PlainSite::start().await;
    let gate = Gate::with("").upstream(site.addr()).tls(Identity::any()).start().await;
    let mut client = gate.connect().await;
    assert_eq!(client.post("/upload", "application/octet-stream", &body).await.status, 200);
    assert_eq!(first_difference(&site.last().body, &body), None);
    // And the connection is in order afterwards.
    assert_eq!(client.get("/comet/news?timeout=0").await.status, 200);

    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::with("").upstream(site.addr()).tls(Identity::any()).start().await;
    let mut client = gate.connect().await;
    client.send_get("/download").await;
    let mut visit = site.visit().await;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let sent = tokio::spawn(async move {
        visit.send(head).await;
        visit.send(by_rule(3_000_000)).await;
        visit
    });
    assert_eq!(first_difference(&client.read_response().await.body, &body), None);
    sent.await.unwrap();
}

#[tokio::test]
async fn who_says_nothing_or_half_a_greeting_is_let_go() {
    let config = "[limits]\nhead_timeout = \"300ms\"\n";
    let gate = Gate::with(config).alone().tls(Identity::any()).start().await;
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        let mut stream = TcpStream::connect(tcp(gate.addr())).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest));
        closed.await.expect("the connection is closed").unwrap();
        assert!(rest.is_empty(), "{rest:?}");
    }
}

#[tokio::test]
async fn who_speaks_no_tls_is_told_so_and_fills_no_log() {
    let gate = gate().await;
    let plain = Addr::Tcp(tcp(gate.addr()));
    let mut client = Client::connect(&plain).await;
    client.send_get("/comet/news").await;
    let refused = client.read_response().await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("https://"), "{}", refused.text());

    let mut stream = TcpStream::connect(tcp(gate.addr())).await.unwrap();
    stream.write_all(b"\x00\x01\x02\x03nonsense").await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest));
    // A reset will do as well.
    let _ = closed.await.expect("the connection is closed");
    let loud = |line: &&str| line.contains("WARN") || line.contains("ERROR");
    let log = gate.log();
    // The site that is not there, and a file limit that is low here, are no news.
    let lines: Vec<_> = log
        .lines()
        .filter(loud)
        .filter(|line| !line.contains("upstream") && !line.contains("hold.max"))
        .collect();
    assert!(lines.is_empty(), "{lines:?}");
}

#[tokio::test]
async fn unix_sockets_stay_plain() {
    let folder = TempDir::new("tls");
    let socket = format!("unix:{}", folder.path().join("gate.sock").display());
    let plan = Gate::with("").alone().tls(Identity::any()).listen(["127.0.0.1:0", &socket]);
    let gate = plan.start().await;
    for addr in gate.addrs() {
        let mut client = Client::connect(addr).await;
        assert_eq!(client.get("/comet/news?timeout=0").await.status, 200, "{addr}");
    }
    assert!(matches!(gate.addrs(), [Addr::Tls(_), Addr::Unix(_)]));
}

#[tokio::test]
async fn plain_http_is_shown_the_way_to_https() {
    let site = PlainSite::start().await;
    let plan = Gate::with("").upstream(site.addr()).tls(Identity::any());
    let gate = plan.args(["--set", "tls.redirect=127.0.0.1:0"]).start().await;
    let redirect = gate.redirect();
    let port = gate.addr().port();
    let mut client = Client::connect(&redirect).await;
    for method in ["GET", "HEAD", "POST"] {
        let headers = [("Host", "site.example:80")];
        let answer = client.request(method, "/a?b=c", &headers, b"").await;
        assert_eq!(answer.status, 308, "{method}");
        let way = format!("https://site.example:{port}/a?b=c");
        assert_eq!(answer.header("location"), Some(way.as_str()), "{method}");
    }
    // HTTP/2 with prior knowledge is not spoken here.
    let mut prior = Client::connect(&redirect).await;
    prior.send_raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let answer = String::from_utf8_lossy(&prior.read_to_end().await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    // A poll is no exception; what a certificate is asked for by is.
    assert_eq!(client.get("/comet/news").await.status, 308);
    let challenge = client.get("/.well-known/acme-challenge/token").await;
    assert_eq!(challenge.header("location"), None);
    assert_ne!(challenge.status, 308);
}

#[tokio::test]
async fn a_reload_shows_the_new_certificate_and_drops_nobody() {
    let old = Identity::make();
    let gate = Gate::with("").alone().tls(&old).start().await;
    let mut held = Vec::new();
    for way in Way::ALL {
        held.push(gate.hold(way, "/comet/news").await);
    }
    assert_eq!(shown(&gate).await, old.der);

    // One without its key changes nothing.
    let new = Identity::make();
    std::fs::write(gate.folder().join("cert.pem"), &new.cert).unwrap();
    let refused = gate.hook("POST", "/reload", &[], "").await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert_eq!(refused.json()["mistakes"][0]["key"], "tls.key", "{}", refused.text());
    assert_eq!(shown(&gate).await, old.der);

    new.write_to(gate.folder());
    let reloaded = gate.hook("POST", "/reload", &[], "").await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    assert_eq!(reloaded.json()["changed"], serde_json::json!(["tls.cert"]));
    assert_eq!(shown(&gate).await, new.der);

    gate.publish("news", "hello").await;
    for mut poller in held {
        assert_eq!(poller.answer().await.json()["messages"][0]["data"], "hello");
    }
}

#[tokio::test]
async fn to_begin_with_tls_takes_a_restart() {
    let gate = Gate::with("").alone().start().await;
    Identity::any().write_to(gate.folder());
    let folder = gate.folder().display();
    let tls = format!("[tls]\ncert = \"{folder}/cert.pem\"\nkey = \"{folder}/key.pem\"\n");
    std::fs::write(gate.config_file(), tls).unwrap();
    let reloaded = gate.hook("POST", "/reload", &[], "").await.json();
    assert_eq!(reloaded["restart"], serde_json::json!(["tls"]), "{reloaded}");
    assert_eq!(gate.get("/comet/news?timeout=0").await.status, 200);
}

/// The certificate that a new client is shown.
async fn shown(gate: &Gate) -> Vec<u8> {
    let stream = tls::connect(gate.addr(), &["http/1.1"]).await;
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn wrong_certificates_are_told_at_check_with_what_to_do() {
    let folder = TempDir::new("tls");
    let good = Identity::make();
    let other = Identity::make();
    good.write_to(folder.path());
    folder.write("other.pem", &other.key);
    folder.write("empty.pem", "");
    folder.write("noise.pem", "no certificate at all\n");
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    folder.write("locked.pem", encrypted);
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (cert, key, wrong, told) in [
        ("none.pem", "key.pem", "tls.cert", "there is no file"),
        ("noise.pem", "key.pem", "tls.cert", "holds no certificate"),
        ("key.pem", "key.pem", "tls.cert", "swapped"),
        ("cert.pem", "none.pem", "tls.key", "there is no file"),
        ("cert.pem", "empty.pem", "tls.key", "holds no private key"),
        ("cert.pem", "cert.pem", "tls.key", "swapped"),
        ("cert.pem", "locked.pem", "tls.key", "is encrypted"),
        ("cert.pem", "other.pem", "tls.key", "does not belong to the first certificate"),
    ] {
        let config = format!(
            "[upstream]\nservers = [\"127.0.0.1:1\"]\n[tls]\ncert = {:?}\nkey = {:?}\n",
            path(cert),
            path(key)
        );
        let file = folder.write("pollgate.toml", config);
        let file = file.to_str().unwrap();
        for command in [&["check", "--config", file][..], &["run", "--config", file]] {
            let done = pollgate(command).await;
            assert_eq!(done.code, 2, "{cert} {key}: {}", done.stderr);
            let line = done.stderr.lines().find(|line| line.contains(wrong)).unwrap_or_default();
            assert!(line.contains(told), "{cert} {key}: {}", done.stderr);
        }
    }
}

#[tokio::test]
async fn a_key_that_everybody_can_read_is_warned_about() {
    let folder = TempDir::new("tls");
    Identity::any().write_to(folder.path());
    let key = folder.path().join("key.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let config = format!(
        "[upstream]\nservers = [\"127.0.0.1:1\"]\n[tls]\ncert = \"{0}/cert.pem\"\nkey = \"{0}/key.pem\"\n",
        folder.path().display()
    );
    let file = folder.write("pollgate.toml", config);
    let done = pollgate(&["check", "--config", file.to_str().unwrap()]).await;
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stderr.contains("warning: tls.key: every user"), "{}", done.stderr);
}

#[tokio::test]
async fn a_poll_held_over_tls_costs_no_buffer() {
    const FEW: u64 = 50;
    const MANY: u64 = 450;
    let gate = gate().await;
    let mut pollers = Vec::new();
    let mut hold = async |count: u64| {
        while (pollers.len() as u64) < count {
            let mut poller = Way::Plain.connect(&gate).await;
            poller.ask("/comet/news").await;
            pollers.push(poller);
        }
        gate.wait_for_held(count).await;
        gate.rss()
    };
    // The first ones pay for what is there once.
    let before = hold(FEW).await;
    let after = hold(MANY).await;
    let each = after.saturating_sub(before) / (MANY - FEW);
    // About 6.5 KiB, of which the keys are more than half; a buffer would be 4 KiB and more.
    assert!(each < 10 * 1024, "{each} bytes for each held poll");
}
