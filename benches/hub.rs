//! The channel table alone: what a publish costs with waiters and without, and what a poll costs
//! that finds news at once.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use pollgate::hub::channel::{ChannelName, Cursor, Payload, Take, Time};
use pollgate::hub::{Hub, PollOutcome, Settings, Subscription, Waiter};
use std::hint::black_box;

const NOW: Time = Time(1_700_000_000_000_000);

/// A table with one channel, on which a message was published.
struct Desk {
    hub: Hub,
    name: ChannelName,
}

impl Desk {
    fn new() -> Self {
        let name: ChannelName = ChannelName::new("news").expect("a valid name");
        let desk = Self { hub: Hub::new(Settings::default(), 1), name };
        desk.publish();
        desk
    }

    /// Publishes and wakes all waiters; returns their number.
    fn publish(&self) -> usize {
        let post = (self.name.clone(), Payload::text(&[b'x'; 200][..]));
        let published = self.hub.publish(&[post], NOW).expect("room for one channel");
        let mut released = 0;
        for mut published in published {
            released += published.wake.claim();
            while published.wake.notify(256) {}
        }
        released
    }

    fn poll(&self, cursor: Cursor) -> PollOutcome {
        let subscription = Subscription { channel: self.name.clone(), cursor };
        self.hub.poll(&[subscription], Take::All, true, NOW).expect("room for one channel")
    }

    fn wait(&self) -> Waiter {
        match self.poll(Cursor::Now) {
            PollOutcome::Waiting(waiter) => waiter,
            PollOutcome::Answer(_) => unreachable!("nothing comes after now"),
        }
    }
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    for waiters in [0, 1, 10_000] {
        let desk = Desk::new();
        group.throughput(Throughput::Elements(waiters.max(1)));
        group.bench_function(BenchmarkId::new("waiters", waiters), |bencher| {
            bencher.iter_batched(
                || (0..waiters).map(|_| desk.wait()).collect::<Vec<_>>(),
                |held| {
                    assert_eq!(desk.publish() as u64, waiters);
                    // Returned, so that ending the waiters is not measured.
                    held
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn poll(criterion: &mut Criterion) {
    let desk = Desk::new();
    let mut group = criterion.benchmark_group("poll");
    group.bench_function("hit", |bencher| bencher.iter(|| black_box(desk.poll(Cursor::Oldest))));
    group.bench_function("held and dropped", |bencher| bencher.iter(|| black_box(desk.wait())));
    group.bench_function("woken, looks", |bencher| {
        bencher.iter_batched(
            || {
                let waiter = desk.wait();
                desk.publish();
                waiter
            },
            |mut waiter| black_box(waiter.look(NOW)).map(|_| waiter),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    publish(&mut criterion);
    poll(&mut criterion);
    criterion.final_summary();
}
