//! The timestamp dialect as its clients see it (`docs/dialects/timestamp.md`).

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use support::rules::BACKEND;
use support::{FORM, Gate, PlainSite, Poller, Way};

/// The rule with further keys.
fn rule(more: &str) -> String {
    format!("{BACKEND}{more}\n")
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// A stamp as it is written: JSON's number has lost the zeros at its end.
fn written(stamp: &Value) -> String {
    format!("{:.6}", stamp.as_f64().unwrap())
}

/// One poll with this cursor.
async fn poll(poller: &mut Poller, cursor: impl std::fmt::Display) -> Value {
    poller.poll(&format!("/backend.php?timestamp={cursor}")).await.json()
}

async fn publish(gate: &Gate, text: &str) -> Value {
    gate.publish("data.txt", text).await["stamp"].clone()
}

#[tokio::test]
async fn a_held_poll_gets_the_message_and_its_stamp() {
    for way in Way::ALL {
        let gate = Gate::start_alone(BACKEND).await;
        let mut poller = gate.hold(way, "/backend.php?timestamp=0").await;
        assert!(poller.is_quiet().await);
        let stamp = publish(&gate, "hello \"you\"").await;

        let response = poller.answer().await;
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some("text/html; charset=UTF-8"));
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        let stamp = written(&stamp);
        let expected = format!(r#"{{"msg":"hello \"you\"","timestamp":{stamp}}}"#);
        assert_eq!(response.text(), expected);
    }
}

#[tokio::test]
async fn a_first_poll_gets_the_newest_message_at_once() {
    for way in Way::ALL {
        let gate = Gate::start_alone(BACKEND).await;
        publish(&gate, "old").await;
        let stamp = publish(&gate, "newest").await;
        let mut poller = way.connect(&gate).await;
        for query in
            ["", "?timestamp=", "?timestamp=0", "?timestamp=-1", "?timestamp=x", "?timestamp[]=1"]
        {
            let answer = poller.poll(&format!("/backend.php{query}")).await.json();
            assert_eq!(answer, json!({"msg": "newest", "timestamp": stamp}), "{query}");
        }
    }
}

#[tokio::test]
async fn a_first_poll_may_begin_with_the_oldest_message_or_wait() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&rule("first = \"oldest\"")).await;
        publish(&gate, "old").await;
        publish(&gate, "newest").await;
        let mut poller = way.connect(&gate).await;
        let answer = poll(&mut poller, 0).await;
        assert_eq!(answer["msg"], "old");
        assert_eq!(poll(&mut poller, &answer["timestamp"]).await["msg"], "newest");

        let gate = Gate::start_alone(&rule("first = \"wait\"")).await;
        publish(&gate, "old").await;
        let mut poller = gate.hold(way, "/backend.php?timestamp=0").await;
        publish(&gate, "newest").await;
        assert_eq!(poller.answer().await.json()["msg"], "newest");
    }
}

#[tokio::test]
async fn messages_come_one_a_poll_and_none_is_skipped() {
    for way in Way::ALL {
        let gate = Gate::start_alone(BACKEND).await;
        publish(&gate, "start").await;
        let mut poller = way.connect(&gate).await;
        let mut answer = poll(&mut poller, 0).await;
        for number in 0..20 {
            publish(&gate, &number.to_string()).await;
        }
        for number in 0..20 {
            answer = poll(&mut poller, &answer["timestamp"]).await;
            assert_eq!(answer["msg"], number.to_string());
        }
        poller.ask(&format!("/backend.php?timestamp={}", answer["timestamp"])).await;
        gate.wait_for_held(1).await;
        publish(&gate, "end").await;
        assert_eq!(poller.answer().await.json()["msg"], "end");
    }
}

#[tokio::test]
async fn a_rule_may_deliver_only_the_newest_message() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&rule("deliver = \"latest\"")).await;
        let start = publish(&gate, "start").await;
        publish(&gate, "skipped").await;
        let stamp = publish(&gate, "newest").await;
        let mut poller = way.connect(&gate).await;
        let answer = poll(&mut poller, &start).await;
        assert_eq!(answer, json!({"msg": "newest", "timestamp": stamp}));
    }
}

#[tokio::test]
async fn a_quiet_answer_repeats_a_cursor_that_can_be_placed() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&rule("timeout = \"50ms\"")).await;
        let stamp = publish(&gate, "old").await;
        let mut poller = way.connect(&gate).await;
        let quiet = poll(&mut poller, &stamp).await;
        assert_eq!(quiet, json!({"msg": "", "timestamp": stamp}));
        publish(&gate, "between two polls").await;
        let answer = poll(&mut poller, &quiet["timestamp"]).await;
        assert_eq!(answer["msg"], "between two polls");
    }
}

#[tokio::test]
async fn a_quiet_poll_may_get_the_newest_message_again() {
    for way in Way::ALL {
        let more = "timeout = \"100ms\"\non_timeout = \"latest\"";
        let gate = Gate::start_alone(&rule(more)).await;
        let mut poller = way.connect(&gate).await;
        // Where there is none, the answer is empty.
        assert_eq!(poll(&mut poller, "1700000000").await["msg"], "");
        publish(&gate, "old").await;
        let newest = publish(&gate, "new").await;
        for _ in 0..2 {
            let answer = poll(&mut poller, written(&newest)).await;
            assert_eq!((&answer["msg"], &answer["timestamp"]), (&"new".into(), &newest));
        }
    }
}

#[tokio::test]
async fn a_quiet_answer_to_a_first_poll_tells_a_good_cursor() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&rule("timeout = \"50ms\"\nfirst = \"wait\"")).await;
        let mut poller = way.connect(&gate).await;
        // Nothing was ever published: the clock.
        let before = now();
        let quiet = poll(&mut poller, 0).await;
        assert_eq!(quiet["msg"], "");
        let stamp = quiet["timestamp"].as_f64().unwrap();
        assert!(before - 0.001 <= stamp && stamp <= now(), "{before} {stamp}");
        let published = publish(&gate, "between two polls").await;
        let answer = poll(&mut poller, &quiet["timestamp"]).await;
        assert_eq!(answer, json!({"msg": "between two polls", "timestamp": published}));

        // Something was: its stamp.
        let quiet = poll(&mut poller, 0).await;
        assert_eq!(quiet, json!({"msg": "", "timestamp": published}));
    }
}

#[tokio::test]
async fn a_stamp_ahead_of_everything_counts_as_now() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&rule("timeout = \"50ms\"")).await;
        let published = publish(&gate, "old").await;
        let mut poller = way.connect(&gate).await;
        for ahead in [format!("{:.0}", now() + 3600.0), "9".repeat(40), "1e300".into()] {
            let quiet = poll(&mut poller, &ahead).await;
            assert_eq!(quiet, json!({"msg": "", "timestamp": published}), "{ahead}");
        }
    }
}

#[tokio::test]
async fn a_stamp_ahead_of_everything_is_released_by_the_next_message() {
    for way in Way::ALL {
        let gate = Gate::start_alone(BACKEND).await;
        let target = format!("/backend.php?timestamp={:.0}", now() + 3600.0);
        let mut poller = gate.hold(way, &target).await;
        publish(&gate, "next").await;
        assert_eq!(poller.answer().await.json()["msg"], "next");
    }
}

#[tokio::test]
async fn an_old_stamp_on_an_empty_channel_is_held() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&format!("[history]\nage = \"600ms\"\n{BACKEND}")).await;
        let mut poller = gate.hold(way, "/backend.php?timestamp=1000000000.5").await;
        publish(&gate, "first ever").await;
        assert_eq!(poller.answer().await.json()["msg"], "first ever");
        gate.wait_for_kept("data.txt", 0).await;
        poller.ask("/backend.php?timestamp=1000000000.5").await;
        gate.wait_for_held(1).await;
        publish(&gate, "second").await;
        assert_eq!(poller.answer().await.json()["msg"], "second");
    }
}

#[tokio::test]
async fn a_stamp_older_than_the_history_gets_the_oldest_message_kept() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&format!("[history]\nmessages = 2\n{BACKEND}")).await;
        let start = publish(&gate, "start").await;
        for text in ["lost", "kept", "newest"] {
            publish(&gate, text).await;
        }
        let mut poller = way.connect(&gate).await;
        let answer = poll(&mut poller, &start).await;
        assert_eq!(answer["msg"], "kept");
        assert_eq!(poll(&mut poller, &answer["timestamp"]).await["msg"], "newest");
    }
}

#[tokio::test]
async fn stamps_are_written_in_the_channels_tick() {
    for way in Way::ALL {
        for (tick, digits, decimals) in [("micros", 10, 6), ("millis", 13, 0), ("seconds", 10, 0)] {
            let channel = format!("[[channel]]\nmatch = \"data.txt\"\nstamp = \"{tick}\"\n");
            let gate = Gate::start_alone(&format!("{channel}{BACKEND}timeout = \"50ms\"\n")).await;
            let mut poller = way.connect(&gate).await;
            let shown = |answer: &Value, text: &str| {
                let stamp = text.split("\"timestamp\":").nth(1).unwrap().trim_end_matches('}');
                let (whole, fraction) = stamp.split_once('.').unwrap_or((stamp, ""));
                assert_eq!((whole.len(), fraction.len()), (digits, decimals), "{answer}");
                stamp.to_owned()
            };
            let quiet = poller.poll("/backend.php?timestamp=0").await;
            let mut cursor = shown(&quiet.json(), &quiet.text());
            // A burst within one tick: its stamps run ahead of the clock and are good all the same.
            for text in ["one", "two", "three"] {
                publish(&gate, text).await;
            }
            for text in ["one", "two", "three", ""] {
                let response = poller.poll(&format!("/backend.php?timestamp={cursor}")).await;
                assert_eq!(response.json()["msg"], text, "{tick}");
                cursor = shown(&response.json(), &response.text());
            }
        }
    }
}

#[tokio::test]
async fn a_rule_may_name_the_fields_and_add_constant_ones() {
    let more = r#"
        fields = { message = "text", cursor = "since" }
        extra = { state = "<ok>", n = 1 }
        content_type = "application/json"
    "#;
    for way in Way::ALL {
        let gate = Gate::start_alone(&rule(more)).await;
        let stamp = publish(&gate, "hello").await;
        let mut poller = way.connect(&gate).await;
        let response = poller.poll("/backend.php?timestamp=9&since=0").await;
        assert_eq!(response.header("content-type"), Some("application/json"));
        let expected = json!({"text": "hello", "since": stamp, "state": "<ok>", "n": 1});
        assert_eq!(response.json(), expected);
        poller.ask(&format!("/backend.php?since={stamp}")).await;
        gate.wait_for_held(1).await;
    }
}

#[tokio::test]
async fn a_json_message_is_a_string_unless_it_is_to_be_embedded() {
    let message = json!({"a": [1, "<b>"]});
    for way in Way::ALL {
        let gate = Gate::start_alone(BACKEND).await;
        gate.publish_json("data.txt", &message).await;
        let answer = poll(&mut way.connect(&gate).await, 0).await;
        assert_eq!(answer["msg"], message.to_string());

        let gate = Gate::start_alone(&rule("embed = true")).await;
        gate.publish_json("data.txt", &message).await;
        let mut poller = way.connect(&gate).await;
        let response = poller.poll("/backend.php").await;
        assert_eq!(response.json()["msg"], message);
        assert!(!response.text().contains('<'), "{}", response.text());
        publish(&gate, "[1]").await;
        assert_eq!(poll(&mut poller, 0).await["msg"], "[1]", "text stays text");
    }
}

#[tokio::test]
async fn messages_cannot_be_made_to_run_in_a_browser() {
    for way in Way::ALL {
        let gate = Gate::start_alone(BACKEND).await;
        let text = "<script>alert('&')</script>\u{2028}\u{2029}é";
        publish(&gate, text).await;
        let mut poller = way.connect(&gate).await;
        let response = poller.poll("/backend.php?timestamp=%3Cb%3E").await;
        let body = response.text();
        assert!(!body.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{body}");
        assert!(body.starts_with(r#"{"msg":"\u003cscript\u003ealert('\u0026')"#), "{body}");
        assert_eq!(response.json()["msg"], text);
    }
}

#[tokio::test]
async fn a_callback_makes_the_answer_jsonp() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&rule("callback = \"callback\"")).await;
        let stamp = publish(&gate, "</script>").await;
        let mut poller = way.connect(&gate).await;
        for name in ["jQuery123_4", "$", "a.b_C9", "callback"] {
            let response = poller.poll(&format!("/backend.php?callback={name}")).await;
            let kind = response.header("content-type").unwrap();
            assert!(kind.starts_with("text/javascript"), "{kind}");
            assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
            let stamp = written(&stamp);
            let json = format!(r#"{{"msg":"\u003c/script\u003e","timestamp":{stamp}}}"#);
            assert_eq!(response.text(), format!("{name}({json});"));
        }
        // Without a callback it is what it always is.
        let response = poller.poll("/backend.php").await;
        assert_eq!(response.header("content-type"), Some("text/html; charset=UTF-8"));
        assert_eq!(response.json()["timestamp"], stamp);
    }
}

#[tokio::test]
async fn a_held_poll_with_a_callback_is_answered_as_jsonp() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&rule("callback = \"cb\"")).await;
        let mut poller = gate.hold(way, "/backend.php?cb=now").await;
        let stamp = written(&publish(&gate, "x").await);
        let expected = format!(r#"now({{"msg":"x","timestamp":{stamp}}});"#);
        assert_eq!(poller.answer().await.text(), expected);
    }
}

#[tokio::test]
async fn a_callback_that_is_no_name_is_refused() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&rule("callback = \"callback\"")).await;
        for name in ["", "a(b", "a%3Cb", "a%20b", "alert(1)//", "a-b", "%C3%BC", "a%00", "a;b"] {
            let mut poller = way.connect(&gate).await;
            let response = poller.poll(&format!("/backend.php?callback={name}")).await;
            assert_eq!(response.status, 400, "{name}");
            assert!(!response.text().contains("alert"), "nothing is echoed");
        }
        // A rule without a callback knows no such parameter.
        let gate = Gate::start_alone(BACKEND).await;
        publish(&gate, "x").await;
        let answer = gate.get("/backend.php?callback=a(b").await.json();
        assert_eq!(answer["msg"], "x");
    }
}

/// A multipart form of one field.
fn multipart(name: &str, value: &str) -> String {
    let head = format!("Content-Disposition: form-data; name=\"{name}\"");
    format!("--edge\r\n{head}\r\n\r\n{value}\r\n--edge--\r\n")
}

#[tokio::test]
async fn a_form_polls_as_a_query_does() {
    let gate = Gate::start_alone(BACKEND).await;
    let stamp = publish(&gate, "old").await;
    for (kind, body) in [
        (FORM, format!("timestamp={stamp}")),
        ("multipart/form-data; boundary=edge", multipart("timestamp", &stamp.to_string())),
    ] {
        for expect in [&[][..], &[("Expect", "100-continue")]] {
            let mut client = gate.connect().await;
            let headers = [&[("Content-Type", kind)], expect].concat();
            let length = body.len().to_string();
            let headers = [&headers[..], &[("Content-Length", &length)]].concat();
            client.send("POST", "/backend.php", &headers, b"").await;
            if !expect.is_empty() {
                // A client that sends `Expect: 100-continue` gets the 100 before it sends any of
                // its body.
                assert_eq!(client.read_head().await.status, 100, "{kind}");
            }
            client.send_raw(&body).await;
            gate.wait_for_held(1).await;
            // The cursor of the form counts: without it the old message would have come.
            assert!(client.is_quiet().await, "{kind}");
            client.close();
            gate.wait_for_held(0).await;
        }
    }
    let mut client = gate.connect().await;
    client.send("POST", "/backend.php", &[("Content-Type", FORM)], b"timestamp=9999999999").await;
    gate.wait_for_held(1).await;
    publish(&gate, "new").await;
    assert_eq!(client.read_response().await.json()["msg"], "new");
    // The connection goes on.
    let answer = client.post("/backend.php", FORM, "timestamp=").await.json();
    assert_eq!(answer["msg"], "new");
}

#[tokio::test]
async fn a_channel_may_be_named_by_the_request() {
    let rules = r#"
        [[poll]]
        path    = "/room"
        dialect = "timestamp"
        channel = "room-{query.room}"
        [[poll]]
        path    = "/user"
        dialect = "timestamp"
        channel = "user-{cookie.user}"
        [[poll]]
        path    = "/tenant"
        dialect = "timestamp"
        channel = "{header.x-tenant}"
        [[poll]]
        path    = "/live/*"
        dialect = "timestamp"
        channel = "{path.1}"
    "#;
    for way in Way::ALL {
        let site = PlainSite::start().await;
        let gate = Gate::start_before(site.addr(), rules).await;
        for channel in ["room-7 a", "user-ann", "acme", "x/ü"] {
            gate.publish(channel, channel).await;
        }
        let mut poller = way.connect(&gate).await;
        for (target, headers, channel) in [
            ("/room?room=7+a", &[][..], "room-7 a"),
            ("/user", &[("Cookie", "a=b; user=ann")], "user-ann"),
            ("/tenant", &[("X-Tenant", "acme")], "acme"),
            ("/live/x%2F%C3%BC", &[], "x/ü"),
        ] {
            let response = poller.poll_with("GET", target, headers).await;
            assert_eq!(response.json()["msg"], channel, "{target}");
        }
        // A template that cannot be filled: not this rule.
        for target in ["/room", "/user", "/tenant"] {
            let response = poller.poll(target).await;
            assert_eq!(response.text(), format!("site: GET {target}"));
        }
        let refused = poller.poll("/room?room=%0A").await;
        assert_eq!(refused.status, 400);
    }
}

#[tokio::test]
async fn a_message_that_is_sent_to_the_site_is_no_poll() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), BACKEND).await;
    for way in Way::ALL {
        let mut poller = way.connect(&gate).await;
        let response = poller.poll("/backend.php?msg=hello").await;
        assert_eq!(response.text(), "site: GET /backend.php?msg=hello");
        // An empty one is a poll.
        let target = "/backend.php?msg=&timestamp=0";
        drop(gate.hold(way, target).await);
        gate.wait_for_held(0).await;
    }
}

#[tokio::test]
async fn without_any_rule_a_channel_is_polled_at_comet() {
    let gate = Gate::start_alone("").await;
    for way in Way::ALL {
        let mut poller = gate.hold(way, "/comet?channel=news&timestamp=9999999999").await;
        gate.publish("news", "x").await;
        assert_eq!(poller.answer().await.json()["msg"], "x");
    }
}

/// A rule whose answers are the bare message.
fn bare() -> String {
    rule("fields = { message = \".\" }")
}

#[tokio::test]
async fn a_bare_answer_is_the_message_and_nothing_else() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&bare()).await;
        // Whatever is kept, a poll without a cursor waits for the next.
        publish(&gate, "before").await;
        let mut poller = gate.hold(way, "/backend.php?timestamp=0").await;
        publish(&gate, "<b>\"hello\"</b>\n").await;
        let response = poller.answer().await;
        assert_eq!((response.status, &*response.text()), (200, "<b>\"hello\"</b>\n"));
        assert_eq!(response.header("content-type"), Some("text/html; charset=UTF-8"));
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));

        let mut poller = gate.hold(way, "/backend.php").await;
        gate.publish_as("data.txt", "application/octet-stream", [0, 255, b'\n']).await;
        assert_eq!(poller.answer().await.body, [0, 255, b'\n']);
    }
}

#[tokio::test]
async fn a_quiet_bare_answer_is_empty() {
    for way in Way::ALL {
        let config = bare() + "timeout = \"50ms\"\ncontent_type = \"text/plain\"\n";
        let gate = Gate::start_alone(&config).await;
        let response = way.connect(&gate).await.poll("/backend.php").await;
        assert_eq!((response.status, response.body.len()), (200, 0));
        assert_eq!(response.header("content-type"), Some("text/plain"));
        assert_eq!(response.header("content-length"), Some("0"));
        assert!(response.header("etag").is_some());
    }
}

#[tokio::test]
async fn whoever_sends_back_the_tag_of_a_bare_answer_misses_nothing() {
    for way in Way::ALL {
        let gate = Gate::start_alone(&(bare() + "timeout = \"20s\"\n")).await;
        let mut poller = way.connect(&gate).await;
        poller.ask("/backend.php").await;
        gate.wait_for_held(1).await;
        publish(&gate, "1").await;
        let response = poller.answer().await;
        assert_eq!(response.text(), "1");
        let mut tag = response.header("etag").unwrap().to_owned();
        publish(&gate, "2").await;
        publish(&gate, "3").await;
        for text in ["2", "3"] {
            let response =
                poller.poll_with("GET", "/backend.php", &[("If-None-Match", &tag)]).await;
            assert_eq!((response.status, &*response.text()), (200, text));
            tag = format!("W/{}", response.header("etag").unwrap());
        }
        // No message comes twice.
        poller.ask_with("GET", "/backend.php", &[("If-None-Match", &tag)]).await;
        gate.wait_for_held(1).await;
        publish(&gate, "4").await;
        assert_eq!(poller.answer().await.text(), "4");
        // A tag that cannot be placed is answered at once, with the oldest that is kept.
        for tag in ["\"000000-1\"", "\"nonsense\""] {
            let response = poller.poll_with("GET", "/backend.php", &[("If-None-Match", tag)]).await;
            assert_eq!(response.text(), "1");
        }
        // A stamp counts for more than a tag.
        let newest = gate.channel("data.txt").await["newest"]["stamp"].clone();
        let target = format!("/backend.php?timestamp={}", written(&newest));
        poller.ask_with("GET", &target, &[("If-None-Match", "\"nonsense\"")]).await;
        gate.wait_for_held(1).await;
    }
}

#[tokio::test]
async fn stamps_of_a_burst_differ_in_every_tick() {
    for (tick, step) in [("seconds", 1), ("millis", 1)] {
        for way in Way::ALL {
            let channel = format!("\n[[channel]]\nmatch = \"data.txt\"\nstamp = \"{tick}\"\n");
            let gate = Gate::start_alone(&(rule("first = \"oldest\"") + &channel)).await;
            let mut stamps = Vec::new();
            for number in 0..20 {
                stamps.push(publish(&gate, &number.to_string()).await.as_u64().unwrap());
            }
            assert!(stamps.windows(2).all(|pair| pair[1] >= pair[0] + step), "{stamps:?}");
            let mut poller = way.connect(&gate).await;
            let mut cursor = 0;
            for (number, stamp) in stamps.iter().enumerate() {
                let answer = poll(&mut poller, cursor).await;
                assert_eq!(answer, json!({"msg": number.to_string(), "timestamp": stamp}));
                cursor = *stamp;
            }
        }
    }
}
