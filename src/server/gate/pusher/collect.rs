//! What has come on a client's channels, as frames.

use super::client::Client;
use super::outbox::{Close, Outbox, Way};
use crate::hub::ChannelUpdate;
use crate::hub::channel::Lookup;
use crate::protocol::pusher::channel::Kind;
use crate::protocol::pusher::event::{self, Mark, Shared};
use crate::protocol::pusher::{code, frame};
use crate::server::gate::poll::hold::Cause;
use std::sync::atomic::Ordering;

impl Client {
    /// Reads what has come on its channels, as much as is written at once; an error ends the
    /// connection.
    pub(super) fn collect(&mut self, out: &mut Outbox) -> Result<(), Close> {
        if !std::mem::replace(&mut self.greeted, true) {
            let timeout = self.app.activity_timeout.as_secs().max(1);
            out.push(&frame::established(self.id, timeout));
        }
        if let Some(found) = self.waiter.look((self.gate.shared.clock)()) {
            let gate = self.gate.clone();
            gate.shared.counters.releases.count(Cause::of(&found));
            for (index, update) in found.iter().enumerate().filter(|(_, one)| one.found.has_update)
            {
                if out.is_full() {
                    break;
                }
                self.take(index, update, out)?;
            }
        }
        self.miss_caches(out);
        if self.app.subscription_count {
            self.count(out);
        }
        Ok(())
    }

    /// Takes what has come on one channel.
    fn take(
        &mut self,
        index: usize,
        update: &ChannelUpdate,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        let Some(one) = self.channels.get_mut(index) else { return Ok(()) };
        let mut position = update.found.position;
        let mut stamp = update.found.stamp;
        let app = self.app.clone();
        let name = app.app.name_of(&one.channel).unwrap_or_default();
        if one.is_roster {
            self.take_members(index, update, out);
            return Ok(());
        }
        if std::mem::take(&mut one.awaits_cache) {
            let mut messages = update.found.messages.iter().rev();
            let cached = messages.find(|message| !event::is_from_client(&message.payload));
            match cached {
                Some(message) => out.push(&event::deliver(name, &message.payload).frame),
                None => {
                    out.push(&frame::cache_miss(name));
                    self.gate.shared.pusher.notices.miss(&one.channel);
                }
            }
            self.waiter.advance_to(index, position, stamp);
            return Ok(());
        }
        let visible = one.visible;
        if update.found.reset && visible {
            out.push(&frame::reset(name));
        }
        let is_user = Kind::of(name) == Kind::User;
        let mut sent = 0;
        for message in &update.found.messages {
            if out.is_full() {
                break;
            }
            (position, stamp) = (message.position, message.stamp);
            if is_user && event::is_terminate(&message.payload) {
                return Err(Close::new(code::UNAUTHORIZED, "the site has ended this connection"));
            }
            if !visible {
                continue;
            }
            let shared = rendered(self.way, &update.found, || {
                let delivery = event::deliver(name, &message.payload);
                (delivery.except, delivery.frame)
            });
            if let Some(frame) = shared.for_connection(self.mark) {
                out.push_wrapped(frame);
                out.events += 1;
                sent += 1;
                let published =
                    out.published.map_or(message.published, |p| p.min(message.published));
                out.published = Some(published);
            }
        }
        if sent > 0 {
            self.gate.shared.metrics.watched.delivered(&update.channel, sent);
            self.gate.shared.counters.deliveries.fetch_add(sent as u64, Ordering::Relaxed);
        }
        self.waiter.advance_to(index, position, stamp);
        Ok(())
    }

    /// Answers for cache channels that have no event.
    fn miss_caches(&mut self, out: &mut Outbox) {
        let app = self.app.clone();
        for (index, one) in self.channels.iter_mut().enumerate().filter(|(_, one)| one.awaits_cache)
        {
            if !self.waiter.is_unresolved_at(index) {
                one.awaits_cache = false;
                out.push(&frame::cache_miss(app.app.name_of(&one.channel).unwrap_or_default()));
                self.gate.shared.pusher.notices.miss(&one.channel);
            }
        }
    }

    /// Sends the numbers of connections that have changed.
    fn count(&mut self, out: &mut Outbox) {
        let occupancy = &self.gate.shared.pusher.occupancy;
        for one in &mut self.channels {
            let number = one.counting.as_mut().and_then(|counting| counting.next(occupancy));
            if let Some(number) = number {
                let name = self.app.app.name_of(&one.channel).unwrap_or_default();
                out.push(&frame::subscription_count(name, number));
            }
        }
    }

    /// Counts what was written.
    pub(super) fn written(&self, out: &mut Outbox) {
        self.gate.written(out.published.take());
    }
}

/// A message in the transport's form, made once for all that get it, from its frame and the
/// connection that does not.
pub(super) fn rendered(
    way: Way,
    found: &Lookup,
    frame: impl FnOnce() -> (Option<Mark>, String),
) -> Shared {
    let render = || {
        let (except, frame) = frame();
        Shared::pack(except, &way.wrap(&frame))
    };
    Shared::of(match &found.renders {
        // They are those of the newest message, where it is the only one.
        Some(renders) if found.messages.len() == 1 => renders.get_or_render(way.key(), render),
        _ => render(),
    })
}
