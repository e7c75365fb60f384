//! One conversation with a server, written down so that two servers' can be compared.

use std::time::{SystemTime, UNIX_EPOCH};

use super::support::{Addr, Client, Response, Socket, eventually, eventually_some};

/// One step of a case. `CH` in a path stands for a channel's name that only this case uses, `T`
/// in braces for the second of the newest message, `D` for the same as a date.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Publishes text.
    Pub(&'static str, &'static str),
    /// Any request to the publisher; its answer counts.
    Publisher(&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str),
    /// A poll; its answer counts.
    Poll(&'static str, &'static [(&'static str, &'static str)]),
    /// The same poll with the place of its last answer.
    Again(&'static str),
    /// A request that stays open: waits until its channel (the name behind the path) has it.
    Hold(&'static str, &'static [(&'static str, &'static str)]),
    /// The answer to what was held.
    Answer,
    /// The stream that is open: all it has sent up to this text.
    Until(&'static str),
    /// Opens a WebSocket.
    Socket(&'static str, &'static [(&'static str, &'static str)]),
    /// The next frame.
    Frame,
    /// Sends text on the WebSocket.
    Say(&'static str),
    /// The next messages come in another second.
    NextSecond,
}

/// One of the two servers.
pub(super) struct Side {
    pub(super) public: Addr,
    pub(super) publisher: Addr,
}

pub(super) struct Talk<'a> {
    side: &'a Side,
    channel: String,
    said: Vec<String>,
    place: Vec<(String, String)>,
    open: Option<Client>,
    head_read: bool,
    chunked: bool,
    /// What the stream has sent and was not asked for yet.
    ahead: Vec<u8>,
    socket: Option<Socket>,
    held: u64,
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Waits for the end of this second.
pub(super) async fn another_second() {
    let before = now().floor();
    eventually("another second", async || now().floor() > before).await;
}

/// Waits for the first part of a second, so that what follows happens within it.
async fn early_in_a_second() {
    eventually("the beginning of a second", async || now().fract() < 0.2).await;
}

impl<'a> Talk<'a> {
    /// Goes through `steps`; what the server said. Repeats all of it where a second went by.
    pub(super) async fn through(side: &'a Side, name: &str, steps: &[Step]) -> Vec<String> {
        for attempt in 0..6 {
            early_in_a_second().await;
            let mut talk = Talk {
                side,
                channel: format!("{name}{attempt}"),
                said: Vec::new(),
                place: Vec::new(),
                open: None,
                head_read: false,
                chunked: false,
                ahead: Vec::new(),
                socket: None,
                held: 0,
            };
            let mut began = now().floor();
            let mut in_time = true;
            for step in steps {
                if let Step::NextSecond = step {
                    another_second().await;
                    began = now().floor();
                    continue;
                }
                let publishes = matches!(step, Step::Pub(..) | Step::Publisher(..));
                talk.step(*step).await;
                in_time &= !publishes || now().floor() == began;
            }
            if in_time {
                return normal(talk.said);
            }
        }
        panic!("{name}: never done within a second");
    }

    fn fill(&self, text: &str) -> String {
        let second = now().floor() as u64;
        let date = httpdate::fmt_http_date(UNIX_EPOCH + std::time::Duration::from_secs(second));
        text.replace("CH", &self.channel).replace("{T}", &second.to_string()).replace("{D}", &date)
    }

    fn filled(&self, headers: &[(&str, &str)]) -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| ((*name).to_owned(), self.fill(value))).collect()
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Pub(path, body) => {
                let headers = [("Content-Type", "text/plain")];
                let mut client = Client::connect(&self.side.publisher).await;
                let path = self.fill(path);
                let answer = client.request("POST", &path, &headers, body.as_bytes()).await;
                assert!(matches!(answer.status, 201 | 202), "{path}: {}", answer.status);
            }
            Step::Publisher(method, path, headers, body) => {
                let mut client = Client::connect(&self.side.publisher).await;
                let path = self.fill(path);
                let answer = client.request(method, &path, headers, body.as_bytes()).await;
                self.note(&answer);
            }
            Step::Poll(path, headers) => {
                let headers = self.filled(headers);
                self.poll(&self.fill(path), &headers).await;
            }
            Step::Again(path) => {
                let place = self.place.clone();
                self.poll(&self.fill(path), &place).await;
            }
            Step::Hold(path, headers) => {
                let path = self.fill(path);
                let mut client = Client::connect(&self.side.public).await;
                let headers = self.filled(headers);
                let headers: Vec<_> = borrowed(&headers);
                client.send("GET", &path, &headers, b"").await;
                self.held += 1;
                let (_, channel) = path.rsplit_once('/').unwrap();
                let channel = channel.split(['?', ',']).next().unwrap();
                self.wait_for_subscribers(channel).await;
                self.open = Some(client);
            }
            Step::Answer => {
                let answer = self.open.as_mut().unwrap().read_response().await;
                self.note(&answer);
                self.held -= 1;
            }
            Step::Until(mark) => {
                self.read_head().await;
                while !self.ahead.windows(mark.len()).any(|window| window == mark.as_bytes()) {
                    assert!(self.read_more().await, "the stream ended before {mark:?}");
                }
                let text = std::mem::take(&mut self.ahead);
                self.said.push(String::from_utf8_lossy(&text).into_owned());
            }
            Step::Socket(path, headers) => {
                let mut client = Client::connect(&self.side.public).await;
                Socket::ask(&mut client, &self.fill(path), headers).await;
                let head = client.read_head().await;
                let protocol = head.header("sec-websocket-protocol");
                let accept = head.header("sec-websocket-accept");
                self.said.push(format!("{} {protocol:?} {accept:?}", head.status));
                self.socket = Some(Socket { head, client });
            }
            Step::Frame => {
                let (opcode, payload) = self.socket.as_mut().unwrap().frame().await;
                let text = match (opcode, payload.as_slice()) {
                    (8, [a, b, reason @ ..]) => {
                        let code = u16::from_be_bytes([*a, *b]);
                        // The reason for a message is not worded alike.
                        let reason = if code == 1008 { &[] } else { reason };
                        format!("{code} {}", String::from_utf8_lossy(reason))
                    }
                    (_, payload) => String::from_utf8_lossy(payload).into_owned(),
                };
                self.said.push(format!("{opcode} {text}"));
            }
            Step::Say(text) => self.socket.as_mut().unwrap().send(0x81, text.as_bytes()).await,
            Step::NextSecond => {}
        }
    }

    async fn poll(&mut self, path: &str, headers: &[(String, String)]) {
        let mut client = Client::connect(&self.side.public).await;
        let answer = client.request("GET", path, &borrowed(headers), b"").await;
        let header = |name: &str| answer.header(name).map(str::to_owned);
        if let (Some(modified), Some(tag)) = (header("last-modified"), header("etag")) {
            self.place =
                vec![("If-Modified-Since".into(), modified), ("If-None-Match".into(), tag)];
        }
        self.note(&answer);
    }

    async fn wait_for_subscribers(&self, channel: &str) {
        let look = async || {
            let mut client = Client::connect(&self.side.publisher).await;
            let headers = [("Accept", "text/json")];
            let path = format!("/pub/{channel}");
            let answer = client.request("GET", &path, &headers, b"").await;
            let any = answer.status == 200;
            (any && answer.json()["subscribers"].as_u64() >= Some(self.held)).then_some(())
        };
        eventually_some("a subscriber", super::support::BOUND, look).await;
    }

    async fn read_head(&mut self) {
        if std::mem::replace(&mut self.head_read, true) {
            return;
        }
        let head = self.open.as_mut().unwrap().read_head().await;
        self.chunked = head.header("transfer-encoding").is_some();
        let content_type = head.header("content-type").unwrap_or("-").to_owned();
        self.said.push(format!("stream {} {content_type}", head.status));
    }

    async fn read_more(&mut self) -> bool {
        let client = self.open.as_mut().unwrap();
        let piece = match self.chunked {
            true => client.read_chunk().await.unwrap_or_default(),
            false => client.read_some().await,
        };
        self.ahead.extend_from_slice(&piece);
        !piece.is_empty()
    }

    fn note(&mut self, answer: &Response) {
        let header = |name: &str| answer.header(name).unwrap_or("-").to_owned();
        let quiet = matches!(answer.status, 304 | 408);
        let place = match quiet {
            // Nchan says nothing of the place there, or only a part of it.
            true => String::new(),
            false => format!("{} {}", header("last-modified"), header("etag")),
        };
        let kind = header("content-type");
        let (kind, body) = match answer.status {
            400..=599 => (String::new(), String::new()),
            _ => (kind, answer.text()),
        };
        self.said.push(format!("{} {kind} {place}\n{body}", answer.status));
    }
}

fn borrowed(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Replaces seconds by their order, dates and boundaries by what they are.
fn normal(said: Vec<String>) -> Vec<String> {
    let joined = said.join("\u{1}");
    let mut text = String::new();
    let mut rest = joined.as_str();
    // Dates become seconds.
    while let Some(at) = rest.find(" GMT") {
        let start = rest[..at].rfind(", ").map_or(at, |comma| comma.saturating_sub(3));
        let date = &rest[start..at + 4];
        match httpdate::parse_http_date(date) {
            Ok(time) => {
                let second = time.duration_since(UNIX_EPOCH).unwrap().as_secs();
                text.push_str(&rest[..start]);
                text.push_str(&second.to_string());
            }
            Err(_) => text.push_str(&rest[..at + 4]),
        }
        rest = &rest[at + 4..];
    }
    text.push_str(rest);
    if let Some((_, after)) = text.split_once("boundary=") {
        let boundary: String = after.chars().take_while(|c| !c.is_control() && *c != ' ').collect();
        text = text.replace(&boundary, "BOUNDARY");
    }
    let mut seconds: Vec<String> = numbers(&text).map(str::to_owned).collect();
    seconds.sort();
    seconds.dedup();
    for (index, second) in seconds.iter().enumerate() {
        text = text.replace(second, &format!("SECOND{index}"));
    }
    text.split('\u{1}').map(str::to_owned).collect()
}

/// The numbers of ten digits.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let digits = text.split(|c: char| !c.is_ascii_digit());
    digits.filter(|number| number.len() == 10)
}
