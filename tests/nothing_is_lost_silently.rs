//! Promises 1 and 2: messages arrive in order, none missing, none twice, or the answer has `reset`;
//! a cursor that cannot be placed is answered at once. Shown for random publishes, polls, evictions
//! and clocks that step back, against the plain list of all messages.

#![allow(clippy::unwrap_used, clippy::panic)]

use pollgate::hub::channel::{
    ChannelName, Cursor, Epoch, Limits, Payload, Position, Stamp, Take, Tick, Time,
};
use pollgate::hub::{ChannelUpdate, Hub, PollOutcome, Settings, Subscription, Waiter};
use proptest::prelude::*;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

const CHANNELS: usize = 3;
const CLIENTS: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    Publish {
        channel: usize,
        length: usize,
    },
    /// A native client asks for all channels with its cursor.
    Native {
        client: usize,
        hold: bool,
    },
    /// A timestamp client asks for one channel with its stamp.
    Stamp {
        client: usize,
    },
    /// A NovComet client asks for changes of a channel.
    Changed {
        client: usize,
    },
    Pass {
        micros: u64,
    },
    TurnBack {
        micros: u64,
    },
    Sweep,
    Forget {
        channel: usize,
    },
    /// A client opens an unused channel, so that others may be evicted.
    Crowd {
        other: usize,
    },
    Rubbish {
        channel: usize,
        seq: u64,
        stamp: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let channel = 0..CHANNELS;
    let client = 0..CLIENTS;
    prop_oneof![
        8 => (channel.clone(), 0..60usize).prop_map(|(channel, length)| Step::Publish { channel, length }),
        4 => (client.clone(), any::<bool>()).prop_map(|(client, hold)| Step::Native { client, hold }),
        4 => client.clone().prop_map(|client| Step::Stamp { client }),
        4 => client.prop_map(|client| Step::Changed { client }),
        3 => (0..3_000_000u64).prop_map(|micros| Step::Pass { micros }),
        1 => (0..9_000_000u64).prop_map(|micros| Step::TurnBack { micros }),
        1 => Just(Step::Sweep),
        1 => channel.clone().prop_map(|channel| Step::Forget { channel }),
        1 => (0..8usize).prop_map(|other| Step::Crowd { other }),
        1 => (channel, 0..9u64, any::<u64>())
            .prop_map(|(channel, seq, stamp)| Step::Rubbish { channel, seq, stamp }),
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    let tick = prop_oneof![Just(Tick::Micros), Just(Tick::Millis), Just(Tick::Seconds)];
    (1..6usize, 20..200u64, 0..4u64, any::<bool>(), tick, 4..9usize).prop_map(
        |(messages, bytes, age, keep_newest, tick, channels)| {
            let age = Duration::from_secs(age);
            let limits = Limits { messages, bytes, age, keep_newest: Some(keep_newest), tick };
            Settings { channels, total: 3_000, limits: Arc::new(limits), ..Settings::default() }
        },
    )
}

/// One client's state of one channel.
#[derive(Debug, Clone, Default)]
struct Known {
    position: Option<Position>,
    stamp: Option<Stamp>,
    changed: Option<Stamp>,
    /// Number of the channel's messages that it got, or that an answer reported as possibly missed.
    at: usize,
    stamp_at: usize,
    changed_at: usize,
}

struct World {
    hub: Hub,
    tick: Tick,
    now: Time,
    names: Vec<ChannelName>,
    /// Everything that was ever published, by channel.
    log: Vec<Vec<String>>,
    /// Start of each life of the channel in the log.
    lives: Vec<(usize, Option<Epoch>)>,
    clients: Vec<Vec<Known>>,
}

impl World {
    fn new(settings: Settings) -> Self {
        let tick = settings.limits.tick;
        Self {
            hub: Hub::new(settings, 7),
            tick,
            now: Time(1_700_000_000_000_000),
            names: (0..CHANNELS).map(|n| ChannelName::new(&format!("c{n}")).unwrap()).collect(),
            log: vec![Vec::new(); CHANNELS],
            lives: vec![(0, None); CHANNELS],
            clients: vec![vec![Known::default(); CHANNELS]; CLIENTS],
        }
    }

    fn publish(&mut self, channel: usize, length: usize) {
        let count: usize = self.log.iter().map(Vec::len).sum();
        let text = format!("{count:04}{}", "x".repeat(length));
        let payload = Payload::text(text.clone());
        let published = self.hub.publish(&[(self.names[channel].clone(), payload)], self.now);
        let message = published.unwrap().remove(0).message;
        let (start, epoch) = &mut self.lives[channel];
        if *epoch != Some(message.epoch()) {
            *epoch = Some(message.epoch());
            *start = self.log[channel].len();
        }
        self.log[channel].push(text);
        assert_eq!(message.position.seq as usize, self.log[channel].len() - *start);
    }

    fn poll(&self, subscriptions: &[Subscription], take: Take, hold: bool) -> PollOutcome {
        self.hub.poll(subscriptions, take, hold, self.now).unwrap()
    }

    fn native(&mut self, client: usize, hold: bool) {
        let subscription = |channel: usize| Subscription {
            channel: self.names[channel].clone(),
            cursor: self.clients[client][channel].position.map_or(Cursor::Now, Cursor::At),
        };
        let subscriptions: Vec<_> = (0..CHANNELS).map(subscription).collect();
        let (answer, held) = match self.poll(&subscriptions, Take::All, hold) {
            PollOutcome::Answer(answer) => (answer, false),
            PollOutcome::Waiting(waiter) => (self.release_by_a_publish(waiter), true),
        };
        for (channel, heard) in answer.iter().enumerate() {
            self.check_native(client, channel, heard, held);
        }
    }

    /// A held poll is woken by the very next publish, and finds it.
    fn release_by_a_publish(&mut self, mut waiter: Waiter) -> pollgate::hub::Answer {
        assert!(!is_notified(&waiter), "rung without a publish");
        self.publish(1, 3);
        assert!(is_notified(&waiter), "a publish did not ring");
        let answer = waiter.look(self.now).expect("rung, but nothing found");
        assert!(waiter.look(self.now).is_some(), "a second look finds the same");
        answer
    }

    /// A first poll has nothing to lose, unless the publish that released it made its channel make
    /// room while it was held.
    fn check_native(&mut self, client: usize, channel: usize, heard: &ChannelUpdate, held: bool) {
        let log = &self.log[channel];
        let known = &mut self.clients[client][channel];
        let texts: Vec<String> = texts(heard);
        if known.position.is_none() {
            known.at = log.len() - texts.len();
        }
        if heard.found.reset {
            assert!(known.position.is_some() || held, "a first poll was reset");
            assert!(log.ends_with(&texts), "a reset does not end with the newest");
            known.at = log.len();
        } else {
            assert_eq!(texts, log[known.at..], "missing, doubled or out of order");
            known.at += texts.len();
        }
        known.position = Some(heard.found.position);
    }

    fn stamp(&mut self, client: usize) {
        let channel = client % CHANNELS;
        let known = self.clients[client][channel].clone();
        let cursor = known.stamp.map_or(Cursor::Now, Cursor::After);
        let subscription = Subscription { channel: self.names[channel].clone(), cursor };
        let polled = self.poll(&[subscription], Take::First, false);
        let PollOutcome::Answer(answer) = polled else { panic!("held though it was not to be") };
        let found = &answer[0].found;
        let log = &self.log[channel];
        let known = &mut self.clients[client][channel];
        match texts(&answer[0]).first() {
            None => {
                let info = self.hub.info(&self.names[channel], self.now);
                let kept = info.map_or(0, |info| info.kept);
                let unseen = log.len() - known.stamp_at;
                let first = known.stamp.is_none();
                assert!(first || unseen == 0 || kept == 0, "a kept message was not given");
                known.stamp_at = log.len();
            }
            Some(text) => {
                let at = log.iter().position(|logged| logged == text).unwrap();
                assert!(at >= known.stamp_at, "given twice or out of order");
                assert!(at == known.stamp_at || found.reset, "skipped without telling");
                known.stamp_at = at + 1;
            }
        }
        // As it is shown, so it comes back.
        known.stamp = self.tick.parse(&self.tick.show(found.stamp).to_string());
    }

    fn changed(&mut self, client: usize) {
        let channel = client % CHANNELS;
        let known = self.clients[client][channel].clone();
        let cursor = Cursor::Changed { after: known.changed, slack: Duration::ZERO };
        let subscription = Subscription { channel: self.names[channel].clone(), cursor };
        let polled = self.poll(&[subscription], Take::Newest, false);
        let PollOutcome::Answer(answer) = polled else { panic!("held though it was not to be") };
        let found = &answer[0].found;
        let in_this_life =
            self.log[channel].len() - self.lives[channel].0.min(self.log[channel].len());
        let known = &mut self.clients[client][channel];
        let exists = found.position.seq > 0 && !found.position.epoch.is_clock();
        let changed = found.has_update && exists;
        if known.changed.is_some() && self.lives[channel].1 == Some(found.position.epoch) {
            let unseen = self.log[channel].len() > known.changed_at && in_this_life > 0;
            let unseen =
                unseen && found.position.seq as usize + self.lives[channel].0 > known.changed_at;
            assert_eq!(changed, unseen, "a change was missed or made up");
        }
        if changed {
            known.changed_at = self.log[channel].len();
            known.changed = Some(found.stamp);
        }
    }

    fn rubbish(&mut self, channel: usize, seq: u64, stamp: u64) {
        let name = self.names[channel].clone();
        let newest =
            self.hub.info(&name, self.now).map_or(0, |info| info.newest.map_or(0, |(p, _)| p.seq));
        let foreign = Epoch::from_random(seq + 1_000_000);
        let epoch = self.hub.info(&name, self.now).map_or(foreign, |info| info.epoch);
        for position in
            [Position { epoch: foreign, seq }, Position { epoch, seq: newest + 1 + seq }]
        {
            let cursor = Cursor::At(position);
            let subscription = Subscription { channel: name.clone(), cursor };
            match self.poll(&[subscription], Take::All, true) {
                PollOutcome::Answer(answer) => {
                    assert!(answer[0].found.reset, "placed the unplaceable")
                }
                PollOutcome::Waiting(_) => panic!("held a cursor that cannot be placed"),
            }
        }
        // Any stamp is taken for something, and quiet answers can be placed again.
        let cursor = Cursor::After(Stamp(stamp));
        let subscription = Subscription { channel: name, cursor };
        drop(self.poll(&[subscription], Take::First, true));
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish { channel, length } => self.publish(channel, length),
            Step::Native { client, hold } => self.native(client, hold),
            Step::Stamp { client } => self.stamp(client),
            Step::Changed { client } => self.changed(client),
            Step::Pass { micros } => self.now.0 += micros,
            Step::TurnBack { micros } => self.now.0 -= micros,
            Step::Sweep => self.hub.sweep(self.now),
            Step::Forget { channel } => drop(self.hub.forget(&self.names[channel])),
            Step::Crowd { other } => {
                let channel = ChannelName::new(&format!("other{other}")).unwrap();
                drop(self.hub.publish(&[(channel.clone(), Payload::empty())], self.now).unwrap());
                let subscription = Subscription { channel, cursor: Cursor::Now };
                drop(self.poll(&[subscription], Take::All, false));
            }
            Step::Rubbish { channel, seq, stamp } => self.rubbish(channel, seq, stamp),
        }
        assert_eq!(self.hub.held(), 0, "a hold outlived its waiter");
    }
}

fn is_notified(waiter: &Waiter) -> bool {
    pin!(waiter.notified()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

fn texts(heard: &ChannelUpdate) -> Vec<String> {
    let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
    heard.found.messages.iter().map(|message| text(&message.payload.body)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_client_gets_everything_in_order_or_is_told(
        settings in settings(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let channels = settings.channels;
        let total = settings.total;
        let mut world = World::new(settings);
        for step in &steps {
            world.step(step);
            prop_assert!(world.hub.channels() <= channels);
            prop_assert!(world.hub.cost() <= total);
        }
    }
}

/// Real threads: publishers and pollers at once, every poller gets every message in order.
#[test]
fn no_wake_is_lost_between_threads() {
    const MESSAGES: usize = 3_000;
    let limits = Limits { messages: MESSAGES, bytes: 1 << 30, ..Limits::default() };
    let settings = Settings { limits: Arc::new(limits), ..Settings::default() };
    let hub = Hub::new(settings, 1);
    let name = ChannelName::new("busy").unwrap();
    let other = ChannelName::new("other").unwrap();
    let now = Time(1_000_000);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let pollers: Vec<_> = (0..8)
        .map(|_| {
            let hub = hub.clone();
            let name = name.clone();
            let other = other.clone();
            runtime.spawn(async move {
                let mut cursors = vec![
                    Subscription { channel: name, cursor: Cursor::Oldest },
                    Subscription { channel: other, cursor: Cursor::Oldest },
                ];
                let mut next = 0;
                while next < MESSAGES {
                    let answer = match hub.poll(&cursors, Take::All, true, now).unwrap() {
                        PollOutcome::Answer(answer) => answer,
                        PollOutcome::Waiting(mut waiter) => loop {
                            waiter.notified().await;
                            if let Some(answer) = waiter.look(now) {
                                break answer;
                            }
                        },
                    };
                    for (heard, subscription) in answer.iter().zip(&mut cursors) {
                        assert!(!heard.found.reset);
                        subscription.cursor = Cursor::At(heard.found.position);
                    }
                    for text in texts(&answer[0]) {
                        assert_eq!(text, next.to_string());
                        next += 1;
                    }
                }
            })
        })
        .collect();
    let mut released = 0;
    for number in 0..MESSAGES {
        let posts =
            [(name.clone(), Payload::text(number.to_string())), (other.clone(), Payload::empty())];
        for mut published in hub.publish(&posts, now).unwrap() {
            released += published.wake.claim();
        }
        if number % 64 == 0 {
            std::thread::yield_now();
        }
    }
    runtime.block_on(async {
        for poller in pollers {
            tokio::time::timeout(Duration::from_secs(30), poller)
                .await
                .expect("a wake was lost")
                .unwrap();
        }
    });
    assert!(released > 0, "nobody was ever held");
    assert_eq!(hub.held(), 0);
}
