//! The values of expressions, as far as they are known.

use super::calls::{Callee, requests};
use super::events::What;
use super::syntax::{Expr, Kind};
use super::value::{Origin, Source, Value};
use super::walk::Walker;

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
                        .or_else(|| requests::member(&base, name))
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
                    if let ("+=" | "-=", Some(step)) = (*sign, value.number()) {
                        self.note(What::Step(step));
                    }
                    value = Value::made_of([&self.quietly(left), &value]);
                }
                self.assign(left, value.clone());
                value
            }
            Kind::Binary(sign, left, right) => {
                let left = self.eval(left);
                let right = self.eval(right);
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
                let word = otherwise.constant().filter(|text| is_word(text));
                let sent = then.parameters().count() == 1 && then.origins.len() == 1;
                match word.filter(|_| sent) {
                    Some(word) => then.or(otherwise).with(Origin::Instead(word)),
                    None => then.or(otherwise),
                }
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
                let variables = self.scope.variables.clone();
                self.closures.push(Callee { variables, ..Callee::new(self.script, function) });
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
        let known = known.or_else(|| self.globals.get(name)).cloned().unwrap_or_default();
        // Frameworks hand it over under this name.
        if name == "request" && known == Value::default() {
            return Value::from_origin(Origin::Request(Source::Either));
        }
        known
    }

    fn constant(&mut self, name: &str) -> Value {
        match name {
            "__DIR__" => Value::text(self.project.folder(self.script)),
            "__FILE__" => Value::text(self.path_of(self.script)),
            "DIRECTORY_SEPARATOR" => Value::text("/"),
            "PHP_EOL" => Value::text("\n"),
            // CodeIgniter's, which its own front script sets.
            "FCPATH" | "APPPATH" if !self.constants.contains_key(name) => {
                let path = self.path_of(self.script);
                match path.split_once("/application/") {
                    Some((root, _)) if name == "FCPATH" => Value::text(format!("{root}/")),
                    Some((root, _)) => Value::text(format!("{root}/application/")),
                    None => Value::default(),
                }
            }
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
            (None, None) if key.constant().is_some() && requests::is_request(&base) => {
                requests::field(&base, &key.constant().unwrap_or_default())
            }
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
        if elements.is_empty() {
            return Value::bare("[]");
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
                _ if sign == "-" && left.has(|origin| *origin == Origin::Clock) => {
                    Value::made_of([&left, &right]).with(Origin::Elapsed)
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
                // It is no longer the text that it was.
                array.pieces = None;
                match key.constant() {
                    Some(name) => array.set_field(&name, value),
                    None => add_entry(&mut array, key, value),
                }
                self.assign(base, array.bounded());
            }
            Kind::Member(base, name) => {
                let known = self.quietly(base);
                if let Some(object) = known.object.and_then(|at| self.objects.get_mut(at)) {
                    object.properties.insert(name.clone(), value);
                } else if known.has(|origin| matches!(origin, Origin::Entity(_))) {
                    let mut entity = known;
                    entity.set_field(name, value);
                    self.assign(base, entity.bounded());
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
        // Its `return` gives the include's value, not the function's around it.
        let before = std::mem::take(&mut self.scope.returned);
        self.run(&project.scripts[script].body);
        self.script = here;
        std::mem::replace(&mut self.scope.returned, before)
    }
}

/// True for a text that may be part of a file's name.
fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        && !matches!(text, "null" | "true" | "false")
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
