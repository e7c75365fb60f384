//! The measured servers: each contestant as its makers mean it to be run, started by the bench on
//! free ports with a config made for the purpose, and ended by it.

mod floor;
mod nginx;
mod php;
mod pollgate;
mod process;
mod pushpin;

pub(crate) use process::{Place, Running};

use crate::crowd::Cursor;
use crate::http::Answer;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// The transport of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Carrier {
    EventStream,
    WebSocket,
}

impl Carrier {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EventStream => "one publish to event streams",
            Self::WebSocket => "one publish to WebSockets",
        }
    }

    /// The headers by which a request asks for it.
    fn headers(self) -> &'static str {
        match self {
            Self::EventStream => "Accept: text/event-stream\r\n",
            Self::WebSocket => {
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: c2l4dGVlbiBieXRlcy4uLg==\r\n"
            }
        }
    }
}

/// Protocol of a contestant.
pub(crate) trait Wire: Send + Sync {
    /// Address for polls.
    fn public(&self) -> SocketAddr;

    /// Appends a poll on a channel for what comes after `cursor`; empty = from now on.
    fn poll(&self, channel: u32, cursor: &[u8], out: &mut Vec<u8>);

    /// Appends the request for a stream on a channel, from now on.
    fn stream(&self, _carrier: Carrier, _channel: u32, _out: &mut Vec<u8>) {}

    /// Requests that publish message `seq` of a channel, made one after the other. The measures
    /// time the last one.
    fn publish(&self, channel: u32, seq: u64) -> Vec<Step>;

    /// Takes the cursor of the next poll from an answer.
    fn cursor(&self, answer: &Answer<'_>, cursor: &mut Cursor);
}

/// One request of a publish.
pub(crate) struct Step {
    pub(crate) to: SocketAddr,
    pub(crate) request: Vec<u8>,
}

/// The measures that a contestant can take part in.
#[derive(Clone, Copy)]
pub(crate) struct Abilities {
    /// Polls it can hold at once; 0 = it holds none.
    pub(crate) polls: usize,
    /// Reason of that bound.
    pub(crate) bound: &'static str,
    /// Connections a second that it can take in.
    pub(crate) pace: usize,
    /// It is never quiet: its workers look for news again and again.
    pub(crate) restless: bool,
    /// It forwards to a site what is no poll.
    pub(crate) forwards: bool,
    /// It keeps what is published between two polls of a client.
    pub(crate) keeps: bool,
    /// It holds polls on HTTP/2 streams, without TLS.
    pub(crate) http2: bool,
    /// It has event streams and WebSockets.
    pub(crate) streams: bool,
    /// It is another one with a setting that costs CPU, and takes part where that is measured.
    pub(crate) is_variant: bool,
}

impl Abilities {
    const ALL: Self = Self {
        polls: usize::MAX,
        bound: "",
        pace: 20_000,
        restless: false,
        forwards: true,
        keeps: true,
        http2: false,
        streams: false,
        is_variant: false,
    };

    /// It takes milliseconds for what takes the others microseconds: it gets less to do, and only
    /// in the first round.
    pub(crate) fn is_slow(&self) -> bool {
        self.pace < 1000
    }
}

/// One contestant.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    /// One line for the method: program and version, how it is run.
    pub(crate) about: String,
    pub(crate) abilities: Abilities,
    /// Reason why it cannot take part.
    pub(crate) missing: Option<String>,
    start: fn(Place) -> io::Result<Running>,
}

impl Contestant {
    /// Starts it and waits until it answers.
    pub(crate) fn start(&self, settings: &Settings) -> io::Result<Running> {
        (self.start)(Place::new(self.name, settings)?)
            .map_err(|error| io::Error::other(format!("{}: {error}", self.name)))
    }
}

/// Settings shared by all of them.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The `pollgate` to measure.
    pub(crate) pollgate: std::path::PathBuf,
    /// Further `--set` of pollgate.
    pub(crate) set: Vec<String>,
    /// Threads of pollgate's public side, workers of nginx.
    pub(crate) workers: usize,
}

/// All contestants, installed or not, in the order of the table.
pub(crate) fn all(settings: &Settings) -> Vec<Contestant> {
    vec![
        pollgate::contestant(settings),
        pollgate::with_log(settings),
        nginx::nchan(),
        nginx::nchan_with_log(),
        pushpin::contestant(),
        php::contestant(),
        nginx::proxy(),
        floor::contestant(),
    ]
}

/// The first of `paths` that exists.
fn installed<'a>(paths: &[&'a str]) -> Option<&'a str> {
    paths.iter().find(|path| Path::new(path).exists()).copied()
}

/// The first line that a program prints, for the method.
fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output();
    let Ok(output) = output else { return program.to_owned() };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or(program).to_owned()
}

/// Appends a GET as a small client sends it.
fn get(target: std::fmt::Arguments<'_>, headers: &str, out: &mut Vec<u8>) {
    use io::Write;
    // A Vec takes every write.
    let _ = write!(
        out,
        "GET {target} HTTP/1.1\r\nHost: bench\r\nUser-Agent: load\r\nAccept: */*\r\n{headers}\r\n"
    );
}

/// Appends a GET for a stream.
fn get_stream(target: std::fmt::Arguments<'_>, carrier: Carrier, out: &mut Vec<u8>) {
    use io::Write;
    let headers = carrier.headers();
    // A Vec takes every write.
    let _ =
        write!(out, "GET {target} HTTP/1.1\r\nHost: bench\r\nUser-Agent: load\r\n{headers}\r\n");
}

/// A POST with a body.
fn post(target: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// A cursor as text; all contestants' cursors are.
fn text(cursor: &[u8]) -> &str {
    std::str::from_utf8(cursor).unwrap_or_default()
}
