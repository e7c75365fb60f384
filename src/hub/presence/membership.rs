//! The guard of a client that is present.

use super::event::Why;
use super::room::End;
use crate::hub::Hub;
use crate::hub::channel::{ChannelName, Time};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A client that is held on a channel. Dropping it begins the user's grace.
pub struct Membership {
    hub: Hub,
    channel: ChannelName,
    user: Option<Arc<str>>,
    grace: Duration,
    end: End,
}

impl Membership {
    pub(super) fn new(
        hub: Hub,
        channel: ChannelName,
        user: Option<Arc<str>>,
        grace: Duration,
    ) -> Self {
        Self { hub, channel, user, grace, end: End::Grace }
    }

    /// The user it is for, if the client has a name and there was room for it.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The user has left: without a grace, if it is held nowhere else.
    pub fn leave(mut self) {
        self.end = End::Now(Why::Left);
    }

    /// The user's grant was revoked: it goes without a grace, if it is held nowhere else.
    pub fn revoke(mut self) {
        self.end = End::Now(Why::Revoked);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let presence = self.hub.presence();
        // The sweep keeps this time younger than its interval.
        let now = Time(self.hub.shared.latest.load(Ordering::SeqCst));
        let user = self.user.as_ref();
        let grace = self.grace;
        let end = self.end;
        presence.change(&self.channel, now, |room| room.exit(user, grace, end, now));
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Membership({:?}, {:?})", self.channel, self.user)
    }
}
