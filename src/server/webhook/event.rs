//! Events as values and as JSON.

use crate::hub::channel::{ChannelName, Time};
use crate::hub::presence::Change;
use crate::protocol::pusher::App;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// The name of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventName {
    /// A user came to a channel.
    MemberAdded,
    /// A user is gone from a channel.
    MemberRemoved,
    /// The first client came to a channel.
    ChannelOccupied,
    /// No client is left on a channel.
    ChannelVacated,
}

impl EventName {
    /// All of them, with their names.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("member_added", Self::MemberAdded),
        ("member_removed", Self::MemberRemoved),
        ("channel_occupied", Self::ChannelOccupied),
        ("channel_vacated", Self::ChannelVacated),
    ];

    /// True if it is about channels, with presence or not.
    pub fn is_occupancy(self) -> bool {
        matches!(self, Self::ChannelOccupied | Self::ChannelVacated)
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, one)| one == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its name.
    pub name: EventName,
    /// The channel.
    pub channel: ChannelName,
    /// The user, if it is about one.
    pub user: Option<Arc<str>>,
}

impl Event {
    /// The event of a change.
    pub fn of(channel: &ChannelName, change: &Change) -> Self {
        let (name, user) = match change {
            Change::Joined(user) => (EventName::MemberAdded, Some(user.clone())),
            Change::Left(user) => (EventName::MemberRemoved, Some(user.clone())),
            Change::Occupied => (EventName::ChannelOccupied, None),
            Change::Vacated => (EventName::ChannelVacated, None),
        };
        Self { name, channel: channel.clone(), user }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    time_ms: u64,
    events: Vec<Shown<'a>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    name: EventName,
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    /// The same, as Pusher calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
}

/// The body of a request.
pub(super) fn body(events: &[Event], pusher: Option<&App>, now: Time) -> String {
    fn shown<'a>(event: &'a Event, pusher: Option<&App>) -> Shown<'a> {
        let name = event.name;
        let channel = event.channel.as_str();
        let user = event.user.as_deref();
        match pusher {
            None => Shown { name, channel, user, user_id: None },
            Some(app) => {
                let channel = app.name_of(channel).unwrap_or(channel);
                Shown { name, channel, user: None, user_id: user }
            }
        }
    }
    let events = events.iter().map(|event| shown(event, pusher)).collect();
    // Texts and numbers always are JSON.
    serde_json::to_string(&Body { time_ms: now.0 / 1000, events }).unwrap_or_default()
}
