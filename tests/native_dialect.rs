//! The native dialect as its clients see it (`docs/dialects/native.md`).

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::{FORM, Gate, PlainSite, Poller, Response, Way};

/// The answer's cursor.
fn cursor(answer: &Value) -> &str {
    answer["cursor"].as_str().unwrap_or_else(|| panic!("no cursor in {answer}"))
}

/// The `data` of all messages.
fn data(answer: &Value) -> Vec<&Value> {
    let messages = answer["messages"].as_array().unwrap_or_else(|| panic!("none: {answer}"));
    messages.iter().map(|message| &message["data"]).collect()
}

/// Polls without being held.
async fn look(poller: &mut Poller, channels: &str, cursor: &str) -> Value {
    let response = poller.poll(&format!("/comet/{channels}?cursor={cursor}&timeout=0")).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// Checks that a request is refused with an error that has a remedy.
fn explains(response: &Response, status: u16, what: &str) {
    assert_eq!(response.status, status, "{what}: {}", response.text());
    let body = response.json();
    assert!(body["error"].is_string() && body["hint"].is_string(), "{what}: {body}");
}

#[tokio::test]
async fn a_held_poll_is_released_by_a_publish() {
    for way in Way::ALL {
        let gate = Gate::start_alone("").await;
        let mut poller = gate.hold(way, "/comet/news").await;
        assert!(poller.is_quiet().await);

        let published = gate.publish("news", "hello").await;
        assert_eq!(published["released"], 1);
        let response = poller.answer().await;
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some("application/json"));
        let answer = response.json();
        let id = &published["id"];
        let stamp = &published["stamp"];
        let message = json!({"channel": "news", "id": id, "stamp": stamp, "data": "hello"});
        assert_eq!(answer["messages"], json!([message]));
        assert_eq!(answer.as_object().unwrap().len(), 2, "{answer}");
        assert_eq!(gate.held().await, 0);
    }
}

#[tokio::test]
async fn json_stands_verbatim_text_as_a_string_and_bytes_in_base64() {
    for way in Way::ALL {
        let gate = Gate::start_alone("").await;
        let mut poller = way.connect(&gate).await;
        let verbatim = r#"{"n": 12345678901234567890.10, "a":[1e400,"\u00e9"] }"#;
        gate.publish_as("c", "application/json", verbatim).await;
        gate.publish("c", "é \"quoted\" </script>\n").await;
        gate.publish_as("c", "image/png", b"\x89PNG\xff\x00").await;
        gate.publish_as("c", "text/plain", "").await;
        let response = poller.poll("/comet/c?cursor=oldest").await;
        assert!(response.text().contains(&format!("\"data\":{verbatim}")), "{}", response.text());
        // Read back without a number that no double holds.
        let text = response.text().replace("1e400", "1");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["messages"][1]["data"], "é \"quoted\" </script>\n");
        assert_eq!(answer["messages"][2]["base64"], "iVBOR/8A");
        assert_eq!(answer["messages"][2].get("data"), None);
        assert_eq!(answer["messages"][3]["data"], "");
    }
}

#[tokio::test]
async fn all_waiting_messages_come_in_one_answer_and_in_order() {
    for way in Way::ALL {
        let gate = Gate::start_alone("").await;
        let mut poller = way.connect(&gate).await;
        let start = look(&mut poller, "news", "").await;
        for number in 0..50 {
            gate.publish_json("news", &json!(number)).await;
        }
        let answer = look(&mut poller, "news", cursor(&start)).await;
        let numbers: Vec<Value> = (0..50).map(Value::from).collect();
        assert_eq!(data(&answer), numbers.iter().collect::<Vec<_>>());
        assert_eq!(answer.get("reset"), None);
        let answer = look(&mut poller, "news", cursor(&answer)).await;
        assert!(data(&answer).is_empty(), "{answer}");
    }
}

#[tokio::test]
async fn the_cursor_of_the_last_answer_gives_everything_between_two_polls() {
    for way in Way::ALL {
        let gate = Gate::start_alone("").await;
        let mut poller = gate.hold(way, "/comet/news").await;
        gate.publish("news", "one").await;
        let answer = poller.answer().await.json();
        gate.publish("news", "two").await;
        gate.publish("news", "three").await;

        // Held or not, nothing has to be waited for.
        let answer = poller.poll(&format!("/comet/news?cursor={}", cursor(&answer))).await.json();
        assert_eq!(data(&answer), ["two", "three"]);
        poller.ask(&format!("/comet/news?cursor={}", cursor(&answer))).await;
        gate.wait_for_held(1).await;
        gate.publish("news", "four").await;
        assert_eq!(data(&poller.answer().await.json()), ["four"]);
    }
}

#[tokio::test]
async fn one_poll_waits_on_several_channels() {
    for way in Way::ALL {
        let gate = Gate::start_alone("").await;
        let mut poller = gate.hold(way, "/comet/a,b,c").await;
        gate.publish("elsewhere", "not for it").await;
        assert_eq!(gate.held().await, 1);
        gate.publish("b", "from b").await;
        let answer = poller.answer().await.json();
        assert_eq!(answer["messages"][0]["channel"], "b");
        assert_eq!(data(&answer), ["from b"]);

        gate.publish("c", "from c").await;
        gate.publish("a", "from a").await;
        gate.publish("c", "again from c").await;
        let answer = look(&mut poller, "a,b,c", cursor(&answer)).await;
        let of = |channel: &str| -> Vec<Value> {
            let messages = answer["messages"].as_array().unwrap().iter();
            messages.filter(|m| m["channel"] == channel).map(|m| m["data"].clone()).collect()
        };
        assert_eq!(of("a"), ["from a"]);
        assert_eq!(of("c"), ["from c", "again from c"]);
        assert!(of("b").is_empty());
        assert!(data(&look(&mut poller, "a,b,c", cursor(&answer)).await).is_empty());
    }
}

#[tokio::test]
async fn a_quiet_answer_is_empty_and_its_cursor_is_good() {
    for way in Way::ALL {
        let gate = Gate::start_alone("[hold]\ntimeout = \"50ms\"\n").await;
        let mut poller = way.connect(&gate).await;
        let quiet = poller.poll("/comet/a,b").await.json();
        assert_eq!(quiet["messages"], json!([]));
        assert_eq!(quiet.get("reset"), None);
        let quiet = poller.poll(&format!("/comet/a,b?cursor={}", cursor(&quiet))).await.json();
        assert_eq!(quiet["messages"], json!([]));

        gate.publish("a", "between two polls").await;
        let answer = poller.poll(&format!("/comet/a,b?cursor={}", cursor(&quiet))).await.json();
        assert_eq!(data(&answer), ["between two polls"]);
        assert_eq!(answer.get("reset"), None);
    }
}

#[tokio::test]
async fn without_a_cursor_or_with_an_empty_one_a_poll_begins_now() {
    for way in Way::ALL {
        let gate = Gate::start_alone("").await;
        gate.publish("news", "before").await;
        for target in ["/comet/news", "/comet/news?cursor=", "/comet/news?other=1"] {
            let mut poller = gate.hold(way, target).await;
            gate.publish("news", "after").await;
            assert_eq!(data(&poller.answer().await.json()), ["after"], "{target}");
        }
    }
}

#[tokio::test]
async fn the_oldest_cursor_begins_with_the_oldest_message_kept() {
    for way in Way::ALL {
        let gate = Gate::start_alone("[history]\nmessages = 2\n").await;
        for text in ["one", "two", "three"] {
            gate.publish("news", text).await;
        }
        let mut poller = way.connect(&gate).await;
        let answer = poller.poll("/comet/news?cursor=oldest").await.json();
        assert_eq!(data(&answer), ["two", "three"]);
        assert_eq!(answer.get("reset"), None);

        // A poll on an empty channel waits.
        poller.ask("/comet/empty?cursor=oldest").await;
        gate.wait_for_held(1).await;
        gate.publish("empty", "first").await;
        assert_eq!(data(&poller.answer().await.json()), ["first"]);
    }
}

#[tokio::test]
async fn channel_names_are_percent_encoded() {
    for way in Way::ALL {
        let gate = Gate::start_alone("").await;
        for (escaped, name) in [
            ("a%2Cb", "a,b"),
            ("a/b", "a/b"),
            ("a%2Fb", "a/b"),
            ("a+b", "a+b"),
            ("a%20b", "a b"),
            ("%C3%BC", "ü"),
            ("100%25", "100%"),
            ("a%3Fb", "a?b"),
            ("..", ".."),
        ] {
            let mut poller = gate.hold(way, &format!("/comet/{escaped}")).await;
            gate.publish(name, "x").await;
            let answer = poller.answer().await.json();
            assert_eq!(answer["messages"][0]["channel"], name, "{escaped}");
        }
    }
}

#[tokio::test]
async fn a_cursor_is_made_of_unreserved_characters() {
    let gate = Gate::start_alone("").await;
    gate.publish("ü,/ &=", "x").await;
    let mut poller = Way::Plain.connect(&gate).await;
    let names = "%C3%BC%2C%2F%20%26%3D,b,c";
    let answer = look(&mut poller, names, "oldest").await;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
    assert!(cursor(&answer).chars().all(allowed), "{answer}");
    gate.publish("ü,/ &=", "y").await;
    assert_eq!(data(&look(&mut poller, names, cursor(&answer)).await), ["y"]);
}

#[tokio::test]
async fn a_channel_that_joins_the_list_begins_now_without_a_reset() {
    for way in Way::ALL {
        let gate = Gate::start_alone("").await;
        let mut poller = way.connect(&gate).await;
        let start = look(&mut poller, "a", "").await;
        gate.publish("a", "for a").await;
        gate.publish("b", "before b joined").await;

        let joined = look(&mut poller, "a,b", cursor(&start)).await;
        assert_eq!(data(&joined), ["for a"]);
        assert_eq!(joined.get("reset"), None);
        gate.publish("b", "after b joined").await;
        let answer = look(&mut poller, "b,a", cursor(&joined)).await;
        assert_eq!(data(&answer), ["after b joined"]);

        // One that left takes nothing with it.
        gate.publish("a", "later for a").await;
        let left = look(&mut poller, "a", cursor(&answer)).await;
        assert_eq!(data(&left), ["later for a"]);
        assert_eq!(left.get("reset"), None);
    }
}

/// Checks that a poll with this cursor is answered at once, marked `reset`, with these messages,
/// and that the answer's cursor is good.
async fn resets(gate: &Gate, way: Way, cursor_sent: &str, messages: &[&str]) {
    let mut poller = way.connect(gate).await;
    let target = format!("/comet/news?cursor={cursor_sent}");
    let answer = poller.poll(&target).await.json();
    assert_eq!(answer["reset"], true, "{cursor_sent}: {answer}");
    assert_eq!(data(&answer), messages, "{cursor_sent}");

    poller.ask(&format!("/comet/news?cursor={}", cursor(&answer))).await;
    gate.wait_for_held(1).await;
    poller.close();
    gate.wait_for_held(0).await;
}

#[tokio::test]
async fn a_cursor_that_cannot_be_placed_is_reset_at_once() {
    for way in Way::ALL {
        let gate = Gate::start_alone("").await;
        let published = gate.publish("news", "kept").await;
        let id = published["id"].as_str().unwrap();
        let (epoch, seq) = id.split_once('-').unwrap();
        assert_eq!(seq, "1");

        let rubbish = ["rubbish", "~", "x.y-z", "-", "...", "0"];
        let foreign = "zzzzzz-1".to_owned();
        let future = format!("{epoch}-2");
        let far_future = format!("{epoch}-18446744073709551615");
        let too_far = format!("{epoch}-99999999999999999999999");
        for cursor in [&foreign, &future, &far_future, &too_far] {
            resets(&gate, way, cursor, &["kept"]).await;
        }
        for cursor in rubbish {
            resets(&gate, way, cursor, &["kept"]).await;
        }
        let long = "A".repeat(4_000);
        resets(&gate, way, &long, &["kept"]).await;
    }
}

#[tokio::test]
async fn a_cursor_older_than_the_history_is_reset_with_what_is_left() {
    for way in Way::ALL {
        let gate = Gate::start_alone("[history]\nmessages = 2\n").await;
        let mut poller = way.connect(&gate).await;
        let start = look(&mut poller, "news", "").await;
        for text in ["one", "two", "three"] {
            gate.publish("news", text).await;
        }
        resets(&gate, way, cursor(&start), &["two", "three"]).await;
    }
}

#[tokio::test]
async fn what_aged_out_is_reset_even_when_nothing_is_left() {
    for way in Way::ALL {
        let gate = Gate::start_alone("[history]\nage = \"50ms\"\n").await;
        let mut poller = way.connect(&gate).await;
        let start = look(&mut poller, "news", "").await;
        gate.publish("news", "short-lived").await;
        gate.wait_for_kept("news", 0).await;
        resets(&gate, way, cursor(&start), &[]).await;
    }
}

#[tokio::test]
async fn polls_held_on_a_forgotten_channel_are_released_with_a_reset() {
    for way in Way::ALL {
        let gate = Gate::start_alone("").await;
        gate.publish("news", "old").await;
        let mut poller = gate.hold(way, "/comet/news").await;
        assert_eq!(gate.forget("news").await["released"], 1);
        let answer = poller.answer().await.json();
        assert_eq!(answer["reset"], true);
        assert_eq!(answer["messages"], json!([]));

        gate.publish("news", "new").await;
        let answer = look(&mut poller, "news", cursor(&answer)).await;
        assert_eq!(data(&answer), ["new"]);
        assert_eq!(answer.get("reset"), None);
    }
}

#[tokio::test]
async fn a_cursor_with_characters_that_no_cursor_has_is_refused() {
    for way in Way::ALL {
        let gate = Gate::start_alone("").await;
        for cursor in ["a%20b", "a+b", "%3Cscript%3E", "a%2Fb", "%00", "%C3%BC", "a,b", "%FF"] {
            let mut poller = way.connect(&gate).await;
            let response = poller.poll(&format!("/comet/news?cursor={cursor}")).await;
            explains(&response, 400, cursor);
        }
    }
}

#[tokio::test]
async fn the_clients_timeout_shortens_its_hold() {
    for way in Way::ALL {
        let gate = Gate::start_alone("").await;
        let mut poller = way.connect(&gate).await;
        // The gate's own timeout is 25 s, beyond what a client here waits for.
        for timeout in ["0", "0.0", "0.05", ".05", "00.05"] {
            let target = format!("/comet/news?timeout={timeout}");
            let answer = poller.poll(&target).await.json();
            assert_eq!(answer["messages"], json!([]), "{timeout}");
        }
    }
}

#[tokio::test]
async fn the_clients_timeout_never_lengthens_its_hold() {
    for way in Way::ALL {
        let gate = Gate::start_alone("[hold]\ntimeout = \"50ms\"\n").await;
        let mut poller = way.connect(&gate).await;
        for timeout in ["3600", "99999999999999999999999", "9".repeat(400).as_str()] {
            let target = format!("/comet/news?timeout={timeout}");
            let answer = poller.poll(&target).await.json();
            assert_eq!(answer["messages"], json!([]), "{timeout}");
        }
    }
}

#[tokio::test]
async fn a_timeout_that_is_no_number_of_seconds_is_refused() {
    for way in Way::ALL {
        let gate = Gate::start_alone("").await;
        let bad = ["x", "-1", "1e3", "inf", "NaN", "1.2.3", "", ".", "%2B1", "1s", "0x10", "1,5"];
        for timeout in bad {
            let mut poller = way.connect(&gate).await;
            let response = poller.poll(&format!("/comet/news?timeout={timeout}")).await;
            explains(&response, 400, timeout);
        }
    }
}

#[tokio::test]
async fn names_that_no_channel_has_are_refused_and_never_forwarded() {
    for way in Way::ALL {
        let site = PlainSite::start().await;
        let gate = Gate::start_before(site.addr(), "").await;
        let long = "a".repeat(256);
        let bad =
            ["", "a,,b", ",", "a,", "%", "%4", "%zz", "a%0Ab", "%00", "%7F", "%FF", "%C3", &long];
        for name in bad {
            let mut poller = way.connect(&gate).await;
            let response = poller.poll(&format!("/comet/{name}")).await;
            explains(&response, 400, name);
        }
        assert_eq!(site.requests().len(), 0);
        // A name of 255 bytes is as long as a name may be.
        drop(gate.hold(way, &format!("/comet/{}", "a".repeat(255))).await);
    }
}

#[tokio::test]
async fn other_methods_are_told_which_ones_there_are() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), "").await;
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let response = gate.connect().await.request(method, "/comet/news", &[], b"").await;
        explains(&response, 405, method);
        assert_eq!(response.header("allow"), Some("GET, HEAD, OPTIONS"));
    }
    let response = gate.connect().await.post("/comet/news", FORM, "cursor=").await;
    explains(&response, 405, "a form");
    assert_eq!(site.requests().len(), 0);
}

#[tokio::test]
async fn a_rule_may_name_its_one_channel() {
    let rules = r#"
        [[poll]]
        path = "/room"
        dialect = "native"
        channel = "room-{query.room}"
    "#;
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), rules).await;
    for way in Way::ALL {
        let mut poller = gate.hold(way, "/room?room=7").await;
        gate.publish("room-7", "hello").await;
        assert_eq!(data(&poller.answer().await.json()), ["hello"]);
        // A template that cannot be filled: not this rule.
        let response = poller.poll("/room").await;
        assert_eq!(response.text(), "site: GET /room");
    }
}
