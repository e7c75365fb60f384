//! The limits that a gate has without a word in its config, and what `check` says of none.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::http2::Http2;
use support::{Gate, TempDir, pollgate};

async fn check(config: &str) -> support::Finished {
    let folder = TempDir::new("check");
    let file = folder.write("pollgate.toml", config);
    pollgate(&["check", "--config", file.to_str().unwrap()]).await
}

#[tokio::test]
async fn check_warns_of_a_public_listener_without_limits_by_address() {
    let none = "[limits]\nper_address = 0\nconnections_per_second = 0\nrequests_per_second = 0\n";
    let keys =
        ["limits.per_address", "limits.connections_per_second", "limits.requests_per_second"];
    let warned = |done: &support::Finished, key: &str| done.stderr.contains(&format!("{key}: 0"));
    for listen in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080"] {
        let listen = format!("listen = [\"127.0.0.1:8081\", \"{listen}\"]\n");
        let done = check(&format!("{listen}{none}")).await;
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert!(keys.iter().all(|key| warned(&done, key)), "{}", done.stderr);
        let done = check(&listen).await;
        assert!(!keys.iter().any(|key| warned(&done, key)), "{}", done.stderr);
    }
    for listen in ["127.0.0.1:8080", "[::1]:8080", "unix:/run/pollgate.sock"] {
        let done = check(&format!("listen = [\"{listen}\"]\n{none}")).await;
        assert!(!keys.iter().any(|key| warned(&done, key)), "{}", done.stderr);
    }
}

#[tokio::test]
async fn the_defaults_count_visitors_behind_a_trusted_proxy_and_no_proxy_that_is_not_named() {
    let unnamed = Gate::start_alone("").await;
    let named = Gate::start_alone("trusted_proxies = [\"127.0.0.1\"]\n").await;
    // As many as `limits.per_address` allows.
    const HELD: u64 = 1000;
    let visitor = [("X-Forwarded-For", "203.0.113.9")];
    let one_more = async |gate: &Gate| {
        let mut connections = Vec::new();
        for _ in 0..HELD / 100 {
            let mut connection = Http2::connect(gate.addr()).await;
            for _ in 0..100 {
                connection.ask("GET", "/comet/a", &visitor).await;
            }
            connections.push(connection);
        }
        gate.wait_for_held(HELD).await;
        let mut client = gate.connect().await;
        client.send("GET", "/comet/a?timeout=1", &visitor, b"").await;
        client.read_response().await.status
    };
    assert_eq!(one_more(&unnamed).await, 200);
    assert_eq!(one_more(&named).await, 429);
}
