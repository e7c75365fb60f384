//! Findings about a script by its acts: the news it waits for, its answer, and so the rule that
//! takes its place at the gate.
//!
//! Here are the findings, a [`Poll`] and a [`Writer`]. Each waiting loop is looked at in `waiting`,
//! the requests that come to it in `conditions`, and their answer in `answer`.

mod answer;
pub(super) mod conditions;
mod duration;
mod obstacles;
mod waiting;

use super::events::{Event, Guard, Walked, What};
use super::project::Project;
use super::routes::Address;
use super::value::{Place, Source, Value};
use conditions::Conditions;
use std::collections::BTreeSet;
use waiting::WaitingLoop;

/// Something seen at a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Note {
    pub(super) script: usize,
    pub(super) line: u32,
    pub(super) text: String,
}

/// The news that a poll waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum News {
    /// That a file changes.
    File(Place),
    /// That a table has new rows.
    Table(String),
    /// That a cache or queue has something; the key, as far as it is constant.
    Cache(String),
    /// Something in the visitor's session.
    Session,
}

/// The way in which the gate answers a poll.
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
    /// The script answers at its timeout as if there were news.
    pub(super) latest: bool,
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
    /// A framework calls this method.
    pub(super) method: Option<String>,
    /// The addresses at which it is requested; none = the framework decides, and was not understood.
    pub(super) addresses: Vec<Address>,
    /// The parameter that says what the client has.
    pub(super) cursor: Option<String>,
    /// The answer without news, where that is constant.
    pub(super) on_timeout: Option<String>,
    /// The line of PHP without which the gate cannot take the waiting over.
    pub(super) needs: Option<String>,
    /// The reason for which the gate cannot take it over at all.
    pub(super) cannot: Option<String>,
    pub(super) news: News,
    /// Further tables that the loop asks.
    pub(super) other_tables: Vec<String>,
    /// Further files whose change it waits for.
    pub(super) other_files: Vec<Place>,
    pub(super) answer: Answer,
    /// The requests that come to the loop.
    pub(super) conditions: Conditions,
    /// The names of all parameters that its requests bear.
    pub(super) sent: BTreeSet<String>,
    /// `None` = GET and POST.
    pub(super) methods: Option<Source>,
    /// True if a poll without a cursor waits as well.
    pub(super) waits_first: bool,
    /// The content type of `on_timeout`, if it is not PHP's own.
    pub(super) content_type: Option<String>,
    /// The longest pause between two looks, in seconds.
    pub(super) pause: Option<f64>,
    /// The time for which PHP waits, in seconds; `None` = for ever, or not known.
    pub(super) wait: Option<f64>,
    /// The parameter with which a client shortens that.
    pub(super) wait_parameter: Option<String>,
    /// The file that is the database.
    pub(super) database: Option<Place>,
    /// The parameter that names the file.
    pub(super) names: Option<(Source, String)>,
    /// The name without that parameter.
    pub(super) usual_name: Option<String>,
    pub(super) notes: Vec<Note>,
    /// The questions that have to be answered before the rule is good.
    pub(super) questions: Vec<String>,
}

/// A request that changes what polls wait for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Writer {
    pub(super) entry: usize,
    pub(super) addresses: Vec<Address>,
    pub(super) script: usize,
    pub(super) line: u32,
    pub(super) news: News,
    /// The parameters without which it writes nothing, then those that it writes.
    pub(super) parameters: Vec<(Source, String)>,
    /// True if just one parameter is written.
    pub(super) verbatim: bool,
    /// The properties of the requests that come to it.
    pub(super) guards: Vec<Guard>,
}

/// The polls of one script.
pub(super) fn polls(
    project: &Project,
    entry: usize,
    method: Option<&str>,
    addresses: &[Address],
    walked: &Walked,
) -> Vec<Poll> {
    let mut waiting: Vec<usize> = Vec::new();
    for event in &walked.events {
        let Some(around) = event.loops.last() else { continue };
        let waits = match event.what {
            What::Sleep(_) => true,
            // Without a pause, as fast as the machine goes.
            What::Clear => walked.loops[*around].endless,
            _ => false,
        };
        if waits && !waiting.contains(around) {
            waiting.push(*around);
        }
    }
    let poll =
        |around: &usize| WaitingLoop::new(project, entry, walked, *around)?.poll(method, addresses);
    waiting.iter().filter_map(poll).collect()
}

/// The writing requests of one script.
pub(super) fn writers(entry: usize, addresses: &[Address], walked: &Walked) -> Vec<Writer> {
    let writer = |event: &Event| {
        let (news, content) = match &event.what {
            What::Write(place, content) => (News::File(place.clone()), content.clone()),
            What::Touch(place) => (News::File(place.clone()), Value::default()),
            What::Query { table, writes: true, presence: false, from } => {
                (News::Table(table.clone()), from.clone())
            }
            _ => return None,
        };
        let owned = |(source, name): (Source, &str)| (source, name.to_owned());
        let written: Vec<(Source, String)> = content.parameters().map(owned).collect();
        let verbatim = content.pieces.is_none() && written.len() == 1 && content.origins.len() == 1;
        let guarded = event.guards.iter().filter_map(Guard::required).map(owned);
        let mut parameters = if verbatim { Vec::new() } else { guarded.collect() };
        parameters.extend(written);
        let (script, line) = event.at();
        let guards = event.guards.clone();
        let addresses = addresses.to_vec();
        Some(Writer { entry, addresses, script, line, news, parameters, verbatim, guards })
    };
    walked.events.iter().filter_map(writer).collect()
}

/// A parameter, as PHP reads it.
pub(super) fn parameter(source: Source, name: &str) -> String {
    match source {
        Source::Get => format!("?{name}="),
        Source::Post => format!("{name}= of the form"),
        Source::Either => format!("{name}="),
        Source::Cookie => format!("the cookie {name}"),
        Source::Json => format!("{name} of a JSON body"),
        Source::Path => format!("part {name} of the address"),
    }
}
