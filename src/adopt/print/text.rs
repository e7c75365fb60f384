//! Lines of TOML and comments.

use std::fmt::Write;

/// The width of comments.
const WIDTH: usize = 98;

/// Lines of a config, some of them commented out.
#[derive(Default)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) commented_out: bool,
}

impl Text {
    /// A sentence, on as many lines as it needs.
    pub(super) fn comment(&mut self, text: &str) {
        let mut row = String::from("#");
        for word in plain(text).split(' ') {
            if row.len() + word.len() > WIDTH && row.len() > 1 {
                let _ = writeln!(self.text, "{row}");
                row = String::from("#");
            }
            row.push(' ');
            row.push_str(word);
        }
        let _ = writeln!(self.text, "{row}");
    }

    pub(super) fn line(&mut self, text: &str) {
        let mark = if self.commented_out { "#" } else { "" };
        let _ = writeln!(self.text, "{mark}{}", plain(text));
    }

    pub(super) fn key(&mut self, key: &str, value: &str) {
        self.line(&format!("{key} = {value}"));
    }
}

/// On one line, whatever is in it.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A TOML string.
pub(super) fn quoted(text: &str) -> String {
    let text = text.replace(|c: char| c.is_control(), "?");
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

pub(super) fn list(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    format!("[{}]", names.join(", "))
}
