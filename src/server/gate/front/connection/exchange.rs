//! The lane's side of an exchange.

use super::Connection;
use super::read::{gone, read_some};
use crate::protocol::http::Reply;
use crate::protocol::http::websocket::{self, CloseCode, Frame, Incoming, Messages, Opcode};
use crate::server::gate::front::response::{self, MAX_COPIED};
use crate::server::gate::front::{Front, buffer_pool};
use crate::server::gate::serve::{Exchange, Framed, Input};
use crate::server::gate::{Settings, Timer};
use bytes::{Bytes, BytesMut};
use pingora::protocols::Stream;
use std::future::Future;
use tokio::io::AsyncWriteExt;

/// A plain request on a connection of the lane's. It has no body.
pub(super) struct LaneExchange<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) front: &'a Front,
    pub(super) settings: &'a Settings,
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
        let chunked = self.chunked;
        let copied = length <= MAX_COPIED;
        let pieces = || pieces.iter().filter(|piece| !piece.is_empty());
        let size = |bytes: &mut BytesMut, piece: &Bytes| {
            if chunked {
                bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            }
        };
        let end: &[u8] = if chunked { b"\r\n" } else { b"" };
        if copied {
            for piece in pieces() {
                size(&mut bytes, piece);
                bytes.extend_from_slice(piece);
                bytes.extend_from_slice(end);
            }
        }
        let stream = &mut self.connection.stream;
        let written = async {
            if !copied {
                for piece in pieces() {
                    size(&mut bytes, piece);
                    stream.write_all(&bytes).await?;
                    stream.write_all(piece).await?;
                    bytes.clear();
                    bytes.extend_from_slice(end);
                }
            }
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        let written = written.await;
        buffer_pool::put(bytes);
        written.map_err(|_| Unwritten)
    }
}

/// Reads more of what a socket's client sends; false = it is gone. An idle socket holds no room.
async fn read_more(stream: &mut Stream, pending: &mut BytesMut) -> bool {
    if pending.is_empty() {
        buffer_pool::put(std::mem::take(pending));
    }
    read_some(stream, pending).await > 0
}

/// The next frame of a WebSocket's client. Messages are refused by their header alone.
async fn frame(stream: &mut Stream, pending: &mut BytesMut) -> Input {
    /// A message above this is refused for its length.
    const MAX_MESSAGE: u64 = 64 << 10;
    loop {
        match websocket::header(pending, MAX_MESSAGE) {
            Err(code) => return Input::Wrong(code),
            Ok(Some(header)) if !header.opcode.is_control() => {
                return Input::Wrong(match header.opcode {
                    Opcode::Continuation => CloseCode::Protocol,
                    _ => CloseCode::Policy,
                });
            }
            Ok(_) => {}
        }
        match websocket::take(pending, MAX_MESSAGE) {
            Err(code) => return Input::Wrong(code),
            Ok(Some(frame)) => {
                let payload = Bytes::copy_from_slice(&frame.payload);
                return match frame.opcode {
                    Opcode::Ping => Input::Ping(payload),
                    Opcode::Close => Input::Close(payload),
                    _ => Input::Pong,
                };
            }
            Ok(None) => {}
        }
        if !read_more(stream, pending).await {
            return Input::Gone;
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
        if !read_more(stream, pending).await {
            return Framed::Gone;
        }
    }
}

/// The next thing that the client of a socket does which may send messages.
async fn message(
    stream: &mut Stream,
    pending: &mut BytesMut,
    messages: &mut Messages,
    most: usize,
) -> Input {
    loop {
        match messages.next(pending, most) {
            Err(code) => return Input::Wrong(code),
            // Copied, so that they do not keep the whole buffer.
            Ok(Some(incoming)) => {
                return match incoming {
                    Incoming::Ping(payload) => Input::Ping(Bytes::copy_from_slice(&payload)),
                    Incoming::Close(payload) => Input::Close(Bytes::copy_from_slice(&payload)),
                    Incoming::Pong => Input::Pong,
                    Incoming::Text(text) => Input::Text(Bytes::copy_from_slice(&text)),
                    Incoming::Binary(_) => Input::Wrong(CloseCode::Policy),
                };
            }
            Ok(None) => {}
        }
        if !read_more(stream, pending).await {
            return Input::Gone;
        }
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
        self.keep &= !self.front.is_ending();
        if self.connection.write(reply, self.keep).await { Ok(()) } else { Err(Unwritten) }
    }

    async fn start(&mut self, head: &Reply, first: &[Bytes]) -> Result<(), Unwritten> {
        self.keep &= !self.front.is_ending();
        self.chunked = head.status != 101;
        let mut bytes = buffer_pool::take();
        response::write_stream(&mut bytes, head, self.keep);
        self.write_pieces(bytes, first).await
    }

    async fn send(&mut self, pieces: &[Bytes]) -> Result<(), Unwritten> {
        self.write_pieces(buffer_pool::take(), pieces).await
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

    fn receiving(
        &mut self,
        messages: &mut Messages,
        most: usize,
    ) -> (&mut Timer, impl Future<Output = Input> + Send) {
        let Connection { stream, pending, timer, .. } = &mut *self.connection;
        (timer, message(stream, pending, messages, most))
    }

    fn listening(&mut self, socket: bool) -> (&mut Timer, impl Future<Output = Input> + Send) {
        let Connection { stream, pending, timer, .. } = &mut *self.connection;
        let most = self.settings.head.bytes;
        (timer, async move {
            if socket {
                return frame(stream, pending).await;
            }
            gone(stream, pending, most).await;
            Input::Gone
        })
    }
}
