//! The clients of event streams and WebSockets: any number of them on one thread, which only read.

use crate::contestant::{Carrier, Wire};
use crate::crowd::{connect, run_until};
use crate::message;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

struct Listener {
    stream: TcpStream,
    /// It has its head, and so its stream.
    is_open: bool,
    /// The newest message seen; 0 = none yet.
    newest: u64,
}

pub(crate) struct Audience {
    poll: Poll,
    events: Events,
    listeners: Vec<Listener>,
    incoming: Box<[u8]>,
    pub(crate) open: usize,
    /// Messages that have come, in their order.
    pub(crate) delivered: u64,
    pub(crate) duplicated: u64,
    /// Connections that the server has closed.
    pub(crate) failed: u64,
    /// Arrival time of each message, while this is wanted.
    pub(crate) arrivals: Option<Vec<Instant>>,
}

/// Connections are opened in groups of this many, with a pause for the server to accept them.
const GROUP: usize = 200;
const PAUSE: Duration = Duration::from_millis(10);

impl Audience {
    /// Opens `count` streams on a channel; those that the server takes in time.
    pub(crate) fn open(
        wire: &dyn Wire,
        carrier: Carrier,
        channel: u32,
        count: usize,
        patience: Duration,
    ) -> io::Result<Self> {
        let mut audience = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            listeners: Vec::new(),
            incoming: vec![0; 64 << 10].into_boxed_slice(),
            open: 0,
            delivered: 0,
            duplicated: 0,
            failed: 0,
            arrivals: None,
        };
        let mut request = Vec::new();
        wire.stream(carrier, channel, &mut request);
        for index in 0..count {
            let mut stream = connect(wire.public(), index)?;
            stream.write_all(&request)?;
            audience.poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
            audience.listeners.push(Listener { stream, is_open: false, newest: 0 });
            if index % GROUP == GROUP - 1 {
                audience.run_until(Instant::now() + PAUSE, |_| false)?;
            }
        }
        audience.run_until(Instant::now() + patience, |audience| audience.open == count)?;
        Ok(audience)
    }

    /// Reads until `done` or `deadline`; true if it was done.
    pub(crate) fn run_until(
        &mut self,
        deadline: Instant,
        done: impl Fn(&Self) -> bool,
    ) -> io::Result<bool> {
        run_until(self, deadline, done, Self::turn)
    }

    fn turn(&mut self, wait: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        for index in ready {
            self.read(index)?;
        }
        Ok(())
    }

    /// Reads all available bytes of a client: the next event only reports more.
    fn read(&mut self, index: usize) -> io::Result<()> {
        loop {
            let listener = &mut self.listeners[index];
            let length = match listener.stream.read(&mut self.incoming) {
                Ok(0) => {
                    self.failed += 1;
                    return Ok(());
                }
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.open += usize::from(!std::mem::replace(&mut listener.is_open, true));
            // A message is small, and is written in one piece with the number at its beginning.
            for seq in message::numbers(&self.incoming[..length]) {
                if seq <= listener.newest {
                    self.duplicated += 1;
                    continue;
                }
                listener.newest = seq;
                self.delivered += 1;
                if let Some(arrivals) = &mut self.arrivals {
                    arrivals.push(Instant::now());
                }
            }
            if length < self.incoming.len() {
                return Ok(());
            }
        }
    }
}
