//! Held polls: their registration and their wakes.

use super::notifier::{Notifier, WakeHandle};
use super::table::Class;
use super::{Answer, Channel, ChannelUpdate, Hub, State, Subscription, TableFull};
use crate::hub::channel::{ChannelName, Cursor, Lookup, Position, Stamp, Take, Time};
use slab::Slab;
use smallvec::SmallVec;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

/// The registration of one held poll on its channels; dropping it ends the registration.
pub struct Waiter {
    pub(super) hub: Hub,
    pub(super) notifier: Arc<Notifier>,
    pub(super) registrations: SmallVec<[Registration; 1]>,
    /// The result at registration: positions to continue from, and the quiet answer.
    pub(super) registered: Answer,
    /// Channels whose cursors cannot be placed yet. One word in each held poll, as it is nearly
    /// always empty.
    #[allow(clippy::box_collection)]
    pub(super) unresolved: Option<Box<Vec<(usize, Unresolved)>>>,
    pub(super) take: Take,
    counted: bool,
    no_wait: bool,
    /// It stays registered where there is news.
    streams: bool,
}

/// A cursor that is placed later, where a sequencer gives the positions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unresolved {
    pub(super) cursor: Cursor,
    /// Time of the poll.
    pub(super) arrived: Time,
    /// Number of the read after which any cursor can be placed; `None` = no read needed.
    pub(super) read: Option<u64>,
    /// The cursor was looked at after that read and there was just nothing new: a cursor in the
    /// channel's time may be ahead of the newest message here.
    pub(super) quiet: bool,
}

/// A waiter that a look into a channel may register there.
#[derive(Clone, Copy)]
pub(super) struct Hold<'a> {
    pub(super) notifier: &'a Arc<Notifier>,
    /// It waits on several channels.
    pub(super) several: bool,
}

/// The registration that a look into a channel leaves there.
#[derive(Clone, Copy)]
pub(super) enum Register<'a> {
    Never,
    /// A poll's: news answers it, and ends it.
    IfQuiet(Hold<'a>),
    /// A stream's: it stays.
    Always(Hold<'a>),
}

impl<'a> Register<'a> {
    /// The waiter to register after `found`.
    pub(super) fn after(self, found: &Lookup) -> Option<&'a Arc<Notifier>> {
        match self {
            Self::Never => None,
            Self::IfQuiet(hold) => (!found.has_update).then_some(hold.notifier),
            Self::Always(hold) => Some(hold.notifier),
        }
    }

    /// It waits on several channels.
    pub(super) fn on_several(self) -> bool {
        match self {
            Self::Never => false,
            Self::IfQuiet(hold) | Self::Always(hold) => hold.several,
        }
    }

    pub(super) fn is_never(self) -> bool {
        matches!(self, Self::Never)
    }
}

/// The result of a look into one channel.
pub(super) struct Look {
    pub(super) update: ChannelUpdate,
    pub(super) registration: Option<Registration>,
    pub(super) unresolved: Option<Unresolved>,
}

/// A waiter's registration on one channel.
pub(super) struct Registration {
    pub(super) channel: Arc<Channel>,
    pub(super) key: usize,
    pub(super) round: u64,
}

impl Registration {
    /// The round of a registration that has ended.
    const ENDED: u64 = u64::MAX;

    pub(super) fn end(&mut self, hub: &Hub) {
        if self.round == Self::ENDED && !self.channel.is_listed_as(Class::Waiting) {
            return;
        }
        let channel = self.channel.clone();
        let mut state = channel.state.lock();
        self.end_locked(&mut state);
        let abandoned = !state.stored && !state.forgotten && state.waiters.is_empty();
        drop(state);
        if abandoned {
            hub.release(&channel.name);
        }
    }

    fn end_locked(&mut self, state: &mut State) {
        // In a later round, or once it has ended, the key may be another waiter's.
        if state.round == self.round {
            state.waiters.try_remove(self.key);
        }
        self.round = Self::ENDED;
    }

    /// Looks into the channel for messages after `registered`; registers again where there are
    /// none.
    fn look_again(
        &mut self,
        hub: &Hub,
        register: Register<'_>,
        registered: &ChannelUpdate,
        take: Take,
        unresolved: &mut Option<Unresolved>,
        now: Time,
    ) -> Result<ChannelUpdate, TableFull> {
        let cursor = match unresolved {
            None => Cursor::At(registered.found.position),
            Some(unresolved) => unresolved.cursor,
        };
        let channel = self.channel.clone();
        let mut state = channel.state.lock();
        self.end_locked(&mut state);
        if state.forgotten {
            drop(state);
            let channel = registered.channel.clone();
            let subscription = Subscription { channel, cursor };
            let looked = hub.look_at(&subscription, take, register, now)?;
            *unresolved = looked.unresolved;
            if let Some(registration) = looked.registration {
                *self = registration;
            }
            return Ok(looked.update);
        }
        let was_unplaced = unresolved.is_some();
        let found = hub.with_trimmed(&mut state, now, |state| match *unresolved {
            // A position from here is good for ever: a history that began anew since then resets
            // it.
            None => {
                let found = state.history.since(cursor, take, state.limits.tick, now);
                match state.feed {
                    None => found,
                    // Messages of before may still be on their way.
                    Some(_) => Lookup { as_of: Time(0), ..found },
                }
            }
            Some(cursor) => {
                let (found, still) = state.place(cursor, take, now);
                *unresolved = still;
                found
            }
        });
        if let Some(notifier) = register.after(&found) {
            self.key = state.waiters.insert(notifier.clone());
            self.round = state.round;
        }
        if let (Some(feed), Register::Always(_)) = (&mut state.feed, register) {
            // A stream does not poll again.
            feed.touch(now);
        }
        if !found.has_update && !was_unplaced {
            let mut quiet = registered.clone();
            quiet.found.as_of = found.as_of;
            return Ok(quiet);
        }
        Ok(ChannelUpdate { channel: registered.channel.clone(), tick: registered.tick, found })
    }
}

impl Unresolved {
    fn of(index: usize, all: &mut Vec<(usize, Self)>) -> Option<Self> {
        let at = all.iter().position(|(of, _)| *of == index)?;
        Some(all.swap_remove(at).1)
    }
}

impl Waiter {
    pub(super) fn new(hub: Hub, take: Take) -> Self {
        Self {
            hub,
            notifier: Arc::default(),
            registrations: SmallVec::new(),
            registered: Answer::new(),
            unresolved: None,
            take,
            counted: false,
            no_wait: false,
            streams: false,
        }
    }

    /// A waiter that stays registered while what was found is sent.
    pub(super) fn for_stream(hub: Hub, take: Take) -> Self {
        let mut waiter = Self::new(hub, take);
        waiter.streams = true;
        waiter
    }

    pub(super) fn notifier(&self) -> &Arc<Notifier> {
        &self.notifier
    }

    pub(super) fn register(
        &mut self,
        registration: Option<Registration>,
        unresolved: Option<Unresolved>,
    ) {
        if let Some(unresolved) = unresolved.filter(|_| registration.is_some()) {
            self.unresolved.get_or_insert_default().push((self.registrations.len(), unresolved));
        }
        self.registrations.extend(registration);
    }

    pub(super) fn hold(&mut self, registered: Answer) {
        self.registered = registered;
        if !self.counted {
            self.counted = true;
            self.hub.shared.held.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until a publish wakes the poll; then call [`Waiter::look`]. Cancelling loses nothing.
    pub async fn notified(&self) {
        poll_fn(|context| self.poll_notified(context)).await;
    }

    /// The same for a task that waits for more than that.
    pub fn poll_notified(&self, context: &mut Context<'_>) -> Poll<()> {
        self.notifier.poll_claimed(context)
    }

    /// The updates since the poll was registered. Without any, the poll stays registered and the
    /// result is `None`: the wake was for something it had already.
    pub fn look(&mut self, now: Time) -> Option<Answer> {
        let now = self.hub.time(now);
        let mut has_update = false;
        let mut placed = false;
        let mut answer = Answer::new();
        let mut unresolved = self.unresolved.take();
        let mut still = Vec::new();
        for (index, (registered, registration)) in
            self.registered.iter().zip(&mut self.registrations).enumerate()
        {
            let mut own = unresolved.as_deref_mut().and_then(|all| Unresolved::of(index, all));
            let was_unplaced = own.is_some();
            // A table without room (the channel was forgotten meanwhile) leaves the poll as it is;
            // the client's next poll gets the error.
            // The limit of waiters on several channels stood at the first look.
            let hold = Hold { notifier: &self.notifier, several: true };
            let register = match self.streams {
                true => Register::Always(hold),
                false => Register::IfQuiet(hold),
            };
            let hub = &self.hub;
            let update =
                registration.look_again(hub, register, registered, self.take, &mut own, now);
            let update = update.unwrap_or_else(|TableFull| registered.clone());
            has_update |= update.found.has_update;
            placed |= was_unplaced;
            still.extend(own.map(|own| (index, own)));
            answer.push(update);
        }
        self.unresolved = (!still.is_empty()).then(|| Box::new(still));
        if placed && !has_update {
            self.registered = answer;
            return None;
        }
        has_update.then_some(answer)
    }

    /// True if a channel cannot be looked at yet, because its cursor is not placed.
    pub fn is_unresolved(&self) -> bool {
        self.unresolved.as_ref().is_some_and(|all| all.iter().any(|(_, one)| !one.quiet))
    }

    /// Makes the poll wait only until all its cursors are placed.
    pub fn set_no_wait(&mut self, no_wait: bool) {
        self.no_wait = no_wait;
    }

    /// True if such a poll is due for its answer.
    pub fn is_due(&self) -> bool {
        self.no_wait && !self.is_unresolved()
    }

    /// True if the gate is draining, so that the poll gets the quiet answer.
    pub fn is_draining(&self) -> bool {
        self.hub.is_draining()
    }

    /// True if the site of its channels is gone, so that no message can come.
    pub fn has_lost_site(&self) -> bool {
        // All channels of a poll are of one site.
        let lost = |name: &ChannelName| {
            !name.site().is_empty() && self.hub.shared.settings.read().site_of(name).is_none()
        };
        self.channels().next().is_some_and(lost)
    }

    /// A handle that wakes this poll.
    pub fn wake_handle(&self) -> WakeHandle {
        WakeHandle(self.notifier.clone())
    }

    /// Ends the hold: returns the updates since it began, or the quiet answer.
    pub fn finish(&mut self, now: Time) -> Answer {
        self.look(now).unwrap_or_else(|| std::mem::take(&mut self.registered))
    }

    /// Where a stream's client is in its channels, with nothing new in any of them.
    pub fn place(&self) -> &Answer {
        &self.registered
    }

    /// A stream's client is at the `place` of its channel `index`.
    pub fn advance(&mut self, index: usize, place: &Lookup) {
        if let Some(ChannelUpdate { found, .. }) = self.registered.get_mut(index) {
            (found.position, found.stamp) = (place.position, place.stamp);
            (found.tag, found.before) = (place.tag, place.before);
        }
    }

    /// A stream's client has got all up to `position` of its channel `index`.
    pub fn advance_to(&mut self, index: usize, position: Position, stamp: Stamp) {
        if let Some(ChannelUpdate { found, .. }) = self.registered.get_mut(index) {
            (found.position, found.stamp) = (position, stamp);
        }
    }

    /// Positions of its channels at registration.
    pub fn positions(&self) -> impl Iterator<Item = Position> {
        self.registered.iter().map(|update| update.found.position)
    }

    /// The channels it waits on.
    pub fn channels(&self) -> impl Iterator<Item = &ChannelName> {
        self.registered.iter().map(|update| &update.channel)
    }

    fn deregister(&mut self) {
        for mut registration in self.registrations.drain(..) {
            registration.end(&self.hub);
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.deregister();
        if self.counted {
            self.hub.shared.held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.channels()).finish()
    }
}

/// The waiters that a publish has taken off its channel, for waking in batches.
///
/// Dropping it wakes the rest: a wake cannot be lost, only be late.
#[derive(Default)]
pub struct WakeSet {
    notifiers: Vec<Arc<Notifier>>,
}

impl WakeSet {
    pub(super) fn new(waiters: Slab<Arc<Notifier>>) -> Self {
        Self { notifiers: waiters.into_iter().map(|(_, notifier)| notifier).collect() }
    }

    /// Claims the polls for this publish and returns how many it releases: those that no other
    /// publish has claimed before. Only those remain in the set.
    pub fn claim(&mut self) -> usize {
        self.notifiers.retain(|notifier| notifier.claim());
        self.notifiers.len()
    }

    /// Number of polls still to wake.
    pub fn len(&self) -> usize {
        self.notifiers.len()
    }

    /// True if all were woken.
    pub fn is_empty(&self) -> bool {
        self.notifiers.is_empty()
    }

    /// Wakes at most `most` of the claimed polls; true while there are more.
    pub fn notify(&mut self, most: usize) -> bool {
        let rest = self.notifiers.len().saturating_sub(most);
        for notifier in self.notifiers.drain(rest..) {
            notifier.notify();
        }
        !self.notifiers.is_empty()
    }
}

impl Drop for WakeSet {
    fn drop(&mut self) {
        for notifier in self.notifiers.drain(..) {
            notifier.claim();
            notifier.notify();
        }
    }
}

impl fmt::Debug for WakeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WakeSet({})", self.notifiers.len())
    }
}
