//! The announcing of what has changed: joins and leaves of users, their number, the first client
//! and the last.

use super::{Room, User, cost_of};
use crate::hub::presence::Rooms;
use crate::hub::presence::event::Event;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Room {
    /// Nothing else is left to announce beside what was tried just now.
    pub(in crate::hub::presence) fn is_settled(&self) -> bool {
        !self.count_due && !self.stale
    }

    /// Announces what has changed about a user; false = it could not be announced.
    pub(in crate::hub::presence) fn settle(
        &mut self,
        key: &Arc<str>,
        rooms: &Rooms,
        announce: &mut impl FnMut(Event<'_>) -> bool,
    ) -> bool {
        let crowded = self.is_crowded();
        let full = self.announced >= self.settings.members && !self.shared;
        let Some(user) = self.users.get_mut(key) else { return true };
        let event = match (user.present, user.announced) {
            (true, true) => return true,
            (true, false) if crowded => {
                self.count_due = true;
                return true;
            }
            // The leaves of others come first.
            (true, false) if full => return false,
            (true, false) => Event::Join { user: key, info: user.info.as_deref() },
            (false, true) => Event::Leave { user: key, why: user.why },
            (false, false) => {
                self.count_due |= crowded;
                self.forget(key, rooms);
                return true;
            }
        };
        if !announce(event) {
            return false;
        }
        self.announced(key, rooms);
        true
    }

    /// What is true of a user is announced.
    pub(in crate::hub::presence) fn announced(&mut self, key: &Arc<str>, rooms: &Rooms) {
        let crowded = self.is_crowded();
        let Some(user) = self.users.get_mut(key) else { return };
        match (user.announced, user.present) {
            (false, true) => self.announced += 1,
            (true, false) => self.announced -= 1,
            _ => {}
        }
        user.announced = user.present;
        if !user.present {
            self.count_due |= crowded;
            self.forget(key, rooms);
        }
    }

    pub(super) fn forget(&mut self, key: &Arc<str>, rooms: &Rooms) {
        if let Some(user) = self.users.remove(key) {
            self.memory.give_back(cost_of(key, user.info.as_deref()));
            rooms.members.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Announces that the first client has come, or that the last is gone.
    pub(in crate::hub::presence) fn settle_occupancy(
        &mut self,
        announce: &mut impl FnMut(Event<'_>) -> bool,
    ) -> bool {
        if self.occupied == self.occupancy_announced {
            return true;
        }
        let event = if self.occupied { Event::Occupied } else { Event::Vacated };
        let done = announce(event);
        if done {
            self.occupancy_announced = self.occupied;
        }
        done
    }

    /// Announces all that there is; false = something could not be announced.
    pub(in crate::hub::presence) fn settle_all(
        &mut self,
        rooms: &Rooms,
        announce: &mut impl FnMut(Event<'_>) -> bool,
    ) -> bool {
        let open = |(_, user): &(&Arc<str>, &User)| user.present != user.announced;
        let mut keys: Vec<_> =
            self.users().filter(open).map(|(key, user)| (user.present, key.clone())).collect();
        keys.sort_by_key(|(present, _)| *present);
        self.stale = false;
        let mut settled = true;
        for (_, key) in keys {
            settled &= self.settle(&key, rooms, announce);
        }
        let counts = self.is_crowded() && self.counted != self.present;
        if self.count_due && (!counts || announce(Event::Count(self.present))) {
            (self.count_due, self.counted) = (false, self.present);
        }
        settled & self.settle_occupancy(announce)
    }
}
