//! Event streams on the URL of a poll: the same channels, cursors and promises.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use support::{Client, Event, Events, Gate, Way, eventually};

const SSE: (&str, &str) = ("Accept", "text/event-stream");

/// The cursor that a stream begins with.
async fn cursor(events: &mut Events) -> String {
    let first = events.next().await;
    assert_eq!((first.event.as_str(), first.data.as_str()), ("cursor", ""), "{first:?}");
    first.id().to_owned()
}

#[tokio::test]
async fn a_stream_begins_with_its_cursor_and_goes_on_with_messages() {
    for way in Way::ALL {
        let gate = Gate::start_alone("").await;
        let mut events = Events::open(way, &gate, "/comet/news").await;
        assert_eq!(events.head.status, 200, "{way:?}");
        assert_eq!(events.head.header("content-type"), Some("text/event-stream"));
        assert_eq!(events.head.header("cache-control"), Some("no-store"));
        assert_eq!(events.head.header("x-accel-buffering"), Some("no"));
        let first = events.next().await;
        assert_eq!((first.event.as_str(), first.retry), ("cursor", Some(2000)), "{way:?}");
        gate.wait_for_held(1).await;
        for text in ["one", "two"] {
            let published = gate.publish("news", text).await;
            assert_eq!(published["released"], 1, "{way:?}");
            let event = events.next().await;
            let data = event.json();
            assert_eq!(data["channel"], "news");
            assert_eq!(data["data"], text);
            assert_eq!((&data["id"], &data["stamp"]), (&published["id"], &published["stamp"]));
            assert_eq!(event.event, "");
        }
        drop(events);
        gate.wait_for_held(0).await;
    }
}

#[tokio::test]
async fn the_first_write_is_exactly_this() {
    let gate = Gate::start_alone("").await;
    let mut client = gate.connect().await;
    client.send("GET", "/comet/news", &[SSE], b"").await;
    let head = client.read_head().await;
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    let chunk = client.read_chunk().await.unwrap();
    let text = String::from_utf8(chunk).unwrap();
    let id = text.split("id: ").nth(1).unwrap().split('\n').next().unwrap().to_owned();
    assert_eq!(text, format!("retry: 2000\nevent: cursor\nid: {id}\ndata:\n\n"));
    assert!(id.len() < 128);
}

#[tokio::test]
async fn a_stream_resumes_after_the_last_event_by_header_or_query() {
    let gate = Gate::start_alone("").await;
    let mut events = Events::open(Way::Plain, &gate, "/comet/news").await;
    let begun = cursor(&mut events).await;
    let mut ids = vec![begun];
    for text in ["one", "two", "three"] {
        gate.publish("news", text).await;
        ids.push(events.next().await.id().to_owned());
    }
    drop(events);
    let names = ["lastEventId", "last_event_id", "lastEventID", "cursor"];
    for (seen, rest) in [(0, ["one", "two", "three"].as_slice()), (2, &["three"]), (3, &[])] {
        let mut opened = vec![];
        for way in Way::ALL {
            let headers = [SSE, ("Last-Event-ID", ids[seen].as_str())];
            // The header beats the URL, which a browser goes on to send as it was.
            let target = format!("/comet/news?cursor={}", ids[1]);
            opened.push(Events::open_with(way, &gate, &target, &headers).await);
        }
        for name in names {
            let target = format!("/comet/news?{name}={}", ids[seen]);
            opened.push(Events::open(Way::Plain, &gate, &target).await);
        }
        for mut events in opened {
            let begun = cursor(&mut events).await;
            // The first publish has given the channel's beginning a position of its own.
            if seen > 0 {
                assert_eq!(begun, ids[seen]);
            } else {
                let target = format!("/comet/news?cursor={begun}&timeout=0");
                let polled = gate.get(&target).await.json();
                assert_eq!(polled["messages"].as_array().map(Vec::len), Some(rest.len()));
            }
            for text in rest {
                assert_eq!(events.next().await.json()["data"], *text);
            }
        }
    }
    // What a stream says is good for a poll.
    let polled = gate.get(&format!("/comet/news?cursor={}&timeout=0", ids[2])).await.json();
    assert_eq!(polled["messages"][0]["data"], "three");
}

#[tokio::test]
async fn several_channels_share_a_stream_and_its_ids() {
    let gate = Gate::start_alone("").await;
    let mut events = Events::open(Way::Plain, &gate, "/comet/a,b").await;
    cursor(&mut events).await;
    gate.publish("a", "one").await;
    let one = events.next().await;
    gate.publish("b", "two").await;
    let two = events.next().await;
    assert_eq!((&one.json()["channel"], &two.json()["channel"]), (&json!("a"), &json!("b")));
    let target = format!("/comet/a,b?cursor={}", one.id());
    let mut again = Events::open(Way::Plain, &gate, &target).await;
    cursor(&mut again).await;
    assert_eq!(again.next().await, two);
}

#[tokio::test]
async fn a_gap_is_a_reset_with_an_id_and_then_what_the_history_has() {
    for way in Way::ALL {
        let gate = Gate::start_alone("[history]\nmessages = 2\n").await;
        let mut events = Events::open(way, &gate, "/comet/news").await;
        let begun = cursor(&mut events).await;
        drop(events);
        for text in ["one", "two", "three"] {
            gate.publish("news", text).await;
        }
        for lost in [begun.as_str(), "aaaaaa-7", "nonsense"] {
            let headers = [SSE, ("Last-Event-ID", lost)];
            let mut events = Events::open_with(way, &gate, "/comet/news", &headers).await;
            let nowhere = cursor(&mut events).await;
            let reset = events.next().await;
            assert_eq!((reset.event.as_str(), reset.json()), ("reset", json!({"channel": "news"})));
            for text in ["two", "three"] {
                assert_eq!(events.next().await.json()["data"], text, "{way:?} {lost}");
            }
            // Broken off before the reset, it is not passed over.
            let headers = [SSE, ("Last-Event-ID", nowhere.as_str())];
            let mut events = Events::open_with(way, &gate, "/comet/news", &headers).await;
            cursor(&mut events).await;
            assert_eq!(events.next().await.event, "reset");
            // Broken off right after the reset, nothing of it is lost.
            let headers = [SSE, ("Last-Event-ID", reset.id())];
            let mut events = Events::open_with(way, &gate, "/comet/news", &headers).await;
            cursor(&mut events).await;
            assert_eq!(events.next().await.json()["data"], "two");
        }
    }
}

#[tokio::test]
async fn a_forgotten_channel_resets_its_streams_and_goes_on() {
    let gate = Gate::start_alone("").await;
    let mut events = Events::open(Way::Plain, &gate, "/comet/news").await;
    cursor(&mut events).await;
    gate.publish("news", "one").await;
    events.next().await;
    gate.forget("news").await;
    assert_eq!(events.next().await.event, "reset");
    gate.publish("news", "two").await;
    assert_eq!(events.next().await.json()["data"], "two");
}

#[tokio::test]
async fn bare_data_is_text_json_or_base64() {
    let gate = Gate::start_alone("").await;
    let mut events = Events::open(Way::Plain, &gate, "/comet/news?format=data").await;
    cursor(&mut events).await;
    gate.publish("news", "a\r\nb\rc\n").await;
    let event = events.next().await;
    assert_eq!((event.event.as_str(), event.data.as_str()), ("", "a\nb\nc\n"));
    gate.publish("news", "").await;
    assert_eq!(events.next().await.data, "");
    gate.publish_as(
        "news",
        "application/json",
        "{\n  \"a b\": \"\\\" \\\\\",\r\n \"c\": [1, 2]\n}",
    )
    .await;
    assert_eq!(events.next().await.data, r#"{"a b":"\" \\","c":[1,2]}"#);
    gate.publish_as("news", "application/octet-stream", b"\xff\x00").await;
    let event = events.next().await;
    assert_eq!((event.event.as_str(), event.data.as_str()), ("base64", "/wA="));
    let refused = gate.connect().await.request("GET", "/comet/a,b?format=data", &[SSE], b"").await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn nothing_published_begins_a_field_of_its_own() {
    let gate = Gate::start_alone("").await;
    let mut events = Events::open(Way::Plain, &gate, "/comet/news?format=data").await;
    cursor(&mut events).await;
    gate.publish("news", "x\n\nid: evil\r\revent: evil\n\nretry: 0").await;
    let event = events.next().await;
    assert_eq!(event.data, "x\n\nid: evil\n\nevent: evil\n\nretry: 0");
    assert_eq!((event.event.as_str(), event.retry), ("", None));
    let mut whole = Events::open(Way::Plain, &gate, "/comet/news").await;
    cursor(&mut whole).await;
    gate.publish_as("news", "application/json", "{\"a\":\n\n1}").await;
    assert_eq!(whole.next().await.json()["data"], json!({"a": 1}));
}

#[tokio::test]
async fn a_transport_that_the_rule_lacks_is_406_and_never_forwarded() {
    let config = "[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\ntransports = [\"sse\"]\n\
                  [[poll]]\npath = \"/backend.php\"\ndialect = \"timestamp\"\nchannel = \"news\"\n";
    for way in Way::ALL {
        let gate = Gate::start_alone(config).await;
        for (target, headers) in [
            ("/comet/news", vec![]),
            ("/comet/news?transport=poll", vec![]),
            ("/comet/news?transport=chunked", vec![]),
            ("/comet/news?transport=nonsense", vec![]),
            ("/comet/news", vec![("Accept", "application/x-ndjson")]),
            ("/backend.php", vec![SSE]),
            ("/backend.php?transport=sse", vec![]),
        ] {
            let response = way.connect(&gate).await.poll_with("GET", target, &headers).await;
            assert_eq!(response.status, 406, "{way:?} {target} {headers:?}");
        }
        // A parameter of the site's own.
        gate.publish("news", "hello").await;
        let own = way.connect(&gate).await.poll("/backend.php?transport=own").await;
        assert_eq!(own.status, 200);
        let mut events = Events::open_with(way, &gate, "/comet/news?transport=sse", &[]).await;
        cursor(&mut events).await;
    }
}

#[tokio::test]
async fn what_finds_no_room_is_a_stream_that_says_when_to_come_back() {
    for way in Way::ALL {
        let gate = Gate::start_alone("[hold]\nmax = 1\n").await;
        let mut first = Events::open(way, &gate, "/comet/news").await;
        cursor(&mut first).await;
        let second = Events::open(way, &gate, "/comet/news").await;
        assert_eq!(second.head.status, 200, "{way:?}");
        let mut retry = None;
        let mut why = None;
        let body = way.connect(&gate).await.poll_with("GET", "/comet/news", &[SSE]).await.text();
        for line in body.lines() {
            retry = line.strip_prefix("retry: ").map(|ms| ms.parse::<u64>().unwrap()).or(retry);
            why = line.strip_prefix(": ").or(why);
        }
        assert!((5_000..15_000).contains(&retry.unwrap()), "{body}");
        assert!(why.unwrap().contains("too many polls"), "{body}");
        // A poll still gets the refusal of its own.
        assert_eq!(way.connect(&gate).await.poll("/comet/news").await.status, 503);
    }
}

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_so_in_a_stream() {
    let gate = Gate::start_alone("[limits]\nrequests_per_second = 1\n").await;
    for way in [Way::Plain, Way::Http2] {
        let look = async || {
            let response =
                way.connect(&gate).await.poll_with("GET", "/comet/news?cursor=x%20", &[SSE]).await;
            assert!(matches!(response.status, 200 | 400), "{}", response.status);
            response.status == 200 && response.text().contains("retry: ")
        };
        eventually("a refusal for the rate", look).await;
    }
}

#[tokio::test]
async fn an_idle_stream_gives_signs_of_life() {
    for way in Way::ALL {
        let gate = Gate::start_alone("[stream]\nheartbeat = \"50ms\"\n").await;
        let mut events = Events::open(way, &gate, "/comet/news").await;
        cursor(&mut events).await;
        for _ in 0..3 {
            let sign = events.next_or_end().await.unwrap();
            assert_eq!(sign.comment.as_deref(), Some(""), "{way:?}");
        }
        gate.publish("news", "hello").await;
        assert_eq!(events.next().await.json()["data"], "hello");
    }
}

#[tokio::test]
async fn a_stream_ends_cleanly_after_its_time_and_the_connection_stays() {
    for way in Way::ALL {
        let gate = Gate::start_alone("[stream]\nmax = \"100ms\"\n[drain]\nspread = \"1s\"\n").await;
        let mut events = Events::open(way, &gate, "/comet/news").await;
        let begun = cursor(&mut events).await;
        let retry = events.end().await.unwrap();
        assert!((500..=1500).contains(&retry), "{way:?} {retry}");
        let target = format!("/comet/news?cursor={begun}&timeout=0");
        if way == Way::Plain {
            assert_eq!(events.poller().poll(&target).await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_drain_ends_streams_cleanly_and_nothing_is_lost() {
    for way in Way::ALL {
        let gate = Gate::start_alone("[drain]\nspread = \"100ms\"\n").await;
        let mut opened = Vec::new();
        // So many that the drain begins before all of them have written the message.
        for _ in 0..100 {
            let mut events = Events::open(way, &gate, "/comet/news").await;
            cursor(&mut events).await;
            opened.push(events);
        }
        gate.publish("news", "last").await;
        gate.signal("TERM");
        for mut events in opened {
            assert_eq!(events.next().await.json()["data"], "last", "{way:?}");
            let retry = events.end().await.unwrap();
            assert!((500..=600).contains(&retry), "{way:?} {retry}");
        }
        assert_eq!(gate.wait_for_exit().await, 0);
    }
}

#[tokio::test]
async fn a_reload_drops_no_stream() {
    let gate = Gate::start_alone("").await;
    let mut events = Events::open(Way::Plain, &gate, "/comet/news").await;
    cursor(&mut events).await;
    gate.reconfigure("[stream]\nmax = \"1h\"\n[hold]\nmax = 1\n").await;
    gate.publish("news", "hello").await;
    assert_eq!(events.next().await.json()["data"], "hello");
}

#[tokio::test]
async fn access_that_is_revoked_ends_a_stream() {
    let config = "[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\n\
                  auth = { kind = \"signed\", keys = { k1 = \"secret\" } }\n";
    let gate = Gate::start_alone(config).await;
    let refused = gate.connect().await.request("GET", "/comet/news", &[SSE], b"").await;
    assert_eq!(refused.status, 401);
    let token = signed("k1", "secret", 4_000_000_000, "news");
    for way in Way::ALL {
        let target = format!("/comet/news?token={token}");
        let mut events = Events::open(way, &gate, &target).await;
        cursor(&mut events).await;
        gate.wait_for_held(1).await;
        let revoked = gate.hook("DELETE", "/grants?channel=news", &[], "").await;
        assert_eq!(revoked.json()["revoked"], 1, "{way:?}");
        events.end().await;
        gate.wait_for_held(0).await;
    }
}

#[tokio::test]
async fn a_token_s_end_is_the_stream_s() {
    let config = "[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\n\
                  auth = { kind = \"signed\", keys = { k1 = \"secret\" } }\n";
    let gate = Gate::start_alone(config).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let token = signed("k1", "secret", now.as_secs() + 2, "news");
    let target = format!("/comet/news?token={token}");
    let mut events = Events::open(Way::Plain, &gate, &target).await;
    cursor(&mut events).await;
    events.end().await;
    let refused = gate.connect().await.request("GET", &target, &[SSE], b"").await;
    assert_eq!(refused.status, 401);
}

fn signed(id: &str, key: &str, expiry: u64, channels: &str) -> String {
    use base64::Engine;
    let channels = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(channels);
    let text = format!("{id}.{expiry}.{channels}");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes());
    let mac = ring::hmac::sign(&key, text.as_bytes());
    let hex: String = mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{text}.{hex}")
}

#[tokio::test]
async fn a_slow_reader_that_falls_out_of_the_history_is_reset_and_costs_no_memory() {
    for way in [Way::Plain, Way::Http2] {
        let gate = Gate::start_alone("[history]\nmessages = 10\nbytes = \"1MiB\"\n").await;
        let mut events = Events::open(way, &gate, "/comet/news").await;
        cursor(&mut events).await;
        let before = gate.own_memory();
        let big = "x".repeat(64 << 10);
        // More than the kernel takes for a client that reads nothing.
        for number in 0..400 {
            gate.publish("news", format!("{number} {big}")).await;
        }
        let grown = gate.own_memory().saturating_sub(before);
        assert!(grown < 16 << 20, "{way:?}: grown by {grown} bytes");
        gate.publish("news", "last").await;
        let mut last = -1i64;
        let mut resets = 0;
        loop {
            let event = events.next().await;
            if event.event == "reset" {
                resets += 1;
                continue;
            }
            let data = event.json()["data"].as_str().unwrap().to_owned();
            if data == "last" {
                break;
            }
            let number: i64 = data.split(' ').next().unwrap().parse().unwrap();
            assert!(number == last + 1 || resets > 0 && number > last, "{last} {number}");
            last = number;
        }
        assert!(resets > 0, "{way:?}: the reader was slow enough");
    }
}

#[tokio::test]
async fn streams_are_counted_and_logged_at_their_end() {
    let gate = Gate::start_alone("").await;
    let mut events = Events::open(Way::Plain, &gate, "/comet/news?token=secret").await;
    cursor(&mut events).await;
    gate.publish("news", "one").await;
    gate.publish("news", "two").await;
    events.next().await;
    events.next().await;
    assert_eq!(gate.status().await["streams"]["sse"], 1);
    let metrics = gate.hook("GET", "/metrics", &[], "").await.text();
    assert!(metrics.contains("pollgate_streams{transport=\"sse\"} 1"), "{metrics}");
    assert!(metrics.contains("pollgate_deliveries_total 2"), "{metrics}");
    drop(events);
    gate.wait_for_log("events=2").await;
    let log = gate.log();
    let line = log.lines().find(|line| line.contains("events=2")).unwrap();
    assert!(line.contains("status=200") && line.contains("cause=\"gone\""), "{line}");
    assert!(!line.contains("secret"));
    eventually("no stream", async || gate.status().await["streams"]["sse"] == 0).await;
}

#[tokio::test]
async fn head_is_answered_at_once() {
    let gate = Gate::start_alone("").await;
    let head = gate.connect().await.request("HEAD", "/comet/news", &[SSE], b"").await;
    assert_eq!(head.status, 200);
    assert_eq!(gate.held().await, 0);
}

#[tokio::test]
async fn http_1_0_gets_a_stream_to_the_end_of_its_connection() {
    let gate = Gate::start_alone("[drain]\nspread = \"100ms\"\n").await;
    let mut client = Client::connect(gate.addr()).await;
    client
        .send_raw("GET /comet/news HTTP/1.0\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
        .await;
    let head = client.read_head().await;
    assert_eq!((head.status, head.header("transfer-encoding")), (200, None));
    client.read_until("data:\n\n").await;
    gate.publish("news", "hello").await;
    client.read_until("\"data\":\"hello\"}\n\n").await;
    gate.signal("TERM");
    let rest = String::from_utf8(client.read_to_end().await).unwrap();
    assert!(rest.starts_with("retry: ") && rest.ends_with("\n\n"), "{rest}");
}

#[tokio::test]
async fn other_dialects_stream_the_bodies_of_their_answers() {
    let config = "[[poll]]\npath = \"/backend.php\"\ndialect = \"timestamp\"\nchannel = \"news\"\n\
                  transports = [\"poll\", \"sse\"]\nfirst = \"wait\"\n\
                  [[poll]]\npath = \"/comet.php\"\ndialect = \"novcomet\"\nwhen = [\"subscribed\"]\n\
                  transports = [\"poll\", \"sse\"]\n\
                  [[poll]]\npath = \"/bare\"\ndialect = \"timestamp\"\nchannel = \"news\"\n\
                  fields = { message = \".\" }\ntransports = [\"poll\", \"sse\"]\n";
    let gate = Gate::start_alone(config).await;
    let mut stamps = Events::open(Way::Plain, &gate, "/backend.php").await;
    let mut files =
        Events::open(Way::Plain, &gate, "/comet.php?subscribed[news]=&subscribed[a,b]=").await;
    let mut bare = Events::open(Way::Plain, &gate, "/bare").await;
    for events in [&mut stamps, &mut files, &mut bare] {
        cursor(events).await;
    }
    let published = gate.publish("news", "one").await;
    let stamp = published["stamp"].as_f64().unwrap();
    let event = stamps.next().await;
    assert_eq!(event.json(), json!({"msg": "one", "timestamp": stamp}));
    assert_eq!(event.id().parse::<f64>().unwrap(), stamp);
    let change = files.next().await;
    assert_eq!(change.json(), json!({"s": 1, "k": {"news": stamp}}));
    assert!(change.id().contains("news:") && change.id().contains("a%2Cb:"), "{change:?}");
    let text = bare.next().await;
    assert_eq!((text.data.as_str(), text.id()), ("one", published["id"].as_str().unwrap()));
    gate.publish("news", "two").await;
    for (path, seen) in [("/backend.php", event), ("/bare", text)] {
        let headers = [SSE, ("Last-Event-ID", seen.id())];
        let mut again = Events::open_with(Way::Plain, &gate, path, &headers).await;
        cursor(&mut again).await;
        assert!(again.next().await.data.contains("two"));
    }
    let headers = [SSE, ("Last-Event-ID", change.id())];
    let target = "/comet.php?subscribed[news]=&subscribed[a,b]=";
    let mut again = Events::open_with(Way::Plain, &gate, target, &headers).await;
    cursor(&mut again).await;
    assert!(again.next().await.json()["k"]["news"].as_f64().unwrap() > stamp);
}

#[tokio::test]
async fn two_hundred_streams_lose_double_and_misorder_nothing_through_random_cuts() {
    const STREAMS: usize = 200;
    const MESSAGES: u64 = 2_000;
    const STEP: u64 = 20;
    let gate = std::sync::Arc::new(Gate::start_alone("[history]\nmessages = 5000\n").await);
    let mut readers = Vec::new();
    let read = std::sync::Arc::new(AtomicU64::new(0));
    for number in 0..STREAMS {
        let gate = gate.clone();
        let read = read.clone();
        let way = Way::ALL[number % Way::ALL.len()];
        let mut random = fastrand::Rng::with_seed(number as u64);
        let mut events = Events::open(way, &gate, "/comet/news").await;
        cursor(&mut events).await;
        readers.push(tokio::spawn(async move {
            let mut next = 0;
            while next < MESSAGES {
                let event: Event = events.next().await;
                assert_ne!(event.event, "reset", "{number} at {next}");
                if event.event == "cursor" {
                    continue;
                }
                let data = format!("\"data\":\"{next}\"");
                assert!(event.data.contains(&data), "stream {number}: {event:?} for {next}");
                next += 1;
                read.fetch_add(1, Ordering::Relaxed);
                if random.u32(0..500) == 0 {
                    let headers = [SSE, ("Last-Event-ID", event.id())];
                    events = Events::open_with(way, &gate, "/comet/news", &headers).await;
                }
            }
        }));
    }
    let mut hook = Client::connect(gate.internal()).await;
    for number in 0..MESSAGES {
        let path = "/channels/news";
        let published = hook.post(path, "text/plain", number.to_string()).await;
        assert_eq!(published.status, 200);
        if number % STEP == 0 {
            // However busy the machine is, nothing waits behind more than a few messages.
            let due = number.saturating_sub(2 * STEP) * STREAMS as u64;
            eventually("all keep up", async || read.load(Ordering::Relaxed) >= due).await;
        }
    }
    for reader in readers {
        reader.await.unwrap();
    }
}
