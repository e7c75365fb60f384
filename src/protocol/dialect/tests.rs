#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::hub::channel::{Cursor, Kind, Limits, Payload, SiteName, Time};
use crate::hub::{Hub, PollOutcome, Settings};
use std::sync::Arc;
use timestamp::{Deliver, First, Timestamp};

const NOW: Time = Time(1_700_000_000_000_001);

/// A channel table at a fixed time, queried in one dialect.
struct Desk {
    hub: Hub,
    dialect: Dialect,
}

impl Desk {
    fn new(dialect: Dialect) -> Self {
        Self::with_tick(dialect, Tick::Micros)
    }

    fn with_tick(dialect: Dialect, tick: Tick) -> Self {
        let limits = Arc::new(Limits { tick, ..Limits::default() });
        Self { hub: Hub::new(Settings { limits, ..Settings::default() }, 1), dialect }
    }

    fn publish(&self, channel: &str, payload: Payload) {
        let name = ChannelName::new(channel).unwrap();
        self.hub.publish(&[(name, payload)], NOW).unwrap();
    }

    fn parse(&self, rest: Option<&str>, query: &str) -> Parsed {
        let query = Query::parse(query);
        let headers = ::http::HeaderMap::new();
        let request = Request {
            stars: rest.as_slice(),
            query: &query,
            form: None,
            headers: &headers,
            transport: stream::Transport::Poll,
            site: &SiteName::NONE,
        };
        self.dialect.parse(&request, &|name| self.hub.tick(name))
    }

    /// The answer to a poll that is not held.
    fn ask(&self, rest: Option<&str>, query: &str) -> Reply {
        match self.parse(rest, query) {
            Parsed::Refused(reply) => reply,
            Parsed::OtherRule | Parsed::NoPoll => panic!("not this rule"),
            Parsed::Poll(poll) => {
                let polled = self.hub.poll(&poll.subscriptions, poll.take, false, NOW).unwrap();
                let PollOutcome::Answer(answer) = polled else { panic!("held") };
                self.dialect.render(&answer, poll.callback.as_deref())
            }
        }
    }

    fn text(&self, rest: Option<&str>, query: &str) -> String {
        String::from_utf8(self.ask(rest, query).body.to_vec()).unwrap()
    }
}

fn json(body: &str) -> Payload {
    let content_type = "application/json".into();
    Payload { kind: Kind::Json, content_type, body: body.to_owned().into() }
}

fn native() -> Desk {
    Desk::new(Dialect::Native(native::Native::default()))
}

fn timestamp(change: impl FnOnce(&mut Timestamp)) -> Desk {
    let mut timestamp = Timestamp::new("data.txt".parse().unwrap());
    change(&mut timestamp);
    Desk::new(Dialect::Timestamp(timestamp))
}

fn cursor_of(text: &str) -> String {
    let answer: serde_json::Value = serde_json::from_str(text).unwrap();
    answer["cursor"].as_str().unwrap().to_owned()
}

#[test]
fn native_passes_json_on_verbatim_text_as_a_string_and_bytes_as_base64() {
    let desk = native();
    desk.publish("a", json(r#"{"n":1.50,"big":123456789012345678901234567890}"#));
    desk.publish("a", Payload::text("say \"hi\"\n"));
    let bytes = Payload { kind: Kind::Binary, ..Payload::text(&b"\xff\x00"[..]) };
    desk.publish("a", bytes);
    let text = desk.text(Some("a"), "cursor=oldest");
    let data = [
        r#""data":{"n":1.50,"big":123456789012345678901234567890}}"#,
        r#""data":"say \"hi\"\n"}"#,
        r#""base64":"/wA="}"#,
    ];
    assert!(data.iter().all(|data| text.contains(data)), "{text}");
    assert!(text.contains(r#""stamp":1700000000.000001,"#), "{text}");
    assert!(!text.contains("reset"), "{text}");
}

#[test]
fn a_native_cursor_leads_to_what_came_after_it() {
    let desk = native();
    let before = cursor_of(&desk.text(Some("a,b"), ""));
    desk.publish("b", Payload::text("1"));
    desk.publish("a", Payload::text("2"));
    let text = desk.text(Some("a,b"), &format!("cursor={before}"));
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let said: Vec<_> =
        answer["messages"].as_array().unwrap().iter().map(|m| m["data"].clone()).collect();
    assert_eq!(said, ["2", "1"]);
    let after = desk.text(Some("a,b"), &format!("cursor={}", cursor_of(&text)));
    assert!(after.ends_with(r#""messages":[]}"#), "{after}");
}

#[test]
fn a_channel_that_is_new_in_a_native_list_starts_now_without_reset() {
    let desk = native();
    desk.publish("b", Payload::text("old"));
    let cursor = cursor_of(&desk.text(Some("a"), ""));
    let text = desk.text(Some("a,b"), &format!("cursor={cursor}"));
    assert!(text.ends_with(r#""messages":[]}"#), "{text}");
}

#[test]
fn a_native_cursor_that_cannot_be_placed_is_reset_with_what_is_kept() {
    let desk = native();
    desk.publish("a", Payload::text("kept"));
    let cursor = cursor_of(&desk.text(Some("a"), ""));
    let future = format!("{}9", cursor);
    for cursor in [future.as_str(), "rubbish", "zzzzzz-1", "aaa.zzzzzz-1~"] {
        let text = desk.text(Some("a"), &format!("cursor={cursor}"));
        assert!(text.contains(r#""data":"kept""#) && text.ends_with(r#","reset":true}"#), "{text}");
        let next = desk.text(Some("a"), &format!("cursor={}", cursor_of(&text)));
        assert!(next.ends_with(r#""messages":[]}"#), "{next}");
    }
}

#[test]
fn the_id_of_a_message_is_a_native_cursor() {
    let desk = native();
    desk.publish("a", Payload::text("1"));
    desk.publish("a", Payload::text("2"));
    let all: serde_json::Value =
        serde_json::from_str(&desk.text(Some("a"), "cursor=oldest")).unwrap();
    let id = all["messages"][0]["id"].as_str().unwrap();
    let text = desk.text(Some("a"), &format!("cursor={id}"));
    assert!(text.contains(r#""data":"2""#) && !text.contains(r#""data":"1""#), "{text}");
}

#[test]
fn native_refuses_what_it_cannot_read() {
    let desk = native();
    for (rest, query) in [
        ("", ""),
        ("a,,b", ""),
        ("a%", ""),
        ("%zz", ""),
        ("a%0a", ""),
        ("%ff", ""),
        ("a", "cursor=a%20b"),
        ("a", "cursor=%"),
        ("a", "timeout=x"),
        ("a", "timeout=-1"),
        ("a", "timeout=1e3"),
        ("a", "timeout="),
        ("a", "timeout=."),
        ("a", "timeout=1.2.3"),
    ] {
        let reply = desk.ask(Some(rest), query);
        assert_eq!(reply.status, 400, "{rest} {query}");
        let error: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert!(error["error"].is_string() && error["hint"].is_string(), "{error}");
    }
    let Parsed::Poll(poll) = desk.parse(Some("a%2Cb,r%C3%A4ume/1,a%2Cb"), "timeout=0.5") else {
        panic!("refused");
    };
    let names: Vec<_> = poll.subscriptions.iter().map(|s| s.channel.as_str()).collect();
    assert_eq!((names, poll.timeout), (vec!["a,b", "räume/1"], Some(Duration::from_millis(500))));
}

#[test]
fn novcomet_names_every_changed_id_and_nothing_else() {
    let desk = Desk::new(Dialect::NovComet(novcomet::NovComet::default()));
    for id in ["a", "b<", "quiet"] {
        desk.publish(id, Payload::empty());
    }
    let query = "subscribed[a]=1&subscribed%5Bb%3C%5D=1&subscribed[quiet]=1700000000.000001&x=y";
    let reply = desk.ask(None, query);
    assert_eq!(reply.content_type, "text/html; charset=UTF-8");
    let expected = "{\"s\":1,\"k\":{\"a\":1700000000.000001,\"b\\u003c\":1700000000.000001}}";
    assert_eq!(reply.body, expected.as_bytes());
    assert_eq!(desk.text(None, "subscribed[quiet]=1700000000.000001"), "{\"s\":0}");
    assert_eq!(desk.text(None, "subscribed=1"), "{\"s\":0}");
    assert_eq!(desk.ask(None, "subscribed[%00]=1&subscribed[%0a]=2").status, 400);
}

#[test]
fn a_novcomet_cursor_that_says_nothing_reaches_back_by_the_slack() {
    let desk = Desk::new(Dialect::NovComet(novcomet::NovComet::default()));
    desk.publish("a", Payload::empty());
    for (later, changed) in [(1_900_000, true), (2_100_000, false)] {
        // Ahead of the clock, as a client's own clock may be; empty; garbage.
        for value in ["1700000009", "0", "", "-5", "abc"] {
            let Parsed::Poll(poll) = desk.parse(None, &format!("subscribed[a]={value}")) else {
                panic!("refused");
            };
            let now = Time(NOW.0 + later);
            let polled = desk.hub.poll(&poll.subscriptions, poll.take, false, now).unwrap();
            let PollOutcome::Answer(answer) = polled else { panic!("held") };
            assert_eq!(answer[0].found.has_update, changed, "{value} after {later}");
        }
    }
}

#[test]
fn timestamp_gives_one_message_a_poll_and_skips_none() {
    let desk = timestamp(|_| ());
    for text in ["1", "2", "3"] {
        desk.publish("data.txt", Payload::text(text));
    }
    let first = desk.text(None, "timestamp=0");
    assert_eq!(first, r#"{"msg":"3","timestamp":1700000000.000003}"#);
    let next = desk.text(None, "timestamp=1700000000");
    assert_eq!(next, r#"{"msg":"1","timestamp":1700000000.000001}"#);
    let quiet = desk.text(None, "timestamp=1700000000.000003");
    assert_eq!(quiet, r#"{"msg":"","timestamp":1700000000.000003}"#);
}

#[test]
fn a_quiet_timestamp_is_where_the_poll_was_registered() {
    let desk = timestamp(|timestamp| timestamp.first = First::Wait);
    // No message yet: the clock, just before any future stamp.
    assert_eq!(desk.text(None, ""), r#"{"msg":"","timestamp":1700000000.000000}"#);
    // An old stamp on an empty channel is kept; one ahead of the clock counts as now.
    assert_eq!(desk.text(None, "timestamp=5.5"), r#"{"msg":"","timestamp":5.500000}"#);
    assert_eq!(desk.text(None, "timestamp=9e9"), r#"{"msg":"","timestamp":1700000000.000000}"#);
    desk.publish("data.txt", Payload::text("x"));
    assert_eq!(desk.text(None, ""), r#"{"msg":"","timestamp":1700000000.000001}"#);
}

#[test]
fn a_stamp_of_this_very_moment_hides_nothing_that_is_still_to_come() {
    let desk = timestamp(|_| ());
    let quiet = desk.text(None, "timestamp=1700000000.000001");
    desk.publish("data.txt", Payload::text("same microsecond"));
    let answer: serde_json::Value = serde_json::from_str(&quiet).unwrap();
    let next = desk.text(None, &format!("timestamp={}", answer["timestamp"]));
    assert!(next.contains("same microsecond"), "{quiet} {next}");
}

#[test]
fn first_and_deliver_choose_the_message() {
    for (first, deliver, fresh, late) in [
        (First::Latest, Deliver::Next, "3", "2"),
        (First::Oldest, Deliver::Next, "1", "2"),
        (First::Wait, Deliver::Latest, "", "3"),
    ] {
        let desk = timestamp(|timestamp| {
            timestamp.first = first;
            timestamp.deliver = deliver;
        });
        for text in ["1", "2", "3"] {
            desk.publish("data.txt", Payload::text(text));
        }
        let message = |query: &str| -> String {
            let answer: serde_json::Value = serde_json::from_str(&desk.text(None, query)).unwrap();
            answer["msg"].as_str().unwrap().to_owned()
        };
        assert_eq!(message(""), fresh, "{first:?}");
        assert_eq!(message("timestamp=1700000000.000001"), late, "{deliver:?}");
    }
}

#[test]
fn timestamp_answers_in_the_shape_that_the_rule_gives() {
    let desk = timestamp(|timestamp| {
        timestamp.message_field = "text".to_owned();
        timestamp.cursor_field = "ts".to_owned();
        timestamp.embed = true;
        timestamp.extra.insert("state".to_owned(), "o<k".into());
        timestamp.content_type = Some("application/json".to_owned());
    });
    desk.publish("data.txt", json(r#"{"a": "<b>"}"#));
    let reply = desk.ask(None, "ts=");
    let expected = concat!(
        r#"{"text":{"a": "\u003cb\u003e"},"ts":1700000000.000001,"#,
        r#""state":"o\u003ck"}"#
    );
    assert_eq!(reply.body, expected.as_bytes());
    assert_eq!(reply.content_type, "application/json");
}

#[test]
fn coarse_ticks_are_shown_as_integers_and_never_repeat() {
    for (tick, stamps) in [
        (Tick::Millis, ["1700000000001", "1700000000002"]),
        (Tick::Seconds, ["1700000001", "1700000002"]),
    ] {
        let dialect = Dialect::Timestamp(Timestamp::new("data.txt".parse().unwrap()));
        let desk = Desk::with_tick(dialect, tick);
        desk.publish("data.txt", Payload::text("1"));
        desk.publish("data.txt", Payload::text("2"));
        let next = desk.text(None, "timestamp=1");
        assert_eq!(next, format!(r#"{{"msg":"1","timestamp":{}}}"#, stamps[0]));
        let last = desk.text(None, &format!("timestamp={}", stamps[0]));
        assert_eq!(last, format!(r#"{{"msg":"2","timestamp":{}}}"#, stamps[1]));
    }
}

#[test]
fn jsonp_calls_one_plain_name_only() {
    let desk = timestamp(|timestamp| timestamp.callback = Some("callback".to_owned()));
    desk.publish("data.txt", Payload::text("\u{2028}</script>"));
    let reply = desk.ask(None, "callback=jQuery.cb_1$");
    let expected =
        r#"jQuery.cb_1$({"msg":"\u2028\u003c/script\u003e","timestamp":1700000000.000001});"#;
    assert_eq!(reply.body, expected.as_bytes());
    assert_eq!(reply.content_type, "text/javascript; charset=UTF-8");
    for bad in ["alert(1)", "a b", "", "a%0a", "a;b", "<x>"] {
        assert_eq!(desk.ask(None, &format!("callback={bad}")).status, 400, "{bad}");
    }
    assert_eq!(desk.ask(None, "").content_type, PHP_CONTENT_TYPE);
}

#[test]
fn a_template_that_cannot_be_filled_is_another_rule() {
    let dialect = Dialect::Timestamp(Timestamp::new("room-{query.room}".parse().unwrap()));
    let desk = Desk::new(dialect);
    assert!(matches!(desk.parse(None, "timestamp=1"), Parsed::OtherRule));
    let Parsed::Poll(poll) = desk.parse(None, "room=7") else { panic!("refused") };
    assert_eq!(poll.subscriptions[0].channel.as_str(), "room-7");
    assert_eq!(poll.subscriptions[0].cursor, Cursor::Latest);
    assert!(matches!(desk.parse(None, "room=%00"), Parsed::Refused(Reply { status: 400, .. })));
}

#[test]
fn a_fan_out_is_rendered_once() {
    let desk = native();
    desk.publish("a", Payload::text("to all"));
    let one = desk.ask(Some("a"), "cursor=oldest");
    let two = desk.ask(Some("a"), "cursor=oldest");
    assert_eq!(one.body.as_ptr(), two.body.as_ptr());
}

#[test]
fn the_least_length_of_an_answer_is_never_more_than_what_is_rendered_for_one_client() {
    let batch = nchan::Nchan { batch: Some(nchan::Batch::Multipart), ..nchan::Nchan::default() };
    let dialects = [
        (native().dialect, Take::All),
        (timestamp(|_| {}).dialect, Take::First),
        (timestamp(|_| {}).dialect, Take::Newest),
        (timestamp(|rule| rule.message_field = ".".to_owned()).dialect, Take::First),
        (Dialect::Nchan(batch), Take::All),
        (Dialect::Nchan(nchan::Nchan::default()), Take::First),
        (Dialect::NovComet(novcomet::NovComet::default()), Take::Newest),
    ];
    for (dialect, take) in dialects {
        for count in [1, 3] {
            let desk = Desk::new(dialect.clone());
            for _ in 0..count {
                desk.publish("a", Payload::text("x".repeat(1000)));
            }
            let channel = ChannelName::new("a").unwrap();
            let subscription = Subscription { channel, cursor: Cursor::Oldest };
            let polled = desk.hub.poll(&[subscription], take, false, NOW).unwrap();
            let PollOutcome::Answer(answer) = polled else { panic!("held") };
            for callback in [None, Some("f")] {
                let least = dialect.least_length(&answer, callback);
                let reply = dialect.render(&answer, callback);
                let about = (dialect.name(), take, count, callback);
                assert!(least <= reply.body.len(), "{about:?}: {least}");
                // Nothing but a copy is worth a share of the memory.
                let copied = reply.body.is_unique() && reply.body.len() >= 1000;
                assert_eq!(least > 0, copied, "{about:?}: {least}");
            }
        }
    }
}
