//! The replay dialect: a poll is held, and then answered by the upstream
//! (`docs/dialects/replay.md`).

use super::{Parsed, Poll, Request, refused};
use crate::hub::Subscription;
use crate::hub::channel::{ChannelName, Cursor, Take};
use crate::protocol::template::Template;
use smallvec::smallvec;
use std::time::Duration;

/// The replay dialect.
#[derive(Debug, Clone)]
pub struct Replay {
    /// The channel.
    pub channel: Template,
    /// Text added to the query of the request to the upstream.
    pub add_query: Option<String>,
    /// True if the upstream's response is the same for all clients, so that one request is enough
    /// for all polls that a publish releases.
    pub share: bool,
    /// Maximum number of the rule's polls that are forwarded at the same time; at least 1.
    pub concurrency: usize,
    /// Polls within this time after a publish are forwarded at once, as their position is not
    /// known.
    pub slack: Duration,
}

impl Replay {
    /// The dialect with default settings.
    pub fn new(channel: Template) -> Self {
        let slack = Duration::from_secs(5);
        Self { channel, add_query: None, share: false, concurrency: 8, slack }
    }

    pub(super) fn parse(&self, request: &Request<'_>) -> Parsed {
        let Some(channel) = self.channel.fill(|field| request.field(field)) else {
            return Parsed::OtherRule;
        };
        let channel = match ChannelName::new(&channel) {
            Ok(channel) => channel,
            Err(error) => return refused(error),
        };
        let subscriptions = smallvec![Subscription { channel, cursor: Cursor::Recent(self.slack) }];
        Parsed::Poll(Poll { subscriptions, take: Take::Newest, timeout: None, callback: None })
    }

    /// `target` (path and query) in the request to the upstream.
    pub fn target(&self, target: &[u8]) -> Vec<u8> {
        let Some(added) = &self.add_query else { return target.to_vec() };
        let joint = match target.iter().position(|byte| *byte == b'?') {
            None => "?",
            Some(at) if at + 1 == target.len() || target.ends_with(b"&") => "",
            Some(_) => "&",
        };
        [target, joint.as_bytes(), added.as_bytes()].concat()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_sites_query_is_the_clients_with_more() {
        let mut replay = Replay::new("c".parse().unwrap());
        assert_eq!(replay.target(b"/a?b"), b"/a?b");
        replay.add_query = Some("wait=0".to_owned());
        for (target, expected) in [
            ("/a", "/a?wait=0"),
            ("/a?", "/a?wait=0"),
            ("/a?b=c", "/a?b=c&wait=0"),
            ("/a?b=c&", "/a?b=c&wait=0"),
            ("/a?b=?", "/a?b=?&wait=0"),
            ("/a?wait=30", "/a?wait=30&wait=0"),
        ] {
            assert_eq!(replay.target(target.as_bytes()), expected.as_bytes(), "{target}");
        }
    }
}
