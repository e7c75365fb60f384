//! What happens between a client and the site on one connection: tunnels that are quiet, early bytes,
//! half-closed connections, and connections on which a user is signed in.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;
use support::tls::Identity;
use support::{Gate, PlainSite, Way};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

fn handshake() -> String {
    format!("GET /socket HTTP/1.1\r\nHost: a\r\n{UPGRADE}\r\n")
}

#[tokio::test]
async fn a_quiet_websocket_outlives_the_site_s_read_timeout() {
    let config = "[upstream]\nread_timeout = \"300ms\"\n[limits]\nidle_timeout = \"300ms\"\n\
                  write_timeout = \"300ms\"\nhead_timeout = \"300ms\"";
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), config).await;
    let mut client = gate.connect().await;
    client.send_raw(handshake()).await;
    let mut visit = site.visit().await;
    visit.send(SWITCH).await;
    assert_eq!(client.read_head().await.status, 101);
    let quiet = tokio::time::timeout(Duration::from_millis(1200), client.read_until("\n")).await;
    assert!(quiet.is_err(), "{quiet:?}");
    visit.send("from the site\n").await;
    client.read_until("from the site\n").await;
    client.send_raw("from the client\n").await;
    visit.read_until("from the client\n").await;
}

#[tokio::test]
async fn a_site_that_does_not_answer_a_handshake_is_a_504() {
    let config = "[upstream]\nread_timeout = \"300ms\"";
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), config).await;
    let mut client = gate.connect().await;
    client.send_raw(handshake()).await;
    let _visit = site.visit().await;
    assert_eq!(client.read_response().await.status, 504);
}

#[tokio::test]
async fn what_a_client_sends_with_its_handshake_reaches_the_site_after_it_has_agreed() {
    for over_tls in [false, true] {
        let mut site = PlainSite::start_by_hand().await;
        let plan = Gate::with("").upstream(site.addr());
        let gate = if over_tls { plan.tls(Identity::any()) } else { plan }.start().await;
        let mut client = gate.connect().await;
        client.send_raw(format!("{}early\n", handshake())).await;
        let mut visit = site.visit().await;
        client.send_raw("and more\n").await;
        assert!(client.is_quiet().await);
        visit.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
        assert_eq!(client.read_head().await.status, 103);
        visit.send(SWITCH).await;
        assert_eq!(client.read_head().await.status, 101);
        assert_eq!(visit.read_until("and more\n").await, "early\nand more\n");
        visit.send("welcome\n").await;
        client.read_until("welcome\n").await;
        client.close();
        visit.wait_for_close().await;
    }
}

#[tokio::test]
async fn what_a_client_sends_with_a_handshake_that_is_refused_reaches_nobody() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), "").await;
    let mut client = gate.connect().await;
    client.send_raw(format!("{}GET /secret HTTP/1.1\r\nHost: a\r\n\r\n", handshake())).await;
    let mut visit = site.visit().await;
    visit.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    let answer = client.read_response().await;
    assert_eq!((answer.status, answer.text()), (403, "no".into()));
    client.wait_for_close().await;
    assert_eq!(site.requests().len(), 1);
}

#[tokio::test]
async fn a_request_for_another_protocol_may_have_a_body() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), "").await;
    let mut client = gate.connect().await;
    let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n";
    let head = format!("POST /page HTTP/1.1\r\nHost: a\r\n{upgrade}Content-Length: 5\r\n\r\n");
    client.send_raw(format!("{head}hello")).await;
    assert_eq!(client.read_response().await.status, 200);
    assert_eq!(site.last().body, b"hello");
}

#[tokio::test]
async fn a_client_that_closes_its_half_still_gets_the_site_s_answer() {
    for over_tls in [false, true] {
        let mut site = PlainSite::start_by_hand().await;
        let plan = Gate::with("").upstream(site.addr());
        let gate = if over_tls { plan.tls(Identity::any()) } else { plan }.start().await;
        for request in [
            "GET /page HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /page HTTP/1.0\r\n\r\n",
            "POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
            // One that is looked at before it is the site's.
            "HEAD /comet?x=y HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            let mut client = gate.connect().await;
            client.send_raw(request).await;
            client.half_close().await;
            let mut visit = site.visit().await;
            assert!(client.is_quiet().await, "{request:?}");
            let head = request.starts_with("HEAD");
            visit.send(if head { OK.trim_end_matches("ok") } else { OK }).await;
            let method = if head { "HEAD" } else { "GET" };
            let answer = client.read_response_to(method).await;
            assert_eq!(answer.status, 200, "{request:?}");
            client.wait_for_close().await;
        }
        // A long answer goes on.
        let mut client = gate.connect().await;
        client.send_raw("GET /page HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut visit = site.visit().await;
        visit.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await;
        client.read_until("ab").await;
        client.half_close().await;
        assert!(client.is_quiet().await);
        visit.send("cd").await;
        client.read_until("cd").await;
    }
}

#[tokio::test]
async fn a_client_that_closes_its_half_ends_its_poll() {
    let gate = Gate::start_alone("").await;
    for way in Way::HTTP1 {
        let mut poller = gate.hold(way, "/comet/a").await;
        poller.client().half_close().await;
        gate.wait_for_held(0).await;
    }
}

#[tokio::test]
async fn a_connection_that_somebody_signs_in_on_is_nobody_else_s() {
    for scheme in ["NTLM", "Negotiate"] {
        let site = PlainSite::start().await;
        let gate = Gate::start_before(site.addr(), "").await;
        let mut user = gate.connect().await;
        let mut other = gate.connect().await;
        let token = format!("{scheme} TlRMTVNTUAABAAAA");
        assert_eq!(other.get("/before").await.status, 200);
        user.request("GET", "/page", &[("Authorization", &token)], b"").await;
        let own = site.last().connection;
        // Signed in by now, it asks without a word about it.
        user.get("/page").await;
        assert_eq!(site.last().connection, own, "{scheme}");
        for _ in 0..3 {
            other.get("/page").await;
            assert_ne!(site.last().connection, own, "{scheme}");
            let mut third = gate.connect().await;
            third.request("GET", "/page", &[("Authorization", &token)], b"").await;
            assert_ne!(site.last().connection, own, "{scheme}");
        }
        user.get("/comet/a?timeout=0").await;
        user.get("/page").await;
        assert_eq!(site.last().connection, own, "{scheme}");
        user.close();
        let mut late = gate.connect().await;
        late.get("/page").await;
        assert_ne!(site.last().connection, own, "{scheme}");
    }
}

#[tokio::test]
async fn others_share_their_connections_to_the_site() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), "").await;
    for _ in 0..20 {
        let headers = [("Authorization", "Basic bnRsbTpuZWdvdGlhdGU=")];
        gate.connect().await.request("GET", "/page", &headers, b"").await;
    }
    let connections: Vec<usize> = site.requests().iter().map(|it| it.connection).collect();
    // A connection comes back a moment after its answer, so a request may need another.
    assert!(*connections.iter().max().unwrap() < 10, "{connections:?}");
}
