//! The network between a browser and the gate: it can be cut, and it can fall silent.

use crate::support::{Addr, Gate};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// An address that passes everything on to a gate. Dropping it cuts it.
pub(crate) struct Relay {
    addr: Addr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    port: AtomicU16,
    down: AtomicBool,
    wires: Mutex<Vec<Wire>>,
}

struct Wire {
    task: JoinHandle<()>,
    silent: Arc<AtomicBool>,
}

impl Relay {
    pub(crate) async fn before(gate: &Gate) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = Addr::Tcp(listener.local_addr().unwrap());
        let port = port(gate).into();
        let down = AtomicBool::default();
        let shared = Arc::new(Shared { port, down, wires: Mutex::default() });
        let accepting = tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    if !shared.down.load(Ordering::Relaxed) {
                        let silent = Arc::new(AtomicBool::default());
                        let port = shared.port.load(Ordering::Relaxed);
                        let task = tokio::spawn(pass_on(stream, port, silent.clone()));
                        shared.wires.lock().push(Wire { task, silent });
                    }
                }
            }
        });
        Relay { addr, shared, accepting }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        self.addr.url(path)
    }

    /// Ends all connections and lets none in.
    pub(crate) fn cut(&self) {
        self.shared.down.store(true, Ordering::Relaxed);
        self.shared.wires.lock().drain(..).for_each(|wire| wire.task.abort());
    }

    /// Lets connections in again, to `gate`.
    pub(crate) fn restore(&self, gate: &Gate) {
        self.shared.port.store(port(gate), Ordering::Relaxed);
        self.shared.down.store(false, Ordering::Relaxed);
    }

    /// Keeps the connections of this moment open and passes nothing on to the browser any more.
    pub(crate) fn silence(&self) {
        for wire in &*self.shared.wires.lock() {
            wire.silent.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

fn port(gate: &Gate) -> u16 {
    gate.addr().port()
}

async fn pass_on(browser: TcpStream, port: u16, silent: Arc<AtomicBool>) {
    let Ok(gate) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (mut from_browser, mut to_browser) = browser.into_split();
    let (mut from_gate, mut to_gate) = gate.into_split();
    let up = async {
        let mut piece = [0; 16384];
        loop {
            match from_browser.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                // An idle connection would be used for the next request.
                Ok(_) if silent.load(Ordering::Relaxed) => return,
                Ok(length) if to_gate.write_all(&piece[..length]).await.is_err() => return,
                Ok(_) => {}
            }
        }
    };
    let down = async {
        let mut piece = [0; 16384];
        loop {
            match from_gate.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(_) if silent.load(Ordering::Relaxed) => std::future::pending().await,
                Ok(length) if to_browser.write_all(&piece[..length]).await.is_err() => return,
                Ok(_) => {}
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
