//! A site whose connections the test speaks on, byte by byte and request after request.

use super::{Addr, BOUND, Client, Gate};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// An answer that keeps the connection.
pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// True if pingora's engine forwards, which reads answers more leniently.
pub fn by_engine() -> bool {
    std::env::var("POLLGATE_TESTS_FORWARD").is_ok_and(|by| by == "engine")
}

/// A client, and the site's end of its first request, which was answered.
pub async fn begun(gate: &Gate, site: &RawSite) -> (Client, RawConnection) {
    let mut client = gate.connect().await;
    client.send_get("/first").await;
    let (mut upstream, _) = site.accept().await;
    upstream.send(OK).await;
    assert_eq!(client.read_response().await.text(), "ok");
    (client, upstream)
}

/// See the [module](self).
#[derive(Debug)]
pub struct RawSite {
    listener: TcpListener,
    pub addr: Addr,
}

impl RawSite {
    pub async fn start() -> RawSite {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = Addr::Tcp(listener.local_addr().unwrap());
        RawSite { listener, addr }
    }

    /// The next connection on which something is said, and the head of its request.
    pub async fn accept(&self) -> (RawConnection, String) {
        self.accept_within(BOUND).await.unwrap_or_else(|| panic!("no request within {BOUND:?}"))
    }

    /// The same; `None` if there is none for that time.
    pub async fn accept_within(&self, bound: Duration) -> Option<(RawConnection, String)> {
        let next = async {
            loop {
                let (stream, _) = self.listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                // Health checks connect and leave without a word.
                let mut connection = RawConnection { stream };
                if let Some(head) = connection.next_head().await {
                    return (connection, head);
                }
            }
        };
        timeout(bound, next).await.ok()
    }
}

/// One connection of the gate to the site. Dropping it closes it.
#[derive(Debug)]
pub struct RawConnection {
    stream: TcpStream,
}

impl RawConnection {
    /// Sends exactly these bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends as much of these bytes as the gate takes.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// The head of the next request; panics if there is none.
    pub async fn head(&mut self) -> String {
        self.next_head().await.unwrap_or_else(|| panic!("the gate closed the connection"))
    }

    /// The head of the next request; `None` if the gate closes the connection.
    pub async fn next_head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = timeout(BOUND, self.stream.read_u8()).await;
            match byte.unwrap_or_else(|_| panic!("no request within {BOUND:?}")) {
                Ok(byte) => head.push(byte),
                Err(_) => return None,
            }
        }
        Some(String::from_utf8_lossy(&head).into_owned())
    }

    /// Reads so many bytes.
    pub async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let read = timeout(BOUND, self.stream.read_exact(&mut bytes)).await;
        read.unwrap_or_else(|_| panic!("no {length} bytes within {BOUND:?}")).unwrap();
        bytes
    }

    /// Reads until `mark` has come, and returns all that came with it.
    pub async fn read_until(&mut self, mark: &str) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(mark.as_bytes()) {
            seen.extend(self.read(1).await);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Waits until the gate closes the connection; returns what it sent before.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let read = timeout(BOUND, self.stream.read_to_end(&mut rest)).await;
        let _ = read.unwrap_or_else(|_| panic!("the gate did not close within {BOUND:?}"));
        rest
    }
}
