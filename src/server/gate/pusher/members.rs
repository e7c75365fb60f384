//! Who is on a presence channel: a client joins, sees who is there, and who comes and goes.
//!
//! The users are the hub's, as those of polls and streams. A client that joins reads the list with
//! its position in the channel of joins and leaves, and follows from there, so that none is missing
//! and none comes twice.

use super::client::{Client, Refused, Subscribed};
use super::collect::rendered;
use super::outbox::Outbox;
use crate::hub::channel::Cursor;
use crate::hub::presence::{Member, PREFIX, Roster, Settings, companion};
use crate::hub::{ChannelUpdate, Subscription};
use crate::protocol::pusher::channel::Kind;
use crate::protocol::pusher::event::{self, Mark};
use crate::protocol::pusher::frame;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Client {
    /// The client is on the channel at `index` from now on. Returns who is there, where it may
    /// know that.
    pub(super) async fn join(&mut self, index: usize) -> Result<Option<String>, Refused> {
        let Some(one) = self.channels.get(index) else { return Ok(None) };
        let channel = one.channel.clone();
        let hub = self.gate.shared.hub.clone();
        let presence = hub.presence();
        let now = (self.gate.shared.clock)();
        let Some(member) = one.member.as_ref() else {
            if presence.is_watched(&channel) {
                let settings = Arc::<Settings>::default();
                let membership =
                    presence.enter(&channel, None, &settings, settings.stream_grace, now);
                self.channels[index].membership = Some(Box::new(membership));
            }
            return Ok(None);
        };
        let settings = presence.settings(&channel).unwrap_or_default();
        let user = Member::new(&member.id, member.info.as_deref());
        let membership =
            presence.enter(&channel, user.as_ref(), &settings, settings.stream_grace, now);
        self.channels[index].membership = Some(Box::new(membership));
        let roster = self.members(index).await?;
        let companion =
            companion(&channel).ok_or_else(|| ("the name is too long".to_owned(), 400))?;
        let cursor = Cursor::At(roster.place.found.position);
        let subscription = Subscription { channel: companion, cursor };
        let added = self.waiter.add(&subscription, (self.gate.shared.clock)());
        let update = added.map_err(|full| (full.to_string(), 503))?;
        // What came since the list is read with the next look.
        self.channels.push(Subscribed::roster(update.channel));
        Ok(Some(self.shown(index, &roster)))
    }

    /// Who is on the channel at `index`, where the client may know that.
    pub(super) async fn roster(&self, index: usize) -> Result<Option<String>, Refused> {
        if self.channels.get(index).is_none_or(|one| one.member.is_none()) {
            return Ok(None);
        }
        let roster = self.members(index).await?;
        Ok(Some(self.shown(index, &roster)))
    }

    async fn members(&self, index: usize) -> Result<Roster, Refused> {
        let channel = self.channels.get(index).map(|one| one.channel.clone());
        let channel = channel.ok_or_else(|| ("there is no such channel".to_owned(), 404))?;
        self.gate.roster(channel).await.map_err(|reason| (reason, 503))
    }

    fn shown(&self, index: usize, roster: &Roster) -> String {
        let own = self.channels.get(index).and_then(|one| one.member.as_ref());
        // With a backplane, or a full table, its own join may be yet to come.
        let own = own.filter(|own| roster.members.iter().all(|one| *one.user != *own.id));
        let listed = roster.members.iter().map(|one| (&*one.user, one.info.as_deref()));
        frame::members(listed.chain(own.map(|own| (&*own.id, own.info.as_deref()))))
    }

    /// Reports the users who have come and gone on a presence channel, from the channel of its
    /// joins and leaves at `index`.
    pub(super) fn take_members(&mut self, index: usize, update: &ChannelUpdate, out: &mut Outbox) {
        let mut position = update.found.position;
        let mut stamp = update.found.stamp;
        let app = self.app.clone();
        let Some(subject) = update.channel.strip_prefix(PREFIX) else { return };
        let name = app.app.name_of(subject).unwrap_or_default();
        if Kind::of(name) == Kind::User {
            self.take_watched(index, update, out);
            return;
        }
        let main = self.channels.iter().find(|one| *one.channel == *subject);
        let own = main.and_then(|one| one.member.as_ref()).map(|own| Mark::of(&own.id));
        if update.found.reset {
            out.push(&frame::reset(name));
        }
        for message in &update.found.messages {
            if out.is_full() {
                break;
            }
            (position, stamp) = (message.position, message.stamp);
            let shared = rendered(self.way, &update.found, || {
                let delivery = event::deliver_member(name, &message.payload);
                let (mark, frame) = delivery.unzip();
                (mark, frame.unwrap_or_default())
            });
            let frame = own.and_then(|own| shared.for_connection(own));
            if let Some(frame) = frame.filter(|frame| !self.way.is_empty(frame)) {
                out.push_wrapped(frame);
                self.gate.shared.counters.deliveries.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.waiter.advance_to(index, position, stamp);
    }
}
