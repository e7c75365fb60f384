//! The keys of a channel in Redis.
//!
//! A channel belongs to one of [`PARTITIONS`]; the number in braces makes Redis Cluster keep all
//! that belongs to a partition on one node. `docs/backplane.md` documents the same for PHP.

use crate::hub::channel::{ChannelName, SiteName};
use std::borrow::Cow;

/// Number of parts into which the channels are divided. All gates must agree on it.
pub(super) const PARTITIONS: u32 = 64;

/// The version of the keys' layout; another layout would have another value.
pub(super) const LAYOUT: &str = "1/64";

/// Stands between the prefix and a site's name.
const SITE: &str = "/";

/// Names keys and pub/sub channels.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix }
    }

    /// The partition of a channel.
    pub(super) fn partition(channel: &ChannelName) -> u32 {
        crc32fast::hash(channel.as_bytes()) % PARTITIONS
    }

    pub(super) fn state(&self, channel: &ChannelName) -> String {
        self.of("s", channel)
    }

    pub(super) fn history(&self, channel: &ChannelName) -> String {
        self.of("h", channel)
    }

    pub(super) fn pushes(&self, channel: &ChannelName) -> String {
        self.of("p", channel)
    }

    /// The key under which the `index`-th message of a request is published once.
    pub(super) fn once(&self, channel: &ChannelName, index: usize, key: &str) -> String {
        let partition = Self::partition(channel);
        let prefix = self.prefix_of(channel);
        let length = channel.len();
        format!("{prefix}:{{{partition}}}:i:{index}:{length}:{channel}:{key}")
    }

    /// The users whose joins and leaves are on a channel.
    pub(super) fn users(&self, companion: &ChannelName) -> String {
        self.of("u", companion)
    }

    /// Those of them beyond the bound.
    pub(super) fn beyond(&self, companion: &ChannelName) -> String {
        self.of("b", companion)
    }

    /// The clients on the channel that they are about.
    pub(super) fn connections(&self, companion: &ChannelName) -> String {
        self.of("c", companion)
    }

    /// There while their number was announced not long ago.
    pub(super) fn pause(&self, companion: &ChannelName) -> String {
        self.of("n", companion)
    }

    /// The channels of a partition on which a gate has users.
    pub(super) fn gate(&self, partition: u32, gate: &str) -> String {
        format!("{}:{{{partition}}}:g:{gate}", self.prefix)
    }

    /// What a gate lists for a channel.
    pub(super) fn entries(&self, channel: &ChannelName, gate: &str) -> String {
        format!("{}:{gate}", self.of("e", channel))
    }

    /// The leases of all gates.
    pub(super) fn leases(&self) -> String {
        format!("{}:{{0}}:leases", self.prefix)
    }

    /// A channel of a partition.
    pub(super) fn any_of(partition: u32) -> Option<ChannelName> {
        let names =
            (0..100_000).filter_map(|number: u32| ChannelName::new(&number.to_string()).ok());
        let mut names = names;
        names.find(|name| Self::partition(name) == partition)
    }

    /// The key of the layout's note, in a partition.
    pub(super) fn layout(&self, partition: u32) -> String {
        format!("{}:{{{partition}}}:layout", self.prefix)
    }

    /// The key of the note about the servers that a partition came from.
    pub(super) fn lineage(&self, partition: u32) -> String {
        format!("{}:{{{partition}}}:lineage", self.prefix)
    }

    fn of(&self, kind: &str, channel: &ChannelName) -> String {
        format!("{}:{{{}}}:{kind}:{channel}", self.prefix_of(channel), Self::partition(channel))
    }

    /// The prefix of a channel's keys: a site's name follows that of the gate, behind a character
    /// which that cannot have.
    fn prefix_of(&self, channel: &ChannelName) -> Cow<'_, str> {
        match channel.site() {
            "" => Cow::Borrowed(&self.prefix),
            site => Cow::Owned(format!("{}{SITE}{site}", self.prefix)),
        }
    }

    /// The channel whose pushes come over a pub/sub channel.
    pub(super) fn channel(&self, pushes: &[u8]) -> Option<ChannelName> {
        let rest = pushes.strip_prefix(self.prefix.as_bytes())?;
        let (site, rest) = match rest.strip_prefix(SITE.as_bytes()) {
            None => (SiteName::NONE, rest),
            Some(rest) => {
                let (site, rest) = rest.split_at(memchr::memchr(b':', rest)?);
                (SiteName::new(std::str::from_utf8(site).ok()?)?, rest)
            }
        };
        let rest = rest.strip_prefix(b":{")?;
        let end = memchr::memchr(b'}', rest)?;
        let channel = ChannelName::from_bytes(rest[end..].strip_prefix(b"}:p:")?).ok()?;
        Some(channel.in_site(&site))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_found_again_behind_its_keys() {
        let keys = Keys::new("pg".to_owned());
        for name in ["live", "a:b}{c", "räume/1"] {
            let channel = ChannelName::new(name).unwrap();
            assert_eq!(keys.channel(keys.pushes(&channel).as_bytes()), Some(channel));
        }
        let of = |site| ChannelName::new("a:b").unwrap().in_site(&SiteName::new(site).unwrap());
        for channel in [of("shop"), of("blog-2")] {
            assert_eq!(keys.channel(keys.pushes(&channel).as_bytes()), Some(channel));
        }
        let partition = Keys::partition(&of("shop"));
        assert_eq!(keys.state(&of("shop")), format!("pg/shop:{{{partition}}}:s:a:b"));
        // As PHP has it: crc32("live") % 64.
        let live = ChannelName::new("live").unwrap();
        assert_eq!(keys.state(&live), format!("pg:{{{}}}:s:live", Keys::partition(&live)));
        assert_eq!(keys.channel(b"pg:{1}:h:live"), None);
        for none in ["other", "pg/:{1}:p:live", "pg/SHOP:{1}:p:live", "pg/shop", "pg/a/b:{1}:p:x"] {
            assert_eq!(keys.channel(none.as_bytes()), None);
        }
    }
}
