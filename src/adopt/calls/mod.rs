//! Calls: of the site's own functions and methods, which are gone into, and of PHP's own.
//!
//! PHP's own are in `functions` and `texts`, databases in `tables`, the classes of others in
//! `foreign`, requests of frameworks in `requests`.

mod foreign;
mod functions;
pub(super) mod requests;
mod tables;
mod texts;

use super::syntax::{Expr, Function, Kind};
use super::value::{Origin, Source, Value};
use super::walk::{Scope, Walker};
use std::collections::HashMap;
use texts::text_function;

/// Methods with which a model's class is asked: `Message::where(...)`.
const MODELS: &[&str] = &[
    "where", "all", "find", "latest", "orderby", "create", "insert", "query", "first", "wherein",
    "max", "count", "findall", "update",
];

/// The table of a model: `messages` of `App\\Message`.
pub(super) fn table_of(class: &str) -> String {
    let short = class.rsplit('\\').next().unwrap_or(class);
    let mut table = String::new();
    for (at, letter) in short.char_indices() {
        if letter.is_uppercase() && at > 0 {
            table.push('_');
        }
        table.extend(letter.to_lowercase());
    }
    if !table.ends_with('s') {
        table.push('s');
    }
    table
}

/// Calls in calls.
const CALLS: usize = 16;

/// A function, method or closure of the site, and what it finds around it when it is called.
#[derive(Clone)]
pub(super) struct Callee<'a> {
    pub(super) script: usize,
    pub(super) function: &'a Function,
    /// The object whose method it is.
    pub(super) this: Option<usize>,
    pub(super) class: Option<String>,
    /// The variables that a closure takes along.
    pub(super) variables: HashMap<String, Value>,
}

impl<'a> Callee<'a> {
    pub(super) fn new(script: usize, function: &'a Function) -> Self {
        Self { script, function, this: None, class: None, variables: HashMap::new() }
    }
}

impl<'a> Walker<'a> {
    pub(super) fn call_expression(
        &mut self,
        line: u32,
        function: &'a Expr,
        arguments: &'a [Expr],
    ) -> Value {
        // An `isset` reads nothing.
        let values: Vec<Value> = arguments.iter().map(|one| self.eval(one)).collect();
        let value = match &function.kind {
            Kind::Name(name) => {
                self.line = line;
                self.named(name, arguments, values)
            }
            Kind::Member(object, name) => {
                let base = self.eval(object);
                self.line = line;
                if matches!(&*name.to_ascii_lowercase(), "bind_param" | "bindvalue" | "bindparam") {
                    // The statement has them from now on.
                    let bound = Value::made_of(&values);
                    let origins = base.origins.iter().cloned().chain(bound.origins).collect();
                    self.assign(object, Value { origins, ..base }.bounded());
                    return Value::default();
                }
                self.method_call(base, name, values)
            }
            Kind::Static(class, name) => {
                let class = self.class_named(class).unwrap_or_default();
                self.line = line;
                self.static_call(&class, name, values)
            }
            _ => {
                let callee = self.eval(function);
                self.closure_call(&callee, values)
            }
        };
        self.line = line;
        value
    }

    fn closure_call(&mut self, callee: &Value, values: Vec<Value>) -> Value {
        let Some(closure) = callee.closure.and_then(|at| self.closures.get(at)).cloned() else {
            return Value::made_of(&values);
        };
        let this = self.scope.this;
        let class = self.scope.class.clone();
        self.call(Callee { this, class, ..closure }, values)
    }

    fn named(&mut self, name: &str, arguments: &'a [Expr], values: Vec<Value>) -> Value {
        let included = |script| self.walked.included.contains(&script);
        if let Some((script, function)) = self.project.function(name, included) {
            return self.call(Callee::new(script, function), values);
        }
        let name = name.rsplit('\\').next().unwrap_or(name).to_ascii_lowercase();
        self.file_function(&name, &values)
            .or_else(|| self.request_function(&name, arguments, &values))
            .or_else(|| self.query_function(&name, &values))
            .or_else(|| text_function(&name, &values))
            .unwrap_or_else(|| self.other_function(&name, values))
    }

    pub(super) fn method_call(&mut self, base: Value, name: &str, values: Vec<Value>) -> Value {
        let own = base.object.and_then(|at| {
            let class = self.objects.get(at)?.class.clone();
            Some(Callee { this: Some(at), ..self.find_method(&class, name)? })
        });
        if let Some(method) = own {
            return self.call(method, values);
        }
        if let Some(value) = self.foreign_method(&base, name, &values) {
            return value;
        }
        // An object of which nothing is known: its class, if just one has such a method.
        let only = self.project.only_class_with(name).map(str::to_owned);
        if base.object.is_none()
            && let Some(class) = only
            && let Some(method) = self.find_method(&class, name)
        {
            return self.call(method, values);
        }
        Value::made_of(values.iter().chain([&base]))
    }

    fn static_call(&mut self, class: &str, name: &str, values: Vec<Value>) -> Value {
        if let Some(method) = self.find_method(class, name) {
            return self.call(Callee { this: self.scope.this, ..method }, values);
        }
        let first = values.first().and_then(Value::constant);
        match (class.to_ascii_lowercase().as_str(), name.to_ascii_lowercase().as_str(), first) {
            ("db", "table" | "name", Some(table)) => {
                Value::from_origin(Origin::Rows(table.to_ascii_lowercase()))
            }
            ("input" | "request", "get" | "input", Some(name)) => {
                Value::from_origin(Origin::Parameter(Source::Either, name))
            }
            ("response", "json" | "make", _) => {
                self.answer_json(values.into_iter().next().unwrap_or_default())
            }
            ("redis" | "cache", "get" | "lrange" | "lpop" | "llen" | "exists", _) => {
                self.cached(&values)
            }
            (_, method, _) if MODELS.contains(&method) && !tables::is_query(&values) => {
                let base = Value::from_origin(Origin::Rows(table_of(class)));
                let method = method.to_owned();
                let value = self.model_method(&base, &method, &values);
                value.unwrap_or_default()
            }
            _ => match self.query(&values) {
                Some(value) => value,
                None => Value::made_of(&values),
            },
        }
    }

    /// Calls a function of the site; what it answers is any of what it returns.
    pub(super) fn call(&mut self, callee: Callee<'a>, arguments: Vec<Value>) -> Value {
        let Callee { script, function, this, class, mut variables } = callee;
        let place = (script, function.line);
        if self.active.contains(&place) {
            self.recursive.insert(place);
            return Value::made_of(&arguments);
        }
        if self.active.len() >= CALLS {
            return Value::made_of(&arguments);
        }
        let events = self.walked.events.len();
        let outer_loops = self.depth_of_loops();
        self.walked.functions.insert(place);
        let here = std::mem::replace(&mut self.script, script);
        let line = self.line;
        let mut arguments = arguments.into_iter();
        for (name, default) in &function.parameters {
            let value = match (arguments.next(), default) {
                (Some(value), _) => value,
                (None, Some(default)) => self.quietly(default),
                (None, None) => Value::default(),
            };
            variables.insert(name.clone(), value);
        }
        let scope = Scope { variables, this, class, returned: Value::default() };
        let outer = std::mem::replace(&mut self.scope, scope);
        self.active.push(place);
        self.run(&function.body);
        self.active.pop();
        if self.recursive.remove(&place) {
            self.loop_of_recursion(place, events, outer_loops);
        }
        self.script = here;
        self.line = line;
        std::mem::replace(&mut self.scope, outer).returned
    }
}
