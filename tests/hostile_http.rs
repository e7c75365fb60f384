//! Hostile traffic: the gate refuses it or sends the site exactly one request that has one meaning;
//! other clients do not notice, and the memory is released.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{Addr, BOUND, Client, Gate, Metrics, PlainSite, Way, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A site that keeps every byte it is sent, and answers what looks whole. It reads one request a
/// connection, so what else comes on it was smuggled.
struct RawSite {
    addr: Addr,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl RawSite {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = Addr::Tcp(listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn({
            let heard = heard.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(Self::serve(stream, heard.clone()));
                }
            }
        });
        Self { addr, heard }
    }

    async fn serve(mut stream: TcpStream, heard: Arc<Mutex<Vec<Vec<u8>>>>) {
        let mut all = Vec::new();
        let mut place = None;
        let mut buffer = vec![0; 65_536];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(length) => all.extend_from_slice(&buffer[..length]),
            }
            {
                let mut heard = heard.lock();
                let place = *place.get_or_insert_with(|| {
                    heard.push(Vec::new());
                    heard.len() - 1
                });
                heard[place].clone_from(&all);
            }
            if is_whole(&String::from_utf8_lossy(&all).to_lowercase()) {
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    }

    /// Everything heard, a connection each.
    fn heard(&self) -> Vec<String> {
        let heard = self.heard.lock();
        heard.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }
}

/// True if the request is complete.
fn is_whole(request: &str) -> bool {
    let end = match request {
        _ if request.contains("transfer-encoding") => "0\r\n\r\n",
        _ if request.contains("content-length") => "end",
        _ => "\r\n\r\n",
    };
    request.ends_with(end)
}

const GOOD: &[(&str, &str, &str)] = &[
    // Bytes sent; the request line, and the end, that the site receives.
    ("GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a?b HTTP/1.1\r\n", "\r\n\r\n"),
    ("\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a HTTP/1.1\r\n", "\r\n\r\n"),
    // RFC 9112, section 3.2.2: the target's host counts.
    ("GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n", "GET /b HTTP/1.1\r\n", "\r\n\r\n"),
    (
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 03\r\n\r\nEND",
        "POST /a HTTP/1.1\r\n",
        "\r\n\r\nEND",
    ),
    (
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0003\r\nEND\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\n",
        "\r\n3\r\nEND\r\n0\r\n\r\n",
    ),
];

/// Each is refused, or the site receives one request without the bytes behind it.
const BAD: &[(&str, &str)] = &[
    ("CL and TE", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("TE and CL", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"),
    ("two lengths", "Content-Length: 0\r\nContent-Length: 44\r\n\r\n"),
    ("a list of lengths", "Content-Length: 0, 44\r\n\r\n"),
    ("a length with a sign", "Content-Length: +0\r\n\r\n"),
    ("an empty length", "Content-Length:\r\n\r\n"),
    ("a length with an underscore", "Content-Length: 4_4\r\n\r\n"),
    ("a space before the colon", "Content-Length : 44\r\n\r\n"),
    ("a tab before the colon", "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n"),
    ("a folded length", "X: a\r\n Content-Length: 44\r\n\r\n"),
    ("a folded encoding", "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("xchunked", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("chunked, identity", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("identity", "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
    ("quoted chunked", "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    ("chunked with a vertical tab", "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("two encodings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n"),
    ("a bare LF in the head", "X: a\nContent-Length: 44\r\n\r\n"),
    ("a bare CR in the head", "X: a\rContent-Length: 44\r\n\r\n"),
    ("a NUL in a value", "X: a\0\r\n\r\n"),
    ("a NUL in a name", "X\0: a\r\n\r\n"),
    ("a chunk extension", "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nEND\r\n0\r\n\r\n"),
    ("a space after the size", "Transfer-Encoding: chunked\r\n\r\n3 \r\nEND\r\n0\r\n\r\n"),
    ("an empty size", "Transfer-Encoding: chunked\r\n\r\n\r\nEND\r\n0\r\n\r\n"),
    ("a LF after the size", "Transfer-Encoding: chunked\r\n\r\n3\nEND\r\n0\r\n\r\n"),
    ("a LF after the data", "Transfer-Encoding: chunked\r\n\r\n3\r\nEND\n0\r\n\r\n"),
    ("data beyond the size", "Transfer-Encoding: chunked\r\n\r\n3\r\nENDEND\r\n0\r\n\r\n"),
    ("a bare LF in a trailer", "Transfer-Encoding: chunked\r\n\r\n0\r\nX: a\nY: b\r\n\r\n"),
    ("a LF at the end", "Transfer-Encoding: chunked\r\n\r\n0\r\n\n"),
    ("a size beyond numbers", "Transfer-Encoding: chunked\r\n\r\n10000000000000003\r\nEND"),
];

/// Targets that name a host of their own, another than the `Host`.
const ELSEWHERE: &[&str] = &[
    "GET http://b/b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://a:81/b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://u@b/b HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
];

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn the_site_hears_one_request_that_has_one_meaning() {
    for (sent, line, end) in GOOD {
        let site = RawSite::start().await;
        let gate = Gate::start_before(&site.addr, "").await;
        let mut client = gate.connect().await;
        client.send_raw(sent).await;
        assert_eq!(client.read_response().await.text(), "ok", "{sent:?}");
        let heard = site.heard();
        assert_eq!(heard.len(), 1, "{sent:?}: {heard:?}");
        assert!(heard[0].starts_with(line) && heard[0].ends_with(end), "{sent:?}: {heard:?}");
        assert_eq!(heard[0].matches("HTTP/1.1\r\n").count(), 1, "{sent:?}: {heard:?}");
        let framings = heard[0].to_lowercase();
        let framings = ["content-length:", "transfer-encoding:"].map(|it| framings.contains(it));
        assert_ne!(framings, [true, true], "{sent:?}: {heard:?}");
    }
}

#[tokio::test]
async fn a_target_for_another_host_does_not_reach_the_site() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    for sent in ELSEWHERE {
        let mut client = gate.connect().await;
        client.send_raw(sent).await;
        let status = client.read_response().await.status;
        assert!((400..500).contains(&status), "{sent:?}: {status}");
    }
    assert_eq!(site.heard().len(), 0, "{:?}", site.heard());
}

#[tokio::test]
async fn what_is_behind_a_doubtful_request_never_reaches_the_site() {
    let site = RawSite::start().await;
    let gate = Gate::start_before(&site.addr, "").await;
    for (what, rest) in BAD {
        let mut client = gate.connect().await;
        let request = format!("POST /a HTTP/1.1\r\nHost: a\r\n{rest}{SMUGGLED}");
        let _ = client.try_send_raw(request).await;
        let all = String::from_utf8_lossy(&client.read_to_end().await).into_owned();
        assert!(all.starts_with("HTTP/1.1 400"), "{what}: {all}");
        assert_eq!(all.matches("\r\nDate: ").count(), 1, "{what}: {all}");
    }
    for heard in site.heard() {
        // If the head was valid, the site may have received it, and no end of the body.
        assert!(heard.starts_with("POST /a HTTP/1.1\r\n"), "{heard:?}");
        assert!(!heard.contains("smuggled") && !heard.contains("0\r\n\r\n"), "{heard:?}");
    }
}

#[tokio::test]
async fn the_internal_side_is_as_strict() {
    let gate = Gate::start_alone("").await;
    for (what, rest) in BAD {
        let mut client = Client::connect(gate.internal()).await;
        let request = format!("POST /channels/a HTTP/1.1\r\nHost: localhost\r\n{rest}{SMUGGLED}");
        let _ = client.try_send_raw(request).await;
        let all = String::from_utf8_lossy(&client.read_to_end().await).into_owned();
        assert!(all.starts_with("HTTP/1.1 400"), "{what}: {all}");
        assert_eq!(all.matches("\r\nDate: ").count(), 1, "{what}: {all}");
    }
    assert_eq!(gate.status().await["channels"], 0);
    for torn in [1, 7, 1000] {
        let body = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n02\r\nde\r\n0\r\n\r\n";
        let request = format!("POST /channels/a HTTP/1.1\r\nHost: localhost\r\n{body}");
        let mut client = Client::connect(gate.internal()).await;
        for piece in request.as_bytes().chunks(torn) {
            client.send_raw(piece).await;
        }
        assert_eq!(client.read_response().await.status, 200);
        // The connection goes on behind it.
        assert_eq!(client.get("/healthz").await.text(), "ok");
    }
}

#[tokio::test]
async fn without_a_token_the_internal_side_answers_only_to_its_own_names() {
    let gate = Gate::with("internal_names = [\"gate.example\"]").alone();
    let path = gate.folder().join("internal.sock").display().to_string();
    let gate = gate.internal(["127.0.0.1:0", &format!("unix:{path}")]).start().await;
    let ask = async |addr: &Addr, host: &str| {
        let mut client = Client::connect(addr).await;
        client.send_raw(format!("GET /status HTTP/1.1\r\n{host}\r\n")).await;
        client.read_response().await
    };
    for host in ["Host: evil.example\r\n", "Host: localhost.evil.example:7080\r\n"] {
        let response = ask(gate.internal(), host).await;
        assert_eq!(response.status, 403, "{host}");
        assert!(response.text().contains("internal_names"), "{}", response.text());
        // No browser reaches a unix socket.
        assert_eq!(ask(&gate.internals()[1], host).await.status, 200);
    }
    for host in ["Host: localhost\r\n", "Host: 127.0.0.1:1\r\n", "Host: Gate.example\r\n"] {
        assert_eq!(ask(gate.internal(), host).await.status, 200, "{host}");
    }
    assert_eq!(ask(gate.internal(), "").await.status, 400);
}

/// A gate before a site, with short timeouts for clients.
async fn impatient() -> (PlainSite, Gate) {
    let site = PlainSite::start().await;
    let config = "[limits]\nhead_timeout = \"500ms\"\nidle_timeout = \"500ms\"\n\
                  write_timeout = \"500ms\"\n[hold]\ntimeout = \"5s\"\n\
                  [upstream]\nread_timeout = \"2s\"";
    let gate = Gate::start_before(site.addr(), config).await;
    (site, gate)
}

/// Checks that the gate works, that all clients are gone, and that memory was released.
async fn is_well(gate: &Gate, before: u64, after: &str) {
    gate.wait_for_held(0).await;
    let mut poller = gate.hold(Way::Plain, "/comet/well").await;
    gate.publish("well", after).await;
    assert_eq!(poller.answer().await.json()["messages"][0]["data"], after);
    assert_eq!(gate.get("/page").await.text(), "site: GET /page", "{after}");
    drop(poller);
    let alone = async || gate.status().await["connections"] == 0;
    eventually(&format!("nobody being left after {after}"), alone).await;
    let level = async || gate.own_memory() < before + (32 << 20);
    eventually(&format!("the memory of before after {after}"), level).await;
    let log = gate.log();
    assert!(!log.contains("panicked"), "{after}: {log}");
}

#[tokio::test]
async fn slow_heads_and_bodies_are_cut_off_and_hinder_nobody() {
    let (_site, gate) = impatient().await;
    let before = gate.own_memory();
    let body = "POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf";
    let chunks = "POST /page HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha";
    let form = "POST /comet HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n\r\nchannel=a&";
    let mut crowd = Vec::new();
    for beginning in ["", "GET", "GET / HTTP/1.1\r\nX: ", body, chunks, form] {
        for _ in 0..50 {
            let mut client = gate.connect().await;
            client.send_raw(beginning).await;
            crowd.push((beginning, client));
        }
    }
    // Meanwhile, and on the internal side as well.
    let mut slow = Client::connect(gate.internal()).await;
    slow.send_raw("POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
        .await;
    gate.publish("news", "x").await;
    assert_eq!(gate.get("/page").await.status, 200);
    for (beginning, mut client) in crowd {
        let all = String::from_utf8_lossy(&client.read_to_end().await).into_owned();
        assert!(all.is_empty() || all.starts_with("HTTP/1.1 408"), "{beginning:?}: {all}");
    }
    is_well(&gate, before, "slow clients").await;
}

#[tokio::test]
async fn a_slow_upload_that_goes_on_is_not_cut_off() {
    let site = PlainSite::start().await;
    let config = "[limits]\nwrite_timeout = \"800ms\"\n[upstream]\nread_timeout = \"400ms\"";
    let gate = Gate::start_before(site.addr(), config).await;
    let mut client = gate.connect().await;
    client.send_raw("POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n").await;
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.send_raw("x").await;
    }
    assert_eq!(client.read_response().await.status, 200);
    assert_eq!(site.last().body, b"xxxxxxxxxxxx");
}

#[tokio::test]
async fn clients_that_never_read_are_cut_off() {
    let mut site = PlainSite::start_by_hand().await;
    let config = "[limits]\nwrite_timeout = \"500ms\"\n[history]\nmax_message = \"8MiB\"\n\
                  bytes = \"16MiB\"";
    let gate = Gate::start_before(site.addr(), config).await;
    gate.publish("large", vec![b'x'; 7 << 20]).await;
    let mut crowd = Vec::new();
    for way in Way::ALL {
        for target in ["/comet/large?cursor=oldest", "/page"] {
            let mut poller = way.connect(&gate).await;
            poller.ask(target).await;
            crowd.push(poller);
        }
    }
    let large = vec![b'x'; 8 << 20];
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 64 << 20);
    for _ in Way::ALL {
        let mut visit = site.visit().await;
        let large = large.clone();
        let head = head.clone();
        tokio::spawn(async move {
            visit.send(head).await;
            loop {
                visit.send(&large).await;
            }
        });
    }
    let gone = async || gate.status().await["connections"] == 0;
    // Of HTTP/2 the connection stays, and its streams are reset.
    let http1 = async || gate.status().await["connections"].as_u64().unwrap_or(99) <= 4;
    eventually("the slow readers' end", http1).await;
    drop(crowd);
    eventually("everybody's end", gone).await;
    gate.publish("news", "x").await;
}

#[tokio::test]
async fn resets_in_the_middle_and_thousands_of_connections_leave_nothing() {
    let (_site, gate) = impatient().await;
    let before = gate.own_memory();
    let Addr::Tcp(addr) = *gate.addr() else { return };
    let bytes =
        ["", "GET /page HTTP/1.1\r\nHost: a\r\n\r\n", "GET /comet/a HTTP/1.1\r\n\r\n", "POST /"];
    for round in 0..3000 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let _ = stream.write_all(bytes[round % 4].as_bytes()).await;
        if round % 8 < 4 {
            stream.set_zero_linger().unwrap();
        }
        if round % 500 == 0 {
            gate.publish("news", "x").await;
            assert_eq!(gate.get("/page").await.status, 200);
        }
    }
    is_well(&gate, before, "three thousand connections").await;
}

#[tokio::test]
async fn slow_clients_of_the_internal_side_are_cut_off_and_hinder_no_publish() {
    let (_site, gate) = impatient().await;
    let before = gate.own_memory();
    gate.publish_as("large", "text/plain", vec![b'x'; 900_000]).await;
    let open = gate.open_files();
    let head = "POST /channels/a HTTP/1.1\r\nHost: localhost\r\n";
    let half = format!("{head}Content-Length: 100\r\n\r\nhalf");
    let chunks = format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nha");
    let waits = format!("{head}Content-Length: 100\r\nExpect: 100-continue\r\n\r\n");
    let answered = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let then_half = format!("{answered}GET /he");
    let beginnings =
        ["", "GET", head, &half, &chunks, &waits, answered, &then_half].map(str::to_owned);
    let mut crowd = Vec::new();
    for beginning in &beginnings {
        for _ in 0..8 {
            let mut client = Client::connect(gate.internal()).await;
            client.send_raw(beginning).await;
            crowd.push((beginning, client));
        }
    }
    // One that drips: its head takes too long as a whole, however little it pauses.
    let Addr::Tcp(internal) = *gate.internal() else { return };
    let mut drip = TcpStream::connect(internal).await.unwrap();
    let dripping = tokio::spawn(async move {
        for byte in b"GET /healthz HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if drip.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    });
    // And some that never read what they asked for, again and again.
    let greedy = "GET /channels/large/messages HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(50);
    for _ in 0..4 {
        let mut client = Client::connect(gate.internal()).await;
        client.send_raw(&greedy).await;
        crowd.push((&beginnings[0], client));
    }
    for n in 0..20 {
        gate.publish("news", format!("{n}")).await;
    }
    let mut greedy = crowd.split_off(crowd.len() - 4);
    for (beginning, mut client) in crowd {
        let all = String::from_utf8_lossy(&client.read_to_end().await).into_owned();
        let late =
            beginning.len() > answered.len() || (1..answered.len()).contains(&beginning.len());
        assert_eq!(all.contains("HTTP/1.1 408"), late, "{beginning:?}: {all}");
    }
    assert!(tokio::time::timeout(BOUND, dripping).await.is_ok(), "it drips on");
    eventually("the end of who never reads", async || gate.open_files() <= open + 1).await;
    greedy.clear();
    let metrics = Metrics::parse(&gate.hook("GET", "/metrics", &[], "").await.text());
    let late =
        |cause: &str| metrics.value(&format!("pollgate_refusals_total{{cause=\"{cause}\"}}"));
    assert!(late("head_timeout") >= 24.0 && late("body_timeout") >= 24.0);
    assert_eq!(gate.status().await["channels"], 2);
    is_well(&gate, before, "slow publishers").await;
}

#[tokio::test]
async fn who_keeps_a_connection_to_the_internal_side_may_pause_between_requests() {
    let gate = Gate::start_alone("[limits]\nhead_timeout = \"300ms\"\nidle_timeout = \"0s\"").await;
    let mut client = Client::connect(gate.internal()).await;
    for _ in 0..3 {
        assert_eq!(client.get("/healthz").await.text(), "ok");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A client that requests the site all the time, while others attack it.
struct Visitor {
    stop: Arc<AtomicBool>,
    visits: tokio::task::JoinHandle<(usize, Duration)>,
}

impl Visitor {
    fn start(gate: &Gate) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let addr = gate.addr().clone();
        let stopped = stop.clone();
        let visits = tokio::spawn(async move {
            let mut count = 0;
            let mut slowest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                let mut client = Client::connect(&addr).await;
                assert_eq!(client.get("/page").await.status, 200);
                slowest = slowest.max(began.elapsed());
                count += 1;
            }
            (count, slowest)
        });
        Self { stop, visits }
    }

    /// Ends the visits; all of them went well, and none took long.
    async fn was_served(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (count, slowest) = self.visits.await.unwrap();
        assert!(count > 10 && slowest < Duration::from_secs(5), "{count} visits, {slowest:?}");
    }
}

/// Frames of HTTP/2 as they are on the wire (RFC 9113, section 4).
mod frame {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;

    pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// A header as it is, without a table or Huffman's code (RFC 7541, section 6.2.2).
    pub(super) fn header(name: &str, value: &str) -> Vec<u8> {
        let mut bytes = vec![0];
        for text in [name, value] {
            if text.len() < 127 {
                bytes.push(u8::try_from(text.len()).unwrap());
            } else {
                bytes.push(127);
                let mut rest = text.len() - 127;
                while rest >= 128 {
                    bytes.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                bytes.push(u8::try_from(rest).unwrap());
            }
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    pub(super) fn request(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
        let method =
            if more.iter().any(|(name, _)| *name == "content-length") { "POST" } else { "GET" };
        let fixed =
            [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")];
        fixed.iter().chain(more).flat_map(|(name, value)| header(name, value)).collect()
    }

    /// Reads the next frame: its kind, its flags, its stream, its payload. `None` = there is none
    /// any more.
    pub(super) async fn next(stream: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await.ok()?;
        Some((kind, flags, u32::from_be_bytes(id), payload))
    }

    /// Settings of the client, with a window of that size for each stream.
    pub(super) fn window(size: u32) -> Vec<u8> {
        let setting = [&[0, 4][..], &size.to_be_bytes()].concat();
        [&PREFACE[..24], &frame(SETTINGS, 0, 0, &setting)].concat()
    }

    pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const PRIORITY: u8 = 2;
    pub(super) const RESET: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const WINDOW: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
    pub(super) const END_STREAM: u8 = 1;
    pub(super) const END_HEADERS: u8 = 4;
}

/// Sends frames until the gate has enough of them, or `count` were sent; then waits for the end.
async fn flood(gate: &Gate, count: usize, mut frames: impl FnMut(u32) -> Vec<u8>) {
    let Addr::Tcp(addr) = *gate.addr() else { return };
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(frame::PREFACE).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let write = async {
        for n in 0..u32::try_from(count).unwrap() {
            if writer.write_all(&frames(2 * n + 1)).await.is_err() {
                return;
            }
        }
    };
    let read = async {
        let mut room = vec![0; 65_536];
        while matches!(reader.read(&mut room).await, Ok(1..)) {}
    };
    let both = async { tokio::join!(write, read) };
    assert!(tokio::time::timeout(BOUND, both).await.is_ok(), "the connection was not closed");
}

#[tokio::test]
async fn floods_of_http2_frames_end_their_connection_alone() {
    use frame::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RESET};
    use frame::{SETTINGS, WINDOW, frame};
    let (site, gate) = impatient().await;
    let before = gate.own_memory();
    let visitor = Visitor::start(&gate);
    let get = |path: &str| frame::request(path, &[]);
    flood(&gate, 0, |_| Vec::new()).await;
    flood(&gate, 20_000, |_| frame(PING, 0, 0, b"12345678")).await;
    flood(&gate, 20_000, |_| frame(SETTINGS, 0, 0, b"\0\x03\0\0\0\x64")).await;
    for path in ["/page", "/comet/a"] {
        flood(&gate, 5_000, |stream| {
            let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &get(path));
            [open, frame(RESET, 0, stream, &[0, 0, 0, 8])].concat()
        })
        .await;
        // More streams than allowed, which are never read.
        flood(&gate, 1_000, |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &get(path)))
            .await;
    }
    flood(&gate, 20_000, |stream| match stream {
        1 => frame(HEADERS, 0, 1, &get("/page")),
        _ => frame(CONTINUATION, 0, 1, &frame::header("x-bomb", &"x".repeat(1000))),
    })
    .await;
    flood(&gate, 20_000, |stream| match stream {
        1 => frame(HEADERS, 0, 1, &get("/page")),
        _ => frame(CONTINUATION, 0, 1, b""),
    })
    .await;
    flood(&gate, 20_000, |_| frame(WINDOW, 0, 0, &[0, 0, 0, 1])).await;
    flood(&gate, 20_000, |stream| frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 1])).await;
    flood(&gate, 20_000, |stream| match stream {
        1 => frame(HEADERS, END_HEADERS, 1, &frame::request("/page", &[("content-length", "9")])),
        _ => frame(DATA, 0, 1, b""),
    })
    .await;
    visitor.was_served().await;
    assert!(site.requests().iter().all(|request| !request.head.contains("x-bomb")));
    is_well(&gate, before, "floods").await;
}

/// Fate of stream 1: true if the gate answers it, and true if it ends it.
async fn fate_of_stream_1(stream: &mut TcpStream) -> (bool, bool) {
    let mut answered = false;
    let read = async {
        while let Some((kind, flags, id, _)) = frame::next(stream).await {
            answered |= (kind, id) == (frame::HEADERS, 1);
            let last = matches!(kind, frame::HEADERS | frame::DATA);
            let last = last && flags & frame::END_STREAM > 0;
            if id == 1 && (last || kind == frame::RESET) {
                return true;
            }
        }
        true
    };
    let ended = tokio::time::timeout(BOUND, read).await.unwrap_or(false);
    (answered, ended)
}

#[tokio::test]
async fn a_stream_that_stalls_is_ended_and_the_others_go_on() {
    use frame::{DATA, END_HEADERS, END_STREAM, HEADERS, frame};
    let (site, gate) = impatient().await;
    let before = gate.own_memory();
    let visitor = Visitor::start(&gate);
    let Addr::Tcp(addr) = *gate.addr() else { return };
    let form = [("content-length", "100"), ("content-type", "application/x-www-form-urlencoded")];
    // Bodies that stop in the middle: for the site, and of a poll.
    for (path, headers) in [("/page", &form[..1]), ("/comet", &form[..])] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(frame::PREFACE).await.unwrap();
        let head = frame(HEADERS, END_HEADERS, 1, &frame::request(path, headers));
        let some = frame(DATA, 0, 1, b"channel=a&");
        stream.write_all(&[head, some].concat()).await.unwrap();
        let (_, ended) = fate_of_stream_1(&mut stream).await;
        assert!(ended, "{path}: the body is waited for");
    }
    let metrics = Metrics::parse(&gate.hook("GET", "/metrics", &[], "").await.text());
    assert_eq!(metrics.value("pollgate_refusals_total{cause=\"body_timeout\"}"), 2.0);
    // Bodies that pause and go on are no hindrance.
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(frame::PREFACE).await.unwrap();
    let body = [("content-length", "12")];
    let head = frame(HEADERS, END_HEADERS, 1, &frame::request("/page", &body));
    stream.write_all(&head).await.unwrap();
    for n in 0..12 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let flags = if n == 11 { END_STREAM } else { 0 };
        stream.write_all(&frame(DATA, flags, 1, b"x")).await.unwrap();
    }
    assert_eq!(fate_of_stream_1(&mut stream).await, (true, true));
    assert!(site.requests().iter().any(|request| request.body == b"xxxxxxxxxxxx"));
    // Responses that the client does not accept.
    gate.publish("large", vec![b'x'; 500_000]).await;
    for path in ["/comet/large?cursor=oldest", "/page"] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(&frame::window(0)).await.unwrap();
        let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &frame::request(path, &[]));
        stream.write_all(&head).await.unwrap();
        let (answered, ended) = fate_of_stream_1(&mut stream).await;
        assert!(answered && ended, "{path}: {answered} {ended}");
    }
    visitor.was_served().await;
    is_well(&gate, before, "stalled streams").await;
}

#[tokio::test]
async fn a_connection_has_only_so_many_streams() {
    use frame::{END_HEADERS, END_STREAM, HEADERS, RESET, frame};
    let gate = Gate::start_alone("").await;
    let Addr::Tcp(addr) = *gate.addr() else { return };
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(frame::PREFACE).await.unwrap();
    let poll = frame::request("/comet/news", &[]);
    let open = |n: u32| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &poll);
    stream.write_all(&(0..100).flat_map(open).collect::<Vec<u8>>()).await.unwrap();
    gate.wait_for_held(100).await;
    stream.write_all(&(100..110).flat_map(open).collect::<Vec<u8>>()).await.unwrap();
    let mut refused = 0;
    while refused < 10 {
        let next = tokio::time::timeout(BOUND, frame::next(&mut stream)).await;
        let Ok(Some((kind, _, id, payload))) = next else { panic!("{refused} were refused") };
        if kind == RESET {
            // REFUSED_STREAM (RFC 9113, section 7).
            assert!(id > 200 && payload == [0, 0, 0, 7], "{id}: {payload:?}");
            refused += 1;
        }
    }
    assert_eq!(gate.held().await, 100);
    gate.publish("news", "x").await;
    gate.wait_for_held(0).await;
}

#[tokio::test]
async fn what_http2_can_say_and_http1_cannot_does_not_reach_the_site() {
    use frame::{END_HEADERS, END_STREAM, HEADERS, frame};
    let (site, gate) = impatient().await;
    for (path, headers) in [
        ("/a", [("transfer-encoding", "chunked")]),
        ("/a", [("connection", "keep-alive")]),
        ("/a", [("x", "a\r\nSmuggled: b")]),
        ("/a", [("x", "a\nSmuggled: b")]),
        ("/a", [("x", "a\0b")]),
        ("/a", [("x\r\nSmuggled", "a")]),
        ("/a", [("X-Upper", "a")]),
        ("/a", [("x: a\r\nsmuggled", "a")]),
        ("/a", [("host", "b")]),
        ("/a HTTP/1.1\r\nSmuggled: a\r\n\r\n", [("x", "a")]),
        ("/a b", [("x", "a")]),
        ("", [("x", "a")]),
        ("/a", [("content-length", "5")]),
        ("/a", [(":path", "/smuggled")]),
    ] {
        let Addr::Tcp(addr) = *gate.addr() else { return };
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(frame::PREFACE).await.unwrap();
        let block = frame::request(path, &headers);
        stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await.unwrap();
        let mut all = Vec::new();
        // It is reset, or the connection is closed; an idle one soon is.
        let read = tokio::time::timeout(BOUND, stream.read_to_end(&mut all)).await;
        assert!(read.is_ok(), "{path:?} {headers:?}");
    }
    assert_eq!(site.requests().len(), 0, "{:?}", site.requests());
}

#[tokio::test]
async fn heads_of_http2_have_the_bounds_of_all_others() {
    let site = PlainSite::start().await;
    let config = "[limits]\nhead_bytes = \"4KiB\"\nhead_count = 20";
    let gate = Gate::start_before(site.addr(), config).await;
    let many: Vec<String> = (0..21).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "a")).collect();
    let long = "x".repeat(5000);
    for (headers, most) in [(many.as_slice(), 20), (&[("x-long", long.as_str())], 1)] {
        for target in ["/page", "/comet/a?timeout=0"] {
            let mut poller = Way::Http2.connect(&gate).await;
            let refused = poller.poll_with("GET", target, headers).await;
            assert_eq!(refused.status, 431, "{target} {most}");
            let mut poller = Way::Http2.connect(&gate).await;
            let headers = if most > 1 { &headers[..15] } else { &[] };
            assert_eq!(poller.poll_with("GET", target, headers).await.status, 200, "{target}");
        }
    }
    assert_eq!(site.requests().len(), 2);
}

/// One HEADERS frame for stream 1 (RFC 9113, section 6.2), its fields as literals (RFC 7541).
fn http2_request(method: &str, path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (index, value) in [(2, method), (4, path), (1, "a"), (6, "http")] {
        block.push(index);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend_from_slice(value.as_bytes());
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    bytes.extend_from_slice(&block);
    bytes
}

/// The status of the answer, as HPACK's static table has it; `None` for a stream or a connection
/// that is reset.
async fn http2_status(client: &mut Client) -> Option<u16> {
    loop {
        let head = client.read_exactly(9).await;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = client.read_exactly(length).await;
        match (head[3], payload.first()) {
            (1, Some(0x88)) => return Some(200),
            (1, Some(0x8c)) => return Some(400),
            (1, other) => panic!("a status that begins with {other:?}"),
            (3 | 7, _) => return None,
            _ => {}
        }
    }
}

#[tokio::test]
async fn http2_has_the_targets_of_http1_and_no_others() {
    let site = PlainSite::start().await;
    let gate = Gate::start_before(site.addr(), "").await;
    for (method, path) in [
        ("GET", "*"),
        ("POST", "*"),
        ("GET", "/a<b"),
        ("GET", "/a`b"),
        ("GET", "/a?b\"c"),
        ("GET", "a"),
        ("GET", ""),
    ] {
        let mut client = gate.connect().await;
        client.send_raw(http2_request(method, path)).await;
        assert_ne!(http2_status(&mut client).await, Some(200), "{method} {path}");
    }
    for (method, path) in [("GET", "/good"), ("OPTIONS", "*")] {
        let mut client = gate.connect().await;
        client.send_raw(http2_request(method, path)).await;
        assert_eq!(http2_status(&mut client).await, Some(200), "{method} {path}");
    }
    assert_eq!(site.requests().len(), 2);
}
