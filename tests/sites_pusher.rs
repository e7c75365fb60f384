//! The Pusher protocol where there are several sites: each has apps of its own, and no client or
//! publisher of one reaches another's, whatever keys and channels they have in common.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::http::Client;
use support::pusher::{Echo, KEY, SECRET, TARGET, data, frames, rest};
use support::{Gate, PlainSite, Socket, eventually, pollgate};

/// A site whose app has its name as id. Key and secret are the same for all: nothing keeps two
/// operators from the same ones.
fn site(name: &str, upstream: &PlainSite, more: &str) -> String {
    format!(
        "[[site]]\nname = \"{name}\"\nhosts = [\"{name}.example\"]\n[site.upstream]\n\
         servers = [\"{}\"]\n[site.publish]\ntoken = \"{name}-token\"\n[[site.pusher]]\n\
         id = \"{name}\"\nkey = \"{KEY}\"\nsecret = \"{SECRET}\"\nclient_events = true\n\
         webhook = \"/pusher/hook\"\n{more}\n",
        upstream.addr()
    )
}

struct Two {
    shop: PlainSite,
    blog: PlainSite,
    gate: Gate,
}

async fn two(of_shop: &str) -> Two {
    let shop = PlainSite::named("shop").await;
    let blog = PlainSite::named("blog").await;
    let config = format!(
        "[publish]\ntoken = \"t\"\n{}{}",
        site("shop", &shop, of_shop),
        site("blog", &blog, "")
    );
    let gate = Gate::with(&config).token("t").start().await;
    Two { shop, blog, gate }
}

async fn connect(gate: &Gate, site: &str) -> Echo {
    let mut client = gate.connect().await;
    client.names(&format!("{site}.example"));
    let mut socket = Socket::over(client, TARGET, &[]).await;
    let first = socket.json().await;
    assert_eq!(first["event"], "pusher:connection_established", "{first}");
    let id = data(&first)["socket_id"].as_str().unwrap().to_owned();
    Echo { socket, id }
}

async fn trigger(gate: &Gate, app: &str, channel: &str, text: &str) {
    let body = json!({ "name": "E", "data": text, "channels": [channel] });
    let answer = rest(gate, "POST", &format!("/apps/{app}/events"), &[], &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn get(gate: &Gate, app: &str, path: &str, query: &[(&str, &str)]) -> Value {
    rest(gate, "GET", &format!("/apps/{app}/{path}"), query, &Value::Null).await.json()
}

async fn hook(gate: &Gate, site: &str, channel: &str, body: &Value) -> Value {
    let bearer = format!("Bearer {site}-token");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let mut client = Client::connect(gate.internal()).await;
    let path = format!("/channels/{channel}");
    client.request("POST", &path, &headers, body.to_string().as_bytes()).await.json()
}

#[tokio::test]
async fn events_of_one_site_s_app_are_not_another_s() {
    let two = two("").await;
    let gate = &two.gate;
    let mut shop = connect(gate, "shop").await;
    let mut blog = connect(gate, "blog").await;
    for echo in [&mut shop, &mut blog] {
        echo.subscribe("orders").await;
        echo.subscribe("private-orders").await;
    }
    for channel in ["orders", "private-orders"] {
        trigger(gate, "shop", channel, "\"of the shop\"").await;
        assert_eq!(data(&shop.next().await), "of the shop", "{channel}");
        blog.is_alive().await;
        trigger(gate, "blog", channel, "\"of the blog\"").await;
        assert_eq!(data(&blog.next().await), "of the blog", "{channel}");
        shop.is_alive().await;
    }
    // The hook of a site reaches its app alone, also where it writes another's id.
    let event = json!({ "event": "E", "data": "by the hook" });
    assert_eq!(hook(gate, "shop", "shop%2Forders", &event).await["released"], 1);
    assert_eq!(shop.next().await["data"], "by the hook");
    assert_eq!(hook(gate, "blog", "shop%2Forders", &event).await["released"], 0);
    shop.is_alive().await;
    blog.is_alive().await;
    // What a client sends stays at its site.
    let whisper = json!({ "event": "client-typing", "channel": "private-orders", "data": {} });
    let mut other = connect(gate, "shop").await;
    other.subscribe("private-orders").await;
    other.send(&whisper).await;
    assert_eq!(shop.next().await["event"], "client-typing");
    blog.is_alive().await;
}

#[tokio::test]
async fn who_is_on_a_presence_channel_is_seen_at_its_site_alone() {
    let two = two("").await;
    let gate = &two.gate;
    let mut shop = connect(gate, "shop").await;
    let mut blog = connect(gate, "blog").await;
    assert_eq!(shop.join("presence-room", "7").await["presence"]["ids"], json!(["7"]));
    assert_eq!(blog.join("presence-room", "8").await["presence"]["ids"], json!(["8"]));
    shop.is_alive().await;
    let mut third = connect(gate, "blog").await;
    assert_eq!(third.join("presence-room", "9").await["presence"]["ids"], json!(["8", "9"]));
    assert_eq!(blog.next().await["event"], "pusher_internal:member_added");
    shop.is_alive().await;
    let users =
        async |app| get(gate, app, "channels/presence-room/users", &[]).await["users"].clone();
    assert_eq!(users("shop").await, json!([{ "id": "7" }]));
    assert_eq!(users("blog").await, json!([{ "id": "8" }, { "id": "9" }]));
    let all = [("filter_by_prefix", "presence-"), ("info", "user_count")];
    let listed = get(gate, "shop", "channels", &all).await;
    assert_eq!(listed["channels"], json!({ "presence-room": { "user_count": 1 } }));
    let count = async |app| get(gate, app, "connections", &[]).await["connections"].clone();
    assert_eq!((count("shop").await, count("blog").await), (json!(1), json!(2)));
}

#[tokio::test]
async fn a_session_of_the_fallbacks_is_not_found_at_another_site() {
    let two = two("").await;
    let post = async |host: &str, what: &str, body: &str| {
        let mut client = two.gate.connect().await;
        client.names(&format!("{host}.example"));
        let path = format!("/pusher/app/{KEY}/1/same/{what}?protocol=7&client=js&version=8.6.0");
        client.post(&path, "application/json", body).await
    };
    assert_eq!(post("shop", "xhr", "").await.text(), "o{}\n");
    let first = frames(&post("shop", "xhr", "").await.text());
    assert_eq!(first[0]["event"], "pusher:connection_established");
    // Nothing can be sent in its name, and a poll begins another one.
    assert_eq!(post("blog", "xhr_send", "[\"{}\"]").await.status, 404);
    assert_eq!(post("blog", "xhr", "").await.text(), "o{}\n");
    assert_eq!(
        post("shop", "xhr_send", "[\"{\\\"event\\\":\\\"pusher:ping\\\"}\"]").await.status,
        204
    );
    assert_eq!(frames(&post("shop", "xhr", "").await.text())[0]["event"], "pusher:pong");
}

#[tokio::test]
async fn an_app_s_webhooks_go_to_its_site() {
    let two = two("").await;
    let mut shop = connect(&two.gate, "shop").await;
    shop.subscribe("orders").await;
    two.shop.wait_for_requests(1).await;
    let request = two.shop.last();
    assert_eq!(request.line(), "POST /pusher/hook");
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["events"], json!([{ "name": "channel_occupied", "channel": "orders" }]));
    let mut blog = connect(&two.gate, "blog").await;
    blog.subscribe("news").await;
    two.blog.wait_for_requests(1).await;
    let body: Value = serde_json::from_slice(&two.blog.last().body).unwrap();
    assert_eq!(body["events"], json!([{ "name": "channel_occupied", "channel": "news" }]));
    assert_eq!((two.shop.requests().len(), two.blog.requests().len()), (1, 1));
}

#[tokio::test]
async fn the_limits_of_a_site_count_its_connections() {
    let two = two("[site.hold]\nmax = 1\n[site.limits]\nchannels_per_poll = 2").await;
    let mut first = connect(&two.gate, "shop").await;
    first.subscribe("a").await;
    first.subscribe("b").await;
    let refused = first.ask("c", json!({})).await;
    assert_eq!(refused["event"], "pusher:subscription_error", "{refused}");
    let mut client = two.gate.connect().await;
    client.names("shop.example");
    let mut second = Socket::over(client, TARGET, &[]).await;
    assert_eq!(second.json().await["data"]["code"], 4100);
    let mut blog = connect(&two.gate, "blog").await;
    for channel in ["a", "b", "c"] {
        blog.subscribe(channel).await;
    }
    drop(first);
    eventually("room at the shop", async || {
        let mut client = two.gate.connect().await;
        client.names("shop.example");
        Socket::over(client, TARGET, &[]).await.json().await["data"]["code"] != 4100
    })
    .await;
}

#[tokio::test]
async fn an_app_that_a_reload_takes_from_its_site_ends_its_connections_and_no_other() {
    let two = two("").await;
    let mut shop = connect(&two.gate, "shop").await;
    let mut blog = connect(&two.gate, "blog").await;
    let blog_only = format!("[publish]\ntoken = \"t\"\n{}", site("blog", &two.blog, ""));
    two.gate.write_config(&blog_only);
    assert_eq!(two.gate.reload().await.status, 200);
    shop.send(&json!({ "event": "pusher:ping", "data": {} })).await;
    let (error, code) = shop.closed().await;
    assert_eq!(code, 4003, "{error}");
    blog.is_alive().await;
}

#[tokio::test]
async fn ids_are_for_one_app_of_the_gate_and_apps_belong_to_a_site() {
    let shop = PlainSite::named("shop").await;
    let blog = PlainSite::named("blog").await;
    let shop = site("shop", &shop, "");
    let blog = site("blog", &blog, "");
    let gate = Gate::with("").start().await;
    for (config, mistake) in [
        (shop.clone() + &blog.replace("id = \"blog\"", "id = \"shop\""), "site[1].pusher[0].id"),
        (
            shop.clone() + "[[site.pusher]]\nid = \"b\"\nkey = \"app-key\"\nsecret = \"x\"\n",
            "site[0].pusher[1].key",
        ),
        (
            "[[pusher]]\nid = \"b\"\nkey = \"k\"\nsecret = \"x\"\n".to_owned() + &shop,
            "pusher: belongs",
        ),
    ] {
        gate.write_config(&format!("[publish]\ntoken = \"t\"\n{config}"));
        let file = gate.config_file().display().to_string();
        let checked = pollgate(&["check", "--config", &file]).await;
        assert_eq!(checked.code, 2, "{mistake}");
        let told = format!("{}{}", checked.stdout, checked.stderr);
        assert!(told.contains(mistake), "{mistake}: {told}");
    }
}
