//! The browser client, `clients/js/pollgate.js`, as the gate serves it.
//!
//! It is served at `client.path` as a classic script, and at the same path with `.mjs` as an ES
//! module, without comments and needless white space. Both are at most 4 KB long when compressed.
//! The bytes never change while the process lives, so they are prepared once.

use super::poll::admission::Incoming;
use crate::protocol::http::{Headers, Reply};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest::{SHA256, digest};
use std::io::Write;
use std::sync::LazyLock;

const SOURCE: &str = include_str!("../../../clients/js/pollgate.js");

/// The end of the module, which the classic script lacks.
const EXPORT: &str = "export{pollgate,pollgate as default};";

const CONTENT_TYPE: &str = "text/javascript; charset=utf-8";

/// An upgraded gate has another client; browsers ask for it after an hour.
const CACHE_CONTROL: &str = "public, max-age=3600";

/// The paths at which the client is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientScript {
    classic: Box<str>,
    module: Box<str>,
}

impl ClientScript {
    /// The default of `client.path`.
    pub const PATH: &'static str = "/pollgate.js";

    /// The client at `path`, which ends in `.js`, and at the module's path beside it.
    pub fn at(path: &str) -> Self {
        let stem = path.strip_suffix(".js").unwrap_or(path);
        Self { classic: path.into(), module: format!("{stem}.mjs").into() }
    }

    /// True if a request for `path` (as it stands in the target) is for the client.
    pub(super) fn owns(&self, path: &str) -> bool {
        *path == *self.classic || *path == *self.module
    }

    /// The reply to a request for the client; `None` = it is for something else.
    pub(super) fn reply(&self, request: &Incoming<'_>) -> Option<Reply> {
        let script = match request.path {
            path if *path == *self.classic => &SCRIPTS.classic,
            path if *path == *self.module => &SCRIPTS.module,
            _ => return None,
        };
        if !matches!(request.method, "GET" | "HEAD") {
            return Some(Reply::wrong_method(request.path, "GET, HEAD"));
        }
        let compressed = accepts_gzip(request.headers);
        let served = if compressed { &script.gzip } else { &script.plain };
        // A file that does not change may be kept by all, and read by pages of any origin.
        let known = request.headers.all("if-none-match");
        let mut reply = match known.split(',').any(|tag| matches(tag, &served.tag)) {
            true => Reply::new(304, "", Bytes::new()),
            false => Reply::new(200, CONTENT_TYPE, served.bytes.clone()),
        };
        if compressed && reply.status == 200 {
            reply = reply.with("Content-Encoding", "gzip");
        }
        let reply = reply
            .with("ETag", &*served.tag)
            .with("Cache-Control", CACHE_CONTROL)
            .with("Vary", "Accept-Encoding")
            .with("Access-Control-Allow-Origin", "*")
            .with("X-Content-Type-Options", "nosniff");
        Some(reply)
    }
}

/// True if a tag in `If-None-Match` is that of what would be served (RFC 9110, section 13.1.2: the
/// weak comparison).
fn matches(listed: &str, tag: &str) -> bool {
    let listed = listed.trim();
    listed == "*" || listed.strip_prefix("W/").unwrap_or(listed) == tag
}

/// True if `Accept-Encoding` lists gzip, and not with a weight of zero.
fn accepts_gzip(headers: &dyn Headers) -> bool {
    headers.all("accept-encoding").split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let refused = parts.any(|part| {
            let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            weight.and_then(|weight| weight.parse::<f32>().ok()) == Some(0.0)
        });
        gzip && !refused
    })
}

static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| {
    let classic = compact(SOURCE);
    let module = format!("{classic}{EXPORT}");
    Scripts { classic: Script::new(classic), module: Script::new(module) }
});

struct Scripts {
    classic: Script,
    module: Script,
}

/// A script in both codings.
struct Script {
    plain: Served,
    gzip: Served,
}

struct Served {
    bytes: Bytes,
    tag: Box<str>,
}

impl Script {
    fn new(text: String) -> Self {
        let hash = digest(&SHA256, text.as_bytes());
        let hash: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let served = |bytes, tag: String| Served { bytes, tag: tag.into() };
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Writing to a vector cannot fail.
        let _ = encoder.write_all(text.as_bytes());
        let gzip = encoder.finish().unwrap_or_default();
        Self {
            plain: served(text.into(), format!("\"{hash}\"")),
            gzip: served(gzip.into(), format!("\"{hash}-gzip\"")),
        }
    }
}

/// Local names of the source that are served as short ones: each names nothing else there.
const LOCALS: [&str; 64] = [
    "client",
    "places",
    "place",
    "options",
    "current",
    "change",
    "unanswered",
    "tries",
    "store",
    "update",
    "opened",
    "attempt",
    "heard",
    "placeIn",
    "hear",
    "beat",
    "mine",
    "resets",
    "sleep",
    "before",
    "socket",
    "fields",
    "wanted",
    "result",
    "theirs",
    "users",
    "call",
    "deliver",
    "catchUp",
    "control",
    "tell",
    "order",
    "end",
    "pause",
    "first",
    "leave",
    "trust",
    "buffer",
    "blocks",
    "events",
    "ready",
    "wake",
    "idle",
    "started",
    "crc",
    "lost",
    "give",
    "again",
    "address",
    "decoder",
    "colon",
    "kept",
    "tag",
    "denied",
    "reader",
    "ending",
    "follow",
    "life",
    "tick",
    "load",
    "key",
    "say",
    "ask",
    "began",
];

/// `code` with short local names.
fn shorten(code: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$');
    let mut out = String::with_capacity(code.len());
    let mut quoted = false;
    let mut rest = code;
    while let Some(next) = rest.chars().next() {
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if length == 0 || quoted {
            quoted ^= next == '\'';
            out.push(next);
            rest = &rest[next.len_utf8()..];
            continue;
        }
        let word = &rest[..length];
        let local = LOCALS.iter().position(|local| *local == word && !out.ends_with('.'));
        match local {
            None => out.push_str(word),
            Some(number) => {
                out.push_str(["", "_", "$"][number / 26]);
                out.push(char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"[number % 26]));
            }
        }
        rest = &rest[length..];
    }
    out
}

/// `source` without comments, indentation and needless spaces, its local names short.
///
/// It relies on the style of the source, which a test checks in a browser: a comment has a line of
/// its own, every statement ends in a semicolon or a brace, none is empty, strings are in single quotes without
/// escaped quotes, and no other literal has spaces or quotes in it.
fn compact(source: &str) -> String {
    let lines = source.lines().map(str::trim);
    let code: Vec<&str> =
        lines.filter(|line| !line.is_empty() && !line.starts_with("//")).collect();
    let code = code.join(" ");
    let mut out = String::with_capacity(code.len());
    let mut quoted = false;
    let mut rest = code.chars().peekable();
    while let Some(next) = rest.next() {
        quoted ^= next == '\'';
        if next == ' ' && !quoted {
            let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$');
            let before = out.chars().next_back();
            let after = rest.peek().copied();
            // Two words stay two, and `a + +b` does not become `a++b`.
            let apart = before.zip(after).is_some_and(|(before, after)| {
                word(before) && word(after) || before == after && matches!(before, '+' | '-')
            });
            if !apart {
                continue;
            }
        }
        if next == '}' && !quoted && out.ends_with(';') {
            out.pop();
        }
        out.push(next);
    }
    out.push('\n');
    shorten(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_COMPRESSED: usize = 4096;

    #[test]
    fn it_is_at_most_4_kb_when_compressed() {
        for script in [&SCRIPTS.classic, &SCRIPTS.module] {
            let length = script.gzip.bytes.len();
            assert!(length <= MAX_COMPRESSED, "{length}");
        }
    }

    #[test]
    fn comments_and_spaces_are_left_out_and_strings_stay_as_they_are() {
        let source =
            "// Says a word.\nfunction f(a) {\n  // And again.\n  return a + +1 - 'it is';\n}\n";
        assert_eq!(compact(source), "function f(a){return a+ +1-'it is'}\n");
        let served = compact(SOURCE);
        assert!(!served.contains("//") && !served.contains("/*") && !served.contains("  "));
        assert!(served.contains("'Bearer '"));
    }

    #[test]
    fn a_name_that_is_shortened_is_a_local_one_and_nothing_else() {
        let source = "let users = [one.users, 'users', users_of]; call(users);";
        assert_eq!(shorten(source).matches("users").count(), 3, "{}", shorten(source));
        let lines = SOURCE.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        let code: String = lines.collect::<Vec<_>>().join(" ").replace(' ', "");
        for name in LOCALS {
            assert!(code.contains(name), "{name} is not there");
            for (before, after) in
                [("{", ","), ("{", ":"), ("{", "}"), (",", ":"), (",", "}"), (",", ",")]
            {
                let property = format!("{before}{name}{after}");
                assert!(!code.contains(&property), "{property} may be a property");
            }
        }
    }

    #[test]
    fn the_source_is_in_the_style_that_compacting_relies_on() {
        for line in SOURCE.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let quotes = line.matches('\'').count();
            assert!(
                quotes % 2 == 0 && !line.contains(['"', '`']) && !line.contains("\\'"),
                "{line}"
            );
        }
    }

    #[test]
    fn a_tag_is_compared_weakly_and_an_encoding_by_its_weight() {
        assert!(matches(" \"a\"", "\"a\"") && matches("W/\"a\"", "\"a\"") && matches("*", "\"a\""));
        assert!(!matches("\"b\"", "\"a\"") && !matches("", "\"a\""));
        let accepts = |value: &'static str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("accept-encoding", http::HeaderValue::from_static(value));
            accepts_gzip(&headers)
        };
        assert!(accepts("gzip") && accepts("br, GZIP;q=0.5"));
        assert!(!accepts("br") && !accepts("gzip;q=0") && !accepts("gzip; q=0.000, br"));
    }
}
