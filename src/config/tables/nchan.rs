//! The keys of Nchan: a poll rule's own, and `[[nchan]]`, its publishers.

use crate::config::read::section::Section;
use crate::config::read::values;
use crate::hub::channel::SiteName;
use crate::protocol::dialect::nchan::{Batch, First, Nchan};
use crate::protocol::http::path::PathPattern;
use crate::protocol::template::{Field, Template};
use crate::server::publish::nchan::Rule;
use std::sync::Arc;

/// The dialect of a poll rule.
pub(super) fn dialect(section: &mut Section, path: Option<&PathPattern>) -> Nchan {
    let channel = section.optional("channel", values::channel);
    needs_channel(section, channel.as_ref(), path);
    let show = |first: &First| match first {
        First::Oldest => "oldest".into(),
        First::Newest => "newest".into(),
        First::Nth(n) => i64::from(*n).into(),
    };
    let batches = [("multipart", Batch::Multipart), ("raw", Batch::Raw)];
    Nchan {
        channel,
        group: section.optional("group", group),
        first: section.word_or_number("first", First::default(), first, show),
        interval: section.flag("interval", false),
        batch: section.has("batch").then(|| section.choice("batch", Batch::Multipart, &batches)),
        existing_only: section.flag("existing_only", false),
    }
}

fn first(text: &str) -> Result<First, String> {
    match text {
        "oldest" => Ok(First::Oldest),
        "newest" => Ok(First::Newest),
        number => number.parse().map(First::Nth).map_err(|_| {
            format!("\"{number}\" is none of oldest, newest or a number such as 1 or -1")
        }),
    }
}

/// The name of a group: all of its channels' names begin with it.
fn group(text: &str) -> Result<String, String> {
    let plain = |c: char| !c.is_control() && c != ',';
    match !text.is_empty() && text.len() <= 128 && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("must be 1 to 128 bytes without commas and control characters".to_owned()),
    }
}

/// Reads the `[[nchan]]` of a site.
pub(in crate::config) fn rules(section: &mut Section, site: &SiteName) -> Vec<Arc<Rule>> {
    let rules = section.tables("nchan", |section| rule(section, site));
    rules.into_iter().flatten().map(Arc::new).collect()
}

/// `None` is a mistake.
fn rule(section: &mut Section, site: &SiteName) -> Option<Rule> {
    let path = section.required("path", "write the path that publishers use", values::path);
    if let Some(path) = path.as_ref().filter(|path| is_taken(path)) {
        let message = format!("\"{path}\" has paths that the internal listener uses itself");
        section.mistake("path", message);
    }
    let channel = section.optional("channel", values::channel);
    needs_channel(section, channel.as_ref(), path.as_ref());
    for field in channel.iter().flat_map(Template::fields) {
        let stars = path.as_ref().map_or(0, PathPattern::stars);
        let message = match field {
            Field::Path(n) if *n > stars && section.is_sound("path") => {
                format!("{{path.{n}}} wants {n} * in the path, which has {stars}")
            }
            Field::Form(_) | Field::Json(_) | Field::ResponseBody => {
                "the body is the message; take the channel from path, query or header".to_owned()
            }
            _ => continue,
        };
        section.mistake("channel", message);
    }
    let group = section.optional("group", group);
    Some(Rule { site: site.clone(), path: path?, channel, group })
}

fn needs_channel(section: &Section, channel: Option<&Template>, path: Option<&PathPattern>) {
    if channel.is_none() && path.is_some_and(|path| !path.has_rest()) && section.is_sound("channel")
    {
        let message = "missing; end the path in * (the channels stand there), or name the channel";
        section.mistake("channel", message);
    }
}

/// True if the pattern matches a path of the internal listener's own.
fn is_taken(path: &PathPattern) -> bool {
    const OWN: [&str; 11] = [
        "/",
        "/publish",
        "/channels",
        "/channels/a",
        "/channels/a/messages",
        "/grants",
        "/status",
        "/config",
        "/reload",
        "/metrics",
        "/healthz",
    ];
    OWN.iter().any(|own| path.matches(own))
}
