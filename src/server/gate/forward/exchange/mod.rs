//! One request and its response, on a connection of the client's and one of the upstream's.
//!
//! Both directions go on at the same time: a response may begin before the request is over, and
//! the client is watched while the upstream is silent. What one side sends is only read while the
//! other side takes it, so the buffers of an exchange are bounded, and a side that waits for
//! nothing holds none. Every wait ends: one for the upstream after its read timeout, one for the
//! client's body after its stall; the client's stream bounds the writes to it. Only waiting
//! without progress counts. Dropping an exchange closes the connection to the upstream.

mod download;
#[cfg(test)]
mod tests;
mod upload;

use super::answer::{self, Delivery};
use super::failure::Failure;
use crate::protocol::http::framing::Framing;
use crate::protocol::http::response_head::ResponseHead;
use crate::server::gate::Timer;
use crate::server::gate::front::buffer_pool;
use crate::server::gate::grip::withheld::Withheld;
use crate::server::gate::proxy::tap::Tap;
use crate::server::limits::body_rate::BodyRate;
use bytes::{Buf, BytesMut};
use pingora::protocols::Stream;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes read at once for a client that takes no more: they show whether the response ends.
const NO_ROOM: usize = 512;
/// Interim responses to one request.
const MAX_INTERIM: usize = 32;
/// The time that the upstream may take to begin its response to a client that closed its half of
/// the connection, or is gone.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// Bounds of an exchange.
pub(super) struct Bounds {
    /// Longest silence of the upstream.
    pub(super) silence: Duration,
    /// Longest pause in the request's body.
    pub(super) stall: Option<Duration>,
    /// Bytes of the next requests that are kept aside; more stay in the kernel.
    pub(super) aside: usize,
    pub(super) room: Room,
}

/// The sizes of an exchange's buffers, in bytes.
#[derive(Debug, Clone, Copy)]
pub(in crate::server::gate) struct Room {
    /// Read at once, and gathered before they are written.
    pub(super) usual: usize,
    /// The same where a read has filled its room: a long body.
    pub(super) large: usize,
    /// The client has many like it: a buffer that waits for the client takes no more than it holds.
    pub(super) tight: bool,
}

impl Room {
    /// For a client with a connection of its own.
    pub(in crate::server::gate) const OF_CONNECTION: Self =
        Self { usual: 16 * 1024, large: 64 * 1024, tight: false };
    /// For one of the hundred streams that a connection may have.
    pub(in crate::server::gate) const OF_STREAM: Self =
        Self { usual: 8 * 1024, large: 16 * 1024, tight: true };
}

/// A client's connection, or its stream of one.
pub(in crate::server::gate) trait ClientStream:
    AsyncRead + AsyncWrite + Unpin
{
    /// Bytes of a response that the client takes now, up to `wanted`, besides `_held` ones that wait
    /// for it already. Room for them is kept until they are written, or it is given back.
    fn take_room(&mut self, _held: usize, wanted: usize) -> usize {
        wanted
    }

    /// Nothing has come that would need room beyond that for `_held` bytes.
    fn give_back_room(&mut self, _held: usize) {}
}

impl ClientStream for Stream {}
#[cfg(test)]
impl ClientStream for tokio::io::DuplexStream {}

/// The client's side of an exchange.
pub(super) struct Near<'a, C> {
    pub(super) stream: &'a mut C,
    /// Bytes that were read and not yet used: the body's, and behind it the next request's.
    pub(super) pending: &'a mut BytesMut,
    pub(super) timer: &'a mut Timer,
    pub(super) tap: &'a mut Tap,
    /// Headers of GRIP do not go to it.
    pub(super) grip: bool,
}

/// The way in which a response goes on.
pub(super) enum Onward {
    /// To the client.
    Deliver(Delivery),
    /// Nowhere yet: it is an instruction to hold the request.
    Withhold(Box<Withheld>),
    /// Both sides have agreed to another protocol.
    Switch,
}

/// See the [module](self).
pub(super) struct Exchange<'a, C, U> {
    near: Near<'a, C>,
    upstream: U,
    bounds: Bounds,
    /// The request's body, as far as it is to come.
    body: Framing,
    rate: BodyRate,
    /// Bytes for the upstream; up to `sent`, they were written.
    out: BytesMut,
    sent: usize,
    /// `out` begins with the request's first byte.
    whole: bool,
    /// Sending has begun.
    started: bool,
    /// The upstream takes no more of the request.
    refused: bool,
    /// The client has closed its half of the connection.
    half_closed: bool,
    /// Bytes of the upstream.
    inbox: BytesMut,
    /// So many of them have no end of a head.
    seen: usize,
    /// Bytes of the upstream that are read at once.
    reading: usize,
    interims: usize,
    /// Bytes for the client.
    answer: BytesMut,
    unflushed: bool,
    delivered: u64,
    /// `delivered` when the final head was accepted, and whether an interim one was not through.
    accepted: Option<(u64, bool)>,
    /// The response's body, as far as it is to come.
    framing: Framing,
    chunked: bool,
    /// Bytes of the response's body.
    length: u64,
    /// The response does not go to the client.
    withheld: Option<Box<Withheld>>,
    done: bool,
    /// The last wait, and the progress when it began.
    waited: (Wait, u64),
    progress: u64,
}

/// The client's connection and its timer, the upstream's connection, and the first bytes for both.
type Switched<'a, C, U> = (&'a mut C, &'a mut Timer, U, (BytesMut, BytesMut));

/// A reason to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Nothing,
    /// For the upstream.
    Upstream,
    /// For the upstream, while the client may be gone.
    HalfClosed,
    /// For more of the request's body.
    Body,
    /// For the client to read.
    Client,
}

impl<'a, C, U> Exchange<'a, C, U>
where
    C: ClientStream,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// An exchange of the request `head` and the `body` behind it.
    pub(super) fn new(
        near: Near<'a, C>,
        upstream: U,
        head: BytesMut,
        body: Framing,
        rate: BodyRate,
        bounds: Bounds,
    ) -> Self {
        Self {
            near,
            upstream,
            reading: bounds.room.usual,
            bounds,
            body,
            rate,
            out: head,
            sent: 0,
            whole: true,
            started: false,
            refused: false,
            half_closed: false,
            inbox: BytesMut::new(),
            seen: 0,
            interims: 0,
            answer: BytesMut::new(),
            unflushed: false,
            delivered: 0,
            accepted: None,
            framing: Framing::Length(0),
            chunked: false,
            length: 0,
            withheld: None,
            done: false,
            waited: (Wait::Nothing, 0),
            progress: 0,
        }
    }

    /// True if the request can be sent again on another connection: nothing of it was taken by the
    /// upstream, or all of it is still here and sending it twice is `idempotent`.
    pub(super) fn can_repeat(&self, idempotent: bool) -> bool {
        let nothing_came = self.inbox.is_empty() && self.interims == 0;
        nothing_came && self.whole && (self.sent == 0 || idempotent)
    }

    /// Sends the request again, to `upstream`.
    pub(super) fn repeat(&mut self, upstream: U) {
        self.upstream = upstream;
        self.sent = 0;
        self.refused = false;
    }

    /// Sends the request, and reads the head of its final response; returns its length.
    pub(super) async fn read_head(&mut self) -> Result<usize, Failure> {
        poll_fn(|context| self.poll_head(context)).await
    }

    /// Takes the head of that length: `decide` says how the response goes on.
    pub(super) fn accept(
        &mut self,
        length: usize,
        to_head: bool,
        decide: impl FnOnce(&ResponseHead<'_>, bool) -> Result<Onward, Failure>,
    ) -> Result<(), Failure> {
        let head = ResponseHead::parse(&self.inbox[..length]).map_err(Failure::Malformed)?;
        let decided = decide(&head, self.body.is_over())?;
        self.accepted = Some((self.delivered, !self.answer.is_empty()));
        if self.answer.capacity() == 0 {
            self.answer = buffer_pool::take();
        }
        match decided {
            Onward::Switch => answer::write_agreement(&mut self.answer, &head, self.near.grip),
            Onward::Withhold(withheld) => {
                self.near.tap.response_head(head.status, &head, to_head);
                self.framing = head.framing(to_head);
                self.withheld = Some(withheld);
            }
            Onward::Deliver(delivery) => {
                self.near.tap.response_head(head.status, &head, to_head);
                answer::write(&mut self.answer, &head, &delivery);
                self.chunked = delivery.is_chunked();
                self.framing = delivery.framing;
            }
        }
        drop(head);
        self.inbox.advance(length);
        if self.sent_all() {
            // It is not sent again.
            self.out = BytesMut::new();
            self.sent = 0;
            self.whole = false;
        }
        Ok(())
    }

    /// Passes the response on, or reads it whole if it is withheld.
    pub(super) async fn deliver(&mut self) -> Result<(), Failure> {
        if self.framing.is_over() {
            self.near.tap.end();
            self.done = true;
        }
        poll_fn(|context| self.poll_body(context)).await
    }

    /// The response, if it is withheld, once the client's request is read too: what follows it on
    /// the connection is another one then.
    pub(super) async fn withheld(&mut self) -> Result<Option<Box<Withheld>>, Failure> {
        if self.withheld.is_some() {
            poll_fn(|context| self.poll_upload(context)).await?;
        }
        Ok(self.withheld.take())
    }

    /// True if the whole request has come.
    pub(super) fn is_read(&self) -> bool {
        self.body.is_over()
    }

    /// The connections, after the upstream has agreed to another protocol, and the bytes that begin
    /// it, for the client and for the upstream.
    pub(super) fn switch(mut self) -> Switched<'a, C, U> {
        self.answer.extend_from_slice(&self.inbox);
        let early = std::mem::take(self.near.pending);
        (self.near.stream, self.near.timer, self.upstream, (self.answer, early))
    }

    /// True if the client has some of a response already, so that no other may begin.
    pub(super) fn is_begun(&self) -> bool {
        match self.accepted {
            Some((delivered, torn)) => torn || self.delivered > delivered,
            None => self.delivered > 0 && !self.answer.is_empty(),
        }
    }

    /// Bytes of the response's body that were passed on.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The connection to the upstream, if both sides are through with this request and nothing
    /// else has come on it.
    pub(super) fn finish(mut self) -> Option<U> {
        let sent = self.body.is_over() && self.sent_all() && !self.refused;
        let clean = self.done && sent && self.inbox.is_empty();
        for used in [&mut self.answer, &mut self.inbox] {
            buffer_pool::put(std::mem::take(used));
        }
        clean.then_some(self.upstream)
    }

    fn sent_all(&self) -> bool {
        self.sent == self.out.len()
    }

    /// Waits for `wait`; its end is that it took too long.
    fn wait(&mut self, wait: Wait, context: &mut Context<'_>) -> Poll<Failure> {
        for idle in [&mut self.answer, &mut self.inbox] {
            if idle.is_empty() && idle.capacity() > 0 {
                buffer_pool::put(std::mem::take(idle));
            }
        }
        if self.waited != (wait, self.progress) {
            self.waited = (wait, self.progress);
            self.near.timer.set(match wait {
                Wait::Upstream => Some(self.bounds.silence),
                Wait::HalfClosed => Some(self.bounds.silence.min(HALF_CLOSED)),
                Wait::Body => self.bounds.stall,
                Wait::Client | Wait::Nothing => None,
            });
        }
        self.near.timer.poll_expired(context).map(|()| match wait {
            Wait::Upstream | Wait::Nothing => Failure::Silent,
            Wait::HalfClosed | Wait::Client => Failure::Gone,
            Wait::Body => Failure::BodyTimeout,
        })
    }
}

/// Appends a piece of a body, as a chunk if it goes in `chunked`.
fn append(out: &mut BytesMut, data: &[u8], chunked: bool) {
    use std::fmt::Write;
    if chunked {
        // Writing to memory does not fail.
        let _ = write!(out, "{:x}\r\n", data.len());
    }
    out.extend_from_slice(data);
    if chunked {
        out.extend_from_slice(b"\r\n");
    }
}
