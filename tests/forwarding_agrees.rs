//! The forwarder and the engine agree: random requests and answers pass through a gate of each
//! kind, and the site and the client see the same of both. A failure names the seed that repeats it.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use fastrand::Rng;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use support::{Addr, Gate};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const ROUNDS: u64 = 300;

/// A head and its body, as one side sees it: the order of headers of different names does not count.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    first: String,
    headers: BTreeMap<String, Vec<String>>,
    body: Vec<u8>,
}

impl Message {
    /// Without headers in which both may differ.
    fn without(mut self, names: &[&str]) -> Self {
        self.headers.retain(|name, _| !names.contains(&name.as_str()));
        self
    }
}

/// Reads a message; `is_bodiless` = its head does not say where it ends.
async fn read(stream: &mut BufReader<TcpStream>, is_bodiless: bool) -> Option<Message> {
    let mut message = Message::default();
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await.ok()? == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        match line.split_once(':') {
            _ if message.first.is_empty() => message.first = line,
            Some((name, value)) => {
                let values = message.headers.entry(name.to_lowercase()).or_default();
                values.push(value.trim().to_owned());
            }
            None => break,
        }
    }
    let header = |name: &str| message.headers.get(name).map(|values| values[0].clone());
    if is_bodiless {
        return Some(message);
    }
    if header("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok()?;
            let length = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; length + 2];
            stream.read_exact(&mut chunk).await.ok()?;
            message.body.extend_from_slice(&chunk[..length]);
            if length == 0 {
                return Some(message);
            }
        }
    }
    message.body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut message.body).await.ok()?;
    Some(message)
}

/// A site that gives one answer to all, until it is given another.
#[derive(Default)]
struct Site {
    answer: Mutex<(Vec<u8>, bool)>,
    seen: Mutex<Vec<Message>>,
}

impl Site {
    async fn start() -> (Arc<Self>, Addr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = Addr::Tcp(listener.local_addr().unwrap());
        let site = Arc::new(Self::default());
        let accepting = site.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(BufReader::new(stream)));
            }
        });
        (site, addr)
    }

    async fn serve(self: Arc<Self>, mut stream: BufReader<TcpStream>) {
        while let Some(request) = read(&mut stream, false).await {
            self.seen.lock().push(request);
            let (answer, closes) = self.answer.lock().clone();
            let _ = stream.get_mut().write_all(&answer).await;
            if closes {
                return;
            }
        }
    }
}

const METHODS: &[&str] =
    &["GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "X-Y"];
const TARGETS: &[&str] =
    &["/", "/a%2Fb//c/../d?x=%zz&y=a+b&x[]=1", "/%E4?q=%FF", "/?a=b?c=d&&", "/index.php/a;b=c"];
const REQUEST_HEADERS: &[&str] = &[
    "Accept: */*",
    "Cookie: a=1; b=2",
    "Cookie: c=3",
    "cookie:  d=\u{e4}  ",
    "X-Own:",
    "X-Own: a, b",
    "X_Own: a",
    "X.Own: a",
    "Content-Type: application/json",
    "Authorization: Basic YTpi",
    "Proxy: http://evil.example",
    "Proxy-Authorization: Basic x",
    "Proxy-Connection: keep-alive",
    "Keep-Alive: timeout=5",
    "TE: trailers",
    "Trailer: X-Sum",
    "Upgrade: h2c",
    "HTTP2-Settings: AAMA",
    "Connection: keep-alive, X-Own",
    "Connection: X-Hop",
    "X-Hop: a",
    "X-Forwarded-For: 203.0.113.7",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: bank.example",
    "X-Forwarded-User: alice",
    "Forwarded: for=203.0.113.7",
    "X-Real-IP: 203.0.113.7",
    "Client-IP: 203.0.113.7",
    "Pollgate-Publish: news",
    "Pollgate_User: alice",
    "Range: bytes=0-5",
    "If-None-Match: \"x\"",
    "User-Agent: Mozilla/5.0 (X11; Linux)",
    "Origin: null",
];
const STATUSES: &[&str] = &[
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200",
    "HTTP/1.1 404 Not Found At All",
    "HTTP/1.0 500 Oh",
    "HTTP/1.1 301 Moved Permanently",
    "HTTP/1.1 206 Partial Content",
    "HTTP/1.1 299 Odd",
    "HTTP/1.1 304 Not Modified",
];
const ANSWER_HEADERS: &[&str] = &[
    "Content-Type: text/html; charset=utf-8",
    "Set-Cookie: a=1; path=/",
    "Set-Cookie: b=2",
    "Location: http://site.example/elsewhere",
    "X-Powered-By: PHP/5.2",
    "Cache-Control: no-store",
    "Connection: X-Private",
    "Connection: keep-alive",
    "X-Private: a",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: close",
    "Upgrade: h2,h2c",
    "TE: trailers",
    "Trailer: X-Sum",
    "Pollgate-Publish: news; data=x",
    "X-Latin: \u{e4}",
    "X-Empty:",
    "Vary: Accept-Encoding, Cookie",
];

/// Some of the lines, in their order, each at most once.
fn some(rng: &mut Rng, lines: &[&str]) -> String {
    let most = rng.usize(..7);
    let chosen = rng.choose_multiple(lines.iter(), most);
    chosen.into_iter().map(|line| format!("{line}\r\n")).collect()
}

/// A body and the header that frames it.
fn framed(rng: &mut Rng) -> (String, Vec<u8>) {
    let length = *rng.choice(&[0, 1, 10, 1000, 20_000, 100_000]).unwrap();
    let body: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
    if rng.bool() {
        return (format!("Content-Length: {length}\r\n"), body);
    }
    let mut chunks = Vec::new();
    let mut rest = &body[..];
    while !rest.is_empty() {
        let (chunk, more) = rest.split_at(rng.usize(1..=rest.len()));
        chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend_from_slice(b"\r\n");
        rest = more;
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    ("Transfer-Encoding: chunked\r\n".to_owned(), chunks)
}

#[derive(Clone)]
struct Case {
    method: &'static str,
    request: Vec<u8>,
    /// The request is torn at this byte.
    cut: usize,
    answer: Vec<u8>,
    closes: bool,
    is_bodiless: bool,
}

fn case(seed: u64) -> Case {
    let rng = &mut Rng::with_seed(seed);
    let method = *rng.choice(METHODS).unwrap();
    let target = rng.choice(TARGETS).unwrap();
    let (framing, body) = match method {
        "GET" | "HEAD" | "OPTIONS" => Default::default(),
        _ => framed(rng),
    };
    let headers = some(rng, REQUEST_HEADERS);
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: site.example\r\n{headers}{framing}\r\n");
    let request = [head.as_bytes(), &body].concat();
    let cut = rng.usize(..=request.len());
    let status = *rng.choice(STATUSES).unwrap();
    let is_bodiless = method == "HEAD" || status.contains(" 304");
    let ends_with_connection = rng.u8(..4) == 0 || status.starts_with("HTTP/1.0");
    let (framing, body) = match framed(rng) {
        (framing, _) if is_bodiless && framing.starts_with("Content") => (framing, Vec::new()),
        _ if is_bodiless => Default::default(),
        (_, body) if ends_with_connection => ("Connection: close\r\n".to_owned(), body),
        framed => framed,
    };
    let headers = some(rng, ANSWER_HEADERS);
    let answer = [format!("{status}\r\n{headers}{framing}\r\n").as_bytes(), &body].concat();
    Case { method, request, cut, answer, closes: ends_with_connection, is_bodiless }
}

/// The messages that the site and the client see of a case.
async fn seen(gate: &Gate, site: &Site, case: &Case) -> (Message, Message) {
    *site.answer.lock() = (case.answer.clone(), case.closes);
    site.seen.lock().clear();
    let Addr::Tcp(addr) = gate.addr() else { panic!("plain TCP") };
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (first, second) = case.request.split_at(case.cut);
    stream.write_all(first).await.unwrap();
    tokio::task::yield_now().await;
    stream.write_all(second).await.unwrap();
    let mut stream = BufReader::new(stream);
    let answer = tokio::time::timeout(support::BOUND, read(&mut stream, case.is_bodiless)).await;
    let answer = answer.expect("an answer in time").expect("a whole answer");
    let request = site.seen.lock().pop().unwrap_or_default();
    // Each hop has its own version, date and framing.
    let mut answer = answer.without(&["connection", "date", "transfer-encoding"]);
    answer.first = answer.first.split_once(' ').unwrap().1.to_owned();
    (request, answer)
}

/// The same over HTTP/2, in which the headers of a connection are no headers.
async fn seen_over_http2(gate: &Gate, site: &Site, case: &Case) -> (Message, Message) {
    *site.answer.lock() = (case.answer.clone(), case.closes);
    site.seen.lock().clear();
    let text = case.request.split(|byte| *byte == b'\n').map(String::from_utf8_lossy);
    let mut lines = text.map(|line| line.trim_end_matches('\r').to_owned());
    let first = lines.next().unwrap();
    let target = first.split(' ').nth(1).unwrap();
    let uri = format!("http://site.example{target}");
    let mut request = http::Request::builder().method(case.method).uri(uri);
    let of_connection = ["connection", "keep-alive", "te", "upgrade", "proxy-connection", "host"];
    let mut length = None;
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap();
        let name = name.to_lowercase();
        if name == "transfer-encoding" {
            length = None;
        } else if !of_connection.contains(&&*name) {
            if name == "content-length" {
                length = value.trim().parse::<usize>().ok();
            }
            request = request.header(name, value.trim());
        }
    }
    let body = vec![b'b'; length.unwrap_or(case.cut % 30_000)];
    let has_body = !matches!(case.method, "GET" | "HEAD" | "OPTIONS");
    let exchange = async {
        let Addr::Tcp(addr) = gate.addr() else { panic!("plain TCP") };
        let stream = TcpStream::connect(addr).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        let request = request.body(()).unwrap();
        let (answer, mut upload) = sender.send_request(request, !has_body).unwrap();
        if has_body {
            let _ = upload.send_data(body.into(), true);
        }
        let (head, mut stream) = answer.await.unwrap().into_parts();
        let mut message = Message { first: head.status.as_str().to_owned(), ..Message::default() };
        for (name, value) in &head.headers {
            let values = message.headers.entry(name.to_string()).or_default();
            values.push(String::from_utf8_lossy(value.as_bytes()).into_owned());
        }
        while let Some(piece) = stream.data().await {
            let piece = piece.unwrap();
            stream.flow_control().release_capacity(piece.len()).unwrap();
            message.body.extend_from_slice(&piece);
        }
        connection.abort();
        message
    };
    let answer = tokio::time::timeout(support::BOUND, exchange).await.expect("an answer in time");
    let mut seen = std::mem::take(&mut *site.seen.lock());
    assert_eq!(seen.len(), 1, "{seen:?}");
    (seen.remove(0), answer.without(&["date"]))
}

#[tokio::test]
async fn the_site_and_the_client_see_the_same_over_both_ways() {
    let (site, addr) = Site::start().await;
    let ours = Gate::with("").upstream(&addr).start().await;
    let engine = Gate::with("").upstream(&addr).env("POLLGATE_TESTS_FORWARD", "engine");
    let engine = engine.start().await;
    let start = std::env::var("POLLGATE_FORWARD_SEED").ok().map(|seed| seed.parse().unwrap());
    for seed in start.map_or(0..ROUNDS, |seed| seed..seed + 1) {
        let case = case(seed);
        let over_http1 =
            (seen(&ours, &site, &case).await, seen(&engine, &site, &case).await, "HTTP/1.1");
        let over_http2 = (
            seen_over_http2(&ours, &site, &case).await,
            seen_over_http2(&engine, &site, &case).await,
            "HTTP/2",
        );
        let show = |message: &Message| {
            let Message { first, headers, body } = message;
            format!("{first} {headers:#?} and {} bytes", body.len())
        };
        let request = String::from_utf8_lossy(&case.request);
        let request = request.split("\r\n\r\n").next().unwrap();
        for (ours, theirs, version) in [over_http1, over_http2] {
            for (who, ours, theirs) in
                [("client", &ours.1, &theirs.1), ("site", &ours.0, &theirs.0)]
            {
                assert!(
                    ours == theirs,
                    "seed {seed}, {version}: the {who} sees\n{}\nand by the engine\n{}\nof {} \
                     {request}",
                    show(ours),
                    show(theirs),
                    case.method
                );
            }
        }
    }
}
