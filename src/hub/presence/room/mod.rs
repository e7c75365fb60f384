//! One channel's users as plain data.
//!
//! Each has two states: present or not, and announced or not. Where they differ there is something
//! to announce; a user who is neither is forgotten.
//!
//! While a user is both, and its deadline stands in the wheel, its number of holds is lent to
//! [`Holds`], and so is that of the clients without a name while the room's deadline stands there.
//! The steps here recall it first.

mod announce;
mod lent;
mod sequenced;

use super::event::Why;
use super::holds::Holds;
use super::memory::Share;
use super::{Changed, Member, Rooms, Settings};
use crate::hub::channel::{ChannelName, Time};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(super) struct Room {
    settings: Arc<Settings>,
    /// A sequencer has the list, and bounds it.
    shared: bool,
    /// The memory of its site's users.
    memory: Share,
    users: HashMap<Arc<str>, User>,
    /// Users who are present.
    present: usize,
    /// Users whose join was announced, and no leave since.
    announced: usize,
    /// Clients that are held and count for no user, unless their number is lent.
    unnamed: u32,
    holds: Arc<Holds>,
    /// The number of held clients that a sequencer knows.
    pub(super) reported_connections: usize,
    /// It is on the list of those with something to announce.
    pub(super) listed: bool,
    /// The sink knows of it.
    pub(super) noted: bool,
    /// The number of users has changed above the bound.
    count_due: bool,
    /// The number that was announced last.
    counted: usize,
    /// Users who were beyond the bound may have room by now.
    stale: bool,
    /// Its deadline stands in the wheel.
    timed: bool,
    /// When a client without a name, or a user, was last here; later for one that is.
    last: Time,
    occupied: bool,
    occupancy_announced: bool,
}

pub(super) struct User {
    pub(super) info: Option<Arc<str>>,
    pub(super) since: Time,
    /// Its holds, unless their number is lent.
    held: u32,
    holds: Arc<Holds>,
    /// Its grace ends here.
    until: Time,
    /// Holds that end without a grace, if they do so before `leaves_until`.
    leaving: u32,
    leaves_until: Time,
    timed: bool,
    pub(super) present: bool,
    pub(super) announced: bool,
    why: Why,
}

/// How a hold ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Grace,
    Now(Why),
}

/// A client that says it leaves may still be held for this long.
const LEAVING: Duration = Duration::from_secs(5);

/// A channel counts as vacated after this long.
pub(super) const VACATED_AFTER: Duration = Duration::from_secs(3);

pub(super) fn after(now: Time, time: Duration) -> Time {
    Time(now.0.saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
}

/// The memory of a user, in bytes.
fn cost(member: &Member) -> u64 {
    cost_of(member.user(), member.info().map(|info| &**info))
}

fn cost_of(user: &str, info: Option<&str>) -> u64 {
    // Its record, its place in the map, its holds and its deadline.
    320 + user.len() as u64 + info.map_or(0, str::len) as u64
}

impl Room {
    /// An empty room; `shared` = a sequencer has the list.
    pub(super) fn new(
        settings: Arc<Settings>,
        shared: bool,
        memory: Share,
        channel: &ChannelName,
    ) -> Self {
        memory.take(Self::cost(channel));
        Self {
            settings,
            shared,
            memory,
            users: HashMap::new(),
            present: 0,
            announced: 0,
            unnamed: 0,
            holds: Holds::new(channel.clone(), None),
            reported_connections: 0,
            listed: false,
            noted: false,
            counted: 0,
            count_due: false,
            stale: false,
            timed: false,
            last: Time(0),
            occupied: false,
            occupancy_announced: false,
        }
    }

    /// The memory of a room without users, in bytes.
    fn cost(channel: &ChannelName) -> u64 {
        400 + 2 * channel.len() as u64
    }

    /// Nothing is left of it, and it is dropped.
    pub(super) fn end(self, channel: &ChannelName) {
        self.memory.give_back(Self::cost(channel));
    }

    pub(super) fn knows(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// Users have come here, whatever the rules say.
    pub(super) fn lists(&self) -> bool {
        !self.users.is_empty()
    }

    pub(super) fn present(&self) -> usize {
        self.present
    }

    /// Clients that are held.
    pub(super) fn connections(&self) -> usize {
        let unnamed = self.holds.count().unwrap_or(self.unnamed);
        self.users.values().map(|user| user.held() as usize).sum::<usize>() + unnamed as usize
    }

    pub(super) fn users(&self) -> impl Iterator<Item = (&Arc<str>, &User)> {
        self.users.iter()
    }

    /// More users are present than are listed.
    fn is_crowded(&self) -> bool {
        self.present > self.settings.members && !self.shared
    }

    /// Applies settings, which a reload may have changed.
    pub(super) fn rule(&mut self, settings: &Arc<Settings>) {
        if !Arc::ptr_eq(&self.settings, settings) {
            self.settings = settings.clone();
            self.stale = true;
        }
    }

    /// A client is held from now on: one of `member`, if that is known or there is memory for it.
    pub(super) fn enter(
        &mut self,
        member: Option<&Member>,
        rooms: &Rooms,
        now: Time,
    ) -> Arc<Holds> {
        self.occupied = true;
        let fits = |member: &&Member| self.knows(member.user()) || self.memory.fits(cost(member));
        let Some(member) = member.filter(fits) else {
            self.recall();
            self.unnamed += 1;
            self.lend();
            return self.holds.clone();
        };
        let user = self.users.entry(member.user().clone()).or_insert_with(|| {
            self.memory.take(cost(member));
            rooms.members.fetch_add(1, Ordering::Relaxed);
            let channel = self.holds.channel.clone();
            User::new(channel, member.user().clone(), member.info().cloned(), now)
        });
        user.recall();
        user.held += 1;
        if !user.present {
            user.present = true;
            self.present += 1;
        }
        user.lend();
        user.holds.clone()
    }

    /// Takes over a user who was present or announced before, until `until`.
    pub(super) fn restore(
        &mut self,
        (key, info, since): (Arc<str>, Option<Arc<str>>, Time),
        (present, announced): (bool, bool),
        until: Time,
        rooms: &Rooms,
    ) {
        if self.knows(&key) {
            return;
        }
        let cost = cost_of(&key, info.as_deref());
        self.memory.take(cost);
        rooms.members.fetch_add(1, Ordering::Relaxed);
        self.present += usize::from(present);
        self.announced += usize::from(announced);
        (self.occupied, self.occupancy_announced) = (true, !self.shared);
        let new = User::new(self.holds.channel.clone(), key.clone(), info, since);
        let user = User { present, announced, until, timed: present, ..new };
        self.users.insert(key, user);
    }

    /// A hold has ended.
    pub(super) fn exit(
        &mut self,
        user: Option<&Arc<str>>,
        grace: Duration,
        end: End,
        now: Time,
    ) -> Changed {
        let crowded = self.is_crowded();
        let Some(key) = user else {
            self.recall();
            self.unnamed = self.unnamed.saturating_sub(1);
            self.last = self.last.max(now);
            return Changed { ended_unnamed: true, ..Changed::default() };
        };
        let Some(user) = self.users.get_mut(key) else { return Changed::default() };
        user.recall();
        user.held = user.held.saturating_sub(1);
        match end {
            End::Now(why) => (user.until, user.why) = (now, why),
            End::Grace if user.leaving > 0 && now < user.leaves_until => user.leaving -= 1,
            End::Grace => {
                (user.until, user.why) = (user.until.max(after(now, grace)), Why::Gone);
            }
        }
        if user.held > 0 {
            user.lend();
            return Changed::default();
        }
        if user.until <= now || crowded && !user.announced {
            return Changed { user: self.depart(key, now), ..Changed::default() };
        }
        let timed = std::mem::replace(&mut user.timed, true);
        user.lend();
        let until = (!timed).then_some(user.until);
        Changed { user: Some(key.clone()), until, ..Changed::default() }
    }

    /// The user ends its grace.
    pub(super) fn leave(&mut self, user: &str, now: Time) -> Changed {
        let Some((key, _)) = self.users.get_key_value(user) else { return Changed::default() };
        let key = key.clone();
        let Some(user) = self.users.get_mut(&key) else { return Changed::default() };
        user.recall();
        (user.until, user.why) = (now, Why::Left);
        if user.held > 0 {
            user.leaving = user.leaving.saturating_add(1).min(user.held);
            user.leaves_until = after(now, LEAVING);
            return Changed::default();
        }
        Changed { user: self.depart(&key, now), ..Changed::default() }
    }

    /// A deadline from the wheel has come; the next one, if there is one.
    pub(super) fn expire(&mut self, key: &Arc<str>, now: Time) -> Option<Time> {
        let user = self.users.get_mut(key)?;
        user.recall();
        user.timed = false;
        if user.held > 0 || !user.present {
            return None;
        }
        if user.until > now {
            user.timed = true;
            user.lend();
            return Some(user.until);
        }
        self.depart(key, now);
        None
    }

    fn depart(&mut self, key: &Arc<str>, now: Time) -> Option<Arc<str>> {
        let user = self.users.get_mut(key).filter(|user| user.present)?;
        user.present = false;
        user.leaving = 0;
        self.present -= 1;
        self.last = self.last.max(now);
        // One who was not announced may have room now.
        self.stale |= self.present == self.settings.members && !self.shared;
        Some(key.clone())
    }

    /// The deadline of a room that has become empty, or of one with clients without a name, of which
    /// one has gone; to stand in the wheel. Without memory for it, an empty room ends at once.
    pub(super) fn deadline(
        &mut self,
        ended_unnamed: bool,
        is_full: impl FnOnce() -> bool,
        now: Time,
    ) -> Option<Time> {
        if self.timed && !ended_unnamed {
            return None;
        }
        // From here on the number of clients without a name is not lent.
        let is_empty = self.present == 0 && self.unnamed == 0;
        if !is_empty && !ended_unnamed {
            return None;
        }
        let had = self.timed;
        match is_full() {
            true if is_empty => (self.timed, self.occupied) = (false, false),
            true => {}
            false => {
                self.timed = true;
                self.lend();
            }
        }
        (self.timed && !had).then(|| after(now, VACATED_AFTER))
    }

    /// The deadline of the room has come: the next one, or none if it is empty for good.
    pub(super) fn vacate(&mut self, now: Time) -> Option<Time> {
        self.timed = false;
        self.recall();
        if self.present > 0 || self.unnamed > 0 {
            return None;
        }
        let until = after(self.last, VACATED_AFTER);
        if until > now {
            self.timed = true;
            self.lend();
            return Some(until);
        }
        self.occupied = false;
        None
    }

    /// Nothing is left of it.
    pub(super) fn is_over(&self) -> bool {
        self.unnamed == 0
            && self.users.is_empty()
            && !self.timed
            && !self.occupied
            && !self.occupancy_announced
            && !self.listed
    }
}

impl User {
    fn new(channel: ChannelName, user: Arc<str>, info: Option<Arc<str>>, now: Time) -> Self {
        Self {
            info,
            since: now,
            held: 0,
            holds: Holds::new(channel, Some(user)),
            until: Time(0),
            leaving: 0,
            leaves_until: Time(0),
            timed: false,
            present: false,
            announced: false,
            why: Why::Gone,
        }
    }
}
