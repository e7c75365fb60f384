//! The guards of clients that are present.

use super::event::Why;
use super::holds::Holds;
use super::room::End;
use super::{Member, Presence, Settings};
use crate::hub::Hub;
use crate::hub::channel::{ChannelName, Time};
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A client that is held on a channel. Dropping it begins the user's grace.
pub struct Membership {
    hub: Hub,
    holds: Arc<Holds>,
    grace: Duration,
    end: End,
}

impl Membership {
    pub(super) fn new(hub: Hub, holds: Arc<Holds>, grace: Duration) -> Self {
        Self { hub, holds, grace, end: End::Grace }
    }

    /// The user it is for, if the client has a name and there was room for it.
    pub fn user(&self) -> Option<&str> {
        self.holds.user.as_deref()
    }

    /// The user has left: without a grace, if it is held nowhere else.
    pub fn leave(mut self) {
        self.end = End::Now(Why::Left);
    }

    /// The user's grant was revoked: it goes without a grace, if it is held nowhere else.
    pub fn revoke(mut self) {
        self.end = End::Now(Why::Revoked);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.hub.presence().exit(&self.holds, self.grace, self.end);
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Membership({:?}, {:?})", self.holds.channel, self.holds.user)
    }
}

/// The presence of a client on some channels: the guard of all of them, in one word, as there is one
/// in each held poll. Dropping it begins the user's graces.
#[derive(Default)]
pub struct Memberships(Option<Known>);

/// The memberships that a client had: it enters by them again without a search for them.
#[derive(Clone)]
pub struct Known(Arc<Entries>);

struct Entries {
    hub: Hub,
    /// That of the rules by which the client entered.
    generation: u64,
    each: SmallVec<[Entry; 1]>,
}

struct Entry {
    holds: Arc<Holds>,
    grace: Duration,
}

impl Memberships {
    /// The user's grant was revoked: it goes without a grace, where it is held nowhere else.
    pub fn revoke(&mut self) {
        if let Some(known) = self.0.take() {
            known.exit(End::Now(Why::Revoked), known.0.each.len());
        }
    }

    /// By these the client enters again, if it comes back for the same.
    pub fn known(&self) -> Option<&Known> {
        self.0.as_ref().filter(|known| known.0.each.len() <= Known::MAX_CHANNELS)
    }
}

impl Drop for Memberships {
    fn drop(&mut self) {
        if let Some(known) = &self.0 {
            known.exit(End::Grace, known.0.each.len());
        }
    }
}

impl Known {
    /// A client that polls more channels searches for them each time, so that a connection between
    /// two polls keeps little.
    const MAX_CHANNELS: usize = 4;

    /// The client enters again, if `channels` and `user` are the same, the rules have not changed
    /// and all of it has been there since; else nothing has happened.
    pub fn enter<'a>(
        self,
        channels: impl ExactSizeIterator<Item = &'a ChannelName>,
        user: Option<&str>,
    ) -> Option<Memberships> {
        let Entries { hub, generation, each } = &*self.0;
        let is_same = |(entry, channel): (&Entry, &ChannelName)| {
            entry.holds.channel == *channel && entry.holds.user.as_deref() == user
        };
        let same = channels.len() == each.len()
            && each.iter().zip(channels).all(is_same)
            && hub.presence().generation() == *generation;
        if !same {
            return None;
        }
        match each.iter().position(|entry| !entry.holds.begin()) {
            None => Some(Memberships(Some(self))),
            Some(begun) => {
                self.exit(End::Grace, begun);
                None
            }
        }
    }

    /// True if they are the same ones.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Ends the holds of the first `count` channels.
    fn exit(&self, end: End, count: usize) {
        let Entries { hub, each, .. } = &*self.0;
        let each = each.iter().take(count);
        each.for_each(|entry| hub.presence().exit(&entry.holds, entry.grace, end));
    }
}

/// A client that enters a channel.
pub struct Entrant<'a> {
    /// The channel.
    pub channel: &'a ChannelName,
    /// Its user; `None` = a client without a name.
    pub member: Option<&'a Member>,
    /// The channel's settings.
    pub settings: Arc<Settings>,
    /// How long its user stays after the hold.
    pub grace: Duration,
}

impl Presence<'_> {
    /// A client is held from now on, on the channels of `entrants`, and its users stay for their
    /// graces after that.
    pub fn enter_all<'a>(
        &self,
        entrants: impl IntoIterator<Item = Entrant<'a>>,
        now: Time,
    ) -> Memberships {
        // Read before the settings of the channels are.
        let generation = self.generation();
        let enter = |entrant: Entrant<'_>| {
            let Entrant { channel, member, settings, grace } = entrant;
            Entry { holds: self.begin(channel, member, &settings, now), grace }
        };
        let each: SmallVec<[Entry; 1]> = entrants.into_iter().map(enter).collect();
        if each.is_empty() {
            return Memberships::default();
        }
        Memberships(Some(Known(Arc::new(Entries { hub: self.hub.clone(), generation, each }))))
    }

    /// A hold has ended.
    fn exit(&self, holds: &Holds, grace: Duration, end: End) {
        // The sweep keeps this time younger than its interval.
        let now = Time(self.hub.shared.latest.load(Ordering::SeqCst));
        let user = holds.user.as_ref();
        let until = super::room::after(now, if user.is_some() { grace } else { Duration::ZERO });
        if end == End::Grace && holds.end(until) {
            return;
        }
        self.change(&holds.channel, now, |room| room.exit(user, grace, end, now));
    }
}
