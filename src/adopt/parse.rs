//! Tokens into statements. Nothing is refused: a token that fits nowhere is passed over, and what
//! is nested deeper than [`DEEPEST`] is not looked at.

use super::syntax::{Class, Expr, Function, Kind, Stmt};
use super::token::{self, Part, Token};

/// Brackets in brackets: the stack has to hold them.
const DEEPEST: u32 = 120;

/// Operators and members in one statement, for the same reason: `a.b.c` is `(a.b).c`.
const LONGEST: u32 = 600;

/// The statements of a file.
pub(super) fn parse(source: &str) -> Vec<Stmt> {
    let tokens = token::tokens(source);
    Parser { tokens: &tokens, at: 0, depth: 0, expressions: 0, links: 0 }.statements(&[])
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: u32,
    /// How many expressions are around.
    expressions: u32,
    /// Operators and members in this statement so far.
    links: u32,
}

/// Modifiers before members and functions.
const MODIFIERS: &[&str] =
    &["public", "private", "protected", "static", "abstract", "final", "readonly", "var"];

impl<'a> Parser<'a> {
    fn kind(&self, ahead: usize) -> Option<&'a token::Kind> {
        self.tokens.get(self.at + ahead).map(|token| &token.kind)
    }

    /// The line of the next token, or of the last.
    fn line(&self) -> u32 {
        let token = self.tokens.get(self.at).or(self.tokens.last());
        token.map_or(0, |token| token.line)
    }

    fn at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    fn sign(&self) -> &'static str {
        self.sign_ahead(0)
    }

    fn sign_ahead(&self, ahead: usize) -> &'static str {
        match self.kind(ahead) {
            Some(token::Kind::Sign(sign)) => sign,
            _ => "",
        }
    }

    /// Passes the sign, if it is next.
    fn take(&mut self, sign: &str) -> bool {
        let taken = !sign.is_empty() && self.sign() == sign;
        self.at += usize::from(taken);
        taken
    }

    /// The next name in small letters; empty if there is none.
    fn word(&self) -> String {
        match self.kind(0) {
            Some(token::Kind::Name(name)) => name.to_ascii_lowercase(),
            _ => String::new(),
        }
    }

    fn take_word(&mut self, word: &str) -> bool {
        let taken = self.word() == word;
        self.at += usize::from(taken);
        taken
    }

    fn name(&mut self) -> String {
        match self.kind(0) {
            Some(token::Kind::Name(name)) => {
                self.at += 1;
                name.clone()
            }
            _ => String::new(),
        }
    }

    /// Passes everything up to one of `signs`, but for what is in brackets.
    fn skip_to(&mut self, signs: &[&str]) {
        let mut depth = 0;
        while !self.at_end() {
            match self.sign() {
                sign if depth == 0 && signs.contains(&sign) => return,
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            if depth < 0 {
                return;
            }
            self.at += 1;
        }
    }

    /// Statements up to a `}` or one of the closing words, which are not passed.
    fn statements(&mut self, closing: &[&str]) -> Vec<Stmt> {
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
            "use" | "global" | "goto" | "declare" | "break" | "continue" => {
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
    fn rest_of_block(&mut self) -> Vec<Stmt> {
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

    fn in_parentheses(&mut self) -> Expr {
        self.take("(");
        let inside = self.expression();
        self.skip_to(&[")"]);
        self.take(")");
        inside
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
        let (mut before, mut after) = (Vec::new(), Vec::new());
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

    /// Each case is an `if` that compares: `switch ($a) { case 1: ... }`.
    fn switch(&mut self) -> Stmt {
        self.at += 1;
        let subject = self.in_parentheses();
        let braces = self.take("{");
        if !braces {
            self.take(":");
        }
        let mut cases = Vec::new();
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
            let test = case.map(|case| {
                let (left, right) = (Box::new(subject.clone()), Box::new(case));
                Expr { line, kind: Kind::Binary("==", left, right) }
            });
            cases.push(match test {
                Some(test) => Stmt::If { test, then, otherwise: Vec::new() },
                None => Stmt::Block(then),
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
            // What is done about a failure is no part of how polls work.
            let body = self.body("");
            if all.len() < 3 {
                all.push(Stmt::Block(body.into_iter().filter(|s| !ends(s)).collect()));
            }
        }
    }

    /// From the name on, or from the parameters for a closure.
    fn function(&mut self) -> Function {
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

    fn parameters(&mut self) -> Vec<(String, Option<Expr>)> {
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

    fn class(&mut self) -> Class {
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

    /// Expressions between commas up to `end`, which is passed.
    fn list(&mut self, end: &str) -> Vec<Expr> {
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

    fn expression(&mut self) -> Expr {
        self.binary(0)
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
            if self.links > LONGEST {
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
            if self.links > LONGEST {
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
                let (depth, expressions, links) = (self.depth + 1, self.expressions, self.links);
                Parser { tokens, at: 0, depth, expressions, links }.expression()
            }
        }
    }

    /// What begins with a word.
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

const ASSIGNS: u8 = 4;
const CHOOSES: u8 = 5;

/// Whether a statement leaves the function or the script.
pub(super) fn ends(statement: &Stmt) -> bool {
    match statement {
        Stmt::Return(_) => true,
        Stmt::Expr(Expr { kind: Kind::Exit(_), .. }) => true,
        Stmt::Block(body) => body.iter().any(ends),
        _ => false,
    }
}
