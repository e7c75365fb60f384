//! A stream of HTTP/2 as the client's side of an exchange: it is read and written in the form of
//! HTTP/1.1, and takes of a response no more than its client has room for.
//!
//! A response that its client does not read stays at the upstream, but for what h2 has taken:
//! `front::http2_window` bounds that for the whole connection, and `limits::http2_budget` for all.
//! A client that makes no progress within the write timeout is gone.

use super::exchange::ClientStream;
use crate::protocol::http::framing::{Chunks, Framing};
use crate::protocol::http::response_head::{self, ResponseHead};
use crate::server::gate::Timer;
use crate::server::limits::http2_budget::{Http2Share, UnsentBytes};
use crate::server::net::stream::copy_read;
use bytes::{Bytes, BytesMut};
use h2::{Reason, SendStream};
use pingora::http::ResponseHeader;
use pingora::protocols::http::v2::server::HttpSession;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the [module](self).
pub(in crate::server::gate) struct Http2Stream<'a> {
    session: &'a mut HttpSession,
    upload: Upload,
    /// Bytes of the request that have come and were not read.
    incoming: Bytes,
    to_head: bool,
    /// Longest wait for the client to take some more.
    stall: Option<Duration>,
    /// Ends that wait, if there is one.
    timer: Timer,
    waits: bool,
    /// A response's head that has not come whole.
    head: BytesMut,
    /// The body behind the final head, as far as it is to come.
    body: Option<Framing>,
    unsent: UnsentBytes,
    /// Takes the body; `None` = there is no head yet, or the response has ended.
    writer: Option<SendStream<Bytes>>,
}

/// The form in which a request's body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upload {
    /// As it is.
    Plain,
    /// In chunks.
    Chunked,
    /// Nothing comes any more.
    Over,
}

impl<'a> Http2Stream<'a> {
    /// The stream of a session that was not read and not answered yet; `framing` is that of its
    /// request. A client that takes nothing for `stall` is gone.
    pub(in crate::server::gate) fn new(
        session: &'a mut HttpSession,
        share: &Arc<Http2Share>,
        framing: &Framing,
        stall: Option<Duration>,
    ) -> Self {
        let upload = match framing {
            framing if framing.is_over() => Upload::Over,
            Framing::Chunked(_) => Upload::Chunked,
            Framing::Length(_) | Framing::Endless => Upload::Plain,
        };
        let to_head = session.req_header().method == http::Method::HEAD;
        Self {
            session,
            unsent: UnsentBytes::new(share),
            upload,
            incoming: Bytes::new(),
            to_head,
            stall,
            timer: Timer::default(),
            waits: false,
            head: BytesMut::new(),
            body: None,
            writer: None,
        }
    }

    /// Ends a response that has no proper end.
    pub(in crate::server::gate) fn break_off(&mut self) {
        if let Some(mut writer) = self.writer.take() {
            writer.send_reset(Reason::INTERNAL_ERROR);
        }
    }

    /// Ready once the client has reset the stream, or has lost its connection.
    fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let reset = || io::Error::from(ErrorKind::ConnectionReset);
        match &mut self.writer {
            Some(writer) => writer.poll_reset(context).map(|_| reset()),
            // A response that has ended needs no client.
            None if self.body.is_some() => Poll::Pending,
            None => pin!(self.session.idle()).poll(context).map(|_| reset()),
        }
    }

    /// Takes of `bytes` what belongs to the head of a response; returns how many these are.
    fn take_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let seen = self.head.len();
        self.head.extend_from_slice(bytes);
        let Some(end) = response_head::end(&self.head, seen).map_err(invalid)? else {
            return Ok(bytes.len());
        };
        let head = std::mem::take(&mut self.head);
        // Pingora sends no interim heads over HTTP/2.
        if !response_head::is_interim(&head[..end]) {
            self.begin(&head[..end])?;
        }
        Ok(end - seen)
    }

    /// Begins the response of which this is the final head.
    fn begin(&mut self, head: &[u8]) -> io::Result<()> {
        let head = ResponseHead::parse(head).map_err(invalid)?;
        let body = head.framing(self.to_head);
        let failed = |error: Box<pingora::Error>| invalid(error.etype().as_str());
        let mut response =
            ResponseHeader::build_no_case(head.status, Some(head.fields.len())).map_err(failed)?;
        for (name, value) in &head.fields {
            // Pingora leaves out what is of an HTTP/1.1 connection.
            response.append_header((*name).to_owned(), value.to_vec()).map_err(failed)?;
        }
        self.session.write_response_header(Box::new(response), body.is_over()).map_err(failed)?;
        self.writer = self.session.take_response_body_writer().filter(|_| !body.is_over());
        self.body = Some(body);
        Ok(())
    }

    /// Passes on of `bytes`, which continue the response's body, what the client has room for;
    /// returns how many it has taken.
    fn poll_body(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (Some(body), Some(writer)) = (&mut self.body, &mut self.writer) else {
            return Poll::Ready(Err(invalid("there is no response to continue")));
        };
        let mut rest = bytes;
        let length = body.clone().data(&mut rest)?.len();
        let mut taken = bytes.len() - rest.len();
        if length > 0 {
            let Poll::Ready(room) = self.unsent.poll_reserve(length, context) else {
                return writer.poll_reset(context).map(|_| Err(ErrorKind::ConnectionReset.into()));
            };
            writer.reserve_capacity(room);
            while writer.capacity() == 0 {
                if !matches!(ready!(writer.poll_capacity(context)), Some(Ok(_))) {
                    return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
                }
            }
            taken -= length - writer.capacity().min(room);
        }
        let mut sent = &bytes[..taken];
        let data = match body.data(&mut sent)? {
            [] => Bytes::new(),
            data => self.unsent.copy(data),
        };
        let last = body.is_over();
        if last || !data.is_empty() {
            writer.send_data(data, last).map_err(io::Error::other)?;
        }
        if last {
            self.writer = None;
        }
        Poll::Ready(Ok(taken))
    }
}

fn invalid(words: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, words.to_owned())
}

/// The framing of a request's body in the form of HTTP/1.1. h2 sees to it that the body has the
/// length that was declared.
pub(in crate::server::gate) fn framing(session: &HttpSession) -> Framing {
    if session.is_body_done() {
        return Framing::Length(0);
    }
    let length = session.req_header().headers.get(http::header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    length.map_or(Framing::Chunked(Chunks::default()), Framing::Length)
}

impl ClientStream for Http2Stream<'_> {
    fn take_room(&mut self, held: usize, wanted: usize) -> usize {
        let reserved = self.unsent.reserve(held + wanted);
        let room = match &mut self.writer {
            Some(writer) => {
                writer.reserve_capacity(reserved);
                writer.capacity().min(reserved)
            }
            None => reserved,
        };
        room.saturating_sub(held)
    }

    fn give_back_room(&mut self, held: usize) {
        self.unsent.give_back_all_but(held);
        if let Some(writer) = &mut self.writer {
            // It comes from the window of the whole connection.
            writer.reserve_capacity(held);
        }
    }
}

impl AsyncRead for Http2Stream<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.incoming.is_empty() {
                copy_read(&mut this.incoming, buf);
                return Poll::Ready(Ok(()));
            }
            if this.upload == Upload::Over {
                return this.poll_reset(context).map(Err);
            }
            match ready!(this.session.poll_read_body_bytes(context)) {
                Some(Ok(data)) if this.upload == Upload::Chunked && !data.is_empty() => {
                    let size = format!("{:x}\r\n", data.len());
                    this.incoming = [size.as_bytes(), &data, b"\r\n"].concat().into();
                }
                Some(Ok(data)) => this.incoming = data,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => {
                    if this.upload == Upload::Chunked {
                        this.incoming = Bytes::from_static(b"0\r\n\r\n");
                    }
                    this.upload = Upload::Over;
                }
            }
        }
    }
}

impl AsyncWrite for Http2Stream<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.body.is_none() {
            return Poll::Ready(this.take_head(buf));
        }
        if let Poll::Ready(written) = this.poll_body(buf, context) {
            this.waits = false;
            return Poll::Ready(written);
        }
        if !std::mem::replace(&mut this.waits, true) {
            this.timer.set(this.stall);
        }
        this.timer.poll_expired(context).map(|()| Err(ErrorKind::TimedOut.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
