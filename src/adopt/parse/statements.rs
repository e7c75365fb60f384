//! Statements, between semicolons and braces.

use super::{DEEPEST, Parser};
use crate::adopt::syntax::{Expr, Kind, Stmt};
use crate::adopt::token;

/// Cases of one `switch` that are distinguished from its default: the tests of all of them are one
/// expression, which the stack has to hold.
const MAX_CASES: u32 = 100;

impl Parser<'_> {
    /// Statements up to a `}` or one of the closing words, which are not passed.
    pub(super) fn statements(&mut self, closing: &[&str]) -> Vec<Stmt> {
        let mut out = Vec::new();
        while !self.at_end() && !closing.contains(&self.word().as_str()) {
            if self.sign() == "}" {
                // At the top it closes nothing, and is passed over.
                if self.depth > 0 {
                    break;
                }
                self.at += 1;
                continue;
            }
            let before = self.at;
            out.extend(self.statement());
            self.at += usize::from(self.at == before);
        }
        out
    }

    fn statement(&mut self) -> Option<Stmt> {
        if self.depth > DEEPEST {
            self.skip_to(&[";"]);
            return None;
        }
        if self.expressions == 0 {
            self.links = 0;
        }
        self.depth += 1;
        let statement = self.statement_within();
        self.depth -= 1;
        statement
    }

    fn statement_within(&mut self) -> Option<Stmt> {
        if let Some(token::Kind::Html) = self.kind(0) {
            let line = self.line();
            self.at += 1;
            return Some(Stmt::Html(line));
        }
        if self.take("{") {
            return Some(Stmt::Block(self.rest_of_block()));
        }
        if self.take(";") {
            return None;
        }
        let word = self.word();
        // `self::X`, `static::X`, `match (...)` and calls are expressions.
        if self.sign_ahead(1) == "::" {
            return self.expression_statement();
        }
        match word.as_str() {
            "if" => Some(self.if_statement()),
            "while" | "for" => Some(self.counted_loop(&word)),
            "do" => Some(self.do_loop()),
            "foreach" => Some(self.foreach()),
            "switch" => Some(self.switch()),
            "try" => Some(self.try_statement()),
            "echo" => {
                self.at += 1;
                let out = self.list(";");
                Some(Stmt::Echo(out))
            }
            "return" => {
                self.at += 1;
                let value = (self.sign() != ";" && !self.at_end()).then(|| self.expression());
                self.take(";");
                Some(Stmt::Return(value))
            }
            "function"
                if matches!(self.kind(1), Some(token::Kind::Name(_)))
                    || self.sign_ahead(1) == "&"
                        && matches!(self.kind(2), Some(token::Kind::Name(_))) =>
            {
                self.at += 1;
                Some(Stmt::Function(self.function()))
            }
            "abstract" | "final" | "readonly" if self.sign_ahead(1).is_empty() => {
                self.at += 1;
                self.statement()
            }
            "class" | "interface" | "trait" | "enum"
                if matches!(self.kind(1), Some(token::Kind::Name(_))) =>
            {
                self.at += 1;
                Some(Stmt::Class(self.class()))
            }
            "namespace" => {
                self.skip_to(&[";", "{"]);
                None
            }
            "break" => {
                let line = self.line();
                self.skip_to(&[";", "}"]);
                Some(Stmt::Break(line))
            }
            "use" | "global" | "goto" | "declare" | "continue" => {
                self.skip_to(&[";", "}"]);
                None
            }
            "const" => {
                self.at += 1;
                let name = self.name();
                self.take("=");
                let value = self.expression();
                self.skip_to(&[";", "}"]);
                Some(Stmt::Const(name, value))
            }
            "static" if matches!(self.kind(1), Some(token::Kind::Variable(_))) => {
                self.at += 1;
                self.expression_statement()
            }
            _ => self.expression_statement(),
        }
    }

    fn expression_statement(&mut self) -> Option<Stmt> {
        let before = self.at;
        let expression = self.expression();
        if self.at == before {
            return None;
        }
        self.take(";");
        Some(Stmt::Expr(expression))
    }

    /// Statements up to the `}` that closes them.
    pub(super) fn rest_of_block(&mut self) -> Vec<Stmt> {
        // A block in a file of any depth is not the top.
        self.depth += 1;
        let body = self.statements(&[]);
        self.depth -= 1;
        self.take("}");
        body
    }

    /// The body of a control structure: a block, one statement, or `: ... endX;`.
    fn body(&mut self, end: &str) -> Vec<Stmt> {
        if self.take(":") {
            let body = self.statements(&[end]);
            self.take_word(end);
            self.take(";");
            return body;
        }
        if self.take("{") {
            return self.rest_of_block();
        }
        self.statement().into_iter().collect()
    }
    fn if_statement(&mut self) -> Stmt {
        self.at += 1;
        let test = self.in_parentheses();
        let alternative = self.take(":");
        let then = if alternative {
            self.statements(&["elseif", "else", "endif"])
        } else {
            self.body("endif")
        };
        let otherwise = match self.word().as_str() {
            "elseif" => self.else_if(),
            "else" => {
                self.at += 1;
                if alternative && self.take(":") {
                    self.statements(&["endif"])
                } else if self.word() == "if" {
                    self.else_if()
                } else {
                    self.body("endif")
                }
            }
            _ => Vec::new(),
        };
        if alternative && self.take_word("endif") {
            self.take(";");
        }
        Stmt::If { test, then, otherwise }
    }

    /// The `if` that stands there, a level deeper.
    fn else_if(&mut self) -> Vec<Stmt> {
        if self.depth > DEEPEST {
            self.skip_to(&[";"]);
            return Vec::new();
        }
        self.depth += 1;
        let nested = self.if_statement();
        self.depth -= 1;
        vec![nested]
    }

    fn counted_loop(&mut self, word: &str) -> Stmt {
        let line = self.line();
        self.at += 1;
        self.take("(");
        let mut before = Vec::new();
        let mut after = Vec::new();
        let test = if word == "for" {
            before = self.list(";");
            let test = self.list(";");
            after = self.list(")");
            test
        } else {
            self.list(")")
        };
        let body = self.body(if word == "for" { "endfor" } else { "endwhile" });
        Stmt::Loop { line, before, test, body, after }
    }

    fn do_loop(&mut self) -> Stmt {
        let line = self.line();
        self.at += 1;
        let body = self.body("");
        let test = if self.take_word("while") { vec![self.in_parentheses()] } else { Vec::new() };
        self.take(";");
        Stmt::Loop { line, before: Vec::new(), test: Vec::new(), body, after: test }
    }

    fn foreach(&mut self) -> Stmt {
        let line = self.line();
        self.at += 1;
        self.take("(");
        let subject = self.expression();
        self.take_word("as");
        let mut value = self.expression();
        let mut key = None;
        if self.take("=>") {
            key = Some(std::mem::replace(&mut value, self.expression()));
        }
        self.skip_to(&[")"]);
        self.take(")");
        let body = self.body("endforeach");
        Stmt::Foreach { line, subject, key, value, body }
    }

    /// Each case is an `if` that compares: `switch ($a) { case 1: ... }`. Of an empty one, the next
    /// holds as well; `default` is the rest.
    fn switch(&mut self) -> Stmt {
        self.at += 1;
        let subject = self.in_parentheses();
        let braces = self.take("{");
        if !braces {
            self.take(":");
        }
        let mut cases = Vec::new();
        // The tests of all cases so far, and of those that fall through to the next.
        let mut all: Option<Expr> = None;
        let mut falling: Option<Expr> = None;
        let mut default = Vec::new();
        let mut count = 0;
        while !self.at_end() && !matches!(self.sign(), "}") && self.word() != "endswitch" {
            let line = self.line();
            let case = match self.word().as_str() {
                "case" => {
                    self.at += 1;
                    Some(self.expression())
                }
                "default" => {
                    self.at += 1;
                    None
                }
                _ => {
                    self.at += 1;
                    continue;
                }
            };
            if !self.take(":") {
                self.take(";");
            }
            let then = self.statements(&["case", "default", "endswitch"]);
            let Some(case) = case else {
                default = then;
                falling = None;
                continue;
            };
            count += 1;
            let value = Box::new(subject.clone());
            let test = Expr { line, kind: Kind::Binary("==", value, Box::new(case)) };
            if count <= MAX_CASES {
                all = Some(either(all, test.clone()));
            }
            let test = either(falling.take(), test);
            if then.is_empty() && count <= MAX_CASES {
                falling = Some(test);
            } else {
                cases.push(Stmt::If { test, then, otherwise: Vec::new() });
            }
        }
        if !default.is_empty() {
            cases.push(match all.filter(|_| count <= MAX_CASES) {
                Some(test) => Stmt::If { test, then: Vec::new(), otherwise: default },
                None => Stmt::Block(default),
            });
        }
        self.take("}");
        if self.take_word("endswitch") {
            self.take(";");
        }
        Stmt::Block(cases)
    }

    fn try_statement(&mut self) -> Stmt {
        self.at += 1;
        let mut all = vec![Stmt::Block(self.body(""))];
        loop {
            if self.take_word("catch") {
                self.skip_to(&["{", ";"]);
            } else if !self.take_word("finally") {
                return Stmt::Block(all);
            }
            // The handling of a failure is no part of how polls work.
            let body = self.body("");
            if all.len() < 3 {
                all.push(Stmt::Block(body.into_iter().filter(|s| !ends(s)).collect()));
            }
        }
    }
}

/// True if a statement leaves the function or the script.
fn ends(statement: &Stmt) -> bool {
    match statement {
        Stmt::Return(_) => true,
        Stmt::Expr(Expr { kind: Kind::Exit(_), .. }) => true,
        Stmt::Block(body) => body.iter().any(ends),
        _ => false,
    }
}

/// One test or the other.
fn either(one: Option<Expr>, other: Expr) -> Expr {
    match one {
        Some(one) => {
            let line = one.line;
            Expr { line, kind: Kind::Binary("||", Box::new(one), Box::new(other)) }
        }
        None => other,
    }
}
