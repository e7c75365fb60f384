//! The answer of a script: made by the gate in its place, or by the site.

use super::obstacles::constant_json;
use super::waiting::{Cursor, WaitingLoop};
use super::{Answer, News, Shape};
use crate::adopt::events::{Event, What};
use crate::adopt::value::{Origin, Piece, Value};

impl WaitingLoop<'_> {
    pub(super) fn answer(
        &mut self,
        cursor: Option<&Cursor>,
        json: Option<&Value>,
        echoed: &Value,
    ) -> Answer {
        let Some(json) = json else {
            return match self.bare(cursor) {
                Some(shape) => Answer::Timestamp(shape),
                None => Answer::Replay("its answer is no JSON".to_owned()),
            };
        };
        let at = self.echo_line();
        let names: Vec<&str> = json.fields.iter().map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            self.note(at, format!("answers with the fields {}", names.join(", ")));
        }
        let session = self.beside().find(|event| matches!(event.what, What::Session));
        let session = session.map(|event| event.at());
        if let Some(at) = session {
            self.note(at, "opens the visitor's session");
            return Answer::Replay("the session may decide who may read it".to_owned());
        }
        let subscribed = cursor.is_some_and(|cursor| cursor.name == "subscribed");
        let listed = matches!(&self.news, News::File(place) if place.has_star());
        if subscribed && listed && names.contains(&"s") && names.contains(&"k") {
            return Answer::NovComet;
        }
        match self.shape(cursor, json, echoed) {
            Ok(shape) => Answer::Timestamp(shape),
            Err(why) => Answer::Replay(why),
        }
    }

    /// The file's text alone, for a client that sends no time.
    fn bare(&mut self, cursor: Option<&Cursor>) -> Option<Shape> {
        let News::File(place) = &self.news else { return None };
        let content = Origin::Content(place.clone());
        let text = |event: &Event| match &event.what {
            What::Echo(value) => {
                let mut parts = value.pieces.iter().flatten();
                value.all_origins().iter().eq([&content])
                    && parts.all(|part| matches!(part, Piece::Open(_)))
            }
            What::Html | What::Session => false,
            _ => true,
        };
        let printed = self.beside().any(|event| matches!(event.what, What::Echo(_)));
        if cursor.is_some() || !printed || !self.beside().all(text) {
            return None;
        }
        let content_type = self.content_type(false);
        Some(Shape { message: ".".to_owned(), content_type, ..Shape::default() })
    }

    /// The place at which the answer is written.
    fn echo_line(&self) -> (usize, u32) {
        let json = |event: &&Event| match &event.what {
            What::Echo(value) => json_in(value).is_some(),
            _ => false,
        };
        let event = self.beside().find(json);
        event.map_or(self.news_line, |event| event.at())
    }

    /// The answer as the timestamp dialect gives it, or why it cannot.
    fn shape(
        &mut self,
        cursor: Option<&Cursor>,
        json: &Value,
        echoed: &Value,
    ) -> Result<Shape, String> {
        let News::File(place) = &self.news else {
            return Err("what is new stands in a database".to_owned());
        };
        let Some(Cursor { name: cursor, compared, .. }) = cursor else {
            return Err("no parameter was found that is compared with the file's time".to_owned());
        };
        let mut shape = Shape { cursor: cursor.clone(), ..Shape::default() };
        shape.waits_first = compared.has(|origin| *origin == Origin::Clock);
        let mut stamp = None;
        for (name, value) in &json.fields {
            let has = |wanted: fn(&Origin) -> bool| value.has(wanted);
            let content = Origin::Content(place.clone());
            if value.fields.is_empty() && value.entry.is_none() && value.origins.contains(&content)
            {
                if has(|origin| matches!(origin, Origin::Changed | Origin::Decoded)) {
                    return Err(format!("{name} is not the file's text as it is"));
                }
                if !shape.message.is_empty() {
                    return Err(format!("{} and {name} both hold the file's text", shape.message));
                }
                shape.message = name.clone();
            } else if has(|origin| matches!(origin, Origin::ChangeTime(_))) {
                shape.millis = has(|origin| *origin == Origin::Thousandfold);
                stamp = Some(name.clone());
            } else if let Some(constant) = constant_json(value) {
                shape.extra.push((name.clone(), constant));
            } else {
                return Err(format!("the field {name} is made by PHP"));
            }
        }
        if shape.message.is_empty() {
            return Err("no field of the answer holds the file's text as it is".to_owned());
        }
        match stamp {
            None => return Err("no field of the answer holds the file's time".to_owned()),
            Some(stamp) if stamp != *cursor => {
                return Err(format!("the time comes as {stamp} and is sent back as {cursor}"));
            }
            Some(_) => {}
        }
        shape.callback = callback(echoed);
        shape.content_type = self.content_type(shape.callback.is_some());
        Ok(shape)
    }

    pub(super) fn content_type(&mut self, jsonp: bool) -> Option<String> {
        let (at, found) = self.beside().find_map(|event| {
            let What::Header(text) = &event.what else { return None };
            let text = text.constant()?;
            let (name, value) = text.split_once(':')?;
            let content_type = name.trim().eq_ignore_ascii_case("content-type");
            content_type.then(|| (event.at(), value.trim().to_owned()))
        })?;
        self.note(at, format!("answers as {found}"));
        let usual = if jsonp { "javascript" } else { "text/html" };
        (!found.contains(usual)).then_some(found)
    }
}

/// All JSON in what a script prints, taken together.
pub(super) fn json_in(value: &Value) -> Option<Value> {
    let inside = value.pieces.iter().flatten().filter_map(|piece| match piece {
        Piece::Json(inside) => Some(inside.as_ref().clone()),
        _ => None,
    });
    inside.reduce(Value::or)
}

/// `$_GET['callback'] . '(' . json_encode(...)`.
fn callback(echoed: &Value) -> Option<String> {
    let pieces = echoed.pieces.as_ref()?;
    pieces.windows(3).find_map(|three| match three {
        [Piece::Open(origins), Piece::Text(between), Piece::Json(_)] if between.contains('(') => {
            origins.iter().find_map(|origin| match origin {
                Origin::Parameter(_, name) => Some(name.clone()),
                _ => None,
            })
        }
        _ => None,
    })
}
