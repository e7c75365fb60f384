//! The newest message, for clients that have all but that one.

use super::{History, Message, Moment, Position, Renders};

/// The newest message of a history, which a client lacks and nothing else.
pub struct Following<'a> {
    /// The message.
    pub message: &'a Message,
    /// Where the client is before it.
    pub before: Moment,
    /// Renderings of it, to share.
    pub renders: &'a Renders,
}

impl History {
    /// The newest message, if it is the only one that a client at `position` lacks. Call
    /// [`History::trim`] before, so that no outdated message is found.
    pub fn only_after(&self, position: Position) -> Option<Following<'_>> {
        let is_next = position.epoch == self.epoch && position.seq + 1 == self.newest;
        let message = self.ring.back().filter(|_| is_next)?;
        let before = self.ring.len().checked_sub(2).and_then(|at| self.ring.get(at));
        let before = before.map(|one| Moment { stamp: one.stamp, tag: Some(one.tag) });
        let before = before.unwrap_or_else(|| self.before_all());
        Some(Following { message, before, renders: &self.renders })
    }
}
