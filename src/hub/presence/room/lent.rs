//! Lending the numbers of holds to [`Holds`](crate::hub::presence::holds::Holds), and taking them
//! back.

use super::{Room, User, Why};

impl Room {
    /// Takes back the number of clients without a name.
    pub(super) fn recall(&mut self) {
        if let Some((held, last)) = self.holds.recall() {
            (self.unnamed, self.last) = (held, self.last.max(last));
        }
    }

    /// Lends it, while nothing follows from a client that comes or goes.
    pub(super) fn lend(&mut self) {
        if self.timed && self.occupied && self.occupancy_announced {
            self.holds.lend(self.unnamed);
        }
    }
}

impl User {
    /// Its holds.
    pub(super) fn held(&self) -> u32 {
        self.holds.count().unwrap_or(self.held)
    }

    /// Takes back the number of its holds.
    pub(super) fn recall(&mut self) {
        if let Some((held, until)) = self.holds.recall() {
            (self.held, self.until) = (held, self.until.max(until));
        }
    }

    /// Lends it, while nothing follows from a hold that begins or ends.
    pub(super) fn lend(&mut self) {
        let is_steady = self.present && self.announced && self.timed;
        if is_steady && self.leaving == 0 && self.why == Why::Gone {
            self.holds.lend(self.held);
        }
    }
}
