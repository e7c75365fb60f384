//! Items: what a site publishes.
//!
//! An item names its channel and has one form for each kind of hold. [`read`] checks all items of
//! a publish request before any of them is published; an item is stored as JSON, which
//! [`Item::of`] reads back for each delivery.

use super::content::Content;
use super::filter::Meta;
use super::json::{self, string as text};
use super::{channel, is_header, patch};
use crate::hub::channel::ChannelName;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Items of one request.
pub const MAX_ITEMS: usize = 10_000;

/// See the [module](self).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Item {
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The id of the item before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev_id: Option<String>,
    /// It is in no sequence.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_seq: bool,
    /// Values for filters.
    #[serde(default, skip_serializing_if = "Meta::is_empty")]
    pub meta: Meta,
    /// What it is for each kind of hold.
    pub formats: Formats,
}

/// The forms of an item.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Formats {
    /// For a held response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_response: Option<HttpResponse>,
    /// For a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_stream: Option<HttpStream>,
    /// For a WebSocket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ws_message: Option<WsMessage>,
}

/// What an item does to a hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Its content is sent.
    #[default]
    Send,
    /// The site is asked what there is.
    Hint,
    /// The connection is closed.
    Close,
    /// The site is asked to look after its WebSocket.
    Refresh,
}

/// The names of content filters that an item is made for.
pub type ContentFilters = Option<Vec<String>>;

/// A response in an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HttpResponse {
    /// What it does.
    #[serde(default)]
    pub action: Action,
    /// Its status.
    pub code: u16,
    /// Its headers, over those of the response at the timeout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// Its body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Content>,
    /// In place of a body: changes of the one at the timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_patch: Option<Vec<Value>>,
    /// The filters it is made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_filters: ContentFilters,
}

/// Bytes of a stream in an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HttpStream {
    /// What it does.
    #[serde(default)]
    pub action: Action,
    /// The bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// The filters it is made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_filters: ContentFilters,
}

/// The kind of a WebSocket message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageType {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
    /// A ping.
    Ping,
    /// A pong.
    Pong,
}

/// A WebSocket message in an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WsMessage {
    /// What it does.
    #[serde(default)]
    pub action: Action,
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: MessageType,
    /// Its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// The status of a close.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The reason of a close.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The filters it is made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_filters: ContentFilters,
}

impl Item {
    /// The item of a stored message; `None` for one that is none, as the hook's.
    pub fn of(stored: &[u8]) -> Option<Self> {
        serde_json::from_slice(stored).ok()
    }

    /// The item as it is stored.
    pub fn stored(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// Reads the body of a publish request: `{"items": [...]}`. The error says which item cannot be
/// published, and then none is.
pub fn read(body: &[u8]) -> Result<Vec<(ChannelName, Item)>, String> {
    let json: Value =
        serde_json::from_slice(body).map_err(|error| format!("the body is no JSON: {error}"))?;
    let items = json.get("items").and_then(Value::as_array).ok_or("there is no list of items")?;
    if items.len() > MAX_ITEMS {
        return Err(format!("more than {MAX_ITEMS} items in one request"));
    }
    let one = |(index, json)| item(json).map_err(|error| format!("item {index}: {error}"));
    items.iter().enumerate().map(one).collect()
}

fn item(json: &Value) -> Result<(ChannelName, Item), String> {
    let json = json.as_object().ok_or("it is no object")?;
    let channel = channel(text(json, "channel")?.ok_or("it names no channel")?)?;
    let formats = match json.get("formats") {
        None | Some(Value::Null) => json,
        Some(Value::Object(formats)) => formats,
        Some(_) => return Err("\"formats\" is no object".to_owned()),
    };
    let format = |name: &str| match formats.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(format)) => Ok(Some(format)),
        Some(_) => Err(format!("{name:?} is no object")),
    };
    let formats = Formats {
        http_response: format("http-response")?.map(http_response).transpose()?,
        http_stream: format("http-stream")?.map(http_stream).transpose()?,
        ws_message: format("ws-message")?.map(ws_message).transpose()?,
    };
    if formats == Formats::default() {
        return Err("it has no format: http-response, http-stream or ws-message".to_owned());
    }
    let id = |key| {
        let id = text(json, key)?;
        match id.is_none_or(|id| is_header("id", id)) {
            true => Ok(id.map(str::to_owned)),
            false => Err(format!("{key:?} holds a control character")),
        }
    };
    let mut meta = Meta::new();
    match json.get("meta") {
        None | Some(Value::Null) => {}
        Some(Value::Object(members)) => {
            for (key, value) in members {
                let value = value.as_str().ok_or_else(|| format!("meta.{key} is no text"))?;
                meta.insert(key.clone(), value.to_owned());
            }
        }
        Some(_) => return Err("\"meta\" is no object".to_owned()),
    }
    let no_seq = match json.get("no-seq") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(_) => return Err("\"no-seq\" is neither true nor false".to_owned()),
    };
    Ok((channel, Item { id: id("id")?, prev_id: id("prev-id")?, no_seq, meta, formats }))
}

fn http_response(json: &Map<String, Value>) -> Result<HttpResponse, String> {
    let action = action(json, &[Action::Send, Action::Hint], "http-response")?;
    let mut response = HttpResponse {
        action,
        code: 200,
        headers: Vec::new(),
        body: None,
        body_patch: None,
        content_filters: filters(json)?,
    };
    if action != Action::Send {
        return Ok(response);
    }
    if let Some(code) = json.get("code") {
        response.code = json::code(code)?;
    }
    if !(200..=999).contains(&response.code) {
        return Err(format!("{} is no status of a response", response.code));
    }
    if text(json, "reason")?.is_some_and(|reason| !is_header("reason", reason)) {
        return Err("the reason holds a control character".to_owned());
    }
    if let Some(headers) = json.get("headers") {
        response.headers = json::headers(headers)?;
    }
    response.body = content(json, "body", "body-bin")?;
    if response.body.is_none() {
        let operations = json.get("body-patch").and_then(Value::as_array);
        let operations = operations.ok_or("there is no body, body-bin or body-patch")?;
        if operations.len() > patch::MAX_OPERATIONS {
            return Err(format!("body-patch has more than {} operations", patch::MAX_OPERATIONS));
        }
        response.body_patch = Some(operations.clone());
    }
    Ok(response)
}

fn http_stream(json: &Map<String, Value>) -> Result<HttpStream, String> {
    let action = action(json, &[Action::Send, Action::Hint, Action::Close], "http-stream")?;
    let content = match action {
        Action::Send => {
            let content = content(json, "content", "content-bin")?;
            Some(content.ok_or("there is no content or content-bin")?)
        }
        _ => None,
    };
    Ok(HttpStream { action, content, content_filters: filters(json)? })
}

fn ws_message(json: &Map<String, Value>) -> Result<WsMessage, String> {
    /// The longest payload of a control frame (RFC 6455, section 5.5).
    const MAX_CONTROL: usize = 125;
    let action = action(json, &[Action::Send, Action::Close, Action::Refresh], "ws-message")?;
    let content = content(json, "content", "content-bin")?.filter(|_| action == Action::Send);
    let binary = matches!(content, Some(Content::Bin(_)));
    let kind = match text(json, "type")? {
        None if binary => MessageType::Binary,
        None | Some("text") => MessageType::Text,
        Some("binary") => MessageType::Binary,
        Some("ping") => MessageType::Ping,
        Some("pong") => MessageType::Pong,
        Some(other) => return Err(format!("there is no type {other:?} of messages")),
    };
    let bytes = content.as_ref().map(Content::bytes);
    let is_control = matches!(kind, MessageType::Ping | MessageType::Pong);
    if action == Action::Send {
        match &bytes {
            None if !is_control => return Err("there is no content or content-bin".to_owned()),
            Some(bytes) if is_control && bytes.len() > MAX_CONTROL => {
                return Err(format!("a ping or pong is longer than {MAX_CONTROL} bytes"));
            }
            Some(bytes) if kind == MessageType::Text && std::str::from_utf8(bytes).is_err() => {
                return Err("a text message is not UTF-8".to_owned());
            }
            _ => {}
        }
    }
    let code = json.get("code").filter(|_| action == Action::Close).map(json::code).transpose()?;
    if let Some(code) = code.filter(|code| !is_sendable(*code)) {
        return Err(format!("{code} is no code that a WebSocket is closed with"));
    }
    let reason = text(json, "reason")?.filter(|_| action == Action::Close).unwrap_or_default();
    if reason.len() > MAX_CONTROL - 2 {
        return Err(format!("the reason is longer than {} bytes", MAX_CONTROL - 2));
    }
    let reason = reason.to_owned();
    Ok(WsMessage { action, kind, content, code, reason, content_filters: filters(json)? })
}

/// True if a close frame may have this code (RFC 6455, section 7.4).
pub fn is_sendable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

fn action(json: &Map<String, Value>, known: &[Action], of: &str) -> Result<Action, String> {
    let named = match text(json, "action")? {
        None | Some("send") => Action::Send,
        Some("hint") => Action::Hint,
        Some("close") => Action::Close,
        Some("refresh") => Action::Refresh,
        Some(other) => return Err(format!("{of} has no action {other:?}")),
    };
    match known.contains(&named) {
        true => Ok(named),
        false => Err(format!("{of} has no such action")),
    }
}

fn filters(json: &Map<String, Value>) -> Result<ContentFilters, String> {
    let Some(value) = json.get("content-filters") else { return Ok(None) };
    let names = value.as_array().and_then(|names| {
        names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
    });
    names.map(Some).ok_or_else(|| "content-filters is no list of names".to_owned())
}

fn content(
    json: &Map<String, Value>,
    plain: &str,
    binary: &str,
) -> Result<Option<Content>, String> {
    if let Some(coded) = text(json, binary)? {
        let content = Content::of_base64(coded).map_err(|_| format!("{binary} is no base64"))?;
        return Ok(Some(content));
    }
    Ok(text(json, plain)?.map(Content::of_text))
}
