//! Presence: the users on a channel.
//!
//! A part that serves a client calls [`Presence::enter`] and keeps the [`Membership`] while it
//! holds the client's poll or stream; [`Membership::leave`] ends it without a grace. It may bring
//! settings of its own, for channels that no rule is about. A user is present while it is held
//! anywhere and for a grace after that, so the gap between two polls is no absence.
//!
//! **Joins and leaves alternate.** They are messages on the channel `presence:{channel}`
//! ([`companion`]), at most one of each in turn for a user: a second tab joins nothing. The list of
//! [`Presence::members`] is the replay of those messages up to its position, since both are read
//! under the lock that every change takes.
//!
//! **Above [`Settings::members`] users there are no more joins**, but one count a second at the
//! most. Users beyond that number have no grace; they join once there is room.
//!
//! **No timer.** Deadlines stand in a wheel of seconds that [`Presence::sweep`] turns; a user that
//! polls on and on has one place in it for each grace, not for each poll. A leave comes up to two
//! seconds after its deadline, never before.
//!
//! **A pause loses nothing.** While the gate drains or hands over, users come and go here without
//! a message; afterwards the sweep announces the difference, if there is one.
//!
//! **Memory** is bounded by [`Presence::allow`]. A user who finds no room counts as a connection,
//! as one without a name does. A site may take as much as is free after it ([`memory`]), so that
//! no site keeps out the users of another.
//!
//! With a sequencer, the sum of all gates decides about joins and leaves. Then this table holds
//! this gate's share, and reports changes of it to the [`Sinks`].
//!
//! Locks are taken in the order presence, then table, then channel.

mod dump;
mod event;
mod holds;
mod list;
mod lookup;
mod membership;
mod memory;
mod room;
mod settings;
mod share;
mod sweep;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use dump::MemberDump;
pub use event::{Change, Why};
pub use list::{Listed, Roster};
pub use membership::{Entrant, Known, Membership, Memberships};
pub use settings::{Member, Rules, Settings};
pub use share::ShareChange;

use super::{Hub, WakeSet};
use crate::hub::channel::{ChannelName, Payload, Time};
use event::Event;
use holds::Holds;
use memory::Memory;
use parking_lot::{Mutex, RwLock};
use room::Room;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The beginning of the names of channels with joins and leaves.
pub const PREFIX: &str = "presence:";

/// The channel with the joins and leaves of `channel`; `None` if its name is too long for one.
pub fn companion(channel: &ChannelName) -> Option<ChannelName> {
    channel.sibling(&format!("{PREFIX}{}", channel.as_str())).ok()
}

/// True if a channel has a [`companion`]: asked for each poll, so without making its name.
fn has_companion(channel: &ChannelName) -> bool {
    PREFIX.len() + channel.as_str().len() <= ChannelName::MAX_BYTES
}

/// Receivers of what happens; set once, before the first user enters. They must not call back.
pub struct Sinks {
    /// Wakes the polls that a join or leave releases.
    pub wake: Box<dyn Fn(WakeSet) + Send + Sync>,
    /// Gets each change, in order for a channel.
    pub change: ChangeSink,
    /// Gets the channels whose share here has changed, where a sequencer decides.
    pub unsettled: Box<dyn Fn(&ChannelName) + Send + Sync>,
}

/// Gets the changes of a channel.
pub type ChangeSink = Box<dyn Fn(&ChannelName, &Change, Time) + Send + Sync>;

impl Default for Sinks {
    fn default() -> Self {
        Self { wake: Box::new(drop), change: Box::new(|_, _, _| ()), unsettled: Box::new(|_| ()) }
    }
}

/// What the hub keeps of presence.
pub(super) struct Rooms {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    rules: RwLock<Vec<Rules>>,
    /// There are rules: the one thing that a poll looks at where presence is off.
    on: AtomicBool,
    /// Counts the changes of the rules.
    generation: AtomicU64,
    paused: AtomicBool,
    memory: Memory,
    members: AtomicU64,
    sinks: RwLock<Arc<Sinks>>,
}

#[derive(Default)]
struct Shard {
    rooms: HashMap<ChannelName, Room>,
    /// Deadlines by the second: of a user, or of the room itself.
    wheel: BTreeMap<u64, Vec<Deadline>>,
    /// Rooms with something to announce.
    unsettled: Vec<ChannelName>,
}

type Deadline = (ChannelName, Option<Arc<str>>);

impl Default for Rooms {
    fn default() -> Self {
        /// More than other tables have: a sweep announces under this lock.
        const SHARDS: usize = 64;
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            rules: RwLock::default(),
            on: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            memory: Memory::new(DEFAULT_BYTES),
            members: AtomicU64::new(0),
            sinks: RwLock::default(),
        }
    }
}

/// The default of [`Presence::allow`].
pub const DEFAULT_BYTES: u64 = 64 << 20;

impl Hub {
    /// The users on its channels.
    pub fn presence(&self) -> Presence<'_> {
        Presence { hub: self }
    }
}

/// See the [module](self).
#[derive(Clone, Copy)]
pub struct Presence<'a> {
    hub: &'a Hub,
}

/// What a step has changed in a room.
#[derive(Default)]
struct Changed {
    /// This user may have come or gone.
    user: Option<Arc<str>>,
    /// Its deadline, to stand in the wheel.
    until: Option<Time>,
    /// A client without a name is not held any more.
    ended_unnamed: bool,
}

/// What is done after unlocking.
#[derive(Default)]
struct After {
    wakes: Vec<WakeSet>,
    unsettled: bool,
}

impl<'a> Presence<'a> {
    /// Applies new rules, those of each site. Users who are present stay, as their holds and graces
    /// say.
    pub fn rule(&self, rules: Vec<Rules>) {
        let on = rules.iter().any(Rules::is_on);
        *self.rooms().rules.write() = rules;
        self.rooms().on.store(on, Ordering::SeqCst);
        self.rooms().generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Bounds the memory of all users, in bytes.
    pub fn allow(&self, bytes: u64) {
        self.rooms().memory.allow(bytes);
    }

    /// Sets the receivers of what happens.
    pub fn report_to(&self, sinks: Sinks) {
        *self.rooms().sinks.write() = Arc::new(sinks);
    }

    /// True if any channel has presence.
    pub fn is_on(&self) -> bool {
        self.rooms().on.load(Ordering::Relaxed)
    }

    /// A client of `member` is held on `channel` from now on, and its user stays for `grace` after
    /// that; `None` = a client without a name.
    pub fn enter(
        &self,
        channel: &ChannelName,
        member: Option<&Member>,
        settings: &Arc<Settings>,
        grace: Duration,
        now: Time,
    ) -> Membership {
        let holds = self.begin(channel, member, settings, now);
        Membership::new(self.hub.clone(), holds, grace)
    }

    /// Begins a hold.
    fn begin(
        &self,
        channel: &ChannelName,
        member: Option<&Member>,
        settings: &Arc<Settings>,
        now: Time,
    ) -> Arc<Holds> {
        let now = self.hub.time(now);
        let mut after = After::default();
        let holds = {
            let mut shard = self.shard_of(channel).lock();
            let Shard { rooms, unsettled, .. } = &mut *shard;
            let room = rooms
                .entry(channel.clone())
                .or_insert_with(|| self.new_room(channel, settings.clone()));
            room.rule(settings);
            let holds = room.enter(member, self.rooms(), now);
            self.settle(channel, room, holds.user.as_ref(), unsettled, now, &mut after);
            holds
        };
        self.finish(channel, after);
        holds
    }

    /// Ends the grace of a user: it leaves at once unless it is held, and without a grace once one
    /// hold has ended that ends soon.
    pub fn leave(&self, channel: &ChannelName, user: &str, now: Time) {
        let now = self.hub.time(now);
        self.change(channel, now, |room| room.leave(user, now));
    }

    /// From now on nothing is announced and no grace ends; with `false`, again.
    pub fn pause(&self, paused: bool) {
        self.rooms().paused.store(paused, Ordering::SeqCst);
    }

    /// The memory that all of it takes, in bytes.
    pub fn bytes(&self) -> u64 {
        self.rooms().memory.used()
    }

    fn new_room(&self, channel: &ChannelName, settings: Arc<Settings>) -> Room {
        let share = self.rooms().memory.share(channel.site());
        Room::new(settings, self.hub.is_replica(), share, channel)
    }

    fn rooms(&self) -> &'a Rooms {
        &self.hub.shared.presence
    }

    fn shard_of(&self, channel: &ChannelName) -> &'a Mutex<Shard> {
        let rooms = self.rooms();
        &rooms.shards[rooms.hasher.hash_one(channel) as usize % rooms.shards.len()]
    }

    fn is_paused(&self) -> bool {
        self.rooms().paused.load(Ordering::SeqCst) || self.hub.is_draining()
    }

    /// Changes a room and announces what follows from it.
    fn change(&self, channel: &ChannelName, now: Time, work: impl FnOnce(&mut Room) -> Changed) {
        let mut after = After::default();
        {
            let mut shard = self.shard_of(channel).lock();
            let Shard { rooms, wheel, unsettled } = &mut *shard;
            let Some(room) = rooms.get_mut(channel) else { return };
            let Changed { user, until, ended_unnamed } = work(room);
            if let (Some(user), Some(until)) = (&user, until) {
                put(wheel, until, (channel.clone(), Some(user.clone())));
            }
            let is_full = || self.rooms().memory.is_full();
            if let Some(until) = room.deadline(ended_unnamed, is_full, now) {
                put(wheel, until, (channel.clone(), None));
            }
            self.settle(channel, room, user.as_ref(), unsettled, now, &mut after);
            if room.is_over() {
                self.drop_if_over(&mut shard, channel);
            }
        }
        self.finish(channel, after);
    }

    /// Announces what has changed about a user and about the room, as far as that may be now.
    fn settle(
        &self,
        channel: &ChannelName,
        room: &mut Room,
        user: Option<&Arc<str>>,
        unsettled: &mut Vec<ChannelName>,
        now: Time,
        after: &mut After,
    ) {
        let mut announce = |event: Event<'_>| self.announce(channel, event, now, after);
        let mut settled = room.settle_occupancy(&mut announce);
        if let Some(user) = user {
            settled &= room.settle(user, self.rooms(), &mut announce);
        }
        let open = !settled || !room.is_settled();
        if open {
            if !std::mem::replace(&mut room.listed, true) {
                unsettled.push(channel.clone());
            }
            after.unsettled = !std::mem::replace(&mut room.noted, true);
        }
    }

    /// Announces a change; false = later.
    fn announce(
        &self,
        channel: &ChannelName,
        event: Event<'_>,
        now: Time,
        after: &mut After,
    ) -> bool {
        if self.is_paused() || self.hub.is_replica() {
            return false;
        }
        if let (Some(body), Some(companion)) = (event.body(), companion(channel)) {
            // The table may be full; the sweep tries again.
            let Ok(published) = self.hub.publish(&[(companion, event::payload(body))], now) else {
                // Of a site that is gone there is nothing to announce, and nothing is kept.
                return !self.hub.has_site(channel);
            };
            after.wakes.extend(published.into_iter().map(|published| published.wake));
        }
        if let Some(change) = event.change() {
            (self.rooms().sinks.read().change)(channel, &change, now);
        }
        true
    }

    fn finish(&self, channel: &ChannelName, after: After) {
        if after.wakes.is_empty() && !after.unsettled {
            return;
        }
        let sinks = self.rooms().sinks.read().clone();
        after.wakes.into_iter().for_each(|wake| (sinks.wake)(wake));
        if after.unsettled && self.hub.is_replica() {
            (sinks.unsettled)(channel);
        }
    }
}

fn put(wheel: &mut BTreeMap<u64, Vec<Deadline>>, until: Time, deadline: Deadline) {
    wheel.entry(until.0.div_ceil(1_000_000)).or_default().push(deadline);
}
