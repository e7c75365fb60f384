//! Methods and objects of classes that are not the site's own: databases, requests, frameworks.

use crate::adopt::events::What;
use crate::adopt::value::{Origin, Piece, Source, Value};
use crate::adopt::walk::Walker;

impl Walker<'_> {
    /// Methods of databases, requests and frameworks.
    pub(super) fn foreign_method(
        &mut self,
        base: &Value,
        name: &str,
        values: &[Value],
    ) -> Option<Value> {
        let lower = name.to_ascii_lowercase();
        let first = values.first().cloned().unwrap_or_default();
        match lower.as_str() {
            "ajaxreturn" => {
                let answer = match values {
                    [data, info, status, ..] => {
                        let mut all = Value::default();
                        all.set_field("data", data.clone());
                        all.set_field("info", info.clone());
                        all.set_field("status", status.clone());
                        all
                    }
                    _ => first,
                };
                Some(self.answer_json(answer))
            }
            "json" | "setjsoncontent" | "renderjson" if values.len() <= 3 => {
                Some(self.answer_json(first))
            }
            "getparam" | "getquery" | "getpost" | "input" | "param" => {
                let source = match lower.as_str() {
                    "getquery" => Source::Get,
                    "getpost" => Source::Post,
                    _ => Source::Either,
                };
                Some(Value::from_origin(Origin::Parameter(source, first.constant()?)))
            }
            "getmtime" => {
                let place = base.place(&self.project.folder(self.entry));
                self.note(What::Look(place.clone()));
                Some(Value::from_origin(Origin::ChangeTime(place)))
            }
            "get" | "lrange" | "lpop" | "blpop" | "fetch"
                if base.has(|origin| *origin == Origin::Cache) =>
            {
                self.note(What::Cache);
                Some(Value::from_origin(Origin::Cache))
            }
            _ => self.query(values).or_else(|| self.model_method(base, &lower, values)),
        }
    }

    /// `new` for a class that is not the site's own.
    pub(in crate::adopt) fn foreign_object(&mut self, class: &str, values: &[Value]) -> Value {
        let first = values.first().cloned().unwrap_or_default();
        match class.rsplit('\\').next().unwrap_or(class).to_ascii_lowercase().as_str() {
            "pdo" | "sqlite3" => {
                if let Some(Piece::Text(text)) = first.pieces.as_ref().and_then(|all| all.first()) {
                    let file = text.strip_prefix("sqlite:");
                    let file = file.or(Some(&**text).filter(|path| path.starts_with('/')));
                    if let Some(file) = file {
                        let begin = Piece::Text(file.to_owned());
                        let rest = first.pieces.iter().flatten().skip(1).cloned();
                        let pieces = Some([begin].into_iter().chain(rest).collect());
                        let path = Value { pieces, ..Value::default() };
                        let place = path.place(&self.project.folder(self.entry));
                        self.note(What::Database(place));
                    }
                }
                Value::default()
            }
            "mysqli" => Value::default(),
            "memcache" | "memcached" | "redis" => Value::from_origin(Origin::Cache),
            "splfileinfo" | "splfileobject" => first,
            "jsonresponse" => self.answer_json(first),
            _ => Value::made_of(values),
        }
    }

    pub(super) fn answer_json(&mut self, value: Value) -> Value {
        let json = Value { pieces: Some(vec![Piece::Json(Box::new(value))]), ..Value::default() };
        self.note(What::Echo(json.bounded()));
        Value::default()
    }
}
