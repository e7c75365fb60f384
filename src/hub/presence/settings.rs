//! The rules of presence, and a user as it is named.

use crate::hub::channel::{ChannelName, Pattern, SiteName};
use std::sync::Arc;
use std::time::Duration;

/// Presence on one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long a user stays after a poll.
    pub grace: Duration,
    /// How long a user stays after a stream.
    pub stream_grace: Duration,
    /// Users that are listed at the most.
    pub members: usize,
    /// All who may poll the channel may see its members.
    pub public: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let grace = Duration::from_secs(30);
        let stream_grace = Duration::from_secs(5);
        Self { grace, stream_grace, members: 10_000, public: false }
    }
}

/// The presence of a site's channels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// The site.
    pub site: SiteName,
    /// By channel name, `None` = off; the first match wins.
    pub channels: Vec<(Pattern, Option<Arc<Settings>>)>,
    /// Channels without presence are watched too, for [`Occupied`](super::Change::Occupied) and
    /// [`Vacated`](super::Change::Vacated).
    pub occupancy: bool,
}

impl Rules {
    /// Those of a channel's site.
    pub(super) fn of<'a>(all: &'a [Self], channel: &ChannelName) -> Option<&'a Self> {
        all.iter().find(|rules| channel.is_of(&rules.site))
    }

    /// Those of a channel of the site; `None` = presence is off there.
    pub(super) fn settings(&self, channel: &ChannelName) -> Option<&Arc<Settings>> {
        let (_, settings) = self.channels.iter().find(|(pattern, _)| pattern.matches(channel))?;
        settings.as_ref()
    }

    pub(super) fn is_on(&self) -> bool {
        self.occupancy || self.channels.iter().any(|(_, one)| one.is_some())
    }
}

/// A user, as the credentials of a client name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    user: Arc<str>,
    info: Option<Arc<str>>,
}

impl Member {
    /// The longest name of a user, in bytes.
    pub const MAX_USER: usize = 255;
    /// The longest info, in bytes.
    pub const MAX_INFO: usize = 1024;

    /// A user with `info`, which is JSON. `None` if the name is empty or too long; a longer info is
    /// left out.
    pub fn new(user: &str, info: Option<&str>) -> Option<Self> {
        let info = info.filter(|info| info.len() <= Self::MAX_INFO).map(Arc::from);
        let fits = !user.is_empty() && user.len() <= Self::MAX_USER;
        fits.then(|| Self { user: user.into(), info })
    }

    /// Its name.
    pub fn user(&self) -> &Arc<str> {
        &self.user
    }

    /// More about it, as JSON.
    pub fn info(&self) -> Option<&Arc<str>> {
        self.info.as_ref()
    }
}
