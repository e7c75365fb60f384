//! Connections to Redis: over TLS, and to the address that the sentinels name.
//!
//! Every test starts the real `redis-server`, also as its own sentinel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backplane {
    pub(crate) mod authority;
    #[allow(dead_code)]
    pub(crate) mod crowd;
    #[allow(dead_code)]
    pub(crate) mod gates;
    #[allow(dead_code)]
    pub(crate) mod redis;
    pub(crate) mod sentinels;
}
mod support;

use backplane::authority::Authority;
use backplane::gates::{gate, gates, through, unready, wait_for_backplane};
use backplane::redis::{Redis, free_port};
use backplane::sentinels::{MASTER, Sentinel, Set};
use pollgate::hub::Hub;
use pollgate::protocol::auth::secret::Secret;
use pollgate::server::backplane::{Backplane, Settings};
use pollgate::server::net::certificate::Identity;
use pollgate::server::net::tls_client::TlsClient;
use pollgate::server::publish::system_time;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Gate, eventually, eventually_some};

/// Bound on the report of a failure: a server's timeout, and some.
const TOLD: Duration = Duration::from_secs(20);

/// A backplane with these settings, at work.
fn plane(settings: &Settings) -> Backplane {
    let (origin, wants) = pollgate::server::backplane::wants();
    let hub = Hub::replica(pollgate::hub::Settings::default(), 1, origin);
    let plane = Backplane::new(settings, hub, wants, system_time);
    let running = plane.clone();
    tokio::spawn(async move { running.run(Arc::new(|wake, _| drop(wake))).await });
    plane
}

fn settings(url: &str) -> Settings {
    Settings::new(url.parse().unwrap(), "pg".to_owned())
}

/// Waits until the backplane at `url` is ready, or returns the reason why it is not.
async fn outcome(settings: &Settings) -> String {
    let plane = plane(settings);
    let told = async || {
        let reasons = plane.unready();
        let told = reasons.iter().all(|reason| !reason.contains("not connected yet"));
        told.then(|| reasons.join("; "))
    };
    eventually_some("a word from the backplane", TOLD, told).await
}

async fn redis_with_tls(authority: &Authority, name: &str, more: &[&str]) -> (Redis, u16) {
    let port = free_port();
    let options = authority.options(port, name);
    let options: Vec<_> = options.iter().map(String::as_str).chain(more.iter().copied()).collect();
    (Redis::start_with(&options).await, port)
}

#[tokio::test]
async fn gates_share_their_channels_over_tls_and_with_a_certificate_of_their_own() {
    let authority = Authority::new();
    let (_redis, port) = redis_with_tls(&authority, "localhost", &[]).await;
    let own = authority.sign("gate");
    let config = format!(
        "[backplane]\nredis = \"rediss://localhost:{port}\"\nca = {:?}\ncert = {:?}\nkey = {:?}\n",
        authority.ca(),
        own.cert,
        own.key
    );
    let a = Gate::start_alone(&config).await;
    let b = Gate::start_alone(&config).await;
    wait_for_backplane(&a).await;
    wait_for_backplane(&b).await;
    let mut client = a.connect().await;
    a.get("/comet/news?timeout=0").await;
    client.send_get("/comet/news").await;
    a.wait_for_held(1).await;
    b.publish("news", "hello").await;
    assert_eq!(client.read_response().await.json()["messages"][0]["data"], "hello");
}

#[tokio::test]
async fn what_is_wrong_with_tls_is_told_in_words_that_help() {
    let authority = Authority::new();
    let other = Authority::new();
    let (plain, wrong_name) =
        redis_with_tls(&authority, "redis.test", &["--tls-auth-clients", "no"]).await;
    let (_asks, asks) = redis_with_tls(&authority, "localhost", &[]).await;
    let trusted = |ca: &Authority| Some(TlsClient::new(Some(ca.ca()), None).unwrap());
    let stranger = other.sign("gate");
    let stranger = Identity::read(&stranger.cert, &stranger.key).unwrap();
    let stranger = Some(TlsClient::new(Some(authority.ca()), Some(&stranger)).unwrap());
    for (port, tls, told) in [
        (wrong_name, trusted(&authority), "is not for localhost, only for redis.test"),
        (wrong_name, trusted(&other), "signed by nobody we trust"),
        (wrong_name, Some(TlsClient::new(None, None).unwrap()), "signed by nobody we trust"),
        (plain.port(), trusted(&authority), "does it speak TLS there?"),
        (asks, trusted(&authority), "set backplane.cert and backplane.key"),
        (asks, stranger, "does not take our certificate"),
        (wrong_name, None, "rediss"),
    ] {
        let scheme = if tls.is_some() { "rediss" } else { "redis" };
        let settings = Settings { tls, ..settings(&format!("{scheme}://localhost:{port}")) };
        let found = outcome(&settings).await;
        println!("{found}");
        assert!(found.contains(told), "{told}: {found}");
    }
}

#[tokio::test]
async fn sentinels_are_asked_in_turn_with_their_own_password_and_over_tls() {
    let authority = Authority::new();
    let (redis, port) =
        redis_with_tls(&authority, "localhost", &["--requirepass", "hunter2"]).await;
    let mut lines = authority.options(free_port(), "localhost");
    let own: u16 = lines[1].parse().unwrap();
    let lines = lines.chunks_mut(2).map(|pair| format!("{} {}\n", &pair[0][2..], pair[1]));
    let lines: String = lines.collect();
    let lines = format!(
        "{lines}requirepass watch\nsentinel resolve-hostnames yes\nsentinel announce-hostnames yes\n\
         tls-replication yes\n"
    );
    let sentinel = Sentinel::start("localhost", port, 1, &lines).await;
    let own_cert = authority.sign("gate");
    let identity = Identity::read(&own_cert.cert, &own_cert.key).unwrap();
    let with = |url: &str, password: &str| Settings {
        tls: Some(TlsClient::new(Some(authority.ca()), Some(&identity)).unwrap()),
        sentinel_password: Secret::new(password),
        ..settings(url)
    };
    let nobody = free_port();
    let url =
        |name| format!("rediss-sentinel://:hunter2@localhost:{nobody},localhost:{own}/{name}");
    eventually_some("a backplane", TOLD, async || {
        outcome(&with(&url(MASTER), "watch")).await.is_empty().then_some(())
    })
    .await;
    for (name, password, told) in [
        ("other", "watch", "it knows no master \"other\""),
        (MASTER, "", "set backplane.sentinel_password"),
        (MASTER, "wrong1", "assword"),
    ] {
        let found = outcome(&with(&url(name), password)).await;
        println!("{found}");
        assert!(found.contains(told) && found.contains("cannot connect"), "{told}: {found}");
        assert!(!found.contains("hunter2") && !found.contains("wrong1"), "{found}");
    }
    drop((redis, sentinel));
}

#[tokio::test]
async fn a_failover_resets_and_loses_nothing_silently_while_publishes_fail_at_once() {
    let mut set = Set::start().await;
    let gates = gates(&set.url()).await;
    let fault = async || {
        set.master.kill();
        eventually("a gate that has noticed", async || !unready(&gates[0]).await.is_empty()).await;
        let began = Instant::now();
        let answer = gates[0].hook("POST", "/channels/other", &[], "x").await;
        // The sentinels may have been faster.
        if answer.status != 200 {
            assert_eq!(answer.status, 503, "{}", answer.text());
            // The connection that publishes may not have noticed yet.
            let told = ["away", "whether the message was published is unknown"];
            let text = answer.text();
            assert!(told.iter().any(|told| text.contains(told)), "{text}");
        }
        assert!(began.elapsed() < Duration::from_secs(2));
        // One of them may be gone, too.
        set.sentinels[0].kill();
        set.sentinels.remove(0);
        set.fail_over().await;
    };
    assert!(through(&gates, 60, fault).await > 0, "the new master begins new epochs");
}

#[tokio::test]
async fn a_master_that_comes_back_from_a_pause_as_master_makes_no_silent_hole() {
    let set = Set::start().await;
    let gates = gates(&set.url()).await;
    let fault = async || {
        let stopped = set.master.pause();
        set.fail_over().await;
        drop(stopped);
        let demoted = async || {
            let role = set.master.ask(&["ROLE"]);
            role.starts_with("slave").then_some(())
        };
        eventually_some("the old master to be told", Duration::from_secs(30), demoted).await;
    };
    assert!(through(&gates, 60, fault).await > 0);
}

#[tokio::test]
async fn a_gate_follows_a_master_that_was_moved_on_purpose() {
    let set = Set::start().await;
    let gate = gate(&set.url()).await;
    gate.publish("news", "before").await;
    assert_eq!(set.sentinels[0].ask(&["SENTINEL", "FAILOVER", MASTER]), "OK");
    set.fail_over().await;
    let moved =
        async || gate.log().contains(&format!("127.0.0.1:{}", set.replica.port())).then_some(());
    eventually_some("the gate to follow", Duration::from_secs(30), moved).await;
    wait_for_backplane(&gate).await;
    gate.publish("news", "after").await;
    let kept = gate.get("/comet/news?cursor=oldest&timeout=0").await.json();
    assert_eq!(kept["messages"].as_array().unwrap().last().unwrap()["data"], "after");
}
