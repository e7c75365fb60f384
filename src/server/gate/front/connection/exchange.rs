//! The lane's side of an exchange.

use super::Connection;
use super::read::{gone, poll_gone, poll_read_some};
use crate::protocol::http::Reply;
use crate::protocol::http::websocket::{self, CloseCode, Frame, Incoming, Messages, Opcode};
use crate::server::gate::front::response::{self, MAX_COPIED, put_chunk_size};
use crate::server::gate::front::{Front, buffer_pool};
use crate::server::gate::serve::{Exchange, Framed, Input};
use crate::server::gate::{Gate, Settings, Timer};
use bytes::{Bytes, BytesMut};
use pingora::protocols::Stream;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// A plain request on a connection of the lane's. It has no body.
pub(super) struct LaneExchange<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) front: &'a Front,
    pub(super) settings: Arc<Settings>,
    /// Whether the connection is kept after the answer.
    pub(super) keep: bool,
    /// A stream's pieces are chunks (RFC 9112, section 7.1).
    pub(super) chunked: bool,
}

/// The answer could not be written.
pub(super) struct Unwritten;

impl<'a> LaneExchange<'a> {
    pub(super) fn new(
        connection: &'a mut Connection,
        front: &'a Front,
        settings: Arc<Settings>,
        keep: bool,
    ) -> Self {
        Self { connection, front, settings, keep, chunked: false }
    }

    /// Writes `pieces`, each as a chunk, behind `bytes`, as far as that goes at once; the result is
    /// what is left. Short ones are copied there, so that all of it leaves in one write.
    fn write_at_once(
        &mut self,
        context: &mut Context<'_>,
        mut bytes: BytesMut,
        pieces: &[Bytes],
    ) -> Result<Vec<Bytes>, Unwritten> {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        if length > MAX_COPIED {
            return Ok(self.in_parts(bytes, pieces));
        }
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            if self.chunked {
                put_chunk_size(&mut bytes, piece.len());
            }
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(self.after_piece());
        }
        let stream = &mut self.connection.stream;
        let mut sent = 0;
        match poll_write_all(stream, &bytes, &mut sent, context) {
            Poll::Ready(written) => {
                buffer_pool::put(bytes);
                written.map(|()| Vec::new()).map_err(|_| Unwritten)
            }
            Poll::Pending => Ok(vec![bytes.split_off(sent).freeze()]),
        }
    }

    /// What is written for pieces that are too long to be copied.
    fn in_parts(&self, mut bytes: BytesMut, pieces: &[Bytes]) -> Vec<Bytes> {
        let mut parts = Vec::new();
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            if self.chunked {
                put_chunk_size(&mut bytes, piece.len());
            }
            if !bytes.is_empty() {
                parts.push(bytes.split().freeze());
            }
            parts.push(piece.clone());
            bytes.extend_from_slice(self.after_piece());
        }
        parts.push(bytes.freeze());
        parts
    }

    fn after_piece(&self) -> &'static [u8] {
        if self.chunked { b"\r\n" } else { b"" }
    }

    async fn write_pieces(&mut self, bytes: BytesMut, pieces: &[Bytes]) -> Result<(), Unwritten> {
        let mut bytes = Some(bytes);
        let at_once = poll_fn(|context| {
            let bytes = bytes.take().unwrap_or_default();
            Poll::Ready(self.write_at_once(context, bytes, pieces))
        });
        let left = at_once.await?;
        if left.is_empty() { Ok(()) } else { write_rest(&mut self.connection.stream, left).await }
    }
}

/// Writes what was not taken at once, part by part.
pub(super) async fn write_rest(stream: &mut Stream, parts: Vec<Bytes>) -> Result<(), Unwritten> {
    for part in parts {
        let mut sent = 0;
        let write = poll_fn(|context| poll_write_all(stream, &part, &mut sent, context));
        write.await.map_err(|_| Unwritten)?;
    }
    Ok(())
}

/// Writes `bytes` from `sent` on, and moves that along.
pub(super) fn poll_write_all(
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
        let input = match messages.next(pending, most) {
            Err(code) => Input::Wrong(code),
            // Copied, so that they do not keep the whole buffer.
            Ok(Some(incoming)) => match incoming {
                Incoming::Ping(payload) => Input::Ping(Bytes::copy_from_slice(&payload)),
                Incoming::Close(payload) => Input::Close(Bytes::copy_from_slice(&payload)),
                Incoming::Pong => Input::Pong,
                Incoming::Text(text) => Input::Text(Bytes::copy_from_slice(&text)),
                Incoming::Binary(_) => Input::Wrong(CloseCode::Policy),
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

    fn gate(&self) -> &Gate {
        &self.front.gate
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn waiting(&mut self) -> (&mut Timer, impl Future<Output = ()> + Send) {
        let Connection { stream, pending, timer, .. } = &mut *self.connection;
        (timer, gone(stream, pending, self.settings.head.bytes))
    }

    fn close_after(&mut self) {
        self.keep = false;
    }

    fn write(&mut self, reply: &Reply) -> impl Future<Output = Result<(), Unwritten>> + Send {
        self.keep &= !self.front.is_ending();
        self.connection.write(reply, self.keep)
    }

    async fn start(&mut self, head: &Reply, first: &[Bytes]) -> Result<(), Unwritten> {
        self.keep &= !self.front.is_ending();
        self.chunked = head.status != 101;
        let mut bytes = buffer_pool::take();
        response::write_stream(&mut bytes, head, self.keep);
        self.write_pieces(bytes, first).await
    }

    async fn send(&mut self, pieces: &[Bytes]) -> Result<(), Unwritten> {
        let at_once = poll_fn(|context| {
            Poll::Ready(match pieces {
                // The bytes that all clients share, as they are.
                [piece] if !self.chunked => {
                    self.write_coded(context, piece).map(|left| left.into_iter().collect())
                }
                _ => self.write_at_once(context, buffer_pool::take(), pieces),
            })
        });
        let left = at_once.await?;
        if left.is_empty() {
            return Ok(());
        }
        // Boxed, as nearly every write is taken at once, and this would be part of each idle stream.
        Box::pin(write_rest(&mut self.connection.stream, left)).await
    }

    fn is_chunked(&self) -> bool {
        self.chunked
    }

    fn write_coded(
        &mut self,
        context: &mut Context<'_>,
        piece: &Bytes,
    ) -> Result<Option<Bytes>, Unwritten> {
        let mut sent = 0;
        match poll_write_all(&mut self.connection.stream, piece, &mut sent, context) {
            Poll::Ready(written) => written.map(|()| None).map_err(|_| Unwritten),
            // Perhaps empty, and only to be flushed.
            Poll::Pending => Ok(Some(piece.slice(sent..))),
        }
    }

    async fn send_coded(&mut self, piece: &Bytes) -> Result<(), Unwritten> {
        let at_once = poll_fn(|context| Poll::Ready(self.write_coded(context, piece)));
        match at_once.await? {
            None => Ok(()),
            // Boxed, as it would be part of each idle stream.
            Some(left) => Box::pin(write_rest(&mut self.connection.stream, vec![left])).await,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::gate::HeldStream;
    use crate::server::gate::pusher::PusherSocket;
    use crate::server::gate::serve::Answering;

    /// Bytes of the future that a function of two arguments returns.
    fn size_of_future<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_stream_takes_little_more_than_a_held_poll() {
        type Lane = &'static mut LaneExchange<'static>;
        // Classes of the allocator. A held poll has the next smaller one of a stream.
        let stream = size_of::<HeldStream>();
        let socket = size_of::<PusherSocket>();
        assert!(stream <= 512 && socket <= 96, "{stream}, {socket}");
        // Its wait is a part of the connection's task.
        let run = size_of_future::<&'static mut Answering, Lane, _>(Answering::run);
        assert!(run <= 136, "{run}");
    }
}
