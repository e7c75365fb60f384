//! Values for the fields of a rule: from a request, its body, and the upstream's response.

use super::{CapturedExchange, Rule};
use crate::hub::channel::Payload;
use crate::protocol::http::cookie;
use crate::protocol::http::form::MAX_VARIABLES;
use crate::protocol::http::query::{Query, variables};
use crate::protocol::template::Field;
use crate::server::publish::{from_json, payload};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use percent_encoding::{percent_decode, percent_decode_str};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;

/// The parsed body of a request.
pub(super) enum Content {
    Nothing,
    Form(Query<'static>),
    Json(Box<RawValue>),
}

/// Values for the fields of a rule.
pub(super) struct ExchangeValues<'a> {
    overheard: &'a CapturedExchange,
    rule: &'a Rule,
    query: Query<'a>,
    content: Option<&'a Content>,
    answer: Option<&'a Bytes>,
}

impl<'a> ExchangeValues<'a> {
    /// The values for one rule; the error is that PHP may see others than the gate does.
    pub(super) fn new(
        overheard: &'a CapturedExchange,
        rule: &'a Rule,
        content: Option<&'a Content>,
        answer: Option<&'a Bytes>,
    ) -> Result<Self, String> {
        let mut query = Query::default();
        for field in rule.fields() {
            match field {
                Field::Query(_) => {
                    if variables(overheard.query.as_bytes()) > MAX_VARIABLES {
                        return Err(format!("the query has more than {MAX_VARIABLES} variables"));
                    }
                    query = Query::parse(&overheard.query);
                    if query.has_odd_name() {
                        return Err("the query has a name with stray brackets".to_owned());
                    }
                }
                Field::Header(name) => drop(single(&overheard.request_headers, name)?),
                Field::Cookie(name) => only_cookie(&overheard.request_headers, name)?,
                _ => {}
            }
        }
        Ok(Self { overheard, rule, query, content, answer })
    }

    /// A field as a part of a text. Bytes that are no text have no part in one.
    pub(super) fn text(&self, field: &Field) -> Option<Cow<'_, str>> {
        let payload = self.payload(field)?;
        Some(Cow::Owned(std::str::from_utf8(&payload.body).ok()?.to_owned()))
    }

    /// A field as a whole message.
    pub(super) fn payload(&self, field: &Field) -> Option<Payload> {
        let bytes = match field {
            Field::Query(name) => self.query.bytes(name)?.to_vec(),
            Field::Form(name) => match self.content? {
                Content::Form(form) => form.bytes(name)?.to_vec(),
                Content::Nothing | Content::Json(_) => return None,
            },
            Field::Json(path) => match self.content? {
                Content::Json(json) => return from_json(member(json, path)?).ok(),
                Content::Nothing | Content::Form(_) => return None,
            },
            Field::Header(name) => self.overheard.request_headers.get(name)?.as_bytes().to_vec(),
            Field::Cookie(name) => {
                let cookie = cookie(&self.overheard.request_headers, name)?;
                percent_decode(cookie).collect()
            }
            Field::Path(n) => {
                let stars = self.rule.path.captures_normal(&self.overheard.path)?;
                percent_decode_str(stars.get(n.checked_sub(1)?)?).collect()
            }
            Field::ResponseBody => {
                return payload(self.overheard.answer_type(), self.answer?.clone()).ok();
            }
        };
        payload(None, bytes.into()).ok()
    }
}

/// The header of that name. Servers differ on which of several PHP gets.
pub(super) fn single<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> Result<Option<&'a HeaderValue>, String> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(format!("the request has several headers {name}")),
    }
}

/// PHP takes the first of several cookies of one name, reads `a.b` and `a b` as `a_b`, `a[b]` as
/// an array `a`, and one without `=` as empty: there has to be one, or none.
fn only_cookie(headers: &HeaderMap, name: &str) -> Result<(), String> {
    let pieces = headers.get_all("cookie").iter().flat_map(|value| value.as_bytes().split(is_end));
    let named = pieces.filter(|piece| {
        let key = piece.split(|byte| *byte == b'=').next().unwrap_or_default();
        let key = String::from_utf8_lossy(key.trim_ascii());
        let read = key.replace(['.', ' '], "_");
        read == name || key == name || read.strip_prefix(name).is_some_and(|s| s.starts_with('['))
    });
    match named.count() {
        0 | 1 => Ok(()),
        _ => Err(format!("the request has several cookies {name}")),
    }
}

fn is_end(byte: &u8) -> bool {
    *byte == b';'
}

/// A JSON body as PHP reads it, too: escapes that are no character make it none (RFC 8259,
/// section 8.2).
pub(super) fn json(body: &[u8]) -> Option<Box<RawValue>> {
    serde_json::from_slice::<serde_json::Value>(body).ok()?;
    serde_json::from_slice(body).ok()
}

/// The member of a JSON value at this path.
fn member<'a>(json: &'a RawValue, path: &[String]) -> Option<&'a RawValue> {
    path.iter().try_fold(json, |json, name| {
        let mut members: HashMap<Cow<'_, str>, &RawValue> =
            serde_json::from_str(json.get()).ok()?;
        members.remove(name.as_str())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_member_of_json_is_found_by_its_path() {
        let json: Box<RawValue> = serde_json::from_str(r#"{"a":{"b":[1, 2.50]},"c":"x"}"#).unwrap();
        let at = |path: &[&str]| {
            let path: Vec<String> = path.iter().map(ToString::to_string).collect();
            member(&json, &path).map(RawValue::get)
        };
        assert_eq!(at(&["a", "b"]), Some("[1, 2.50]"));
        assert_eq!(at(&["c"]), Some("\"x\""));
        assert_eq!((at(&["c", "d"]), at(&["d"])), (None, None));
    }
}
