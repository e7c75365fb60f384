//! Having the conversations of a page with a real gate.

use super::compare::Meanings;
use super::support::{Addr, Client, Gate};
use std::collections::BTreeMap;

/// One step of a transcript.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Switches the connection: a client's by its name, or the hook's.
    Client(String),
    Hook,
    Held(u64),
    Publish {
        channel: String,
        text: String,
    },
    Send(Vec<String>),
    Receive(Vec<String>),
}

pub(crate) fn is_transcript(line: &str) -> bool {
    fence(line) == Some("transcript")
}

fn is_config(line: &str) -> bool {
    fence(line) == Some("toml transcript")
}

fn fence(line: &str) -> Option<&str> {
    line.strip_prefix("```").map(str::trim)
}

/// The page with what was really received in its transcripts, and what differs from it.
pub(crate) async fn replay(page: &str) -> (String, Vec<String>) {
    let lines: Vec<&str> = page.lines().collect();
    let mut out: Vec<String> = Vec::new();
    let mut talk: Option<Talk> = None;
    let mut mistakes = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let opening = lines[at];
        out.push(opening.to_owned());
        at += 1;
        if !(is_transcript(opening) || is_config(opening)) {
            continue;
        }
        let length = lines[at..].iter().position(|line| fence(line) == Some(""));
        let block = &lines[at..at + length.expect("an unclosed block")];
        if is_config(opening) {
            talk = Some(Talk::begin(&block.join("\n")).await);
            out.extend(block.iter().map(|line| line.to_string()));
        } else {
            let talk = talk.as_mut().expect("a transcript before its `toml transcript`");
            out.extend(talk.resume(block, at + 1, &mut mistakes).await);
        }
        at += block.len();
    }
    (out.join("\n") + "\n", mistakes)
}

/// The connections of one conversation.
struct Talk {
    gate: Gate,
    clients: BTreeMap<String, Line>,
    hook: Option<Line>,
    now: Step,
    meanings: Meanings,
}

struct Line {
    client: Client,
    method: String,
    /// Requests without their answer.
    open: usize,
}

impl Talk {
    async fn begin(config: &str) -> Talk {
        // No server listens there: no transcript reaches the site.
        let site = Addr::parse("127.0.0.1:9").unwrap();
        let gate = Gate::start_before(&site, config).await;
        let clients = BTreeMap::new();
        let meanings = Meanings::default();
        Talk { gate, clients, hook: None, now: Step::Client(String::new()), meanings }
    }

    async fn line(&mut self) -> &mut Line {
        let (slot, addr) = match &self.now {
            Step::Client(name) if self.clients.contains_key(name) => {
                return self.clients.get_mut(name).unwrap();
            }
            Step::Client(name) => {
                let line = Line::to(self.gate.addr()).await;
                return self.clients.entry(name.clone()).or_insert(line);
            }
            _ => (&mut self.hook, self.gate.internal()),
        };
        if slot.is_none() {
            *slot = Some(Line::to(addr).await);
        }
        slot.as_mut().unwrap()
    }

    /// The next request is on a new connection.
    fn forget_line(&mut self) {
        match &self.now {
            Step::Client(name) => drop(self.clients.remove(name)),
            _ => self.hook = None,
        }
    }

    /// Runs a block; returns it with the real answers.
    async fn resume(
        &mut self,
        block: &[&str],
        first: usize,
        mistakes: &mut Vec<String>,
    ) -> Vec<String> {
        let mut out = Vec::new();
        for (at, length, step) in steps(block, first) {
            let lines = &block[at..at + length];
            match step {
                Step::Receive(lines) => {
                    let documented = message(&lines);
                    let line = self.line().await;
                    line.open = line.open.checked_sub(1).expect("an answer without its request");
                    let response = line.client.read_response_to(&line.method.clone()).await;
                    let closes = response.header("connection") == Some("close");
                    let real = [response.head, response.body].concat();
                    let real = String::from_utf8(real).expect("a page is UTF-8");
                    if closes {
                        line.client.wait_for_close().await;
                        self.forget_line();
                    }
                    match self.meanings.compare(&documented, &real) {
                        Ok(()) => out.extend(lines.iter().map(|line| mark('<', line))),
                        Err(why) => {
                            mistakes.push(format!("{}: {why}", first + at));
                            let now = self.meanings.documentation_of(&documented, &real);
                            let (head, body) = now.split_once("\r\n\r\n").unwrap();
                            out.extend(head.split("\r\n").map(|line| mark('<', line)));
                            out.push("<".to_owned());
                            if !body.is_empty() {
                                out.extend(body.split('\n').map(|line| mark('<', line)));
                            }
                        }
                    }
                    continue;
                }
                Step::Send(lines) => {
                    let sent = self.meanings.really(&message(&lines));
                    check_length(&sent, first + at);
                    let line = self.line().await;
                    line.method = sent.split(' ').next().unwrap().to_owned();
                    line.open += 1;
                    line.client.send_raw(&sent).await;
                }
                Step::Held(count) => {
                    self.gate.wait_for_held(count).await;
                    for line in self.clients.values_mut() {
                        assert!(line.client.is_quiet().await, "line {}: not quiet", first + at);
                    }
                }
                Step::Publish { channel, text } => {
                    self.gate.publish(&channel, text).await;
                }
                connection => self.now = connection,
            }
            out.extend(lines.iter().map(|line| line.to_string()));
        }
        let open = self.clients.values().chain(&self.hook).map(|line| line.open).sum::<usize>();
        assert_eq!(open, 0, "line {first}: a request of this block has no answer in it");
        out
    }
}

impl Line {
    async fn to(addr: &Addr) -> Line {
        Line { client: Client::connect(addr).await, method: String::new(), open: 0 }
    }
}

/// The steps of a block, each with its place and its number of lines.
fn steps(block: &[&str], first: usize) -> Vec<(usize, usize, Step)> {
    let mut steps = Vec::new();
    let mut at = 0;
    while at < block.len() {
        let sign = block[at].chars().next();
        let run = |sign: char| block[at..].iter().take_while(|line| line.starts_with(sign)).count();
        let lines = |count: usize| {
            block[at..at + count]
                .iter()
                .map(|line| line.get(2..).unwrap_or("").to_owned())
                .collect()
        };
        let (length, step) = match sign {
            Some('>') => (run('>'), Step::Send(lines(run('>')))),
            Some('<') => (run('<'), Step::Receive(lines(run('<')))),
            Some('#') => (1, directive(&block[at][1..])),
            _ => panic!("line {}: begin it with >, < or #", first + at),
        };
        steps.push((at, length, step));
        at += length;
    }
    steps
}

fn directive(text: &str) -> Step {
    let (meant, _why) = text.split_once(": ").unwrap_or((text, ""));
    let mut words = meant.trim().splitn(2, ' ');
    let verb = words.next().unwrap();
    let rest = words.next().unwrap_or("");
    match (verb, rest.split_once(' ')) {
        ("client", _) => Step::Client(rest.to_owned()),
        ("hook", None) => Step::Hook,
        ("held", None) => Step::Held(rest.parse().expect("a number of held polls")),
        ("publish", Some((channel, text))) => {
            Step::Publish { channel: channel.to_owned(), text: text.to_owned() }
        }
        _ => panic!("no such line in a transcript: #{text}"),
    }
}

fn mark(sign: char, line: &str) -> String {
    format!("{sign} {line}").trim_end().to_owned()
}

/// A page must not send another length than it declares: the rest would be the next request.
fn check_length(sent: &str, line: usize) {
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    let said = head.split("\r\n").find_map(|line| line.strip_prefix("Content-Length: "));
    let wrong = said.filter(|said| *said != body.len().to_string() && !body.is_empty());
    assert_eq!(wrong, None, "line {line}: the body has {} bytes", body.len());
}

/// Head and body as they are on the wire.
fn message(lines: &[String]) -> String {
    let head = lines.iter().position(String::is_empty).unwrap_or(lines.len());
    let body = lines.get(head + 1..).unwrap_or_default().join("\n");
    lines[..head].join("\r\n") + "\r\n\r\n" + &body
}

#[test]
fn a_block_is_read_as_its_steps() {
    let block =
        ["# client anna: asks", "> GET / HTTP/1.1", ">", "# held 1", "# publish a b: c d", "< x"];
    let read: Vec<Step> = steps(&block, 1).into_iter().map(|(_, _, step)| step).collect();
    let publish = Step::Publish { channel: "a".to_owned(), text: "b".to_owned() };
    let sent = Step::Send(vec!["GET / HTTP/1.1".to_owned(), String::new()]);
    let received = Step::Receive(vec!["x".to_owned()]);
    assert_eq!(read, [Step::Client("anna".to_owned()), sent, Step::Held(1), publish, received]);
}

#[test]
fn a_message_is_joined_as_it_is_on_the_wire() {
    let lines = ["POST / HTTP/1.1", "A: b", "", "one", "two", ""].map(str::to_owned);
    assert_eq!(message(&lines), "POST / HTTP/1.1\r\nA: b\r\n\r\none\ntwo\n");
    assert_eq!(message(&lines[..3]), "POST / HTTP/1.1\r\nA: b\r\n\r\n");
}

#[tokio::test]
async fn a_page_with_a_wrong_answer_is_a_mistake_and_is_written_anew() {
    let page = "```toml transcript\n```\n```transcript\n# hook\n> GET /healthz HTTP/1.1\n\
        > Host: localhost\n>\n< HTTP/1.1 200 OK\n<\n< no\n```\n";
    let (written, mistakes) = replay(page).await;
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(
        written.contains("\n< HTTP/1.1 200 OK\n") && written.contains("\n< ok\n```\n"),
        "{written}"
    );
    assert_eq!(replay(&written).await, (written, Vec::new()));
}
