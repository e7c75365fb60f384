//! The replay dialect: a poll is held, and then answered by the upstream
//! (`docs/dialects/replay.md`).

use super::{Parsed, Poll, Request, refused};
use crate::hub::Subscription;
use crate::hub::channel::{Cursor, Take};
use crate::protocol::http::Reply;
use crate::protocol::http::query::Query;
use crate::protocol::template::Template;
use bytes::Bytes;
use smallvec::smallvec;
use std::borrow::Cow;
use std::time::Duration;

/// The treatment of a poll whose client has nothing yet: its cursor is missing, empty or `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum First {
    /// It goes to the upstream at once.
    #[default]
    Forward,
    /// It is held like any other.
    Wait,
}

/// The response to a poll without an update, which the gate gives in place of the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuietReply {
    /// Its content type.
    pub content_type: String,
    /// Its body.
    pub body: Bytes,
}

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
    /// The parameter in which clients send their position; `None` = only the upstream knows it.
    pub cursor: Option<String>,
    /// The treatment of polls without a position, where `cursor` is named.
    pub first: First,
    /// The response to a poll at its timeout; `None` = it is forwarded.
    pub on_timeout: Option<QuietReply>,
    /// Longest time that the upstream may take to begin its response; then the poll is cut off
    /// there and held on. `None` = as long as any request.
    pub max_wait: Option<Duration>,
}

impl Replay {
    /// The dialect with default settings.
    pub fn new(channel: Template) -> Self {
        let slack = Duration::from_secs(5);
        let cursor = None;
        let first = First::default();
        let on_timeout = None;
        let max_wait = None;
        let add_query = None;
        let share = false;
        let concurrency = 2;
        Self { channel, add_query, share, concurrency, slack, cursor, first, on_timeout, max_wait }
    }

    /// The client's position; `None` = it has none yet, or never sends one.
    pub fn position<'a>(&self, query: &'a Query, form: Option<&'a Query>) -> Option<Cow<'a, str>> {
        let name = self.cursor.as_deref()?;
        let text = form.and_then(|form| form.text(name)).or_else(|| query.text(name));
        text.filter(|text| !matches!(&**text, "" | "0"))
    }

    /// The response to a poll at its timeout, if the gate gives it.
    pub fn quiet_reply(&self) -> Option<Reply> {
        let quiet = self.on_timeout.as_ref()?;
        let mut reply = Reply::new(200, "", quiet.body.clone());
        reply.content_type = Cow::Owned(quiet.content_type.clone());
        Some(reply.with("X-Content-Type-Options", "nosniff"))
    }

    pub(super) fn parse(&self, request: &Request<'_>) -> Parsed {
        let Some(channel) = self.channel.fill(|field| request.field(field)) else {
            return Parsed::OtherRule;
        };
        let channel = match request.channel(&channel) {
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
