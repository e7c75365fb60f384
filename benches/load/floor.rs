//! The floor: the least program that holds polls and releases them. One thread, epoll, answers
//! made once a message. It knows only the bench's own clients, has no timeouts and no bounds, and
//! reads a request only as far as it must: what is left is nearly the system calls alone.
//!
//! It also plays the site behind the others: [`Way::Site`] answers what the floor would hold with
//! the instruction that makes Pushpin hold it, and any other path with a plain page.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;

/// Mode of the server: holding polls or not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Hold,
    Site,
}

/// Messages kept of a channel.
const KEPT: usize = 100;
const LISTENER: Token = Token(usize::MAX);

struct Connection {
    stream: TcpStream,
    /// Distinguishes it from a later one in the same place.
    life: u64,
}

#[derive(Default)]
struct Channel {
    newest: usize,
    /// The newest answers; the last one is that of message `newest`.
    kept: VecDeque<Rc<[u8]>>,
    held: Vec<(usize, u64)>,
}

struct Floor {
    way: Way,
    poll: Poll,
    connections: Slab<Connection>,
    lives: u64,
    channels: Vec<Channel>,
    page: Rc<[u8]>,
}

/// Serves until it is killed.
pub(crate) fn serve(address: SocketAddr, way: Way) -> io::Result<()> {
    let mut listener = TcpListener::bind(address)?;
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let page = answer("", &[b'p'; 1024]);
    let connections = Slab::new();
    let channels = Vec::new();
    let mut floor = Floor { way, poll, connections, lives: 0, channels, page };
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 16 << 10];
    loop {
        floor.poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                floor.accept(&listener)?;
            } else {
                floor.read(event.token().0, event.is_read_closed(), &mut buffer);
            }
        }
    }
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let place = self.connections.vacant_entry();
            let token = Token(place.key());
            let readable = Interest::READABLE;
            self.poll.registry().register(&mut stream, token, readable)?;
            self.lives += 1;
            place.insert(Connection { stream, life: self.lives });
        }
    }

    /// Reads until there is no more: less than was asked for, unless the client has `closed`.
    fn read(&mut self, key: usize, closed: bool, buffer: &mut [u8]) {
        loop {
            let Some(connection) = self.connections.get_mut(key) else { return };
            match connection.stream.read(buffer) {
                Ok(length) if length > 0 => {
                    if self.request(key, &buffer[..length]).is_none() {
                        self.connections.try_remove(key);
                    }
                    if !closed && length < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                _ => {
                    self.connections.try_remove(key);
                    return;
                }
            }
        }
    }

    /// One request, which the bench's clients send in one piece; `None` if it is none.
    fn request(&mut self, key: usize, bytes: &[u8]) -> Option<()> {
        if let Some(rest) = bytes.strip_prefix(b"GET /poll/") {
            let (channel, rest) = number(rest);
            let cursor = rest.strip_prefix(b"?cursor=").map(number).map_or(0, |(cursor, _)| cursor);
            self.poll_request(key, channel, cursor);
        } else if let Some(rest) = bytes.strip_prefix(b"POST /publish/") {
            let (channel, rest) = number(rest);
            let head = rest.windows(4).position(|four| four == b"\r\n\r\n")?;
            self.publish(channel, &rest[head + 4..]);
            self.send(key, &answer("", b""));
        } else {
            let page = self.page.clone();
            self.send(key, &page);
        }
        Some(())
    }

    fn poll_request(&mut self, key: usize, number: usize, cursor: usize) {
        let life = self.connections[key].life;
        let way = self.way;
        let channel = self.channel(number);
        let behind = channel.newest.saturating_sub(cursor).min(channel.kept.len());
        // A client without a cursor waits for the next message.
        if cursor > 0 && behind > 0 {
            let next = channel.kept[channel.kept.len() - behind].clone();
            self.send(key, &next);
        } else if way == Way::Hold {
            channel.held.push((key, life));
        } else {
            let newest = channel.newest;
            let held = format!(
                "Grip-Hold: response\r\nGrip-Channel: c{number}; prev-id={newest}\r\n\
                 Grip-Timeout: 300\r\n"
            );
            self.send(key, &answer(&held, b""));
        }
    }

    fn publish(&mut self, number: usize, body: &[u8]) {
        let channel = self.channel(number);
        channel.newest += 1;
        let message = answer(&format!("Etag: {}\r\n", channel.newest), body);
        if channel.kept.len() == KEPT {
            channel.kept.pop_front();
        }
        channel.kept.push_back(message.clone());
        for (key, life) in std::mem::take(&mut channel.held) {
            if self.connections.get(key).is_some_and(|connection| connection.life == life) {
                self.send(key, &message);
            }
        }
    }

    fn channel(&mut self, number: usize) -> &mut Channel {
        if number >= self.channels.len() {
            self.channels.resize_with(number + 1, Channel::default);
        }
        &mut self.channels[number]
    }

    fn send(&mut self, key: usize, answer: &[u8]) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.stream.write(answer).is_ok_and(|sent| sent == answer.len()) {
            return;
        }
        self.connections.remove(key);
    }
}

fn answer(headers: &str, body: &[u8]) -> Rc<[u8]> {
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer.into()
}

/// The decimal number that `text` begins with, and the rest.
fn number(text: &[u8]) -> (usize, &[u8]) {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = text[..digits]
        .iter()
        .fold(0usize, |n, digit| n.saturating_mul(10).saturating_add(usize::from(digit - b'0')));
    (number, &text[digits..])
}
