//! PHP is the oracle: what a `[[capture]]` rule publishes of a request is what PHP saw of it, or
//! nothing.
//!
//! Random requests, many of them malformed, go through the gate to a script that echoes its
//! `$_POST`, `$_GET` and `$_COOKIE`. `POLLGATE_ORACLE_SEED` repeats a run, `POLLGATE_ORACLE_CASES`
//! makes it longer.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;
use serde_json::Value;
use support::{Client, FORM, Gate, PhpSite};

const RULES: &str = r#"
    [[capture]]
    path    = "/echo.php"
    channel = "form-{header.x-case}"
    data    = "{form.msg}"
    [[capture]]
    path    = "/echo.php"
    channel = "query-{header.x-case}"
    data    = "{query.msg}"
    [[capture]]
    path    = "/echo.php"
    channel = "cookie-{header.x-case}"
    data    = "{cookie.msg}"
"#;

const KINDS: [&str; 3] = ["form", "query", "cookie"];

/// A site that echoes, a gate before it, and a client.
struct Oracle {
    gate: Gate,
    client: Client,
    cases: usize,
    /// Keeps it running.
    _site: PhpSite,
}

impl Oracle {
    async fn start() -> Oracle {
        let site = PhpSite::start_of("oracle").await;
        let gate = Gate::start_before(site.addr(), RULES).await;
        let client = gate.connect().await;
        Oracle { gate, client, cases: 0, _site: site }
    }

    /// What PHP saw and what was published, of the form, the query and the cookies.
    async fn ask(&mut self, case: &Case) -> [(Option<Vec<u8>>, Option<Vec<u8>>); 3] {
        self.cases += 1;
        let number = self.cases.to_string();
        let target = match case.query.is_empty() {
            true => "/echo.php".to_owned(),
            false => format!("/echo.php?{}", case.query),
        };
        let mut headers = vec![("X-Case", number.as_str())];
        headers.extend(case.headers.iter().map(|(name, value)| (*name, value.as_str())));
        let answer = self.client.request("POST", &target, &headers, &case.body).await;
        assert_eq!(answer.status, 200, "{case:?}");
        // PHP writes its warnings about a form before the page.
        let seen: Value = serde_json::from_str(answer.text().lines().last().unwrap()).unwrap();
        let mut both = Vec::new();
        for kind in KINDS {
            let path = format!("/channels/{kind}-{number}/messages?cursor=oldest");
            let published = self.gate.hook("GET", &path, &[], "").await;
            let published = (published.status == 200).then(|| message(&published.json()));
            both.push((seen[kind].as_str().map(unhex), published.flatten()));
        }
        both.try_into().unwrap()
    }
}

fn message(history: &Value) -> Option<Vec<u8>> {
    let messages = history["messages"].as_array().unwrap();
    assert!(messages.len() < 2, "{history}");
    let message = messages.first()?;
    Some(match message["base64"].as_str() {
        Some(bytes) => STANDARD.decode(bytes).unwrap(),
        None => message["data"].as_str().unwrap().as_bytes().to_vec(),
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(pair).collect()
}

/// One request.
#[derive(Debug, Default)]
struct Case {
    query: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Case {
    fn form(kind: &str, body: impl Into<Vec<u8>>) -> Case {
        let headers = vec![("Content-Type", kind.to_owned())];
        Case { query: String::new(), headers, body: body.into() }
    }

    fn multipart(body: &str) -> Case {
        Case::form("multipart/form-data; boundary=x", body)
    }
}

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

/// Mostly the first, sometimes one of the others.
fn mostly<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    if rng.u8(..8) > 0 { from[0] } else { pick(rng, from) }
}

const NAMES: [&str; 22] = [
    "msg",
    "other",
    "msg[]",
    "msg[a]",
    "msg[a][b]",
    "msg[",
    "msg[a",
    "msg[a][",
    "[msg]",
    "[msg",
    "msg]",
    "ms.g",
    "m[sg",
    " msg",
    "msg ",
    "msg%00",
    "%6Dsg",
    "msg%5B%5D",
    "MSG",
    "msg[a]b",
    "",
    "msg\u{e4}",
];
const VALUES: [&str; 12] =
    ["one", "two", "", "a+b", "a%2Bb", "%zz%4", "%E9", "caf\u{e9}", "a=b", "%00x", "x;y", "%c3%a9"];

/// Pairs as a query or an urlencoded form has them.
fn pairs(rng: &mut Rng, separator: &[&str]) -> String {
    let mut text = String::new();
    for _ in 0..rng.usize(..6) {
        if rng.u8(..40) == 0 {
            text += &"a=1&".repeat(rng.usize(990..1010));
        }
        let names = if rng.bool() { 3 } else { NAMES.len() };
        text += pick(rng, &NAMES[..names]);
        text += mostly(rng, &["=", "", "=="]);
        text += pick(rng, &VALUES);
        text += mostly(rng, separator);
    }
    text
}

fn urlencoded(rng: &mut Rng) -> Case {
    let kind = mostly(
        rng,
        &[
            FORM,
            "application/x-www-form-urlencoded; charset=UTF-8",
            "Application/X-WWW-Form-Urlencoded;x",
            "application/x-www-form-urlencoded ;x",
            "application/x-www-form-urlencoded, text/plain",
            "text/plain, application/x-www-form-urlencoded",
            "application/x-www-form-urlencoded\t;x",
            "text/plain",
        ],
    );
    let mut body = pairs(rng, &["&", ";", "&&", "\r\n", "&amp;"]).into_bytes();
    if rng.u8(..20) == 0 {
        body.push(0xe9);
    }
    Case::form(kind, body)
}

fn multipart(rng: &mut Rng) -> Case {
    let kind = mostly(
        rng,
        &[
            "multipart/form-data; boundary=x",
            "multipart/form-data; boundary=\"x\"",
            "multipart/form-data; Boundary=x",
            "multipart/form-data; boundary=x; boundary=y",
            "multipart/form-data; boundary=x, y",
            "multipart/form-data; charset=boundary=y; boundary=x",
            "multipart/form-data; charset=utf-8; boundary=x",
            "multipart/form-data; xboundary=y; boundary=x",
            "multipart/form-data boundary=x",
            "multipart/form-data; boundary = x",
            "multipart/form-data",
            "multipart/mixed; boundary=x",
        ],
    );
    let mut body = mostly(rng, &["", "preamble\r\n", "\r\n", "--y\r\n"]).to_owned();
    for _ in 0..rng.usize(..4) {
        if rng.u8(..60) == 0 {
            let head = "Content-Disposition: form-data; name=\"a\"";
            body += &format!("--x\r\n{head}\r\n\r\n1\r\n").repeat(rng.usize(990..1030));
        }
        body += mostly(rng, &["--x\r\n", "--x\n", "--x \r\n", "--xy\r\n", "--x--\r\n", "-x\r\n"]);
        body += &part_head(rng);
        body += mostly(rng, &["\r\n", "\n", "\r\n\r\n", ""]);
        let filler = "v".repeat(rng.usize(5000..5300));
        let value = ["one", "two", "", "a\r\nb", "--x", "a\n--xy", "\r", "a\r", "%41+b", &filler];
        body += pick(rng, &value);
        body += mostly(rng, &["\r\n", "\n", "\r", "\r\r\n", ""]);
    }
    body += mostly(rng, &["--x--\r\n", "--x--", "--x\r\n", "--x-- \r\n", "--x--\r\nmore", ""]);
    Case::form(kind, body)
}

fn part_head(rng: &mut Rng) -> String {
    let mut head = String::new();
    for _ in 0..=usize::from(rng.u8(..10) == 0) {
        let before = ["", "Content-Type: text/plain\r\n", "X: y\n", " folded\r\n", "no colon\r\n"];
        head += mostly(rng, &before);
        head += mostly(
            rng,
            &["Content-Disposition: ", "content-disposition:", "Content-Disposition : ", "X: "],
        );
        head += mostly(rng, &["form-data", "attachment", "FORM-DATA", "", "name=\"msg\""]);
        for _ in 0..=usize::from(rng.u8(..8) == 0) {
            head += mostly(rng, &["; ", ";", ";;", ", ", ";\r\n ", ";\t"]);
            head += mostly(rng, &["name", "NAME", "name ", "filename", "FILENAME", "name*"]);
            let names = if rng.bool() { 2 } else { NAMES.len() };
            let name = pick(rng, &NAMES[..names]);
            let (open, close) = match mostly(rng, &["\"", "", "'", "torn", "\\"]) {
                "torn" => ("=\"", ""),
                "\\" => ("=\"\\", "\""),
                "'" => ("='", "'"),
                "" => ("=", ""),
                _ => ("=\"", "\""),
            };
            head += &format!("{open}{name}{close}");
        }
        head +=
            mostly(rng, &["", "", "; filename=\"a\"", "; filename=a", "; FileName=\"a\"", "; x"]);
        if rng.u8(..50) == 0 {
            head += &format!("\r\nX-Long: {}", "y".repeat(rng.usize(3000..6000)));
        }
        head += mostly(rng, &["\r\n", "\n"]);
    }
    head
}

fn random(rng: &mut Rng) -> Case {
    let mut case = if rng.bool() { urlencoded(rng) } else { multipart(rng) };
    if rng.u8(..4) == 0 {
        let query = pairs(rng, &["&", ";", "&&"]);
        case.query = query.replace([' ', '\r', '\n'], "+").replace(|c: char| !c.is_ascii(), "%E4");
    }
    if rng.u8(..4) == 0 {
        let ascii = |text: String| text.replace(|c: char| !c.is_ascii(), "e");
        let cookies = ascii(pairs(rng, &["; ", ";", "&", ", "])).replace(['\r', '\n'], "");
        case.headers.push(("Cookie", cookies));
    }
    if rng.u8(..40) == 0 {
        case.headers.push(("Content-Type", mostly(rng, &["text/plain", FORM]).to_owned()));
    }
    if rng.u8(..40) == 0 {
        case.headers.push(("Content-Encoding", pick(rng, &["gzip", "identity"]).to_owned()));
    }
    case
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[tokio::test]
async fn what_is_published_of_any_form_is_what_php_saw_or_nothing() {
    let seed = from_env("POLLGATE_ORACLE_SEED").unwrap_or(13);
    let cases = from_env("POLLGATE_ORACLE_CASES").unwrap_or(600);
    let mut rng = Rng::with_seed(seed);
    let mut oracle = Oracle::start().await;
    let mut published = [0; 3];
    for at in 0..cases {
        let case = random(&mut rng);
        for (kind, (php, gate)) in oracle.ask(&case).await.into_iter().enumerate() {
            if let Some(gate) = gate {
                let body = String::from_utf8_lossy(&case.body);
                assert_eq!(
                    Some(gate),
                    php,
                    "seed {seed}, case {at}, {}: {case:?} {body}",
                    KINDS[kind]
                );
                published[kind] += 1;
            }
        }
    }
    // A gate that published nothing would agree with every PHP.
    assert!(published.iter().all(|count| count * 60 > cases), "{published:?} of {cases}");
}

/// The forms of the reports, and those of the clients that there are.
#[tokio::test]
async fn plain_forms_are_published_and_unclear_ones_are_not() {
    const HEAD: &str = "Content-Disposition: form-data; name=";
    let many = "a=1&".repeat(1000);
    let two_heads =
        "Content-Disposition: form-data; name=\"msg\"\r\nContent-Disposition: form-data";
    let mut oracle = Oracle::start().await;
    for (case, published) in [
        (Case::form(FORM, "a=1&msg=caf%C3%A9+1"), Some("caf\u{e9} 1")),
        (Case::form(FORM, "user[name][]=a&b.c=d&msg=one"), Some("one")),
        (Case::multipart(&format!("--x\r\n{HEAD}\"msg\"\r\n\r\none\r\n--x--\r\n")), Some("one")),
        (Case::form(FORM, format!("msg=one&{many}msg=two")), None),
        (
            Case::multipart(&format!("--x\r\n{HEAD}\"a\"; name=\"msg\"\r\n\r\none\r\n--x--\r\n")),
            None,
        ),
        (
            Case::multipart(&format!(
                "--x\r\n{HEAD}\"msg\"; FILENAME=\"a\"\r\n\r\none\r\n--x--\r\n"
            )),
            None,
        ),
        (Case::multipart(&format!("--x\r\n{two_heads}; name=\"a\"\r\n\r\none\r\n--x--\r\n")), None),
    ] {
        let [(php, gate), ..] = oracle.ask(&case).await;
        assert_eq!(gate.as_deref(), published.map(str::as_bytes), "{case:?}");
        if gate.is_some() {
            assert_eq!(php, gate);
        }
    }
    let metrics = oracle.gate.hook("GET", "/metrics", &[], "").await.text();
    assert!(metrics.contains("pollgate_refusals_total{cause=\"unclear_capture\"} 4"), "{metrics}");
    oracle.gate.wait_for_log("PHP reads the first").await;
}
