//! Gates that share their channels over Redis Cluster: a node that fails takes its channels along
//! and no others, and those that move lose nothing.
//!
//! Every test makes a real cluster on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backplane {
    pub(crate) mod cluster;
    #[allow(dead_code)]
    pub(crate) mod crowd;
    #[allow(dead_code)]
    pub(crate) mod gates;
    #[allow(dead_code)]
    pub(crate) mod redis;
}
mod support;

use backplane::cluster::RedisCluster;
use backplane::crowd::{Crowd, Told};
use backplane::gates::{MESSAGES, gate, gates, unready, wait_for_backplane};
use backplane::redis::free_port;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::{Gate, TempDir, eventually};

/// On all three nodes; the crowd's channels are c0 to c8.
const CHANNELS: usize = 9;

/// The clients' results while `fault` happened between the publishes.
async fn through(gates: &[Gate], clients: usize, fault: impl AsyncFnOnce()) -> Told {
    let mut crowd = Crowd::new(gates, clients, CHANNELS);
    crowd.publish(MESSAGES / 4).await;
    crowd.publish_during(MESSAGES / 2, fault).await;
    crowd.publish(MESSAGES / 4).await;
    let told = crowd.finish().await;
    println!("{told:?}");
    told
}

/// A channel of the crowd's at each of three nodes.
fn one_each(cluster: &RedisCluster) -> [String; 3] {
    [0, 1, 2].map(|node| {
        let mut names = (0..CHANNELS).map(|number| format!("c{number}"));
        names.find(|name| cluster.node_of(name) == node).expect("a channel at each node")
    })
}

#[tokio::test]
async fn clients_at_random_gates_get_everything_once_and_in_order_from_all_nodes() {
    let cluster = RedisCluster::start(0).await;
    one_each(&cluster);
    // One of the nodes that are named is enough.
    let url = format!("redis-cluster://127.0.0.1:{},{}", free_port(), &cluster.url()[16..]);
    let gates = gates(&url).await;
    let told = through(&gates, 90, async || {}).await;
    assert_eq!((told.resets, told.messages), (0, 90 * MESSAGES as u64), "{told:?}");
    for node in &cluster.nodes {
        assert_ne!(node.ask(&["DBSIZE"]), "0");
    }
}

#[tokio::test]
async fn a_node_that_is_away_takes_its_channels_along_and_no_others() {
    let mut cluster = RedisCluster::start(0).await;
    let [_, lost, kept] = one_each(&cluster);
    let gate = gate(&cluster.url()).await;
    let mut client = gate.connect().await;
    for channel in [&lost, &kept] {
        gate.publish(channel, "before").await;
        gate.get(&format!("/comet/{channel}?cursor=oldest")).await;
    }
    let port = cluster.nodes[1].port().to_string();
    cluster.nodes[1].kill();
    let named = async || unready(&gate).await.iter().any(|reason| reason.contains(&port));
    eventually("a gate that names the node", named).await;
    let began = Instant::now();
    let answer = gate.hook("POST", &format!("/channels/{lost}"), &[], "x").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains(&port) && began.elapsed() < Duration::from_secs(2));
    client.send_get(&format!("/comet/{kept}")).await;
    gate.wait_for_held(1).await;
    gate.publish(&kept, "meanwhile").await;
    assert_eq!(client.read_response().await.json()["messages"][0]["data"], "meanwhile");
    let metrics = gate.hook("GET", "/metrics", &[], "").await.text();
    assert!(metrics.contains("pollgate_backplane_up 0"), "{metrics}");
    cluster.nodes[1].restart().await;
    wait_for_backplane(&gate).await;
    gate.publish(&lost, "after").await;
    let metrics = gate.hook("GET", "/metrics", &[], "").await.text();
    assert!(metrics.contains("pollgate_backplane_up 1"), "{metrics}");
}

#[tokio::test]
async fn a_node_that_is_killed_and_comes_back_empty_resets_its_channels_alone() {
    let mut cluster = RedisCluster::start(0).await;
    let gates = gates(&cluster.url()).await;
    let told = through(&gates, 45, async || {
        cluster.nodes[1].kill();
        cluster.nodes[1].restart().await;
    })
    .await;
    assert!(told.resets > 0, "its history was gone");
}

#[tokio::test]
async fn slots_that_move_between_nodes_lose_nothing_and_reset_nobody() {
    let cluster = RedisCluster::start(0).await;
    let gates = gates(&cluster.url()).await;
    let channels: Vec<_> = (0..CHANNELS).map(|number| format!("c{number}")).collect();
    let told = through(&gates, 45, async || {
        // There, on, and home again.
        for (step, channel) in channels.iter().chain(&channels).chain(&channels).enumerate() {
            let from = cluster.node_of(channel) + step / CHANNELS;
            cluster.migrate(channel, from % 3, (from + 1) % 3);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!((told.resets, told.messages), (0, 45 * MESSAGES as u64), "{told:?}");
    for gate in &gates {
        assert!(unready(gate).await.is_empty());
    }
}

#[tokio::test]
async fn a_poll_on_a_channel_that_nobody_has_published_to_moves_along() {
    let cluster = RedisCluster::start(0).await;
    let (gate, other) = (gate(&cluster.url()).await, gate(&cluster.url()).await);
    let quiet = gate.get("/comet/c1?timeout=0").await.json();
    let cursor = quiet["cursor"].as_str().unwrap().to_owned();
    let mut client = gate.connect().await;
    client.send_get(&format!("/comet/c1?cursor={cursor}")).await;
    gate.wait_for_held(1).await;
    let from = cluster.node_of("c1");
    cluster.migrate("c1", from, (from + 1) % 3);
    let published = other.publish("c1", "hello").await;
    let answer = client.read_response().await.json();
    assert_eq!(answer["messages"][0]["id"], published["id"], "{answer}");
    assert!(answer["reset"].is_null(), "{answer}");
}

#[tokio::test]
async fn a_replica_that_takes_over_resets_or_loses_nothing() {
    let mut cluster = RedisCluster::start(2).await;
    let gates = gates(&cluster.url()).await;
    let told = through(&gates, 45, async || {
        // One is asked to, the other has to.
        assert_eq!(cluster.nodes[3].ask(&["CLUSTER", "FAILOVER"]), "OK");
        cluster.nodes[1].kill();
        let promoted = async || cluster.nodes[4].ask(&["ROLE"]).starts_with("master");
        eventually("a replica that takes over", promoted).await;
    })
    .await;
    assert!(told.resets > 0, "another server gives the positions");
    for gate in &gates {
        wait_for_backplane(gate).await;
    }
}

#[tokio::test]
async fn a_request_with_messages_for_many_nodes_is_answered_in_its_order() {
    let mut cluster = RedisCluster::start(0).await;
    let gate = gate(&cluster.url()).await;
    let post = |number: usize| json!({"channel": format!("c{}", number % 9), "data": number});
    let body = Value::Array((0..27).map(post).collect()).to_string();
    let json = ("Content-Type", "application/json");
    let answer = gate.hook("POST", "/publish", &[json], &body).await.json();
    for (number, one) in answer.as_array().unwrap().iter().enumerate() {
        assert_eq!(one["channel"], format!("c{}", number % 9), "{answer}");
        let seq = one["id"].as_str().unwrap().rsplit('-').next().unwrap().to_owned();
        assert_eq!(seq, (number / 9 + 1).to_string(), "{answer}");
    }
    // Some are published and others are not: the repetition publishes the others.
    let port = cluster.nodes[2].port().to_string();
    cluster.nodes[2].kill();
    let named = async || unready(&gate).await.iter().any(|reason| reason.contains(&port));
    eventually("a gate that names the node", named).await;
    let failed = gate.hook("POST", "/publish", &[json], &body).await;
    assert_eq!(failed.status, 503);
    assert!(failed.text().contains("unknown"), "{}", failed.text());
    let key = failed.header("Idempotency-Key").expect("a key was made").to_owned();
    cluster.nodes[2].restart().await;
    wait_for_backplane(&gate).await;
    let headers = [json, ("Idempotency-Key", key.as_str())];
    let again = gate.hook("POST", "/publish", &headers, &body).await;
    assert_eq!(again.status, 200, "{}", again.text());
    let [kept, _, _] = one_each(&cluster);
    let kept = gate.get(&format!("/comet/{kept}?cursor=oldest&timeout=0")).await.json();
    assert_eq!(kept["messages"].as_array().unwrap().len(), 6, "{kept}");
}

#[tokio::test]
async fn php_publishes_straight_into_the_cluster_as_the_page_says() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/backplane.md")).unwrap();
    let mut blocks = page.split("```php\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let function = blocks.next().unwrap();
    let use_it = blocks.next().unwrap();
    let function = function.split("$redis = new Redis();").next().unwrap();
    let folder = TempDir::new("php");
    let script = folder.write("publish.php", format!("{function}{use_it}"));
    folder.write(
        "publish.lua",
        std::fs::read(root.join("src/server/backplane/scripts/publish.lua")).unwrap(),
    );
    let cluster = RedisCluster::start(0).await;
    let gate = gate(&cluster.url()).await;
    for (channel, text) in one_each(&cluster).iter().zip(["from PHP, é", "two", "three"]) {
        let mut client = gate.connect().await;
        gate.publish(channel, "from the hook").await;
        client.send_get(&format!("/comet/{channel}")).await;
        gate.wait_for_held(1).await;
        let mut php = std::process::Command::new("php");
        php.arg(&script).args([&cluster.nodes[0].port().to_string(), channel, text]);
        let done = php.output().expect("PHP is missing: apt-get install php-cli php-redis");
        let printed = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{printed}{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(printed.split(' ').nth(1), Some("2"), "{printed}");
        assert_eq!(client.read_response().await.json()["messages"][0]["data"], text);
    }
}

#[tokio::test]
async fn a_slot_that_stays_between_two_nodes_is_told_and_nothing_is_published_twice() {
    let cluster = RedisCluster::start(0).await;
    let gate = gate(&cluster.url()).await;
    let from = cluster.node_of("c1");
    cluster.begin_migration("c1", from, (from + 1) % 3);
    let refused = gate.hook("POST", "/channels/c1", &[], "x").await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("moving the channel"), "{}", refused.text());
    cluster.migrate("c1", from, (from + 1) % 3);
    gate.publish("c1", "x").await;
    let kept = gate.get("/comet/c1?cursor=oldest&timeout=0").await.json();
    assert_eq!(kept["messages"].as_array().unwrap().len(), 1, "{kept}");
}

#[tokio::test]
async fn a_slot_that_nobody_has_is_named_and_who_has_it_afterwards_begins_anew() {
    let cluster = RedisCluster::start(0).await;
    let gate = gate(&cluster.url()).await;
    let before = gate.publish("c1", "before").await["id"].clone();
    let slot = cluster.slot_of("c1");
    for node in &cluster.nodes {
        assert_eq!(node.ask(&["CLUSTER", "DELSLOTS", &slot]), "OK");
    }
    let named = format!("slot {slot}");
    let told = async || unready(&gate).await.iter().any(|reason| reason.contains(&named));
    eventually("a word about the slot", told).await;
    let refused = gate.hook("POST", "/channels/c1", &[], "x").await;
    assert!(refused.status == 503 && refused.text().contains(&named), "{}", refused.text());
    let node = &cluster.nodes[cluster.node_of("c1")];
    assert_eq!(node.ask(&["CLUSTER", "ADDSLOTS", &slot]), "OK");
    wait_for_backplane(&gate).await;
    // Another gate may have changed it meanwhile.
    gate.publish("c1", "after").await;
    let path = format!("/comet/c1?timeout=0&cursor={}", before.as_str().unwrap());
    let answer = gate.get(&path).await.json();
    let answer = match answer["reset"].is_null() {
        // It had not been read yet.
        true => gate.get(&path.replace("timeout=0", "timeout=10")).await.json(),
        false => answer,
    };
    assert_eq!((&answer["reset"], &answer["messages"][0]["data"]), (&true.into(), &"after".into()));
}

#[tokio::test]
async fn a_server_that_is_no_cluster_is_told_and_so_is_a_node_that_is_taken_for_one_server() {
    let lone = backplane::redis::Redis::start().await;
    let cluster = RedisCluster::start(0).await;
    for (url, word) in [
        (lone.url().replace("redis://", "redis-cluster://"), "write redis:// and one server"),
        (cluster.url().replace("redis-cluster://", "redis://"), "write redis-cluster://"),
    ] {
        let gate = Gate::start_alone(&backplane::gates::config(&url)).await;
        let told = async || unready(&gate).await.iter().any(|reason| reason.contains(word));
        eventually("a word about it", told).await;
    }
}
