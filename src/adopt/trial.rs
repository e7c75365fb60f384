//! The printed config beside the site for a moment (`pollgate adopt DIR --try URL`): the same first
//! poll to PHP and through a gate of its own, and where the two answers differ.
//!
//! The gate is a child of this process on ports that the system chooses; it ends with the trial.
//! Nothing is sent but the polls of rules that are live, as GET, and no answer is waited for longer
//! than [`ANSWER_TIMEOUT`].

use super::{Adopted, Verdict};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// The longest wait for the gate to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes read of one answer.
const MAX_ANSWER: u64 = 1024 * 1024;

/// The reason for which there was no trial.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of the site.
    #[error("{0} is no address of a site; write http://HOST:PORT")]
    Url(String),
    /// The gate did not start; what it said.
    #[error("the gate did not start: {0}")]
    Gate(String),
    /// The site, or the system.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// An answer, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    status: String,
    content_type: String,
    shape: String,
}

/// Runs `program`, which is pollgate, with the config and sends each poll twice. The lines say, for
/// each, whether the answers are alike.
///
/// # Errors
///
/// If `url` is no address, the gate does not start, or the site cannot be reached.
pub fn run(program: &Path, adopted: &Adopted, url: &str) -> Result<Vec<String>, Error> {
    let site = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    if site.is_empty() || site.contains('/') {
        return Err(Error::Url(url.to_owned()));
    }
    let site = if site.contains(':') { site.to_owned() } else { format!("{site}:80") };
    // Before a gate is started for nothing.
    connect(&site)?;
    let gate = Gate::start(program, &adopted.config, &site)?;
    let mut lines = Vec::new();
    for finding in adopted.findings.iter().filter(|one| one.verdict == Verdict::Live) {
        let place = format!("{}:{}", finding.script.trim_start_matches('/'), finding.line);
        let Some(target) = &finding.request else {
            lines.push(format!("{place}  not tried: its poll is no plain GET"));
            continue;
        };
        let alone = ask(&site, &site, target)?;
        let gated = ask(&gate.addr, &site, target)?;
        lines.push(format!("{place}  GET {target}: {}", compared(alone, gated)));
    }
    Ok(lines)
}

fn compared(alone: Option<Answer>, gated: Option<Answer>) -> String {
    let (alone, gated) = match (alone, gated) {
        (None, None) => return "both wait".to_owned(),
        (Some(_), None) => return "PHP answers at once, the gate waits".to_owned(),
        (None, Some(_)) => return "PHP waits, the gate answers at once".to_owned(),
        (Some(alone), Some(gated)) => (alone, gated),
    };
    let parts = [
        ("status", alone.status, gated.status),
        ("content type", alone.content_type, gated.content_type),
        ("body", alone.shape, gated.shape),
    ];
    let differs = parts.iter().filter(|(_, one, other)| one != other);
    let words: Vec<String> = differs
        .map(|(part, one, other)| format!("{part} {one} from PHP, {other} from the gate"))
        .collect();
    if words.is_empty() { "alike".to_owned() } else { words.join("; ") }
}

/// A gate that ends when it is dropped.
struct Gate {
    child: Child,
    addr: String,
    config: PathBuf,
    /// Kept open: the gate ends when it cannot write.
    out: Option<BufReader<ChildStdout>>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

impl Gate {
    fn start(program: &Path, config: &str, site: &str) -> Result<Self, Error> {
        let file = std::env::temp_dir().join(format!("pollgate-try-{}.toml", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).open(&file)?.write_all(config.as_bytes())?;
        let mut command = Command::new(program);
        command.args(["run", "--listen", "127.0.0.1:0", "--internal", "127.0.0.1:0"]);
        command.args(["--upstream", site, "--config"]).arg(&file);
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(error) => {
                let _ = std::fs::remove_file(&file);
                return Err(error.into());
            }
        };
        let mut gate = Self { child, addr: String::new(), config: file, out: None };
        let begun = Instant::now();
        if let Some(out) = gate.child.stdout.take() {
            let mut out = BufReader::new(out);
            for line in out.by_ref().lines().map_while(Result::ok) {
                if let Some(addr) = line.strip_prefix("gate ") {
                    gate.addr = addr.trim().trim_start_matches("http://").to_owned();
                    break;
                }
            }
            gate.out = Some(out);
        }
        while begun.elapsed() < START_TIMEOUT && !gate.addr.is_empty() {
            if connect(&gate.addr).is_ok() {
                return Ok(gate);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = gate.child.kill();
        let mut said = String::new();
        if let Some(error) = gate.child.stderr.take() {
            let _ = error.take(4096).read_to_string(&mut said);
        }
        Err(Error::Gate(said.trim().to_owned()))
    }
}

fn connect(addr: &str) -> io::Result<TcpStream> {
    let addr = addr.to_socket_addrs()?.next();
    let addr = addr.ok_or_else(|| io::Error::other("the address has no host"))?;
    TcpStream::connect_timeout(&addr, ANSWER_TIMEOUT)
}

/// The answer to a first poll; `None` if there was none in time.
fn ask(addr: &str, host: &str, target: &str) -> Result<Option<Answer>, Error> {
    let mut stream = connect(addr)?;
    // In one piece: a server may answer a beginning.
    let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut bytes = Vec::new();
    let begun = Instant::now();
    let mut part = [0; 8192];
    while (bytes.len() as u64) < MAX_ANSWER {
        let left = ANSWER_TIMEOUT.saturating_sub(begun.elapsed());
        if left.is_zero() {
            break;
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => bytes.extend(part.get(..read).unwrap_or_default()),
            Err(error) if is_late(&error) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(answer(&String::from_utf8_lossy(&bytes)))
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn answer(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let header = |wanted: &str| {
        head.lines().skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_ascii_lowercase())
        })
    };
    let chunked = header("transfer-encoding").is_some_and(|coding| coding.contains("chunked"));
    let body = if chunked { unchunked(body) } else { body.to_owned() };
    Some(Answer {
        status: head.split_whitespace().nth(1)?.to_owned(),
        content_type: header("content-type").unwrap_or_default().replace(' ', ""),
        shape: shape(body.trim()),
    })
}

fn unchunked(body: &str) -> String {
    let mut whole = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Some(size) = usize::from_str_radix(size.trim(), 16).ok().filter(|size| *size > 0)
        else {
            break;
        };
        whole.push_str(after.get(..size).unwrap_or(after));
        rest = after.get(size.saturating_add(2)..).unwrap_or_default();
    }
    whole
}

/// The fields of JSON and their types, or that it is text.
fn shape(body: &str) -> String {
    if body.is_empty() {
        return "nothing".to_owned();
    }
    match serde_json::from_str::<serde_json::Value>(body) {
        Ok(value) => json_shape(&value, 0),
        Err(_) => "text".to_owned(),
    }
}

fn json_shape(value: &serde_json::Value, depth: usize) -> String {
    use serde_json::Value::{Array, Bool, Null, Number, Object, String as Text};
    match value {
        Object(fields) if depth < 3 => {
            let field = |(name, value): (&String, &serde_json::Value)| {
                format!("{name}: {}", json_shape(value, depth + 1))
            };
            let fields: Vec<String> = fields.iter().map(field).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Object(_) => "{}".to_owned(),
        Array(_) => "[]".to_owned(),
        Null => "null".to_owned(),
        Bool(_) => "a truth value".to_owned(),
        Number(_) => "a number".to_owned(),
        Text(_) => "a string".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    // A test fails by panicking.
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_answer_is_compared_by_status_type_and_the_types_of_its_fields() {
        let text = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Type: Text/HTML\r\n\r\n{body}");
        let one = answer(&text(r#"{"msg":"a","timestamp":1}"#));
        let same = answer(&text(r#"{"timestamp":2.5,"msg":""}"#));
        assert_eq!(compared(one.clone(), same), "alike");
        let other = answer(&text("timeout"));
        let said = compared(one.clone(), other);
        assert_eq!(said, "body {msg: a string, timestamp: a number} from PHP, text from the gate");
        assert_eq!(compared(one, None), "PHP answers at once, the gate waits");
    }

    #[test]
    fn chunks_are_put_together_and_broken_ones_are_survived() {
        assert_eq!(unchunked("2\r\n[1\r\n1\r\n]\r\n0\r\n\r\n"), "[1]");
        for broken in ["", "z\r\n", "ffffffffffffffff\r\nx", "5\r\nab", "1\r\né\r\n"] {
            unchunked(broken);
        }
        assert_eq!(answer("HTTP/1.1 200"), None);
    }
}
