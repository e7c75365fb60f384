//! The users as values, for a process that continues the table.

use super::room::after;
use super::{Presence, Shard, put};
use crate::hub::channel::{ChannelName, Time};
use std::sync::Arc;

/// One user of a channel in a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDump {
    /// The channel.
    pub channel: ChannelName,
    /// The user.
    pub user: Arc<str>,
    /// More about it, as JSON.
    pub info: Option<Arc<str>>,
    /// Since when it is there.
    pub since: Time,
    /// It is there.
    pub present: bool,
    /// Its join was announced, and no leave since.
    pub announced: bool,
}

impl Presence<'_> {
    /// The users on all channels. Exact only while nothing is announced ([`Presence::pause`]).
    pub fn dump(&self) -> Vec<MemberDump> {
        let mut all = Vec::new();
        for shard in &self.rooms().shards {
            let shard = shard.lock();
            for (channel, room) in &shard.rooms {
                all.extend(room.users().map(|(user, one)| MemberDump {
                    channel: channel.clone(),
                    user: user.clone(),
                    info: one.info.clone(),
                    since: one.since,
                    present: one.present,
                    announced: one.announced,
                }));
            }
        }
        all
    }

    /// Adds a user of an earlier table, with a fresh grace. One without room is
    /// left out.
    pub fn restore(&self, member: MemberDump, now: Time) {
        let now = self.hub.time(now);
        let MemberDump { channel, user, info, since, present, announced } = member;
        let shared = self.hub.is_replica();
        if self.rooms().memory.is_full() || shared && !present {
            return;
        }
        let settings = self.settings(&channel).unwrap_or_default();
        let until = after(now, settings.grace);
        let mut shard = self.shard_of(&channel).lock();
        let Shard { rooms, wheel, unsettled } = &mut *shard;
        let room =
            rooms.entry(channel.clone()).or_insert_with(|| self.new_room(&channel, settings));
        // A sequencer knows of another process's share, not of this one's.
        let announced = announced && !shared;
        room.restore((user.clone(), info, since), (present, announced), until, self.rooms());
        if present {
            put(wheel, until, (channel.clone(), Some(user)));
        } else if let Some(until) = room.deadline(false, || false, now) {
            put(wheel, until, (channel.clone(), None));
        }
        if !std::mem::replace(&mut room.listed, true) {
            unsettled.push(channel);
        }
    }
}
