//! Everything goes wrong at once, at random, and the clients count their messages: nothing is lost
//! silently, nothing comes twice, the order is kept.
//!
//! Clients poll and read event streams over all ways in, over TLS in every other round, and leave, dawdle and come back
//! with their cursor. Numbered messages are published one after another to each channel: through
//! the hook, again under the same `Idempotency-Key` until an answer comes; with requests that the
//! site handles; with a file. Meanwhile the site dies, freezes and comes back, the gate is
//! reloaded, upgraded, stopped for a while, drained and started again, and killed in the middle
//! of anything.
//!
//! Promises to the clients:
//!
//! - A message confirmed before a poll was sent is in its answer. Only a kill can take that away.
//! - Without `reset`, the positions of a channel follow each other without a gap in one epoch.
//! - `reset` comes only where something is missing: the history did not reach back to the cursor,
//!   or a killed gate has begun a new epoch.
//! - In an epoch the numbers follow each other too. A number is left out only if it was confirmed
//!   before a kill and the snapshot did not have it yet. It comes again only if a kill took away
//!   the stored reply of its key: a drain and an upgrade pass it on, and a publish that a drain
//!   cuts off was not done. Captured messages have no key, so there each attempt without an answer
//!   counts.
//! - A file's channel has its last states: fewer numbers, never an older one.
//! - The same is true for timestamp clients, as far as their dialect can express it; novcomet
//!   clients get each change.
//! - At the end every client has the last number of each of its channels.
//!
//! `POLLGATE_CHAOS_SEED` repeats a round's choices, though not the timing of the machine.
//! `POLLGATE_CHAOS_SECONDS` sets the duration, in rounds of at most [`ROUND`]; each begins with an
//! empty history and a seed of its own. Unlike other tests this one pauses at random.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "chaos/ledger.rs"]
mod ledger;
#[path = "chaos/native.rs"]
mod native;
#[path = "chaos/publishing.rs"]
mod publishing;
#[path = "chaos/stamps.rs"]
mod stamps;
mod support;
#[path = "chaos/trouble.rs"]
mod trouble;

use fastrand::Rng;
use ledger::Ledger;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use support::{Addr, BOUND, Client, Poller, Response, Way};
use tokio::time::sleep;
use trouble::Trouble;

/// Duration of a round: a client that is reset gets the whole history, so it should not grow for
/// ever.
const ROUND: Duration = Duration::from_secs(20);
/// The first come through the hook. The last of these keeps few messages, the others all.
const CHANNELS: [&str; 6] = ["a", "b", "c", "brief", "captured", "file"];
const BRIEF: usize = 3;
const CAPTURED: usize = 4;
const FILE: usize = 5;
/// So many clients of the native dialect, and of each of the other two and of its event streams.
const CLIENTS: (usize, usize) = (24, 6);

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
    let mut trouble = Trouble::begin(rng.fork(), seed % 2 == 1).await;
    let world = trouble.world.clone();
    let publishers: Vec<_> = (0..CHANNELS.len())
        .map(|channel| tokio::spawn(publishing::publish(world.clone(), channel, rng.fork())))
        .collect();
    let visitor = tokio::spawn(visit(world.clone(), rng.fork()));
    let mut pollers = Vec::new();
    for number in 0..CLIENTS.0 {
        pollers.push(tokio::spawn(native::poll_for_all(Caller::new(&world, number, &mut rng))));
    }
    for number in 0..CLIENTS.1 {
        pollers.push(tokio::spawn(native::stream_all(Caller::new(&world, number, &mut rng))));
        pollers.push(tokio::spawn(stamps::read_on(Caller::new(&world, number, &mut rng))));
        pollers.push(tokio::spawn(stamps::hear_of_all(Caller::new(&world, number, &mut rng))));
    }

    let end = Instant::now() + length;
    while Instant::now() < end {
        trouble.make().await;
        assert!(!pollers.iter().any(|poller| poller.is_finished()), "a client ended early");
        assert!(!publishers.iter().any(|publisher| publisher.is_finished()), "so did a publisher");
    }
    trouble.site_is_back().await;
    world.over.store(true, Ordering::SeqCst);
    let mut ends = Vec::new();
    for publisher in publishers {
        ends.push(publisher.await.unwrap());
    }
    world.ends.set((Instant::now(), ends.clone())).unwrap();
    let mut sum = SharedMetrics::default();
    for poller in pollers {
        let tally = poller.await.unwrap();
        sum = SharedMetrics {
            answers: sum.answers + tally.answers,
            resets: sum.resets + tally.resets,
        };
    }
    visitor.await.unwrap();

    let ledger = world.ledger.lock();
    let doubled = ledger.check();
    println!(
        "published {ends:?}, {doubled} doubled; {} answers, {} resets; {}",
        sum.answers,
        sum.resets,
        trouble.story(),
    );
}

/// Results of a client.
#[derive(Default)]
struct SharedMetrics {
    answers: usize,
    resets: usize,
}

/// State shared by all tasks.
struct World {
    listen: Addr,
    internal: Addr,
    /// Written anew for each message.
    file: std::path::PathBuf,
    /// Which process the gate is, from 0: counted up after the end of one and before the start
    /// of the next. While one takes over from the other, there is a life that both have.
    life: AtomicU64,
    /// Nothing more will be published.
    over: AtomicBool,
    /// Since when nothing is published any more, and how many messages there were by channel.
    ends: OnceLock<(Instant, Vec<u64>)>,
    ledger: Mutex<Ledger>,
}

impl World {
    fn life(&self) -> u64 {
        self.life.load(Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// True if one of these lives was ended by a kill.
    fn killed(&self, lives: Range<u64>) -> bool {
        self.ledger.lock().killed.range(lives).next().is_some()
    }

    /// True if `is_at_end` is, for the number of messages of each channel. Bounded, so that it
    /// cannot take for ever.
    fn ends_for(&self, is_at_end: impl Fn(&[u64]) -> bool, story: impl Fn() -> String) -> bool {
        let Some((since, ends)) = self.ends.get() else { return false };
        let all = is_at_end(ends);
        assert!(all || since.elapsed() < 3 * BOUND, "{} waits in vain for {ends:?}", story());
        all
    }
}

/// A client that polls in one of the ways, and the moods it is in.
struct Caller {
    world: Arc<World>,
    number: usize,
    way: Way,
    rng: Rng,
    poller: Option<Poller>,
}

/// A client's behaviour after sending a poll.
enum Whim {
    Wait,
    Dawdle(Duration),
    Leave(Duration),
}

/// An answer, and what was true when its poll was sent.
struct Answered {
    answer: Response,
    life: u64,
    /// The lives of the gate that may have answered; `None` if there is no telling, as one was
    /// taking over from another.
    sure: Option<Range<u64>>,
    /// Number of confirmed messages by channel.
    owed: Vec<usize>,
}

impl Caller {
    fn new(world: &Arc<World>, number: usize, rng: &mut Rng) -> Caller {
        let way = Way::ALL[number % Way::ALL.len()];
        Caller { world: world.clone(), number, way, rng: rng.fork(), poller: None }
    }

    /// Up to three of the channels.
    fn choose(&mut self, among: usize) -> Vec<usize> {
        let mut channels: Vec<usize> = (0..among).collect();
        self.rng.shuffle(&mut channels);
        channels.truncate(self.rng.usize(1..=3));
        channels
    }

    /// The answer to a poll, if there is one.
    async fn poll(&mut self, target: String) -> Option<Answered> {
        if self.rng.u8(..100) < 6 {
            pause(&mut self.rng, 100..2000).await;
        }
        let life = self.world.life();
        let owed = self.world.ledger.lock().published.iter().map(Vec::len).collect();
        let answer = self.ask(target).await;
        let Some(answer) = answer else {
            pause(&mut self.rng, 10..200).await;
            return None;
        };
        let lives = life..self.world.life() + 1;
        let shared = self.world.ledger.lock().shared.range(lives.clone()).next().is_some();
        Some(Answered { answer, life, sure: (!shared).then_some(lives), owed })
    }

    async fn ask(&mut self, target: String) -> Option<Response> {
        let a_while = Duration::from_millis(self.rng.u64(..1000));
        let whim = match self.rng.u8(..100) {
            0..8 => Whim::Leave(a_while),
            8..16 => Whim::Dawdle(a_while),
            _ => Whim::Wait,
        };
        let way = self.way;
        let listen = self.world.listen.clone();
        let poller = self.poller.take();
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
}

impl Answered {
    /// True if no kill can have taken away the first `owed` messages of a channel.
    fn is_owed(&self, world: &World, channel: usize) -> bool {
        let Some(lives) = &self.sure else { return false };
        let ledger = world.ledger.lock();
        let confirmed = |number: usize| ledger.published[channel][number].confirmed.0;
        let since = self.owed[channel].checked_sub(1).map_or(lives.start, confirmed);
        ledger.killed.range(since..lives.end).next().is_none()
    }
}

/// Requests a page of the site again and again: it comes, or an error reports that the site is
/// down.
async fn visit(world: Arc<World>, mut rng: Rng) {
    while !world.is_over() {
        let listen = world.listen.clone();
        let asked = async move { Client::connect(&listen).await.get("/page").await };
        if let Some(answer) = unless_broken(asked).await {
            let status = answer.status;
            let text = answer.text();
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

/// The result of `work`, or `None` if its connection breaks: the clients of the harness panic then.
async fn unless_broken<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let panic = match tokio::spawn(MAY_BREAK.scope((), work)).await {
        Ok(done) => return Some(done),
        Err(ended) => ended.into_panic(),
    };
    let why = panic.downcast::<String>().map_or_else(|_| "a panic".to_owned(), |why| *why);
    let breaks =
        ["refused", "reset", "roken", "ended", "closed", "No such file", "connection", "eof"];
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
