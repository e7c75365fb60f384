//! One waiting loop: what it waits for, how long, and what belongs to it.

use super::answer::json_in;
use super::{Answer, News, Note, Poll, parameter};
use crate::adopt::events::{Event, Guard, Walked, What};
use crate::adopt::project::Project;
use crate::adopt::routes::Address;
use crate::adopt::value::{Origin, Place, Source, Value};
use std::collections::BTreeSet;

/// One waiting loop and what belongs to it.
pub(super) struct WaitingLoop<'a> {
    pub(super) project: &'a Project,
    entry: usize,
    pub(super) walked: &'a Walked,
    pub(super) around: usize,
    /// The guards at the loop.
    pub(super) guards: &'a [Guard],
    pub(super) news: News,
    pub(super) news_line: (usize, u32),
    notes: Vec<Note>,
}

/// The value that the client sends to be compared with the file's time.
pub(super) struct Cursor {
    pub(super) source: Source,
    /// The parameter's name.
    pub(super) name: String,
    /// The value that the script compares.
    pub(super) compared: Value,
}

impl<'a> WaitingLoop<'a> {
    pub(super) fn new(
        project: &'a Project,
        entry: usize,
        walked: &'a Walked,
        around: usize,
    ) -> Option<Self> {
        let inside = || walked.events.iter().filter(|event| event.loops.contains(&around));
        let of = |event: &'a Event| match &event.what {
            What::Look(place) => Some((0, News::File(place.clone()), event)),
            What::Query { table, writes: false, .. } => {
                Some((1, News::Table(table.clone()), event))
            }
            What::Cache(key) => Some((2, News::Cache(key.clone()), event)),
            What::Read(place) => Some((3, News::File(place.clone()), event)),
            What::Session => Some((4, News::Session, event)),
            _ => None,
        };
        let (_, news, event) = inside().filter_map(of).min_by_key(|(rank, _, _)| *rank)?;
        let pause = |event: &&Event| matches!(event.what, What::Sleep(_));
        let sleeps = inside().find(pause);
        let looks = inside().find(|event| matches!(event.what, What::Clear));
        let guards = &sleeps.or(looks)?.guards;
        let news_line = event.at();
        let notes = Vec::new();
        Some(Self { project, entry, walked, around, guards, news, news_line, notes })
    }

    pub(super) fn inside(&self) -> impl Iterator<Item = &'a Event> {
        let around = self.around;
        self.walked.events.iter().filter(move |event| event.loops.contains(&around))
    }

    /// The acts that are possible in the same request as the loop.
    pub(super) fn beside(&self) -> impl Iterator<Item = &'a Event> {
        let guards = self.guards;
        let fits = move |event: &&Event| {
            !event.guards.iter().any(|one| guards.iter().any(|other| one.contradicts(other)))
        };
        self.walked.events.iter().filter(fits)
    }

    pub(super) fn note(&mut self, (script, line): (usize, u32), text: impl Into<String>) {
        self.notes.push(Note { script, line, text: text.into() });
    }

    pub(super) fn poll(mut self, method: Option<&str>, addresses: &[Address]) -> Option<Poll> {
        let echoed = Value::join(self.beside().filter_map(|event| match &event.what {
            What::Echo(value) => Some(value.clone()),
            _ => None,
        }));
        let cursor = self.cursor();
        let json = json_in(&echoed);
        // A loop that waits for something else, as for a lock: it answers no question.
        let tells = self.echoes_the_update(&echoed);
        let looks = cursor.is_some() && (tells || json.is_some() || self.answers_a_constant());
        // Rows that wait for one visitor, named by a session or a parameter.
        let queue = matches!(self.news, News::Table(_)) && tells && method.is_none();
        let asks = queue || !self.parameters().is_empty() && (json.is_some() || tells);
        // Without a pause it may be any loop.
        let sleeps = self.inside().any(|event| matches!(event.what, What::Sleep(_)));
        if !sleeps && cursor.is_none() {
            return None;
        }
        let session = self.news == News::Session && (json.is_some() || self.answers_a_constant());
        let since_asked = !looks && self.compares_with_itself();
        if !looks
            && !asks
            && !session
            && !(since_asked && (json.is_some() || tells || self.answers_a_constant()))
        {
            return None;
        }
        let around = &self.walked.loops[self.around];
        let script = around.script;
        let line = around.line;
        self.describe(script, line, cursor.as_ref());
        let (wait, wait_parameter) = self.wait();
        let asked = self.asked(cursor.as_ref(), wait_parameter.as_deref());
        let mut questions = Vec::new();
        if method.is_some() && addresses.is_empty() {
            questions.push("at which address does the framework call this method?".to_owned());
        }
        let waits_first = cursor
            .as_ref()
            .is_some_and(|cursor| cursor.compared.has(|origin| *origin == Origin::Clock));
        // A position in the address is none that a rule can name; without one it is most often 0.
        let mut addresses = addresses.to_vec();
        let compared = cursor.as_ref().is_some_and(|cursor| cursor.source == Source::Path);
        let in_query = || self.parameters().iter().any(|(source, _)| *source == Source::Path);
        let in_path = compared || asked.is_none() && in_query();
        let asked = asked.filter(|_| !in_path);
        for address in addresses.iter_mut().filter(|_| in_path) {
            if let Some(start) = address.path.strip_suffix('*') {
                let first = format!("{start}0");
                address.apart.push(first);
            }
        }
        let position = asked.as_deref().filter(|_| !waits_first);
        let (conditions, methods) = self.conditions(position, &mut questions);
        let methods = methods.or(cursor.as_ref().map(|cursor| cursor.source));
        let methods = methods.filter(|source| matches!(source, Source::Get | Source::Post));
        let sent = self.sent(asked.as_deref());
        let mut answer = self.answer(cursor.as_ref(), json.as_ref(), &echoed);
        let other_files = self.other_files();
        if !other_files.is_empty() && !matches!(answer, Answer::Replay(_)) {
            answer = Answer::Replay("it waits for several files".to_owned());
        }
        if let Answer::Timestamp(shape) = &mut answer {
            shape.latest = wait.is_some() && self.answers_always();
        }
        let on_timeout = self.constant_answer(wait.is_some());
        let content_type = self.content_type(false);
        let (needs, cannot) = self.obstacles(since_asked, &answer);
        if let Some(text) = self.presence() {
            questions.push(text);
        }
        let names = self.names(&mut questions);
        let usual_name = self.usual_name().filter(|_| names.is_some());
        let other_tables = self.other_tables();
        let pause = self.pause();
        let database = self.walked.events.iter().find_map(|event| match &event.what {
            What::Database(place) => Some((event.at(), place.clone())),
            _ => None,
        });
        let database = database.filter(|_| matches!(self.news, News::Table(_)));
        if let Some((at, place)) = &database {
            let text = format!("the database is {}", self.shown(place));
            self.note(*at, text);
        }
        let database = database.map(|(_, place)| place);
        self.notes.sort();
        self.notes.dedup();
        Some(Poll {
            entry: self.entry,
            script,
            line,
            method: method.map(str::to_owned),
            addresses,
            cursor: asked,
            on_timeout,
            needs,
            cannot,
            news: self.news,
            other_tables,
            other_files,
            answer,
            conditions,
            sent,
            methods,
            waits_first,
            content_type,
            pause,
            wait,
            wait_parameter,
            database,
            names,
            usual_name,
            notes: self.notes,
            questions,
        })
    }

    /// The names of all parameters that come with a poll.
    fn sent(&self, asked: Option<&str>) -> BTreeSet<String> {
        let guarded = self.guards.iter().filter_map(|guard| match guard {
            Guard::Is(_, name, _) => Some(name.clone()),
            guard => guard.required().map(|(_, name)| name.to_owned()),
        });
        let in_loop = self.parameters().into_iter().map(|(_, name)| name);
        guarded.chain(in_loop).chain(asked.map(str::to_owned)).collect()
    }

    /// The parameters of the request that the loop has to do with.
    pub(super) fn parameters(&self) -> BTreeSet<(Source, String)> {
        let values = self.inside().flat_map(|event| match &event.what {
            What::Query { from, .. } => vec![from],
            What::Compare(_, left, right) => vec![left, right],
            What::Echo(value) => vec![value],
            _ => Vec::new(),
        });
        let parameters = |value: &Value| -> Vec<(Source, String)> {
            let all = value.all_origins();
            let of = |origin: Origin| match origin {
                Origin::Parameter(source, name) => Some((source, name)),
                _ => None,
            };
            all.into_iter().filter_map(of).collect()
        };
        values.flat_map(parameters).collect()
    }

    fn cursor(&self) -> Option<Cursor> {
        let timed = |value: &Value| {
            value.has(|origin| matches!(origin, Origin::ChangeTime(_) | Origin::State(_)))
        };
        let content = |value: &Value| value.has(|origin| matches!(origin, Origin::Content(_)));
        self.inside().find_map(|event| {
            let What::Compare(_, left, right) = &event.what else { return None };
            let other = match (timed(left) || content(left), timed(right) || content(right)) {
                (true, false) => right,
                (false, true) => left,
                _ => return None,
            };
            let (source, name) = other.parameters().next()?;
            Some(Cursor { source, name: name.to_owned(), compared: other.clone() })
        })
    }

    fn describe(&mut self, script: usize, line: u32, cursor: Option<&Cursor>) {
        let pause = self.inside().find_map(|event| match event.what {
            What::Sleep(Some(pause)) => Some(pause),
            _ => None,
        });
        let pause = match pause {
            Some(pause) if pause < 1.0 => format!(" and looks every {} ms", pause * 1000.0),
            Some(pause) => format!(" and looks every {pause} s"),
            None => String::new(),
        };
        let what = match &self.news {
            News::File(place) => format!("{} to change", self.shown(place)),
            News::Table(table) if table.is_empty() => "rows of a database".to_owned(),
            News::Table(table) => format!("rows of the table {table}"),
            News::Cache(key) if key.is_empty() => "something in a cache or queue".to_owned(),
            News::Cache(key) => format!("the key {key} of a cache"),
            News::Session => "something in the visitor's session".to_owned(),
        };
        self.note((script, line), format!("waits for {what}{pause}"));
        if let Some(cursor) = cursor {
            let text = format!("compares it with {}", parameter(cursor.source, &cursor.name));
            let at = self.news_line;
            self.note(at, text);
        }
    }

    /// A path as seen from the document root.
    pub(super) fn shown(&self, place: &Place) -> String {
        let root = format!("{}/", self.project.root);
        place.path.strip_prefix(&root).unwrap_or(&place.path).to_owned()
    }

    /// The tables that the loop asks beside the one whose rows it waits for.
    fn other_tables(&self) -> Vec<String> {
        let News::Table(awaited) = &self.news else { return Vec::new() };
        let tables: BTreeSet<String> = self
            .inside()
            .filter_map(|event| match &event.what {
                What::Query { table, writes: false, .. } if table != awaited => Some(table.clone()),
                _ => None,
            })
            .collect();
        tables.into_iter().collect()
    }

    /// The files whose change the loop waits for beside the first.
    fn other_files(&self) -> Vec<Place> {
        let News::File(awaited) = &self.news else { return Vec::new() };
        let looked_at = self.inside().filter_map(|event| match &event.what {
            What::Look(place) if place != awaited => Some(place.clone()),
            _ => None,
        });
        let all: BTreeSet<Place> = looked_at.collect();
        all.into_iter().collect()
    }

    /// The part of the file's name that stands for a parameter that is missing.
    fn usual_name(&self) -> Option<String> {
        let News::File(place) = &self.news else { return None };
        place.open.iter().find_map(|origin| match origin {
            Origin::Instead(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// The parameter that is part of the file's name.
    fn names(&self, questions: &mut Vec<String>) -> Option<(Source, String)> {
        let News::File(place) = &self.news else { return None };
        if !place.has_star() {
            return None;
        }
        let parameters = place.open.iter().filter_map(|origin| match origin {
            Origin::Parameter(source, name) => Some((*source, name.clone())),
            _ => None,
        });
        let found = parameters.clone().next();
        if found.is_none() && place.is_known() {
            questions.push("what is the file's name made of?".to_owned());
        }
        found
    }
}
