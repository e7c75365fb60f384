#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use crate::hub::channel::{Cursor, Lookup, Payload, Take, Tick};
use proptest::prelude::*;
use std::collections::BTreeMap;

const NOW: Time = Time(1_700_000_000_000_000);

/// A simulated sequencer: one channel with a bounded history, and a subscription to it.
#[derive(Default)]
struct SequencerModel {
    lives: u64,
    /// The current life, if there is one, and its newest number.
    place: Option<(Epoch, u64)>,
    kept: Vec<u64>,
    floor: u64,
    /// All messages ever published: text by stamp; stamps grow.
    published: Vec<(u64, String)>,
    on_its_way: VecDeque<Message>,
    server: u32,
    time: u64,
}

impl SequencerModel {
    const TTL: usize = 4;

    fn message(&self, seq: u64) -> Message {
        let epoch = self.place.unwrap().0;
        let text = format!("{epoch}-{seq}");
        let stamp = self.published.iter().find(|(_, known)| *known == text).unwrap().0;
        let position = Position { epoch, seq };
        Message {
            position,
            stamp: Stamp(stamp),
            tag: 0,
            published: NOW,
            payload: Payload::text(text),
        }
    }

    fn publish(&mut self, subscribed: bool) {
        self.time += 1;
        let (epoch, newest) = self.place.unwrap_or_else(|| {
            self.lives += 1;
            (Epoch::from_random(self.lives), 0)
        });
        self.place = Some((epoch, newest + 1));
        self.published.push((self.time, format!("{epoch}-{}", newest + 1)));
        self.kept.push(newest + 1);
        if self.kept.len() > Self::TTL {
            self.kept.remove(0);
        }
        if subscribed {
            self.on_its_way.push_back(self.message(newest + 1));
        }
    }

    /// Another life begins; its push has the number 0.
    fn forget(&mut self, subscribed: bool) {
        if self.place.is_some() {
            self.lives += 1;
            let epoch = Epoch::from_random(self.lives);
            self.place = Some((epoch, 0));
            (self.floor, self.kept) = (self.time, Vec::new());
            if subscribed {
                let position = Position { epoch, seq: 0 };
                let payload = Payload::empty();
                let stamp = Stamp(self.time);
                self.on_its_way.push_back(Message {
                    position,
                    stamp,
                    tag: 0,
                    published: NOW,
                    payload,
                });
            }
        }
    }

    /// All state is gone, and another server takes over.
    fn fail(&mut self) {
        (self.place, self.kept, self.floor) = (None, Vec::new(), 0);
        self.server += 1;
        self.time += 1;
    }

    fn snapshot(&mut self, after: Position) -> Snapshot {
        self.time += 1;
        let clock = Position { epoch: Epoch::of_clock(self.server), seq: self.time - 1 };
        let place = self.place.map(|(epoch, seq)| Start {
            position: Position { epoch, seq },
            stamp: if seq > 0 && !self.published.is_empty() {
                Stamp(self.published.last().unwrap().0)
            } else {
                Stamp(0)
            },
            floor: Stamp(self.floor),
        });
        let skip = |seq: &&u64| {
            self.place.is_none_or(|(epoch, _)| epoch != after.epoch) || **seq > after.seq
        };
        let messages = self.kept.iter().filter(skip).map(|seq| self.message(*seq)).collect();
        Snapshot { clock, place, messages }
    }
}

/// A gate's view of the sequencer.
struct Gate {
    feed: ReplicaState,
    history: History,
    limits: Limits,
    read: Option<(u64, Snapshot)>,
}

impl Gate {
    fn new() -> Self {
        let history = History::new(Epoch::from_random(777), Stamp(0));
        Self { feed: ReplicaState::default(), history, limits: Limits::default(), read: None }
    }

    fn begin_read(&mut self, sequencer: &mut SequencerModel) {
        if let Some(number) = self.feed.read_begins() {
            self.read = Some((number, sequencer.snapshot(self.history.position())));
        }
    }

    fn end_read(&mut self) {
        if let Some((number, snapshot)) = self.read.take() {
            self.feed.read_ends(number, snapshot, &mut self.history, &self.limits, NOW);
        }
    }

    fn deliver(&mut self, sequencer: &mut SequencerModel) {
        if let Some(message) = sequencer.on_its_way.pop_front() {
            self.feed.pushed(message, &mut self.history, &self.limits, NOW);
        }
    }

    fn look(&self, position: Position) -> Option<Lookup> {
        let cursor = Cursor::At(position);
        let placed = self.feed.is_live() && self.history.can_place(cursor);
        placed.then(|| self.history.since(cursor, Take::All, Tick::Micros, NOW))
    }

    /// Runs until nothing is in transit any more.
    fn settle(&mut self, sequencer: &mut SequencerModel) {
        self.feed.polled(NOW);
        for _ in 0..20 {
            self.feed.confirmed();
            while !sequencer.on_its_way.is_empty() {
                self.deliver(sequencer);
            }
            self.feed.is_unsure();
            self.begin_read(sequencer);
            self.end_read();
        }
    }
}

/// A client that records its messages.
struct Client {
    position: Position,
    got: Vec<String>,
}

impl Client {
    fn take(&mut self, found: &Lookup) -> Result<(), TestCaseError> {
        if found.reset {
            self.got.clear();
        }
        for message in &found.messages {
            let text = String::from_utf8_lossy(&message.payload.body).into_owned();
            prop_assert!(!self.got.contains(&text), "twice: {text}");
            self.got.push(text);
        }
        self.position = found.position;
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_is_lost_on_the_way_a_client_gets_every_message_or_a_reset(
        steps in prop::collection::vec(0u8..12, 1..80),
    ) {
        let mut sequencer = SequencerModel { time: 1_000, ..SequencerModel::default() };
        let mut gate = Gate::new();
        let mut client: Option<Client> = None;
        let mut subscribed = false;
        for step in steps {
            match step {
                0..=2 => sequencer.publish(subscribed),
                3 | 4 => gate.deliver(&mut sequencer),
                5 => {
                    gate.feed.polled(NOW);
                    subscribed = true;
                    gate.feed.confirmed();
                }
                6 => gate.begin_read(&mut sequencer),
                7 => gate.end_read(),
                // A push that is lost unnoticed.
                8 => drop(sequencer.on_its_way.pop_front()),
                9 => {
                    gate.feed.lost();
                    sequencer.on_its_way.clear();
                    subscribed = false;
                }
                10 => sequencer.forget(subscribed),
                _ => {
                    gate.feed.lost();
                    sequencer.on_its_way.clear();
                    subscribed = false;
                    sequencer.fail();
                }
            }
            if let Some(client) = &mut client {
                if let Some(found) = gate.look(client.position) {
                    client.take(&found)?;
                }
            } else if gate.feed.is_live() {
                client = Some(Client { position: gate.history.position(), got: Vec::new() });
            }
        }
        subscribed = true;
        gate.settle(&mut sequencer);
        prop_assert!(subscribed && gate.feed.is_live());
        let Some(mut client) = client else { return Ok(()) };
        let found = gate.history.since(
            Cursor::At(client.position), Take::All, Tick::Micros, NOW,
        );
        client.take(&found)?;
        // Its messages are the end of all that was published, without a hole.
        let all: BTreeMap<u64, String> = sequencer.published.iter().cloned().collect();
        let all: Vec<&String> = all.values().collect();
        let of_this_life = all.len() - client.got.len().min(all.len());
        let current = sequencer.place.map(|(epoch, _)| epoch.to_string());
        let expected: Vec<&String> = all[of_this_life..].to_vec();
        let alive = client.got.last().is_some_and(|last| {
            current.as_ref().is_some_and(|epoch| last.starts_with(epoch.as_str()))
        });
        if alive {
            prop_assert_eq!(client.got.iter().collect::<Vec<_>>(), expected);
        }
        // And it has reached the channel's end.
        prop_assert_eq!(client.position, gate.history.position());
    }
}

#[test]
fn a_push_that_is_not_the_next_waits_for_one_read() {
    let mut sequencer = SequencerModel { time: 1_000, ..SequencerModel::default() };
    let mut gate = Gate::new();
    assert_eq!(gate.feed.polled(NOW), Some(SyncRequest::Join));
    assert_eq!(gate.feed.polled(NOW), None);
    assert_eq!(gate.feed.confirmed(), Some(SyncRequest::Read));
    gate.begin_read(&mut sequencer);
    gate.end_read();
    assert!(gate.feed.is_live() && gate.history.is_void());
    for _ in 0..3 {
        sequencer.publish(true);
    }
    sequencer.on_its_way.pop_front();
    gate.deliver(&mut sequencer);
    assert!(!gate.feed.is_live());
    gate.begin_read(&mut sequencer);
    assert!(gate.feed.read_begins().is_none());
    gate.deliver(&mut sequencer);
    gate.end_read();
    assert!(gate.feed.is_live());
    assert_eq!((gate.history.position().seq, gate.history.len()), (3, 3));
}

#[test]
fn a_client_of_a_channel_that_did_not_exist_gets_its_first_message() {
    let mut sequencer = SequencerModel { time: 1_000, ..SequencerModel::default() };
    let mut gate = Gate::new();
    gate.settle(&mut sequencer);
    let position = gate.history.position();
    sequencer.publish(false);
    let mut another = Gate::new();
    another.settle(&mut sequencer);
    let found = another.look(position).unwrap();
    assert!(found.has_update && !found.reset && found.messages.len() == 1);
    sequencer.forget(false);
    sequencer.publish(false);
    let mut third = Gate::new();
    third.settle(&mut sequencer);
    assert!(third.look(position).unwrap().reset);
}

#[test]
fn too_many_pushes_during_a_read_are_read_once_more() {
    let mut sequencer = SequencerModel { time: 1_000, ..SequencerModel::default() };
    let mut gate = Gate::new();
    gate.feed.polled(NOW);
    gate.feed.confirmed();
    gate.begin_read(&mut sequencer);
    for _ in 0..MAX_HELD_BACK + 3 {
        sequencer.publish(true);
        gate.deliver(&mut sequencer);
    }
    gate.end_read();
    assert!(!gate.feed.is_live());
    gate.begin_read(&mut sequencer);
    gate.end_read();
    assert!(gate.feed.is_live());
    assert_eq!(gate.history.position().seq, MAX_HELD_BACK as u64 + 3);
}
