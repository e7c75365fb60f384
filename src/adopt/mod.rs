//! Reads the PHP of an old site and writes the config under which the gate takes over its long
//! polls (`pollgate adopt`).
//!
//! Nothing is run, and nothing is guessed in silence: each finding names the file and the line,
//! and what could not be told is commented out, with a question. What comes out is a config that
//! is accepted as it stands.
//!
//! The way is: source, [`token`]s, statements ([`parse`]), a walk through them as PHP would go
//! ([`walk`], with [`eval`], [`calls`] and [`classes`] for what they come to), what the script does
//! on it ([`events`]), what it therefore is ([`judge`]), config ([`print`]). Any input goes through:
//! the depth of code, the steps for one script and the size of values are bounded.

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
mod site;
mod syntax;
#[cfg(test)]
mod tests;
mod token;
mod value;
mod walk;

use project::Project;
pub use site::as_site;
use std::collections::HashSet;
use walk::Walker;

/// A file of the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path below the document root: `live/send.php`.
    pub path: String,
    /// What is in it; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// What was read of a site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// The document root, absolute, without a slash at its end.
    pub root: String,
    /// Its files, PHP and pages.
    pub files: Vec<File>,
    /// What was left out, for people to read.
    pub left_out: Vec<String>,
}

/// Polls in one config. A site has a handful; more are a sign of a mistake.
const POLLS: usize = 50;

/// Statements and expressions looked at in all.
const STEPS: u32 = 3_000_000;

/// Code may be nested as deep as the parser allows, also in a thread with little room.
const STACK: usize = 64 * 1024 * 1024;

/// The config for a site, as TOML with comments. It is accepted as it stands.
pub fn config_for(site: &Site) -> String {
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(STACK);
        match reader.spawn_scoped(scope, || read(site)) {
            Ok(reader) => reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // No room for another thread: this one has enough for code that people write.
            Err(_) => read(site),
        }
    })
}

fn read(site: &Site) -> String {
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
    if !reader.polls.is_empty() {
        for entry in reach::of_writing(&texts) {
            reader.script(entry);
            reader.methods(entry);
        }
    }
    let polls = reader.own_polls();
    print::config(site, &project, &polls, &reader.writers, &reader.cut)
}

/// Goes through the scripts of a project and gathers what was found.
struct Reader<'a> {
    project: &'a Project,
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
            polls: Vec::new(),
            writers: Vec::new(),
            done: HashSet::new(),
            reached: HashSet::new(),
            included: HashSet::new(),
            cut: Vec::new(),
            steps: STEPS,
        }
    }

    /// What a script does when it is requested.
    fn script(&mut self, entry: usize) {
        if self.steps == 0 || !self.done.insert(entry) {
            return;
        }
        let walked = Walker::new(self.project, entry).script();
        self.note(entry, None, walked);
    }

    /// What its methods do that no script calls, so that perhaps a framework does.
    fn methods(&mut self, script: usize) {
        let project = self.project;
        for (_, class) in project.classes().filter(|(place, _)| *place == script) {
            for method in &class.methods {
                if self.steps == 0 || !self.reached.insert((script, method.line)) {
                    continue;
                }
                let walked = Walker::new(project, script).method(&class.name, method);
                self.note(script, Some(format!("{}::{}", class.name, method.name)), walked);
            }
        }
    }

    fn note(&mut self, entry: usize, method: Option<String>, walked: events::Walked) {
        self.polls.extend(judge::polls(self.project, entry, method.as_deref(), &walked));
        self.writers.extend(judge::writers(entry, method.is_none(), &walked));
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
