//! A client of streams over HTTP: the head, then line by line, then the end.

use serde_json::Value;

use super::http2::Http2;
use super::{Addr, Gate, Poller, Response, Way};

/// A stream that is being read. Dropping it closes its connection.
pub struct Events {
    pub head: Response,
    poller: Poller,
    body: Option<h2::RecvStream>,
    buffer: Vec<u8>,
    /// Bytes of it that lines were made of.
    at: usize,
    ended: bool,
}

/// One event of an event stream, as its grammar (WHATWG HTML, section 9.2) makes it of the lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub event: String,
    pub id: Option<String>,
    pub data: String,
    pub retry: Option<u64>,
    /// It is a comment, and nothing else.
    pub comment: Option<String>,
}

impl Event {
    /// The data as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|e| panic!("{self:?}: {e}"))
    }

    /// The id; panics if it has none.
    pub fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_else(|| panic!("no id: {self:?}"))
    }
}

impl Events {
    /// Opens an event stream and reads its head.
    pub async fn open(way: Way, gate: &Gate, target: &str) -> Events {
        Events::open_with(way, gate, target, &[("Accept", "text/event-stream")]).await
    }

    /// Opens a stream of any kind and reads its head.
    pub async fn open_with(
        way: Way,
        gate: &Gate,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Events {
        Events::open_at(way, gate.addr(), target, headers).await
    }

    /// As [`Events::open_with`], of whatever listens at `addr`.
    pub async fn open_at(way: Way, addr: &Addr, target: &str, headers: &[(&str, &str)]) -> Events {
        let mut poller = way.connect_to(addr).await;
        poller.ask_with("GET", target, headers).await;
        let (head, body) = match way {
            Way::Plain | Way::Odd => (poller.client().read_head().await, None),
            Way::Http2 | Way::OddHttp2 => {
                let (head, body) = poller.http2().answer_head().await;
                (head, Some(body))
            }
        };
        Events { head, poller, body, buffer: Vec::new(), at: 0, ended: false }
    }

    /// Reads the next piece that the gate has written; false = the end.
    async fn read(&mut self) -> bool {
        let piece = match &mut self.body {
            Some(body) => Http2::piece(body).await,
            None if self.head.header("transfer-encoding").is_some() => {
                self.poller.client().read_chunk().await
            }
            None => Some(self.poller.client().read_some().await).filter(|bytes| !bytes.is_empty()),
        };
        self.ended = piece.is_none();
        self.buffer.extend(piece.unwrap_or_default());
        !self.ended
    }

    /// The next line, without its end; `None` = the stream has ended cleanly.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            let rest = &self.buffer[self.at..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                self.at += end + 1;
                return Some(String::from_utf8_lossy(&rest[..end]).into_owned());
            }
            self.buffer.drain(..std::mem::take(&mut self.at));
            if self.ended || !self.read().await {
                assert!(self.buffer.is_empty(), "the stream ends within a line");
                return None;
            }
        }
    }

    /// The next event or comment; `None` = the stream has ended cleanly.
    pub async fn next_or_end(&mut self) -> Option<Event> {
        let mut event = Event::default();
        let mut data: Vec<String> = Vec::new();
        loop {
            let line = self.line().await?;
            if let Some(comment) = line.strip_prefix(':') {
                event.comment = Some(comment.trim().to_owned());
                return Some(event);
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => {
                    event.data = data.join("\n");
                    return Some(event);
                }
                "event" => event.event = value.to_owned(),
                "id" => event.id = Some(value.to_owned()),
                "data" => data.push(value.to_owned()),
                "retry" => event.retry = value.parse().ok(),
                _ => panic!("the line {line:?}"),
            }
        }
    }

    /// The next event that is no comment.
    pub async fn next(&mut self) -> Event {
        loop {
            let event = self.next_or_end().await;
            let event = event.unwrap_or_else(|| panic!("the stream has ended"));
            if event.comment.is_none() {
                return event;
            }
        }
    }

    /// Reads on to a clean end; the last `retry` on the way.
    pub async fn end(&mut self) -> Option<u64> {
        let mut retry = None;
        while let Some(event) = self.next_or_end().await {
            retry = event.retry.or(retry);
        }
        retry
    }

    /// What has been read and is no whole line yet, and the connection.
    pub fn poller(&mut self) -> &mut Poller {
        &mut self.poller
    }
}
