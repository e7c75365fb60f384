//! A gate that is a Mercure hub, and its publishers and subscribers.

// Every test file compiles this module for itself and uses a part of it.
#![allow(dead_code)]

use crate::support::{Client, Events, FORM, Gate, Response, Way};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) const PATH: &str = "/.well-known/mercure";
pub(crate) const PUBLISHERS: &str = "a key that publishers sign with, long enough";
pub(crate) const SUBSCRIBERS: &str = "a key that subscribers sign with, long enough";

/// A hub with anonymous subscribers, and `more` keys.
pub(crate) fn config(more: &str) -> String {
    format!(
        "[mercure]\npublisher_key = \"{PUBLISHERS}\"\nsubscriber_key = \"{SUBSCRIBERS}\"\n\
         anonymous = true\n{more}\n"
    )
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A JSON Web Token, signed with HS256.
pub(crate) fn token(key: &str, claims: &Value) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let head = encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{head}.{}", encode(&claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
}

/// A token that may publish on `topics`.
pub(crate) fn publisher(topics: &[&str]) -> String {
    token(PUBLISHERS, &json!({ "mercure": { "publish": topics } }))
}

/// A token that may have the private updates on `topics`.
pub(crate) fn subscriber(topics: &[&str]) -> String {
    token(SUBSCRIBERS, &json!({ "mercure": { "subscribe": topics } }))
}

/// A form of these fields.
pub(crate) fn form(fields: &[(&str, &str)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// The hub's URL for a subscriber of `topics`.
pub(crate) fn target(topics: &[&str], more: &[(&str, &str)]) -> String {
    let topics = topics.iter().map(|topic| ("topic", *topic));
    let all: Vec<_> = topics.chain(more.iter().copied()).collect();
    format!("{PATH}?{}", form(&all))
}

/// Posts a form to the hub.
pub(crate) async fn post(
    gate: &Gate,
    query: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response {
    let kind = [("Content-Type", FORM)];
    let has_kind = headers.iter().any(|(name, _)| *name == "Content-Type");
    let headers = [if has_kind { &[][..] } else { &kind[..] }, headers].concat();
    let target = format!("{PATH}{query}");
    Client::connect(gate.addr()).await.request("POST", &target, &headers, body.as_bytes()).await
}

/// Publishes an update with a token for every topic; what the hub answers is its id.
pub(crate) async fn publish(gate: &Gate, fields: &[(&str, &str)]) -> String {
    let bearer = format!("Bearer {}", publisher(&["*"]));
    let response = post(gate, "", &[("Authorization", &bearer)], &form(fields)).await;
    assert_eq!(response.status, 200, "{fields:?}: {}", response.text());
    response.text()
}

/// Opens a subscriber's stream.
pub(crate) async fn subscribe(
    gate: &Gate,
    way: Way,
    target: &str,
    headers: &[(&str, &str)],
) -> Events {
    let headers = [&[("Accept", "text/event-stream")][..], headers].concat();
    let events = Events::open_with(way, gate, target, &headers).await;
    assert_eq!(events.head.status, 200, "{target}");
    events
}
