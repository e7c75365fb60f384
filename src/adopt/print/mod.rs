//! Findings as a config with comments: its head, and a rule for each poll.
//!
//! Where a rule's news come from is in `sources`, how lines and comments are written in `text`.

mod sources;
mod text;

use super::Site;
use super::judge::{Answer, News, Note, Poll, Shape, Writer, parameter};
use super::page;
use super::project::Project;
use super::value::Source;
use sources::{Feed, same};
use text::{Text, list, quoted};

/// The whole config.
pub(super) fn config(
    site: &Site,
    project: &Project,
    polls: &[Poll],
    writers: &[Writer],
    cut: &[usize],
) -> String {
    let mut out = Text::default();
    out.comment(&format!(
        "Written by `pollgate adopt` from {} scripts below {}.",
        project.scripts.len(),
        site.root
    ));
    if polls.is_empty() {
        out.comment("No script was found that waits for news, so there is no rule in it.");
        out.comment("Polls of pollgate's own format are at /comet: see docs/dialects/native.md.");
    } else {
        out.comment(
            "Each rule says where it comes from. A rule behind `#?` needs an answer first.",
        );
        out.comment("Paths are as seen from the document root, and files as they lie here.");
    }
    for text in &site.left_out {
        out.comment(&format!("Not read: {text}."));
    }
    for entry in cut {
        let path = &project.scripts[*entry].path;
        out.comment(&format!("Not read to its end, being too large: {path}."));
    }
    out.text.push_str(
        "\n[upstream]\n# Where the site answers today. No file tells: change it if it is wrong.\n\
         servers = [\"127.0.0.1:8000\"]\n",
    );
    let mut printer =
        Printer { site, project, writers, out, channels: Vec::new(), fed: Vec::new() };
    for poll in polls {
        printer.poll(poll);
    }
    printer.out.text
}

struct Printer<'a> {
    site: &'a Site,
    project: &'a Project,
    writers: &'a [Writer],
    out: Text,
    /// The channels given so far.
    channels: Vec<(News, String)>,
    /// What is already watched or captured.
    fed: Vec<String>,
}

impl Printer<'_> {
    fn poll(&mut self, poll: &Poll) {
        let mut questions = poll.questions.clone();
        let source = self.source(poll, &mut questions);
        let path = self.path(poll);
        if !is_address(&path) {
            questions.push("how is the address of this script written?".to_owned());
        }
        self.out.text.push('\n');
        self.notes(&poll.notes);
        self.writers_of(poll);
        for question in &questions {
            self.out.comment(&format!("? {question}"));
        }
        self.out.commented_out = !questions.is_empty();
        if self.out.commented_out {
            self.out.comment("  Take the `#` away from the lines below when that is answered.");
        }
        self.rule(poll, &path, &source);
        self.stamp(poll, &source.channel);
        self.feed(poll, &source);
        self.out.commented_out = false;
    }

    fn notes(&mut self, notes: &[Note]) {
        for note in notes {
            let place = self.place_of(note.script, note.line);
            self.out.comment(&format!("{place}  {}", note.text));
        }
    }

    fn place_of(&self, script: usize, line: u32) -> String {
        format!("{}:{line}", self.project.scripts[script].path.trim_start_matches('/'))
    }

    /// Which requests change it.
    fn writers_of(&mut self, poll: &Poll) {
        let mut lines = Vec::new();
        for writer in self.writers.iter().filter(|writer| same(&writer.news, &poll.news)) {
            let place = self.place_of(writer.script, writer.line);
            let line = match &writer.parameter {
                Some((source, name)) => {
                    format!("{place}  changes it, given {}", parameter(*source, name))
                }
                None => format!("{place}  changes it"),
            };
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines.iter().take(10).for_each(|line| self.out.comment(line));
    }

    fn path(&self, poll: &Poll) -> String {
        match &poll.method {
            Some(method) => {
                let (class, method) = method.split_once("::").unwrap_or(("", method));
                let class =
                    class.to_ascii_lowercase().replace("controller", "").replace("action", "");
                format!("/{class}/{}", method.to_ascii_lowercase())
            }
            None => self.project.scripts[poll.entry].path.clone(),
        }
    }

    fn rule(&mut self, poll: &Poll, path: &str, source: &Feed) {
        self.out.line("[[poll]]");
        self.out.key("path", &quoted(path));
        let mut when = poll.when.clone();
        if poll.answer == Answer::NovComet && !when.iter().any(|name| name == "subscribed") {
            when.push("subscribed".to_owned());
        }
        if !when.is_empty() {
            self.out.key("when", &list(&when));
        }
        if !poll.unless.is_empty() {
            self.out.key("unless", &list(&poll.unless));
        }
        match poll.methods {
            Some(Source::Get) => self.out.key("methods", "[\"GET\"]"),
            Some(Source::Post) => self.out.key("methods", "[\"POST\"]"),
            _ => {}
        }
        match &poll.answer {
            Answer::NovComet => {
                self.out.key("dialect", "\"novcomet\"");
                self.timeout(poll);
            }
            Answer::Timestamp(shape) => self.timestamp(poll, shape, &source.channel),
            Answer::Replay(why) => self.replay(poll, why, &source.channel),
        }
    }

    fn timeout(&mut self, poll: &Poll) {
        if let Some(wait) = poll.wait {
            self.out.comment("As long as the script waits.");
            self.out.key("timeout", &format!("\"{}s\"", wait.min(3600.0).round()));
        }
    }

    fn timestamp(&mut self, poll: &Poll, shape: &Shape, channel: &str) {
        self.out.key("dialect", "\"timestamp\"");
        self.out.key("channel", &quoted(channel));
        let (message, cursor) = (quoted(&shape.message), quoted(&shape.cursor));
        self.out.key("fields", &format!("{{ message = {message}, cursor = {cursor} }}"));
        if shape.waits_first {
            self.out.comment("Without a time, the script starts from now.");
            self.out.key("first", "\"wait\"");
        }
        if let Some(callback) = &shape.callback {
            self.out.key("callback", &quoted(callback));
        }
        if let Some(content_type) = &shape.content_type {
            self.out.key("content_type", &quoted(content_type));
        }
        if !shape.extra.is_empty() {
            let extra: Vec<String> = shape
                .extra
                .iter()
                .map(|(name, value)| format!("{} = {value}", quoted(name)))
                .collect();
            self.out.key("extra", &format!("{{ {} }}", extra.join(", ")));
        }
        if poll.wait.is_some() {
            return self.timeout(poll);
        }
        match page::takes_none(self.site, &shape.message) {
            Some((path, line)) => self.out.comment(&format!(
                "The script waits for ever. The gate answers without a message after hold.timeout, \
                 which {path}:{line} seems to expect."
            )),
            None => {
                self.out.comment(
                    "The script waits for ever, and no page was seen that takes an answer without a \
                     message.",
                );
                self.out.key("timeout", "\"0s\"");
            }
        }
    }

    fn replay(&mut self, poll: &Poll, why: &str, channel: &str) {
        self.out.comment(&format!("Held at the gate, answered by the site: {why}."));
        self.out.key("dialect", "\"replay\"");
        self.out.key("channel", &quoted(channel));
        if let Some(name) = &poll.wait_parameter {
            self.out.comment("When it is forwarded, the script need not wait again.");
            self.out.key("add_query", &quoted(&format!("{name}=0")));
            return;
        }
        self.out.comment(
            "The script would wait itself, so no poll is forwarded without news: not even one that \
             may have missed them (slack).",
        );
        self.out.key("slack", "\"0s\"");
        self.timeout(poll);
        if poll.wait.is_none() && matches!(poll.news, News::File(_)) {
            self.out.key("timeout", "\"0s\"");
        }
    }

    /// The unit of its times, where that is not the gate's own.
    fn stamp(&mut self, poll: &Poll, channel: &str) {
        let Answer::Timestamp(shape) = &poll.answer else { return };
        let (why, stamp) = if shape.millis {
            ("Its times are milliseconds.".to_owned(), "millis")
        } else if let Some((path, line)) = page::cuts(self.site, &shape.cursor) {
            (format!("{path}:{line} makes a whole number of the time."), "seconds")
        } else {
            return;
        };
        let name = if channel.contains('{') { "*" } else { channel };
        self.out.text.push('\n');
        self.out.comment(&why);
        self.out.line("[[channel]]");
        self.out.key("match", &quoted(name));
        self.out.key("stamp", &quoted(stamp));
    }
}

/// Whether a file's name is its address as well.
fn is_address(path: &str) -> bool {
    !path.contains(|c: char| c.is_control() || matches!(c, '*' | '{' | '}' | '?' | '#' | '%'))
}
