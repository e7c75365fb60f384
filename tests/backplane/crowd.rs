//! Clients that come back to a random gate with each poll, and a publisher that numbers its
//! messages and goes through random gates. Each client checks what it gets.

use crate::support::{Addr, Gate, eventually_some};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The results of the clients.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Answers marked as `reset`.
    pub(crate) resets: u64,
    /// Polls that were answered.
    pub(crate) answers: u64,
    /// Messages in them.
    pub(crate) messages: u64,
}

#[derive(Default)]
struct Counts {
    resets: AtomicU64,
    answers: AtomicU64,
    messages: AtomicU64,
    /// Clients that have got the last message of their channel.
    done: AtomicU64,
    /// The number of the last message; 0 = not known yet.
    last: AtomicU64,
}

/// See the [module](self).
pub(crate) struct Crowd {
    gates: Vec<(Addr, Addr)>,
    channels: usize,
    clients: JoinSet<()>,
    count: u64,
    counts: Arc<Counts>,
    published: u64,
}

impl Crowd {
    /// `clients` that spread over `channels`. They begin before the first message.
    pub(crate) fn new(gates: &[Gate], clients: usize, channels: usize) -> Crowd {
        let gates: Vec<_> =
            gates.iter().map(|gate| (gate.addr().clone(), gate.internal().clone())).collect();
        let counts = Arc::<Counts>::default();
        let mut tasks = JoinSet::new();
        for client in 0..clients {
            let listen = gates.iter().map(|(listen, _)| listen.clone()).collect();
            tasks.spawn(poll_on(listen, client % channels, counts.clone()));
        }
        let count = clients as u64;
        Crowd { gates, channels, clients: tasks, count, counts, published: 0 }
    }

    /// Publishes so many messages on each channel.
    pub(crate) async fn publish(&mut self, messages: usize) {
        self.publish_during(messages, async || {}).await;
    }

    /// Publishes while `fault` happens.
    pub(crate) async fn publish_during(&mut self, messages: usize, fault: impl AsyncFnOnce()) {
        let publishing = async {
            for _ in 0..messages {
                self.published += 1;
                for channel in 0..self.channels {
                    self.publish_one(channel, self.published).await;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::join!(publishing, fault());
    }

    /// Publishes until a gate confirms it. The key makes it happen once, even if an answer got
    /// lost.
    async fn publish_one(&self, channel: usize, number: u64) {
        let key = format!("{channel}-{number}-{}", fastrand::u64(..));
        let what = format!("message {number} on channel {channel} to be taken");
        eventually_some(&what, Duration::from_secs(40), async || {
            let (_, hook) = &self.gates[fastrand::usize(..self.gates.len())];
            let body = number.to_string();
            let request = format!(
                "POST /channels/c{channel} HTTP/1.1\r\nHost: {}\r\nIdempotency-Key: {key}\r\n\
                 Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
                hook.host(),
                body.len()
            );
            ask(hook, &request).await.filter(|answer| answer["id"].is_string()).map(drop)
        })
        .await;
    }

    /// Waits until every client has got the last message, and returns their results.
    pub(crate) async fn finish(mut self) -> Told {
        self.counts.last.store(self.published, Ordering::Release);
        let done = async || {
            // A client that found something wrong has panicked.
            while let Some(ended) = self.clients.try_join_next() {
                ended.unwrap();
            }
            (self.counts.done.load(Ordering::Acquire) == self.count).then_some(())
        };
        eventually_some("every client to get everything", Duration::from_secs(60), done).await;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { resets, answers, messages, .. } = &*self.counts;
        Told { resets: count(resets), answers: count(answers), messages: count(messages) }
    }
}

/// A poll at a random gate, and at another one as long as none answers.
async fn ask_any(gates: &[Addr], channel: usize, cursor: &str) -> Value {
    loop {
        let gate = &gates[fastrand::usize(..gates.len())];
        let request = format!(
            "GET /comet/c{channel}?timeout=2&cursor={cursor} HTTP/1.1\r\nHost: {}\r\n\
             Connection: close\r\n\r\n",
            gate.host()
        );
        if let Some(answer) = ask(gate, &request).await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One client, until it has got the last message.
async fn poll_on(gates: Vec<Addr>, channel: usize, counts: Arc<Counts>) {
    let mut cursor = "oldest".to_owned();
    let mut newest = 0;
    while counts.last.load(Ordering::Acquire) == 0 || newest < counts.last.load(Ordering::Acquire) {
        let answer = ask_any(&gates, channel, &cursor).await;
        let Some(next) = answer["cursor"].as_str() else { panic!("{answer}") };
        counts.answers.fetch_add(1, Ordering::Relaxed);
        let is_reset = answer["reset"] == true;
        counts.resets.fetch_add(u64::from(is_reset), Ordering::Relaxed);
        let messages = answer["messages"].as_array().unwrap();
        counts.messages.fetch_add(messages.len() as u64, Ordering::Relaxed);
        let mut may_jump = is_reset;
        for message in messages {
            let number: u64 = message["data"].as_str().unwrap().parse().unwrap();
            let follows = number == newest + 1;
            assert!(follows || may_jump, "{number} after {newest} with {cursor}: {answer}");
            (newest, may_jump) = (number, false);
        }
        if is_reset && messages.is_empty() {
            // Any number may follow: the client knows that messages may be missing.
            newest = u64::MAX;
        }
        if newest == u64::MAX {
            newest = after_reset(&gates, channel, next, &mut cursor, &counts).await;
            continue;
        }
        next.clone_into(&mut cursor);
    }
    counts.done.fetch_add(1, Ordering::Release);
}

/// After a reset with nothing in it: the first message that comes.
async fn after_reset(
    gates: &[Addr],
    channel: usize,
    from: &str,
    cursor: &mut String,
    counts: &Counts,
) -> u64 {
    from.clone_into(cursor);
    loop {
        let answer = ask_any(gates, channel, cursor).await;
        counts.answers.fetch_add(1, Ordering::Relaxed);
        counts.resets.fetch_add(u64::from(answer["reset"] == true), Ordering::Relaxed);
        answer["cursor"].as_str().unwrap().clone_into(cursor);
        let messages = answer["messages"].as_array().unwrap();
        let numbers: Vec<u64> =
            messages.iter().map(|m| m["data"].as_str().unwrap().parse().unwrap()).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{answer}");
        if let Some(newest) = numbers.last() {
            return *newest;
        }
    }
}

/// Sends a request on a connection of its own; the answer's JSON, if one came and was a 200.
async fn ask(addr: &Addr, request: &str) -> Option<Value> {
    let Addr::Tcp(addr) = addr else { return None };
    let asked = async {
        let mut wire = TcpStream::connect(addr).await.ok()?;
        wire.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        wire.read_to_end(&mut answer).await.ok()?;
        let text = String::from_utf8(answer).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).ok())?
    };
    tokio::time::timeout(Duration::from_secs(20), asked).await.ok()?
}
