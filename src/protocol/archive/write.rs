//! Writing an archive.

use super::frame::Payload;
use super::{Kind, MAGIC, StoredReply, VERSION};
use crate::hub::channel::{self, Message};
use crate::hub::presence::MemberDump;
use crate::hub::{ChannelDump, Dump};
use std::io::{self, Write};

/// Writes an archive piece by piece; without [`Writer::end`] it reads as cut off.
pub struct Writer<W> {
    pub(super) to: W,
    pub(super) channels: u64,
    messages: u64,
    remembered: u64,
    members: u64,
}

impl<W: Write> Writer<W> {
    /// Begins an archive. `clean` = no position was or will be given out after it.
    pub fn begin(mut to: W, clean: bool, memory: Dump) -> io::Result<Self> {
        to.write_all(MAGIC)?;
        to.write_all(&VERSION.to_le_bytes())?;
        let payload = Payload::default().byte(clean.into());
        let payload = payload.number(memory.latest.0).number(memory.floor.0);
        let payload = payload.number(memory.clock.map_or(0, |clock| clock.number()));
        payload.write(Kind::Dump, &[], &mut to)?;
        Ok(Self { to, channels: 0, messages: 0, remembered: 0, members: 0 })
    }

    /// Adds a stored response; these come before the first channel.
    pub fn remembered(&mut self, remembered: &StoredReply) -> io::Result<()> {
        self.remembered += 1;
        remembered.write(&mut self.to)
    }

    /// Adds a user of a channel; these come between the stored responses and the first channel.
    pub fn member(&mut self, member: &MemberDump) -> io::Result<()> {
        self.members += 1;
        let payload = Payload::default().number(member.since.0);
        let payload = payload.byte(member.present.into()).byte(member.announced.into());
        let payload = payload.short_text(member.channel.qualified()).short_text(&member.user);
        let payload = payload.short_text(member.info.as_deref().unwrap_or_default());
        payload.write(Kind::Member, &[], &mut self.to)
    }

    /// Adds a channel with its messages.
    pub fn channel(&mut self, trace: &ChannelDump) -> io::Result<()> {
        let kept = &trace.kept;
        let numbers = [
            trace.used.0,
            kept.position.epoch.number(),
            kept.position.seq,
            kept.newest_stamp.0,
            kept.floor.0,
            kept.evicted_stamp.0,
            trace.messages.len() as u64,
        ];
        let head = numbers.into_iter().fold(Payload::default(), Payload::number);
        head.write(Kind::Channel, trace.channel.qualified().as_bytes(), &mut self.to)?;
        self.channels += 1;
        trace.messages.iter().try_for_each(|message| self.message(message))
    }

    fn message(&mut self, message: &Message) -> io::Result<()> {
        self.messages += 1;
        let payload = &message.payload;
        let kind = match payload.kind {
            channel::Kind::Json => 0,
            channel::Kind::Text => 1,
            channel::Kind::Binary => 2,
        };
        let head = Payload::default().number(message.stamp.0).number(message.published.0);
        let head = head.byte(kind).short_text(&payload.content_type);
        head.write(Kind::Message, &payload.body, &mut self.to)
    }

    /// Ends the archive and returns the writer below it.
    pub fn end(mut self) -> io::Result<W> {
        let end = Payload::default().number(self.channels).number(self.messages);
        let end = end.number(self.remembered).number(self.members);
        end.write(Kind::End, &[], &mut self.to)?;
        self.to.flush()?;
        Ok(self.to)
    }
}
