//! Transports of incoming connections: plain HTTP, TLS, or a redirect to TLS.

use super::Front;
use super::response;
use crate::protocol::http::Reply;
use crate::server::gate::tls::{HandshakeError, Presented, Tls};
use bytes::BytesMut;
use pingora::protocols::Stream;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::server::ShutdownWatch;
use std::pin::pin;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

/// The transport of a listener's connections.
#[derive(Clone)]
pub enum Transport {
    /// HTTP.
    Plain,
    /// HTTP over TLS; on unix sockets, which cannot be eavesdropped on, HTTP.
    Tls(Arc<Tls>),
    /// HTTP, redirected to that port of the same host over TLS.
    Redirect(u16),
}

/// The protocol that the client may begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1 or HTTP/2, depending on its first bytes.
    Any,
    /// HTTP/1.1: over TLS, HTTP/2 has to be agreed on (RFC 9113, section 3.3).
    Http1,
    /// HTTP/2, as agreed.
    Http2,
}

/// Path prefix of ACME challenges (RFC 8555, section 8.3): they come over plain HTTP and are
/// forwarded to the upstream.
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// A connection after its handshake.
pub(super) struct Greeted {
    pub(super) stream: Stream,
    pub(super) speech: Protocol,
    /// The certificate that its client was shown.
    pub(super) shown: Option<Presented>,
}

impl Greeted {
    fn plain(stream: Stream, speech: Protocol) -> Self {
        Self { stream, speech, shown: None }
    }
}

/// Does the TLS handshake with a client; `None` = it failed.
pub(super) async fn handshake(
    front: &Front,
    stream: Stream,
    mut shutdown: ShutdownWatch,
) -> Option<Greeted> {
    let tls = match &front.entrance {
        Transport::Tls(tls) => tls,
        Transport::Plain => return Some(Greeted::plain(stream, Protocol::Any)),
        // The way to TLS is shown in HTTP/1.1 alone: nothing is served here.
        Transport::Redirect(_) => return Some(Greeted::plain(stream, Protocol::Http1)),
    };
    // The near end has a name on every socket, the far end of a unix socket has none.
    let digest = stream.get_socket_digest();
    if matches!(digest.as_ref().and_then(|it| it.local_addr()), Some(SocketAddr::Unix(_))) {
        return Some(Greeted::plain(stream, Protocol::Any));
    }
    let peer = digest.as_ref().and_then(|it| it.peer_addr());
    let limit = front.gate.settings().head_timeout;
    let greeting = pin!(async {
        tokio::select! {
            greeted = tls.handshake(stream) => Some(greeted),
            _ = shutdown.wait_for(|ending| *ending) => None,
        }
    });
    let greeted = match limit {
        Some(limit) => tokio::time::timeout(limit, greeting).await,
        None => Ok(greeting.await),
    };
    match greeted {
        Ok(Some(Ok((stream, shown)))) => {
            let speech = if stream.is_http2() { Protocol::Http2 } else { Protocol::Http1 };
            Some(Greeted { stream: Box::new(stream), speech, shown })
        }
        Ok(Some(Err(refused))) => {
            tracing::debug!(?peer, error = %refused, "no TLS handshake");
            if let HandshakeError::Plain(mut stream) = refused {
                answer_plain(stream.beneath()).await;
            }
            None
        }
        Ok(None) => None,
        Err(_) => {
            tracing::debug!(?peer, "the TLS handshake took longer than limits.head_timeout");
            None
        }
    }
}

/// Sends an error to a client that speaks plain HTTP on a TLS port.
async fn answer_plain(stream: &mut Stream) {
    let words = "This port speaks HTTPS: write https:// before the address.\n";
    let reply = Reply::new(400, "text/plain; charset=UTF-8", words);
    let mut bytes = BytesMut::new();
    response::write(&mut bytes, &reply, false);
    // The response is short, and there is room for it, or the client is gone.
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
}

/// The redirect to `target` over TLS; `None` if the request must be served over plain HTTP.
pub(super) fn redirect(port: u16, host: Option<&str>, target: &str) -> Option<Reply> {
    if target.starts_with(CHALLENGES) {
        return None;
    }
    let host = host.map(|host| host_alone(host.trim())).filter(|host| !host.is_empty());
    let (Some(host), true) = (host, target.starts_with('/')) else {
        return Some(Reply::new(400, "", ""));
    };
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    // No body, so that the response fits any method.
    Some(Reply::new(308, "", "").with("Location", format!("https://{host}{port}{target}")))
}

/// `host` without its port; an IPv6 address keeps its brackets.
fn host_alone(host: &str) -> &str {
    let end = match host.strip_prefix('[') {
        Some(_) => host.find(']').map(|at| at + 1),
        None => host.find(':'),
    };
    &host[..end.unwrap_or(host.len())]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn location(port: u16, host: &str, target: &str) -> String {
        let reply = redirect(port, Some(host), target).unwrap();
        assert_eq!(reply.status, 308);
        let header = reply.headers.iter().find(|(name, _)| *name == "Location");
        header.unwrap().1.to_string()
    }

    #[test]
    fn the_way_leads_to_the_same_place_over_tls() {
        assert_eq!(location(443, "site.example", "/a?b=c"), "https://site.example/a?b=c");
        assert_eq!(location(443, "site.example:80", "/"), "https://site.example/");
        assert_eq!(location(8443, "[::1]:8080", "/"), "https://[::1]:8443/");
    }

    #[test]
    fn what_has_no_host_is_not_led_anywhere() {
        assert_eq!(redirect(443, None, "/").unwrap().status, 400);
        assert_eq!(redirect(443, Some("site.example"), "*").unwrap().status, 400);
    }

    #[test]
    fn a_certificate_authority_is_answered_over_plain_http() {
        assert!(redirect(443, Some("a"), "/.well-known/acme-challenge/x").is_none());
    }
}
