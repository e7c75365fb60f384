//! A channel's figures in Nchan's four formats.

use super::seconds;
use crate::hub::Info;
use crate::hub::channel::Time;
use crate::protocol::dialect::nchan::message_id;
use crate::protocol::http::{Reply, Request};

/// What the figures say.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    /// Messages kept.
    pub(super) messages: usize,
    /// Seconds since a client last asked; `None` = none did.
    pub(super) requested: Option<u64>,
    /// Held polls and streams.
    pub(super) subscribers: usize,
    /// The id of the newest message.
    pub(super) last: String,
}

/// A format, by what `Accept` calls it.
const FORMATS: [(&str, Format); 9] = [
    ("text/plain", Format::Plain),
    ("text/json", Format::Json),
    ("application/json", Format::Json),
    ("text/xml", Format::Xml),
    ("application/xml", Format::Xml),
    ("text/yaml", Format::Yaml),
    ("text/x-yaml", Format::Yaml),
    ("application/yaml", Format::Yaml),
    ("application/x-yaml", Format::Yaml),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Plain,
    Json,
    Xml,
    Yaml,
}

impl Figures {
    /// The figures of some channels of `named`; `None` = there is none.
    pub(super) fn of(infos: impl Iterator<Item = Info>, named: usize, now: Time) -> Option<Self> {
        let mut figures: Option<Self> = None;
        for info in infos {
            let one = figures.get_or_insert_default();
            one.messages = one.messages.max(info.kept);
            one.subscribers += info.held;
            let requested = info.polled.map(|polled| seconds(polled, now));
            one.requested = match (one.requested, requested) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            one.last = match info.newest {
                // Several channels have no id in common.
                _ if named > 1 => "0".to_owned(),
                Some((_, stamp)) => message_id(stamp, info.newest_tag),
                None => "0:0".to_owned(),
            };
        }
        figures
    }

    pub(super) fn reply(&self, status: u16, request: &Request) -> Reply {
        let accept = request.headers.get(http::header::ACCEPT);
        let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut types = accept.split(',').map(|one| one.split(';').next().unwrap_or_default());
        let known = |name: &str| FORMATS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let format = types.find_map(|one| known(one.trim())).map_or(Format::Plain, |(_, one)| *one);
        let Self { messages, subscribers, last, .. } = self;
        let requested = self.requested.map_or("-1".to_owned(), |seconds| seconds.to_string());
        let (content_type, body) = match format {
            Format::Plain => (
                "text/plain",
                format!(
                    "queued messages: {messages}\r\nlast requested: {requested} sec. ago\r\n\
                     active subscribers: {subscribers}\r\nlast message id: {last}"
                ),
            ),
            Format::Json => (
                "text/json",
                format!(
                    "{{\"messages\": {messages}, \"requested\": {requested}, \"subscribers\": \
                     {subscribers}, \"last_message_id\": \"{last}\" }}"
                ),
            ),
            Format::Xml => (
                "text/xml",
                format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\" ?>\r\n<channel>\r\n  \
                     <messages>{messages}</messages>\r\n  <requested>{requested}</requested>\r\n  \
                     <subscribers>{subscribers}</subscribers>\r\n  \
                     <last_message_id>{last}</last_message_id>\r\n</channel>"
                ),
            ),
            Format::Yaml => (
                "text/yaml",
                format!(
                    "---\r\nmessages: {messages}\r\nrequested: {requested}\r\nsubscribers: \
                     {subscribers}\r\nlast_message_id: \"{last}\"\r\n\r\n"
                ),
            ),
        };
        Reply::new(status, content_type, body)
    }
}
