//! A room of which a sequencer has the list: changes go there, and count as announced once it
//! acknowledges them.

use super::{Room, User};
use crate::hub::channel::Time;
use crate::hub::presence::event::Why;
use crate::hub::presence::{Rooms, ShareChange};
use std::sync::Arc;

impl Room {
    pub(in crate::hub::presence) fn members(&self) -> usize {
        self.settings.members
    }

    pub(in crate::hub::presence) fn share_changes(&mut self, most: usize) -> Vec<ShareChange> {
        self.noted = false;
        let open = |(_, user): &(&Arc<str>, &User)| user.present != user.announced;
        let change = |(key, user): (&Arc<str>, &User)| ShareChange {
            user: Some(key.clone()),
            info: user.info.clone(),
            since: user.since,
            present: user.present,
            why: user.why,
        };
        let mut changes: Vec<_> = self.users().filter(open).take(most).map(change).collect();
        // The event of an empty channel comes last, as all is forgotten of it then.
        let occupied = self.occupied != self.occupancy_announced;
        if occupied && (self.occupied || changes.len() < most) {
            let user = None;
            let info = None;
            let since = Time(0);
            let why = Why::Gone;
            changes.push(ShareChange { user, info, since, present: self.occupied, why });
        }
        changes
    }

    pub(in crate::hub::presence) fn acknowledged(
        &mut self,
        key: &Arc<str>,
        present: bool,
        rooms: &Rooms,
    ) {
        let Some(user) = self.users.get_mut(key) else { return };
        user.announced = present;
        if !user.present && !present {
            self.forget(key, rooms);
        }
    }

    pub(in crate::hub::presence) fn occupancy_acknowledged(&mut self, occupied: bool) {
        self.occupancy_announced = occupied;
    }

    pub(in crate::hub::presence) fn share_lost(&mut self, rooms: &Rooms) {
        self.occupancy_announced = false;
        self.reported_connections = 0;
        let gone: Vec<_> =
            self.users().filter(|(_, user)| !user.present).map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| self.forget(key, rooms));
        self.users.values_mut().for_each(|user| user.announced = false);
    }
}
