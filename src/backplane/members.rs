//! The channels that are, or are to be, subscribed to at one server.
//!
//! A subscription counts when the server has confirmed it **by the channel's name**. Each is
//! numbered when it comes to be wanted, so that the confirmation of an earlier one, of a channel
//! that went and came back, is not taken for it.

use crate::channel::ChannelName;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet, VecDeque};
use tokio::sync::Notify;

/// Subscriptions in one go.
const BATCH: usize = 512;

/// What is to be done about a channel's subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Join,
    Leave,
}

/// What the end of a subscription, told by the server, means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
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
    /// With the number of the wish.
    members: HashMap<ChannelName, u64>,
    wishes: u64,
    changes: VecDeque<(ChannelName, Change)>,
    /// What was sent and has not been confirmed; a join with the number of its wish.
    sent: HashMap<ChannelName, (Change, u64)>,
    /// Whether there is a connection; else why not.
    away: Option<String>,
    /// Subscriptions from before that are to be confirmed until everything is as it was.
    missing: HashSet<ChannelName>,
}

impl Default for Members {
    fn default() -> Self {
        let away = Some("not connected yet".to_owned());
        let state = Mutex::new(State { away, ..State::default() });
        Self { state, more: Notify::new(), answered: Notify::new() }
    }
}

impl Members {
    /// A channel is to be subscribed to.
    pub(super) fn join(&self, channel: ChannelName) {
        self.state.lock().join(channel);
        self.more.notify_one();
    }

    /// A subscription may be given up, unless `is_wanted` says that somebody came meanwhile.
    ///
    /// It is asked under the lock: whoever wants the channel after it is queued behind.
    pub(super) fn leave(&self, channel: &ChannelName, is_wanted: impl Fn(&ChannelName) -> bool) {
        let mut state = self.state.lock();
        if !is_wanted(channel) && state.members.remove(channel).is_some() {
            state.missing.remove(channel);
            state.changes.push_back((channel.clone(), Change::Leave));
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

    /// Why not every subscription is there; `None` = all are.
    pub(super) fn unready(&self) -> Option<String> {
        let state = self.state.lock();
        let missing = state.missing.len();
        let waits =
            || (missing > 0).then(|| format!("{missing} subscriptions are not confirmed yet"));
        state.away.clone().or_else(waits)
    }

    /// Begins anew on a new connection, with the channels that `first` says first.
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

    /// The connection is no more; the channels that are subscribed to no longer.
    pub(super) fn end(&self, reason: &str) -> Vec<ChannelName> {
        let mut state = self.state.lock();
        state.away = Some(format!("pushes do not come: {reason}"));
        state.changes.clear();
        state.sent.clear();
        state.members.keys().cloned().collect()
    }

    /// The next changes of one kind, which are now to be sent.
    pub(super) async fn next(&self) -> (Change, Vec<ChannelName>) {
        loop {
            if let Some(batch) = self.state.lock().next() {
                return batch;
            }
            self.more.notified().await;
        }
    }

    /// The server confirms a subscription; `tell` hears of it if it is the one that is wanted.
    ///
    /// It does so under the lock: whoever takes the channel away comes before or after it.
    pub(super) fn confirmed(&self, channel: &ChannelName, tell: impl Fn(&ChannelName)) {
        let mut state = self.state.lock();
        if let Some(&(Change::Join, wish)) = state.sent.get(channel) {
            state.sent.remove(channel);
            if state.members.get(channel) == Some(&wish) {
                state.missing.remove(channel);
                tell(channel);
            }
        }
        drop(state);
        self.answered.notify_one();
    }

    /// The server says that a subscription has ended.
    pub(super) fn ended(&self, channel: &ChannelName) -> Ended {
        let mut state = self.state.lock();
        let asked = matches!(state.sent.get(channel), Some((Change::Leave, _)));
        if asked {
            state.sent.remove(channel);
        }
        let ended = match asked || !state.members.contains_key(channel) {
            true => Ended::Asked,
            false => Ended::Unasked,
        };
        drop(state);
        self.answered.notify_one();
        ended
    }

    /// Until the server has answered to all that was sent.
    pub(super) async fn all_answered(&self) {
        while !self.state.lock().sent.is_empty() {
            self.answered.notified().await;
        }
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
            let wish = self.members.get(channel).copied().unwrap_or_default();
            self.sent.insert(channel.clone(), (change, wish));
        }
        Some((change, batch))
    }
}
