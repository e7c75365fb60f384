//! The publishing side, on threads of its own so that the crowd does not wait for it.

use crate::contestant::{Step, Wire};
use crate::crowd::connect;
use crate::http;
use mio::net::TcpStream as Stream;
use mio::{Events, Interest, Poll, Token};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// A publish that was answered.
#[derive(Clone, Copy)]
pub(crate) struct Published {
    /// Time of sending its (last) request.
    pub(crate) began: Instant,
    /// Time of its answer.
    pub(crate) ended: Instant,
}

/// Numbers messages and publishes them, one at a time, while the caller does something else.
pub(crate) struct Press {
    wire: Arc<dyn Wire>,
    newest: HashMap<u32, u64>,
    jobs: Sender<Vec<Step>>,
    done: Receiver<io::Result<Published>>,
}

impl Press {
    pub(crate) fn new(wire: Arc<dyn Wire>) -> Self {
        let (jobs, inbox) = channel::<Vec<Step>>();
        let (outbox, done) = channel();
        // Ends when the press is dropped.
        std::thread::spawn(move || {
            let mut caller = Caller::default();
            for steps in inbox {
                if outbox.send(caller.publish(&steps)).is_err() {
                    return;
                }
            }
        });
        Self { wire, newest: HashMap::new(), jobs, done }
    }

    /// The number of a channel's newest message; 0 = none yet.
    pub(crate) fn newest(&self, channel: u32) -> u64 {
        self.newest.get(&channel).copied().unwrap_or(0)
    }

    /// The requests that publish a channel's next message.
    pub(crate) fn next(&mut self, channel: u32) -> Vec<Step> {
        let newest = self.newest.entry(channel).or_default();
        *newest += 1;
        self.wire.publish(channel, *newest)
    }

    /// Publishes a channel's next message; [`Press::wait`] returns the result.
    pub(crate) fn begin(&mut self, channel: u32) {
        let steps = self.next(channel);
        // The thread ends only after this end of the channel does.
        let _ = self.jobs.send(steps);
    }

    /// Waits for the answer to the oldest publish begun.
    pub(crate) fn wait(&self) -> io::Result<Published> {
        self.done.recv_timeout(Duration::from_secs(60)).map_err(io::Error::other)?
    }

    pub(crate) fn publish(&mut self, channel: u32) -> io::Result<Published> {
        self.begin(channel);
        self.wait()
    }
}

/// Blocking requests on kept connections.
#[derive(Default)]
pub(crate) struct Caller {
    kept: HashMap<SocketAddr, TcpStream>,
}

impl Caller {
    /// Makes the requests of one publish; the last one is timed.
    pub(crate) fn publish(&mut self, steps: &[Step]) -> io::Result<Published> {
        let mut began = Instant::now();
        for step in steps {
            began = Instant::now();
            self.call(step)?;
        }
        Ok(Published { began, ended: Instant::now() })
    }

    fn call(&mut self, step: &Step) -> io::Result<()> {
        if let Some(stream) = self.kept.remove(&step.to) {
            // A kept connection may have been closed meanwhile; that request was not taken in.
            match self.exchange(stream, step) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                other => return other,
            }
        }
        let stream = TcpStream::connect(step.to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        self.exchange(stream, step)
    }

    fn exchange(&mut self, mut stream: TcpStream, step: &Step) -> io::Result<()> {
        stream.write_all(&step.request).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let length = stream.read(&mut buffer)?;
            bytes.extend_from_slice(&buffer[..length]);
            match http::parse(&bytes)? {
                Some(answer) if answer.status >= 300 => {
                    let said = String::from_utf8_lossy(&answer.body);
                    let why = format!("publish refused: {} {said}", answer.status);
                    return Err(io::Error::other(why));
                }
                Some(answer) => {
                    if !answer.last {
                        self.kept.insert(step.to, stream);
                    }
                    return Ok(());
                }
                None if length == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => {}
            }
        }
    }
}

/// Result of a barrage.
pub(crate) struct Volley {
    pub(crate) took: Duration,
    pub(crate) failed: u64,
}

/// Sends `total` requests over `connections` kept connections, each with one under way at a time;
/// `request` makes number n.
pub(crate) fn barrage(
    to: SocketAddr,
    connections: usize,
    total: u64,
    mut request: impl FnMut(u64) -> Vec<u8>,
) -> io::Result<Volley> {
    struct Lane {
        stream: Stream,
        partial: Vec<u8>,
    }
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    let mut sent = 0;
    let mut answered = 0;
    let mut failed = 0;
    let mut lanes = Vec::new();
    let began = Instant::now();
    for index in 0..connections {
        let mut stream = connect(to, index)?;
        poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
        if sent < total {
            stream.write_all(&request(sent))?;
            sent += 1;
        }
        lanes.push(Lane { stream, partial: Vec::new() });
    }
    let mut buffer = vec![0; 16 << 10];
    while answered < total {
        if began.elapsed() > Duration::from_secs(60) {
            return Err(io::Error::other(format!("only {answered} of {total} answered in 60 s")));
        }
        poll.poll(&mut events, Some(Duration::from_secs(1)))?;
        for event in &events {
            let lane = &mut lanes[event.token().0];
            loop {
                let length = match lane.stream.read(&mut buffer) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                lane.partial.extend_from_slice(&buffer[..length]);
                let Some(answer) = http::parse(&lane.partial)? else { continue };
                answered += 1;
                failed += u64::from(answer.status >= 300);
                lane.partial.clear();
                if sent < total {
                    lane.stream.write_all(&request(sent))?;
                    sent += 1;
                }
            }
        }
    }
    Ok(Volley { took: began.elapsed(), failed })
}
