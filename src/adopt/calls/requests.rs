//! The request as frameworks hand it over: `$request->input('id')`, `$request->id`,
//! `$this->input->get('id')`, `$request->query->get('id')`.

use crate::adopt::value::{Origin, Source, Value};

/// Methods that read one parameter, and from where.
fn reader(method: &str) -> Option<Source> {
    Some(match method {
        "get" | "input" | "get_post" | "post_get" | "getparam" | "param" | "has" | "filled"
        | "exists" | "integer" | "string" | "boolean" | "all" => Source::Either,
        "query" | "getquery" | "getget" | "getqueryparams" => Source::Get,
        "post" | "getpost" | "getparsedbody" => Source::Post,
        "cookie" => Source::Cookie,
        "json" => Source::Json,
        _ => return None,
    })
}

fn source(value: &Value) -> Option<Source> {
    value.origins.iter().find_map(|origin| match origin {
        Origin::Request(source) => Some(*source),
        _ => None,
    })
}

pub(in crate::adopt) fn is_request(value: &Value) -> bool {
    source(value).is_some()
}

/// One parameter of it.
pub(in crate::adopt) fn field(request: &Value, name: &str) -> Value {
    match source(request) {
        Some(source) => Value::from_origin(Origin::Parameter(source, name.to_owned())),
        None => Value::default(),
    }
}

/// `base->name` where `base` is a request, or where that is one.
pub(in crate::adopt) fn member(base: &Value, name: &str) -> Option<Value> {
    let Some(source) = source(base) else {
        // `$this->request`, `$this->input`, which the framework sets.
        let unset = base.object.is_some() && matches!(name, "request" | "input");
        return unset.then(|| Value::from_origin(Origin::Request(Source::Either)));
    };
    Some(match (source, name) {
        (Source::Either, "query") => Value::from_origin(Origin::Request(Source::Get)),
        (Source::Either, "request") => Value::from_origin(Origin::Request(Source::Post)),
        (Source::Either, "cookies") => Value::from_origin(Origin::Request(Source::Cookie)),
        (Source::Either, "headers" | "server" | "files" | "attributes") => Value::default(),
        _ => field(base, name),
    })
}

/// A method of a request.
pub(super) fn call(base: &Value, method: &str, arguments: &[Value]) -> Option<Value> {
    let own = source(base)?;
    let from = match (own, reader(method)?) {
        (Source::Either, from) => from,
        (own, _) => own,
    };
    let name = arguments.first().map(Value::constant);
    Some(match name {
        None => Value::from_origin(Origin::Request(from)),
        Some(Some(name)) => Value::from_origin(Origin::Parameter(from, name)),
        Some(None) => Value::default(),
    })
}
