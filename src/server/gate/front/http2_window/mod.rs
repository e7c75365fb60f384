//! The window of an HTTP/2 connection.
//!
//! h2 bounds what it holds unsent of each stream, not of a connection. A client that grants a huge
//! window on many streams and does not read would have each of them filled. So this stream keeps
//! back the window that the client grants its connection (RFC 9113, section 6.9), and hands it on as
//! the socket takes data: all streams together hold [`MAX_UNSENT`] at the most. A client that
//! grants less, or reads, notices nothing.

use super::buffer_pool;
use super::one_request::OneRequest;
use crate::server::net::stream::{copy_read, pass_on_identity, pass_on_tls};
use async_trait::async_trait;
use bytes::BytesMut;
use pingora::protocols::Shutdown;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of all streams of a connection that wait to be sent, at the most.
const MAX_UNSENT: u64 = 256 << 10;
/// The window of a connection that begins (section 6.9.2); no setting changes it.
const INITIAL: u64 = 65_535;
/// The largest window that there may be (section 6.9.1).
const MAX_WINDOW: u64 = (1 << 31) - 1;
/// The length of a client's preface, which comes before all frames (section 3.4).
const PREFACE: usize = 24;
/// The length of a frame's header (section 4.1).
const HEADER: usize = 9;
/// The length of a frame that grants a window, header and all (section 6.9).
const GRANT: usize = HEADER + 4;
/// The types of frames that count here (section 6).
const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 8;
/// Bytes read at once.
const READ: usize = 4096;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct BoundedWindow<S> {
    inner: S,
    window: Window,
    /// Read, and not yet taken by the reader.
    ready: BytesMut,
    /// Waits for more, or for a window.
    reader: Option<Waker>,
}

impl<S> BoundedWindow<S> {
    /// `inner`, of which nothing has been read.
    pub(super) fn new(inner: S) -> Self {
        Self { inner, window: Window::default(), ready: BytesMut::new(), reader: None }
    }

    /// Notes that the socket has taken these bytes.
    fn sent(&mut self, bytes: &[u8]) {
        self.window.sent(bytes);
        if self.window.is_due()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }
}

/// The window, as the bytes of both directions show it.
#[derive(Debug)]
struct Window {
    /// What h2 may still send.
    open: u64,
    /// What the client has granted and h2 does not know of.
    withheld: u64,
    /// Bytes of the client's that pass as they are: the preface, or a frame's payload.
    passing: usize,
    /// A frame's header that has not come whole, or a frame that may be withheld.
    held: [u8; GRANT],
    held_length: usize,
    written: Written,
}

/// The place in the frames that are written.
#[derive(Debug, Default)]
struct Written {
    header: [u8; HEADER],
    header_length: usize,
    payload: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            open: INITIAL,
            withheld: 0,
            passing: PREFACE,
            held: [0; GRANT],
            held_length: 0,
            written: Written::default(),
        }
    }
}

/// The length of the payload behind a frame's header.
fn payload_length(header: &[u8]) -> usize {
    header[..3].iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
}

/// True if a frame with this header grants a window to the whole connection.
fn grants_connection(header: &[u8]) -> bool {
    payload_length(header) == GRANT - HEADER
        && header[3] == WINDOW_UPDATE
        && [header[5] & 0x7f, header[6], header[7], header[8]] == [0; 4]
}

impl Window {
    /// Takes what the client has sent; what h2 is to see goes to `out`.
    fn received(&mut self, mut bytes: &[u8], out: &mut BytesMut) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.passing > 0 {
                let (passed, rest) = bytes.split_at(self.passing.min(bytes.len()));
                out.extend_from_slice(passed);
                self.passing -= passed.len();
                bytes = rest;
                continue;
            }
            let wanted = if self.held_length < HEADER { HEADER } else { GRANT };
            let (taken, rest) = bytes.split_at((wanted - self.held_length).min(bytes.len()));
            self.held[self.held_length..][..taken.len()].copy_from_slice(taken);
            self.held_length += taken.len();
            bytes = rest;
            match self.held_length {
                HEADER if grants_connection(&self.held) => {}
                HEADER => {
                    out.extend_from_slice(&self.held[..HEADER]);
                    self.passing = payload_length(&self.held);
                    self.held_length = 0;
                }
                GRANT => {
                    self.held_length = 0;
                    self.granted(out)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Withholds the window of a whole frame.
    fn granted(&mut self, out: &mut BytesMut) -> io::Result<()> {
        let [.., a, b, c, d] = self.held;
        let window = u64::from(u32::from_be_bytes([a & 0x7f, b, c, d]));
        if window == 0 {
            // An error, which h2 answers.
            out.extend_from_slice(&self.held);
        }
        self.withheld += window;
        if self.open + self.withheld > MAX_WINDOW {
            // Section 6.9.1: the connection ends.
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too large a window"));
        }
        Ok(())
    }

    /// True if h2 is to get some of what is withheld. A frame goes between two others only.
    fn is_due(&self) -> bool {
        self.withheld > 0 && self.open <= MAX_UNSENT / 2 && self.passing == 0
    }

    /// A frame that grants h2 what it may have now.
    fn grant(&mut self) -> Option<[u8; GRANT]> {
        if !self.is_due() {
            return None;
        }
        let window = self.withheld.min(MAX_UNSENT - self.open);
        self.withheld -= window;
        self.open += window;
        let mut frame = [0; GRANT];
        frame[2] = (GRANT - HEADER) as u8;
        frame[3] = WINDOW_UPDATE;
        // It is at most MAX_UNSENT.
        frame[HEADER..].copy_from_slice(&(window as u32).to_be_bytes());
        Some(frame)
    }

    /// Counts the data in what is written.
    fn sent(&mut self, mut bytes: &[u8]) {
        let written = &mut self.written;
        while !bytes.is_empty() {
            if written.payload > 0 {
                let taken = written.payload.min(bytes.len());
                written.payload -= taken;
                if written.header[3] == DATA {
                    self.open = self.open.saturating_sub(taken as u64);
                }
                bytes = &bytes[taken..];
                continue;
            }
            let at = written.header_length;
            let (taken, rest) = bytes.split_at((HEADER - at).min(bytes.len()));
            written.header[at..][..taken.len()].copy_from_slice(taken);
            written.header_length += taken.len();
            bytes = rest;
            if written.header_length == HEADER {
                written.header_length = 0;
                written.payload = payload_length(&written.header);
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedWindow<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() {
                copy_read(&mut this.ready, buf);
                if this.ready.is_empty() {
                    buffer_pool::put(std::mem::take(&mut this.ready));
                }
                return Poll::Ready(Ok(()));
            }
            if let Some(frame) = this.window.grant() {
                this.ready.extend_from_slice(&frame);
                continue;
            }
            let mut room = [MaybeUninit::uninit(); READ];
            let mut read = ReadBuf::uninit(&mut room);
            let Poll::Ready(done) = Pin::new(&mut this.inner).poll_read(context, &mut read) else {
                this.reader = Some(context.waker().clone());
                return Poll::Pending;
            };
            done?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            if this.ready.capacity() == 0 {
                this.ready = buffer_pool::take();
            }
            this.window.received(read.filled(), &mut this.ready)?;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BoundedWindow<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = ready!(Pin::new(&mut this.inner).poll_write(context, buf))?;
        this.sent(&buf[..length]);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

// Pingora's other requirements on a stream are met by the connection itself.

#[async_trait]
impl Shutdown for BoundedWindow<OneRequest> {
    async fn shutdown(&mut self) {
        let _ = tokio::io::AsyncWriteExt::flush(self).await;
        self.inner.shutdown().await;
    }
}

pass_on_identity!(BoundedWindow<OneRequest>);
pass_on_tls!(BoundedWindow<OneRequest>);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
