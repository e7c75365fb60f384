//! The sources of a rule's news: the channel, and the files or requests that feed it.

use super::text::quoted;
use super::{Printer, is_address};
use crate::adopt::events::Guard;
use crate::adopt::judge::conditions::{name_of, value_of};
use crate::adopt::judge::{Answer, News, Poll, Writer};
use crate::adopt::value::{Origin, Place, Source};

impl Printer<'_> {
    /// The source of a poll's news; a question if it is open.
    pub(super) fn source(&mut self, poll: &Poll, questions: &mut Vec<String>) -> Feed {
        let content = matches!(poll.answer, Answer::Timestamp(_));
        let mut feed = Feed {
            channel: self.channel(poll),
            watches: Vec::new(),
            captures: Vec::new(),
            content,
        };
        let file = match &poll.news {
            News::File(place) => Some(place),
            _ => poll.database.as_ref().filter(|place| !place.has_star()),
        };
        if let Some(place) = file.filter(|place| place.is_known()) {
            feed.watches.push(place.clone());
            for other in &poll.other_files {
                if other.is_known() && (!other.has_star() || poll.names.is_some()) {
                    feed.watches.push(other.clone());
                } else {
                    questions.push(unfed(&News::File(other.clone()), &feed.channel));
                }
            }
            return feed;
        }
        for writer in self.writers.iter().filter(|writer| same(&writer.news, &poll.news)) {
            for capture in self.captures_of(writer, poll) {
                if !feed.captures.contains(&capture) && !is_own(poll, writer, &capture) {
                    feed.captures.push(capture);
                }
            }
        }
        if feed.captures.is_empty() {
            questions.push(unfed(&poll.news, &feed.channel));
        } else {
            questions.extend(self.doubts(poll));
        }
        feed
    }

    /// The requests with which a script changes it, if they are known.
    fn captures_of(&self, writer: &Writer, poll: &Poll) -> Vec<Capture> {
        if matches!(poll.answer, Answer::Timestamp(_)) && !writer.verbatim {
            return Vec::new();
        }
        let known = || writer.parameters.iter().filter(|(source, _)| *source != Source::Cookie);
        // One that no poll bears is in changes alone.
        let own = known().find(|(_, name)| !poll.sent.contains(name));
        let Some((source, name)) = own.or_else(|| known().next()) else { return Vec::new() };
        let known = writer.addresses.iter().filter(|one| is_pattern(&one.path));
        known
            .flat_map(|address| {
                // Either, as the page sends it.
                let sources = match (source, address.source) {
                    (Source::Either, Some(one)) => vec![one],
                    (Source::Either, None) => vec![Source::Post, Source::Get],
                    (one, _) => vec![*one],
                };
                let path = address.path.clone();
                let one = |source| Capture { path: path.clone(), source, name: name.clone() };
                sources.into_iter().map(one).collect::<Vec<_>>()
            })
            .collect()
    }

    /// The reasons for which captured requests may not be all news. Rows of a table are sure: the site
    /// answers, so that all a message has to do is to come.
    fn doubts(&self, poll: &Poll) -> Vec<String> {
        let rows = matches!(&poll.news, News::Table(table) if !table.is_empty());
        if !rows || !matches!(poll.answer, Answer::Replay(_)) {
            return vec![
                "do the requests captured below make all that this poll waits for?".into(),
            ];
        }
        let mut doubts = Vec::new();
        for table in &poll.other_tables {
            doubts.push(format!("it asks the table {table} as well: does it wait for that, too?"));
        }
        let writers = || self.writers.iter().filter(|writer| same(&writer.news, &poll.news));
        let captured: Vec<&Writer> =
            writers().filter(|writer| !self.captures_of(writer, poll).is_empty()).collect();
        for writer in writers() {
            let place = self.place_of(writer.script, writer.line);
            // An act in the same requests as a change that is captured, such as preparing it.
            let together =
                |other: &&Writer| (other.entry, &other.guards) == (writer.entry, &writer.guards);
            if !captured.iter().any(together) {
                doubts.push(format!("with which request does {place} change it?"));
            }
        }
        doubts.dedup();
        doubts
    }

    fn channel(&mut self, poll: &Poll) -> String {
        if let Some((_, channel)) = self.channels.iter().find(|(news, _)| *news == poll.news) {
            return channel.clone();
        }
        let script = self.project.scripts[poll.entry].path.trim_start_matches('/');
        let name = match (&poll.news, &poll.names) {
            (_, Some((Source::Post, name))) => format!("{{form.{name}}}"),
            (_, Some((Source::Cookie, name))) => format!("{{cookie.{name}}}"),
            (_, Some((_, name))) => format!("{{query.{name}}}"),
            (News::File(place), None) if place.is_known() => place.name().replace('*', "_"),
            (News::Session, None) => script.to_owned(),
            (News::Table(table), None) if !table.is_empty() => table.clone(),
            (News::Cache(key), None) if !key.is_empty() => key.clone(),
            _ => script.to_owned(),
        };
        let mut name = if poll.names.is_some() { name } else { name.replace(['{', '}', '*'], "_") };
        if self.channels.iter().any(|(_, taken)| *taken == name) && poll.names.is_none() {
            name = format!("{script} {name}");
        }
        // Longer names are none.
        while name.len() > 200 {
            name.pop();
        }
        self.channels.push((poll.news.clone(), name.clone()));
        name
    }

    pub(super) fn feed(&mut self, poll: &Poll, feed: &Feed) {
        for place in &feed.watches {
            let key = format!("{} {}", place.path, feed.content);
            if !self.fed.contains(&key) {
                self.watch(place, feed, poll);
                self.fed.push(key);
            }
        }
        for capture in &feed.captures {
            let Capture { path, name, .. } = capture;
            let key = format!("{path} {name} {:?} {}", capture.source, feed.channel);
            if !self.fed.contains(&key) {
                self.capture(capture, feed);
                self.fed.push(key);
            }
        }
    }

    fn watch(&mut self, place: &Place, feed: &Feed, poll: &Poll) {
        self.out.text.push('\n');
        for origin in &place.open {
            if let Origin::Environment(name) = origin {
                self.out.comment(&format!("Unless {name} is set in PHP's environment."));
            }
        }
        self.out.line("[[watch]]");
        self.out.key("path", &quoted(&place.path));
        let named = poll.names.is_some() || poll.answer == Answer::NovComet;
        let channel = if named && place.has_star() { "{1}" } else { &feed.channel };
        self.out.key("channel", &quoted(channel));
        self.out.key("content", if feed.content { "true" } else { "false" });
    }

    fn capture(&mut self, capture: &Capture, feed: &Feed) {
        let (method, form) = match capture.source {
            Source::Get => ("GET", "query"),
            Source::Path => ("POST", "path"),
            Source::Json => ("POST", "json"),
            _ => ("POST", "form"),
        };
        self.out.text.push('\n');
        self.out.comment("The site stores it; when it has, the gate releases the polls.");
        self.out.line("[[capture]]");
        self.out.key("path", &quoted(&capture.path));
        self.out.key("methods", &format!("[\"{method}\"]"));
        self.out.key("channel", &quoted(&feed.channel));
        self.out.key("data", &quoted(&format!("{{{form}.{}}}", capture.name)));
        if !feed.content {
            self.out.comment("Also where a form is answered with a redirect.");
            self.out.key("on", "\"2xx,3xx\"");
        }
    }
}
/// The source of a channel's messages.
pub(super) struct Feed {
    pub(super) channel: String,
    watches: Vec<Place>,
    captures: Vec<Capture>,
    /// True if the messages are what was written, not only that something was.
    content: bool,
}

#[derive(PartialEq)]
struct Capture {
    path: String,
    source: Source,
    name: String,
}

/// True if requests at the path can be captured: all of it is known, or its parts between slashes.
fn is_pattern(path: &str) -> bool {
    is_address(&path.replace("/*", "/"))
}

/// True if a poll would be captured as a change of what it waits for.
fn is_own(poll: &Poll, writer: &Writer, capture: &Capture) -> bool {
    let other_request = writer.guards.iter().any(|guard| match guard {
        Guard::Is(_, name, value) => poll
            .conditions
            .when
            .iter()
            .any(|one| name_of(one) == name && value_of(one).is_some_and(|here| here != value)),
        Guard::Method(_) | Guard::NotMethod(_) => true,
        _ => false,
    });
    poll.sent.contains(&capture.name)
        && poll.addresses.iter().any(|address| address.path == capture.path)
        && !poll.conditions.unless.iter().any(|one| name_of(one) == capture.name)
        && !other_request
}

/// True if both are the same news, whatever is known of how their file is named.
pub(super) fn same(one: &News, other: &News) -> bool {
    match (one, other) {
        (News::File(one), News::File(other)) => one.path == other.path,
        _ => one == other,
    }
}

fn unfed(news: &News, channel: &str) -> String {
    match news {
        News::File(place) => format!(
            "where is the file {}? Name it in a [[watch]], or let the site publish with the hook",
            place.path
        ),
        News::Session => {
            "which script changes the session? Let it publish with the hook".to_owned()
        }
        News::Table(table) => {
            format!("which script changes the table {table}? Let it publish with the hook")
        }
        News::Cache(key) => {
            let address = format!(
                "http://127.0.0.1:7080/channels/{}",
                percent_encoding::utf8_percent_encode(channel, percent_encoding::NON_ALPHANUMERIC)
            );
            format!(
                "which script sets the key {key}? Put this line behind it: \
                 file_get_contents('{address}', false, stream_context_create(['http' => \
                 ['method' => 'POST', 'content' => '']]));"
            )
        }
    }
}
