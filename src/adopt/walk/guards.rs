//! What a branch says about the request: which parameters it has, and its method.

use super::Walker;
use crate::adopt::eval::source_of;
use crate::adopt::events::Guard;
use crate::adopt::syntax::{Expr, Kind};
use crate::adopt::value::Origin;

impl<'a> Walker<'a> {
    /// What a test says about the request where it `holds` or fails.
    pub(super) fn guards_of(&mut self, test: &'a Expr, holds: bool) -> Vec<Guard> {
        match &test.kind {
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
            Kind::Binary(">", one, two) if is_zero(two) => self.presence(one, holds),
            Kind::Binary(_, _, _) | Kind::Assign(_, _, _) => Vec::new(),
            Kind::Call(function, arguments) => {
                let name = match &function.kind {
                    Kind::Name(name) => name.to_ascii_lowercase(),
                    // `$request->has('since')`
                    Kind::Member(_, name) if matches!(&**name, "has" | "filled" | "exists") => {
                        return self.presence(test, holds);
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
                        arguments.iter().flat_map(|one| self.presence(one, true)).collect()
                    }
                    "array_key_exists" => {
                        let (Some(name), Some(of)) =
                            (self.quietly(first).constant(), arguments.get(1))
                        else {
                            return Vec::new();
                        };
                        match of.variable().and_then(source_of) {
                            Some(source) if holds => vec![Guard::Present(source, name)],
                            Some(source) => vec![Guard::Absent(source, name)],
                            None => Vec::new(),
                        }
                    }
                    "isset" | "empty" | "is_null" | "strlen" | "trim" | "count" | "intval"
                    | "is_numeric" | "is_string" | "is_array" => self.presence(first, holds),
                    _ => Vec::new(),
                }
            }
            _ => self.presence(test, holds),
        }
    }

    fn equality(&mut self, one: &'a Expr, two: &'a Expr, holds: bool) -> Vec<Guard> {
        let (left, right) = (self.quietly(one), self.quietly(two));
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
            return self.presence(expr, !holds);
        }
        let mut parameters = subject.parameters();
        match (parameters.next(), parameters.next()) {
            (Some((_, name)), None) if holds => vec![Guard::Is(name.to_owned(), constant)],
            (Some((_, name)), None) => vec![Guard::IsNot(name.to_owned(), constant)],
            _ => Vec::new(),
        }
    }

    /// True if a parameter is there and not empty.
    fn presence(&mut self, expr: &'a Expr, holds: bool) -> Vec<Guard> {
        let value = self.quietly(expr);
        let foreign = value.has(|origin| !matches!(origin, Origin::Parameter(..)));
        let mut parameters = value.parameters();
        match (parameters.next(), parameters.next()) {
            (Some((source, name)), None) if !foreign => {
                let name = name.to_owned();
                vec![if holds { Guard::Present(source, name) } else { Guard::Absent(source, name) }]
            }
            _ => Vec::new(),
        }
    }
}

fn is_zero(expr: &Expr) -> bool {
    matches!(&expr.kind, Kind::Number(text) if text == "0")
}
