//! What a site may learn of its app's clients, by the app's webhook.

use super::Pusher;
use crate::hub::channel::ChannelName;
use crate::protocol::pusher::SocketId;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

/// Something that has happened on a channel of an app.
#[derive(Debug, Clone, Copy)]
pub enum Notice<'a> {
    /// A client has sent an event.
    ClientEvent {
        /// Its name.
        event: &'a str,
        /// Its data, as JSON.
        data: &'a str,
        /// The connection.
        socket: SocketId,
        /// Its user, on presence channels.
        user: Option<&'a str>,
    },
    /// A client has come to a cache channel without an event.
    CacheMiss,
    /// Another number of connections subscribe.
    SubscriptionCount(usize),
}

/// Takes what has happened.
pub type Report = Arc<dyn Fn(&ChannelName, Notice<'_>) + Send + Sync>;

/// The receiver, and what it has got within the last second.
#[derive(Default)]
pub(super) struct Notices {
    report: OnceLock<Report>,
    missed: Mutex<HashSet<ChannelName>>,
}

impl Notices {
    pub(super) fn report_to(&self, report: Report) {
        // There is one gate, and it is built once.
        let _ = self.report.set(report);
    }

    pub(super) fn report(&self, channel: &ChannelName, notice: Notice<'_>) {
        if let Some(report) = self.report.get() {
            report(channel, notice);
        }
    }

    /// A client found no event on a cache channel: reported once a second, as all who wait for the
    /// same event miss it at once.
    pub(super) fn miss(&self, channel: &ChannelName) {
        if self.missed.lock().insert(channel.clone()) {
            self.report(channel, Notice::CacheMiss);
        }
    }
}

impl Pusher {
    /// Sends numbers that have changed, and lets misses be reported again; runs once a second.
    pub(super) fn sweep_notices(&self) {
        self.notices.missed.lock().clear();
        self.counts.sweep(&self.occupancy, |channel, number| {
            self.notices.report(channel, Notice::SubscriptionCount(number));
        });
    }
}
