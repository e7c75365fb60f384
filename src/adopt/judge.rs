//! What a script is, by what it does: whether it waits for news, on what, how it answers, and so
//! which rule takes its place at the gate.

use super::project::Project;
use super::value::{Origin, Piece, Place, Source, Value};
use super::walk::{Event, Guard, Walked, What};
use std::collections::BTreeSet;

/// Something seen at a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Note {
    pub(super) script: usize,
    pub(super) line: u32,
    pub(super) text: String,
}

/// What a poll waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum News {
    /// That a file changes.
    File(Place),
    /// That a table has new rows.
    Table(String),
    /// That a cache or queue has something.
    Cache,
}

/// How the gate can answer it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    NovComet,
    Timestamp(Shape),
    /// The site answers, for this reason.
    Replay(String),
}

/// The answer of the timestamp dialect.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Shape {
    pub(super) message: String,
    pub(super) cursor: String,
    pub(super) extra: Vec<(String, String)>,
    pub(super) millis: bool,
    /// A poll without a cursor waits.
    pub(super) waits_first: bool,
    pub(super) callback: Option<String>,
    pub(super) content_type: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Poll {
    pub(super) entry: usize,
    /// The loop.
    pub(super) script: usize,
    pub(super) line: u32,
    /// `None`: a framework decides at which address this method is.
    pub(super) method: Option<String>,
    pub(super) news: News,
    pub(super) answer: Answer,
    pub(super) when: Vec<String>,
    pub(super) unless: Vec<String>,
    /// `None` = GET and POST.
    pub(super) methods: Option<Source>,
    /// How long PHP waits, in seconds; `None` = for ever, or not known.
    pub(super) wait: Option<f64>,
    /// The parameter with which a client shortens that.
    pub(super) wait_parameter: Option<String>,
    /// The file that is the database.
    pub(super) database: Option<Place>,
    /// The parameter that names the file.
    pub(super) names: Option<(Source, String)>,
    pub(super) notes: Vec<Note>,
    /// What has to be answered before the rule is good.
    pub(super) questions: Vec<String>,
}

/// A request that changes what polls wait for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Writer {
    pub(super) entry: usize,
    pub(super) routed: bool,
    pub(super) script: usize,
    pub(super) line: u32,
    pub(super) news: News,
    /// The parameter without which it writes nothing, or else what it writes.
    pub(super) parameter: Option<(Source, String)>,
    /// Whether just that parameter is written.
    pub(super) verbatim: bool,
}

/// The polls of one script.
pub(super) fn polls(
    project: &Project,
    entry: usize,
    method: Option<&str>,
    walked: &Walked,
) -> Vec<Poll> {
    let mut waiting: Vec<usize> = Vec::new();
    for event in &walked.events {
        if let (What::Sleep(_), Some(around)) = (&event.what, event.loops.last())
            && !waiting.contains(around)
        {
            waiting.push(*around);
        }
    }
    let poll = |around: &usize| Seen::new(project, entry, walked, *around)?.poll(method);
    waiting.iter().filter_map(poll).collect()
}

/// What one script writes.
pub(super) fn writers(entry: usize, routed: bool, walked: &Walked) -> Vec<Writer> {
    let writer = |event: &Event| {
        let (news, content) = match &event.what {
            What::Write(place, content) => (News::File(place.clone()), content.clone()),
            What::Touch(place) => (News::File(place.clone()), Value::default()),
            What::Query { table, writes: true, from } => (News::Table(table.clone()), from.clone()),
            _ => return None,
        };
        let guarded = event.guards.iter().find_map(|guard| match guard {
            Guard::Present(source, name) => Some((*source, name.clone())),
            _ => None,
        });
        let mut written = content.parameters().map(|(source, name)| (source, name.to_owned()));
        let (first, second) = (written.next(), written.next());
        let verbatim = content.pieces.is_none()
            && second.is_none()
            && first.is_some()
            && content.origins.len() == 1;
        let parameter = if verbatim { first } else { guarded.or(first) };
        let (script, line) = (event.script, event.line);
        Some(Writer { entry, routed, script, line, news, parameter, verbatim })
    };
    walked.events.iter().filter_map(writer).collect()
}

/// One waiting loop and what belongs to it.
struct Seen<'a> {
    project: &'a Project,
    entry: usize,
    walked: &'a Walked,
    around: usize,
    /// The guards at the loop.
    guards: &'a [Guard],
    news: News,
    news_line: (usize, u32),
    notes: Vec<Note>,
}

impl<'a> Seen<'a> {
    fn new(project: &'a Project, entry: usize, walked: &'a Walked, around: usize) -> Option<Self> {
        let inside = || walked.events.iter().filter(|event| event.loops.contains(&around));
        let of = |event: &'a Event| match &event.what {
            What::Look(place) => Some((0, News::File(place.clone()), event)),
            What::Query { table, writes: false, .. } => {
                Some((1, News::Table(table.clone()), event))
            }
            What::Cache => Some((2, News::Cache, event)),
            What::Read(place) => Some((3, News::File(place.clone()), event)),
            _ => None,
        };
        let (_, news, event) = inside().filter_map(of).min_by_key(|(rank, _, _)| *rank)?;
        let guards = &inside().find(|event| matches!(event.what, What::Sleep(_)))?.guards;
        let news_line = (event.script, event.line);
        let notes = Vec::new();
        Some(Self { project, entry, walked, around, guards, news, news_line, notes })
    }

    fn inside(&self) -> impl Iterator<Item = &'a Event> {
        let around = self.around;
        self.walked.events.iter().filter(move |event| event.loops.contains(&around))
    }

    /// What can happen in the same request as the loop.
    fn beside(&self) -> impl Iterator<Item = &'a Event> {
        let guards = self.guards;
        let fits = move |event: &&Event| {
            !event.guards.iter().any(|one| guards.iter().any(|other| contradict(one, other)))
        };
        self.walked.events.iter().filter(fits)
    }

    fn note(&mut self, (script, line): (usize, u32), text: impl Into<String>) {
        self.notes.push(Note { script, line, text: text.into() });
    }

    fn poll(mut self, method: Option<&str>) -> Option<Poll> {
        let echoed = Value::join(self.beside().filter_map(|event| match &event.what {
            What::Echo(value) => Some(value.clone()),
            _ => None,
        }));
        let cursor = self.cursor();
        let json = json_in(&echoed);
        // A loop that waits for something else, as for a lock: it answers no question.
        let looks = cursor.is_some() && self.tells_of_the_file(&echoed);
        if !looks && (json.is_none() || self.parameters().is_empty()) {
            return None;
        }
        let around = &self.walked.loops[self.around];
        let (script, line) = (around.script, around.line);
        self.describe(script, line, cursor.as_ref());
        let (wait, wait_parameter) = self.wait();
        let mut questions = Vec::new();
        if method.is_some() {
            questions.push("at which address does the framework call this method?".to_owned());
        }
        let (when, unless, methods) = self.conditions(cursor.as_ref(), &mut questions);
        let answer = self.answer(cursor.as_ref(), json.as_ref(), &echoed);
        let names = self.names(&mut questions);
        let database = self.walked.events.iter().find_map(|event| match &event.what {
            What::Database(place) => Some(((event.script, event.line), place.clone())),
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
            news: self.news,
            answer,
            when,
            unless,
            methods,
            wait,
            wait_parameter,
            database,
            names,
            notes: self.notes,
            questions,
        })
    }

    /// The parameters of the request that the loop has to do with.
    fn parameters(&self) -> BTreeSet<(Source, String)> {
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

    /// Whether what is printed has to do with the file that the loop looks at.
    fn tells_of_the_file(&self, echoed: &Value) -> bool {
        let News::File(place) = &self.news else { return false };
        echoed.all_origins().iter().any(|origin| match origin {
            Origin::ChangeTime(other) | Origin::State(other) | Origin::Content(other) => {
                other == place
            }
            _ => false,
        })
    }

    /// What the client sends to be compared with the file's time, and the comparison's values.
    fn cursor(&self) -> Option<(Source, String, Value)> {
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
            Some((source, name.to_owned(), other.clone()))
        })
    }

    fn describe(&mut self, script: usize, line: u32, cursor: Option<&(Source, String, Value)>) {
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
            News::Cache => "something in a cache or queue".to_owned(),
        };
        self.note((script, line), format!("waits for {what}{pause}"));
        if let Some((source, name, _)) = cursor {
            let text = format!("compares it with {}", parameter(*source, name));
            let at = self.news_line;
            self.note(at, text);
        }
    }

    /// A path as seen from the document root.
    fn shown(&self, place: &Place) -> String {
        let root = format!("{}/", self.project.root);
        place.path.strip_prefix(&root).unwrap_or(&place.path).to_owned()
    }

    /// How long the loop goes on: so many tries, or until a time.
    fn wait(&self) -> (Option<f64>, Option<String>) {
        let direct = || self.inside().filter(|event| event.loops.last() == Some(&self.around));
        let pause: f64 = direct()
            .filter_map(|event| match event.what {
                What::Sleep(pause) => pause,
                _ => None,
            })
            .sum();
        let mut wait_parameter = None;
        let wait = direct().find_map(|event| {
            let What::Compare(sign, left, right) = &event.what else { return None };
            let (small, large) = match *sign {
                "<" | "<=" => (left, right),
                ">" | ">=" => (right, left),
                _ => return None,
            };
            let clock = |value: &Value| value.has(|origin| *origin == Origin::Clock);
            if clock(small) || clock(large) {
                let limit = if clock(small) { large } else { small };
                let later = large.origins.iter().find_map(|origin| match origin {
                    Origin::Later(seconds) => Some(f64::from(*seconds)),
                    _ => None,
                });
                if later.is_some() {
                    return later;
                }
                wait_parameter = wait_parameter
                    .take()
                    .or_else(|| limit.parameters().next().map(|(_, name)| name.to_owned()));
                return limit.number().filter(|seconds| *seconds < 100_000.0);
            }
            Some((large.number()? - small.number()?) * pause)
        });
        (wait.filter(|wait| *wait >= 1.0), wait_parameter)
    }

    fn conditions(
        &mut self,
        cursor: Option<&(Source, String, Value)>,
        questions: &mut Vec<String>,
    ) -> (Vec<String>, Vec<String>, Option<Source>) {
        let (mut when, mut unless) = (Vec::new(), Vec::new());
        let mut methods = cursor.map(|(source, _, _)| *source);
        for guard in self.guards {
            match guard {
                Guard::Present(_, name) => when.push(name.clone()),
                Guard::Absent(_, name) => unless.push(name.clone()),
                Guard::Is(name, value) => {
                    when.push(name.clone());
                    questions.push(format!(
                        "it waits only where {name} is {value}, and the gate does not look at \
                         values: do other requests with {name} come to this script?"
                    ));
                }
                Guard::Method(name) if name == "POST" => methods = Some(Source::Post),
                Guard::NotMethod(name) if name == "POST" => methods = Some(Source::Get),
                Guard::Method(_) => methods = Some(Source::Get),
                Guard::IsNot(..) | Guard::NotMethod(_) => {}
            }
        }
        // A request that writes is the site's, also where the script would wait after it.
        let mut stored = Vec::new();
        for event in &self.walked.events {
            let writes = match &event.what {
                What::Write(..) | What::Touch(_) => true,
                What::Query { writes, .. } => *writes,
                _ => false,
            };
            for guard in event.guards.iter().filter(|_| writes) {
                if let Guard::Present(source, name) = guard {
                    stored.push(((event.script, event.line), *source, name.clone()));
                }
            }
        }
        for (at, source, name) in stored {
            if cursor.is_none_or(|(_, cursor, _)| *cursor != name) && !when.contains(&name) {
                self.note(at, format!("with {} it writes instead", parameter(source, &name)));
                unless.push(name);
            }
        }
        for list in [&mut when, &mut unless] {
            let mut seen = BTreeSet::new();
            list.retain(|name| seen.insert(name.clone()));
        }
        let methods = methods.filter(|source| matches!(source, Source::Get | Source::Post));
        (when, unless, methods)
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

    fn answer(
        &mut self,
        cursor: Option<&(Source, String, Value)>,
        json: Option<&Value>,
        echoed: &Value,
    ) -> Answer {
        let Some(json) = json else { return Answer::Replay("its answer is no JSON".to_owned()) };
        let at = self.echo_line();
        let names: Vec<&str> = json.fields.iter().map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            self.note(at, format!("answers with the fields {}", names.join(", ")));
        }
        let session = self.beside().find(|event| matches!(event.what, What::Session));
        let session = session.map(|event| (event.script, event.line));
        if let Some(at) = session {
            self.note(at, "opens the visitor's session");
            return Answer::Replay("the session may decide who may read it".to_owned());
        }
        let subscribed = cursor.is_some_and(|(_, name, _)| name == "subscribed");
        let listed = matches!(&self.news, News::File(place) if place.has_star());
        if subscribed && listed && names.contains(&"s") && names.contains(&"k") {
            return Answer::NovComet;
        }
        match self.shape(cursor, json, echoed) {
            Ok(shape) => Answer::Timestamp(shape),
            Err(why) => Answer::Replay(why),
        }
    }

    /// Where the answer is written.
    fn echo_line(&self) -> (usize, u32) {
        let json = |event: &&Event| match &event.what {
            What::Echo(value) => json_in(value).is_some(),
            _ => false,
        };
        let event = self.beside().find(json);
        event.map_or(self.news_line, |event| (event.script, event.line))
    }

    /// The answer as the timestamp dialect gives it, or why it cannot.
    fn shape(
        &mut self,
        cursor: Option<&(Source, String, Value)>,
        json: &Value,
        echoed: &Value,
    ) -> Result<Shape, String> {
        let News::File(place) = &self.news else {
            return Err("what is new stands in a database".to_owned());
        };
        let Some((_, cursor, compared)) = cursor else {
            return Err("no parameter was found that is compared with the file's time".to_owned());
        };
        let mut shape = Shape { cursor: cursor.clone(), ..Shape::default() };
        shape.waits_first = compared.has(|origin| *origin == Origin::Clock);
        let mut stamp = None;
        for (name, value) in &json.fields {
            let has = |wanted: fn(&Origin) -> bool| value.has(wanted);
            let content = Origin::Content(place.clone());
            if value.fields.is_empty() && value.entry.is_none() && value.origins.contains(&content)
            {
                if has(|origin| matches!(origin, Origin::Changed | Origin::Decoded)) {
                    return Err(format!("{name} is not the file's text as it is"));
                }
                if !shape.message.is_empty() {
                    return Err(format!("{} and {name} both hold the file's text", shape.message));
                }
                shape.message = name.clone();
            } else if has(|origin| matches!(origin, Origin::ChangeTime(_))) {
                shape.millis = has(|origin| *origin == Origin::Thousandfold);
                stamp = Some(name.clone());
            } else if let Some(constant) = constant_json(value) {
                shape.extra.push((name.clone(), constant));
            } else {
                return Err(format!("the field {name} is made by PHP"));
            }
        }
        if shape.message.is_empty() {
            return Err("no field of the answer holds the file's text as it is".to_owned());
        }
        match stamp {
            None => return Err("no field of the answer holds the file's time".to_owned()),
            Some(stamp) if stamp != *cursor => {
                return Err(format!("the time comes as {stamp} and is sent back as {cursor}"));
            }
            Some(_) => {}
        }
        shape.callback = callback(echoed);
        shape.content_type = self.content_type(shape.callback.is_some());
        Ok(shape)
    }

    fn content_type(&mut self, jsonp: bool) -> Option<String> {
        let (at, found) = self.beside().find_map(|event| {
            let What::Header(text) = &event.what else { return None };
            let text = text.constant()?;
            let (name, value) = text.split_once(':')?;
            let content_type = name.trim().eq_ignore_ascii_case("content-type");
            content_type.then(|| ((event.script, event.line), value.trim().to_owned()))
        })?;
        self.note(at, format!("answers as {found}"));
        let usual = if jsonp { "javascript" } else { "text/html" };
        (!found.contains(usual)).then_some(found)
    }
}

/// All JSON in what a script prints, taken together.
fn json_in(value: &Value) -> Option<Value> {
    let inside = value.pieces.iter().flatten().filter_map(|piece| match piece {
        Piece::Json(inside) => Some(inside.as_ref().clone()),
        _ => None,
    });
    inside.reduce(Value::or)
}

/// `$_GET['callback'] . '(' . json_encode(...)`.
fn callback(echoed: &Value) -> Option<String> {
    let pieces = echoed.pieces.as_ref()?;
    pieces.windows(3).find_map(|three| match three {
        [Piece::Open(origins), Piece::Text(between), Piece::Json(_)] if between.contains('(') => {
            origins.iter().find_map(|origin| match origin {
                Origin::Parameter(_, name) => Some(name.clone()),
                _ => None,
            })
        }
        _ => None,
    })
}

/// A constant as JSON.
fn constant_json(value: &Value) -> Option<String> {
    if !value.origins.is_empty() || !value.fields.is_empty() || value.entry.is_some() {
        return None;
    }
    match value.pieces.as_deref()? {
        [Piece::Bare(bare)] => Some(bare.clone()),
        _ => serde_json::to_string(&value.constant()?).ok(),
    }
}

fn contradict(one: &Guard, other: &Guard) -> bool {
    use Guard::{Absent, Is, IsNot, Method, NotMethod, Present};
    match (one, other) {
        (Present(_, a), Absent(_, b)) | (Absent(_, a), Present(_, b)) => a == b,
        (Is(a, x), Is(b, y)) => a == b && x != y,
        (Is(a, x), IsNot(b, y)) | (IsNot(a, x), Is(b, y)) => a == b && x == y,
        (Is(a, _), Absent(_, b)) | (Absent(_, a), Is(b, _)) => a == b,
        (Method(a), Method(b)) => a != b,
        (Method(a), NotMethod(b)) | (NotMethod(a), Method(b)) => a == b,
        _ => false,
    }
}

/// A parameter, as PHP reads it.
pub(super) fn parameter(source: Source, name: &str) -> String {
    match source {
        Source::Get => format!("?{name}="),
        Source::Post => format!("{name}= of the form"),
        Source::Either => format!("{name}="),
        Source::Cookie => format!("the cookie {name}"),
    }
}
