//! Connections to the upstream for requests that switch to another protocol (WebSockets).
//!
//! Pingora (0.9.1, `proxy_h1`) sends such a request to the upstream and then notifies itself that
//! the request has no body. If the upstream's 101 overtakes that note, pingora takes the note for
//! the end of the new protocol, and closes before a byte was passed: on a busy machine once in two
//! hundred times. So the upstream's response is withheld until the note has been read, which shows
//! on the connection: pingora flushes it once after the head, and once more for the end of the body
//! that is not there.
//!
//! `upstream.read_timeout` applies until the upstream has agreed; from then on both sides may be
//! quiet for any time. TCP keep-alive finds an upstream that vanished.

use super::own_connection::{self, ReadRule};
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Sleep, sleep};

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

/// Has pingora make a connection for this request alone; the client's own, if it is signed in on
/// one.
pub(in crate::server::gate) fn prepare(peer: &mut HttpPeer, patience: Duration) {
    own_connection::prepare(peer, move || Withheld::new(patience));
    peer.options.read_timeout = None;
}

/// Nothing is read before the second flush.
#[derive(Debug)]
struct Withheld {
    flushes_to_come: u8,
    /// The reader that waits for the second flush.
    reader: Option<Waker>,
    /// Read timeout before the upstream has agreed to the other protocol.
    patience: Duration,
    silence: Option<Pin<Box<Sleep>>>,
    answer: Beginning,
}

/// The beginning of the upstream's response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beginning {
    /// This many bytes of [`AGREED`].
    So(usize),
    /// All of them: the upstream has agreed.
    Agreed,
    /// Any other response.
    Other,
}

/// The response that agrees to another protocol (RFC 9110, section 15.2.2).
const AGREED: &[u8] = b"HTTP/1.1 101";

impl Beginning {
    fn follow(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let Self::So(seen) = *self else { return };
            *self = match () {
                () if AGREED[seen] != *byte => Self::Other,
                () if seen + 1 == AGREED.len() => Self::Agreed,
                () => Self::So(seen + 1),
            };
        }
    }
}

impl Withheld {
    fn new(patience: Duration) -> Self {
        let answer = Beginning::So(0);
        Self { flushes_to_come: 2, reader: None, patience, silence: None, answer }
    }
}

impl ReadRule for Withheld {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        inner: &mut S,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.flushes_to_come > 0 {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let before = buf.filled().len();
        match Pin::new(inner).poll_read(context, buf) {
            Poll::Pending if self.answer != Beginning::Agreed => {
                let patience = self.patience;
                let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(patience)));
                let late = silence.as_mut().poll(context);
                late.map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
            read => {
                if read.is_ready() {
                    self.silence = None;
                    self.answer.follow(&buf.filled()[before..]);
                }
                read
            }
        }
    }

    fn flushed(&mut self) {
        self.flushes_to_come = self.flushes_to_come.saturating_sub(1);
        if self.flushes_to_come == 0
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::server::gate::proxy::own_connection::Ruled;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn an_answer_waits_for_the_second_flush() {
        let (near, mut far) = tokio::io::duplex(100);
        far.write_all(b"101").await.unwrap();
        let rule = Withheld::new(Duration::from_secs(60));
        let (mut reads, mut writes) = tokio::io::split(Ruled { inner: near, rule });
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

    #[tokio::test(start_paused = true)]
    async fn a_site_has_its_time_to_agree_and_then_is_quiet_as_long_as_it_likes() {
        for (answer, lasts) in
            [("HTTP/1.1 101 Yes\r\n", true), ("HTTP/1.1 200 OK", false), ("", false)]
        {
            let (near, mut far) = tokio::io::duplex(100);
            let rule = Withheld { flushes_to_come: 0, ..Withheld::new(Duration::from_secs(60)) };
            let mut site = Ruled { inner: near, rule };
            for byte in answer.bytes() {
                far.write_all(&[byte]).await.unwrap();
                assert_eq!(site.read_u8().await.unwrap(), byte);
            }
            let quiet = tokio::time::timeout(Duration::from_secs(3600), site.read_u8()).await;
            match quiet {
                Err(_) => assert!(lasts, "{answer:?}"),
                Ok(read) => {
                    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
                    assert!(!lasts, "{answer:?}");
                }
            }
        }
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
