//! `extra` of a rule: any TOML table, passed on as JSON.

use crate::config::read::section::Section;
use ::config::{Value, ValueKind};
use serde_json::{Map, Value as Json};
use toml_edit::{Array, InlineTable, Value as Toml};

/// Reads the constant fields of a rule's answers.
pub(in crate::config) fn read(section: &mut Section) -> Map<String, Json> {
    section.inline("extra", |extra| {
        let mut fields = Map::new();
        for (name, value) in extra.all() {
            match (json(&value.kind), toml(&value.kind)) {
                (Some(json), Some(toml)) => {
                    extra.show(&name, toml);
                    fields.insert(name, json);
                }
                _ => extra.mistake(&name, "cannot stand in JSON; dates, inf and nan have no form"),
            }
        }
        fields
    })
}

fn json(kind: &ValueKind) -> Option<Json> {
    match kind {
        ValueKind::Boolean(flag) => Some((*flag).into()),
        ValueKind::I64(number) => Some((*number).into()),
        ValueKind::Float(number) => serde_json::Number::from_f64(*number).map(Json::Number),
        ValueKind::String(text) => Some(text.clone().into()),
        ValueKind::Array(list) => list.iter().map(|value| json(&value.kind)).collect(),
        ValueKind::Table(table) => {
            let field = |(name, value): (&String, &Value)| Some((name.clone(), json(&value.kind)?));
            table.iter().map(field).collect::<Option<Map<_, _>>>().map(Json::Object)
        }
        // Dates, and kinds that TOML does not have.
        _ => None,
    }
}

fn toml(kind: &ValueKind) -> Option<Toml> {
    match kind {
        ValueKind::Boolean(flag) => Some((*flag).into()),
        ValueKind::I64(number) => Some((*number).into()),
        ValueKind::Float(number) => Some((*number).into()),
        ValueKind::String(text) => Some(text.into()),
        ValueKind::Array(list) => {
            list.iter().map(|value| toml(&value.kind)).collect::<Option<Array>>().map(Toml::Array)
        }
        ValueKind::Table(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(name, _)| name.as_str());
            let field = |(name, value): (&String, &Value)| Some((name.clone(), toml(&value.kind)?));
            let fields = entries.into_iter().map(field).collect::<Option<Vec<_>>>()?;
            Some(Toml::InlineTable(InlineTable::from_iter(fields)))
        }
        _ => None,
    }
}
