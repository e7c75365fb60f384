//! This gate's share of the users, where a sequencer has the list.
//!
//! Here, "announced" is what the sequencer has acknowledged.

use super::event::{Change, Why};
use super::{After, Presence, Shard};
use crate::hub::channel::{ChannelName, Time};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A change for the sequencer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareChange {
    /// The user; `None` = the channel itself, on which there are clients or none.
    pub user: Option<Arc<str>>,
    /// More about the user, as JSON.
    pub info: Option<Arc<str>>,
    /// Since when the user is here.
    pub since: Time,
    /// It is here now.
    pub present: bool,
    /// The reason why it is not.
    pub why: Why,
}

impl Presence<'_> {
    /// Changes on a channel that the sequencer was not told of, `most` of them: users before the
    /// channel itself.
    pub fn share_changes(&self, channel: &ChannelName, most: usize) -> Vec<ShareChange> {
        if self.is_paused() {
            return Vec::new();
        }
        let mut shard = self.shard_of(channel).lock();
        let room = shard.rooms.get_mut(channel);
        room.map_or_else(Vec::new, |room| room.share_changes(most))
    }

    /// The sequencer has acknowledged a change.
    pub fn share_acknowledged(&self, channel: &ChannelName, change: &ShareChange) {
        let mut shard = self.shard_of(channel).lock();
        let Shard { rooms, .. } = &mut *shard;
        let Some(room) = rooms.get_mut(channel) else { return };
        match &change.user {
            Some(user) => room.acknowledged(user, change.present, self.rooms()),
            None => room.occupancy_acknowledged(change.present),
        }
        self.drop_if_over(&mut shard, channel);
    }

    /// The sequencer may have forgotten all changes.
    pub fn share_lost(&self) {
        for index in 0..self.rooms().shards.len() {
            let mut open = Vec::new();
            {
                let mut shard = self.rooms().shards[index].lock();
                let Shard { rooms, unsettled, .. } = &mut *shard;
                for (channel, room) in rooms {
                    room.share_lost(self.rooms());
                    if !std::mem::replace(&mut room.listed, true) {
                        unsettled.push(channel.clone());
                    }
                    room.noted = true;
                    open.push(channel.clone());
                }
            }
            for channel in open {
                self.finish(&channel, After { unsettled: true, ..After::default() });
            }
        }
    }

    /// Passes on a change for all gates together.
    pub fn report(&self, channel: &ChannelName, change: &Change, now: Time) {
        let sinks = self.rooms().sinks.read().clone();
        (sinks.change)(channel, change, now);
    }

    /// Clients that are held on a channel here.
    pub fn connections(&self, channel: &ChannelName) -> usize {
        let shard = self.shard_of(channel).lock();
        shard.rooms.get(channel).map_or(0, super::Room::connections)
    }

    /// Channels on which other clients are held than the sequencer knows, and their numbers: of one
    /// of several equal parts of all channels, and `most` of them.
    pub fn connection_changes(
        &self,
        (part, parts): (usize, usize),
        most: usize,
    ) -> Vec<(ChannelName, usize)> {
        let mut changes = Vec::new();
        if self.is_paused() {
            return changes;
        }
        for shard in self.rooms().shards.iter().skip(part).step_by(parts) {
            let shard = shard.lock();
            let each =
                shard.rooms.iter().map(|(channel, room)| (channel, room, room.connections()));
            let changed = each.filter(|(channel, room, now)| {
                room.reported_connections != *now && super::has_companion(channel)
            });
            let changed = changed.map(|(channel, _, now)| (channel.clone(), now));
            changes.extend(changed.take(most - changes.len()));
        }
        changes
    }

    /// The sequencer knows these numbers.
    pub fn connections_reported(&self, numbers: &[(ChannelName, usize)]) {
        for (channel, number) in numbers {
            if let Some(room) = self.shard_of(channel).lock().rooms.get_mut(channel) {
                room.reported_connections = *number;
            }
        }
    }

    /// Users of a channel that are listed at the most.
    pub fn most_listed(&self, channel: &ChannelName) -> usize {
        let known = {
            let shard = self.shard_of(channel).lock();
            shard.rooms.get(channel).map(super::Room::members)
        };
        let settings = || self.settings(channel).unwrap_or_default().members;
        known.unwrap_or_else(settings)
    }

    /// Number of users on all channels here.
    pub fn count(&self) -> u64 {
        self.rooms().members.load(Ordering::Relaxed)
    }
}
