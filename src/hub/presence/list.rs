//! The list of a channel's users, with the position from which its changes go on.

use super::{Presence, companion};
use crate::hub::channel::{ChannelName, Cursor, Take, Time};
use crate::hub::{ChannelUpdate, Subscription};
use std::sync::Arc;

/// The users on a channel at one moment.
#[derive(Debug, Clone)]
pub struct Roster {
    /// The channel.
    pub channel: ChannelName,
    /// The end of its joins and leaves at that moment, with nothing new.
    pub place: ChannelUpdate,
    /// Number of users.
    pub count: usize,
    /// Clients that are held, also those without a name.
    pub connections: usize,
    /// The users who have joined, the earliest first.
    pub members: Vec<Listed>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub user: Arc<str>,
    /// More about it, as JSON.
    pub info: Option<Arc<str>>,
    /// Since when it is there.
    pub since: Time,
}

impl Presence<'_> {
    /// The users on a channel here; `None` if the channel can have none.
    pub fn members(&self, channel: &ChannelName, now: Time) -> Option<Roster> {
        let companion = companion(channel)?;
        let shard = self.shard_of(channel).lock();
        let room = shard.rooms.get(channel);
        let (count, connections) = room.map_or((0, 0), |room| (room.present(), room.connections()));
        let mut members: Vec<Listed> = room
            .into_iter()
            .flat_map(|room| room.users())
            .filter(|(_, one)| one.announced)
            .map(|(user, one)| Listed {
                user: user.clone(),
                info: one.info.clone(),
                since: one.since,
            })
            .collect();
        // Read under the lock that every announcement takes.
        let place = self.place(&companion, now)?;
        drop(shard);
        members.sort_unstable_by(|a, b| (a.since, &a.user).cmp(&(b.since, &b.user)));
        Some(Roster { channel: channel.clone(), place, count, connections, members })
    }

    /// The present end of a channel.
    pub fn place(&self, companion: &ChannelName, now: Time) -> Option<ChannelUpdate> {
        let subscription = Subscription { channel: companion.clone(), cursor: Cursor::Now };
        self.hub.look(&[subscription], Take::All, now).ok()?.pop()
    }
}
