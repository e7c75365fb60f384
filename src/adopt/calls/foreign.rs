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
        if let Some(value) = super::requests::call(base, &lower, values) {
            return Some(value);
        }
        match lower.as_str() {
            "set_output" | "setcontent" | "setbody" if values.len() == 1 => {
                self.note(What::Echo(first));
                Some(base.clone())
            }
            "set_content_type" | "setcontenttype" => {
                self.note(What::Header(Value::join([Value::text("Content-Type: "), first])));
                Some(base.clone())
            }
            // CodeIgniter and WordPress name the table first.
            "insert" | "update" | "replace" | "delete" | "insert_batch"
                if first.constant().is_some() && !is_model(base) =>
            {
                self.stores(&first, values.get(1..).unwrap_or_default())
            }
            "table" if values.len() == 1 => {
                Some(Value::from_origin(Origin::Rows(first.constant()?.to_ascii_lowercase())))
            }
            "save" | "persist" | "push" | "store" if is_entity(base) || is_entity(&first) => {
                let entity = if is_entity(base) { base } else { &first };
                let table = entity.origins.iter().find_map(|origin| match origin {
                    Origin::Entity(table) => Some(table.clone()),
                    _ => None,
                })?;
                let from = Value::made_of([entity]);
                self.note(What::Query { table, writes: true, presence: false, from });
                Some(Value::default())
            }
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
            "get" | "lrange" | "lpop" | "blpop" | "fetch" | "llen" | "exists"
                if base.has(|origin| *origin == Origin::Cache) =>
            {
                Some(self.cached(values))
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
                    if let Some(file) = file.filter(|file| *file != ":memory:") {
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
            // A model that is stored with `save`.
            short if short.starts_with(|c: char| c.is_alphabetic()) && values.is_empty() => {
                Value::from_origin(Origin::Entity(super::table_of(class)))
            }
            _ => Value::made_of(values),
        }
    }

    /// A row for the table that the first argument names.
    fn stores(&mut self, table: &Value, row: &[Value]) -> Option<Value> {
        let table = table.constant()?.to_ascii_lowercase();
        let columns: Vec<&str> =
            row.first()?.fields.iter().map(|(name, _)| name.as_str()).collect();
        let presence = super::tables::is_presence(&columns);
        let from = Value::made_of(row);
        self.note(What::Query { table, writes: true, presence, from });
        Some(Value::default())
    }

    /// An answer that a framework makes JSON of, with the content type for it.
    pub(in crate::adopt) fn answer_json(&mut self, value: Value) -> Value {
        self.note(What::Header(Value::text("Content-Type: application/json")));
        let json = Value { pieces: Some(vec![Piece::Json(Box::new(value))]), ..Value::default() };
        self.note(What::Echo(json.bounded()));
        Value::default()
    }
}

fn is_model(base: &Value) -> bool {
    base.has(|origin| matches!(origin, Origin::Rows(_)))
}

fn is_entity(value: &Value) -> bool {
    value.has(|origin| matches!(origin, Origin::Entity(_)))
}
