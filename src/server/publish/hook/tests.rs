#![allow(clippy::unwrap_used)]
use super::*;
use crate::hub::channel::Take;
use crate::hub::channel::{Cursor, Time};
use crate::hub::{self, Hub, Subscription};
use crate::server::publish::Settings;
use arc_swap::ArcSwap;
use http::HeaderValue;
use serde_json::{Value, json};

fn hook_with(settings: hub::Settings) -> Hook {
    let hub = Hub::new(settings, 1);
    let settings =
        Arc::new(ArcSwap::from_pointee(Settings { max_message: 1_000, ..Settings::default() }));
    let clock = Arc::new(|| Time(1_700_000_000_123_456));
    let publisher =
        Publisher::new(hub.clone(), None, clock, settings, Arc::default(), Arc::default());
    let history: History = Arc::new(move |channel, cursor| {
        let subscription = Subscription { channel: channel.clone(), cursor: Cursor::Oldest };
        let update = hub.read(&subscription, Take::All, Time(0))?;
        Some(Reply::json(200, &json!([update.found.messages.len(), cursor])))
    });
    Hook::new(publisher, history, IdempotencyCache::default())
}

fn hook() -> Hook {
    hook_with(hub::Settings::default())
}

struct Asked {
    reply: Reply,
}

impl Asked {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.reply.body).unwrap()
    }
}

async fn ask(
    hook: &Hook,
    method: Method,
    target: &str,
    headers: &[(&'static str, &'static str)],
    body: impl Into<bytes::Bytes>,
) -> Asked {
    let mut request = Request::new(method, target);
    for (name, value) in headers {
        request.headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    request.body = body.into();
    assert!(hook.owns(&request.path), "{target}");
    let reply = hook.answer(&request).await;
    if reply.status >= 300 {
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        assert!(!body["error"].as_str().unwrap().is_empty(), "{body}");
        assert!(!body["hint"].as_str().unwrap().is_empty(), "{body}");
    }
    Asked { reply }
}

async fn get(hook: &Hook, target: &str) -> Asked {
    ask(hook, Method::GET, target, &[], "").await
}

async fn post(hook: &Hook, target: &str, body: &'static str) -> Asked {
    ask(hook, Method::POST, target, &[], body).await
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_publish_answers_with_position_stamp_and_released() {
    let hook = hook();
    let asked = post(&hook, "/channels/live", "hi").await;
    let id = asked.json()["id"].as_str().unwrap().to_owned();
    let expected =
        format!(r#"{{"channel":"live","id":"{id}","stamp":1700000000.123456,"released":0}}"#);
    assert_eq!((asked.reply.status, &*asked.reply.body), (200, expected.as_bytes()));
    assert!(id.ends_with("-1"));
}

#[tokio::test]
async fn several_channels_are_answered_with_an_array() {
    let hook = hook();
    let body = r#"{"channels":["a","b"],"data":1}"#;
    let asked = ask(&hook, Method::POST, "/publish", &[JSON], body).await;
    let channels: Vec<_> =
        asked.json().as_array().unwrap().iter().map(|r| r["channel"].clone()).collect();
    assert_eq!(channels, ["a", "b"]);
    let one = ask(&hook, Method::POST, "/publish", &[JSON], r#"[{"channel":"a"}]"#).await;
    assert_eq!(one.json().as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_name_in_a_path_is_decoded_strictly() {
    let hook = hook();
    let asked = post(&hook, "/channels/r%C3%A4ume%2F1,%202", "x").await;
    assert_eq!(asked.json()["channel"], "räume/1, 2");
    for bad in [
        "/channels/",
        "/channels/a%",
        "/channels/a%4",
        "/channels/%zz",
        "/channels/%00",
        "/channels/a%0A",
        "/channels/%FF",
        "/channels//messages",
    ] {
        assert_eq!(post(&hook, bad, "x").await.reply.status, 400, "{bad}");
    }
    let long = format!("/channels/{}", "x".repeat(256));
    assert_eq!(post(&hook, &long, "x").await.reply.status, 400);
    assert_eq!(post(&hook, "/channels/a/b", "x").await.reply.status, 404);
    assert_eq!(hook.publisher.hub().channels(), 1);
}

#[tokio::test]
async fn a_message_that_cannot_be_is_refused_and_nothing_is_published() {
    let hook = hook();
    let plain = ("content-type", "text/pl\u{e4}in");
    for (headers, body, status) in [
        (vec![JSON], "{\"a\":".to_owned(), 422),
        (vec![JSON], String::new(), 422),
        (vec![JSON], "[".repeat(900), 422),
        (vec![plain], "x".to_owned(), 400),
        (vec![], "x".repeat(1_001), 413),
    ] {
        let asked = ask(&hook, Method::POST, "/channels/a", &headers, body).await;
        assert_eq!(asked.reply.status, status);
    }
    let asked = ask(&hook, Method::POST, "/channels/a", &[JSON], b"\"\xff\"".to_vec()).await;
    assert_eq!(asked.reply.status, 422);
    let batch = format!(r#"[{{"channel":"a"}},{{"channel":"b","data":"{}"}}]"#, "x".repeat(1_001));
    assert_eq!(ask(&hook, Method::POST, "/publish", &[JSON], batch).await.reply.status, 413);
    assert_eq!(hook.publisher.hub().channels(), 0);
}

#[tokio::test]
async fn polls_never_keep_a_publish_out() {
    let hook = hook_with(hub::Settings { channels: 1, ..hub::Settings::default() });
    let busy = Subscription { channel: ChannelName::new("busy").unwrap(), cursor: Cursor::Now };
    let _held = hook.publisher.hub().poll(&[busy], Take::All, true, Time(0)).unwrap();
    assert_eq!(post(&hook, "/channels/new", "x").await.reply.status, 200);
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let hook = hook();
    for (method, path, allow) in [
        (Method::GET, "/publish", "POST"),
        (Method::POST, "/channels", "GET, HEAD"),
        (Method::PUT, "/channels/a", "GET, HEAD, POST, DELETE"),
        (Method::POST, "/channels/a/messages", "GET, HEAD"),
        (Method::OPTIONS, "/publish", "POST"),
    ] {
        let asked = ask(&hook, method, path, &[], "").await;
        assert_eq!(asked.reply.status, 405, "{path}");
        assert_eq!(asked.reply.headers, [("Allow".into(), allow.into())]);
    }
}

#[tokio::test]
async fn channels_are_listed_a_page_at_a_time() {
    let hook = hook();
    for name in ["/channels/a", "/channels/b", "/channels/c"] {
        post(&hook, name, "hello").await;
    }
    let page = get(&hook, "/channels?limit=2").await.json();
    assert_eq!(page["next"], "b");
    assert_eq!(page["channels"][0]["channel"], "a");
    assert_eq!(page["channels"][0]["bytes"], 5);
    let rest = get(&hook, "/channels?limit=2&after=b").await.json();
    assert_eq!(rest["channels"].as_array().unwrap().len(), 1);
    assert!(rest.get("next").is_none());
    for bad in ["0", "1001", "-1", "x", ""] {
        let asked = get(&hook, &format!("/channels?limit={bad}")).await;
        assert_eq!(asked.reply.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_channel_is_described_read_and_forgotten() {
    let hook = hook();
    assert_eq!(get(&hook, "/channels/a").await.reply.status, 404);
    assert_eq!(get(&hook, "/channels/a/messages").await.json(), json!([0, null]));
    assert_eq!(ask(&hook, Method::DELETE, "/channels/a", &[], "").await.reply.status, 404);
    let first = post(&hook, "/channels/a", "1").await.json();
    let second = post(&hook, "/channels/a", "2").await.json();
    let info = get(&hook, "/channels/a").await.json();
    assert_eq!((&info["held"], &info["kept"]), (&json!(0), &json!(2)));
    assert_eq!(info["newest"], json!({ "id": second["id"], "stamp": second["stamp"] }));
    assert_eq!(info["oldest"], json!({ "id": first["id"], "stamp": first["stamp"] }));
    assert!(first["id"].as_str().unwrap().starts_with(info["epoch"].as_str().unwrap()));
    assert_eq!(get(&hook, "/channels/a/messages").await.json(), json!([2, null]));
    assert_eq!(get(&hook, "/channels/a/messages?cursor=x%2Dy").await.json(), json!([2, "x-y"]));
    let forgotten = ask(&hook, Method::DELETE, "/channels/a", &[], "").await;
    assert_eq!(forgotten.json(), json!({ "channel": "a", "released": 0 }));
    assert_eq!(get(&hook, "/channels/a").await.reply.status, 404);
}

#[tokio::test]
async fn an_idempotency_key_publishes_once() {
    let hook = hook();
    let key = [("idempotency-key", "k1")];
    let first = ask(&hook, Method::POST, "/channels/a", &key, "x").await.reply;
    assert_eq!(ask(&hook, Method::POST, "/channels/a", &key, "x").await.reply, first);
    assert_eq!(ask(&hook, Method::POST, "/channels/a", &key, "y").await.reply.status, 422);
    assert_eq!(get(&hook, "/channels/a").await.json()["kept"], 1);
    assert_eq!(ask(&hook, Method::POST, "/channels/b", &key, "y").await.reply.status, 200);
    for bad in ["", "k\u{e4}"] {
        let headers = [("idempotency-key", bad)];
        let asked = ask(&hook, Method::POST, "/channels/a", &headers, "x").await;
        assert_eq!(asked.reply.status, 400, "{bad:?}");
    }
}
