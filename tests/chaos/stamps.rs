//! Clients of the dialects whose cursor is a stamp. Those of `timestamp` read one message after the
//! other, those of `novcomet` learn only that there is one.

use super::{Answered, BRIEF, CHANNELS, Caller, SharedMetrics};
use serde_json::Value;

/// Polls on one channel until it is at its end, a message at a time.
pub(crate) async fn read_on(mut caller: Caller) -> SharedMetrics {
    let channel = caller.rng.usize(..BRIEF);
    let mut reading = Reading { caller, channel, cursor: "0".into(), last: None };
    let mut tally = SharedMetrics::default();
    loop {
        let at_end = |ends: &[u64]| reading.has() == ends[channel];
        if reading.caller.world.ends_for(at_end, || reading.story()) {
            return tally;
        }
        let target = format!("/stamp/{}?timestamp={}", CHANNELS[channel], reading.cursor);
        if let Some(answered) = reading.caller.poll(target).await {
            reading.take(&answered);
            tally.answers += 1;
        }
    }
}

/// A client of `timestamp`, and how far it is.
struct Reading {
    caller: Caller,
    channel: usize,
    cursor: String,
    last: Option<u64>,
}

impl Reading {
    fn has(&self) -> u64 {
        self.last.map_or(0, |last| last + 1)
    }

    fn story(&self) -> String {
        let Caller { number, way, .. } = &self.caller;
        let name = CHANNELS[self.channel];
        format!("reader {number} ({way:?}) of {name} at {} after {:?}", self.cursor, self.last)
    }

    fn take(&mut self, answered: &Answered) {
        let text = answered.answer.text();
        let story = format!("{} was answered {text}", self.story());
        assert_eq!(answered.answer.status, 200, "{story}");
        let cursor = stamp_of(&text, "timestamp");
        let message = answered.answer.json()["msg"].as_str().unwrap().to_owned();
        let world = &self.caller.world;
        if message.is_empty() {
            let taken_away = !answered.is_owed(world, self.channel);
            let owed = answered.owed[self.channel] as u64;
            assert!(self.has() >= owed || taken_away, "{owed} were confirmed before: {story}");
            // A first poll has no cursor of its own to get back.
            assert!(micros(&cursor) >= micros(&self.cursor), "sent back: {story}");
        } else {
            let number = message.parse().unwrap();
            assert!(micros(&cursor) > micros(&self.cursor), "no later stamp: {story}");
            // A missing or repeated number has to have a reason.
            world.ledger.lock().stepped(self.channel, self.last, number, &story);
            self.last = Some(number);
        }
        self.cursor = cursor;
    }
}

/// Polls some of the channels until it has the last change of each.
pub(crate) async fn hear_of_all(mut caller: Caller) -> SharedMetrics {
    let channels = caller.choose(BRIEF + 1);
    let changes = channels.into_iter().map(|channel| (channel, "1".to_owned())).collect();
    let mut hearing = Hearing { caller, changes };
    let mut tally = SharedMetrics::default();
    loop {
        let told = |_: &[u64]| hearing.is_told_of_all();
        if hearing.caller.world.ends_for(told, || hearing.story()) {
            return tally;
        }
        let ids = hearing.changes.iter();
        let ids =
            ids.map(|(channel, cursor)| format!("subscribed[{}]={cursor}", CHANNELS[*channel]));
        let target = format!("/changes?{}", ids.collect::<Vec<_>>().join("&"));
        if let Some(answered) = hearing.caller.poll(target).await {
            hearing.take(&answered);
            tally.answers += 1;
        }
    }
}

/// A client of `novcomet`, and the last changes it got.
struct Hearing {
    caller: Caller,
    changes: Vec<(usize, String)>,
}

impl Hearing {
    fn is_told_of_all(&self) -> bool {
        let ledger = self.caller.world.ledger.lock();
        self.changes.iter().all(|(channel, cursor)| {
            let newest = ledger.published[*channel].last().map_or(0, |last| last.stamp);
            micros(cursor) >= newest
        })
    }

    fn story(&self) -> String {
        let Caller { number, way, .. } = &self.caller;
        format!("listener {number} ({way:?}) at {:?}", self.changes)
    }

    fn take(&mut self, answered: &Answered) {
        let text = answered.answer.text();
        let story = format!("{} was answered {text}", self.story());
        assert_eq!(answered.answer.status, 200, "{story}");
        let json = answered.answer.json();
        assert!(
            json["s"] == 0 || json["k"].as_object().is_some_and(|all| !all.is_empty()),
            "{story}"
        );
        let world = self.caller.world.clone();
        for (channel, cursor) in &mut self.changes {
            if json["k"][CHANNELS[*channel]] != Value::Null {
                let told = stamp_of(&text, CHANNELS[*channel]);
                assert!(micros(&told) > micros(cursor), "told of no change: {story}");
                *cursor = told;
            }
            let published = |last: usize| world.ledger.lock().published[*channel][last].stamp;
            let owed = answered.owed[*channel].checked_sub(1).map_or(0, published);
            let taken_away = !answered.is_owed(&world, *channel);
            assert!(micros(cursor) >= owed || taken_away, "{owed} was confirmed before: {story}");
        }
    }
}

/// A stamp as it stands in an answer, all digits of it.
pub(crate) fn stamp_of(text: &str, field: &str) -> String {
    let field = format!("\"{field}\":");
    let (_, rest) = text.split_once(&field).unwrap_or_else(|| panic!("no {field} in {text}"));
    rest.chars().take_while(|char| char.is_ascii_digit() || *char == '.').collect()
}

/// Fractional seconds in microseconds.
pub(crate) fn micros(stamp: &str) -> u64 {
    let (seconds, fraction) = stamp.split_once('.').unwrap_or((stamp, ""));
    let fraction: u64 = format!("{fraction:0<6}").parse().unwrap();
    seconds.parse::<u64>().unwrap() * 1_000_000 + fraction
}
