//! A site that speaks GRIP, and the publishing to its clients.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::site::Recorded;
use super::{Addr, Client, Gate, PlainSite, Response};

/// A site whose responses a function makes of its requests.
pub struct GripSite {
    addr: Addr,
    requests: Arc<Mutex<Vec<Recorded>>>,
    task: tokio::task::JoinHandle<()>,
}

impl GripSite {
    /// A site that answers each request with the bytes that `answer` makes of it.
    pub async fn start(answer: impl Fn(&Recorded) -> Vec<u8> + Send + 'static) -> GripSite {
        let mut site = PlainSite::start_by_hand().await;
        let addr = site.addr().clone();
        let requests = Arc::<Mutex<Vec<Recorded>>>::default();
        let seen = requests.clone();
        let task = tokio::spawn(async move {
            loop {
                let mut visit = site.visit_or_wait().await;
                visit.read_body().await;
                if visit.request.line() == "GET /warm" {
                    let warm = json!({ "response": { "body": "warm" } });
                    visit.try_send(instruct(&warm)).await;
                    continue;
                }
                seen.lock().unwrap().push(visit.request.clone());
                let answer = answer(&visit.request);
                visit.try_send(answer).await;
            }
        });
        GripSite { addr, requests, task }
    }

    /// A site with one response to everything.
    pub async fn saying(answer: impl Into<Vec<u8>>) -> GripSite {
        let answer = answer.into();
        GripSite::start(move |_| answer.clone()).await
    }

    pub fn addr(&self) -> &Addr {
        &self.addr
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for GripSite {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A response with these headers, in lines, and this body.
pub fn response(headers: &str, body: &str) -> Vec<u8> {
    let lines: String = headers.lines().map(|line| format!("{}\r\n", line.trim())).collect();
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{lines}Content-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A response whose body is the instruction.
pub fn instruct(json: &Value) -> Vec<u8> {
    let body = json.to_string();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/grip-instruct\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A gate with GRIP before the site.
pub async fn grip_gate(site: &GripSite, more: &str) -> Gate {
    Gate::start_before(site.addr(), &format!("[grip]\nenabled = true\n{more}")).await
}

/// Publishes items as the programs of GRIP do.
pub async fn publish_items(gate: &Gate, items: Value) -> Response {
    let mut client = Client::connect(gate.internal()).await;
    let body = json!({ "items": items }).to_string();
    client.post("/grip/publish/", "application/json", body).await
}

/// Publishes one item and sees that it was taken.
pub async fn publish_item(gate: &Gate, item: Value) {
    let answer = publish_items(gate, json!([item])).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "Published\n"));
}
