//! Connections to the upstream that serve one request alone, behind a stream of the gate's own.

use super::connection_state::next_group;
use async_trait::async_trait;
use pingora::Result;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::ext;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use socket2::{SockRef, TcpKeepalive};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection to the upstream, over TCP or a unix socket.
pub(in crate::server::gate) trait Socket:
    AsyncRead + AsyncWrite + Unpin + Send + Sync + fmt::Debug
{
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync + fmt::Debug> Socket for S {}

/// Has pingora make a connection for this request alone; `wrap` makes the stream that it uses.
pub(super) fn prepare(
    peer: &mut HttpPeer,
    wrap: impl Fn(Box<dyn Socket>) -> Box<dyn VirtualSocket> + Send + Sync + 'static,
) {
    if peer.group_key == 0 {
        peer.group_key = next_group();
    }
    peer.options.idle_timeout = Some(Duration::ZERO);
    peer.options.custom_l4 = Some(Arc::new(Connect(Box::new(wrap))));
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
