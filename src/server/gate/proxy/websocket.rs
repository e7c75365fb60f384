//! Connections to the upstream for requests that switch to another protocol (WebSockets).
//!
//! Pingora (0.9.1, `proxy_h1`) sends such a request to the upstream and then notifies itself that
//! the request has no body. If the upstream's 101 overtakes that note, pingora takes the note for
//! the end of the new protocol, and closes before a byte was passed: on a busy machine once in two
//! hundred times. So the upstream's response is withheld until the note has been read, which shows
//! on the connection: pingora flushes it once after the head, and once more for the end of the body
//! that is not there.

use async_trait::async_trait;
use pingora::Result;
use pingora::connectors::L4Connect;
use pingora::http::RequestHeader;
use pingora::protocols::l4::ext;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// True if this module handles the request. Other protocols than WebSocket are not passed on; a
/// request with a body, which WebSockets do not have, may wait for the upstream's 100 (Continue)
/// before it sends it.
pub(in crate::server::gate) fn is_for(head: &RequestHeader) -> bool {
    let says = |name: &str, word: &str| {
        let lists = head.headers.get_all(name).iter().filter_map(|list| list.to_str().ok());
        lists.flat_map(|list| list.split(',')).any(|it| it.trim().eq_ignore_ascii_case(word))
    };
    let body = ["content-length", "transfer-encoding"];
    says("upgrade", "websocket")
        && says("connection", "upgrade")
        && !body.iter().any(|name| head.headers.contains_key(*name))
}

/// Has pingora make a connection for this request alone.
pub(in crate::server::gate) fn prepare(peer: &mut HttpPeer) {
    /// All other connections are of group 0.
    static GROUP: AtomicU64 = AtomicU64::new(1);
    peer.group_key = GROUP.fetch_add(1, Ordering::Relaxed);
    peer.options.idle_timeout = Some(Duration::ZERO);
    peer.options.custom_l4 = Some(Arc::new(Connect));
}

#[derive(Debug)]
struct Connect;

#[async_trait]
impl L4Connect for Connect {
    async fn connect(&self, site: &SocketAddr) -> Result<Stream> {
        let socket: Box<dyn VirtualSocket> = match site {
            SocketAddr::Inet(address) => {
                let stream = ext::connect(address, None).await?;
                let failed = |error| Error::because(ErrorType::SocketError, "TCP_NODELAY", error);
                stream.set_nodelay(true).map_err(failed)?;
                Box::new(Withheld::new(stream))
            }
            SocketAddr::Unix(address) => {
                let path = address.as_pathname();
                let path = path.ok_or_else(|| Error::new(ErrorType::ConnectNoRoute))?;
                Box::new(Withheld::new(ext::connect_uds(path).await?))
            }
        };
        Ok(VirtualSocketStream::new(socket).into())
    }
}

/// A connection on which nothing is read before the second flush.
#[derive(Debug)]
struct Withheld<S> {
    inner: S,
    flushes_to_come: u8,
    /// The reader that waits for the second flush.
    reader: Option<Waker>,
}

impl<S> Withheld<S> {
    fn new(inner: S) -> Self {
        Self { inner, flushes_to_come: 2, reader: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Withheld<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.flushes_to_come > 0 {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_read(context, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Withheld<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(context))?;
        self.flushes_to_come = self.flushes_to_come.saturating_sub(1);
        if self.flushes_to_come == 0
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync + Debug> VirtualSocket for Withheld<S> {
    /// The gate's own options are set already.
    fn set_socket_option(&self, _option: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn an_answer_waits_for_the_second_flush() {
        let (near, mut far) = tokio::io::duplex(100);
        far.write_all(b"101").await.unwrap();
        let (mut reads, mut writes) = tokio::io::split(Withheld::new(near));
        let mut answer = tokio::spawn(async move {
            let mut answer = [0; 3];
            reads.read_exact(&mut answer).await.map(|_| answer)
        });
        for part in [&b"head"[..], b""] {
            let early = tokio::time::timeout(Duration::from_millis(20), &mut answer).await;
            assert!(early.is_err(), "read before its time");
            writes.write_all(part).await.unwrap();
            writes.flush().await.unwrap();
        }
        assert_eq!(&answer.await.unwrap().unwrap(), b"101");
    }

    fn head(headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut head = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in headers {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn only_websockets_without_a_body_get_a_connection_of_their_own() {
        let plain = [("Connection", "keep-alive, Upgrade"), ("Upgrade", "WebSocket")];
        assert!(is_for(&head(&plain)));
        assert!(!is_for(&head(&plain[..1])) && !is_for(&head(&plain[1..])));
        assert!(!is_for(&head(&[("Connection", "Upgrade"), ("Upgrade", "h2c")])));
        for body in [("Content-Length", "3"), ("Transfer-Encoding", "chunked")] {
            assert!(!is_for(&head(&[plain[0], plain[1], body])));
        }
    }
}
