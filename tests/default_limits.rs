//! The limits that a gate has without a word in its config, and what `check` says of none.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

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
    let visitor = [("X-Forwarded-For", "203.0.113.9")];
    let refused = async |gate: &Gate| {
        let mut client = gate.connect().await;
        for _ in 0..1500 {
            client.send("GET", "/comet/a?timeout=0", &visitor, b"").await;
        }
        let mut refused = 0;
        for _ in 0..1500 {
            refused += usize::from(client.read_response().await.status == 429);
        }
        refused
    };
    assert_eq!(refused(&unnamed).await, 0);
    assert!(refused(&named).await > 0);
}
