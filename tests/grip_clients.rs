//! GRIP's own libraries before a gate: django-grip and gripcontrol, serve-grip and @fanoutio/grip,
//! and PHP with none.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use support::php::free_port;
use support::socket::Socket;
use support::{Addr, BOUND, Gate, PhpSite, Process};

const CONFIG: &str = "[grip]\nenabled = true\nkey = \"secret\"\ncontrol_key = \"secret\"\n\
                      websocket = [\"/chat\"]\n";
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Publishes as a visitor of the site has it published.
async fn send(gate: &Gate, text: &str) {
    let answer = gate.connect().await.post("/send", "text/plain", text).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "Published\n"));
}

/// A poll, a stream and a socket of the site get what it publishes.
async fn works(gate: &Gate) {
    let mut poll = gate.connect().await;
    poll.send_get("/poll").await;
    gate.wait_for_held(1).await;
    send(gate, "hello\n").await;
    let answer = poll.read_response().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello\n"));

    let mut stream = gate.connect().await;
    stream.send_get("/stream").await;
    assert_eq!(stream.read_head().await.status, 200);
    assert_eq!(stream.read_chunk().await.unwrap(), b"begin\n");
    gate.wait_for_held(1).await;
    send(gate, "more\n").await;
    assert_eq!(stream.read_chunk().await.unwrap(), b"more\n");
    stream.close();

    let mut socket = Socket::open(gate, "/chat", &[]).await;
    socket.send(0x81, "grüße".as_bytes()).await;
    assert_eq!(socket.text().await, "echo grüße");
    send(gate, "to all").await;
    assert_eq!(socket.text().await, "to all");
    socket.send(0x88, b"\x03\xe8").await;
    assert_eq!(socket.closed().await.0, 1000);
    gate.wait_for_held(0).await;
}

/// A site that is started with its port and the gate's internal address.
async fn started(mut command: Command, missing: &str) -> (Gate, Process) {
    let port = free_port();
    let addr = Addr::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let gate = Gate::start_before(&addr, CONFIG).await;
    command.arg(port.to_string()).arg(gate.internal().url("").trim_end_matches('/'));
    command.arg(format!("{ROOT}/target/npm/node_modules"));
    let site = Process::spawn("site", &mut command, missing);
    let listens = |_: &str, log: &str| log.contains("listening").then_some(());
    site.wait_for_output("a listening site", BOUND * 3, listens).await;
    (gate, site)
}

#[tokio::test]
async fn a_site_of_plain_php_runs_behind_the_gate() {
    let mut site = PhpSite::of("grip");
    let gate = Gate::start_before(site.addr(), CONFIG).await;
    site.workers(2).env("POLLGATE_HOOK", gate.internal().url("").trim_end_matches('/'));
    site.start().await;
    works(&gate).await;
}

#[tokio::test]
async fn a_site_with_django_grip_and_gripcontrol_runs_behind_the_gate() {
    let mut command = Command::new(format!("{ROOT}/target/pypi/bin/python"));
    command.arg(format!("{ROOT}/tests/sites/grip/site.py"));
    let (gate, _site) = started(command, "run scripts/setup test (or: make test)").await;
    works(&gate).await;
}

#[tokio::test]
async fn a_site_with_serve_grip_runs_behind_the_gate() {
    let mut command = Command::new("node");
    command.arg(format!("{ROOT}/tests/sites/grip/site.mjs"));
    let (gate, _site) = started(command, "run scripts/setup test (or: make test)").await;
    works(&gate).await;
}
