//! GRIP behind gates that share their channels over Redis.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod backplane {
    #![allow(dead_code)]
    pub(crate) mod redis;
}
mod support;

use backplane::redis::Redis;
use serde_json::{Value, json};
use support::grip::{GripSite, publish_item, publish_items, response};
use support::socket::Socket;
use support::{Gate, Way, eventually};

async fn gate(redis: &Redis, site: &GripSite) -> Gate {
    let config = format!(
        "[grip]\nenabled = true\nwebsocket = [\"/chat\"]\n[backplane]\nredis = \"{}\"\n",
        redis.url()
    );
    let gate = Gate::start_before(site.addr(), &config).await;
    let ready = async || {
        let answer = gate.hook("GET", "/readyz", &[], "").await.text();
        !answer.to_lowercase().contains("redis")
    };
    eventually("a gate that is ready", ready).await;
    gate
}

fn item(id: &str, prev: &str) -> Value {
    let formats = json!({
        "http-response": { "body": id },
        "http-stream": { "content": id },
        "ws-message": { "content": id },
    });
    match prev {
        "" => json!({ "channel": "news", "id": id, "formats": formats }),
        prev => json!({ "channel": "news", "id": id, "prev-id": prev, "formats": formats }),
    }
}

#[tokio::test]
async fn a_publish_at_one_gate_releases_the_holds_of_another() {
    let redis = Redis::start().await;
    let site = GripSite::start(|request| match request.line() {
        "GET /stream" => response("Grip-Hold: stream\nGrip-Channel: news", "begin"),
        _ => response("Grip-Hold: response\nGrip-Channel: news", "none"),
    });
    let site = site.await;
    let gates = [gate(&redis, &site).await, gate(&redis, &site).await];
    for way in [Way::Plain, Way::Http2] {
        for (holds, publishes) in [(0, 1), (1, 0)] {
            let mut poll = way.connect(&gates[holds]).await;
            let mut open = gates[holds].connect().await;
            open.send_get("/stream").await;
            assert_eq!(open.read_head().await.status, 200);
            assert_eq!(open.read_chunk().await.as_deref(), Some(&b"begin"[..]));
            for round in ["1", "2", "3"] {
                poll.ask("/poll").await;
                gates[holds].wait_for_held(2).await;
                publish_item(&gates[publishes], item(round, "")).await;
                assert_eq!(poll.answer().await.text(), round, "{way:?}");
                assert_eq!(open.read_chunk().await.as_deref(), Some(round.as_bytes()));
            }
            let close = json!({ "channel": "news", "http-stream": { "action": "close" } });
            publish_item(&gates[publishes], close).await;
            assert_eq!(open.read_chunk().await, None);
            gates[holds].wait_for_held(0).await;
        }
    }
}

#[tokio::test]
async fn an_item_that_came_between_the_site_s_answer_and_the_hold_is_found_at_any_gate() {
    let redis = Redis::start().await;
    let hold = "Grip-Hold: response\nGrip-Channel: news; prev-id=1";
    let site = GripSite::saying(response(hold, "none")).await;
    let a = gate(&redis, &site).await;
    publish_items(&a, json!([item("1", "0"), item("2", "1"), item("3", "2")])).await;
    // A gate that has never heard of the channel.
    let b = gate(&redis, &site).await;
    for gate in [&a, &b] {
        let mut client = gate.connect().await;
        assert_eq!(client.get("/poll").await.text(), "2");
    }
    assert_eq!(site.requests().len(), 2, "the history has it, and the site was not asked again");
}

#[tokio::test]
async fn a_gap_that_no_gate_s_history_fills_is_the_site_s_to_fill() {
    let redis = Redis::start().await;
    let site = GripSite::start(|request| match request.header("grip-last") {
        None => response("Grip-Hold: response\nGrip-Channel: news; prev-id=7", "none"),
        Some(last) => response("", &format!("after {last}")),
    });
    let site = site.await;
    let a = gate(&redis, &site).await;
    publish_item(&a, item("9", "8")).await;
    let b = gate(&redis, &site).await;
    let mut client = b.connect().await;
    assert_eq!(client.get("/poll").await.text(), "after news; last-id=7");
    assert_eq!(site.requests().len(), 2);
}

#[tokio::test]
async fn a_socket_over_http_gets_the_items_of_every_gate() {
    let redis = Redis::start().await;
    let site = GripSite::start(|_| {
        let subscribe = r#"c:{"type":"subscribe","channel":"news"}"#;
        let body = format!("OPEN\r\nTEXT {:x}\r\n{subscribe}\r\n", subscribe.len());
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/websocket-events\r\n\
                    Sec-WebSocket-Extensions: grip\r\nConnection: close\r\n";
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    });
    let site = site.await;
    let a = gate(&redis, &site).await;
    let b = gate(&redis, &site).await;
    let mut socket = Socket::open(&b, "/chat", &[]).await;
    // A message that a socket misses is the site's to send again, so this one waits for the gate.
    let held = async || b.channel("grip/news").await["held"] == 1;
    eventually("the socket is subscribed", held).await;
    for id in ["1", "2"] {
        publish_item(&a, item(id, "")).await;
        assert_eq!(socket.text().await, id);
    }
}
