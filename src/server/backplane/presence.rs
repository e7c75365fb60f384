//! The users of all gates together.
//!
//! Each gate tells Redis of its own share: the users who have come here and who are gone from here.
//! A script counts the gates of each user, and publishes a join with the first and a leave with the
//! last. While Redis is away nothing is lost: the hub keeps the changes, and the sweep comes
//! back to it.
//!
//! **Clients without a name** are counted, too: each gate reports the number of all clients that it
//! holds on a channel once that has changed, up to [`ROUND`] later.
//!
//! **One lease a gate.** A gate renews its lease; the users of one whose lease has run out are taken
//! off by the first gate that finds it so. A gate that was away for longer than its lease goes on as
//! another gate, so what is left of the old one can be taken off at any time.

use super::keys::{Keys, PARTITIONS};
use super::scripts::presence::{Act, Sign, leases, signs, users};
use super::{Backplane, Failure, Shared};
use crate::hub::ChannelUpdate;
use crate::hub::channel::{ChannelName, Lookup, Messages, Moment, Stamp, Time};
use crate::hub::presence::{Change, Roster, ShareChange, companion};
use parking_lot::Mutex;
use redis::cmd;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Calls that are sent in one go.
const BATCH: usize = 256;

/// Interval at which counts that came too early are sent.
const COUNTS: Duration = Duration::from_secs(1);

/// Interval at which the numbers of clients of some channels are looked at; those of all channels
/// within [`ROUND`].
const STEP: Duration = Duration::from_millis(500);
const ROUND: Duration = Duration::from_secs(2);
/// Numbers that are sent in a step at the most; more of them take longer.
const MAX_NUMBERS: usize = 2_000;

/// This gate's share of presence.
pub(super) struct Presence {
    lease: Duration,
    /// The name of this gate in its present life.
    gate: Mutex<String>,
    wants: mpsc::UnboundedSender<ChannelName>,
    wanted: tokio::sync::Mutex<mpsc::UnboundedReceiver<ChannelName>>,
    /// Changes reach Redis in their order.
    sending: tokio::sync::Mutex<()>,
    /// The gate has a lease; without one, no gate would take its users off.
    leased: AtomicBool,
    /// Channels whose number of users changed since it was announced.
    counts: Mutex<HashSet<ChannelName>>,
}

impl Presence {
    pub(super) fn new(lease: Duration) -> Self {
        let (wants, wanted) = mpsc::unbounded_channel();
        Self {
            lease,
            gate: Mutex::new(new_name()),
            wants,
            wanted: tokio::sync::Mutex::new(wanted),
            sending: tokio::sync::Mutex::default(),
            leased: AtomicBool::new(false),
            counts: Mutex::default(),
        }
    }
}

impl Presence {
    /// The name of this gate.
    pub(super) fn gate(&self) -> String {
        self.gate.lock().clone()
    }

    pub(super) fn lease(&self) -> Duration {
        self.lease
    }

    pub(super) fn is_leased(&self) -> bool {
        self.leased.load(Ordering::Relaxed)
    }
}

fn new_name() -> String {
    format!("{:016x}", fastrand::u64(..))
}

impl Backplane {
    /// This gate's share of the users on a channel has changed. At most one such note a channel
    /// waits.
    pub fn presence_changed(&self, channel: &ChannelName) {
        // The receiver lives as long as this does.
        let _ = self.shared.presence.wants.send(channel.clone());
    }

    /// The users on a channel, of all gates.
    pub async fn roster(&self, channel: ChannelName) -> Result<Roster, Failure> {
        let shared = &self.shared;
        let full = || Failure::Away("the name of the channel is too long".to_owned());
        let companion = companion(&channel).ok_or_else(full)?;
        // The client that asks is among them.
        shared.send_share(&channel).await?;
        let call = shared.scripts.users(&shared.keys, &companion);
        let found = shared.call_one(&companion, call).await?;
        let strange = || Failure::Unknown("Redis has answered something else".to_owned());
        let found = users(found).ok_or_else(strange)?;
        // This gate's own number is the one of this moment.
        let own = shared.presence.gate.lock().clone();
        let others = found.connections.iter().filter(|(gate, _)| *gate != own);
        let elsewhere = others.map(|(_, number)| number).sum::<usize>();
        let (position, stamp) = match found.place.place {
            Some(start) => (start.position, start.stamp),
            None => (found.place.clock, Stamp(found.place.clock.seq)),
        };
        let found_here = Lookup {
            has_update: false,
            reset: false,
            messages: Messages::new(),
            position,
            stamp,
            tag: None,
            before: Moment::default(),
            as_of: Time(0),
            renders: None,
        };
        let tick = shared.hub.tick(&companion);
        Ok(Roster {
            place: ChannelUpdate { channel: companion, tick, found: found_here },
            count: found.count,
            connections: shared.hub.presence().connections(&channel) + elsewhere,
            members: found.listed,
            channel,
        })
    }
}

impl Shared {
    /// Tells Redis of changes and renews the lease, for ever.
    pub(super) async fn keep_presence(&self) {
        tokio::join!(
            self.send_shares(),
            self.keep_lease(),
            self.keep_counts(),
            self.keep_connections()
        );
    }

    async fn send_shares(&self) {
        let mut wanted = self.presence.wanted.lock().await;
        while let Some(channel) = wanted.recv().await {
            // What fails is tried again by the hub's next sweep.
            let _ = self.send_share(&channel).await;
        }
    }

    /// Tells Redis of all that has changed on a channel here.
    async fn send_share(&self, channel: &ChannelName) -> Result<(), Failure> {
        let _sending = self.presence.sending.lock().await;
        loop {
            if !self.presence.leased.load(Ordering::Relaxed) {
                self.renew_lease().await?;
            }
            let changes = self.hub.presence().share_changes(channel, BATCH);
            if changes.is_empty() {
                return Ok(());
            }
            let acts: Vec<_> = changes.iter().map(Act::User).collect();
            let gate = self.presence.gate.lock().clone();
            let answers = self.act(channel, &gate, &acts).await;
            let mut failed = None;
            for (change, answer) in changes.iter().zip(answers) {
                match answer {
                    Ok(()) => self.confirm(channel, &gate, change),
                    Err(failure) => failed = Some(failure),
                }
            }
            if let Some(failure) = failed {
                return Err(failure);
            }
        }
    }

    /// A change is known to Redis, unless this gate has become another one meanwhile.
    fn confirm(&self, channel: &ChannelName, gate: &str, change: &ShareChange) {
        if *self.presence.gate.lock() == gate {
            self.hub.presence().share_acknowledged(channel, change);
        }
    }

    /// Sends changes on one channel and reports what follows from them.
    async fn act(
        &self,
        channel: &ChannelName,
        gate: &str,
        acts: &[Act<'_>],
    ) -> Vec<Result<(), Failure>> {
        let Some(companion) = companion(channel) else {
            return acts.iter().map(|_| Ok(())).collect();
        };
        let limits = self.hub.limits(&companion);
        let most = self.hub.presence().most_listed(channel);
        let call = |act: &Act<'_>| {
            let gate = (gate, most);
            let call = self.scripts.change_presence(&self.keys, &companion, &limits, gate, act);
            (companion.clone(), call)
        };
        let calls: Vec<_> = acts.iter().map(call).collect();
        let answers = self.call(&calls).await;
        answers
            .into_iter()
            .map(|answer| {
                let strange = || Failure::Unknown("Redis has answered something else".to_owned());
                let signs = answer.and_then(|value| signs(&value).ok_or_else(strange))?;
                signs.into_iter().for_each(|sign| self.report(channel, sign));
                Ok(())
            })
            .collect()
    }

    fn report(&self, channel: &ChannelName, sign: Sign) {
        let change = match sign {
            Sign::Joined(user) => Change::Joined(user),
            Sign::Left(user) => Change::Left(user),
            Sign::Occupied => Change::Occupied,
            Sign::Vacated => Change::Vacated,
            Sign::CountDue => {
                self.presence.counts.lock().insert(channel.clone());
                return;
            }
        };
        self.hub.presence().report(channel, &change, (self.clock)());
    }

    /// Announces the numbers of users that could not be announced when they changed.
    async fn keep_counts(&self) {
        let mut ticks = tokio::time::interval(COUNTS);
        loop {
            ticks.tick().await;
            let due = std::mem::take(&mut *self.presence.counts.lock());
            for channel in due {
                let gate = self.presence.gate.lock().clone();
                // The next change announces the number if this fails.
                let _ = self.act(&channel, &gate, &[Act::Count]).await;
            }
        }
    }

    /// Reports the numbers of clients that are held here, where they have changed.
    async fn keep_connections(&self) {
        let steps = (ROUND.as_millis() / STEP.as_millis()) as usize;
        let mut ticks = tokio::time::interval(STEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for step in (0..steps).cycle() {
            ticks.tick().await;
            if !self.presence.leased.load(Ordering::Relaxed) {
                continue;
            }
            // A channel's last number comes before the word that no client is left there.
            let _sending = self.presence.sending.lock().await;
            let gate = self.presence.gate.lock().clone();
            let changed = self.hub.presence().connection_changes((step, steps), MAX_NUMBERS);
            for batch in changed.chunks(BATCH) {
                let sent = self.report_connections(&gate, batch).await;
                let known = batch.iter().zip(sent).filter(|(_, sent)| *sent);
                let known: Vec<_> = known.map(|(change, _)| change.clone()).collect();
                if *self.presence.gate.lock() != gate {
                    break;
                }
                self.hub.presence().connections_reported(&known);
                if known.len() < batch.len() {
                    break;
                }
            }
        }
    }

    /// Sends numbers of clients; for each, true if Redis has it.
    async fn report_connections(&self, gate: &str, numbers: &[(ChannelName, usize)]) -> Vec<bool> {
        let call = |(channel, number): &(ChannelName, usize)| {
            let companion = companion(channel)?;
            let limits = self.hub.limits(&companion);
            let (gate, act) = ((gate, 0), Act::Connections(*number));
            let call = self.scripts.change_presence(&self.keys, &companion, &limits, gate, &act);
            Some((companion, call))
        };
        // What is on the list has a companion.
        let calls: Vec<_> = numbers.iter().filter_map(call).collect();
        self.call(&calls).await.iter().map(Result::is_ok).collect()
    }

    async fn keep_lease(&self) {
        let mut ticks = tokio::time::interval(self.presence.lease / 4);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.hub.presence().is_on() && !self.directory.is_on() {
                // A lease that has run out meanwhile is found below.
                continue;
            }
            let Ok(dead) = self.renew_lease().await else { continue };
            self.renew_entries().await;
            for gate in dead {
                self.reap(&gate).await;
            }
        }
    }

    /// Renews the lease; returns the gates whose leases have run out.
    async fn renew_lease(&self) -> Result<Vec<String>, Failure> {
        let strange = || Failure::Unknown("Redis has answered something else".to_owned());
        let any = Keys::any_of(0).ok_or_else(strange)?;
        let gate = self.presence.gate.lock().clone();
        let lease = self.scripts.lease(&self.keys, &gate, self.presence.lease);
        let answer = self.call_one(&any, lease).await?;
        let (alive, dead) = leases(&answer).ok_or_else(strange)?;
        let had_one = self.presence.leased.swap(true, Ordering::Relaxed);
        if had_one && !alive {
            tracing::warn!(gate, "the lease of this gate's users has run out; they are told anew");
            *self.presence.gate.lock() = new_name();
            self.presence.leased.store(false, Ordering::Relaxed);
            self.hub.presence().share_lost();
            self.directory.begin_again();
        }
        Ok(dead)
    }

    /// Takes the users of a dead gate off.
    async fn reap(&self, gate: &str) {
        for partition in 0..PARTITIONS {
            let key = self.keys.gate(partition, gate);
            let Some(any) = Keys::any_of(partition) else { return };
            let mut members = cmd("SMEMBERS");
            members.arg(key);
            let Ok(found) = self.call_one(&any, members).await else { return };
            let Ok(channels) = redis::from_redis_value::<Vec<String>>(found) else { return };
            let presence = crate::hub::presence::PREFIX;
            let names = channels.iter();
            for name in names.filter_map(|name| ChannelName::from_qualified(name.as_bytes()).ok()) {
                let subject = name.strip_prefix(presence).map(|subject| name.sibling(subject));
                let failed = match subject {
                    Some(Ok(channel)) => {
                        self.act(&channel, gate, &[Act::Reap]).await.iter().any(Result::is_err)
                    }
                    Some(Err(_)) => false,
                    None => self.take_entries(&name, gate).await.is_err(),
                };
                if failed {
                    // The next sweep goes on.
                    return;
                }
            }
        }
        let Some(any) = Keys::any_of(0) else { return };
        let mut remove = cmd("ZREM");
        remove.arg(self.keys.leases()).arg(gate);
        if self.call_one(&any, remove).await.is_ok() {
            tracing::info!(gate, "the users of a gate that is gone were taken off");
        }
    }
}
