//! The way there: from the client to the upstream.

use super::{ClientStream, Exchange, Wait, append};
use crate::protocol::http::framing::Framing;
use crate::server::gate::forward::failure::Failure;
use crate::server::gate::forward::fill::fill;
use crate::server::gate::front::buffer_pool;
use bytes::Buf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite};

impl<C, U> Exchange<'_, C, U>
where
    C: ClientStream,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// Passes the request on as far as that goes, then watches the client; what is waited for.
    pub(super) fn upload(&mut self, context: &mut Context<'_>) -> Result<Wait, Failure> {
        if !std::mem::replace(&mut self.started, true) && !self.body.is_over() {
            // The part of the body that has come leaves together with the head.
            self.take_request()?;
        }
        let room = self.bounds.room.usual;
        loop {
            while !self.sent_all() && !self.refused {
                let rest = &self.out[self.sent..];
                match Pin::new(&mut self.upstream).poll_write(context, rest) {
                    // It may have answered all the same.
                    Poll::Ready(Ok(0) | Err(_)) => self.refused = true,
                    Poll::Ready(Ok(length)) => {
                        self.sent += length;
                        self.progress += 1;
                    }
                    Poll::Pending => return Ok(Wait::Upstream),
                }
            }
            if self.body.is_over() {
                return self.watch(context);
            }
            if self.refused {
                return Ok(Wait::Upstream);
            }
            if !self.near.pending.is_empty() {
                self.take_request()?;
                continue;
            }
            match fill(self.near.stream, self.near.pending, room, context) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(Failure::Gone),
                Poll::Ready(Ok(length)) => {
                    self.progress += 1;
                    if !self.rate.took(length, Instant::now()) {
                        return Err(Failure::BodyTimeout);
                    }
                }
                Poll::Pending => {
                    self.rate.wait(Instant::now());
                    return Ok(Wait::Body);
                }
            }
        }
    }

    /// Passes the request on until it is over, or the upstream takes no more of it.
    pub(super) fn poll_upload(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let uploading = self.upload(context)?;
        if self.refused || self.body.is_over() && self.sent_all() {
            return Poll::Ready(Ok(()));
        }
        self.wait(uploading, context).map(Err)
    }

    /// Moves what has come of the request's body to the bytes for the upstream.
    fn take_request(&mut self) -> Result<(), Failure> {
        if self.sent > 0 && self.sent_all() {
            self.out.clear();
            self.sent = 0;
            self.whole = false;
        }
        let chunked = matches!(self.body, Framing::Chunked(_));
        let mut rest = &self.near.pending[..];
        loop {
            let data = self.body.data(&mut rest).map_err(|_| Failure::BodyMalformed)?;
            if data.is_empty() {
                break;
            }
            self.near.tap.request_body(Some(data), false);
            append(&mut self.out, data, chunked);
        }
        let taken = self.near.pending.len() - rest.len();
        self.near.pending.advance(taken);
        if self.body.is_over() {
            self.near.tap.request_body(None, true);
            if chunked {
                self.out.extend_from_slice(b"0\r\n\r\n");
            }
        }
        if self.near.pending.is_empty() {
            buffer_pool::put(std::mem::take(self.near.pending));
        }
        Ok(())
    }

    /// Reads what comes after the request, to notice the client's end.
    fn watch(&mut self, context: &mut Context<'_>) -> Result<Wait, Failure> {
        while !self.half_closed && self.near.pending.len() < self.bounds.aside {
            match fill(self.near.stream, self.near.pending, 1024, context) {
                Poll::Ready(Ok(0)) => self.half_closed = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Err(Failure::Gone),
                Poll::Pending => break,
            }
        }
        Ok(if self.half_closed { Wait::HalfClosed } else { Wait::Upstream })
    }
}
