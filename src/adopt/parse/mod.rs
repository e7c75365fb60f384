//! Tokens into statements. Nothing is refused: a token that fits nowhere is passed over, and what
//! is nested deeper than [`DEEPEST`] is not looked at.
//!
//! Here is the place among the tokens and how it moves on; what the tokens say is read by kind:
//! `statements`, `declarations` (functions and classes) and `expressions`.

mod declarations;
mod expressions;
mod statements;

use super::syntax::Stmt;
use super::token::{self, Token};

/// Brackets in brackets: the stack has to hold them.
const DEEPEST: u32 = 120;

/// Operators and members in one statement, for the same reason: `a.b.c` is `(a.b).c`.
const MAX_LINKS: u32 = 600;

/// The statements of a file.
pub(super) fn parse(source: &str) -> Vec<Stmt> {
    let tokens = token::tokens(source);
    Parser { tokens: &tokens, at: 0, depth: 0, expressions: 0, links: 0 }.statements(&[])
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: u32,
    /// The number of expressions around.
    expressions: u32,
    /// Operators and members in this statement so far.
    links: u32,
}

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
}
