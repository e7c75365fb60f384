//! Nchan's publishers and subscribers at gates that share their channels over Redis.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod backplane {
    #![allow(dead_code)]
    pub(crate) mod redis;
}
mod support;

use backplane::redis::Redis;
use support::{Events, Gate, Response, Socket, Way, eventually};

const CONFIG: &str = "[[nchan]]\npath = \"/pub/*\"\n\
                      [[poll]]\npath = \"/sub/*\"\ndialect = \"nchan\"\n\
                      [[poll]]\npath = \"/raw/*\"\ndialect = \"nchan\"\nraw = true\n";
const META: (&str, &str) = ("Sec-WebSocket-Protocol", "ws+meta.nchan");

async fn gate(redis: &Redis) -> Gate {
    let gate =
        Gate::start_alone(&format!("{CONFIG}[backplane]\nredis = \"{}\"\n", redis.url())).await;
    let ready = async || {
        let answer = gate.hook("GET", "/readyz", &[], "").await.text();
        !answer.to_lowercase().contains("redis")
    };
    eventually("a gate that is ready", ready).await;
    gate
}

async fn publish(gate: &Gate, channel: &str, body: &str) -> Response {
    let headers = [("Content-Type", "text/plain")];
    let answer = gate.hook("POST", &format!("/pub/{channel}"), &headers, body).await;
    assert!(matches!(answer.status, 201 | 202), "{}: {}", answer.status, answer.text());
    answer
}

/// The place of an answer, as headers of the next poll.
fn place(answer: &Response) -> [(&'static str, String); 2] {
    let header = |name: &str| answer.header(name).unwrap().to_owned();
    [("If-Modified-Since", header("last-modified")), ("If-None-Match", header("etag"))]
}

#[tokio::test]
async fn a_poll_at_one_gate_goes_on_at_another_and_is_released_from_a_third() {
    let redis = Redis::start().await;
    let gates = [gate(&redis).await, gate(&redis).await, gate(&redis).await];
    for channels in ["news", "news,sport"] {
        let target = format!("/sub/{channels}");
        publish(&gates[0], "news", "first").await;
        let mut answer = gates[1].connect().await.get(&target).await;
        assert_eq!(answer.text(), "first", "{channels}");
        for round in 0..6 {
            let holds = &gates[round % 3];
            let publishes = &gates[(round + 1) % 3];
            let mut client = holds.connect().await;
            let own = place(&answer);
            let own: Vec<_> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
            client.send("GET", &target, &own, b"").await;
            holds.wait_for_held(1).await;
            let body = format!("{channels} {round}");
            publish(publishes, "news", &body).await;
            answer = client.read_response().await;
            assert_eq!(answer.text(), body);
            assert_eq!(answer.header("x-pollgate-reset"), None);
        }
        gates[0].hook("DELETE", "/pub/news", &[], "").await;
    }
}

#[tokio::test]
async fn every_stream_gets_what_any_gate_publishes() {
    let redis = Redis::start().await;
    let a = gate(&redis).await;
    let b = gate(&redis).await;
    publish(&a, "news", "0").await;
    let mut events = Events::open(Way::Plain, &b, "/sub/news").await;
    // The empty line behind the first comment.
    assert_eq!(events.next().await.id, None);
    let mut socket = Socket::open(&b, "/sub/news", &[META]).await;
    let mut raw = b.connect().await;
    raw.send_get("/raw/news").await;
    assert_eq!(raw.read_head().await.status, 200);
    for number in 0..10 {
        if number > 0 {
            publish(if number % 2 == 0 { &a } else { &b }, "news", &number.to_string()).await;
        }
        let event = events.next().await;
        assert_eq!(event.data, number.to_string(), "{event:?}");
        let (_, frame) = socket.frame().await;
        let frame = String::from_utf8(frame).unwrap();
        assert!(frame.starts_with("id: ") && frame.ends_with(&format!("\n\n{number}")), "{frame}");
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.extend(raw.read_chunk().await.unwrap());
        }
        assert_eq!(line, format!("{number}\n").as_bytes());
    }
}

#[tokio::test]
async fn a_channel_that_one_gate_deletes_is_gone_at_the_other() {
    let redis = Redis::start().await;
    let a = gate(&redis).await;
    let b = gate(&redis).await;
    publish(&a, "news", "1").await;
    let answer = b.connect().await.get("/sub/news").await;
    let mut client = b.connect().await;
    let own = place(&answer);
    let own: Vec<_> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
    client.send("GET", "/sub/news", &own, b"").await;
    b.wait_for_held(1).await;
    assert_eq!(a.hook("DELETE", "/pub/news", &[], "").await.status, 200);
    assert_eq!(client.read_response().await.status, 410);
    let info = b.hook("GET", "/pub/news", &[("Accept", "text/json")], "").await;
    assert_eq!(info.status, 404, "{}", info.text());
}

#[tokio::test]
async fn a_publisher_learns_of_the_messages_that_came_by_another_gate() {
    let redis = Redis::start().await;
    let a = gate(&redis).await;
    let b = gate(&redis).await;
    publish(&a, "news", "1").await;
    publish(&b, "news", "2").await;
    let info = b.hook("GET", "/pub/news", &[("Accept", "text/json")], "").await;
    let info: serde_json::Value = serde_json::from_str(&info.text()).unwrap();
    assert_eq!(info["messages"], 2, "{info}");
}
