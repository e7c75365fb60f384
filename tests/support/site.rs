//! A site without PHP: a bare HTTP/1.1 server within the test that keeps every byte it is sent.
//!
//! [`PlainSite::start`] answers by itself; with [`PlainSite::start_by_hand`] the test takes each
//! request with [`PlainSite::visit`] and answers it as it likes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Addr, BOUND, eventually};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The head with its empty line.
    pub head: String,
    /// The body; of a chunked one, its chunks with their framing.
    pub body: Vec<u8>,
    /// Which of the site's connections it came on, from 1.
    pub connection: usize,
}

impl Recorded {
    /// The request line without the version: `GET /x`.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or("").trim_end_matches(" HTTP/1.1")
    }

    /// All values of a header, in whatever case of its name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()).collect()
    }

    /// The one value of a header; panics if there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} came {} times: {}", all.len(), self.head);
        all.first().copied()
    }
}

/// The site. Dropping it closes its address and its connections.
#[derive(Debug)]
pub struct PlainSite {
    addr: Addr,
    shared: Arc<Shared>,
    visits: Option<mpsc::UnboundedReceiver<Visit>>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    recorded: Mutex<Vec<Recorded>>,
    connections: AtomicUsize,
    by_hand: Option<mpsc::UnboundedSender<Visit>>,
    /// What it answers in place of its name.
    body: Option<Vec<u8>>,
}

impl PlainSite {
    /// A site that answers every request with 200 and `site: GET /path`.
    pub async fn start() -> PlainSite {
        PlainSite::named("site").await
    }

    /// A site that answers with this name.
    pub async fn named(name: &str) -> PlainSite {
        PlainSite::on_tcp(Shared::new(name, None, None), None).await
    }

    /// A site that answers every request with 200 and this body.
    pub async fn start_with_body(body: Vec<u8>) -> PlainSite {
        PlainSite::on_tcp(Shared::new("site", None, Some(body)), None).await
    }

    /// A site that answers only as the test directs.
    pub async fn start_by_hand() -> PlainSite {
        let (sender, visits) = mpsc::unbounded_channel();
        PlainSite::on_tcp(Shared::new("site", Some(sender), None), Some(visits)).await
    }

    /// A site on a unix socket.
    pub fn start_on(path: &std::path::Path) -> PlainSite {
        let listener = UnixListener::bind(path).unwrap();
        let shared = Shared::new("site", None, None);
        let accepting = tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(shared.clone().serve(Stream::Unix(stream)));
                }
            }
        });
        PlainSite { addr: Addr::Unix(path.into()), shared, visits: None, accepting }
    }

    async fn on_tcp(
        shared: Arc<Shared>,
        visits: Option<mpsc::UnboundedReceiver<Visit>>,
    ) -> PlainSite {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = Addr::Tcp(listener.local_addr().unwrap());
        let accepting = tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).unwrap();
                    tokio::spawn(shared.clone().serve(Stream::Tcp(stream)));
                }
            }
        });
        PlainSite { addr, shared, visits, accepting }
    }

    pub fn addr(&self) -> &Addr {
        &self.addr
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.recorded.lock().clone()
    }

    /// The newest request; panics if there is none.
    pub fn last(&self) -> Recorded {
        self.requests().pop().unwrap_or_else(|| panic!("the site was asked nothing"))
    }

    /// Waits for so many requests.
    pub async fn wait_for_requests(&self, count: usize) {
        eventually(&format!("{count} requests"), async || self.requests().len() >= count).await;
    }

    /// The next request, to be answered by hand.
    pub async fn visit(&mut self) -> Visit {
        let visits = self.visits.as_mut().expect("a site that is answered by hand");
        let visit = tokio::time::timeout(BOUND, visits.recv()).await;
        visit.unwrap_or_else(|_| panic!("no request within {BOUND:?}")).unwrap()
    }
}

impl PlainSite {
    /// The next request, however long it takes to come.
    pub async fn visit_or_wait(&mut self) -> Visit {
        let visits = self.visits.as_mut().expect("a site that is answered by hand");
        visits.recv().await.unwrap()
    }
}

impl Drop for PlainSite {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn new(
        name: &str,
        by_hand: Option<mpsc::UnboundedSender<Visit>>,
        body: Option<Vec<u8>>,
    ) -> Arc<Shared> {
        let recorded = Mutex::default();
        let connections = AtomicUsize::new(0);
        Arc::new(Shared { name: name.into(), recorded, connections, by_hand, body })
    }

    async fn serve(self: Arc<Self>, mut stream: Stream) {
        // Health checks connect and leave without a word; they count for nothing.
        let Some(mut head) = read_head(&mut stream).await else { return };
        let connection = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(visits) = &self.by_hand {
            let recorded = Recorded { head, body: Vec::new(), connection };
            self.recorded.lock().push(recorded.clone());
            let _ = visits.send(Visit { request: recorded, stream });
            return;
        }
        loop {
            let Some(body) = read_body(&mut stream, &head).await else { return };
            let recorded = Recorded { head, body, connection };
            let text = format!("{}: {}", self.name, recorded.line()).into_bytes();
            let text = self.body.as_ref().unwrap_or(&text);
            self.recorded.lock().push(recorded);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
            if stream.write_all(&[answer.as_bytes(), text].concat()).await.is_err() {
                return;
            }
            let Some(next) = read_head(&mut stream).await else { return };
            head = next;
        }
    }
}

/// A request that waits for the test to answer it. Dropping it closes the connection.
#[derive(Debug)]
pub struct Visit {
    /// Its head; the body is still to be read.
    pub request: Recorded,
    stream: Stream,
}

impl Visit {
    /// Sends exactly these bytes to the gate.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends as much of these bytes as the gate takes.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Reads from the gate until `mark` has come; answers all that came with it.
    pub async fn read_until(&mut self, mark: &str) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(mark.as_bytes()) {
            let byte = tokio::time::timeout(BOUND, self.stream.read_u8()).await;
            let text = String::from_utf8_lossy(&seen).into_owned();
            match byte {
                Ok(Ok(byte)) => seen.push(byte),
                Ok(Err(e)) => panic!("{mark:?} after {text:?}: {e}"),
                Err(_) => panic!("no {mark:?} within {BOUND:?}, only {text:?}"),
            }
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Reads the body of a request that says its length.
    pub async fn read_body(&mut self) {
        let length = self.request.header("content-length").map_or(0, |it| it.parse().unwrap());
        let mut body = vec![0; length];
        let read = tokio::time::timeout(BOUND, self.stream.read_exact(&mut body)).await;
        assert!(matches!(read, Ok(Ok(_))), "no whole body within {BOUND:?}");
        self.request.body = body;
    }

    /// Waits until the gate closes the connection.
    pub async fn wait_for_close(&mut self) {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(BOUND, self.stream.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "the gate did not close within {BOUND:?}");
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    async fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.write_all(bytes).await,
            Stream::Unix(stream) => stream.write_all(bytes).await,
        }
    }

    async fn read_u8(&mut self) -> std::io::Result<u8> {
        match self {
            Stream::Tcp(stream) => stream.read_u8().await,
            Stream::Unix(stream) => stream.read_u8().await,
        }
    }

    async fn read_exact(&mut self, into: &mut [u8]) -> std::io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.read_exact(into).await.map(drop),
            Stream::Unix(stream) => stream.read_exact(into).await.map(drop),
        }
    }

    async fn read_to_end(&mut self, into: &mut Vec<u8>) -> std::io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.read_to_end(into).await.map(drop),
            Stream::Unix(stream) => stream.read_to_end(into).await.map(drop),
        }
    }
}

/// Reads up to the empty line and not a byte further; `None` at the connection's end.
async fn read_head(stream: &mut Stream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

async fn read_body(stream: &mut Stream, head: &str) -> Option<Vec<u8>> {
    let request = Recorded { head: head.into(), body: Vec::new(), connection: 0 };
    let mut body = Vec::new();
    if let Some(length) = request.header("content-length") {
        body.resize(length.parse().ok()?, 0);
        stream.read_exact(&mut body).await.ok()?;
    } else if request.header("transfer-encoding").is_some() {
        while !body.ends_with(b"0\r\n\r\n") {
            body.push(stream.read_u8().await.ok()?);
        }
    }
    Some(body)
}
