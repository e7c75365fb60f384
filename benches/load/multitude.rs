//! HTTP/2 clients: connections with many held polls each, on one thread.
//!
//! Just enough of RFC 9113 to ask and to read: requests are written with the static table alone,
//! and of the answers only the frames are looked at.

use crate::crowd::connect;
use crate::message;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Polls on one connection: what servers allow at once by default.
pub(crate) const STREAMS: usize = 100;

/// The length of a frame's head (section 4.1).
const HEAD: usize = 9;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;

struct Connection {
    stream: TcpStream,
    /// The beginning of a frame that has not come whole.
    partial: Vec<u8>,
    /// The number of the next stream; odd, as a client's are.
    next: u32,
}

/// All connections.
pub(crate) struct Multitude {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    incoming: Box<[u8]>,
    /// Answers with the message that is waited for.
    pub(crate) answered: u64,
    /// Streams that were reset, and connections that were given up.
    pub(crate) failed: u64,
}

impl Multitude {
    /// Opens connections; nothing is asked on them yet.
    pub(crate) fn connect(to: SocketAddr, connections: usize) -> io::Result<Self> {
        let mut multitude = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            connections: Vec::new(),
            incoming: vec![0; 256 << 10].into_boxed_slice(),
            answered: 0,
            failed: 0,
        };
        for index in 0..connections {
            let mut stream = connect(to, index)?;
            stream.write_all(&preface())?;
            multitude.poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
            multitude.connections.push(Connection { stream, partial: Vec::new(), next: 1 });
            if index % 200 == 199 {
                multitude.run_for(Duration::from_millis(10))?;
            }
        }
        multitude.run_for(Duration::from_millis(500))?;
        Ok(multitude)
    }

    /// Sends [`STREAMS`] polls of `path` on each connection.
    pub(crate) fn poll(&mut self, path: &str) -> io::Result<()> {
        for index in 0..self.connections.len() {
            let connection = &mut self.connections[index];
            let mut requests = Vec::new();
            for _ in 0..STREAMS {
                requests.extend_from_slice(&get(connection.next, path));
                connection.next += 2;
            }
            write_all(&mut connection.stream, &requests)?;
            if index % 50 == 49 {
                self.turn(Duration::ZERO)?;
            }
        }
        Ok(())
    }

    /// Reads until `count` answers with a message have come, or `deadline`; true if they have.
    pub(crate) fn wait_for(&mut self, count: u64, deadline: Instant) -> io::Result<bool> {
        while self.answered < count {
            if Instant::now() > deadline {
                return Ok(false);
            }
            self.turn(Duration::from_millis(100))?;
        }
        Ok(true)
    }

    /// Reads whatever comes for a while.
    pub(crate) fn run_for(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(Duration::from_millis(10))?;
        }
        Ok(())
    }

    fn turn(&mut self, wait: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            let connection = &mut self.connections[event.token().0];
            loop {
                let length = match connection.stream.read(&mut self.incoming) {
                    Ok(0) => {
                        self.failed += 1;
                        break;
                    }
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                connection.partial.extend_from_slice(&self.incoming[..length]);
                let seen = connection.take_in()?;
                self.answered += seen.answered;
                self.failed += seen.failed;
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Seen {
    answered: u64,
    failed: u64,
}

impl Connection {
    /// Looks at all whole frames.
    fn take_in(&mut self) -> io::Result<Seen> {
        let mut seen = Seen::default();
        let bytes = std::mem::take(&mut self.partial);
        let mut rest = bytes.as_slice();
        while let Some((kind, flags, payload, after)) = frame(rest) {
            match (kind, flags) {
                (DATA, _) => seen.answered += message::numbers(payload).count() as u64,
                (HEADERS, flags) if flags & END_STREAM != 0 => seen.failed += 1,
                (RST_STREAM | GOAWAY, _) => seen.failed += 1,
                (SETTINGS, flags) if flags & ACK == 0 => {
                    write_all(&mut self.stream, &framed(SETTINGS, ACK, 0, &[]))?;
                }
                (PING, flags) if flags & ACK == 0 => {
                    write_all(&mut self.stream, &framed(PING, ACK, 0, payload))?;
                }
                _ => {}
            }
            rest = after;
        }
        // Nothing is kept allocated for a connection that has nothing to keep.
        if !rest.is_empty() {
            self.partial = rest.to_vec();
        }
        Ok(seen)
    }
}

/// The first frame: kind, flags, payload, and what follows it; `None` if it is not whole.
fn frame(bytes: &[u8]) -> Option<(u8, u8, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let (payload, after) = rest.split_at_checked(length)?;
    Some((head[3], head[4], payload, after))
}

fn framed(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A client's preface (section 3.4), and a window that no answer here fills.
fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&framed(SETTINGS, 0, 0, &[]));
    bytes.extend_from_slice(&framed(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()));
    bytes
}

/// A whole GET; names from the static table of RFC 7541, appendix A, values as they are.
fn get(stream: u32, path: &str) -> Vec<u8> {
    const METHOD_GET: u8 = 0x82;
    const SCHEME_HTTP: u8 = 0x86;
    const PATH: u8 = 0x04;
    const AUTHORITY: u8 = 0x01;
    let mut block = vec![METHOD_GET, SCHEME_HTTP];
    for (name, value) in [(PATH, path), (AUTHORITY, "bench")] {
        // Such short texts have their length in one byte.
        block.extend_from_slice(&[name, value.len() as u8]);
        block.extend_from_slice(value.as_bytes());
    }
    framed(HEADERS, END_STREAM | END_HEADERS, stream, &block)
}

/// Writes everything; the server takes it sooner or later.
fn write_all(stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
