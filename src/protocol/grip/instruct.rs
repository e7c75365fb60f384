//! A site's instruction to hold a request: in the headers of its response, or in a body of the
//! type [`super::CONTENT_TYPE`], which overrides them.

use super::filter::{self, Filter, Meta};
use super::json;
use super::params::{self, Params};
use super::{channel, is_header, is_left_out, is_own};
use crate::protocol::http::Headers;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};
use std::time::Duration;

/// How a request is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Not at all; the response may go on with what its next link has.
    None,
    /// Until an item becomes its response.
    Response,
    /// Open, and items are written to it.
    Stream,
}

/// A channel of a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Its name for the site.
    pub name: String,
    /// The id of the last item that the response takes account of.
    pub prev_id: Option<String>,
    /// The filters of its items.
    pub filters: Vec<Filter>,
}

/// What is written to a stream that is quiet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepAlive {
    /// The bytes.
    pub data: Bytes,
    /// The time between two.
    pub timeout: Duration,
    /// They are written also where items were.
    pub interval: bool,
}

/// The link from which a stream goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// The URI as it was given.
    pub uri: String,
    /// The time without items on some channel after which it is asked.
    pub timeout: Duration,
}

/// A response to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Its status, 200 to 999.
    pub code: u16,
    /// Its headers, those of GRIP and of the connection left out.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
}

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruct {
    /// How the request is held.
    pub mode: Mode,
    /// The channels, none of them twice.
    pub channels: Vec<Channel>,
    /// The time after which a held response is sent without an item.
    pub timeout: Duration,
    /// Signs of life on a stream.
    pub keep_alive: Option<KeepAlive>,
    /// Values for filters.
    pub meta: Meta,
    /// Whence a stream goes on.
    pub next: Option<Next>,
    /// The URI to post to at the end.
    pub gone: Option<String>,
    /// The response at the timeout, or the beginning of a stream.
    pub response: Response,
}

/// Times in seconds that apply where none is given.
const TIMEOUT: u64 = 55;
const NEXT_TIMEOUT: u64 = 120;
/// The longest time that is taken, in seconds.
pub(super) const MAX_SECONDS: u64 = 365 * 24 * 3600;

impl Instruct {
    /// True if a response with these headers may be an instruction; others go to the client as
    /// they are.
    pub fn is_in(headers: &dyn Headers) -> bool {
        let own = ["grip-hold", "grip-link", "grip-status"];
        own.iter().any(|name| !headers.raw(name).is_empty()) || is_instruct(headers)
    }

    /// Reads the instruction of a response. The error says what is wrong with it.
    pub fn read(status: u16, headers: &HeaderMap, body: Bytes) -> Result<Self, String> {
        let mut instruct = Self::of_headers(status, headers)?;
        if is_instruct(headers) {
            if status != 200 {
                return Err("an instruction in the body needs the status 200".to_owned());
            }
            instruct.read_body(&body)?;
        } else {
            instruct.response.body = body;
        }
        let Response { code, headers, .. } = &instruct.response;
        if !(200..=999).contains(code) {
            return Err(format!("{code} is no status of a response"));
        }
        if instruct.mode != Mode::None && instruct.channels.is_empty() {
            return Err("the hold has no channel".to_owned());
        }
        let encoded = headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case("content-encoding") && !value.eq_ignore_ascii_case("identity")
        });
        if encoded && instruct.mode == Mode::Stream {
            return Err("items cannot be added to a compressed body".to_owned());
        }
        let mut seen = std::collections::HashSet::new();
        let mut channels = std::mem::take(&mut instruct.channels);
        channels.reverse();
        channels.retain(|channel| seen.insert(channel.name.clone()));
        channels.reverse();
        instruct.channels = channels;
        Ok(instruct)
    }

    fn of_headers(status: u16, headers: &HeaderMap) -> Result<Self, String> {
        let mode = match text(headers, "grip-hold")? {
            None => Mode::None,
            Some("response") => Mode::Response,
            Some("stream") => Mode::Stream,
            Some(other) => return Err(format!("Grip-Hold is {other:?}: response or stream")),
        };
        let mut channels = Vec::new();
        for params in lists(headers, "grip-channel")? {
            channels.push(Channel::of_params(&params)?);
        }
        // There is mostly one, and it is kept for as long as the hold lasts.
        channels.shrink_to_fit();
        let timeout = text(headers, "grip-timeout")?.map(seconds).transpose()?;
        let mut meta = Meta::new();
        for (key, value) in lists(headers, "grip-set-meta")?.into_iter().flatten().take(100) {
            meta.insert(key, value.unwrap_or_default());
        }
        let mut instruct = Self {
            mode,
            channels,
            timeout: timeout.unwrap_or(Duration::from_secs(TIMEOUT)),
            keep_alive: text(headers, "grip-keep-alive")?.map(keep_alive).transpose()?,
            meta,
            next: None,
            gone: None,
            response: response(status, headers)?,
        };
        for params in lists(headers, "grip-link")? {
            instruct.link(&params)?;
        }
        Ok(instruct)
    }

    fn link(&mut self, params: &Params) -> Result<(), String> {
        let [(uri, _), _, ..] = params.as_slice() else { return Ok(()) };
        let uri = uri.strip_prefix('<').and_then(|uri| uri.strip_suffix('>'));
        let uri = uri.filter(|uri| !uri.is_empty()).ok_or("a Grip-Link has no <URI>")?.to_owned();
        match params::get(params, "rel") {
            Some("next") => {
                let timeout = params::get(params, "timeout").map(seconds).transpose()?;
                let timeout = timeout.unwrap_or(Duration::from_secs(NEXT_TIMEOUT));
                self.next = Some(Next { uri, timeout });
            }
            Some("gone") => self.gone = Some(uri),
            _ => {}
        }
        Ok(())
    }

    /// Reads an instruction in JSON over that of the headers.
    fn read_body(&mut self, body: &[u8]) -> Result<(), String> {
        let json: Value = serde_json::from_slice(body)
            .map_err(|error| format!("the body is no JSON: {error}"))?;
        let json = json.as_object().ok_or("the body is no object")?;
        if let Some(hold) = json::object(json, "hold")? {
            self.mode = match json::string(hold, "mode")? {
                None | Some("response") => Mode::Response,
                Some("stream") => Mode::Stream,
                Some(other) => return Err(format!("the mode is {other:?}: response or stream")),
            };
            let channels = hold.get("channels").and_then(Value::as_array);
            for one in channels.ok_or("the hold has no list of channels")? {
                self.channels.push(Channel::of_json(one)?);
            }
            if let Some(timeout) = hold.get("timeout") {
                self.timeout = json::seconds(timeout)?;
            }
            if let Some(json) = json::object(hold, "keep-alive")? {
                self.keep_alive = keep_alive_of_json(json)?;
            }
            for (key, value) in json::object(hold, "meta")?.into_iter().flatten().take(100) {
                let value = value.as_str().ok_or_else(|| format!("meta.{key} is no text"))?;
                self.meta.insert(key.clone(), value.to_owned());
            }
        }
        let code = self.response.code;
        self.response = Response { code, headers: Vec::new(), body: Bytes::new() };
        let Some(response) = json::object(json, "response")? else { return Ok(()) };
        if let Some(code) = response.get("code") {
            self.response.code = json::code(code)?;
        }
        if let Some(headers) = response.get("headers") {
            self.response.headers = json::headers(headers)?;
        }
        self.response.body = json::content(response, "body", "body-bin")?.unwrap_or_default();
        Ok(())
    }
}

impl Channel {
    fn of_params(params: &Params) -> Result<Self, String> {
        let name = params.first().map(|(name, _)| name.clone()).unwrap_or_default();
        let prev_id = params::get(params, "prev-id").map(str::to_owned);
        let filters = params.iter().skip(1).filter(|(key, _)| key == "filter");
        let filters = filters.map(|(_, name)| name.as_deref().unwrap_or_default());
        Self::new(name, prev_id, filters.collect())
    }

    fn of_json(json: &Value) -> Result<Self, String> {
        let json = json.as_object().ok_or("a channel is no object")?;
        let name = json::string(json, "name")?.ok_or("a channel has no name")?.to_owned();
        let filters = match json.get("filters") {
            None => Some(Vec::new()),
            Some(list) => list.as_array().and_then(|list| list.iter().map(Value::as_str).collect()),
        };
        let prev_id = json::string(json, "prev-id")?.map(str::to_owned);
        Self::new(name, prev_id, filters.ok_or("the filters are no list of names")?)
    }

    /// A channel of that name; the error says what is wrong with it.
    pub fn new(name: String, prev_id: Option<String>, filters: Vec<&str>) -> Result<Self, String> {
        channel(&name).map_err(|error| format!("{name:?}: {error}"))?;
        if filters.len() > filter::MAX {
            return Err(format!("{name:?} has more than {} filters", filter::MAX));
        }
        let filters = filters.into_iter().map(Filter::named).collect::<Result<_, _>>()?;
        if prev_id.as_deref().is_some_and(|id| !is_header("id", id)) {
            return Err(format!("the prev-id of {name:?} holds a control character"));
        }
        Ok(Self { name, prev_id, filters })
    }
}

impl Response {
    /// The value of the header `name`.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

fn is_instruct(headers: &dyn Headers) -> bool {
    let value = headers.get("content-type");
    let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(super::CONTENT_TYPE)
}

fn response(status: u16, headers: &HeaderMap) -> Result<Response, String> {
    let mut code = status;
    if let Some(value) = text(headers, "grip-status")? {
        let number = value.split(' ').next().unwrap_or_default();
        let wrong = || format!("Grip-Status is {value:?}, which is no status");
        code = number.parse().map_err(|_| wrong())?;
    }
    let exposed: Vec<String> = lists(headers, "grip-expose-headers")?
        .into_iter()
        .filter_map(|params| params.into_iter().next())
        .map(|(name, _)| name)
        .collect();
    let shown = |name: &HeaderName| {
        !is_own(name.as_str())
            && !is_left_out(name.as_str())
            && (exposed.is_empty()
                || exposed.iter().any(|one| name.as_str().eq_ignore_ascii_case(one)))
    };
    let shown = headers.iter().filter(|(name, _)| shown(name));
    // A value that is no text cannot be carried here.
    let shown = shown.filter_map(|(name, value)| {
        Some((name.as_str().to_owned(), String::from_utf8(value.as_bytes().to_vec()).ok()?))
    });
    Ok(Response { code, headers: shown.collect(), body: Bytes::new() })
}

fn keep_alive(text: &str) -> Result<KeepAlive, String> {
    let params = params::params(text)?;
    let data = params.first().map(|(first, value)| match value {
        Some(value) => format!("{first}={value}"),
        None => first.clone(),
    });
    let data = data.filter(|data| !data.is_empty()).ok_or("Grip-Keep-Alive is empty")?;
    let interval = mode(params::get(&params, "mode"))?;
    let timeout = params::get(&params, "timeout").map(seconds).transpose()?;
    let data = match params::get(&params, "format").unwrap_or_default() {
        "" | "raw" => data.into_bytes(),
        "cstring" => unescaped(&data)?,
        "base64" => BASE64.decode(&data).map_err(|_| "Grip-Keep-Alive is no base64")?,
        other => return Err(format!("Grip-Keep-Alive has no format {other:?}")),
    };
    Ok(KeepAlive { data: data.into(), timeout: pause(timeout), interval })
}

fn keep_alive_of_json(json: &Map<String, Value>) -> Result<Option<KeepAlive>, String> {
    let data = json::content(json, "content", "content-bin")?.filter(|data| !data.is_empty());
    let timeout = json.get("timeout").map(json::seconds).transpose()?;
    let interval = mode(json::string(json, "mode")?)?;
    Ok(data.map(|data| KeepAlive { data, timeout: pause(timeout), interval }))
}

/// The time between two signs of life; none would be one without end.
fn pause(timeout: Option<Duration>) -> Duration {
    timeout.unwrap_or(Duration::from_secs(TIMEOUT)).max(Duration::from_secs(1))
}

fn mode(mode: Option<&str>) -> Result<bool, String> {
    match mode {
        None | Some("" | "idle") => Ok(false),
        Some("interval") => Ok(true),
        Some(other) => Err(format!("a keep-alive has no mode {other:?}")),
    }
}

/// A text with the escapes `\\`, `\r`, `\n` and `\xHH`.
fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("{text:?} has an escape without its character");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next().ok_or_else(wrong)? {
            b'\\' => out.push(b'\\'),
            b'r' => out.push(b'\r'),
            b'n' => out.push(b'\n'),
            b'x' => {
                let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
                let value = digit().zip(digit()).map(|(high, low)| high * 16 + low);
                out.push(value.and_then(|value| u8::try_from(value).ok()).ok_or_else(wrong)?);
            }
            // Pushpin leaves these out.
            _ => {}
        }
    }
    Ok(out)
}

/// The one value of a header.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, String> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let value = std::str::from_utf8(value.as_bytes());
    value.map(Some).map_err(|_| format!("{name} is not UTF-8"))
}

/// All values of a header that is a list.
fn lists(headers: &HeaderMap, name: &str) -> Result<Vec<Params>, String> {
    let mut all = Vec::new();
    for value in headers.get_all(name) {
        let value = std::str::from_utf8(value.as_bytes());
        all.extend(params::list(value.map_err(|_| format!("{name} is not UTF-8"))?)?);
    }
    Ok(all)
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: u64 =
        text.trim().parse().map_err(|_| format!("{text:?} is no time in seconds"))?;
    Ok(Duration::from_secs(seconds.min(MAX_SECONDS)))
}
