//! Sites over TLS: each is shown its own certificate, and no host is served on a connection whose
//! certificate does not name it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::Path;
use std::sync::Arc;

use support::tls::{self, Identity};
use support::{Client, Gate, PlainSite, TempDir, pollgate};

struct Fixture {
    gate: Gate,
    folder: TempDir,
    sites: Vec<PlainSite>,
    shop: Identity,
    blog: Identity,
}

fn write(folder: &Path, name: &str, identity: &Identity) {
    let own = folder.join(name);
    std::fs::create_dir_all(&own).unwrap();
    identity.write_to(&own);
}

fn site(folder: &Path, name: &str, hosts: &str, upstream: &PlainSite) -> String {
    let own = folder.join(name).display().to_string();
    format!(
        "[[site]]\nname = \"{name}\"\n{hosts}\n[site.tls]\ncert = \"{own}/cert.pem\"\n\
         key = \"{own}/key.pem\"\n[site.upstream]\nservers = [\"{}\"]\n",
        upstream.addr()
    )
}

fn config(folder: &Path, sites: &[PlainSite]) -> String {
    let shop = r#"hosts = ["shop.example", "*.shop.example"]"#;
    let blog = "hosts = [\"blog.example\"]\ndefault = true";
    let shop = site(folder, "shop", shop, &sites[0]);
    format!("[publish]\ntoken = \"t\"\n{shop}{}", site(folder, "blog", blog, &sites[1]))
}

async fn fixture() -> Fixture {
    let folder = TempDir::new("certs");
    let shop = Identity::of(&["shop.example", "*.shop.example", "both.example"]);
    let blog = Identity::of(&["blog.example", "127.0.0.1", "both.example"]);
    write(folder.path(), "shop", &shop);
    write(folder.path(), "blog", &blog);
    let sites = vec![PlainSite::named("shop").await, PlainSite::named("blog").await];
    let gate = Gate::with(&config(folder.path(), &sites)).token("t").start().await;
    Fixture { gate, folder, sites, shop, blog }
}

/// A connection that asks for `name`, and the certificate it was shown.
async fn connect(gate: &Gate, name: &str) -> (Client, Vec<u8>) {
    let config = Arc::new(tls::client_config(&["http/1.1"], rustls::ALL_VERSIONS));
    let stream = tls::connect_as(gate.addr(), name, config).await.unwrap();
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    (Client::over(stream, name), shown)
}

#[tokio::test]
async fn a_site_is_shown_its_certificate_by_the_name_that_is_asked_for() {
    let fixture = fixture().await;
    for (name, identity, site) in [
        ("shop.example", &fixture.shop, "shop"),
        ("a.shop.example", &fixture.shop, "shop"),
        ("blog.example", &fixture.blog, "blog"),
        // No name at all is sent for an address: the default's.
        ("127.0.0.1", &fixture.blog, "blog"),
    ] {
        let (mut client, shown) = connect(&fixture.gate, name).await;
        assert!(shown == identity.der, "{name}");
        let page = client.get("/page").await;
        assert!(page.text().starts_with(site), "{name}: {} {}", page.status, page.text());
        assert_eq!(client.get("/comet/news?timeout=0").await.status, 200, "{name}");
    }
    // One that no site has is shown the default's, and served nothing.
    let (mut client, shown) = connect(&fixture.gate, "other.example").await;
    assert!(shown == fixture.blog.der);
    assert_eq!(client.get("/page").await.status, 421);
}

#[tokio::test]
async fn a_host_that_the_certificate_does_not_name_is_421() {
    let fixture = fixture().await;
    for (name, host) in [
        ("shop.example", "blog.example"),
        ("blog.example", "shop.example"),
        ("blog.example", "a.shop.example"),
        ("127.0.0.1", "shop.example"),
        ("shop.example", "127.0.0.1"),
    ] {
        for target in ["/page", "/comet/news?timeout=0", "/pollgate.js"] {
            let (mut client, _) = connect(&fixture.gate, name).await;
            let response = client.request("GET", target, &[("Host", host)], b"").await;
            assert_eq!(response.status, 421, "{name} {host} {target}");
            let response = client.request("POST", target, &[("Host", host)], b"x").await;
            assert_eq!(response.status, 421, "{name} {host} {target}");
        }
    }
    let asked = fixture.sites.iter().map(|site| site.requests().len());
    assert_eq!(asked.collect::<Vec<_>>(), [0, 0]);
    // A connection is good for every host that its certificate names.
    let (mut client, _) = connect(&fixture.gate, "shop.example").await;
    let response = client.request("GET", "/page", &[("Host", "b.shop.example")], b"").await;
    assert!(response.text().starts_with("shop"));
    let response = client.request("GET", "/page", &[("Host", "both.example")], b"").await;
    assert!(response.text().starts_with("blog"), "the default's host, named by the certificate");
}

#[tokio::test]
async fn a_stream_of_http2_is_held_to_the_same() {
    let fixture = fixture().await;
    let config = Arc::new(tls::client_config(&["h2"], rustls::ALL_VERSIONS));
    let stream = tls::connect_as(fixture.gate.addr(), "shop.example", config).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for (host, status) in
        [("shop.example", 200), ("a.shop.example", 200), ("blog.example", 421), ("x.example", 421)]
    {
        for target in ["page", "comet/news?timeout=0"] {
            let request = http::Request::get(format!("https://{host}/{target}")).body(()).unwrap();
            let (answer, _) = sender.send_request(request, true).unwrap();
            let answer = tokio::time::timeout(support::BOUND, answer).await.unwrap().unwrap();
            assert_eq!(answer.status().as_u16(), status, "{host} {target}");
            sender = tokio::time::timeout(support::BOUND, sender.ready()).await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_from_the_reload_on() {
    let fixture = fixture().await;
    let (mut before, _) = connect(&fixture.gate, "shop.example").await;
    let renewed = Identity::of(&["shop.example", "*.shop.example"]);
    write(fixture.folder.path(), "shop", &renewed);
    let text = config(fixture.folder.path(), &fixture.sites);
    let reloaded = fixture.gate.reconfigure(&text).await;
    assert_eq!(reloaded["changed"], serde_json::json!(["site"]));
    let (mut after, shown) = connect(&fixture.gate, "shop.example").await;
    assert!(shown == renewed.der);
    assert_eq!(after.get("/page").await.status, 200);
    assert_eq!(before.get("/page").await.status, 200, "a connection keeps its certificate");
}

#[tokio::test]
async fn check_finds_a_certificate_that_does_not_name_its_hosts() {
    let folder = TempDir::new("certs");
    write(folder.path(), "shop", &Identity::of(&["shop.example"]));
    write(folder.path(), "blog", &Identity::of(&["blog.example"]));
    let sites = [PlainSite::named("shop").await, PlainSite::named("blog").await];
    let text = config(folder.path(), &sites);
    let file = folder.write("pollgate.toml", text).display().to_string();
    let run = pollgate(&["check", "--config", &file]).await;
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("does not name *.shop.example"), "{}", run.stderr);
    // Sites on one listener speak TLS all of them or none.
    let plain = "[publish]\ntoken = \"t\"\n[[site]]\nname = \"a\"\nhosts = [\"a\"]\n\
                 [site.upstream]\nservers = [\"127.0.0.1:1\"]\n";
    let blog = site(folder.path(), "blog", "hosts = [\"blog.example\"]", &sites[1]);
    let file = folder.write("plain.toml", format!("{plain}{blog}")).display().to_string();
    let run = pollgate(&["check", "--config", &file]).await;
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("site[0].tls: missing"), "{}", run.stderr);
}
