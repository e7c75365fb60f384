//! Clients of the native dialect: they see every position, and their answers report missing
//! messages.

use super::{Answered, CHANNELS, Caller, SharedMetrics, World};
use serde_json::Value;

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
    let (cursor, tally) = ("oldest".into(), SharedMetrics::default());
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

impl Reading {
    fn has_all(&self) -> bool {
        let is_at_end = |ends: &[u64]| {
            self.seen.iter().all(|seen| seen.last.map_or(0, |last| last + 1) == ends[seen.channel])
        };
        self.caller.world.ends_for(is_at_end, || self.story())
    }

    fn story(&self) -> String {
        let Caller { number, way, .. } = &self.caller;
        let (cursor, life) = (&self.cursor, self.cursor_of);
        format!("client {number} ({way:?}) at {cursor:?} of life {life}, {:?}", self.seen)
    }

    fn take(&mut self, answered: &Answered) {
        let answer = &answered.answer;
        assert_eq!(answer.status, 200, "{}: {}", self.story(), answer.text());
        let json = answer.json();
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
            let owed = answered.owed[seen.channel] as u64;
            let has = seen.last.map_or(0, |last| last + 1);
            let taken_away = !answered.is_owed(world, seen.channel);
            assert!(has >= owed || taken_away, "{owed} were confirmed before: {story}");
        }
        assert!(!reset || missing || killed || unborn, "reset without reason: {story}");
        self.tally.answers += 1;
        self.tally.resets += usize::from(reset);
        // A gate that has given its place away gives back the cursor that it was brought.
        let cursor = json["cursor"].as_str().unwrap();
        if self.cursor != cursor {
            (self.cursor, self.cursor_of) = (cursor.to_owned(), answered.life);
        }
    }
}

/// Epoch, position and number of a message.
fn read(world: &World, channel: usize, message: &Value) -> ((String, u64), u64) {
    let number = message["data"].as_str().unwrap().parse().unwrap();
    let id = message["id"].as_str().unwrap();
    (world.ledger.lock().note(channel, id, number), number)
}
