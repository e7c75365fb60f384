//! What an expression comes to, as far as that can be said.

use super::project::Project;
use super::syntax::{Expr, Function, Kind};
use super::value::{Origin, Piece, Source, Value, folded};
use super::walk::{Object, Scope, Walker, What};
use std::collections::{BTreeSet, HashMap};

/// Calls in calls.
const CALLS: usize = 16;
/// Objects made in one script.
const OBJECTS: usize = 1_000;
/// Scripts included by one script.
const INCLUDES: usize = 300;

/// The parameters that a superglobal variable holds.
pub(super) fn source_of(variable: &str) -> Option<Source> {
    match variable {
        "_GET" => Some(Source::Get),
        "_POST" => Some(Source::Post),
        "_REQUEST" => Some(Source::Either),
        "_COOKIE" => Some(Source::Cookie),
        _ => None,
    }
}

impl<'a> Walker<'a> {
    pub(super) fn eval(&mut self, expr: &'a Expr) -> Value {
        if !self.step() {
            return Value::default();
        }
        self.line = expr.line;
        match &expr.kind {
            Kind::Text(text) => Value::text(text.clone()),
            Kind::Number(text) => Value::bare(text.clone()),
            Kind::Variable(name) => self.variable(name),
            Kind::Name(name) => self.constant(name),
            Kind::Index(base, index) => self.index(base, index.as_deref()),
            Kind::Member(base, name) => {
                let base = self.eval(base);
                let property =
                    base.object.and_then(|at| self.objects.get(at)?.properties.get(name));
                match property {
                    Some(value) => value.clone(),
                    None => base
                        .field(name)
                        .cloned()
                        .unwrap_or(Value { origins: base.all_origins(), ..Value::default() }),
                }
            }
            Kind::Static(class, name) => self.static_member(class, name),
            Kind::Call(function, arguments) => self.call_expression(expr.line, function, arguments),
            Kind::New(class, arguments) => {
                let arguments = arguments.iter().map(|one| self.eval(one)).collect();
                self.line = expr.line;
                self.new_object(class, arguments)
            }
            Kind::Array(elements) => self.array(elements),
            Kind::Assign(left, sign, right) => {
                let mut value = self.eval(right);
                if *sign == ".=" {
                    value = Value::join([self.quietly(left), value]);
                } else if *sign != "=" && *sign != "??=" {
                    value = Value::made_of([&self.quietly(left), &value]);
                }
                self.assign(left, value.clone());
                value
            }
            Kind::Binary(sign, left, right) => {
                let (left, right) = (self.eval(left), self.eval(right));
                self.line = expr.line;
                self.binary(sign, left, right)
            }
            Kind::Not(inner) => {
                self.eval(inner);
                Value::default()
            }
            Kind::Choice(test, then, otherwise) => {
                let test = self.eval(test);
                let then = then.as_ref().map_or(test, |then| self.eval(then));
                let otherwise = self.eval(otherwise);
                then.or(otherwise)
            }
            Kind::Cast(to, inner) => {
                let inner = self.eval(inner);
                if to == "object" { Value { object: None, ..inner } } else { inner }
            }
            Kind::Include(path) => self.include(path),
            Kind::Exit(text) => {
                if let Some(text) = text {
                    let text = self.eval(text);
                    if text.pieces.is_some() {
                        self.note(What::Echo(text));
                    }
                }
                Value::default()
            }
            Kind::Closure(function) => {
                let around = self.scope.variables.clone();
                self.closures.push((self.script, function, around));
                Value { closure: Some(self.closures.len() - 1), ..Value::default() }
            }
            Kind::Joined(parts) => {
                let parts: Vec<Value> = parts.iter().map(|part| self.eval(part)).collect();
                Value::join(parts)
            }
            Kind::Many(parts) => {
                let parts: Vec<Value> = parts.iter().map(|part| self.eval(part)).collect();
                Value::made_of(&parts)
            }
        }
    }

    fn variable(&mut self, name: &str) -> Value {
        if name == "this" {
            return Value { object: self.scope.this, ..Value::default() };
        }
        let known = self.scope.variables.get(name);
        // `global $x` is not told apart from a variable that was never set.
        known.or_else(|| self.globals.get(name)).cloned().unwrap_or_default()
    }

    fn constant(&mut self, name: &str) -> Value {
        match name {
            "__DIR__" => Value::text(self.project.folder(self.script)),
            "__FILE__" => Value::text(self.path_of(self.script)),
            "DIRECTORY_SEPARATOR" => Value::text("/"),
            "PHP_EOL" => Value::text("\n"),
            _ => match name.to_ascii_lowercase().as_str() {
                word @ ("true" | "false" | "null") => Value::bare(word),
                _ => self.constants.get(name).cloned().unwrap_or_default(),
            },
        }
    }

    fn path_of(&self, script: usize) -> String {
        format!("{}{}", self.project.root, self.project.scripts[script].path)
    }

    fn index(&mut self, base: &'a Expr, index: Option<&'a Expr>) -> Value {
        let key = index.map(|index| self.eval(index)).unwrap_or_default();
        if let Some(name) = base.variable() {
            if let Some(source) = source_of(name) {
                let parameter = |name| Value::from_origin(Origin::Parameter(source, name));
                return key.constant().map(parameter).unwrap_or_default();
            }
            if name == "_SERVER" {
                return self.server(&key.constant().unwrap_or_default());
            }
        }
        let base = self.eval(base);
        let field = key.constant().and_then(|key| base.field(&key).cloned());
        match (field, &base.entry) {
            (Some(value), _) => value,
            (None, Some(entry)) => entry.1.clone(),
            (None, None) => Value { origins: base.all_origins(), ..Value::default() },
        }
    }

    fn server(&self, name: &str) -> Value {
        match name {
            "REQUEST_METHOD" => Value::from_origin(Origin::Method),
            "REQUEST_TIME" | "REQUEST_TIME_FLOAT" => Value::from_origin(Origin::Clock),
            "DOCUMENT_ROOT" => Value::text(self.project.root.clone()),
            "SCRIPT_FILENAME" => Value::text(self.path_of(self.entry)),
            _ => Value::default(),
        }
    }

    fn static_member(&mut self, class: &'a Expr, name: &str) -> Value {
        let Some(class) = self.class_named(class) else { return Value::default() };
        if name.starts_with('$') {
            let known = self.statics.get(&format!("{}::{name}", class.to_ascii_lowercase()));
            return known.cloned().unwrap_or_default();
        }
        let mut next = Some(class);
        for _ in 0..8 {
            let Some((script, class)) = next.and_then(|name| self.find_class(&name)) else { break };
            if let Some((_, value)) = class.constants.iter().find(|(known, _)| known == name) {
                let here = std::mem::replace(&mut self.script, script);
                let value = self.quietly(value);
                self.script = here;
                return value;
            }
            next = class.parent.clone();
        }
        Value::default()
    }

    /// The class that stands before a `::`.
    pub(super) fn class_named(&mut self, expr: &'a Expr) -> Option<String> {
        let Kind::Name(name) = &expr.kind else { return None };
        match name.to_ascii_lowercase().as_str() {
            "self" | "static" => self.scope.class.clone(),
            "parent" => {
                let class = self.scope.class.clone()?;
                self.find_class(&class)?.1.parent.clone()
            }
            _ => Some(name.clone()),
        }
    }

    pub(super) fn find_class(&self, name: &str) -> Option<(usize, &'a super::syntax::Class)> {
        let project: &'a Project = self.project;
        project.class(name, |script| self.walked.included.contains(&script))
    }

    fn array(&mut self, elements: &'a [(Option<Expr>, Expr)]) -> Value {
        let mut array = Value::default();
        for (key, value) in elements {
            let key = key.as_ref().map(|key| self.eval(key));
            let value = self.eval(value);
            match key.as_ref().and_then(Value::constant) {
                Some(name) => array.set_field(&name, value),
                None => add_entry(&mut array, key.unwrap_or_default(), value),
            }
        }
        array.bounded()
    }

    fn binary(&mut self, sign: &'static str, left: Value, right: Value) -> Value {
        match sign {
            "." => Value::join([left, right]),
            "<" | "<=" | ">" | ">=" | "==" | "!=" | "===" | "!==" | "<>" => {
                self.note(What::Compare(sign, left, right));
                Value::default()
            }
            "&&" | "||" | "instanceof" => Value::default(),
            _ => match (left.number(), right.number()) {
                (Some(left), Some(right)) => arithmetic(sign, left, right),
                (_, Some(1000.0)) if sign == "*" => left.with(Origin::Thousandfold),
                (Some(1000.0), _) if sign == "*" => right.with(Origin::Thousandfold),
                (_, Some(later)) if sign == "+" && left.has(|origin| *origin == Origin::Clock) => {
                    Value::made_of([&left]).with(Origin::Later(later as u32))
                }
                _ => Value::made_of([&left, &right]),
            },
        }
    }

    pub(super) fn assign(&mut self, to: &'a Expr, value: Value) {
        match &to.kind {
            Kind::Variable(name) => {
                if self.active.is_empty() {
                    self.globals.insert(name.clone(), value.clone());
                }
                self.scope.variables.insert(name.clone(), value);
            }
            Kind::Index(base, index) => {
                let key = index.as_ref().map(|index| self.quietly(index)).unwrap_or_default();
                let mut array = self.quietly(base);
                // What is known of it as a text is no longer so.
                array.pieces = None;
                match key.constant() {
                    Some(name) => array.set_field(&name, value),
                    None => add_entry(&mut array, key, value),
                }
                self.assign(base, array.bounded());
            }
            Kind::Member(base, name) => {
                let object = self.quietly(base).object;
                if let Some(object) = object.and_then(|at| self.objects.get_mut(at)) {
                    object.properties.insert(name.clone(), value);
                }
            }
            Kind::Static(class, name) => {
                if let Some(class) = self.class_named(class) {
                    self.statics.insert(format!("{}::{name}", class.to_ascii_lowercase()), value);
                }
            }
            Kind::Array(elements) => {
                for (_, element) in elements {
                    let part = Value { origins: value.all_origins(), ..Value::default() };
                    self.assign(element, part);
                }
            }
            _ => {}
        }
    }

    fn include(&mut self, path: &'a Expr) -> Value {
        let path = self.eval(path);
        let mut place = path.place(&self.project.folder(self.entry));
        let mut found = self.project.script_at(&place.path);
        if found.is_none() && !place.path.contains('*') {
            place = path.place(&self.project.folder(self.script));
            found = self.project.script_at(&place.path);
        }
        let Some(script) = found else { return Value::default() };
        if self.walked.included.len() >= INCLUDES || !self.walked.included.insert(script) {
            return Value::default();
        }
        let project = self.project;
        let here = std::mem::replace(&mut self.script, script);
        // What it returns is the include's value, not the function's around it.
        let before = std::mem::take(&mut self.scope.returned);
        self.run(&project.scripts[script].body);
        self.script = here;
        std::mem::replace(&mut self.scope.returned, before)
    }

    /// Makes an object of a class of the site and runs its constructor.
    pub(super) fn instance(&mut self, name: &str, arguments: Vec<Value>) -> usize {
        let at = self.objects.len();
        self.objects.push(Object { class: name.to_owned(), properties: HashMap::new() });
        let mut classes = Vec::new();
        let mut next = Some(name.to_owned());
        while let Some((script, class)) = next.and_then(|name| self.find_class(&name)) {
            classes.push((script, class));
            next = if classes.len() < 8 { class.parent.clone() } else { None };
        }
        for (script, class) in classes.iter().rev() {
            let here = std::mem::replace(&mut self.script, *script);
            let outer = self.scope.class.replace(class.name.clone());
            for (property, value) in &class.properties {
                let value = self.quietly(value);
                self.statics
                    .entry(format!("{}::${property}", class.name.to_ascii_lowercase()))
                    .or_insert_with(|| value.clone());
                self.objects[at].properties.insert(property.clone(), value);
            }
            self.scope.class = outer;
            self.script = here;
        }
        if let Some((script, class, constructor)) = self.find_method(name, "__construct") {
            self.call(script, constructor, arguments, Some(at), Some(class));
        }
        at
    }

    fn new_object(&mut self, class: &str, arguments: Vec<Value>) -> Value {
        let class = match class.to_ascii_lowercase().as_str() {
            "self" | "static" => self.scope.class.clone().unwrap_or_default(),
            _ => class.to_owned(),
        };
        if self.find_class(&class).is_some() && self.objects.len() < OBJECTS {
            let at = self.instance(&class, arguments);
            return Value { object: Some(at), ..Value::default() };
        }
        self.foreign_object(&class, &arguments)
    }

    /// The method of a class or of those it extends.
    pub(super) fn find_method(
        &self,
        class: &str,
        method: &str,
    ) -> Option<(usize, String, &'a Function)> {
        let mut next = Some(class.to_owned());
        for _ in 0..8 {
            let (script, class) = self.find_class(&next?)?;
            let mut methods = class.methods.iter();
            if let Some(found) = methods.find(|one| one.name.eq_ignore_ascii_case(method)) {
                return Some((script, class.name.clone(), found));
            }
            next = class.parent.clone();
        }
        None
    }

    /// Calls a function of the site; what it answers is any of what it returns.
    pub(super) fn call(
        &mut self,
        script: usize,
        function: &'a Function,
        arguments: Vec<Value>,
        this: Option<usize>,
        class: Option<String>,
    ) -> Value {
        self.call_within(script, function, arguments, this, class, HashMap::new())
    }

    pub(super) fn call_within(
        &mut self,
        script: usize,
        function: &'a Function,
        arguments: Vec<Value>,
        this: Option<usize>,
        class: Option<String>,
        mut variables: HashMap<String, Value>,
    ) -> Value {
        let place = (script, function.line);
        if self.active.len() >= CALLS || self.active.contains(&place) {
            return Value::made_of(&arguments);
        }
        self.walked.functions.insert(place);
        let (here, line) = (std::mem::replace(&mut self.script, script), self.line);
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
        (self.script, self.line) = (here, line);
        std::mem::replace(&mut self.scope, outer).returned
    }
}

/// Adds an entry whose key is not known.
fn add_entry(array: &mut Value, key: Value, value: Value) {
    array.entry = Some(match array.entry.take() {
        None => Box::new((key, value)),
        Some(entry) => Box::new((entry.0.or(key), entry.1.or(value))),
    });
}

fn arithmetic(sign: &str, left: f64, right: f64) -> Value {
    let result = match sign {
        "+" => left + right,
        "-" => left - right,
        "*" => left * right,
        "/" if right != 0.0 => left / right,
        _ => return Value::default(),
    };
    Value::bare(result.to_string())
}

/// Parent folders, as `dirname` has them.
pub(super) fn parent(path: &str, levels: u32) -> String {
    let mut path = folded(path);
    for _ in 0..levels.min(20) {
        path.truncate(path.rfind('/').unwrap_or(0));
    }
    if path.is_empty() { "/".to_owned() } else { path }
}

/// `sprintf` with what is known of its arguments.
pub(super) fn formatted(format: &str, arguments: &[Value]) -> Value {
    let mut parts = Vec::new();
    let (mut rest, mut next) = (format, arguments.iter());
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
