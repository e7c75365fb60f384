//! Expressions: operators by how tightly they bind, what stands behind a value, and values.

use super::{DEEPEST, MAX_LINKS, Parser};
use crate::adopt::syntax::{Expr, Function, Kind, Stmt};
use crate::adopt::token::{self, Part};

const ASSIGNS: u8 = 4;
const CHOOSES: u8 = 5;

impl Parser<'_> {
    pub(super) fn expression(&mut self) -> Expr {
        self.binary(0)
    }

    pub(super) fn in_parentheses(&mut self) -> Expr {
        self.take("(");
        let inside = self.expression();
        self.skip_to(&[")"]);
        self.take(")");
        inside
    }

    /// Expressions between commas up to `end`, which is passed.
    pub(super) fn list(&mut self, end: &str) -> Vec<Expr> {
        let mut out = Vec::new();
        while !self.at_end() && !self.take(end) {
            // A bracket that closes something further out, or a statement's end.
            if matches!(self.sign(), ";" | "}" | ")" | "]") {
                break;
            }
            let before = self.at;
            // `name: value`
            if self.sign_ahead(1) == ":" && matches!(self.kind(0), Some(token::Kind::Name(_))) {
                self.at += 2;
            }
            out.push(self.expression());
            self.take(",");
            self.at += usize::from(self.at == before);
        }
        out
    }
    /// Binary operators that bind at least as tightly as `least`.
    fn binary(&mut self, least: u8) -> Expr {
        let line = self.line();
        if self.depth > DEEPEST {
            self.skip_to(&[";", ",", ")"]);
            return Expr { line, kind: Kind::Many(Vec::new()) };
        }
        self.depth += 1;
        self.expressions += 1;
        let mut left = self.unary();
        while let Some((sign, binds)) = self.operator() {
            if binds < least && binds != ASSIGNS {
                break;
            }
            self.links += 1;
            if self.links > MAX_LINKS {
                self.skip_to(&[";"]);
                break;
            }
            self.at += 1;
            let this = Box::new(left);
            let kind = match (sign, binds) {
                ("?", _) => {
                    let then = (self.sign() != ":").then(|| Box::new(self.binary(CHOOSES + 1)));
                    self.take(":");
                    Kind::Choice(this, then, Box::new(self.binary(CHOOSES + 1)))
                }
                ("??", _) => Kind::Choice(this, None, Box::new(self.binary(binds))),
                (_, ASSIGNS) => {
                    self.take("&");
                    Kind::Assign(this, sign, Box::new(self.binary(ASSIGNS)))
                }
                _ => Kind::Binary(sign, this, Box::new(self.binary(binds + 1))),
            };
            left = Expr { line, kind };
        }
        self.expressions -= 1;
        self.depth -= 1;
        left
    }

    /// The operator that is next and how tightly it binds.
    fn operator(&self) -> Option<(&'static str, u8)> {
        Some(match self.kind(0)? {
            token::Kind::Name(_) => match self.word().as_str() {
                "or" => ("||", 1),
                "xor" => ("||", 2),
                "and" => ("&&", 3),
                "instanceof" => ("instanceof", 20),
                _ => return None,
            },
            token::Kind::Sign(sign) => {
                let binds = match *sign {
                    "=" | ".=" | "+=" | "-=" | "*=" | "/=" | "??=" | "%=" | "|=" | "&=" | "^="
                    | "<<=" | ">>=" | "**=" => ASSIGNS,
                    "?" => CHOOSES,
                    "??" => 6,
                    "||" => 7,
                    "&&" => 8,
                    "|" => 9,
                    "^" => 10,
                    "&" => 11,
                    "==" | "!=" | "===" | "!==" | "<>" | "<=>" => 12,
                    "<" | "<=" | ">" | ">=" => 13,
                    "." => 14,
                    "<<" | ">>" => 15,
                    "+" | "-" => 16,
                    "*" | "/" | "%" => 17,
                    "**" => 21,
                    _ => return None,
                };
                (sign, binds)
            }
            _ => return None,
        })
    }

    fn unary(&mut self) -> Expr {
        let line = self.line();
        let kind = match self.sign() {
            "!" => {
                self.at += 1;
                Kind::Not(Box::new(self.binary(19)))
            }
            "@" | "&" | "..." | "+" => {
                self.at += 1;
                return self.binary(19);
            }
            "-" | "~" | "++" | "--" => {
                self.at += 1;
                Kind::Many(vec![self.binary(19)])
            }
            "(" => match self.cast() {
                Some(kind) => kind,
                None => return self.postfix(),
            },
            _ => return self.postfix(),
        };
        Expr { line, kind }
    }

    /// `(int) a`.
    fn cast(&mut self) -> Option<Kind> {
        let Some(token::Kind::Name(name)) = self.kind(1) else { return None };
        let name = name.to_ascii_lowercase();
        let types =
            ["int", "integer", "float", "double", "string", "bool", "boolean", "array", "object"];
        if self.sign_ahead(2) != ")" || !types.contains(&name.as_str()) {
            return None;
        }
        self.at += 3;
        Some(Kind::Cast(name, Box::new(self.binary(19))))
    }

    fn postfix(&mut self) -> Expr {
        let mut left = self.primary();
        loop {
            let line = left.line;
            self.links += u32::from(matches!(self.sign(), "[" | "(" | "->" | "?->" | "::"));
            if self.links > MAX_LINKS {
                self.skip_to(&[";"]);
                return left;
            }
            let kind = match self.sign() {
                "[" => {
                    self.at += 1;
                    let index = (self.sign() != "]").then(|| Box::new(self.expression()));
                    self.skip_to(&["]", ";"]);
                    self.take("]");
                    Kind::Index(Box::new(left), index)
                }
                "(" => {
                    self.at += 1;
                    Kind::Call(Box::new(left), self.list(")"))
                }
                "->" | "?->" => {
                    self.at += 1;
                    Kind::Member(Box::new(left), self.member_name())
                }
                "::" => {
                    self.at += 1;
                    let name = match self.kind(0) {
                        Some(token::Kind::Variable(name)) => {
                            self.at += 1;
                            format!("${name}")
                        }
                        _ => self.member_name(),
                    };
                    Kind::Static(Box::new(left), name)
                }
                "++" | "--" => {
                    self.at += 1;
                    continue;
                }
                _ => return left,
            };
            left = Expr { line, kind };
        }
    }

    fn member_name(&mut self) -> String {
        if self.take("{") {
            self.skip_to(&["}"]);
            self.take("}");
            return String::new();
        }
        if let Some(token::Kind::Variable(_)) = self.kind(0) {
            self.at += 1;
            return String::new();
        }
        self.name()
    }

    fn primary(&mut self) -> Expr {
        let line = self.line();
        let Some(kind) = self.kind(0) else { return Expr { line, kind: Kind::Many(Vec::new()) } };
        let kind = match kind {
            token::Kind::Variable(name) => {
                self.at += 1;
                Kind::Variable(name.clone())
            }
            token::Kind::Number(text) => {
                self.at += 1;
                Kind::Number(text.clone())
            }
            token::Kind::Text(text) => {
                self.at += 1;
                Kind::Text(text.clone())
            }
            token::Kind::Template(parts) => {
                self.at += 1;
                Kind::Joined(parts.iter().map(|part| self.part(line, part)).collect())
            }
            token::Kind::Name(_) => self.named(),
            token::Kind::Sign("(") => return self.in_parentheses(),
            token::Kind::Sign("[") => {
                self.at += 1;
                Kind::Array(self.elements("]"))
            }
            token::Kind::Sign("$") => {
                self.at += 1;
                Kind::Many(vec![self.binary(21)])
            }
            // Not ours to pass: it may close what is around.
            token::Kind::Html | token::Kind::Sign(_) => Kind::Many(Vec::new()),
        };
        Expr { line, kind }
    }

    fn part(&self, line: u32, part: &Part) -> Expr {
        match part {
            Part::Text(text) => Expr { line, kind: Kind::Text(text.clone()) },
            Part::Code(tokens) => {
                Parser { tokens, at: 0, depth: self.depth + 1, ..*self }.expression()
            }
        }
    }

    /// An expression that begins with a word.
    fn named(&mut self) -> Kind {
        let word = self.word();
        let name = self.name();
        match word.as_str() {
            "array" | "list" if self.sign() == "(" => {
                self.at += 1;
                Kind::Array(self.elements(")"))
            }
            "new" => self.new_object(),
            "include" | "include_once" | "require" | "require_once" => {
                Kind::Include(Box::new(self.expression()))
            }
            "exit" | "die" => {
                let text = self.take("(").then(|| self.list(")")).and_then(|mut list| list.pop());
                Kind::Exit(text.map(Box::new))
            }
            "function" => Kind::Closure(Box::new(self.function())),
            "fn" => {
                let line = self.line();
                self.take("&");
                let parameters = self.parameters();
                self.skip_to(&["=>", ";"]);
                self.take("=>");
                let body = vec![Stmt::Return(Some(self.expression()))];
                Kind::Closure(Box::new(Function { name: String::new(), line, parameters, body }))
            }
            "static" if matches!(self.word().as_str(), "function" | "fn") => self.named(),
            "print" => {
                let line = self.line();
                let printed = self.expression();
                let echo = Expr { line, kind: Kind::Name("print".to_owned()) };
                Kind::Call(Box::new(echo), vec![printed])
            }
            "clone" | "throw" | "yield" => Kind::Many(vec![self.expression()]),
            "match" if self.sign() == "(" => {
                let subject = self.in_parentheses();
                let mut parts = vec![subject];
                if self.take("{") {
                    let arms = self.elements("}");
                    parts.extend(arms.into_iter().map(|(_, value)| value));
                }
                Kind::Many(parts)
            }
            _ => Kind::Name(name),
        }
    }

    fn new_object(&mut self) -> Kind {
        if self.take_word("class") {
            let arguments = if self.take("(") { self.list(")") } else { Vec::new() };
            self.class();
            return Kind::Many(arguments);
        }
        let name = match self.kind(0) {
            Some(token::Kind::Variable(_)) => {
                self.at += 1;
                String::new()
            }
            _ => self.name(),
        };
        let arguments = if self.take("(") { self.list(")") } else { Vec::new() };
        Kind::New(name, arguments)
    }

    /// `key => value` and bare values up to `end`, which is passed.
    fn elements(&mut self, end: &str) -> Vec<(Option<Expr>, Expr)> {
        let mut out = Vec::new();
        while !self.at_end() && !self.take(end) {
            if matches!(self.sign(), ";" | "}" | ")" | "]") {
                break;
            }
            let before = self.at;
            let first = self.expression();
            if self.take("=>") {
                out.push((Some(first), self.expression()));
            } else if self.at > before {
                out.push((None, first));
            }
            self.take(",");
            self.at += usize::from(self.at == before);
        }
        out
    }
}
