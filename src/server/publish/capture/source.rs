//! Values for the fields of a rule: from a request, its body, and the upstream's response.

use super::{CapturedExchange, Rule};
use crate::hub::channel::Payload;
use crate::protocol::http::cookie;
use crate::protocol::http::query::Query;
use crate::protocol::template::Field;
use crate::server::publish::{from_json, payload};
use bytes::Bytes;
use percent_encoding::percent_decode;
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
    pub(super) overheard: &'a CapturedExchange,
    pub(super) rule: &'a Rule,
    pub(super) content: Option<&'a Content>,
    pub(super) answer: Option<&'a Bytes>,
}

impl ExchangeValues<'_> {
    /// A field as a part of a text.
    pub(super) fn text(&self, field: &Field) -> Option<Cow<'_, str>> {
        let payload = self.payload(field)?;
        Some(Cow::Owned(String::from_utf8_lossy(&payload.body).into_owned()))
    }

    /// A field as a whole message.
    pub(super) fn payload(&self, field: &Field) -> Option<Payload> {
        let bytes = match field {
            Field::Query(name) => Query::parse(&self.overheard.query).bytes(name)?.to_vec(),
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
            Field::Path(1) => self.rule.path.rest(&self.overheard.path)?.as_bytes().to_vec(),
            Field::Path(_) => return None,
            Field::ResponseBody => {
                return payload(self.overheard.answer_type(), self.answer?.clone()).ok();
            }
        };
        payload(None, bytes.into()).ok()
    }
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
