//! Ends graces and announces what could not be announced before.

use super::event::Event;
use super::{After, Presence, Shard, put};
use crate::hub::channel::{ChannelName, Time};

/// Deadlines that are looked at with one lock.
const BATCH: usize = 256;

impl Presence<'_> {
    /// Ends the graces that are over. The caller runs this every second.
    pub fn sweep(&self, now: Time) {
        let now = self.hub.time(now);
        if self.is_paused() {
            return;
        }
        for index in 0..self.rooms().shards.len() {
            while self.expire_some(index, now) {}
            self.settle_shard(index, now);
        }
    }

    /// Looks at some deadlines; true = there may be more.
    fn expire_some(&self, index: usize, now: Time) -> bool {
        let mut after = Vec::new();
        let more = {
            let mut shard = self.rooms().shards[index].lock();
            let due = due(&mut shard, now);
            let more = due.len() == BATCH;
            for (channel, user) in due {
                let Shard { rooms, wheel, unsettled } = &mut *shard;
                let Some(room) = rooms.get_mut(&channel) else { continue };
                let next = match &user {
                    Some(user) => room.expire(user, now),
                    None => room.vacate(now),
                };
                if let Some(until) = next {
                    put(wheel, until, (channel.clone(), user.clone()));
                }
                if user.is_some()
                    && let Some(until) = room.deadline(false, || false, now)
                {
                    put(wheel, until, (channel.clone(), None));
                }
                let mut done = After::default();
                self.settle(&channel, room, user.as_ref(), unsettled, now, &mut done);
                self.drop_if_over(&mut shard, &channel);
                after.push((channel, done));
            }
            more
        };
        after.into_iter().for_each(|(channel, done)| self.finish(&channel, done));
        more
    }

    /// Announces what is left over in a shard.
    fn settle_shard(&self, index: usize, now: Time) {
        let mut after = Vec::new();
        {
            let mut shard = self.rooms().shards[index].lock();
            for channel in std::mem::take(&mut shard.unsettled) {
                let Shard { rooms, unsettled, .. } = &mut *shard;
                let Some(room) = rooms.get_mut(&channel) else { continue };
                let mut done = After::default();
                let mut announce =
                    |event: Event<'_>| self.announce(&channel, event, now, &mut done);
                let settled = room.settle_all(self.rooms(), &mut announce) && room.is_settled();
                room.listed = !settled;
                if !settled {
                    unsettled.push(channel.clone());
                    done.unsettled = !std::mem::replace(&mut room.noted, true);
                }
                self.drop_if_over(&mut shard, &channel);
                after.push((channel, done));
            }
        }
        after.into_iter().for_each(|(channel, done)| self.finish(&channel, done));
    }

    pub(super) fn drop_if_over(&self, shard: &mut Shard, channel: &ChannelName) {
        if shard.rooms.get(channel).is_some_and(|room| room.is_over()) {
            let room = shard.rooms.remove(channel);
            room.into_iter().for_each(|room| room.end(channel));
        }
    }
}

/// Takes some deadlines that have come out of the wheel.
fn due(shard: &mut Shard, now: Time) -> Vec<super::Deadline> {
    let mut due = Vec::new();
    while due.len() < BATCH
        && let Some(mut slot) = shard.wheel.first_entry()
        && *slot.key() <= now.0 / 1_000_000
    {
        let left = slot.get().len().saturating_sub(BATCH - due.len());
        due.extend(slot.get_mut().drain(left..));
        if slot.get().is_empty() {
            slot.remove();
        }
    }
    due
}
