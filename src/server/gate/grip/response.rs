//! A held response: it waits until an item is its response, or its time is over.

use super::hold::{Held, reply};
use super::origin::Last;
use super::subscription::{News, Subscription};
use super::withheld::refuse;
use crate::protocol::grip::instruct::Response;
use crate::protocol::grip::item::{Action, HttpResponse};
use crate::protocol::grip::{Content, Instruct, Item, patch};
use crate::protocol::http::Reply;
use crate::server::gate::Timer;
use crate::server::gate::poll::hold::Cause;
use bytes::Bytes;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The end of a wait.
pub(super) enum Outcome {
    /// It has its response.
    Reply(Reply, Cause),
    /// The site was asked again, and says this.
    Again(Box<Instruct>),
    /// The client is gone.
    Gone,
}

/// What an item means for the hold.
enum Meaning {
    Nothing,
    Reply(Reply),
    /// The site has to decide.
    Ask,
}

impl Held {
    /// Waits for the response. Dropping it, or the end of `gone`, ends the hold.
    pub(super) async fn wait(
        &mut self,
        timer: &mut Timer,
        mut gone: Pin<&mut impl Future<Output = ()>>,
    ) -> Outcome {
        let shared = self.gate.shared.clone();
        let now = (shared.clock)();
        let of = (&shared.hub, self.origin.settings().site_name());
        let subscribed = Subscription::new(of, &self.instruct.channels, &self.before, now);
        let mut subscription = match subscribed {
            Ok(subscription) => subscription,
            Err(full) => return Outcome::Reply(self.table_full(full), Cause::Timeout),
        };
        let ends = Instant::now().checked_add(self.instruct.timeout);
        loop {
            while let Some(news) = subscription.next((shared.clock)()) {
                let meaning = match news {
                    News::Gap if self.can_recover() => Meaning::Ask,
                    News::Gap => Meaning::Nothing,
                    News::Item(index, item, published) => {
                        let meaning = self.meaning(&mut subscription, index, &item);
                        if matches!(meaning, Meaning::Reply(_)) {
                            shared.counters.deliveries.fetch_add(1, Ordering::Relaxed);
                            if let Some(name) = subscription.name(index) {
                                shared.metrics.watched.delivered(name, 1);
                            }
                            self.gate.written(Some(published));
                        }
                        meaning
                    }
                };
                match meaning {
                    Meaning::Nothing => {}
                    Meaning::Reply(reply) => return Outcome::Reply(reply, Cause::Message),
                    Meaning::Ask => {
                        // Boxed, as it is not there while the request is held.
                        let asked = Box::pin(self.ask_again(&subscription));
                        tokio::select! {
                            biased;
                            outcome = asked => return outcome,
                            () = &mut gone => return Outcome::Gone,
                        }
                    }
                }
            }
            if subscription.is_draining() {
                return Outcome::Reply(reply(&self.instruct.response), Cause::Drain);
            }
            timer.set(ends.map(|ends| ends.saturating_duration_since(Instant::now())));
            tokio::select! {
                biased;
                () = subscription.notified() => {}
                () = &mut gone => return Outcome::Gone,
                () = poll_fn(|context| timer.poll_expired(context)) => {
                    return Outcome::Reply(reply(&self.instruct.response), Cause::Timeout);
                }
            }
        }
    }

    /// True if the site may be asked what is missing: once, or a site that does not know either
    /// would be asked for ever.
    fn can_recover(&self) -> bool {
        !self.asked && self.origin.can_ask_again()
    }

    fn meaning(&self, subscription: &mut Subscription, index: usize, item: &Item) -> Meaning {
        if !subscription.follows(index, item) && self.can_recover() {
            return Meaning::Ask;
        }
        let Some(format) = &item.formats.http_response else { return Meaning::Nothing };
        let made = match (format.action, &format.body_patch) {
            (Action::Send, None) => {
                Some(format.body.as_ref().map(Content::bytes).unwrap_or_default())
            }
            (Action::Send, Some(operations)) => {
                match patch::apply(&self.instruct.response.body, operations) {
                    Ok(body) => Some(Bytes::from(body)),
                    Err(error) => {
                        tracing::debug!(error, "a GRIP body-patch cannot be applied");
                        None
                    }
                }
            }
            _ => None,
        };
        // A hint is withheld as an item is.
        let body = made.clone().unwrap_or_default();
        let made_for = &format.content_filters;
        let content = subscription.content((index, item), made_for, body, &self.instruct.meta);
        match content {
            None => Meaning::Nothing,
            Some(body) if made.is_some() => Meaning::Reply(reply(&self.response(format, body))),
            Some(_) if self.origin.can_ask_again() => Meaning::Ask,
            // The client comes again, and the site has its answer then.
            Some(_) => Meaning::Reply(reply(&self.instruct.response)),
        }
    }

    /// The response that an item makes, over the headers of the one at the timeout.
    fn response(&self, format: &HttpResponse, body: Bytes) -> Response {
        let own =
            |name: &str| format.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let above = self.instruct.response.headers.iter();
        // The item's body is not compressed as the other was.
        let above =
            above.filter(|(name, _)| !own(name) && !name.eq_ignore_ascii_case("content-encoding"));
        let headers = above.chain(&format.headers).cloned().collect();
        Response { code: format.code, headers, body }
    }

    async fn ask_again(&mut self, subscription: &Subscription) -> Outcome {
        self.asked = true;
        self.before = subscription.places();
        let last = subscription.last();
        let last: Vec<Last<'_>> = last.iter().map(|(name, id)| (&**name, &**id)).collect();
        let answer = self.origin.ask_again(&last).await;
        match answer.and_then(super::origin::Answer::instruct) {
            Ok(instruct) => Outcome::Again(Box::new(instruct)),
            Err(error) => Outcome::Reply(refuse(&error), Cause::Reset),
        }
    }
}
