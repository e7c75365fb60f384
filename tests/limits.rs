//! What one client can take from the others has a bound: requests and connections a second, and
//! open files.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::{
    BOUND, Client, Gate, Metrics, PlainSite, Response, Way, eventually, eventually_some,
};

/// How often requests were refused for that reason.
async fn refusals(gate: &Gate, cause: &str) -> f64 {
    let metrics = Metrics::parse(&gate.hook("GET", "/metrics", &[], "").await.text());
    metrics.value(&format!("pollgate_refusals_total{{cause=\"{cause}\"}}"))
}

/// Asks until the answer has that status: a bucket fills while others take from it.
async fn ask_until(status: u16, mut ask: impl AsyncFnMut() -> Response) -> Response {
    let mut answer = None;
    eventually(&format!("an answer with status {status}"), async || {
        let response = ask().await;
        let found = response.status == status;
        answer = Some(response);
        found
    })
    .await;
    answer.unwrap()
}

#[tokio::test]
async fn an_address_asks_only_so_often_whichever_way_it_comes() {
    for way in Way::ALL {
        let site = PlainSite::start().await;
        let config = "[limits]\nrequests_per_second = 20";
        let gate = Gate::start_before(site.addr(), config).await;
        let mut poller = way.connect(&gate).await;
        // Each is counted once, whoever serves it.
        for n in 0..10 {
            assert_eq!(poller.poll("/comet/a?timeout=0").await.status, 200, "{way:?}: {n}");
            assert_eq!(poller.poll("/page").await.status, 200, "{way:?}: {n}");
        }
        let mut refused = None;
        for _ in 0..1000 {
            let response = poller.poll("/page").await;
            if response.status != 200 {
                refused = Some(response);
                break;
            }
        }
        let refused = refused.unwrap_or_else(|| panic!("{way:?}: nothing was refused"));
        assert_eq!(refused.status, 429, "{way:?}");
        assert_eq!(refused.header("retry-after"), Some("1"), "{way:?}");
        assert!(refused.text().contains("too many requests"), "{}", refused.text());
        assert_eq!(refusals(&gate, "request_rate").await, 1.0, "{way:?}");
        // It may again a moment later, on the same connection.
        ask_until(200, async || poller.poll("/comet/a?timeout=0").await).await;
    }
}

#[tokio::test]
async fn a_refused_upload_ends_its_connection_and_is_not_read_for_a_request() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), "[limits]\nrequests_per_second = 1").await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = format!("POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n", smuggled.len());
    let all = eventually_some("an upload that is refused", BOUND, async || {
        let mut client = gate.connect().await;
        client.send_raw(format!("{head}Connection: close\r\n\r\n{smuggled}")).await;
        let all = String::from_utf8_lossy(&client.read_to_end().await).into_owned();
        all.starts_with("HTTP/1.1 429").then_some(all)
    })
    .await;
    assert_eq!(all.matches("HTTP/1.1").count(), 1, "{all}");
    assert!(site.requests().iter().all(|request| !request.head.starts_with("GET")));
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own_share() {
    let config = "trusted_proxies = [\"127.0.0.1\"]\n[limits]\nrequests_per_second = 1\n\
                  connections_per_second = 1";
    let gate = Gate::start_alone(config).await;
    let ask = async |client: &str| {
        let mut proxy = gate.connect().await;
        let headers = [("X-Forwarded-For", client)];
        proxy.request("GET", "/comet/a?timeout=0", &headers, b"").await
    };
    for n in 1..50 {
        assert_eq!(ask(&format!("192.0.2.{n}")).await.status, 200, "{n}");
        // Each network of 64 bits is one client.
        assert_eq!(ask(&format!("2001:db8:0:{n:x}::1")).await.status, 200, "{n}");
    }
    ask_until(429, async || ask("192.0.2.1").await).await;
    let mut host = 1;
    ask_until(429, async || {
        host += 1;
        ask(&format!("2001:db8:0:1::{host:x}")).await
    })
    .await;
    // The proxy itself connects as often as it likes.
    assert_eq!(refusals(&gate, "connection_rate").await, 0.0);
}

#[tokio::test]
async fn an_address_connects_only_so_often() {
    let gate = Gate::start_alone("[limits]\nconnections_per_second = 10").await;
    let mut kept = Vec::new();
    for n in 0..10 {
        let mut client = gate.connect().await;
        assert_eq!(client.get("/comet/a?timeout=0").await.status, 200, "{n}");
        kept.push(client);
    }
    eventually("a connection that is closed", async || {
        let mut client = gate.connect().await;
        let _ = client.try_send_raw("GET /comet/a?timeout=0 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_unless_closed().await.is_none()
    })
    .await;
    assert!(refusals(&gate, "connection_rate").await >= 1.0);
    // Those there are, and the internal side, do not notice.
    for client in &mut kept {
        assert_eq!(client.get("/comet/a?timeout=0").await.status, 200);
    }
    gate.publish("a", "x").await;
}

#[tokio::test]
async fn a_reload_changes_how_often() {
    let gate = Gate::start_alone("").await;
    let mut client = gate.connect().await;
    for _ in 0..20 {
        assert_eq!(client.get("/comet/a?timeout=0").await.status, 200);
    }
    gate.reconfigure("[limits]\nrequests_per_second = 1").await;
    ask_until(429, async || client.get("/comet/a?timeout=0").await).await;
    gate.reconfigure("").await;
    for _ in 0..20 {
        assert_eq!(client.get("/comet/a?timeout=0").await.status, 200);
    }
}

#[tokio::test]
async fn clients_that_take_all_files_take_neither_the_hook_nor_the_site() {
    let site = PlainSite::start().await;
    let plan = Gate::with("[hold]\nmax = 5000").upstream(site.addr()).open_files(300);
    let gate = plan.start().await;
    gate.wait_for_log("hold.max").await;
    let mut first = gate.connect().await;
    assert_eq!(first.get("/page").await.status, 200);
    let mut held = gate.connect().await;
    held.send_get("/comet/news").await;
    gate.wait_for_held(1).await;

    let mut crowd = Vec::new();
    for _ in 0..400 {
        crowd.push(Client::connect(gate.addr()).await);
    }
    eventually("connections refused", async || refusals(&gate, "files").await >= 100.0).await;
    let open = gate.open_files();
    assert!(open < 290, "{open} files are open, of 300");

    // The hook still works, on new connections; and a held poll gets its news.
    for n in 0..20 {
        gate.publish("news", format!("{n}")).await;
    }
    assert_eq!(held.read_response().await.json()["messages"][0]["data"], "0");
    // A connection that was there before is still forwarded.
    for _ in 0..20 {
        assert_eq!(first.get("/page").await.text(), "site: GET /page");
    }
    drop(crowd);
    // And when they are gone, everybody may come again.
    eventually("a new connection that is served", async || {
        let mut client = gate.connect().await;
        let _ = client.try_send_raw("GET /page HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_unless_closed().await.is_some_and(|response| response.status == 200)
    })
    .await;
    assert!(!gate.log().contains("Too many open files"), "{}", gate.log());
}

#[tokio::test]
async fn requests_to_the_site_take_only_their_share_of_the_files() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::with("").upstream(site.addr()).open_files(300).start().await;
    // Each of these streams wants a connection to the site.
    let mut crowd = Vec::new();
    for _ in 0..4 {
        let mut poller = Way::Http2.connect(&gate).await;
        for _ in 0..100 {
            poller.ask("/slow").await;
        }
        crowd.push(poller);
    }
    eventually("requests refused", async || refusals(&gate, "files").await >= 100.0).await;
    gate.publish("news", "x").await;
    let open = gate.open_files();
    assert!(open < 290, "{open} files are open, of 300");
    let mut visit = site.visit().await;
    visit.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
}
