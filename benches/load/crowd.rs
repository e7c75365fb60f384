//! The clients: any number of long-polling connections on one thread.
//!
//! A client is a socket, its cursor and what it has seen; request and answer go through buffers
//! that all share. Connections come from several loopback addresses, so that ports do not run out.

use crate::contestant::Wire;
use crate::http::{self, Answer};
use crate::message;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use smallvec::SmallVec;
use socket2::{Domain, Socket, Type};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Text that a client sends to get the next messages; empty at first.
pub(crate) type Cursor = SmallVec<[u8; 48]>;

/// Time at which an answered client polls again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    AtOnce,
    /// At a call of [`Crowd::poll_again`].
    Later,
}

/// Results of all clients.
#[derive(Default, Clone, Copy, Debug)]
pub(crate) struct SharedMetrics {
    /// Answers that brought a message.
    pub(crate) answered: u64,
    pub(crate) messages: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) misordered: u64,
    /// Answers with an error status, and connections that the server closed.
    pub(crate) failed: u64,
}

struct Client {
    stream: Option<TcpStream>,
    channel: u32,
    cursor: Cursor,
    /// The newest message seen; 0 = none yet.
    newest: u64,
    /// Messages that were skipped, and may still come too late.
    gaps: Vec<u64>,
    /// The beginning of an answer that has not come whole.
    partial: Vec<u8>,
    polling: bool,
}

/// Takes turns, each of which waits for the time given at the most, until `done` or `deadline`; true
/// if it was done.
pub(crate) fn run_until<T>(
    clients: &mut T,
    deadline: Instant,
    done: impl Fn(&T) -> bool,
    turn: impl Fn(&mut T, Duration) -> io::Result<()>,
) -> io::Result<bool> {
    while !done(clients) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        turn(clients, left.min(Duration::from_millis(10)))?;
    }
    Ok(true)
}

pub(crate) struct Crowd {
    wire: Arc<dyn Wire>,
    poll: Poll,
    events: Events,
    ready: Vec<(usize, bool)>,
    clients: Vec<Client>,
    /// Clients that were refused, to try again in a moment.
    refused: VecDeque<(Instant, usize)>,
    incoming: Box<[u8]>,
    outgoing: Vec<u8>,
    pub(crate) again: Again,
    pub(crate) tally: SharedMetrics,
    /// Arrival time of each message, while this is wanted.
    pub(crate) arrivals: Option<Vec<Instant>>,
}

/// Loopback addresses that connections come from.
const SOURCES: usize = 32;
/// Connections are opened in groups of this many, with a pause for the server to accept them.
const GROUP: usize = 200;
const AFTER_REFUSAL: Duration = Duration::from_millis(20);

impl Crowd {
    pub(crate) fn new(wire: Arc<dyn Wire>) -> io::Result<Self> {
        Ok(Self {
            wire,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            ready: Vec::new(),
            clients: Vec::new(),
            refused: VecDeque::new(),
            incoming: vec![0; 64 << 10].into_boxed_slice(),
            outgoing: Vec::new(),
            again: Again::AtOnce,
            tally: SharedMetrics::default(),
            arrivals: None,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Adds clients until there are `count`, each with its poll sent; `pace` = connections a
    /// second, as many as the server can take in.
    pub(crate) fn grow(
        &mut self,
        count: usize,
        pace: usize,
        channel: impl Fn(usize) -> u32,
    ) -> io::Result<()> {
        let pause = Duration::from_secs(1) * GROUP as u32 / pace as u32;
        while self.clients.len() < count {
            let due = Instant::now() + pause;
            for _ in 0..GROUP.min(count - self.clients.len()) {
                let index = self.clients.len();
                self.clients.push(Client {
                    stream: None,
                    channel: channel(index),
                    cursor: Cursor::new(),
                    newest: 0,
                    gaps: Vec::new(),
                    partial: Vec::new(),
                    polling: false,
                });
                self.connect(index)?;
                self.send_poll(index)?;
            }
            self.run_until(due, |_| false)?;
        }
        Ok(())
    }

    fn connect(&mut self, index: usize) -> io::Result<()> {
        let mut stream = connect(self.wire.public(), index)?;
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
        let client = &mut self.clients[index];
        client.stream = Some(stream);
        client.polling = false;
        client.partial = Vec::new();
        Ok(())
    }

    fn send_poll(&mut self, index: usize) -> io::Result<()> {
        let client = &mut self.clients[index];
        let Some(stream) = client.stream.as_mut() else { return Ok(()) };
        self.outgoing.clear();
        self.wire.poll(client.channel, &client.cursor, &mut self.outgoing);
        client.polling = true;
        match stream.write(&self.outgoing) {
            Ok(sent) if sent == self.outgoing.len() => Ok(()),
            // One request always fits an empty socket buffer.
            Ok(_) => Err(io::Error::other("a request was sent in part")),
            // The server has closed; reading reports it too, and connects again.
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Every client that is not polling polls.
    pub(crate) fn poll_again(&mut self) -> io::Result<()> {
        for index in 0..self.clients.len() {
            if !self.clients[index].polling {
                self.send_poll(index)?;
            }
        }
        Ok(())
    }

    /// The client closes its connection, whatever is on it, and comes back with its cursor.
    pub(crate) fn reconnect(&mut self, index: usize) -> io::Result<()> {
        self.clients[index].stream = None;
        self.connect(index)?;
        self.send_poll(index)
    }

    /// Serves the clients until `done` or `deadline`; true if it was done.
    pub(crate) fn run_until(
        &mut self,
        deadline: Instant,
        done: impl Fn(&Self) -> bool,
    ) -> io::Result<bool> {
        run_until(self, deadline, done, Self::turn)
    }

    fn turn(&mut self, wait: Duration) -> io::Result<()> {
        while let Some((due, index)) = self.refused.front().copied() {
            if due > Instant::now() {
                break;
            }
            self.refused.pop_front();
            self.send_poll(index)?;
        }
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let mut ready = std::mem::take(&mut self.ready);
        ready.extend(self.events.iter().map(|event| (event.token().0, event.is_read_closed())));
        for (index, closed) in ready.drain(..) {
            self.read(index, closed)?;
        }
        self.ready = ready;
        Ok(())
    }

    /// Reads all available bytes of a client: the next event only reports more. A short read is the
    /// end, unless the server has `closed` behind it.
    fn read(&mut self, index: usize, closed: bool) -> io::Result<()> {
        let mut incoming = std::mem::take(&mut self.incoming);
        let ended = loop {
            let Some(stream) = self.clients.get_mut(index).and_then(|c| c.stream.as_mut()) else {
                break false;
            };
            match stream.read(&mut incoming) {
                Ok(0) => break true,
                Ok(length) => {
                    if !self.take_in(index, &incoming[..length])? {
                        break true;
                    }
                    if !closed && length < incoming.len() {
                        break false;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break false,
                Err(error) if is_gone(&error) => break true,
                Err(error) => return Err(error),
            }
        };
        self.incoming = incoming;
        if ended {
            self.tally.failed += u64::from(self.clients[index].polling);
            self.reconnect(index)?;
        }
        Ok(())
    }

    /// Takes in bytes of an answer; false if the connection ends with it.
    fn take_in(&mut self, index: usize, bytes: &[u8]) -> io::Result<bool> {
        let mut whole = std::mem::take(&mut self.clients[index].partial);
        let bytes = if whole.is_empty() {
            bytes
        } else {
            whole.extend_from_slice(bytes);
            &whole
        };
        let Some(answer) = http::parse(bytes)? else {
            self.clients[index].partial = bytes.to_vec();
            return Ok(true);
        };
        self.clients[index].polling = false;
        let last = answer.last;
        let refused = answer.status >= 400;
        self.see(index, &answer);
        if last {
            return Ok(false);
        }
        if refused {
            self.refused.push_back((Instant::now() + AFTER_REFUSAL, index));
        } else if self.again == Again::AtOnce {
            self.send_poll(index)?;
        }
        Ok(true)
    }

    fn see(&mut self, index: usize, answer: &Answer<'_>) {
        let client = &mut self.clients[index];
        if answer.status >= 400 {
            self.tally.failed += 1;
            return;
        }
        self.wire.cursor(answer, &mut client.cursor);
        let before = self.tally.messages;
        for seq in message::numbers(&answer.body) {
            self.tally.messages += 1;
            client.check(seq, &mut self.tally);
        }
        if self.tally.messages > before {
            self.tally.answered += 1;
            if let Some(arrivals) = &mut self.arrivals {
                arrivals.push(Instant::now());
            }
        }
    }

    /// True if every client has seen its channel's newest message.
    pub(crate) fn all_have(&self, newest: impl Fn(u32) -> u64) -> bool {
        self.clients.iter().all(|client| client.newest >= newest(client.channel))
    }

    /// Number of messages that the clients should have seen by now and have not.
    pub(crate) fn missing(&self, newest: impl Fn(u32) -> u64) -> u64 {
        let missing = |client: &Client| newest(client.channel).saturating_sub(client.newest);
        self.clients.iter().map(missing).sum()
    }
}

impl Client {
    fn check(&mut self, seq: u64, tally: &mut SharedMetrics) {
        if seq > self.newest {
            // Messages before a client's first one do not count.
            if self.newest > 0 && seq > self.newest + 1 {
                tally.lost += seq - self.newest - 1;
                self.gaps.extend(self.newest + 1..seq);
            }
            self.newest = seq;
        } else if let Some(gap) = self.gaps.iter().position(|gap| *gap == seq) {
            self.gaps.swap_remove(gap);
            tally.lost -= 1;
            tally.misordered += 1;
        } else {
            tally.duplicated += 1;
        }
    }
}

/// A connection to `server` from one of several loopback addresses.
pub(crate) fn connect(server: SocketAddr, index: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let source = Ipv4Addr::new(127, 0, 0, 2 + (index % SOURCES) as u8);
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&server.into(), Duration::from_secs(10))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket.into()))
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}
