//! A bare HTTP/1.1 client: it sends exactly the bytes of a test and returns exactly the bytes
//! received. Every read and write has a bound and panics beyond it.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

use super::{Addr, BOUND, QUIET, tls};

/// The content type of what a form sends.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// Both kinds of stream.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// One connection. Dropping it closes it.
pub struct Client {
    wire: BufReader<Box<dyn Wire>>,
    host: String,
    bound: Duration,
}

impl Client {
    pub async fn connect(addr: &Addr) -> Client {
        let wire: Box<dyn Wire> = match addr {
            Addr::Tcp(tcp) => Box::new(within("connect", BOUND, TcpStream::connect(tcp)).await),
            Addr::Tls(_) => Box::new(tls::connect(addr, &["http/1.1"]).await),
            Addr::Unix(path) => Box::new(within("connect", BOUND, UnixStream::connect(path)).await),
        };
        Client::over(wire, addr.host())
    }

    /// A client over any stream (TLS, a pipe); `host` is what it writes into `Host`.
    pub fn over<S>(wire: S, host: impl Into<String>) -> Client
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let wire: Box<dyn Wire> = Box::new(wire);
        // Small, so that thousands of clients are no burden for the test itself.
        Client { wire: BufReader::with_capacity(2048, wire), host: host.into(), bound: BOUND }
    }

    /// The `Host` of the requests from here on.
    pub fn names(&mut self, host: &str) {
        host.clone_into(&mut self.host);
    }

    /// Another bound for each read and write.
    pub fn bound(mut self, bound: Duration) -> Client {
        self.bound = bound;
        self
    }

    /// GET and its answer.
    pub async fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, &[], b"").await
    }

    /// GET a poll and its answer, which may take as long as a hold does.
    pub async fn poll(&mut self, path: &str) -> Response {
        let bound = std::mem::replace(&mut self.bound, 4 * BOUND);
        let response = self.get(path).await;
        self.bound = bound;
        response
    }

    /// POST and its answer.
    pub async fn post(&mut self, path: &str, kind: &str, body: impl AsRef<[u8]>) -> Response {
        self.request("POST", path, &[("Content-Type", kind)], body.as_ref()).await
    }

    /// Any request and its final answer; a `100 Continue` before it is passed over.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.send(method, path, headers, body).await;
        loop {
            let response = self.read_response_to(method).await;
            if response.status >= 200 {
                return response;
            }
        }
    }

    /// Sends a GET and does not wait for its answer.
    pub async fn send_get(&mut self, path: &str) {
        self.send("GET", path, &[], b"").await;
    }

    /// Sends a request, with `Host`, and with `Content-Length` if there is a
    /// body or the method wants one.
    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        let named = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        if !named("host") {
            head += &format!("Host: {}\r\n", self.host);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let sends_body = !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH");
        if sends_body && !named("content-length") && !named("transfer-encoding") {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send_raw(bytes).await;
    }

    /// Sends exactly these bytes.
    pub async fn send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        // Boxed streams may buffer (TLS does), hence the flush.
        let wire = self.wire.get_mut();
        within("send", self.bound, async {
            wire.write_all(bytes.as_ref()).await?;
            wire.flush().await
        })
        .await;
    }

    /// Sends as much of these bytes as the other side takes, for one that may
    /// answer and close before the end of an overlong request.
    pub async fn try_send_raw(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let wire = self.wire.get_mut();
        match tokio::time::timeout(self.bound, wire.write_all(bytes.as_ref())).await {
            Ok(sent) => sent,
            Err(_) => panic!("send: nothing taken within {:?}", self.bound),
        }
    }

    /// Reads the next response (also a 1xx), as the answer to a GET.
    pub async fn read_response(&mut self) -> Response {
        self.read_response_to("GET").await
    }

    /// Reads the next response (also a 1xx); `None` if the connection ends instead.
    pub async fn read_unless_closed(&mut self) -> Option<Response> {
        let waiting = tokio::time::timeout(self.bound, self.wire.fill_buf()).await;
        let came = waiting.unwrap_or_else(|_| panic!("response: nothing within {:?}", self.bound));
        // A reset counts as an end.
        if came.is_ok_and(|bytes| !bytes.is_empty()) {
            Some(self.read_response().await)
        } else {
            None
        }
    }

    /// Reads the next response; the answer to a HEAD has no body.
    pub async fn read_response_to(&mut self, method: &str) -> Response {
        let mut response = self.read_head().await;
        let bodyless = method == "HEAD" || response.status < 200;
        if bodyless || matches!(response.status, 204 | 304) {
            return response;
        }
        let chunked = response.header("transfer-encoding").is_some_and(|v| v.contains("chunked"));
        response.body = if chunked {
            self.read_chunks().await
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().unwrap_or_else(|_| panic!("Content-Length: {length}"));
            self.read_exactly(length).await
        } else {
            self.read_to_end().await
        };
        response
    }

    /// Reads a response's head alone; its body stays to be read.
    pub async fn read_head(&mut self) -> Response {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let line = self.read_line("response head", &head).await;
            head.extend_from_slice(&line);
        }
        Response::parse_head(&head)
    }

    /// Reads until `mark` has come, and answers all that came with it. For
    /// bodies that are still being produced.
    pub async fn read_until(&mut self, mark: &str) -> Vec<u8> {
        let mut seen = Vec::new();
        let last = *mark.as_bytes().last().unwrap();
        while !seen.ends_with(mark.as_bytes()) {
            let what = format!("{mark:?} after {:?}", String::from_utf8_lossy(&seen));
            let read = within(&what, self.bound, self.wire.read_until(last, &mut seen)).await;
            assert!(read > 0, "the connection ended before {what}");
        }
        seen
    }

    /// Reads so many bytes.
    pub async fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        let mut body = vec![0; length];
        let mut at = 0;
        while at < length {
            let read = within("body", self.bound, self.wire.read(&mut body[at..])).await;
            assert!(read > 0, "the connection ended after {at} of {length} bytes of the body");
            at += read;
        }
        body
    }

    /// Reads until the other side closes; a reset counts as a close.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        let mut piece = [0; 16 * 1024];
        loop {
            let read = async {
                match self.wire.read(&mut piece).await {
                    Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => Ok(0),
                    other => other,
                }
            };
            match within("end of the connection", self.bound, read).await {
                0 => return body,
                n => body.extend_from_slice(&piece[..n]),
            }
        }
    }

    /// Waits for the other side to close; panics if it sends anything first.
    pub async fn wait_for_close(&mut self) {
        let rest = self.read_to_end().await;
        let text = String::from_utf8_lossy(&rest);
        assert!(rest.is_empty(), "instead of closing, the other side sent: {text}");
    }

    /// True if nothing comes for a moment ([`QUIET`]) and the connection stays open.
    pub async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(QUIET, self.wire.fill_buf()).await.is_err()
    }

    /// Closes the writing half, as `shutdown(SHUT_WR)` does.
    pub async fn half_close(&mut self) {
        let wire = self.wire.get_mut();
        within("half-close", self.bound, wire.shutdown()).await;
    }

    /// Closes the connection.
    pub fn close(self) {}

    /// Reads the next chunk of a body that is still being produced; `None` = it has ended cleanly.
    pub async fn read_chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.read_line("chunk size", &[]).await;
        let text = String::from_utf8_lossy(&line).into_owned();
        let size = usize::from_str_radix(text.trim(), 16);
        let size = size.unwrap_or_else(|_| panic!("chunk size: {text:?}"));
        let chunk = self.read_exactly(size).await;
        assert_eq!(self.read_exactly(2).await, b"\r\n", "a chunk without its end");
        (size > 0).then_some(chunk)
    }

    /// Reads some bytes of what comes; none = the other side has closed.
    pub async fn read_some(&mut self) -> Vec<u8> {
        let mut piece = vec![0; 16 * 1024];
        let read = within("bytes", self.bound, self.wire.read(&mut piece)).await;
        piece.truncate(read);
        piece
    }

    async fn read_chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line("chunk size", &body).await;
            let text = String::from_utf8_lossy(&line);
            let digits = text.split(';').next().unwrap_or("").trim();
            let size = usize::from_str_radix(digits, 16);
            let size = size.unwrap_or_else(|_| panic!("chunk size: {text:?}"));
            if size == 0 {
                while self.read_line("trailer", &body).await != b"\r\n" {}
                return body;
            }
            body.extend(self.read_exactly(size).await);
            assert_eq!(self.read_exactly(2).await, b"\r\n", "a chunk without its end");
        }
    }

    async fn read_line(&mut self, what: &str, before: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        within(what, self.bound, self.wire.read_until(b'\n', &mut line)).await;
        if !line.ends_with(b"\n") {
            let seen = String::from_utf8_lossy(before);
            let rest = String::from_utf8_lossy(&line);
            panic!("the connection ended within the {what}, after {seen:?} {rest:?}");
        }
        line
    }
}

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// In the order and spelling of the wire.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The head as it came, with its empty line.
    pub head: Vec<u8>,
}

impl Response {
    fn parse_head(head: &[u8]) -> Response {
        let text = String::from_utf8_lossy(head).into_owned();
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or("");
        let code = first.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
        let status = code.and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {text:?}"));
        let header = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("header {line:?}"));
            (name.to_string(), value.trim().to_string())
        };
        let headers = lines.filter(|line| !line.is_empty()).map(header).collect();
        Response { status, headers, body: Vec::new(), head: head.to_vec() }
    }

    /// The first header of this name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// All headers of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let of_name = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        of_name.map(|(_, value)| value.as_str()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics with the body if it is none.
    pub fn json(&self) -> Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|e| panic!("status {}, no JSON ({e}): {}", self.status, self.text()))
    }
}

async fn within<T>(
    what: &str,
    bound: Duration,
    work: impl Future<Output = std::io::Result<T>>,
) -> T {
    match tokio::time::timeout(bound, work).await {
        Ok(Ok(done)) => done,
        Ok(Err(e)) => panic!("{what}: {e}"),
        Err(_) => panic!("{what}: nothing within {bound:?}"),
    }
}
