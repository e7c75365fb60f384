//! The subscriptions at one server, wanted and confirmed.
//!
//! A subscription counts when the server has confirmed it **by the channel's name**. Each is
//! numbered when it comes to be wanted, so that the confirmation of an earlier one, of a channel
//! that went and came back, is not taken for it.

use crate::hub::channel::ChannelName;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet, VecDeque};
use tokio::sync::Notify;

/// Subscriptions in one go.
const BATCH: usize = 512;

/// A change of a channel's subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Join,
    Unsubscribe,
}

/// Cause of a subscription's end that the server reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnsubscribeCause {
    /// It was given up here.
    Asked,
    /// The server has ended it.
    Unasked,
}

/// See the [module](self).
pub(super) struct Members {
    state: Mutex<State>,
    more: Notify,
    answered: Notify,
}

#[derive(Default)]
struct State {
    /// With the number of the request.
    members: HashMap<ChannelName, u64>,
    wishes: u64,
    changes: VecDeque<(ChannelName, Change)>,
    /// Sent and not confirmed yet; a join with the number of its request.
    sent: HashMap<ChannelName, (Change, u64)>,
    /// `None` if there is a connection; else the reason why not.
    away: Option<String>,
    /// Earlier subscriptions that have to be confirmed until everything is as it was.
    missing: HashSet<ChannelName>,
}

impl Members {
    /// Those of the node of channels that no server has: nothing can be expected of it.
    pub(super) fn detached() -> Self {
        let state = Mutex::new(State::default());
        Self { state, more: Notify::new(), answered: Notify::new() }
    }
}

impl Default for Members {
    fn default() -> Self {
        let away = Some("not connected yet".to_owned());
        let state = Mutex::new(State { away, ..State::default() });
        Self { state, more: Notify::new(), answered: Notify::new() }
    }
}

impl Members {
    /// Subscribes to a channel.
    pub(super) fn join(&self, channel: ChannelName) {
        self.state.lock().join(channel);
        self.more.notify_one();
    }

    /// Subscribes again to a channel that was subscribed to, here or at another server.
    pub(super) fn join_again(&self, channel: ChannelName) {
        let mut state = self.state.lock();
        state.missing.insert(channel.clone());
        state.join(channel);
        drop(state);
        self.more.notify_one();
    }

    /// Gives away the channels that `which` selects: another node subscribes to them.
    pub(super) fn take(&self, which: impl Fn(&ChannelName) -> bool) -> Vec<ChannelName> {
        let mut state = self.state.lock();
        let taken: Vec<_> =
            state.members.keys().filter(|channel| which(channel)).cloned().collect();
        for channel in &taken {
            state.members.remove(channel);
            state.missing.remove(channel);
        }
        state.changes.retain(|(channel, _)| !which(channel));
        taken
    }

    /// Unsubscribes from a channel, unless `is_wanted` finds that it has been polled meanwhile.
    ///
    /// It is called under the lock: a poll that wants the channel after it is queued behind.
    pub(super) fn unsubscribe(
        &self,
        channel: &ChannelName,
        is_wanted: impl Fn(&ChannelName) -> bool,
    ) {
        let mut state = self.state.lock();
        if !is_wanted(channel) && state.members.remove(channel).is_some() {
            state.missing.remove(channel);
            state.changes.push_back((channel.clone(), Change::Unsubscribe));
        }
        drop(state);
        self.more.notify_one();
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<ChannelName> {
        self.state.lock().members.keys().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.state.lock().members.len()
    }

    /// Reason why a subscription is missing; `None` = all are there.
    pub(super) fn unready(&self) -> Option<String> {
        let state = self.state.lock();
        let missing = state.missing.len();
        let waits =
            || (missing > 0).then(|| format!("{missing} subscriptions are not confirmed yet"));
        state.away.clone().or_else(waits)
    }

    /// Begins anew on a new connection, with the channels that `first` selects first.
    pub(super) fn begin(&self, first: impl Fn(&ChannelName) -> bool) {
        let mut channels = self.all();
        channels.sort_by_cached_key(|channel| !first(channel));
        let mut state = self.state.lock();
        state.changes.clear();
        state.sent.clear();
        state.away = None;
        // Some may have come or gone meanwhile.
        channels.retain(|channel| state.members.contains_key(channel));
        let queued: HashSet<_> = channels.iter().cloned().collect();
        let late = state.members.keys().filter(|channel| !queued.contains(*channel));
        let late: Vec<_> = late.cloned().collect();
        for channel in channels.into_iter().chain(late) {
            state.missing.insert(channel.clone());
            state.join(channel);
        }
        drop(state);
        self.more.notify_one();
    }

    /// The connection is lost; returns the channels that have lost their subscription.
    pub(super) fn end(&self, reason: &str) -> Vec<ChannelName> {
        let mut state = self.state.lock();
        state.away = Some(format!("pushes do not come: {reason}"));
        state.changes.clear();
        state.sent.clear();
        state.members.keys().cloned().collect()
    }

    /// The next changes of one kind, to send now.
    pub(super) async fn next(&self) -> (Change, Vec<ChannelName>) {
        loop {
            if let Some(batch) = self.state.lock().next() {
                return batch;
            }
            self.more.notified().await;
        }
    }

    /// The server confirms a subscription; calls `tell` if it is the one that is wanted.
    ///
    /// The call is under the lock: a change that takes the channel away comes before or after it.
    pub(super) fn confirmed(&self, channel: &ChannelName, tell: impl Fn(&ChannelName)) {
        let mut state = self.state.lock();
        if let Some(&(Change::Join, pending_join)) = state.sent.get(channel) {
            state.sent.remove(channel);
            if state.members.get(channel) == Some(&pending_join) {
                state.missing.remove(channel);
                tell(channel);
            }
        }
        drop(state);
        self.answered.notify_one();
    }

    /// The server reports that a subscription has ended.
    pub(super) fn ended(&self, channel: &ChannelName) -> UnsubscribeCause {
        let mut state = self.state.lock();
        let asked = matches!(state.sent.get(channel), Some((Change::Unsubscribe, _)));
        if asked {
            state.sent.remove(channel);
        }
        let ended = match asked || !state.members.contains_key(channel) {
            true => UnsubscribeCause::Asked,
            false => UnsubscribeCause::Unasked,
        };
        drop(state);
        self.answered.notify_one();
        ended
    }

    /// Waits until the server has answered all requests.
    pub(super) async fn all_answered(&self) {
        while !self.state.lock().sent.is_empty() {
            self.answered.notified().await;
        }
    }

    /// Sent requests will not be answered: subscriptions are tried again.
    pub(super) fn send_again(&self) {
        let mut state = self.state.lock();
        for (channel, (change, pending_join)) in std::mem::take(&mut state.sent) {
            if change == Change::Join && state.members.get(&channel) == Some(&pending_join) {
                state.changes.push_back((channel, change));
            }
        }
        drop(state);
        self.more.notify_one();
    }
}

impl State {
    fn join(&mut self, channel: ChannelName) {
        self.wishes += 1;
        self.members.insert(channel.clone(), self.wishes);
        self.changes.push_back((channel, Change::Join));
    }

    fn next(&mut self) -> Option<(Change, Vec<ChannelName>)> {
        let (_, change) = *self.changes.front()?;
        let same = self.changes.iter().take_while(|(_, next)| *next == change);
        let count = same.take(BATCH).count();
        let batch: Vec<_> = self.changes.drain(..count).map(|(channel, _)| channel).collect();
        for channel in &batch {
            let pending_join = self.members.get(channel).copied().unwrap_or_default();
            self.sent.insert(channel.clone(), (change, pending_join));
        }
        Some((change, batch))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn name() -> ChannelName {
        ChannelName::new("news").unwrap()
    }

    #[tokio::test]
    async fn the_confirmation_of_an_earlier_subscription_is_none_of_a_later_one() {
        let members = Members::default();
        members.join(name());
        assert_eq!(members.next().await, (Change::Join, vec![name()]));
        // It moves away and comes back before the first answer.
        assert_eq!(members.take(|_| true), [name()]);
        members.join_again(name());
        let told = Cell::new(0);
        let tell = |_: &ChannelName| told.set(told.get() + 1);
        members.confirmed(&name(), tell);
        assert_eq!(told.get(), 0);
        assert_eq!(members.next().await, (Change::Join, vec![name()]));
        members.confirmed(&name(), tell);
        members.confirmed(&name(), tell);
        assert_eq!(told.get(), 1);
        members.all_answered().await;
    }

    #[tokio::test]
    async fn a_subscription_that_the_server_ends_is_told_from_one_that_was_given_up() {
        let members = Members::default();
        members.join(name());
        members.next().await;
        members.confirmed(&name(), |_| {});
        assert_eq!(members.ended(&name()), UnsubscribeCause::Unasked);
        members.unsubscribe(&name(), |_| false);
        assert_eq!(members.next().await, (Change::Unsubscribe, vec![name()]));
        // It is wanted again before the answer.
        members.join(name());
        assert_eq!(members.ended(&name()), UnsubscribeCause::Asked);
    }

    #[tokio::test]
    async fn what_was_sent_and_refused_is_sent_again_if_it_is_wanted_still() {
        let members = Members::default();
        members.begin(|_| false);
        members.join(name());
        members.next().await;
        members.send_again();
        assert_eq!(members.next().await, (Change::Join, vec![name()]));
        members.take(|_| true);
        members.send_again();
        members.all_answered().await;
        assert_eq!((members.len(), members.unready()), (0, None));
    }
}
