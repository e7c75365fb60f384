//! `[[watch]]`: one rule.

use crate::config::read::section::Section;
use crate::hub::channel::SiteName;
use crate::server::publish::watch::{ChannelOf, FilePattern, Rule};

/// Reads a rule of `site`; `None` is a mistake.
pub(in crate::config) fn rule(section: &mut Section, site: &SiteName) -> Option<Rule> {
    let hint = "write the files the site writes, such as \"/dev/shm/*.comet\"";
    let files = section.required("path", hint, files);
    let channel = channel(section, files.as_ref());
    let content = section.flag("content", false);
    Some(Rule { files: files?, channel: channel?, site: site.clone(), content })
}

fn files(text: &str) -> Result<FilePattern, String> {
    text.parse().map_err(|error| format!("\"{}\" {error}", text.escape_debug()))
}

fn channel(section: &mut Section, files: Option<&FilePattern>) -> Option<ChannelOf> {
    let parse = |text: &str| text.parse::<ChannelOf>().map_err(|e| format!("\"{text}\": {e}"));
    let hint = "write the channel's name; {1} is what the * of the path stands for";
    let channel = section.required("channel", hint, parse)?;
    if channel.has_field() && files.is_some_and(|files| !files.has_star()) {
        section.mistake("channel", "{1} wants a * in the path, which has none");
    }
    Some(channel)
}
