//! Streams for clients that can do neither event streams nor WebSockets: lines of JSON, and
//! scripts in a frame.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::{Client, Events, Gate, Way};

const CONFIG: &str = "[[poll]]\npath = \"/comet/*\"\ndialect = \"native\"\n\
                      transports = [\"poll\", \"sse\", \"chunked\", \"iframe\"]\n\
                      callback = \"callback\"\ncsp_nonce = \"X-Csp-Nonce\"\n";
const NDJSON: (&str, &str) = ("Accept", "application/x-ndjson");

async fn line(events: &mut Events) -> Value {
    let line = events.line().await.unwrap();
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"))
}

#[tokio::test]
async fn a_chunked_stream_is_a_line_for_each_event() {
    for way in Way::ALL {
        let gate = Gate::start_alone(CONFIG).await;
        let mut events = Events::open_with(way, &gate, "/comet/news", &[NDJSON]).await;
        assert_eq!(events.head.header("content-type"), Some("application/x-ndjson"));
        let first = line(&mut events).await;
        assert_eq!(first.as_object().unwrap().len(), 1, "{first}");
        gate.wait_for_held(1).await;
        let published = gate.publish_as("news", "application/json", "{\n\"a\":\r\n1}").await;
        let event = line(&mut events).await;
        assert_eq!((&event["data"], &event["id"]), (&json!({"a": 1}), &published["id"]));
        gate.publish("news", "two").await;
        let target =
            format!("/comet/news?transport=chunked&cursor={}", event["cursor"].as_str().unwrap());
        let mut again = Events::open_with(way, &gate, &target, &[]).await;
        assert_eq!(line(&mut again).await["cursor"], event["cursor"]);
        assert_eq!(line(&mut again).await, line(&mut events).await);
    }
}

#[tokio::test]
async fn a_chunked_stream_marks_gaps_and_gives_signs_of_life_and_ends() {
    let config = format!("{CONFIG}[stream]\nheartbeat = \"50ms\"\nmax = \"500ms\"\n");
    let gate = Gate::start_alone(&config).await;
    let target = "/comet/news?cursor=aaaaaa-1";
    gate.publish("news", "one").await;
    let mut events = Events::open_with(Way::Plain, &gate, target, &[NDJSON]).await;
    line(&mut events).await;
    let reset = line(&mut events).await;
    assert_eq!((&reset["reset"], &reset["channel"]), (&json!(true), &json!("news")));
    assert!(reset["cursor"].is_string());
    assert_eq!(line(&mut events).await["data"], "one");
    let mut signs = 0;
    while let Some(line) = events.line().await {
        assert_eq!(line, "");
        signs += 1;
    }
    assert!(signs >= 3, "{signs}");
}

#[tokio::test]
async fn bare_lines_are_json() {
    let gate = Gate::start_alone(CONFIG).await;
    let target = "/comet/news?format=data";
    let mut events = Events::open_with(Way::Plain, &gate, target, &[NDJSON]).await;
    line(&mut events).await;
    gate.publish("news", "two\nlines").await;
    assert_eq!(line(&mut events).await, "two\nlines");
    gate.publish_json("news", &json!([1])).await;
    assert_eq!(line(&mut events).await, json!([1]));
    gate.publish_as("news", "application/octet-stream", b"\xff").await;
    assert_eq!(line(&mut events).await, json!({"base64": "/w=="}));
}

#[tokio::test]
async fn http_1_0_gets_lines_to_the_end_of_its_connection() {
    let gate = Gate::start_alone(CONFIG).await;
    let mut client = Client::connect(gate.addr()).await;
    client.send_raw("GET /comet/news?transport=chunked HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.read_head().await.header("transfer-encoding"), None);
    client.read_until("\"}\n").await;
    gate.publish("news", "hello").await;
    let event = client.read_until("\"}\n").await;
    assert!(String::from_utf8(event).unwrap().contains("\"data\":\"hello\""));
}

#[tokio::test]
async fn an_iframe_calls_its_page_with_what_is_safe_in_html() {
    for way in Way::ALL {
        let gate = Gate::start_alone(CONFIG).await;
        let target = "/comet/news?transport=iframe&callback=page.on_news";
        let nonce = ("X-Csp-Nonce", "r4nd0m+/=");
        let mut events = Events::open_with(way, &gate, target, &[nonce]).await;
        let kind = events.head.header("content-type").unwrap();
        assert_eq!(kind.to_lowercase(), "text/html; charset=utf-8");
        assert_eq!(events.head.header("x-content-type-options"), Some("nosniff"));
        assert!(events.line().await.unwrap().len() > 1024);
        gate.wait_for_held(1).await;
        let evil = "</script><script>alert('\u{2028}')&\"";
        gate.publish("news", evil).await;
        let script = events.line().await.unwrap();
        let call = script.strip_prefix("<script nonce=\"r4nd0m+/=\">parent.page.on_news(");
        let call = call.and_then(|call| call.strip_suffix(")</script>"));
        let call = call.unwrap_or_else(|| panic!("{script}"));
        assert!(!call.contains(['<', '>', '&', '\u{2028}']), "{call}");
        let arguments: Value = serde_json::from_str(&format!("[{call}]")).unwrap();
        assert_eq!(arguments[0]["data"], evil);
        let target = format!("{target}&cursor={}", arguments[1].as_str().unwrap());
        gate.publish("news", "two").await;
        let mut again = Events::open_with(way, &gate, &target, &[]).await;
        again.line().await;
        assert!(again.line().await.unwrap().starts_with("<script>parent.page.on_news({"));
    }
}

#[tokio::test]
async fn an_iframe_loads_itself_again_at_its_end() {
    let config = format!("{CONFIG}[stream]\nmax = \"100ms\"\n");
    let gate = Gate::start_alone(&config).await;
    let target = "/comet/news?transport=iframe&callback=f";
    let mut events = Events::open_with(Way::Plain, &gate, target, &[]).await;
    events.line().await;
    let last = events.line().await.unwrap();
    assert!(last.starts_with("<script>setTimeout(") && last.contains("cursor="), "{last}");
    assert_eq!(events.line().await, None);
}

#[tokio::test]
async fn an_iframe_calls_nothing_but_one_name() {
    let gate = Gate::start_alone(CONFIG).await;
    for callback in ["", "&callback=", "&callback=alert(1)//", "&callback=a%22b", "&callback=a b"] {
        let response = gate
            .get(&format!("/comet/news?transport=iframe{}", callback.replace(' ', "%20")))
            .await;
        assert_eq!(response.status, 400, "{callback}");
    }
    let target = "/comet/news?transport=iframe&callback=f";
    let headers = [("X-Csp-Nonce", "\"><script>")];
    let mut events = Events::open_with(Way::Plain, &gate, target, &headers).await;
    events.line().await;
    gate.wait_for_held(1).await;
    gate.publish("news", "x").await;
    assert!(events.line().await.unwrap().starts_with("<script>parent.f("));
}

#[tokio::test]
async fn a_native_rule_with_a_callback_serves_jsonp() {
    let gate = Gate::start_alone(CONFIG).await;
    gate.publish("news", "</script>").await;
    let response = gate.get("/comet/news?cursor=oldest&callback=f").await;
    assert_eq!(response.header("content-type"), Some("text/javascript; charset=UTF-8"));
    assert!(response.text().starts_with("f({") && response.text().ends_with(");"));
    assert!(!response.text().contains('<'));
    assert_eq!(gate.get("/comet/news?cursor=oldest&callback=f(").await.status, 400);
}

#[tokio::test]
async fn load_is_answered_as_a_poll_is() {
    let gate = Gate::start_alone(&format!("{CONFIG}[hold]\nmax = 1\n")).await;
    let mut held = Events::open_with(Way::Plain, &gate, "/comet/news", &[NDJSON]).await;
    line(&mut held).await;
    let refused = gate.connect().await.request("GET", "/comet/news", &[NDJSON], b"").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
}
