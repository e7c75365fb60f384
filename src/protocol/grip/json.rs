//! Values in JSON, as GRIP's programs write them.

use super::{is_header, is_left_out};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Map, Value};
use std::time::Duration;

pub(super) fn seconds(value: &Value) -> Result<Duration, String> {
    match value {
        Value::String(text) => super::instruct::seconds(text),
        value => {
            let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0);
            let seconds = seconds.ok_or_else(|| format!("{value} is no time in seconds"))?;
            Ok(Duration::from_secs_f64(seconds.min(super::instruct::MAX_SECONDS as f64).trunc()))
        }
    }
}

/// A status in JSON, a number or its text.
pub(super) fn code(value: &Value) -> Result<u16, String> {
    let code = match value {
        Value::String(text) => text.parse().ok(),
        value => {
            value.as_f64().filter(|code| (0.0..=65535.0).contains(code)).map(|code| code as u16)
        }
    };
    code.ok_or_else(|| format!("{value} is no code"))
}

/// Headers in JSON: an object, or a list of pairs.
pub(super) fn headers(value: &Value) -> Result<Vec<(String, String)>, String> {
    let pair = |name: &str, value: &Value| {
        let value = value.as_str().ok_or_else(|| format!("the header {name:?} is no text"))?;
        match is_header(name, value) {
            true => Ok((name.to_owned(), value.to_owned())),
            false => Err(format!("the header {name:?} cannot be sent as it is")),
        }
    };
    let all: Result<Vec<_>, String> = match value {
        Value::Object(members) => members.iter().map(|(name, value)| pair(name, value)).collect(),
        Value::Array(pairs) => pairs
            .iter()
            .map(|one| match one.as_array().map(Vec::as_slice) {
                Some([Value::String(name), value]) => pair(name, value),
                _ => Err("a header is no pair of name and value".to_owned()),
            })
            .collect(),
        _ => Err("the headers are neither an object nor a list".to_owned()),
    };
    Ok(all?.into_iter().filter(|(name, _)| !is_left_out(name)).collect())
}

/// Bytes in JSON: a text, or base64 under another key, which comes first.
pub(super) fn content(
    json: &Map<String, Value>,
    plain: &str,
    binary: &str,
) -> Result<Option<Bytes>, String> {
    if let Some(text) = string(json, binary)? {
        let bytes = BASE64.decode(text).map_err(|_| format!("{binary} is no base64"))?;
        return Ok(Some(bytes.into()));
    }
    Ok(string(json, plain)?.map(|text| Bytes::copy_from_slice(text.as_bytes())))
}

pub(super) fn object<'a>(
    json: &'a Map<String, Value>,
    key: &str,
) -> Result<Option<&'a Map<String, Value>>, String> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(members)) => Ok(Some(members)),
        Some(_) => Err(format!("{key:?} is no object")),
    }
}

pub(super) fn string<'a>(
    json: &'a Map<String, Value>,
    key: &str,
) -> Result<Option<&'a str>, String> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{key:?} is no text")),
    }
}
