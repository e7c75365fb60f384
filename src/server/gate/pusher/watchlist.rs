//! Watchlists: a signed-in client sees which users of a list are online.
//!
//! A user is online while one of its connections is signed in, and for `stream_grace` after the
//! last one. It is the presence of the user on its own channel, so the lists hold over several
//! gates, and what they miss no change.

use super::client::{Client, Subscribed};
use super::collect::rendered;
use super::outbox::Outbox;
use crate::hub::channel::Cursor;
use crate::hub::presence::{Member, companion};
use crate::hub::{ChannelUpdate, Subscription};
use crate::protocol::pusher::channel::USER_PREFIX;
use crate::protocol::pusher::{code, event, frame};
use std::sync::atomic::Ordering;

/// The most users on one list.
const MAX_USERS: usize = 100;

impl Client {
    /// The user `id` is signed in by this client, whose own channel is the last one. It watches the
    /// users of its list from now on.
    pub(super) async fn watch(&mut self, id: &str, list: &[Box<str>], out: &mut Outbox) {
        let Some(own) = self.channels.last_mut() else { return };
        let hub = self.gate.shared.hub.clone();
        let presence = hub.presence();
        let settings = presence.settings(&own.channel).unwrap_or_default();
        let now = (self.gate.shared.clock)();
        let user = Member::new(id, None);
        let entered =
            presence.enter(&own.channel, user.as_ref(), &settings, settings.stream_grace, now);
        own.membership = Some(Box::new(entered));
        if list.len() > MAX_USERS {
            let error = "a watchlist has at most 100 users";
            out.push(&frame::error(Some(code::WATCHLIST), error));
            return;
        }
        let mut online = Vec::new();
        let mut offline = Vec::new();
        for user in list {
            match self.watch_one(user).await {
                Ok(true) => online.push(&**user),
                Ok(false) => offline.push(&**user),
                Err(error) => {
                    out.push(&frame::error(Some(code::WATCHLIST), &error));
                    break;
                }
            }
        }
        if let Some(frame) = frame::watchlist(&online, &offline) {
            out.push(&frame);
        }
    }

    /// Watches a user; true if it is online.
    async fn watch_one(&mut self, user: &str) -> Result<bool, String> {
        // A user whose name cannot be that of a channel cannot sign in.
        let Ok(channel) = self.app.app.channel(&format!("{USER_PREFIX}{user}")) else {
            return Ok(false);
        };
        let Some(companion) = companion(&channel) else { return Ok(false) };
        let roster = self.gate.roster(channel).await?;
        let cursor = Cursor::At(roster.place.found.position);
        let subscription = Subscription { channel: companion.clone(), cursor };
        let added = self.waiter.add(&subscription, (self.gate.shared.clock)());
        added.map_err(|full| full.to_string())?;
        self.channels.push(Subscribed::roster(companion));
        Ok(roster.members.iter().any(|one| *one.user == *user))
    }

    /// Reports that a watched user has come or gone, from its messages at `index`.
    pub(super) fn take_watched(&mut self, index: usize, update: &ChannelUpdate, out: &mut Outbox) {
        let mut position = update.found.position;
        let mut stamp = update.found.stamp;
        for message in &update.found.messages {
            if out.is_full() {
                break;
            }
            (position, stamp) = (message.position, message.stamp);
            let shared = rendered(self.way, &update.found, || {
                (None, event::deliver_watched(&message.payload).unwrap_or_default())
            });
            let frame = shared.for_connection(self.mark);
            if let Some(frame) = frame.filter(|frame| !self.way.is_empty(frame)) {
                out.push_wrapped(frame);
                self.gate.shared.counters.deliveries.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.waiter.advance_to(index, position, stamp);
    }
}
