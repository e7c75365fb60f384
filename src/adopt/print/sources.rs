//! Where the news of a rule come from: the channel, and the files or requests that feed it.

use super::text::quoted;
use super::{Printer, is_address};
use crate::adopt::judge::{Answer, News, Poll};
use crate::adopt::value::{Origin, Place, Source};

impl Printer<'_> {
    /// Where a poll's news come from; a question if that cannot be told.
    pub(super) fn source(&mut self, poll: &Poll, questions: &mut Vec<String>) -> Feed {
        let content = matches!(poll.answer, Answer::Timestamp(_));
        let mut feed =
            Feed { channel: self.channel(poll), watch: None, captures: Vec::new(), content };
        let file = match &poll.news {
            News::File(place) => Some(place),
            _ => poll.database.as_ref().filter(|place| !place.has_star()),
        };
        if let Some(place) = file.filter(|place| place.is_known()) {
            feed.watch = Some(place.clone());
            return feed;
        }
        feed.captures = self.captures(&poll.news, content);
        questions.push(if feed.captures.is_empty() {
            unfed(&poll.news)
        } else {
            "this version has no [[capture]]: let the site publish with the hook instead".to_owned()
        });
        feed
    }

    fn captures(&self, news: &News, content: bool) -> Vec<Capture> {
        let mut all: Vec<Capture> = Vec::new();
        for writer in self.writers.iter().filter(|writer| same(&writer.news, news)) {
            let (Some((source, name)), true) = (&writer.parameter, writer.routed) else { continue };
            let path = self.project.scripts[writer.entry].path.clone();
            let fits = !content || writer.verbatim;
            if fits && is_address(&path) && all.iter().all(|one| one.path != path) {
                let (post, name) = (*source != Source::Get, name.clone());
                all.push(Capture { path, post, name });
            }
        }
        all
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
            (News::Table(table), None) if !table.is_empty() => table.clone(),
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
        if let Some(place) = &feed.watch {
            let key = format!("{} {}", place.path, feed.content);
            if !self.fed.contains(&key) {
                self.watch(place, feed, poll);
                self.fed.push(key);
            }
        }
        for capture in &feed.captures {
            let key = format!("{} {}", capture.path, feed.channel);
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
        let (method, form) = if capture.post { ("POST", "form") } else { ("GET", "query") };
        self.out.text.push('\n');
        self.out.comment("The site stores it; when it has, the gate tells those who wait.");
        self.out.line("[[capture]]");
        self.out.key("path", &quoted(&capture.path));
        self.out.key("methods", &format!("[\"{method}\"]"));
        self.out.key("channel", &quoted(&feed.channel));
        self.out.key("data", &quoted(&format!("{{{form}.{}}}", capture.name)));
    }
}
/// Where a channel's messages come from.
pub(super) struct Feed {
    pub(super) channel: String,
    watch: Option<Place>,
    captures: Vec<Capture>,
    /// Whether the messages are what was written, not only that something was.
    content: bool,
}

struct Capture {
    path: String,
    post: bool,
    name: String,
}

pub(super) fn same(one: &News, other: &News) -> bool {
    match (one, other) {
        (News::File(one), News::File(other)) => one.path == other.path,
        _ => one == other,
    }
}

fn unfed(news: &News) -> String {
    match news {
        News::File(place) => format!(
            "where is the file {}? Name it in a [[watch]], or let the site publish with the hook",
            place.path
        ),
        News::Table(table) => {
            format!("which script changes the table {table}? Let it publish with the hook")
        }
        News::Cache => {
            "which request changes it? Name it in a [[capture]], or let the site publish \
                        with the hook"
                .to_owned()
        }
    }
}
