//! Where the gate listens, and what it leaves there.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::net::TcpListener;
use std::path::Path;
use support::{Addr, Client, Gate, TempDir, eventually};

/// A port that is free on both wildcards at the time of asking.
fn free_port() -> u16 {
    TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn both_wildcards_share_a_port_on_the_public_and_the_internal_side() {
    let public = free_port();
    let internal = free_port();
    let [v4, v6] = [format!("0.0.0.0:{public}"), format!("[::]:{public}")];
    let [own4, own6] = [format!("0.0.0.0:{internal}"), format!("[::]:{internal}")];
    for order in [[&v4, &v6], [&v6, &v4]] {
        let gate = Gate::with("[publish]\ntoken = \"a-long-enough-token\"\n").alone();
        let gate = gate.token("a-long-enough-token").listen(order.map(|it| it.as_str()));
        let gate = gate.internal([&own6, &own4]).start().await;
        for host in ["127.0.0.1", "[::1]"] {
            for (port, path) in [(public, "/comet/a?timeout=0"), (internal, "/healthz")] {
                let at = format!("{host}:{port}").parse().unwrap();
                let tls = port == public && matches!(gate.addr(), Addr::Tls(_));
                let addr = if tls { Addr::Tls(at) } else { Addr::Tcp(at) };
                let answer = Client::connect(&addr).await.get(path).await;
                assert_eq!(answer.status, 200, "{host}:{port}");
            }
        }
        gate.signal("TERM");
        assert_eq!(gate.wait_for_exit().await, 0, "{}", gate.log());
    }
}

#[tokio::test]
async fn the_ipv6_wildcard_alone_leaves_ipv4_to_others() {
    let gate = Gate::with("").alone().listen(["[::]:0"]).start().await;
    let other = TcpListener::bind(("0.0.0.0", gate.addr().port()));
    assert!(other.is_ok(), "{other:?}");
}

fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

#[tokio::test]
async fn an_orderly_end_leaves_no_socket_file() {
    let folder = TempDir::new("sockets");
    let [public, internal] = ["gate.sock", "internal.sock"].map(|name| folder.path().join(name));
    let gate = Gate::with("").alone().listen([&unix(&public)]).internal([&unix(&internal)]);
    let gate = gate.start().await;
    assert!(public.exists() && internal.exists());
    gate.signal("TERM");
    assert_eq!(gate.wait_for_exit().await, 0);
    assert!(!public.exists() && !internal.exists(), "a socket file is left behind");
}

#[tokio::test]
async fn the_internal_socket_file_stays_until_the_last_poll_is_answered() {
    let folder = TempDir::new("sockets");
    let [public, internal] = ["gate.sock", "internal.sock"].map(|name| folder.path().join(name));
    let mut site = support::PlainSite::start_by_hand().await;
    let gate = Gate::with("").upstream(site.addr());
    let gate = gate.listen([&unix(&public)]).internal([&unix(&internal)]).start().await;
    let mut slow = gate.connect().await;
    slow.send_get("/elsewhere").await;
    let mut visit = site.visit().await;
    gate.signal("TERM");
    eventually("the public file is gone", async || !public.exists()).await;
    assert!(internal.exists());
    visit.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(slow.read_response().await.text(), "ok");
    assert_eq!(gate.wait_for_exit().await, 0);
    assert!(!internal.exists());
}

#[tokio::test]
async fn a_socket_file_that_another_process_has_put_there_stays() {
    let folder = TempDir::new("sockets");
    let path = folder.path().join("gate.sock");
    let gate = Gate::with("").alone().listen([&unix(&path)]).start().await;
    std::fs::remove_file(&path).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    gate.signal("TERM");
    assert_eq!(gate.wait_for_exit().await, 0);
    assert!(path.exists());
}

#[tokio::test]
async fn socket_files_go_on_with_a_successor() {
    let folder = TempDir::new("sockets");
    let [public, internal] = ["gate.sock", "internal.sock"].map(|name| folder.path().join(name));
    let meeting = folder.path().join("upgrade");
    let config = format!("[upgrade]\nsocket = \"{}\"\n", meeting.display());
    let plan = || {
        let plan = Gate::with(&config).alone().listen([&unix(&public)]);
        plan.internal([&unix(&internal)])
    };
    let old = plan().start().await;
    let new = plan().upgrade().start().await;
    assert_eq!(old.wait_for_exit().await, 0);
    assert!(public.exists() && internal.exists());
    assert_eq!(new.get("/comet/a?timeout=0").await.status, 200);
    new.signal("TERM");
    assert_eq!(new.wait_for_exit().await, 0);
    assert!(!public.exists() && !internal.exists());
}
