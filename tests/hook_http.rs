//! The internal listener over real sockets: what PHP, curl and less friendly programs send it.
#![allow(clippy::unwrap_used)]

use arc_swap::ArcSwap;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pollgate::hub::channel::{ChannelName, Cursor, Take};
use pollgate::hub::{Hub, Subscription};
use pollgate::protocol::auth::secret::Secret;
use pollgate::protocol::http::Reply;
use pollgate::server::admin::{Admin, Reloaded, SiteStats, Sources, Stats};
use pollgate::server::internal::{self, Internal};
use pollgate::server::publish::{self, Hook, Publisher, system_time};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const MAX_MESSAGE: u64 = 100_000;

struct Gate {
    address: SocketAddr,
    hub: Hub,
}

impl Gate {
    async fn start() -> Self {
        Self::start_with_token("").await
    }

    async fn start_with_token(token: &str) -> Self {
        let hub = Hub::new(pollgate::hub::Settings::default(), 1);
        let app = Arc::new(app(&hub, token));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (_stop, shutdown) = tokio::sync::watch::channel(false);
            while let Ok((tcp, _)) = listener.accept().await {
                let app = app.clone();
                let shutdown = shutdown.clone();
                tcp.set_nodelay(true).unwrap();
                tokio::spawn(async move {
                    let stream: Stream =
                        Box::new(pingora::protocols::l4::stream::Stream::from(tcp));
                    app.process_new(stream, &shutdown).await;
                });
            }
        });
        Self { address, hub }
    }

    async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap() }
    }

    /// Sends `request` on a connection of its own and returns the whole answer.
    async fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        client.answer().await
    }

    fn kept(&self, channel: &str) -> usize {
        let channel = ChannelName::new(channel).unwrap();
        self.hub.info(&channel, system_time()).map_or(0, |info| info.kept)
    }
}

fn app(hub: &Hub, token: &str) -> Internal {
    let settings = publish::Settings { max_message: MAX_MESSAGE, ..publish::Settings::default() };
    let settings = Arc::new(ArcSwap::from_pointee(settings));
    let publisher = Publisher::new(
        hub.clone(),
        None,
        Arc::new(system_time),
        settings,
        Arc::default(),
        Arc::default(),
    );
    let reader = hub.clone();
    let history = move |channel: &ChannelName, _cursor: Option<&str>| {
        let subscription = Subscription { channel: channel.clone(), cursor: Cursor::Oldest };
        let heard = reader.read(&subscription, Take::All, system_time())?;
        Some(Reply::json(200, &heard.found.messages.len()))
    };
    let admin = Admin::new(Sources {
        unready: Box::new(|_| Vec::new()),
        stats: Box::new(Stats::default),
        site: Box::new(|_| SiteStats::default()),
        metrics: Box::new(String::new),
        config: Box::new(String::new),
        reload: Box::new(|| Box::pin(async { Ok(Reloaded::default()) })),
    });
    let settings = internal::Settings { token: Secret::new(token), ..Default::default() };
    let settings = Arc::new(ArcSwap::from_pointee(settings));
    let hook = Hook::new(publisher, Arc::new(history), Default::default());
    Internal::new(
        settings,
        Secret::new("page"),
        vec![Arc::new(hook), Arc::new(admin)],
        Arc::default(),
        1000,
    )
}

struct Client {
    stream: TcpStream,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Checks that it is an error with a cause and a remedy.
    fn explains(&self) {
        let body = self.json();
        assert!(body["error"].is_string() && body["hint"].is_string(), "{self:?}");
    }
}

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.bounded(1).await[0]);
        }
        String::from_utf8(head).unwrap()
    }

    async fn bounded(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let read = self.stream.read_exact(&mut bytes);
        timeout(Duration::from_secs(10), read).await.expect("an answer in time").unwrap();
        bytes
    }

    async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        let status = head[9..12].parse().unwrap();
        let lower = head.to_lowercase();
        let length = lower.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
        let body = self.bounded(length.parse().unwrap()).await;
        Answer { status, head: lower, body: String::from_utf8(body).unwrap() }
    }

    /// Checks that the gate has closed the connection, and cleanly.
    async fn expect_end(mut self) {
        let end = timeout(Duration::from_secs(10), self.stream.read(&mut [0; 1])).await;
        assert_eq!(end.expect("an end in time").unwrap(), 0);
    }
}

fn post(target: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

const JSON: &str = "Content-Type: application/json\r\n";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

#[tokio::test]
async fn a_kept_connection_carries_many_publishes() {
    let gate = Gate::start().await;
    let mut client = gate.connect().await;
    for number in 1..=3 {
        client.send(post("/channels/live", "", "hi")).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200);
        assert!(answer.json()["id"].as_str().unwrap().ends_with(&format!("-{number}")));
        assert!(answer.head.contains("connection: keep-alive"), "{answer:?}");
        assert!(answer.head.contains("cache-control: no-store"), "{answer:?}");
    }
    assert_eq!(gate.kept("live"), 3);
}

#[tokio::test]
async fn two_requests_in_one_packet_are_answered_in_order() {
    let gate = Gate::start().await;
    let mut client = gate.connect().await;
    client.send(post("/channels/a", "", "1") + &post("/channels/b", "", "2")).await;
    assert_eq!(client.answer().await.json()["channel"], "a");
    assert_eq!(client.answer().await.json()["channel"], "b");
}

#[tokio::test]
async fn a_client_that_reads_to_the_end_gets_one() {
    let gate = Gate::start().await;
    for request in [
        post("/channels/live", "Connection: close\r\n", "hi"),
        post("/channels/live", "Connection: TE, Close\r\n", "hi"),
        post("/channels/live", "", "hi").replace("HTTP/1.1", "HTTP/1.0"),
        post("/channels/live", "Connection: keep-alive\r\n", "hi").replace("HTTP/1.1", "HTTP/1.0"),
    ] {
        let mut client = gate.connect().await;
        client.send(request).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("connection: close"), "{answer:?}");
        client.expect_end().await;
    }
}

#[tokio::test]
async fn expect_100_continue_is_answered_before_the_body_is_read() {
    let gate = Gate::start().await;
    let mut client = gate.connect().await;
    let head = "POST /channels/live HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n";
    client.send(format!("{head}Content-Length: 2\r\n\r\n")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 100 "));
    client.send("hi").await;
    assert_eq!(client.answer().await.status, 200);
    // The connection is as good as any.
    client.send(post("/channels/live", "", "hi")).await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_body_that_is_not_wanted_is_not_asked_for() {
    let gate = Gate::start_with_token("hunter2").await;
    let head = "POST /channels/live HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n";
    let answer = gate.ask(format!("{head}Content-Length: 2\r\n\r\n")).await;
    assert_eq!(answer.status, 401);
    assert!(answer.head.contains("www-authenticate: bearer"), "{answer:?}");
    let head = format!("{head}Authorization: Bearer hunter2\r\n");
    let mut client = gate.connect().await;
    client.send(format!("{head}Content-Length: {}\r\n\r\n", MAX_MESSAGE + 1)).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 413);
    answer.explains();
    client.expect_end().await;
}

#[tokio::test]
async fn a_chunked_body_is_a_body() {
    let gate = Gate::start().await;
    let head = "POST /channels/live HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n";
    let mut client = gate.connect().await;
    client.send(format!("{head}\r\n2\r\nhi\r\n4\r\n you\r\n0\r\n\r\n")).await;
    assert_eq!(client.answer().await.status, 200);
    client.send(post("/channels/live", "", "hi")).await;
    assert_eq!(client.answer().await.status, 200);
    let channel = ChannelName::new("live").unwrap();
    let info = gate.hub.info(&channel, system_time()).unwrap();
    assert_eq!((info.kept, info.bytes), (2, 8));
}

#[tokio::test]
async fn one_who_sends_too_much_still_reads_why_it_was_refused() {
    let gate = Gate::start().await;
    let body = "x".repeat(4 << 20);
    let head = "POST /channels/live HTTP/1.1\r\nHost: localhost\r\n";
    for request in [
        post("/channels/live", "", &body),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n400000\r\n{body}\r\n0\r\n\r\n"),
        post("/channels/live", "", &"x".repeat(MAX_MESSAGE as usize + 1)),
    ] {
        let mut client = gate.connect().await;
        client.send(request).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 413);
        answer.explains();
        client.expect_end().await;
    }
    let huge = format!("{head}Content-Length: 99999999999999999999999\r\n\r\n");
    assert!(matches!(gate.ask(huge).await.status, 400 | 413));
    assert_eq!(gate.hub.channels(), 0);
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused_and_closed() {
    let gate = Gate::start().await;
    let with = |headers: &str| format!("POST /channels/a HTTP/1.1\r\n{headers}\r\nhi");
    let chunked = |chunks: &str| {
        format!("POST /channels/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")
    };
    for request in [
        with("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"),
        with("Content-Length: 2\r\nContent-Length: 2\r\n"),
        with("Content-Length: 2\r\nContent-Length: 3\r\n"),
        with("Content-Length: 2x\r\n"),
        with("Content-Length: -2\r\n"),
        with("Transfer-Encoding: gzip, chunked\r\n"),
        with("Transfer-Encoding: chunked, identity\r\n"),
        with("Content-Length : 2\r\n"),
        with("X: a\r\n Content-Length: 2\r\n"),
        with("X: a\rb\r\nContent-Length: 2\r\n"),
        with("X: a\nContent-Length: 2\r\n"),
        with("X: a\0b\r\n"),
        with("Host: a\r\nHost: b\r\nContent-Length: 2\r\n"),
        with("Host: a b\r\nContent-Length: 2\r\n"),
        "GET /\r\n\r\n".to_owned(),
        "\0\0\0\0\r\n\r\n".to_owned(),
        "GET http://127.0.0.1/healthz HTTP/1.1\r\n\r\n".to_owned(),
        "POST /channels/a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        chunked("x\r\nhi\r\n0\r\n\r\n"),
        chunked("2\r\nhi!\r\n0\r\n\r\n"),
        chunked("ffffffffffffffffff\r\nhi"),
    ] {
        let mut client = gate.connect().await;
        client.send(&request).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 400, "{request:?}");
        answer.explains();
        client.expect_end().await;
    }
    assert_eq!(gate.hub.channels(), 0);
}

#[tokio::test]
async fn bad_input_is_refused_with_a_reason_and_nothing_is_published() {
    let gate = Gate::start().await;
    let brackets = "[".repeat(100_000);
    for (request, status) in [
        (post("/publish", JSON, "{\"channel\":\"a\",\"da"), 422),
        (post("/publish", JSON, "{\"channel\":7}"), 422),
        (post("/publish", JSON, "[[],{}]"), 422),
        (post("/publish", JSON, ""), 422),
        (post("/publish", JSON, &brackets), 422),
        (post("/channels/a", JSON, &brackets), 422),
        (post("/publish", JSON, "{\"channel\":\"a\",\"data\":\"\0\"}"), 422),
        (post("/publish", JSON, "{\"channel\":\"a\\u0000\"}"), 400),
        (post("/publish", JSON, "[{\"channel\":\"a\"},{\"channel\":\"\"}]"), 400),
        (post("/publish", FORM, ""), 422),
        (post("/publish", FORM, "{\"channel\":\"a\"}"), 422),
        (post("/publish", FORM, "channel=a&data=%ff"), 422),
        (post("/publish", FORM, "channel=a%0Ab"), 400),
        (post("/publish", "Content-Type: text/plain\r\n", "channel=a"), 415),
        (post("/publish", "", "channel=a"), 415),
        (post("/channels/a%", "", "x"), 400),
        (post("/channels/%FF", "", "x"), 400),
        (post("/channels/%00", "", "x"), 400),
        (post("/channels/a", "Content-Type: \u{e4}\r\n", "x"), 400),
        (post("/channels/a", "Idempotency-Key: \r\n", "x"), 400),
        (post("/channels/a/b", "", "x"), 404),
        (post("/nothing", "", "x"), 404),
        (post("/healthz", "", "x"), 405),
        (post("/channels", "", "x"), 405),
        ("PATCH /channels/a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 405),
        ("GET /publish HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 405),
        ("GET /channels?limit=x HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400),
    ] {
        let answer = gate.ask(&request).await;
        assert_eq!(answer.status, status, "{:.200}", request);
        assert_eq!(answer.head.contains("\r\nallow: "), status == 405, "{answer:?}");
        answer.explains();
    }
    let raw_utf8 = "POST /channels/\u{e4} HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    let mut latin = raw_utf8.as_bytes().to_vec();
    latin.remove(16);
    assert_eq!(gate.ask(&latin).await.status, 400);
    let mut torn = post("/publish", JSON, "{\"channel\":\"a\",\"data\":\"?\"}").into_bytes();
    let place = torn.len() - 3;
    torn[place] = 0xff;
    assert_eq!(gate.ask(&torn).await.status, 422);
    assert_eq!(gate.hub.channels(), 0);
}

#[tokio::test]
async fn a_publisher_that_leaves_in_the_middle_publishes_nothing() {
    let gate = Gate::start().await;
    let request = post("/channels/live", "", "hello");
    for cut in [10, request.len() - 5, request.len() - 1] {
        let mut client = gate.connect().await;
        client.send(&request[..cut]).await;
        client.stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let read = client.stream.read_to_end(&mut rest);
        let _ = timeout(Duration::from_secs(10), read).await.expect("an end in time");
        assert!(!rest.starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!(gate.hub.channels(), 0);
}

#[tokio::test]
async fn many_with_one_idempotency_key_publish_once() {
    let gate = Arc::new(Gate::start().await);
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let gate = gate.clone();
            tokio::spawn(async move {
                gate.ask(post("/channels/live", "Idempotency-Key: k\r\n", "hi")).await.body
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers.dedup();
    assert_eq!((answers.len(), gate.kept("live")), (1, 1));
    let other = gate.ask(post("/channels/live", "Idempotency-Key: k\r\n", "other")).await;
    assert_eq!(other.status, 422);
    assert_eq!(gate.kept("live"), 1);
}

#[tokio::test]
async fn the_guard_stands_before_everything_but_the_probes() {
    let gate = Gate::start_with_token("hunter2").await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(gate.ask(get("/healthz")).await.body, "ok");
    assert_eq!(gate.ask(get("/readyz")).await.status, 200);
    for path in ["/status", "/config", "/channels", "/nothing", "/publish"] {
        assert_eq!(gate.ask(get(path)).await.status, 401, "{path}");
    }
    assert_eq!(gate.ask(post("/channels/a", "", "x")).await.status, 401);
    let bearer = "Authorization: Bearer hunter2\r\n";
    assert_eq!(gate.ask(post("/channels/a", bearer, "x")).await.status, 200);
    let page = post("/channels/a", "Origin: https://evil.example\r\n", "x");
    assert_eq!(gate.ask(page).await.status, 403);
    assert_eq!(gate.kept("a"), 1);
}

#[tokio::test]
async fn head_is_get_without_its_body_and_keeps_the_connection() {
    let gate = Gate::start().await;
    let mut client = gate.connect().await;
    let ask = |method: &str| format!("{method} /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.send(&(ask("HEAD") + &ask("GET"))).await;
    let head = client.head().await.to_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 2"), "{head}");
    assert_eq!(client.answer().await.body, "ok");
}
