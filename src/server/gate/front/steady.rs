//! A connection whose client must take what is written to it.
//!
//! It stands beneath everything else, TLS too: a writer needs no time limit of its own.

use crate::server::gate::Gate;
use crate::server::net::stream::{pass_on_identity, pass_on_tls};
use crate::server::net::write_stall::WriteStall;
use async_trait::async_trait;
use pingora::protocols::{Shutdown, Stream};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the [module](self).
pub(super) struct SteadyStream {
    inner: Stream,
    gate: Gate,
    stall: WriteStall,
}

impl SteadyStream {
    /// `inner`, as `limits.write_timeout` of `gate` bounds it.
    pub(super) fn new(inner: Stream, gate: Gate) -> Self {
        Self { inner, gate, stall: WriteStall::default() }
    }

    fn watch<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        let Self { inner, gate, stall } = self;
        stall.watch(inner, || gate.settings().write_timeout, written, context)
    }
}

impl fmt::Debug for SteadyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteadyStream").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl AsyncRead for SteadyStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(context, buf)
    }
}

impl AsyncWrite for SteadyStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(context, buf);
        this.watch(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(context, bufs);
        this.watch(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(context);
        this.watch(flushed, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.inner).poll_shutdown(context);
        this.watch(shut, context)
    }
}

// The rest of what pingora asks of a stream is the connection's own.

#[async_trait]
impl Shutdown for SteadyStream {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

pass_on_identity!(SteadyStream);
pass_on_tls!(SteadyStream);
