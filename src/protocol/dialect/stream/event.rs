//! One event on each transport, as bytes.

use super::{Format, Transport};
use crate::hub::channel::{ChannelName, Kind, Payload};
use crate::protocol::dialect::json::{self, Safe};
use crate::protocol::http::websocket::{self, Opcode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// What an event holds.
pub(super) enum Content<'a> {
    /// A JSON object that may get one more field.
    Event(String),
    /// JSON.
    Json(Cow<'a, str>),
    /// Text.
    Text(&'a str),
    /// Anything else.
    Bytes(&'a [u8]),
}

impl<'a> Content<'a> {
    /// A message's body.
    pub(super) fn of(payload: &'a Payload) -> Self {
        match (payload.kind, std::str::from_utf8(&payload.body)) {
            (Kind::Json, Ok(json)) => Self::Json(json.into()),
            (Kind::Text, Ok(text)) => Self::Text(text),
            _ => Self::Bytes(&payload.body),
        }
    }

    /// The same as one line of JSON.
    fn into_line(self, safe: Safe) -> String {
        let mut out = String::new();
        match self {
            Self::Event(json) => json::verbatim(&mut out, &on_one_line(json.into()), safe),
            Self::Json(json) => json::verbatim(&mut out, &on_one_line(json), safe),
            Self::Text(text) => json::string(&mut out, text, safe),
            Self::Bytes(bytes) => {
                out.push_str("{\"base64\":\"");
                STANDARD.encode_string(bytes, &mut out);
                out.push_str("\"}");
            }
        }
        out
    }
}

/// Appends an event that leaves its client at `cursor`.
pub(super) fn write(out: &mut Vec<u8>, format: &Format, cursor: &str, content: Content<'_>) {
    match (format.transport, content) {
        (Transport::Sse, Content::Event(json)) => sse(out, None, cursor, &on_one_line(json.into())),
        (Transport::Sse, Content::Json(json)) => sse(out, None, cursor, &on_one_line(json)),
        (Transport::Sse, Content::Text(text)) => sse(out, None, cursor, text),
        (Transport::Sse, Content::Bytes(bytes)) => {
            sse(out, Some("base64"), cursor, &STANDARD.encode(bytes));
        }
        (Transport::Chunked, Content::Event(json)) => {
            let json = on_one_line(json.into());
            let open = json.strip_suffix('}').unwrap_or(&json);
            out.extend_from_slice(format!("{open},\"cursor\":\"{cursor}\"}}\n").as_bytes());
        }
        (Transport::Chunked, content) => {
            out.extend_from_slice(content.into_line(Safe::Json).as_bytes());
            out.push(b'\n');
        }
        (Transport::Iframe, content) => {
            let event = content.into_line(Safe::Html);
            let callback = format.callback.as_deref().unwrap_or_default();
            script(out, format, &format!("parent.{callback}({event},\"{cursor}\")"));
        }
        (Transport::WebSocket | Transport::Multipart | Transport::Poll, content) => match content {
            Content::Event(json) => websocket::write(out, Opcode::Text, json.as_bytes()),
            Content::Json(json) => websocket::write(out, Opcode::Text, json.as_bytes()),
            Content::Text(text) => websocket::write(out, Opcode::Text, text.as_bytes()),
            Content::Bytes(bytes) => websocket::write(out, Opcode::Binary, bytes),
        },
    }
}

/// Appends what says that messages of `channel` may be missing before those that follow.
pub(in crate::protocol::dialect) fn reset(
    out: &mut Vec<u8>,
    format: &Format,
    channel: &ChannelName,
    cursor: &str,
) {
    let safe = if format.transport == Transport::Iframe { Safe::Html } else { Safe::Json };
    let mut name = String::new();
    json::string(&mut name, channel, safe);
    match format.transport {
        Transport::Sse => sse(out, Some("reset"), cursor, &format!("{{\"channel\":{name}}}")),
        Transport::Chunked => {
            let line = format!("{{\"reset\":true,\"channel\":{name},\"cursor\":\"{cursor}\"}}\n");
            out.extend_from_slice(line.as_bytes());
        }
        Transport::Iframe => {
            let callback = format.callback.as_deref().unwrap_or_default();
            let call =
                format!("parent.{callback}({{\"reset\":true,\"channel\":{name}}},\"{cursor}\")");
            script(out, format, &call);
        }
        // Bare data has no place for it; answers say it themselves.
        Transport::WebSocket | Transport::Multipart | Transport::Poll => {}
    }
}

/// Appends the list of users.
pub(super) fn presence(out: &mut Vec<u8>, format: &Format, cursor: &str, list: &str) {
    match format.transport {
        Transport::Chunked => {
            let list = Content::Json(list.into()).into_line(Safe::Json);
            let line = format!("{{\"presence\":{list},\"cursor\":\"{cursor}\"}}\n");
            out.extend_from_slice(line.as_bytes());
        }
        Transport::Iframe => {
            let list = Content::Json(list.into()).into_line(Safe::Html);
            let callback = format.callback.as_deref().unwrap_or_default();
            let call = format!("parent.{callback}({{\"presence\":{list}}},\"{cursor}\")");
            script(out, format, &call);
        }
        _ => sse(out, Some("presence"), cursor, &on_one_line(list.into())),
    }
}

/// Appends a block of an event stream. A cursor has no line ends; the data's own become LF.
pub(in crate::protocol::dialect) fn sse(
    out: &mut Vec<u8>,
    event: Option<&str>,
    id: &str,
    data: &str,
) {
    out.reserve(data.len() + id.len() + 32);
    if let Some(event) = event {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(event.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(id.as_bytes());
    out.push(b'\n');
    if data.is_empty() {
        // An empty line of data is an event all the same.
        out.extend_from_slice(b"data:\n");
    }
    let mut rest = data.as_bytes();
    while !rest.is_empty() {
        let end = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&rest[..end]);
        out.push(b'\n');
        let is_last = end == rest.len();
        let skip = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = if is_last { &[] } else { &rest[end + skip..] };
        if !is_last && rest.is_empty() {
            // The data ends in a line end.
            out.extend_from_slice(b"data:\n");
        }
    }
    out.push(b'\n');
}

fn script(out: &mut Vec<u8>, format: &Format, code: &str) {
    let nonce = match format.nonce.is_empty() {
        true => String::new(),
        false => format!(" nonce=\"{}\"", format.nonce),
    };
    out.extend_from_slice(format!("<script{nonce}>{code}</script>\n").as_bytes());
}

/// The script that loads the frame again from `cursor` on.
pub(super) fn reload(format: &Format, cursor: &str, after: u128) -> String {
    let mut out = Vec::new();
    let code = format!(
        "setTimeout(function(){{var q=location.search.replace(/[?&]cursor=[^&]*/,\"\").substr(1);\
         location.replace(location.pathname+\"?\"+(q&&q+\"&\")+\"cursor={cursor}\")}},{after})"
    );
    script(&mut out, format, &code);
    String::from_utf8(out).unwrap_or_default()
}

/// JSON without line ends: they can only stand between its parts, where nothing needs to stand.
fn on_one_line(json: Cow<'_, str>) -> Cow<'_, str> {
    if memchr::memchr2(b'\r', b'\n', json.as_bytes()).is_none() {
        return json;
    }
    let mut out = String::with_capacity(json.len());
    let mut in_string = false;
    let mut escaped = false;
    for c in json.chars() {
        if !in_string && c.is_ascii_whitespace() {
            continue;
        }
        in_string = match c {
            '"' => escaped == in_string,
            _ => in_string,
        };
        escaped = in_string && c == '\\' && !escaped;
        out.push(c);
    }
    Cow::Owned(out)
}
