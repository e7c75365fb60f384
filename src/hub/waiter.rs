//! Held polls: their registration and their wakes.

use super::interest::Interest;
use super::notifier::{Notifier, WakeHandle};
use super::registration::{Hold, Register, Registration, Unresolved};
use super::{Answer, ChannelUpdate, Hub, TableFull};
use crate::hub::channel::{ChannelName, Lookup, Position, Stamp, Take, Time};
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
    /// The messages that it wants; `None` = all.
    interest: Option<Arc<Interest>>,
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
            interest: None,
        }
    }

    /// A waiter that stays registered while what was found is sent.
    pub(super) fn for_stream(hub: Hub, take: Take, interest: Option<Arc<Interest>>) -> Self {
        let mut waiter = Self::new(hub, take);
        waiter.streams = true;
        waiter.interest = interest;
        waiter
    }

    /// True for a stream that gets all messages, and whose cursors are placed.
    pub(super) fn follows_all(&self) -> bool {
        self.streams && self.interest.is_none() && self.unresolved.is_none()
    }

    /// Itself, to be registered on a channel.
    pub(super) fn to_hold(&self, several: bool) -> Hold<'_> {
        Hold { notifier: &self.notifier, several, interest: self.interest.as_ref() }
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
            let interest = self.interest.as_ref();
            let hold = Hold { notifier: &self.notifier, several: true, interest };
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
        self.see_drain();
        if placed && !has_update {
            self.registered = answer;
            return None;
        }
        has_update.then_some(answer)
    }

    /// Claims itself if a drain has not found its registration, which came after it: the next wait
    /// ends at once.
    pub(super) fn see_drain(&self) {
        // Read after the registration, as for a poll's first look.
        if self.hub.is_draining() {
            self.notifier.claim();
        }
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
