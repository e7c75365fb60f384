//! Bounds on the share of one client: requests and connections a second, and open files.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use support::{
    BOUND, Client, Gate, Metrics, PlainSite, Response, Way, eventually, eventually_some,
};

/// Number of requests refused for that cause.
async fn refusals(gate: &Gate, cause: &str) -> f64 {
    let metrics = Metrics::parse(&gate.hook("GET", "/metrics", &[], "").await.text());
    metrics.value(&format!("pollgate_refusals_total{{cause=\"{cause}\"}}"))
}

/// Repeats a request until its response has that status: a bucket fills while others take from it.
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
        // Each is counted once, over any protocol.
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
    eventually("connections refused", async || refusals(&gate, "fd_limit").await >= 100.0).await;
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
    // And when they are gone, all clients may come again.
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
    eventually("requests refused", async || refusals(&gate, "fd_limit").await >= 100.0).await;
    gate.publish("news", "x").await;
    let open = gate.open_files();
    assert!(open < 290, "{open} files are open, of 300");
    let mut visit = site.visit().await;
    visit.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
}

#[tokio::test]
async fn the_hook_takes_only_so_many_messages_a_second() {
    let config = "trusted_proxies = [\"127.0.0.1\"]\n[publish]\nmessages_per_second = 20\n\
                  [[capture]]\npath = \"/say\"\nmethods = [\"POST\"]\nchannel = \"captured\"\n\
                  data = \"{form.msg}\"\non = \"2xx\"";
    let site = PlainSite::start().await;
    let gate = Gate::with(config).upstream(site.addr()).token("t0ken").start().await;
    let publish = async |body: &str| {
        let json = [("Content-Type", "application/json")];
        gate.hook("POST", "/publish", &json, body).await
    };
    let batch = |size: usize| {
        let posts: Vec<_> = (0..size).map(|_| r#"{"channel":"a","data":"x"}"#).collect();
        format!("[{}]", posts.join(","))
    };
    let kept = async || gate.channel("a").await["kept"].as_u64().unwrap();
    assert_eq!(publish(&batch(20)).await.status, 200);
    let refused = ask_until(429, async || publish(&batch(15)).await).await;
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(refused.text().contains("messages_per_second"), "{}", refused.text());
    // All of a request, or none.
    assert_eq!(kept().await % 5, 0);
    let never = publish(&batch(21)).await;
    assert_eq!(never.status, 413, "{}", never.text());
    assert!(never.text().contains("20 a second"), "{}", never.text());
    assert!(refusals(&gate, "publish_rate").await >= 2.0);
    // A forwarded request is not counted for a token.
    let mut browser = gate.connect().await;
    for n in 0..40 {
        let form = "application/x-www-form-urlencoded";
        assert_eq!(browser.post("/say", form, format!("msg={n}")).await.status, 200);
    }
    gate.wait_for_kept("captured", 40).await;
    // A moment later there is room again; and a reload may do away with it.
    ask_until(200, async || publish(&batch(15)).await).await;
    assert_eq!(kept().await % 5, 0);
    let changed = gate.reconfigure("[publish]\ntoken = \"t0ken\"").await;
    assert!(changed["changed"].to_string().contains("messages_per_second"), "{changed}");
    for _ in 0..5 {
        assert_eq!(publish(&batch(50)).await.status, 200);
    }
}

#[tokio::test]
async fn a_repeated_publish_is_answered_without_being_counted_again() {
    let gate = Gate::start_alone("[publish]\nmessages_per_second = 1").await;
    let key = [("Idempotency-Key", "k")];
    let publish = async || gate.hook("POST", "/channels/a", &key, "x").await;
    let first = ask_until(200, publish).await;
    for _ in 0..20 {
        let again = publish().await;
        assert_eq!((again.status, again.text()), (200, first.text()));
    }
    assert_eq!(refusals(&gate, "publish_rate").await, 0.0);
}

fn signed(channels: &str) -> String {
    let signed = format!("k.9999999999.{}", URL_SAFE_NO_PAD.encode(channels));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"secret"), signed.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{signed}.{hex}")
}

#[tokio::test]
async fn one_user_holds_only_so_many_polls_wherever_he_is() {
    let config = "trusted_proxies = [\"127.0.0.1\"]\n[limits]\nper_grant = 2\n[[poll]]\n\
                  path = \"/comet/*\"\ndialect = \"native\"\n\
                  auth = { kind = \"signed\", keys = { k = \"secret\" } }";
    for way in Way::ALL {
        let gate = Gate::start_alone(config).await;
        let mine = signed("news,a");
        let yours = signed("news,b");
        let mut held = Vec::new();
        for host in 1..=2 {
            let mut poller = way.connect(&gate).await;
            let from = [("X-Forwarded-For", format!("192.0.2.{host}"))];
            let from = from.each_ref().map(|(name, value)| (*name, value.as_str()));
            poller.ask_with("GET", &format!("/comet/news?token={mine}"), &from).await;
            gate.wait_for_held(host).await;
            held.push(poller);
        }
        let mut poller = way.connect(&gate).await;
        // The same token in other letters is the same grant.
        let (signed, signature) = mine.rsplit_once('.').unwrap();
        let shouted = format!("{signed}.{}", signature.to_uppercase());
        for token in [&mine, &shouted] {
            let refused = poller.poll(&format!("/comet/news?token={token}")).await;
            assert_eq!(refused.status, 429, "{way:?}: {}", refused.text());
            assert!(refused.header("retry-after").is_some(), "{way:?}");
            assert!(refused.text().contains("this user"), "{}", refused.text());
        }
        assert_eq!(refusals(&gate, "per_grant").await, 2.0, "{way:?}");
        let mut other = way.connect(&gate).await;
        other.ask(&format!("/comet/news?token={yours}")).await;
        gate.wait_for_held(3).await;
        gate.publish("news", "x").await;
        for mut poller in held {
            assert_eq!(poller.answer().await.status, 200, "{way:?}");
        }
        assert_eq!(other.answer().await.status, 200, "{way:?}");
        poller.ask(&format!("/comet/news?token={mine}")).await;
        gate.wait_for_held(1).await;
    }
}

#[tokio::test]
async fn the_least_used_channels_make_room_for_messages() {
    let config = "[history]\ntotal = \"64KiB\"\nage = \"1h\"";
    let gate = Gate::start_alone(config).await;
    let cursor = |answer: &serde_json::Value| answer["id"].as_str().unwrap().to_owned();
    let first = cursor(&gate.publish("old", vec![b'x'; 8 << 10]).await);
    gate.publish("old", "another").await;
    let mut client = gate.connect().await;
    for n in 0..50 {
        gate.publish(&format!("c{n}"), vec![b'x'; 8 << 10]).await;
        // A channel in use stays.
        assert_eq!(client.get("/comet/c0?cursor=oldest&timeout=0").await.status, 200);
    }
    let metrics = Metrics::parse(&gate.hook("GET", "/metrics", &[], "").await.text());
    let bytes = metrics.value("pollgate_history_bytes");
    assert!(bytes <= 65_536.0, "{bytes}");
    assert_eq!(gate.channel("old").await["kept"], 0);
    assert_eq!(gate.channel("c0").await["kept"], 1);
    assert_eq!(gate.channel("c49").await["kept"], 1);
    // A client that returns to an evicted channel is reset.
    let gone = client.get(&format!("/comet/old?cursor={first}")).await.json();
    assert_eq!(gone["reset"], true, "{gone}");
}

#[tokio::test]
async fn connections_to_the_internal_side_leave_the_public_one_its_files() {
    let site = PlainSite::start().await;
    let plan = Gate::with("").upstream(site.addr()).open_files(300);
    let gate = plan.start().await;
    let mut hook = Client::connect(gate.internal()).await;
    assert_eq!(hook.post("/channels/news", "text/plain", "x").await.status, 200);
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(Client::connect(gate.internal()).await);
    }
    // New clients are served, and so is the one that was there before the crowd.
    for n in 0..100 {
        let mut visitor = gate.connect().await;
        assert_eq!(visitor.get("/page").await.status, 200, "{n}");
        crowd.push(visitor);
    }
    assert_eq!(hook.post("/channels/news", "text/plain", "x").await.status, 200);
    let text = hook.get("/metrics").await.text();
    let files = Metrics::parse(&text).value("pollgate_refusals_total{cause=\"fd_limit\"}");
    assert!(files >= 100.0, "{files}");
    drop(crowd);
    eventually("a new publisher's turn", async || {
        let mut client = Client::connect(gate.internal()).await;
        let _ = client.try_send_raw("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        client.read_unless_closed().await.is_some_and(|response| response.status == 200)
    })
    .await;
}

#[tokio::test]
async fn refusals_for_size_and_room_have_their_answers_and_their_causes() {
    let config = "[history]\nwaiting = 2\nmax_message = \"1KiB\"";
    let gate = Gate::start_alone(config).await;
    let long = vec![b'x'; 2000];
    assert_eq!(gate.hook("POST", "/channels/a", &[], &long).await.status, 413);
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let body = format!("channel=a&data={}", "x".repeat(2000));
    assert_eq!(gate.hook("POST", "/publish", &form, body).await.status, 413);
    assert_eq!(refusals(&gate, "message_size").await, 2.0);
    // Polls wait on so many channels without messages; a publish needs none of that room.
    let _held = [gate.hold(Way::Plain, "/comet/a").await, gate.hold(Way::Plain, "/comet/b").await];
    gate.wait_for_held(2).await;
    let full = gate.get("/comet/c").await;
    assert_eq!((full.status, full.header("retry-after")), (503, Some("5")), "{}", full.text());
    assert_eq!(refusals(&gate, "table_full").await, 1.0);
    gate.publish("c", "x").await;
}

#[tokio::test]
async fn the_system_looks_after_clients_that_vanish() {
    use tokio::io::AsyncWriteExt;
    let gate = Gate::start_alone("").await;
    for addr in [gate.addr(), gate.internal()] {
        let support::Addr::Tcp(addr) = *addr else { return };
        let mut client = tokio::net::TcpStream::connect(addr).await.unwrap();
        client.write_all(b"GET /comet/news").await.unwrap();
        let here = client.local_addr().unwrap().port();
        let there = addr.port();
        // The kernel's table: its own end, the other one, the state, queues, and the timer at work,
        // of which 02 is the one for keep-alive.
        let ends = format!("0100007F:{there:04X} 0100007F:{here:04X} ");
        eventually("the gate's end, with a keep-alive timer", async || {
            let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
            let line = table.lines().find_map(|line| line.split_once(&ends));
            let timer =
                line.and_then(|(_, rest)| rest.split_whitespace().nth(2).map(str::to_owned));
            timer.is_some_and(|timer| timer.starts_with("02:"))
        })
        .await;
    }
}

/// A rule that asks the site; at most two held polls of one user.
const ASKED: &str = "[limits]\nper_grant = 2\n[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\n\
                     auth = { kind = \"upstream\", url = \"/auth.php\", cache = \"0s\" }\n";

#[tokio::test]
async fn whatever_a_client_adds_to_its_session_it_is_one_user() {
    let site = PlainSite::start().await;
    for way in Way::ALL {
        let gate = Gate::start_before(site.addr(), ASKED).await;
        let ask = async |target: &str, cookie: &str, authorization: &str| {
            let mut poller = way.connect(&gate).await;
            let headers = [("Cookie", cookie), ("Authorization", authorization)];
            poller.ask_with("GET", target, &headers).await;
            poller
        };
        let _first = ask("/comet/news", "PHPSESSID=abc", "x").await;
        gate.wait_for_held(1).await;
        let _second = ask("/comet/news", "junk=1; PHPSESSID=abc", "x").await;
        gate.wait_for_held(2).await;
        for (target, cookie, authorization) in [
            ("/comet/news", "junk=2; PHPSESSID=abc; junk=3", "x"),
            ("/comet/news", "PHPSESSID=%61bc", "x"),
            ("/comet/news", "PHPSESSID=abc; PHPSESSID=def", "x"),
            ("/comet/news", "PHPSESSID=abc", "Bearer junk"),
            ("/comet/news?token=junk", "PHPSESSID=abc", "x"),
        ] {
            let refused = ask(target, cookie, authorization).await.answer().await;
            assert_eq!(refused.status, 429, "{way:?} {target} {cookie} {authorization}");
        }
        // Another session is another user, and so is the address of those without one.
        let _other = ask("/comet/news", "PHPSESSID=def", "x").await;
        gate.wait_for_held(3).await;
        let _third = ask("/comet/news", "junk=1", "a").await;
        let _fourth = ask("/comet/news", "junk=2", "b").await;
        gate.wait_for_held(5).await;
        assert_eq!(ask("/comet/news", "junk=3", "c").await.answer().await.status, 429, "{way:?}");
    }
}

#[tokio::test]
async fn a_user_that_the_site_names_is_one_whatever_the_session() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), &ASKED.replace("0s", "1h")).await;
    let mut held = Vec::new();
    for (session, user, held_then) in [("a", "alice", 1), ("b", "bob", 2), ("c", "alice", 3)] {
        let mut poller = Way::Plain.connect(&gate).await;
        let cookie = format!("PHPSESSID={session}");
        poller.ask_with("GET", "/comet/news", &[("Cookie", cookie.as_str())]).await;
        let answer =
            format!("HTTP/1.1 200 OK\r\nPollgate-User: {user}\r\nContent-Length: 0\r\n\r\n");
        site.visit().await.send(answer).await;
        gate.wait_for_held(held_then).await;
        held.push(poller);
    }
    // Remembered with the word.
    for (session, status) in [("a", 429), ("c", 429)] {
        let mut poller = Way::Plain.connect(&gate).await;
        let cookie = format!("PHPSESSID={session}");
        let headers = [("Cookie", cookie.as_str())];
        assert_eq!(poller.poll_with("GET", "/comet/news", &headers).await.status, status);
    }
}

#[tokio::test]
async fn an_answer_that_finds_no_room_is_refused_whichever_way_its_poll_came() {
    let gate = Gate::start_alone("limits.body_memory = \"64KiB\"\n").await;
    let long = "x".repeat(40_000);
    gate.publish("two", &long).await;
    gate.publish("two", &long).await;
    gate.publish("one", long.repeat(2)).await;
    let mut refused = 0.0;
    for way in Way::ALL {
        let mut client = way.connect(&gate).await;
        for attempt in 0..3 {
            let response = client.poll("/comet/two?cursor=oldest").await;
            assert_eq!(response.status, 503, "{way:?}: {attempt}");
            assert_eq!(response.header("retry-after"), Some("5"), "{way:?}");
            assert_eq!(response.header("cache-control"), Some("no-store"), "{way:?}");
            refused += 1.0;
        }
        // A channel's newest message is the same for all clients, and takes no room.
        let shared = client.poll("/comet/one?cursor=oldest").await;
        assert_eq!((shared.status, shared.body.len() > 80_000), (200, true), "{way:?}");
        // One that was held until now, on two channels.
        let mut held = gate.hold(way, "/comet/one,three").await;
        gate.publish("one", long.repeat(2)).await;
        assert_eq!(held.answer().await.status, 503, "{way:?}");
        refused += 1.0;
        // It has lost nothing, and is answered where there is room.
        assert_eq!(client.poll("/comet/three?timeout=0").await.status, 200, "{way:?}");
        gate.forget("one").await;
        gate.publish("one", long.repeat(2)).await;
    }
    let metrics = Metrics::parse(&gate.hook("GET", "/metrics", &[], "").await.text());
    assert_eq!(metrics.value("pollgate_body_bytes"), 0.0);
    assert_eq!(metrics.value("pollgate_bodies_refused_total"), refused);
}
