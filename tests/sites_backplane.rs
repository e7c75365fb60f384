//! Sites of several gates over one Redis: the keys bear the site's name, and nothing of one site
//! reaches another.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// What only the other tests of the backplane use.
#![allow(dead_code)]

mod backplane {
    pub(crate) mod crowd;
    pub(crate) mod gates;
    pub(crate) mod redis;
}
mod support;

use backplane::gates::wait_for_backplane;
use backplane::redis::Redis;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use support::{Client, Gate, PlainSite, Response, eventually};

fn site(name: &str, host: &str) -> String {
    format!(
        "[[site]]\nname = \"{name}\"\nhosts = [\"{host}\"]\n[site.upstream]\n\
         servers = [\"127.0.0.1:1\"]\n[site.publish]\ntoken = \"{name}-token\"\n"
    )
}

fn config(redis: &str, sites: &[&str]) -> String {
    let sites: String = sites.iter().map(|name| site(name, &format!("{name}.example"))).collect();
    format!(
        "[backplane]\nredis = \"{redis}\"\n[hold]\njitter = \"0%\"\n[publish]\ntoken = \"t\"\n{sites}"
    )
}

async fn gate(redis: &Redis, sites: &[&str]) -> Gate {
    let gate = Gate::with(&config(&redis.url(), sites)).token("t").start().await;
    wait_for_backplane(&gate).await;
    gate
}

async fn hook(gate: &Gate, site: &str, method: &str, path: &str, body: &str) -> Response {
    let bearer = format!("Bearer {site}-token");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "text/plain")];
    let mut client = Client::connect(gate.internal()).await;
    client.request(method, path, &headers, body.as_bytes()).await
}

async fn hold(gate: &Gate, site: &str) -> Client {
    let mut client = gate.connect().await;
    client.names(&format!("{site}.example"));
    // Answered once the gate has joined the channel.
    client.get("/comet/news?timeout=0").await;
    let held = gate.held().await;
    client.send_get("/comet/news").await;
    gate.wait_for_held(held + 1).await;
    client
}

#[tokio::test]
async fn a_publish_at_one_gate_releases_the_polls_of_its_site_at_another() {
    let redis = Redis::start().await;
    let sites = ["shop", "blog"];
    let a = gate(&redis, &sites).await;
    let b = gate(&redis, &sites).await;
    let mut shop = hold(&a, "shop").await;
    let mut blog = hold(&a, "blog").await;
    assert_eq!(hook(&b, "shop", "POST", "/channels/news", "of the shop").await.status, 200);
    let answer = shop.read_response().await.json();
    assert_eq!(answer["messages"][0]["data"], "of the shop");
    assert_eq!(answer["messages"][0]["channel"], "news");
    assert!(blog.is_quiet().await);
    assert_eq!(hook(&b, "blog", "POST", "/channels/news", "of the blog").await.status, 200);
    assert_eq!(blog.read_response().await.json()["messages"][0]["data"], "of the blog");
    for (site, own, other) in
        [("shop", "of the shop", "of the blog"), ("blog", "of the blog", "of the shop")]
    {
        let history = hook(&b, site, "GET", "/channels/news/messages", "").await.text();
        assert!(history.contains(own) && !history.contains(other), "{history}");
    }
    let keys = redis.ask(&["KEYS", "pg*:s:news"]);
    let mut sites: Vec<&str> =
        keys.lines().filter_map(|key| Some(key.trim().split_once(':')?.0)).collect();
    sites.sort_unstable();
    assert_eq!(sites, ["pg/blog", "pg/shop"]);
}

#[tokio::test]
async fn forgetting_a_channel_of_one_site_leaves_the_other_ones() {
    let redis = Redis::start().await;
    let a = gate(&redis, &["shop", "blog"]).await;
    let b = gate(&redis, &["shop", "blog"]).await;
    for site in ["shop", "blog"] {
        assert_eq!(hook(&a, site, "POST", "/channels/news", "x").await.status, 200);
    }
    let mut blog = hold(&b, "blog").await;
    assert_eq!(hook(&a, "shop", "DELETE", "/channels/news", "").await.status, 200);
    assert!(blog.is_quiet().await);
    assert_eq!(hook(&b, "blog", "GET", "/channels/news", "").await.json()["kept"], 1);
    // A repetition of one site's key is not the other one's.
    let mut internal = Client::connect(a.internal()).await;
    for (site, kept) in [("shop", 1), ("shop", 1), ("blog", 2)] {
        let bearer = format!("Bearer {site}-token");
        let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", "k")];
        let response = internal.request("POST", "/channels/news", &headers, b"y").await;
        assert_eq!(response.status, 200, "{}", response.text());
        eventually("the message is kept", async || {
            hook(&b, site, "GET", "/channels/news", "").await.json()["kept"] == kept
        })
        .await;
    }
}

#[tokio::test]
async fn a_gate_without_sites_uses_the_keys_of_before_and_meets_none_of_them() {
    let redis = Redis::start().await;
    let site = PlainSite::start().await;
    let plain = format!("[backplane]\nredis = \"{}\"\n", redis.url());
    let plain = Gate::start_before(site.addr(), &plain).await;
    wait_for_backplane(&plain).await;
    let with_sites = gate(&redis, &["shop"]).await;
    let mut poll = plain.connect().await;
    poll.get("/comet/news?timeout=0").await;
    poll.send_get("/comet/news").await;
    plain.wait_for_held(1).await;
    assert_eq!(hook(&with_sites, "shop", "POST", "/channels/news", "x").await.status, 200);
    assert!(poll.is_quiet().await);
    plain.publish("news", "plain").await;
    assert_eq!(poll.read_response().await.json()["messages"][0]["data"], "plain");
    let keys = redis.ask(&["KEYS", "pg:*:s:news"]);
    let keys: Vec<&str> = keys.lines().filter(|key| !key.trim().is_empty()).collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
}

/// A site whose channels `room*` have presence, seen by all who poll.
fn with_presence(name: &str) -> String {
    site(name, &format!("{name}.example"))
        + "[[site.channel]]\nmatch = \"room*\"\npresence = true\ngrace = \"1h\"\n\
           [[site.poll]]\npath = \"/comet/*\"\ndialect = \"native\"\n\
           auth = { kind = \"jwt\", key = \"jwt secret\" }\n"
}

/// A poll of `user`, held at a gate.
async fn enter(gate: &Gate, site: &str, user: &str) -> Client {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims = serde_json::json!({"channels": ["*"], "sub": user}).to_string();
    let signed = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(&claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"jwt secret");
    let tag = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes()));
    let mut client = gate.connect().await;
    client.names(&format!("{site}.example"));
    let held = gate.held().await;
    client.send_get(&format!("/comet/room?token={signed}.{tag}")).await;
    gate.wait_for_held(held + 1).await;
    client
}

async fn users(gate: &Gate, site: &str) -> Vec<String> {
    let list = hook(gate, site, "GET", "/channels/room/presence", "").await.json();
    let members = list["members"].as_array().cloned().unwrap_or_default();
    members.iter().map(|one| one["user"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_users_of_a_site_are_those_of_all_gates_and_go_with_a_gate_that_dies() {
    let redis = Redis::start().await;
    let lease = "lease = \"2s\"\n[hold]";
    let sites: String = ["shop", "blog"].iter().map(|name| with_presence(name)).collect();
    let config = config(&redis.url(), &[]).replace("[hold]", lease) + &sites;
    let a = Gate::with(&config).token("t").start().await;
    let b = Gate::with(&config).token("t").start().await;
    wait_for_backplane(&a).await;
    wait_for_backplane(&b).await;
    let _held = (enter(&a, "shop", "7").await, enter(&b, "shop", "8").await);
    let _other = (enter(&a, "blog", "7").await, enter(&b, "blog", "9").await);
    for gate in [&a, &b] {
        for (site, all) in [("shop", ["7", "8"]), ("blog", ["7", "9"])] {
            eventually("all users of the site", async || {
                let mut users = users(gate, site).await;
                users.sort();
                users == all
            })
            .await;
        }
    }
    b.kill();
    eventually("the users of the gate that died are gone", async || {
        users(&a, "shop").await == ["7"] && users(&a, "blog").await == ["7"]
    })
    .await;
    for site in ["shop", "blog"] {
        let events = hook(&a, site, "GET", "/channels/presence%3Aroom/messages", "").await.text();
        assert_eq!(events.matches("\"leave\"").count(), 1, "{events}");
    }
}
