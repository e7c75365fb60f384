//! GRIP: a site says which requests are held, and publishes what they get.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::grip::{GripSite, grip_gate, instruct, publish_item, publish_items, response};
use support::{Client, Events, Gate, Way, eventually};

const HOLD: &str = "Grip-Hold: response\nGrip-Channel: news\nX-Site: yes";
const STREAM: &str = "Grip-Hold: stream\nGrip-Channel: news";

fn http_response(body: &str) -> Value {
    json!({ "channel": "news", "formats": { "http-response": { "body": body } } })
}

fn http_stream(content: &str) -> Value {
    json!({ "channel": "news", "formats": { "http-stream": { "content": content } } })
}

/// The next bytes of a stream, as text.
async fn chunk(client: &mut Client) -> String {
    let chunk = client.read_chunk().await.unwrap_or_default();
    String::from_utf8(chunk).unwrap()
}

/// A stream that has begun.
async fn stream(gate: &Gate, target: &str) -> Client {
    let mut client = gate.connect().await;
    client.send_get(target).await;
    let head = client.read_head().await;
    assert_eq!(head.status, 200, "{head:?}");
    client
}

#[tokio::test]
async fn a_held_response_is_released_by_an_item() {
    for way in Way::ALL {
        let site = GripSite::saying(response(HOLD, "nothing yet\n")).await;
        let gate = grip_gate(&site, "").await;
        let mut client = way.connect(&gate).await;
        for round in 0..2 {
            client.ask("/poll?room=1").await;
            gate.wait_for_held(1).await;
            let made = json!({ "channel": "news", "formats": { "http-response": {
                "code": 201, "reason": "Made", "headers": { "X-Item": "a, b" }, "body": "hello\n",
            }}});
            publish_item(&gate, made).await;
            let answer = client.answer().await;
            assert_eq!((answer.status, answer.text().as_str()), (201, "hello\n"), "{way:?}");
            assert_eq!(answer.header("x-item"), Some("a, b"));
            // The rest is from the response that would have been sent at the timeout.
            assert_eq!(answer.header("x-site"), Some("yes"));
            assert_eq!(answer.header("content-type"), Some("text/plain"));
            assert_eq!(answer.header("content-length"), Some("6"));
            assert!(
                answer.headers.iter().all(|(name, _)| !name.to_lowercase().starts_with("grip"))
            );
            assert_eq!(site.requests().len(), round + 1, "{way:?}: the connection is kept");
        }
        gate.wait_for_held(0).await;
    }
}

#[tokio::test]
async fn a_held_response_without_an_item_is_the_site_s_own() {
    for way in Way::ALL {
        let hold = format!("{HOLD}\nGrip-Timeout: 1\nGrip-Status: 203 Later");
        let site = GripSite::saying(response(&hold, "nothing yet\n")).await;
        let gate = grip_gate(&site, "").await;
        let answer = way.connect(&gate).await.poll("/poll").await;
        assert_eq!((answer.status, answer.text().as_str()), (203, "nothing yet\n"), "{way:?}");
    }
}

#[tokio::test]
async fn an_instruction_in_the_body_holds_as_headers_do() {
    for way in Way::ALL {
        let said = json!({
            "hold": { "mode": "response", "channels": [{ "name": "news" }], "timeout": 60 },
            "response": { "code": 200, "headers": [["X-A", "1"], ["X-A", "2"]], "body": "none" },
        });
        let site = GripSite::saying(instruct(&said)).await;
        let gate = grip_gate(&site, "").await;
        let mut client = way.connect(&gate).await;
        client.ask("/poll").await;
        gate.wait_for_held(1).await;
        let coded = json!({ "channel": "news", "http-response": { "body-bin": "AP8=" } });
        publish_item(&gate, coded).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, &[0, 255][..]), "{way:?}");
        assert_eq!(answer.all("x-a"), ["1", "2"]);
        assert_eq!(answer.header("content-type"), None, "the instruction's is not the response's");
    }
}

#[tokio::test]
async fn a_stream_begins_with_the_site_s_body_and_goes_on_with_items() {
    let site = GripSite::saying(response(STREAM, "begin\n")).await;
    let gate = grip_gate(&site, "").await;
    let mut client = gate.connect().await;
    for _ in 0..2 {
        client.send_get("/stream").await;
        let head = client.read_head().await;
        assert_eq!((head.status, head.header("x-powered-by")), (200, None));
        assert_eq!(head.header("transfer-encoding"), Some("chunked"));
        assert_eq!(chunk(&mut client).await, "begin\n");
        gate.wait_for_held(1).await;
        for text in ["one\n", "two\n"] {
            publish_item(&gate, http_stream(text)).await;
            assert_eq!(chunk(&mut client).await, text);
        }
        let close = json!({ "channel": "news", "http-stream": { "action": "close" } });
        publish_item(&gate, close).await;
        assert_eq!(client.read_chunk().await, None, "a clean end");
        gate.wait_for_held(0).await;
    }
}

#[tokio::test]
async fn an_event_stream_is_one_over_every_way() {
    for way in Way::ALL {
        let head = format!("{STREAM}\nContent-Type: text/event-stream");
        let answer = response(&head, "data: 0\n\n");
        let answer = String::from_utf8(answer).unwrap().replace("Content-Type: text/plain\r\n", "");
        let site = GripSite::saying(answer).await;
        let gate = grip_gate(&site, "").await;
        let mut events = Events::open(way, &gate, "/events").await;
        assert_eq!(events.next().await.data, "0", "{way:?}");
        gate.wait_for_held(1).await;
        publish_item(&gate, http_stream("event: a\ndata: 1\n\n")).await;
        let event = events.next().await;
        assert_eq!((event.event.as_str(), event.data.as_str()), ("a", "1"), "{way:?}");
        drop(events);
        gate.wait_for_held(0).await;
    }
}

#[tokio::test]
async fn a_quiet_stream_gets_its_signs_of_life() {
    for mode in ["idle", "interval"] {
        let head =
            format!("{STREAM}\nGrip-Keep-Alive: \\n\\x21; format=cstring; timeout=1; mode={mode}");
        let site = GripSite::saying(response(&head, "")).await;
        let gate = grip_gate(&site, "").await;
        let mut client = stream(&gate, "/stream").await;
        assert_eq!(chunk(&mut client).await, "\n!");
        assert_eq!(chunk(&mut client).await, "\n!");
    }
}

#[tokio::test]
async fn no_grip_header_passes_in_either_direction_and_the_signature_is_the_gate_s() {
    for way in Way::ALL {
        let site = GripSite::saying(response("Grip-Foo: a\nX-Else: c", "plain")).await;
        let gate = grip_gate(&site, "key = \"secret\"\niss = \"us\"\n").await;
        let mut client = way.connect(&gate).await;
        let own = [("Grip-Sig", "mine"), ("GRIP-LAST", "a; last-id=1"), ("Grip_Sig", "mine")];
        let answer = client.poll_with("GET", "/page", &own).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "plain"));
        assert_eq!((answer.header("grip-foo"), answer.header("x-else")), (None, Some("c")));
        let request = site.requests().remove(0);
        assert_eq!(request.all("grip-last"), Vec::<&str>::new());
        assert_eq!(request.all("grip_sig"), Vec::<&str>::new());
        let signature = request.header("grip-sig").unwrap();
        assert_eq!(signature.split('.').count(), 3, "{signature}");
        assert!(request.header("grip-feature").unwrap().contains("link:next"));

        let head = client.poll_with("HEAD", "/page", &[]).await;
        assert_eq!((head.status, head.header("grip-foo")), (200, None));
    }
}

#[tokio::test]
async fn a_head_is_never_held() {
    for way in Way::ALL {
        let site = GripSite::saying(response(HOLD, "")).await;
        let gate = grip_gate(&site, "").await;
        let answer = way.connect(&gate).await.poll_with("HEAD", "/poll", &[]).await;
        assert_eq!((answer.status, answer.header("grip-hold")), (200, None), "{way:?}");
        assert_eq!(answer.header("x-site"), Some("yes"));
    }
}

#[tokio::test]
async fn without_grip_its_headers_are_anybody_s() {
    let site = GripSite::saying(response(HOLD, "page")).await;
    let gate = Gate::start_before(site.addr(), "").await;
    let answer = gate.get("/poll").await;
    assert_eq!((answer.text().as_str(), answer.header("grip-hold")), ("page", Some("response")));
    assert_eq!(publish_items(&gate, json!([])).await.status, 404);
}

#[tokio::test]
async fn an_instruction_that_cannot_be_followed_is_an_error_of_the_site_s() {
    let bad = [
        "Grip-Hold: Response\nGrip-Channel: a",
        "Grip-Hold: response",
        "Grip-Hold: response\nGrip-Channel: a\nGrip-Timeout: soon",
        "Grip-Hold: response\nGrip-Channel: a\nGrip-Status: 1000",
        "Grip-Hold: response\nGrip-Channel: a\nGrip-Status: 101",
        "Grip-Hold: response\nGrip-Channel: a; filter=skip-selves",
        "Grip-Hold: response\nGrip-Channel: a; prev-id=\"b",
        "Grip-Hold: stream\nGrip-Channel: a\nGrip-Keep-Alive: ; timeout=1",
        "Grip-Hold: stream\nGrip-Channel: a\nGrip-Keep-Alive: \\; format=cstring",
        "Grip-Hold: stream\nGrip-Channel: a\nContent-Encoding: gzip",
        "Grip-Link: nowhere; rel=next",
    ];
    for headers in bad {
        for way in [Way::Plain, Way::Http2] {
            let site = GripSite::saying(response(headers, "")).await;
            let gate = grip_gate(&site, "").await;
            let mut client = way.connect(&gate).await;
            let answer = client.poll("/poll").await;
            assert_eq!(answer.status, 502, "{headers}");
            assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("grip")));
            assert_eq!(client.poll("/poll").await.status, 502, "the connection is good");
        }
    }
    let long = "x".repeat((1 << 20) + 1);
    let site = GripSite::saying(response(HOLD, &long)).await;
    let gate = grip_gate(&site, "").await;
    assert_eq!(gate.get("/poll").await.status, 502);
}

#[tokio::test]
async fn hostile_items_are_refused_and_nothing_is_published() {
    let site = GripSite::saying(response(HOLD, "none")).await;
    let gate = grip_gate(&site, "").await;
    let mut client = gate.connect().await;
    client.send_get("/poll").await;
    gate.wait_for_held(1).await;
    let response = |format: Value| json!({ "channel": "news", "http-response": format });
    let bad = [
        response(json!({ "body": "x", "headers": { "X-A": "b\r\nSet-Cookie: c" } })),
        response(json!({ "body": "x", "headers": [["X-A\nX-B", "b"]] })),
        response(json!({ "body": "x", "headers": { "X A": "b" } })),
        response(json!({ "body": "x", "headers": { "X-A": "b\u{0}" } })),
        response(json!({ "body": "x", "headers": { "": "b" } })),
        response(json!({ "body": "x", "headers": { "X-A": 1 } })),
        response(json!({ "body": "x", "headers": "X-A: b" })),
        response(json!({ "body": "x", "reason": "OK\r\nX-A: b" })),
        response(json!({ "body": "x", "code": 99 })),
        response(json!({ "body": "x", "code": 100 })),
        response(json!({ "body": "x", "code": 101 })),
        response(json!({ "body": "x", "code": 1000 })),
        response(json!({ "body": "x", "code": -1 })),
        response(json!({ "body": "x", "code": "OK" })),
        response(json!({ "body": 5 })),
        response(json!({ "body-bin": "%%%" })),
        response(json!({ "body-patch": "x" })),
        response(json!({ "body": "x", "action": "explode" })),
        response(json!({})),
        response(json!("x")),
        json!({ "channel": "news" }),
        json!({ "channel": "news", "formats": {} }),
        json!({ "channel": "news", "formats": [] }),
        json!({ "channel": "", "http-response": { "body": "x" } }),
        json!({ "channel": "a\nb", "http-response": { "body": "x" } }),
        json!({ "channel": "x".repeat(251), "http-response": { "body": "x" } }),
        json!({ "channel": 5, "http-response": { "body": "x" } }),
        json!({ "http-response": { "body": "x" } }),
        json!({ "channel": "news", "id": "a\r\nb", "http-response": { "body": "x" } }),
        json!({ "channel": "news", "id": 1, "http-response": { "body": "x" } }),
        json!({ "channel": "news", "meta": { "a": 1 }, "http-response": { "body": "x" } }),
        json!({ "channel": "news", "http-stream": {} }),
        json!({ "channel": "news", "ws-message": {} }),
        json!({ "channel": "news", "ws-message": { "type": "text", "content-bin": "/w==" } }),
        json!({ "channel": "news", "ws-message": { "type": "ping", "content": "x".repeat(126) } }),
        json!({ "channel": "news", "ws-message": { "action": "close", "code": 1005 } }),
        json!({ "channel": "news", "ws-message": { "action": "close", "reason": "x".repeat(124) } }),
        json!("news"),
        Value::Null,
    ];
    for item in bad {
        let answer = publish_items(&gate, json!([http_response("good"), item])).await;
        assert_eq!(answer.status, 400, "{item}: {}", answer.text());
    }
    for body in ["", "{", "[]", "{}", r#"{"items":{}}"#, &"[".repeat(10_000)] {
        let answer = gate.hook("POST", "/grip/publish", &[], body).await;
        assert_eq!(answer.status, 400, "{body:?}");
    }
    assert_eq!(gate.hook("GET", "/grip/publish", &[], "").await.status, 405);
    let many = vec![http_response("x"); 10_001];
    assert_eq!(publish_items(&gate, many.into()).await.status, 400);
    let long = http_response(&"x".repeat(2 << 20));
    assert_eq!(publish_items(&gate, json!([http_response("good"), long])).await.status, 413);
    assert!(client.is_quiet().await, "nothing was published");
    publish_item(&gate, http_response("good")).await;
    assert_eq!(client.read_response().await.text(), "good");
}

#[tokio::test]
async fn what_an_item_must_not_say_of_its_connection_is_left_out() {
    let site = GripSite::saying(response(HOLD, "none")).await;
    let gate = grip_gate(&site, "").await;
    let mut client = gate.connect().await;
    client.send_get("/poll").await;
    gate.wait_for_held(1).await;
    let item = json!({ "channel": "news", "http-response": { "code": 204, "body": "more", "headers": {
        "Content-Length": "1", "Transfer-Encoding": "chunked", "Connection": "close, X-A",
        "Grip-Hold": "stream", "Upgrade": "h2c",
    }}});
    publish_item(&gate, item).await;
    let answer = client.read_response().await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    for name in ["content-length", "transfer-encoding", "grip-hold", "upgrade"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    client.send_get("/poll").await;
    gate.wait_for_held(1).await;
    publish_item(&gate, http_response("next")).await;
    assert_eq!(client.read_response().await.text(), "next", "the connection is in step");
}

#[tokio::test]
async fn a_publisher_shows_a_token_that_the_control_key_has_signed() {
    let site = GripSite::saying(response(HOLD, "none")).await;
    let gate = grip_gate(&site, "control_key = \"secret\"\n").await;
    let head = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9";
    // {"iss":"a","exp":4102444800} and {"iss":"a","exp":1}, both signed with "secret".
    let good = token(head, r#"{"iss":"a","exp":4102444800}"#, b"secret");
    let late = token(head, r#"{"iss":"a","exp":1}"#, b"secret");
    let other = token(head, r#"{"iss":"a","exp":4102444800}"#, b"else");
    let body = json!({ "items": [http_response("x")] }).to_string();
    for (value, status) in [
        (format!("Bearer {good}"), 200),
        (format!("Bearer {late}"), 401),
        (format!("Bearer {other}"), 401),
        ("Bearer secret".to_owned(), 401),
        (good, 401),
    ] {
        let headers = [("Authorization", value.as_str())];
        let answer = gate.hook("POST", "/grip/publish/", &headers, &body).await;
        assert_eq!(answer.status, status, "{value}");
    }
    assert_eq!(gate.hook("POST", "/grip/publish/", &[], &body).await.status, 401);
    let page = [("Origin", "https://evil.example")];
    assert_eq!(gate.hook("POST", "/grip/publish/", &page, &body).await.status, 403);
}

fn token(head: &str, claims: &str, key: &[u8]) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    let signed = format!("{head}.{}", BASE64.encode(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    format!("{signed}.{}", BASE64.encode(ring::hmac::sign(&key, signed.as_bytes())))
}

#[tokio::test]
async fn where_the_history_fills_a_gap_the_site_is_not_asked() {
    let hold = "Grip-Hold: response\nGrip-Channel: news; prev-id=1";
    let site = GripSite::saying(response(hold, "none")).await;
    let gate = grip_gate(&site, "").await;
    let item = |id: &str, prev: &str| json!({ "channel": "news", "id": id, "prev-id": prev, "http-response": { "body": id } });
    // The site rendered its response before 2, and 2 was published before the gate had it.
    publish_items(&gate, json!([item("1", "0"), item("2", "1"), item("3", "2")])).await;
    let mut client = gate.connect().await;
    assert_eq!(client.get("/poll").await.text(), "2");
    assert_eq!(site.requests().len(), 1);
}

#[tokio::test]
async fn a_gap_that_the_history_cannot_fill_is_the_site_s_to_fill_once() {
    for knows in [true, false] {
        let hold = "Grip-Hold: response\nGrip-Channel: news; prev-id=7, other; prev-id=\"a b\"";
        let site = GripSite::start(move |request| match request.all("grip-last").is_empty() {
            false if knows => response("", "what you missed"),
            _ => response(hold, "none"),
        });
        let site = site.await;
        let gate = grip_gate(&site, "").await;
        let item = json!({ "channel": "news", "id": "9", "prev-id": "8", "http-response": { "body": "9" } });
        publish_item(&gate, item).await;
        let mut client = gate.connect().await;
        client.send("GET", "/poll?a=b", &[("Cookie", "c=d")], b"").await;
        if !knows {
            // It was asked, and knows no more: the hold goes on from here.
            gate.wait_for_held(1).await;
            eventually("the site was asked again", async || site.requests().len() == 2).await;
            assert!(client.is_quiet().await);
            let item = json!({ "channel": "news", "id": "10", "prev-id": "9", "http-response": { "body": "10" } });
            publish_item(&gate, item).await;
        }
        let answer = client.read_response().await;
        assert_eq!(answer.text(), if knows { "what you missed" } else { "10" });
        let requests = site.requests();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[1].all("grip-last"), ["news; last-id=7", "other; last-id=a b"]);
        assert_eq!(
            (requests[1].line(), requests[1].header("cookie")),
            ("GET /poll?a=b", Some("c=d"))
        );
        assert_eq!(requests[0].header("x-forwarded-for"), requests[1].header("x-forwarded-for"));
    }
}

#[tokio::test]
async fn a_channel_that_never_had_an_item_is_where_the_site_says() {
    let hold = "Grip-Hold: response\nGrip-Channel: news; prev-id=7";
    let site = GripSite::saying(response(hold, "none")).await;
    let gate = grip_gate(&site, "").await;
    let mut client = gate.connect().await;
    client.send_get("/poll").await;
    gate.wait_for_held(1).await;
    let item =
        json!({ "channel": "news", "id": "8", "prev-id": "7", "http-response": { "body": "8" } });
    publish_item(&gate, item).await;
    assert_eq!(client.read_response().await.text(), "8");
    assert_eq!(site.requests().len(), 1);
}

#[tokio::test]
async fn a_hint_has_the_site_answer() {
    let site = GripSite::start(|request| match request.header("grip-last") {
        None => response("Grip-Hold: response\nGrip-Channel: news; prev-id=1", "none"),
        Some(_) => response("X-A: b", "fresh"),
    });
    let site = site.await;
    let gate = grip_gate(&site, "").await;
    let mut client = gate.connect().await;
    client.send_get("/poll").await;
    gate.wait_for_held(1).await;
    publish_item(&gate, json!({ "channel": "news", "http-response": { "action": "hint" } })).await;
    let answer = client.read_response().await;
    assert_eq!((answer.text().as_str(), answer.header("x-a")), ("fresh", Some("b")));
}

#[tokio::test]
async fn a_patch_changes_the_body_of_the_timeout() {
    let site = GripSite::saying(response(HOLD, "{\"count\":1,\"list\":[\"a\"]}\n")).await;
    let gate = grip_gate(&site, "").await;
    let mut client = gate.connect().await;
    client.send_get("/poll").await;
    gate.wait_for_held(1).await;
    let patch = json!([
        { "op": "replace", "path": "/count", "value": 2 },
        { "op": "add", "path": "/list/-", "value": "b" },
    ]);
    publish_item(&gate, json!({ "channel": "news", "http-response": { "body-patch": patch } }))
        .await;
    assert_eq!(client.read_response().await.text(), "{\"count\":2,\"list\":[\"a\",\"b\"]}\n");
}

#[tokio::test]
async fn filters_decide_who_gets_an_item() {
    let site = GripSite::start(|request| {
        let user = request.line().rsplit('=').next().unwrap().to_owned();
        let filters = "filter=skip-self; filter=skip-users; filter=require-sub; filter=var-subst";
        response(
            &format!(
                "Grip-Hold: stream\nGrip-Channel: news; {filters}\nGrip-Set-Meta: user=\"{user}\""
            ),
            "",
        )
    });
    let site = site.await;
    let gate = grip_gate(&site, "").await;
    let mut amy = stream(&gate, "/stream?user=amy").await;
    let mut bob = stream(&gate, "/stream?user=bob").await;
    gate.wait_for_held(2).await;
    let item = |meta: Value, content: &str| json!({ "channel": "news", "meta": meta, "http-stream": { "content": content } });
    publish_item(&gate, item(json!({ "sender": "amy" }), "from amy")).await;
    assert_eq!(chunk(&mut bob).await, "from amy");
    publish_item(&gate, item(json!({ "skip_users": "carl, bob" }), "not bob")).await;
    assert_eq!(chunk(&mut amy).await, "not bob");
    publish_item(&gate, item(json!({ "require_sub": "else" }), "of else")).await;
    publish_item(&gate, item(json!({ "require_sub": "news" }), "for %(user)s: 100%%")).await;
    assert_eq!(chunk(&mut amy).await, "for amy: 100%");
    assert_eq!(chunk(&mut bob).await, "for bob: 100%");
    let of_others = json!({ "channel": "news", "http-stream": {
        "content": "x", "content-filters": ["build-id"] } });
    publish_item(&gate, of_others).await;
    let ours = json!({ "channel": "news", "http-stream": {
        "content": "%(user)s", "content-filters": ["var-subst"] } });
    publish_item(&gate, ours).await;
    assert_eq!(chunk(&mut amy).await, "amy");
}

#[tokio::test]
async fn a_link_goes_on_where_the_response_ends() {
    let site = GripSite::start(|request| match request.line() {
        "GET /dir/first?x" => response("Grip-Link: <second?page=2>; rel=next", "1"),
        "GET /dir/second?page=2" => response("Grip-Link: <?page=3>; rel=next", "2"),
        "GET /dir/second?page=3" => response(
            "Grip-Hold: stream\nGrip-Channel: news; prev-id=3\n\
             Grip-Link: </last>; rel=next; timeout=60, </bye>; rel=gone",
            "3",
        ),
        "GET /last" => {
            response("", format!("end after {}", request.header("grip-last").unwrap()).as_str())
        }
        other => panic!("{other}"),
    });
    let site = site.await;
    let gate = grip_gate(&site, "").await;
    let mut client = stream(&gate, "/dir/first?x").await;
    for page in ["1", "2", "3"] {
        assert_eq!(chunk(&mut client).await, page);
    }
    let item =
        json!({ "channel": "news", "id": "4", "prev-id": "3", "http-stream": { "content": "4" } });
    publish_item(&gate, item).await;
    assert_eq!(chunk(&mut client).await, "4");
    publish_item(&gate, json!({ "channel": "news", "http-stream": { "action": "hint" } })).await;
    assert_eq!(chunk(&mut client).await, "end after news; last-id=4");
    assert_eq!(client.read_chunk().await, None);
    assert!(site.requests().iter().skip(1).all(|it| it.header("grip-feature").is_some()));
}

#[tokio::test]
async fn a_gap_in_a_stream_is_filled_by_its_link() {
    let stream_after = |id: &str, body: &str| {
        let head = format!(
            "Grip-Hold: stream\nGrip-Channel: news; prev-id={id}\nGrip-Link: </more>; rel=next"
        );
        response(&head, body)
    };
    let site = GripSite::start(move |request| match request.line() {
        "GET /more" => stream_after("5", "2345"),
        _ => stream_after("1", "1"),
    });
    let site = site.await;
    let gate = grip_gate(&site, "").await;
    let mut client = stream(&gate, "/stream").await;
    assert_eq!(chunk(&mut client).await, "1");
    // Some publisher's 2 to 4 never came.
    let item = |id: &str, prev: &str| json!({ "channel": "news", "id": id, "prev-id": prev, "http-stream": { "content": id } });
    publish_item(&gate, item("5", "4")).await;
    assert_eq!(chunk(&mut client).await, "2345");
    publish_item(&gate, item("6", "5")).await;
    assert_eq!(chunk(&mut client).await, "6");
    let more = site.requests().into_iter().nth(1).unwrap();
    assert!(more.header("grip-last").unwrap().starts_with("news; last-id="));
}

#[tokio::test]
async fn the_site_learns_of_the_end_of_a_hold_that_names_a_link_for_it() {
    let site = GripSite::start(|request| match request.line() {
        "POST /bye?id=1" => response("", ""),
        _ => response(&format!("{STREAM}\nGrip-Link: </bye?id=1>; rel=gone"), "x"),
    });
    let site = site.await;
    let gate = grip_gate(&site, "").await;
    let client = stream(&gate, "/stream").await;
    client.close();
    eventually("the site knows", async || {
        site.requests().iter().any(|request| request.line() == "POST /bye?id=1")
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_is_held_no_more() {
    for way in Way::ALL {
        let site = GripSite::saying(response(HOLD, "none")).await;
        let gate = grip_gate(&site, "").await;
        let mut client = way.connect(&gate).await;
        client.ask("/poll").await;
        gate.wait_for_held(1).await;
        client.close();
        gate.wait_for_held(0).await;
    }
}

#[tokio::test]
async fn a_shutdown_answers_holds_as_their_timeout_would_and_ends_streams() {
    let site = GripSite::start(|request| match request.line() {
        "GET /stream" => response(STREAM, "begin"),
        _ => response(HOLD, "none"),
    });
    let site = site.await;
    let gate = grip_gate(&site, "[drain]\nspread = \"0s\"\n").await;
    let mut poll = gate.connect().await;
    poll.send_get("/poll").await;
    let mut open = stream(&gate, "/stream").await;
    assert_eq!(chunk(&mut open).await, "begin");
    gate.wait_for_held(2).await;
    gate.signal("TERM");
    assert_eq!(poll.read_response().await.text(), "none");
    assert_eq!(open.read_chunk().await, None);
    assert_eq!(gate.wait_for_exit().await, 0);
}

#[tokio::test]
async fn holds_count_as_polls_do() {
    let site = GripSite::saying(response(HOLD, "none")).await;
    let gate = grip_gate(&site, "[hold]\nmax = 1\n").await;
    let mut first = gate.connect().await;
    first.send_get("/poll").await;
    gate.wait_for_held(1).await;
    let refused = gate.get("/poll").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    publish_item(&gate, http_response("x")).await;
    assert_eq!(first.read_response().await.text(), "x");
}

#[tokio::test]
async fn a_body_of_a_held_request_is_the_site_s_and_the_connection_stays_in_step() {
    for way in Way::HTTP1 {
        let site = GripSite::saying(response(HOLD, "none")).await;
        let gate = grip_gate(&site, "").await;
        let mut poller = way.connect(&gate).await;
        let client = poller.client();
        for _ in 0..2 {
            client.send("POST", "/poll", &[("Content-Type", "text/plain")], b"a body").await;
            gate.wait_for_held(1).await;
            publish_item(&gate, http_response("x")).await;
            assert_eq!(client.read_response().await.text(), "x");
        }
        assert!(site.requests().iter().all(|request| request.line() == "POST /poll"));
    }
}
