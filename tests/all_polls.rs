//! Promises for every poll, in any dialect and over any protocol.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::Value;
use support::{Gate, PlainSite, Response, Way, eventually_some};

/// All three dialects, on one channel `c`. Without slack, a NovComet poll from now on does not
/// find what the test published just before.
const RULES: &str = r#"
    [[poll]]
    path    = "/comet/*"
    dialect = "native"
    [[poll]]
    path    = "/novcomet"
    dialect = "novcomet"
    slack   = "0s"
    [[poll]]
    path    = "/timestamp"
    dialect = "timestamp"
    channel = "c"
"#;

/// A poll on `c` in each dialect that is held where `c` has no messages.
const POLLS: [&str; 3] = ["/comet/c", "/novcomet?subscribed[c]=0", "/timestamp?timestamp=0"];

/// The same, after what was published so far.
const LATER: [&str; 3] =
    ["/comet/c", "/novcomet?subscribed[c]=99999999999", "/timestamp?timestamp=99999999999"];

/// Checks that no cache and no buffer on the way touches an answer.
fn passes_untouched(response: &Response, what: &str) {
    assert_eq!(response.all("cache-control"), ["no-store"], "{what}");
    assert_eq!(response.all("x-accel-buffering"), ["no"], "{what}");
}

/// The text of a native answer's only message.
fn data(response: &Response) -> Value {
    let answer = response.json();
    assert_eq!(answer["messages"].as_array().map(Vec::len), Some(1), "{answer}");
    answer["messages"][0]["data"].clone()
}

#[tokio::test]
async fn no_cache_and_no_buffer_keeps_an_answer() {
    for way in Way::ALL {
        let config = format!("[hold]\ntimeout = \"50ms\"\n{RULES}");
        let gate = Gate::start_alone(&config).await;
        let mut poller = way.connect(&gate).await;
        for target in POLLS {
            let response = poller.poll(target).await;
            assert_eq!(response.status, 200);
            passes_untouched(&response, "a quiet answer");
        }
        passes_untouched(&poller.poll("/comet/").await, "a refusal");

        let gate = Gate::start_alone(RULES).await;
        for target in LATER {
            let mut poller = gate.hold(way, target).await;
            gate.publish("c", "x").await;
            passes_untouched(&poller.answer().await, "a released poll");
            let response = poller.poll("/comet/c?cursor=oldest").await;
            passes_untouched(&response, "an answer at once");
        }
    }
}

#[tokio::test]
async fn an_answer_tells_its_length() {
    for way in Way::ALL {
        let gate = Gate::start_alone(RULES).await;
        for target in LATER {
            let mut poller = gate.hold(way, target).await;
            gate.publish("c", "ü").await;
            let response = poller.answer().await;
            assert_eq!(response.header("content-length"), Some(&*response.body.len().to_string()));
            assert_eq!(response.header("transfer-encoding"), None);
        }
    }
}

#[tokio::test]
async fn head_is_answered_at_once_without_a_body() {
    for way in Way::ALL {
        let gate = Gate::start_alone(RULES).await;
        let mut poller = way.connect(&gate).await;
        for target in POLLS {
            let response = poller.poll_with("HEAD", target, &[]).await;
            assert_eq!(response.status, 200, "{target}");
            assert!(response.header("content-type").is_some());
            passes_untouched(&response, target);
        }
        // A body would be taken for this answer.
        gate.publish("c", "x").await;
        assert_eq!(data(&poller.poll("/comet/c?cursor=oldest").await), "x");
        assert_eq!(gate.held().await, 0);
    }
}

#[tokio::test]
async fn options_is_answered_with_204_and_the_methods() {
    for way in Way::ALL {
        let gate = Gate::start_alone(RULES).await;
        let mut poller = way.connect(&gate).await;
        for (target, allow) in POLLS.into_iter().zip([
            "GET, HEAD, OPTIONS",
            "GET, HEAD, POST, OPTIONS",
            "GET, HEAD, POST, OPTIONS",
        ]) {
            let response = poller.poll_with("OPTIONS", target, &[]).await;
            assert_eq!(response.status, 204, "{target}");
            assert_eq!(response.header("allow"), Some(allow));
            assert_eq!(response.header("access-control-allow-origin"), None);
        }
    }
}

/// The headers of CORS in an answer.
fn cors(response: &Response) -> Vec<String> {
    let named = |name: &str| name.to_lowercase().starts_with("access-control-");
    let headers = response.headers.iter().filter(|(name, _)| named(name));
    headers.map(|(name, value)| format!("{}: {value}", name.to_lowercase())).collect()
}

#[tokio::test]
async fn without_origins_no_other_page_may_read_an_answer() {
    for way in Way::ALL {
        let gate = Gate::start_alone(RULES).await;
        let mut poller = way.connect(&gate).await;
        for method in ["GET", "HEAD", "OPTIONS"] {
            for origin in ["https://a.example", "null", "*", "http://127.0.0.1"] {
                let headers = [("Origin", origin), ("Access-Control-Request-Method", "GET")];
                let target = "/comet/c?timeout=0";
                let response = poller.poll_with(method, target, &headers).await;
                assert!(cors(&response).is_empty(), "{method} {origin}: {:?}", response.headers);
            }
        }
    }
}

/// What a page may read beside the body.
fn exposed() -> String {
    "access-control-expose-headers: ETag, Last-Modified, Retry-After, WWW-Authenticate, X-Pollgate-Reset".to_owned()
}

#[tokio::test]
async fn listed_origins_may_read_and_others_are_never_reflected() {
    let rules = r#"
        [[poll]]
        path = "/comet/*"
        dialect = "native"
        origins = ["https://a.example", "https://b.example:8443"]
    "#;
    for way in Way::ALL {
        let gate = Gate::start_alone(rules).await;
        let mut poller = way.connect(&gate).await;
        for origin in ["https://a.example", "https://b.example:8443"] {
            let headers = [("Origin", origin)];
            let response = poller.poll_with("GET", "/comet/c?timeout=0", &headers).await;
            let own = format!("access-control-allow-origin: {origin}");
            let credentials = "access-control-allow-credentials: true".to_owned();
            assert_eq!(cors(&response), [exposed(), own.clone(), credentials]);
            assert_eq!(response.header("vary"), Some("Origin"));

            let headers = [("Origin", origin), ("Access-Control-Request-Method", "GET")];
            let preflight = poller.poll_with("OPTIONS", "/comet/c", &headers).await;
            assert_eq!(preflight.status, 204);
            assert!(cors(&preflight).contains(&own));
            let methods = preflight.header("access-control-allow-methods").unwrap();
            assert!(methods.contains("GET"), "{methods}");
        }
        for origin in [
            "https://c.example",
            "http://a.example",
            "https://a.example.evil.example",
            "https://A.EXAMPLE",
            "null",
            "*",
            "",
        ] {
            for method in ["GET", "OPTIONS"] {
                let headers = [("Origin", origin)];
                let response = poller.poll_with(method, "/comet/c?timeout=0", &headers).await;
                assert!(cors(&response).is_empty(), "{origin}: {:?}", response.headers);
                // A response cached for one origin is not for another.
                assert_eq!(response.header("vary"), Some("Origin"));
            }
        }
        // A refusal can be read too, or the page never learns why.
        let headers = [("Origin", "https://a.example")];
        let refused = poller.poll_with("GET", "/comet/c?timeout=x", &headers).await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.header("access-control-allow-origin"), Some("https://a.example"));
    }
}

#[tokio::test]
async fn any_origin_may_read_but_not_as_the_user() {
    let rules = "[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\norigins = [\"*\"]\n";
    for way in Way::ALL {
        let gate = Gate::start_alone(rules).await;
        let mut poller = way.connect(&gate).await;
        let headers = [("Origin", "https://a.example")];
        let response = poller.poll_with("GET", "/comet/c?timeout=0", &headers).await;
        let any = "access-control-allow-origin: *".to_owned();
        assert_eq!(cors(&response), [exposed(), any]);
    }
}

#[tokio::test]
async fn a_released_poll_has_its_cors_headers_too() {
    let rules = "[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\n\
                 origins = [\"https://a.example\"]\n";
    for way in Way::ALL {
        let gate = Gate::start_alone(rules).await;
        let mut poller = way.connect(&gate).await;
        poller.ask_with("GET", "/comet/c", &[("Origin", "https://a.example")]).await;
        gate.wait_for_held(1).await;
        gate.publish("c", "x").await;
        let response = poller.answer().await;
        assert_eq!(response.header("access-control-allow-origin"), Some("https://a.example"));
        assert_eq!(response.header("vary"), Some("Origin"));
    }
}

#[tokio::test]
async fn several_polls_are_held_on_one_connection_in_turn() {
    for way in Way::ALL {
        let site = PlainSite::start().await;
        let gate = Gate::start_before(site.addr(), RULES).await;
        let mut poller = way.connect(&gate).await;
        for round in 0..3 {
            for target in LATER {
                poller.ask(target).await;
                gate.wait_for_held(1).await;
                gate.publish("c", round.to_string()).await;
                let response = poller.answer().await;
                assert_eq!(response.status, 200);
                assert_ne!(response.header("connection"), Some("close"));
            }
            // Requests for the site go between them on the same connection.
            assert_eq!(poller.poll("/page").await.text(), "site: GET /page");
        }
        assert_eq!(gate.held().await, 0);
    }
}

#[tokio::test]
async fn a_client_that_asks_to_close_is_answered_and_closed() {
    for way in Way::HTTP1 {
        let gate = Gate::start_alone(RULES).await;
        let mut poller = way.connect(&gate).await;
        poller.ask_with("GET", "/comet/c", &[("Connection", "close")]).await;
        gate.wait_for_held(1).await;
        gate.publish("c", "x").await;
        let response = poller.answer().await;
        assert_eq!(data(&response), "x");
        assert_eq!(response.header("connection"), Some("close"));
        poller.client().wait_for_close().await;
    }
}

#[tokio::test]
async fn a_client_that_closes_ends_its_hold_at_once() {
    for way in Way::ALL {
        let gate = Gate::start_alone(RULES).await;
        for target in POLLS {
            let poller = gate.hold(way, target).await;
            let other = gate.hold(way, "/comet/other").await;
            poller.close();
            gate.wait_for_held(1).await;
            assert_eq!(gate.publish("c", "").await["released"], 0);
            gate.forget("c").await;
            other.close();
            gate.wait_for_held(0).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_half_closes_ends_its_hold_at_once() {
    for way in Way::HTTP1 {
        let gate = Gate::start_alone(RULES).await;
        for target in POLLS {
            let mut poller = gate.hold(way, target).await;
            poller.client().half_close().await;
            gate.wait_for_held(0).await;
            poller.client().wait_for_close().await;
        }
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    for way in Way::HTTP1 {
        let site = PlainSite::start().await;
        let gate = Gate::start_before(site.addr(), RULES).await;
        gate.publish("c", "kept").await;
        let mut poller = way.connect(&gate).await;
        let requests: String = ["/comet/c?cursor=oldest", "/one", "/comet/c?timeout=0", "/two"]
            .map(|target| way.get(target))
            .concat();
        poller.client().send_raw(requests).await;
        assert_eq!(data(&poller.answer().await), "kept");
        assert_eq!(poller.answer().await.text(), "site: GET /one");
        assert_eq!(poller.answer().await.json()["messages"], serde_json::json!([]));
        assert_eq!(poller.answer().await.text(), "site: GET /two");
    }
}

#[tokio::test]
async fn a_request_pipelined_behind_a_held_poll_is_answered_after_it() {
    for way in Way::HTTP1 {
        let gate = Gate::start_alone(RULES).await;
        let mut poller = way.connect(&gate).await;
        let requests = way.get("/comet/c") + &way.get("/comet/c?cursor=oldest&timeout=0");
        poller.client().send_raw(requests).await;
        gate.wait_for_held(1).await;
        gate.publish("c", "x").await;
        assert_eq!(data(&poller.answer().await), "x");
        assert_eq!(data(&poller.answer().await), "x");
    }
}

#[tokio::test]
async fn a_request_that_comes_during_a_hold_is_answered_after_it() {
    for way in Way::HTTP1 {
        let gate = Gate::start_alone(RULES).await;
        let mut poller = gate.hold(way, "/comet/c").await;
        poller.ask("/comet/c?cursor=oldest&timeout=0").await;
        // Another connection comes and goes, so that the gate has seen the early request.
        gate.connect().await.get("/comet/other?timeout=0").await;
        assert_eq!(gate.publish("c", "x").await["released"], 1);
        assert_eq!(data(&poller.answer().await), "x");
        assert_eq!(data(&poller.answer().await), "x");
    }
}

#[tokio::test]
async fn a_poll_over_http_1_0_is_answered_and_closed() {
    let gate = Gate::start_alone(RULES).await;
    for target in LATER {
        let mut client = gate.connect().await;
        client.send_raw(format!("GET {target} HTTP/1.0\r\n\r\n")).await;
        gate.wait_for_held(1).await;
        gate.publish("c", "x").await;
        let response = client.read_response().await;
        assert_eq!(response.status, 200);
        assert_eq!(response.header("transfer-encoding"), None);
        assert!(!response.body.is_empty());
        client.wait_for_close().await;
    }
}

#[tokio::test]
async fn a_get_with_a_body_is_held_like_any_poll() {
    let gate = Gate::start_alone(RULES).await;
    let mut client = gate.connect().await;
    for (headers, body) in [
        (&[][..], &b"cursor=nonsense"[..]),
        (&[("Transfer-Encoding", "chunked")], b"3\r\nabc\r\n0\r\n\r\n"),
        (&[("Expect", "100-continue")], b"abc"),
    ] {
        client.send("GET", "/comet/c", headers, body).await;
        gate.wait_for_held(1).await;
        gate.publish("c", "x").await;
        let mut response = client.read_response().await;
        if response.status == 100 {
            response = client.read_response().await;
        }
        assert_eq!(data(&response), "x", "{headers:?}");
    }
}

/// Checks a refusal for want of room.
fn is_crowded(response: &Response, status: u16) {
    assert_eq!(response.status, status, "{}", response.text());
    let seconds = response.header("retry-after").expect("when to come back");
    assert!(seconds.parse::<u32>().is_ok(), "{seconds}");
    passes_untouched(response, "a refusal");
}

#[tokio::test]
async fn no_more_polls_are_held_than_allowed() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&format!("[hold]\nmax = 2\n{RULES}")).await;
        let first = gate.hold(way, "/comet/c").await;
        let _second = gate.hold(way, "/comet/d").await;
        let mut poller = way.connect(&gate).await;
        for target in POLLS {
            is_crowded(&poller.poll(target).await, 503);
        }
        // A poll that needs no hold is answered all the same.
        gate.publish("e", "waiting").await;
        assert_eq!(data(&poller.poll("/comet/e?cursor=oldest").await), "waiting");
        assert_eq!(poller.poll("/comet/e?timeout=0").await.status, 200);
        assert_eq!(poller.poll_with("HEAD", "/comet/e", &[]).await.status, 200);
        assert_eq!(gate.held().await, 2);

        // A place that was given back is there for the next.
        first.close();
        gate.wait_for_held(1).await;
        drop(gate.hold(way, "/comet/c").await);
    }
}

#[tokio::test]
async fn no_more_polls_are_held_for_one_address_than_allowed() {
    let config = "trusted_proxies = [\"127.0.0.1\"]\n[limits]\nper_address = 1\n";
    for way in Way::ALL {
        let gate = Gate::start_alone(&format!("{config}{RULES}")).await;
        let from = |address| [("X-Forwarded-For", address)];
        let mut first = way.connect(&gate).await;
        first.ask_with("GET", "/comet/c", &from("203.0.113.1")).await;
        gate.wait_for_held(1).await;
        let mut other = way.connect(&gate).await;
        other.ask_with("GET", "/comet/c", &from("203.0.113.2")).await;
        gate.wait_for_held(2).await;

        let mut second = way.connect(&gate).await;
        // A client's own entry stands to the left, and is not trusted.
        for way_here in ["203.0.113.1", "198.51.100.7, 203.0.113.1"] {
            let headers = from(way_here);
            is_crowded(&second.poll_with("GET", "/comet/c", &headers).await, 429);
        }
        first.close();
        gate.wait_for_held(1).await;
        second.ask_with("GET", "/comet/c", &from("203.0.113.1")).await;
        gate.wait_for_held(2).await;
    }
}

#[tokio::test]
async fn no_more_polls_are_held_on_one_channel_than_allowed() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&format!("[limits]\nper_channel = 1\n{RULES}")).await;
        let _first = gate.hold(way, "/comet/c").await;
        let mut poller = way.connect(&gate).await;
        for target in POLLS {
            is_crowded(&poller.poll(target).await, 503);
        }
        is_crowded(&poller.poll("/comet/d,c").await, 503);
        drop(gate.hold(way, "/comet/d").await);
    }
}

#[tokio::test]
async fn a_poll_names_no_more_channels_than_allowed() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&format!("[limits]\nchannels_per_poll = 2\n{RULES}")).await;
        let mut poller = way.connect(&gate).await;
        for target in ["/comet/a,b,c", "/novcomet?subscribed[a]=0&subscribed[b]=0&subscribed[c]=0"]
        {
            let response = poller.poll(target).await;
            assert_eq!(response.status, 400, "{}", response.text());
            assert!(response.text().contains("channels_per_poll"), "{}", response.text());
        }
        let channels = gate.status().await["channels"].clone();
        assert_eq!(channels, 0, "a refused poll makes no channel");
        drop(gate.hold(way, "/comet/a,b").await);
    }
}

/// Waits for the access log's line about `target`.
async fn access_line(gate: &Gate, target: &str) -> Value {
    eventually_some(&format!("a line about {target}"), support::BOUND, async || {
        let log = gate.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut of_target = lines.filter(|line| line["fields"]["target"] == target);
        of_target.next().map(|line| line["fields"].clone())
    })
    .await
}

#[tokio::test]
async fn the_log_tells_how_long_a_poll_was_held_and_why_that_ended() {
    let config = format!("[log]\nformat = \"json\"\n[hold]\ntimeout = \"50ms\"\n{RULES}");
    for way in Way::ALL {
        let gate = Gate::start_alone(&config).await;
        let mut poller = way.connect(&gate).await;
        poller.poll("/comet/c?why=timeout").await;
        let line = access_line(&gate, "/comet/c?why=timeout").await;
        assert_eq!(line["cause"], "timeout", "{line}");
        assert_eq!((&line["method"], &line["status"]), (&"GET".into(), &200.into()));
        assert_eq!(line["client"], "127.0.0.1");
        // The jitter takes up to a tenth.
        let held = line["held_ms"].as_f64().unwrap();
        assert!((45.0..10_000.0).contains(&held), "{line}");
        assert!(line["took_ms"].as_f64().unwrap() >= held, "{line}");

        gate.publish("c", "x").await;
        let length = poller.poll("/comet/c?cursor=oldest").await.body.len();
        let line = access_line(&gate, "/comet/c?cursor=oldest").await;
        assert_eq!(line["cause"], "message");
        assert_eq!(line["bytes"], length);
        poller.poll("/comet/c?cursor=rubbish").await;
        assert_eq!(access_line(&gate, "/comet/c?cursor=rubbish").await["cause"], "reset");
    }
}

#[tokio::test]
async fn the_log_tells_of_releases_and_of_clients_that_left() {
    let config = format!("[log]\nformat = \"json\"\n{RULES}");
    for way in Way::ALL {
        let gate = Gate::start_alone(&config).await;
        gate.hold(way, "/comet/c?why=gone").await.close();
        let line = access_line(&gate, "/comet/c?why=gone").await;
        assert_eq!(line["cause"], "gone", "{line}");
        assert_eq!(line["bytes"], 0, "{line}");

        let mut poller = gate.hold(way, "/comet/c?why=message").await;
        gate.publish("c", "x").await;
        poller.answer().await;
        assert_eq!(access_line(&gate, "/comet/c?why=message").await["cause"], "message");
    }
}

#[tokio::test]
async fn secrets_in_the_query_are_not_logged() {
    let config = format!("[log]\nformat = \"json\"\n{RULES}");
    for way in Way::ALL {
        let site = PlainSite::start().await;
        let gate = Gate::start_before(site.addr(), &config).await;
        let mut poller = way.connect(&gate).await;
        poller.poll("/comet/c?timeout=0&token=s3cret&x=1").await;
        poller.poll("/page?Token=s3cret&tok%65n=s3cret").await;
        poller.poll("/comet/c?timeout=s3&authorization=s3cret").await;
        access_line(&gate, "/comet/c?timeout=0&token=***&x=1").await;
        access_line(&gate, "/page?Token=***&tok%65n=***").await;
        access_line(&gate, "/comet/c?timeout=s3&authorization=***").await;
        assert!(!gate.log().contains("s3cret"), "{}", gate.log());
        // The site still gets them.
        assert!(site.last().head.contains("Token=s3cret"));
    }
}

#[tokio::test]
async fn a_publish_releases_all_polls_of_a_channel() {
    const POLLS: u64 = 200;
    let gate = Gate::start_alone(RULES).await;
    let mut pollers = Vec::new();
    for number in 0..POLLS {
        let way = Way::ALL[number as usize % Way::ALL.len()];
        let mut poller = way.connect(&gate).await;
        poller.ask("/comet/c").await;
        pollers.push(poller);
    }
    gate.wait_for_held(POLLS).await;
    assert_eq!(gate.publish("c", "to all").await["released"], POLLS);
    for poller in &mut pollers {
        assert_eq!(data(&poller.answer().await), "to all");
    }
}

#[tokio::test]
async fn many_polls_are_held_on_one_http_2_connection() {
    for way in Way::HTTP2 {
        let gate = Gate::start_alone(RULES).await;
        let mut poller = way.connect(&gate).await;
        for target in LATER {
            poller.ask(target).await;
        }
        gate.wait_for_held(3).await;
        // One that is taken back ends alone.
        poller.ask("/comet/other").await;
        gate.wait_for_held(4).await;
        poller.http2().cancel();
        gate.wait_for_held(3).await;
        assert_eq!(gate.publish("c", "x").await["released"], 3);
        assert_eq!(data(&poller.answer().await), "x");
        assert_eq!(poller.answer().await.json()["s"], 1);
        assert_eq!(poller.answer().await.json()["msg"], "x");
    }
}
