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
    /// A client of a Pusher app sent an event.
    ClientEvent,
    /// A client came to a cache channel of a Pusher app that has no event.
    CacheMiss,
    /// Another number of connections subscribe to a channel of a Pusher app.
    SubscriptionCount,
}

impl EventName {
    /// Those that happen on all channels, with their names.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("member_added", Self::MemberAdded),
        ("member_removed", Self::MemberRemoved),
        ("channel_occupied", Self::ChannelOccupied),
        ("channel_vacated", Self::ChannelVacated),
    ];

    /// Those and what only a Pusher app has.
    pub const OF_PUSHER: [(&'static str, Self); 7] = [
        Self::NAMES[0],
        Self::NAMES[1],
        Self::NAMES[2],
        Self::NAMES[3],
        ("client_event", Self::ClientEvent),
        ("cache_miss", Self::CacheMiss),
        ("subscription_count", Self::SubscriptionCount),
    ];

    /// True if it is about channels, with presence or not.
    pub fn is_occupancy(self) -> bool {
        matches!(self, Self::ChannelOccupied | Self::ChannelVacated)
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::OF_PUSHER.iter().find(|(_, one)| one == self).map_or("", |(name, _)| name);
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
    /// What else there is to say.
    pub detail: Detail,
}

/// What some events say besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    /// Nothing.
    None,
    /// The number of connections that subscribe.
    Count(usize),
    /// An event that a client sent.
    Sent(Arc<Sent>),
}

/// An event that a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its name.
    pub event: Box<str>,
    /// Its data: a string as it is, any other value as JSON.
    pub data: Box<str>,
    /// The id of the connection that sent it.
    pub socket: Box<str>,
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
        Self { name, channel: channel.clone(), user, detail: Detail::None }
    }

    /// The memory that it takes besides that of all events, in bytes.
    pub(super) fn weight(&self) -> usize {
        match &self.detail {
            Detail::Sent(sent) => sent.event.len() + sent.data.len() + sent.socket.len(),
            Detail::None | Detail::Count(_) => 0,
        }
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
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    /// The same, as Pusher calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
}

/// The body of a request.
pub(super) fn body(events: &[Event], pusher: Option<&App>, now: Time) -> String {
    fn shown<'a>(event: &'a Event, pusher: Option<&App>) -> Shown<'a> {
        let channel = event.channel.as_str();
        let user = event.user.as_deref();
        let (channel, user, user_id) = match pusher {
            None => (channel, user, None),
            Some(app) => (app.name_of(channel).unwrap_or(channel), None, user),
        };
        let (sent, subscription_count) = match &event.detail {
            Detail::None => (None, None),
            Detail::Count(count) => (None, Some(*count)),
            Detail::Sent(sent) => (Some(&**sent), None),
        };
        Shown {
            name: event.name,
            channel,
            event: sent.map(|sent| &*sent.event),
            data: sent.map(|sent| &*sent.data),
            socket_id: sent.map(|sent| &*sent.socket),
            subscription_count,
            user,
            user_id,
        }
    }
    let events = events.iter().map(|event| shown(event, pusher)).collect();
    // Texts and numbers always are JSON.
    serde_json::to_string(&Body { time_ms: now.0 / 1000, events }).unwrap_or_default()
}
