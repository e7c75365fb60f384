//! Several sites behind one gate: a host chooses its site, and nothing of one is reached from
//! another.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::events::Events;
use support::http::FORM;
use support::http2::Http2;
use support::{Addr, Client, Gate, PlainSite, Response, TempDir, Way, eventually, pollgate};

const SHOP: &str = "shop-token";
const BLOG: &str = "blog-token";
const GATE: &str = "gate-token";

/// Two sites behind one gate.
struct Two {
    shop: PlainSite,
    blog: PlainSite,
    gate: Gate,
}

fn site(name: &str, hosts: &str, upstream: &Addr, more: &str) -> String {
    let (name, token) = (format!("name = \"{name}\""), format!("{name}-token"));
    let upstream = upstream.to_string();
    format!(
        "[[site]]\n{name}\nhosts = [{hosts}]\n[site.upstream]\nservers = [\"{upstream}\"]\n\
         may_publish = true\n[site.publish]\ntoken = \"{token}\"\n{more}\n"
    )
}

fn config(shop: &Addr, blog: &Addr, top: &str) -> String {
    let shop = site("shop", r#""shop.example", "*.shop.example""#, shop, "");
    let blog = site("blog", r#""blog.example""#, blog, "");
    format!("{top}\n[publish]\ntoken = \"{GATE}\"\n{shop}{blog}")
}

async fn two_with(top: &str) -> Two {
    let shop = PlainSite::named("shop").await;
    let blog = PlainSite::named("blog").await;
    let config = config(shop.addr(), blog.addr(), top);
    let gate = Gate::with(&config).token(GATE).start().await;
    Two { shop, blog, gate }
}

async fn two() -> Two {
    two_with("").await
}

/// A request to the internal side with this token.
async fn hook(gate: &Gate, token: &str, method: &str, path: &str, body: &str) -> Response {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "text/plain")];
    let headers = if token.is_empty() { &headers[1..] } else { &headers[..] };
    let mut client = Client::connect(gate.internal()).await;
    client.request(method, path, headers, body.as_bytes()).await
}

async fn publish(gate: &Gate, token: &str, channel: &str, data: &str) -> Value {
    let response = hook(gate, token, "POST", &format!("/channels/{channel}"), data).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// A client of a site.
async fn client(gate: &Gate, way: Way, host: &str) -> support::Poller {
    let mut poller = way.connect(gate).await;
    match way {
        Way::Plain | Way::Odd => poller.client().names(host),
        Way::Http2 | Way::OddHttp2 => poller.http2().names(host),
    }
    poller
}

async fn hold(gate: &Gate, way: Way, host: &str, target: &str) -> support::Poller {
    let held = gate.held().await;
    let mut poller = client(gate, way, host).await;
    poller.ask(target).await;
    gate.wait_for_held(held + 1).await;
    poller
}

fn data(answer: &Value) -> Vec<&str> {
    let messages = answer["messages"].as_array().unwrap();
    messages.iter().map(|message| message["data"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn polls_of_two_sites_on_one_name_never_meet() {
    let two = two().await;
    for way in Way::ALL {
        let mut shop = hold(&two.gate, way, "shop.example", "/comet/news").await;
        let mut blog = hold(&two.gate, way, "blog.example", "/comet/news").await;
        let published = publish(&two.gate, SHOP, "news", "for the shop").await;
        assert_eq!((&published["released"], &published["channel"]), (&json!(1), &json!("news")));
        let answer = shop.answer().await.json();
        assert_eq!(data(&answer), ["for the shop"], "{way:?}");
        assert_eq!(answer["messages"][0]["channel"], "news");
        assert!(blog.is_quiet().await, "{way:?}");
        assert_eq!(publish(&two.gate, BLOG, "news", "for the blog").await["released"], 1);
        assert_eq!(data(&blog.answer().await.json()), ["for the blog"], "{way:?}");
    }
    // Nor do their histories.
    for (host, text) in [("shop.example", "for the shop"), ("blog.example", "for the blog")] {
        let mut poller = client(&two.gate, Way::Plain, host).await;
        let all = poller.poll("/comet/news?cursor=oldest&timeout=0").await.json();
        assert!(data(&all).iter().all(|data| *data == text), "{all}");
    }
}

#[tokio::test]
async fn streams_of_two_sites_on_one_name_never_meet_and_show_no_site() {
    let two = two().await;
    let open = async |host: &'static str| {
        let headers = [("Accept", "text/event-stream"), ("Host", host)];
        Events::open_with(Way::Plain, &two.gate, "/comet/news", &headers).await
    };
    let mut shop = open("shop.example").await;
    let mut blog = open("blog.example").await;
    two.gate.wait_for_held(2).await;
    assert_eq!(shop.next().await.event, "cursor");
    assert_eq!(blog.next().await.event, "cursor");
    publish(&two.gate, SHOP, "news", "one").await;
    publish(&two.gate, BLOG, "news", "two").await;
    let first = shop.next().await;
    let second = blog.next().await;
    assert_eq!((&first.json()["data"], &second.json()["data"]), (&json!("one"), &json!("two")));
    for event in [first, second] {
        assert_eq!(event.json()["channel"], "news");
        assert!(!event.id().contains("shop") && !event.id().contains("blog"), "{event:?}");
    }
}

#[tokio::test]
async fn a_host_chooses_its_site_without_case_port_and_trailing_dot() {
    let two = two().await;
    for (host, name) in [
        ("shop.example", "shop"),
        ("SHOP.Example:8080", "shop"),
        ("shop.example.", "shop"),
        ("a.shop.example", "shop"),
        ("blog.example:1", "blog"),
    ] {
        for way in Way::ALL {
            let mut client = client(&two.gate, way, host).await;
            let response = client.poll("/page").await;
            assert!(response.text().starts_with(name), "{way:?} {host}: {}", response.text());
        }
    }
}

#[tokio::test]
async fn a_host_that_no_site_has_is_421() {
    let two = two().await;
    for host in ["other.example", "b.a.shop.example", ".shop.example", "xshop.example", "127.0.0.1"]
    {
        for target in ["/comet/news?timeout=0", "/page", "/pollgate.js"] {
            for way in Way::ALL {
                // HTTP/2 has no way to write such an authority.
                if host.starts_with('.') && Way::HTTP2.contains(&way) {
                    continue;
                }
                let mut client = client(&two.gate, way, host).await;
                assert_eq!(client.poll(target).await.status, 421, "{way:?} {host} {target}");
            }
        }
    }
    let mut old = two.gate.connect().await;
    old.send_raw("GET /page HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.read_response().await.status, 421, "no host at all");
    assert_eq!((two.shop.requests().len(), two.blog.requests().len()), (0, 0));
    // A connection goes on after it, with another host.
    let mut client = client(&two.gate, Way::Plain, "other.example").await;
    assert_eq!(client.poll("/page").await.status, 421);
    client.client().names("shop.example");
    assert_eq!(client.poll("/page").await.status, 200);
}

#[tokio::test]
async fn requests_that_name_two_hosts_are_for_neither() {
    let two = two().await;
    let mut http2 = Http2::connect(two.gate.addr()).await;
    http2.names("shop.example");
    for target in ["/comet/news?timeout=0", "/page"] {
        http2.ask("GET", target, &[("host", "blog.example")]).await;
        assert_eq!(http2.answer().await.status, 400, "{target}");
        http2.ask("GET", target, &[("host", "shop.example"), ("host", "blog.example")]).await;
        assert_eq!(http2.answer().await.status, 400, "{target}");
        http2.ask("GET", target, &[("host", "shop.example")]).await;
        assert_eq!(http2.answer().await.status, 200, "{target}");
    }
    for target in ["/comet/news?timeout=0", "/page"] {
        let mut client = two.gate.connect().await;
        let head =
            format!("GET http://shop.example{target} HTTP/1.1\r\nHost: blog.example\r\n\r\n");
        client.send_raw(head).await;
        assert_eq!(client.read_response().await.status, 400, "{target}");
        let mut client = two.gate.connect().await;
        let head =
            format!("GET http://shop.example{target} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        client.send_raw(head).await;
        assert_eq!(client.read_response().await.status, 200, "{target}");
    }
    assert!(two.blog.requests().is_empty());
}

#[tokio::test]
async fn a_default_site_gets_the_hosts_that_no_site_has() {
    let shop = PlainSite::named("shop").await;
    let rest = PlainSite::named("rest").await;
    let shop_site = site("shop", r#""shop.example""#, shop.addr(), "");
    let rest_site = site("rest", "", rest.addr(), "").replace("hosts = []", "default = true");
    let config = format!("[publish]\ntoken = \"{GATE}\"\n{shop_site}{rest_site}");
    let gate = Gate::with(&config).token(GATE).start().await;
    for (host, name) in [("shop.example", "shop"), ("any.example", "rest"), ("[::1]:80", "rest")] {
        let mut client = client(&gate, Way::Plain, host).await;
        assert!(client.poll("/page").await.text().starts_with(name), "{host}");
    }
    let mut old = gate.connect().await;
    old.send_raw("GET /page HTTP/1.0\r\n\r\n").await;
    assert!(old.read_response().await.text().starts_with("rest"));
}

#[tokio::test]
async fn a_sites_token_reaches_that_site_and_nothing_else() {
    let two = two().await;
    publish(&two.gate, BLOG, "secret", "of the blog").await;
    // What it may do: its own site, with and without the path.
    for path in ["/channels/news", "/sites/shop/channels/news"] {
        assert_eq!(hook(&two.gate, SHOP, "POST", path, "x").await.status, 200, "{path}");
    }
    let list = hook(&two.gate, SHOP, "GET", "/channels", "").await.json();
    let names: Vec<&Value> =
        list["channels"].as_array().unwrap().iter().map(|c| &c["channel"]).collect();
    assert_eq!(names, [&json!("news")]);
    assert_eq!(hook(&two.gate, SHOP, "GET", "/channels/secret", "").await.status, 404);
    assert_eq!(hook(&two.gate, SHOP, "DELETE", "/channels/secret", "").await.status, 404);
    let history = hook(&two.gate, SHOP, "GET", "/channels/secret/messages", "").await;
    assert!(!history.text().contains("of the blog"), "{}", history.text());
    // What it may not.
    for (method, path) in [
        ("POST", "/sites/blog/channels/news"),
        ("POST", "/sites/blog/publish"),
        ("GET", "/sites/blog/channels/secret/messages"),
        ("DELETE", "/sites/blog/channels/secret"),
        ("GET", "/sites/blog/status"),
        ("DELETE", "/sites/blog/grants"),
        ("GET", "/sites/nosuch/status"),
        ("GET", "/config"),
        ("POST", "/reload"),
        ("GET", "/sites/shop/config"),
        ("GET", "/page/figures"),
    ] {
        let response = hook(&two.gate, SHOP, method, path, "x").await;
        assert_eq!(response.status, 403, "{method} {path}: {}", response.text());
        assert!(!response.text().contains("of the blog"));
    }
    // Paths that only look like another site's, or like one of this site's.
    for path in [
        "/sites/shop/../blog/channels/secret",
        "/sites/shop/%2e%2e/blog/channels/secret",
        "/sites/shop//sites/blog/channels/secret",
        "/sites/shop/sites/blog/channels/secret",
        "/sites/sh%6fp/channels/secret",
        "/sites/SHOP/channels/secret",
        "/sites//channels/secret",
        "//sites/blog/channels/secret",
        "/sites/blog%2Fchannels/secret",
        "/SITES/blog/channels/secret",
        "/sites/blog",
    ] {
        for method in ["GET", "POST"] {
            let response = hook(&two.gate, SHOP, method, path, "x").await;
            let refused = matches!(response.status, 400 | 403 | 404);
            assert!(refused, "{method} {path}: {} {}", response.status, response.text());
        }
    }
    // A channel whose name looks like another site's is one of this site's.
    for name in ["blog%2Fsecret", "%2Fsites%2Fblog%2Fsecret"] {
        assert_eq!(publish(&two.gate, SHOP, name, "x").await["released"], 0);
    }
    assert_eq!(
        hook(&two.gate, BLOG, "GET", "/channels", "").await.json()["channels"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    // No token, a wrong one, and parts of one.
    for token in ["", "wrong", "shop-toke", "shop-tokenx", "gate-toke"] {
        let response = hook(&two.gate, token, "POST", "/channels/news", "x").await;
        assert_eq!(response.status, 401, "{token:?}");
    }
}

#[tokio::test]
async fn the_gates_token_names_the_site_in_the_path() {
    let two = two().await;
    let mut blog = hold(&two.gate, Way::Plain, "blog.example", "/comet/news").await;
    let response = hook(&two.gate, GATE, "POST", "/channels/news", "x").await;
    assert_eq!(response.status, 404);
    assert!(response.text().contains("/sites/{site}"), "{}", response.text());
    assert_eq!(hook(&two.gate, GATE, "POST", "/sites/nosuch/publish", "x").await.status, 404);
    assert_eq!(hook(&two.gate, GATE, "POST", "/sites/blog/channels/news", "x").await.status, 200);
    assert_eq!(data(&blog.answer().await.json()), ["x"]);
    let mut internal = Client::connect(two.gate.internal()).await;
    let bearer = format!("Bearer {GATE}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", FORM)];
    let form = b"channel[]=a&channel[]=b&data=1";
    let response = internal.request("POST", "/sites/shop/publish", &headers, form).await;
    assert_eq!(response.json().as_array().unwrap().len(), 2);
    assert_eq!(hook(&two.gate, SHOP, "GET", "/channels/a", "").await.status, 200);
    assert_eq!(hook(&two.gate, BLOG, "GET", "/channels/a", "").await.status, 404);
    for path in ["/config", "/status", "/sites/shop/status", "/sites/blog/readyz"] {
        assert_eq!(hook(&two.gate, GATE, "GET", path, "").await.status, 200, "{path}");
    }
    assert_eq!(hook(&two.gate, GATE, "GET", "/sites/shop/config", "").await.status, 404);
    assert_eq!(hook(&two.gate, "", "GET", "/readyz", "").await.status, 200);
}

#[tokio::test]
async fn one_idempotency_key_in_two_sites_is_two_keys() {
    let two = two().await;
    let mut internal = Client::connect(two.gate.internal()).await;
    let mut ids = Vec::new();
    for token in [SHOP, BLOG, SHOP] {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", "k")];
        ids.push(
            internal.request("POST", "/channels/news", &headers, b"x").await.json()["id"].clone(),
        );
    }
    assert_eq!(ids[0], ids[2]);
    assert_ne!(ids[0], ids[1]);
    for token in [SHOP, BLOG] {
        assert_eq!(hook(&two.gate, token, "GET", "/channels/news", "").await.json()["kept"], 1);
    }
}

#[tokio::test]
async fn a_sites_status_is_its_own() {
    let two = two().await;
    let _held = hold(&two.gate, Way::Plain, "shop.example", "/comet/news").await;
    publish(&two.gate, BLOG, "news", "hello").await;
    client(&two.gate, Way::Plain, "blog.example").await.poll("/page").await;
    let shop = hook(&two.gate, SHOP, "GET", "/status", "").await;
    assert!(!shop.text().contains("blog"), "{}", shop.text());
    let shop = shop.json();
    assert_eq!(
        (&shop["held"], &shop["channels"], &shop["waiting"]),
        (&json!(1), &json!(0), &json!(1))
    );
    let blog = hook(&two.gate, BLOG, "GET", "/status", "").await.json();
    assert_eq!((&blog["held"], &blog["publishes"]), (&json!(0), &json!(1)));
    assert_eq!(blog["upstream"]["2xx"], 1);
    let all = two.gate.status().await;
    assert_eq!((&all["held"], &all["sites"]["shop"]), (&json!(1), &shop));
    let metrics = hook(&two.gate, "", "GET", "/metrics", "").await.text();
    for line in [
        "pollgate_site_held_polls{site=\"shop\"} 1",
        "pollgate_site_publishes_total{site=\"blog\"} 1",
        "pollgate_site_upstream_requests_total{site=\"blog\",status=\"2xx\"} 1",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    two.gate.wait_for_log("site=\"blog\"").await;
}

#[tokio::test]
async fn the_upstreams_header_publishes_in_its_own_site() {
    let two = two().await;
    let mut by_hand = PlainSite::start_by_hand().await;
    let config = config(by_hand.addr(), two.blog.addr(), "");
    let gate = Gate::with(&config).token(GATE).start().await;
    let mut shop = hold(&gate, Way::Plain, "shop.example", "/comet/news").await;
    let mut blog = hold(&gate, Way::Plain, "blog.example", "/comet/news").await;
    let mut visitor = client(&gate, Way::Plain, "shop.example").await;
    visitor.ask("/send").await;
    let mut visit = by_hand.visit().await;
    visit
        .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nPollgate-Publish: news; data=hi\r\n\r\n")
        .await;
    assert_eq!(visitor.answer().await.status, 200);
    assert_eq!(data(&shop.answer().await.json()), ["hi"]);
    assert!(blog.is_quiet().await);
}

#[tokio::test]
async fn each_site_has_its_own_rules_hold_and_files() {
    let shop = PlainSite::named("shop").await;
    let blog = PlainSite::named("blog").await;
    let folder = TempDir::new("files");
    let path = folder.path().display();
    let rules = format!(
        "[site.hold]\ntimeout = \"100ms\"\njitter = \"0%\"\n[[site.poll]]\npath = \"/live/*\"\n\
         dialect = \"native\"\n[[site.watch]]\npath = \"{path}/*.txt\"\nchannel = \"{{1}}\"\n\
         content = true\n"
    );
    let shop_site = site("shop", r#""shop.example""#, shop.addr(), &rules);
    let blog_site = site("blog", r#""blog.example""#, blog.addr(), "");
    let config = format!("[publish]\ntoken = \"{GATE}\"\n{shop_site}{blog_site}");
    let gate = Gate::with(&config).token(GATE).start().await;
    let mut client_shop = client(&gate, Way::Plain, "shop.example").await;
    assert_eq!(client_shop.poll("/live/news").await.json()["messages"], json!([]));
    assert!(client_shop.poll("/comet/news").await.text().starts_with("shop"), "no rule for it");
    let mut client_blog = client(&gate, Way::Plain, "blog.example").await;
    assert!(client_blog.poll("/live/news").await.text().starts_with("blog"));
    folder.write("news.txt", "from a file");
    eventually("the file's message", async || {
        hook(&gate, SHOP, "GET", "/channels/news", "").await.status == 200
    })
    .await;
    assert_eq!(hook(&gate, BLOG, "GET", "/channels/news", "").await.status, 404);
}

#[tokio::test]
async fn a_reload_adds_and_removes_a_site_and_drops_no_poll_of_the_others() {
    let two = two().await;
    let shop = two.shop.addr();
    let blog = two.blog.addr();
    let mut kept = hold(&two.gate, Way::Plain, "shop.example", "/comet/news").await;
    let mut gone = hold(&two.gate, Way::Plain, "blog.example", "/comet/news").await;
    let with_three = config(shop, blog, "") + &site("new", r#""new.example""#, blog, "");
    assert_eq!(client(&two.gate, Way::Plain, "new.example").await.poll("/page").await.status, 421);
    two.gate.reconfigure(&with_three).await;
    let mut new = hold(&two.gate, Way::Plain, "new.example", "/comet/news").await;
    assert_eq!(publish(&two.gate, "new-token", "news", "new").await["released"], 1);
    assert_eq!(data(&new.answer().await.json()), ["new"]);
    assert!(kept.is_quiet().await && gone.is_quiet().await);
    let only_shop = format!(
        "[publish]\ntoken = \"{GATE}\"\n{}",
        site("shop", r#""shop.example", "*.shop.example""#, shop, "")
    );
    two.gate.reconfigure(&only_shop).await;
    // The polls of a site that is gone are answered, and come back to a 421.
    assert_eq!(gone.answer().await.json()["reset"], true);
    assert_eq!(gone.poll("/comet/news").await.status, 421);
    assert_eq!(hook(&two.gate, BLOG, "POST", "/channels/news", "x").await.status, 401);
    assert!(kept.is_quiet().await);
    assert_eq!(publish(&two.gate, SHOP, "news", "still here").await["released"], 1);
    assert_eq!(data(&kept.answer().await.json()), ["still here"]);
    // With one site the gate's token need not name it.
    assert_eq!(publish(&two.gate, GATE, "news", "alone").await["channel"], "news");
    // A site of that name that comes back has nothing of the old one's.
    publish(&two.gate, SHOP, "news", "x").await;
    two.gate.reconfigure(&config(shop, blog, "")).await;
    assert_eq!(hook(&two.gate, BLOG, "GET", "/channels/news", "").await.status, 404);
    assert_eq!(hook(&two.gate, SHOP, "GET", "/channels/news", "").await.status, 200);
}

#[tokio::test]
async fn a_flood_of_one_site_evicts_its_own_channels() {
    let two = two_with("[history]\nchannels = 20").await;
    for number in 0..5 {
        publish(&two.gate, BLOG, &format!("b{number}"), "kept").await;
    }
    for number in 0..100 {
        publish(&two.gate, SHOP, &format!("s{number}"), "flood").await;
    }
    let count = async |token| {
        let list = hook(&two.gate, token, "GET", "/channels?limit=1000", "").await.json();
        list["channels"].as_array().unwrap().len()
    };
    assert_eq!((count(BLOG).await, count(SHOP).await), (5, 15));
    // The one that uses most gives way to the other until they use the same.
    for number in 5..100 {
        publish(&two.gate, BLOG, &format!("b{number}"), "flood").await;
    }
    assert_eq!((count(BLOG).await, count(SHOP).await), (10, 10));
}

#[tokio::test]
async fn the_memory_of_messages_is_shared_in_the_same_way() {
    let two = two_with("[history]\ntotal = \"64KiB\"").await;
    let message = "m".repeat(1000);
    publish(&two.gate, BLOG, "small", &message).await;
    for number in 0..200 {
        publish(&two.gate, SHOP, &format!("s{number}"), &message).await;
    }
    let blog = hook(&two.gate, BLOG, "GET", "/channels/small", "").await.json();
    assert_eq!(blog["kept"], 1);
    let status = two.gate.status().await;
    assert!(status["history_bytes"].as_u64().unwrap() <= 64 << 10);
}

#[tokio::test]
async fn a_sites_own_bounds_hold_for_that_site_alone() {
    let shop = PlainSite::named("shop").await;
    let blog = PlainSite::named("blog").await;
    let bounds = "[site.hold]\nmax = 1\n[site.history]\nchannels = 2\nmessages = 1\n\
                  [site.limits]\nchannels_per_poll = 1\n";
    let shop_site = site("shop", r#""shop.example""#, shop.addr(), bounds);
    let blog_site = site("blog", r#""blog.example""#, blog.addr(), "");
    let config = format!("[publish]\ntoken = \"{GATE}\"\n{shop_site}{blog_site}");
    let gate = Gate::with(&config).token(GATE).start().await;
    let _held = hold(&gate, Way::Plain, "shop.example", "/comet/news").await;
    let mut second = client(&gate, Way::Plain, "shop.example").await;
    assert_eq!(second.poll("/comet/other").await.status, 503);
    assert_eq!(second.poll("/comet/a,b?timeout=0").await.status, 400);
    let mut other = hold(&gate, Way::Plain, "blog.example", "/comet/a,b").await;
    assert!(other.is_quiet().await);
    for number in 0..5 {
        publish(&gate, SHOP, &format!("c{}", number % 3), "x").await;
        publish(&gate, BLOG, &format!("c{number}"), "x").await;
    }
    let channels =
        async |token| hook(&gate, token, "GET", "/status", "").await.json()["channels"].clone();
    assert_eq!((channels(SHOP).await, channels(BLOG).await), (json!(2), json!(5)));
}

#[tokio::test]
async fn histories_of_sites_outlive_a_restart_apart() {
    let folder = TempDir::new("snapshot");
    let file = folder.path().join("history");
    let top = format!("[history]\nsnapshot = \"{}\"", file.display());
    let two = two_with(&top).await;
    publish(&two.gate, SHOP, "news", "of the shop").await;
    publish(&two.gate, BLOG, "news", "of the blog").await;
    let history = async |gate: &Gate, token| {
        hook(gate, token, "GET", "/channels/news/messages", "").await.text()
    };
    let before = (history(&two.gate, SHOP).await, history(&two.gate, BLOG).await);
    two.gate.signal("TERM");
    assert_eq!(two.gate.wait_for_exit().await, 0);
    let config = config(two.shop.addr(), two.blog.addr(), &top);
    let gate = Gate::with(&config).token(GATE).start().await;
    assert_eq!((history(&gate, SHOP).await, history(&gate, BLOG).await), before);
    assert!(before.0.contains("of the shop") && !before.0.contains("of the blog"));
}

#[tokio::test]
async fn an_upgrade_keeps_the_sites_apart() {
    let folder = TempDir::new("upgrade");
    let socket = folder.path().join("upgrade.socket");
    let top = format!("[upgrade]\nsocket = \"{}\"\n[drain]\nspread = \"20s\"", socket.display());
    let two = two_with(&top).await;
    publish(&two.gate, SHOP, "news", "of the shop").await;
    publish(&two.gate, BLOG, "news", "of the blog").await;
    // The old process lives until it has answered the last of its polls, and passes requests on.
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(hold(&two.gate, Way::Plain, "shop.example", "/comet/other").await);
    }
    let mut internal = Client::connect(two.gate.internal()).await;
    let bearer = format!("Bearer {SHOP}");
    let headers = [("Authorization", bearer.as_str())];
    assert_eq!(internal.request("GET", "/channels/news", &headers, b"").await.status, 200);
    let config = config(two.shop.addr(), two.blog.addr(), &top);
    let new = Gate::with(&config).token(GATE).upgrade().start().await;
    for (token, own, other) in
        [(SHOP, "of the shop", "of the blog"), (BLOG, "of the blog", "of the shop")]
    {
        let history = hook(&new, token, "GET", "/channels/news/messages", "").await.text();
        assert!(history.contains(own) && !history.contains(other), "{history}");
    }
    let passed = internal.request("POST", "/channels/news", &headers, b"passed on").await;
    assert_eq!(passed.status, 200, "{}", passed.text());
    assert_eq!(hook(&new, SHOP, "GET", "/channels/news", "").await.json()["kept"], 2);
    assert_eq!(hook(&new, BLOG, "GET", "/channels/news", "").await.json()["kept"], 1);
}

async fn mistakes(config: &str) -> String {
    let folder = TempDir::new("config");
    let file = folder.write("pollgate.toml", config);
    let run = pollgate(&["check", "--config", &file.display().to_string()]).await;
    assert_eq!(run.code, 2, "{}", run.stdout);
    run.stderr
}

#[tokio::test]
async fn check_finds_what_two_sites_must_not_share() {
    let site = |name: &str, more: &str| {
        format!(
            "[[site]]\nname = \"{name}\"\n{more}\n[site.upstream]\nservers = [\"127.0.0.1:1\"]\n"
        )
    };
    let gate = "[publish]\ntoken = \"t\"\n";
    let hosts = |hosts: &str| format!("hosts = [{hosts}]");
    let a = site("a", &hosts("\"a.example\", \"*.example\""));
    for (config, wanted) in [
        (format!("{gate}{a}{}", site("b", &hosts("\"A.example.\""))), "host of the site \"a\" too"),
        (format!("{gate}{a}{}", site("b", &hosts("\"*.example\""))), "*.example is a host"),
        (format!("{gate}{a}{}", site("a", &hosts("\"b\""))), "is the name of site[0] too"),
        (format!("{a}{}", site("b", &hosts("\"b\""))), "publish.token: missing"),
        (format!("{gate}{}", site("b", "")), "hosts: missing"),
        (format!("{gate}{}", site("B", &hosts("\"b\""))), "must be 1 to 31"),
        (format!("{gate}{}", site("b", &hosts("\"b:80\""))), "no host name"),
        (format!("{gate}{a}[site.publish]\ntoken = \"t\"\n"), "is the gate's own token"),
        (
            format!(
                "{gate}{a}[site.publish]\ntoken = \"u\"\n{}[site.publish]\ntoken = \"u\"\n",
                site("b", &hosts("\"b\""))
            ),
            "is the token of the site \"a\" too",
        ),
        (format!("{a}[site.publish]\ntoken = \"u\"\n"), "publish.token: missing"),
        (format!("{gate}{a}[site.history]\nchannels = 100001\n"), "may only take less"),
        (format!("{gate}{a}[site.hold]\nmax = 100001\n"), "may only take less"),
        (format!("{gate}{a}[site.limits]\nper_address = 0\n"), "may only take less"),
        (format!("{gate}{a}[site.limits]\nhead_bytes = \"1KiB\"\n"), "unknown key"),
        (format!("{a}[[poll]]\npath = \"/x\"\ndialect = \"novcomet\"\n"), "move it below [[site]]"),
        (format!("[upstream]\nservers = [\"127.0.0.1:1\"]\n{a}"), "move it to [site.upstream]"),
        (format!("{gate}[[site]]\nname = \"a\"\nhosts = [\"a\"]\n"), "servers: missing"),
        (format!("[metrics]\nchannels = [\"news\"]\n{a}"), "names no site"),
        (format!("[metrics]\nchannels = [\"b/news\"]\n{a}"), "there is no site \"b\""),
    ] {
        let found = mistakes(&config).await;
        assert!(found.contains(wanted), "no {wanted:?} in {found}\nfor\n{config}");
    }
}

#[tokio::test]
async fn what_check_prints_of_sites_is_the_same_config() {
    let two = two().await;
    let text = config(two.shop.addr(), two.blog.addr(), "[metrics]\nchannels = [\"shop/news\"]");
    let folder = TempDir::new("config");
    let file = folder.write("a.toml", &text).display().to_string();
    let first = pollgate(&["check", "--config", &file]).await;
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert!(!first.stdout.contains("shop-token"), "{}", first.stdout);
    let again = first.stdout.replace("token = \"***\"", "token = \"\"");
    let again = again.replacen("token = \"\"", &format!("token = \"{GATE}\""), 1);
    let file = folder.write("b.toml", &again).display().to_string();
    let second = pollgate(&["check", "--config", &file]).await;
    assert_eq!(second.code, 0, "{}\n{again}", second.stderr);
    assert_eq!(second.stdout.replace("token = \"\"", "token = \"***\""), first.stdout);
}

#[tokio::test]
async fn the_command_line_publishes_in_a_site() {
    let two = two().await;
    let file = two.gate.config_file();
    let internal = two.gate.internal().to_string();
    let file = file.display().to_string();
    let run = async |args: &[&str]| {
        let more = ["--internal", &internal, "--config", &file];
        pollgate(&[args, &more[..]].concat()).await
    };
    let published = run(&["publish", "news", "hello", "--site", "shop"]).await;
    assert_eq!(published.code, 0, "{}", published.stderr);
    assert_eq!(hook(&two.gate, SHOP, "GET", "/channels/news", "").await.json()["kept"], 1);
    assert_eq!(run(&["publish", "news", "hello"]).await.code, 1);
    let status = run(&["status", "--site", "shop"]).await;
    assert!(status.stdout.contains("\"publishes\":1"), "{}", status.stdout);
}

#[tokio::test]
async fn adopt_prints_a_site_that_check_accepts() {
    let folder = TempDir::new("root");
    let script = "<?php\n$file = 'data.txt';\n$last = isset($_GET['timestamp']) ? $_GET['timestamp'] : 0;\n\
                  while (filemtime($file) <= $last) { usleep(10000); clearstatcache(); }\n\
                  echo json_encode(array('msg' => file_get_contents($file), 'timestamp' => filemtime($file)));\n";
    folder.write("backend.php", script);
    let root = folder.path().display().to_string();
    let args =
        ["adopt", &root, "--site", "shop", "--host", "shop.example", "--host", "*.shop.example"];
    let printed = pollgate(&args).await;
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    for line in ["[[site]]", "name = \"shop\"", "[site.upstream]", "[[site.poll]]"] {
        assert!(printed.stdout.contains(line), "{}", printed.stdout);
    }
    let file = folder.write("pollgate.toml", &printed.stdout).display().to_string();
    let checked = pollgate(&["check", "--config", &file]).await;
    assert_eq!(checked.code, 0, "{}\n{}", checked.stderr, printed.stdout);
    for wrong in [
        ["adopt", &root, "--site", "Shop", "--host", "shop.example"],
        ["adopt", &root, "--site", "shop", "--host", "shop.example:80"],
    ] {
        assert_eq!(pollgate(&wrong).await.code, 2, "{wrong:?}");
    }
    assert_eq!(pollgate(&["adopt", &root, "--site", "shop"]).await.code, 2);
}
