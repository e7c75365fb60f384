//! Goes through a script as PHP would, without running it: statement by statement, into includes
//! and calls, and notes what it does that has to do with waiting, files and answers.
//!
//! Both ways of a branch are gone, and the body of a loop once. Everything is bounded: the steps
//! of one script, the calls in calls, the size of values.

mod guards;

use super::calls::Callee;
use super::events::{Around, Event, Guard, Walked, What};
use super::project::Project;
use super::syntax::{Expr, Function, Kind, Stmt};
use super::value::{Origin, Source, Value};
use std::collections::{HashMap, HashSet};

/// Statements and expressions looked at for one script.
const STEPS: u32 = 60_000;
/// Things noted of one script.
const EVENTS: usize = 4_000;

pub(super) struct Scope {
    pub(super) variables: HashMap<String, Value>,
    pub(super) this: Option<usize>,
    pub(super) class: Option<String>,
    pub(super) returned: Value,
}

pub(super) struct Object {
    pub(super) class: String,
    pub(super) properties: HashMap<String, Value>,
}

pub(super) struct Walker<'a> {
    pub(super) project: &'a Project,
    pub(super) entry: usize,
    pub(super) script: usize,
    pub(super) line: u32,
    pub(super) scope: Scope,
    pub(super) globals: HashMap<String, Value>,
    pub(super) statics: HashMap<String, Value>,
    pub(super) constants: HashMap<String, Value>,
    pub(super) objects: Vec<Object>,
    pub(super) closures: Vec<Callee<'a>>,
    /// The functions that are under way.
    pub(super) active: Vec<(usize, u32)>,
    /// Those of them that call themselves.
    pub(super) recursive: HashSet<(usize, u32)>,
    /// True if a framework answers with what the outermost function returns.
    answers: bool,
    pub(super) silent: u32,
    pub(super) steps: u32,
    around: Vec<usize>,
    guards: Vec<Guard>,
    pub(super) walked: Walked,
}

impl<'a> Walker<'a> {
    pub(super) fn new(project: &'a Project, entry: usize) -> Self {
        let scope = Scope {
            variables: HashMap::new(),
            this: None,
            class: None,
            returned: Value::default(),
        };
        Self {
            project,
            entry,
            script: entry,
            line: 0,
            scope,
            globals: HashMap::new(),
            statics: HashMap::new(),
            constants: HashMap::new(),
            objects: Vec::new(),
            closures: Vec::new(),
            active: Vec::new(),
            recursive: HashSet::new(),
            answers: false,
            silent: 0,
            steps: STEPS,
            around: Vec::new(),
            guards: Vec::new(),
            walked: Walked::default(),
        }
    }

    /// Walks a script as it is requested.
    pub(super) fn script(mut self) -> Walked {
        let project = self.project;
        self.walked.included.insert(self.entry);
        self.run(&project.scripts[self.entry].body);
        self.finish()
    }

    fn finish(mut self) -> Walked {
        self.walked.steps = STEPS - self.steps;
        self.walked
    }

    /// Walks a method as a framework calls it.
    pub(super) fn method(mut self, class: &str, function: &'a Function) -> Walked {
        let object = self.instance(class, Vec::new());
        let method = Callee { this: Some(object), ..Callee::new(self.entry, function) };
        self.answers = true;
        self.call(Callee { class: Some(class.to_owned()), ..method }, arguments_of(function));
        self.finish()
    }

    /// Walks the function that a route has of its own.
    pub(super) fn closure(mut self, function: &'a Function) -> Walked {
        self.answers = true;
        self.call(Callee::new(self.entry, function), arguments_of(function));
        self.finish()
    }

    /// True if there is a step left, which is taken.
    pub(super) fn step(&mut self) -> bool {
        self.walked.cut |= self.steps == 0;
        self.steps = self.steps.saturating_sub(1);
        self.steps > 0
    }

    pub(super) fn note(&mut self, what: What) {
        if self.silent > 0 || self.walked.events.len() >= EVENTS {
            return;
        }
        self.walked.events.push(Event {
            script: self.script,
            line: self.line,
            what,
            loops: self.around.clone(),
            guards: self.guards.clone(),
        });
    }

    /// Runs statements; `true` if they leave the function or the script.
    pub(super) fn run(&mut self, body: &'a [Stmt]) -> bool {
        let guards = self.guards.len();
        let mut ended = false;
        for statement in body {
            if !self.step() || self.statement(statement) {
                ended = true;
                break;
            }
        }
        self.guards.truncate(guards);
        ended
    }

    fn statement(&mut self, statement: &'a Stmt) -> bool {
        match statement {
            Stmt::Expr(expr) => {
                self.eval(expr);
                if matches!(expr.kind, Kind::Exit(None)) {
                    self.note(What::End);
                }
                matches!(expr.kind, Kind::Exit(_))
            }
            Stmt::Echo(parts) => {
                let parts: Vec<Value> = parts.iter().map(|part| self.eval(part)).collect();
                self.note(What::Echo(Value::join(parts)));
                false
            }
            Stmt::Break(line) => {
                self.line = *line;
                self.note(What::Break);
                false
            }
            Stmt::Html(line) => {
                self.line = *line;
                self.note(What::Html);
                false
            }
            Stmt::Return(value) => {
                let value = value.as_ref().map(|value| self.eval(value)).unwrap_or_default();
                if self.answers && self.active.len() == 1 {
                    self.returned_answer(&value);
                }
                let before = std::mem::take(&mut self.scope.returned);
                self.scope.returned = before.or(value);
                true
            }
            Stmt::If { test, then, otherwise } => self.branch(test, then, otherwise),
            Stmt::Loop { line, before, test, body, after } => {
                before.iter().for_each(|expr| drop(self.eval(expr)));
                // The test of a `do` is behind its body.
                let tests = if test.is_empty() { after } else { test };
                let endless = tests.iter().all(|expr| {
                    let value = self.quietly(expr).constant();
                    value.is_some_and(|text| text == "true" || text == "1")
                });
                self.repeat(*line, endless, |walker| {
                    test.iter().for_each(|expr| drop(walker.eval(expr)));
                    walker.run(body);
                    after.iter().for_each(|expr| drop(walker.eval(expr)));
                    // Now with what the body made of the variables.
                    test.iter().for_each(|expr| drop(walker.eval(expr)));
                });
                false
            }
            Stmt::Foreach { line, subject, key, value, body } => {
                let subject = self.eval(subject);
                let (name, entry) = entries(subject);
                self.repeat(*line, false, |walker| {
                    if let Some(key) = key {
                        walker.assign(key, name);
                    }
                    walker.assign(value, entry);
                    walker.run(body);
                });
                false
            }
            Stmt::Block(body) => self.run(body),
            Stmt::Const(name, value) => {
                let value = self.eval(value);
                self.constants.insert(name.clone(), value);
                false
            }
            Stmt::Function(_) | Stmt::Class(_) => false,
        }
    }

    /// A framework sends text as it is, and makes JSON of anything else.
    fn returned_answer(&mut self, value: &Value) {
        let rows = value.has(|origin| matches!(origin, Origin::Rows(_) | Origin::Content(_)));
        if value.pieces.is_some() {
            self.note(What::Echo(value.clone()));
        } else if !value.fields.is_empty() || value.entry.is_some() || rows {
            self.answer_json(value.clone());
        }
    }

    /// Loops around what is walked now.
    pub(super) fn depth_of_loops(&self) -> usize {
        self.around.len()
    }

    /// Puts the acts of a function that calls itself into a loop.
    pub(super) fn loop_of_recursion(&mut self, place: (usize, u32), events: usize, depth: usize) {
        let inside = self.walked.events.get_mut(events..).unwrap_or_default();
        if !inside.iter().any(|event| matches!(event.what, What::Sleep(_))) {
            return;
        }
        self.walked.loops.push(Around { script: place.0, line: place.1, endless: false });
        let number = self.walked.loops.len() - 1;
        for event in inside {
            event.loops.insert(depth.min(event.loops.len()), number);
        }
    }

    fn repeat(&mut self, line: u32, endless: bool, body: impl FnOnce(&mut Self)) {
        self.walked.loops.push(Around { script: self.script, line, endless });
        self.around.push(self.walked.loops.len() - 1);
        self.line = line;
        body(self);
        self.around.pop();
    }

    /// Both branches, each from the same state; behind them it is either's.
    fn branch(&mut self, test: &'a Expr, then: &'a [Stmt], otherwise: &'a [Stmt]) -> bool {
        self.eval(test);
        let mut holds = self.guards_of(test, true);
        let fails = self.guards_of(test, false);
        if holds.is_empty() && self.around.is_empty() {
            holds.extend(self.unclear(test).map(Guard::Unclear));
        }
        // The copy is what costs.
        let copied = self.scope.variables.len() as u32 * 2;
        self.steps = self.steps.saturating_sub(copied);
        let before = self.scope.variables.clone();
        let count = self.guards.len();

        self.guards.extend(holds.iter().cloned());
        let then_ended = self.run(then);
        self.guards.truncate(count);
        let after_then = std::mem::replace(&mut self.scope.variables, before);

        self.guards.extend(fails.iter().cloned());
        let else_ended = self.run(otherwise);
        self.guards.truncate(count);

        match (then_ended, else_ended) {
            (true, true) => return true,
            (true, false) => self.guards.extend(fails),
            (false, true) => {
                self.guards.extend(holds);
                self.scope.variables = after_then;
            }
            (false, false) => {
                for (name, value) in after_then {
                    let other = self.scope.variables.remove(&name).unwrap_or_default();
                    self.scope.variables.insert(name, value.or(other));
                }
            }
        }
        false
    }

    /// Evaluates without noting anything.
    pub(super) fn quietly(&mut self, expr: &'a Expr) -> Value {
        self.silent += 1;
        let value = self.eval(expr);
        self.silent -= 1;
        value
    }
}

/// The arguments with which a framework calls a function: the request, by its name, and the parts
/// of the address that the route names.
fn arguments_of(function: &Function) -> Vec<Value> {
    let mut part = 0;
    let argument = |(name, _): &(String, Option<Expr>)| match name.as_str() {
        "request" | "req" => Value::from_origin(Origin::Request(Source::Either)),
        "response" | "res" | "args" => Value::default(),
        _ => {
            part += 1;
            Value::from_origin(Origin::Parameter(Source::Path, part.to_string()))
        }
    };
    function.parameters.iter().map(argument).collect()
}

/// The keys and values that a `foreach` goes through.
fn entries(subject: Value) -> (Value, Value) {
    if let Some(entry) = subject.entry {
        return *entry;
    }
    let of_fields = subject.fields.into_iter().map(|(_, value)| value);
    match of_fields.reduce(Value::or) {
        Some(value) => (Value::default(), value),
        None => {
            let value = Value { origins: subject.origins, ..Value::default() };
            (value.clone(), value)
        }
    }
}
