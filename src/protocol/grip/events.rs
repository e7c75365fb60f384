//! The body of WebSocket-over-HTTP: events back to back, and the messages by which a site controls
//! its socket.

use bytes::Bytes;
use serde_json::Value;
use std::time::Duration;

/// The type of such bodies.
pub const CONTENT_TYPE: &str = "application/websocket-events";

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it is.
    pub kind: Kind,
    /// Its content; an event without any is not one with an empty one.
    pub content: Option<Bytes>,
}

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The client opens the socket; the site agrees.
    Open,
    /// A message of text.
    Text,
    /// A message of bytes.
    Binary,
    /// A question for life.
    Ping,
    /// The answer to it.
    Pong,
    /// The end, with two bytes of code and a reason.
    Close,
    /// The end, with nothing.
    Disconnect,
}

impl Kind {
    const NAMES: [(&'static str, Self); 7] = [
        ("OPEN", Self::Open),
        ("TEXT", Self::Text),
        ("BINARY", Self::Binary),
        ("PING", Self::Ping),
        ("PONG", Self::Pong),
        ("CLOSE", Self::Close),
        ("DISCONNECT", Self::Disconnect),
    ];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| *name)
    }
}

impl Event {
    /// An event with nothing.
    pub fn bare(kind: Kind) -> Self {
        Self { kind, content: None }
    }

    /// An event with content.
    pub fn with(kind: Kind, content: Bytes) -> Self {
        Self { kind, content: Some(content) }
    }

    /// Bytes of its content.
    pub fn len(&self) -> usize {
        self.content.as_ref().map_or(0, Bytes::len)
    }

    /// True if it has no byte of content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Events as bytes.
pub fn write(events: &[Event]) -> Bytes {
    let mut out = Vec::new();
    for event in events {
        out.extend_from_slice(event.kind.name().as_bytes());
        if let Some(content) = &event.content {
            out.extend_from_slice(format!(" {:x}\r\n", content.len()).as_bytes());
            out.extend_from_slice(content);
        }
        out.extend_from_slice(b"\r\n");
    }
    out.into()
}

/// Reads events; those of unknown kinds are left out. The error is that the whole body is no good.
pub fn read(body: &Bytes) -> Result<Vec<Event>, &'static str> {
    let mut events = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let end = memchr::memmem::find(&body[at..], b"\r\n").ok_or("an event has no line end")?;
        let line = std::str::from_utf8(&body[at..at + end]).map_err(|_| "an event has no name")?;
        at += end + 2;
        let (name, length) = match line.split_once(' ') {
            None => (line, None),
            Some((name, digits)) => {
                let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
                let length = usize::from_str_radix(digits, 16).ok().filter(|_| plain);
                (name, Some(length.ok_or("the length of an event is no number")?))
            }
        };
        let content = match length {
            None => None,
            Some(length) => {
                let end = at.checked_add(length).filter(|end| body.len() >= end + 2);
                let end = end.ok_or("an event is cut off")?;
                if &body[end..end + 2] != b"\r\n" {
                    return Err("an event has no end");
                }
                let content = body.slice(at..end);
                at = end + 2;
                Some(content)
            }
        };
        if let Some((_, kind)) = Kind::NAMES.iter().find(|(known, _)| *known == name) {
            events.push(Event { kind: *kind, content });
        }
    }
    Ok(events)
}

/// What a site says of its socket in a message that begins with `c:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Items of the channel go to the client.
    Subscribe {
        /// The channel's name.
        channel: String,
        /// The names of its filters.
        filters: Vec<String>,
    },
    /// They do no more.
    Unsubscribe(String),
    /// The site is not asked any more.
    Detach,
    /// A value for filters; without one it is taken away.
    SetMeta(String, Option<String>),
    /// What a quiet socket gets; `None` = nothing.
    KeepAlive(Option<KeepAlive>),
    /// A message that is sent later, in place of the one before.
    SendDelayed(Message, Duration),
    /// It is sent now.
    FlushDelayed,
    /// Something that means nothing here.
    Other,
}

/// A message to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Text, binary, ping or pong.
    pub kind: Kind,
    /// Its content.
    pub content: Bytes,
}

/// What a quiet socket gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepAlive {
    /// The message.
    pub message: Message,
    /// The time between two.
    pub timeout: Duration,
    /// They are sent also where others were.
    pub interval: bool,
}

/// The time between two signs of life where none is given.
const TIMEOUT: Duration = Duration::from_secs(55);

/// Reads a message without its `c:`. The error says what is wrong with it.
pub fn control(text: &[u8]) -> Result<Control, String> {
    let json: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let json = json.as_object().ok_or("a control message is no object")?;
    let string = |key: &str| super::json::string(json, key);
    let channel = || {
        let name = string("channel")?.ok_or("there is no channel")?;
        super::channel(name).map(|_| name.to_owned())
    };
    let message = |usual: Kind| {
        let content = super::json::content(json, "content", "content-bin")?;
        let kind = match string("message-type")? {
            None => usual,
            Some("text") => Kind::Text,
            Some("binary") => Kind::Binary,
            Some("ping") => Kind::Ping,
            Some("pong") => Kind::Pong,
            Some(other) => return Err(format!("there is no message-type {other:?}")),
        };
        let control = matches!(kind, Kind::Ping | Kind::Pong);
        Ok(match content {
            Some(content) if control && content.len() > 125 => {
                return Err("a ping or pong is longer than 125 bytes".to_owned());
            }
            Some(content) if kind == Kind::Text && std::str::from_utf8(&content).is_err() => {
                return Err("a text message is not UTF-8".to_owned());
            }
            content => content.map(|content| Message { kind, content }),
        })
    };
    let usual = if json.contains_key("content-bin") { Kind::Binary } else { Kind::Text };
    let timeout = || json.get("timeout").map(super::json::seconds).transpose();
    Ok(match string("type")?.ok_or("there is no type")? {
        "subscribe" => {
            let filters = match json.get("filters") {
                None => Some(Vec::new()),
                Some(list) => list.as_array().and_then(|list| {
                    list.iter().map(|name| name.as_str().map(str::to_owned)).collect()
                }),
            };
            let filters = filters.ok_or("the filters are no list of names")?;
            Control::Subscribe { channel: channel()?, filters }
        }
        "unsubscribe" => Control::Unsubscribe(channel()?),
        "detach" => Control::Detach,
        "set-meta" => {
            let name = string("name")?.ok_or("there is no name")?.to_owned();
            Control::SetMeta(name, string("value")?.map(str::to_owned))
        }
        "keep-alive" => {
            let timeout = timeout()?.unwrap_or(TIMEOUT).max(Duration::from_secs(1));
            let interval = string("mode")? == Some("interval");
            let message = message(usual)?;
            Control::KeepAlive(message.map(|message| KeepAlive { message, timeout, interval }))
        }
        "send-delayed" => {
            let message = message(usual)?.ok_or("there is no content")?;
            Control::SendDelayed(message, timeout()?.unwrap_or_default())
        }
        "flush-delayed" => Control::FlushDelayed,
        _ => Control::Other,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn events_are_framed_as_pushpin_s() {
        let events = [
            Event::bare(Kind::Open),
            Event::with(Kind::Text, "hello".into()),
            Event::with(Kind::Binary, Bytes::from_static(b"\0\r\n")),
            Event::with(Kind::Text, Bytes::new()),
            Event::bare(Kind::Ping),
            Event::with(Kind::Close, Bytes::from_static(b"\x03\xe8bye")),
            Event::bare(Kind::Disconnect),
        ];
        let bytes = write(&events);
        let expected: &[u8] =
            b"OPEN\r\nTEXT 5\r\nhello\r\nBINARY 3\r\n\0\r\n\r\nTEXT 0\r\n\r\nPING\r\n\
                                CLOSE 5\r\n\x03\xe8bye\r\nDISCONNECT\r\n";
        assert_eq!(&bytes[..], expected);
        assert_eq!(read(&bytes).unwrap(), events);
        let long = Event::with(Kind::Text, vec![b'x'; 0x1f].into());
        assert!(write(&[long]).starts_with(b"TEXT 1f\r\n"));
        let other = Bytes::from_static(b"WHAT 1\r\nx\r\nELSE\r\nTEXT 1\r\ny\r\n");
        assert_eq!(read(&other).unwrap(), [Event::with(Kind::Text, "y".into())]);
        for bad in [
            "TEXT",
            "TEXT 5\r\nhell\r\n",
            "TEXT 5\r\nhello",
            "TEXT 5\r\nhello!\r\n",
            "TEXT x\r\nx\r\n",
            "TEXT \r\n\r\n",
            "TEXT -1\r\n\r\n",
            "TEXT +1\r\nx\r\n",
            "TEXT 1 \r\nx\r\n",
            "TEXT ffffffffffffffff\r\nx\r\n",
            "TEXT 10000000000000000\r\nx\r\n",
            "\u{ff}",
        ] {
            assert!(read(&Bytes::copy_from_slice(bad.as_bytes())).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn control_messages_say_what_becomes_of_the_socket() {
        let of = |text: &str| control(text.as_bytes());
        let text = |content: &'static str| Message { kind: Kind::Text, content: content.into() };
        for (json, expected) in [
            (
                r#"{"type":"subscribe","channel":"a","filters":["skip-self"]}"#,
                Control::Subscribe { channel: "a".into(), filters: vec!["skip-self".into()] },
            ),
            (r#"{"type":"unsubscribe","channel":"a"}"#, Control::Unsubscribe("a".into())),
            (r#"{"type":"detach"}"#, Control::Detach),
            (r#"{"type":"session","id":"x"}"#, Control::Other),
            (
                r#"{"type":"set-meta","name":"a","value":"b"}"#,
                Control::SetMeta("a".into(), Some("b".into())),
            ),
            (r#"{"type":"set-meta","name":"a","value":null}"#, Control::SetMeta("a".into(), None)),
            (r#"{"type":"keep-alive"}"#, Control::KeepAlive(None)),
            (
                r#"{"type":"keep-alive","content":"x","timeout":0,"mode":"interval"}"#,
                Control::KeepAlive(Some(KeepAlive {
                    message: text("x"),
                    timeout: Duration::from_secs(1),
                    interval: true,
                })),
            ),
            (
                r#"{"type":"send-delayed","content-bin":"AA==","timeout":3}"#,
                Control::SendDelayed(
                    Message { kind: Kind::Binary, content: Bytes::from_static(b"\0") },
                    Duration::from_secs(3),
                ),
            ),
            (r#"{"type":"flush-delayed"}"#, Control::FlushDelayed),
        ] {
            assert_eq!(of(json), Ok(expected), "{json}");
        }
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"type":1}"#,
            r#"{"type":"subscribe"}"#,
            r#"{"type":"subscribe","channel":"a\n"}"#,
            r#"{"type":"send-delayed"}"#,
            r#"{"type":"subscribe","channel":"a","filters":"x"}"#,
            r#"{"type":"send-delayed","message-type":"odd","content":"x"}"#,
            r#"{"type":"send-delayed","message-type":"text","content-bin":"/w=="}"#,
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
