//! PHP's functions from text to text.

use crate::adopt::value::{Origin, Piece, Value, folded};
use std::collections::BTreeSet;

/// Functions from text to text.
pub(super) fn text_function(name: &str, values: &[Value]) -> Option<Value> {
    let first = values.first().cloned().unwrap_or_default();
    Some(match name {
        "sprintf" => match first.constant() {
            Some(format) => formatted(&format, values.get(1..).unwrap_or(&[])),
            None => Value::made_of(values),
        },
        "dirname" => {
            let levels = values.get(1).and_then(Value::number).unwrap_or(1.0) as u32;
            match first.constant() {
                Some(path) => Value::text(parent(&path, levels)),
                None => Value::made_of(values),
            }
        }
        "basename" => match first.constant() {
            Some(path) => Value::text(path.rsplit('/').next().unwrap_or_default().to_owned()),
            None => Value { pieces: None, ..first },
        },
        "trim" | "rtrim" | "ltrim" | "chop" => {
            let content = first.has(|origin| matches!(origin, Origin::Content(_)));
            if content { first.with(Origin::Trimmed) } else { first }
        }
        "intval" | "floatval" | "floor" | "round" | "ceil" | "strval" | "number_format"
        | "filter_var" | "filter_var_array" | "stripslashes" | "addslashes" => first,
        "max" | "min" => values.iter().cloned().reduce(Value::or)?,
        "strtolower" | "strtoupper" | "ucfirst" if first.constant().is_some() => {
            let text = first.constant()?;
            let lower = name == "strtolower";
            Value::text(if lower { text.to_lowercase() } else { text.to_uppercase() })
        }
        _ => return None,
    })
}

/// Parent folders, as `dirname` has them.
fn parent(path: &str, levels: u32) -> String {
    let mut path = folded(path);
    for _ in 0..levels.min(20) {
        path.truncate(path.rfind('/').unwrap_or(0));
    }
    if path.is_empty() { "/".to_owned() } else { path }
}

/// `sprintf` with what is known of its arguments.
pub(super) fn formatted(format: &str, arguments: &[Value]) -> Value {
    let mut parts = Vec::new();
    let mut rest = format;
    let mut next = arguments.iter();
    while let Some((before, after)) = rest.split_once('%') {
        parts.push(Value::text(before));
        if let Some(after) = after.strip_prefix('%') {
            parts.push(Value::text("%"));
            rest = after;
            continue;
        }
        let end = after.find(|c: char| c.is_ascii_alphabetic()).map_or(after.len(), |at| at + 1);
        let (directive, behind) = after.split_at(end);
        // `%2$s` names its argument.
        let numbered = directive.split_once('$').and_then(|(number, _)| number.parse().ok());
        let argument = match numbered {
            Some(number) => arguments.get(usize::saturating_sub(number, 1)),
            None => next.next(),
        };
        parts.push(argument.cloned().unwrap_or_else(unknown));
        rest = behind;
    }
    parts.push(Value::text(rest));
    Value::join(parts)
}

fn unknown() -> Value {
    Value { pieces: Some(vec![Piece::Open(BTreeSet::new())]), ..Value::default() }
}
