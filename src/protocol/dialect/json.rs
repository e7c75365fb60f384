//! Writing JSON by hand, so that a message's bytes are copied once.

use std::fmt::Write;

/// Possible readers of the JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Safe {
    /// A JSON parser.
    Json,
    /// Possibly a browser that reads it as HTML or a script: `<`, `>`, `&` and the two line
    /// separators that end a JavaScript string are escaped too.
    Html,
}

/// Appends `text` as a JSON string.
pub(super) fn string(out: &mut String, text: &str, safe: Safe) {
    out.push('"');
    let mut start = 0;
    for (at, c) in text.char_indices() {
        let needed = matches!(c, '"' | '\\' | '\0'..='\x1f')
            || safe == Safe::Html && matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        if needed {
            out.push_str(&text[start..at]);
            escape(out, c);
            start = at + c.len_utf8();
        }
    }
    out.push_str(&text[start..]);
    out.push('"');
}

/// Appends valid JSON unchanged. For a browser, characters are escaped in place, which keeps the
/// meaning: in valid JSON they can only be inside strings.
pub(super) fn verbatim(out: &mut String, json: &str, safe: Safe) {
    if safe == Safe::Json {
        out.push_str(json);
        return;
    }
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escape(out, c),
            c => out.push(c),
        }
    }
}

fn escape(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c => {
            // Writing to a string cannot fail; all escaped characters are below U+10000.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn any_text_survives_a_json_parser() {
        let text = "a\"b\\c\n\r\t\0\u{1f}<b>&\u{2028}\u{2029}é😀/";
        for safe in [Safe::Json, Safe::Html] {
            let mut out = String::new();
            string(&mut out, text, safe);
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn nothing_a_browser_could_run_is_left() {
        let mut out = String::new();
        string(&mut out, "</script><b>&\u{2028}\u{2029}", Safe::Html);
        assert!(!out.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{out}");
        out.clear();
        verbatim(&mut out, r#"{"<a>":"&\u2028","x":[1,2]}"#, Safe::Html);
        assert_eq!(out, r#"{"\u003ca\u003e":"\u0026\u2028","x":[1,2]}"#);
    }
}
