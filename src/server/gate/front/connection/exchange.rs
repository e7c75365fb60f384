//! The lane's side of an exchange.

use super::Connection;
use super::read::{gone, poll_gone, poll_read_some};
use crate::protocol::http::Reply;
use crate::protocol::http::websocket::{self, CloseCode, Frame, Messages, Opcode};
use crate::server::gate::front::response::{self, MAX_COPIED, put_chunk_size};
use crate::server::gate::front::{Front, buffer_pool};
use crate::server::gate::serve::{Exchange, Framed, Input};
use crate::server::gate::{Settings, Timer};
use bytes::{Bytes, BytesMut};
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// A plain request on a connection of the lane's. It has no body.
pub(super) struct LaneExchange<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) front: &'a Front,
    pub(super) settings: &'a Settings,
    pub(super) shutdown: &'a ShutdownWatch,
    /// Whether the connection is kept after the answer.
    pub(super) keep: bool,
    /// A stream's pieces are chunks (RFC 9112, section 7.1).
    pub(super) chunked: bool,
}

/// The answer could not be written.
pub(super) struct Unwritten;

impl LaneExchange<'_> {
    /// Writes `pieces`, each as a chunk, behind `bytes`. Short ones are copied there, so that all of it
    /// leaves in one write.
    async fn write_pieces(
        &mut self,
        mut bytes: BytesMut,
        pieces: &[Bytes],
    ) -> Result<(), Unwritten> {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        if length > MAX_COPIED {
            // Boxed, as it is rare and would be part of every idle stream.
            return Box::pin(self.write_long(bytes, pieces)).await;
        }
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            self.put_size(&mut bytes, piece);
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(self.after_piece());
        }
        let written = self.write_all(&bytes).await;
        buffer_pool::put(bytes);
        written
    }

    /// The same with pieces that are too long to be copied.
    async fn write_long(&mut self, mut bytes: BytesMut, pieces: &[Bytes]) -> Result<(), Unwritten> {
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            self.put_size(&mut bytes, piece);
            self.write_all(&bytes).await?;
            self.write_all(piece).await?;
            bytes.clear();
            bytes.extend_from_slice(self.after_piece());
        }
        let written = self.write_all(&bytes).await;
        buffer_pool::put(bytes);
        written
    }

    /// The line before a chunk.
    fn put_size(&self, bytes: &mut BytesMut, piece: &Bytes) {
        if self.chunked {
            put_chunk_size(bytes, piece.len());
        }
    }

    fn after_piece(&self) -> &'static [u8] {
        if self.chunked { b"\r\n" } else { b"" }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), Unwritten> {
        let (stream, mut sent) = (&mut self.connection.stream, 0);
        let written = poll_fn(|context| poll_write_all(stream, bytes, &mut sent, context)).await;
        written.map_err(|_| Unwritten)
    }
}

/// Writes `bytes` from `sent` on, and moves that along.
fn poll_write_all(
    stream: &mut Stream,
    bytes: &[u8],
    sent: &mut usize,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while let Some(rest) = bytes.get(*sent..).filter(|rest| !rest.is_empty()) {
        match ready!(Pin::new(&mut *stream).poll_write(context, rest))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            length => *sent += length,
        }
    }
    Pin::new(stream).poll_flush(context)
}

/// Reads more of what a socket's client sends; false = it is gone. An idle socket holds no room.
fn poll_read_more(
    stream: &mut Stream,
    pending: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<bool> {
    if pending.is_empty() && pending.capacity() > 0 {
        buffer_pool::put(std::mem::take(pending));
    }
    poll_read_some(stream, pending, context).map(|length| length > 0)
}

/// The next frame of a WebSocket's client. Messages are refused by their header alone.
fn poll_frame(
    stream: &mut Stream,
    pending: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<Input> {
    /// A message above this is refused for its length.
    const MAX_MESSAGE: u64 = 64 << 10;
    loop {
        match websocket::header(pending, MAX_MESSAGE) {
            Err(code) => return Poll::Ready(Input::Wrong(code)),
            Ok(Some(header)) if !header.opcode.is_control() => {
                return Poll::Ready(Input::Wrong(match header.opcode {
                    Opcode::Continuation => CloseCode::Protocol,
                    _ => CloseCode::Policy,
                }));
            }
            Ok(_) => {}
        }
        match websocket::take(pending, MAX_MESSAGE) {
            Err(code) => return Poll::Ready(Input::Wrong(code)),
            Ok(Some(frame)) => {
                let payload = Bytes::copy_from_slice(&frame.payload);
                return Poll::Ready(match frame.opcode {
                    Opcode::Ping => Input::Ping(payload),
                    Opcode::Close => Input::Close(payload),
                    _ => Input::Pong,
                });
            }
            Ok(None) => {}
        }
        if !ready!(poll_read_more(stream, pending, context)) {
            return Poll::Ready(Input::Gone);
        }
    }
}

/// The next frame of a client, whatever it is.
async fn any_frame(stream: &mut Stream, pending: &mut BytesMut, most: u64) -> Framed {
    loop {
        match websocket::take(pending, most) {
            Err(code) => return Framed::Wrong(code),
            Ok(Some(frame)) => {
                // So that it does not keep the whole buffer.
                let payload = Bytes::copy_from_slice(&frame.payload);
                return Framed::Frame(Frame { payload, ..frame });
            }
            Ok(None) => {}
        }
        if !poll_fn(|context| poll_read_more(stream, pending, context)).await {
            return Framed::Gone;
        }
    }
}

/// The next thing that the client of a socket does which may send messages.
fn poll_message(
    stream: &mut Stream,
    pending: &mut BytesMut,
    messages: &mut Messages,
    most: usize,
    context: &mut Context<'_>,
) -> Poll<Input> {
    loop {
        let input = match websocket::take(pending, messages.room(most)) {
            Err(code) => Input::Wrong(code),
            Ok(Some(frame)) => match frame.opcode {
                Opcode::Ping => Input::Ping(Bytes::copy_from_slice(&frame.payload)),
                Opcode::Close => Input::Close(Bytes::copy_from_slice(&frame.payload)),
                Opcode::Pong => Input::Pong,
                _ => match messages.take(frame) {
                    Err(code) => Input::Wrong(code),
                    Ok(Some(text)) => Input::Text(Bytes::copy_from_slice(&text)),
                    Ok(None) => continue,
                },
            },
            Ok(None) if ready!(poll_read_more(stream, pending, context)) => continue,
            Ok(None) => Input::Gone,
        };
        return Poll::Ready(input);
    }
}

impl Exchange for LaneExchange<'_> {
    type Error = Unwritten;

    async fn settle(&mut self, _keep: bool) -> Result<Option<Reply>, Unwritten> {
        Ok(None)
    }

    fn waiting(&mut self) -> (&mut Timer, impl Future<Output = ()> + Send) {
        let Connection { stream, pending, timer, .. } = &mut *self.connection;
        (timer, gone(stream, pending, self.settings.head.bytes))
    }

    fn close_after(&mut self) {
        self.keep = false;
    }

    async fn write(&mut self, reply: &Reply) -> Result<(), Unwritten> {
        self.keep &= !*self.shutdown.borrow() && !self.front.gate.is_draining();
        if self.connection.write(reply, self.keep).await { Ok(()) } else { Err(Unwritten) }
    }

    async fn start(&mut self, head: &Reply, first: &[Bytes]) -> Result<(), Unwritten> {
        self.keep &= !*self.shutdown.borrow() && !self.front.gate.is_draining();
        self.chunked = head.status != 101;
        let mut bytes = buffer_pool::take();
        response::write_stream(&mut bytes, head, self.keep);
        self.write_pieces(bytes, first).await
    }

    async fn send(&mut self, pieces: &[Bytes]) -> Result<(), Unwritten> {
        match pieces {
            // The bytes that all clients share, as they are.
            [piece] if !self.chunked => self.write_all(piece).await,
            _ => self.write_pieces(buffer_pool::take(), pieces).await,
        }
    }

    fn frames(&mut self, most: u64) -> (&mut Timer, impl Future<Output = Framed> + Send) {
        let Connection { stream, pending, timer, .. } = &mut *self.connection;
        (timer, any_frame(stream, pending, most))
    }

    async fn finish(&mut self) -> Result<(), Unwritten> {
        if !self.chunked {
            return Ok(());
        }
        self.chunked = false;
        self.write_pieces(buffer_pool::take(), &[Bytes::from_static(b"0\r\n\r\n")]).await
    }

    fn timer(&mut self) -> &mut Timer {
        &mut self.connection.timer
    }

    fn poll_input(&mut self, context: &mut Context<'_>, socket: bool) -> Poll<Input> {
        let Connection { stream, pending, .. } = &mut *self.connection;
        if socket {
            return poll_frame(stream, pending, context);
        }
        poll_gone(stream, pending, self.settings.head.bytes, context).map(|()| Input::Gone)
    }

    fn poll_message(
        &mut self,
        context: &mut Context<'_>,
        messages: &mut Messages,
        most: usize,
    ) -> Poll<Input> {
        let Connection { stream, pending, .. } = &mut *self.connection;
        poll_message(stream, pending, messages, most, context)
    }
}
