//! The scripts of presence: builds their commands and reads their replies.

use super::{Scripts, new_epoch, number, snapshot};
use crate::hub::channel::{ChannelName, Limits, Snapshot, Time};
use crate::hub::presence::{Listed, ShareChange};
use crate::server::backplane::envelope;
use crate::server::backplane::keys::Keys;
use crate::server::backplane::link::text;
use redis::{Cmd, Script, Value, cmd};
use std::sync::Arc;
use std::time::Duration;

/// The scripts of presence.
pub(in crate::server::backplane) struct PresenceScripts {
    pub(super) change: Script,
    pub(super) users: Script,
    pub(super) lease: Script,
}

impl PresenceScripts {
    pub(super) fn new() -> Self {
        let publish = include_str!("publish.lua");
        let change = include_str!("presence.lua");
        let read = include_str!("read.lua");
        let users = include_str!("users.lua");
        let change = format!("local function publish(KEYS, ARGV)\n{publish}\nend\n{change}");
        let users = format!("local function read(KEYS, ARGV)\n{read}\nend\n{users}");
        Self {
            change: Script::new(&change),
            users: Script::new(&users),
            lease: Script::new(include_str!("lease.lua")),
        }
    }
}

/// A change of a gate's share.
pub(in crate::server::backplane) enum Act<'a> {
    /// A user, or the channel itself.
    User(&'a ShareChange),
    /// All of the gate's users are gone.
    Reap,
    /// The number of users may be announced.
    Count,
    /// The gate holds so many clients.
    Connections(usize),
}

/// Something that has changed for all gates together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server::backplane) enum Sign {
    Joined(Arc<str>),
    Left(Arc<str>),
    Occupied,
    Vacated,
    /// The number of users will be announced in a while.
    CountDue,
}

/// The users on a channel.
pub(in crate::server::backplane) struct Users {
    pub(in crate::server::backplane) place: Snapshot,
    pub(in crate::server::backplane) listed: Vec<Listed>,
    pub(in crate::server::backplane) count: usize,
    /// The gates, and the clients that each holds.
    pub(in crate::server::backplane) connections: Vec<(String, usize)>,
}

impl Scripts {
    /// Changes the share of `gate` in the users whose joins and leaves are on `companion`; up to
    /// `most` of them are listed.
    pub(in crate::server::backplane) fn change_presence(
        &self,
        keys: &Keys,
        companion: &ChannelName,
        limits: &Limits,
        (gate, most): (&str, usize),
        act: &Act<'_>,
    ) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(self.presence.change.get_hash()).arg(7);
        call.arg(keys.state(companion)).arg(keys.history(companion)).arg(keys.users(companion));
        call.arg(keys.beyond(companion)).arg(keys.pause(companion));
        call.arg(keys.gate(Keys::partition(companion), gate)).arg(keys.connections(companion));
        call.arg(keys.pushes(companion)).arg(self.push()).arg(new_epoch());
        call.arg(envelope::letter(crate::hub::channel::Kind::Json)).arg("application/json").arg("");
        call.arg(limits.messages)
            .arg(limits.bytes)
            .arg(super::age(limits))
            .arg(limits.tick.micros());
        let word = match act {
            Act::User(change) if change.present => "enter",
            Act::User(_) => "exit",
            Act::Reap => "reap",
            Act::Count => "count",
            Act::Connections(_) => "connections",
        };
        call.arg(word).arg(gate).arg(companion.qualified()).arg(most);
        if let Act::Connections(number) = act {
            call.arg(number);
        }
        if let Act::User(change) = act {
            let user = change.user.as_deref().unwrap_or_default();
            // A text has no line feed as JSON.
            let json = serde_json::Value::from(user).to_string();
            call.arg(user).arg(json).arg(change.info.as_deref().unwrap_or("null"));
            call.arg(change.why.as_str()).arg(change.since.0);
        }
        call
    }

    pub(in crate::server::backplane) fn users(&self, keys: &Keys, companion: &ChannelName) -> Cmd {
        let mut call = cmd("EVALSHA_RO");
        call.arg(self.presence.users.get_hash()).arg(4);
        call.arg(keys.state(companion)).arg(keys.history(companion)).arg(keys.users(companion));
        call.arg(keys.connections(companion));
        call
    }

    /// Renews the lease of `gate`.
    pub(in crate::server::backplane) fn lease(
        &self,
        keys: &Keys,
        gate: &str,
        lease: Duration,
    ) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(self.presence.lease.get_hash()).arg(1).arg(keys.leases());
        call.arg(gate).arg(lease.as_millis() as u64);
        call
    }
}

/// Reads the reply of a change.
pub(in crate::server::backplane) fn signs(value: &Value) -> Option<Vec<Sign>> {
    let Value::Array(words) = value else { return None };
    let sign = |pair: &[Value]| {
        let user: Arc<str> = text(pair.get(1)?)?.into();
        Some(match text(pair.first()?)? {
            "+" => Sign::Joined(user),
            "-" => Sign::Left(user),
            "o" => Sign::Occupied,
            "v" => Sign::Vacated,
            "#" => Sign::CountDue,
            _ => return None,
        })
    };
    words.chunks(2).map(sign).collect()
}

/// Reads the reply of a renewal: whether the lease had not run out, and the gates whose leases have.
pub(in crate::server::backplane) fn leases(value: &Value) -> Option<(bool, Vec<String>)> {
    let Value::Array(words) = value else { return None };
    let [alive, Value::Array(dead)] = words.as_slice() else { return None };
    let dead = dead.iter().map(|gate| text(gate).map(str::to_owned)).collect::<Option<_>>()?;
    Some((number(alive)? == 1, dead))
}

/// Reads the list of users.
pub(in crate::server::backplane) fn users(value: Value) -> Option<Users> {
    let Value::Array(words) = value else { return None };
    let [place, Value::Array(records), count, Value::Array(gates)] =
        <[Value; 4]>::try_from(words).ok()?
    else {
        return None;
    };
    let listed = |pair: &[Value]| {
        let user = text(pair.first()?)?;
        let record = text(pair.get(1)?)?;
        let mut lines = record.splitn(3, '\n');
        let since = lines.next()?.split(' ').next()?.parse().ok()?;
        let info = lines.nth(1)?;
        let info = (info != "null").then(|| info.into());
        Some(Listed { user: user.into(), info, since: Time(since) })
    };
    let mut listed: Vec<Listed> = records.chunks(2).map(listed).collect::<Option<_>>()?;
    listed.sort_unstable_by(|a, b| (a.since, &a.user).cmp(&(b.since, &b.user)));
    let count = usize::try_from(number(&count)?).ok()?;
    let held = |pair: &[Value]| {
        let number = usize::try_from(number(pair.get(1)?)?).ok()?;
        Some((text(pair.first()?)?.to_owned(), number))
    };
    let connections = gates.chunks(2).map(held).collect::<Option<_>>()?;
    Some(Users { place: snapshot(place)?, listed, count, connections })
}
