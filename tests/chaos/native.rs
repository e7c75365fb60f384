//! Clients of the native dialect: they see every position, and their answers report missing
//! messages.

use super::support::{Event, Events};
use super::{Answered, CHANNELS, Caller, SharedMetrics, World, pause, unless_broken};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A client, and how far it is.
struct Reading {
    caller: Caller,
    cursor: String,
    /// The life in which the cursor was given, or one before.
    cursor_of: u64,
    seen: Vec<Seen>,
    tally: SharedMetrics,
}

/// A client's position in a channel.
#[derive(Debug)]
struct Seen {
    channel: usize,
    /// Epoch and position of the last message; `None` if anything may come next.
    at: Option<(String, u64)>,
    last: Option<u64>,
}

/// Polls for some of the channels until all of them are at their end.
pub(crate) async fn poll_for_all(mut caller: Caller) -> SharedMetrics {
    let seen = |channel| Seen { channel, at: None, last: None };
    let seen = caller.choose(CHANNELS.len()).into_iter().map(seen).collect();
    let cursor = "oldest".into();
    let tally = SharedMetrics::default();
    let mut reading = Reading { caller, cursor, cursor_of: 0, seen, tally };
    while !reading.has_all() {
        let names: Vec<&str> = reading.seen.iter().map(|seen| CHANNELS[seen.channel]).collect();
        let target = format!("/comet/{}?cursor={}", names.join(","), reading.cursor);
        if let Some(answered) = reading.caller.poll(target).await {
            reading.take(&answered);
        }
    }
    reading.tally
}

/// Reads event streams of one of the channels until it is at its end. Each stream lasts for a
/// while, and the next goes on where it was.
pub(crate) async fn stream_all(mut caller: Caller) -> SharedMetrics {
    let channel = caller.rng.usize(..CHANNELS.len());
    let seen = vec![Seen { channel, at: None, last: None }];
    let cursor = "oldest".into();
    let tally = SharedMetrics::default();
    let mut reading = Reading { caller, cursor, cursor_of: 0, seen, tally };
    let mut resume = "oldest".to_owned();
    let mut reset = false;
    while !reading.has_all() {
        let life = reading.caller.world.life();
        let mut events = reading.caller.stream(CHANNELS[channel], &resume);
        loop {
            let event = timeout(Duration::from_millis(200), events.recv()).await;
            let Ok(event) = event else {
                if reading.has_all() {
                    break;
                }
                continue;
            };
            let Some(event) = event else { break };
            if let Some(id) = &event.id {
                resume.clone_from(id);
            }
            // A reset belongs to the message that comes next, be it on another stream.
            reset |= event.event == "reset";
            if event.event.is_empty() && !event.data.is_empty() {
                let mut answer = json!({"cursor": resume, "messages": [event.json()]});
                if std::mem::take(&mut reset) {
                    answer["reset"] = true.into();
                }
                reading.take_json(&answer, life, |_, _| false);
            }
        }
        pause(&mut reading.caller.rng, 10..200).await;
    }
    reading.tally
}

impl Caller {
    /// The events of a stream that lasts for a while.
    fn stream(&mut self, channel: &str, cursor: &str) -> mpsc::UnboundedReceiver<Event> {
        let way = self.way;
        let listen = self.world.listen.clone();
        let a_while = Duration::from_millis(self.rng.u64(50..4000));
        let target = format!("/comet/{channel}?cursor=oldest");
        let cursor = cursor.to_owned();
        let (sender, receiver) = mpsc::unbounded_channel();
        let reading = async move {
            let mut headers = vec![("Accept", "text/event-stream")];
            if cursor != "oldest" {
                headers.push(("Last-Event-ID", cursor.as_str()));
            }
            let mut events = Events::open_at(way, &listen, &target, &headers).await;
            assert_eq!(events.head.status, 200);
            while let Some(event) = events.next_or_end().await {
                let _ = sender.send(event);
            }
        };
        tokio::spawn(unless_broken(async move {
            let _ = timeout(a_while, reading).await;
        }));
        receiver
    }
}

impl Reading {
    fn has_all(&self) -> bool {
        let is_at_end = |ends: &[u64]| {
            self.seen.iter().all(|seen| seen.last.map_or(0, |last| last + 1) == ends[seen.channel])
        };
        self.caller.world.ends_for(is_at_end, || self.story())
    }

    fn story(&self) -> String {
        let Caller { number, way, .. } = &self.caller;
        let cursor = &self.cursor;
        let life = self.cursor_of;
        format!("client {number} ({way:?}) at {cursor:?} of life {life}, {:?}", self.seen)
    }

    fn take(&mut self, answered: &Answered) {
        let answer = &answered.answer;
        assert_eq!(answer.status, 200, "{}: {}", self.story(), answer.text());
        let world = self.caller.world.clone();
        self.take_json(&answer.json(), answered.life, |channel, has| {
            let owed = answered.owed[channel] as u64;
            has < owed && answered.is_owed(&world, channel)
        });
    }

    /// Takes an answer of the gate's from `life` on; `is_missing` = a channel should have had more
    /// than so many messages.
    fn take_json(&mut self, json: &Value, life: u64, is_missing: impl Fn(usize, u64) -> bool) {
        let reset = json.get("reset").is_some();
        let story = format!("{} was answered {json}", self.story());
        let world = &self.caller.world;
        let killed = world.killed(self.cursor_of..world.life());
        // A channel that is born in a gate that is just handing over dies with it. It has had no
        // message by then.
        let shared = world.ledger.lock().shared.range(self.cursor_of..=world.life()).count() > 0;
        let unborn = shared && self.seen.iter().any(|seen| seen.last.is_none());
        let mut missing = self.cursor == "oldest";
        for seen in &mut self.seen {
            let messages = json["messages"].as_array().unwrap().iter();
            let of_channel =
                messages.filter(|message| message["channel"] == CHANNELS[seen.channel]);
            let mut is_first = true;
            for message in of_channel {
                let (position, number) = read(world, seen.channel, message);
                if let Some((epoch, seq)) = &seen.at {
                    let follows = *epoch == position.0 && seq + 1 == position.1;
                    assert!(follows || (reset && is_first), "skipped without telling: {story}");
                    missing |= *epoch == position.0 && seq + 1 < position.1;
                    let anew = *epoch != position.0 && killed;
                    assert!(follows || missing || anew, "begun anew without reason: {story}");
                }
                is_first = false;
                (seen.at, seen.last) = (Some(position), Some(number));
            }
            if reset && killed && is_first {
                seen.at = None;
            }
            let has = seen.last.map_or(0, |last| last + 1);
            assert!(!is_missing(seen.channel, has), "more were confirmed before: {story}");
        }
        assert!(!reset || missing || killed || unborn, "reset without reason: {story}");
        self.tally.answers += 1;
        self.tally.resets += usize::from(reset);
        // A gate that has given its place away gives back the cursor that it was brought.
        let cursor = json["cursor"].as_str().unwrap();
        if self.cursor != cursor {
            (self.cursor, self.cursor_of) = (cursor.to_owned(), life);
        }
    }
}

/// Epoch, position and number of a message.
fn read(world: &World, channel: usize, message: &Value) -> ((String, u64), u64) {
    let number = message["data"].as_str().unwrap().parse().unwrap();
    let id = message["id"].as_str().unwrap();
    (world.ledger.lock().note(channel, id, number), number)
}
