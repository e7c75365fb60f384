//! Autobahn's cases through the gate: a WebSocket of the upstream passes it unchanged, down to the
//! frames that break the protocol.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::{Addr, Gate, Process, TempDir};

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/pypi/bin");
const MISSING: &str = "the clients of PyPI are missing: run scripts/setup test (or: make test)";
const START: Duration = Duration::from_secs(20);

/// Sends each message back, and prints its port.
const ECHO: &str = "
import asyncio, logging
from websockets.asyncio.server import serve

logging.disable()

async def echo(socket):
    async for message in socket:
        await socket.send(message)

async def main():
    async with serve(echo, '127.0.0.1', 0, compression=None, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()

asyncio.run(main())
";

#[tokio::test]
async fn a_websocket_of_the_upstream_passes_the_gate_unchanged() {
    let mut python = Command::new(Path::new(PYTHON).join("python"));
    let echo = Process::spawn("the echo server", python.args(["-c", ECHO]), MISSING);
    let port = |stdout: &str, _: &str| stdout.trim().parse::<u16>().ok();
    let port = echo.wait_for_output("the port of the echo server", START, port).await;
    let upstream = Addr::Tcp(([127, 0, 0, 1], port).into());
    let gate = Gate::start_before(&upstream, "").await;
    let Addr::Tcp(addr) = gate.addr() else { panic!("the gate listens on TCP") };
    let reports = TempDir::new("autobahn");
    // 9 are figures of speed, 12 and 13 are compression, which this server does not offer, and it
    // fails 7.1.5 without a gate, too.
    let mut suite = Command::new(Path::new(PYTHON).join("kosoku"));
    suite.args(["-m", "fuzzingclient", "-p", "4", "-o"]).arg(reports.path());
    for left_out in ["9.*", "12.*", "13.*", "7.1.5"] {
        suite.args(["-x", left_out]);
    }
    let suite = Process::spawn("kosoku", suite.arg(format!("{addr}/chat")), MISSING);
    let status = suite.wait_for_exit().await;
    assert!(status.success(), "{}", suite.story());
    let report = std::fs::read_to_string(reports.path().join("index.json"));
    let report = report.unwrap_or_else(|e| panic!("{e}: {}", suite.story()));
    let cases = report.matches("\"behavior\"").count();
    assert!(cases > 200, "{cases} cases only: {}", suite.story());
}
