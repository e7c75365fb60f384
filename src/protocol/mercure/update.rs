//! An update: read from a publisher's form, stored as one message of the hub's channel, and read
//! back for each subscriber.
//!
//! The stored form is text: a line of `+` (private) or `-` and the id, a line for each topic, an
//! empty line, and then the event as subscribers get it, written once. So everything that the
//! filter and the stream need travels inside the message, to other gates too.

use super::parameters::Parameters;
use super::{MAX_TOPIC, MAX_TOPIC_BYTES, MAX_TOPICS, Refused};
use crate::hub::channel::{ChannelName, Kind, Payload};
use bytes::Bytes;

/// The content type of a stored update: nothing else on the hub's channel counts as one.
const CONTENT_TYPE: &str = "application/vnd.pollgate.mercure";

/// A client that comes back at once would do so for ever.
const MIN_RETRY: u64 = 500;

/// An update as it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Its topics; the first is the canonical one.
    pub topics: Vec<String>,
    /// The event's data.
    pub data: String,
    /// Only for subscribers whose token names one of the topics.
    pub private: bool,
    /// Its id, the publisher's own where it has given one.
    pub id: String,
    /// The event's type; empty = none.
    pub kind: String,
    /// Milliseconds after which a client comes back whose stream breaks off; 0 = as before.
    pub retry: u64,
}

impl Update {
    /// Reads a publisher's form; `id` is that of an update whose publisher gives none. Topics of
    /// the hub at `path` are its own.
    pub(super) fn read(form: Parameters<'_>, id: String, path: &str) -> Result<Self, Refused> {
        // One more than allowed is enough to see that there are too many.
        let topics: Vec<String> =
            form.values("topic").take(MAX_TOPICS + 1).map(Into::into).collect();
        check_topics(&topics)?;
        if topics.iter().any(|topic| topic.contains(path)) {
            return Err(Refused::Forbidden("this topic is the hub's own"));
        }
        let text = |name| form.first(name).unwrap_or_default().into_owned();
        let own_id = text("id");
        let kind = text("type");
        let breaks_lines = |text: &str| text.contains(['\r', '\n', '\0']);
        if breaks_lines(&own_id) || breaks_lines(&kind) {
            return Err(Refused::Bad("\"id\" and \"type\" must be one line"));
        }
        if own_id == super::EARLIEST {
            return Err(Refused::Bad("\"earliest\" is no id"));
        }
        if own_id.len() > MAX_TOPIC || kind.len() > MAX_TOPIC {
            return Err(Refused::Bad("\"id\" or \"type\" is too long"));
        }
        let retry = match text("retry").as_str() {
            "" => 0,
            digits => digits.parse().map_err(|_| Refused::Bad("\"retry\" is no number"))?,
        };
        let private = form.values("private").next().is_some();
        let id = if own_id.is_empty() { id } else { own_id };
        Ok(Self { topics, data: text("data"), private, id, kind, retry })
    }

    /// The message that it is stored as.
    pub fn payload(&self) -> Payload {
        let mut out = String::with_capacity(self.data.len() + 256);
        out.push(if self.private { '+' } else { '-' });
        out.push_str(&self.id);
        out.push('\n');
        for topic in &self.topics {
            out.push_str(topic);
            out.push('\n');
        }
        out.push('\n');
        self.write_event(&mut out);
        Payload { kind: Kind::Text, content_type: CONTENT_TYPE.into(), body: out.into() }
    }

    /// The event, with its fields in the order of the deployed hub.
    fn write_event(&self, out: &mut String) {
        let mut field = |name: &str, value: &str| {
            out.push_str(name);
            out.push_str(": ");
            out.push_str(value);
            out.push('\n');
        };
        if !self.kind.is_empty() {
            field("event", &self.kind);
        }
        if self.retry > 0 {
            field("retry", &self.retry.max(MIN_RETRY).to_string());
        }
        field("id", &self.id);
        let mut rest = self.data.as_str();
        loop {
            let end = rest.find(['\r', '\n']).unwrap_or(rest.len());
            field("data", &rest[..end]);
            match rest[end..].strip_prefix("\r\n").or_else(|| rest.get(end + 1..)) {
                Some(after) => rest = after,
                None => break,
            }
        }
        out.push('\n');
    }

    /// The channels that a public update is mirrored on: those that its topics name.
    pub fn mirrors(&self) -> Vec<ChannelName> {
        let topics = self.topics.iter().filter(|topic| !self.private && !topic.contains('{'));
        let names = topics.filter_map(|topic| ChannelName::new(topic).ok());
        let mut names: Vec<_> = names.filter(|name| name.as_str() != super::CHANNEL).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Checks the topics of an update or of a subscription.
pub(super) fn check_topics(topics: &[String]) -> Result<(), Refused> {
    if topics.is_empty() {
        return Err(Refused::Bad("Missing \"topic\" parameter."));
    }
    if topics.len() > MAX_TOPICS || topics.iter().map(String::len).sum::<usize>() > MAX_TOPIC_BYTES
    {
        return Err(Refused::Bad("there are too many topics"));
    }
    if topics.iter().any(|topic| topic.len() > MAX_TOPIC) {
        return Err(Refused::Bad("a topic is too long"));
    }
    if topics.iter().any(|topic| topic.is_empty() || topic.chars().any(char::is_control)) {
        return Err(Refused::Bad("a topic is empty or holds a control character"));
    }
    Ok(())
}

/// A stored update, read where it stands.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    payload: &'a Payload,
    private: bool,
    id: &'a str,
    topics: &'a str,
    event: usize,
}

impl<'a> Stored<'a> {
    /// The update in a message; `None` if it is none.
    pub fn of(payload: &'a Payload) -> Option<Self> {
        if *payload.content_type != *CONTENT_TYPE {
            return None;
        }
        // Only the lines before the event are looked at: each subscriber reads them.
        let end = memchr::memmem::find(&payload.body, b"\n\n")?;
        let head = std::str::from_utf8(payload.body.get(..end)?).ok()?;
        let (first, topics) = head.split_once('\n')?;
        let private = match first.as_bytes().first()? {
            b'+' => true,
            b'-' => false,
            _ => return None,
        };
        Some(Self { payload, private, id: &first[1..], topics, event: end + 2 })
    }

    /// Its id.
    pub fn id(&self) -> &'a str {
        self.id
    }

    /// True if only subscribers get it whose token names one of the topics.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Its topics.
    pub fn topics(&self) -> impl Iterator<Item = &'a str> {
        self.topics.split('\n')
    }

    /// The event as subscribers get it; the bytes are shared.
    pub fn event(&self) -> Bytes {
        self.payload.body.slice(self.event..)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(form: &str) -> Result<Update, Refused> {
        Update::read(Parameters::new(form), "made".to_owned(), "/.well-known/mercure")
    }

    fn event(form: &str) -> String {
        let payload = read(form).unwrap().payload();
        String::from_utf8(Stored::of(&payload).unwrap().event().to_vec()).unwrap()
    }

    #[test]
    fn an_update_is_stored_and_read_back() {
        let update =
            read("topic=a&topic=b+c&data=x%0Ay&private=on&id=i&type=t&retry=7000").unwrap();
        let payload = update.payload();
        let stored = Stored::of(&payload).unwrap();
        assert!(stored.is_private());
        assert_eq!(stored.id(), "i");
        assert_eq!(stored.topics().collect::<Vec<_>>(), ["a", "b c"]);
        assert_eq!(stored.event(), "event: t\nretry: 7000\nid: i\ndata: x\ndata: y\n\n");
    }

    #[test]
    fn every_line_end_of_the_data_is_one() {
        assert_eq!(event("topic=a"), "id: made\ndata: \n\n");
        assert_eq!(event("topic=a&data=%0A"), "id: made\ndata: \ndata: \n\n");
        let lines = "id: made\ndata: 1\ndata: 2\ndata: 3\ndata: \ndata: é\n\n";
        assert_eq!(event("topic=a&data=1%0D%0A2%0D3%0A%0A%C3%A9"), lines);
        assert_eq!(event("topic=a&retry=1"), "retry: 500\nid: made\ndata: \n\n");
    }

    #[test]
    fn forms_that_are_no_update_are_refused() {
        for (form, status) in [
            ("", 400),
            ("data=x", 400),
            ("topic=", 400),
            ("topic=a%0Ab", 400),
            ("topic=a&id=1%0A2", 400),
            ("topic=a&type=1%00", 400),
            ("topic=a&type=1%0D", 400),
            ("topic=a&retry=soon", 400),
            ("topic=a&retry=-1", 400),
            ("topic=a&retry=99999999999999999999", 400),
            ("topic=a&id=earliest", 400),
            ("topic=%2F.well-known%2Fmercure%2Fsubscriptions%2Fa", 403),
            ("topic=a&topic=https%3A%2F%2Fx%2F.well-known%2Fmercure", 403),
        ] {
            assert_eq!(read(form).unwrap_err().reply().status, status, "{form}");
        }
        let many = vec!["topic=a"; 1001].join("&");
        assert_eq!(read(&many).unwrap_err().reply().status, 400);
        let long = format!("topic={}", "x".repeat(2049));
        assert_eq!(read(&long).unwrap_err().reply().status, 400);
    }

    #[test]
    fn only_what_was_stored_as_an_update_is_one() {
        let update = read("topic=a&data=x").unwrap().payload();
        let forged = Payload { content_type: "text/plain".into(), ..update.clone() };
        assert!(Stored::of(&forged).is_none());
        for body in ["", "x", "-", "-i\n", "-i\na\n", "?i\na\n\nx"] {
            let torn = Payload { body: body.into(), ..update.clone() };
            assert!(Stored::of(&torn).is_none(), "{body:?}");
        }
    }

    #[test]
    fn public_updates_on_literal_topics_are_mirrored() {
        let of = |form: &str| -> Vec<String> {
            read(form).unwrap().mirrors().iter().map(|name| name.to_string()).collect()
        };
        assert_eq!(of("topic=c&topic=%7Bb%7D&topic=mercure&topic=a&topic=c"), ["a", "c"]);
        assert!(of("topic=a&private=on").is_empty());
        assert!(of(&format!("topic={}", "x".repeat(300))).is_empty());
    }
}
