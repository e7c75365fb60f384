//! A TLS connection that holds no buffer while it is idle.
//!
//! The TLS library is used without its own buffers, one of which would stay with every connection.
//! Received bytes are gathered only as long as a record is incomplete, and bytes to send only until
//! the network takes them: one batch, so that a client that does not read holds up the writer.

use crate::server::net::stream::{copy_read, pass_on_identity};
use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{ALPN, Shutdown, Ssl, Stream};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
    WriteTraffic,
};
use rustls::{Error, ServerConfig};
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read at once, and bytes made one record of: the longest that a record may have.
const RECORD: usize = 16 * 1024;
/// Bytes that a record adds to its payload, at the usual maximum.
const AROUND: usize = 64;
/// Upper bound of bytes gathered before they must have made sense: the longest handshake message
/// that the library takes, in its records.
const MAX_RECEIVED: usize = 80 * 1024;

/// See the [module](self).
pub(crate) struct TlsStream {
    inner: Stream,
    session: UnbufferedServerConnection,
    /// Received, and no whole record yet.
    received: BytesMut,
    /// Decrypted, and not handed out yet.
    plain: BytesMut,
    /// Encrypted, and not taken by the network yet.
    unsent: BytesMut,
    /// Nothing more will come.
    ended: bool,
    /// Nothing more will be sent.
    closed: bool,
}

/// Reason why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The client speaks HTTP without TLS; it can still be answered
    /// [`beneath`](TlsStream::beneath).
    #[error("it speaks plain HTTP")]
    Plain(Box<TlsStream>),
    /// The handshake failed.
    #[error("{0}")]
    Handshake(#[from] io::Error),
    /// The library refused to begin one.
    #[error("{0}")]
    Tls(#[from] Error),
}

/// Work to do once the session can take it.
enum Wish<'a> {
    Nothing,
    Send(&'a [u8]),
    Close,
}

impl TlsStream {
    /// Does the handshake with the client.
    pub(super) async fn handshake(
        inner: Stream,
        config: Arc<ServerConfig>,
    ) -> Result<Self, HandshakeError> {
        let session = UnbufferedServerConnection::new(config)?;
        let received = BytesMut::new();
        let plain = BytesMut::new();
        let unsent = BytesMut::new();
        let ended = false;
        let closed = false;
        let mut this = Self { inner, session, received, plain, unsent, ended, closed };
        match poll_fn(|context| this.poll_handshake(context)).await {
            Ok(()) => Ok(this),
            // A record begins with its kind, a small number, and HTTP with a method.
            Err(_) if this.received.first().is_some_and(u8::is_ascii_uppercase) => {
                Err(HandshakeError::Plain(Box::new(this)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// True if HTTP/2 was agreed on.
    pub(crate) fn is_http2(&self) -> bool {
        self.session.alpn_protocol() == Some(b"h2")
    }

    /// The connection itself, for a client that never began to speak TLS.
    pub(crate) fn beneath(&mut self) -> &mut Stream {
        &mut self.inner
    }

    fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(context))?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_receive(context))?;
            // A client may have said all it has to say in one go with the end of its handshake.
            if self.ended && self.session.is_handshaking() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads once, and decrypts complete records.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [MaybeUninit::uninit(); RECORD];
        let mut buf = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.inner).poll_read(context, &mut buf))?;
        if buf.filled().is_empty() {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        self.received.extend_from_slice(buf.filled());
        let begins_like_http = self.received.first().is_some_and(u8::is_ascii_uppercase);
        if begins_like_http && self.session.is_handshaking() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let mut done = self.work(Wish::Nothing);
        if done.is_ok() && self.received.len() > MAX_RECEIVED {
            done = Err(Error::General("a message is too long".to_owned()));
        }
        done.map_err(|error| {
            self.say_why(context);
            io::Error::new(io::ErrorKind::InvalidData, error)
        })?;
        Poll::Ready(Ok(()))
    }

    /// Has the session do all that it can with the received bytes and the wish.
    fn work(&mut self, mut wish: Wish<'_>) -> Result<(), Error> {
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.session.process_tls_records(&mut self.received);
            let go_on = match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        self.plain.extend_from_slice(record.payload);
                    }
                    true
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    append(&mut self.unsent, 0, |out| data.encode(out).map_err(Short::from))?;
                    true
                }
                // Encoded bytes wait in `unsent`, which is sent before anything else.
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    true
                }
                ConnectionState::WriteTraffic(traffic) => {
                    fulfil(&mut wish, traffic, &mut self.unsent)?;
                    false
                }
                ConnectionState::PeerClosed => {
                    self.ended = true;
                    true
                }
                ConnectionState::Closed | ConnectionState::BlockedHandshake => false,
                // Early data is not offered.
                _ => return Err(Error::General("an unexpected state".to_owned())),
            };
            self.received.advance(discard);
            if !go_on {
                break;
            }
        }
        if self.received.is_empty() {
            self.received = BytesMut::new();
        }
        match wish {
            Wish::Send(_) => Err(Error::General("nothing can be sent any more".to_owned())),
            Wish::Nothing | Wish::Close => Ok(()),
        }
    }

    /// Sends the client an alert with the reason, if the network takes it at once.
    fn say_why(&mut self, context: &mut Context<'_>) {
        self.ended = true;
        while let UnbufferedStatus { state: Ok(ConnectionState::EncodeTlsData(mut data)), .. } =
            self.session.process_tls_records(&mut [])
        {
            let said = append(&mut self.unsent, 0, |out| data.encode(out).map_err(Short::from));
            if said.is_err() {
                return;
            }
        }
        let _ = self.poll_send(context);
    }

    /// Sends what is encrypted.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_write(context, &self.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => self.unsent.advance(length),
            }
        }
        self.unsent = BytesMut::new();
        Pin::new(&mut self.inner).poll_flush(context)
    }
}

/// Fulfils a wish.
fn fulfil<T>(
    wish: &mut Wish<'_>,
    mut traffic: WriteTraffic<'_, T>,
    unsent: &mut BytesMut,
) -> Result<(), Error> {
    match std::mem::replace(wish, Wish::Nothing) {
        Wish::Nothing => Ok(()),
        Wish::Send(bytes) => append(unsent, bytes.len() + AROUND, |out| {
            traffic.encrypt(bytes, out).map_err(Short::from)
        }),
        Wish::Close => {
            append(unsent, AROUND, |out| traffic.queue_close_notify(out).map_err(Short::from))
        }
    }
}

/// Reason why bytes were not written into the room given.
enum Short {
    /// It needs that many bytes.
    Room(usize),
    /// It cannot be written at all.
    Never,
}

impl From<EncodeError> for Short {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => {
                Self::Room(required_size)
            }
            EncodeError::AlreadyEncoded => Self::Never,
        }
    }
}

impl From<EncryptError> for Short {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => {
                Self::Room(required_size)
            }
            EncryptError::EncryptExhausted => Self::Never,
        }
    }
}

/// Appends the output of `write`, first into `room` bytes and then into as many as it asks for.
fn append(
    out: &mut BytesMut,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Short>,
) -> Result<(), Error> {
    let before = out.len();
    loop {
        out.resize(before + room, 0);
        match write(&mut out[before..]) {
            Ok(written) => {
                out.truncate(before + written);
                return Ok(());
            }
            Err(Short::Room(wanted)) if wanted > room => room = wanted,
            Err(_) => {
                out.truncate(before);
                return Err(Error::EncryptError);
            }
        }
    }
}

fn broken(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // The session's own messages do not wait for the next response.
        if let Poll::Ready(sent) = this.poll_send(context) {
            sent?;
        }
        loop {
            if !this.plain.is_empty() {
                copy_read(&mut this.plain, buf);
                if this.plain.is_empty() {
                    this.plain = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            if this.ended || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_receive(context))?;
            if let Poll::Ready(sent) = this.poll_send(context) {
                sent?;
            }
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        let length = buf.len().min(RECORD);
        if length > 0 {
            this.work(Wish::Send(&buf[..length])).map_err(broken)?;
        }
        match this.poll_send(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // The bytes are accepted; the next write waits for them.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(length)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.closed, true) {
            this.work(Wish::Close).map_err(broken)?;
        }
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }
}

/// A connection that is dropped without a shutdown is closed properly all the same, if the network
/// takes the closing alert at once; without one, a client may suspect a truncation.
impl Drop for TlsStream {
    fn drop(&mut self) {
        let handshaking = self.session.is_handshaking();
        if !handshaking && !self.closed && self.work(Wish::Close).is_ok() {
            let _ = self.poll_send(&mut Context::from_waker(Waker::noop()));
        }
    }
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Ssl for TlsStream {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        let version = self.session.protocol_version().and_then(|version| version.as_str());
        let cipher = self.session.negotiated_cipher_suite().and_then(|it| it.suite().as_str());
        let cipher = cipher.unwrap_or_default();
        let version = version.unwrap_or_default();
        Some(Arc::new(SslDigest::new(cipher, version, None, None, Vec::new())))
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        Some(if self.is_http2() { ALPN::H2 } else { ALPN::H1 })
    }
}

#[async_trait]
impl Shutdown for TlsStream {
    async fn shutdown(&mut self) {
        let _ = tokio::io::AsyncWriteExt::shutdown(self).await;
    }
}

// Pingora's other requirements on a stream are met by the connection itself.

pass_on_identity!(TlsStream);
