//! Connections to the upstream that are unlike pingora's: those behind a stream of the gate's own,
//! which serve one request alone, and those of HTTP/2 clients, which are read in small pieces.

use super::connection_state::next_group;
use async_trait::async_trait;
use pingora::Result;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::ext;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use socket2::{SockRef, TcpKeepalive};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{fmt, io};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection to the upstream, over TCP or a unix socket.
pub(in crate::server::gate) trait Socket:
    AsyncRead + AsyncWrite + Unpin + Send + Sync + fmt::Debug
{
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync + fmt::Debug> Socket for S {}

/// A rule for what is read on such a connection.
pub(super) trait ReadRule: fmt::Debug + Unpin + Send + Sync + 'static {
    /// Reads from `inner` as the rule allows.
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        inner: &mut S,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>;

    /// All that was written has left.
    fn flushed(&mut self) {}
}

/// A connection whose reads follow a rule.
#[derive(Debug)]
pub(super) struct Ruled<S, R> {
    pub(super) inner: S,
    pub(super) rule: R,
}

impl<S: AsyncRead + Unpin, R: ReadRule> AsyncRead for Ruled<S, R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inner, rule } = self.get_mut();
        rule.poll_read(inner, context, buf)
    }
}

impl<S: AsyncWrite + Unpin, R: ReadRule> AsyncWrite for Ruled<S, R> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(context))?;
        self.rule.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S: Socket, R: ReadRule> VirtualSocket for Ruled<S, R> {
    /// The gate's own options are set already.
    fn set_socket_option(&self, _option: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

/// Has pingora make a connection for this request alone; `rule` makes the rule of its reads.
pub(super) fn prepare<R: ReadRule>(
    peer: &mut HttpPeer,
    rule: impl Fn() -> R + Send + Sync + 'static,
) {
    let wrap = move |inner| -> Box<dyn VirtualSocket> { Box::new(Ruled { inner, rule: rule() }) };
    if peer.group_key == 0 {
        peer.group_key = next_group();
    }
    peer.options.idle_timeout = Some(Duration::ZERO);
    peer.options.custom_l4 = Some(Arc::new(Connect(Box::new(wrap))));
}

/// Has pingora read the response in small pieces, on a connection that other such requests use
/// later. It reads up to ten pieces ahead of a client that does not read, and an HTTP/2 client can
/// do that on a hundred streams of one connection. A piece is what the kernel has received, so its
/// buffer bounds it; pingora keeps no connections behind a stream of the gate's own.
pub(super) fn read_little(peer: &mut HttpPeer) {
    /// The group of these connections, beside those that are counted up from 1.
    const GROUP: u64 = u64::MAX;
    /// In bytes. The kernel doubles it, for its own records.
    const RECEIVE_BUFFER: u32 = 8 << 10;
    if peer.group_key == 0 {
        peer.group_key = GROUP;
    }
    peer.options.upstream_tcp_sock_tweak_hook = Some(Arc::new(|socket| {
        let failed = |error| Error::because(ErrorType::SocketError, "receive buffer", error);
        socket.set_recv_buffer_size(RECEIVE_BUFFER).map_err(failed)
    }));
}

/// TCP keep-alive that notices a vanished upstream within two minutes.
fn keepalive() -> TcpKeepalive {
    let time = Duration::from_secs(60);
    let interval = Duration::from_secs(15);
    TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(4)
}

type Wrap = dyn Fn(Box<dyn Socket>) -> Box<dyn VirtualSocket> + Send + Sync;

struct Connect(Box<Wrap>);

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").finish_non_exhaustive()
    }
}

/// A new connection to a server, whose end is noticed.
pub(in crate::server::gate) async fn dial(server: &SocketAddr) -> Result<Box<dyn Socket>> {
    match server {
        SocketAddr::Inet(address) => {
            let stream = ext::connect(address, None).await?;
            let failed = |error| Error::because(ErrorType::SocketError, "socket options", error);
            stream.set_nodelay(true).map_err(failed)?;
            SockRef::from(&stream).set_tcp_keepalive(&keepalive()).map_err(failed)?;
            Ok(Box::new(stream))
        }
        SocketAddr::Unix(address) => {
            let path = address.as_pathname();
            let path = path.ok_or_else(|| Error::new(ErrorType::ConnectNoRoute))?;
            Ok(Box::new(ext::connect_uds(path).await?))
        }
    }
}

#[async_trait]
impl L4Connect for Connect {
    async fn connect(&self, site: &SocketAddr) -> Result<Stream> {
        Ok(VirtualSocketStream::new((self.0)(dial(site).await?)).into())
    }
}
