//! Functions, closures and classes with their members.

use super::Parser;
use crate::adopt::syntax::{Class, Expr, Function};
use crate::adopt::token;

/// Modifiers before members and functions.
const MODIFIERS: &[&str] =
    &["public", "private", "protected", "static", "abstract", "final", "readonly", "var"];

impl Parser<'_> {
    /// From the name on, or from the parameters for a closure.
    pub(super) fn function(&mut self) -> Function {
        let line = self.line();
        self.take("&");
        let name = self.name();
        let parameters = self.parameters();
        if self.take_word("use") {
            self.skip_to(&[")", "{", ";"]);
            if self.sign() == ")" {
                self.at += 1;
            }
        }
        // A return type.
        self.skip_to(&["{", ";", "=>"]);
        let body = if self.take("{") { self.rest_of_block() } else { Vec::new() };
        Function { name, line, parameters, body }
    }

    pub(super) fn parameters(&mut self) -> Vec<(String, Option<Expr>)> {
        let mut out = Vec::new();
        if !self.take("(") {
            return out;
        }
        while !self.at_end() && !self.take(")") {
            match self.kind(0) {
                Some(token::Kind::Variable(name)) => {
                    self.at += 1;
                    let default = self.take("=").then(|| self.expression());
                    out.push((name.clone(), default));
                }
                _ if matches!(self.sign(), "{" | ";") => break,
                _ => self.at += 1,
            }
        }
        out
    }

    pub(super) fn class(&mut self) -> Class {
        let mut class = Class { name: self.name(), ..Class::default() };
        while !self.at_end() && self.sign() != "{" && self.sign() != ";" {
            if self.take_word("extends") {
                class.parent = Some(self.name());
            } else {
                self.at += 1;
            }
        }
        if self.take("{") {
            self.depth += 1;
            self.members(&mut class);
            self.depth -= 1;
        }
        class
    }

    fn members(&mut self, class: &mut Class) {
        while !self.at_end() && !self.take("}") {
            let before = self.at;
            while MODIFIERS.contains(&self.word().as_str()) {
                self.at += 1;
            }
            match (self.word().as_str(), self.kind(0)) {
                ("const", _) => {
                    self.at += 1;
                    // A type may stand before the name.
                    if matches!(self.kind(1), Some(token::Kind::Name(_))) {
                        self.at += 1;
                    }
                    let name = self.name();
                    if self.take("=") {
                        class.constants.push((name, self.expression()));
                    }
                    self.skip_to(&[";"]);
                }
                ("function", _) => {
                    self.at += 1;
                    class.methods.push(self.function());
                }
                (_, Some(token::Kind::Variable(name))) => {
                    self.at += 1;
                    if self.take("=") {
                        class.properties.push((name.clone(), self.expression()));
                    }
                }
                _ => {}
            }
            self.at += usize::from(self.at == before);
        }
    }
}
