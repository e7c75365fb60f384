//! The way back: from the upstream to the client.

use super::{ClientStream, Exchange, MAX_INTERIM, NO_ROOM, Room, Wait, append};
use crate::protocol::http::framing::Framing;
use crate::protocol::http::response_head::{self, ResponseHead};
use crate::server::gate::forward::answer;
use crate::server::gate::forward::failure::Failure;
use crate::server::gate::forward::fill::fill;
use crate::server::gate::front::buffer_pool;
use bytes::{Buf, BytesMut};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};

impl<C, U> Exchange<'_, C, U>
where
    C: ClientStream,
    U: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Failure>> {
        let uploading = self.upload(context)?;
        let wait = loop {
            let delivered = self.write_answer(context)?;
            if let Some(end) = self.find_head()? {
                let head = &self.inbox[..end];
                if !response_head::is_interim(head) {
                    return Poll::Ready(Ok(end));
                }
                let head = ResponseHead::parse(head).map_err(Failure::Malformed)?;
                self.interims += 1;
                if self.interims > MAX_INTERIM {
                    return Poll::Ready(Err(Failure::Malformed("too many interim responses")));
                }
                answer::write_interim(&mut self.answer, &head, self.near.grip);
                drop(head);
                self.inbox.advance(end);
                continue;
            }
            if !delivered && self.answer.len() >= self.bounds.room.usual {
                break Wait::Client;
            }
            let room = self.take_room(self.bounds.room.usual).max(NO_ROOM);
            match fill(&mut self.upstream, &mut self.inbox, room, context) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Failure::Broken(None))),
                Poll::Ready(Ok(_)) => self.progress += 1,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::broken(&error))),
                Poll::Pending => {
                    self.near.stream.give_back_room(self.held());
                    break uploading;
                }
            }
        };
        self.wait(wait, context).map(Err)
    }

    /// Bytes of the response that are here.
    fn held(&self) -> usize {
        self.inbox.len() + self.answer.len()
    }

    /// Bytes to read now, up to `wanted`; 0 = the client has to take what there is first.
    fn take_room(&mut self, wanted: usize) -> usize {
        let held = self.held();
        let room = match self.near.stream.take_room(held, wanted) {
            ..NO_ROOM if held == 0 => NO_ROOM,
            ..NO_ROOM => 0,
            room => room,
        };
        if room < wanted && self.inbox.is_empty() {
            // It may hold them for long.
            replace(&mut self.inbox, room);
        }
        room
    }

    /// End of the head in the bytes of the upstream.
    fn find_head(&mut self) -> Result<Option<usize>, Failure> {
        if self.inbox.is_empty() {
            self.seen = 0;
            return Ok(None);
        }
        let end = response_head::end(&self.inbox, self.seen).map_err(Failure::Malformed)?;
        self.seen = if end.is_some() { 0 } else { self.inbox.len() };
        Ok(end)
    }

    pub(super) fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let uploading = self.upload(context)?;
        let Room { usual, large, .. } = self.bounds.room;
        let wait = loop {
            let mut starved = false;
            while !self.done && !starved && self.answer.len() < usual {
                if !self.inbox.is_empty() {
                    self.take_body()?;
                    continue;
                }
                let room = self.take_room(self.reading);
                if room == 0 {
                    break;
                }
                match fill(&mut self.upstream, &mut self.inbox, room, context) {
                    Poll::Ready(Ok(0)) if self.framing == Framing::Endless => self.end_body(),
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(Failure::Broken(None))),
                    Poll::Ready(Ok(length)) => {
                        self.progress += 1;
                        self.reading = if length >= usual { large } else { usual };
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::broken(&error))),
                    Poll::Pending => {
                        starved = true;
                        self.near.stream.give_back_room(self.held());
                    }
                }
            }
            if !self.write_answer(context)? {
                break Wait::Client;
            }
            if self.done {
                return Poll::Ready(Ok(()));
            }
            if starved {
                // A response has begun: a client that is gone shows when it is written to.
                break if uploading == Wait::HalfClosed { Wait::Upstream } else { uploading };
            }
        };
        self.wait(wait, context).map(Err)
    }

    /// Moves what has come of the response's body to the bytes for the client.
    fn take_body(&mut self) -> Result<(), Failure> {
        const MISFRAMED: Failure =
            Failure::Malformed("the chunks of the response are framed wrongly");
        let in_one =
            matches!(self.framing, Framing::Length(left) if left >= self.inbox.len() as u64);
        if in_one && self.answer.is_empty() && self.withheld.is_none() {
            // A long body is not copied.
            self.near.tap.response_body(Some(&self.inbox), false);
            let taken = self.framing.take(&self.inbox).map_err(|_| MISFRAMED)?;
            self.length += taken as u64;
            std::mem::swap(&mut self.inbox, &mut self.answer);
        } else {
            let mut rest = &self.inbox[..];
            loop {
                let data = self.framing.data(&mut rest).map_err(|_| MISFRAMED)?;
                if data.is_empty() {
                    break;
                }
                self.near.tap.response_body(Some(data), false);
                self.length += data.len() as u64;
                match &mut self.withheld {
                    Some(withheld) => withheld.take(data),
                    None => append(&mut self.answer, data, self.chunked),
                }
            }
            let taken = self.inbox.len() - rest.len();
            self.inbox.advance(taken);
        }
        if self.framing.is_over() {
            self.end_body();
        }
        Ok(())
    }

    /// The body is complete. Its observer is through before the client has the last of it.
    fn end_body(&mut self) {
        self.near.tap.end();
        if self.chunked {
            self.answer.extend_from_slice(b"0\r\n\r\n");
        }
        self.done = true;
    }

    /// Writes to the client; true = it has got all there is.
    fn write_answer(&mut self, context: &mut Context<'_>) -> Result<bool, Failure> {
        let before = self.answer.len();
        while !self.answer.is_empty() {
            match Pin::new(&mut *self.near.stream).poll_write(context, &self.answer) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(Failure::Gone),
                Poll::Ready(Ok(length)) => {
                    self.answer.advance(length);
                    self.delivered += length as u64;
                    self.progress += 1;
                    self.unflushed = true;
                }
                Poll::Pending => {
                    let left = self.answer.len();
                    let is_large = left < before || self.answer.capacity() > left + NO_ROOM;
                    if self.bounds.room.tight && is_large {
                        replace(&mut self.answer, 0);
                    }
                    if self.inbox.is_empty() {
                        buffer_pool::put(std::mem::take(&mut self.inbox));
                    }
                    return Ok(false);
                }
            }
        }
        if self.unflushed {
            match Pin::new(&mut *self.near.stream).poll_flush(context) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Err(Failure::Gone),
                Poll::Pending => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// Replaces a buffer that may be large by one for what it holds and `more`.
fn replace(buffer: &mut BytesMut, more: usize) {
    let mut small = BytesMut::with_capacity(buffer.len() + more);
    small.extend_from_slice(buffer);
    let before = std::mem::replace(buffer, small);
    if before.capacity() > 2 * NO_ROOM {
        buffer_pool::put(before);
    }
}
