//! Reading an archive.

use super::frame::{self, Parts};
use super::{ArchiveError, Kind, MAGIC, StoredReply, VERSION};
use crate::hub::channel::{
    self, ChannelName, Epoch, KeptMessage, Payload, Persisted, Position, Stamp, Time,
};
use crate::hub::presence::{Member, MemberDump};
use crate::hub::{Dump, Hub};
use bytes::Bytes;
use std::io::Read;
use std::sync::Arc;

/// The end of the year 9999: a later time is invalid.
const LAST: u64 = 253_402_300_800_000_000;

/// An archive whose beginning has been read.
pub struct Reader<R> {
    from: R,
    version: u32,
    clean: bool,
    memory: Dump,
    channels: u64,
    messages: u64,
    remembered: u64,
    members: u64,
    /// Most messages have the content type of the one before.
    content_type: Arc<str>,
}

/// What stands before the first channel.
enum Entry {
    Reply(StoredReply),
    Member(MemberDump),
}

/// A channel of an archive, before its messages.
struct Head {
    channel: ChannelName,
    used: Time,
    kept: Persisted,
    messages: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning of an archive.
    pub fn begin(mut from: R) -> Result<Self, ArchiveError> {
        let mut magic = [0; MAGIC.len()];
        let foreign = |error| match ArchiveError::from(error) {
            ArchiveError::CutOff => ArchiveError::Foreign,
            error => error,
        };
        from.read_exact(&mut magic).map_err(foreign)?;
        if &magic != MAGIC {
            return Err(ArchiveError::Foreign);
        }
        let mut version = [0; 4];
        from.read_exact(&mut version)?;
        let version = u32::from_le_bytes(version);
        if !(1..=VERSION).contains(&version) {
            return Err(ArchiveError::Version(version));
        }
        let (Kind::Dump, payload) = frame::read(&mut from)? else {
            return Err(ArchiveError::Damaged("the first frame is another"));
        };
        let mut parts = Parts(&payload);
        let clean = parts.byte()? == 1;
        let latest = time(parts.number()?)?;
        let floor = stamp(parts.number()?)?;
        // After an unclean end positions were given out in a time that is not known.
        let clock = if version > 2 { Some(Epoch::from_number(parts.number()?)) } else { None };
        if !parts.0.is_empty() {
            return Err(ArchiveError::Damaged("a frame is too long"));
        }
        let memory = Dump { latest, floor, clock: clock.filter(|_| clean) };
        let content_type = "text/plain".into();
        let channels = 0;
        let messages = 0;
        let remembered = 0;
        let members = 0;
        Ok(Self {
            from,
            version,
            clean,
            memory,
            channels,
            messages,
            remembered,
            members,
            content_type,
        })
    }

    /// True if no position was given out after it was written.
    pub fn is_clean(&self) -> bool {
        self.clean
    }

    /// Restores everything that follows into `hub`, which is not in use yet. With `doubt`,
    /// positions may have been given out since, so every channel begins a new epoch. After an error
    /// a part of it is in the hub. Returns the stored responses, oldest first.
    pub fn restore(
        mut self,
        hub: &Hub,
        doubt: bool,
        now: Time,
    ) -> Result<Vec<StoredReply>, ArchiveError> {
        let clock = self.memory.clock.filter(|_| !doubt);
        hub.remember(Dump { clock, ..self.memory });
        let mut remembered = Vec::new();
        let mut recall = |entry| match entry {
            Entry::Reply(answer) => remembered.push(answer),
            Entry::Member(member) => hub.presence().restore(member, now),
        };
        while let Some(head) = self.next_channel(&mut recall)? {
            let messages = self.messages(&head);
            let channel = (&head.channel, head.used, &head.kept);
            hub.restore(channel, (head.messages, messages), doubt, now)?;
        }
        Ok(remembered)
    }

    /// Reads to the end and keeps nothing; whether all of it is sound, and nothing stands behind
    /// it.
    pub fn verify(mut self) -> Result<(), ArchiveError> {
        while let Some(head) = self.next_channel(&mut drop)? {
            self.messages(&head).try_for_each(|message| message.map(drop))?;
        }
        match self.from.read_exact(&mut [0]).map_err(ArchiveError::from) {
            Err(ArchiveError::CutOff) => Ok(()),
            Ok(()) => Err(ArchiveError::Damaged("something stands behind its end")),
            Err(error) => Err(error),
        }
    }

    /// The next channel, or `None` at a sound end. What stands before the first goes to `recall`.
    fn next_channel(
        &mut self,
        recall: &mut impl FnMut(Entry),
    ) -> Result<Option<Head>, ArchiveError> {
        let (mut kind, mut payload) = frame::read(&mut self.from)?;
        while kind == Kind::StoredReply && self.version > 1 && self.channels == 0 {
            recall(Entry::Reply(StoredReply::read(&mut Parts(&payload))?));
            self.remembered += 1;
            (kind, payload) = frame::read(&mut self.from)?;
        }
        while kind == Kind::Member && self.version > 3 && self.channels == 0 {
            recall(Entry::Member(member(&mut Parts(&payload))?));
            self.members += 1;
            (kind, payload) = frame::read(&mut self.from)?;
        }
        let mut parts = Parts(&payload);
        match kind {
            Kind::Channel => {
                self.channels += 1;
                channel(&mut parts).map(Some)
            }
            Kind::End => {
                let counted = (parts.number()?, parts.number()?);
                let remembered = if self.version > 1 { parts.number()? } else { 0 };
                let whole = counted == (self.channels, self.messages);
                let members = if self.version > 3 { parts.number()? } else { 0 };
                let whole = whole && (remembered, members) == (self.remembered, self.members);
                whole.then_some(None).ok_or(ArchiveError::Damaged("something is missing"))
            }
            _ => Err(ArchiveError::Damaged("a frame stands where another should")),
        }
    }

    /// The messages of the channel whose head was read last.
    fn messages(
        &mut self,
        head: &Head,
    ) -> impl Iterator<Item = Result<KeptMessage, ArchiveError>> + use<'_, R> {
        let newest = head.kept.newest_stamp;
        let mut last = Stamp(0);
        (0..head.messages).map(move |_| {
            let message = self.message()?;
            if message.stamp <= last || message.stamp > newest {
                return Err(ArchiveError::Damaged("stamps are out of order"));
            }
            last = message.stamp;
            Ok(message)
        })
    }

    fn message(&mut self) -> Result<KeptMessage, ArchiveError> {
        let (Kind::Message, payload) = frame::read(&mut self.from)? else {
            return Err(ArchiveError::Damaged("a message is missing"));
        };
        self.messages += 1;
        let mut parts = Parts(&payload);
        let stamp = stamp(parts.number()?)?;
        let published = time(parts.number()?)?;
        let kind = parts.byte()?;
        let content_type = parts.short_text()?;
        if *self.content_type != *content_type {
            self.content_type = content_type.into();
        }
        let body = parts.0;
        let kind = match kind {
            0 => channel::Kind::Json,
            1 => channel::Kind::Text,
            2 => channel::Kind::Binary,
            _ => return Err(ArchiveError::Damaged("a message of an unknown kind")),
        };
        if kind != channel::Kind::Binary && std::str::from_utf8(body).is_err() {
            return Err(ArchiveError::Damaged("a text is not UTF-8"));
        }
        // Allocated at its own size: the payload has room to spare.
        let body = Bytes::copy_from_slice(body);
        let content_type = self.content_type.clone();
        Ok(KeptMessage { stamp, published, payload: Payload { kind, content_type, body } })
    }
}

fn channel(parts: &mut Parts<'_>) -> Result<Head, ArchiveError> {
    let used = time(parts.number()?)?;
    let epoch = Epoch::from_number(parts.number()?);
    let seq = parts.number()?;
    let kept = Persisted {
        position: Position { epoch, seq },
        newest_stamp: stamp(parts.number()?)?,
        floor: stamp(parts.number()?)?,
        evicted_stamp: stamp(parts.number()?)?,
    };
    let messages = parts.number()?;
    // Below half of the range there is room to count on from it.
    if messages > seq || seq > u64::MAX / 2 {
        return Err(ArchiveError::Damaged("a position is impossible"));
    }
    let channel = ChannelName::from_qualified(parts.0);
    let channel = channel.map_err(|_| ArchiveError::Damaged("a channel's name is none"))?;
    Ok(Head { channel, used, kept, messages })
}

fn member(parts: &mut Parts<'_>) -> Result<MemberDump, ArchiveError> {
    let since = time(parts.number()?)?;
    let present = parts.byte()? == 1;
    let announced = parts.byte()? == 1;
    let none = |_| ArchiveError::Damaged("a channel's name is none");
    let channel = ChannelName::from_qualified(parts.short_text()?.as_bytes()).map_err(none)?;
    let user = parts.short_text()?;
    let info = parts.short_text()?;
    if serde_json::from_str::<&serde_json::value::RawValue>(info).is_err() && !info.is_empty() {
        return Err(ArchiveError::Damaged("what is known of a user is no JSON"));
    }
    let member = Member::new(user, Some(info).filter(|info| !info.is_empty()));
    let member = member.ok_or(ArchiveError::Damaged("a user's name is none"))?;
    let user = member.user().clone();
    let info = member.info().cloned();
    Ok(MemberDump { channel, user, info, since, present, announced })
}

pub(super) fn time(micros: u64) -> Result<Time, ArchiveError> {
    if micros > LAST {
        return Err(ArchiveError::Damaged("a time is impossible"));
    }
    Ok(Time(micros))
}

/// A stamp may run ahead of the clock, but not beyond all times.
fn stamp(micros: u64) -> Result<Stamp, ArchiveError> {
    time(micros).map(|time| Stamp(time.0))
}
