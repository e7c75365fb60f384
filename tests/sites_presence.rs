//! Who is on a channel, and being told of it, where there are several sites: each knows its own
//! visitors and no other site's.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use support::{Client, Gate, Metrics, PlainSite, Poller, Response, TempDir, Way, eventually};

/// A site whose visitors sign in with `{name} secret`, and which gets their events at `/hook`.
fn site(name: &str, upstream: &PlainSite, grace: &str) -> String {
    format!(
        r#"
[[site]]
name = "{name}"
hosts = ["{name}.example"]
[site.upstream]
servers = ["{}"]
[site.publish]
token = "{name}-token"
[[site.channel]]
match = "room*"
presence = true
grace = "{grace}"
stream_grace = "{grace}"
[[site.poll]]
path = "/comet/*"
dialect = "native"
transports = ["poll", "sse"]
auth = {{ kind = "signed", keys = {{ k1 = "{name} secret" }} }}
[[site.webhook]]
url = "/hook?of={name}"
secret = "{name} hush"
"#,
        upstream.addr()
    )
}

struct Two {
    shop: PlainSite,
    blog: PlainSite,
    gate: Gate,
}

async fn two(grace: &str) -> Two {
    let shop = PlainSite::named("shop").await;
    let blog = PlainSite::named("blog").await;
    let sites = site("shop", &shop, grace) + &site("blog", &blog, grace);
    let gate = Gate::with(&format!("[publish]\ntoken = \"t\"\n{sites}")).token("t").start().await;
    Two { shop, blog, gate }
}

fn token(site: &str, user: &str) -> String {
    let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
    let base64 = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("k1.{expires}.{}.{}", base64("room"), base64(user));
    let key = hmac::Key::new(hmac::HMAC_SHA256, format!("{site} secret").as_bytes());
    let tag = hmac::sign(&key, signed.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{signed}.{hex}")
}

fn target(site: &str, channel: &str, user: &str, more: &str) -> String {
    format!("/comet/{channel}?token={}{more}", token(site, user))
}

async fn client(gate: &Gate, way: Way, site: &str) -> Poller {
    let mut poller = way.connect(gate).await;
    let host = format!("{site}.example");
    match way {
        Way::Plain | Way::Odd => poller.client().names(&host),
        Way::Http2 | Way::OddHttp2 => poller.http2().names(&host),
    }
    poller
}

async fn hold(gate: &Gate, way: Way, site: &str, target: &str) -> Poller {
    let held = gate.held().await;
    let mut poller = client(gate, way, site).await;
    poller.ask(target).await;
    gate.wait_for_held(held + 1).await;
    poller
}

async fn hook(gate: &Gate, token: &str, path: &str) -> Response {
    let bearer = format!("Bearer {token}");
    let mut client = Client::connect(gate.internal()).await;
    client.request("GET", path, &[("Authorization", &bearer)], b"").await
}

async fn users(gate: &Gate, token: &str, path: &str) -> Vec<String> {
    let list = hook(gate, token, path).await.json();
    let members = list["members"].as_array().unwrap_or_else(|| panic!("{list}"));
    members.iter().map(|one| one["user"].as_str().unwrap().to_owned()).collect()
}

/// The webhooks that a site got: `member_added room 7`.
fn told(site: &PlainSite) -> Vec<String> {
    let requests = site.requests();
    let bodies = requests.iter().filter(|one| one.line().starts_with("POST /hook"));
    let bodies = bodies.map(|one| serde_json::from_slice::<Value>(&one.body).unwrap());
    let events = bodies.flat_map(|body| body["events"].as_array().unwrap().clone());
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or("-").to_owned();
    events.map(|it| ["name", "channel", "user"].map(|key| text(&it, key)).join(" ")).collect()
}

#[tokio::test]
async fn the_users_of_one_site_are_never_seen_by_another() {
    for way in Way::ALL {
        let two = two("1h").await;
        let gate = &two.gate;
        let watch = |site, user| target(site, "presence%3Aroom", user, "");
        let mut shop = hold(gate, way, "shop", &watch("shop", "watcher")).await;
        let mut blog = hold(gate, way, "blog", &watch("blog", "watcher")).await;
        let mut seven = client(gate, way, "shop").await;
        seven.ask(&target("shop", "room", "7", "")).await;
        let joined = shop.answer().await.json();
        assert_eq!(joined["messages"][0]["channel"], "presence:room");
        assert_eq!(
            joined["messages"][0]["data"],
            json!({"type": "join", "user": "7", "info": null})
        );
        assert!(blog.is_quiet().await, "{way:?}");
        let mut eight = client(gate, way, "blog").await;
        eight.ask(&target("blog", "room", "8", "")).await;
        assert_eq!(blog.answer().await.json()["messages"][0]["data"]["user"], "8");
        let path = "/channels/room/presence";
        assert_eq!(users(gate, "shop-token", path).await, ["7"]);
        assert_eq!(users(gate, "blog-token", path).await, ["8"]);
        assert_eq!(users(gate, "t", &format!("/sites/shop{path}")).await, ["7"]);
        assert_eq!(hook(gate, "t", path).await.status, 404);
        assert_eq!(hook(gate, "blog-token", &format!("/sites/shop{path}")).await.status, 403);
        // A first answer with the list has the site's own users, and a token is good at its site.
        let mut poller = client(gate, way, "blog").await;
        let answer = poller.poll(&target("blog", "room", "9", "&presence=1")).await.json();
        let members = answer["presence"]["members"].as_array().unwrap();
        let members: Vec<_> = members.iter().map(|one| one["user"].as_str().unwrap()).collect();
        assert_eq!(members, ["8", "9"], "{answer}");
        assert_eq!(poller.poll(&watch("shop", "watcher")).await.status, 401);
    }
}

#[tokio::test]
async fn the_same_user_leaves_one_site_and_stays_at_the_other() {
    let two = two("1h").await;
    let gate = &two.gate;
    let shop = hold(gate, Way::Plain, "shop", &target("shop", "room", "7", "")).await;
    let _blog = hold(gate, Way::Plain, "blog", &target("blog", "room", "7", "")).await;
    let mut other = client(gate, Way::Plain, "shop").await;
    other.poll(&target("shop", "room", "7", "&leave=1")).await;
    shop.close();
    let path = "/channels/room/presence";
    eventually("it has left", async || users(gate, "shop-token", path).await.is_empty()).await;
    assert_eq!(users(gate, "blog-token", path).await, ["7"]);
    let events = hook(gate, "shop-token", "/channels/presence%3Aroom/messages").await.json();
    assert_eq!(events["messages"].as_array().unwrap().len(), 2, "{events}");
    let events = hook(gate, "blog-token", "/channels/presence%3Aroom/messages").await.json();
    assert_eq!(events["messages"].as_array().unwrap().len(), 1, "{events}");
}

#[tokio::test]
async fn a_revocation_at_one_site_ends_the_watch_of_its_joins_and_no_other() {
    let two = two("1h").await;
    let gate = &two.gate;
    let watch = |site: &str| target(site, "presence%3Aroom", "7", "");
    let mut shop = hold(gate, Way::Plain, "shop", &watch("shop")).await;
    let mut blog = hold(gate, Way::Plain, "blog", &watch("blog")).await;
    let mut client = Client::connect(gate.internal()).await;
    let headers = [("Authorization", "Bearer shop-token")];
    let revoked = client.request("DELETE", "/grants?channel=room", &headers, b"").await;
    assert_eq!((revoked.status, &revoked.json()["revoked"]), (200, &json!(1)));
    assert_eq!(shop.answer().await.status, 401);
    assert!(blog.is_quiet().await);
}

#[tokio::test]
async fn webhooks_go_to_the_upstream_of_their_site_with_its_events_alone() {
    let two = two("0s").await;
    let gate = &two.gate;
    hold(gate, Way::Plain, "shop", &target("shop", "room", "7", "")).await.close();
    gate.wait_for_held(0).await;
    let stays = hold(gate, Way::Plain, "blog", &target("blog", "room", "8", "")).await;
    let shop = ["channel_occupied room -", "member_added room 7", "member_removed room 7"];
    let shop = [&shop[..], &["channel_vacated room -"]].concat();
    eventually("the shop's", async || told(&two.shop) == shop).await;
    let blog = ["channel_occupied room -", "member_added room 8"];
    eventually("the blog's", async || told(&two.blog) == blog).await;
    drop(stays);
    for (site, name) in [(&two.shop, "shop"), (&two.blog, "blog")] {
        for request in site.requests() {
            assert_eq!(request.line(), format!("POST /hook?of={name}"));
            let key = hmac::Key::new(hmac::HMAC_SHA256, format!("{name} hush").as_bytes());
            let tag = hmac::sign(&key, &request.body);
            let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(request.header("pollgate-signature"), Some(&*format!("sha256={hex}")));
        }
    }
}

#[tokio::test]
async fn a_site_without_presence_has_none_though_another_has() {
    let shop = PlainSite::named("shop").await;
    let blog = PlainSite::named("blog").await;
    let quiet = site("blog", &blog, "1h")
        .replace("presence = true", "")
        .replace("[[site.webhook]]", "[[site.watch]]");
    let quiet = quiet.replace("url = \"/hook?of=blog\"", "path = \"/nowhere/*.comet\"");
    let quiet = quiet.replace("secret = \"blog hush\"", "channel = \"{1}\"");
    let quiet = quiet.replace("grace = \"1h\"\nstream_grace = \"1h\"", "");
    let config = format!("[publish]\ntoken = \"t\"\n{}{quiet}", site("shop", &shop, "1h"));
    let gate = Gate::with(&config).token("t").start().await;
    let _poll = hold(&gate, Way::Plain, "blog", &target("blog", "room", "7", "")).await;
    assert_eq!(hook(&gate, "blog-token", "/channels/room/presence").await.status, 404);
    let mut poller = client(&gate, Way::Plain, "blog").await;
    let asked = poller.poll(&target("blog", "room", "7", "&presence=1")).await;
    assert_eq!(asked.status, 400, "{}", asked.text());
    let watch = poller.poll(&target("blog", "presence%3Aroom", "7", "&timeout=0")).await;
    assert_eq!(watch.status, 403, "a plain channel of that name");
    let metrics = Metrics::parse(&hook(&gate, "t", "/metrics").await.text());
    assert_eq!(metrics.value("pollgate_presence_members"), 0.0);
}

#[tokio::test]
async fn the_users_of_a_site_that_is_removed_are_forgotten_and_the_others_stay() {
    let two = two("1s").await;
    let gate = &two.gate;
    let _shop = hold(gate, Way::Plain, "shop", &target("shop", "room", "7", "")).await;
    let mut blog = hold(gate, Way::Plain, "blog", &target("blog", "room", "8", "")).await;
    let members = async || {
        let metrics = Metrics::parse(&hook(gate, "t", "/metrics").await.text());
        metrics.value("pollgate_presence_members")
    };
    assert_eq!(members().await, 2.0);
    let config = format!("[publish]\ntoken = \"t\"\n{}", site("shop", &two.shop, "1s"));
    gate.write_config(&config);
    assert_eq!(gate.reload().await.status, 200);
    assert_eq!(blog.answer().await.json()["reset"], true);
    eventually("one is left", async || members().await == 1.0).await;
    assert_eq!(users(gate, "shop-token", "/channels/room/presence").await, ["7"]);
    // A later site of that name gets no event of theirs.
    let config = config + &site("blog", &two.blog, "1s");
    gate.write_config(&config);
    assert_eq!(gate.reload().await.status, 200);
    assert_eq!(users(gate, "blog-token", "/channels/room/presence").await, [""; 0]);
}

#[tokio::test]
async fn the_users_of_each_site_outlive_a_restart() {
    let folder = TempDir::new("users");
    let shop = PlainSite::named("shop").await;
    let blog = PlainSite::named("blog").await;
    let file = folder.path().join("history");
    let sites = site("shop", &shop, "1h") + &site("blog", &blog, "1h");
    let config = format!(
        "[drain]\nspread = \"0s\"\n[history]\nsnapshot = \"{}\"\n[publish]\ntoken = \"t\"\n{sites}",
        file.display()
    );
    let path = "/channels/room/presence";
    let gate = Gate::with(&config).token("t").start().await;
    let seven = hold(&gate, Way::Plain, "shop", &target("shop", "room", "7", "")).await;
    let eight = hold(&gate, Way::Plain, "blog", &target("blog", "room", "8", "")).await;
    gate.signal("TERM");
    assert_eq!(gate.wait_for_exit().await, 0, "{}", gate.log());
    drop((seven, eight));
    let gate = Gate::with(&config).token("t").start().await;
    assert_eq!(users(&gate, "shop-token", path).await, ["7"]);
    assert_eq!(users(&gate, "blog-token", path).await, ["8"]);
}
