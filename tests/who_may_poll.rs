//! Polls that want leave: signed tokens, and the site asked (`docs/auth.md`). What PHP signs is
//! in `php_tokens.rs`.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};
use support::{Gate, PlainSite, Way};

const SIGNED: &str = r#"
[[poll]]
path = "/comet/*"
dialect = "native"
origins = ["https://a.example"]
auth = { kind = "signed", keys = { old = "first secret", new = "second secret" } }
"#;

const ASKED: &str = r#"
[[poll]]
path = "/comet/*"
dialect = "native"
auth = { kind = "upstream", url = "/auth.php?x=y", cache = "1h", timeout = "2s", anonymous = true }
"#;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn sign(id: &str, secret: &str, expires: u64, channels: &str) -> String {
    let signed = format!("{id}.{expires}.{}", URL_SAFE_NO_PAD.encode(channels));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, signed.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{signed}.{hex}")
}

#[tokio::test]
async fn a_signed_token_lets_in_by_any_of_its_three_places_and_only_to_its_channels() {
    for way in Way::ALL {
        let gate = Gate::start_alone(SIGNED).await;
        let token = sign("new", "second secret", now() + 60, "news,user-7/*");
        let other = sign("old", "first secret", now() + 60, "news");
        let mut poller = way.connect(&gate).await;
        gate.publish("news", "hello").await;
        let target = "/comet/news?cursor=oldest";
        for headers in [
            [("Authorization", format!("Bearer {token}"))],
            [("Cookie", format!("a=b; pollgate_token={other}"))],
        ] {
            let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
            let response = poller.poll_with("GET", target, &headers).await;
            assert_eq!(response.status, 200, "{}", response.text());
        }
        let target = format!("/comet/user-7%2Fa,news?cursor=oldest&token={token}");
        assert_eq!(poller.poll(&target).await.status, 200);
        let denied = poller.poll(&format!("/comet/news,user-8?token={token}")).await;
        assert_eq!(
            (denied.status, denied.text()),
            (403, r#"{"error":"not allowed to poll \"user-8\""}"#.to_owned())
        );
        assert_eq!(denied.header("cache-control"), Some("no-store"));
        let missing = poller.poll("/comet/user-8").await;
        assert_eq!((missing.status, missing.json()["error"].is_string()), (401, true));
        for bad in [
            sign("new", "first secret", now() + 60, "news"),
            sign("none", "first secret", now() + 60, "news"),
            sign("new", "second secret", now() - 1, "news"),
            "x".to_owned(),
        ] {
            let refused = poller.poll(&format!("/comet/news?token={bad}")).await;
            assert_eq!(refused.status, 401, "{bad}");
        }
        // No unauthorized client has made a channel.
        let channels = gate.hook("GET", "/channels", &[], b"").await.json();
        assert!(!channels.to_string().contains("user-8"), "{channels}");
        let metrics = gate.hook("GET", "/metrics", &[], b"").await.text();
        assert!(metrics.contains("pollgate_refusals_total{cause=\"denied\"} 6"), "{metrics}");
    }
}

#[tokio::test]
async fn a_held_poll_ends_when_its_token_does() {
    for way in Way::ALL {
        let gate = Gate::start_alone(SIGNED).await;
        let token = sign("new", "second secret", now() + 2, "news");
        let mut poller = gate.hold(way, &format!("/comet/news?token={token}")).await;
        let response = poller.answer().await;
        assert_eq!(response.status, 401, "{}", response.text());
        assert_eq!(response.json(), json!({"error": "the token has expired"}));
        let metrics = gate.hook("GET", "/metrics", &[], b"").await.text();
        assert!(metrics.contains("pollgate_releases_total{cause=\"expired\"} 1"), "{metrics}");
        assert_eq!(gate.held().await, 0);
    }
}

#[tokio::test]
async fn leave_that_is_taken_back_ends_the_polls_that_are_held_by_it() {
    for way in Way::ALL {
        let gate = Gate::start_alone(SIGNED).await;
        let token = sign("new", "second secret", now() + 60, "*");
        let spare = sign("old", "first secret", now() + 60, "*");
        let mut mine = gate.hold(way, &format!("/comet/a?token={token}")).await;
        let mut other = way.connect(&gate).await;
        other.ask(&format!("/comet/a?token={spare}")).await;
        gate.wait_for_held(2).await;
        let revoke = async |query: &str| {
            gate.hook("DELETE", &format!("/grants{query}"), &[], b"").await.json()
        };
        assert_eq!(revoke("?channel=b").await, json!({"revoked": 0}));
        assert_eq!(revoke(&format!("?channel=a&credential={token}")).await, json!({"revoked": 1}));
        let response = mine.answer().await;
        assert_eq!(response.status, 401, "{}", response.text());
        assert!(other.is_quiet().await);
        assert_eq!(revoke("").await, json!({"revoked": 1}));
        assert_eq!(other.answer().await.status, 401);
        assert!(!gate.log().contains(&token), "{}", gate.log());
    }
}

#[tokio::test]
async fn the_site_is_asked_once_with_the_clients_cookies_and_its_word_is_kept() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let gate = Gate::start_before(site.addr(), ASKED).await;
        let mut poller = way.connect(&gate).await;
        let headers = [("Cookie", "PHPSESSID=abc"), ("Pollgate-Channels", "forged")];
        poller.ask_with("GET", "/comet/a,b%2Cc?z=1", &headers).await;
        let mut visit = site.visit().await;
        assert_eq!(visit.request.line(), "GET /auth.php?x=y");
        assert_eq!(visit.request.header("cookie"), Some("PHPSESSID=abc"));
        assert_eq!(visit.request.header("x-original-uri"), Some("/comet/a,b%2Cc?z=1"));
        assert_eq!(visit.request.all("pollgate-channels"), ["a,b%2Cc"]);
        visit.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        gate.wait_for_held(1).await;
        gate.publish("a", "1").await;
        let answer = poller.answer().await.json();
        // No second visit: the word is kept.
        let target = format!("/comet/a,b%2Cc?z=1&cursor={}", answer["cursor"].as_str().unwrap());
        poller.ask_with("GET", &target, &headers).await;
        gate.wait_for_held(1).await;
        gate.publish("a", "2").await;
        assert_eq!(poller.answer().await.json()["messages"][0]["data"], "2");
        // Until it is taken back, by the value of the cookie.
        let revoked = gate.hook("DELETE", "/grants?credential=abc", &[], b"").await.json();
        assert_eq!(revoked, json!({"revoked": 1}));
        poller.ask_with("GET", "/comet/a,b%2Cc?z=1", &headers).await;
        site.visit()
            .await
            .send("HTTP/1.1 403 Forbidden\r\nContent-Type: text/x\r\nContent-Length: 3\r\n\r\nno!")
            .await;
        let refused = poller.answer().await;
        assert_eq!((refused.status, refused.text()), (403, "no!".to_owned()));
        assert_eq!(refused.header("content-type"), Some("text/x"));
    }
}

#[tokio::test]
async fn the_site_may_allow_some_of_the_channels() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let gate = Gate::start_before(site.addr(), ASKED).await;
        let mut poller = way.connect(&gate).await;
        poller.ask("/comet/a,b,c").await;
        let yes = "HTTP/1.1 200 OK\r\nPollgate-Channels: b, %78\r\nContent-Length: 0\r\n\r\n";
        site.visit().await.send(yes).await;
        gate.wait_for_held(1).await;
        gate.publish("a", "not for this one").await;
        assert!(poller.is_quiet().await);
        gate.publish("b", "for all").await;
        let answer = poller.answer().await.json();
        assert_eq!(answer["messages"].as_array().map(Vec::len), Some(1), "{answer}");
        // The others are cached as not allowed.
        assert_eq!(poller.poll("/comet/a").await.status, 403);
        poller.ask("/comet/d").await;
        site.visit()
            .await
            .send("HTTP/1.1 200 OK\r\nPollgate-Channels: \r\nContent-Length: 0\r\n\r\n")
            .await;
        assert_eq!(poller.answer().await.status, 403);
    }
}

#[tokio::test]
async fn a_site_that_does_not_say_makes_for_503_and_holds_nobody() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let gate = Gate::start_before(site.addr(), ASKED).await;
        for answer in [
            "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nPollgate-Channels: *\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nPollgate-Channels: a, %zz\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nPollgate-Channels: %ff\r\nContent-Length: 0\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            let mut poller = way.connect(&gate).await;
            poller.ask("/comet/a").await;
            site.visit().await.send(answer).await;
            let response = poller.answer().await;
            assert_eq!(response.status, 503, "{answer}: {}", response.text());
            assert!(response.header("retry-after").is_some());
        }
        // One without any content.
        let mut poller = way.connect(&gate).await;
        poller.ask("/comet/a").await;
        let silent = site.visit().await;
        assert_eq!(poller.answer().await.status, 503);
        drop(silent);
        assert_eq!(gate.held().await, 0);
    }
}

#[tokio::test]
async fn what_the_site_said_to_one_client_is_not_said_to_another() {
    const YES: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    const NO: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    let mut site = PlainSite::start_by_hand().await;
    let config = format!("trusted_proxies = [\"127.0.0.1\"]\n{ASKED}");
    let gate = Gate::start_before(site.addr(), &config).await;
    let mut proxy = gate.connect().await;
    // The site may decide by anything that it receives.
    let mine = [
        ("X-Forwarded-For", "192.0.2.1"),
        ("User-Agent", "mine"),
        ("Accept-Language", "de"),
        ("Origin", "https://site.example"),
        ("Cookie", "a=b"),
    ];
    let target = "/comet/a?key=secret&timeout=0";
    proxy.send("GET", target, &mine, b"").await;
    site.visit().await.send(YES).await;
    assert_eq!(proxy.read_response().await.status, 200);
    // The same client, further on, is not asked about again.
    let onward = "/comet/a?key=secret&timeout=0.0&cursor=oldest&_=123";
    proxy.send("GET", onward, &mine, b"").await;
    assert_eq!(proxy.read_response().await.status, 200);
    for (name, value) in [
        ("X-Forwarded-For", "192.0.2.2"),
        ("User-Agent", "yours"),
        ("Accept-Language", "en"),
        ("Origin", "https://evil.example"),
        ("Cookie", "a=c"),
        ("Authorization", "Basic YTpi"),
    ] {
        let mut yours = mine.to_vec();
        yours.retain(|(known, _)| *known != name);
        yours.push((name, value));
        proxy.send("GET", target, &yours, b"").await;
        site.visit().await.send(NO).await;
        assert_eq!(proxy.read_response().await.status, 403, "{name}");
    }
    for target in ["/comet/a?key=guess&timeout=0", "/comet/a?timeout=0", "/comet/b?key=secret"] {
        proxy.send("GET", target, &mine, b"").await;
        site.visit().await.send(NO).await;
        assert_eq!(proxy.read_response().await.status, 403, "{target}");
    }
    proxy.send("GET", target, &mine, b"").await;
    assert_eq!(proxy.read_response().await.status, 200);
}

#[tokio::test]
async fn leave_does_not_hide_behind_many_cookies() {
    let mut site = PlainSite::start_by_hand().await;
    let gate = Gate::start_before(site.addr(), ASKED).await;
    let junk: String = (0..40).map(|n| format!("c{n}={n}; ")).collect();
    let cookie = format!("{junk}PHPSESSID=stolen");
    let mut poller = Way::Plain.connect(&gate).await;
    poller.ask_with("GET", "/comet/a", &[("Cookie", &cookie)]).await;
    site.visit().await.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    gate.wait_for_held(1).await;
    let revoked = gate.hook("DELETE", "/grants?credential=stolen", &[], b"").await.json();
    assert_eq!(revoked, json!({"revoked": 1}));
    assert_eq!(poller.answer().await.status, 401);
}

#[tokio::test]
async fn a_browser_publishes_only_where_it_may_poll() {
    let config = r#"
[[poll]]
path = "/comet.php"
dialect = "novcomet"
browser_publish = true
auth = { kind = "signed", keys = { k = "secret" } }
"#;
    for way in Way::ALL {
        let gate = Gate::start_alone(config).await;
        let token = sign("k", "secret", now() + 60, "mine");
        let mut poller = way.connect(&gate).await;
        assert_eq!(poller.poll("/comet.php?publish=mine").await.status, 401, "{way:?}");
        let target = format!("/comet.php?publish=yours&token={token}");
        assert_eq!(poller.poll(&target).await.status, 403, "{way:?}");
        assert_eq!(gate.status().await["channels"], 0, "{way:?}");
        let target = format!("/comet.php?publish=mine&token={token}");
        assert_eq!(poller.poll(&target).await.text(), "true", "{way:?}");
    }
}

/// The response's list is taken apart before its names are decoded, and no name is a pattern.
#[tokio::test]
async fn a_star_that_the_site_repeats_opens_nothing() {
    for way in Way::ALL {
        let mut site = PlainSite::start_by_hand().await;
        let gate = Gate::start_before(site.addr(), ASKED).await;
        gate.publish("room-secret", "for few").await;
        let mut poller = way.connect(&gate).await;
        // A site that lets in to every name it has no rule about would name `room-*`.
        for target in ["/comet/room-*,room-secret", "/comet/room-%2A,room-secret", "/comet/*"] {
            let refused = poller.poll(target).await;
            assert_eq!(refused.status, 403, "{target}: {}", refused.text());
            assert!(refused.text().contains("has a *"), "{}", refused.text());
        }
        assert!(site.requests().is_empty());
        // Nor does one that says more than it was asked.
        poller.ask("/comet/room-a,room-secret?cursor=oldest").await;
        let visit = "HTTP/1.1 200 OK\r\nPollgate-Channels: room-%2A, room-a%2Croom-secret\r\n\
             Content-Length: 0\r\n\r\n";
        site.visit().await.send(visit).await;
        let refused = poller.answer().await;
        assert_eq!((refused.status, gate.held().await), (403, 0), "{}", refused.text());
    }
}

#[tokio::test]
async fn a_channel_with_a_star_is_polled_by_no_token() {
    for way in Way::ALL {
        let gate = Gate::start_alone(SIGNED).await;
        let token = sign("new", "second secret", now() + 60, "user-*");
        let mut poller = way.connect(&gate).await;
        let refused = poller.poll(&format!("/comet/user-%2A?token={token}")).await;
        assert_eq!(refused.status, 403, "{}", refused.text());
    }
}
