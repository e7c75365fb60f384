//! PHP source as tokens: as much of its lexical grammar as is needed to tell code from text.
//!
//! Any input gives tokens: what is no PHP is skipped byte by byte, and a string or comment that
//! does not end goes to the end of the file.

#[cfg(test)]
mod tests;

/// One token and the line on which it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) line: u32,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Text outside of `<?php ... ?>`, with something in it.
    Html,
    /// `$name`, without the dollar.
    Variable(String),
    /// A keyword or a name, with its namespace.
    Name(String),
    Number(String),
    /// A string that holds no variable.
    Text(String),
    /// A string with variables in it.
    Template(Vec<Part>),
    /// An operator or a bracket.
    Sign(&'static str),
}

/// A piece of a string with variables.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    Text(String),
    Code(Vec<Token>),
}

/// Longer signs stand before those that they begin with.
const SIGNS: &[&str] = &[
    "<<=", ">>=", "**=", "...", "===", "!==", "<=>", "??=", "?->", "->", "=>", "::", "==", "!=",
    "<>", "<=", ">=", "&&", "||", "??", "++", "--", "+=", "-=", "*=", "/=", ".=", "%=", "&=", "|=",
    "^=", "<<", ">>", "**", ";", ",", "(", ")", "[", "]", "{", "}", "=", "+", "-", "*", "/", "%",
    ".", "<", ">", "!", "?", ":", "&", "|", "^", "~", "@", "$",
];

/// Strings in code in strings, and so on: further in, the code is not looked at.
const NESTING: u32 = 4;

/// The tokens of a file.
pub(super) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { bytes: source.as_bytes(), at: 0, line: 1, nesting: 0, out: Vec::new() };
    lexer.html();
    while lexer.at < lexer.bytes.len() {
        lexer.token();
    }
    lexer.out
}

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u32,
    nesting: u32,
    out: Vec<Token>,
}

fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn in_name(byte: u8) -> bool {
    begins_name(byte) || byte.is_ascii_digit()
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Goes on by `count` bytes, counting lines, and answers them.
    fn skip(&mut self, count: usize) -> &'a [u8] {
        let end = (self.at + count).min(self.bytes.len());
        let skipped = &self.bytes[self.at..end];
        self.line += memchr::memchr_iter(b'\n', skipped).count() as u32;
        self.at = end;
        skipped
    }

    /// Goes on to the end of `mark`, or of the file.
    fn skip_past(&mut self, mark: &[u8]) -> &'a [u8] {
        let found = memchr::memmem::find(self.rest(), mark);
        self.skip(found.map_or(self.rest().len(), |at| at + mark.len()))
    }

    fn name(&mut self) -> String {
        let end = self.rest().iter().position(|byte| !in_name(*byte));
        let name = self.skip(end.unwrap_or(self.rest().len()));
        String::from_utf8_lossy(name).into_owned()
    }

    fn push(&mut self, line: u32, kind: Kind) {
        self.out.push(Token { line, kind });
    }

    /// Text up to the next opening tag; `<?=` opens with an `echo`.
    fn html(&mut self) {
        let line = self.line;
        let found = memchr::memmem::find_iter(self.rest(), b"<?")
            .find(|at| !self.rest()[at + 2..].starts_with(b"xml"));
        let text = self.skip(found.unwrap_or(self.rest().len()));
        if text.iter().any(|byte| !byte.is_ascii_whitespace()) {
            self.push(line, Kind::Html);
        }
        self.skip(2);
        if self.peek(0) == b'=' {
            self.skip(1);
            self.push(self.line, Kind::Name("echo".to_owned()));
        } else if self.rest().get(..3).is_some_and(|tag| tag.eq_ignore_ascii_case(b"php")) {
            self.skip(3);
        }
    }

    fn token(&mut self) {
        let line = self.line;
        let byte = self.peek(0);
        match byte {
            b'#' if self.peek(1) == b'[' => self.attribute(),
            b'#' => self.line_comment(),
            b'/' if self.peek(1) == b'/' => self.line_comment(),
            b'/' if self.peek(1) == b'*' => {
                self.skip_past(b"*/");
            }
            b'?' if self.peek(1) == b'>' => {
                self.skip(2);
                self.push(line, Kind::Sign(";"));
                self.html();
            }
            b'\'' => self.single_quoted(line),
            b'"' | b'`' => {
                self.skip(1);
                let text = self.until_quote(byte);
                self.template(line, text, Some(byte));
            }
            b'<' if self.rest().starts_with(b"<<<") && self.heredoc(line) => {}
            b'$' if begins_name(self.peek(1)) => {
                self.skip(1);
                let name = self.name();
                self.push(line, Kind::Variable(name));
            }
            _ if byte.is_ascii_digit() || byte == b'.' && self.peek(1).is_ascii_digit() => {
                self.number(line);
            }
            _ if begins_name(byte) || byte == b'\\' && begins_name(self.peek(1)) => {
                let end = self.rest().iter().position(|byte| !in_name(*byte) && *byte != b'\\');
                let name = self.skip(end.unwrap_or(self.rest().len()));
                let name = String::from_utf8_lossy(name).trim_start_matches('\\').to_owned();
                self.push(line, Kind::Name(name));
            }
            _ => match SIGNS.iter().find(|sign| self.rest().starts_with(sign.as_bytes())) {
                Some(sign) => {
                    self.skip(sign.len());
                    self.push(line, Kind::Sign(sign));
                }
                None => {
                    self.skip(1);
                }
            },
        }
    }

    /// To the end of the line, or to the closing tag before it.
    fn line_comment(&mut self) {
        let rest = self.rest();
        let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let end = memchr::memmem::find(&rest[..end], b"?>").unwrap_or(end);
        self.skip(end);
    }

    /// `#[...]`, with the brackets in it.
    fn attribute(&mut self) {
        let mut depth = 0;
        while self.at < self.bytes.len() {
            match self.peek(0) {
                b'[' => depth += 1,
                b']' => depth -= 1,
                _ => {}
            }
            let ends = self.peek(0) == b']' && depth == 0;
            self.skip(1);
            if ends {
                return;
            }
        }
    }

    fn number(&mut self, line: u32) {
        let hex = self.peek(0) == b'0' && matches!(self.peek(1) | 0x20, b'x' | b'b' | b'o');
        let part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_');
        let plain = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'e' | b'E');
        let rest = self.rest();
        let mut end = rest.iter().position(|byte| if hex { !part(byte) } else { !plain(byte) });
        // `1..2` and `1 . 2`: at most one point belongs to a number.
        let points = rest.iter().take(end.unwrap_or(rest.len())).enumerate();
        end = points.filter(|(_, byte)| **byte == b'.').nth(1).map(|(at, _)| at).or(end);
        let text = self.skip(end.unwrap_or(rest.len()));
        let text = String::from_utf8_lossy(text).replace('_', "");
        self.push(line, Kind::Number(text));
    }

    fn single_quoted(&mut self, line: u32) {
        self.skip(1);
        let text = self.until_quote(b'\'');
        let mut out = Vec::with_capacity(text.len());
        let mut bytes = text.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            match bytes.peek() {
                Some(next @ (b'\\' | b'\'')) if byte == b'\\' => {
                    out.push(*next);
                    bytes.next();
                }
                _ => out.push(byte),
            }
        }
        self.push(line, Kind::Text(String::from_utf8_lossy(&out).into_owned()));
    }

    /// The text before the closing quote, which is passed; escapes stay as they are.
    fn until_quote(&mut self, quote: u8) -> &'a [u8] {
        let rest = self.rest();
        let mut at = 0;
        while at < rest.len() && rest[at] != quote {
            at += if rest[at] == b'\\' { 2 } else { 1 };
        }
        let text = &rest[..at.min(rest.len())];
        self.skip(at + 1);
        text
    }

    /// `<<<NAME`, `<<<"NAME"` and `<<<'NAME'`; `false` if it is none.
    fn heredoc(&mut self, line: u32) -> bool {
        let rest = self.rest();
        let head_end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let head = rest[3..head_end].trim_ascii();
        let raw = head.starts_with(b"'");
        let label = head.strip_prefix(b"'").and_then(|head| head.strip_suffix(b"'"));
        let label = label.or_else(|| head.strip_prefix(b"\"")?.strip_suffix(b"\""));
        let label = label.unwrap_or(head);
        if label.is_empty() || !begins_name(label[0]) || !label.iter().all(|b| in_name(*b)) {
            return false;
        }
        self.skip(head_end + 1);
        let rest = self.rest();
        let mut at = 0;
        let mut end = rest.len();
        let mut indent = 0;
        while at < rest.len() {
            let next = memchr::memchr(b'\n', &rest[at..]).map_or(rest.len(), |n| at + n + 1);
            let row = &rest[at..next];
            let text = row.trim_ascii_start();
            let after = text.strip_prefix(label);
            if after.is_some_and(|after| !after.first().is_some_and(|b| in_name(*b))) {
                (end, indent) = (at, row.len() - text.len());
                break;
            }
            at = next;
        }
        let text = unindented(&rest[..end], indent);
        self.skip(end);
        self.skip(if self.at < self.bytes.len() { indent + label.len() } else { 0 });
        if raw {
            self.push(line, Kind::Text(String::from_utf8_lossy(&text).into_owned()));
        } else {
            self.template(line, &text, None);
        }
        true
    }

    /// A double-quoted text: its escapes, and the variables in it.
    fn template(&mut self, line: u32, text: &[u8], quote: Option<u8>) {
        let mut inner =
            Lexer { bytes: text, at: 0, line, nesting: self.nesting + 1, out: Vec::new() };
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        while inner.at < text.len() {
            let code = match inner.peek(0) {
                b'\\' => {
                    inner.escape(&mut plain, quote);
                    continue;
                }
                b'$' if begins_name(inner.peek(1)) => inner.simple_variable(),
                b'{' if inner.peek(1) == b'$' => inner.braced(1),
                b'$' if inner.peek(1) == b'{' => inner.braced(2),
                byte => {
                    plain.push(byte);
                    inner.skip(1);
                    continue;
                }
            };
            if !plain.is_empty() {
                parts.push(Part::Text(String::from_utf8_lossy(&plain).into_owned()));
                plain.clear();
            }
            parts.push(Part::Code(code));
        }
        let plain = String::from_utf8_lossy(&plain).into_owned();
        if parts.is_empty() {
            return self.push(line, Kind::Text(plain));
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        self.push(line, Kind::Template(parts));
    }

    fn escape(&mut self, out: &mut Vec<u8>, quote: Option<u8>) {
        let byte = self.peek(1);
        self.skip(2);
        match byte {
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'r' => out.push(b'\r'),
            b'\\' | b'$' => out.push(byte),
            _ if Some(byte) == quote => out.push(byte),
            _ => out.extend([b'\\', byte]),
        }
    }

    /// `$name`, with one `[key]` or `->name` behind it.
    fn simple_variable(&mut self) -> Vec<Token> {
        let line = self.line;
        let token = |kind| Token { line, kind };
        self.skip(1);
        let mut code = vec![token(Kind::Variable(self.name()))];
        if self.rest().starts_with(b"->") && begins_name(self.peek(2)) {
            self.skip(2);
            code.extend([token(Kind::Sign("->")), token(Kind::Name(self.name()))]);
        } else if self.peek(0) == b'['
            && let Some(end) = memchr::memchr(b']', self.rest())
        {
            let inside = String::from_utf8_lossy(&self.skip(end + 1)[1..end]).into_owned();
            let key = match inside.strip_prefix('$') {
                Some(name) => Kind::Variable(name.to_owned()),
                None => Kind::Text(inside.trim_matches('\'').to_owned()),
            };
            code.extend([token(Kind::Sign("[")), token(key), token(Kind::Sign("]"))]);
        }
        code
    }

    /// `{$...}` (the code begins `open` bytes in) and `${name}`.
    fn braced(&mut self, open: usize) -> Vec<Token> {
        let line = self.line;
        self.skip(open);
        let rest = self.rest();
        let mut depth = 1;
        let mut at = 0;
        while at < rest.len() && depth > 0 {
            match rest[at] {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            at += 1;
        }
        let code = &rest[..at.saturating_sub(1)];
        self.skip(at);
        if open == 2 {
            let name = String::from_utf8_lossy(code).into_owned();
            return vec![Token { line, kind: Kind::Variable(name) }];
        }
        if self.nesting > NESTING {
            return Vec::new();
        }
        let mut inner =
            Lexer { bytes: code, at: 0, line, nesting: self.nesting + 1, out: Vec::new() };
        while inner.at < code.len() {
            inner.token();
        }
        inner.out
    }
}

/// Every line without its first `indent` bytes, and without the last line's end.
fn unindented(text: &[u8], indent: usize) -> Vec<u8> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let mut out = Vec::with_capacity(text.len());
    for (number, row) in text.split(|byte| *byte == b'\n').enumerate() {
        if number > 0 {
            out.push(b'\n');
        }
        let blank = row.iter().take(indent).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        out.extend(&row[blank..]);
    }
    out
}
