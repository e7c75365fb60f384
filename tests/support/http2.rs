//! A bare HTTP/2 client: over plain TCP with prior knowledge, over TLS by ALPN (RFC 9113,
//! section 3).

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::http::Response;
use super::{Addr, BOUND, QUIET, tls};

/// One connection; its requests are streams of their own. Dropping it closes it.
pub struct Http2 {
    sender: SendRequest<Bytes>,
    connection: JoinHandle<()>,
    scheme: &'static str,
    host: String,
    /// Asked and not yet read, in the order of asking.
    asked: VecDeque<Asked>,
}

enum Asked {
    Waiting(ResponseFuture),
    Answered(http::Response<h2::RecvStream>),
}

impl Http2 {
    pub async fn connect(addr: &Addr) -> Http2 {
        match addr {
            Addr::Tcp(tcp) => {
                Http2::over(within("connect", TcpStream::connect(tcp)).await, addr).await
            }
            Addr::Tls(_) => Http2::over(tls::connect(addr, &["h2"]).await, addr).await,
            Addr::Unix(_) => panic!("HTTP/2 is spoken over TCP here, not {addr}"),
        }
    }

    async fn over<S>(stream: S, addr: &Addr) -> Http2
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = within("handshake", h2::client::handshake(stream)).await;
        let connection = tokio::spawn(async {
            // It ends when this side closes it, which is no error, or breaks, which the streams
            // report.
            let _ = connection.await;
        });
        let scheme = if matches!(addr, Addr::Tls(_)) { "https" } else { "http" };
        Http2 { sender, connection, scheme, host: addr.host(), asked: VecDeque::new() }
    }

    /// The host of the requests from here on.
    pub fn names(&mut self, host: &str) {
        host.clone_into(&mut self.host);
    }

    /// Sends a request without a body.
    pub async fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) {
        self.send(method, target, headers, b"").await;
    }

    /// Sends a request with this body, if it is not empty.
    pub async fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &'static [u8],
    ) {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}://{}{target}", self.scheme, self.host))
            .version(http::Version::HTTP_2);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap_or_else(|e| panic!("{method} {target}: {e}"));
        let mut sender = within("room for a stream", self.sender.clone().ready()).await;
        let (answer, mut stream) = sender.send_request(request, body.is_empty()).unwrap();
        if !body.is_empty() {
            stream.send_data(Bytes::from_static(body), true).unwrap();
        }
        self.asked.push_back(Asked::Waiting(answer));
    }

    /// Reads the answer to the request asked first.
    pub async fn answer(&mut self) -> Response {
        let asked = self.asked.pop_front().unwrap_or_else(|| panic!("nothing was asked"));
        let answer = match asked {
            Asked::Waiting(answer) => within("answer", answer).await,
            Asked::Answered(answer) => answer,
        };
        let (head, mut stream) = answer.into_parts();
        let mut body = Vec::new();
        while let Some(piece) = within("body", async { stream.data().await.transpose() }).await {
            stream.flow_control().release_capacity(piece.len()).unwrap();
            body.extend_from_slice(&piece);
        }
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
        let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
        let status = head.status.as_u16();
        Response { status, headers: headers.collect(), body, head: Vec::new() }
    }

    /// Reads the head of the answer to the request asked first; its body is still to come.
    pub async fn answer_head(&mut self) -> (Response, h2::RecvStream) {
        let asked = self.asked.pop_front().unwrap_or_else(|| panic!("nothing was asked"));
        let answer = match asked {
            Asked::Waiting(answer) => within("answer", answer).await,
            Asked::Answered(answer) => answer,
        };
        let (head, stream) = answer.into_parts();
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
        let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
        let status = head.status.as_u16();
        let headers = headers.collect();
        (Response { status, headers, body: Vec::new(), head: Vec::new() }, stream)
    }

    /// Reads the next piece of a body; `None` = it has ended cleanly.
    pub async fn piece(stream: &mut h2::RecvStream) -> Option<Vec<u8>> {
        let piece = within("body", async { stream.data().await.transpose() }).await?;
        stream.flow_control().release_capacity(piece.len()).unwrap();
        Some(piece.to_vec())
    }

    /// Whether none of the requests has been answered.
    pub async fn is_quiet(&mut self) -> bool {
        let until = tokio::time::Instant::now() + QUIET;
        for asked in &mut self.asked {
            let Asked::Waiting(answer) = asked else { return false };
            if let Ok(answer) = tokio::time::timeout_at(until, answer).await {
                *asked = Asked::Answered(answer.unwrap_or_else(|e| panic!("answer: {e}")));
                return false;
            }
        }
        true
    }

    /// The streams that the server allows at a time, as far as its settings have come.
    pub fn most_streams(&self) -> usize {
        self.sender.current_max_send_streams()
    }

    /// Takes back the request asked last: resets its stream, the connection stays.
    pub fn cancel(&mut self) {
        drop(self.asked.pop_back());
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn within<T, E: std::fmt::Display>(
    what: &str,
    work: impl Future<Output = Result<T, E>>,
) -> T {
    match tokio::time::timeout(BOUND, work).await {
        Ok(Ok(done)) => done,
        Ok(Err(e)) => panic!("{what}: {e}"),
        Err(_) => panic!("{what}: nothing within {BOUND:?}"),
    }
}
