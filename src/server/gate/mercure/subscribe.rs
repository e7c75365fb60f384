//! Subscribing: from a request to a stream.

use super::{Settings, Updates, busy, raw_query};
use crate::hub::Subscription;
use crate::hub::channel::Cursor;
use crate::protocol::http::Reply;
use crate::protocol::mercure::{Parameters, Refused, Subscriber};
use crate::server::gate::poll::admission::Incoming;
use crate::server::gate::stream::{Events, HeldStream, Parts};
use crate::server::gate::{Decision, Gate};
use crate::server::limits::body_memory::BodyShare;
use crate::server::limits::permit::Rejection;
use crate::server::telemetry::refusal::Refusal;

impl Gate {
    /// Registers a subscriber, or refuses it.
    pub(super) fn subscribe(
        &self,
        settings: &crate::server::gate::Settings,
        hub: &Settings,
        request: &Incoming<'_>,
    ) -> Decision {
        let reply = |reply| Decision::Reply(hub.finished(reply, request.headers), None);
        let query = Parameters::new(raw_query(request));
        if let Some(refusal) = self.too_many_topics(settings, query) {
            return reply(refusal);
        }
        let subscriber = match hub.hub.subscriber(query, request.headers, self.seconds()) {
            Ok(subscriber) => subscriber,
            Err(refused) => return reply(self.refuse_mercure(&refused)),
        };
        let head = Reply::new(200, "text/event-stream", "");
        if request.method == "HEAD" {
            return reply(head);
        }
        match self.registered(settings, hub, request, subscriber) {
            Ok((said, held)) => {
                let head = hub.finished(head, request.headers);
                let stream = HeldStream::new(self, settings.stream.clone(), said, head, held);
                Decision::Stream(Box::new(stream))
            }
            Err((cause, why)) => {
                self.refused(cause);
                reply(busy(&why))
            }
        }
    }

    /// The refusal of a request that names too many topics, before anything else is done for it.
    fn too_many_topics(
        &self,
        settings: &crate::server::gate::Settings,
        query: Parameters<'_>,
    ) -> Option<Reply> {
        let most = settings.limits.channels_per_poll;
        if most == 0 || query.values("topic").nth(most).is_none() {
            return None;
        }
        self.refused(Refusal::ChannelsPerPoll);
        let refused = Refused::Bad("there are more topics than limits.channels_per_poll");
        Some(refused.reply())
    }

    /// Takes what a stream needs: a permit, memory, its registration on the hub's channel, and the
    /// grant that its token gives.
    fn registered(
        &self,
        settings: &crate::server::gate::Settings,
        hub: &Settings,
        request: &Incoming<'_>,
        subscriber: Subscriber,
    ) -> Result<(Events, Parts), (Refusal, String)> {
        let full = |cause| move |why: Rejection| (cause, why.to_string());
        let grants = &self.shared.grants;
        let token = subscriber.token.as_deref();
        let holder = token.filter(|_| settings.limits.per_grant > 0);
        let holder = holder.and_then(|token| grants.token_holder(token));
        let permit = self.permit(settings, request.client, holder);
        let permit = permit.map_err(|why| match why {
            Rejection::Held => full(Refusal::HoldMax)(why),
            Rejection::Address => full(Refusal::PerAddress)(why),
            Rejection::Grant => full(Refusal::PerGrant)(why),
        })?;
        let mut memory = BodyShare::new(&self.shared.mercure.memory);
        if !memory.grow(subscriber.cost()) {
            let why = "there is no room for another subscription";
            return Err((Refusal::TableFull, why.to_owned()));
        }
        let no_room = || (Refusal::TableFull, "there is no room for another channel".to_owned());
        // Ids are the publishers': where one is, only a look through the history says.
        let cursor = match subscriber.last_event_id {
            None => Cursor::Now,
            Some(_) => Cursor::Oldest,
        };
        let subscription = Subscription { channel: hub.hub.channel().ok_or_else(no_room)?, cursor };
        let now = (self.shared.clock)();
        // An update wakes those alone whose topics select it.
        let interest = subscriber.wanted.interest();
        let subscribed = self.shared.hub.subscribe_selectively(&subscription, interest, now);
        let (waiter, found) = subscribed.map_err(|_| no_room())?;
        let allowed = token.map(|token| {
            let allowed = grants.by_token(token, request.headers, subscriber.expires);
            grants.take(allowed, &waiter)
        });
        let registration =
            hub.hub.subscriptions.then(|| self.shared.mercure.register(&hub.hub, &subscriber));
        let registration = registration.flatten();
        let updates = Updates::new(subscriber, memory, registration);
        Ok((Events::Mercure(Box::new(updates)), (waiter, found, allowed, permit)))
    }
}
