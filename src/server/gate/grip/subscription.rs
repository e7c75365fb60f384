//! A hold's place in its channels.
//!
//! A channel whose last known item the site names is read from the beginning of its history: what
//! stands behind that item is news. If the item is not there, the hold has a gap, which only the
//! site can fill.

use super::items;
use crate::hub::channel::{ChannelName, Cursor, Message, Position, SiteName, Stamp, Take, Time};
use crate::hub::{self, Answer, Hub, TableFull, Waiter};
use crate::protocol::grip::filter::{self, Context, Meta};
use crate::protocol::grip::item::ContentFilters;
use crate::protocol::grip::{self, Filter, Instruct, Item, instruct};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task;

/// See the [module](self).
pub(super) struct Subscription {
    waiter: Waiter,
    channels: Vec<Channel>,
    /// What the channels had at the beginning.
    found: Option<Box<Answer>>,
    queue: VecDeque<Queued>,
    /// The channels were looked at, and what was found is in the queue: until it is notified, there
    /// is nothing more to look for.
    looked: bool,
    /// Where the channels are after the queue.
    ends: Vec<(usize, Position, Stamp)>,
}

struct Channel {
    name: String,
    filters: Vec<Filter>,
    /// The id of the last item, where the site wants to know of it.
    last: Option<String>,
    /// It has to be found in the history yet.
    seeks: bool,
    /// Where the hold was before the site was asked again.
    before: Option<Position>,
    /// It has had an item since the last look of the next link's timer.
    active: bool,
}

enum Queued {
    Message(usize, Arc<Message>),
    Gap,
}

/// What comes next.
pub(super) enum News {
    /// An item on the channel of that index.
    Item(usize, Arc<Item>, Time),
    /// Something may be missing.
    Gap,
}

/// The places of a hold in channels of the site's names.
pub(super) type Places = Vec<(String, Position)>;

impl Subscription {
    /// Subscribes to channels of `site`; `before` = the places of the hold that goes on with them.
    pub(super) fn new(
        (hub, site): (&Hub, &SiteName),
        wanted: &[instruct::Channel],
        before: &Places,
        now: Time,
    ) -> Result<Self, TableFull> {
        // There is mostly one, and a vector that grows has room for four.
        let mut channels = Vec::with_capacity(wanted.len());
        let mut subscriptions = Vec::with_capacity(wanted.len());
        for channel in wanted {
            // Checked when it was read.
            let Ok(name) = grip::channel(&channel.name) else { continue };
            let place = before.iter().find(|(known, _)| *known == channel.name);
            let place = place.map(|(_, position)| *position);
            let cursor = match (&channel.prev_id, place) {
                (Some(_), _) => Cursor::Oldest,
                (None, Some(position)) => Cursor::At(position),
                (None, None) => Cursor::Now,
            };
            subscriptions.push(hub::Subscription { channel: name.in_site(site), cursor });
            channels.push(Channel {
                name: channel.name.clone(),
                filters: channel.filters.clone(),
                last: channel.prev_id.clone(),
                seeks: channel.prev_id.is_some(),
                before: place,
                active: false,
            });
        }
        let (waiter, found) = hub.subscribe(&subscriptions, Take::All, now)?;
        Ok(Self {
            waiter,
            channels,
            found: Some(Box::new(found)),
            queue: VecDeque::new(),
            looked: false,
            ends: Vec::new(),
        })
    }

    /// Waits until there may be news.
    pub(super) async fn notified(&self) {
        self.waiter.notified().await;
    }

    /// The same, for a task that waits for more than that.
    pub(super) fn poll_notified(&self, context: &mut task::Context<'_>) -> task::Poll<()> {
        self.waiter.poll_notified(context)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.waiter.is_draining()
    }

    /// What comes next, if it is there. The hold's place moves with it.
    pub(super) fn next(&mut self, now: Time) -> Option<News> {
        loop {
            match self.queue.pop_front() {
                Some(Queued::Gap) => return Some(News::Gap),
                Some(Queued::Message(index, message)) => {
                    self.waiter.advance_to(index, message.position, message.stamp);
                    // Whatever else is published there is for others.
                    if let Some(item) = items::of(&message) {
                        return Some(News::Item(index, item, message.published));
                    }
                }
                None => {
                    for (index, position, stamp) in self.ends.drain(..) {
                        self.waiter.advance_to(index, position, stamp);
                    }
                    let looked = std::mem::take(&mut self.looked);
                    let found = match self.found.take() {
                        Some(found) => Some(*found),
                        None if looked => None,
                        None => self.waiter.look(now),
                    };
                    match found {
                        Some(found) => {
                            self.looked = true;
                            self.fill(&found);
                        }
                        None if self.conclude() => return Some(News::Gap),
                        None => return None,
                    }
                }
            }
        }
    }

    fn fill(&mut self, found: &Answer) {
        let unresolved = self.waiter.is_unresolved();
        for (index, update) in found.iter().enumerate() {
            let Some(channel) = self.channels.get_mut(index) else { continue };
            let found = &update.found;
            self.ends.push((index, found.position, found.stamp));
            let mut messages = &found.messages[..];
            if std::mem::take(&mut channel.seeks) {
                let last = channel.last.as_deref();
                let is_last = |message: &Arc<Message>| {
                    items::of(message).is_some_and(|item| item.id.as_deref() == last)
                };
                match messages.iter().rposition(is_last) {
                    Some(at) => {
                        self.waiter.advance_to(index, messages[at].position, messages[at].stamp);
                        messages = &messages[at + 1..];
                    }
                    // It may not be here yet.
                    None if messages.is_empty() => channel.seeks = true,
                    None => {
                        self.queue.push_back(Queued::Gap);
                        let known = channel.before.unwrap_or(found.position);
                        self.waiter.advance_to(index, known, found.stamp);
                        let at = messages.iter().position(|it| !known.covers(it.position));
                        messages = &messages[at.unwrap_or(messages.len())..];
                    }
                }
            } else if found.reset {
                self.queue.push_back(Queued::Gap);
            }
            let queued = messages.iter().map(|one| Queued::Message(index, one.clone()));
            self.queue.extend(queued);
        }
        if !unresolved && self.queue.is_empty() && self.conclude() {
            self.queue.push_back(Queued::Gap);
        }
    }

    /// Ends the search in channels that have no history. True if one of them had something: a
    /// channel that never had is where the site says it is.
    fn conclude(&mut self) -> bool {
        if self.waiter.is_unresolved() {
            return false;
        }
        let mut gap = false;
        for (channel, place) in self.channels.iter_mut().zip(self.waiter.place()) {
            let sought = std::mem::take(&mut channel.seeks);
            gap |= sought && !place.found.position.epoch.is_clock();
        }
        gap
    }

    /// Takes note of an item's id; false if the item does not follow the one before it.
    pub(super) fn follows(&mut self, index: usize, item: &Item) -> bool {
        let Some(channel) = self.channels.get_mut(index) else { return true };
        channel.active = true;
        let Some(last) = &channel.last else { return true };
        let follows = item.no_seq || item.prev_id.as_ref().is_none_or(|prev| prev == last);
        if let Some(id) = item.id.as_ref().filter(|_| !item.no_seq) {
            channel.last = Some(id.clone());
        }
        follows
    }

    /// The content of an item for the hold; `None` = it is not for it.
    pub(super) fn content(
        &self,
        (index, item): (usize, &Item),
        made_for: &ContentFilters,
        content: Bytes,
        meta: &Meta,
    ) -> Option<Bytes> {
        let filters = &self.channels.get(index)?.filters;
        if filters.is_empty() && made_for.as_ref().is_none_or(Vec::is_empty) {
            return Some(content);
        }
        if let Some(made_for) = made_for {
            let own = filters.iter().filter(|filter| filter.is_of_content());
            if !own.map(|filter| filter.name()).eq(made_for.iter().map(String::as_str)) {
                return None;
            }
        }
        let channels = self.last_ids();
        let context = Context { hold: meta, item: &item.meta, channels: &channels };
        filter::apply(filters, &context, content).unwrap_or_else(|error| {
            tracing::debug!(error, "a GRIP item cannot be made for a hold");
            None
        })
    }

    /// The beginning of a hold after its filters.
    pub(super) fn beginning(instruct: &Instruct) -> Result<Bytes, String> {
        let filters = instruct.channels.iter().flat_map(|channel| channel.filters.iter().copied());
        let filters: Vec<Filter> = filters.collect();
        let channels = instruct.channels.iter();
        let channels: Vec<_> =
            channels.map(|one| (one.name.as_str(), one.prev_id.as_deref())).collect();
        let none = Meta::new();
        let context = Context { hold: &instruct.meta, item: &none, channels: &channels };
        filter::apply_to_response(&filters, &context, instruct.response.body.clone())
    }

    fn last_ids(&self) -> Vec<(&str, Option<&str>)> {
        self.channels.iter().map(|one| (one.name.as_str(), one.last.as_deref())).collect()
    }

    /// The channels of which the site wants to know the last item, with it.
    pub(super) fn last(&self) -> Vec<(String, String)> {
        let channels = self.channels.iter();
        channels.filter_map(|one| Some((one.name.clone(), one.last.clone()?))).collect()
    }

    /// Where the hold is now.
    pub(super) fn places(&self) -> Places {
        if self.waiter.is_unresolved() {
            return Places::new();
        }
        let places = self.waiter.place().iter().map(|update| update.found.position);
        self.channels.iter().map(|channel| channel.name.clone()).zip(places).collect()
    }

    /// The hub's name of a channel.
    pub(super) fn name(&self, index: usize) -> Option<&ChannelName> {
        self.waiter.place().get(index).map(|update| &update.channel)
    }

    /// True if each channel has had an item since it was last true.
    pub(super) fn were_all_active(&mut self) -> bool {
        let all = self.channels.iter().all(|channel| channel.active);
        if all {
            self.channels.iter_mut().for_each(|channel| channel.active = false);
        }
        all
    }
}
