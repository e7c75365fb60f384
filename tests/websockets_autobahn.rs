//! Autobahn's cases: through the gate, which passes a WebSocket of the upstream unchanged, down to
//! the frames that break the protocol; against the gate's own reader and writer of frames, in an
//! echo that exists for this only; and against a socket that the gate serves itself, for a site
//! that echoes over GRIP.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use bytes::{Bytes, BytesMut};
use pollgate::protocol::grip::events::{self, Event, Kind};
use pollgate::protocol::http::websocket::{self, Incoming, Messages, Opcode};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::grip::{GripSite, grip_gate};
use support::{Addr, Gate, Process, TempDir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/pypi/bin");
const MISSING: &str = "the clients of PyPI are missing: run scripts/setup test (or: make test)";
const START: Duration = Duration::from_secs(20);
/// The longest message of the cases.
const MAX_MESSAGE: usize = 16 << 20;

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
    // The echo server fails 7.1.5 without a gate, too.
    suite(&gate.addr().to_string(), &["9.*", "7.1.5"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_frames_pass_all_cases() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    // Text that breaks in the middle of a frame is refused once the frame is whole.
    assert_eq!(suite(&addr.to_string(), &[]).await, ["6.4.3", "6.4.4"]);
    server.abort();
}

/// Serves one socket: each message goes back as it came.
async fn echo(mut stream: TcpStream) -> Option<()> {
    let mut pending = BytesMut::new();
    let end = loop {
        match pending.windows(4).position(|end| end == b"\r\n\r\n") {
            Some(end) => break end + 4,
            None => stream.read_buf(&mut pending).await.ok().filter(|length| *length > 0)?,
        };
    };
    let head = String::from_utf8(pending.split_to(end).into()).ok()?;
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    let mut keys = headers.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let accept = websocket::accept(keys.next()?.1)?;
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut messages = Messages::default();
    loop {
        let frame = match messages.next(&mut pending, MAX_MESSAGE) {
            Ok(None) => {
                stream.read_buf(&mut pending).await.ok().filter(|length| *length > 0)?;
                continue;
            }
            Ok(Some(Incoming::Text(text))) => websocket::frame(Opcode::Text, &text),
            Ok(Some(Incoming::Binary(bytes))) => websocket::frame(Opcode::Binary, &bytes),
            Ok(Some(Incoming::Ping(payload))) => websocket::frame(Opcode::Pong, &payload),
            Ok(Some(Incoming::Pong)) => continue,
            Ok(Some(Incoming::Close(payload))) => {
                let answer = match websocket::close_answer(&payload) {
                    Ok(_) => websocket::frame(Opcode::Close, payload.get(..2).unwrap_or_default()),
                    Err(code) => websocket::close(code, ""),
                };
                return finish(stream, &answer).await;
            }
            Err(code) => return finish(stream, &websocket::close(code, "")).await,
        };
        stream.write_all(&frame).await.ok()?;
    }
}

/// Sends the last frame, and reads on to the client's end: a reset would take it away.
async fn finish(mut stream: TcpStream, last: &[u8]) -> Option<()> {
    stream.write_all(last).await.ok()?;
    stream.shutdown().await.ok()?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok().map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_the_gate_serves_over_grip_passes_all_cases() {
    let site = GripSite::start(|request| {
        let asked = events::read(&Bytes::from(request.body.clone())).unwrap_or_default();
        // A DISCONNECT is answered with nothing, any other event with itself.
        let back: Vec<Event> =
            asked.into_iter().filter(|event| event.kind != Kind::Disconnect).collect();
        let body = events::write(&back);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/websocket-events\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), &body].concat()
    })
    .await;
    let gate = grip_gate(&site, "websocket = [\"/chat\"]\n").await;
    suite(&gate.addr().to_string(), &["9.*"]).await;
}

/// Runs the cases, but those of these names, against an echo at `addr`, and panics if one fails.
/// Returns those in which it acts later than it could.
/// 9 is about long messages, 12 and 13 about compression, which is never agreed on.
async fn suite(addr: &str, left_out: &[&str]) -> Vec<String> {
    let reports = TempDir::new("autobahn");
    let mut suite = Command::new(Path::new(PYTHON).join("kosoku"));
    suite.args(["-m", "fuzzingclient", "-p", "4", "-o"]).arg(reports.path());
    for left_out in ["12.*", "13.*"].iter().chain(left_out) {
        suite.args(["-x", left_out]);
    }
    let suite = Process::spawn("kosoku", suite.arg(format!("{addr}/chat")), MISSING);
    let status = suite.wait_for_exit().await;
    assert!(status.success(), "{}", suite.story());
    let report = std::fs::read_to_string(reports.path().join("index.json"));
    let report = report.unwrap_or_else(|e| panic!("{e}: {}", suite.story()));
    let report: Value = serde_json::from_str(&report).unwrap();
    let agents = report.as_object().unwrap().values();
    let cases: Vec<_> = agents.flat_map(|agent| agent.as_object().unwrap()).collect();
    let behavior = |wanted: &str| {
        let cases = cases.iter().filter(|(_, case)| case["behavior"] == wanted);
        cases.map(|(name, _)| name.as_str()).collect::<Vec<_>>()
    };
    assert!(behavior("OK").len() > 200, "{}", suite.story());
    let late = behavior("NON-STRICT");
    late.into_iter().map(str::to_owned).collect()
}
