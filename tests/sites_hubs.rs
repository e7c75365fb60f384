//! Mercure hubs, Nchan's publishers and GRIP where there are several sites: what is published at one
//! is seen by its own subscribers alone.

#![allow(clippy::unwrap_used, clippy::panic)]

mod mercure {
    pub(crate) mod hub;
}
mod support;

use mercure::hub::{PATH, config, form, publisher, subscribe, subscriber, target};
use serde_json::{Value, json};
use support::grip::{GripSite, instruct};
use support::http::{FORM, Response};
use support::{Client, Events, Gate, PlainSite, Way, eventually, pollgate};

fn site(name: &str, upstream: &PlainSite, more: &str) -> String {
    format!(
        "[[site]]\nname = \"{name}\"\nhosts = [\"{name}.example\"]\n[site.upstream]\n\
         servers = [\"{}\"]\n[site.publish]\ntoken = \"{name}-token\"\n{more}\n",
        upstream.addr()
    )
}

/// A hub with the same keys at each site: a token of one is as good at the other.
fn hub(more: &str) -> String {
    config(more).replace("[mercure]", "[site.mercure]")
}

const NCHAN: &str = "[[site.nchan]]\npath = \"/pub/*\"\n[[site.poll]]\npath = \"/sub/*\"\n\
                     dialect = \"nchan\"\n";

/// The gate, and the upstream of both sites.
async fn two(shop: &str, blog: &str) -> (Gate, PlainSite) {
    let upstream = PlainSite::start().await;
    let sites = site("shop", &upstream, shop) + &site("blog", &upstream, blog);
    let config = format!("[publish]\ntoken = \"t\"\n{sites}");
    (Gate::with(&config).token("t").start().await, upstream)
}

/// An update on the public side of a site.
async fn update(gate: &Gate, site: &str, fields: &[(&str, &str)]) -> Response {
    let mut client = gate.connect().await;
    client.names(&format!("{site}.example"));
    let bearer = format!("Bearer {}", publisher(&["*"]));
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", FORM)];
    client.request("POST", PATH, &headers, form(fields).as_bytes()).await
}

/// A request to the internal side.
async fn internal(gate: &Gate, bearer: &str, method: &str, path: &str, body: &str) -> Response {
    let bearer = format!("Bearer {bearer}");
    let kind = if path.ends_with("mercure") { FORM } else { "text/plain" };
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", kind)];
    let mut client = Client::connect(gate.internal()).await;
    client.request(method, path, &headers, body.as_bytes()).await
}

async fn watch(gate: &Gate, way: Way, site: &str, more: &[(&str, &str)]) -> Events {
    let (host, bearer) = (format!("{site}.example"), format!("Bearer {}", subscriber(&["*"])));
    let headers = [("Host", host.as_str()), ("Authorization", bearer.as_str())];
    subscribe(gate, way, &target(&["*"], more), &headers).await
}

#[tokio::test]
async fn an_update_at_one_site_s_hub_is_not_seen_at_another() {
    for way in [Way::Plain, Way::Odd] {
        let (gate, _upstream) = two(&hub(""), &hub("")).await;
        let mut shop = watch(&gate, way, "shop", &[]).await;
        let mut blog = watch(&gate, way, "blog", &[]).await;
        gate.wait_for_held(2).await;
        for private in ["", "on"] {
            let private: &[(&str, &str)] =
                if private.is_empty() { &[] } else { &[("private", "on")] };
            for (site, text) in [("shop", "of the shop"), ("blog", "of the blog")] {
                let fields =
                    [&[("topic", "https://a.example/1"), ("data", text)], private].concat();
                assert_eq!(update(&gate, site, &fields).await.status, 200);
            }
            // Each gets its own and nothing before it.
            assert_eq!(shop.next().await.data, "of the shop");
            assert_eq!(blog.next().await.data, "of the blog");
        }
        let mut late = watch(&gate, way, "blog", &[("lastEventID", "earliest")]).await;
        assert_eq!(late.next().await.data, "of the blog");
        assert_eq!(late.next().await.data, "of the blog");
    }
}

#[tokio::test]
async fn on_the_internal_side_a_site_s_token_or_the_path_names_the_hub() {
    let (gate, _upstream) = two(&hub("mirror = true"), &hub("")).await;
    let mut shop = watch(&gate, Way::Plain, "shop", &[]).await;
    let mut blog = watch(&gate, Way::Plain, "blog", &[]).await;
    gate.wait_for_held(2).await;
    let of = |data: &str| form(&[("topic", "news"), ("data", data)]);
    let jwt = publisher(&["*"]);
    let below = |site: &str| format!("/sites/{site}{PATH}");
    for (bearer, path, data) in [
        ("shop-token", PATH.to_owned(), "by the site's token"),
        ("shop-token", below("shop"), "by both"),
        ("t", below("shop"), "by the gate's token"),
        (&jwt, below("shop"), "by a publisher's token"),
    ] {
        let answer = internal(&gate, bearer, "POST", &path, &of(data)).await;
        assert_eq!(answer.status, 200, "{data}: {}", answer.text());
        assert_eq!(shop.next().await.data, data);
    }
    for (bearer, path, status) in [
        ("t", PATH.to_owned(), 404),
        (&jwt, PATH.to_owned(), 404),
        ("blog-token", below("shop"), 403),
        ("nobody's", below("shop"), 401),
        (&jwt, below("other"), 404),
    ] {
        let answer = internal(&gate, bearer, "POST", &path, &of("refused")).await;
        assert_eq!(answer.status, status, "{bearer} {path}: {}", answer.text());
    }
    assert_eq!(internal(&gate, "blog-token", "POST", PATH, &of("of the blog")).await.status, 200);
    assert_eq!(blog.next().await.data, "of the blog");
    // A mirror is the site's, too.
    let channel = async |token| internal(&gate, token, "GET", "/channels/news/messages", "").await;
    assert_eq!(channel("shop-token").await.json()["messages"].as_array().unwrap().len(), 4);
    assert_eq!(channel("blog-token").await.json()["messages"], json!([]));
}

#[tokio::test]
async fn subscriptions_are_listed_at_their_site_alone() {
    let (gate, _upstream) = two(&hub("subscriptions = true"), &hub("subscriptions = true")).await;
    let mut shop = watch(&gate, Way::Plain, "shop", &[]).await;
    let _blog = watch(&gate, Way::Plain, "blog", &[]).await;
    gate.wait_for_held(2).await;
    let list = async |site: &str| {
        let mut client = gate.connect().await;
        client.names(&format!("{site}.example"));
        let bearer = format!("Bearer {}", subscriber(&["*"]));
        let path = format!("{PATH}/subscriptions");
        let answer = client.request("GET", &path, &[("Authorization", &bearer)], b"").await;
        answer.json()["subscriptions"].as_array().cloned().unwrap_or_default()
    };
    assert_eq!((list("shop").await.len(), list("blog").await.len()), (1, 1));
    // What the shop's subscriber saw is its own coming; the next is another one of the shop.
    let first: Value = serde_json::from_str(&shop.next().await.data).unwrap();
    assert_eq!(first["active"], true);
    let _other_blog = watch(&gate, Way::Plain, "blog", &[]).await;
    gate.wait_for_held(3).await;
    let _other_shop = watch(&gate, Way::Plain, "shop", &[]).await;
    let second: Value = serde_json::from_str(&shop.next().await.data).unwrap();
    let listed = list("shop").await;
    assert!(listed.iter().any(|one| one["id"] == second["id"]), "{second} {listed:?}");
}

#[tokio::test]
async fn a_site_without_a_hub_has_none_though_another_has() {
    let (gate, _upstream) = two(&hub(""), "").await;
    let mut client = gate.connect().await;
    client.names("blog.example");
    let answer = client.get(&target(&["*"], &[])).await;
    assert!(answer.text().starts_with("site: GET"), "the upstream's: {}", answer.text());
    let below = format!("/sites/blog{PATH}");
    let body = form(&[("topic", "news"), ("data", "x")]);
    assert_eq!(internal(&gate, "blog-token", "POST", &below, &body).await.status, 404);
}

#[tokio::test]
async fn nchan_s_publishers_reach_the_channels_of_their_site() {
    let (gate, _upstream) = two(NCHAN, NCHAN).await;
    let hold = async |site: &str| {
        let held = gate.held().await;
        let mut client = gate.connect().await;
        client.names(&format!("{site}.example"));
        client.send_get("/sub/news").await;
        gate.wait_for_held(held + 1).await;
        client
    };
    let (mut shop, mut blog) = (hold("shop").await, hold("blog").await);
    assert_eq!(internal(&gate, "shop-token", "POST", "/pub/news", "of the shop").await.status, 201);
    assert_eq!(shop.read_response().await.text(), "of the shop");
    assert!(blog.is_quiet().await);
    let path = "/sites/blog/pub/news";
    assert_eq!(internal(&gate, "t", "POST", path, "of the blog").await.status, 201);
    assert_eq!(blog.read_response().await.text(), "of the blog");
    for (bearer, path, status) in
        [("t", "/pub/news", 404), ("shop-token", path, 403), ("t", "/sites/other/pub/news", 404)]
    {
        assert_eq!(internal(&gate, bearer, "POST", path, "x").await.status, status, "{path}");
    }
    // Figures and deletes, too.
    assert_eq!(internal(&gate, "shop-token", "DELETE", "/pub/news", "").await.status, 200);
    assert_eq!(internal(&gate, "shop-token", "GET", "/pub/news", "").await.status, 404);
    let left = internal(&gate, "blog-token", "GET", "/pub/news", "").await.text();
    assert!(left.contains("queued messages: 1"), "{left}");
}

#[tokio::test]
async fn items_of_grip_release_the_holds_of_their_site() {
    let hold = json!({ "hold": { "mode": "response", "channels": [{ "name": "news" }] } });
    let upstream = GripSite::saying(instruct(&hold)).await;
    let grip = |name: &str, key: &str| {
        format!(
            "[[site]]\nname = \"{name}\"\nhosts = [\"{name}.example\"]\n[site.upstream]\n\
             servers = [\"{}\"]\n[site.publish]\ntoken = \"{name}-token\"\n[site.grip]\n\
             enabled = true\ncontrol_key = \"{key}\"\n",
            upstream.addr()
        )
    };
    let top = "[publish]\ntoken = \"t\"\n";
    let gate = Gate::with(&format!("{top}{}{}", grip("shop", ""), grip("blog", "")));
    let gate = gate.token("t").start().await;
    let hold = async |site: &str| {
        let held = gate.held().await;
        let mut client = gate.connect().await;
        client.names(&format!("{site}.example"));
        client.send_get("/page").await;
        gate.wait_for_held(held + 1).await;
        client
    };
    let (mut shop, mut blog) = (hold("shop").await, hold("blog").await);
    let item = |text: &str| {
        let formats = json!({ "http-response": { "body": text } });
        json!({ "items": [{ "channel": "news", "formats": formats }] }).to_string()
    };
    let path = "/grip/publish";
    assert_eq!(internal(&gate, "shop-token", "POST", path, &item("of the shop")).await.status, 200);
    assert_eq!(shop.read_response().await.text(), "of the shop");
    assert!(blog.is_quiet().await);
    let below = "/sites/blog/grip/publish/";
    for (bearer, path) in [("t", path), ("shop-token", below), ("nobody's", below)] {
        let status = internal(&gate, bearer, "POST", path, &item("x")).await.status;
        assert!(matches!(status, 401 | 403 | 404), "{bearer} {path}: {status}");
    }
    assert_eq!(internal(&gate, "t", "POST", below, &item("of the blog")).await.status, 200);
    assert_eq!(blog.read_response().await.text(), "of the blog");
    // A key of one site alone would open the listener for the other.
    gate.write_config(&format!("{top}{}{}", grip("shop", "secret"), grip("blog", "")));
    let file = gate.config_file().display().to_string();
    let checked = pollgate(&["check", "--config", &file]).await;
    let told = format!("{}{}", checked.stdout, checked.stderr);
    assert!(told.contains("site[1].grip.control_key"), "{told}");
}

#[tokio::test]
async fn a_path_that_only_another_site_has_is_404() {
    let (gate, _upstream) = two(NCHAN, "").await;
    assert_eq!(internal(&gate, "blog-token", "POST", "/pub/news", "x").await.status, 404);
    let listed = internal(&gate, "blog-token", "GET", "/channels", "").await.json();
    assert_eq!(listed["channels"], json!([]));
}

#[tokio::test]
async fn at_the_top_they_are_mistakes_where_there_are_sites() {
    let upstream = PlainSite::start().await;
    let sites = site("shop", &upstream, "");
    let gate = Gate::with("").start().await;
    for (top, mistake) in [
        (config(""), "mercure: belongs to a site"),
        ("[[nchan]]\npath = \"/pub/*\"\n".to_owned(), "nchan: belongs to a site"),
    ] {
        gate.write_config(&format!("[publish]\ntoken = \"t\"\n{top}{sites}"));
        let file = gate.config_file().display().to_string();
        let checked = pollgate(&["check", "--config", &file]).await;
        assert_eq!(checked.code, 2);
        let told = format!("{}{}", checked.stdout, checked.stderr);
        assert!(told.contains(mistake), "{told}");
    }
    eventually("it runs", async || gate.hook("GET", "/healthz", &[], b"").await.status == 200)
        .await;
}
