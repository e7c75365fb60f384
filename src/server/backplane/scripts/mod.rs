//! The scripts that run in Redis: builds their commands and reads their replies.

pub(super) mod presence;

use super::envelope;
use super::keys::Keys;
use super::link::text;
use crate::hub::channel::{ChannelName, Epoch, Limits, Payload, Position, Snapshot, Stamp, Start};
use redis::{Cmd, Script, Value, cmd};
use std::time::Duration;

/// The scripts, and the commands that differ in a cluster, where pushes stay within a shard.
pub(super) struct Scripts {
    publish: Script,
    read: Script,
    forget: Script,
    list: Script,
    take: Script,
    presence: presence::PresenceScripts,
    is_cluster: bool,
}

impl Scripts {
    /// Those for one server, or for the nodes of a cluster.
    pub(super) fn new(is_cluster: bool) -> Self {
        Self {
            is_cluster,
            publish: Script::new(include_str!("publish.lua")),
            read: Script::new(include_str!("read.lua")),
            forget: Script::new(include_str!("forget.lua")),
            list: Script::new(include_str!("list.lua")),
            take: Script::new(include_str!("take.lua")),
            presence: presence::PresenceScripts::new(),
        }
    }
}

/// The position of a published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) position: Position,
    pub(super) stamp: Stamp,
}

impl Scripts {
    pub(super) fn all(&self) -> [&Script; 8] {
        let presence::PresenceScripts { change, users, lease } = &self.presence;
        let Self { publish, read, forget, list, take, .. } = self;
        [publish, read, forget, list, take, change, users, lease]
    }

    /// True if they are for one server, which has all.
    pub(super) fn is_for_one(&self) -> bool {
        !self.is_cluster
    }

    /// The command to push.
    fn push(&self) -> &'static str {
        if self.is_cluster { "SPUBLISH" } else { "PUBLISH" }
    }

    /// The command to subscribe to channels.
    pub(super) fn subscribe(&self) -> &'static str {
        if self.is_cluster { "SSUBSCRIBE" } else { "SUBSCRIBE" }
    }

    /// The command to unsubscribe.
    pub(super) fn unsubscribe(&self) -> &'static str {
        if self.is_cluster { "SUNSUBSCRIBE" } else { "UNSUBSCRIBE" }
    }

    /// Notes the origin of a partition: the server `from`, at its time, if it came whole.
    pub(super) fn lineage(
        &self,
        note: String,
        from: Option<(&str, u64)>,
        to: &str,
        term: u64,
    ) -> Cmd {
        let (from, time) = from.unwrap_or_default();
        // So rare that it does not matter if the server has it cached.
        let mut call = cmd("EVAL");
        call.arg(include_str!("continue.lua"))
            .arg(1)
            .arg(note)
            .arg(from)
            .arg(to)
            .arg(time)
            .arg(term);
        call
    }

    pub(super) fn publish(
        &self,
        keys: &Keys,
        channel: &ChannelName,
        payload: &Payload,
        limits: &Limits,
        once: Option<&(String, Duration)>,
    ) -> Cmd {
        let mut call =
            self.call("EVALSHA", &self.publish, keys, channel, 2 + usize::from(once.is_some()));
        if let Some((key, _)) = once {
            call.arg(key);
        }
        call.arg(keys.pushes(channel)).arg(self.push()).arg(new_epoch());
        call.arg(envelope::letter(payload.kind)).arg(&*payload.content_type);
        call.arg(&payload.body[..]).arg(limits.messages).arg(limits.bytes);
        call.arg(age(limits)).arg(limits.tick.micros());
        if let Some((_, kept)) = once {
            call.arg(kept.as_millis() as u64);
        }
        call
    }

    pub(super) fn read(&self, keys: &Keys, channel: &ChannelName, after: Position) -> Cmd {
        let mut call = self.call("EVALSHA_RO", &self.read, keys, channel, 2);
        call.arg(after.epoch.number()).arg(after.seq);
        call
    }

    pub(super) fn forget(&self, keys: &Keys, channel: &ChannelName, epoch: Epoch) -> Cmd {
        let mut call = self.call("EVALSHA", &self.forget, keys, channel, 2);
        call.arg(keys.pushes(channel)).arg(self.push()).arg(epoch.number());
        call
    }

    /// Changes what `gate` lists for a channel: pairs of an id and an entry, which is empty for one that
    /// has gone. With `anew`, what was listed before goes. It lives for so long.
    pub(super) fn list<'a>(
        &self,
        keys: &Keys,
        channel: &ChannelName,
        gate: &str,
        (life, anew): (Duration, bool),
        pairs: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Cmd {
        let mut call = self.of_gate(&self.list, keys, channel, gate);
        call.arg(life.as_millis() as u64).arg(if anew { "anew" } else { "more" });
        for (id, entry) in pairs {
            call.arg(id).arg(entry);
        }
        call
    }

    /// Takes what `gate` has listed for a channel.
    pub(super) fn take(&self, keys: &Keys, channel: &ChannelName, gate: &str) -> Cmd {
        self.of_gate(&self.take, keys, channel, gate)
    }

    fn of_gate(&self, script: &Script, keys: &Keys, channel: &ChannelName, gate: &str) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(script.get_hash()).arg(2).arg(keys.entries(channel, gate));
        call.arg(keys.gate(Keys::partition(channel), gate)).arg(channel.qualified());
        call
    }

    fn call(
        &self,
        how: &str,
        script: &Script,
        keys: &Keys,
        channel: &ChannelName,
        count: usize,
    ) -> Cmd {
        let mut call = cmd(how);
        call.arg(script.get_hash()).arg(count);
        call.arg(keys.state(channel)).arg(keys.history(channel));
        call
    }
}

/// Milliseconds that messages are kept; 0 = for ever.
fn age(limits: &Limits) -> u64 {
    let forever = limits.age.is_zero() || limits.keep_newest == Some(true);
    if forever { 0 } else { limits.age.as_millis().max(1) as u64 }
}

fn new_epoch() -> u64 {
    Epoch::from_random(fastrand::u64(..)).number()
}

/// Reads the reply of a publish.
pub(super) fn placed(value: &Value) -> Option<Placed> {
    let Value::Array(words) = value else { return None };
    let [epoch, seq, stamp] = words.as_slice() else { return None };
    let position = Position { epoch: Epoch::from_number(number(epoch)?), seq: number(seq)? };
    Some(Placed { position, stamp: Stamp(number(stamp)?) })
}

/// Reads the reply of a read.
pub(super) fn snapshot(value: Value) -> Option<Snapshot> {
    let Value::Array(words) = value else { return None };
    let mut words = words.into_iter();
    let server = crc32fast::hash(text(&words.next()?)?.as_bytes());
    let time = number(&words.next()?)?;
    // Messages published in this very microsecond come after.
    let clock = Position { epoch: Epoch::of_clock(server), seq: time.saturating_sub(1) };
    let Some(epoch) = words.next() else {
        return Some(Snapshot { clock, place: None, messages: Vec::new() });
    };
    let epoch = Epoch::from_number(number(&epoch)?);
    let seq = number(&words.next()?)?;
    let stamp = Stamp(number(&words.next()?)?);
    let floor = Stamp(number(&words.next()?)?);
    let place = Some(Start { position: Position { epoch, seq }, stamp, floor });
    let Value::Array(entries) = words.next()? else { return None };
    let message = |entry| match entry {
        Value::BulkString(bytes) => envelope::read(bytes),
        _ => None,
    };
    let messages = entries.into_iter().map(message).collect::<Option<_>>()?;
    Some(Snapshot { clock, place, messages })
}

pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        other => text(other)?.parse().ok(),
    }
}
