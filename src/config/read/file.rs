//! The text of a config file as a tree, with the line of every key.

use super::locations::{child, entry};
use ::config::{Map, Value, ValueKind};
use toml_edit::{Document, Item, TableLike};

/// A tree of plain values.
pub(in crate::config) type Tree = Map<String, Value>;

/// A file's values and their lines.
pub(in crate::config) struct Parsed {
    /// The values.
    pub(in crate::config) tree: Tree,
    /// Key paths with their lines; a table's is that of its header.
    pub(in crate::config) lines: Vec<(String, usize)>,
}

/// The line and cause of a TOML syntax error.
#[derive(Debug)]
pub(in crate::config) struct SyntaxError {
    /// From 1; `None` if the parser gives none.
    pub(in crate::config) line: Option<usize>,
    /// Contains nothing of the text, which may hold secrets.
    pub(in crate::config) message: String,
}

/// Reads a whole file.
pub(in crate::config) fn parse(text: &str) -> Result<Parsed, SyntaxError> {
    let newlines = text.match_indices('\n').map(|(at, _)| at).collect();
    let mut reader = Reader { newlines, lines: Vec::new() };
    match Document::parse(text) {
        Ok(document) => {
            let tree = reader.table("", document.as_table());
            Ok(Parsed { tree, lines: reader.lines })
        }
        Err(error) => Err(SyntaxError {
            line: error.span().map(|span| reader.line(span.start)),
            message: error.message().replace('\n', ", "),
        }),
    }
}

/// A value of the environment or the command line: a quoted text, list or table in TOML, anything
/// else literally.
pub(in crate::config) fn parse_value(text: &str) -> Value {
    let mut reader = Reader { newlines: Vec::new(), lines: Vec::new() };
    match text.trim().parse::<toml_edit::Value>() {
        Ok(value) if value.is_str() || value.is_array() || value.is_inline_table() => {
            reader.value("", &value)
        }
        _ => Value::new(None, text),
    }
}

struct Reader {
    newlines: Vec<usize>,
    lines: Vec<(String, usize)>,
}

impl Reader {
    fn line(&self, at: usize) -> usize {
        self.newlines.partition_point(|newline| *newline < at) + 1
    }

    fn note(&mut self, path: &str, span: Option<std::ops::Range<usize>>) {
        if let Some(span) = span {
            self.lines.push((path.to_owned(), self.line(span.start)));
        }
    }

    fn table(&mut self, path: &str, table: &dyn TableLike) -> Tree {
        let mut tree = Tree::new();
        for (name, item) in table.iter() {
            let path = child(path, name);
            self.note(&path, table.key(name).and_then(toml_edit::Key::span).or(item.span()));
            tree.insert(name.to_owned(), self.item(&path, item));
        }
        tree
    }

    fn item(&mut self, path: &str, item: &Item) -> Value {
        match item {
            Item::None => Value::new(None, ValueKind::Nil),
            Item::Value(value) => self.value(path, value),
            Item::Table(table) => Value::new(None, self.table(path, table)),
            Item::ArrayOfTables(tables) => {
                let read = |(index, table): (usize, &toml_edit::Table)| {
                    let path = entry(path, index);
                    self.note(&path, table.span());
                    Value::new(None, self.table(&path, table))
                };
                Value::new(None, tables.iter().enumerate().map(read).collect::<Vec<_>>())
            }
        }
    }

    fn value(&mut self, path: &str, value: &toml_edit::Value) -> Value {
        use toml_edit::Value as Toml;
        let kind = match value {
            Toml::String(text) => ValueKind::String(text.value().clone()),
            Toml::Integer(number) => ValueKind::I64(*number.value()),
            Toml::Float(number) => ValueKind::Float(*number.value()),
            Toml::Boolean(flag) => ValueKind::Boolean(*flag.value()),
            // No key wants a date, and the config crate has no kind for one.
            Toml::Datetime(_) => ValueKind::Nil,
            Toml::InlineTable(table) => ValueKind::Table(self.table(path, table)),
            Toml::Array(array) => {
                let read = |(index, value): (usize, &Toml)| {
                    let path = entry(path, index);
                    self.note(&path, value.span());
                    self.value(&path, value)
                };
                ValueKind::Array(array.iter().enumerate().map(read).collect())
            }
        };
        Value::new(None, kind)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_line() {
        let text = "listen = [\n  \"a\",\n  \"b\",\n]\n\n[hold]\n\ntimeout = \"1s\"\n\
                    [[poll]]\npath = \"/a\"\n[[poll]]\n\npath = \"/b\"\nfields = { message = \"m\" }\n";
        let parsed = parse(text).unwrap();
        let line = |path: &str| parsed.lines.iter().find(|(p, _)| p == path).map(|(_, line)| *line);
        assert_eq!((line("listen"), line("listen[1]")), (Some(1), Some(3)));
        assert_eq!((line("hold"), line("hold.timeout")), (Some(6), Some(8)));
        assert_eq!((line("poll[0]"), line("poll[0].path")), (Some(9), Some(10)));
        assert_eq!((line("poll[1]"), line("poll[1].path")), (Some(11), Some(13)));
        assert_eq!(line("poll[1].fields.message"), Some(14));
    }

    #[test]
    fn a_syntax_error_has_its_line_and_shows_nothing_of_the_text() {
        let error = parse("[publish]\ntoken = \"hunter2\nx = 1\n").err().unwrap();
        assert_eq!(error.line, Some(2));
        assert!(!error.message.contains("hunter2"), "{}", error.message);
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_overflow() {
        assert!(parse(&format!("a = {}1{}", "[".repeat(100_000), "]".repeat(100_000))).is_err());
        let _ = parse(&format!("{}b = 1", "a.".repeat(100_000)));
        let _ = parse(&format!("[{}b]", "a.".repeat(100_000)));
        let _ = parse_value(&"{a=".repeat(100_000));
    }

    #[test]
    fn a_value_of_the_command_line_is_toml_where_it_is_quoted() {
        let kind = |text: &str| parse_value(text).kind;
        assert_eq!(kind("127.0.0.1:0"), ValueKind::String("127.0.0.1:0".into()));
        assert_eq!(kind("\"5s\""), ValueKind::String("5s".into()));
        assert_eq!(kind("12345"), ValueKind::String("12345".into()));
        assert_eq!(kind("[\"a\"]"), ValueKind::Array(vec![Value::new(None, "a")]));
        assert!(matches!(kind("[{path = \"/x\"}]"), ValueKind::Array(_)));
    }
}
