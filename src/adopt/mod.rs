//! Reads the PHP of an old site and writes the config under which the gate takes over its long
//! polls (`pollgate adopt`).
//!
//! Nothing is run, and nothing is guessed in silence: each finding names the file and the line,
//! and a rule with an open question is commented out. `pollgate check` accepts the config as it
//! stands.
//!
//! The way is: source, [`token`]s, statements ([`parse`]), a walk through them as PHP would go
//! ([`walk`], with [`eval`], [`calls`] and [`classes`] for the values), the acts of the script on it
//! ([`events`]), the finding ([`judge`]), config ([`print`]). Any input goes through:
//! the depth of code, the steps for one script and the size of values are bounded.
//!
//! The tokenizer and the parser are its own. A full parser (`mago-syntax` 1.29) reads the same old
//! PHP, but needs a newer compiler than this crate promises, 30 crates more, half a megabyte and a
//! minute to build, and its tree would have to be made into this small one all the same.

mod calls;
mod classes;
pub mod document_root;
mod eval;
mod events;
mod judge;
mod page;
mod parse;
mod print;
mod project;
mod reach;
mod routes;
mod site;
mod syntax;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_kinds;
#[cfg(test)]
mod tests_rules;
mod token;
pub mod trial;
mod value;
mod walk;

use project::Project;
use routes::{Address, Routes};
pub use site::as_site;
use std::collections::HashSet;
use syntax::Function;
use walk::Walker;

/// A file of the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path below the document root: `live/send.php`.
    pub path: String,
    /// Its text; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// The files that were read of a site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// The document root, absolute, without a slash at its end.
    pub root: String,
    /// Its files, PHP and pages.
    pub files: Vec<File>,
    /// The files that were left out, for people to read.
    pub left_out: Vec<String>,
}

/// Polls in one config. A site has a handful; more are a sign of a mistake.
const POLLS: usize = 50;

/// Statements and expressions looked at in all.
const STEPS: u32 = 3_000_000;

/// Code may be nested as deep as the parser allows, also in a thread with little room.
const STACK: usize = 64 * 1024 * 1024;

/// The finding about one script that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The script with the loop, from the document root on.
    pub script: String,
    /// The line of the loop.
    pub line: u32,
    /// The addresses at which it is requested; guessed if a framework decides.
    pub addresses: Vec<String>,
    /// A first poll of it, where that is a plain GET.
    pub request: Option<String>,
    /// True if the gate can take it over.
    pub verdict: Verdict,
    /// The questions that have to be answered first.
    pub questions: Vec<String>,
}

/// True if the gate can take a poll over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// With the config as it is printed.
    Live,
    /// When the questions are answered.
    Question,
    /// With this line of PHP.
    NeedsLine(String),
    /// Not, for this reason.
    Cannot(String),
}

impl Verdict {
    /// For people.
    pub fn words(&self) -> &'static str {
        match self {
            Self::Live => "live as printed.",
            Self::Question => "live after this question.",
            Self::NeedsLine(_) => "needs one line of PHP.",
            Self::Cannot(_) => "cannot be taken over.",
        }
    }

    /// For programs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Question => "question",
            Self::NeedsLine(_) => "needs_line",
            Self::Cannot(_) => "cannot",
        }
    }
}

/// A site's config and the findings behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adopted {
    /// TOML with comments, accepted as it stands.
    pub config: String,
    /// One for each script that waits.
    pub findings: Vec<Finding>,
}

impl Adopted {
    /// The report for programs.
    pub fn to_json(&self) -> serde_json::Value {
        let finding = |finding: &Finding| {
            let mut all = serde_json::json!({
                "script": finding.script,
                "line": finding.line,
                "addresses": finding.addresses,
                "verdict": finding.verdict.as_str(),
                "questions": finding.questions,
            });
            match &finding.verdict {
                Verdict::NeedsLine(text) => all["needs"] = text.as_str().into(),
                Verdict::Cannot(text) => all["why"] = text.as_str().into(),
                Verdict::Live | Verdict::Question => {}
            }
            all
        };
        let findings: Vec<serde_json::Value> = self.findings.iter().map(finding).collect();
        serde_json::json!({ "config": self.config, "findings": findings })
    }
}

/// The config for a site, as TOML with comments. It is accepted as it stands.
pub fn config_for(site: &Site) -> String {
    adopted(site).config
}

/// Reads a site: its config, and a verdict for each script that waits.
pub fn adopted(site: &Site) -> Adopted {
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(STACK);
        match reader.spawn_scoped(scope, || read(site)) {
            Ok(reader) => reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // No room for another thread: this one has enough for code that people write.
            Err(_) => read(site),
        }
    })
}

fn read(site: &Site) -> Adopted {
    let is_php = |file: &&File| {
        let extension = file.path.rsplit('.').next().unwrap_or_default();
        ["php", "php3", "php4", "php5", "phtml", "inc"].contains(&extension)
    };
    let sources: Vec<&File> = site.files.iter().filter(is_php).collect();
    let texts: Vec<&str> = sources.iter().map(|file| &*file.text).collect();
    let project = Project::new(&site.root, sources.iter().map(|file| (&*file.path, &*file.text)));
    let mut reader = Reader::new(&project);
    let waiting = reach::of_waiting(&project, &texts);
    for entry in &waiting {
        reader.script(*entry);
    }
    for entry in &waiting {
        reader.methods(*entry);
    }
    reader.closures(&waiting);
    if !reader.polls.is_empty() {
        let writing = reach::of_writing(&project, &texts);
        for entry in &writing {
            reader.script(*entry);
        }
        // Of a method that a script calls, the script says with which request.
        for entry in &writing {
            reader.methods(*entry);
        }
        reader.closures(&writing);
    }
    let polls = reader.own_polls();
    let (config, findings) = print::config(site, &project, &polls, &reader.writers, &reader.cut);
    Adopted { config, findings }
}

/// Goes through the scripts of a project and gathers what was found.
struct Reader<'a> {
    project: &'a Project,
    routes: Routes<'a>,
    polls: Vec<judge::Poll>,
    writers: Vec<judge::Writer>,
    /// Scripts and functions that were gone through.
    done: HashSet<usize>,
    reached: HashSet<(usize, u32)>,
    included: HashSet<usize>,
    /// Scripts that were not read to their end.
    cut: Vec<usize>,
    steps: u32,
}

impl<'a> Reader<'a> {
    fn new(project: &'a Project) -> Self {
        Self {
            project,
            routes: Routes::of(project),
            polls: Vec::new(),
            writers: Vec::new(),
            done: HashSet::new(),
            reached: HashSet::new(),
            included: HashSet::new(),
            cut: Vec::new(),
            steps: STEPS,
        }
    }

    /// Notes the acts of a script as it is requested.
    fn script(&mut self, entry: usize) {
        if self.steps == 0 || !self.done.insert(entry) {
            return;
        }
        let walked = Walker::new(self.project, entry).script();
        let path = self.project.scripts[entry].path.clone();
        self.note(entry, None, vec![Address { path, ..Address::default() }], walked);
    }

    /// Notes the acts of its methods that no script calls, so that perhaps a framework does.
    fn methods(&mut self, script: usize) {
        let project = self.project;
        for (_, class) in project.classes().filter(|(place, _)| *place == script) {
            for method in &class.methods {
                if self.steps == 0 || !self.reached.insert((script, method.line)) {
                    continue;
                }
                let walked = Walker::new(project, script).method(&class.name, method);
                let path = &project.scripts[script].path;
                let addresses = self.routes.addresses(path, &class.name, method);
                let name = format!("{}::{}", class.name, method.name);
                self.note(script, Some(name), addresses, walked);
            }
        }
    }

    /// The functions that routes in these scripts have of their own.
    fn closures(&mut self, scripts: &[usize]) {
        let all: Vec<(usize, &Function, Address)> = self
            .routes
            .closures()
            .filter(|(closure, _)| scripts.contains(&closure.script))
            .map(|(closure, address)| (closure.script, closure.function, address))
            .collect();
        for (script, function, address) in all {
            if self.steps == 0 || !self.reached.insert((script, function.line)) {
                continue;
            }
            let walked = Walker::new(self.project, script).closure(function);
            self.note(script, Some(address.path.clone()), vec![address], walked);
        }
    }

    fn note(
        &mut self,
        entry: usize,
        method: Option<String>,
        addresses: Vec<Address>,
        walked: events::Walked,
    ) {
        let polls = judge::polls(self.project, entry, method.as_deref(), &addresses, &walked);
        self.polls.extend(polls);
        self.writers.extend(judge::writers(entry, &addresses, &walked));
        self.steps = self.steps.saturating_sub(walked.steps);
        if walked.cut && !self.cut.contains(&entry) {
            self.cut.push(entry);
        }
        if method.is_none() {
            self.reached.extend(walked.functions);
            self.included.extend(walked.included.into_iter().filter(|script| *script != entry));
        }
    }

    /// The polls, without those in a file that others include: there they belong to the others.
    fn own_polls(&self) -> Vec<judge::Poll> {
        let of_another = |poll: &judge::Poll| {
            let elsewhere = |other: &judge::Poll| {
                other.entry != poll.entry && (other.script, other.line) == (poll.script, poll.line)
            };
            poll.entry == poll.script
                && self.included.contains(&poll.entry)
                && self.polls.iter().any(elsewhere)
        };
        self.polls.iter().filter(|poll| !of_another(poll)).take(POLLS).cloned().collect()
    }
}
