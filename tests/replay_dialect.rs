//! Polls that are held at the gate and answered by the site (`docs/dialects/replay.md`).

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};
use support::site::Visit;
use support::{FORM, Gate, PlainSite, Poller, Response, Way, eventually};
use tokio::task::JoinSet;

const RULE: &str = r#"
    [[poll]]
    path      = "/live/poll"
    dialect   = "replay"
    channel   = "room-{query.room}"
    add_query = "wait=0"
    slack     = "0s"
"#;

/// The rule with further keys.
fn rule(more: &str) -> String {
    format!("{RULE}{more}\n")
}

/// Response of a site that works by itself to a poll for `room`.
fn answer(room: &str) -> String {
    format!("site: GET /live/poll?room={room}&wait=0")
}

/// Answers a visit with 200 and this body.
async fn reply(visit: &mut Visit, body: &str) {
    // It serves one request a connection.
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}", body.len());
    visit.send(format!("{head}\r\n\r\n{body}")).await;
}

/// So many held polls on room 1.
async fn crowd(gate: &Gate, count: u64) -> Vec<Poller> {
    let mut pollers = Vec::new();
    for number in 0..count {
        let way = Way::ALL[number as usize % Way::ALL.len()];
        let mut poller = way.connect(gate).await;
        let who = [("X-Who", &*number.to_string())];
        poller.ask_with("GET", "/live/poll?room=1", &who).await;
        pollers.push(poller);
    }
    gate.wait_for_held(count).await;
    pollers
}

#[tokio::test]
async fn a_poll_reaches_the_site_when_its_channel_has_news_and_not_before() {
    for way in Way::ALL {
        let site = PlainSite::start().await;
        let gate = Gate::start_before(site.addr(), RULE).await;
        let mut poller = way.connect(&gate).await;
        let cookie = [("Cookie", "PHPSESSID=abc"), ("X-Requested-With", "XMLHttpRequest")];
        for round in 1..4 {
            poller.ask_with("GET", "/live/poll?room=1", &cookie).await;
            gate.wait_for_held(1).await;
            assert!(poller.is_quiet().await);
            assert_eq!(gate.publish("room-2", "").await["released"], 0);
            assert_eq!(site.requests().len(), round - 1, "it was forwarded while it was held");

            assert_eq!(gate.publish("room-1", "").await["released"], 1);
            let response = poller.answer().await;
            assert_eq!((response.status, response.text()), (200, answer("1")), "{way:?}");
            let last = site.last();
            assert_eq!(last.header("cookie"), Some("PHPSESSID=abc"));
            assert_eq!(last.header("x-requested-with"), Some("XMLHttpRequest"));
            assert_eq!(last.header("host"), Some(&*gate.addr().to_string()));
            assert_eq!(last.header("x-forwarded-for"), Some("127.0.0.1"));
            assert_eq!(gate.held().await, 0);
        }
        // A request that is no poll of the rule is forwarded on the same connection.
        assert_eq!(poller.poll("/live/poll").await.text(), "site: GET /live/poll");
        assert_eq!(poller.poll("/page?room=1").await.text(), "site: GET /page?room=1");
    }
}

#[tokio::test]
async fn a_quiet_poll_is_forwarded_at_its_timeout() {
    for way in Way::ALL {
        let site = PlainSite::start().await;
        let gate = Gate::start_before(site.addr(), &rule("timeout = \"300ms\"")).await;
        let mut poller = way.connect(&gate).await;
        let began = Instant::now();
        assert_eq!(poller.poll("/live/poll?room=1").await.text(), answer("1"));
        assert!(began.elapsed() > Duration::from_millis(200), "{:?}", began.elapsed());
        gate.wait_for_log("cause=\"timeout\"").await;
    }
}

#[tokio::test]
async fn an_answer_is_the_sites_own_and_is_not_kept_on_the_way() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let gate = Gate::start_before(site.addr(), RULE).await;
        for (headers, cache) in [("", "no-store"), ("Cache-Control: private\r\n", "private")] {
            let mut poller = gate.hold(way, "/live/poll?room=1").await;
            gate.publish("room-1", "").await;
            let mut visit = site.visit().await;
            let head = "HTTP/1.1 404 Not Found\r\nSet-Cookie: a=b\r\nContent-Type: text/x\r\n";
            visit
                .send(format!("{head}{headers}Connection: close\r\nContent-Length: 3\r\n\r\nhey"))
                .await;
            let response = poller.answer().await;
            assert_eq!((response.status, &*response.text()), (404, "hey"));
            assert_eq!(response.header("content-type"), Some("text/x"));
            assert_eq!(response.header("set-cookie"), Some("a=b"));
            assert_eq!(response.all("cache-control"), [cache]);
            assert_eq!(response.header("x-accel-buffering"), Some("no"));
        }
    }
}

#[tokio::test]
async fn a_posted_form_reaches_the_site_with_the_poll() {
    let site = PlainSite::start().await;
    let config = RULE.replace("{query.room}", "{form.room}");
    let gate = Gate::start_before(site.addr(), &config).await;
    let mut client = gate.connect().await;
    for _ in 0..2 {
        client.send("POST", "/live/poll", &[("Content-Type", FORM)], b"room=1&since=17").await;
        gate.wait_for_held(1).await;
        gate.publish("room-1", "").await;
        assert_eq!(client.read_response().await.text(), "site: POST /live/poll?wait=0");
        assert_eq!(site.last().body, b"room=1&since=17");
    }
    // A body that is no form is no poll.
    client.send("POST", "/live/poll", &[("Content-Type", "text/plain")], b"room=1").await;
    assert_eq!(client.read_response().await.text(), "site: POST /live/poll");
}

#[tokio::test]
async fn the_body_of_a_get_reaches_the_site_with_the_poll() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), RULE).await;
    let mut client = gate.connect().await;
    client.send("GET", "/live/poll?room=1", &[], b"body").await;
    gate.wait_for_held(1).await;
    gate.publish("room-1", "").await;
    assert_eq!(client.read_response().await.text(), answer("1"));
    assert_eq!(site.last().body, b"body");
    let long = vec![b'x'; 70_000];
    client.send("GET", "/live/poll?room=1", &[], &long).await;
    assert_eq!(client.read_response().await.status, 413);
    assert_eq!(site.requests().len(), 1);
}

#[tokio::test]
async fn head_goes_to_the_site_at_once_and_options_never() {
    for way in Way::ALL {
        let site = PlainSite::start().await;
        let gate = Gate::start_before(site.addr(), RULE).await;
        let mut poller = way.connect(&gate).await;
        let options = poller.poll_with("OPTIONS", "/live/poll?room=1", &[]).await;
        assert_eq!(
            (options.status, options.header("allow")),
            (204, Some("GET, HEAD, POST, OPTIONS"))
        );
        assert_eq!(site.requests().len(), 0);
        poller.ask_with("HEAD", "/live/poll?room=1", &[]).await;
        site.wait_for_requests(1).await;
        assert_eq!(site.last().line(), "HEAD /live/poll?room=1&wait=0");
    }
}

#[tokio::test]
async fn listed_origins_may_read_what_the_site_answers() {
    for way in Way::ALL {
        let site = PlainSite::start().await;
        let gate =
            Gate::start_before(site.addr(), &rule("origins = [\"https://a.example\"]")).await;
        for (origin, allowed) in
            [("https://a.example", Some("https://a.example")), ("https://b.example", None)]
        {
            let mut poller = way.connect(&gate).await;
            poller.ask_with("GET", "/live/poll?room=1", &[("Origin", origin)]).await;
            gate.wait_for_held(1).await;
            gate.publish("room-1", "").await;
            let response = poller.answer().await;
            assert_eq!(response.header("access-control-allow-origin"), allowed);
            assert_eq!(response.header("vary"), Some("Origin"));
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_never_forwarded() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let gate = Gate::start_before(site.addr(), &rule("concurrency = 1")).await;
        // While it is held.
        gate.hold(way, "/live/poll?room=1").await.close();
        gate.wait_for_held(0).await;
        assert_eq!(gate.publish("room-1", "").await["released"], 0);
        // While another is at the site and it waits for its slot.
        let mut first = gate.hold(way, "/live/poll?room=1").await;
        gate.publish("room-1", "").await;
        let mut visit = site.visit().await;
        let second = gate.hold(way, "/live/poll?room=2").await;
        let mut third = gate.hold(way, "/live/poll?room=3").await;
        gate.publish("room-2", "").await;
        gate.wait_for_held(1).await;
        gate.publish("room-3", "").await;
        second.close();
        let gone = async || gate.log().matches("cause=\"gone\"").count() == 2;
        eventually("both that left are logged", gone).await;
        reply(&mut visit, "one").await;
        assert_eq!(first.answer().await.text(), "one");
        let mut visit = site.visit().await;
        assert_eq!(visit.request.line(), "GET /live/poll?room=3&wait=0");
        reply(&mut visit, "three").await;
        assert_eq!(third.answer().await.text(), "three");
    }
}

#[tokio::test]
async fn a_site_that_is_down_is_a_502() {
    for way in Way::ALL {
        let gate = Gate::start_alone(RULE).await;
        let mut poller = gate.hold(way, "/live/poll?room=1").await;
        gate.publish("room-1", "").await;
        assert_eq!(poller.answer().await.status, 502);
    }
}

#[tokio::test]
async fn requests_that_come_during_the_hold_are_answered_after_it() {
    for way in Way::HTTP1 {
        let site = PlainSite::start().await;
        let gate = Gate::start_before(site.addr(), RULE).await;
        let mut poller = way.connect(&gate).await;
        let requests = way.get("/live/poll?room=1") + &way.get("/one");
        poller.client().send_raw(requests).await;
        gate.wait_for_held(1).await;
        poller.ask("/two").await;
        gate.publish("room-1", "").await;
        assert_eq!(poller.answer().await.text(), answer("1"));
        assert_eq!(poller.answer().await.text(), "site: GET /one");
        assert_eq!(poller.answer().await.text(), "site: GET /two");
    }
}

#[tokio::test]
async fn what_is_published_while_an_answer_is_under_way_is_fetched_by_the_next_poll() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let gate = Gate::start_before(site.addr(), &RULE.replace("\"0s\"", "\"5s\"")).await;
        let mut poller = gate.hold(way, "/live/poll?room=1").await;
        gate.publish("room-1", "first").await;
        let mut visit = site.visit().await;
        gate.publish("room-1", "second").await;
        reply(&mut visit, "first").await;
        assert_eq!(poller.answer().await.text(), "first");
        poller.ask("/live/poll?room=1").await;
        reply(&mut site.visit().await, "second").await;
        assert_eq!(poller.answer().await.text(), "second");
        // A poll of another client is forwarded at once too.
        let mut other = way.connect(&gate).await;
        other.ask_with("GET", "/live/poll?room=1", &[("Cookie", "other=1")]).await;
        reply(&mut site.visit().await, "other").await;
        assert_eq!(other.answer().await.text(), "other");
    }
}

#[tokio::test]
async fn a_poll_that_repeats_itself_does_not_go_in_circles_through_the_slack() {
    for way in Way::ALL {
        let site = PlainSite::start().await;
        let gate = Gate::start_before(site.addr(), &RULE.replace("\"0s\"", "\"2s\"")).await;
        gate.publish("room-1", "").await;
        let began = Instant::now();
        let mut poller = way.connect(&gate).await;
        let mut polls = 0;
        while began.elapsed() < Duration::from_secs(2) {
            // jQuery adds a number against caches.
            poller.poll(&format!("/live/poll?room=1&_={polls}")).await;
            polls += 1;
        }
        assert!(polls <= 4, "{polls} requests reached the site");
        // News go through at once, also where it is held for a moment.
        gate.publish("room-1", "").await;
        assert_eq!(poller.poll("/live/poll?room=1").await.status, 200);
        poller.ask("/live/poll?room=1").await;
        gate.publish("room-1", "").await;
        assert_eq!(poller.answer().await.status, 200);
    }
}

#[tokio::test]
async fn a_held_poll_counts_against_the_limits() {
    for way in Way::ALL {
        let site = PlainSite::start().await;
        let config = format!("[hold]\nmax = 2\n{RULE}");
        let gate = Gate::start_before(site.addr(), &config).await;
        let mut held =
            [gate.hold(way, "/live/poll?room=1").await, gate.hold(way, "/live/poll?room=1").await];
        let refused = way.connect(&gate).await.poll("/live/poll?room=1").await;
        assert_eq!(refused.status, 503);
        assert!(refused.header("retry-after").is_some());
        gate.publish("room-1", "").await;
        for poller in &mut held {
            assert_eq!(poller.answer().await.text(), answer("1"));
        }
        // They have given back their leave.
        gate.hold(way, "/live/poll?room=1").await;
    }
}

#[tokio::test]
async fn no_more_polls_are_at_the_site_than_allowed_and_all_get_their_turn() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), &rule("concurrency = 3")).await;
    let mut pollers = crowd(&gate, 40).await;
    assert_eq!(gate.publish("room-1", "").await["released"], 40);
    let mut visits = Vec::new();
    for answered in 0..40 {
        while visits.len() < 3 && answered + visits.len() < 40 {
            visits.push(site.visit().await);
        }
        // A look at the gate, so that whatever it had sent beyond that would be here by now.
        gate.status().await;
        assert_eq!(site.requests().len(), answered + visits.len());
        reply(&mut visits.remove(0), "turn").await;
    }
    for poller in &mut pollers {
        assert_eq!(poller.answer().await.text(), "turn");
    }
}

/// A crowd on room 1, released by one publish; the first of them is at the site.
async fn released_crowd(site: &mut PlainSite, gate: &Gate, count: u64) -> (Vec<Poller>, Visit) {
    let pollers = crowd(gate, count).await;
    assert_eq!(gate.publish("room-1", "").await["released"], count);
    let visit = site.visit().await;
    // All wait for the upstream by now: none of them comes too late for its first answer.
    gate.wait_for_held(0).await;
    (pollers, visit)
}

#[tokio::test]
async fn with_share_one_request_answers_all_that_a_publish_has_released() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), &rule("share = true")).await;
    for round in ["first", "second"] {
        let (mut pollers, mut visit) = released_crowd(&mut site, &gate, 40).await;
        assert_eq!(visit.request.line(), "GET /live/poll?room=1&wait=0");
        let head = "HTTP/1.1 200 OK\r\nX-Site: yes\r\nContent-Type: application/json\r\n\
                    Vary: accept-encoding\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        visit.send(format!("{head}3\r\n{}\r\n", &round[..3])).await;
        visit.send(format!("{:x}\r\n{}\r\n0\r\n\r\n", round.len() - 3, &round[3..])).await;
        drop(visit);
        for poller in &mut pollers {
            let response: Response = poller.answer().await;
            assert_eq!((response.status, &*response.text()), (200, round));
            assert_eq!(response.header("x-site"), Some("yes"));
            assert_eq!(response.header("content-type"), Some("application/json"));
            assert_eq!(response.all("cache-control"), ["no-store"]);
        }
    }
    assert_eq!(site.requests().len(), 2);
}

#[tokio::test]
async fn with_share_another_goes_in_place_of_one_that_leaves() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), &rule("share = true")).await;
    let (mut pollers, mut first) = released_crowd(&mut site, &gate, 20).await;
    let who: usize = first.request.header("x-who").unwrap().parse().unwrap();
    pollers.remove(who).close();
    first.wait_for_close().await;
    let mut second = site.visit().await;
    assert_ne!(second.request.header("x-who"), first.request.header("x-who"));
    reply(&mut second, "answer").await;
    for poller in &mut pollers {
        assert_eq!(poller.answer().await.text(), "answer");
    }
    assert_eq!(site.requests().len(), 2);
}

/// An answer for one client, as this header says.
fn own_answer(header: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{header}\r\nConnection: close\r\nContent-Length: 3\r\n\r\nown")
}

/// Two hosts, two queries, two forms have an answer each; what jQuery adds against caches counts
/// for nothing, and a client that signs in has its own.
#[tokio::test]
async fn with_share_only_those_that_ask_the_same_share() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), &rule("share = true")).await;
    let mut pollers = Vec::new();
    let ask = [
        ("GET", "a.example", "/live/poll?room=1", "", "X-A"),
        ("GET", "A.example", "/live/poll?room=1&_=17", "", "X-A"),
        ("GET", "b.example", "/live/poll?room=1", "", "X-A"),
        ("GET", "a.example", "/live/poll?room=1&last=7", "", "X-A"),
        ("GET", "a.example", "/live/poll?room=1", "", "Authorization"),
        ("GET", "a.example", "/live/poll?room=1", "", "Authorization"),
        ("POST", "a.example", "/live/poll?room=1", "last=1", "X-A"),
        ("POST", "a.example", "/live/poll?room=1", "last=2", "X-A"),
        ("POST", "a.example", "/live/poll?room=1", "last=2", "X-A"),
    ];
    for (method, host, target, form, header) in ask {
        let mut client = gate.connect().await;
        let headers = [("Host", host), ("Content-Type", FORM), (header, "Basic eA==")];
        client.send(method, target, &headers, form.as_bytes()).await;
        pollers.push(client);
    }
    gate.wait_for_held(pollers.len() as u64).await;
    gate.publish("room-1", "").await;
    for client in &mut pollers {
        assert_eq!(client.read_response().await.status, 200);
    }
    let mut asked: Vec<String> = site
        .requests()
        .iter()
        .map(|one| {
            let body = String::from_utf8_lossy(&one.body).into_owned();
            let host = one.header("host").unwrap().to_ascii_lowercase();
            let target = one.line().replace("&_=17", "").replace("&wait=0", "");
            format!("{host} {target} {body}")
        })
        .collect();
    asked.sort();
    let expected = [
        "a.example GET /live/poll?room=1 ",
        "a.example GET /live/poll?room=1 ",
        "a.example GET /live/poll?room=1 ",
        "a.example GET /live/poll?room=1&last=7 ",
        "a.example POST /live/poll?room=1 last=1",
        "a.example POST /live/poll?room=1 last=2",
        "b.example GET /live/poll?room=1 ",
    ];
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn with_share_an_answer_for_one_alone_lets_each_go_by_itself() {
    for refused in [
        "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno".to_owned(),
        "HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"
            .to_owned(),
        format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1048577\r\n\r\n{}",
            "x".repeat(1_048_577)
        ),
        own_answer("Set-Cookie: own=1"),
        own_answer("Cache-Control: max-age=1, private"),
        own_answer("Cache-Control: no-store"),
        own_answer("Cache-Control: No-Cache"),
        own_answer("Vary: *"),
        own_answer("Vary: Accept-Encoding, Cookie"),
    ] {
        let mut site = PlainSite::start_by_hand().await;
        let config = rule("share = true\nconcurrency = 2");
        let gate = Gate::start_before(site.addr(), &config).await;
        let (mut pollers, mut visit) = released_crowd(&mut site, &gate, 8).await;
        let status = &refused[9..12];
        let answered = async {
            let mut own = 0;
            for poller in &mut pollers {
                let response = poller.answer().await;
                own += usize::from(response.text() != "answer");
                assert!(response.status == 200 || response.status.to_string() == status);
            }
            assert_eq!(own, 1);
        };
        let answering = async {
            visit.send(&refused).await;
            loop {
                reply(&mut site.visit().await, "answer").await;
            }
        };
        tokio::select! { () = answered => {}, () = answering => {} }
        assert_eq!(site.requests().len(), 8);
    }
}

#[tokio::test]
async fn with_share_a_client_that_does_not_read_delays_nobody_for_long() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), &rule("share = true")).await;
    let (mut pollers, mut first) = released_crowd(&mut site, &gate, 8).await;
    let who: usize = first.request.header("x-who").unwrap().parse().unwrap();
    // The response never ends, as if no client read it.
    first.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbegins").await;
    let _slow = pollers.remove(who);
    reply(&mut site.visit().await, "answer").await;
    for poller in &mut pollers {
        assert_eq!(poller.answer().await.text(), "answer");
    }
    assert_eq!(site.requests().len(), 2);
}

#[tokio::test]
async fn with_share_different_pages_and_encodings_have_their_own_answers() {
    let site = PlainSite::start().await;
    let config = rule("share = true").replace("/live/poll", "/live/*");
    let gate = Gate::start_before(site.addr(), &config).await;
    let mut pollers = Vec::new();
    for (path, encoding) in [("a", "gzip"), ("a", "br"), ("b", "gzip"), ("a", "gzip")] {
        let mut poller = Way::Plain.connect(&gate).await;
        let headers = [("Accept-Encoding", encoding)];
        poller.ask_with("GET", &format!("/live/{path}?room=1"), &headers).await;
        pollers.push((poller, path));
    }
    gate.wait_for_held(4).await;
    gate.publish("room-1", "").await;
    for (poller, path) in &mut pollers {
        let text = poller.answer().await.text();
        assert_eq!(text, format!("site: GET /live/{path}?room=1&wait=0"));
    }
    assert_eq!(site.requests().len(), 3);
}

#[tokio::test]
async fn a_shutdown_lets_the_site_answer_what_is_held() {
    let site = PlainSite::start().await;
    let config = rule("concurrency = 2") + "[drain]\nspread = \"200ms\"\n";
    let gate = Gate::start_before(site.addr(), &config).await;
    let mut pollers = crowd(&gate, 20).await;
    gate.signal("TERM");
    for poller in &mut pollers {
        assert_eq!(poller.answer().await.text(), answer("1"));
    }
    assert_eq!(gate.wait_for_exit().await, 0);
}

#[tokio::test]
async fn a_shutdown_tells_those_that_get_no_turn_in_time() {
    let mut site = PlainSite::start_by_hand().await;
    let config = rule("concurrency = 1") + "[drain]\nspread = \"0s\"\ntimeout = \"8s\"\n";
    let gate = Gate::start_before(site.addr(), &config).await;
    let pollers = crowd(&gate, 8).await;
    gate.signal("TERM");
    let mut visit = site.visit().await;
    let mut answers = JoinSet::new();
    for mut poller in pollers {
        answers.spawn(async move { poller.answer().await });
    }
    for _ in 0..7 {
        let response = answers.join_next().await.unwrap().unwrap();
        assert_eq!(response.status, 503);
        assert!(response.header("retry-after").is_some());
        assert_eq!(response.all("cache-control"), ["no-store"]);
    }
    // The one with a slot gets the site's response.
    reply(&mut visit, "late").await;
    assert_eq!(answers.join_next().await.unwrap().unwrap().text(), "late");
    assert_eq!(gate.wait_for_exit().await, 0);
}

/// The messages of the channel, oldest first.
async fn said(gate: &Gate, channel: &str) -> Vec<serde_json::Value> {
    let answer = gate.hook("GET", &format!("/channels/{channel}/messages"), &[], "").await;
    let answer = if answer.status == 404 { return Vec::new() } else { answer.json() };
    answer["messages"].as_array().unwrap().iter().map(|it| it["data"].clone()).collect()
}

#[tokio::test]
async fn the_site_publishes_with_the_answer_to_a_poll_as_with_any_other() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let captured = "[[capture]]\npath = \"/live/poll\"\nmethods = [\"GET\"]\n\
                        channel = \"captured\"\ndata = \"{query.room}\"\n";
        let config = format!("[upstream]\nmay_publish = true\n{RULE}{captured}");
        let gate = Gate::start_before(site.addr(), &config).await;
        let mut poller = gate.hold(way, "/live/poll?room=1").await;
        gate.publish("room-1", "").await;
        let mut visit = site.visit().await;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n";
        let publish = "Pollgate-Publish: seen; data=room%201, whole\r\n";
        visit.send(format!("{head}{publish}Content-Length: 3\r\n\r\nhey")).await;
        let response = poller.answer().await;
        assert_eq!((response.text().as_str(), response.header("pollgate-publish")), ("hey", None));
        assert_eq!(
            (said(&gate, "seen").await, said(&gate, "whole").await),
            (vec!["room 1".into()], vec!["hey".into()])
        );
        assert!(said(&gate, "captured").await.is_empty(), "a poll is a poll");
    }
}

#[tokio::test]
async fn an_answer_that_is_shared_publishes_once() {
    let mut site = PlainSite::start_by_hand().await;
    let config = format!("[upstream]\nmay_publish = true\n{}", rule("share = true"));
    let gate = Gate::start_before(site.addr(), &config).await;
    let mut pollers = Vec::new();
    for _ in 0..3 {
        pollers.push(gate.hold(Way::Plain, "/live/poll?room=1").await);
        gate.wait_for_held(pollers.len() as u64).await;
    }
    gate.publish("room-1", "").await;
    let mut visit = site.visit().await;
    let head = "HTTP/1.1 200 OK\r\nPollgate-Publish: seen; data=x\r\nConnection: close\r\n";
    visit.send(format!("{head}Content-Length: 3\r\n\r\nhey")).await;
    for poller in &mut pollers {
        let response = poller.answer().await;
        assert_eq!((response.text().as_str(), response.header("pollgate-publish")), ("hey", None));
    }
    assert_eq!(said(&gate, "seen").await, ["x"]);
}
