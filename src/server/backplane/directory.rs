//! What each gate lists for a channel and all of them read: the subscriptions of a Mercure hub.
//!
//! The entries of a gate are a hash in Redis that belongs to its lease (`presence.rs`). Changes are
//! sent in batches, at most [`STEP`] after they came. While Redis is away they are dropped; when it
//! is back, all entries are sent anew, and so they are when the gate goes on as another one.
//!
//! **A dead gate's entries** are taken by one of the others once the lease has run out, which
//! reports them as gone. Before that, and where no other gate is there, they are not read any more,
//! and they go by themselves after [`LIVES`] leases.
//!
//! **Memory** is bounded by the [`Entries`]: that of the gate, and that in Redis. A few lists are
//! read at a time.

use super::keys::Keys;
use super::link::text;
use super::scripts::number;
use super::{Backplane, Failure, Shared};
use crate::hub::channel::ChannelName;
use parking_lot::Mutex;
use redis::{Value, cmd};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Interval at which changes are sent.
const STEP: Duration = Duration::from_millis(250);
/// Entries that are sent in one command.
const BATCH: usize = 128;
/// The entries live for so many leases after the gate's last sign of life.
const LIVES: u64 = 10;
/// Lists that are read at a time.
const MAX_READS: usize = 2;

/// An entry of this gate, or the end of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The channel that it is listed for.
    pub channel: ChannelName,
    /// Its id, unique on the channel.
    pub id: String,
    /// What the other gates read, not empty; `None` = it has gone.
    pub text: Option<String>,
}

/// The entries of this gate. They bound their number and size.
pub trait Entries: Send + Sync {
    /// True if there can be any.
    fn are_listed(&self) -> bool;
    /// At most `most` changes since the last call, in their order; the error says that some are
    /// lost, and all entries have to be sent.
    fn changes(&self, most: usize) -> Result<Vec<Entry>, Lost>;
    /// At most `most` of the entries there are, from the place `from` on, and the next place.
    fn page(&self, from: usize, most: usize) -> (Vec<Entry>, Option<usize>);
    /// These of a gate that is dead have gone.
    fn report_gone(&self, channel: &ChannelName, texts: Vec<String>);
    /// The other gates took this one for dead: its entries have come again.
    fn report_again(&self);
}

/// Changes that were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

/// This gate's part of the lists.
pub(super) struct Directory {
    entries: OnceLock<Arc<dyn Entries>>,
    /// All entries have to be sent.
    is_stale: AtomicBool,
    /// Channels for which this gate has entries in Redis.
    channels: Mutex<HashSet<ChannelName>>,
    reads: Semaphore,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            entries: OnceLock::new(),
            is_stale: AtomicBool::new(false),
            channels: Mutex::default(),
            reads: Semaphore::new(MAX_READS),
        }
    }
}

impl Directory {
    /// True if gates list something, so that they need leases.
    pub(super) fn is_on(&self) -> bool {
        self.entries.get().is_some_and(|entries| entries.are_listed())
    }

    /// This gate goes on as another one.
    pub(super) fn begin_again(&self) {
        self.is_stale.store(true, Ordering::SeqCst);
        self.channels.lock().clear();
        if let Some(entries) = self.entries.get() {
            entries.report_again();
        }
    }
}

impl Backplane {
    /// Lists these entries from now on.
    pub fn list_entries(&self, entries: Arc<dyn Entries>) {
        // Set once, at the start.
        let _ = self.shared.directory.entries.set(entries);
    }

    /// What the other gates list for a channel.
    pub async fn entries_elsewhere(&self, channel: &ChannelName) -> Result<Vec<String>, Failure> {
        let shared = &self.shared;
        // It is never closed.
        let _read = shared.directory.reads.acquire().await;
        let own = shared.presence.gate();
        let gates = shared.living_gates().await?;
        let call = |gate: &String| {
            let mut values = cmd("HVALS");
            values.arg(shared.keys.entries(channel, gate));
            (channel.clone(), values)
        };
        let calls: Vec<_> = gates.iter().filter(|gate| **gate != own).map(call).collect();
        let mut all = Vec::new();
        for answer in shared.call(&calls).await {
            all.extend(texts(answer?)?);
        }
        Ok(all)
    }
}

impl Shared {
    /// Sends the entries that come and go to Redis, for ever.
    pub(super) async fn keep_directory(&self) {
        let mut ticks = tokio::time::interval(STEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(entries) = self.directory.entries.get() else { continue };
            if !self.presence.is_leased() {
                // They are sent once there is a lease.
                self.directory.is_stale.store(true, Ordering::SeqCst);
                continue;
            }
            if self.send_entries(&**entries).await.is_err() {
                self.directory.is_stale.store(true, Ordering::SeqCst);
            }
        }
    }

    async fn send_entries(&self, entries: &dyn Entries) -> Result<(), Failure> {
        loop {
            let changes = match entries.changes(BATCH) {
                Err(Lost) => {
                    self.directory.is_stale.store(true, Ordering::SeqCst);
                    return Ok(());
                }
                // What comes from here on is sent as a change, too.
                Ok(_) if self.directory.is_stale.swap(false, Ordering::SeqCst) => {
                    self.send_all(entries).await?;
                    continue;
                }
                Ok(changes) => changes,
            };
            if changes.is_empty() {
                return Ok(());
            }
            self.send_by_channel(&changes).await?;
        }
    }

    async fn send_all(&self, entries: &dyn Entries) -> Result<(), Failure> {
        let known = self.directory.channels.lock().clone();
        for channel in known {
            self.send_some(&channel, &[], true).await?;
        }
        let mut from = Some(0);
        while let Some(place) = from {
            let page;
            (page, from) = entries.page(place, BATCH);
            self.send_by_channel(&page).await?;
        }
        Ok(())
    }

    /// Sends entries, those of each channel in one command.
    async fn send_by_channel(&self, entries: &[Entry]) -> Result<(), Failure> {
        let mut channels: Vec<&ChannelName> = Vec::new();
        for entry in entries {
            if !channels.contains(&&entry.channel) {
                channels.push(&entry.channel);
            }
        }
        for channel in channels {
            let own: Vec<_> = entries.iter().filter(|one| one.channel == *channel).collect();
            self.send_some(channel, &own, false).await?;
        }
        Ok(())
    }

    async fn send_some(
        &self,
        channel: &ChannelName,
        entries: &[&Entry],
        anew: bool,
    ) -> Result<(), Failure> {
        let gate = self.presence.gate();
        let pairs = entries.iter().map(|one| (&*one.id, one.text.as_deref().unwrap_or_default()));
        let life = self.presence.lease() * LIVES as u32;
        let call = self.scripts.list(&self.keys, channel, &gate, (life, anew), pairs);
        let there = number(&self.call_one(channel, call).await?).ok_or_else(strange)?;
        let mut channels = self.directory.channels.lock();
        match there {
            0 => channels.remove(channel),
            _ => channels.insert(channel.clone()),
        };
        Ok(())
    }

    /// Renews the life of this gate's entries.
    pub(super) async fn renew_entries(&self) {
        let Some(entries) = self.directory.entries.get() else { return };
        let channels = self.directory.channels.lock().clone();
        for channel in channels {
            // What fails is renewed with the next lease.
            let _ = self.send_some(&channel, &[], false).await;
        }
        if self.directory.channels.lock().is_empty() && !entries.page(0, 1).0.is_empty() {
            self.directory.is_stale.store(true, Ordering::SeqCst);
        }
    }

    /// Takes what a dead gate listed for a channel.
    pub(super) async fn take_entries(
        &self,
        channel: &ChannelName,
        gate: &str,
    ) -> Result<(), Failure> {
        let call = self.scripts.take(&self.keys, channel, gate);
        let gone = texts(self.call_one(channel, call).await?)?;
        if let Some(entries) = self.directory.entries.get().filter(|_| !gone.is_empty()) {
            entries.report_gone(channel, gone);
        }
        Ok(())
    }

    /// The gates whose leases have not run out.
    async fn living_gates(&self) -> Result<Vec<String>, Failure> {
        let any = Keys::any_of(0).ok_or_else(strange)?;
        let mut leases = cmd("ZRANGE");
        leases.arg(self.keys.leases()).arg(0).arg(-1).arg("WITHSCORES");
        let calls = [(any.clone(), leases), (any, cmd("TIME"))];
        let mut answers = self.call(&calls).await.into_iter();
        let mut answer = || answers.next().unwrap_or_else(|| Err(strange()));
        let leases = answer()?;
        let time = answer()?;
        living(&leases, &time).ok_or_else(strange)
    }
}

fn strange() -> Failure {
    Failure::Unknown("Redis has answered something else".to_owned())
}

fn texts(value: Value) -> Result<Vec<String>, Failure> {
    redis::from_redis_value(value).map_err(|_| strange())
}

/// Those of `leases`, pairs of a gate and the millisecond in which its lease runs out, that have not
/// run out at `time`, seconds and microseconds.
fn living(leases: &Value, time: &Value) -> Option<Vec<String>> {
    let (Value::Array(leases), Value::Array(time)) = (leases, time) else { return None };
    let now = number(time.first()?)? * 1_000 + number(time.get(1)?)? / 1_000;
    let lease = |pair: &[Value]| {
        let until: f64 = match pair.get(1)? {
            Value::Double(until) => *until,
            other => text(other)?.parse().ok()?,
        };
        Some((text(pair.first()?)?.to_owned(), until > now as f64))
    };
    // A server that speaks RESP3 answers with pairs.
    let pairs: Vec<_> = match leases.first() {
        Some(Value::Array(_)) => leases
            .iter()
            .map(|pair| match pair {
                Value::Array(pair) => lease(pair),
                _ => None,
            })
            .collect::<Option<_>>()?,
        _ => leases.chunks(2).map(lease).collect::<Option<_>>()?,
    };
    Some(pairs.into_iter().filter(|(_, lives)| *lives).map(|(gate, _)| gate).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_lives_until_its_lease_has_run_out() {
        let word = |text: &str| Value::BulkString(text.into());
        let time = Value::Array(vec![word("1700000000"), word("500000")]);
        let flat = ["a", "1700000000499", "b", "1700000000500", "c", "1700000000501"];
        let flat = Value::Array(flat.map(word).into());
        assert_eq!(living(&flat, &time).unwrap(), ["c"]);
        let pair = |gate: &str, until| Value::Array(vec![word(gate), Value::Double(until)]);
        let pairs = Value::Array(vec![pair("a", 1.7e12), pair("c", 1.8e12)]);
        assert_eq!(living(&pairs, &time).unwrap(), ["c"]);
        assert_eq!(living(&Value::Nil, &time), None);
    }
}
