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
//! A further way (HTTP/2 with prior knowledge) is one more [`Way`] in `ALL`, one arm in
//! [`Way::connect`] and one in each method of [`Poller`]; what is about an HTTP/1.1 connection
//! itself runs over [`Way::HTTP1`], which it does not join.

use super::http::{Client, Response};
use super::{Addr, Gate};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A GET over HTTP/1.1 with nothing about it.
    Plain,
    /// A GET over HTTP/1.1 that says it has an empty body.
    Odd,
}

impl Way {
    /// All ways.
    pub const ALL: [Way; 2] = [Way::Plain, Way::Odd];

    /// The ways over an HTTP/1.1 connection, of which a [`Poller::client`] can be had.
    pub const HTTP1: [Way; 2] = [Way::Plain, Way::Odd];

    /// A new connection to the gate's public side.
    pub async fn connect(self, gate: &Gate) -> Poller {
        self.connect_to(gate.addr()).await
    }

    /// A new connection to a public address.
    pub async fn connect_to(self, addr: &Addr) -> Poller {
        Poller { way: self, client: Client::connect(addr).await }
    }

    /// The headers that make a request odd.
    fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Way::Plain => &[],
            Way::Odd => &[("Content-Length", "0")],
        }
    }

    /// The bytes of a GET, for tests that send several at once.
    pub fn get(self, target: &str) -> String {
        let headers = self.headers().iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let headers: String = headers.collect();
        format!("GET {target} HTTP/1.1\r\nHost: gate.example\r\n{headers}\r\n")
    }
}

/// A client that polls in one of the ways. Dropping it closes its connection.
pub struct Poller {
    way: Way,
    client: Client,
}

impl Poller {
    /// Sends a poll and does not wait for its answer.
    pub async fn ask(&mut self, target: &str) {
        self.ask_with("GET", target, &[]).await;
    }

    /// As [`Poller::ask`], with a method and further headers.
    pub async fn ask_with(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) {
        let headers = [self.way.headers(), headers].concat();
        self.client.send(method, target, &headers, b"").await;
    }

    /// Reads the next answer.
    pub async fn answer(&mut self) -> Response {
        self.client.read_response().await
    }

    /// Polls and reads the answer.
    pub async fn poll(&mut self, target: &str) -> Response {
        self.ask(target).await;
        self.answer().await
    }

    /// As [`Poller::poll`], with a method and further headers.
    pub async fn poll_with(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Response {
        self.ask_with(method, target, headers).await;
        self.client.read_response_to(method).await
    }

    /// Whether nothing has come and the connection is still open.
    pub async fn is_quiet(&mut self) -> bool {
        self.client.is_quiet().await
    }

    /// Takes its poll back: closes the connection.
    pub fn close(self) {}

    /// The HTTP/1.1 connection itself.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }
}
