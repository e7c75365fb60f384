//! The answer of a look into a channel.

use crate::hub::channel::{ChannelName, Lookup, Message, Messages, Moment, Position, Stamp, Tick};
use smallvec::SmallVec;

/// The result of a poll on one of its channels.
#[derive(Debug, Clone)]
pub struct ChannelUpdate {
    /// The channel.
    pub channel: ChannelName,
    /// The unit of its stamps.
    pub tick: Tick,
    /// The messages found and the client's new position.
    pub found: Lookup,
}

/// The results on all channels of a poll, in the order of its subscriptions.
pub type Answer = SmallVec<[ChannelUpdate; 1]>;

impl ChannelUpdate {
    /// The same channel for a client that has got none of this update. After a reset that is
    /// nowhere, so that a client which breaks off before it learns of the reset is reset again.
    pub fn start(&self) -> Self {
        match self.found.reset {
            true => self.at(Position::NOWHERE, Stamp(self.tick.micros())),
            false => self.before_messages(),
        }
    }

    /// The same channel for a client that has got none of its messages, but knows of a reset.
    pub fn before_messages(&self) -> Self {
        let Lookup { position, stamp, .. } = self.found;
        let just_before = |stamp: Stamp| Stamp(stamp.0.saturating_sub(self.tick.micros()));
        match self.found.messages.first() {
            Some(first) => {
                let Position { epoch, seq } = first.position;
                let seq = seq.saturating_sub(1);
                let mut update = self.at(Position { epoch, seq }, just_before(first.stamp));
                update.found.before = self.found.before;
                update
            }
            // A change whose message is not kept any more.
            None if self.found.has_update && !self.found.reset => {
                self.at(position, just_before(stamp))
            }
            None => self.end(),
        }
    }

    /// The same channel for a client that has got `message` and nothing after it.
    pub fn after(&self, message: &Message) -> Self {
        let mut update = self.at(message.position, message.stamp);
        update.found.tag = Some(message.tag);
        update
    }

    /// The same channel for a client that has got all of this update.
    pub fn end(&self) -> Self {
        let mut update = self.at(self.found.position, self.found.stamp);
        (update.found.tag, update.found.before) = (self.found.tag, self.found.before);
        update
    }

    /// The same channel for a client that is at `position`, with nothing new.
    pub fn at(&self, position: Position, stamp: Stamp) -> Self {
        let found = Lookup {
            has_update: false,
            reset: false,
            messages: Messages::new(),
            position,
            stamp,
            tag: None,
            before: Moment::default(),
            as_of: self.found.as_of,
            renders: None,
        };
        Self { channel: self.channel.clone(), tick: self.tick, found }
    }
}
