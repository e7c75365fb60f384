//! The ways in which a poll can come to the gate. All of them must behave alike, so the tests of
//! polls run over [`Way::ALL`]:
//!
//! ```ignore
//! for way in Way::ALL {
//!     let gate = Gate::start_alone("").await;
//!     let mut poller = way.connect(&gate).await;
//!     poller.ask("/comet/news").await;
//! }
//! ```
//!
//! A further way is one more [`Way`] in `ALL` and one arm in each `match` below.

use super::http::{Client, Response};
use super::http2::Http2;
use super::{Addr, Gate};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A GET over HTTP/1.1 with nothing about it.
    Plain,
    /// A GET over HTTP/1.1 that declares an empty body.
    Odd,
    /// A stream of HTTP/2, with prior knowledge.
    Http2,
    /// The same, saying it has an empty body.
    OddHttp2,
}

impl Way {
    /// All ways.
    pub const ALL: [Way; 4] = [Way::Plain, Way::Odd, Way::Http2, Way::OddHttp2];

    /// The ways over an HTTP/1.1 connection, of which a [`Poller::client`] can be had.
    pub const HTTP1: [Way; 2] = [Way::Plain, Way::Odd];

    /// The ways over HTTP/2, of which a [`Poller::http2`] can be had.
    pub const HTTP2: [Way; 2] = [Way::Http2, Way::OddHttp2];

    /// A new connection to the gate's public side.
    pub async fn connect(self, gate: &Gate) -> Poller {
        self.connect_to(gate.addr()).await
    }

    /// A new connection to a public address.
    pub async fn connect_to(self, addr: &Addr) -> Poller {
        let wire = match self {
            Way::Plain | Way::Odd => Wire::Http1(Client::connect(addr).await),
            Way::Http2 | Way::OddHttp2 => Wire::Http2(Http2::connect(addr).await),
        };
        Poller { way: self, wire }
    }

    /// The headers that make a request odd.
    fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Way::Plain | Way::Http2 => &[],
            Way::Odd | Way::OddHttp2 => &[("Content-Length", "0")],
        }
    }

    /// The bytes of a GET over HTTP/1.1, for tests that send several at once.
    pub fn get(self, target: &str) -> String {
        let headers = self.headers().iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let headers: String = headers.collect();
        format!("GET {target} HTTP/1.1\r\nHost: gate.example\r\n{headers}\r\n")
    }
}

/// A client that polls in one of the ways. Dropping it closes its connection.
pub struct Poller {
    way: Way,
    wire: Wire,
}

enum Wire {
    Http1(Client),
    Http2(Http2),
}

impl Poller {
    /// Sends a poll and does not wait for its answer.
    pub async fn ask(&mut self, target: &str) {
        self.ask_with("GET", target, &[]).await;
    }

    /// As [`Poller::ask`], with a method and further headers.
    pub async fn ask_with(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) {
        let headers = [self.way.headers(), headers].concat();
        match &mut self.wire {
            Wire::Http1(client) => client.send(method, target, &headers, b"").await,
            Wire::Http2(http2) => http2.ask(method, target, &headers).await,
        }
    }

    /// Reads the next answer.
    pub async fn answer(&mut self) -> Response {
        self.answer_to("GET").await
    }

    async fn answer_to(&mut self, method: &str) -> Response {
        match &mut self.wire {
            Wire::Http1(client) => client.read_response_to(method).await,
            Wire::Http2(http2) => http2.answer().await,
        }
    }

    /// Polls and reads the answer.
    pub async fn poll(&mut self, target: &str) -> Response {
        self.poll_with("GET", target, &[]).await
    }

    /// As [`Poller::poll`], with a method and further headers.
    pub async fn poll_with(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Response {
        self.ask_with(method, target, headers).await;
        self.answer_to(method).await
    }

    /// True if nothing has come and the connection is still open.
    pub async fn is_quiet(&mut self) -> bool {
        match &mut self.wire {
            Wire::Http1(client) => client.is_quiet().await,
            Wire::Http2(http2) => http2.is_quiet().await,
        }
    }

    /// Takes its poll back: closes the connection.
    pub fn close(self) {}

    /// The HTTP/1.1 connection itself.
    pub fn client(&mut self) -> &mut Client {
        match &mut self.wire {
            Wire::Http1(client) => client,
            Wire::Http2(_) => panic!("{:?} has no HTTP/1.1 connection", self.way),
        }
    }

    /// The HTTP/2 connection itself.
    pub fn http2(&mut self) -> &mut Http2 {
        match &mut self.wire {
            Wire::Http2(http2) => http2,
            Wire::Http1(_) => panic!("{:?} has no HTTP/2 connection", self.way),
        }
    }
}
