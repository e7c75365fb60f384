//! Payloads: the kind of a message is decided once, from its bytes and its content type.

use crate::hub::channel::{Kind, Payload};
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// Reason why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The content type could not stand in a header.
    #[error("the content type is longer than 255 bytes or not visible ASCII")]
    ContentType,
    /// JSON is always UTF-8 (RFC 8259, section 8.1).
    #[error("the JSON is not UTF-8")]
    NotUtf8,
    /// The parser's own message.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// Readers recurse; ours and the browsers' have bounds.
    #[error("the JSON is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// Upper bound of nested arrays and objects in a JSON message.
const MAX_DEPTH: usize = 128;

const MAX_CONTENT_TYPE: usize = 255;

/// Makes a message of `body`, verbatim. As `application/json` it must be JSON; of any other type,
/// or of none, it is text if it is UTF-8.
pub fn payload(content_type: Option<&str>, body: Bytes) -> Result<Payload, PayloadError> {
    let content_type = content_type.map(str::trim).filter(|text| !text.is_empty());
    if let Some(text) = content_type {
        let visible = text.bytes().all(|b| matches!(b, b' '..=b'~'));
        if !visible || text.len() > MAX_CONTENT_TYPE {
            return Err(PayloadError::ContentType);
        }
    }
    let kind = if content_type.is_some_and(|text| is_type(text, "application/json")) {
        check_json(&body)?;
        Kind::Json
    } else if std::str::from_utf8(&body).is_ok() {
        Kind::Text
    } else {
        Kind::Binary
    };
    let usual = if kind == Kind::Text { "text/plain" } else { "application/octet-stream" };
    Ok(Payload { kind, content_type: content_type.unwrap_or(usual).into(), body })
}

/// The message that a JSON value means: a string is a text, anything else stays as it is written,
/// so that a number keeps its digits.
pub(super) fn from_json(value: &RawValue) -> Result<Payload, PayloadError> {
    let json = value.get();
    if json.starts_with('"') {
        // A lone surrogate is a JSON string, but no text.
        let text: String = serde_json::from_str(json).map_err(not_json)?;
        return Ok(Payload::text(text));
    }
    check_depth(json.as_bytes())?;
    let body = Bytes::copy_from_slice(json.as_bytes());
    Ok(Payload { kind: Kind::Json, content_type: "application/json".into(), body })
}

/// True if a `Content-Type` names the type `name`, whatever its parameters.
pub(super) fn is_type(content_type: &str, name: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(name)
}

fn check_json(body: &[u8]) -> Result<(), PayloadError> {
    let text = std::str::from_utf8(body).map_err(|_| PayloadError::NotUtf8)?;
    check_depth(body)?;
    serde_json::from_str::<IgnoredAny>(text).map(|_| ()).map_err(not_json)
}

fn not_json(error: serde_json::Error) -> PayloadError {
    PayloadError::NotJson(error.to_string())
}

/// Bounds the nesting, which serde_json does not do for values that it only passes over.
fn check_depth(json: &[u8]) -> Result<(), PayloadError> {
    let mut depth = 0usize;
    let mut in_string = false;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            // An escaped byte neither ends the string nor nests.
            b'\\' if in_string => {
                bytes.next();
            }
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(PayloadError::TooDeep);
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn kind(content_type: Option<&str>, body: &'static [u8]) -> Result<Kind, PayloadError> {
        payload(content_type, Bytes::from_static(body)).map(|payload| payload.kind)
    }

    #[test]
    fn without_a_type_the_bytes_decide() {
        assert_eq!(kind(None, b"{\"a\":"), Ok(Kind::Text));
        assert_eq!(kind(Some(""), b"x"), Ok(Kind::Text));
        assert_eq!(kind(None, b"\xff"), Ok(Kind::Binary));
        assert_eq!(kind(Some("text/html"), b"\xff"), Ok(Kind::Binary));
        assert_eq!(&*payload(None, Bytes::new()).unwrap().content_type, "text/plain");
    }

    #[test]
    fn application_json_must_be_json() {
        for name in ["application/json", "Application/JSON ; charset=utf-8"] {
            assert_eq!(kind(Some(name), b" {\"a\":[1e400,\"\\\"[\"]} "), Ok(Kind::Json));
            for bad in [b"".as_slice(), b"{\"a\":", b"nul", b"1 2", b"{\"a\":1,}", b"\"\0\""] {
                let refused = kind(Some(name), bad);
                assert!(matches!(refused, Err(PayloadError::NotJson(_))), "{bad:?}: {refused:?}");
            }
            assert_eq!(kind(Some(name), b"\"\xff\""), Err(PayloadError::NotUtf8));
        }
        assert_eq!(kind(Some("application/jsonp"), b"{"), Ok(Kind::Text));
    }

    #[test]
    fn nesting_is_bounded_and_brackets_in_strings_do_not_nest() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let json = Some("application/json");
        assert!(payload(json, nested(MAX_DEPTH).into()).is_ok());
        assert_eq!(payload(json, nested(MAX_DEPTH + 1).into()), Err(PayloadError::TooDeep));
        assert_eq!(payload(json, "[".repeat(100_000).into()), Err(PayloadError::TooDeep));
        assert!(
            payload(json, format!("\"{}\\\"{}\"", "[".repeat(200), "{".repeat(200)).into()).is_ok()
        );
        let raw: Box<RawValue> = serde_json::from_str(&nested(MAX_DEPTH + 1)).unwrap();
        assert_eq!(from_json(&raw), Err(PayloadError::TooDeep));
    }

    #[test]
    fn a_content_type_that_could_not_stand_in_a_header_is_refused() {
        for bad in ["text/plain\r\nX: y", "text/pl\u{e4}in", "a\tb", &"x".repeat(256)] {
            assert_eq!(payload(Some(bad), Bytes::new()), Err(PayloadError::ContentType), "{bad:?}");
        }
    }

    #[test]
    fn a_json_string_is_a_text_and_other_values_stay_verbatim() {
        let of = |json: &str| from_json(&serde_json::from_str::<Box<RawValue>>(json).unwrap());
        assert_eq!(of(r#""caf\u00e9\n""#), Ok(Payload::text("café\n")));
        let number = of("12345678901234567890.10").unwrap();
        assert_eq!(
            (number.kind, &*number.body),
            (Kind::Json, b"12345678901234567890.10".as_slice())
        );
        assert_eq!(of("null").unwrap().kind, Kind::Json);
        assert!(matches!(of(r#""\ud800""#), Err(PayloadError::NotJson(_))));
    }
}
