//! Streams whose channels change while they last: a socket that subscribes and unsubscribes.

use super::registration::Register;
use super::waiter::Waiter;
use super::{ChannelUpdate, Subscription, TableFull};
use crate::hub::channel::Time;

impl Waiter {
    /// Goes on with one more channel, behind the others; an error leaves it as it was. Its client
    /// is before the messages that the update has for it.
    ///
    /// Only for the waiter of a stream.
    pub fn add(
        &mut self,
        subscription: &Subscription,
        now: Time,
    ) -> Result<ChannelUpdate, TableFull> {
        let now = self.hub.time(now);
        let hold = self.to_hold(!self.registrations.is_empty());
        let looked = self.hub.look_at(subscription, self.take, Register::Always(hold), now)?;
        self.register(looked.registration, looked.unresolved);
        self.registered.push(looked.update.start());
        Ok(looked.update)
    }

    /// Goes on without the channel at `index`; those behind it move up.
    pub fn remove(&mut self, index: usize) {
        if index >= self.registrations.len() || index >= self.registered.len() {
            return;
        }
        self.registrations.remove(index).end(&self.hub);
        self.registered.remove(index);
        if let Some(mut unresolved) = self.unresolved.take() {
            unresolved.retain(|(of, _)| *of != index);
            unresolved.iter_mut().filter(|(of, _)| *of > index).for_each(|(of, _)| *of -= 1);
            self.unresolved = (!unresolved.is_empty()).then_some(unresolved);
        }
    }

    /// True if the channel at `index` cannot be looked at yet, because its cursor is not placed.
    pub fn is_unresolved_at(&self, index: usize) -> bool {
        let unresolved = self.unresolved.as_ref();
        unresolved.is_some_and(|all| all.iter().any(|(of, one)| *of == index && !one.quiet))
    }
}
