//! Tests of branches, as far as they say something about the request: its parameters, its method.

use super::Walker;
use crate::adopt::eval::source_of;
use crate::adopt::events::Guard;
use crate::adopt::syntax::{Expr, Kind};
use crate::adopt::value::{Origin, Source, Value};

/// Values of one parameter for which a script does the same.
const MAX_ALTERNATIVES: usize = 16;

impl<'a> Walker<'a> {
    /// The properties of a request for which a test `holds` or fails.
    pub(super) fn guards_of(&mut self, test: &'a Expr, holds: bool) -> Vec<Guard> {
        match &test.kind {
            Kind::Binary("||", _, _) if holds => self.any_of(test),
            Kind::Not(inner) => self.guards_of(inner, !holds),
            Kind::Binary("&&", one, two) if holds => {
                let mut all = self.guards_of(one, true);
                all.extend(self.guards_of(two, true));
                all
            }
            Kind::Binary("||", one, two) if !holds => {
                let mut all = self.guards_of(one, false);
                all.extend(self.guards_of(two, false));
                all
            }
            Kind::Binary("==" | "===", one, two) => self.equality(one, two, holds),
            Kind::Binary("!=" | "!==" | "<>", one, two) => self.equality(one, two, !holds),
            Kind::Binary(">", one, two) if is_zero(two) => self.presence(one, holds, false),
            Kind::Binary(_, _, _) | Kind::Assign(_, _, _) => Vec::new(),
            Kind::Call(function, arguments) => {
                let name = match &function.kind {
                    Kind::Name(name) => name.to_ascii_lowercase(),
                    // `$request->has('since')`
                    Kind::Member(_, name) if matches!(&**name, "has" | "exists") => {
                        return self.presence(test, holds, true);
                    }
                    Kind::Member(_, name) if name == "filled" => {
                        return self.presence(test, holds, false);
                    }
                    _ => String::new(),
                };
                let (Some(first), holds) = (
                    arguments.first(),
                    match name.as_str() {
                        "empty" | "is_null" => !holds,
                        _ => holds,
                    },
                ) else {
                    return Vec::new();
                };
                match name.as_str() {
                    "isset" if holds => {
                        arguments.iter().flat_map(|one| self.presence(one, true, true)).collect()
                    }
                    "array_key_exists" => {
                        let name = self.quietly(first).constant();
                        let source = arguments.get(1).and_then(Expr::variable).and_then(source_of);
                        match (source, name) {
                            (Some(source), Some(name)) if holds => vec![Guard::Set(source, name)],
                            (Some(source), Some(name)) => vec![Guard::Unset(source, name)],
                            _ => Vec::new(),
                        }
                    }
                    "in_array" => self.listed(first, arguments.get(1), holds),
                    // One of them is missing, and which is open.
                    "isset" if arguments.len() > 1 => Vec::new(),
                    "isset" | "is_null" => self.presence(first, holds, true),
                    "empty" | "strlen" | "trim" | "count" | "intval" | "is_numeric"
                    | "is_string" | "is_array" => self.presence(first, holds, false),
                    _ => Vec::new(),
                }
            }
            _ => self.presence(test, holds, false),
        }
    }

    /// `a || b || c`, where each says one thing.
    fn any_of(&mut self, test: &'a Expr) -> Vec<Guard> {
        let mut any = Vec::new();
        let mut next = Some(test);
        while let Some(test) = next.take() {
            let last = match &test.kind {
                Kind::Binary("||", first, last) => {
                    next = Some(first);
                    last
                }
                _ => test,
            };
            match self.guards_of(last, true).as_slice() {
                [one] if any.len() < MAX_ALTERNATIVES => any.insert(0, one.clone()),
                _ => return Vec::new(),
            }
        }
        vec![Guard::Any(any)]
    }

    /// `in_array($_GET['do'], ['get', 'poll'])`.
    fn listed(&mut self, subject: &'a Expr, list: Option<&'a Expr>, holds: bool) -> Vec<Guard> {
        let subject = self.quietly(subject);
        let mut parameters = subject.parameters();
        let (Some((source, name)), None) = (parameters.next(), parameters.next()) else {
            return Vec::new();
        };
        let Some(Expr { kind: Kind::Array(elements), .. }) = list else { return Vec::new() };
        let values: Option<Vec<String>> =
            elements.iter().map(|(_, value)| self.quietly(value).constant()).collect();
        let guard = |value: String, is: bool| {
            let name = name.to_owned();
            if is { Guard::Is(source, name, value) } else { Guard::IsNot(source, name, value) }
        };
        match values.filter(|all| !all.is_empty() && all.len() <= MAX_ALTERNATIVES) {
            Some(all) if holds => {
                vec![Guard::Any(all.into_iter().map(|value| guard(value, true)).collect())]
            }
            Some(all) => all.into_iter().map(|value| guard(value, false)).collect(),
            None => Vec::new(),
        }
    }

    /// The parameter that a test asks for and of which it says nothing that a rule can express.
    pub(super) fn unclear(&mut self, test: &'a Expr) -> Option<String> {
        let value = match &test.kind {
            Kind::Not(inner) => return self.unclear(inner),
            Kind::Binary("&&" | "||", one, two) => {
                let parts = [self.unclear(one), self.unclear(two)];
                return parts.into_iter().flatten().next();
            }
            Kind::Binary(_, one, two) => Value::made_of(&[self.quietly(one), self.quietly(two)]),
            Kind::Call(_, arguments) => {
                let parts: Vec<Value> = arguments.iter().map(|one| self.quietly(one)).collect();
                Value::made_of(&parts)
            }
            _ => return None,
        };
        let sent = |origin: &Origin| {
            matches!(origin, Origin::Parameter(Source::Get | Source::Post | Source::Either, _))
        };
        let only_sent = value.origins.iter().all(sent);
        let name = value.parameters().next().map(|(_, name)| name.to_owned());
        name.filter(|_| only_sent)
    }

    fn equality(&mut self, one: &'a Expr, two: &'a Expr, holds: bool) -> Vec<Guard> {
        let left = self.quietly(one);
        let right = self.quietly(two);
        let (subject, expr, constant) = match (left.constant(), right.constant()) {
            (None, Some(constant)) => (left, one, constant),
            (Some(constant), None) => (right, two, constant),
            // A parameter with a default is open, and comes from the request.
            _ if left.parameters().next().is_some() => match right.constant() {
                Some(constant) => (left, one, constant),
                None => return Vec::new(),
            },
            _ => return Vec::new(),
        };
        if subject.has(|origin| *origin == Origin::Method) {
            let method = constant.to_ascii_uppercase();
            return vec![if holds { Guard::Method(method) } else { Guard::NotMethod(method) }];
        }
        if matches!(constant.as_str(), "" | "null" | "false") {
            return self.presence(expr, !holds, false);
        }
        let mut parameters = subject.parameters();
        match (parameters.next(), parameters.next()) {
            (Some((source, name)), None) if holds => {
                vec![Guard::Is(source, name.to_owned(), constant)]
            }
            (Some((source, name)), None) => vec![Guard::IsNot(source, name.to_owned(), constant)],
            _ => Vec::new(),
        }
    }

    /// The presence of a parameter; of one that is `empty`, too, if the test is an `isset`.
    fn presence(&mut self, expr: &'a Expr, holds: bool, empty: bool) -> Vec<Guard> {
        let value = self.quietly(expr);
        let own = |origin: &Origin| matches!(origin, Origin::Parameter(..) | Origin::Instead(_));
        let foreign = value.has(|origin| !own(origin));
        let mut parameters = value.parameters();
        match (parameters.next(), parameters.next()) {
            (Some((source, name)), None) if !foreign => {
                let name = name.to_owned();
                vec![match (holds, empty) {
                    (true, false) => Guard::Present(source, name),
                    (false, false) => Guard::Absent(source, name),
                    (true, true) => Guard::Set(source, name),
                    (false, true) => Guard::Unset(source, name),
                }]
            }
            _ => Vec::new(),
        }
    }
}

fn is_zero(expr: &Expr) -> bool {
    matches!(&expr.kind, Kind::Number(text) if text == "0")
}
