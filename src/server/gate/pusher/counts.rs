//! How many connections subscribe to a channel, for those who subscribe.
//!
//! A client gets the number with its subscription, and another one at most a second after it has
//! changed; on a channel of more than [`CROWD`] connections every [`CROWD_TICKS`] seconds. So the
//! cost of a crowd that comes and goes is that of one event in that time, whatever it does.

use super::occupancy::Occupancy;
use crate::hub::WakeHandle;
use crate::hub::channel::ChannelName;
use parking_lot::Mutex;
use slab::Slab;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Connections on a channel whose number is not sent every second.
const CROWD: usize = 100;
/// Seconds between two numbers for more.
const CROWD_TICKS: u8 = 5;

/// The channels that are counted.
#[derive(Default)]
pub(super) struct Counts {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    channels: HashMap<ChannelName, Counted>,
    /// Those that clients have come to or left since their last number.
    changed: HashSet<ChannelName>,
}

#[derive(Default)]
struct Counted {
    handles: Slab<WakeHandle>,
    sent: Arc<Sent>,
    /// Seconds since a number was sent.
    rests: u8,
}

/// What is sent to all clients of a channel.
#[derive(Default)]
struct Sent {
    number: AtomicUsize,
    /// Changes with the number, after it.
    version: AtomicUsize,
}

/// A client on a counted channel; dropping it ends that.
pub(super) struct Counting {
    counts: Arc<Counts>,
    channel: ChannelName,
    key: usize,
    sent: Arc<Sent>,
    /// The number that the client has got, and the version at that time.
    seen: Option<(usize, usize)>,
}

impl Counts {
    /// A client subscribes to `channel`, and `handle` wakes it.
    pub(super) fn enter(self: &Arc<Self>, channel: &ChannelName, handle: WakeHandle) -> Counting {
        let mut table = self.table.lock();
        table.changed.insert(channel.clone());
        let counted = table.channels.entry(channel.clone()).or_default();
        let key = counted.handles.insert(handle);
        let sent = counted.sent.clone();
        Counting { counts: self.clone(), channel: channel.clone(), key, sent, seen: None }
    }

    /// Sends the numbers that have changed; runs once a second.
    pub(super) fn sweep(&self, occupancy: &Occupancy, mut report: impl FnMut(&ChannelName, usize)) {
        let mut wakes = Vec::new();
        let mut numbers = Vec::new();
        {
            let mut table = self.table.lock();
            let Table { channels, changed } = &mut *table;
            changed.retain(|channel| {
                let Some(counted) = channels.get_mut(channel) else { return false };
                counted.rests = counted.rests.saturating_add(1);
                if counted.handles.len() > CROWD && counted.rests < CROWD_TICKS {
                    return true;
                }
                counted.rests = 0;
                let number = occupancy.of(channel);
                if counted.sent.number.swap(number, Ordering::Relaxed) != number {
                    counted.sent.version.fetch_add(1, Ordering::Release);
                    numbers.push((channel.clone(), number));
                    wakes.extend(counted.handles.iter().map(|(_, handle)| handle.clone()));
                }
                if counted.handles.is_empty() {
                    channels.remove(channel);
                }
                false
            });
        }
        for (channel, number) in numbers {
            report(&channel, number);
        }
        for handle in wakes {
            handle.notify();
        }
    }
}

impl Counting {
    /// The number that its client has not got yet, if there is one.
    pub(super) fn next(&mut self, occupancy: &Occupancy) -> Option<usize> {
        let version = self.sent.version.load(Ordering::Acquire);
        let (has, before) = self.seen.unzip();
        // The first one is its own, as that of all is of the second before.
        let number = match before {
            None => occupancy.of(&self.channel),
            Some(before) if before == version => return None,
            Some(_) => self.sent.number.load(Ordering::Relaxed),
        };
        self.seen = Some((number, version));
        (has != Some(number)).then_some(number)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let mut table = self.counts.table.lock();
        let Table { channels, changed } = &mut *table;
        if let Some(counted) = channels.get_mut(&self.channel) {
            counted.handles.try_remove(self.key);
            changed.insert(self.channel.clone());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn handle() -> WakeHandle {
        let hub = crate::hub::Hub::new(crate::hub::Settings::default(), 1);
        let now = crate::hub::channel::Time(1);
        let (waiter, _) = hub.subscribe(&[], crate::hub::channel::Take::All, now).unwrap();
        waiter.wake_handle()
    }

    fn sweep(counts: &Counts, occupancy: &Occupancy) -> Vec<usize> {
        let mut seen = Vec::new();
        counts.sweep(occupancy, |_, number| seen.push(number));
        seen
    }

    #[test]
    fn each_client_gets_each_number_once() {
        let (counts, occupancy) = (Arc::new(Counts::default()), Occupancy::default());
        let channel = ChannelName::new("shop/a").unwrap();
        let enter = || {
            occupancy.enter(&channel);
            counts.enter(&channel, handle())
        };
        let mut one = enter();
        assert_eq!((one.next(&occupancy), one.next(&occupancy)), (Some(1), None));
        assert_eq!(sweep(&counts, &occupancy), [1]);
        assert_eq!(one.next(&occupancy), None, "it has that");
        let mut two = enter();
        assert_eq!((two.next(&occupancy), one.next(&occupancy)), (Some(2), None));
        assert_eq!(sweep(&counts, &occupancy), [2]);
        assert_eq!((two.next(&occupancy), one.next(&occupancy)), (None, Some(2)));
        // A client that looks late gets the newest.
        let mut late = enter();
        assert_eq!(late.next(&occupancy), Some(3));
        assert_eq!(sweep(&counts, &occupancy), [3]);
        occupancy.leave(&channel);
        drop(two);
        assert_eq!(sweep(&counts, &occupancy), [2]);
        assert_eq!((late.next(&occupancy), one.next(&occupancy)), (Some(2), None));
        let two = late;
        // One goes and another comes: the number is the same, and the new one gets it, too.
        occupancy.leave(&channel);
        drop(two);
        let mut three = enter();
        assert_eq!(sweep(&counts, &occupancy), Vec::<usize>::new());
        assert_eq!((three.next(&occupancy), one.next(&occupancy)), (Some(2), None));
        for counting in [one, three] {
            occupancy.leave(&channel);
            drop(counting);
        }
        assert_eq!(sweep(&counts, &occupancy), [0]);
        assert!(counts.table.lock().channels.is_empty());
        assert_eq!(sweep(&counts, &occupancy), Vec::<usize>::new());
    }

    #[test]
    fn a_crowd_is_counted_every_five_seconds() {
        let (counts, occupancy) = (Arc::new(Counts::default()), Occupancy::default());
        let channel = ChannelName::new("shop/a").unwrap();
        let handle = handle();
        let crowd: Vec<_> = (0..=CROWD)
            .map(|_| {
                occupancy.enter(&channel);
                counts.enter(&channel, handle.clone())
            })
            .collect();
        for _ in 1..CROWD_TICKS {
            assert_eq!(sweep(&counts, &occupancy), Vec::<usize>::new());
        }
        assert_eq!(sweep(&counts, &occupancy), [CROWD + 1]);
        drop(crowd);
    }
}
