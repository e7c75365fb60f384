//! Looks into channels for a poll, and registers it where there is nothing for it.

use super::registration::{self, Register, Registration};
use super::{Answer, ChannelUpdate, Hub, Interest, PollOutcome, Subscription, TableFull, Waiter};
use crate::hub::channel::{Cursor, Take, Time};
use std::sync::Arc;

impl Hub {
    /// Looks into every channel of a poll. Registers a waiter where none has an update, unless
    /// `hold` is false: then it is a [`Hub::look`].
    pub fn poll(
        &self,
        subscriptions: &[Subscription],
        take: Take,
        hold: bool,
        now: Time,
    ) -> Result<PollOutcome, TableFull> {
        if !hold {
            return self.look(subscriptions, take, now).map(PollOutcome::Answer);
        }
        let now = self.time(now);
        let mut waiter = Waiter::new(self.clone(), take);
        let mut answer = Answer::new();
        let mut has_update = false;
        for subscription in subscriptions {
            let hold = waiter.to_hold(subscriptions.len() > 1);
            let looked = self.look_at(subscription, take, Register::IfQuiet(hold), now)?;
            has_update |= looked.update.found.has_update;
            answer.push(looked.update);
            waiter.register(looked.registration, looked.unresolved);
        }
        // Read after the registration: a drain that came before it has set the flag, one that comes
        // after it finds the registration.
        if has_update || self.is_draining() {
            return Ok(PollOutcome::Answer(answer));
        }
        waiter.hold(answer);
        Ok(PollOutcome::Waiting(waiter))
    }

    /// Looks into every channel of a stream and registers its waiter on all of them, news or not.
    /// The waiter is where the client is now: before the messages that the answer has for it.
    pub fn subscribe(
        &self,
        subscriptions: &[Subscription],
        take: Take,
        now: Time,
    ) -> Result<(Waiter, Answer), TableFull> {
        self.subscribe_for(subscriptions, take, None, now)
    }

    /// The same for a stream that wants some of the messages of one channel: others do not wake it,
    /// and its place moves past them. Each update may have messages that it does not want.
    pub fn subscribe_selectively(
        &self,
        subscription: &Subscription,
        interest: Interest,
        now: Time,
    ) -> Result<(Waiter, Answer), TableFull> {
        let interest = Some(Arc::new(interest));
        self.subscribe_for(std::slice::from_ref(subscription), Take::All, interest, now)
    }

    fn subscribe_for(
        &self,
        subscriptions: &[Subscription],
        take: Take,
        interest: Option<Arc<Interest>>,
        now: Time,
    ) -> Result<(Waiter, Answer), TableFull> {
        let now = self.time(now);
        let mut waiter = Waiter::for_stream(self.clone(), take, interest);
        let mut answer = Answer::new();
        for subscription in subscriptions {
            let hold = waiter.to_hold(subscriptions.len() > 1);
            let looked = self.look_at(subscription, take, Register::Always(hold), now)?;
            answer.push(looked.update);
            waiter.register(looked.registration, looked.unresolved);
        }
        waiter.hold(answer.iter().map(ChannelUpdate::start).collect());
        Ok((waiter, answer))
    }

    /// Looks into every channel of a poll that does not wait: the quiet state is an answer, too. It
    /// creates nothing.
    pub fn look(
        &self,
        subscriptions: &[Subscription],
        take: Take,
        now: Time,
    ) -> Result<Answer, TableFull> {
        let now = self.time(now);
        let look =
            |subscription| Ok(self.look_at(subscription, take, Register::Never, now)?.update);
        subscriptions.iter().map(look).collect()
    }

    /// Looks into one channel and registers as `register` says under the same lock.
    pub(super) fn look_at(
        &self,
        subscription: &Subscription,
        take: Take,
        register: Register<'_>,
        now: Time,
    ) -> Result<registration::Look, TableFull> {
        let name = &subscription.channel;
        loop {
            let channel = match self.table(name).touch(name, now) {
                Some(channel) => channel,
                None => match self.look_at_none(subscription, take, register, now) {
                    Some(looked) => return Ok(looked),
                    None => self.open_for_waiting(name, register.on_several(), now)?,
                },
            };
            let mut state = channel.state.lock();
            if state.forgotten {
                continue;
            }
            if !register.is_never() {
                state.polled = now;
            }
            let mut want = None;
            let looked = self.with_trimmed(&mut state, now, |state| {
                let tick = state.limits.tick;
                let (found, unresolved) = match state.feed {
                    None => {
                        state.history.pass_time(now);
                        let cursor = self.no_later_than(now, subscription.cursor);
                        (state.history.since(cursor, take, tick, now), None)
                    }
                    Some(_) => state.look_at_replica(subscription.cursor, take, now, &mut want),
                };
                let found = self.unless_moved(found, subscription.cursor);
                let registration = register.after(&found).map(|hold| {
                    Registration::new(&channel, state, hold, &found, unresolved.is_some())
                });
                let update = ChannelUpdate { channel: channel.name.clone(), tick, found };
                registration::Look { update, registration, unresolved }
            });
            let abandoned = !state.stored && state.is_unheld();
            drop(state);
            if abandoned {
                self.release(name);
            }
            self.request_sync(name, want);
            return Ok(looked);
        }
    }

    /// Looks into a channel that does not exist; `None` = a poll is to wait on it.
    pub(super) fn look_at_none(
        &self,
        subscription: &Subscription,
        take: Take,
        register: Register<'_>,
        now: Time,
    ) -> Option<registration::Look> {
        if self.is_replica() && !register.is_never() {
            return None;
        }
        let channel = subscription.channel.clone();
        let tick = self.tick(&channel);
        let history = self.unpublished(&channel, now);
        let found = if self.is_replica() {
            history.unresolved(subscription.cursor, tick, now)
        } else {
            let cursor = self.no_later_than(now, subscription.cursor);
            self.unless_moved(history.since(cursor, take, tick, now), subscription.cursor)
        };
        let update = ChannelUpdate { channel, tick, found };
        register.after(&update.found).is_none().then_some(registration::Look {
            update,
            registration: None,
            unresolved: None,
        })
    }

    /// A position in the table's time that is yet to come was not given out here.
    pub(super) fn no_later_than(&self, now: Time, cursor: Cursor) -> Cursor {
        match cursor {
            Cursor::At(position) if position.epoch == self.clock() && position.seq > now.0 => {
                // A floor may be ahead of the clock.
                let highest = self.shared.tables.highest_floor();
                if position.seq > highest.0 { Cursor::Lost } else { cursor }
            }
            cursor => cursor,
        }
    }
}
