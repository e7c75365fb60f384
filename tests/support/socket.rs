//! A bare WebSocket client: it sends exactly the frames that a test says.

use super::Gate;
use super::http::{Client, Response};

/// The key of RFC 6455, section 1.3, and the answer to it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// An open WebSocket. Dropping it closes its connection.
pub struct Socket {
    pub head: Response,
    pub client: Client,
}

impl Socket {
    /// Opens a socket; panics if that is refused.
    pub async fn open(gate: &Gate, target: &str, headers: &[(&str, &str)]) -> Socket {
        Socket::over(gate.connect().await, target, headers).await
    }

    /// As [`Socket::open`], over a connection that is there.
    pub async fn over(mut client: Client, target: &str, headers: &[(&str, &str)]) -> Socket {
        Socket::ask(&mut client, target, headers).await;
        let head = client.read_head().await;
        assert_eq!(head.status, 101, "{}", String::from_utf8_lossy(&head.head));
        Socket { head, client }
    }

    /// Sends a handshake.
    pub async fn ask(client: &mut Client, target: &str, headers: &[(&str, &str)]) {
        let own = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", KEY),
        ];
        client.send("GET", target, &[&own, headers].concat(), b"").await;
    }

    /// The answer to a handshake that is refused.
    pub async fn refusal(gate: &Gate, target: &str, headers: &[(&str, &str)]) -> Response {
        let mut client = gate.connect().await;
        Socket::ask(&mut client, target, headers).await;
        client.read_response().await
    }

    /// The next frame: its opcode and its payload.
    pub async fn frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.client.read_exactly(2).await;
        assert_eq!(head[0] & 0xf0, 0x80, "a whole frame without extensions");
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let length = match head[1] {
            126 => {
                u64::from(u16::from_be_bytes(self.client.read_exactly(2).await.try_into().unwrap()))
            }
            127 => u64::from_be_bytes(self.client.read_exactly(8).await.try_into().unwrap()),
            short => u64::from(short),
        };
        (head[0] & 0x0f, self.client.read_exactly(usize::try_from(length).unwrap()).await)
    }

    /// The next frame of text.
    pub async fn text(&mut self) -> String {
        let (opcode, payload) = self.frame().await;
        assert_eq!(opcode, TEXT, "{}", String::from_utf8_lossy(&payload));
        String::from_utf8(payload).unwrap()
    }

    /// The next frame of text as JSON.
    pub async fn json(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// Reads on to the frame that closes: its code and reason; then the connection ends.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            let (opcode, payload) = self.frame().await;
            if opcode == CLOSE {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                self.client.wait_for_close().await;
                return (code, String::from_utf8(payload[2..].to_vec()).unwrap());
            }
        }
    }

    /// Sends a frame whose first byte is `first`, masked.
    pub async fn send(&mut self, first: u8, payload: &[u8]) {
        let mut bytes = vec![first];
        match payload.len() {
            short @ ..126 => bytes.push(0x80 | u8::try_from(short).unwrap()),
            long => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(long).unwrap().to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        bytes.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(b, m)| b ^ m));
        self.client.send_raw(bytes).await;
    }
}
