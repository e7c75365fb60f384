//! Reads the table without changing it.

use super::registration::Register;
use super::{Channel, ChannelUpdate, Hub, Subscription};
use crate::hub::channel::{ChannelName, Epoch, Position, SiteName, Stamp, Take, Tick, Time};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A channel's figures at one moment.
#[derive(Debug, Clone)]
pub struct Info {
    /// Its name.
    pub channel: ChannelName,
    /// Polls held on it.
    pub held: usize,
    /// Messages kept.
    pub kept: usize,
    /// Bytes of the messages kept.
    pub bytes: u64,
    /// The current life of its history.
    pub epoch: Epoch,
    /// The unit of its stamps.
    pub tick: Tick,
    /// When a poll last came; `None` = none did.
    pub polled: Option<Time>,
    /// The tag of the newest message ever, if there is one.
    pub newest_tag: u64,
    /// The newest message ever: its position and stamp.
    pub newest: Option<(Position, Stamp)>,
    /// The oldest message kept.
    pub oldest: Option<(Position, Stamp)>,
}

impl Hub {
    /// The figures of a channel; `None` if it does not exist.
    pub fn info(&self, name: &ChannelName, now: Time) -> Option<Info> {
        let now = self.time(now);
        let channel = self.table(name).peek(name)?;
        Some(self.describe(&channel, now))
    }

    /// The figures of at most `most` channels of `site` after the name `after`, in the order of
    /// their names, and true if there are more.
    pub fn list(
        &self,
        site: &SiteName,
        after: Option<&str>,
        most: usize,
        now: Time,
    ) -> (Vec<Info>, bool) {
        let now = self.time(now);
        let (channels, more) = self.shared.tables.of_site(site.as_str()).page(after, most);
        (channels.iter().map(|channel| self.describe(channel, now)).collect(), more)
    }

    /// The figures of the `most` channels with the most held polls, busiest first; equals are
    /// ordered by the number of messages. Looks at every channel.
    pub fn busiest(&self, most: usize, now: Time) -> Vec<Info> {
        let now = self.time(now);
        let mut least_first = BinaryHeap::with_capacity(most + 1);
        self.for_each_channel(|channel| {
            let (held, messages) = {
                let state = channel.state.lock();
                (state.held(), if state.stored { state.history.position().seq } else { 0 })
            };
            let enough = least_first.len() >= most;
            let least = least_first.peek().map(|Reverse((held, messages, _))| (*held, *messages));
            if !enough || least < Some((held, messages)) {
                least_first.push(Reverse((held, messages, channel.name.clone())));
            }
            if least_first.len() > most {
                least_first.pop();
            }
        });
        let busiest = least_first.into_sorted_vec();
        let names = busiest.into_iter().map(|Reverse((.., name))| name);
        let channels = names.filter_map(|name| self.table(&name).peek(&name));
        channels.map(|channel| self.describe(&channel, now)).collect()
    }

    fn describe(&self, channel: &Channel, now: Time) -> Info {
        self.with_trimmed(&mut channel.state.lock(), now, |state| Info {
            channel: channel.name.clone(),
            held: state.held(),
            kept: state.history.len(),
            bytes: state.history.bytes(),
            epoch: state.history.position().epoch,
            tick: state.limits.tick,
            polled: (state.polled > Time(0)).then_some(state.polled),
            newest_tag: state.history.newest_tag(),
            newest: state.history.newest_stamp().map(|stamp| (state.history.position(), stamp)),
            oldest: state.history.oldest().map(|message| (message.position, message.stamp)),
        })
    }

    /// Reads a channel's history from a cursor, without creating or holding anything. `None` = a
    /// replica that does not know the channel.
    pub fn read(
        &self,
        subscription: &Subscription,
        take: Take,
        now: Time,
    ) -> Option<ChannelUpdate> {
        let now = self.time(now);
        let Some(channel) = self.table(&subscription.channel).peek(&subscription.channel) else {
            let looked = self.look_at_none(subscription, take, Register::Never, now);
            return looked.filter(|_| !self.is_replica()).map(|looked| looked.update);
        };
        let cursor = self.no_later_than(now, subscription.cursor);
        self.with_trimmed(&mut channel.state.lock(), now, |state| {
            let tick = state.limits.tick;
            if state.feed.is_none() {
                state.history.pass_time(now);
            }
            let found = state.history.since(cursor, take, tick, now);
            Some(ChannelUpdate { channel: subscription.channel.clone(), tick, found })
        })
    }
}
