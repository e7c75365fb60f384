//! Findings as a config with comments: its head, and a rule for each poll.
//!
//! The sources of a rule's news are in `sources`, lines and comments in `text`.

mod sources;
mod text;

use super::judge::conditions::{name_of, value_of};
use super::judge::{Answer, News, Note, Poll, Shape, Writer, parameter};
use super::page;
use super::project::Project;
use super::routes::Address;
use super::value::Source;
use super::{Finding, Site, Verdict};
use sources::{Feed, same};
use text::{Text, list, quoted};

/// The whole config, and what is said of each script that waits.
pub(super) fn config(
    site: &Site,
    project: &Project,
    polls: &[Poll],
    writers: &[Writer],
    cut: &[usize],
) -> (String, Vec<Finding>) {
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
    let findings = polls.iter().map(|poll| printer.poll(poll)).collect();
    (printer.out.text, findings)
}

struct Printer<'a> {
    site: &'a Site,
    project: &'a Project,
    writers: &'a [Writer],
    out: Text,
    /// The channels given so far.
    channels: Vec<(News, String)>,
    /// The watches, captures and rules that are written already.
    fed: Vec<String>,
}

impl Printer<'_> {
    fn poll(&mut self, poll: &Poll) -> Finding {
        let mut questions = poll.questions.clone();
        let source = self.source(poll, &mut questions);
        let addresses = self.addresses(poll);
        if !addresses.iter().all(|address| is_address(&address.path.replace("/*", "/"))) {
            questions.push("how is the address of this script written?".to_owned());
        }
        if poll.cannot.is_some() {
            questions.clear();
        }
        let verdict = match (&poll.cannot, &poll.needs) {
            (Some(why), _) => Verdict::Cannot(why.clone()),
            (None, Some(line)) => Verdict::NeedsLine(line.clone()),
            (None, None) if questions.is_empty() => Verdict::Live,
            (None, None) => Verdict::Question,
        };
        self.out.text.push('\n');
        self.out.comment(&format!(
            "{}: {}",
            self.place_of(poll.script, poll.line),
            verdict.words()
        ));
        self.notes(&poll.notes);
        self.writers_of(poll);
        for question in &questions {
            self.out.comment(&format!("? {question}"));
        }
        self.out.commented_out = verdict != Verdict::Live;
        match &verdict {
            Verdict::Live => {}
            Verdict::Question => {
                self.out.comment("  Take the `#` away from the lines below when that is answered.")
            }
            Verdict::NeedsLine(line) => {
                self.out.comment(&format!("  {line}. Then take the `#` away below."));
            }
            Verdict::Cannot(why) => self.out.comment(&format!("  Because {why}.")),
        }
        if !matches!(verdict, Verdict::Cannot(_)) {
            for address in &addresses {
                self.rules(poll, address, &source);
            }
            self.stamp(poll, &source.channel);
            self.feed(poll, &source);
        }
        self.out.commented_out = false;
        Finding {
            script: self.project.scripts[poll.script].path.clone(),
            line: poll.line,
            request: request_of(poll, &addresses),
            addresses: addresses.into_iter().map(|address| address.path).collect(),
            verdict,
            questions,
        }
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

    /// The requests that change it.
    fn writers_of(&mut self, poll: &Poll) {
        let mut lines = Vec::new();
        for writer in self.writers.iter().filter(|writer| same(&writer.news, &poll.news)) {
            let place = self.place_of(writer.script, writer.line);
            let line = match writer.parameters.first() {
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

    fn addresses(&self, poll: &Poll) -> Vec<Address> {
        let guess = match &poll.method {
            Some(method) if poll.addresses.is_empty() => method,
            _ => return poll.addresses.clone(),
        };
        let (class, method) = guess.split_once("::").unwrap_or(("", guess));
        let class = class.to_ascii_lowercase().replace("controller", "").replace("action", "");
        let path = format!("/{class}/{}", method.to_ascii_lowercase());
        vec![Address { path, ..Address::default() }]
    }

    /// The rules at one address: for the requests that are no polls, and for those that are.
    fn rules(&mut self, poll: &Poll, address: &Address, source: &Feed) {
        for path in &address.apart {
            self.no_poll(path, "This is another address.", &address.when, &[]);
        }
        let conditions = &poll.conditions;
        for other in &conditions.others {
            let when: Vec<String> = address.when.iter().chain(&other.when).cloned().collect();
            self.no_poll(&address.path, "With these it writes.", &when, &other.unless);
        }
        let none = vec![&[][..]];
        let any = conditions.any.iter().map(std::slice::from_ref).collect::<Vec<_>>();
        for any in if any.is_empty() { none } else { any } {
            self.rule(poll, address, any, &source.channel);
            if let (Some((_, name)), Some(usual)) = (&poll.names, &poll.usual_name) {
                self.out.comment(&format!("Without {name}, which the rule above needs."));
                self.rule(poll, address, any, usual);
            }
        }
    }

    fn no_poll(&mut self, path: &str, why: &str, when: &[String], unless: &[String]) {
        let key = format!("{path} {when:?} {unless:?}");
        if self.fed.contains(&key) {
            return;
        }
        self.fed.push(key);
        self.out.comment(why);
        self.out.line("[[poll]]");
        self.out.key("path", &quoted(path));
        if !when.is_empty() {
            self.out.key("when", &list(when));
        }
        if !unless.is_empty() {
            self.out.key("unless", &list(unless));
        }
        self.out.key("dialect", "\"none\"");
    }

    fn rule(&mut self, poll: &Poll, address: &Address, any: &[String], channel: &str) {
        self.out.line("[[poll]]");
        self.out.key("path", &quoted(&address.path));
        let mut when = address.when.clone();
        let of_poll = poll.conditions.when.iter().chain(any);
        when.extend(of_poll.filter(|one| !address.when.contains(one)).cloned());
        if poll.answer == Answer::NovComet {
            when.retain(|one| name_of(one) != "subscribed");
            when.push("subscribed".to_owned());
        }
        if !when.is_empty() {
            self.out.key("when", &list(&when));
        }
        if !poll.conditions.unless.is_empty() {
            self.out.key("unless", &list(&poll.conditions.unless));
        }
        match address.source.or(poll.methods) {
            Some(Source::Get) => self.out.key("methods", "[\"GET\"]"),
            Some(Source::Post) => self.out.key("methods", "[\"POST\"]"),
            _ => {}
        }
        match &poll.answer {
            Answer::NovComet => {
                self.out.key("dialect", "\"novcomet\"");
                self.timeout(poll);
            }
            Answer::Timestamp(shape) => self.timestamp(poll, shape, channel),
            Answer::Replay(why) => self.replay(poll, why, channel),
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
        let message = quoted(&shape.message);
        if shape.message == "." {
            self.out.key("fields", &format!("{{ message = {message} }}"));
        } else {
            let cursor = quoted(&shape.cursor);
            self.out.key("fields", &format!("{{ message = {message}, cursor = {cursor} }}"));
        }
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
        if shape.latest {
            self.out.comment("At the end of its time the script answers as if there were news.");
            self.out.key("on_timeout", "\"latest\"");
        }
        if poll.wait.is_some() {
            return self.timeout(poll);
        }
        let script = &self.project.scripts[poll.entry].path;
        match page::takes_none(self.site, script, &shape.message) {
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
        if let Some(cursor) = &poll.cursor {
            if !poll.waits_first {
                let text = "A poll without it is a first one, which the site answers at once.";
                self.out.comment(text);
            }
            self.out.key("cursor", &quoted(cursor));
            if poll.waits_first {
                self.out.comment("Without it, the script starts from now.");
                self.out.key("first", "\"wait\"");
            }
        }
        if let Some(name) = &poll.wait_parameter {
            self.out.comment("When it is forwarded, the script need not wait again.");
            self.out.key("add_query", &quoted(&format!("{name}=0")));
            return;
        }
        if poll.needs.is_some() {
            self.out.key("add_query", "\"pollgate=1\"");
            self.out.comment("Only what changes after a poll is news for it, as in the script.");
            self.out.key("slack", "\"0s\"");
        } else {
            self.out.comment("The script waits by itself: the gate takes such a poll back.");
            // Where it pauses before it looks, news are found after that.
            let pause = poll.pause.filter(|pause| *pause > 1.0).unwrap_or(0.0);
            let max_wait = 3.0 + pause.min(60.0).ceil();
            self.out.key("max_wait", &format!("\"{max_wait}s\""));
        }
        // A first poll that is not known as one must reach PHP; an `id` may be that of a room.
        let known = |name: &str| !name.eq_ignore_ascii_case("id");
        let sure = poll.cursor.as_deref().is_some_and(known) || poll.sent.is_empty();
        if let Some(text) = poll.on_timeout.as_ref().filter(|_| sure) {
            self.out.comment("The script's own words when its time is over.");
            self.out.key("on_timeout", &quoted(text));
            if let Some(content_type) = &poll.content_type {
                self.out.key("content_type", &quoted(content_type));
            }
        } else if poll.wait.is_some() && poll.needs.is_none() {
            self.out.comment(
                "At its timeout the script gives an answer that could not be read here. The gate \
                 waits on until there is news. If that answer is constant, write it as on_timeout.",
            );
        }
        self.timeout(poll);
    }

    /// The unit of its times, where that is not the gate's own.
    fn stamp(&mut self, poll: &Poll, channel: &str) {
        let Answer::Timestamp(shape) = &poll.answer else { return };
        let (why, stamp) = if shape.millis {
            ("Its times are milliseconds.".to_owned(), "millis")
        } else if let Some((path, line)) =
            page::cuts(self.site, &self.project.scripts[poll.entry].path, &shape.cursor)
        {
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

/// True if a file's name is its address as well.
fn is_address(path: &str) -> bool {
    !path.contains(|c: char| c.is_control() || matches!(c, '*' | '{' | '}' | '?' | '#' | '%'))
}

/// A first poll: the address with what the rule must have, and without a cursor.
fn request_of(poll: &Poll, addresses: &[Address]) -> Option<String> {
    let address = addresses.first().filter(|address| is_address(&address.path))?;
    if poll.methods == Some(Source::Post) {
        return None;
    }
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let mut pairs = Vec::new();
    for one in address.when.iter().chain(&poll.conditions.when).chain(poll.conditions.any.first()) {
        if name_of(one) != "subscribed" || poll.answer != Answer::NovComet {
            let value = value_of(one).unwrap_or("0");
            pairs.push(format!("{}={}", encode(name_of(one)), encode(value)));
        }
    }
    if poll.answer == Answer::NovComet {
        pairs.push("subscribed[pollgate]=0".to_owned());
    }
    let path = encode(&address.path).replace("%2F", "/").replace("%2E", ".").replace("%2D", "-");
    let mark = if pairs.is_empty() { "" } else { "?" };
    Some(format!("{path}{mark}{}", pairs.join("&")))
}
