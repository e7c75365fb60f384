//! The site behind the gate: one page, which runs a test's script, and paths that refuse.

use crate::support::Addr;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The page's own helpers. What it received survives its reload.
const HEAD: &str = "<!doctype html><meta charset=\"utf-8\"><title>page</title>\
    <script src=\"/pollgate.js\"></script><script>\
    const got = JSON.parse(sessionStorage.got || '[]'), metas = [], resets = [], states = [];\
    const keep = (data, meta) => {\
      got.push(data); metas.push(meta); sessionStorage.got = JSON.stringify(got);\
    };\n";

/// A running site. Dropping it closes its address.
pub(crate) struct Pages {
    addr: Addr,
    asked: Arc<Mutex<Vec<(Instant, String)>>>,
    accepting: JoinHandle<()>,
}

impl Pages {
    /// A site whose page runs `script` after the client has been loaded.
    pub(crate) async fn start(script: &str) -> Pages {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = Addr::Tcp(listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<_>>> = Arc::default();
        let page: Arc<str> = format!("{HEAD}{script}</script>").into();
        let accepting = tokio::spawn({
            let asked = asked.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, page.clone(), asked.clone()));
                }
            }
        });
        Pages { addr, asked, accepting }
    }

    pub(crate) fn addr(&self) -> &Addr {
        &self.addr
    }

    /// Times of the requests whose target begins so.
    pub(crate) fn asked(&self, target: &str) -> Vec<Instant> {
        let asked = self.asked.lock();
        let found = asked.iter().filter(|(_, asked)| asked.starts_with(target));
        found.map(|(at, _)| *at).collect()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, page: Arc<str>, asked: Arc<Mutex<Vec<(Instant, String)>>>) {
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(length) => head.extend_from_slice(&piece[..length]),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    // No eval: the client has to do without.
    let policy = "Content-Security-Policy: script-src 'self' 'unsafe-inline'\r\n";
    let (status, headers, body) = match target.as_str() {
        target if target.starts_with("/page") => ("200 OK", policy, &*page),
        target if target.starts_with("/busy") => ("503 Service Unavailable", "", "busy"),
        target if target.starts_with("/later") => {
            ("503 Service Unavailable", "Retry-After: 2\r\n", "busy")
        }
        _ => ("404 Not Found", "", ""),
    };
    asked.lock().push((Instant::now(), target));
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\n\
         {headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(answer.as_bytes()).await;
}
