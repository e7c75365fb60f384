//! Everything goes wrong at once, at random, and the clients count what they got: nothing is lost
//! silently, nothing comes twice, the order is kept.
//!
//! Clients poll over all ways in, and leave, dawdle and come back with their cursor. Numbered
//! messages are published one after another to each channel, and again under the same
//! `Idempotency-Key` until an answer comes. Meanwhile the site dies, freezes and comes back, the
//! gate is reloaded, drained and started again, and killed in the middle of anything.
//!
//! What the clients are owed:
//!
//! - Without `reset`, the positions of a channel follow each other without a gap in one epoch.
//! - `reset` comes only where something is missing: the history did not reach back to the cursor,
//!   or a killed gate has begun a new epoch.
//! - In an epoch the numbers follow each other too. A number is left out only if it was confirmed
//!   before a kill and the snapshot did not have it yet. It comes again only if it was published
//!   again in another life of the gate, since what a key stands for ends with the process: because
//!   the publisher left before the answer, or because a kill took the answer away. A drain takes
//!   away no answer, so what it cuts off was not published.
//! - At the end every client has the last number of each of its channels.
//!
//! `POLLGATE_CHAOS_SEED` repeats a round's choices, though not the timing of the machine.
//! `POLLGATE_CHAOS_SECONDS` says how long it goes on, in rounds of at most [`ROUND`]; each begins
//! with an empty history and a seed of its own. Unlike other tests this one pauses at random.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "chaos/ledger.rs"]
mod ledger;
mod support;
#[path = "chaos/trouble.rs"]
mod trouble;

use fastrand::Rng;
use ledger::{Ledger, Published};
use parking_lot::Mutex;
use serde_json::Value;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use support::{Addr, BOUND, Client, Poller, Response, Way};
use tokio::time::sleep;
use trouble::Trouble;

/// How long a round lasts: a client that is reset is given the whole history, so it should not
/// grow for ever.
const ROUND: Duration = Duration::from_secs(20);
/// The last one keeps few messages, the others all.
const CHANNELS: [&str; 4] = ["a", "b", "c", "brief"];
const BRIEF: usize = 3;
const CLIENTS: usize = 24;

#[tokio::test]
async fn whatever_goes_wrong_nothing_is_lost_silently() {
    ignore_broken_connections();
    let seed = from_env("POLLGATE_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let seconds = from_env("POLLGATE_CHAOS_SECONDS").unwrap_or(ROUND.as_secs());
    let end = Instant::now() + Duration::from_secs(seconds);
    for seed in seed.. {
        let length = ROUND.min(end.saturating_duration_since(Instant::now()));
        let seconds = length.as_secs_f64().round();
        println!("POLLGATE_CHAOS_SEED={seed} POLLGATE_CHAOS_SECONDS={seconds}");
        round(seed, length).await;
        if Instant::now() >= end {
            return;
        }
    }
}

fn from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

async fn round(seed: u64, length: Duration) {
    let mut rng = Rng::with_seed(seed);
    let mut trouble = Trouble::begin(rng.fork()).await;
    let world = trouble.world.clone();
    let publishers: Vec<_> = (0..CHANNELS.len())
        .map(|channel| tokio::spawn(Publisher::new(&world, channel, rng.fork()).publish()))
        .collect();
    let visitor = tokio::spawn(visit(world.clone(), rng.fork()));
    let pollers: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(Polling::new(&world, number, rng.fork()).poll_for_all()))
        .collect();

    let end = Instant::now() + length;
    while Instant::now() < end {
        trouble.make().await;
        assert!(!pollers.iter().any(|poller| poller.is_finished()), "a client ended early");
        assert!(!publishers.iter().any(|publisher| publisher.is_finished()), "so did a publisher");
    }
    world.over.store(true, Ordering::SeqCst);
    let mut ends = Vec::new();
    for publisher in publishers {
        ends.push(publisher.await.unwrap());
    }
    world.ends.set((Instant::now(), ends.clone())).unwrap();
    let mut resets = 0;
    for poller in pollers {
        resets += poller.await.unwrap();
    }
    visitor.await.unwrap();
    trouble.site_is_back().await;

    let ledger = world.ledger.lock();
    let doubled = ledger.check();
    let (lives, kills) = (world.life() + 1, ledger.killed.len());
    println!(
        "published {ends:?}, {doubled} doubled; {lives} lives, {kills} killed, {resets} resets"
    );
}

/// What all know of each other.
struct World {
    listen: Addr,
    internal: Addr,
    /// Which process the gate is, from 0: counted up after the end of one and before the start
    /// of the next.
    life: AtomicU64,
    /// Nothing more is to be published.
    over: AtomicBool,
    /// Since when nothing is published any more, and how many messages there were by channel.
    ends: OnceLock<(Instant, Vec<u64>)>,
    ledger: Mutex<Ledger>,
}

impl World {
    fn new(listen: Addr, internal: Addr) -> World {
        let (life, over) = (AtomicU64::new(0), AtomicBool::new(false));
        World { listen, internal, life, over, ends: OnceLock::new(), ledger: Mutex::default() }
    }

    fn life(&self) -> u64 {
        self.life.load(Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Whether one of these lives was ended by a kill.
    fn killed(&self, lives: Range<u64>) -> bool {
        self.ledger.lock().killed.range(lives).next().is_some()
    }
}

/// Publishes the numbers of one channel.
struct Publisher {
    world: Arc<World>,
    channel: usize,
    rng: Rng,
    connection: Option<Client>,
}

impl Publisher {
    fn new(world: &Arc<World>, channel: usize, rng: Rng) -> Publisher {
        Publisher { world: world.clone(), channel, rng, connection: None }
    }

    /// How many there were in the end.
    async fn publish(mut self) -> u64 {
        for number in 0.. {
            // The last one comes after the last kill: nothing can take it away.
            let is_last = self.world.is_over();
            self.publish_one(number).await;
            if is_last {
                return number + 1;
            }
            pause(&mut self.rng, 20..200).await;
        }
        unreachable!("numbers do not end")
    }

    async fn publish_one(&mut self, number: u64) {
        let mut published = Published::default();
        let id = loop {
            let first = self.world.life();
            let answer = self.attempt(number).await;
            let lives = (first, self.world.life());
            match answer {
                None => published.cut_off.push(lives),
                Some(None) => published.left.push(lives),
                Some(Some(answer)) if answer.status == 503 => {}
                Some(Some(answer)) => {
                    assert_eq!(answer.status, 200, "publish: {}", answer.text());
                    published.confirmed = lives;
                    break answer.json()["id"].as_str().unwrap().to_owned();
                }
            }
            pause(&mut self.rng, 10..100).await;
        };
        let mut ledger = self.world.ledger.lock();
        ledger.published[self.channel].push(published);
        ledger.note(self.channel, &id, number);
    }

    /// The answer; `Some(None)` if this side did not wait for it, `None` if it did not come.
    async fn attempt(&mut self, number: u64) -> Option<Option<Response>> {
        let (internal, connection) = (self.world.internal.clone(), self.connection.take());
        let name = CHANNELS[self.channel];
        let leaves = self.rng.u8(..100) < 8;
        let (client, answer) = unless_broken(async move {
            let mut client = match connection {
                Some(client) => client,
                None => Client::connect(&internal).await,
            };
            let (path, key) = (format!("/channels/{name}"), format!("{name}-{number}"));
            let headers = [("Content-Type", "text/plain"), ("Idempotency-Key", &key)];
            client.send("POST", &path, &headers, number.to_string().as_bytes()).await;
            let answer = if leaves { None } else { Some(client.read_response().await) };
            (client, answer)
        })
        .await?;
        let stays = |answer: &Response| answer.header("connection") != Some("close");
        if answer.as_ref().is_some_and(stays) && self.rng.bool() {
            self.connection = Some(client);
        }
        Some(answer)
    }
}

/// A client that polls for some of the channels.
struct Polling {
    world: Arc<World>,
    number: usize,
    way: Way,
    rng: Rng,
    poller: Option<Poller>,
    cursor: String,
    /// The life in which the cursor was given, or one before.
    cursor_of: u64,
    seen: Vec<Seen>,
    resets: usize,
}

/// Where a client is in a channel.
#[derive(Debug)]
struct Seen {
    channel: usize,
    /// Epoch and position of the last message; `None` if anything may come next.
    at: Option<(String, u64)>,
    last: Option<u64>,
}

/// What a client does with a poll that it has sent.
enum Whim {
    Wait,
    Dawdle(Duration),
    Leave(Duration),
}

impl Polling {
    fn new(world: &Arc<World>, number: usize, mut rng: Rng) -> Polling {
        let mut channels: Vec<usize> = (0..CHANNELS.len()).collect();
        rng.shuffle(&mut channels);
        channels.truncate(rng.usize(1..=3));
        let seen = |channel| Seen { channel, at: None, last: None };
        Polling {
            world: world.clone(),
            number,
            way: Way::ALL[number % Way::ALL.len()],
            rng,
            poller: None,
            cursor: "oldest".into(),
            cursor_of: 0,
            seen: channels.into_iter().map(seen).collect(),
            resets: 0,
        }
    }

    /// Polls until all channels are at their end; how often it was reset.
    async fn poll_for_all(mut self) -> usize {
        while !self.has_all() {
            if self.rng.u8(..100) < 6 {
                pause(&mut self.rng, 100..2000).await;
            }
            let life = self.world.life();
            match self.poll().await {
                Some(answer) => self.take(&answer, life),
                None => pause(&mut self.rng, 10..200).await,
            }
        }
        self.resets
    }

    fn has_all(&self) -> bool {
        let Some((since, ends)) = self.world.ends.get() else { return false };
        let is_at_end = |seen: &Seen| seen.last.map_or(0, |last| last + 1) == ends[seen.channel];
        let all = self.seen.iter().all(is_at_end);
        assert!(all || since.elapsed() < 2 * BOUND, "{} waits in vain for {ends:?}", self.story());
        all
    }

    fn story(&self) -> String {
        format!("client {} ({:?}) at {:?} {:?}", self.number, self.way, self.cursor, self.seen)
    }

    /// The answer, if there is one.
    async fn poll(&mut self) -> Option<Response> {
        let names: Vec<&str> = self.seen.iter().map(|seen| CHANNELS[seen.channel]).collect();
        let target = format!("/comet/{}?cursor={}", names.join(","), self.cursor);
        let a_while = Duration::from_millis(self.rng.u64(..1000));
        let whim = match self.rng.u8(..100) {
            0..8 => Whim::Leave(a_while),
            8..16 => Whim::Dawdle(a_while),
            _ => Whim::Wait,
        };
        let (way, listen, poller) = (self.way, self.world.listen.clone(), self.poller.take());
        let polled = unless_broken(async move {
            let mut poller = match poller {
                Some(poller) => poller,
                None => way.connect_to(&listen).await,
            };
            poller.ask(&target).await;
            match whim {
                Whim::Wait => {}
                Whim::Dawdle(a_while) => sleep(a_while).await,
                Whim::Leave(a_while) => {
                    sleep(a_while).await;
                    return None;
                }
            }
            let answer = poller.answer().await;
            Some((poller, answer))
        });
        let (poller, answer) = polled.await.flatten()?;
        if answer.header("connection") != Some("close") && self.rng.u8(..100) < 90 {
            self.poller = Some(poller);
        }
        Some(answer)
    }

    /// Takes an answer in that was asked for in this life or the next.
    fn take(&mut self, answer: &Response, life: u64) {
        assert_eq!(answer.status, 200, "{}: {}", self.story(), answer.text());
        let json = answer.json();
        let reset = json.get("reset").is_some();
        let killed = self.world.killed(self.cursor_of..self.world.life());
        let mut missing = self.cursor == "oldest";
        let story = format!("{} was answered {json}", self.story());
        for seen in &mut self.seen {
            let messages = json["messages"].as_array().unwrap().iter();
            let of_channel =
                messages.filter(|message| message["channel"] == CHANNELS[seen.channel]);
            let mut is_first = true;
            for message in of_channel {
                let (position, number) = read(&self.world, seen.channel, message);
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
        }
        assert!(!reset || missing || killed, "reset without reason: {story}");
        self.resets += usize::from(reset);
        self.cursor = json["cursor"].as_str().unwrap().to_owned();
        self.cursor_of = life;
    }
}

/// Epoch, position and number of a message.
fn read(world: &World, channel: usize, message: &Value) -> ((String, u64), u64) {
    let number = message["data"].as_str().unwrap().parse().unwrap();
    let id = message["id"].as_str().unwrap();
    (world.ledger.lock().note(channel, id, number), number)
}

/// Asks for a page of the site again and again: it comes, or an error says that the site is down.
async fn visit(world: Arc<World>, mut rng: Rng) {
    while !world.is_over() {
        let listen = world.listen.clone();
        let asked = async move { Client::connect(&listen).await.get("/page").await };
        if let Some(answer) = unless_broken(asked).await {
            let (status, text) = (answer.status, answer.text());
            let is_page = status == 200 && text == "site: GET /page";
            assert!(is_page || matches!(status, 502..=504), "{status} {text}");
        }
        pause(&mut rng, 50..300).await;
    }
}

async fn pause(rng: &mut Rng, milliseconds: Range<u64>) {
    sleep(Duration::from_millis(rng.u64(milliseconds))).await;
}

tokio::task_local! {
    /// Set where a broken connection is nothing special.
    static MAY_BREAK: ();
}

/// What `work` gives, or `None` if its connection breaks: the clients of the harness panic then.
async fn unless_broken<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let panic = match tokio::spawn(MAY_BREAK.scope((), work)).await {
        Ok(done) => return Some(done),
        Err(ended) => ended.into_panic(),
    };
    let why = panic.downcast::<String>().map_or_else(|_| "a panic".to_owned(), |why| *why);
    let breaks = ["refused", "reset", "roken", "ended", "closed", "No such file", "connection"];
    let is_broken = breaks.iter().any(|word| why.contains(word));
    assert!(is_broken && !why.contains("nothing within"), "instead of breaking: {why}");
    None
}

/// Keeps quiet about the panics that [`unless_broken`] catches.
fn ignore_broken_connections() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if MAY_BREAK.try_with(|()| ()).is_err() {
            tell(panic);
        }
    }));
}
